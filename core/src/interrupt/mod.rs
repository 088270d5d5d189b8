//! What firmware needs at its interrupts: how a timer's handler comes to the registers of what it interrupted, and a way
//! to wait for interrupts that a sampler recognises.
//!
//! * [`cortex_m_tick!`](crate::cortex_m_tick): an exception handler of a Cortex-M that is told what it interrupted.
//! * [`riscv_trap!`](crate::riscv_trap): the same for RISC-V, where all interrupts come in by one entry.
//! * `SingleCore` (feature `single-core`, on Cortex-M and RISC-V): the `critical_section` of a machine with one core, which can be
//!   [wrapped](crate::profile).
//!
//! The timer that samples must have a higher priority than what it is to see: a handler of the same priority ends before
//! the timer's begins, and its time is then counted for the code that it interrupted.

#![allow(unsafe_code)]

mod cortex_m;
mod riscv;
#[cfg(all(
    feature = "single-core",
    target_os = "none",
    any(target_arch = "arm", target_arch = "riscv32", target_arch = "riscv64")
))]
mod single_core;
mod wait;

#[doc(hidden)]
pub use riscv::RISCV_TRAP_FRAME;
#[cfg(all(
    feature = "single-core",
    target_os = "none",
    any(target_arch = "arm", target_arch = "riscv32", target_arch = "riscv64")
))]
pub use single_core::SingleCore;
pub use wait::{is_waiting, wait_for_interrupt, wait_for_interrupt_masked};

#[cfg(all(test, not(loom)))]
pub(crate) use wait::a_waiting_pc;
