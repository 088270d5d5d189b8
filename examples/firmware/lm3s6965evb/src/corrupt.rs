//! A stack that is broken on purpose: a function whose saved frame pointer is garbage while it calls another.

#![allow(unsafe_code)]

use core::arch::naked_asm;

/// What the frame pointer is overwritten with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Garbage {
    /// This.
    Absolute(usize),
    /// The address of the frame record that it is in, and this.
    FromRecord(isize),
}

/// Each kind that a walk has to bear.
pub(crate) const KINDS: [Garbage; 6] = [
    // Not aligned.
    Garbage::FromRecord(17),
    // Out of bounds: no memory at all, memory but no stack, and at the end of all addresses.
    Garbage::Absolute(0x1000_0000),
    Garbage::Absolute(0x2000_f000),
    Garbage::Absolute(0xffff_fffc),
    // At itself.
    Garbage::FromRecord(0),
    // Down.
    Garbage::FromRecord(-16),
];

/// Calls `work` with a frame pointer on the stack that is no such thing.
#[inline(never)]
pub(crate) fn with_corrupt_frame_pointer(garbage: Garbage, work: extern "C" fn()) {
    let (base, offset) = match garbage {
        Garbage::Absolute(value) => (0, value as isize),
        Garbage::FromRecord(offset) => (usize::MAX, offset),
    };
    corrupt_frame_pointer(work, offset, base);
}

/// Calls `work` from a frame with `offset` for its saved frame pointer, above its own address if `mask` is all ones.
#[unsafe(naked)]
extern "C" fn corrupt_frame_pointer(work: extern "C" fn(), offset: isize, mask: usize) {
    // SAFETY of the unsafe attribute: writes to its own frame only, and has the right value back there before it
    // returns; r4, r7 and the stack pointer are as they were.
    naked_asm!(
        "push {{r4, r5, r7, lr}}",
        "add r7, sp, #8",
        "ands r2, r7",
        "adds r1, r1, r2",
        "ldr r4, [r7]",
        "str r1, [r7]",
        "blx r0",
        "str r4, [r7]",
        "pop {{r4, r5, r7, pc}}",
    )
}
