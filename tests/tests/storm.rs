//! Sampling does not hurt its host: whatever the program does meanwhile, it lives, and what is lost is told.

#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use picoprof_tests::http::{self, Client};
use picoprof_tests::process::{command, run};
use picoprof_tests::profile::Stack;
use picoprof_tests::subject::{Subject, finish, profile_in};

const STORM: &str = env!("CARGO_BIN_EXE_storm");

fn storm() -> Subject {
    let mut subject = Subject::start(command(STORM, [""; 0]));
    subject.wait_for_unwinder();
    subject
}

/// One storm at a time: each is more than the machine has processors for.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins a profile at the highest rate.
fn sampling(subject: &mut Subject, seconds: u32) -> Client {
    subject.begin_profile(&format!("profile?seconds={seconds}&hz=10000"))
}

/// Least and most rounds of the storm's threads, and how many signals of others came.
fn progress(subject: &mut Subject) -> [u64; 4] {
    subject.numbers("progress")
}

#[test]
fn a_storm_of_signals_hurts_nobody() {
    let _alone = alone();
    let mut subject = storm();
    subject.ask("heap 4096");
    subject.ask("storm");
    let end = Instant::now() + Duration::from_secs(30);
    let mut samples = 0;
    let mut turns = 0;
    while Instant::now() < end {
        let before = progress(&mut subject);
        // For some seconds every allocation is a sample.
        subject.ask(if turns == 1 { "heap 1" } else { "heap 4096" });
        let profile = sampling(&mut subject, 3);
        for target in [
            "heap",
            "allocs",
            "threadcreate",
            "heap?gc=1",
            "heap?seconds=1",
            "block",
            "mutex",
        ] {
            let profile = subject.profile(target);
            assert!(!profile.sample.is_empty(), "{target}");
        }
        for target in [
            "heap?debug=1",
            "threadcreate?debug=1",
            "block?debug=1",
            "mutex?debug=1",
            "cmdline",
            "symbol?0x1",
            "",
        ] {
            assert_eq!(subject.get(target).status, 200, "{target}");
        }
        let profile = finish(profile);
        samples += profile.total("samples", "");
        let after = progress(&mut subject);
        println!("{before:?} {after:?}, {} stacks", profile.sample.len());
        // Every thread got on, and the signals of others came to their handlers.
        let [least, _, usr1, foreign] = after;
        assert!(least > before[0], "no progress: {before:?} {after:?}");
        assert!(
            usr1 > before[2] && foreign > before[3],
            "{before:?} {after:?}"
        );
        turns += 1;
    }
    assert!(turns >= 2, "{turns}");
    assert_eq!(subject.ask("calm"), "8");
    let page = subject.get("");
    println!("{samples} samples; {}", page.text());
    for loss in [
        "lost",
        "samples without a table row",
        "not watched until freed",
        "unreadable",
        "waits not charged to anybody",
    ] {
        assert!(page.text().contains(loss), "{loss}: {}", page.text());
    }
    // As many as its kernel's tick allows, weighed by what passed.
    assert!(samples > 10_000, "{samples}");
    // And still all is well.
    subject.profile("profile?seconds=1");
    subject.end();
}

/// Each hands on to the other what is not its own: once is enough.
#[test]
fn a_handler_that_was_put_on_top_is_not_called_for_ever() {
    let _alone = alone();
    let mut subject = storm();
    subject.profile("profile?seconds=1");
    subject.ask("chain");
    assert_eq!(subject.ask("raise"), "1");
    // Puts the profiler's on top again.
    subject.profile("profile?seconds=1");
    let [before] = subject.numbers("raise");
    assert_eq!(subject.numbers("raise"), [before + 1]);
    subject.end();
}

