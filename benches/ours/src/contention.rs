//! Locks that threads wait for.

use bench::{locks, meter, print};
use picoprof_tests::{http, profile};

use super::sample;

/// The work of a mode of `bench::locks`, seen.
pub(crate) fn measure(mode: &str, n: usize) {
    let (_server, address) = sample::serve();
    // Until the server has made what stacks are walked with.
    http::get(address, "/debug/pprof/cmdline").expect("a response");
    locks::run(mode, n);
}

/// Turns both profiles off, and then does the same.
pub(crate) fn measure_off(n: usize) {
    picoprof_std::set_block_rate(0);
    picoprof_std::set_mutex_fraction(0);
    measure("lock", n);
}

/// Shows that what is measured is recorded: all waits for so many locks, and all wakes, in percent of what the kernel counted.
pub(crate) fn check(n: usize) {
    let (_server, address) = sample::serve();
    http::get(address, "/debug/pprof/cmdline").expect("a response");
    let begin = meter::waits();
    locks::run("lock", n);
    let waits = meter::waits() - begin;
    for kind in ["block", "mutex"] {
        let target = format!("/debug/pprof/{kind}");
        let body = http::get(address, &target).expect("a response").body;
        let profile = profile::decode(&body).expect("a profile");
        let contentions = profile.total("contentions", "contended");
        print(kind, (100.0 * contentions as f64 / waits as f64).round());
    }
}
