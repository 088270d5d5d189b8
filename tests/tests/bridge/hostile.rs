//! Devices that are off, break off, or send what they should not; clients that leave, and clients from elsewhere.

use core::net::{Ipv4Addr, SocketAddr};
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use picoprof_tests::go::Go;
use picoprof_tests::http::{Client, Framing, Response};
use picoprof_tests::process::free_port;
use picoprof_tests::profile_proto::{
    Function, Label, Line, Location, Mapping, Profile, Sample, ValueType,
};
use prost::Message;

use crate::device::Device;
use crate::program::{Code, elf};
use picoprof_tests::bridge::Bridge;

/// A device that answers each client with the bytes that it was given last, and closes the connection.
pub(crate) fn parrot() -> (SocketAddr, Sender<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let (sender, words) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            // The bridge may have seen enough.
            let _ = words.recv().map(|answer| stream.write_all(&answer));
        }
    });
    (address, sender)
}

fn with_head(headers: &str, body: &[u8]) -> Vec<u8> {
    [
        format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n").as_bytes(),
        body,
    ]
    .concat()
}

pub(crate) fn octets(body: &[u8]) -> Vec<u8> {
    with_head("Content-Type: application/octet-stream", body)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).expect("there is room");
    gzip.finish().expect("there is room")
}

