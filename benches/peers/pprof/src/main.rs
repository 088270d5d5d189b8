//! pprof-rs, with the unwinder that its features choose.

include!("../../cpu.rs");

fn main() {
    bench::run(work);
}

fn work(mode: &str, n: usize) {
    cpu(mode, n);
}
