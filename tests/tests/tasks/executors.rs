//! Every executor: a task that waits is found where it waits, every time, until it is over.

use core::future::Future;
use core::net::Ipv4Addr;
use core::pin::pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::task::Wake;
use std::thread::{self, JoinHandle, Thread};
use std::time::Instant;

use futures::task::LocalSpawnExt;
use picoprof_std::Traced;

use crate::seen::{Place, Sample, alone, goroutines, is_on, profile, samples, total, until};
use crate::waits::{self, Waiting};

/// How often it is looked for.
const LOOKS: usize = 20;

/// How long they wait at least.
const WAIT: Duration = Duration::from_millis(50);

/// Checks the tasks that `run` has taken to where they wait.
#[track_caller]
fn check(
    waiting: Vec<Waiting>,
    run: impl FnOnce(Vec<Traced<waits::Future>>) -> Vec<JoinHandle<()>>,
) {
    let block_before = samples(&profile("block?all=1"));
    let begun = Instant::now();
    let (mut tasks, mut releases, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for waiting in waiting {
        places.push((waiting.function, waiting.line()));
        tasks.push(waiting.task);
        releases.push(waiting.release);
    }
    let expected = places.len();
    let threads = run(tasks);
    until("all wait", || {
        let samples = samples(&profile("goroutine"));
        let wait = |(function, _): &&(&str, i64)| goroutines(&samples, function, None) == 1;
        places.iter().filter(wait).count() == expected
    });
    let all_wait = Instant::now();
    for _ in 0..LOOKS {
        let samples = samples(&profile("goroutine"));
        for &(function, line) in &places {
            let found = goroutines(&samples, function, Some(line));
            assert_eq!(found, 1, "{function}, line {line}: {samples:#?}");
            // It ends where the executor's part begins.
            let is_its = |(places, _): &&Sample| is_on(places, function);
            let (places, _) = samples.iter().find(is_its).expect("it is there");
            let others = ["Traced", "block_on", "picoprof._StackBroken"];
            let is_other = |place: &&Place| others.iter().any(|other| place.0.contains(other));
            assert_eq!(places.iter().find(is_other), None, "{places:#?}");
        }
    }
    let leaked = samples(&profile("goroutineleak"));
    for (function, _) in &places {
        assert_eq!(
            goroutines(&leaked, function, None),
            0,
            "{function}: {leaked:#?}"
        );
    }
    thread::sleep(WAIT.saturating_sub(all_wait.elapsed()));
    let least = all_wait.elapsed().as_nanos() as i64;
    for release in releases {
        release();
    }
    for thread in threads {
        thread.join().expect("it does not panic");
    }
    until("all are gone", || {
        let samples = samples(&profile("goroutine"));
        let gone = |(function, _): &&(&str, i64)| goroutines(&samples, function, None) == 0;
        places.iter().filter(gone).count() == expected
    });
    // Each waited once, for as long as it was there.
    let block = samples(&profile("block?all=1"));
    for &(function, line) in &places {
        let since = |value| {
            let before = total(&block_before, value, function, Some(line));
            total(&block, value, function, Some(line)) - before
        };
        let (waits, nanos) = (since(0), since(1));
        let most = begun.elapsed().as_nanos() as i64;
        assert!(
            waits >= 1 && (least..=most).contains(&nanos),
            "{function}: {waits} waits, {nanos} ns of {least} to {most}"
        );
    }
}

/// A thread that does nothing but this.
fn spawn(f: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::spawn(f)
}

/// A connection whose other end says nothing until it is dropped.
fn silent() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
    let address = listener.local_addr().expect("it has a port");
    let client = TcpStream::connect(address).expect("it listens");
    let (served, _) = listener.accept().expect("a client came");
    (client, served)
}

