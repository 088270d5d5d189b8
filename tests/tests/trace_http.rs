//! The endpoint `trace`, without a socket and a clock: what goes out when, how it ends, and what is refused.

#![forbid(unsafe_code)]

use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};

use picoprof::Instant;
use picoprof::http::{Connection, Transmit};
use picoprof::stack::StackId;
use picoprof::trace::{Event, FlightRecorder, Stream, is_on};
use picoprof_tests::http::{Framing, Response, parse_answers};
use picoprof_tests::model::{Model, Talk, talk};
use picoprof_tests::trace::Trace;
use proptest::prelude::*;

const HEAD: usize = 512;
const START: Instant = Instant::from_millis(1000);
/// What a client may have to wait for the next bytes, though there are some.
const PAUSE: Duration = Duration::from_millis(20);
/// The first bytes of every trace.
const MAGIC: &[u8] = b"go 1.22 trace\0\0\0";

/// There is one trace at a time in a process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(!is_on());
    alone
}

fn model() -> Box<Model> {
    let model = Box::<Model>::default();
    model.keep_trace();
    model
}

/// A thread does something, now.
fn act(model: &Model, thread: &Stream) {
    let trace = model.trace.get().expect("it's kept");
    let ticks = model.now.get().as_nanos();
    trace.record(thread, ticks, Event::waits(7, StackId::EMPTY));
    trace.record(thread, ticks + 1, Event::resumed());
}

fn talk_of(model: &Model, method: &str, target: &str) -> Talk {
    let request = format!("{method} /debug/pprof/{target} HTTP/1.1\r\nHost: a\r\n\r\n");
    talk::<HEAD>(model, &[request.as_bytes()], 256)
}

