//! The endpoints as Go answers them, byte for byte but for `Date`: without a socket, through buffers of every
//! size, and with requests cut anywhere.

#![forbid(unsafe_code)]

use core::time::Duration;

use picoprof::http::{Connection, Transmit};
use picoprof::profile::Wait;
use picoprof::stack::StackId;
use picoprof::{Instant, Target};
use picoprof_tests::http::{Framing, Response, parse_answers};
use picoprof_tests::model::{CPU_PERIOD, Model, Talk, WithoutTexts, code_at, talk, talk_to};
use picoprof_tests::profile::{decode, validate};
use picoprof_tests::profile_proto::Profile;
use proptest::prelude::*;

/// Room for heads: what is sensible on a small machine.
const HEAD: usize = 512;

fn model() -> Box<Model> {
    let model = Box::<Model>::default();
    model.sample_cpu(&[0x1001, 0x2003], None, 3);
    model.allocate(&[0x4001, 0x2003, 0x3004], 0x10_0000, 100);
    model.allocate(&[0x4002, 0x3004], 0x10_1000, 5000);
    model.create_thread(&[0x5001, 0x3004]);
    model.wait(&[0x4001, 0x3004], 1000);
    model.release(&[0x4002, 0x3004], 1000);
    model.start_thread(17, "main", &[0x5002, 0x3004], Wait::Running);
    let task = model.spawn("waits", &[0x5001, 0x3004]);
    model.poll(task.expect("room"), &[0x4001, 0x2003], false);
    model
}

fn answers_to(model: &Model, bytes: &[u8], methods: &[&str]) -> Vec<Response> {
    answers_of(model, bytes, methods)
}

fn answers_of(target: &impl Target, bytes: &[u8], methods: &[&str]) -> Vec<Response> {
    let talk = talk_to::<HEAD>(target, &[bytes], 1024);
    parse_answers(&talk.sent, methods).expect("HTTP")
}

/// The answer to a request for `target` that keeps the connection; and nothing else follows.
fn answer(model: &Model, method: &str, target: &str) -> Response {
    answer_of(model, method, target)
}

