//! Where threads wait for each other, and who has them wait, against what is known of it.

#![forbid(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use picoprof_tests::go::Go;
use picoprof_tests::process::command;
use picoprof_tests::profile::Stack;
use picoprof_tests::subject::Subject;

const CONTENDER: &str = env!("CARGO_BIN_EXE_contender");

fn contender() -> Subject {
    let mut subject = Subject::start(command(CONTENDER, [""; 0]));
    subject.wait_for_unwinder();
    subject
}

/// One at a time: each measures time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often a lock is held, and for how many milliseconds. If that fails, then longer: on a busy machine, threads are late
/// to wait and late to go on, and parking_lot's have others go first for a while before they wait.
const HOLDS: [(u32, u32); 5] = [(200, 5), (50, 20), (12, 80), (3, 320), (2, 1280)];
const WAITERS: u32 = 3;

/// Has a lock held, and sees how often and how long that was waited for: as `block` and `mutex` have it.
fn hold(subject: &mut Subject, lock: &str, rounds: u32, millis: u32) -> Truth {
    let before = totals(subject);
    let [held, waited] = subject.numbers(format!("hold {lock} {rounds} {millis}"));
    let after = totals(subject);
    let [waits, delay, releases, charged, holds, holder] =
        core::array::from_fn(|at| (after[at] - before[at]) as f64);
    println!(
        "{lock}: held {held} ns; waited {waited} ns; block {waits} {delay}; mutex {releases} {charged}; \
         of the holder {holds} {holder}"
    );
    Truth {
        rounds: rounds.into(),
        held: held as f64,
        waited: waited as f64,
        waits,
        delay,
        releases,
        charged,
        holds,
        holder,
    }
}

/// Contentions and delay: of those who wanted a lock, of those who released it, and among these of who held it.
fn totals(subject: &mut Subject) -> [i64; 6] {
    let [block, mutex] = ["block", "mutex"].map(|kind| subject.profile(kind).stacks());
    let total = |stacks: &[Stack], function: &str| {
        let stacks = stacks
            .iter()
            // How they come together is none of it.
            .filter(|stack| stack.has_frame(function) && !stack.has_frame("Barrier"));
        stacks.fold([0; 2], |[count, time], stack| {
            [count + stack.values[0], time + stack.values[1]]
        })
    };
    let [waits, delay] = total(&block, "contender::wants");
    let [releases, charged] = total(&mutex, "locked");
    let [holds, holder] = total(&mutex, "contender::holds");
    [waits, delay, releases, charged, holds, holder]
}

struct Truth {
    /// How often it was held.
    rounds: f64,
    /// Nanoseconds that the lock was held while others wanted it.
    held: f64,
    /// Nanoseconds that they waited, all together.
    waited: f64,
    /// In `block`.
    waits: f64,
    delay: f64,
    /// In `mutex`, by anybody.
    releases: f64,
    charged: f64,
    /// In `mutex`, by who held it.
    holds: f64,
    holder: f64,
}

fn is_close(what: &str, seen: f64, truth: f64) -> Result<(), String> {
    if (seen / truth - 1.0).abs() < 0.05 {
        Ok(())
    } else {
        Err(format!("{what}: {seen} instead of {truth}"))
    }
}

/// Whether it is all seen, where `holder` is how many waiters' time is that of who held the lock.
fn check(truth: &Truth, holder: f64) -> Result<(), String> {
    let rounds = truth.rounds;
    let waiters = f64::from(WAITERS);
    is_close("waits", truth.waits, waiters * rounds)?;
    is_close("delay", truth.delay, truth.waited)?;
    is_close("delay", truth.delay, waiters * truth.held)?;
    is_close("releases", truth.releases, waiters * rounds)?;
    is_close("charged", truth.charged, truth.waited)?;
    is_close("holds", truth.holds, rounds)?;
    is_close("holder", truth.holder, holder * truth.held)
}

