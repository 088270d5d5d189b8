//! A lock that tells who waits for it, and for whom.

#![allow(unsafe_code)]

use lock_api::{RawMutex as RawLock, RawMutexFair, RawMutexTimed};

use super::waiters::{Note, Waiters};
use crate::profile::task::{Tracer, tracer};
use crate::stack::capture::{Registers, registers_here};

/// The lock `R`, whose waits are in `block`, by who waited, and in `mutex`, by who unlocked.
///
/// ```
/// use picoprof::profile::lock::RawMutex;
///
/// static READINGS: lock_api::Mutex<RawMutex<spin::Mutex<()>>, [u32; 8]> =
///     lock_api::Mutex::new([0; 8]);
///
/// READINGS.lock()[0] += 1;
/// ```
///
/// A lock that is free costs what it costs without this: a try, and two instructions when it is unlocked; no clock is read.
/// Who finds it taken takes its own stack, waits as `R` does, and then records how long
/// ([`Tracer::record_block`], [`Tracer::record_mutex`]), as it has the lock. Who unlocks it while others wait first leaves its stack in the
/// lock: the whole of a wait is charged to the one whose unlock ended it, as with tasks. A wait that began only as that one was
/// at it is charged to nobody.
///
/// Without a [tracer](crate::set_tracer) it is `R`. A tracer must not use such locks itself. It takes 12 bytes beside `R`, 16 on
/// a 64-bit machine.
#[derive(Debug)]
pub struct RawMutex<R> {
    inner: R,
    waiters: Waiters,
}

impl<R: RawLock> RawMutex<R> {
    /// Waits for the lock, which `lock` does; answers what that answers: whether it got it.
    ///
    /// It has a frame of its own, as its caller is the one whose stack counts.
    #[cold]
    #[inline(never)]
    fn wait(&self, lock: impl FnOnce(&R) -> bool) -> bool {
        let Some(tracer) = tracer() else {
            return lock(&self.inner);
        };
        let began = tracer.now();
        self.waiters.wait();
        // While others hold it: then nobody waits for that.
        let waiter = note(tracer, registers_here());
        let has_lock = lock(&self.inner);
        let unlocker = if has_lock {
            self.waiters.got()
        } else {
            self.waiters.gave_up();
            None
        };
        let waited = tracer.now().since(began);
        tracer.record_block(waiter.stack, waiter.labels, waited);
        if let Some(unlocker) = unlocker {
            tracer.record_mutex(unlocker.stack, unlocker.labels, waited);
        }
        has_lock
    }

    #[inline]
    fn before_unlock(&self) {
        if !self.waiters.is_quiet() {
            self.leave_note();
        }
    }

    /// It has a frame of its own, as its caller is the one whose stack counts.
    #[cold]
    #[inline(never)]
    fn leave_note(&self) {
        let registers = registers_here();
        self.waiters
            .unlocks(|| tracer().map(|tracer| note(tracer, registers)));
    }
}

/// Who called the function that `registers` are of.
fn note(tracer: &dyn Tracer, registers: Registers) -> Note {
    let current = tracer.current();
    Note {
        stack: tracer.stack(registers, current.base()),
        labels: current.labels(),
    }
}

// SAFETY: it is locked when and only when `R` is, of which each function calls that of the same name, or `try_lock`. Nothing
// else that it does depends on exclusion.
unsafe impl<R: RawLock> RawLock for RawMutex<R> {
    const INIT: Self = Self {
        inner: R::INIT,
        waiters: Waiters::new(),
    };

    type GuardMarker = R::GuardMarker;

    #[inline]
    fn lock(&self) {
        if !self.inner.try_lock() {
            self.wait(|inner| {
                inner.lock();
                true
            });
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.inner.try_lock()
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.before_unlock();
        // SAFETY: the caller has it locked.
        unsafe { self.inner.unlock() };
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.inner.is_locked()
    }
}

// SAFETY: as above.
unsafe impl<R: RawMutexFair> RawMutexFair for RawMutex<R> {
    #[inline]
    unsafe fn unlock_fair(&self) {
        self.before_unlock();
        // SAFETY: the caller has it locked.
        unsafe { self.inner.unlock_fair() };
    }

    #[inline]
    unsafe fn bump(&self) {
        if self.waiters.is_quiet() {
            // SAFETY: the caller has it locked.
            unsafe { self.inner.bump() };
        } else {
            // SAFETY: the caller has it locked.
            unsafe { self.unlock_fair() };
            self.lock();
        }
    }
}

// SAFETY: as above.
unsafe impl<R: RawMutexTimed> RawMutexTimed for RawMutex<R> {
    type Duration = R::Duration;
    type Instant = R::Instant;

    #[inline]
    fn try_lock_for(&self, timeout: R::Duration) -> bool {
        self.inner.try_lock() || self.wait(|inner| inner.try_lock_for(timeout))
    }

    #[inline]
    fn try_lock_until(&self, timeout: R::Instant) -> bool {
        self.inner.try_lock() || self.wait(|inner| inner.try_lock_until(timeout))
    }
}
