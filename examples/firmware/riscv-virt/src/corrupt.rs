//! Breaks its own stack, to see that a sampler bears that: the frame pointer that a function has saved is garbage for a
//! while. Nobody needs it until the function returns, and by then it is right again.

#![allow(unsafe_code)]

use core::hint::black_box;
use core::ptr::with_exposed_provenance_mut;

use picoprof::stack::capture::registers_here;
use riscv_machine::timer;

/// How long for each kind of garbage.
const NANOS: u64 = 60_000_000;

/// Goes through all kinds of garbage.
#[inline(never)]
pub(crate) fn run() {
    // Odd; a device's register; the record itself; a record further down; outside of everything.
    let kinds: [fn(usize) -> usize; 5] = [
        |fp| fp | 1,
        |_| 0x1000_0000,
        |fp| fp,
        |fp| fp - 64,
        |_| usize::MAX - 15,
    ];
    for garbage in kinds {
        run_with_garbage(garbage);
    }
}

/// Runs with a saved frame pointer that is made of the own one.
#[inline(never)]
fn run_with_garbage(garbage: fn(usize) -> usize) {
    let fp = registers_here().fp;
    let saved = with_exposed_provenance_mut::<usize>(fp - 2 * size_of::<usize>());
    // SAFETY: the program is compiled with frame pointers, so there s0 is as it was in the caller (psABI, "Frame Pointer
    // Convention").
    let caller = unsafe { saved.read_volatile() };
    // SAFETY: nobody reads it but samplers, which must bear it, and the end of this function.
    unsafe { saved.write_volatile(garbage(fp)) };
    spin_with_broken_stack();
    // SAFETY: this is what was there.
    unsafe { saved.write_volatile(caller) };
}

/// Time for samples.
#[inline(never)]
fn spin_with_broken_stack() {
    let end = timer::nanos() + NANOS;
    while timer::nanos() < end {
        black_box(());
    }
}