#[test]
fn a_lock_that_is_held_costs_what_others_waited() {
    let _alone = alone();
    let mut subject = contender();
    for (lock, holder) in [
        // Who held it had all of them wait, though each woke but the next.
        ("mutex", f64::from(WAITERS)),
        ("write", f64::from(WAITERS)),
        // Those who wait for parking_lot's wait at places of their own, each for the one before.
        ("parking", 1.0),
    ] {
        let mut attempts = HOLDS
            .into_iter()
            .map(|(rounds, millis)| check(&hold(&mut subject, lock, rounds, millis), holder));
        let mut seen = attempts.next().expect("there are some");
        while let (Err(error), Some(next)) = (&seen, attempts.next()) {
            println!("again: {error}");
            seen = next;
        }
        assert_eq!(seen, Ok(()), "{lock}");
    }
    subject.end();
}

#[test]
fn pprof_names_who_held_the_lock() {
    let _alone = alone();
    let mut subject = contender();
    let _: [u64; 2] = subject.numbers("hold mutex 20 5");
    let go = Go::new();
    for (kind, function) in [("mutex", "contender::holds"), ("block", "contender::wants")] {
        let url = format!("http://{}/debug/pprof/{kind}", subject.address());
        let shown = go.pprof(["-top", "-cum", &url]).succeeded();
        let line = shown.text().lines().find(|line| line.ends_with(function));
        let line = line.unwrap_or_else(|| panic!("{}", shown.text()));
        // flat, flat%, sum%, cum, cum%, name: most of it, beside how they come together.
        let share: f64 = line
            .split_whitespace()
            .nth(4)
            .and_then(|share| share.strip_suffix('%')?.parse().ok())
            .expect(line);
        assert!(share > 25.0, "{}", shown.text());
    }
    subject.end();
}

/// What there is to wait for, by the end of the names of the functions that wait for it and that end that; and whether
/// somebody holds it.
const EACH: [(&str, &str, bool); 21] = [
    ("mutex", "mutex", true),
    ("read", "write", true),
    ("write", "read", true),
    ("parking_mutex", "parking_mutex", true),
    ("parking_read", "parking_write", true),
    ("parking_write", "parking_read", true),
    ("condvar", "condvar", false),
    ("parking_condvar", "parking_condvar", false),
    ("barrier", "barrier", false),
    ("once", "once", false),
    ("once_lock", "once_lock", false),
    ("park", "park", false),
    ("scope", "scope", false),
    ("mpsc", "mpsc", false),
    ("sync_channel", "sync_channel", false),
    ("crossbeam", "crossbeam", false),
    ("crossbeam_send", "crossbeam_send", false),
    ("crossbeam_select", "crossbeam_select", false),
    ("flume", "flume", false),
    ("flume_send", "flume_send", false),
    ("async_channel", "async_channel", false),
];

#[test]
fn each_primitive_is_seen_where_it_waits() {
    let _alone = alone();
    // On a busy machine, some have others go first for longer than they wait then.
    let mut attempts = [30, 300].into_iter().map(see_each);
    let mut seen = attempts.next().expect("there are some");
    while let (Err(error), Some(next)) = (&seen, attempts.next()) {
        println!("again: {error}");
        seen = next;
    }
    assert_eq!(seen, Ok(()));
}

/// Has each wait once, for so many milliseconds.
fn see_each(millis: i64) -> Result<(), String> {
    let mut subject = contender();
    subject.ask(format!("each {millis}"));
    let [block, mutex] = ["block", "mutex"].map(|kind| subject.profile(kind).stacks());
    subject.end();
    let half = millis * 1_000_000 / 2;
    for (waits, releases, is_lock) in EACH {
        let with = |stacks: &[Stack], function: String| {
            let stacks = stacks.iter().filter(|stack| {
                let mut frames = stack.frames.iter();
                frames.any(|frame| frame.ends_with(&function))
            });
            stacks.fold([0; 2], |[count, time], stack| {
                [count + stack.values[0], time + stack.values[1]]
            })
        };
        let [count, time] = with(&block, format!("::waits_{waits}"));
        if !(1..=3).contains(&count) || time <= half {
            return Err(format!("{waits}: {count} waits, {time} ns"));
        }
        let [count, time] = with(&mutex, format!("::releases_{releases}"));
        let is_seen = count == 1 && time > half;
        // But a lock in there may have been in somebody's way.
        let is_none = time < half;
        if !(if is_lock { is_seen } else { is_none }) {
            return Err(format!("{releases}, a lock: {is_lock}: {count}, {time} ns"));
        }
    }
    Ok(())
}

