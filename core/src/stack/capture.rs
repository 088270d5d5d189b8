//! Reading a call stack out of memory: bounded reads and the frame pointer walk.
//!
//! Everything here may run in a signal handler or an interrupt: no lock, no allocation, no
//! system call, and no read outside the [`StackBounds`] that the caller vouched for.
//!
//! A frame record is two words, the caller's frame pointer and the return address: at the
//! frame pointer on x86-64 (System V psABI 3.2.2), AArch64 (AAPCS64 6.2.3) and Thumb with r7
//! (AAPCS32 6.2.1.4, as LLVM lays it out), just below it on RISC-V (psABI, "Frame Pointer
//! Convention").

#![allow(unsafe_code)]

use core::mem::size_of;

use super::table::Marker;

/// How far below the frame pointer the frame record begins.
const RECORD_BELOW: usize = if cfg!(any(target_arch = "riscv32", target_arch = "riscv64")) {
    RECORD_SIZE
} else {
    0
};

const WORD: usize = size_of::<usize>();

/// A frame record: the caller's frame pointer, the return address.
const RECORD_SIZE: usize = 2 * WORD;

/// What a Cortex-M pushes when it takes an exception (Armv7-M manual B1.5.6): r0 to r3, r12, lr, pc, xPSR; floating
/// point registers above it.
const EXCEPTION_SIZE: usize = 8 * WORD;
/// Where in it the pc is.
const EXCEPTION_PC: usize = 6 * WORD;

/// The registers that a walk starts from.
///
/// `fp` is rbp on x86-64, x29 on AArch64, r7 on Thumb, s0 on RISC-V.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Registers {
    /// Program counter: the interrupted instruction, not a return address.
    pub pc: usize,
    /// Stack pointer.
    pub sp: usize,
    /// Frame pointer.
    pub fp: usize,
}

/// The part of memory that a walk may read: one stack, or as much of it as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StackBounds {
    low: usize,
    high: usize,
}

impl StackBounds {
    /// No memory at all: every read fails, every walk ends after its first frame.
    pub const EMPTY: Self = Self { low: 0, high: 0 };

    /// The bytes from `low` up to, not including, `high`.
    ///
    /// # Safety
    ///
    /// Every word-aligned word inside stays readable for as long as the value is used: mapped,
    /// and not a device register. Its content may change at any time, and may be anything.
    #[must_use]
    pub const unsafe fn new(low: usize, high: usize) -> Self {
        Self { low, high }
    }

    /// The same memory without what lies below `low`: a walk starts at the stack pointer, and what is
    /// below it is dead.
    #[must_use]
    #[inline]
    pub const fn above(self, low: usize) -> Self {
        Self {
            low: if low > self.low { low } else { self.low },
            high: self.high,
        }
    }

    /// The same memory without what lies at `high` and above: a walk that is to end there.
    #[must_use]
    #[inline]
    pub const fn below(self, high: usize) -> Self {
        Self {
            low: self.low,
            high: if high < self.high { high } else { self.high },
        }
    }

    /// Whether the byte at `address` is inside.
    #[must_use]
    #[inline]
    pub const fn contains(self, address: usize) -> bool {
        address >= self.low && address < self.high
    }

    /// The lowest address inside.
    #[must_use]
    #[inline]
    pub const fn low(self) -> usize {
        self.low
    }

    /// The first address above.
    #[must_use]
    #[inline]
    pub const fn high(self) -> usize {
        self.high
    }

    /// Reads the word at `address`; `None` if it is not aligned or not wholly inside.
    ///
    /// May run in a signal handler or an interrupt: two comparisons and a load.
    #[must_use]
    #[inline]
    pub fn read(self, address: usize) -> Option<usize> {
        let room = self.high.wrapping_sub(size_of::<usize>());
        if address < self.low
            || address > room
            || self.high < size_of::<usize>()
            || !address.is_multiple_of(size_of::<usize>())
        {
            return None;
        }
        // SAFETY: the word is aligned and inside the bounds (checked above), and the caller of `new`
        // vouched that every such word is readable. Volatile, as the owner may be writing it.
        Some(unsafe { core::ptr::with_exposed_provenance::<usize>(address).read_volatile() })
    }
}

