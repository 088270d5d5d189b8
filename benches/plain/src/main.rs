//! The baseline: a signal handler that does nothing, the system's allocator, and tasks and locks that nobody watches.

use bench::{alloc, locks, poll_route, route, signal, spawn_route, stacks, tasks, unknown_mode};

fn main() {
    bench::run(work);
}

fn work(mode: &str, n: usize) {
    match mode {
        "sample" => {
            signal::handle_with_nothing();
            signal::below(signal::DEPTH, &mut || (0..n).for_each(|_| signal::raise()));
        }
        "stacks" => {
            signal::handle_with_nothing();
            (0..n).for_each(|_| stacks::each(&mut signal::raise));
        }
        "task-memory" => tasks::measure_memory(n, start),
        "poll" | "wake" | "clone" => poll_route!(mode, n, |task| task, serve),
        "lock" | "lock-free" => locks::run(mode, n),
        _ if alloc::run(mode, n) => {}
        _ => unknown_mode(),
    }
}

route! { |future| future }

fn start(number: usize) {
    spawn_route!(number, spawn, serve);
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}
