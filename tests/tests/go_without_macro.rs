//! A program that does not use `interpose!`, as this one: threads are found a little later, and `threadcreate` says why
//! it is empty.

#![forbid(unsafe_code)]

mod go_process;

use core::time::Duration;
use std::thread;

use go_process::{burn, comments, get, profile, profile_while, serve, sound};
use picoprof_tests::go::Go;

/// What the program's author is told to write.
const REMEDY: &str = "interpose!()";

#[test]
fn new_threads_are_found_within_a_tenth_of_a_second() {
    let (_server, address) = serve();
    let (bytes, used) = profile_while(address, 500, || {
        let burner = thread::spawn(|| burn(Duration::from_secs(1)));
        burner.join().expect("it does not panic")
    });
    let seen = sound(&bytes).total("cpu", "go_process::burn");
    let seen = Duration::from_nanos(seen.try_into().expect("it is not negative"));
    // On a busy machine the look itself has to wait for its turn.
    let missed = used.saturating_sub(seen);
    assert!(
        missed < Duration::from_millis(200),
        "{missed:?} of {used:?}"
    );
    assert!(seen < used.mul_f64(1.1), "{seen:?} of {used:?}");
}

#[test]
fn threadcreate_says_why_it_is_empty() {
    let (_server, address) = serve();
    let text = get(address, "threadcreate?debug=1");
    let text = text.text();
    assert!(
        text.starts_with("threadcreate profile: total 0\n"),
        "{text}"
    );
    assert!(text.contains(REMEDY), "{text}");

    let profile = profile(address, "threadcreate");
    assert!(profile.sample.is_empty());
    let comments = comments(&profile);
    assert!(
        comments.iter().any(|comment| comment.contains(REMEDY)),
        "{comments:?}"
    );

    let go = Go::new();
    let url = format!(
        "http://localhost:{}/debug/pprof/threadcreate",
        address.port()
    );
    let shown = go.pprof(["-comments", &url]).succeeded();
    assert!(shown.text().contains(REMEDY), "{}", shown.text());
    // An empty profile is no error.
    let _ = go.pprof(["-top", &url]).succeeded();
}

/// The same for who waits, which the macro shows as well.
#[test]
fn block_and_mutex_say_why_they_are_empty() {
    let (_server, address) = serve();
    for target in ["block", "mutex"] {
        let profile = profile(address, target);
        let comments = comments(&profile);
        let remedy = comments.iter().any(|comment| comment.contains(REMEDY));
        assert!(remedy, "{target}: {comments:?}");
    }
}

/// The same for what `#[global_allocator]` would fill.
#[test]
fn heap_says_why_it_is_empty() {
    let (_server, address) = serve();
    for target in ["heap", "allocs"] {
        let profile = profile(address, target);
        assert!(profile.sample.is_empty());
        let comments = comments(&profile);
        let remedy = comments
            .iter()
            .any(|comment| comment.contains("#[global_allocator]"));
        assert!(remedy, "{target}: {comments:?}");
    }
}
