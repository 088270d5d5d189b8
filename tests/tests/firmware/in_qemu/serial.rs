//! Profiles over a UART, and what a device logs.

use std::fs;
use std::thread;

use defmt_decoder::{DecodeError, Table};
use picoprof_tests::go::Go;
use picoprof_tests::guest::{Guest, Machine};

on_machines! {
    mps2_an385: Mps2An385 [go_reads_profiles_from_a_uart, logs_can_be_read],
    v6m: Mps2An385V6m [go_reads_profiles_from_a_uart],
}

/// Straight from `go tool pprof`, while others are served over the network.
fn go_reads_profiles_from_a_uart(machine: Machine) {
    let guest = Guest::start(machine);
    let go = Go::new();
    guest.work(20);
    thread::scope(|scope| {
        let network = scope.spawn(|| {
            for _ in 0..20 {
                guest.profile("mutex");
            }
        });
        for target in ["heap", "goroutine", "profile?seconds=1"] {
            let url = format!("http://{}/debug/pprof/{target}", guest.serial());
            let shown = go.pprof(["-raw", &url]);
            let shown = shown.succeeded().text().to_owned();
            assert!(
                shown.contains("Samples:") && shown.contains("Locations"),
                "{target}: {shown}"
            );
        }
        network.join().expect("others are served meanwhile");
    });
    guest.end();
}

/// defmt's frames, which need the ELF file too.
fn logs_can_be_read(machine: Machine) {
    let guest = Guest::start(machine);
    guest.work(40);
    let bytes = guest.log();
    let elf = fs::read(machine.image()).expect("it was booted");
    let table = Table::parse(&elf).expect("it is an ELF file");
    let table = table.expect("it has a section for defmt");
    let mut decoder = table.new_stream_decoder();
    decoder.received(&bytes);
    let mut messages = Vec::new();
    loop {
        match decoder.decode() {
            Ok(frame) => messages.push(frame.display_message().to_string()),
            Err(DecodeError::UnexpectedEof) => break,
            Err(DecodeError::Malformed) => panic!("malformed after {messages:?}"),
        }
    }
    assert_eq!(
        messages.first().map(String::as_str),
        Some("up"),
        "{messages:?}"
    );
    guest.end();
}
