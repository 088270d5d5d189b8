//! A program whose threads and tasks follow a script, for the tests of traces: who waits for whom, and for how long at least, is
//! known beforehand.
//!
//! * `threads`: they wait for each other by a lock, channels, a condition variable, parking.
//! * `tasks`: they wake each other by messages and a lock, and spawn each other.
//! * `annotations`: user tasks, regions and logs, some of which end where they should not.
//! * `burn MILLISECONDS`: a thread uses the processor for so long.
//! * `many TASKS`: so many tasks at once.
//! * `flight on`, `flight off`: the flight recorder; `save PATH`: writes what it has.

use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::thread::{self, JoinHandle, Thread};
use std::time::Instant;

use picoprof_std::trace::{self, Region};
use picoprof_std::{FlightRecorder, Server, interpose, task, with_labels};
use picoprof_tests::subject::obey;
use tokio::runtime::{Builder, Runtime};
use tokio::sync;

interpose!();

/// How long whoever has others wait for it takes.
const PAUSE: Duration = Duration::from_millis(20);
/// How often.
const ROUNDS: usize = 5;

fn main() -> io::Result<()> {
    let pprof = Server::bind(0)?.allow_host("test").spawn()?;
    let address = pprof.local_addr().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut flight = None;
    obey(address, |line| {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        match words[0] {
            "threads" => threads(),
            "tasks" => tasks(),
            "annotations" => annotations(),
            "burn" => spawn("burner", {
                let time = Duration::from_millis(number(1));
                move || burns(time)
            })
            .join()
            .expect("it does not panic"),
            "many" => many(number(1) as usize),
            "flight" => {
                flight = (words[1] == "on").then(|| FlightRecorder::start().expect("it is off"))
            }
            "save" => FlightRecorder::save(words[1]).expect("it is on"),
            other => panic!("{other}"),
        }
        String::new()
    })
}

fn spawn(name: &str, f: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let thread = thread::Builder::new().name(name.into());
    thread.spawn(f).expect("there is room for it")
}

// Threads. Each function ends in a value of its own, so that it is a function of its own.

fn threads() {
    let lock = Arc::new(Mutex::new(()));
    let is_held = Arc::new(AtomicBool::new(false));
    let holder = spawn("holder", {
        let (lock, is_held) = (Arc::clone(&lock), Arc::clone(&is_held));
        move || holds_lock(&lock, &is_held)
    });
    wait_for(&is_held);
    let wanter = spawn("wanter", move || wants_lock(&lock));

    let (first, second) = channel();
    let (third, fourth) = channel();
    let links = [
        spawn("link-3", move || receives_last(&fourth)),
        spawn("link-2", move || passes_on(&second, &third)),
        spawn("link-1", move || sends_first(&first)),
    ];

    let condition: Arc<(Mutex<bool>, Condvar)> = Arc::default();
    let waiter = spawn("waiter", {
        let condition = Arc::clone(&condition);
        move || waits_for_condition(&condition)
    });
    let notifier = spawn("notifier", move || notifies(&condition));

    let parker = spawn("parker", parks);
    let parked = parker.thread().clone();
    let unparker = spawn("unparker", move || unparks(&parked));

    let creator = spawn("creator", creates_thread);
    let all = [holder, wanter, waiter, notifier, parker, unparker, creator];
    for thread in all.into_iter().chain(links) {
        thread.join().expect("it does not panic");
    }
}

fn wait_for(flag: &AtomicBool) {
    while !flag.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
}

/// The sleep begins when it has the lock, so whoever comes soon waits for most of it: twice as long as the others.
#[inline(never)]
fn holds_lock(lock: &Mutex<()>, is_held: &AtomicBool) {
    let guard = lock.lock().expect("nobody panics");
    is_held.store(true, Ordering::SeqCst);
    thread::sleep(3 * PAUSE);
    lets_go(guard);
}

#[inline(never)]
fn lets_go<G>(guard: G) {
    drop(guard);
    black_box(1);
}

#[inline(never)]
fn wants_lock(lock: &Mutex<()>) {
    let guard = lock.lock().expect("nobody panics");
    black_box(&guard);
}

#[inline(never)]
fn sends_first(sender: &Sender<u32>) {
    for round in 0..ROUNDS as u32 {
        thread::sleep(PAUSE);
        sender.send(round).expect("somebody listens");
    }
    black_box(2);
}

#[inline(never)]
fn passes_on(receiver: &Receiver<u32>, sender: &Sender<u32>) {
    for message in receiver {
        sender.send(message).expect("somebody listens");
    }
    black_box(3);
}

#[inline(never)]
fn receives_last(receiver: &Receiver<u32>) {
    black_box(receiver.iter().count());
}

#[inline(never)]
fn waits_for_condition((is_so, condition): &(Mutex<bool>, Condvar)) {
    let guard = is_so.lock().expect("nobody panics");
    let guard = condition.wait_while(guard, |is_so| !*is_so);
    black_box(&guard);
}

#[inline(never)]
fn notifies((is_so, condition): &(Mutex<bool>, Condvar)) {
    thread::sleep(PAUSE);
    *is_so.lock().expect("nobody panics") = true;
    condition.notify_one();
    black_box(4);
}

static IS_UNPARKED: AtomicBool = AtomicBool::new(false);

