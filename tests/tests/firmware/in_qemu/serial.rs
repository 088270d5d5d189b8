//! Profiles over a UART, and what a device logs.

use std::fs;
use std::thread;

use defmt_decoder::{DecodeError, Table};
use picoprof_tests::elf;
use picoprof_tests::go::Go;
use picoprof_tests::guest::{Guest, Machine};

on_machines! {
    mps2_an385: Mps2An385 [go_reads_profiles_from_a_uart, logs_can_be_read],
    v6m: Mps2An385V6m [go_reads_profiles_from_a_uart],
    riscv_uart: RiscvUart [a_uart_is_enough],
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

/// A machine that has nothing else: one client after the other, raw and by `go tool pprof`.
fn a_uart_is_enough(machine: Machine) {
    let guest = Guest::start(machine);
    let index = guest.get("");
    for link in ["profile", "heap?debug=1", "goroutine?debug=1"] {
        let href = format!("href=\"{link}\"");
        assert!(index.text().contains(&href), "{link} in {}", index.text());
    }
    let profile = guest.profile("profile?seconds=2");
    let build_id = profile.string(profile.mapping[0].build_id);
    assert_eq!(build_id, elf::build_id(&machine.image()));
    let stacks = elf::named(&machine.image(), &profile);
    // The work is in an interrupt, under which is the main loop that waits for a request.
    let samples = |function: &str| -> i64 {
        let within = stacks.iter().filter(|stack| stack.has_frame(function));
        within.map(|stack| stack.values[0]).sum()
    };
    let shown = elf::show(&stacks);
    assert!(samples("") > 200, "{shown}");
    for function in ["compress_block", "parse_reading", "picoprof._Idle"] {
        assert!(samples(function) > 0, "no {function} in\n{shown}");
    }
    let [whole, work] = ["riscv_machine_main", "station::work"].map(samples);
    assert!(
        2 * whole > work,
        "{whole} of {work} stacks are whole, in\n{shown}"
    );
    let raw = Go::new().pprof(["-raw", &guest.url("profile?seconds=1")]);
    let raw = raw.succeeded().text().to_owned();
    assert!(raw.contains("PeriodType: cpu nanoseconds"), "{raw}");
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
