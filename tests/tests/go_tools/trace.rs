//! The execution trace of the example under its load.

use std::fs;

use picoprof_tests::go::Go;
use picoprof_tests::trace::{State, Trace};
use picoprof_tests::viewer::Viewer;

use crate::server::Example;

/// Where a document waits until it is on record.
const REGISTER: &str = "register";

#[test]
fn a_trace_shows_who_does_what() {
    let example = Example::shared();
    let bytes = example.get("trace?seconds=2");
    let go = Go::new();
    let path = go.accepts_trace(&bytes);
    let trace = Trace::of(&bytes);
    // Somebody of each kind, who ran and waited.
    for name in [
        "notary",
        "acceptor",
        "connection",
        "request",
        "registration",
        "thread worker-0",
        "thread worker-3",
    ] {
        let all: Vec<_> = trace.named(name).collect();
        let ran = all.iter().any(|it| it.nanos(State::Running) > 0);
        assert!(ran, "{name}: {} of {}", all.len(), trace.goroutines.len());
    }
    let requests: Vec<_> = trace.named("request").collect();
    assert!(requests.len() > 10, "{}", requests.len());
    // A request is created by its connection; a worker, or the notary, ends its wait.
    let created = requests.iter().filter_map(|it| it.created.as_ref());
    let by_connection = created
        .filter(|wake| trace.waker(wake) == "connection")
        .count();
    assert!(
        by_connection > requests.len() / 2,
        "{by_connection} of {}",
        requests.len()
    );
    let wakers = |name| -> Vec<&str> {
        let slices = trace.named(name).flat_map(|it| &it.slices);
        slices
            .filter_map(|it| it.woken.as_ref())
            .map(|wake| trace.waker(wake))
            .collect()
    };
    let of_requests = wakers("request");
    assert!(
        of_requests
            .iter()
            .any(|name| name.starts_with("thread worker-")),
        "{of_requests:?}"
    );
    let of_registrations = wakers("registration");
    assert!(of_registrations.contains(&"notary"), "{of_registrations:?}");
    let registrations = trace.named("registration");
    let waits: Vec<_> = registrations.flat_map(|it| it.waits_at(REGISTER)).collect();
    let is_named = |reason: &str| reason.contains("sync") || reason.contains("chan");
    assert!(
        waits
            .iter()
            .any(|wait| is_named(&wait.reason) && wait.nanos() > 0),
        "{waits:#?}"
    );
    // What the program says of itself, with its labels.
    for route in ["put", "get", "search"] {
        assert!(
            trace
                .tasks
                .iter()
                .any(|task| &*task.name == route && task.ended.is_some()),
            "{route}"
        );
    }
    // Whose begin the trace has not, may be nameless.
    let owners = |name: &str| -> Vec<&str> {
        let regions = trace.regions.iter().filter(|region| &*region.name == name);
        regions
            .map(|region| &*trace.goroutines[region.goroutine].name)
            .collect()
    };
    let of_answers = owners("answer");
    assert!(
        of_answers
            .iter()
            .all(|name| name.starts_with("thread worker-")),
        "{of_answers:?}"
    );
    assert!(!of_answers.is_empty() && owners("registration").contains(&"request"));
    assert!(
        trace
            .logs
            .iter()
            .any(|log| log.message.starts_with("PUT /documents/"))
    );
    let labelled = trace.goroutines.iter().flat_map(|it| &it.labels);
    assert!(labelled.clone().any(|(_, label)| label.contains("put")));

    // The same in Go's words.
    let file = path.to_str().expect("it is text");
    let profile = go.trace(["-pprof=sync", file]).succeeded();
    fs::write(go.home().join("sync.pb.gz"), &profile.stdout).expect("there is room");
    let top = go
        .pprof([
            "-top",
            "-cum",
            "-nodecount=1000",
            "-nodefraction=0",
            "sync.pb.gz",
        ])
        .succeeded();
    assert!(
        top.text()
            .contains("server::notary::Line::register::{{closure}}"),
        "{}",
        top.text()
    );
    let viewer = Viewer::start(&go, &path);
    for (page, names) in [
        (
            "/goroutines",
            &["connection", "registration", "thread worker-0"][..],
        ),
        ("/usertasks", &["put", "get", "search"]),
        ("/userregions", &["answer", "registration"]),
        ("/mmu?mode=plot&flags=system", &[]),
    ] {
        let text = viewer.page(page);
        for name in names {
            assert!(text.contains(name), "{name} is not on {page}:\n{text}");
        }
    }
}
