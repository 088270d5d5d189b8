//! What a program pays for having the profilers.

use bench::{meter, print};
use picoprof_tests::http;

use super::sample;

/// Resident memory that comes with the server and the first CPU profile; allocations are sampled all the time.
pub(crate) fn measure() {
    let before = meter::resident_mb();
    let (_server, address) = sample::serve();
    // Until it listens, and has read its program's name.
    http::get(address, "/debug/pprof/cmdline").expect("a response");
    show("started", before);
    sample::profile_of(address, |take| {
        (0..100).for_each(|_| take());
        show("sampling", before);
    });
    show("after_cpu", before);
}

fn show(when: &str, before: (f64, f64)) {
    let (all, anonymous) = meter::resident_mb();
    print(&format!("{when}_mb"), all - before.0);
    print(&format!("{when}_anonymous_mb"), anonymous - before.1);
}
