//! Ten thousand stacks as the endpoint sends them: with symbols.

use std::io::Write as _;

use bench::{meter, print, stacks};
use flate2::{Compression, write::GzEncoder};
use picoprof_tests::{http, profile};

use super::sample;

/// The first profile of the process, whose symbols nobody has looked up before, and then some more.
pub(crate) fn measure() {
    let (_server, address) = sample::serve();
    // Until the server's thread runs and has its name.
    http::get(address, "/debug/pprof/cmdline").expect("a response");
    let server = meter::thread_named("picoprof").expect("the server's thread");
    let take = |take: fn()| stacks::each(&mut || take());

    meter::reset_peak();
    let (resident, _) = meter::resident_mb();
    let begin = meter::cpu_ms_of(server);
    let gz = sample::profile_of(address, take);
    print("cold_and_gzip_ms", meter::cpu_ms_of(server) - begin);
    print("peak_mb", meter::status_mb("VmHWM") - resident);

    let raw = profile::gunzip(&gz).expect("a gzip file");
    print("raw_bytes", raw.len() as f64);
    print("gzip_bytes", gz.len() as f64);
    let decoded = profile::decode(&raw).expect("a profile");
    profile::validate(&decoded).expect("a valid profile");
    let frames: usize = decoded
        .sample
        .iter()
        .map(|sample| sample.location_id.len())
        .sum();
    print("stacks", decoded.sample.len() as f64);
    print("frames", frames as f64 / decoded.sample.len() as f64);
    print("locations", decoded.location.len() as f64);

    let warm = (0..4).map(|_| {
        let begin = meter::cpu_ms_of(server);
        sample::profile_of(address, take);
        meter::cpu_ms_of(server) - begin
    });
    print("warm_and_gzip_ms", warm.fold(f64::INFINITY, f64::min));
    // The same work apart, as the endpoint has no profile without it.
    let gzip = (0..5).map(|_| {
        let begin = meter::thread_cpu_ms();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&raw).expect("memory");
        let packed = encoder.finish().expect("memory");
        assert!(packed.len().abs_diff(gz.len()) < 1000);
        meter::thread_cpu_ms() - begin
    });
    print("gzip_ms", gzip.fold(f64::INFINITY, f64::min));
}

/// Shows how deep the stack of the most frequent allocation is, without the allocator's own frames.
pub(crate) fn check_heap() {
    let (_server, address) = sample::serve();
    let body = http::get(address, "/debug/pprof/allocs")
        .expect("a response")
        .body;
    let profile = profile::decode(&body).expect("a profile");
    let most = profile.sample.iter().max_by_key(|sample| sample.value[0]);
    let locations = most.map_or(&[][..], |sample| &sample.location_id);
    print("objects", most.map_or(0, |sample| sample.value[0]) as f64);
    print("frames", locations.len() as f64);
}
