//! Each endpoint and each of its parameters, as `go tool pprof -raw` shows what it got: the same as from Go's own server.

use std::thread;
use std::time::SystemTime;

use picoprof_tests::go::Go;

use crate::server::{Example, expect_shares, sound};

/// What Go's own server sends, as `-raw` prints it.
struct Expected {
    target: &'static str,
    period_type: &'static str,
    period: &'static str,
    /// `[dflt]` marks the one that reports are about if nobody chooses.
    sample_types: &'static str,
    seconds: Option<f64>,
}

const HEAP: Expected = Expected {
    target: "heap",
    period_type: "space bytes",
    period: "524288",
    sample_types: "alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes",
    seconds: None,
};

const ALLOCS: Expected = Expected {
    target: "allocs",
    // Go's own differences lose the default, which is a flaw of Go's.
    sample_types: "alloc_objects/count alloc_space/bytes[dflt] inuse_objects/count inuse_space/bytes",
    ..HEAP
};

const THREADCREATE: Expected = Expected {
    target: "threadcreate",
    period_type: "threadcreate count",
    period: "1",
    sample_types: "threadcreate/count",
    seconds: None,
};

const BLOCK: Expected = Expected {
    target: "block",
    period_type: "contentions count",
    period: "1",
    sample_types: "contentions/count delay/nanoseconds",
    seconds: None,
};

const MUTEX: Expected = Expected {
    target: "mutex",
    ..BLOCK
};

const GOROUTINE: Expected = Expected {
    target: "goroutine",
    period_type: "goroutine count",
    period: "1",
    sample_types: "goroutine/count",
    seconds: None,
};

const GOROUTINE_LEAK: Expected = Expected {
    target: "goroutineleak",
    period_type: "goroutineleak count",
    sample_types: "goroutineleak/count",
    ..GOROUTINE
};

const PROFILE: Expected = Expected {
    target: "profile?seconds=1",
    period_type: "cpu nanoseconds",
    period: "10000000",
    sample_types: "samples/count cpu/nanoseconds",
    seconds: Some(1.0),
};

const AT_ANY_TIME: &[Expected] = &[
    HEAP,
    Expected {
        target: "heap?gc=1",
        ..HEAP
    },
    Expected {
        target: "heap?seconds=1",
        seconds: Some(1.0),
        ..HEAP
    },
    Expected {
        target: "heap?gc=1&seconds=2",
        seconds: Some(2.0),
        ..HEAP
    },
    ALLOCS,
    Expected {
        target: "allocs?seconds=1",
        seconds: Some(1.0),
        ..ALLOCS
    },
    THREADCREATE,
    Expected {
        target: "threadcreate?seconds=1",
        seconds: Some(1.0),
        ..THREADCREATE
    },
    BLOCK,
    Expected {
        target: "block?seconds=1",
        seconds: Some(1.0),
        ..BLOCK
    },
    Expected {
        target: "block?all=1",
        ..BLOCK
    },
    MUTEX,
    Expected {
        target: "mutex?seconds=1",
        seconds: Some(1.0),
        ..MUTEX
    },
    GOROUTINE,
    Expected {
        target: "goroutine?seconds=1",
        seconds: Some(1.0),
        ..GOROUTINE
    },
    GOROUTINE_LEAK,
    Expected {
        target: "goroutineleak?seconds=1",
        seconds: Some(1.0),
        ..GOROUTINE_LEAK
    },
];

const ONE_BY_ONE: &[Expected] = &[
    PROFILE,
    Expected {
        target: "profile?seconds=1&hz=500",
        period: "2000000",
        ..PROFILE
    },
];

#[test]
fn raw_metadata_is_gos() {
    let (go, example) = (Go::new(), Example::shared());
    let check = |expected: &Expected| {
        let raw = go
            .pprof(["-raw", &example.url(expected.target)])
            .succeeded();
        expected.check(raw.text());
    };
    thread::scope(|scope| {
        for expected in AT_ANY_TIME {
            scope.spawn(move || check(expected));
        }
        let _lock = example.lock_cpu();
        for expected in ONE_BY_ONE {
            check(expected);
        }
    });
}

