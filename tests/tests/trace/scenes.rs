//! What the program `traced` plays by its script, as its traces have it: who waits for whom, where, and for how long at least.
//!
//! The machine may be busy. A sleep takes at least as long as it should, so what comes between two wakes of one that sleeps is known
//! from below; from above only the order is.

use core::time::Duration;
use std::fs;

use picoprof_tests::go::Go;
use picoprof_tests::process::command;
use picoprof_tests::subject::Subject;
use picoprof_tests::trace::{Goroutine, Slice, State, Trace, Wake, has_function};

/// As in the program.
const PAUSE: u64 = 20_000_000;
const ROUNDS: usize = 5;

pub(crate) fn traced() -> Subject {
    let mut subject = Subject::start(command(env!("CARGO_BIN_EXE_traced"), [""; 0]));
    subject.wait_for_unwinder();
    subject
}

/// A trace of what the program does meanwhile, which Go's tools take.
pub(crate) fn play(subject: &mut Subject, scenes: &[&str]) -> (Trace, Vec<u8>) {
    let client = subject.begin_profile("trace?seconds=2.5");
    for scene in scenes {
        assert_eq!(subject.ask(scene), "", "{scene}");
    }
    let mut client = client;
    let response = client.read_response().expect("it answers");
    assert_eq!(response.status, 200);
    Go::new().accepts_trace(&response.body);
    (Trace::of(&response.body), response.body)
}

/// The waits of a goroutine at a function that others ended, with who that was.
#[track_caller]
fn waits<'a>(
    trace: &'a Trace,
    name: &str,
    function: &'a str,
) -> Vec<(&'a Slice, &'a Wake, &'a str)> {
    let waits = trace.only(name).waits_at(function);
    let waits = waits.filter_map(|wait| {
        let wake = wait.woken.as_ref()?;
        Some((wait, wake, trace.waker(wake)))
    });
    let waits: Vec<_> = waits.collect();
    assert!(
        !waits.is_empty(),
        "{name}, {function}: {:#?}",
        trace.only(name)
    );
    waits
}

/// Sees that `waker`, at a function, ended one of the waits; answers it.
#[track_caller]
fn woken<'a>(trace: &'a Trace, name: &str, function: &'a str, waker: &str, at: &str) -> &'a Slice {
    let all = waits(trace, name, function);
    let found = all
        .iter()
        .find(|(_, wake, by)| *by == waker && has_function(&wake.stack, at));
    found
        .unwrap_or_else(|| panic!("{waker} at {at} in {all:#?}"))
        .0
}

/// It was runnable, then ran, right after it was woken.
#[track_caller]
fn goes_on_after(goroutine: &Goroutine, wait: &Slice) {
    let after = goroutine
        .slices
        .iter()
        .skip_while(|slice| slice.from < wait.to);
    let states: Vec<State> = after.take(2).map(|slice| slice.state).collect();
    assert_eq!(states, [State::Runnable, State::Running], "{goroutine:#?}");
}

#[test]
fn threads_wait_for_each_other() {
    let mut subject = traced();
    let (trace, _) = play(&mut subject, &["threads"]);
    subject.end();
    let wait = woken(
        &trace,
        "thread wanter",
        "wants_lock",
        "thread holder",
        "lets_go",
    );
    assert!(wait.nanos() > PAUSE, "{wait:#?}");
    assert!(wait.reason.contains("sync"), "{wait:#?}");
    goes_on_after(trace.only("thread wanter"), wait);

    for (name, function, waker, at) in [
        ("thread link-2", "passes_on", "thread link-1", "sends_first"),
        (
            "thread link-3",
            "receives_last",
            "thread link-2",
            "passes_on",
        ),
    ] {
        let wait = woken(&trace, name, function, waker, at);
        assert_eq!(&*wait.reason, "chan receive", "{wait:#?}");
        // One after the other, and all but the end of the channel after a sleep.
        let all = waits(&trace, name, function);
        let wakes: Vec<u64> = (all.iter())
            .filter(|(.., by)| *by == waker)
            .map(|(_, wake, _)| wake.at)
            .collect();
        assert!(wakes.len() >= ROUNDS - 1, "{all:#?}");
        let sleeps = wakes.windows(2).filter(|pair| pair[1] - pair[0] >= PAUSE);
        assert!(
            waker != "thread link-1" || sleeps.count() >= ROUNDS - 2,
            "{all:#?}"
        );
    }
    let first = waits(&trace, "thread link-2", "passes_on")[0].1.at;
    assert!(first < waits(&trace, "thread link-3", "receives_last")[0].1.at);

    let wait = woken(
        &trace,
        "thread waiter",
        "waits_for_condition",
        "thread notifier",
        "notifies",
    );
    assert!(wait.reason.contains("sync"), "{wait:#?}");
    let wait = woken(
        &trace,
        "thread parker",
        "parks",
        "thread unparker",
        "unparks",
    );
    assert!(wait.reason.contains("sync"), "{wait:#?}");

    // Who created whom, and that they are gone.
    for (name, creator, at) in [
        ("thread created", "thread creator", "creates_thread"),
        ("thread creator", "thread main", "threads"),
    ] {
        let goroutine = trace.only(name);
        let created = goroutine.created.as_ref().expect("it says who");
        assert_eq!(trace.waker(created), creator, "{created:#?}");
        assert!(has_function(&created.stack, at), "{created:#?}");
        assert!(goroutine.ended.is_some(), "{goroutine:#?}");
    }
}

