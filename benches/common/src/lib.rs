//! What all benchmark programs share: the work that is measured, and the meters.
//!
//! Each program measures one profiler in one configuration. It is told what to do by its arguments, a mode and a
//! number, and prints lines of a name and a value. `benches/run` runs them, alone or under valgrind, and makes the
//! tables.

pub mod alloc;
pub mod locks;
pub mod meter;
pub mod signal;
pub mod stacks;
#[cfg(feature = "tasks")]
pub mod tasks;

use std::{env, process, thread};

/// Does `work` with the mode and the number that the program was given, in a thread of its own: the second one of the
/// process, which is the one that `benches/run` counts. Profilers that ask where their stack ends are told by the thread
/// library; under valgrind nothing tells it of the first thread's.
pub fn run(work: fn(&str, usize)) {
    let mut arguments = env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let number = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let thread = thread::Builder::new()
        .name("work".into())
        .spawn(move || work(&mode, number));
    if thread.expect("a thread").join().is_err() {
        process::exit(1);
    }
}

/// Ends a program that does not know its mode: the status says so to `benches/run`.
pub fn unknown_mode() -> ! {
    eprintln!("not a mode of this program");
    process::exit(2)
}

/// One result.
pub fn print(name: &str, value: f64) {
    println!("{name} {value:.3}");
}
