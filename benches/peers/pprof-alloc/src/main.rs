//! pprof-alloc, around the system's allocator.

use bench::{alloc, unknown_mode};

#[global_allocator]
static ALLOCATOR: pprof_alloc::PprofAlloc =
    pprof_alloc::PprofAlloc::new().with_pprof_sample_rate_from_env(512 * 1024);

fn main() {
    bench::run(work);
}

fn work(mode: &str, n: usize) {
    pprof_alloc::configure().expect("a rate");
    // The rate comes from PPROF_ALLOC_SAMPLE_RATE.
    let mode = if mode == "sampled" { "pair" } else { mode };
    if !alloc::run(mode, n) {
        unknown_mode();
    }
}
