//! dhat, which records every allocation.

use bench::{alloc, unknown_mode};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn main() {
    bench::run(work);
}

fn work(mode: &str, n: usize) {
    let profiler = dhat::Profiler::builder().testing().build();
    let mode = if mode == "sampled" { "pair" } else { mode };
    if !alloc::run(mode, n) {
        unknown_mode();
    }
    core::mem::forget(profiler);
}
