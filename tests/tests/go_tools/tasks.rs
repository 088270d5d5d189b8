//! What the tasks and threads of the example wait for, and what they do it for: contention, goroutines and labels.

use picoprof_tests::dump::{self, Goroutine};
use picoprof_tests::go::Go;

use crate::server::{Captured, Example, cum_share, expect_shares};

/// The task that is on the line to the notary, or waits for it.
const REGISTER: &str = "server::notary::Line::register::{{closure}}";
const LEAK: &str = "server::bell::Bell::heard::{{closure}}";
const ACCEPT: &str = "server::service::accept::{{closure}}";
const SERVE: &str = "server::service::serve_connection::{{closure}}";
const RESPOND: &str = "server::service::respond::{{closure}}";

/// Tasks have higher numbers than this.
const TASKS: u64 = 1_000_000_000;

/// A report with all nodes.
fn report(args: &[&str]) -> String {
    let all = ["-cum", "-nodecount=1000", "-nodefraction=0"];
    let (go, args) = (Go::new(), [&all[..], args].concat());
    go.pprof(args).succeeded().text().to_owned()
}

/// The lines of a function of the source, with their time.
struct Listing(String);

impl Listing {
    fn of(function: &str, url: &str) -> Self {
        Self(report(&["-unit=ns", "-list", function, url]))
    }

    /// How much of the total a line and its callees have, in percent.
    #[track_caller]
    fn share_of(&self, code: &str) -> f64 {
        let Self(list) = self;
        let line = list.lines().find(|line| line.trim_end().ends_with(code));
        let time = line.and_then(|line| line.split_whitespace().nth(1));
        let total = list.lines().find_map(|line| line.strip_prefix("Total: "));
        let share = time.zip(total).and_then(|(time, total)| {
            // A dot for none.
            let time = if time == "." { 0.0 } else { nanos(time)? };
            Some(100.0 * time / nanos(total)?)
        });
        share.unwrap_or_else(|| panic!("no line {code} in:\n{list}"))
    }
}

fn nanos(time: &str) -> Option<f64> {
    time.strip_suffix("ns")?.parse().ok()
}

#[test]
fn block_is_where_tasks_and_threads_wait() {
    let example = Example::shared();
    let url = example.url("block");
    let top = report(&["-top", &url]);
    expect_shares(
        &top,
        &[
            (REGISTER, 10.0),
            (RESPOND, 1.0),
            ("server::service::work", 10.0),
        ],
    );
    expect_locks_as_leaves(&top);
    // The executor's own threads wait for work, but for a lock of theirs now and then; the clients for time and answers.
    let executor = cum_share(&top, "tokio::runtime::blocking::pool::Inner::run");
    assert!(executor.is_none_or(|share| share < 5.0), "{top}");
    for elsewhere in ["std::thread::functions::sleep", "server::load::"] {
        assert!(!top.contains(elsewhere), "{elsewhere} in:\n{top}");
    }
    // To the line: the lock, and the answer.
    let list = Listing::of("notary::Line::register", &url);
    let routine = list.0.lines().find(|line| line.starts_with("ROUTINE"));
    assert!(
        routine.is_some_and(|line| line.ends_with("/examples/server/notary.rs")),
        "{}",
        list.0
    );
    for (line, shares) in [
        ("let (receipt, answer) = oneshot::channel();", 0.0..2.0),
        ("let notary = self.notary.lock().await;", 5.0..100.0),
        ("answer.await.ok()", 2.0..100.0),
    ] {
        assert!(
            shares.contains(&list.share_of(line)),
            "{line} in:\n{}",
            list.0
        );
    }
}

/// Stacks end at the lock or the channel, not in how that waits and wakes.
#[track_caller]
fn expect_locks_as_leaves(top: &str) {
    for machinery in [
        "core::task::wake::",
        "tokio::sync::batch_semaphore::",
        "std::sys::pal::unix::futex::",
        "picoprof_std::interposed::syscall",
        "picoprof_std::contention",
    ] {
        // As a function, not as another one's argument.
        assert!(
            !top.contains(&format!("%  {machinery}")),
            "{machinery} in:\n{top}"
        );
    }
}