fn answer_of(program: &impl Target, method: &str, target: &str) -> Response {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut answers = answers_of(program, request.as_bytes(), &[method]);
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

fn headers(response: &Response) -> Vec<(&str, &str)> {
    let headers = response.headers.iter();
    headers
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

fn profile_in(response: &Response) -> Profile {
    let profile = decode(&response.body).expect("prost reads it");
    assert_eq!(validate(&profile), Ok(()));
    profile
}

const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");
const BINARY: (&str, &str) = ("Content-Type", "application/octet-stream");
const NOSNIFF: (&str, &str) = ("X-Content-Type-Options", "nosniff");
const GO: (&str, &str) = ("X-Go-Pprof", "1");
const CHUNKED: (&str, &str) = ("Transfer-Encoding", "chunked");

#[test]
fn errors_are_gos() {
    let seconds = "invalid value for \"seconds\" - must be a positive integer\n";
    let both = "seconds and debug params are incompatible\n";
    let unknown = "Unknown profile\n";
    let elsewhere = "404 page not found\n";
    let bad = "Bad Request";
    let missing = "Not Found";
    for (target, status, reason, is_handlers, body) in [
        ("/debug/pprof/nosuch", 404, missing, true, unknown),
        ("/debug/pprof/Heap", 404, missing, true, unknown),
        ("/debug/pprof/heap/", 404, missing, true, unknown),
        ("/debug/pprof/cmdline/", 404, missing, true, unknown),
        ("/debug/pprof/profile/", 404, missing, true, unknown),
        ("/debug/pprof/symbol/", 404, missing, true, unknown),
        (
            "/debug/pprof/nosuch?seconds=abc",
            404,
            missing,
            true,
            unknown,
        ),
        ("/debug/pprof/heap?seconds=abc", 400, bad, true, seconds),
        ("/debug/pprof/heap?seconds=-1", 400, bad, true, seconds),
        ("/debug/pprof/heap?seconds=0", 400, bad, true, seconds),
        ("/debug/pprof/allocs?seconds=1.5", 400, bad, true, seconds),
        (
            "/debug/pprof/heap?seconds=abc&debug=1",
            400,
            bad,
            true,
            seconds,
        ),
        (
            "/debug/pprof/heap?seconds=9223372036854775808",
            400,
            bad,
            true,
            seconds,
        ),
        (
            "/debug/pprof/heap?seconds=99999999999999999999999999999999999999999",
            400,
            bad,
            true,
            seconds,
        ),
        (
            "/debug/pprof/threadcreate?seconds=+1",
            400,
            bad,
            true,
            seconds,
        ),
        ("/debug/pprof/heap?seconds=1&debug=1", 400, bad, true, both),
        ("/debug/pprof/heap?debug=2&seconds=1", 400, bad, true, both),
        ("/debug/pprof/block?seconds=0", 400, bad, true, seconds),
        (
            "/debug/pprof/mutex?seconds=x&all=1",
            400,
            bad,
            true,
            seconds,
        ),
        (
            "/debug/pprof/goroutine?seconds=1&debug=2",
            400,
            bad,
            true,
            both,
        ),
        ("/debug/pprof/goroutines", 404, missing, true, unknown),
        ("/debug/other", 404, missing, false, elsewhere),
        ("/", 404, missing, false, elsewhere),
        ("/debug/", 404, missing, false, elsewhere),
        ("/debug/pproff", 404, missing, false, elsewhere),
    ] {
        let model = model();
        let response = answer(&model, "GET", target);
        assert_eq!(
            (response.status, response.reason.as_str()),
            (status, reason)
        );
        assert_eq!(response.text(), body, "{target}");
        let length = body.len().to_string();
        let mut expected = vec![TEXT, NOSNIFF];
        expected.extend(is_handlers.then_some(GO));
        expected.push(("Content-Length", &length));
        assert_eq!(headers(&response), expected, "{target}");
        // HEAD has the same, and no body.
        let head = answer(&model, "HEAD", target);
        assert_eq!((head.status, headers(&head)), (status, expected));
        assert_eq!(model.starts(), 0);
    }
}

#[test]
fn other_methods_are_not_allowed() {
    let endpoints = [
        "",
        "heap",
        "allocs",
        "threadcreate",
        "block",
        "mutex",
        "goroutine",
        "goroutineleak?debug=2",
        "profile",
        "cmdline",
        "nosuch",
    ];
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"] {
        for endpoint in endpoints {
            let response = answer(&model(), method, &format!("/debug/pprof/{endpoint}"));
            assert_eq!(response.status, 405, "{method} {endpoint}");
            assert_eq!(response.reason, "Method Not Allowed");
            assert_eq!(response.text(), "Method Not Allowed\n");
            let expected = [
                ("Allow", "GET, HEAD"),
                TEXT,
                NOSNIFF,
                ("Content-Length", "19"),
            ];
            assert_eq!(headers(&response), expected);
        }
    }
    let response = answer(&model(), "PUT", "/debug/pprof/symbol");
    assert_eq!(response.header("allow"), Some("GET, HEAD, POST"));
    assert_eq!(answer(&model(), "POST", "/debug/other").status, 404);
}

#[test]
fn unclean_paths_are_redirected() {
    for (target, location) in [
        ("/debug/pprof", "/debug/pprof/"),
        ("/debug/pprof?debug=1", "/debug/pprof/?debug=1"),
        ("/debug//pprof/", "/debug/pprof/"),
        ("/debug/pprof/../pprof/heap", "/debug/pprof/heap"),
        ("/debug/./pprof/heap?gc=1", "/debug/pprof/heap?gc=1"),
    ] {
        let response = answer(&model(), "GET", target);
        assert_eq!(response.status, 307, "{target}");
        assert_eq!(response.reason, "Temporary Redirect");
        assert_eq!(response.header("location"), Some(location));
        assert_eq!(
            response.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(response.header("x-go-pprof"), None);
    }
}

#[test]
fn foreign_hosts_are_refused() {
    let bytes = b"GET /debug/pprof/cmdline HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    let [response] = &answers_to(&model(), bytes, &[])[..] else {
        panic!("one answer");
    };
    assert_eq!(response.status, 403);
}

#[test]
fn successes_have_gos_headers() {
    let delta = "attachment; filename=\"heap-delta\"";
    for (target, disposition, content_type) in [
        ("heap", Some("attachment; filename=\"heap\""), BINARY),
        (
            "heap?debug=0",
            Some("attachment; filename=\"heap\""),
            BINARY,
        ),
        (
            "heap?debug=x",
            Some("attachment; filename=\"heap\""),
            BINARY,
        ),
        ("he%61p", Some("attachment; filename=\"heap\""), BINARY),
        (
            "heap?seconds=",
            Some("attachment; filename=\"heap\""),
            BINARY,
        ),
        ("heap?seconds=1", Some(delta), BINARY),
        ("heap?seconds=1&gc=1&debug=0", Some(delta), BINARY),
        ("allocs", Some("attachment; filename=\"allocs\""), BINARY),
        (
            "threadcreate?seconds=2",
            Some("attachment; filename=\"threadcreate-delta\""),
            BINARY,
        ),
        (
            "profile?seconds=1",
            Some("attachment; filename=\"profile\""),
            BINARY,
        ),
        (
            "profile?seconds=1&debug=1",
            Some("attachment; filename=\"profile\""),
            BINARY,
        ),
        (
            "block?idle=1",
            Some("attachment; filename=\"block\""),
            BINARY,
        ),
        (
            "mutex?seconds=1",
            Some("attachment; filename=\"mutex-delta\""),
            BINARY,
        ),
        (
            "goroutine",
            Some("attachment; filename=\"goroutine\""),
            BINARY,
        ),
        (
            "goroutine?seconds=1",
            Some("attachment; filename=\"goroutine-delta\""),
            BINARY,
        ),
        (
            "goroutineleak?seconds=1",
            Some("attachment; filename=\"goroutineleak-delta\""),
            BINARY,
        ),
        ("block?debug=1", None, TEXT),
        ("mutex?debug=2", None, TEXT),
        ("goroutine?debug=1", None, TEXT),
        ("goroutine?debug=2", None, TEXT),
        ("goroutineleak?debug=2", None, TEXT),
        ("heap?debug=1", None, TEXT),
        ("heap?debug=2", None, TEXT),
        ("threadcreate?debug=1", None, TEXT),
        ("symbol", None, TEXT),
        ("", None, ("Content-Type", "text/html; charset=utf-8")),
    ] {
        let model = model();
        let target = format!("/debug/pprof/{target}");
        let response = answer(&model, "GET", &target);
        assert_eq!((response.status, response.reason.as_str()), (200, "OK"));
        let disposition = disposition.map(|value| ("Content-Disposition", value));
        let mut expected: Vec<_> = disposition.into_iter().collect();
        expected.extend([content_type, NOSNIFF]);
        let head = answer(&model, "HEAD", &target);
        assert_eq!((head.status, headers(&head)), (200, expected.clone()));
        assert!(head.body.is_empty());
        expected.push(CHUNKED);
        assert_eq!(headers(&response), expected, "{target}");
        if content_type == BINARY {
            profile_in(&response);
        }
        assert!(!model.is_sampling());
    }
}

#[test]
fn the_date_comes_where_go_has_it() {
    let model = model();
    model.date.set(Some(*b"Mon, 23 Nov 2026 04:08:13 GMT"));
    let response = answer(&model, "GET", "/debug/pprof/nosuch");
    let names: Vec<_> = response
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let expected = [
        "Content-Type",
        "X-Content-Type-Options",
        "X-Go-Pprof",
        "Date",
        "Content-Length",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        response.header("date"),
        Some("Mon, 23 Nov 2026 04:08:13 GMT")
    );
}

#[test]
fn without_keep_alive_the_first_answer_is_the_last() {
    let model = model();
    let requests = b"GET /debug/pprof/cmdline HTTP/1.1\r\nHost: test\r\n\r\n".repeat(2);
    let mut connection = Connection::<_, HEAD>::new(&*model).without_keep_alive();
    assert_eq!(connection.receive(&requests), requests.len());
    let (now, mut out) = (Instant::from_millis(0), [0; 1024]);
    let Transmit::Wrote(len) = connection.transmit(now, &mut out) else {
        panic!("it has an answer");
    };
    let answers = parse_answers(&out[..len], &["GET"]).expect("HTTP");
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].header("Connection"), Some("close"));
    assert_eq!(connection.transmit(now, &mut out), Transmit::Close);
}

#[test]
fn the_command_line_is_separated_by_nul() {
    let response = answer(&model(), "GET", "/debug/pprof/cmdline?debug=1");
    assert_eq!(response.body, b"app\0-v\0file");
    assert_eq!(
        headers(&response),
        [TEXT, NOSNIFF, ("Content-Length", "11")]
    );
}

#[test]
fn garbage_is_collected_only_where_go_does() {
    for (target, times) in [
        ("heap?gc=1", 1),
        ("heap?gc=7&debug=1", 1),
        ("heap", 0),
        ("heap?gc=0", 0),
        ("heap?gc=-1", 0),
        ("heap?gc=x", 0),
        ("allocs?gc=1", 0),
        ("heap?gc=1&seconds=1", 0),
        ("heap?gc=1&seconds=", 1),
    ] {
        let model = model();
        assert_eq!(
            answer(&model, "GET", &format!("/debug/pprof/{target}")).status,
            200
        );
        assert_eq!(model.collected.get(), times, "{target}");
    }
}

