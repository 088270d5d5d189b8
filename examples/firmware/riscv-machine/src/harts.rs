//! Critical sections of a machine with several harts: interrupts masked, and a lock.

#![allow(unsafe_code)]

use core::sync::atomic::{AtomicUsize, Ordering};

use critical_section::{Impl, RawRestoreState};

use crate::interrupts::{hart, mask, unmask};

/// A critical section that one hart is in at a time. For `critical_section::set_impl!`, or what wraps it.
#[derive(Debug)]
pub struct AllHarts;

/// The hart that is in one, and 1; 0 if none is.
static OWNER: AtomicUsize = AtomicUsize::new(0);
/// How many it is in. Only the owner touches it.
static DEPTH: AtomicUsize = AtomicUsize::new(0);

// SAFETY: between acquire and the release that belongs to it, `OWNER` is this hart: another one's exchange fails, and this
// hart's interrupts are masked, so nothing else runs on it. Acquire and release order what is done in it.
unsafe impl Impl for AllHarts {
    unsafe fn acquire() -> RawRestoreState {
        let was_unmasked = mask();
        let me = hart() + 1;
        if OWNER.load(Ordering::Relaxed) != me {
            while OWNER
                .compare_exchange_weak(0, me, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
            {
                core::hint::spin_loop();
            }
        }
        DEPTH.store(DEPTH.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        was_unmasked
    }

    unsafe fn release(was_unmasked: RawRestoreState) {
        let depth = DEPTH.load(Ordering::Relaxed) - 1;
        DEPTH.store(depth, Ordering::Relaxed);
        if depth == 0 {
            OWNER.store(0, Ordering::Release);
        }
        if was_unmasked {
            // SAFETY: they were let in when the outermost section began, which ends here.
            unsafe { unmask() }
        }
    }
}
