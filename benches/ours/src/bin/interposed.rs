//! The same in a program that lets picoprof see what its threads wait for. Its threads have a frame more.

use std::thread;

#[path = "../main.rs"]
mod program;

picoprof_std::interpose!();

fn main() {
    // Who creates a thread first makes what stacks are walked with: not while the work begins.
    let first = thread::spawn(|| ());
    first.join().expect("it does not panic");
    program::main();
}