#[test]
fn tasks_wake_each_other() {
    let mut subject = traced();
    let (trace, bytes) = play(&mut subject, &["tasks"]);
    subject.end();
    let wait = woken(
        &trace,
        "receiver",
        "receives_messages",
        "sender",
        "sends_messages",
    );
    assert_eq!(&*wait.reason, "chan receive", "{wait:#?}");
    goes_on_after(trace.only("receiver"), wait);
    let all = waits(&trace, "receiver", "receives_messages");
    let wakes: Vec<u64> = (all.iter())
        .filter(|(.., by)| *by == "sender")
        .map(|(_, wake, _)| wake.at)
        .collect();
    assert!(wakes.len() >= ROUNDS, "{all:#?}");
    let between = wakes[ROUNDS - 1] - wakes[0];
    assert!(between >= (ROUNDS as u64 - 1) * PAUSE, "{all:#?}");
    woken(
        &trace,
        "answered",
        "hears_answers",
        "receiver",
        "receives_messages",
    );
    let wait = woken(&trace, "wants", "wants_async_lock", "keeps", "lets_go");
    assert!(
        wait.reason.contains("sync") && wait.nanos() > PAUSE / 2,
        "{wait:#?}"
    );
    // Nobody who is a task has a timer end.
    let sleeps = waits(&trace, "sender", "sends_messages");
    let slept = sleeps.iter().filter(|(wait, ..)| &*wait.reason == "sleep");
    assert!(slept.count() >= ROUNDS, "{sleeps:#?}");

    for (name, creator, at) in [
        ("child", "spawns", "spawns"),
        ("grandchild", "child", "spawns_more"),
    ] {
        let goroutine = trace.only(name);
        let created = goroutine.created.as_ref().expect("it says who");
        assert_eq!(trace.waker(created), creator, "{created:#?}");
        assert!(has_function(&created.stack, at), "{created:#?}");
        assert!(goroutine.ended.is_some(), "{goroutine:#?}");
    }
    let labels = &trace.only("grandchild").labels;
    assert!(
        labels.iter().any(|(_, label)| label.contains("put")),
        "{labels:?}"
    );

    // They run on the workers, one at a time on each.
    for name in ["sender", "receiver", "wants", "keeps", "child"] {
        let running = trace
            .only(name)
            .slices
            .iter()
            .filter(|slice| slice.state == State::Running);
        assert!(
            running.clone().count() > 0 && running.clone().all(|slice| slice.thread.is_some()),
            "{name}"
        );
    }

    // What Go makes of it.
    let go = Go::new();
    let path = go.accepts_trace(&bytes);
    let path = path.to_str().expect("it is text");
    let profile = go.trace(["-pprof=sync", path]).succeeded();
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
    for function in ["receives_messages", "hears_answers", "wants_async_lock"] {
        assert!(
            top.text().contains(function),
            "{function} in:\n{}",
            top.text()
        );
    }
}

