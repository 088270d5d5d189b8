//! picoprof.

mod addresses;
mod contention;
mod endpoint;
mod memory;
mod sample;
mod tasks;
mod trace;

use core::hint::black_box;

use bench::{alloc, meter, unknown_mode};

#[global_allocator]
static ALLOCATOR: picoprof_std::Allocator = picoprof_std::Allocator::system();

pub(crate) fn main() {
    bench::run(work);
}

fn work(mode: &str, n: usize) {
    match mode {
        "sample" => sample::one_stack(n),
        "sample-check" => sample::check(),
        "stacks" => sample::many_stacks(n),
        "addresses" => addresses::measure(),
        "endpoint" => endpoint::measure(),
        "memory" => memory::measure(),
        "rate" => sample::rate(n),
        "sampled" => {
            picoprof_std::set_heap_rate(1);
            alloc::run("pair", n);
        }
        "sampled-check" => {
            picoprof_std::set_heap_rate(1);
            alloc::run("pair", 1000);
            endpoint::check_heap();
        }
        "tasks" => tasks::endpoint(n),
        "tasks-addresses" => addresses::measure_tasks(n),
        "task-memory" => tasks::memory(n),
        "poll" | "wake" | "clone" => tasks::poll(mode, n),
        "labels" => labels(n),
        "lock" | "lock-free" => contention::measure(mode, n),
        "lock-off" => contention::measure_off(n),
        "lock-check" => contention::check(n),
        "trace-poll" => trace::recorded(|| tasks::poll("poll", n)),
        "trace-labels" => trace::recorded(|| labels(n)),
        "trace-region" => trace::recorded(|| trace::regions(n)),
        "trace-off" => trace::regions(n),
        "trace-none" => trace::no_regions(n),
        "trace-check" => trace::check(n),
        "trace-ns" => trace::nanoseconds(n),
        "trace-size" => trace::size(0),
        "trace-size-threads" => trace::size(2),
        "trace-slower" => trace::slower(n, 0),
        "trace-slower-threads" => trace::slower(n, 2),
        _ if alloc::run(mode, n) => {}
        _ => unknown_mode(),
    }
}

fn labels(n: usize) {
    meter::measure_ns(n, || {
        picoprof_std::with_labels([("tenant", "a")], || black_box(()));
    });
}