/// The registers at the place of the call, for a walk that begins with the calling function. The walk must
/// be made before that function returns.
///
/// All zeros on machines whose registers are not known here.
///
/// May run in a signal handler or an interrupt.
#[must_use]
#[inline(always)]
pub fn registers_here() -> Registers {
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
    #[cfg(target_arch = "arm")]
    // SAFETY: copies three registers and touches neither memory nor flags.
    unsafe {
        core::arch::asm!(
            "mov {pc}, pc",
            "mov {sp}, sp",
            "mov {fp}, r7",
            pc = out(reg) pc,
            sp = out(reg) sp,
            fp = out(reg) fp,
            options(nomem, nostack, preserves_flags),
        );
    }
    #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
    // SAFETY: copies three registers and touches neither memory nor flags.
    unsafe {
        core::arch::asm!(
            "auipc {pc}, 0",
            "mv {sp}, sp",
            "mv {fp}, s0",
            pc = out(reg) pc,
            sp = out(reg) sp,
            fp = out(reg) fp,
            options(nomem, nostack, preserves_flags),
        );
    }
    #[cfg(not(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "arm",
        target_arch = "riscv32",
        target_arch = "riscv64"
    )))]
    {
        (pc, sp, fp) = (0, 0, 0);
    }
    Registers { pc, sp, fp }
}

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum End {
    /// At the thread's or program's outermost frame.
    Outermost,
    /// The buffer was full: the callers beyond are cut off.
    TooDeep,
    /// The next frame was not where it should be: a foreign or corrupt chain, or code that no
    /// unwind information covers.
    Broken,
}

impl End {
    /// The frame that stands for the callers beyond; `None` if there are none.
    #[must_use]
    #[inline]
    pub const fn marker(self) -> Option<Marker> {
        match self {
            Self::Outermost => None,
            Self::TooDeep => Some(Marker::TooDeep),
            Self::Broken => Some(Marker::Broken),
        }
    }
}

/// Walks the frame pointer chain from `registers`, leaf first, into `pcs`; returns how many were written
/// and why it ended.
///
/// The first entry is the pc itself, the others are call sites: return address - 1, with the Thumb bit
/// cleared first. Frames must lie at strictly rising addresses inside `bounds`, so that no chain, however
/// corrupt, makes it loop or read elsewhere.
///
/// On a Cortex-M it goes on from an exception handler to the code that it interrupted, where that runs on the main stack:
/// the entry after the handler's is the interrupted instruction itself. Behind a handler that interrupted code on the process
/// stack it ends as [`End::Broken`].
///
/// May run in a signal handler or an interrupt: about ten instructions a frame.
#[inline]
pub fn walk_frame_pointers(
    registers: Registers,
    bounds: StackBounds,
    pcs: &mut [usize],
) -> (usize, End) {
    walk_frame_pointers_to(registers, 0, bounds, pcs)
}

/// As [`walk_frame_pointers`], ending before the frame whose stack pointer is `base`, which counts as the outermost;
/// a `base` of 0 is none. For [`Tracer::stack`](crate::Tracer::stack).
///
/// May run in a signal handler or an interrupt.
#[inline]
pub fn walk_frame_pointers_to(
    registers: Registers,
    base: usize,
    bounds: StackBounds,
    pcs: &mut [usize],
) -> (usize, End) {
    walk::<{ cfg!(target_arch = "arm") }>(registers, base, bounds, pcs)
}

/// The walk; `CORTEX_M` says whether a return address may be an exception's.
#[inline]
fn walk<const CORTEX_M: bool>(
    registers: Registers,
    base: usize,
    bounds: StackBounds,
    pcs: &mut [usize],
) -> (usize, End) {
    let Some((first, rest)) = pcs.split_first_mut() else {
        return (0, End::TooDeep);
    };
    *first = registers.pc;
    let mut bounds = bounds.above(registers.sp);
    let mut fp = registers.fp;
    let mut len = 1;
    for pc in rest {
        if fp == 0 {
            return (len, End::Outermost);
        }
        let Some((caller_fp, return_address)) = read_frame_record(fp, bounds) else {
            // Above the record of a stack's first function there's no room for another: what it found in the frame
            // pointer at reset may be anything.
            let room = bounds.high().saturating_sub(bounds.low());
            let end = if len > 1 && room < RECORD_SIZE {
                End::Outermost
            } else {
                End::Broken
            };
            return (len, end);
        };
        // A frame's record is above its stack pointer: so the records of those called from `base` are below it, and its
        // own is not; nor is that of a caller, where it keeps none.
        let is_at_base = base != 0 && caller_fp.wrapping_sub(RECORD_BELOW) >= base;
        if return_address == 0 || is_at_base {
            return (len, End::Outermost);
        }
        let mut record_end = fp.wrapping_sub(RECORD_BELOW).wrapping_add(RECORD_SIZE);
        *pc = match Return::from_address::<CORTEX_M>(return_address) {
            Return::ToCaller => call_site(return_address),
            Return::FromReset => return (len, End::Outermost),
            Return::ToMainStack => {
                let interrupted_pc = record_end.wrapping_add(EXCEPTION_PC);
                let Some(interrupted_pc) = bounds.read(interrupted_pc) else {
                    return (len, End::Broken);
                };
                record_end = record_end.wrapping_add(EXCEPTION_SIZE);
                interrupted_pc
            }
            Return::ToProcessStack => return (len, End::Broken),
        };
        len += 1;
        bounds = bounds.above(record_end);
        fp = caller_fp;
    }
    let end = if fp == 0 {
        End::Outermost
    } else {
        End::TooDeep
    };
    (len, end)
}