#[test]
fn a_kind_that_is_not_kept_is_unknown() {
    let model = model();
    model.has_threads.set(false);
    assert_eq!(
        answer(&model, "GET", "/debug/pprof/threadcreate").status,
        404
    );
    assert_eq!(answer(&model, "GET", "/debug/pprof/heap").status, 200);
}

// ---- symbol

fn symbols_of(words: &[&str]) -> String {
    let mut text = "num_symbols: 1\n".to_owned();
    for word in words {
        let pc = usize::from_str_radix(word, 16).unwrap();
        let name = code_at(pc).pop().unwrap().system_name;
        text.push_str(&format!("{pc:#x} {name}\n"));
    }
    text
}

#[test]
fn symbols_of_a_query_and_of_a_body_are_the_same() {
    for (list, known) in [
        ("", &[][..]),
        ("0x1001", &["1001"]),
        ("0X1001+4098", &["1001", "1002"]),
        // Octal.
        ("010001+0x1001", &["1001", "1001"]),
        ("0x1001+", &["1001"]),
        ("+0x1001", &["1001"]),
        // Not in any function, not numbers, not in Go's bases.
        ("0x1004+0xffffff+0+1001+abc+1002h+0x", &[]),
        ("0x1001%2B0x1002", &[]),
        ("0x1001+zz+0x1002", &["1001", "1002"]),
        ("-1+0x10000000000000000+0x1003", &["1003"]),
    ] {
        let expected = symbols_of(known);
        let get = answer(&model(), "GET", &format!("/debug/pprof/symbol?{list}"));
        assert_eq!(
            (get.status, get.text()),
            (200, expected.as_str()),
            "GET {list}"
        );
        let post = format!(
            "POST /debug/pprof/symbol HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{list}",
            list.len()
        );
        let post = &answers_to(&model(), post.as_bytes(), &["POST"])[0];
        assert_eq!(
            (post.status, post.text()),
            (200, expected.as_str()),
            "POST {list}"
        );
        assert_eq!(headers(post), [TEXT, NOSNIFF, CHUNKED]);
        let head = answer(&model(), "HEAD", &format!("/debug/pprof/symbol?{list}"));
        assert_eq!((head.status, headers(&head)), (200, vec![TEXT, NOSNIFF]));
    }
}

/// Lists of any length go through any buffer, and what comes after them is answered.
#[test]
fn huge_lists_of_addresses_stream_through_small_buffers() {
    let model = model();
    let mut list = String::new();
    let mut known = Vec::new();
    for pc in (0x1000..0x4000).filter(|&pc| pc % 3 == 0) {
        list.push_str(&format!("{pc:#x}+"));
        if !code_at(pc).is_empty() {
            known.push(format!("{pc:x}"));
        }
    }
    // A word that is no address takes no memory either.
    list.push_str(&"7".repeat(10_000));
    list.push_str("+0x1001");
    known.push("1001".to_owned());
    let known: Vec<_> = known.iter().map(String::as_str).collect();
    let request = format!(
        "POST /debug/pprof/symbol HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{list}\
         GET /debug/pprof/cmdline HTTP/1.1\r\nHost: a\r\n\r\n",
        list.len()
    );
    for size in [1, 7, 64, 100, 4096] {
        let talk = talk::<128>(&model, &[request.as_bytes()], size);
        let answers = parse_answers(&talk.sent, &["POST"]).unwrap();
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[0].text(), symbols_of(&known));
        assert_eq!(answers[1].body, b"app\0-v\0file");
    }
}

/// However the addresses fall into batches, and the lines into buffers.
#[test]
fn lists_without_names_don_t_stop_the_stream() {
    let model = model();
    for unknown in 60..140 {
        let list = format!("{}0x1001", "7+".repeat(unknown));
        let request = format!(
            "POST /debug/pprof/symbol HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{list}",
            list.len()
        );
        for size in 1..=200 {
            let talk = talk::<512>(&model, &[request.as_bytes()], size);
            let answers = parse_answers(&talk.sent, &["POST"]).expect("a whole answer");
            assert_eq!(answers[0].text(), symbols_of(&["1001"]), "{unknown} {size}");
        }
    }
}

#[test]
fn a_list_of_unknown_length_is_refused() {
    let bytes =
        b"POST /debug/pprof/symbol HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
        6\r\n0x1001\r\n0\r\n\r\n";
    let answers = answers_to(&model(), bytes, &["POST"]);
    // What follows can't be told from the body, so the connection ends.
    assert_eq!(answers.len(), 1);
    assert_eq!(
        (answers[0].status, answers[0].header("connection")),
        (411, Some("close"))
    );
}

// ---- taking profiles over some time

const START: Instant = Instant::from_millis(1000);

fn seconds(n: u64) -> Instant {
    START + Duration::from_secs(n)
}

fn waits_of(model: &Model, target: &str) -> Talk {
    let request = format!("GET /debug/pprof/{target} HTTP/1.1\r\nHost: a\r\n\r\n");
    talk::<HEAD>(model, &[request.as_bytes()], 256)
}

#[test]
fn times_are_gos() {
    for (target, expected) in [
        ("profile", 30),
        ("profile?seconds=2", 2),
        ("profile?seconds=0", 30),
        ("profile?seconds=-2", 30),
        ("profile?seconds=1.5", 30),
        ("profile?seconds=x", 30),
        ("heap?seconds=7", 7),
        ("allocs?seconds=1", 1),
        ("threadcreate?seconds=3", 3),
        ("block?seconds=4", 4),
        ("mutex?seconds=4", 4),
        ("goroutine?seconds=5", 5),
        ("goroutineleak?seconds=6", 6),
    ] {
        let talk = waits_of(&model(), target);
        assert_eq!(talk.waits, [seconds(expected)], "{target}");
    }
    assert!(waits_of(&model(), "heap").waits.is_empty());
}

#[test]
fn the_rate_is_handed_on() {
    for (target, hz) in [
        ("profile?seconds=1&hz=250", 250),
        ("profile?seconds=1", 0),
        ("profile?seconds=1&hz=-5", 0),
        ("profile?seconds=1&hz=4294967296", 0),
    ] {
        let model = model();
        waits_of(&model, target);
        assert_eq!(*model.started.borrow(), [hz]);
        assert_eq!(model.stopped.get(), 1);
    }
}

#[test]
fn the_end_of_time_is_no_problem() {
    for kind in ["profile", "heap"] {
        let model = model();
        let talk = waits_of(&model, &format!("{kind}?seconds={}", i64::MAX));
        assert_eq!(talk.waits, [Instant::from_nanos(u64::MAX)]);
        let response = &parse_answers(&talk.sent, &[]).unwrap()[0];
        let profile = profile_in(response);
        // As much as profile.proto can say.
        assert_eq!(profile.duration_nanos, i64::MAX);
        assert!(!model.is_sampling());
    }
}

