//! What differs between x86-64 and AArch64.

#![forbid(unsafe_code)]

use gimli::{Register, Vendor};

/// Where the kernel keeps the interrupted registers, in bytes from the stack pointer at the instruction
/// that a signal handler returns to.
#[derive(Debug)]
pub(super) struct SignalFrame {
    pub(super) pc: usize,
    pub(super) sp: usize,
    pub(super) fp: usize,
    /// The link register, where there is one.
    pub(super) link: Option<usize>,
}

/// System V psABI, AMD64 supplement: register numbers of figure 3.36, red zone of 3.2.2.
#[cfg(target_arch = "x86_64")]
mod imp {
    use super::{Register, SignalFrame, Vendor};

    pub(in super::super) const SP: Register = gimli::X86_64::RSP;
    pub(in super::super) const FP: Register = gimli::X86_64::RBP;
    pub(in super::super) const VENDOR: Vendor = Vendor::Default;

    /// Below the stack pointer, but kept by signal delivery. GCC's epilogues rely on it: they leave the
    /// rule for a popped frame pointer as it was, and the word is now just below the stack pointer.
    pub(crate) const RED_ZONE: usize = 128;

    /// The canonical frame address is this far above the stack pointer at a function's first instruction.
    pub(in super::super) const ENTRY_OFFSET: i32 = 8;

    /// `struct rt_sigframe` of the kernel's arch/x86/include/asm/sigframe.h. The handler's return has
    /// popped `pretcode`, so the stack pointer is at `uc`; `uc_mcontext` is 40 bytes into that, and its
    /// `struct sigcontext_64` begins with r8 to r15, di, si, bp, bx, dx, ax, cx, sp, ip.
    pub(in super::super) const SIGNAL_FRAME: SignalFrame = SignalFrame {
        fp: 40 + 10 * 8,
        sp: 40 + 15 * 8,
        pc: 40 + 16 * 8,
        link: None,
    };

    /// The C library supplies the trampoline, with call frame information of its own.
    pub(in super::super) const VDSO_TRAMPOLINE: Option<[u8; 8]> = None;

    /// A code address as it is in memory.
    #[inline]
    pub(in super::super) const fn strip(address: usize) -> usize {
        address
    }
}

/// DWARF for the Arm 64-bit architecture (AADWARF64), 4.1: register numbers.
#[cfg(target_arch = "aarch64")]
mod imp {
    use super::{Register, SignalFrame, Vendor};

    pub(in super::super) const SP: Register = gimli::AArch64::SP;
    pub(in super::super) const FP: Register = gimli::AArch64::X29;
    pub(in super::super) const VENDOR: Vendor = Vendor::AArch64;

    /// None on Linux (AAPCS64 6.4.5.1 leaves it to the platform).
    pub(crate) const RED_ZONE: usize = 0;

    /// A call pushes nothing.
    pub(in super::super) const ENTRY_OFFSET: i32 = 0;

    /// `struct rt_sigframe` of the kernel's arch/arm64/kernel/signal.c: a `siginfo` of 128 bytes, then the
    /// `ucontext`. Its `uc_mcontext` is 176 bytes in (168, rounded up for its alignment to 16) and is
    /// `fault_address`, x0 to x30, sp, pc (uapi/asm/sigcontext.h).
    pub(in super::super) const SIGNAL_FRAME: SignalFrame = SignalFrame {
        fp: 128 + 176 + 8 + 29 * 8,
        sp: 128 + 176 + 8 + 31 * 8,
        pc: 128 + 176 + 8 + 32 * 8,
        link: Some(128 + 176 + 8 + 30 * 8),
    };

    /// `mov x8, #139; svc #0`: the kernel's own trampoline, in the vDSO. It has no call frame information on
    /// purpose (arch/arm64/kernel/vdso/sigreturn.S says why): unwinders know it by its code.
    pub(in super::super) const VDSO_TRAMPOLINE: Option<[u8; 8]> =
        Some([0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4]);

    /// A code address without the signature that pointer authentication puts above bit 47. Code is never
    /// mapped above that: addresses of 52 bits are given out on request only.
    #[inline]
    pub(in super::super) const fn strip(address: usize) -> usize {
        address & ((1 << 48) - 1)
    }
}

pub(crate) use imp::RED_ZONE;
pub(super) use imp::*;

/// Whether a call leaves the return address in a register.
pub(super) const LINK_REGISTER: bool = SIGNAL_FRAME.link.is_some();

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_signal_frame_is_laid_out_as_the_c_library_says() {
        let gregs = offset_of!(libc::ucontext_t, uc_mcontext) + offset_of!(libc::mcontext_t, gregs);
        let at = |register: libc::c_int| gregs + 8 * usize::try_from(register).unwrap();
        assert_eq!(SIGNAL_FRAME.pc, at(libc::REG_RIP));
        assert_eq!(SIGNAL_FRAME.sp, at(libc::REG_RSP));
        assert_eq!(SIGNAL_FRAME.fp, at(libc::REG_RBP));
        assert_eq!(SIGNAL_FRAME.link, None);
    }

    #[cfg(target_arch = "aarch64")]
    #[test]
    fn the_signal_frame_is_laid_out_as_the_c_library_says() {
        let context = 128 + offset_of!(libc::ucontext_t, uc_mcontext);
        let regs = context + offset_of!(libc::mcontext_t, regs);
        assert_eq!(size_of::<libc::siginfo_t>(), 128);
        assert_eq!(SIGNAL_FRAME.pc, context + offset_of!(libc::mcontext_t, pc));
        assert_eq!(SIGNAL_FRAME.sp, context + offset_of!(libc::mcontext_t, sp));
        assert_eq!(SIGNAL_FRAME.fp, regs + 29 * 8);
        assert_eq!(SIGNAL_FRAME.link, Some(regs + 30 * 8));
    }
}