/// Where a return address leads to. On a Cortex-M those from 0xffff_ff80 on are no code: a handler that returns to one makes
/// the processor take the registers back from an exception frame (Armv7-M manual B1.5.8, Armv8-M's EXC_RETURN).
enum Return {
    ToCaller,
    /// What the link register is at reset (Armv7-M manual B1.5.5).
    FromReset,
    /// To what was interrupted; its frame is right above what the handler pushed.
    ToMainStack,
    /// As before, but its frame is on another stack.
    ToProcessStack,
}

impl Return {
    #[inline]
    const fn from_address<const CORTEX_M: bool>(address: usize) -> Self {
        const FIRST: usize = 0xffff_ff80;
        const RESET: usize = 0xffff_ffff;
        const IS_ON_PROCESS_STACK: usize = 1 << 2;
        match address {
            _ if !CORTEX_M || address < FIRST => Self::ToCaller,
            RESET => Self::FromReset,
            _ if address & IS_ON_PROCESS_STACK != 0 => Self::ToProcessStack,
            _ => Self::ToMainStack,
        }
    }
}

/// The address of the call that returns to `return_address`: what profile.proto's `Location.address` wants
/// of a caller.
#[must_use]
#[inline]
pub const fn call_site(return_address: usize) -> usize {
    let thumb_bit = if cfg!(target_arch = "arm") { 1 } else { 0 };
    (return_address & !thumb_bit).wrapping_sub(1)
}