/// A connection that a test drives by hand.
struct Hand<'m> {
    connection: Connection<'m, Model, HEAD>,
    sent: Vec<u8>,
}

impl<'m> Hand<'m> {
    fn new(model: &'m Model) -> Self {
        Self {
            connection: Connection::new(model),
            sent: Vec::new(),
        }
    }

    fn get(model: &'m Model, target: &str) -> Self {
        let mut hand = Self::new(model);
        hand.give(format!("GET /debug/pprof/{target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        hand
    }

    fn give(&mut self, bytes: &[u8]) {
        assert_eq!(self.connection.receive(bytes), bytes.len());
    }

    /// What it waits for in the end.
    fn run(&mut self, now: Instant) -> Transmit {
        let mut buffer = [0; 200];
        loop {
            match self.connection.transmit(now, &mut buffer) {
                Transmit::Wrote(len) => self.sent.extend_from_slice(&buffer[..len]),
                other => return other,
            }
        }
    }

    fn answers(&self) -> Vec<Response> {
        parse_answers(&self.sent, &[]).expect("HTTP")
    }
}

#[test]
fn a_cpu_profile_has_what_came_while_it_ran() {
    for has_memory in [true, false] {
        let model = model();
        model.has_memory.set(has_memory);
        let mut hand = Hand::get(&model, "profile?seconds=5");
        assert_eq!(hand.run(START), Transmit::WaitUntil(seconds(5)));
        assert!(model.is_sampling() && hand.connection.is_busy());
        model.sample_cpu(&[0x1001, 0x2003], None, 10);
        model.sample_cpu(&[0x1004], None, 7);
        // Not before its time.
        assert_eq!(hand.run(seconds(4)), Transmit::WaitUntil(seconds(5)));
        assert!(hand.sent.is_empty());
        model.unix_nanos.set(1_800_000_000_000_000_000);
        assert!(matches!(hand.run(seconds(6)), Transmit::WantRead(_)));
        assert_eq!(model.stopped.get(), 1);
        let profile = profile_in(&hand.answers()[0]);
        assert_eq!(profile.total("samples", ""), 17);
        assert_eq!(profile.total("cpu", ""), 17 * CPU_PERIOD as i64);
        // It began then, and took as long as it really took.
        assert_eq!(profile.time_nanos, 1_700_000_000_000_000_000);
        assert_eq!(profile.duration_nanos, 6_000_000_000);
        assert_eq!(profile.sample.len(), 2);
    }
}

#[test]
fn a_difference_has_what_came_between() {
    let model = model();
    let mut hand = Hand::get(&model, "heap?seconds=5");
    assert_eq!(hand.run(START), Transmit::WaitUntil(seconds(5)));
    model.free(0x10_1000);
    model.allocate(&[0x6001], 0x20_0000, 64);
    model.unix_nanos.set(1_800_000_000_000_000_000);
    hand.run(seconds(5));
    let profile = profile_in(&hand.answers()[0]);
    let mut values: Vec<_> = profile
        .sample
        .iter()
        .map(|sample| sample.value.clone())
        .collect();
    values.sort();
    // What was freed is less than nothing, and what did not change is not there.
    assert_eq!(values, [[0, 0, -1, -5000], [1, 64, 1, 64]]);
    assert_eq!(profile.time_nanos, 1_800_000_000_000_000_000);
    assert_eq!(profile.duration_nanos, 5_000_000_000);

    let mut hand = Hand::get(&model, "allocs?seconds=5");
    hand.run(START);
    hand.run(seconds(5));
    let profile = profile_in(&hand.answers()[0]);
    assert!(profile.sample.is_empty());
    assert_eq!(profile.string(profile.default_sample_type), "alloc_space");
}

#[test]
fn a_difference_without_memory_is_refused() {
    let model = model();
    model.has_memory.set(false);
    for kind in ["heap", "block", "goroutine"] {
        let target = format!("/debug/pprof/{kind}");
        let response = answer(&model, "GET", &format!("{target}?seconds=1"));
        assert_eq!(
            (response.status, response.header("x-go-pprof")),
            (500, Some("1"))
        );
        assert_eq!(answer(&model, "GET", &target).status, 200);
    }
}

/// The memory may have gone to others meanwhile.
#[test]
fn a_difference_that_has_no_memory_in_the_end_is_an_error() {
    let model = model();
    let mut hand = Hand::get(&model, "goroutine?seconds=5");
    assert_eq!(hand.run(START), Transmit::WaitUntil(seconds(5)));
    model.has_memory.set(false);
    hand.run(seconds(5));
    let [response] = &hand.answers()[..] else {
        panic!("one answer");
    };
    assert_eq!(response.status, 500);
    let text = "no memory for a difference: ask without seconds\n";
    assert_eq!(response.text(), text);
}

#[test]
fn a_difference_of_waits_has_what_came_between() {
    let model = model();
    let mut hand = Hand::get(&model, "block?seconds=5");
    assert_eq!(hand.run(START), Transmit::WaitUntil(seconds(5)));
    model.wait(&[0x6001], 30);
    model.wait(&[0x4001, 0x3004], 12);
    model.release(&[0x6001], 30);
    hand.run(seconds(5));
    let profile = profile_in(&hand.answers()[0]);
    let samples = profile.sample.iter();
    let mut values: Vec<_> = samples.map(|sample| sample.value.clone()).collect();
    values.sort();
    assert_eq!(values, [[1, 12], [1, 30]]);
    assert_eq!(profile.duration_nanos, 5_000_000_000);
}

#[test]
fn a_second_cpu_profile_is_refused_at_once() {
    let model = model();
    let mut first = Hand::get(&model, "profile?seconds=5");
    first.run(START);
    let refused = answer(&model, "GET", "/debug/pprof/profile?seconds=1");
    assert_eq!(
        (refused.status, refused.reason.as_str()),
        (500, "Internal Server Error")
    );
    let text = "Could not enable CPU profiling: cpu profiling already in use\n";
    assert_eq!(refused.text(), text);
    let expected = [TEXT, NOSNIFF, GO, ("Content-Length", "61")];
    assert_eq!(headers(&refused), expected);
    assert_eq!((model.starts(), model.stopped.get()), (1, 0));
    // Differences go on beside it.
    assert_eq!(
        answer(&model, "GET", "/debug/pprof/heap?seconds=1").status,
        200
    );
    first.run(seconds(5));
    assert_eq!(
        answer(&model, "GET", "/debug/pprof/profile?seconds=1").status,
        200
    );
    assert_eq!((model.starts(), model.stopped.get()), (2, 2));

    model.has_cpu_timer.set(false);
    assert_eq!(
        answer(&model, "GET", "/debug/pprof/profile?seconds=1").status,
        500
    );
    assert_eq!((model.starts(), model.stopped.get()), (2, 2));
}

/// Without memory the counters themselves are the profile, and nobody may clear them.
#[test]
fn a_profile_that_is_being_sent_is_not_cleared() {
    let model = model();
    model.has_memory.set(false);
    let mut hand = Hand::get(&model, "profile?seconds=5");
    hand.run(START);
    model.sample_cpu(&[0x1004], None, 7);
    let mut buffer = [0; 64];
    let Transmit::Wrote(len) = hand.connection.transmit(seconds(5), &mut buffer) else {
        panic!("the head");
    };
    hand.sent.extend_from_slice(&buffer[..len]);
    assert_eq!(
        answer(&model, "GET", "/debug/pprof/profile?seconds=1").status,
        500
    );
    hand.run(seconds(5));
    assert_eq!(profile_in(&hand.answers()[0]).total("samples", ""), 7);
    assert_eq!((model.starts(), model.stopped.get()), (1, 1));
}

#[test]
fn a_client_that_goes_ends_the_sampling_at_once() {
    let model = model();
    let mut hand = Hand::get(&model, "profile?seconds=5");
    hand.run(START);
    hand.connection.receive_end();
    assert!(!model.is_sampling());
    assert_eq!(hand.run(seconds(1)), Transmit::Close);
    drop(hand);
    assert_eq!((model.starts(), model.stopped.get()), (1, 1));

    // Also one that has gone before its request was looked at.
    let mut hand = Hand::get(&model, "profile?seconds=5");
    hand.connection.receive_end();
    assert_eq!(hand.run(START), Transmit::Close);
    assert!(hand.sent.is_empty() && !model.is_sampling());
}

#[test]
fn a_connection_that_is_dropped_ends_the_sampling() {
    let model = model();
    let mut hand = Hand::get(&model, "profile?seconds=5");
    hand.run(START);
    assert!(model.is_sampling());
    drop(hand);
    assert_eq!((model.starts(), model.stopped.get()), (1, 1));
}

#[test]
fn a_response_that_has_begun_is_sent_to_its_end() {
    let model = model();
    let whole = answer(&model, "GET", "/debug/pprof/heap?debug=1");
    let mut hand = Hand::get(&model, "heap?debug=1");
    let mut buffer = [0; 10];
    let Transmit::Wrote(len) = hand.connection.transmit(START, &mut buffer) else {
        panic!("the head");
    };
    hand.sent.extend_from_slice(&buffer[..len]);
    hand.connection.receive_end();
    assert_eq!(hand.run(START), Transmit::Close);
    assert_eq!(hand.answers(), [whole]);
}

// ---- time limits

#[test]
fn an_unfinished_head_is_given_up_in_time() {
    let model = model();
    let mut hand = Hand::new(&model);
    let idle = seconds(60);
    assert_eq!(hand.run(START), Transmit::WantRead(idle));
    assert!(hand.connection.is_idle());
    // The first byte starts a new time, however late it comes; the others don't.
    let late = START + Duration::from_millis(59_900);
    hand.give(b"G");
    let limit = late + Duration::from_secs(10);
    assert_eq!(hand.run(late), Transmit::WantRead(limit));
    hand.give(b"ET /debug");
    assert_eq!(
        hand.run(late + Duration::from_secs(9)),
        Transmit::WantRead(limit)
    );
    assert_eq!(hand.run(limit), Transmit::Close);
    let [response] = &hand.answers()[..] else {
        panic!("one answer");
    };
    assert_eq!(
        (response.status, response.reason.as_str()),
        (408, "Request Timeout")
    );
    assert_eq!(response.header("connection"), Some("close"));
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let model = model();
    let mut hand = Hand::new(&model);
    hand.run(START);
    // Empty lines are no head, and extend nothing.
    hand.give(b"\r\n\r\n");
    assert_eq!(hand.run(seconds(59)), Transmit::WantRead(seconds(60)));
    assert_eq!(hand.run(seconds(60)), Transmit::Close);
    assert!(hand.sent.is_empty());
}

#[test]
fn the_next_request_has_its_own_time() {
    let model = model();
    let mut hand = Hand::get(&model, "cmdline");
    assert_eq!(hand.run(START), Transmit::WantRead(seconds(60)));
    hand.give(b"GET /debug/pprof/cmd");
    assert_eq!(hand.run(seconds(59)), Transmit::WantRead(seconds(69)));
    hand.give(b"line HTTP/1.1\r\nHost: a\r\n\r\n");
    // Late, but complete.
    assert_eq!(hand.run(seconds(80)), Transmit::WantRead(seconds(140)));
    assert_eq!(hand.answers().len(), 2);
}

#[test]
fn a_body_that_stops_is_given_up_in_time() {
    let model = model();
    let mut hand = Hand::new(&model);
    hand.give(b"POST /debug/pprof/symbol HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n0x1001");
    assert_eq!(hand.run(START), Transmit::WantRead(seconds(10)));
    hand.give(b"+");
    assert_eq!(hand.run(seconds(9)), Transmit::WantRead(seconds(19)));
    assert_eq!(hand.run(seconds(19)), Transmit::Close);
    // Also one that is only thrown away.
    let mut hand = Hand::new(&model);
    hand.give(b"PUT /debug/pprof/heap HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n0x1001");
    assert_eq!(hand.run(START), Transmit::WantRead(seconds(10)));
    assert_eq!(hand.run(seconds(10)), Transmit::Close);
}

// ---- framing

#[test]
fn requests_that_are_none_end_the_connection() {
    let long = [b"GET /", &[b'a'; 600][..], b" HTTP/1.1\r\n\r\n"].concat();
    let many = ["GET / HTTP/1.1\r\n", &"a:\r\n".repeat(40), "\r\n"].concat();
    for (bytes, status, reason) in [
        (&long[..], 431, "Request Header Fields Too Large"),
        (many.as_bytes(), 431, "Request Header Fields Too Large"),
        (
            b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            505,
            "HTTP Version Not Supported",
        ),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Bad Request"),
        (b"\x16\x03\x01\x02\x00", 400, "Bad Request"),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
            400,
            "Bad Request",
        ),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "Bad Request"),
    ] {
        let bytes = [bytes, b"GET /debug/pprof/ HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        let [response] = &answers_to(&model(), &bytes, &[])[..] else {
            panic!("one answer to {:?}", String::from_utf8_lossy(&bytes));
        };
        assert_eq!(
            (response.status, response.reason.as_str()),
            (status, reason)
        );
        assert_eq!(response.header("connection"), Some("close"));
        assert_eq!(response.header("x-go-pprof"), None);
    }
}

