//! The judges agree with each other: a profile made by hand, read by prost and by `go tool pprof`.

#![forbid(unsafe_code)]

use std::fs;

use picoprof_tests::go::Go;
use picoprof_tests::process::{Build, example};
use picoprof_tests::profile::{decode, validate};
use picoprof_tests::profile_proto::{Function, Label, Line, Location, Profile, Sample, ValueType};
use prost::Message;

/// `main` calls `work`, for 3 s in the worker a and 4 s in b.
fn profile() -> Profile {
    let strings = [
        "",
        "cpu",
        "nanoseconds",
        "work",
        "main",
        "worker",
        "a",
        "b",
        "src/main.rs",
    ];
    let location = |id, line| Location {
        id,
        address: 0x1000 + id,
        line: vec![Line {
            function_id: id,
            line,
            column: 0,
        }],
        ..Location::default()
    };
    let function = |id, name| Function {
        id,
        name,
        filename: 8,
        ..Function::default()
    };
    let sample = |seconds: i64, worker| Sample {
        location_id: vec![1, 2],
        value: vec![seconds * 1_000_000_000],
        label: vec![Label {
            key: 5,
            str: worker,
            ..Label::default()
        }],
    };
    Profile {
        sample_type: vec![ValueType { r#type: 1, unit: 2 }],
        sample: vec![sample(3, 6), sample(4, 7)],
        location: vec![location(1, 11), location(2, 22)],
        function: vec![function(1, 3), function(2, 4)],
        string_table: strings.map(str::to_owned).to_vec(),
        ..Profile::default()
    }
}

#[test]
fn pprof_reads_what_prost_reads() {
    let go = Go::new();
    let bytes = profile().encode_to_vec();
    let decoded = decode(&bytes).unwrap();
    assert_eq!(validate(&decoded), Ok(()));
    assert_eq!(decoded.total("cpu", "work"), 7_000_000_000);

    fs::write(go.home().join("hand.pb"), &bytes).unwrap();
    let top = go.pprof(["-top", "hand.pb"]).succeeded();
    let work = top.text().lines().find(|line| line.ends_with(" work"));
    let fields: Vec<&str> = work.unwrap_or(top.text()).split_whitespace().collect();
    assert_eq!(fields, ["7s", "100%", "100%", "7s", "100%", "work"]);
    let tags = go.pprof(["-tags", "hand.pb"]).succeeded();
    assert!(tags.text().contains("4s (57.14%): b"), "{}", tags.text());
    let raw = go.pprof(["-raw", "hand.pb"]).succeeded();
    assert!(raw.text().contains("worker:[a]"), "{}", raw.text());
}

#[test]
fn pprof_draws_a_pdf() {
    let go = Go::new();
    fs::write(go.home().join("hand.pb"), profile().encode_to_vec()).unwrap();
    let drawn = go.pprof(["-pdf", "hand.pb"]).succeeded();
    assert!(drawn.stdout.starts_with(b"%PDF-"), "{}", drawn.stderr);
}

#[test]
fn pprof_refuses_what_the_validator_refuses() {
    let go = Go::new();
    let mut broken = profile();
    broken.sample[0].value.push(1);
    assert!(validate(&broken).is_err());
    fs::write(go.home().join("broken.pb"), broken.encode_to_vec()).unwrap();
    let refused = go.pprof(["-top", "broken.pb"]);
    assert!(!refused.status.success());
    assert!(
        refused
            .stderr
            .contains("mismatch: sample has 2 values vs. 1 types"),
        "{}",
        refused.stderr
    );
}

#[test]
fn trace_runs_and_refuses_what_is_no_trace() {
    let go = Go::new();
    fs::write(go.home().join("no.trace"), "go 1.99 trace\0\0\0").unwrap();
    let refused = go.trace(["-d=parsed", "no.trace"]);
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("trace"), "{}", refused.stderr);
}

#[test]
fn examples_can_be_built() {
    assert!(example("server", Build::Debug).is_file());
}
