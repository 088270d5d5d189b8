//! What the endpoints of this process show.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use picoprof_std::{Running, Server};
use picoprof_tests::http;
use picoprof_tests::profile_proto::Profile;
use picoprof_tests::subject::profile_in;

/// More than any step takes, on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// One test at a time, as all tasks are in one pool; with a server.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = address();
    alone
}

fn address() -> SocketAddr {
    static SERVER: OnceLock<Running> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let server = Server::bind(0).and_then(|server| server.allow_host("test").spawn());
        server.expect("a port is free")
    });
    server.local_addr().expect("it has a port")
}

/// A sound profile of this process.
#[track_caller]
pub(crate) fn profile(target: &str) -> Profile {
    let response = http::get(address(), &format!("/debug/pprof/{target}"));
    profile_in(target, &response.expect("it answers"))
}

/// A text of this process.
#[track_caller]
pub(crate) fn text(target: &str) -> String {
    let response = http::get(address(), &format!("/debug/pprof/{target}")).expect("it answers");
    assert_eq!(response.status, 200, "{target}");
    response.text().to_owned()
}

/// A frame: the function's name and the line.
pub(crate) type Place = (String, i64);

/// A sample: frames, leaf first, and values.
pub(crate) type Sample = (Vec<Place>, Vec<i64>);

pub(crate) fn samples(profile: &Profile) -> Vec<Sample> {
    let names = (profile.function.iter()).map(|it| (it.id, profile.string(it.name).to_owned()));
    let names: HashMap<u64, String> = names.collect();
    let locations: HashMap<_, _> = profile.location.iter().map(|it| (it.id, it)).collect();
    let sample = profile.sample.iter().map(|sample| {
        let lines = sample.location_id.iter().flat_map(|id| &locations[id].line);
        let places = lines.map(|line| (names[&line.function_id].clone(), line.line));
        (places.collect(), sample.value.clone())
    });
    sample.collect()
}

/// The sum of a value over the samples that have this function, at this line if it's given.
pub(crate) fn total(samples: &[Sample], value: usize, function: &str, line: Option<i64>) -> i64 {
    let is_there =
        |place: &Place| is_in(&place.0, function) && line.is_none_or(|line| place.1 == line);
    let those = samples
        .iter()
        .filter(|(places, _)| places.iter().any(is_there));
    those.map(|(_, values)| values[value]).sum()
}

/// Whether a stack has this function.
pub(crate) fn is_on(places: &[Place], function: &str) -> bool {
    places.iter().any(|(frame, _)| is_in(frame, function))
}

/// Whether a frame is that function's, or that of a closure or an async block in it.
fn is_in(frame: &str, function: &str) -> bool {
    frame.split("::").any(|part| part == function)
}

/// How many goroutines have this function, at this line if it's given.
pub(crate) fn goroutines(samples: &[Sample], function: &str, line: Option<i64>) -> i64 {
    total(samples, 0, function, line)
}

/// Waits for something to come true.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}