#[test]
fn uncontended_locks_leave_nothing() {
    let _alone = alone();
    let mut subject = contender();
    subject.ask("uncontended");
    for kind in ["block", "mutex"] {
        let seen = subject.profile(kind).total("contentions", "uncontended");
        assert_eq!(seen, 0, "{kind}");
    }
    subject.end();
}

/// The profiler's own threads are no part of it, whatever they wait for.
#[test]
fn the_profiler_does_not_show_itself() {
    let _alone = alone();
    let mut subject = contender();
    // It looks for threads meanwhile, ten times a second.
    subject.profile("profile?seconds=1");
    for target in ["block?all=1&idle=1", "mutex?all=1"] {
        let seen = subject
            .profile(target)
            .total("contentions", "picoprof_std::cpu");
        assert_eq!(seen, 0, "{target}");
    }
    subject.end();
}

#[test]
fn rates_are_as_in_go() {
    let _alone = alone();
    let mut subject = contender();
    let seen = |subject: &mut Subject, block: u64, mutex: u32| {
        subject.ask(format!("rates {block} {mutex}"));
        let before = totals(subject);
        let [_, waited] = subject.numbers("hold mutex 200 1");
        let after = totals(subject);
        let seen: [_; 4] = core::array::from_fn(|at| (after[at] - before[at]) as f64);
        println!("rates {block} {mutex}: {seen:?}, waited {waited}");
        (seen, waited as f64)
    };
    assert_eq!(seen(&mut subject, 0, 0).0, [0.0; 4]);
    // Either alone.
    let ([waits, _, releases, _], _) = seen(&mut subject, 1, 0);
    assert!(waits > 500.0 && releases == 0.0);
    let ([waits, _, releases, _], _) = seen(&mut subject, 0, 1);
    assert!(waits == 0.0 && releases > 500.0);
    // Waits of 1 ms and more, each of which is a sample one time in ten: as many as there are, all in all. That
    // 60 of 600 are less than 30 or more than 100 happens once in many thousand times.
    let ([waits, delay, ..], waited) = seen(&mut subject, 10_000_000, 0);
    assert!(
        (0.5..1.7).contains(&(delay / waited)),
        "{delay} of {waited}"
    );
    assert!((300.0..1000.0).contains(&waits), "{waits}");
    // Longer ones are all there.
    let ([waits, delay, ..], waited) = seen(&mut subject, 100_000, 0);
    assert!((570.0..=630.0).contains(&waits), "{waits}");
    assert!(
        (0.8..1.1).contains(&(delay / waited)),
        "{delay} of {waited}"
    );
    let ([.., releases, charged], waited) = seen(&mut subject, 1, 5);
    assert!((200.0..1200.0).contains(&releases), "{releases}");
    assert!(
        (0.5..1.7).contains(&(charged / waited)),
        "{charged} of {waited}"
    );
    subject.end();
}

#[test]
fn system_calls_answer_as_they_do_without_it() {
    let _alone = alone();
    let mut subject = contender();
    for rates in ["1 1", "0 0", "1 0", "1000 10"] {
        subject.ask(format!("rates {rates}"));
        assert_eq!(subject.ask("calls"), "", "{rates}");
    }
    subject.end();
}

#[test]
fn what_was_lost_is_told() {
    let _alone = alone();
    let mut subject = contender();
    // More threads than there are places for one address.
    assert_eq!(subject.ask("crowd 900"), "900");
    let page = subject.get("");
    let page = page.text();
    let line = page.lines().find(|line| line.contains("Contention:"));
    let line = line.unwrap_or_else(|| panic!("{page}"));
    let lost = line
        .split("; ")
        .find_map(|part| part.strip_suffix(" waits not charged to anybody"))
        .and_then(|count| count.parse::<u64>().ok());
    assert!(lost.is_some_and(|lost| lost >= 132), "{line}");
    // All waits were seen, though.
    assert_eq!(subject.profile("block").total("contentions", "crowds"), 900);
    subject.end();
}