fn only(talk: &Talk, method: &str) -> Response {
    let mut answers = parse_answers(&talk.sent, &[method]).expect("HTTP");
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

fn answer(model: &Model, method: &str, target: &str) -> Response {
    only(&talk_of(model, method, target), method)
}

fn headers(response: &Response) -> Vec<(&str, &str)> {
    let headers = response.headers.iter();
    headers
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

fn millis(millis: u64) -> Instant {
    START + Duration::from_millis(millis)
}

/// A connection that a test drives by hand.
struct Hand<'m> {
    connection: Connection<'m, Model, HEAD>,
    model: &'m Model,
    sent: Vec<u8>,
}

impl<'m> Hand<'m> {
    fn get(model: &'m Model, target: &str) -> Self {
        Self::ask(model, "GET", target)
    }

    fn ask(model: &'m Model, method: &str, target: &str) -> Self {
        let mut connection = Connection::new(model);
        let request = format!("{method} /debug/pprof/{target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(connection.receive(request.as_bytes()), request.len());
        Self {
            connection,
            model,
            sent: Vec::new(),
        }
    }

    /// Takes up to so many bytes.
    fn step(&mut self, now: Instant, size: usize) -> Transmit {
        self.model.now.set(now);
        let mut buffer = vec![0; size];
        let answer = self.connection.transmit(now, &mut buffer);
        if let Transmit::Wrote(len) = answer {
            self.sent.extend_from_slice(&buffer[..len]);
        }
        answer
    }

    /// What it waits for in the end.
    fn run(&mut self, now: Instant) -> Transmit {
        loop {
            match self.step(now, 200) {
                Transmit::Wrote(_) => {}
                other => return other,
            }
        }
    }

    /// Runs it whenever it wants to, until it waits for a request or is closed.
    fn run_to_end(&mut self) -> Transmit {
        let mut now = self.model.now.get();
        loop {
            match self.run(now) {
                Transmit::WaitUntil(time) => {
                    assert!(time > now && time <= now + PAUSE);
                    now = time;
                }
                other => return other,
            }
        }
    }

    fn answers(&self) -> Vec<Response> {
        parse_answers(&self.sent, &[]).expect("HTTP")
    }
}

/// All of a trace has come.
fn assert_whole(trace: &[u8]) {
    let _ = Trace::of(trace);
}

const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");
const BINARY: (&str, &str) = ("Content-Type", "application/octet-stream");
const NOSNIFF: (&str, &str) = ("X-Content-Type-Options", "nosniff");
const GO: (&str, &str) = ("X-Go-Pprof", "1");
const CHUNKED: (&str, &str) = ("Transfer-Encoding", "chunked");
const FILE: (&str, &str) = ("Content-Disposition", "attachment; filename=\"trace\"");

// ---- what is answered

#[test]
fn a_trace_has_gos_headers() {
    let _alone = alone();
    let model = model();
    let response = answer(&model, "GET", "trace?seconds=0.1");
    assert_eq!((response.status, response.reason.as_str()), (200, "OK"));
    assert_eq!(headers(&response), [FILE, BINARY, NOSNIFF, CHUNKED]);
    assert!(response.body.starts_with(MAGIC));
    assert_whole(&response.body);

    let bytes = b"GET /debug/pprof/trace?seconds=0.1 HTTP/1.0\r\n\r\n";
    let old = only(&talk::<HEAD>(&model, &[bytes], 100), "GET");
    assert_eq!(old.framing, Framing::Close);
    assert_eq!(
        headers(&old),
        [FILE, BINARY, NOSNIFF, ("Connection", "close")]
    );
    assert!(old.body.starts_with(MAGIC));
    assert!(!is_on());
}

#[test]
fn head_does_the_same_without_a_body() {
    let _alone = alone();
    let model = model();
    let talk = talk_of(&model, "HEAD", "trace?seconds=2.5");
    let response = only(&talk, "HEAD");
    assert_eq!(response.status, 200);
    assert_eq!(headers(&response), [FILE, BINARY, NOSNIFF]);
    // Go's server has nothing to send before the end either.
    assert_eq!(talk.waits, [millis(2500)]);
    let second = talk_of(&model, "HEAD", "trace?seconds=0.5");
    assert_eq!(second.waits, [millis(500)]);
    assert!(!is_on());
}

#[test]
fn other_methods_are_not_allowed() {
    let _alone = alone();
    for method in ["POST", "PUT", "DELETE"] {
        let response = answer(&model(), method, "trace?seconds=1");
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.header("allow"), Some("GET, HEAD"));
    }
    assert!(!is_on());
}

#[test]
fn there_is_none_where_nothing_is_recorded() {
    let _alone = alone();
    let model = Box::<Model>::default();
    for target in ["trace", "trace?flight=1"] {
        let response = answer(&model, "GET", target);
        assert_eq!(
            (response.status, response.text()),
            (404, "Unknown profile\n")
        );
    }
    assert!(!answer(&model, "GET", "").text().contains("trace"));

    model.keep_trace();
    let page = answer(&model, "GET", "");
    let row = "<tr><td>0</td><td><a href=\"trace\">trace</a></td><td>";
    let [_, text] = page.text().split(row).collect::<Vec<_>>()[..] else {
        panic!("one row: {}", page.text());
    };
    assert!(text.contains("flight=1"));
    // By name.
    assert!(!text.contains("<tr><td>"));
}

// ---- how long it takes

#[test]
fn times_are_gos() {
    let _alone = alone();
    for (target, expected) in [
        ("trace", 1000),
        ("trace?seconds=", 1000),
        ("trace?seconds=2", 2000),
        ("trace?seconds=0.2", 200),
        ("trace?seconds=.25", 250),
        ("trace?seconds=1.5e0", 1500),
        ("trace?seconds=25e-2&debug=1", 250),
        ("trace?seconds=0", 1000),
        ("trace?seconds=-0", 1000),
        ("trace?seconds=-2", 1000),
        ("trace?seconds=NaN", 1000),
        ("trace?seconds=-Inf", 1000),
        ("trace?seconds=x", 1000),
        ("trace?seconds=1s", 1000),
        ("trace?seconds=2&seconds=1", 2000),
        // Go's forms have a space there too.
        ("trace?seconds=+2", 1000),
        ("trace?seconds=%2B2", 2000),
        ("trace?flight=0", 1000),
        ("trace?flight=x&seconds=0.5", 500),
    ] {
        let talk = talk_of(&model(), "GET", target);
        assert_eq!(only(&talk, "GET").status, 200);
        assert_eq!(talk.waits.last(), Some(&millis(expected)), "{target}");
        let mut before = START;
        for &wait in &talk.waits {
            assert!(wait <= before + PAUSE, "{target}");
            before = wait;
        }
        assert!(!is_on());
    }
}

#[test]
fn what_is_too_long_is_refused() {
    let _alone = alone();
    for seconds in [
        "%2BInf",
        "inf",
        "Infinity",
        "1e99",
        "1e9999999",
        "86400.1",
        "9223372036854775808",
        "99999999999999999999999999999999",
    ] {
        let model = model();
        let response = answer(&model, "GET", &format!("trace?seconds={seconds}"));
        assert_eq!(response.status, 400, "{seconds}");
        let text = "invalid value for \"seconds\" - must be at most 86400\n";
        assert_eq!(response.text(), text);
        let length = text.len().to_string();
        let expected = [TEXT, NOSNIFF, GO, ("Content-Length", &length)];
        assert_eq!(headers(&response), expected);
        assert!(!is_on() && model.lent.get() == 0);
    }
}

#[test]
fn it_goes_out_while_it_is_recorded() {
    let _alone = alone();
    let model = model();
    let thread = Stream::new(17);
    let mut hand = Hand::get(&model, "trace?seconds=5");
    let Transmit::WaitUntil(mut next) = hand.run(START) else {
        panic!("it's recorded");
    };
    assert!(is_on() && hand.connection.is_busy() && !hand.connection.is_idle());
    // The head does not wait for anything.
    assert!(hand.sent.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let mut lengths = vec![hand.sent.len()];
    while next < millis(5000) {
        model.now.set(next);
        act(&model, &thread);
        assert!(is_on());
        let Transmit::WaitUntil(time) = hand.run(next) else {
            panic!("not before its time");
        };
        assert!(time > next && time <= next + PAUSE);
        // Not before that.
        let len = hand.sent.len();
        let early = Instant::from_nanos(time.as_nanos() - 1);
        assert_eq!(hand.run(early), Transmit::WaitUntil(time));
        assert_eq!(hand.sent.len(), len);
        next = time;
        lengths.push(len);
    }
    lengths.dedup();
    assert!(lengths.len() >= 4, "a part each second: {lengths:?}");
    assert!(matches!(hand.run(millis(5000)), Transmit::WantRead(_)));
    assert!(!is_on() && model.lent.get() == 0);
    let [response] = &hand.answers()[..] else {
        panic!("one answer");
    };
    let trace = Trace::of(&response.body);
    assert!(!trace.goroutines.is_empty());
}

// ---- one at a time

#[test]
fn a_second_one_is_refused_at_once() {
    let _alone = alone();
    let model = model();
    let mut first = Hand::get(&model, "trace?seconds=5");
    first.run(START);
    // Nor is memory the reason, where there's memory for one only.
    for has_memory in [true, false] {
        model.has_memory.set(has_memory);
        let refused = answer(&model, "GET", "trace?seconds=1");
        assert_eq!(
            (refused.status, refused.reason.as_str()),
            (500, "Internal Server Error")
        );
        let text = "Could not enable tracing: execution tracer already enabled\n";
        assert_eq!(refused.text(), text);
        let expected = [TEXT, NOSNIFF, GO, ("Content-Length", "59")];
        assert_eq!(headers(&refused), expected);
        assert!(is_on());
    }
    model.has_memory.set(true);
    // Profiles go on beside it.
    assert_eq!(answer(&model, "GET", "profile?seconds=1").status, 200);
    assert!(matches!(first.run_to_end(), Transmit::WantRead(_)));
    assert_eq!(first.answers()[0].status, 200);
    assert_eq!(answer(&model, "GET", "trace?seconds=0.1").status, 200);
}

#[test]
fn one_that_has_no_memory_is_refused() {
    let _alone = alone();
    let model = model();
    model.has_memory.set(false);
    let refused = answer(&model, "GET", "trace?seconds=1");
    assert_eq!(refused.status, 500);
    assert_eq!(refused.header("x-go-pprof"), Some("1"));
    let text = "Could not enable tracing: there is no memory for it\n";
    assert_eq!(refused.text(), text);
    assert!(!is_on());
}

// ---- clients that go

#[test]
fn a_client_that_goes_ends_it_at_once() {
    let _alone = alone();
    for method in ["GET", "HEAD"] {
        let model = model();
        let mut hand = Hand::ask(&model, method, "trace?seconds=5");
        assert!(matches!(hand.run(START), Transmit::WaitUntil(_)));
        hand.run(millis(100));
        assert!(is_on());
        hand.connection.receive_end();
        assert!(!is_on() && model.lent.get() == 0);
        assert_eq!(hand.run(millis(200)), Transmit::Close);
    }
    // Also one that has gone before its request was looked at.
    let model = model();
    let mut hand = Hand::get(&model, "trace?seconds=5");
    hand.connection.receive_end();
    assert_eq!(hand.run(START), Transmit::Close);
    assert!(hand.sent.is_empty() && !is_on());
}

#[test]
fn a_client_that_goes_while_it_is_sent_to_ends_it_at_once() {
    let _alone = alone();
    let model = model();
    // In the head, in the first bytes, and in a later part.
    for bytes in [1, 20, 150, 230] {
        let mut hand = Hand::get(&model, "trace?seconds=5");
        for _ in 0..bytes {
            assert!(matches!(
                hand.step(START, 1),
                Transmit::Wrote(1) | Transmit::WaitUntil(_)
            ));
        }
        assert!(is_on());
        hand.connection.receive_end();
        assert!(!is_on());
        assert_eq!(hand.step(START, 100), Transmit::Close);
    }
}

#[test]
fn a_connection_that_is_dropped_ends_it() {
    let _alone = alone();
    let model = model();
    let mut hand = Hand::get(&model, "trace?seconds=5");
    hand.run(START);
    assert!(is_on());
    drop(hand);
    assert!(!is_on() && model.lent.get() == 0);
}

#[test]
fn one_that_is_over_is_sent_to_its_end() {
    let _alone = alone();
    let model = model();
    let thread = Stream::new(17);
    let mut hand = Hand::get(&model, "trace?seconds=0.5");
    hand.run(START);
    for ms in 1..9 {
        model.now.set(millis(ms));
        act(&model, &thread);
    }
    let begun = hand.sent.len();
    assert!(matches!(hand.step(millis(500), 30), Transmit::Wrote(1..)));
    // Nobody records for it any more, and others may begin.
    assert!(!is_on());
    let mut next = Hand::get(&model, "trace?seconds=0.5");
    assert!(matches!(next.run(millis(500)), Transmit::WaitUntil(_)));
    hand.connection.receive_end();
    assert_eq!(hand.run(millis(501)), Transmit::Close);
    assert!(hand.sent.len() > begun + 100);
    assert_whole(&hand.answers()[0].body);
}

// ---- the flight recorder

#[test]
fn the_flight_recorder_answers_at_once() {
    let _alone = alone();
    let model = model();
    let thread = Stream::new(17);
    let text =
        "the flight recorder is not on: the program has to begin one, or ask without flight\n";
    for target in ["trace?flight=1", "trace?seconds=1e99&flight=1"] {
        let refused = answer(&model, "GET", target);
        assert_eq!((refused.status, refused.text()), (404, text));
        assert_eq!(refused.header("x-go-pprof"), Some("1"));
    }
    assert!(!is_on());

    let recorder = FlightRecorder::begin().expect("the only one");
    for ms in 0..20 {
        model.now.set(millis(ms));
        act(&model, &thread);
    }
    for (method, target) in [
        ("GET", "trace?flight=1"),
        ("GET", "trace?flight=2&seconds=5"),
        ("GET", "trace?seconds=%2BInf&flight=1"),
        ("HEAD", "trace?flight=1"),
    ] {
        let talk = talk_of(&model, method, target);
        assert!(talk.waits.is_empty(), "{target}");
        let response = only(&talk, method);
        assert_eq!(response.status, 200);
        assert!(headers(&response).starts_with(&[FILE, BINARY, NOSNIFF]));
        if method == "GET" {
            assert!(!Trace::of(&response.body).goroutines.is_empty());
        }
        assert!(is_on(), "it goes on");
    }
    // It and a trace may be taken at the same time.
    let mut other = Hand::get(&model, "trace?seconds=1");
    other.run(START);
    assert_eq!(answer(&model, "GET", "trace?flight=1").status, 200);
    // A client that has said all is no client that has gone: what is sent happened before.
    let mut flight = Hand::get(&model, "trace?flight=1");
    assert!(matches!(flight.step(START, 10), Transmit::Wrote(10)));
    flight.connection.receive_end();
    assert_eq!(flight.run(START), Transmit::Close);
    assert_whole(&flight.answers()[0].body);
    drop(other);
    assert!(is_on());
    model.has_memory.set(false);
    assert_eq!(answer(&model, "GET", "trace?flight=1").status, 500);
    drop(recorder);
    assert!(!is_on());
}

// ---- framing

#[test]
fn the_connection_goes_on_after_it() {
    let _alone = alone();
    let requests = b"GET /debug/pprof/trace?seconds=0.03 HTTP/1.1\r\nHost: a\r\n\r\n\
        HEAD /debug/pprof/trace?seconds=0.03 HTTP/1.1\r\nHost: a\r\n\r\n\
        GET /debug/pprof/trace?seconds=0.01 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
        GET /debug/pprof/cmdline HTTP/1.1\r\nHost: a\r\n\r\n";
    for size in [1, 2, 7, 63, 64, 65, 100, 4096] {
        let model = model();
        let talk = talk::<HEAD>(&model, &[requests], size);
        let answers = parse_answers(&talk.sent, &["GET", "HEAD", "GET", "GET"]).expect("HTTP");
        assert_eq!(answers.len(), 4);
        for trace in [&answers[0], &answers[2]] {
            assert_eq!(trace.status, 200);
            assert_eq!(trace.framing, Framing::Chunked);
            assert_whole(&trace.body);
        }
        assert!(answers[1].body.is_empty());
        assert_eq!(answers[3].body, b"app\0-v\0file");
        assert!(!is_on() && model.lent.get() == 0);
    }
}

proptest! {
    #[test]
    fn bent_requests_get_http(
        method in prop::sample::select(vec!["GET", "HEAD"]),
        query in "(seconds|flight)=[0-9.e%x+-]{0,2}(&(seconds|flight|debug)=[0-3]{0,1})?",
        version in prop::sample::select(vec!["1.1", "1.0"]),
        cut in any::<prop::sample::Index>(),
        size in 1usize..300,
    ) {
        let _alone = alone();
        let model = model();
        let text = format!("{method} /debug/pprof/trace?{query} HTTP/{version}\r\nHost: a\r\n\r\n");
        let bytes = text.as_bytes();
        let (first, second) = bytes.split_at(cut.index(bytes.len()));
        let talk = talk::<HEAD>(&model, &[first, second], size);
        let answers = parse_answers(&talk.sent, &[method]);
        prop_assert!(answers.is_ok_and(|answers| answers.len() == 1), "{text}");
        prop_assert!(!is_on() && model.lent.get() == 0);
    }
}