#[test]
fn mutex_is_who_held_the_lock() {
    let example = Example::shared();
    let url = example.url("mutex");
    let top = report(&["-top", &url]);
    expect_locks_as_leaves(&top);
    expect_shares(
        &top,
        &[(REGISTER, 50.0), ("server::store::Store::put", 0.0)],
    );
    // Who ends others' waiting for something else holds no lock, but for one of Tokio's own now and then.
    for other in [
        "server::notary::keep_records::{{closure}}",
        "server::service::push",
    ] {
        let share = cum_share(&top, other).unwrap_or(0.0);
        assert!(share < 2.0, "{other} in:\n{top}");
    }
    // It is let go of at the end of the function, and at no line before that.
    let list = Listing::of("notary::Line::register", &url);
    for line in [
        "let (receipt, answer) = oneshot::channel();",
        "let notary = self.notary.lock().await;",
        "notary.send(Entry { digest, receipt }).await.ok()?;",
        "answer.await.ok()",
    ] {
        assert!(list.share_of(line) < 2.0, "{line} in:\n{}", list.0);
    }
}

#[test]
fn goroutine_has_all_threads_and_tasks() {
    let example = Example::shared();
    let url = example.url("goroutine");
    let top = report(&["-top", &url]);
    let all = [
        "server::main",
        "server::load::use_service",
        "server::service::work",
        "server::service::maintain",
        ACCEPT,
        SERVE,
        "server::notary::keep_records::{{closure}}",
        LEAK,
    ];
    expect_shares(&top, &all.map(|function| (function, 0.1)));
    assert!(!top.contains("picoprof_std::interposed::syscall"), "{top}");
    // Each with the file and the line of its await.
    let raw = report(&["-raw", &url]);
    for (function, file) in [
        (ACCEPT, "/service.rs:"),
        ("server::notary::keep_records::{{closure}}", "/notary.rs:"),
        (LEAK, "/bell.rs:"),
    ] {
        let place = raw
            .lines()
            .find(|line| line.contains(&format!("{function} ")));
        assert!(
            place.is_some_and(|line| line.contains(file)),
            "{function}: {place:?}"
        );
    }
}

/// One, and never another, whatever the others are at.
#[test]
fn goroutineleak_is_the_one_that_was_leaked() {
    let example = Example::shared();
    for _ in 0..20 {
        let profile = example.profile("goroutineleak");
        assert_eq!(profile.total("goroutineleak", ""), 1);
        assert_eq!(profile.total("goroutineleak", LEAK), 1);
    }
    let top = report(&["-top", &example.url("goroutineleak")]);
    expect_shares(&top, &[(LEAK, 100.0)]);
}

#[test]
fn differences_have_only_what_came_since() {
    let example = Example::shared();
    for (kind, value) in [("block", "delay"), ("mutex", "delay")] {
        let [since, whole] = [format!("{kind}?seconds=1"), kind.to_owned()]
            .map(|target| example.profile(&target).total(value, ""));
        assert!((1..whole).contains(&since), "{kind}: {since} of {whole}");
    }
    // Those that are still there are none that came.
    let since = example.profile("goroutine?seconds=1");
    // But for a connection that was just made there.
    let accepts = since.stacks().into_iter().filter(|stack| {
        stack.has_frame("server::service::accept") && !stack.has_frame("picoprof_std::tracer::task")
    });
    assert_eq!(accepts.count(), 0);
    assert_eq!(since.total("goroutine", LEAK), 0);
    let since = example.profile("goroutineleak?seconds=1");
    assert_eq!(since.total("goroutineleak", ""), 0);
}

