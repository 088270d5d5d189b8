//! Waiting for an interrupt in a place of its own, so that a sample can tell it from work.

#![allow(unsafe_code)]

#[cfg(any(target_arch = "arm", target_arch = "riscv32", target_arch = "riscv64"))]
use core::arch::naked_asm;

/// Waits for an interrupt (WFI), which a [`Sampler`](crate::profile::cpu::Sampler) then counts as
/// [idle](crate::stack::StackId::IDLE). It may return without one, too.
///
/// Where interrupts are masked, it returns when one is pending. On machines that are not known here, it is a pause.
#[inline]
pub fn wait_for_interrupt() {
    wait();
}

/// As [`wait_for_interrupt`], to be called with interrupts masked: unmasks them when it has waited, so that the one that it waited
/// for is handled before it returns.
///
/// That is how a loop goes to sleep if there is nothing to do, and can't miss what comes between the look and the sleep:
/// mask, look, and wait or unmask. Mask by hand (PRIMASK, mstatus.MIE): sleep isn't what a
/// `critical_section` is for.
///
/// # Safety
///
/// Nobody further up the stack relies on interrupts being masked: no critical section is open.
#[inline]
pub unsafe fn wait_for_interrupt_masked() {
    // SAFETY: as the caller says.
    unsafe { wait_masked() };
}

/// Whether code at `pc` waits in [`wait_for_interrupt`] or [`wait_for_interrupt_masked`]; `pc` is that of a sample.
///
/// May run in an interrupt: two comparisons.
#[must_use]
#[inline]
pub fn is_waiting(pc: usize) -> bool {
    // A Thumb function's address has its lowest bit set.
    let offset_in = |function: usize| pc.wrapping_sub(function & !1);
    offset_in(wait as *const () as usize) < WAIT_END
        || offset_in(wait_masked as *const () as usize) < WAIT_MASKED_END
}

/// Beyond the beginning of the last instruction, in bytes from the beginning.
#[cfg(target_arch = "arm")]
const WAIT_END: usize = 4 + 2 + 1;
#[cfg(target_arch = "arm")]
const WAIT_MASKED_END: usize = 4 + 2 + 2 + 4 + 1;

#[cfg(target_arch = "arm")]
#[unsafe(naked)]
extern "C" fn wait() {
    // SAFETY of the unsafe attribute: returns to its caller, and changes no register. The barrier lets writes to devices be
    // done before the sleep (Armv7-M manual, "WFI").
    naked_asm!("dsb", "wfi", "bx lr")
}

/// # Safety
///
/// As for [`wait_for_interrupt_masked`].
#[cfg(target_arch = "arm")]
#[unsafe(naked)]
unsafe extern "C" fn wait_masked() {
    // As above. After the second barrier what was pending is handled.
    naked_asm!("dsb", "wfi", "cpsie i", "isb", "bx lr")
}

/// Beyond the beginning of the last instruction, in bytes from the beginning.
#[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
const WAIT_END: usize = 4 + 1;
#[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
const WAIT_MASKED_END: usize = 4 + 4 + 1;

#[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
#[unsafe(naked)]
extern "C" fn wait() {
    // SAFETY of the unsafe attribute: returns to its caller, and changes no register.
    naked_asm!("wfi", "ret")
}

/// # Safety
///
/// As for [`wait_for_interrupt_masked`].
#[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
#[unsafe(naked)]
unsafe extern "C" fn wait_masked() {
    // As above; bit 3 is MIE.
    naked_asm!("wfi", "csrsi mstatus, 8", "ret")
}

/// Such a pause is not one that a sample is taken in.
#[cfg(not(any(target_arch = "arm", target_arch = "riscv32", target_arch = "riscv64")))]
const WAIT_END: usize = 1;
#[cfg(not(any(target_arch = "arm", target_arch = "riscv32", target_arch = "riscv64")))]
const WAIT_MASKED_END: usize = 1;

#[cfg(not(any(target_arch = "arm", target_arch = "riscv32", target_arch = "riscv64")))]
extern "C" fn wait() {
    core::hint::spin_loop();
}

#[cfg(not(any(target_arch = "arm", target_arch = "riscv32", target_arch = "riscv64")))]
unsafe extern "C" fn wait_masked() {
    core::hint::spin_loop();
}

/// A pc of a sample that was taken while it waited.
#[cfg(all(test, not(loom)))]
pub(crate) fn a_waiting_pc() -> usize {
    wait as *const () as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_code_does_not_wait() {
        wait_for_interrupt();
        assert!(!is_waiting(0));
        assert!(!is_waiting(other_code_does_not_wait as *const () as usize));
    }
}
