//! Heap estimates, and what the program's own allocator counted: within five percent, over 4,000 samples and more.

#![forbid(unsafe_code)]

use picoprof_tests::process::command;
use picoprof_tests::profile_proto::Profile;
use picoprof_tests::subject::Subject;

/// Over 10,000 samples a figure's standard deviation is one percent, so that chance alone breaks this limit once in a
/// million runs.
const LIMIT: f64 = 0.05;

fn churner() -> Subject {
    let mut subject = Subject::start(command(env!("CARGO_BIN_EXE_churner"), [""; 0]));
    subject.wait_for_unwinder();
    subject
}

/// Allocated and freed: objects and bytes.
type Truth = [u64; 4];

fn since(before: Truth, after: Truth) -> Truth {
    core::array::from_fn(|at| after[at] - before[at])
}

#[track_caller]
fn check(what: &str, profile: &Profile, frame: &str, truth: Truth, checks_objects: bool) {
    let [
        allocated_objects,
        allocated_bytes,
        freed_objects,
        freed_bytes,
    ] = truth;
    for (name, real, is_checked) in [
        ("alloc_objects", allocated_objects, checks_objects),
        ("alloc_space", allocated_bytes, true),
        (
            "inuse_objects",
            allocated_objects - freed_objects,
            checks_objects,
        ),
        ("inuse_space", allocated_bytes - freed_bytes, true),
    ] {
        let estimate = profile.total(name, frame);
        if real == 0 {
            assert_eq!(estimate, 0, "{what}: {name}");
            continue;
        }
        let ratio = estimate as f64 / real as f64;
        println!("{what}: {name} {ratio:.4} of {real}");
        assert!(
            !is_checked || (ratio - 1.0).abs() < LIMIT,
            "{what}: {name} is {estimate}, not {real}"
        );
    }
}

/// So many that 10,000 of them are sampled.
fn count_for(size: usize, rate: usize) -> usize {
    (10_000.0 / -(-(size as f64) / rate as f64).exp_m1()).ceil() as usize
}

#[test]
fn each_size_is_within_five_percent() {
    let mut subject = churner();
    let rate = 4096;
    subject.ask(format!("rate {rate}"));
    for size in [16, 64, 200, 1024, 5000, 65_536] {
        let before = subject.numbers("truth");
        // Twice as many, as half of them are freed.
        subject.ask(format!("class {size} {}", 2 * count_for(size, rate)));
        let frame = format!("churner::class_{size}");
        let all = since(before, subject.numbers("truth"));
        check(&frame, &subject.profile("heap"), &frame, all, true);
        subject.ask(format!("release {size} 50"));
        let half = since(before, subject.numbers("truth"));
        check(&frame, &subject.profile("allocs"), &frame, half, true);
        subject.ask(format!("release {size} 100"));
        let none = since(before, subject.numbers("truth"));
        check(&frame, &subject.profile("heap?gc=1"), &frame, none, true);
    }
    subject.end();
}

#[test]
fn the_default_rate_is_within_five_percent() {
    let mut subject = churner();
    let rate = 512 * 1024;
    subject.ask(format!("rate {rate}"));
    for size in [65_536, 1_048_576] {
        let before = subject.numbers("truth");
        // In portions, so that they need not be in memory all at once.
        for _ in 0..10 {
            subject.ask(format!("class {size} {}", count_for(size, rate) / 10));
            subject.ask(format!("release {size} 100"));
        }
        let frame = format!("churner::class_{size}");
        let truth = since(before, subject.numbers("truth"));
        check(&frame, &subject.profile("heap"), &frame, truth, true);
    }
    subject.end();
}

#[test]
fn mixed_sizes_that_grow_and_are_freed_elsewhere_are_within_five_percent() {
    let mut subject = churner();
    subject.ask("rate 1024");
    subject.ask("mixed 4 25000 1");
    let truth = subject.numbers("truth");
    // What is in use rests on too few samples of small blocks for a count of objects.
    let profile = subject.profile("allocs");
    check("mixed", &profile, "churner::mixed", truth, false);
    let ratio = profile.total("alloc_objects", "churner::mixed") as f64 / truth[0] as f64;
    assert!((ratio - 1.0).abs() < LIMIT, "objects: {ratio}");
    subject.ask("clear");
    let truth = subject.numbers("truth");
    check(
        "cleared",
        &subject.profile("heap"),
        "churner::mixed",
        truth,
        false,
    );
    subject.end();
}

/// What could not be had is no allocation, and makes the next one no likelier to be a sample.
#[test]
fn allocations_that_fail_count_for_nothing() {
    let mut subject = churner();
    let (size, rate) = (64, 4096);
    subject.ask(format!("rate {rate}"));
    subject.ask(format!("fail {size} {}", count_for(size, rate)));
    let truth = subject.numbers("truth");
    let frame = "churner::fails_then_gets";
    check(frame, &subject.profile("allocs"), frame, truth, true);
    subject.end();
}

#[test]
fn at_rate_one_every_object_counts() {
    let mut subject = churner();
    subject.ask("rate 1");
    for size in [1, 16, 65_536] {
        let before = subject.numbers("truth");
        subject.ask(format!("class {size} 3000"));
        subject.ask(format!("release {size} 50"));
        let truth = since(before, subject.numbers("truth"));
        let frame = format!("churner::class_{size}");
        let profile = subject.profile("heap");
        let figures = [
            "alloc_objects",
            "alloc_space",
            "inuse_objects",
            "inuse_space",
        ];
        let figures = figures.map(|name| profile.total(name, &frame) as u64);
        let [objects, bytes, freed_objects, freed_bytes] = truth;
        assert_eq!(
            figures,
            [objects, bytes, objects - freed_objects, bytes - freed_bytes],
            "{size}"
        );
        subject.ask(format!("release {size} 100"));
    }
    subject.end();
}
