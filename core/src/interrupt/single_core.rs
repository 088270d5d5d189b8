//! The critical section of a machine with one core.

#![allow(unsafe_code)]

use core::arch::asm;

use critical_section::{Impl, RawRestoreState};

/// The critical section of one core: interrupts are masked, by PRIMASK on a Cortex-M and mstatus.MIE on RISC-V.
///
/// ```ignore
/// critical_section::set_impl!(picoprof::interrupt::SingleCore);
/// ```
///
/// Other crates' are as good, but register themselves, and then no other can be
/// [around](crate::profile::lock::CriticalSection) them. The program has to run privileged (in machine mode), on one core.
/// Of Arm's other processors, the assembler refuses this.
#[derive(Debug)]
pub struct SingleCore(());

/// Bit 3 of mstatus: whether interrupts are enabled.
#[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
const MIE: usize = 1 << 3;

// SAFETY: no interrupt is taken between the first `acquire` and its `release`, and on one core nothing else could come between.
// The compiler takes the assembly for what may access memory, so it moves no access across; one core sees its own in
// their order.
unsafe impl Impl for SingleCore {
    #[inline]
    unsafe fn acquire() -> RawRestoreState {
        #[cfg(target_arch = "arm")]
        {
            let primask: u32;
            // SAFETY: reads a register, and masks interrupts, which is what the caller asks for.
            unsafe {
                asm!(
                    "mrs {primask}, PRIMASK",
                    "cpsid i",
                    primask = out(reg) primask,
                    options(nostack, preserves_flags),
                );
            }
            primask & 1 == 0
        }
        #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
        {
            let mstatus: usize;
            // SAFETY: masks interrupts, which is what the caller asks for, and reads the register as it was before.
            unsafe {
                asm!(
                    "csrrci {mstatus}, mstatus, {MIE}",
                    mstatus = out(reg) mstatus,
                    MIE = const MIE,
                    options(nostack, preserves_flags),
                );
            }
            mstatus & MIE != 0
        }
    }

    #[inline]
    unsafe fn release(were_enabled: RawRestoreState) {
        if !were_enabled {
            return;
        }
        #[cfg(target_arch = "arm")]
        // SAFETY: they were enabled when the caller acquired this.
        unsafe {
            asm!("cpsie i", options(nostack, preserves_flags));
        }
        #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
        // SAFETY: they were enabled when the caller acquired this.
        unsafe {
            asm!(
                "csrsi mstatus, {MIE}",
                MIE = const MIE,
                options(nostack, preserves_flags),
            );
        }
    }
}
