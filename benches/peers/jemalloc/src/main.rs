//! jemalloc with its own profiling: `_RJEM_MALLOC_CONF` switches it on, as it must be at the start.

use bench::{alloc, unknown_mode};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    bench::run(work);
}

fn work(mode: &str, n: usize) {
    let is_profiling: bool = tikv_jemalloc_ctl::profiling::prof::read().unwrap_or(false);
    assert!(is_profiling, "run with _RJEM_MALLOC_CONF=prof:true");
    // The rate comes from there too.
    let mode = if mode == "sampled" { "pair" } else { mode };
    if !alloc::run(mode, n) {
        unknown_mode();
    }
}
