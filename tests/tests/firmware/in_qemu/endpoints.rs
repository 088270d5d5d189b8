//! Each endpoint, raw and by `go tool pprof`.

use core::fmt::Write as _;

use picoprof_tests::dump;
use picoprof_tests::elf;
use picoprof_tests::go::Go;
use picoprof_tests::guest::{Guest, Machine};
use picoprof_tests::http::request;
use picoprof_tests::subject::profile_in;

on_each_machine! { works, profiles_are_sound, go_reads_each, texts_are_readable }

on_machines! { v6m: Mps2An385V6m [works, profiles_are_sound, go_reads_each] }

/// What Go's own server sends, as `-raw` prints it.
struct Expected {
    target: &'static str,
    period_type: &'static str,
    period: &'static str,
    sample_types: &'static str,
}

const fn contentions(target: &'static str) -> Expected {
    Expected {
        target,
        period_type: "contentions count",
        period: "1",
        sample_types: "contentions/count delay/nanoseconds",
    }
}

const fn counts(
    target: &'static str,
    period_type: &'static str,
    sample_types: &'static str,
) -> Expected {
    Expected {
        target,
        period_type,
        period: "1",
        sample_types,
    }
}

const fn memory(target: &'static str, sample_types: &'static str) -> Expected {
    Expected {
        target,
        period_type: "space bytes",
        period: "",
        sample_types,
    }
}

const HEAP: &str = "alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes";
const ALLOCS: &str =
    "alloc_objects/count alloc_space/bytes[dflt] inuse_objects/count inuse_space/bytes";

const ENDPOINTS: &[Expected] = &[
    Expected {
        target: "profile?seconds=1",
        period_type: "cpu nanoseconds",
        // A tick is a sample, whatever is asked for.
        period: "1000000",
        sample_types: "samples/count cpu/nanoseconds",
    },
    memory("heap", HEAP),
    memory("heap?seconds=1", HEAP),
    memory("allocs", ALLOCS),
    memory("allocs?seconds=1", ALLOCS),
    contentions("block"),
    contentions("block?seconds=1"),
    contentions("mutex"),
    contentions("mutex?seconds=1"),
    counts("goroutine", "goroutine count", "goroutine/count"),
    counts("goroutine?seconds=1", "goroutine count", "goroutine/count"),
    counts(
        "goroutineleak",
        "goroutineleak count",
        "goroutineleak/count",
    ),
    counts("threadcreate", "threadcreate count", "threadcreate/count"),
    counts(
        "threadcreate?seconds=1",
        "threadcreate count",
        "threadcreate/count",
    ),
];

/// Comes up, does its work, and ends well.
fn works(machine: Machine) {
    let guest = Guest::start(machine);
    let text = "1042 ch3 -217\n1043 ch3 -212\n".repeat(30);
    let [first, second] = [(); 2].map(|()| guest.put(text.as_bytes()));
    assert_eq!(first, second);
    // As cksum -a crc32b has it.
    assert_eq!(guest.put(b"123456789").0, "cbf43926");
    assert!((1..text.len() / 2).contains(&first.1), "{first:?}");
    let before = guest.stats();
    assert_eq!(guest.work(20), guest.work(20));
    let after = guest.stats();
    assert!(
        after.of("ticks") > before.of("ticks"),
        "{before:?} {after:?}"
    );
    guest.end();
}

