//! Execution traces: what the device records, with names; and what it should not send.

use core::cell::Cell;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use picoprof_tests::bridge::Bridge;
use picoprof_tests::go::Go;
use picoprof_tests::http;
use picoprof_tests::trace::{Frame, State, Trace};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::device::{Device, NOWHERE};
use crate::hostile::{octets, parrot};
use crate::program::{Code, bridge_for, elf, line};

/// There is one trace at a time in a process, however many devices it makes up.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device that begins its answer to the question for a trace, and has no more to say. It says when that client has gone.
fn silent() -> (SocketAddr, Receiver<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let (gone, is_gone) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let gone = gone.clone();
            thread::spawn(move || {
                let mut request = [0; 1024];
                let len = stream.read(&mut request).unwrap_or(0);
                if !request[..len].starts_with(b"GET /debug/pprof/trace") {
                    return;
                }
                let begin = octets(b"go 1.22 trace\0\0\0");
                let _ = stream.write_all(&begin);
                while stream.read(&mut request).is_ok_and(|len| len > 0) {}
                let _ = gone.send(());
            });
        }
    });
    (address, is_gone)
}

/// The trace of a device, as it is sent.
fn recorded() -> Vec<u8> {
    let device = Device::new().listen();
    let answer = http::get(device, "/debug/pprof/trace?seconds=0.3").expect("it answers");
    assert_eq!(answer.status, 200);
    answer.body
}

/// Where it waits.
fn waits(trace: &Trace) -> Vec<&[Frame]> {
    let slices = trace.only("thread main").slices.iter();
    let waits = slices.filter(|it| it.state == State::Waiting);
    waits.map(|it| &*it.stack).collect()
}

#[test]
fn functions_files_and_lines_are_those_of_the_file() {
    let _alone = alone();
    let plain = recorded();
    let go = Go::new();
    go.accepts_trace(&plain);
    let plain = Trace::of(&plain);
    let all = waits(&plain);
    assert!(all.len() > 5, "{all:?}");
    let code = Code::get();
    let addresses = [code.inlined, code.method, NOWHERE].map(|pc| format!("{pc:#018x}"));
    for stack in all {
        let functions: Vec<&str> = stack.iter().map(|frame| &*frame.function).collect();
        assert_eq!(functions[..3], addresses);
    }

    let bridge = bridge_for(Device::new());
    let answer = bridge.ask("GET", "trace?seconds=1.5", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.header("content-type"),
        Some("application/octet-stream")
    );
    go.accepts_trace(&answer.body);
    let named = Trace::of(&answer.body);
    assert!(named.generations > 1, "{}", named.generations);
    let all = waits(&named);
    assert!(all.len() > 5, "{all:?}");
    for stack in all {
        // It is inlined, but not of the program.
        let is_own = |it: &&Frame| !it.function.ends_with("registers_here");
        let stack: Vec<&Frame> = stack.iter().filter(is_own).collect();
        let lines: Vec<u32> = stack.iter().map(|frame| frame.line as u32).collect();
        let expected = [
            line::IN_CHECKSUM,
            line::CALLS_CHECKSUM,
            line::IN_APPLY,
            0,
            0,
        ];
        assert_eq!(lines, expected, "{stack:?}");
        let functions: Vec<&str> = stack.iter().map(|frame| &*frame.function).collect();
        assert!(functions[0].ends_with("::checksum"), "{functions:?}");
        assert!(functions[1].ends_with("::parse_reading"), "{functions:?}");
        assert!(functions[2].contains("Filter<T>"), "{functions:?}");
        assert_eq!(functions[3..], [&format!("{NOWHERE:#018x}"), "thread main"]);
        assert!(
            stack[..3]
                .iter()
                .all(|frame| frame.file.ends_with("program.rs"))
        );
    }
}

