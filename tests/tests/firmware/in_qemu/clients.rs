//! Clients that go in the middle, send what they should not, stop, or are too many.

use core::time::Duration;
use std::thread;
use std::time::Instant;

use picoprof_tests::guest::{Guest, Machine};
use picoprof_tests::hostile::bad_requests;
use picoprof_tests::http::{Client, Response, request};
use picoprof_tests::subject::profile_in;

on_each_machine! {
    bad_requests_get_clear_answers,
    clients_that_go_are_forgotten,
    half_a_request_keeps_nobody_out_for_long,
    more_clients_than_sockets_are_served_in_the_end,
    many_connections_follow_each_other,
    a_connection_serves_one_request_after_another,
}

const ENDPOINTS: &[&str] = &[
    "",
    "profile?seconds=5",
    "heap",
    "heap?seconds=5",
    "allocs?seconds=5",
    "block?seconds=5",
    "mutex?debug=1",
    "goroutine",
    "goroutine?debug=2",
    "goroutineleak",
    "threadcreate",
    "cmdline",
    "symbol?0x100",
];

/// Plain requests are answered, within `limit`, by as many sockets as there are.
#[track_caller]
fn assert_serves(guest: &Guest, limit: Duration) {
    let begun = Instant::now();
    loop {
        let mut clients: Vec<Client> = (0..guest.machine().clients())
            .map(|_| guest.connect_and_ask("cmdline"))
            .collect();
        let answered = clients.iter_mut().all(|client| {
            client.set_limit(Duration::from_secs(5));
            client
                .read_response()
                .is_ok_and(|answer| answer.status == 200)
        });
        if answered {
            return;
        }
        assert!(
            begun.elapsed() < limit,
            "after {:?}: {}",
            begun.elapsed(),
            guest.fate()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

const SOON: Duration = Duration::from_secs(5);

/// After which clients that do nothing have been given up.
const LATER: Duration = Duration::from_secs(60);

/// What is answered in the end, and how often it was refused before.
#[track_caller]
fn ask_until_answered(
    guest: &Guest,
    mut client: Client,
    target: &str,
    limit: Duration,
) -> (Response, usize) {
    let question = request("GET", &format!("/debug/pprof/{target}"), &[], b"");
    let begun = Instant::now();
    let mut refused = 0;
    loop {
        let sent = client.send(&question);
        match sent.and_then(|()| client.read_response()) {
            Ok(answer) => return (answer, refused),
            // Who finds no socket is told so at once, and tries again.
            Err(error) => assert!(
                begun.elapsed() < limit,
                "{target}: {error}; {}",
                guest.fate()
            ),
        }
        refused += 1;
        thread::sleep(Duration::from_millis(20));
        client = guest.connect();
    }
}

fn bad_requests_get_clear_answers(machine: Machine) {
    let guest = Guest::start(machine);
    for (status, bytes) in bad_requests() {
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(90)]).into_owned();
        let mut client = guest.connect();
        let sent = client.send(&bytes);
        match client.read_response() {
            Ok(answer) => assert_eq!(answer.status, status, "{head:?}"),
            Err(error) => panic!("{error}, {sent:?} to {head:?}; {}", guest.fate()),
        }
    }
    assert_serves(&guest, SOON);
    guest.end();
}

/// Before the answer begins, at its first byte, and reset with bytes unread.
fn clients_that_go_are_forgotten(machine: Machine) {
    let guest = Guest::start(machine);
    for target in ENDPOINTS {
        for pause in [0, 3, 60] {
            let client = guest.connect_and_ask(target);
            thread::sleep(Duration::from_millis(pause));
            // What was not read makes the end a reset.
            drop(client);
        }
        let mut client = guest.connect_and_ask(target);
        // Who was refused is not connected any more.
        let _ = client.finish_sending();
        let mut byte = [0];
        let _ = client.stream().peek(&mut byte);
        drop(client);
    }
    // Their sockets are there again, and what they had asked for is over.
    assert_serves(&guest, LATER);
    let (answer, _) = ask_until_answered(&guest, guest.connect(), "profile?seconds=1", SOON);
    profile_in("profile", &answer);
    guest.end();
}

fn half_a_request_keeps_nobody_out_for_long(machine: Machine) {
    let guest = Guest::start(machine);
    let halves: Vec<Client> = (0..machine.clients())
        .map(|_| {
            let mut client = guest.connect();
            client.send(b"GET /debug/pp").expect("it listens");
            client
        })
        .collect();
    assert_serves(&guest, LATER);
    for mut client in halves {
        // An answer that says so, or the end.
        if let Ok(answer) = client.read_response() {
            assert_eq!(answer.status, 408);
        }
    }
    guest.end();
}

fn more_clients_than_sockets_are_served_in_the_end(machine: Machine) {
    let guest = Guest::start(machine);
    let sockets = machine.clients();
    // All come before one asks, so most find no socket.
    let clients: Vec<Client> = (0..3 * sockets).map(|_| guest.connect()).collect();
    let refused: usize = thread::scope(|scope| {
        let asking = clients.into_iter().map(|client| {
            let guest = &guest;
            scope.spawn(move || {
                let (answer, refused) = ask_until_answered(guest, client, "goroutine", LATER);
                profile_in("goroutine", &answer);
                refused
            })
        });
        let asking: Vec<_> = asking.collect();
        let refused = asking.into_iter().map(|one| one.join().expect("an answer"));
        refused.sum()
    });
    assert!(refused >= sockets, "only {refused} were refused");
    assert_serves(&guest, SOON);
    guest.end();
}

fn many_connections_follow_each_other(machine: Machine) {
    let guest = Guest::start(machine);
    for at in 0..200 {
        let target = ["cmdline", "goroutine", "threadcreate", "block"][at % 4];
        assert_eq!(guest.get(target).status, 200, "{target}");
    }
    guest.end();
}

fn a_connection_serves_one_request_after_another(machine: Machine) {
    let guest = Guest::start(machine);
    let mut client = guest.connect();
    let cmdline = request("GET", "/debug/pprof/cmdline", &[], b"");
    let unknown = request("GET", "/debug/pprof/nothing", &[], b"");
    // Many at once: more than its buffer has room for.
    client
        .send(&[cmdline.clone(), unknown].concat().repeat(20))
        .expect("it listens");
    for _ in 0..20 {
        let answers = [(); 2].map(|()| client.read_response().expect("it answers").status);
        assert_eq!(answers, [200, 404]);
    }
    // Byte by byte.
    client
        .send_in_pieces(&cmdline, 1, Duration::from_millis(2))
        .expect("it listens");
    assert_eq!(client.read_response().expect("it answers").status, 200);
    // Its side closed: what was asked is still answered.
    client.send(&cmdline).expect("it listens");
    client.finish_sending().expect("it is connected");
    assert_eq!(client.read_response().expect("it answers").status, 200);
    assert!(client.is_closed_within(SOON));
    guest.end();
}
