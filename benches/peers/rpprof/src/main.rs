//! rpprof: CPU samples and allocations.

include!("../../cpu.rs");

#[global_allocator]
static ALLOCATOR: pprof::alloc::AllocProfiler = pprof::alloc::AllocProfiler::system();

fn main() {
    bench::run(work);
}

fn work(mode: &str, n: usize) {
    match mode {
        "sampled" => {
            pprof::alloc::set_sample_rate(1);
            pprof::alloc::start();
            bench::alloc::run("pair", n);
        }
        "pair" | "mix" => {
            pprof::alloc::start();
            bench::alloc::run(mode, n);
        }
        _ => cpu(mode, n),
    }
}