#[test]
fn http_1_0_gets_its_body_to_the_end_of_the_connection() {
    for (target, is_pipelined) in [
        ("heap", false),
        ("", true),
        ("cmdline", true),
        ("nosuch", true),
    ] {
        let mut bytes = format!("GET /debug/pprof/{target} HTTP/1.0\r\n\r\n").into_bytes();
        if is_pipelined {
            bytes.extend_from_within(..);
        }
        let answers = answers_to(&model(), &bytes, &[]);
        assert_eq!(answers.len(), 1, "{target}");
        assert_eq!(answers[0].header("connection"), Some("close"));
        assert_ne!(answers[0].framing, Framing::Chunked);
        let modern = answer(&model(), "GET", &format!("/debug/pprof/{target}"));
        assert_eq!(answers[0].body, modern.body);
        assert_eq!(answers[0].status, modern.status);
    }
}

#[test]
fn the_connection_is_closed_when_asked() {
    for (version, headers, count) in [
        ("1.1", "Host: a\r\n", 2),
        ("1.1", "Host: a\r\nConnection: keep-alive\r\n", 2),
        ("1.1", "Host: a\r\nConnection: close\r\n", 1),
        ("1.1", "Host: a\r\nconnection: x, Close\r\n", 1),
        ("1.0", "", 1),
        ("1.0", "Connection: keep-alive\r\n", 1),
    ] {
        let bytes = format!("GET /debug/pprof/cmdline HTTP/{version}\r\n{headers}\r\n").repeat(2);
        let answers = answers_to(&model(), bytes.as_bytes(), &[]);
        assert_eq!(answers.len(), count, "{version} {headers}");
        let closes = answers[0].header("connection") == Some("close");
        assert_eq!(closes, count == 1);
    }
}

