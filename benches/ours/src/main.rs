//! picoprof.

mod addresses;
mod endpoint;
mod memory;
mod sample;

use bench::{alloc, unknown_mode};

#[global_allocator]
static ALLOCATOR: picoprof_std::Allocator = picoprof_std::Allocator::system();

fn main() {
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
        _ if alloc::run(mode, n) => {}
        _ => unknown_mode(),
    }
}