/// It comes while it is recorded, and ends when nobody wants it any more.
#[test]
fn it_is_no_later_than_the_devices() {
    let _alone = alone();
    let bridge = bridge_for(Device::new());
    // What it's asked first takes its time.
    let _ = bridge.introduction();
    let began = Instant::now();
    let mut client = bridge.asking("GET", "trace?seconds=60", "");
    let head = client.is_closed_within(Duration::from_millis(1500));
    assert!(!head && began.elapsed() < Duration::from_secs(10));
    drop(client);
    // The next one is let in once the device has noticed.
    loop {
        let answer = bridge.ask("GET", "trace?seconds=0.1", "");
        if answer.status == 200 {
            break;
        }
        assert_eq!(answer.status, 500, "{}", answer.text());
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{}",
            answer.text()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// A device that has nothing to tell is left all the same when its client leaves.
#[test]
fn a_client_that_leaves_is_seen_while_nothing_comes() {
    let (address, is_gone) = silent();
    let bridge = Bridge::start(&elf(), ["--device", &format!("http://{address}")]);
    let _ = bridge.introduction();
    let client = bridge.asking("GET", "trace?seconds=600", "");
    let mut header = [0; 12];
    client.stream().peek(&mut header).expect("it begins");
    assert_eq!(&header, b"HTTP/1.1 200");
    assert!(is_gone.recv_timeout(Duration::from_millis(300)).is_err());
    drop(client);
    let gone = is_gone.recv_timeout(Duration::from_secs(20));
    gone.expect("the bridge has left the device");
}

/// What Go's readers take of a device, they take from the bridge, and it is as much.
#[test]
fn no_trace_is_broken_on_the_way() {
    let whole = {
        let _alone = alone();
        recorded()
    };
    let (address, words) = parrot();
    words.send(Vec::new()).expect("it listens");
    let bridge = Bridge::start(&elf(), ["--device", &format!("http://{address}")]);
    let _ = bridge.introduction();
    let readers = Mutex::new(Go::new().trace_readers());
    let sound = Cell::new(0);
    let check = |bytes: &[u8]| {
        words.send(Vec::new()).expect("it listens");
        words.send(octets(bytes)).expect("it listens");
        let named = bridge.ask("GET", "trace", "").body;
        let mut readers = readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(events) = readers.read(bytes) {
            prop_assert_eq!(readers.read(&named), Ok(events));
            sound.set(sound.get() + 1);
        }
        if Trace::read(bytes).is_ok() {
            prop_assert_eq!(Trace::read(&named).map(drop), Ok(()));
        }
        Ok(())
    };
    check(&whole).expect("it is sound");
    let changes = prop::collection::vec((16..whole.len(), 0..8_u8), 0..3);
    let mut runner = TestRunner::new(Config::with_cases(200));
    let outcome = runner.run(&changes, |changes| {
        let mut changed = whole.clone();
        for (place, bit) in changes {
            changed[place] ^= 1 << bit;
        }
        check(&changed)
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    // Or nothing was shown.
    assert!(sound.get() > 40, "{} are sound", sound.get());
}

#[test]
fn what_is_damaged_goes_through() {
    let whole = {
        let _alone = alone();
        recorded()
    };
    let (address, words) = parrot();
    let bridge = Bridge::start(&elf(), ["--device", &format!("http://{address}")]);
    let say = |body: &[u8]| {
        // Before each trace it is asked which program it runs.
        words.send(Vec::new()).expect("it listens");
        words.send(octets(body)).expect("it listens");
        let answer = bridge.ask("GET", "trace", "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.body
    };
    // And when it starts.
    words.send(Vec::new()).expect("it listens");
    let _ = bridge.introduction();
    let named = say(&whole);
    Go::new().accepts_trace(&named);
    assert!(named.windows(13).any(|part| part == b"parse_reading"));
    assert_eq!(say(b""), b"");
    assert_eq!(say(b"go 1.26 trace\0\0\0..."), b"go 1.26 trace\0\0\0...");
    for cut in (0..whole.len()).step_by(whole.len() / 7) {
        let sent = say(&whole[..cut]);
        assert!(sent.len() >= cut, "{cut}: {}", sent.len());
        let mut damaged = whole.clone();
        damaged[cut] ^= 0xff;
        let _ = say(&damaged);
    }
}
