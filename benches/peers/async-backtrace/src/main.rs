//! async-backtrace: each async function that it is to know is annotated. It has a text only.

use core::hint::black_box;

use async_backtrace::{framed, taskdump_tree};
use bench::{meter, poll_route, print, route, spawn_route, tasks, unknown_mode};

fn main() {
    bench::run(work);
}

fn work(mode: &str, n: usize) {
    match mode {
        "tasks" => {
            let _runtime = tasks::spawn_all(n, start);
            let text = taskdump_tree(true);
            let tasks = text.lines().filter(|line| line.starts_with('╼')).count();
            print("tasks", tasks as f64);
            print("frames", text.lines().count() as f64 / tasks as f64);
            print(
                "text_ms",
                meter::best_ms(3, || drop(black_box(taskdump_tree(true)))),
            );
        }
        "task-memory" => tasks::measure_memory(n, start),
        "poll" | "wake" | "clone" => poll_route!(mode, n, |task| task, serve),
        _ => unknown_mode(),
    }
}

route! { #[framed] |future| future }

fn start(number: usize) {
    spawn_route!(number, spawn, serve);
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}
