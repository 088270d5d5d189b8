//! Two minutes of four clients on each machine, all machines at once: no connection is lost, and no byte.
//!
//! `PICOPROF_SOAK_SECONDS` makes it another time.

use core::time::Duration;
use std::io::ErrorKind;
use std::thread;
use std::time::Instant;

use picoprof_tests::guest::{Guest, Machine};
use picoprof_tests::http::request;
use picoprof_tests::subject::profile_in;

/// One less than the smallest machine has sockets: who comes again may be there before its last connection has ended.
const CLIENTS: usize = 4;

const SOON: Duration = Duration::from_secs(5);

/// What a client asks for in turn; profiles are checked.
const PROFILES: &[&str] = &[
    "block",
    "mutex",
    "goroutine",
    "threadcreate",
    "heap",
    "allocs",
];
const TEXTS: &[&str] = &["cmdline", "", "goroutine?debug=1", "mutex?debug=1"];

/// Asks until the time is over; how often, and how often there was no socket for a new connection.
fn client(guest: &Guest, number: usize, end: Instant) -> (u64, u64) {
    let (mut answers, mut refused) = (0, 0);
    let mut connection = None;
    while Instant::now() < end {
        let at = number + answers as usize;
        // One takes CPU profiles: there can be one at a time.
        let target = match at % 10 {
            _ if number == 0 => "profile?seconds=1",
            0..6 => PROFILES[at % PROFILES.len()],
            _ => TEXTS[at % TEXTS.len()],
        };
        let closes = answers % 8 == 7;
        let headers: &[&str] = if closes { &["Connection: close"] } else { &[] };
        let is_new = connection.is_none();
        let client = connection.get_or_insert_with(|| guest.connect());
        let bytes = request("GET", &format!("/debug/pprof/{target}"), headers, b"");
        let answer = client.send(&bytes).and_then(|()| client.read_response());
        // QEMU accepts for a guest, which may have no socket that listens just then: smoltcp has no queue.
        if is_new && let Err(error) = &answer {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            refused += 1;
            connection = None;
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        let answer = answer.unwrap_or_else(|error| {
            panic!(
                "client {number}, answer {answers}, {target}: {error}; {}",
                guest.fate()
            )
        });
        if answer.header("Content-Type") == Some("application/octet-stream") {
            profile_in(target, &answer);
        } else {
            assert!(TEXTS.contains(&target), "{target}: {answer:?}");
            assert_eq!(answer.status, 200, "{target}");
        }
        answers += 1;
        if closes {
            // The end is a part of the answer; who comes again before it may find no socket.
            assert!(client.is_closed_within(SOON), "{target}: it stays open");
            connection = None;
        }
    }
    (answers, refused)
}

/// Answers, ticks and samples of one machine.
fn soak(machine: Machine, seconds: u64) {
    let guest = Guest::start(machine);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (before, mut rounds) = (guest.stats(), 0);
    let answers: Vec<(u64, u64)> = thread::scope(|scope| {
        let guest = &guest;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || client(guest, number, end)))
            .collect();
        let hash = guest.work(5);
        while Instant::now() < end {
            assert_eq!(guest.work(5), hash);
            rounds += 1;
        }
        let answers = clients.into_iter().map(|client| client.join());
        answers
            .map(|answers| answers.expect("it lost nothing"))
            .collect()
    });
    let refused: u64 = answers.iter().map(|(_, refused)| refused).sum();
    let answers: Vec<u64> = answers.iter().map(|(answers, _)| *answers).collect();
    let after = guest.stats();
    let counted = |name: &str| after.of(name) - before.of(name);
    println!(
        "{machine:?}: {answers:?} answers, {refused} refused, {rounds} times work, {} ticks, {} samples, {} lost in {seconds} s",
        counted("ticks"),
        counted("samples"),
        counted("lost"),
    );
    assert!(counted("ticks") >= 50 * seconds, "{before:?} {after:?}");
    assert!(counted("samples") >= 20 * seconds, "{before:?} {after:?}");
    // Interrupts that are masked while it is recorded how long they were before count as lost; and a small table of
    // stacks is full in the end, which its profiles then say.
    let lost_of_a_thousand = 1000 * counted("lost") / counted("ticks").max(1);
    let is_full = guest.get("").text().contains("full: raise");
    assert!(
        lost_of_a_thousand < 1
            || (machine == Machine::Lm3s6965evb && is_full && lost_of_a_thousand < 100),
        "{before:?} {after:?}"
    );
    assert!(
        200 * refused <= answers.iter().sum(),
        "{refused} refused of {answers:?}"
    );
    // A profile takes a second, and then some.
    assert!(answers[0] >= seconds / 5, "{answers:?}");
    assert!(
        answers[1..].iter().all(|&answers| answers >= seconds),
        "{answers:?}"
    );
    guest.end();
}

#[test]
fn nothing_is_lost() {
    let seconds =
        std::env::var("PICOPROF_SOAK_SECONDS").map_or(120, |it| it.parse().expect("a number"));
    thread::scope(|scope| {
        for machine in [Machine::Lm3s6965evb, Machine::Mps2An385, Machine::RiscvVirt] {
            scope.spawn(move || soak(machine, seconds));
        }
    });
}