#[track_caller]
fn expect_refusal(response: &Response, why: &str) {
    let text = String::from_utf8_lossy(&response.body);
    assert_eq!(response.status, 502, "{why}: {text}");
    assert!(text.contains(why), "{why}: {text}");
    assert_eq!(response.header("x-go-pprof"), Some("1"));
    assert_eq!(
        response.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
}

/// A profile of one sample.
pub(crate) fn profile() -> Profile {
    let code = Code::get();
    let strings = ["", "samples", "count"];
    Profile {
        sample_type: vec![ValueType { r#type: 1, unit: 2 }],
        sample: vec![Sample {
            location_id: vec![7],
            value: vec![1],
            label: Vec::new(),
        }],
        mapping: vec![Mapping {
            id: 1,
            memory_limit: u64::MAX,
            ..Mapping::default()
        }],
        location: vec![Location {
            id: 7,
            mapping_id: 1,
            address: code.plain as u64,
            ..Location::default()
        }],
        string_table: strings.map(str::to_owned).to_vec(),
        ..Profile::default()
    }
}

#[test]
fn broken_answers_are_told_and_the_next_is_good() {
    let (address, words) = parrot();
    // What it asks at its start is answered too.
    words.send(octets(&profile().encode_to_vec())).unwrap();
    let bridge = Bridge::start(&elf(), ["--device", &format!("http://{address}")]);
    let _ = bridge.introduction();
    let many = |count| vec![b'a'; count];
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 1 << 20);
    let endless_head = [b"HTTP/1.1 200 OK\r\nA: ".to_vec(), many(1 << 20)].concat();
    let length = |length: u64| format!("Content-Length: {length}");
    for (answer, why) in [
        (Vec::new(), "the device's answer is broken"),
        (
            b"\0\0\0\0garbage\r\n\r\n".to_vec(),
            "the device's answer is broken",
        ),
        (
            b"SSH-2.0-OpenSSH\r\n".to_vec(),
            "the device's answer is broken",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Le".to_vec(),
            "the device's answer is broken",
        ),
        (endless_head, "the device's answer is broken"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec(), "101"),
        (
            with_head(&length(9), b"short"),
            "the device's answer is broken",
        ),
        (
            with_head("Content-Length: -1", b""),
            "the device's answer is broken",
        ),
        (
            with_head("Transfer-Encoding: chunked", b"zz\r\n"),
            "the device's answer is broken",
        ),
        (
            with_head("Transfer-Encoding: chunked", b"5\r\nab"),
            "the device's answer is broken",
        ),
        (
            with_head(&length(1 << 40), &many(17 << 20)),
            "more than 16777216 bytes",
        ),
        (
            with_head("A: b", &many(17 << 20)),
            "more than 16777216 bytes",
        ),
        (octets(b"no profile"), "not a sound profile"),
        (octets(b""), "not a sound profile"),
        (octets(&bomb), "more than 16777216 bytes"),
        (octets(&bomb[..bomb.len() / 2]), "not a sound profile"),
        (octets(&gzip(b"no profile")), "not a sound profile"),
    ] {
        words.send(answer).unwrap();
        expect_refusal(&bridge.ask("GET", "heap", ""), why);
        // With no framing but the end of the connection.
        words.send(octets(&profile().encode_to_vec())).unwrap();
        let named = bridge.profile("heap");
        assert_eq!(named.total("samples", "bridge::program::parse_reading"), 1);
    }
}

#[test]
fn profiles_that_break_the_rules_are_told() {
    let (address, words) = parrot();
    words.send(Vec::new()).unwrap();
    let bridge = Bridge::start(&elf(), ["--device", &format!("http://{address}")]);
    let introduction = bridge.introduction();
    assert!(introduction.contains("not yet"), "{introduction}");
    let changes: [fn(&mut Profile); 17] = [
        |it| it.sample_type.clear(),
        |it| it.string_table.clear(),
        |it| it.string_table[0].push('x'),
        |it| it.sample_type[0].unit = 3,
        |it| it.sample_type[0].unit = -1,
        |it| it.comment.push(i64::MAX),
        |it| it.mapping[0].build_id = 9,
        |it| it.mapping[0].id = 0,
        |it| it.location[0].id = 8,
        |it| it.location[0].mapping_id = 2,
        |it| it.location.push(it.location[0].clone()),
        |it| it.sample[0].value.push(1),
        |it| it.sample[0].location_id.push(1),
        |it| {
            it.sample[0].label.push(Label {
                key: 4,
                ..Label::default()
            })
        },
        |it| {
            it.location[0].line.push(Line {
                function_id: 1,
                ..Line::default()
            })
        },
        |it| {
            it.function.push(Function {
                id: u64::MAX,
                ..Function::default()
            })
        },
        |it| it.location = vec![Location::default(); (1 << 20) + 1],
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut broken = profile();
        change(&mut broken);
        words.send(octets(&broken.encode_to_vec())).unwrap();
        let refused = bridge.ask("GET", "heap", "");
        println!("{number}: {}", refused.text());
        expect_refusal(&refused, "not a sound profile");
    }
}

/// A build id is text, and the user's terminal obeys some text.
#[test]
fn a_build_id_is_shown_as_it_is() {
    let (address, words) = parrot();
    let mut hostile = profile();
    hostile.mapping[0].build_id = 3;
    let id = format!("\x1b[2J<b>\u{202e}\n{}", "a".repeat(1 << 20));
    hostile.string_table.push(id);
    words.send(octets(&hostile.encode_to_vec())).unwrap();
    let bridge = Bridge::start(&elf(), ["--device", &format!("http://{address}")]);
    let introduction = bridge.introduction();
    words.send(octets(&hostile.encode_to_vec())).unwrap();
    let refused = bridge.ask("GET", "block", "");
    assert_eq!(refused.status, 409);
    for text in [&*introduction, refused.text().trim_end()] {
        assert!(
            text.contains(r"build id \u{1b}[2J<b>\u{202e}\naaa"),
            "{text}"
        );
        assert!(
            !text.contains(char::is_control) && text.len() < 1000,
            "{text}"
        );
    }
    words
        .send(with_head("Content-Type: text/html", b"<body></body>"))
        .unwrap();
    let page = bridge.text("");
    assert!(
        page.contains("&lt;b&gt;") && !page.contains("<b>"),
        "{page}"
    );
}

/// What no firmware sends, and no rule forbids.
#[test]
fn odd_profiles_stay_as_they_are() {
    let (address, words) = parrot();
    words.send(Vec::new()).unwrap();
    let bridge = Bridge::start(&elf(), ["--device", &format!("http://{address}")]);
    // The first word is for its own question.
    bridge.introduction();
    let mut odd = profile();
    let addresses = [0, 1, u64::MAX - 1, 1 << 63];
    odd.location.extend(addresses.map(|address| Location {
        id: address / 2 + 100 + address % 2,
        mapping_id: 1,
        address,
        ..Location::default()
    }));
    odd.location[0].mapping_id = 0;
    odd.string_table.push("samples".to_owned());
    odd.sample_type[0].r#type = 3;
    words.send(octets(&odd.encode_to_vec())).unwrap();
    let named = bridge.profile("heap");
    assert_eq!(named.sample_types(), [("samples", "count")]);
    assert_eq!(
        (named.location, named.function),
        (odd.location, odd.function)
    );
    // Of a trace of another version nothing is known here. First it's asked whose it is.
    words.send(Vec::new()).unwrap();
    words.send(octets(b"go 1.26 trace\0\0\0")).unwrap();
    let trace = bridge.ask("GET", "trace?seconds=1", "");
    assert_eq!(
        (trace.status, &*trace.body),
        (200, &b"go 1.26 trace\0\0\0"[..])
    );
    // Nor of text that is none.
    let garbage = b"#\t0x1234\n\xff\xfe";
    words
        .send(with_head("Content-Type: text/plain", garbage))
        .unwrap();
    assert_eq!(bridge.ask("GET", "heap?debug=1", "").body, garbage);
    // A header that speaks of the device's connection does not go on.
    words
        .send(with_head(
            "Connection: close, x\r\nConnection: Z\r\nKeep-Alive: 1\r\nX: y\r\nY: z\r\nZ: x",
            b"",
        ))
        .unwrap();
    let answer = bridge.ask("GET", "heap", "");
    for name in ["connection", "keep-alive", "x", "z"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(
        (answer.header("y"), answer.framing),
        (Some("z"), Framing::Length(0))
    );
}

#[test]
fn a_device_that_is_off_is_waited_for() {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let bridge = Bridge::start(&elf(), ["--device", &url]);
    let introduction = bridge.introduction();
    assert!(
        introduction.contains("not yet: the device can't be reached"),
        "{introduction}"
    );
    for target in ["", "block", "cmdline"] {
        expect_refusal(
            &bridge.ask("GET", target, ""),
            "the device can't be reached at 127.0.0.1",
        );
    }
    let shown = Go::new().pprof(["-top", &bridge.url("block")]);
    assert!(
        shown.stderr.contains("the device can't be reached"),
        "{}",
        shown.stderr
    );
    // Names are here all the same.
    let symbol = bridge.text(&format!("symbol?{:#x}", Code::get().plain));
    assert!(symbol.contains("parse_reading"), "{symbol}");
}

#[test]
fn a_client_that_leaves_ends_the_sampling() {
    let device = Device::new();
    let bridge = Bridge::start(&elf(), ["--device", &format!("http://{}", device.listen())]);
    let _ = bridge.introduction();
    let until = |is_sampling| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while device.is_sampling.load(Ordering::Relaxed) != is_sampling {
            assert!(Instant::now() < deadline, "{is_sampling} does not come");
            thread::sleep(Duration::from_millis(5));
        }
    };
    for _ in 0..3 {
        let leaving = bridge.asking("GET", "profile?seconds=600", "");
        until(true);
        let busy = bridge.ask("GET", "profile?seconds=1", "");
        assert_eq!(busy.status, 500);
        assert!(busy.text().contains("already in use"), "{}", busy.text());
        drop(leaving);
        until(false);
    }
    // Each for one request.
    let before = device.clients.load(Ordering::Relaxed);
    assert_eq!(bridge.profile("profile?seconds=1").sample.len(), 1);
    assert_eq!(device.clients.load(Ordering::Relaxed), before + 1);
}

#[test]
fn pages_of_other_sites_get_nothing() {
    let bridge = Bridge::start(&elf(), ["--device", &Device::new().listen().to_string()]);
    let ask = |target: &str, host: &str| {
        let mut client = Client::connect(bridge.host()).expect("it listens");
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        client.send(head.as_bytes()).expect("it listens");
        client.read_response().expect("it answers").status
    };
    let page = "/debug/pprof/cmdline";
    for good in [
        bridge.host(),
        "localhost",
        "LocalHost:1",
        "[::1]:6060",
        "127.0.0.1",
    ] {
        assert_eq!(ask(page, good), 200, "{good}");
    }
    for bad in [
        "evil.example",
        "evil.example:6060",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "",
    ] {
        assert_eq!(ask(page, bad), 403, "{bad}");
    }
    assert_eq!(ask(page, "localhost\r\nHost: evil.example"), 403);
    assert_eq!(
        ask("http://evil.example/debug/pprof/cmdline", "localhost"),
        403
    );
    assert_eq!(
        ask("http://localhost/debug/pprof/cmdline", "localhost"),
        200
    );
}

#[test]
fn requests_that_are_too_large_or_none_are_refused() {
    let bridge = Bridge::start(&elf(), ["--device", &Device::new().listen().to_string()]);
    let large = "0x1+".repeat(2 << 20);
    for _ in 0..10 {
        let refused = bridge.ask("POST", "symbol", &large);
        assert_eq!(refused.status, 413, "{}", refused.text());
    }
    for garbage in [&b"\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", &[b'a'; 100_000]] {
        let mut client = Client::connect(bridge.host()).expect("it listens");
        let _ = client.send(garbage);
        // Whether it says why or not: it ends.
        let _ = client.read_to_end();
    }
    assert_eq!(bridge.text("cmdline"), "firmware\0#\t0x12");
}