#[test]
fn a_forked_child_lives() {
    let _alone = alone();
    let mut subject = storm();
    subject.ask("heap 512");
    subject.ask("storm");
    let profile = sampling(&mut subject, 15);
    let address = subject.address();
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_over);
    // Threads that are forked from under answer for themselves.
    let asker = thread::spawn(move || {
        while !ends.load(Ordering::SeqCst) {
            let response = http::get(address, "/debug/pprof/goroutine").expect("it answers");
            let _ = profile_in("goroutine", &response);
        }
    });
    assert_eq!(subject.ask("forks 50"), "50");
    is_over.store(true, Ordering::SeqCst);
    asker.join().expect("it does not panic");
    assert_eq!(subject.ask("calm"), "8");
    let _ = finish(profile);
    subject.profile("profile?seconds=1");
    subject.end();
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_wild_frame_pointer_ends_the_walk() {
    let _alone = alone();
    let mut subject = storm();
    subject.ask("heap 64");
    for kind in [
        "null",
        "one",
        "ones",
        "unaligned",
        "below",
        "above",
        "self",
        "code",
        "unreadable",
        "noncanonical",
    ] {
        let profile = sampling(&mut subject, 1);
        let [rounds] = subject.numbers(format!("wild {kind}"));
        assert!(rounds > 0, "{kind}");
        let profile = finish(profile);
        let seen = profile.total("samples", "with_frame_pointer");
        assert!(seen > 100, "{kind}: {seen}");
        let allocs = subject.profile("allocs");
        assert!(
            allocs.total("alloc_objects", "wild::allocates") > 0,
            "{kind}"
        );
    }
    subject.end();
}

#[test]
fn a_stack_deeper_than_the_profiler_looks_is_cut_and_says_so() {
    let _alone = alone();
    let mut subject = storm();
    subject.ask("heap 64");
    for (frames, is_cut) in [(60, false), (500, true), (20_000, true)] {
        let profile = sampling(&mut subject, 1);
        assert_eq!(subject.ask(format!("deep {frames}")), frames.to_string());
        for (target, profile) in [
            ("profile", finish(profile)),
            ("allocs", subject.profile("allocs")),
        ] {
            let deep = |stack: &Stack| {
                let recursions = stack
                    .frames
                    .iter()
                    .filter(|name| name.contains("deep_down"));
                recursions.count() > 50
            };
            let stacks: Vec<_> = profile.stacks().into_iter().filter(deep).collect();
            assert!(!stacks.is_empty(), "{target}, {frames} frames");
            let cut = stacks
                .iter()
                .any(|it| it.has_frame("picoprof._StackTooDeep"));
            assert!(
                cut == is_cut || target == "allocs" && cut,
                "{target}, {frames} frames"
            );
        }
    }
    subject.end();
}

#[test]
fn a_stack_overflow_is_still_reported() {
    let _alone = alone();
    for _ in 0..25 {
        let finished = run(&mut command(STORM, ["overflow"]), Duration::from_mins(1)).unwrap();
        let said = finished.stderr;
        assert_eq!(
            finished.status.signal(),
            Some(6),
            "{}: {said}",
            finished.status
        );
        assert!(said.contains("has overflowed its stack"), "{said}");
    }
}

#[test]
fn the_handler_needs_little_of_the_stack_for_signals() {
    let _alone = alone();
    let mut subject = storm();
    // The standard library makes them of 8 KiB, or what the processor's registers take.
    let mut used = Vec::new();
    for bytes in [64 << 10, 16 << 10, 8 << 10] {
        let profile = sampling(&mut subject, 1);
        let address = subject.address();
        let asker = thread::spawn(move || {
            for _ in 0..10 {
                let response = http::get(address, "/debug/pprof/goroutine").expect("it answers");
                let _ = profile_in("goroutine", &response);
                thread::sleep(Duration::from_millis(50));
            }
        });
        let [most] = subject.numbers(format!("signal-stack {bytes}"));
        asker.join().expect("it does not panic");
        let _ = finish(profile);
        used.push(most);
        if cfg!(debug_assertions) {
            // Code that is not optimized stays away from stacks so small.
            assert_eq!(most, 0, "of {bytes}");
        } else {
            // The kernel's frame takes up to 3.4 KiB, with AVX-512.
            assert!(most > 0 && most < 6 * 1024, "{most} of {bytes}");
        }
    }
    println!("used: {used:?}");
    subject.end();
}
