//! What `go_threads`, `go_labels` and `go_without_macro` share: a server in the test's own process, and something to see there.

use core::hint::black_box;
use core::net::SocketAddr;
use core::time::Duration;
use std::{fs, thread};

use picoprof_std::{Running, Server};
use picoprof_tests::http::{Client, Response};
use picoprof_tests::profile::{decode, validate};
use picoprof_tests::profile_proto::Profile;

/// Serves until it is dropped.
pub(crate) fn serve() -> (Running, SocketAddr) {
    let server = Server::bind(0)
        .and_then(Server::spawn)
        .expect("a port is free");
    let address = server.local_addr().expect("it has a port");
    (server, address)
}

/// A sound profile.
#[track_caller]
pub(crate) fn profile(address: SocketAddr, target: &str) -> Profile {
    sound(&get(address, target).body)
}

/// A profile that keeps all the rules.
#[track_caller]
pub(crate) fn sound(bytes: &[u8]) -> Profile {
    let profile = decode(bytes).expect("it is a profile");
    assert_eq!(validate(&profile), Ok(()));
    profile
}

/// The bytes of a profile of CPU time, and what `work` answers, which is done within it. If that takes longer, as the machine is
/// busy, another and longer profile is taken.
#[track_caller]
pub(crate) fn profile_while<T>(address: SocketAddr, hz: u32, work: impl Fn() -> T) -> (Vec<u8>, T) {
    for seconds in [4, 25] {
        let target = format!("profile?seconds={seconds}&hz={hz}");
        let profile = thread::spawn(move || get(address, &target).body);
        // It has begun by then.
        thread::sleep(Duration::from_millis(300));
        let done = work();
        let is_within = !profile.is_finished();
        let profile = profile.join().expect("it does not panic");
        if is_within {
            return (profile, done);
        }
    }
    panic!("this machine is too busy for this test");
}

/// A good answer.
#[track_caller]
pub(crate) fn get(address: SocketAddr, target: &str) -> Response {
    let request = format!(
        "GET /debug/pprof/{target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    );
    let answer = Client::connect(address).and_then(|mut client| {
        client.set_limit(Duration::from_mins(1));
        client.send(request.as_bytes())?;
        client.read_response()
    });
    let response = answer.unwrap_or_else(|error| panic!("{target}: {error}"));
    assert_eq!(
        response.status,
        200,
        "{target}: {}",
        String::from_utf8_lossy(&response.body)
    );
    response
}

/// The profile's comments.
pub(crate) fn comments(profile: &Profile) -> Vec<&str> {
    let comments = profile.comment.iter();
    comments.map(|comment| profile.string(*comment)).collect()
}

/// Has the calling thread use the processor for at least that long; answers how long it was for its whole life.
#[inline(never)]
pub(crate) fn burn(least: Duration) -> Duration {
    let mut state = 1_u64;
    loop {
        for _ in 0..10_000 {
            state = black_box(state.rotate_left(7) ^ 0x9e37_79b9);
        }
        let used = used_by_this_thread();
        if used >= least {
            return used;
        }
    }
}

/// The CPU time of the calling thread, as the scheduler counts it.
fn used_by_this_thread() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("it is a number"))
}