#[test]
fn a_dump_says_what_each_is_at() {
    let example = Example::shared();
    let (mut labelled, mut waits_for_lock) = (false, false);
    // Some things are seen only now and then.
    for _ in 0..50 {
        let text = String::from_utf8(example.get("goroutine?debug=2")).expect("it is text");
        let all = dump::parse(&text).unwrap_or_else(|error| panic!("{error} in:\n{text}"));
        assert!(all.len() > 15, "{text}");
        // Tasks, and not the threads that run them. By name, as one that was never suspended is where it was made: a new
        // connection is in `accept`.
        let named = |name: &str| -> Vec<&Goroutine> {
            let name = format!("picoprof.task[{name}]");
            let is_it = |it: &&Goroutine| it.functions().last() == Some(&name.as_str());
            all.iter().filter(is_it).collect()
        };
        let leaks: Vec<_> = all.iter().filter(|it| it.is_leaked).collect();
        assert!(
            matches!(leaks[..], [leak] if leak.functions().contains(&LEAK)),
            "{text}"
        );
        // Each made by a function that is named: the main thread's, or that of another task.
        for name in ["acceptor", "notary", "leaked on purpose"] {
            let [task] = named(name)[..] else {
                panic!("{name} in:\n{text}");
            };
            let created = created(task, &text);
            assert_eq!(created, ("server::service::Service::spawn", 0), "{text}");
        }
        for (name, function, parents) in [
            ("connection", ACCEPT, "acceptor"),
            ("request", SERVE, "connection"),
            ("registration", RESPOND, "request"),
        ] {
            for task in named(name) {
                let (by, parent) = created(task, &text);
                // The parent may be over before its turn comes to be printed.
                let parent_there = all.iter().find(|it| it.id == parent);
                let is_one = parent_there.is_none_or(|it| named(parents).contains(&it));
                assert!(
                    by == function && parent > TASKS && is_one,
                    "{name} in:\n{text}"
                );
            }
        }
        let at_lock =
            |it: &&Goroutine| it.functions().contains(&REGISTER) && it.state == "sync.Mutex.Lock";
        waits_for_lock |= named("registration").iter().any(at_lock);
        labelled |= named("registration")
            .iter()
            .any(|it| it.labels == "route: put");
        if labelled && waits_for_lock {
            return;
        }
    }
    panic!("labels: {labelled}, a task that waits for a lock: {waits_for_lock}");
}

/// The function that made a task, and the number of the task that it made it in.
#[track_caller]
fn created<'a>(task: &'a Goroutine, text: &str) -> (&'a str, u64) {
    let place = task.created_by.as_ref().expect("it says who");
    assert!(
        place.file.ends_with("/service.rs") && place.line > 0,
        "{text}"
    );
    (&place.function, task.parent)
}

#[test]
fn the_index_counts_what_there_is() {
    let example = Example::shared();
    let page = String::from_utf8(example.get("")).expect("it is text");
    let count = |kind: &str| -> u64 {
        let link = format!("</td><td><a href=\"{kind}?debug=1\">");
        let before = page.split(&link).next().unwrap_or_default();
        let count = before.rsplit("<td>").next().map(str::parse);
        count
            .unwrap_or_else(|| panic!("{kind} in:\n{page}"))
            .expect("a number")
    };
    let [block, mutex, goroutine] = ["block", "mutex", "goroutine"].map(count);
    // The main thread, the server's, two talkers, four workers, one for the store, eight clients; three tasks.
    assert!(block > 0 && mutex > 0 && goroutine >= 20, "{page}");
    assert_eq!(count("goroutineleak"), 1, "{page}");
    assert!(page.contains("goroutine?debug=2"), "{page}");
}

/// The routes are labels, on the threads that work for them and on the tasks that wait for them.
#[test]
fn labels_tell_the_routes_apart() {
    let go = Captured::with_go();
    let mut gets = 0;
    for file in ["cpu.pb.gz", "allocs.pb.gz"] {
        let tags = go.pprof(["-tags", file]).succeeded();
        let tags = tags.text();
        assert!(tags.contains(" route: Total "), "{file}: {tags}");
        let is_there = |route| {
            let end = format!(": {route}");
            tags.lines().any(|line| line.ends_with(&end))
        };
        for route in ["put", "search"] {
            assert!(is_there(route), "{file}, {route}: {tags}");
        }
        // It takes so little that a sample of it may be missing on a busy machine.
        gets += usize::from(is_there("get"));
        let focused = |route: &str| {
            let focus = format!("-tagfocus=route={route}");
            let all = [
                "-top",
                "-cum",
                "-nodecount=1000",
                "-nodefraction=0",
                "-relative_percentages",
                &focus,
                file,
            ];
            go.pprof(all).succeeded().text().to_owned()
        };
        let (put, search) = (focused("put"), focused("search"));
        expect_shares(&put, &[("server::document::pack", 20.0)]);
        expect_shares(&search, &[("server::service::search", 20.0)]);
        assert!(!put.contains("server::service::search"), "{put}");
        assert!(!search.contains("server::document::pack"), "{search}");
    }
    assert!(gets > 0, "nobody gets a document");
    let example = Example::shared();
    let tags = report(&["-tags", &example.url("mutex")]);
    assert!(tags.lines().any(|line| line.ends_with(": put")), "{tags}");
    let put = report(&[
        "-top",
        "-relative_percentages",
        "-tagfocus=route=put",
        &example.url("block"),
    ]);
    expect_shares(&put, &[(REGISTER, 30.0)]);
}