#[inline(never)]
fn parks() {
    while !IS_UNPARKED.swap(false, Ordering::SeqCst) {
        thread::park();
    }
    black_box(5);
}

#[inline(never)]
fn unparks(thread: &Thread) {
    thread::sleep(PAUSE);
    IS_UNPARKED.store(true, Ordering::SeqCst);
    thread.unpark();
    black_box(6);
}

#[inline(never)]
fn creates_thread() {
    let thread = spawn("created", || {
        black_box(7);
    });
    thread.join().expect("it does not panic");
}

#[inline(never)]
fn burns(time: Duration) {
    let end = Instant::now() + time;
    let mut value = 1_u64;
    while Instant::now() < end {
        for _ in 0..1000 {
            value = black_box(value.wrapping_mul(6_364_136_223_846_793_005) + 1);
        }
    }
}

// Tasks.

fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder
            .worker_threads(2)
            .thread_name("worker")
            .enable_all()
            .build();
        runtime.expect("there is room for it")
    });
    &RUNTIME
}

fn tasks() {
    runtime().block_on(async {
        let (sender, receiver) = sync::mpsc::channel(1);
        let (answers, answered) = sync::mpsc::channel(1);
        let lock = Arc::new(sync::Mutex::new(()));
        let guard = Arc::clone(&lock).lock_owned().await;
        let mut all = vec![
            tokio::spawn(task("receiver", receives_messages(receiver, answers))),
            tokio::spawn(task("answered", hears_answers(answered))),
            tokio::spawn(task("wants", wants_async_lock(lock))),
            tokio::spawn(task("spawns", spawns())),
        ];
        all.push(tokio::spawn(task("sender", sends_messages(sender))));
        all.push(tokio::spawn(task("keeps", async {
            tokio::time::sleep(PAUSE).await;
            lets_go(guard);
        })));
        for task in all {
            task.await.expect("it does not panic");
        }
    });
}

async fn sends_messages(sender: sync::mpsc::Sender<usize>) {
    for round in 0..ROUNDS {
        tokio::time::sleep(PAUSE).await;
        sender.send(round).await.expect("somebody listens");
    }
}

async fn receives_messages(
    mut receiver: sync::mpsc::Receiver<usize>,
    answers: sync::mpsc::Sender<usize>,
) {
    while let Some(message) = receiver.recv().await {
        answers.send(message).await.expect("somebody listens");
    }
}

async fn hears_answers(mut answers: sync::mpsc::Receiver<usize>) {
    while let Some(answer) = answers.recv().await {
        black_box(answer);
    }
}

async fn wants_async_lock(lock: Arc<sync::Mutex<()>>) {
    let guard = lock.lock().await;
    black_box(&guard);
}

async fn spawns() {
    let child = tokio::spawn(task("child", spawns_more()));
    child.await.expect("it does not panic");
}

async fn spawns_more() {
    let labelled = task("grandchild", tokio::task::yield_now()).labels([("route", "put")]);
    tokio::spawn(labelled).await.expect("it does not panic");
}

/// All there at the same time: each waits until all do.
fn many(count: usize) {
    static RUN: AtomicUsize = AtomicUsize::new(0);
    RUN.store(0, Ordering::SeqCst);
    runtime().block_on(async {
        let gate = Arc::new(sync::Barrier::new(count));
        let all: Vec<_> = (0..count)
            .map(|_| {
                let gate = Arc::clone(&gate);
                tokio::spawn(task("one of many", async move {
                    gate.wait().await;
                    RUN.fetch_add(1, Ordering::SeqCst);
                }))
            })
            .collect();
        for task in all {
            task.await.expect("it does not panic");
        }
    });
    assert_eq!(RUN.load(Ordering::SeqCst), count);
}

// What a program says of itself.

fn annotations() {
    spawn("annotator", annotates)
        .join()
        .expect("it does not panic");
    runtime().block_on(async {
        let request = task("traveller", travels());
        tokio::spawn(request).await.expect("it does not panic");
    });
}

#[inline(never)]
fn annotates() {
    let request = trace::task("request");
    request.region("parse", || thread::sleep(Duration::from_millis(2)));
    request.log("http", format_args!("GET {}", "/index"));
    let part = request.task("part");
    part.region("render", || {
        trace::region("inner", || thread::sleep(Duration::from_millis(2)))
    });

    // The outer one is dropped first.
    let outer = Region::new("first");
    let inner = Region::new("second");
    thread::sleep(Duration::from_millis(2));
    drop(outer);
    trace::log("note", "the outer region is gone");
    drop(inner);

    // Others end what is begun here.
    let crossing = request.begin_region("crossing");
    let thread = spawn("finisher", move || {
        drop(crossing);
        drop(request);
        let unfinished = trace::task("unfinished");
        let region = unfinished.begin_region("unended");
        core::mem::forget((unfinished, region));
    });
    thread.join().expect("it does not panic");
    with_labels([("route", "get")], || trace::log("note", "with labels"));
    drop(part);
}

/// Its region goes on over awaits, on any thread.
async fn travels() {
    let journey = trace::task("journey");
    let _leg = journey.begin_region("leg");
    for _ in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(2)).await;
        journey.log("stop", "somewhere");
    }
}