fn tokio_waits(runtime: &tokio::runtime::Runtime) -> Vec<Waiting> {
    let _entered = runtime.enter();
    let mut all = waits::all();
    let wakes = tokio::time::Instant::now() + Duration::from_secs(4);
    let sleep = waits::in_tokio_sleep(wakes);
    all.push(Waiting::new("in_tokio_sleep", sleep, || ()));
    let (client, served) = silent();
    client.set_nonblocking(true).expect("it is connected");
    let client = tokio::net::TcpStream::from_std(client).expect("it is connected");
    let read = waits::in_tokio_read(client);
    all.push(Waiting::new("in_tokio_read", read, || drop(served)));
    all
}

#[test]
fn tokio_with_threads() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("there is room for it");
    check(tokio_waits(&runtime), |tasks| {
        for task in tasks {
            runtime.spawn(task);
        }
        Vec::new()
    });
    // As in Go, time and the network are nothing that tasks wait for each other with.
    let block = samples(&profile("block"));
    for (function, is_there) in [
        ("in_mutex", true),
        ("in_mpsc", true),
        ("in_tokio_sleep", false),
        ("in_tokio_read", false),
    ] {
        let waits = total(&block, 0, function, None);
        assert_eq!(waits > 0, is_there, "{function}: {block:#?}");
    }
}

#[test]
fn tokio_on_one_thread() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("there is room for it");
    check(tokio_waits(&runtime), |tasks| {
        vec![spawn(move || {
            let tasks: Vec<_> = tasks.into_iter().map(|task| runtime.spawn(task)).collect();
            runtime.block_on(async {
                for task in tasks {
                    task.await.expect("it does not panic");
                }
            });
        })]
    });
}

#[test]
fn smol() {
    let _alone = alone();
    let mut all = waits::all();
    let wakes = Instant::now() + Duration::from_secs(4);
    all.push(Waiting::new(
        "in_smol_timer",
        waits::in_smol_timer(wakes),
        || (),
    ));
    let (client, served) = silent();
    let client = smol::Async::new(client).expect("it is connected");
    let read = waits::in_smol_read(client);
    all.push(Waiting::new("in_smol_read", read, || drop(served)));
    check(all, |tasks| {
        for task in tasks {
            smol::spawn(task).detach();
        }
        Vec::new()
    });
}

#[test]
fn futures_local_pool() {
    let _alone = alone();
    check(waits::all(), |tasks| {
        vec![spawn(move || {
            let mut pool = futures::executor::LocalPool::new();
            for task in tasks {
                pool.spawner().spawn_local(task).expect("it is running");
            }
            pool.run();
        })]
    });
}

#[test]
fn futures_block_on() {
    let _alone = alone();
    check(waits::all(), |tasks| {
        let threads = tasks.into_iter();
        threads
            .map(|task| spawn(|| futures::executor::block_on(task)))
            .collect()
    });
}

#[test]
fn by_hand() {
    let _alone = alone();
    check(waits::all(), |tasks| {
        let threads = tasks.into_iter();
        threads.map(|task| spawn(|| block_on(task))).collect()
    });
}

/// The simplest that there can be.
fn block_on(future: impl Future<Output = ()>) {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Arc::new(Unpark(thread::current())).into();
    let mut future = pin!(future);
    while future.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Pending {
        thread::park();
    }
}

/// Who lets a task go on: of a lock, who held it.
#[test]
fn mutex_has_who_released() {
    let _alone = alone();
    let runtime = tokio::runtime::Runtime::new().expect("there is room for it");
    let before = samples(&profile("mutex"));
    check(waits::all(), |tasks| {
        for task in tasks {
            runtime.spawn(task);
        }
        Vec::new()
    });
    let after = samples(&profile("mutex"));
    let since = |value, function| {
        total(&after, value, function, None) - total(&before, value, function, None)
    };
    for function in ["releases_mutex", "releases_semaphore"] {
        let (waits, nanos) = (since(0, function), since(1, function));
        assert_eq!(waits, 1, "{function}: {after:#?}");
        assert!(nanos >= WAIT.as_nanos() as i64, "{function}: {nanos}");
    }
    // Nobody held anything.
    assert_eq!(since(0, "sends_message"), 0, "{after:#?}");
    let all = samples(&profile("mutex?all=1"));
    assert!(total(&all, 0, "sends_message", None) > 0, "{all:#?}");
}
