//! The registers of running code.

#![allow(unsafe_code)]

use picoprof::stack::capture::Registers;

/// The registers at the place of the call, for a walk that begins with the calling function. The walk must
/// be made before that function returns.
///
/// May run in a signal handler.
#[inline(always)]
pub(crate) fn registers_here() -> Registers {
    let (pc, sp, fp): (usize, usize, usize);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: copies three registers and touches neither memory nor flags.
    unsafe {
        core::arch::asm!(
            "lea {pc}, [rip]",
            "mov {sp}, rsp",
            "mov {fp}, rbp",
            pc = out(reg) pc,
            sp = out(reg) sp,
            fp = out(reg) fp,
            options(nomem, nostack, preserves_flags),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: copies three registers and touches neither memory nor flags.
    unsafe {
        core::arch::asm!(
            "adr {pc}, .",
            "mov {sp}, sp",
            "mov {fp}, x29",
            pc = out(reg) pc,
            sp = out(reg) sp,
            fp = out(reg) fp,
            options(nomem, nostack, preserves_flags),
        );
    }
    Registers { pc, sp, fp }
}