fn profiles_are_sound(machine: Machine) {
    let guest = Guest::start(machine);
    let build_id = elf::build_id(&machine.image());
    let mut keep_alive = guest.connect();
    for Expected {
        target,
        sample_types,
        ..
    } in ENDPOINTS
    {
        let path = format!("/debug/pprof/{target}");
        let bytes = request("GET", &path, &[], b"");
        let answer = keep_alive
            .send(&bytes)
            .and_then(|()| keep_alive.read_response());
        let answer = answer.unwrap_or_else(|error| panic!("{target}: {error}; {}", guest.fate()));
        let profile = profile_in(target, &answer);
        let mut types = String::new();
        for (name, unit) in profile.sample_types() {
            let default = name == profile.string(profile.default_sample_type);
            let default = if default { "[dflt]" } else { "" };
            let _ = write!(types, "{name}/{unit}{default} ");
        }
        assert_eq!(types.trim_end(), *sample_types, "{target}");
        let main = &profile.mapping[0];
        assert_eq!(profile.string(main.build_id), build_id, "{target}");
        assert!(
            profile.string(main.filename).contains(machine.package()),
            "{target}"
        );
        let (name, seconds) = target.split_once('?').unwrap_or((target, ""));
        let is_difference = !seconds.is_empty() && name != "profile";
        let suffix = if is_difference { "-delta" } else { "" };
        for (header, value) in [
            ("Content-Type", "application/octet-stream"),
            ("X-Content-Type-Options", "nosniff"),
            (
                "Content-Disposition",
                &format!("attachment; filename=\"{name}{suffix}\""),
            ),
        ] {
            assert_eq!(answer.header(header), Some(value), "{target}");
        }
        assert_eq!(profile.duration_nanos > 0, !seconds.is_empty(), "{target}");
        if let ("heap" | "allocs", false) = (name, machine.has_heap()) {
            assert_eq!(profile.sample, [], "{target}");
            let comments = profile
                .comment
                .iter()
                .map(|&comment| profile.string(comment));
            let comments: Vec<&str> = comments.collect();
            assert!(
                comments.iter().any(|comment| comment.contains("heap")),
                "{target} does not say why it is empty: {comments:?}"
            );
        } else if !is_difference && name != "goroutineleak" {
            assert!(!profile.sample.is_empty(), "{target}");
        }
    }
    guest.end();
}

fn go_reads_each(machine: Machine) {
    let (go, guest) = (Go::new(), Guest::start(machine));
    for expected in ENDPOINTS {
        let target = expected.target;
        let raw = go.pprof(["-raw", &guest.url(target)]).succeeded();
        let shown = |line: &str| raw.text().lines().any(|it| it == line);
        assert!(
            shown(&format!("PeriodType: {}", expected.period_type)),
            "{target}: {}",
            raw.text()
        );
        assert!(
            expected.period.is_empty() || shown(&format!("Period: {}", expected.period)),
            "{target}: {}",
            raw.text()
        );
        assert!(shown(expected.sample_types), "{target}: {}", raw.text());
    }
    guest.end();
}

/// What people read, and what has no profile.
fn texts_are_readable(machine: Machine) {
    let guest = Guest::start(machine);
    let index = guest.get("");
    assert_eq!(
        index.header("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    for expected in ENDPOINTS.iter().filter(|it| !it.target.contains('?')) {
        let name = expected.target;
        let link = format!("href=\"{name}?debug=1\"");
        assert!(index.text().contains(&link), "{name} in {}", index.text());
        let text = guest.get(&format!("{name}?debug=1"));
        assert_eq!(text.status, 200, "{name}: {}", text.text());
        assert_eq!(
            text.header("Content-Type"),
            Some("text/plain; charset=utf-8")
        );
    }
    let dump = guest.get("goroutine?debug=2");
    let goroutines =
        dump::parse(dump.text()).unwrap_or_else(|error| panic!("{error}: {}", dump.text()));
    let tasks = guest.stats().of("tasks") as usize;
    assert!(
        goroutines.len() >= tasks,
        "{tasks} tasks, but {}",
        dump.text()
    );
    assert_eq!(guest.get("cmdline").text(), machine.package());
    let mut client = guest.connect();
    client
        .send(&request("POST", "/debug/pprof/symbol", &[], b"0x1234"))
        .expect("it listens");
    let symbols = client.read_response().expect("it answers");
    assert!(
        symbols.text().starts_with("num_symbols: 1\n"),
        "{}",
        symbols.text()
    );
    // What a body would have said, and none.
    client
        .send(&request("HEAD", "/debug/pprof/cmdline", &[], b""))
        .expect("it listens");
    let head = client.read_answer_to("HEAD").expect("it answers");
    assert_eq!((head.status, head.body.len()), (200, 0));
    guest.end();
}