/// Each with a body that is not wanted, empty lines between them, and one after the other.
const PIPELINE: &[u8] = b"GET /debug/pprof/cmdline HTTP/1.1\r\nHost: a\r\n\r\n\
    POST /debug/pprof/heap HTTP/1.1\r\nHost: a\r\nContent-Length: 27\r\n\r\nGET /evil HTTP/1.1\r\nA: b\r\n\r\n\
    HEAD /debug/pprof/symbol?0x1001+0x1002 HTTP/1.1\r\nHost: a\r\n\r\n\
    GET /debug/pprof/symbol?0x1001+0x1002 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\n\r\n\
    POST /debug/pprof/symbol HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n0x1001+0+0x1003\
    GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\nHost: a\r\n\r\n\
    GET /debug/pprof/heap?debug=1 HTTP/1.1\r\nHost: a\r\n\r\n\
    GET http://a/debug/pprof/ HTTP/1.1\r\nHost: a\r\n\r\n\
    GET /debug/pprof/threadcreate HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

const PIPELINE_METHODS: [&str; 9] = [
    "GET", "POST", "HEAD", "GET", "POST", "GET", "GET", "GET", "GET",
];

fn pipeline(pieces: &[&[u8]], size: usize) -> Vec<Response> {
    let model = model();
    let talk = talk::<HEAD>(&model, pieces, size);
    assert!(!model.is_sampling());
    parse_answers(&talk.sent, &PIPELINE_METHODS).expect("HTTP")
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let answers = pipeline(&[PIPELINE], 1024);
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 405, 200, 200, 200, 200, 200, 200, 200]);
    assert_eq!(answers[3].text(), symbols_of(&["1001", "1002"]));
    assert_eq!(answers[4].text(), symbols_of(&["1001", "1003"]));
    assert!(answers[6].text().starts_with("heap profile: "));
    assert_eq!(answers[8].header("connection"), Some("close"));
}

#[test]
fn requests_cut_in_two_anywhere_are_answered_alike() {
    let whole = pipeline(&[PIPELINE], 1024);
    for cut in 0..=PIPELINE.len() {
        let (first, second) = PIPELINE.split_at(cut);
        assert_eq!(pipeline(&[first, second], 1024), whole, "{cut}");
    }
    let bytes: Vec<_> = PIPELINE.chunks(1).collect();
    assert_eq!(pipeline(&bytes, 1024), whole);
}

#[test]
fn the_buffers_size_changes_no_response() {
    let whole = pipeline(&[PIPELINE], 1 << 16);
    let bytes: Vec<_> = PIPELINE.chunks(1).collect();
    for size in (1..=200).chain([255, 256, 511, 777, 1023, 1500, 4096]) {
        assert_eq!(pipeline(&[PIPELINE], size), whole, "{size}");
        assert_eq!(pipeline(&bytes, size), whole, "{size}");
    }
}

/// Where the end of the connection ends the body, the bytes themselves are the same.
#[test]
fn the_buffers_size_changes_no_byte() {
    for target in [
        "",
        "heap",
        "heap?debug=1",
        "threadcreate",
        "block?debug=1",
        "goroutine",
        "goroutine?debug=2",
        "allocs",
        "symbol?0x1001",
        "nosuch",
    ] {
        let request = format!("GET /debug/pprof/{target} HTTP/1.0\r\n\r\n");
        let model = model();
        let whole = talk::<HEAD>(&model, &[request.as_bytes()], 1 << 16).sent;
        for size in 1..=1200 {
            let sent = talk::<HEAD>(&model, &[request.as_bytes()], size).sent;
            assert_eq!(sent, whole, "{target} {size}");
        }
    }
}

#[test]
fn an_empty_buffer_loses_nothing() {
    let model = model();
    let mut hand = Hand::get(&model, "heap?debug=1");
    assert_eq!(hand.connection.transmit(START, &mut []), Transmit::Wrote(0));
    let mut buffer = [0; 100];
    while let Transmit::Wrote(len) = hand.connection.transmit(START, &mut buffer) {
        hand.sent.extend_from_slice(&buffer[..len]);
        if len > 0 {
            let state = hand.connection.transmit(START, &mut []);
            assert!(matches!(state, Transmit::Wrote(0) | Transmit::WantRead(_)));
        }
    }
    assert_eq!(
        hand.answers(),
        [answer(&model, "GET", "/debug/pprof/heap?debug=1")]
    );
}

#[test]
fn a_long_body_that_nobody_wants_ends_the_connection() {
    let request = |length: usize| {
        let head = format!(
            "PUT /debug/pprof/heap HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
        );
        [
            head.as_bytes(),
            &vec![b'x'; length],
            b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        ]
        .concat()
    };
    let answers = answers_to(&model(), &request(60_000), &[]);
    assert_eq!(answers.len(), 2);
    let answers = answers_to(&model(), &request(70_000), &[]);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].header("connection"), Some("close"));
}

