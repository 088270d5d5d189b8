//! The processor's counter of time.

#![allow(unsafe_code)]

pub(super) use arch::{counter, frequency, is_trusted};

#[cfg(target_arch = "x86_64")]
mod arch {
    use core::arch::x86_64::{__cpuid, _rdtsc};
    use core::time::Duration;
    use std::fs::File;
    use std::io::Read;
    use std::thread;

    use crate::{clock, sys};

    /// For how long the counter is measured. Both clocks are read to within a tenth of a microsecond or so, so the error is some
    /// parts in 100,000.
    const MEASURED: Duration = Duration::from_millis(10);

    /// The time-stamp counter. Not serialized: what comes within some nanoseconds may come in either order.
    #[inline(always)]
    pub(in super::super) fn counter() -> u64 {
        // SAFETY: all x86-64 processors have it. Where a program gave it up (prctl(2), PR_SET_TSC), its C library's clocks
        // end it by the same signal.
        unsafe { _rdtsc() }
    }

    /// Whether it runs at one rate, on all processors alike.
    ///
    /// May run in a signal handler: it opens, reads and closes a file, which signal-safety(7) allows.
    pub(in super::super) fn is_trusted() -> bool {
        is_invariant() && sys::keeping_errno(does_kernel_trust_it)
    }

    /// "Invariant TSC" (AMD64 APM 3, E.4.7; Intel SDM 3, 19.17.1).
    #[allow(unused_unsafe, reason = "newer compilers know that it is safe")]
    fn is_invariant() -> bool {
        const EXTENSIONS: u32 = 0x8000_0000;
        const POWER: u32 = 0x8000_0007;
        const INVARIANT_TSC: u32 = 1 << 8;
        // SAFETY: all x86-64 processors have the instruction.
        let last = unsafe { __cpuid(EXTENSIONS) }.eax;
        if last < POWER {
            return false;
        }
        // SAFETY: as above.
        let power = unsafe { __cpuid(POWER) };
        power.edx & INVARIANT_TSC != 0
    }

    /// Whether the kernel goes by it too, or by what a hypervisor makes of it: if it found that the counters of two processors
    /// differ, or that one stood still, it goes by something slower. Where it doesn't say, the processor's word is enough.
    ///
    /// Allocates nothing: the path fits in the standard library's buffer on the stack.
    fn does_kernel_trust_it() -> bool {
        const FILE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        const TRUSTED: [&[u8]; 4] = [b"tsc", b"kvm-clock", b"hyperv_clocksource", b"xen"];
        sys::without_cancellation(|| {
            let mut name = [0; 32];
            let read = File::open(FILE).and_then(|mut file| file.read(&mut name));
            let name = read.ok().and_then(|len| name.get(..len));
            name.is_none_or(|name| TRUSTED.iter().any(|it| name.starts_with(it)))
        })
    }

    /// Its rate, as measured by the monotonic clock: ordinary context, as that takes 10 ms.
    ///
    /// Not what the processor says of itself: in a virtual machine it may say nothing, or what holds for another one. And not
    /// since the program began: the machine may have slept since.
    pub(in super::super) fn frequency() -> u64 {
        let (first_ticks, first) = both();
        thread::sleep(MEASURED);
        let (ticks, time) = both();
        let ticks = u128::from(ticks.wrapping_sub(first_ticks));
        let nanos = u128::from(time.saturating_sub(first)).max(1);
        u64::try_from(ticks * 1_000_000_000 / nanos).unwrap_or(0)
    }

    /// The counter and the monotonic clock at the same time: of some looks, the one that took least.
    fn both() -> (u64, u64) {
        let look = |_| {
            let before = counter();
            let time = clock::now().as_nanos();
            let took = counter().wrapping_sub(before);
            (took, before.wrapping_add(took / 2), time)
        };
        let best = (0..8).map(look).min_by_key(|&(took, ..)| took);
        best.map_or((0, 0), |(_, ticks, time)| (ticks, time))
    }
}

/// The system counter, which the architecture promises is the same for all processors and never changes its rate (Arm ARM,
/// D12.1), and which Linux lets programs read.
#[cfg(target_arch = "aarch64")]
mod arch {
    use core::arch::asm;

    #[inline(always)]
    pub(in super::super) fn counter() -> u64 {
        let ticks;
        // SAFETY: it reads a register that programs may read.
        unsafe {
            asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags));
        }
        ticks
    }

    pub(in super::super) fn is_trusted() -> bool {
        true
    }

    pub(in super::super) fn frequency() -> u64 {
        let hz;
        // SAFETY: it reads a register that programs may read.
        unsafe {
            asm!("mrs {}, cntfrq_el0", out(reg) hz, options(nomem, nostack, preserves_flags));
        }
        hz
    }
}
