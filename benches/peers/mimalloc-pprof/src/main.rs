//! mimalloc-pprof.

use bench::{alloc, unknown_mode};

#[global_allocator]
static ALLOCATOR: mimalloc_pprof::MiMalloc = mimalloc_pprof::MiMalloc;

fn main() {
    bench::run(work);
}

fn work(mode: &str, n: usize) {
    let (mode, rate) = match mode {
        "sampled" => ("pair", 1),
        mode => (mode, 512 * 1024),
    };
    assert!(mimalloc_pprof::prof::start(rate));
    if !alloc::run(mode, n) {
        unknown_mode();
    }
}
