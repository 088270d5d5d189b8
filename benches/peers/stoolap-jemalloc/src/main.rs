//! stoolap-jemalloc.

use bench::{alloc, unknown_mode};

#[global_allocator]
static ALLOCATOR: stoolap_jemalloc::Jemalloc = stoolap_jemalloc::Jemalloc::new();

fn main() {
    bench::run(work);
}

fn work(mode: &str, n: usize) {
    let mode = match mode {
        "sampled" => {
            stoolap_jemalloc::prof::set_sample_interval(1);
            "pair"
        }
        mode => mode,
    };
    stoolap_jemalloc::prof::activate();
    if !alloc::run(mode, n) {
        unknown_mode();
    }
}
