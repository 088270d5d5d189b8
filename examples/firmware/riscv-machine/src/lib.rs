//! QEMU's RISC-V `virt` machine, as far as these programs need it: start-up, clock, interrupts, console, and how it
//! ends. No other firmware runs below; all is in machine mode.
//!
//! A program is linked with `virt.ld` (its build script says so), has a [`trap entry`](interrupts::set_trap_entry), and
//! begins where [`entry!`] says.

#![no_std]
#![deny(unsafe_code)]

pub mod clock;
pub mod console;
mod hart_local;
pub mod harts;
pub mod interrupts;
pub mod memory;
mod registers;
pub mod start;
mod test_device;
pub mod timer;

pub use hart_local::HartLocal;
pub use test_device::exit;

/// How many harts there may be; more are left to sleep.
pub const HARTS: usize = 2;