impl Expected {
    #[track_caller]
    fn check(&self, raw: &str) {
        let target = self.target;
        let mut lines = raw.lines();
        let mut next = || lines.next().unwrap_or_default();
        // A comment, such as one about lost samples, would come first.
        assert_eq!(
            next(),
            format!("PeriodType: {}", self.period_type),
            "{target}"
        );
        assert_eq!(next(), format!("Period: {}", self.period), "{target}");
        assert!(next().starts_with("Time: 20"), "{target}");
        if let Some(seconds) = self.seconds {
            let line = next();
            let shown = line.strip_prefix("Duration: ").map(str::parse::<f64>);
            // The upper bound only tells seconds from other units: the machine may be busy.
            assert!(
                shown.is_some_and(
                    |shown| shown.is_ok_and(|s| (seconds..seconds + 20.0).contains(&s))
                ),
                "{target}: {line}"
            );
        }
        assert_eq!(next(), "Samples:", "{target}");
        assert_eq!(next(), self.sample_types, "{target}");
        check_main_mapping(target, raw);
    }
}

/// The main program's mapping is the first, its build id is there, and all of its locations are complete, if there are
/// any: of what seldom happens, a second may have nothing.
#[track_caller]
fn check_main_mapping(target: &str, raw: &str) {
    let (before, mappings) = raw.rsplit_once("\nMappings\n").expect("there are mappings");
    let complete = if before.ends_with("\nLocations") {
        "[FN]"
    } else {
        "[FN][FL][LN][IN]"
    };
    let main = mappings.lines().next().unwrap_or_default();
    let fields: Vec<&str> = main.split_whitespace().collect();
    let [number, _, file, build_id, flags] = fields[..] else {
        panic!("{target}: {main}");
    };
    assert_eq!((number, flags), ("1:", complete), "{target}");
    assert!(
        file.ends_with("/release/examples/server"),
        "{target}: {main}"
    );
    assert_eq!(build_id.len(), 40, "{target}: {main}");
    assert!(!mappings.contains("(deleted)"), "{target}: {mappings}");
}

/// Go's table again, as an independent decoder sees it, and the times.
#[test]
fn decoded_metadata_is_gos() {
    let example = Example::shared();
    let nanos_now = || {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        i64::try_from(since_1970.expect("it is later").as_nanos()).expect("it is not that late")
    };
    thread::scope(|scope| {
        for expected in AT_ANY_TIME.iter().chain(&[PROFILE]) {
            let example = &example;
            scope.spawn(move || {
                let target = expected.target;
                let _lock = target.starts_with("profile").then(|| example.lock_cpu());
                let before = nanos_now();
                let profile = example.profile(target);
                let times = before..=nanos_now();
                assert!(times.contains(&profile.time_nanos), "{target}");
                assert!(
                    times.contains(&(before + profile.duration_nanos)),
                    "{target}"
                );
                assert_eq!(
                    profile.duration_nanos > 0,
                    expected.seconds.is_some(),
                    "{target}"
                );
                let default = profile.string(profile.default_sample_type);
                let marked = expected.sample_types.contains("alloc_space/bytes[dflt]");
                assert_eq!(default, if marked { "alloc_space" } else { "" }, "{target}");
                assert_eq!((profile.keep_frames, profile.doc_url), (0, 0), "{target}");
                assert_eq!(profile.comment, [], "{target}");
                let samples_have = |key| {
                    let stacks = profile.stacks();
                    stacks.iter().any(|stack| stack.label(key).is_some())
                };
                assert_eq!(
                    samples_have("bytes"),
                    expected.period_type == "space bytes",
                    "{target}"
                );
            });
        }
    });
}

/// A reader may add functions of its own, and numbers them from the count of those that are there.
#[test]
fn functions_are_numbered_without_gaps() {
    let example = Example::shared();
    for target in ["heap", "threadcreate"] {
        let profile = example.profile(target);
        let mut ids: Vec<u64> = profile
            .function
            .iter()
            .map(|function| function.id)
            .collect();
        ids.sort_unstable();
        assert!(
            ids.iter().copied().eq(1..=ids.len() as u64),
            "{target}: {ids:?}"
        );
    }
}