/// The caller's frame pointer and the return address in the frame record that `fp` points to.
///
/// May run in a signal handler or an interrupt.
#[must_use]
#[inline]
pub fn read_frame_record(fp: usize, bounds: StackBounds) -> Option<(usize, usize)> {
    let record = fp.wrapping_sub(RECORD_BELOW);
    let return_address = bounds.read(record.wrapping_add(size_of::<usize>()))?;
    Some((bounds.read(record)?, return_address))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;

    use super::*;

    fn bounds_of(words: &[usize]) -> StackBounds {
        let low = words.as_ptr().expose_provenance();
        // SAFETY: the words are borrowed for longer than each test uses the bounds.
        unsafe { StackBounds::new(low, low + size_of_val(words)) }
    }

    /// A chain of `n` records, two words each, with return addresses 101, 102, …
    fn chain(words: &mut [usize]) {
        let base = words.as_ptr().addr();
        let n = words.len() / 2;
        for i in 0..n {
            let next = base + 2 * (i + 1) * size_of::<usize>();
            words[2 * i] = if i + 1 == n { 0 } else { next };
            words[2 * i + 1] = 101 + i;
        }
    }

    fn start(words: &[usize]) -> Registers {
        let base = words.as_ptr().addr();
        Registers {
            pc: 7,
            sp: base,
            fp: base,
        }
    }

    #[test]
    fn a_chain_is_walked_to_its_end() {
        let mut words = [0; 8];
        chain(&mut words);
        let mut pcs = [0; 16];
        let (n, end) = walk_frame_pointers(start(&words), bounds_of(&words), &mut pcs);
        assert_eq!(
            (&pcs[..n], end),
            (&[7, 100, 101, 102, 103][..], End::Outermost)
        );
    }

    #[test]
    fn a_full_buffer_is_told_from_the_end() {
        let mut words = [0; 8];
        chain(&mut words);
        let mut pcs = [0; 3];
        let (n, end) = walk_frame_pointers(start(&words), bounds_of(&words), &mut pcs);
        assert_eq!((n, end), (3, End::TooDeep));
        let mut pcs = [0; 5];
        let (n, end) = walk_frame_pointers(start(&words), bounds_of(&words), &mut pcs);
        assert_eq!((n, end), (5, End::Outermost));
    }

    #[test]
    fn a_walk_ends_before_its_base() {
        let mut words = [0; 8];
        chain(&mut words);
        let mut pcs = [0; 16];
        let first = words.as_ptr().addr() + RECORD_BELOW;
        let mut walk = |base| {
            let (n, end) = walk_frame_pointers_to(start(&words), base, bounds_of(&words), &mut pcs);
            assert_eq!(end, End::Outermost);
            n
        };
        // The records are two words each. A base is the end of one, with or without something before the next.
        for word in [1, 2] {
            assert_eq!(walk(first + word * size_of::<usize>()), 1);
            assert_eq!(walk(first + (word + 2) * size_of::<usize>()), 2);
        }
        assert_eq!([walk(0), walk(usize::MAX)], [5, 5]);
    }

    #[test]
    fn a_corrupt_chain_ends_the_walk() {
        for bad in [1, 8, 9, usize::MAX, usize::MAX - 7, usize::MAX - 15] {
            let mut words = [0; 8];
            chain(&mut words);
            words[2] = bad;
            let mut pcs = [0; 16];
            let (n, end) = walk_frame_pointers(start(&words), bounds_of(&words), &mut pcs);
            assert_eq!(
                (&pcs[..n], end),
                (&[7, 100, 101][..], End::Broken),
                "{bad:#x}"
            );
        }
    }

    #[test]
    fn the_first_function_of_a_stack_may_have_found_anything_in_its_frame_pointer() {
        let mut words = [0; 8];
        chain(&mut words);
        words[6] = 0xdead_beef;
        let mut pcs = [0; 16];
        let (n, end) = walk_frame_pointers(start(&words), bounds_of(&words), &mut pcs);
        assert_eq!((n, end), (5, End::Outermost));
        let (n, end) = walk_frame_pointers(start(&words), StackBounds::EMPTY, &mut pcs);
        assert_eq!((n, end), (1, End::Broken));
    }

    /// A handler's record, and above it the frame of the exception that it handles.
    #[test]
    fn a_handler_is_seen_on_what_it_interrupted() {
        const EXC_RETURN_MAIN: usize = 0xffff_fff9;
        let mut words = [0; 16];
        let base = words.as_ptr().addr() + RECORD_BELOW;
        let size = size_of::<usize>();
        // The handler: two words pushed, then the exception's eight: pc is the seventh.
        (words[0], words[1], words[8]) = (base + 12 * size, EXC_RETURN_MAIN, 0x500);
        // The caller of what was interrupted, and the reset code.
        (words[12], words[13]) = (base + 14 * size, 0x601);
        (words[14], words[15]) = (7, 0xffff_ffff);
        let mut pcs = [0; 16];
        let mut walk = |words: &[usize]| {
            let (n, end) = super::walk::<true>(start(words), 0, bounds_of(words), &mut pcs);
            (pcs[1..n].to_vec(), end)
        };
        assert_eq!(walk(&words), (vec![0x500, 0x600], End::Outermost));
        // Code on the process stack is elsewhere.
        words[1] = 0xffff_fffd;
        assert_eq!(walk(&words), (vec![], End::Broken));
        // An exception's frame that is not all there.
        assert_eq!(walk(&words[..8]), (vec![], End::Broken));
        words[1] = EXC_RETURN_MAIN;
        assert_eq!(walk(&words[..8]), (vec![], End::Broken));
        // The next record can't be inside it.
        words[0] = base + 4 * size;
        assert_eq!(walk(&words), (vec![0x500], End::Broken));
    }

    #[test]
    fn a_chain_that_points_at_itself_or_downwards_ends() {
        for back_to in [0, 2] {
            let mut words = [0; 8];
            chain(&mut words);
            words[2] = words.as_ptr().addr() + back_to * size_of::<usize>();
            let mut pcs = [0; 16];
            let (n, end) = walk_frame_pointers(start(&words), bounds_of(&words), &mut pcs);
            assert_eq!((n, end), (3, End::Broken));
        }
    }

    #[test]
    fn reads_stay_inside() {
        let words = [11, 22, 33];
        let bounds = bounds_of(&words);
        assert_eq!(bounds.read(bounds.low()), Some(11));
        assert_eq!(bounds.read(bounds.high() - size_of::<usize>()), Some(33));
        assert_eq!(bounds.read(bounds.high()), None);
        assert_eq!(bounds.read(bounds.low() - size_of::<usize>()), None);
        assert_eq!(bounds.read(bounds.low() + 1), None);
        assert_eq!(StackBounds::EMPTY.read(0), None);
        assert_eq!(StackBounds::EMPTY.read(usize::MAX - 7), None);
    }
}
