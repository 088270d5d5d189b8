//! embassy's executor, which firmware uses, on a thread.

use core::hint::black_box;
use std::thread;

use embassy_executor::Executor;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::channel::Channel;
use embassy_sync::signal::Signal;
use picoprof_std::Traced;

use crate::seen::{alone, goroutines, profile, samples, until};
use crate::waits;

static SIGNAL: Signal<CriticalSectionRawMutex, ()> = Signal::new();
static CHANNEL: Channel<CriticalSectionRawMutex, (), 1> = Channel::new();

async fn in_embassy_signal() {
    SIGNAL.wait().await;
    black_box(1);
}

async fn in_embassy_channel() {
    CHANNEL.receive().await;
    black_box(2);
}

#[embassy_executor::task]
async fn has_signal() {
    picoprof_std::task("signal", in_embassy_signal()).await;
}

#[embassy_executor::task]
async fn has_channel() {
    picoprof_std::task("channel", in_embassy_channel()).await;
}

#[embassy_executor::task(pool_size = 32)]
async fn has_another(task: Traced<waits::Future>) {
    task.await;
}

#[test]
fn embassy() {
    let _alone = alone();
    let mut functions = vec!["in_embassy_signal", "in_embassy_channel"];
    let mut releases: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    let mut tasks = Vec::new();
    for waiting in waits::all() {
        functions.push(waiting.function);
        releases.push(waiting.release);
        tasks.push(waiting.task);
    }
    // It runs for ever.
    thread::spawn(move || {
        let executor: &'static mut Executor = Box::leak(Box::new(Executor::new()));
        executor.run(|spawner| {
            spawner.spawn(has_signal().expect("it is the first"));
            spawner.spawn(has_channel().expect("it is the first"));
            for task in tasks {
                spawner.spawn(has_another(task).expect("there is room"));
            }
        })
    });
    let count = |count: i64| {
        let samples = samples(&profile("goroutine"));
        let those = functions
            .iter()
            .filter(|function| goroutines(&samples, function, None) == count);
        those.count() == functions.len()
    };
    until("all wait", || count(1));
    for _ in 0..20 {
        assert!(count(1));
    }
    let leaked = profile("goroutineleak");
    assert!(leaked.sample.is_empty(), "{:#?}", samples(&leaked));
    SIGNAL.signal(());
    CHANNEL.try_send(()).expect("there is room for one");
    releases.into_iter().for_each(|release| release());
    until("all are gone", || count(0));
}
