//! Tasks: very many, and what one costs.

use bench::{meter, poll_route, print, route, spawn_route, tasks};
use picoprof_tests::http;
use tokio::runtime::Runtime;

use super::sample;

/// So many tasks that wait.
#[must_use]
pub(crate) fn start(n: usize) -> Runtime {
    tasks::spawn_all(n, start_one)
}

/// CPU time of the server's thread for so many tasks, with symbols: as a profile, and as text with each task's stack.
pub(crate) fn endpoint(n: usize) {
    let (_server, address) = sample::serve();
    let get = |target: &str| http::get(address, target).expect("a response").body;
    get("/debug/pprof/cmdline");
    let server = meter::thread_named("picoprof").expect("the server's thread");
    let _runtime = start(n);
    let cost = |target: &str| {
        let begin = meter::cpu_ms_of(server);
        let body = get(target);
        (meter::cpu_ms_of(server) - begin, body)
    };
    let profile = "/debug/pprof/goroutine";
    // The first one looks for names.
    print("cold_ms", cost(profile).0);
    let warm = (0..5).map(|_| cost(profile).0);
    print("profile_ms", warm.fold(f64::INFINITY, f64::min));
    let (ms, text) = cost("/debug/pprof/goroutine?debug=2");
    print("text_ms", ms);
    let text = String::from_utf8(text).expect("text");
    print("tasks", text.matches("\npicoprof.task[").count() as f64);
}

/// Resident memory of a task.
pub(crate) fn memory(n: usize) {
    let _server = sample::serve();
    tasks::measure_memory(n, start_one);
}

/// An event of one task.
pub(crate) fn poll(mode: &str, n: usize) {
    let (_server, address) = sample::serve();
    // Until the server has made what stacks are walked with.
    http::get(address, "/debug/pprof/cmdline").expect("a response");
    poll_route!(mode, n, |task| picoprof_std::task("polled", task), serve);
}

route! { |future| future }

fn start_one(number: usize) {
    spawn_route!(number, spawn, serve);
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(picoprof_std::task("task", task)));
}
