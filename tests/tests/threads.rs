//! The threads in `goroutine`: each where it is, and none the worse for having been asked.

#![forbid(unsafe_code)]

use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use picoprof_tests::http;
use picoprof_tests::process::command;
use picoprof_tests::profile::Stack;
use picoprof_tests::subject::{Subject, finish, profile_in};

const WAITER: &str = env!("CARGO_BIN_EXE_waiter");

fn waiter() -> Subject {
    let mut subject = Subject::start(command(WAITER, [""; 0]));
    subject.wait_for_unwinder();
    subject
}

/// One at a time: each keeps the machine's processors busy.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The threads that are in a function.
fn threads_in(stacks: &[Stack], function: &str) -> i64 {
    let within = stacks.iter().filter(|stack| stack.has_frame(function));
    within.map(|stack| stack.values[0]).sum()
}

/// All threads, and each with its stack: a machine that is busy with others may not let one run in time.
#[track_caller]
fn whole(subject: &mut Subject) -> Vec<Stack> {
    for _ in 0..50 {
        let stacks = subject.profile("goroutine").stacks();
        if threads_in(&stacks, "picoprof._StackUnavailable") == 0 {
            return stacks;
        }
    }
    panic!("there is always one that does not answer");
}

const FUNCTIONS: [&str; 10] = [
    "waiter::holds_lock",
    "waiter::waits_for_lock",
    "waiter::sleeps",
    "waiter::reads",
    "waiter::accepts",
    "waiter::receives",
    "waiter::waits_for_condition",
    "waiter::parks",
    "waiter::spins",
    "waiter::waits_under_long_name",
];

#[test]
fn every_thread_is_where_it_is() {
    let _alone = alone();
    let mut subject = waiter();
    assert_eq!(subject.ask("wait"), "10");
    for _ in 0..20 {
        let stacks = whole(&mut subject);
        for function in FUNCTIONS {
            assert_eq!(threads_in(&stacks, function), 1, "{function}: {stacks:#?}");
        }
        // The main thread, and the server's, which takes the profile and is no surprise to itself.
        assert_eq!(threads_in(&stacks, "waiter::main"), 1, "{stacks:#?}");
        assert_eq!(threads_in(&stacks, "picoprof_std::server"), 1);
        let all: i64 = stacks.iter().map(|stack| stack.values[0]).sum();
        assert_eq!(all, 12, "{stacks:#?}");
        // Neither the handler nor what the kernel calls it by.
        for handler in ["on_sigprof", "restore_rt", "picoprof._Stack"] {
            assert_eq!(threads_in(&stacks, handler), 0, "{handler}: {stacks:#?}");
        }
    }
    subject.end();
}

/// As Go shows goroutines: what each waits for, and the name.
#[test]
fn a_dump_says_who_waits_for_what() {
    let _alone = alone();
    let mut subject = waiter();
    subject.ask("wait");
    let response = subject.get("goroutine?debug=2");
    let threads: Vec<&str> = response.text().split("\n\n").collect();
    for (function, name, wait) in [
        ("holds_lock", "holder", "park"),
        ("waits_for_lock", "locker", "sync.Mutex.Lock"),
        ("sleeps", "sleeper", "sleep"),
        ("reads", "reader", "IO wait"),
        ("accepts", "accepter", "IO wait"),
        ("receives", "receiver", "chan receive"),
        ("waits_for_condition", "condition", "sync.Cond.Wait"),
        ("parks", "parker", "park"),
        ("spins", "spinner", "running"),
        // As much of it as Linux keeps.
        ("waits_under_long_name", "a-name-of-fifte", "sleep"),
    ] {
        let call = format!("waiter::{function}(...)");
        let mut those = threads.iter().filter(|it| it.contains(&call));
        let thread = those.next().expect(function);
        assert!(thread.contains(&format!(" [{wait}]:\n")), "{thread}");
        assert!(thread.contains(name), "{thread}");
        assert!(
            !thread.contains("picoprof_std::interposed::syscall"),
            "{thread}"
        );
        assert_eq!(those.next(), None);
    }
    // Who asks is first.
    let first = threads.first().expect("there are some");
    assert!(
        first.contains(" [running]:") && first.contains("picoprof_std::server"),
        "{first}"
    );
    subject.end();
}

#[test]
fn a_thread_that_keeps_signals_away_is_listed_without_its_stack() {
    let _alone = alone();
    let mut subject = waiter();
    subject.ask("deaf");
    let begun = Instant::now();
    let stacks = subject.profile("goroutine").stacks();
    // Others' work on a busy machine is no time that it was waited for.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let all: i64 = stacks.iter().map(|stack| stack.values[0]).sum();
    assert_eq!(all, 3, "{stacks:#?}");
    assert_eq!(threads_in(&stacks, "hears_nothing"), 0, "{stacks:#?}");
    let told = "Goroutine: 0 times a thread did not tell";
    assert!(!subject.get("").text().contains(told));
    subject.end();
}

#[test]
fn a_thread_that_does_not_answer_is_not_waited_for() {
    let _alone = alone();
    let mut subject = waiter();
    // The names of what there is otherwise.
    let _ = whole(&mut subject);
    subject.ask("stick");
    let begun = Instant::now();
    for _ in 0..3 {
        let stacks = subject.profile("goroutine").stacks();
        assert_eq!(threads_in(&stacks, "waiter::sticks"), 0, "{stacks:#?}");
        assert!(threads_in(&stacks, "picoprof._StackUnavailable") > 0);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    // Its late answers hurt nobody, and then it's there.
    std::thread::sleep(Duration::from_millis(6_500));
    let stacks = whole(&mut subject);
    assert_eq!(threads_in(&stacks, "waiter::sticks"), 1, "{stacks:#?}");
    assert_eq!(threads_in(&stacks, "waiter::main"), 1, "{stacks:#?}");
    subject.end();
}

#[test]
fn a_thousand_threads_are_all_there() {
    let _alone = alone();
    let mut subject = waiter();
    subject.ask("crowd 1000");
    for _ in 0..5 {
        let begun = Instant::now();
        let stacks = whole(&mut subject);
        println!("{:?}", begun.elapsed());
        assert_eq!(threads_in(&stacks, "waiter::in_crowd"), 1000);
    }
    subject.end();
}

#[test]
fn nobody_is_disturbed_by_being_asked() {
    let _alone = alone();
    let mut subject = waiter();
    subject.ask("work");
    let address = subject.address();
    let end = Instant::now() + Duration::from_secs(10);
    let mut requests = 0;
    while Instant::now() < end {
        // Of CPU time too, as that is the same signal.
        let profile = subject.begin_profile("profile?seconds=1&hz=1000");
        let clients = [(); 4].map(|()| {
            std::thread::spawn(move || {
                let begun = Instant::now();
                let mut requests = 0;
                while begun.elapsed() < Duration::from_secs(1) {
                    let response = http::get(address, "/debug/pprof/goroutine");
                    let response = response.expect("it answers");
                    let profile = profile_in("goroutine", &response);
                    assert!(profile.total("goroutine", "") >= 8);
                    requests += 1;
                }
                requests
            })
        });
        for client in clients {
            requests += client.join().expect("it does not panic");
        }
        let _ = finish(profile);
    }
    let [waits, surprises] = subject.numbers("rest");
    println!("{requests} requests, {waits} waits, {surprises} surprises");
    assert!(requests > 20 && waits > 1_000, "{requests} {waits}");
    assert_eq!(surprises, 0);
    subject.end();
}
