//! The clock that all harts share, and each hart's timer: `mtime` and `mtimecmp`.

#![forbid(unsafe_code)]

use riscv::register::time;

use crate::interrupts::hart;
use crate::registers::Register32;

/// Of QEMU's (hw/intc/riscv_aclint.h, `RISCV_ACLINT_DEFAULT_TIMEBASE_FREQ`).
pub const HZ: u64 = 10_000_000;

const NANOS_PER_TICK: u64 = 1_000_000_000 / HZ;

const CLINT: usize = 0x200_0000;

/// Ticks of [`HZ`] since the machine was started.
#[must_use]
#[inline]
pub fn ticks() -> u64 {
    time::read64()
}

/// Nanoseconds since the machine was started.
#[must_use]
pub fn nanos() -> u64 {
    ticks() * NANOS_PER_TICK
}

/// Interrupts this hart at that time, in ticks; at once, if it is past. Ends the last such interrupt.
pub fn interrupt_at(ticks: u64) {
    let compare = CLINT + 0x4000 + 8 * hart();
    let (low, high) = (Register32::at(compare), Register32::at(compare + 4));
    // Never a time between the old and the new one (privileged ISA, 3.2.1).
    low.write(u32::MAX);
    high.write((ticks >> 32) as u32);
    low.write(ticks as u32);
}
