//! Through the bridge, which has the names from the ELF file: a device's profiles look like a server's.

use core::time::Duration;
use std::thread;

use picoprof_tests::bridge::Bridge;
use picoprof_tests::dump;
use picoprof_tests::elf;
use picoprof_tests::go::Go;
use picoprof_tests::guest::{Guest, Machine, SerialPort};
use picoprof_tests::profile_proto::Profile;

on_each_machine! { profiles_have_names, go_sees_a_server, each_endpoint_is_there }

on_machines! { mps2_an385_line: Mps2An385 [a_serial_line_has_names] }

fn bridge_to(guest: &Guest) -> Bridge {
    let device = format!("http://{}", guest.address());
    Bridge::start(&guest.machine().image(), ["--device", &device])
}

/// A CPU profile of the guest at work.
fn profile_of_work(guest: &Guest, bridge: &Bridge) -> Profile {
    thread::scope(|scope| {
        let profile = scope.spawn(|| bridge.profile("profile?seconds=3"));
        while !profile.is_finished() {
            guest.work(20);
        }
        profile.join().expect("it is sound")
    })
}

fn string(profile: &Profile, index: i64) -> &str {
    &profile.string_table[index as usize]
}

/// Functions, files and lines, and functions that are inlined: as GNU binutils have them.
fn profiles_have_names(machine: Machine) {
    let guest = Guest::start(machine);
    let bridge = bridge_to(&guest);
    let profile = profile_of_work(&guest, &bridge);
    let id = elf::build_id(&machine.image());
    let mapping = &profile.mapping[0];
    assert_eq!(string(&profile, mapping.build_id), id);
    assert!(mapping.has_functions && mapping.has_filenames && mapping.has_line_numbers);
    assert!(mapping.has_inline_frames);

    let with_code = profile.location.iter().filter(|it| it.address != 0);
    let expected = elf::lines(&machine.image(), with_code.clone().map(|it| it.address));
    let (mut inlined, mut seen) = (0, 0);
    for location in with_code {
        let expected = &expected[&location.address];
        // What is in assembly has no lines.
        if expected[0].line == 0 {
            continue;
        }
        let lines: Vec<i64> = location.line.iter().map(|line| line.line).collect();
        let theirs: Vec<i64> = expected.iter().map(|line| line.line).collect();
        assert_eq!(lines, theirs, "{:#x}: {expected:?}", location.address);
        for (line, expected) in location.line.iter().zip(expected) {
            let function = profile.function.iter().find(|it| it.id == line.function_id);
            let function = function.expect("it is there");
            assert_eq!(string(&profile, function.filename), expected.file);
        }
        inlined += usize::from(lines.len() > 1);
        seen += 1;
    }
    assert!(
        seen > 10 && inlined > 3,
        "{seen} locations, {inlined} inlined"
    );
    let stacks = profile.stacks();
    for function in ["parse_reading", "compress_block", "work_round"] {
        assert!(
            stacks.iter().any(|stack| stack.has_frame(function)),
            "no {function} in\n{}",
            elf::show(&stacks)
        );
    }
    guest.end();
}

fn go_sees_a_server(machine: Machine) {
    let guest = Guest::start(machine);
    let bridge = bridge_to(&guest);
    let go = Go::new();
    let run = |arguments: &[&str]| {
        let finished = go.pprof(arguments);
        finished.succeeded().text().to_owned()
    };
    let url = bridge.url("profile?seconds=3");
    let (top, list) = thread::scope(|scope| {
        let top = scope.spawn(|| run(&["-top", "-cum", &url]));
        while !top.is_finished() {
            guest.work(20);
        }
        let list = scope.spawn(|| run(&["-list", "work_round", &url]));
        while !list.is_finished() {
            guest.work(20);
        }
        (top.join().expect("it ends"), list.join().expect("it ends"))
    });
    assert!(
        top.contains("firmware_common::work::Worker::work_round"),
        "{top}"
    );
    assert!(top.contains("(inline)"), "{top}");
    assert!(
        list.contains("common/src/work.rs") && list.contains("fn work_round"),
        "{list}"
    );
    let held = run(&[
        "-top",
        "-focus=hold_interrupts_masked",
        &bridge.url("mutex"),
    ]);
    assert!(held.contains("hold_interrupts_masked"), "{held}");
    guest.end();
}

fn each_endpoint_is_there(machine: Machine) {
    let guest = Guest::start(machine);
    let bridge = bridge_to(&guest);
    for target in [
        "block",
        "mutex",
        "goroutine",
        "threadcreate",
        "heap",
        "allocs",
    ] {
        bridge.profile(target);
        let text = bridge.text(&format!("{target}?debug=1"));
        assert!(
            text.contains(" profile: ") || text.starts_with("--- "),
            "{target}: {text}"
        );
    }
    assert_eq!(bridge.text("cmdline"), guest.get("cmdline").text());
    let goroutines = bridge.text("goroutine?debug=2");
    let all = dump::parse(&goroutines).unwrap_or_else(|error| panic!("{error}: {goroutines}"));
    assert!(!all.is_empty(), "{goroutines}");
    assert!(
        goroutines.contains("common/src/"),
        "no files in {goroutines}"
    );
    assert!(bridge.text("").contains("goroutine?debug=1"));

    // The file of another machine is none of its.
    let other = match machine {
        Machine::Lm3s6965evb => Machine::Mps2An385,
        _ => Machine::Lm3s6965evb,
    };
    let device = format!("http://{}", guest.address());
    let wrong = Bridge::start(&other.image(), ["--device", &device]);
    let refused = wrong.ask("GET", "block", "");
    assert_eq!(refused.status, 409);
    for id in [machine, other].map(|machine| elf::build_id(&machine.image())) {
        assert!(refused.text().contains(&id), "{}", refused.text());
    }
    guest.end();
}

fn a_serial_line_has_names(machine: Machine) {
    let guest = Guest::start_with(machine, SerialPort::Terminal);
    let bridge = Bridge::start(&machine.image(), ["--serial", &guest.serial()]);
    guest.work(20);
    thread::sleep(Duration::from_millis(100));
    let stacks = bridge.profile("heap").stacks();
    assert!(
        stacks.iter().any(|stack| stack.has_frame("mps2_an385::")),
        "{}",
        elf::show(&stacks)
    );
    assert!(
        bridge
            .text("goroutine?debug=1")
            .starts_with("goroutine profile: total ")
    );
    guest.end();
}
