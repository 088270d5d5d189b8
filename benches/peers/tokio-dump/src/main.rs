//! Tokio's task dump: it polls each task again, and takes the stack at each leaf.

use core::hint::black_box;

use bench::{meter, poll_route, print, route, spawn_route, tasks, unknown_mode};
use tokio::runtime::Handle;

fn main() {
    bench::run(work);
}

fn work(mode: &str, n: usize) {
    match mode {
        "tasks" => {
            let runtime = tasks::spawn_all(n, start);
            let dump = || runtime.block_on(async { Handle::current().dump().await });
            print("profile_ms", meter::best_ms(3, || drop(black_box(dump()))));
            let dump = dump();
            let traces = || dump.tasks().iter().map(|task| task.trace().to_string());
            // Of what was looked up once.
            let frames = traces().next().map_or(0, |trace| trace.lines().count());
            print("frames", frames as f64);
            let text = || traces().for_each(|trace| drop(black_box(trace)));
            print("text_ms", meter::best_ms(1, text));
            print("tasks", dump.tasks().iter().count() as f64);
        }
        "task-memory" => tasks::measure_memory(n, start),
        "poll" | "wake" | "clone" => poll_route!(mode, n, |task| task, serve),
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
