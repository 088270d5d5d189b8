//! CPU time, as profiles tell it and as the threads' own clocks do.

#![forbid(unsafe_code)]

use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use picoprof_tests::process::command;
use picoprof_tests::profile::Stack;
use picoprof_tests::subject::{Subject, finish};

/// One test at a time: the less CPU time there is for each, the fewer samples its figure rests on.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds of a profile in which three are burnt, and in which many threads burn one each for itself.
const LONG: [u32; 2] = [4, 8];
const BRIEF: [u32; 2] = [3, 12];

fn burner() -> Subject {
    let mut subject = Subject::start(command(env!("CARGO_BIN_EXE_burner"), [""; 0]));
    subject.wait_for_unwinder();
    subject
}

/// Reported over real CPU time of what `order` has the program do. That must begin and end within the profile: if it
/// doesn't in the first of these times, as the machine is busy, then in the last.
#[track_caller]
fn reported(subject: &mut Subject, hz: u32, seconds: [u32; 2], order: &str) -> f64 {
    let mut attempts = seconds
        .map(|seconds| (seconds, Duration::from_secs(seconds.into())))
        .into_iter();
    let (real, profile) = loop {
        let (seconds, whole) = attempts
            .next()
            .unwrap_or_else(|| panic!("{order} takes longer"));
        let begun = Instant::now();
        let profile = subject.begin_profile(&format!("profile?seconds={seconds}&hz={hz}"));
        let [real] = subject.numbers(order);
        let took = begun.elapsed();
        let profile = finish(profile);
        if took < whole {
            break (real, profile);
        }
        println!("again: {order} took {took:?}");
    };
    let burnt = |stack: &Stack| {
        stack.has_frame("burner::burn")
            // A thread that ended before a sample was taken of it.
            || stack.frames.first().is_some_and(|leaf| leaf.ends_with("interposed::threads::run"))
    };
    let stacks = profile.stacks().into_iter().filter(burnt);
    let reported: i64 = stacks
        .map(|stack| stack.values[profile.value_index("cpu")])
        .sum();
    let ratio = reported as f64 / real as f64;
    println!(
        "{order} at {hz} Hz: {ratio:.4} of {:.3} s",
        real as f64 / 1e9
    );
    ratio
}

#[test]
fn busy_threads_are_within_three_percent() {
    let _alone = alone();
    let mut subject = burner();
    for hz in [100, 250, 1_000, 10_000] {
        let ratio = reported(&mut subject, hz, LONG, "burn 2 3000");
        assert!((ratio - 1.0).abs() < 0.03, "{hz} Hz: {ratio}");
    }
    subject.end();
}

#[test]
fn more_threads_than_processors_are_within_three_percent() {
    let _alone = alone();
    let mut subject = burner();
    let ratio = reported(&mut subject, 1_000, LONG, "burn 8 3000");
    assert!((ratio - 1.0).abs() < 0.03, "{ratio}");
    subject.end();
}

#[test]
fn threads_that_live_briefly_are_within_ten_percent() {
    let _alone = alone();
    let mut subject = burner();
    // Each rests on some 2,000 samples.
    for (count, micros) in [(40, 50_000), (200, 10_000), (800, 2_000)] {
        let order = format!("brief {count} {micros}");
        let ratio = reported(&mut subject, 1_000, BRIEF, &order);
        assert!((ratio - 1.0).abs() < 0.1, "{order}: {ratio}");
    }
    subject.end();
}
