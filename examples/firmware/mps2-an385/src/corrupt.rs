//! A stack that is broken for a while: what a walk must survive.

#![allow(unsafe_code)]

use core::arch::asm;
use core::hint::black_box;

use crate::clock;

/// How long each kind of garbage stays, in microseconds.
const MICROS: u64 = 80_000;

/// Runs with the saved frame pointer being odd, nowhere, in a device, its own address, and below itself.
pub fn run() {
    for garbage in [1, 0xffff_fffc, 0x4000_4000, 0, usize::MAX] {
        spin_with_broken_frame(garbage);
    }
}

/// Works, while where its frame says that its caller's frame is, there's `garbage`; 0 stands for this frame, and the
/// highest number for what is below it.
#[inline(never)]
fn spin_with_broken_frame(garbage: usize) {
    let frame: *mut usize;
    // SAFETY: copies a register. With frame pointers, and this is built with them, r7 points at this function's frame record.
    unsafe { asm!("mov {}, r7", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    let garbage = match garbage {
        0 => frame.addr(),
        usize::MAX => frame.addr() - 64,
        _ => garbage,
    };
    // SAFETY: the record is on this stack, and nobody but walks reads it before the function returns. What calls it leaves
    // it alone.
    let saved = unsafe { frame.replace(garbage) };
    let until = clock::micros() + MICROS;
    let mut value = 1_u32;
    while clock::micros() < until {
        for _ in 0..1_000 {
            value = black_box(value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        }
    }
    // SAFETY: as above.
    unsafe { frame.write_volatile(saved) };
}