#[test]
fn programs_say_what_they_do() {
    let mut subject = traced();
    let (trace, _) = play(&mut subject, &["annotations"]);
    subject.end();
    let task = |name: &str| {
        let task = trace.tasks.iter().find(|task| &*task.name == name);
        task.unwrap_or_else(|| panic!("{name} in {:#?}", trace.tasks))
    };
    let (request, part, journey) = (task("request"), task("part"), task("journey"));
    assert_eq!((request.parent, part.parent), (0, request.id));
    let name = |goroutine: usize| &*trace.goroutines[goroutine].name;
    assert_eq!(name(request.by), "thread annotator");
    let (_, by) = request.ended.expect("it ended");
    assert_eq!(name(by), "thread finisher");
    assert!(part.ended.is_some() && journey.ended.is_some());
    assert!(task("unfinished").ended.is_none());

    let region = |name: &str| {
        let region = trace.regions.iter().find(|region| &*region.name == name);
        region.unwrap_or_else(|| panic!("{name} in {:#?}", trace.regions))
    };
    let of = |region_name: &str| name(region(region_name).goroutine);
    for (region_name, task, depth) in [
        ("parse", request.id, 0),
        ("render", part.id, 0),
        ("inner", 0, 1),
        ("first", 0, 0),
        ("second", 0, 1),
        ("crossing", request.id, 0),
    ] {
        let region = region(region_name);
        assert_eq!((region.task, region.depth), (task, depth), "{region:#?}");
        assert_eq!(of(region_name), "thread annotator");
    }
    for name in ["parse", "render", "inner", "second"] {
        let region = region(name);
        let nanos = region.to.expect("it ended") - region.from;
        assert!(nanos >= 2_000_000, "{region:#?}");
    }
    // One that contains others ends with the last of them.
    let (first, second) = (region("first"), region("second"));
    assert!(first.to.expect("it ended") >= second.to.expect("it ended"));
    let leg = region("leg");
    assert_eq!((leg.task, of("leg")), (journey.id, "traveller"));
    assert!(
        leg.to.is_some_and(|to| to - leg.from >= 10_000_000),
        "{leg:#?}"
    );

    let logs = |category: &str| -> Vec<_> {
        let logs = trace.logs.iter().filter(|log| &*log.category == category);
        logs.map(|log| (log.task, &*log.message, name(log.goroutine)))
            .collect()
    };
    assert_eq!(
        logs("http"),
        [(request.id, "GET /index", "thread annotator")]
    );
    assert_eq!(
        logs("note"),
        [
            (0, "the outer region is gone", "thread annotator"),
            (0, "with labels", "thread annotator")
        ]
    );
    assert_eq!(
        logs("stop"),
        [(journey.id, "somewhere", "traveller"); ROUNDS]
    );
    let labels = &trace.only("thread annotator").labels;
    assert!(
        labels.iter().any(|(_, label)| label.contains("get")),
        "{labels:?}"
    );
}

#[test]
fn samples_are_where_the_time_goes() {
    let mut subject = traced();
    let profile = subject.begin_profile("profile?seconds=2&hz=200");
    let (trace, _) = play(&mut subject, &["burn 700"]);
    drop(profile);
    subject.end();
    let burner = trace.only("thread burner");
    let samples = trace
        .samples
        .iter()
        .filter(|sample| sample.goroutine == burner.id);
    let burning = samples
        .clone()
        .filter(|sample| has_function(&sample.stack, "burns"));
    assert!(
        burning.clone().count() >= 10,
        "{} samples, {:?}",
        samples.count(),
        burner.id
    );
    for sample in burning {
        assert!(sample.at >= burner.slices[0].from && sample.at <= burner.ended.expect("it ended"));
    }
}

#[test]
fn ten_thousand_tasks_are_there() {
    let mut subject = traced();
    let (trace, _) = play(&mut subject, &["many 10000"]);
    subject.end();
    let many: Vec<&Goroutine> = trace.named("one of many").collect();
    let lost: Vec<_> = trace
        .logs
        .iter()
        .filter(|log| log.message.contains("lost"))
        .collect();
    let ended = many.iter().filter(|it| it.ended.is_some()).count();
    println!("{} tasks, {ended} ended, {lost:?}", many.len());
    assert!(
        (9_000..=10_000).contains(&ended),
        "{ended} of {}",
        many.len()
    );
}

#[test]
fn flights_are_what_happened_last() {
    let mut subject = traced();
    let refused = subject.get("trace?flight=1");
    assert_ne!(refused.status, 200);
    for scene in ["flight on", "threads", "tasks", "annotations"] {
        subject.ask(scene);
    }
    let response = subject.get("trace?flight=1");
    assert_eq!(response.status, 200);
    let saved = std::env::temp_dir().join(format!("picoprof-saved-{}.trace", subject.id()));
    subject.ask(format!("save {}", saved.display()));
    let file = fs::read(&saved).expect("it is there");
    fs::remove_file(&saved).expect("it is there");
    subject.ask("flight off");
    subject.end();
    for bytes in [&response.body, &file] {
        Go::new().accepts_trace(bytes);
        let trace = Trace::of(bytes);
        woken(
            &trace,
            "thread wanter",
            "wants_lock",
            "thread holder",
            "lets_go",
        );
        woken(
            &trace,
            "receiver",
            "receives_messages",
            "sender",
            "sends_messages",
        );
        assert!(trace.tasks.iter().any(|task| &*task.name == "request"));
        assert!(trace.regions.iter().any(|region| &*region.name == "leg"));
    }
}

/// Traces come one at a time, and one that is left ends.
#[test]
fn whoever_leaves_makes_room() {
    let mut subject = traced();
    let client = subject.begin_profile("trace?seconds=60");
    let second = subject.get("trace?seconds=1");
    assert_eq!(second.status, 500, "{}", second.text());
    drop(client);
    let mut tries = 0;
    while subject.get("trace?seconds=0.1").status != 200 {
        tries += 1;
        assert!(tries < 100, "the first one goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    subject.end();
}
