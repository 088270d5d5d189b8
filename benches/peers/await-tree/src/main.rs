//! await-tree: each future that it is to know has a name, and tells of each poll.

use core::hint::black_box;
use std::sync::LazyLock;

use await_tree::{Config, InstrumentAwait as _, Registry};
use bench::{meter, poll_route, print, route, spawn_route, tasks, unknown_mode};

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::new(Config::default()));

fn main() {
    bench::run(work);
}

fn work(mode: &str, n: usize) {
    match mode {
        "tasks" => {
            let _runtime = tasks::spawn_all(n, start);
            let collect = || REGISTRY.collect_anonymous();
            print(
                "profile_ms",
                meter::best_ms(3, || drop(black_box(collect()))),
            );
            let trees = collect();
            print("tasks", trees.len() as f64);
            print("frames", trees[0].to_string().lines().count() as f64);
            let text = || {
                trees
                    .iter()
                    .for_each(|tree| drop(black_box(tree.to_string())));
            };
            print("text_ms", meter::best_ms(1, text));
        }
        "task-memory" => tasks::measure_memory(n, start),
        "poll" | "wake" | "clone" => poll_route!(mode, n, traced, serve),
        _ => unknown_mode(),
    }
}

route! { |future| future.instrument_await("await") }

fn traced(task: impl Future<Output = ()>) -> impl Future<Output = ()> {
    REGISTRY.register_anonymous("task").instrument(task)
}

fn start(number: usize) {
    spawn_route!(number, spawn, serve);
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(traced(task)));
}