#[test]
fn all_routes_methods_and_versions_agree() {
    let targets = [
        "/debug/pprof/",
        "/debug/pprof",
        "/debug/pprof/allocs",
        "/debug/pprof/cmdline",
        "/debug/pprof/heap",
        "/debug/pprof/heap?debug=1",
        "/debug/pprof/profile?seconds=1",
        "/debug/pprof/symbol",
        "/debug/pprof/symbol?0x1001",
        "/debug/pprof/threadcreate",
        "/debug/pprof/block",
        "/debug/pprof/mutex?seconds=1",
        "/debug/pprof/goroutine?debug=1",
        "/debug/pprof/goroutineleak?debug=2",
        "/debug/pprof/nosuch",
        "/x",
    ];
    for target in targets {
        for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS"] {
            let is_elsewhere = target == "/x";
            let expected = match (method, target) {
                ("GET" | "HEAD", "/debug/pprof") => 307,
                ("GET" | "HEAD", "/debug/pprof/nosuch") => 404,
                _ if is_elsewhere => 404,
                ("GET" | "HEAD", _) => 200,
                ("POST", target) if target.starts_with("/debug/pprof/symbol") => 200,
                _ => 405,
            };
            let model = model();
            let mut seen = Vec::new();
            for version in ["1.0", "1.1"] {
                let bytes = format!("{method} {target} HTTP/{version}\r\nHost: a\r\n\r\n");
                let answers = answers_to(&model, bytes.as_bytes(), &[method]);
                assert_eq!(answers.len(), 1);
                assert_eq!(answers[0].status, expected, "{method} {target} {version}");
                assert_eq!(answers[0].header("x-content-type-options"), Some("nosniff"));
                seen.push(answers[0].body.clone());
            }
            assert_eq!(seen[0], seen[1]);
            assert_eq!(seen[0].is_empty(), method == "HEAD", "{method} {target}");
        }
    }
}

#[test]
fn what_is_lost_shows_in_the_answers() {
    let model = model();
    model.threads.view().add(StackId::LOST, 0, &[4]);
    let profile = profile_in(&answer(&model, "GET", "/debug/pprof/threadcreate"));
    assert_eq!(profile.total("threadcreate", "picoprof._LostSample"), 4);
    assert_eq!(profile.comment.len(), 1);
}

// ---- without texts

/// All is as it is with texts, but what people read.
#[test]
fn a_program_without_texts_answers_alike() {
    for target in [
        "allocs",
        "block",
        "block?all=1&seconds=1",
        "cmdline",
        "goroutine",
        "goroutine?seconds=1",
        "goroutineleak",
        "heap",
        "heap?gc=1",
        "heap?seconds=1",
        "mutex",
        "mutex?idle=1",
        "profile?seconds=1&hz=7",
        "threadcreate",
        "trace?seconds=1",
        "../pprof/heap",
    ] {
        let target = format!("/debug/pprof/{target}");
        for request in [
            format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET {target} HTTP/1.0\r\n\r\n"),
            format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(2),
        ] {
            for size in [50, 1024] {
                let (with, without) = (model(), model());
                let with = talk::<HEAD>(&with, &[request.as_bytes()], size);
                let without = talk_to::<HEAD>(&WithoutTexts(&without), &[request.as_bytes()], size);
                let statuses = [&with, &without].map(|talk| status_of(&talk.sent));
                assert_eq!(statuses[0], statuses[1], "{request}");
                if with.sent.starts_with(b"HTTP/1.1 200") {
                    assert_eq!(with.sent, without.sent, "{request}");
                }
                assert_eq!(with.waits, without.waits, "{request}");
            }
        }
    }
}

/// As far as the first answer's status.
fn status_of(sent: &[u8]) -> &[u8] {
    sent.split(|&byte| byte == b'\r').next().unwrap_or(sent)
}

#[test]
fn a_program_without_texts_refuses_them() {
    let model = model();
    let program = WithoutTexts(&model);
    let kinds = [
        "allocs",
        "block",
        "goroutine",
        "goroutineleak",
        "heap",
        "mutex",
        "threadcreate",
    ];
    for kind in kinds {
        for debug in ["1", "2", "-1"] {
            let target = format!("/debug/pprof/{kind}?debug={debug}");
            let answer = answer_of(&program, "GET", &target);
            let text = "this program has no texts: ask without debug\n";
            assert_eq!((answer.status, answer.text()), (501, text), "{target}");
            let length = ("Content-Length", "45");
            assert_eq!(headers(&answer), [TEXT, NOSNIFF, GO, length]);
        }
        for debug in ["0", "", "x"] {
            let target = format!("/debug/pprof/{kind}?debug={debug}");
            profile_in(&answer_of(&program, "GET", &target));
        }
    }
    // As Go, of a CPU profile and of a trace there's no text in any program.
    let profile = answer_of(&program, "GET", "/debug/pprof/profile?seconds=1&debug=1");
    assert_eq!(profile.status, 200);
}

#[test]
fn a_program_without_texts_lists_its_profiles() {
    let model = model();
    model.threads.view().add(StackId::LOST, 0, &[4]);
    let page = answer_of(&WithoutTexts(&model), "GET", "/debug/pprof/");
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let links = page.text().lines().filter(|line| line.starts_with("<p>"));
    let names: Vec<_> = links
        .map(|line| line.split('"').nth(1).expect("a link"))
        .collect();
    let expected = [
        "allocs",
        "block",
        "cmdline",
        "goroutine",
        "goroutineleak",
        "heap",
        "mutex",
        "profile",
        "symbol",
        "threadcreate",
    ];
    assert_eq!(names, expected);
    let lost = "<p><a href=\"threadcreate\">threadcreate</a>\n\
        <br>picoprof: 4 of threadcreate's samples were lost\n";
    assert!(page.text().contains(lost), "{}", page.text());
    for name in names {
        let target = format!("/debug/pprof/{name}?seconds=1");
        assert_eq!(answer_of(&WithoutTexts(&model), "GET", &target).status, 200);
    }
}

/// Who reads the answer only looks whether the number is zero.
#[test]
fn a_program_without_function_names_reads_no_addresses() {
    let model = model();
    let program = WithoutTexts(&model);
    let get = answer_of(&program, "GET", "/debug/pprof/symbol?0x1001+0x1002");
    assert_eq!((get.status, get.text()), (200, "num_symbols: 1\n"));
    let head = answer_of(&program, "HEAD", "/debug/pprof/symbol?0x1001");
    assert_eq!((head.status, head.text()), (200, ""));
    for length in [0, 6, 60_000] {
        let request = format!(
            "POST /debug/pprof/symbol HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}\
             GET /debug/pprof/cmdline HTTP/1.1\r\nHost: a\r\n\r\n",
            "7".repeat(length)
        );
        let answers = answers_of(&program, request.as_bytes(), &["POST"]);
        assert_eq!(answers.len(), 2, "{length}");
        assert_eq!(answers[0].text(), "num_symbols: 1\n");
        assert_eq!(answers[1].body, b"app\0-v\0file");
    }
    let unknown =
        b"POST /debug/pprof/symbol HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(answers_of(&program, unknown, &["POST"])[0].status, 411);
}

