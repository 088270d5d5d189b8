//! The pages of `go tool trace`, for what the program `traced` plays: all answer, and have the names.

use picoprof_tests::go::Go;
use picoprof_tests::trace::Trace;
use picoprof_tests::viewer::Viewer;

use crate::scenes::{play, traced};

#[test]
fn all_pages_answer() {
    let mut subject = traced();
    let (trace, bytes) = play(&mut subject, &["threads", "tasks", "annotations"]);
    subject.end();
    let go = Go::new();
    let viewer = Viewer::start(&go, go.accepts_trace(&bytes));
    for (path, names) in [
        ("/", &["View trace", "Goroutine analysis"][..]),
        (
            "/goroutines",
            &["receiver", "sender", "thread wanter", "grandchild"],
        ),
        ("/goroutine?name=receiver", &["receiver"]),
        ("/usertasks", &["request", "part", "journey"]),
        ("/usertask?type=request", &["parse", "http", "GET /index"]),
        ("/userregions", &["parse", "render", "inner", "leg"]),
        ("/userregion?type=parse", &["parse"]),
        ("/trace", &["trace_viewer"]),
        ("/mmu", &["mmu"]),
        ("/mmu?mode=plot&flags=system", &[]),
        ("/io", &["svg"]),
        (
            "/block",
            &["receives_messages", "hears_answers", "wants_lock", "svg"],
        ),
        ("/syscall", &[]),
        ("/sched", &["svg"]),
        ("/regionblock?type=leg", &[]),
    ] {
        let page = viewer.page(path);
        for name in names {
            assert!(page.contains(name), "{name} is not on {path}:\n{page}");
        }
    }
    has_arrows(&trace, &viewer.page("/jsontrace"));
    let threads = viewer.page("/jsontrace?view=thread");
    assert!(
        threads.contains("receiver"),
        "{}",
        &threads[..threads.len().min(2000)]
    );
    let task = trace
        .tasks
        .iter()
        .find(|task| &*task.name == "request")
        .expect("it is there");
    for page in [
        format!("/trace?taskid={}", task.id),
        format!("/jsontrace?taskid={}", task.id),
        format!("/jsontrace?goid={}", trace.only("receiver").id),
    ] {
        assert_ne!(viewer.page(&page), "", "{page}");
    }
}

/// The timeline has the goroutines by name, and an arrow from who wakes to who is woken.
fn has_arrows(trace: &Trace, json: &str) {
    for name in ["receiver", "sender", "thread wanter"] {
        let shown = format!("\"name\":\"G{} {name}\"", trace.only(name).id);
        assert!(json.contains(&shown), "{shown}");
    }
    // An arrow begins ("s") and ends ("t" or "f") with the same number.
    for arrow in ["unblock (chan receive)", "go"] {
        let named = format!("\"name\":\"{arrow}\"");
        let events: Vec<&str> = json
            .split("},{")
            .filter(|event| event.contains(&named))
            .collect();
        let begins = events
            .iter()
            .filter(|event| event.contains("\"ph\":\"s\""))
            .count();
        let ends = events
            .iter()
            .filter(|event| event.contains("\"ph\":\"t\"") || event.contains("\"ph\":\"f\""));
        assert!(begins > 0 && begins == ends.count(), "{arrow}: {events:#?}");
    }
}
