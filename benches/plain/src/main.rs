//! The baseline: a signal handler that does nothing, and the system's allocator.

use bench::{alloc, signal, stacks, unknown_mode};

fn main() {
    bench::run(work);
}

fn work(mode: &str, n: usize) {
    match mode {
        "sample" => {
            signal::handle_with_nothing();
            signal::below(signal::DEPTH, &mut || (0..n).for_each(|_| signal::raise()));
        }
        "stacks" => {
            signal::handle_with_nothing();
            (0..n).for_each(|_| stacks::each(&mut signal::raise));
        }
        _ if alloc::run(mode, n) => {}
        _ => unknown_mode(),
    }
}
