//! What Go's tools make of it.

use core::time::Duration;
use std::net::TcpStream;
use std::process::Stdio;
use std::thread;
use std::time::Instant;

use picoprof_tests::go::Go;
use picoprof_tests::http::Client;
use picoprof_tests::process::{Server, command, free_port, run};

use crate::device::Device;
use crate::program::{bridge_for, elf, line};
use picoprof_tests::bridge::Bridge;

fn start() -> Bridge {
    bridge_for(Device::new())
}

/// The tool's output, for a profile in which each of the test's functions has all the samples.
fn report(flags: &[&str], target: &str) -> String {
    let bridge = start();
    let url = bridge.url(target);
    let report = Go::new().pprof([flags, &[&url]].concat()).succeeded();
    report.text().to_owned()
}

const SAMPLED: &str = "profile?seconds=1";

#[test]
fn top() {
    let cpu = report(&["-top", "-cum"], SAMPLED);
    for row in [
        "bridge::program::checksum (inline)",
        "bridge::program::parse_reading",
        "<bridge::program::Filter<T> as bridge::program::Stage>::apply",
    ] {
        let row = cpu.lines().find(|line| line.ends_with(&format!("  {row}")));
        assert!(row.is_some_and(|row| row.contains(" 100% ")), "{cpu}");
    }
    assert!(
        cpu.contains("Type: cpu") && cpu.contains("Build ID: "),
        "{cpu}"
    );
    let block = report(&["-top", "-cum"], "block");
    assert!(block.contains("picoprof._StackTooDeep"), "{block}");
    assert!(block.contains("Type: delay"), "{block}");
}

#[test]
fn list() {
    let list = report(&["-list=parse_reading"], "block");
    assert!(
        list.contains("ROUTINE ======================== bridge::program::parse_reading in /"),
        "{list}"
    );
    let row = list
        .lines()
        .find(|row| row.contains("let inlined = checksum();"));
    let row = row.unwrap_or_else(|| panic!("{list}"));
    // 3 ms in what is called there.
    assert!(
        row.contains("3ms") && row.contains(&format!(" {}:", line::CALLS_CHECKSUM)),
        "{list}"
    );
}

#[test]
fn traces() {
    let traces = report(&["-traces"], "block");
    let names = traces
        .lines()
        .filter_map(|row| row.split_once("  ").map(|(_, name)| name.trim()));
    let names: Vec<&str> = names.collect();
    let inner = names
        .iter()
        .position(|name| name.ends_with("bridge::program::checksum (inline)"));
    let chain = &names[inner.unwrap_or_else(|| panic!("{traces}"))..][..2];
    assert!(
        chain[1].ends_with("bridge::program::parse_reading"),
        "{traces}"
    );
}

#[test]
fn raw() {
    let raw = report(&["-raw"], "block");
    let place = format!(
        "bridge::program::parse_reading {}:{}:0",
        "FILE",
        line::CALLS_CHECKSUM
    );
    let (name, place) = place.split_once(" FILE").unwrap();
    let row = raw
        .lines()
        .find(|row| row.contains(name) && row.contains(place));
    let row = row.unwrap_or_else(|| panic!("{raw}"));
    assert!(
        row.contains(&format!(" s={}(_", line::PARSE_READING)),
        "{row}"
    );
    assert!(raw.contains("[FN][FL][LN][IN]"), "{raw}");
}

/// Text that the tool reads itself: it asks for the names of the addresses.
#[test]
fn legacy_text() {
    let top = report(&["-top", "-cum"], "threadcreate?debug=1");
    assert!(top.contains("parse_reading"), "{top}");
}

/// With the ELF file as an argument too: its names are poorer, and must not win.
#[test]
fn with_the_file_at_hand() {
    let elf = elf();
    let top = report(&["-top", "-cum", elf.to_str().unwrap()], "block");
    assert!(top.contains("bridge::program::checksum (inline)"), "{top}");
    assert!(
        top.contains("<bridge::program::Filter<T> as bridge::program::Stage>::apply"),
        "{top}"
    );
}

#[test]
fn pdf() {
    let bridge = start();
    let go = Go::new();
    let (pdf, text) = (go.home().join("out.pdf"), go.home().join("out.txt"));
    let pdf_flag = format!("-output={}", pdf.display());
    let _ = go
        .pprof(["-pdf", &pdf_flag, &bridge.url("block")])
        .succeeded();
    let mut convert = command("pdftotext", [&pdf, &text]);
    let converted = run(&mut convert, Duration::from_mins(1));
    let _ = converted
        .expect("pdftotext runs (Debian: poppler-utils)")
        .succeeded();
    let text = std::fs::read_to_string(text).expect("it was written");
    assert!(
        text.contains("parse_reading") && text.contains("checksum"),
        "{text}"
    );
}

#[test]
fn web_ui() {
    let bridge = start();
    let go = Go::new();
    let host = format!("localhost:{}", free_port());
    let mut ui = go.command("pprof");
    ui.args([
        "-no_browser",
        &format!("-http={host}"),
        &bridge.url(SAMPLED),
    ]);
    // It says on its standard error output where it serves.
    let words: Vec<String> = core::iter::once(ui.get_program())
        .chain(ui.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut merged = command("sh", ["-c", "exec \"$@\" 2>&1", "sh"]);
    merged
        .args(words)
        .env_clear()
        .stdin(Stdio::null())
        .current_dir(go.home());
    merged.envs(ui.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let _ui = Server::start(merged, "Serving web UI on ", Duration::from_mins(1));
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(&host).is_err() {
        assert!(Instant::now() < deadline, "the web UI does not begin");
        thread::sleep(Duration::from_millis(20));
    }
    for page in ["/ui/top", "/ui/flamegraph", "/ui/source?f=parse_reading"] {
        let mut client = Client::connect(&host).expect("it listens");
        let head = format!("GET {page} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        client.send(head.as_bytes()).expect("it listens");
        client.set_limit(Duration::from_mins(1));
        let response = client.read_response().expect("it answers");
        assert_eq!(response.status, 200, "{page}");
        assert!(
            response.text().contains("parse_reading"),
            "{page}: {}",
            response.text()
        );
    }
}
