//! A file that is not of the program that the device runs.

use core::net::Ipv4Addr;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use picoprof_tests::go::Go;
use prost::Message;
use tempfile::TempDir;

use crate::device::Device;
use crate::hostile::{octets, profile};
use crate::program::{Code, build_id_note, copy_with_note, elf, hex_id, strip};
use picoprof_tests::bridge::{Bridge, refusal};

/// A note with another id.
fn other_note() -> Vec<u8> {
    let mut note = build_id_note();
    let last = note.last_mut().expect("it is not empty");
    *last ^= 1;
    note
}

#[test]
fn a_wrong_file_is_refused_until_the_device_runs_it() {
    let device = Device::new();
    device.flash(&other_note());
    let bridge = Bridge::start(&elf(), ["--device", &format!("http://{}", device.listen())]);
    let [ours, theirs] = [build_id_note(), other_note()].map(|note| hex_id(&note));
    let is_refusal = |text: &str| {
        let parts = ["wrong ELF file", &ours, &theirs, elf().to_str().unwrap()].map(str::to_owned);
        parts.iter().all(|part| text.contains(part))
    };
    let introduction = bridge.introduction();
    assert!(is_refusal(&introduction), "{introduction}");

    let symbol = format!("symbol?{:#x}", Code::get().plain);
    let targets = [
        "block",
        "profile?seconds=1",
        "threadcreate?debug=1",
        "goroutine?debug=2",
        &symbol,
    ];
    for target in targets {
        let refused = bridge.ask("GET", target, "");
        assert_eq!(refused.status, 409, "{target}");
        assert!(is_refusal(refused.text()), "{target}: {}", refused.text());
        assert_eq!(refused.header("x-go-pprof"), Some("1"), "{target}");
        assert_eq!(
            refused.header("content-type"),
            Some("text/plain; charset=utf-8"),
            "{target}"
        );
    }
    let page = bridge.text("");
    assert!(is_refusal(&page), "{page}");
    let shown = Go::new().pprof(["-top", &bridge.url("block")]);
    assert!(!shown.status.success());
    assert!(is_refusal(&shown.stderr), "{}", shown.stderr);

    device.flash(&build_id_note());
    for target in targets {
        assert_eq!(bridge.ask("GET", target, "").status, 200, "{target}");
    }
    // And the other way round: text and symbols are of the program that runs now.
    device.flash(&other_note());
    assert_eq!(bridge.ask("GET", "threadcreate?debug=1", "").status, 409);
    assert_eq!(bridge.ask("GET", &symbol, "").status, 409);
}

/// Nor is it taken for the right one because a client was told before the user.
#[test]
fn a_client_may_be_the_first_who_is_refused() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let device = format!("http://{}", listener.local_addr().expect("it is bound"));
    let mut wrong = profile();
    wrong.mapping[0].build_id = 3;
    wrong.string_table.push("0123".to_owned());
    let answer = octets(&wrong.encode_to_vec());
    let bridge = Bridge::start(&elf(), ["--device", &device]);
    let (mut asks_for_id, _) = listener.accept().expect("it comes");
    let begun = read_some(&mut asks_for_id);
    assert!(
        begun.starts_with("GET /debug/pprof/threadcreate "),
        "{begun}"
    );
    thread::scope(|scope| {
        let client = scope.spawn(|| bridge.ask("GET", "heap", ""));
        let (mut asks, _) = listener.accept().expect("it comes");
        let asked = read_some(&mut asks);
        assert!(asked.starts_with("GET /debug/pprof/heap "), "{asked}");
        asks.write_all(&answer).expect("it listens");
        drop(asks);
        assert_eq!(client.join().expect("it is answered").status, 409);
    });
    asks_for_id.write_all(&answer).expect("it listens");
    drop(asks_for_id);
    let told = bridge.introduction();
    assert!(
        told.contains("wrong ELF file") && told.contains("id 0123"),
        "{told}"
    );
}

fn read_some(from: &mut TcpStream) -> String {
    let mut request = [0; 512];
    let len = from.read(&mut request).expect("it asks");
    String::from_utf8_lossy(&request[..len]).into_owned()
}

#[test]
fn without_build_ids_it_goes_on_and_says_so() {
    let folder = TempDir::new().expect("a folder can be made");
    // A note of another sort: NT_GNU_GOLD_VERSION.
    let mut no_id = build_id_note();
    no_id[8] = 4;
    let anonymous = copy_with_note(&folder, "anonymous", &no_id);
    let silent = Device::new();
    silent.flash(&[]);
    for (file, device) in [
        (&elf(), silent),
        (&anonymous, Device::new()),
        (&anonymous, silent),
    ] {
        let bridge = Bridge::start(file, ["--device", &format!("http://{}", device.listen())]);
        let introduction = bridge.introduction();
        assert!(
            introduction.contains("it can't be told whether"),
            "{introduction}"
        );
        let total = bridge
            .profile("block")
            .total("contentions", "bridge::program::checksum");
        assert_eq!(total, 3);
        assert!(
            bridge
                .text("threadcreate?debug=1")
                .contains("parse_reading")
        );
    }
}

#[test]
fn a_file_without_names_is_refused_at_once() {
    let folder = TempDir::new().expect("a folder can be made");
    let nothing = folder.path().join("nothing");
    fs::write(&nothing, "no ELF file").expect("there is room");
    let missing = folder.path().join("missing");
    let stripped = folder.path().join("stripped");
    strip(&elf(), &stripped);
    for (file, why) in [
        (&nothing, "magic"),
        (&missing, "No such file"),
        (&stripped, "stripped"),
    ] {
        let said = refusal(file);
        assert!(
            said.contains(why) && said.contains(file.to_str().unwrap()),
            "{said}"
        );
    }
}
