//! Threads that come and go while a CPU profile is taken, in a program that uses `interpose!`: this one.

#![forbid(unsafe_code)]

mod go_process;

use core::time::Duration;
use std::thread;

use go_process::{burn, comments, profile, profile_while, serve, sound};

picoprof_std::interpose!();

/// So short that a look for new threads every 100 ms would miss most of them.
const SHORT: Duration = Duration::from_millis(20);
const THREADS: u32 = 50;

#[test]
fn short_threads_are_sampled_from_their_creation_on() {
    let (_server, address) = serve();
    let (bytes, used) = profile_while(address, 1000, || {
        let threads = (0..THREADS).map(|_| thread::spawn(|| burn(SHORT)));
        let used = threads.map(|thread| thread.join().expect("it does not panic"));
        used.sum::<Duration>()
    });
    let seen = sound(&bytes).total("cpu", "go_process::burn") as f64 / used.as_nanos() as f64;
    assert!((0.8..1.2).contains(&seen), "{seen} of {used:?}");
}

#[test]
fn threadcreate_has_their_creators() {
    let (_server, address) = serve();
    let created = || profile(address, "threadcreate").total("threadcreate", "creates_threads");
    let before = created();
    creates_threads(7);
    assert_eq!(created() - before, 7);
    let now = profile(address, "threadcreate");
    assert!(comments(&now).is_empty(), "{:?}", comments(&now));
    // The server's own threads are no part of it.
    assert_eq!(now.total("threadcreate", "picoprof_std::server"), 0);
}

#[inline(never)]
fn creates_threads(count: u32) {
    for _ in 0..count {
        thread::spawn(|| ()).join().expect("it does not panic");
    }
}