/// On a line that has no end, what is left of it would be the next request.
#[test]
fn a_body_is_read_where_the_connection_ends_with_the_answer() {
    let model = model();
    let lengths = [1, 600, 70_000];
    for (target, lengths) in [("symbol", &lengths[..]), ("cmdline", &lengths[..2])] {
        for &length in lengths {
            for has_names in [true, false] {
                let left = if has_names {
                    left_of_a_body(&*model, target, length)
                } else {
                    left_of_a_body(&WithoutTexts(&model), target, length)
                };
                assert_eq!(left, 0, "{target}, {length}, {has_names}");
            }
        }
    }
}

/// How much of a POST's body was not taken when its connection ended.
fn left_of_a_body(program: &impl Target, target: &str, length: usize) -> usize {
    let head = format!(
        "POST /debug/pprof/{target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    );
    let bytes = [head.as_bytes(), &vec![b'7'; length]].concat();
    let mut rest = bytes.as_slice();
    let mut connection = Connection::<_, HEAD>::new(program).without_keep_alive();
    loop {
        rest = &rest[connection.receive(rest)..];
        match connection.transmit(Instant::from_millis(0), &mut [0; 64]) {
            Transmit::Close => return rest.len(),
            Transmit::Wrote(_) => {}
            Transmit::WantRead(_) => assert!(!rest.is_empty(), "it waits for more than there is"),
            Transmit::WaitUntil(_) => unreachable!("nothing takes time"),
        }
    }
}

/// Errors say what they are, and those that pass or can be helped also how.
#[test]
fn a_program_without_texts_has_short_errors() {
    let model = model();
    model.has_memory.set(false);
    model.has_cpu_timer.set(false);
    for (method, target, status, text) in [
        ("GET", "/x", 404, "404 Not Found"),
        ("GET", "/debug/pprof/nosuch", 404, "404 Not Found"),
        ("PUT", "/debug/pprof/heap", 405, "Method Not Allowed\n"),
        ("GET", "/debug/pprof/heap?seconds=0", 400, "400 Bad Request"),
        (
            "GET",
            "/debug/pprof/heap?seconds=1",
            500,
            "no memory for a difference: ask without seconds\n",
        ),
        (
            "GET",
            "/debug/pprof/profile",
            500,
            "Could not enable CPU profiling: it is not available here\n",
        ),
    ] {
        let answer = answer_of(&WithoutTexts(&model), method, target);
        assert_eq!((answer.status, answer.text()), (status, text), "{target}");
    }
}

/// What a client may send: requests of all kinds, some of them bent.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "G\0T", ""]);
    let path = prop_oneof![
        4 => prop::sample::select(vec![
            "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile", "/debug/pprof/symbol",
            "/debug/pprof/cmdline", "/debug/pprof/threadcreate", "/debug/pprof", "/debug//pprof/heap",
            "/debug/pprof/block", "/debug/pprof/mutex", "/debug/pprof/goroutine",
            "/debug/pprof/goroutineleak",
        ]).prop_map(str::to_owned),
        1 => "[/.a-z%0-9A-F*:é]{0,30}",
    ];
    let query = prop_oneof![
        Just(String::new()),
        "\\?(seconds|debug|gc|hz|all|idle)=[0-9+.x-]{0,4}(&(seconds|debug)=[0-9]{0,2})?",
        "\\?(0x[0-9a-f]{1,6}\\+?|[0-9]{1,6}\\+?){0,12}",
        "\\?[ -~]{0,40}",
    ];
    let version = prop::sample::select(vec!["1.1", "1.1", "1.1", "1.0", "2.0", "1"]);
    let header = prop_oneof![
        Just("Connection: close".to_owned()),
        Just("Transfer-Encoding: chunked".to_owned()),
        Just("Host: b".to_owned()),
        "[a-zA-Z-]{1,10}: ?[ -~]{0,30}",
    ];
    let headers = prop::collection::vec(header, 0..3);
    let body = prop_oneof![3 => Just(None), 1 => "[ -~]{0,60}".prop_map(Some)];
    (method, path, query, version, headers, body).prop_map(
        |(method, path, query, version, headers, body)| {
            let mut text = format!("{method} {path}{query} HTTP/{version}\r\nHost: a\r\n");
            for header in headers {
                text.push_str(&header);
                text.push_str("\r\n");
            }
            if let Some(body) = &body {
                text.push_str(&format!("Content-Length: {}\r\n", body.len()));
            }
            text.push_str("\r\n");
            text.push_str(body.as_deref().unwrap_or_default());
            text.into_bytes()
        },
    )
}

/// Splits `bytes` where `cuts` say.
fn pieces<'b>(bytes: &'b [u8], cuts: &[prop::sample::Index]) -> Vec<&'b [u8]> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.sort_unstable();
    at.push(bytes.len());
    let mut from = 0;
    at.into_iter()
        .map(|to| {
            let piece = &bytes[from..to];
            from = to;
            piece
        })
        .collect()
}

proptest! {
    /// [`talk`] sees to it that there is progress.
    #[test]
    fn random_bytes_get_http_or_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..1500),
        size in 1usize..300,
    ) {
        let model = model();
        let talk = talk::<HEAD>(&model, &[&bytes], size);
        // Random bytes are no HEAD.
        prop_assert!(parse_answers(&talk.sent, &[]).is_ok());
    }

    #[test]
    fn bent_requests_get_http(
        requests in prop::collection::vec(request(), 1..5),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        size in 1usize..300,
    ) {
        let mut bytes = requests.concat();
        for (at, byte) in mutations {
            let at = at.index(bytes.len());
            // That HEAD has no body would be hard to tell otherwise.
            if bytes[at] != b'H' && byte != b'H' {
                bytes[at] = byte;
            }
        }
        let bytes = String::from_utf8_lossy(&bytes).replace("HEAD", "GET").into_bytes();
        let model = model();
        let whole = talk::<HEAD>(&model, &[&bytes], 4096);
        let answers = parse_answers(&whole.sent, &[]);
        prop_assert!(answers.is_ok(), "{answers:?} from {:?}", String::from_utf8_lossy(&whole.sent));
        let other = talk::<HEAD>(&model, &pieces(&bytes, &cuts), size);
        prop_assert_eq!(answers.unwrap(), parse_answers(&other.sent, &[]).unwrap());
        prop_assert!(!model.is_sampling());
    }
}