/// `-seconds` adds the parameter to any address.
#[test]
fn seconds_can_be_a_flag() {
    let (go, example) = (Go::new(), Example::shared());
    let _lock = example.lock_cpu();
    for (target, ty) in [("profile", "cpu"), ("heap", "inuse_space"), ("", "cpu")] {
        let url = match target {
            // No path at all stands for the CPU profile.
            "" => example.host().to_owned(),
            _ => example.url(target),
        };
        let top = go.pprof(["-seconds", "1", "-top", &url]).succeeded();
        assert!(
            top.text().contains(&format!("Type: {ty}\n")),
            "{url}: {}",
            top.text()
        );
        assert!(top.text().contains("Duration: "), "{url}: {}", top.text());
        let fetched = format!("{url}?seconds=1");
        assert!(
            target.is_empty() || top.stderr.contains(&fetched),
            "{}",
            top.stderr
        );
    }
}

/// What the difference of two moments has: the churn, but not what was there before.
#[test]
fn a_difference_has_only_what_happened_since() {
    let example = Example::shared();
    let [since, whole] = ["allocs?seconds=1", "allocs"].map(|target| example.profile(target));
    let [since, whole] = [since, whole].map(|profile| profile.total("alloc_space", ""));
    assert!((1..whole).contains(&since), "{since} of {whole}");
    // The load asks for reports all the time, each with threads of its own.
    let mut profile = example.profile("threadcreate?seconds=1");
    for _ in 0..20 {
        if !profile.sample.is_empty() {
            break;
        }
        profile = example.profile("threadcreate?seconds=1");
    }
    let created = profile.total("threadcreate", "");
    assert!(created > 0);
    assert_eq!(
        created,
        profile.total("threadcreate", "server::report::make")
    );
}

/// The old text formats have addresses only: the tool asks for their names with POST.
#[test]
fn legacy_text_is_readable() {
    let (go, example) = (Go::new(), Example::shared());
    for (target, ty, shares) in [
        (
            "heap",
            "inuse_space",
            [
                ("server::service::work", 20.0),
                ("server::store::Store::put", 5.0),
            ],
        ),
        (
            "allocs",
            // The text has no default: it must be asked for.
            "alloc_space",
            [
                ("server::service::work", 50.0),
                ("server::document::pack", 1.0),
            ],
        ),
        (
            "threadcreate",
            "threadcreate",
            [
                ("<std::sys::thread::unix::Thread>::new", 90.0),
                ("server::main", 0.1),
            ],
        ),
        (
            "block",
            "delay",
            [
                ("server::notary::Line::register::{{closure}}", 10.0),
                ("server::service::work", 10.0),
            ],
        ),
        (
            "mutex",
            "delay",
            [
                ("server::notary::Line::register::{{closure}}", 50.0),
                ("server::store::Store::put", 0.0),
            ],
        ),
        (
            "goroutine",
            "goroutine",
            [
                ("server::service::work", 5.0),
                ("server::notary::keep_records::{{closure}}", 1.0),
            ],
        ),
        (
            "goroutineleak",
            "goroutineleak",
            [
                ("server::bell::Bell::heard::{{closure}}", 100.0),
                ("server::bell::Bell::heard::{{closure}}", 100.0),
            ],
        ),
    ] {
        let url = example.url(&format!("{target}?debug=1"));
        let top = go
            .pprof([
                "-top",
                "-cum",
                "-nodecount=500",
                "-nodefraction=0",
                // What answering these tests takes is no part of the shares.
                "-ignore=picoprof_std::server",
                "-relative_percentages",
                &format!("-sample_index={ty}"),
                &url,
            ])
            .succeeded();
        assert!(
            top.text().contains(&format!("Type: {ty}\n")),
            "{}",
            top.text()
        );
        expect_shares(top.text(), &shares);
    }
}

/// `-proto` writes the profile anew: nothing that it has is lost on the way.
#[test]
fn proto_survives_the_tool() {
    let (go, example) = (Go::new(), Example::shared());
    let written = go
        .pprof([
            "-proto",
            "-output",
            "again.pb.gz",
            &example.url("threadcreate"),
        ])
        .succeeded();
    assert!(written.stderr.contains("again.pb.gz"), "{}", written.stderr);
    let bytes = std::fs::read(go.home().join("again.pb.gz")).expect("it wrote it");
    let again = sound("-proto", &bytes);
    assert_eq!(again.sample_types(), [("threadcreate", "count")]);
    assert!(again.total("threadcreate", "server::load::Load::spawn") >= 4);
}
