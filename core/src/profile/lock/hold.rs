//! How long the critical section is held, and what of it is being recorded.

#![forbid(unsafe_code)]

// Not portable-atomic's: where there's no compare-and-swap, those may use the critical section for loads, too.
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use core::time::Duration;

use crate::profile::task::Tracer;

/// What is known of the one critical section of a program.
///
/// It is used within that section alone, which orders all access to it: so loads and stores do, which cost no more than
/// those of plain memory. Times are in nanoseconds: a [`Duration`] is made with a division, which takes a small machine longer
/// than all else here, and interrupts are masked.
#[derive(Debug)]
pub(super) struct Hold {
    /// Twice how deep the sections are nested, and one more if the time is known that the outermost began at.
    depth: AtomicUsize,
    began: Nanos,
    /// In nanoseconds.
    threshold: AtomicU32,
    /// Not zero while a hold is being recorded: others can't be then.
    is_recording: AtomicU32,
    /// What ended meanwhile.
    missed: AtomicU32,
    missed_nanos: Nanos,
}

/// Holds that could not be recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missed {
    pub(super) count: u32,
    /// Of all together, in nanoseconds.
    pub(super) held: u64,
}

impl Hold {
    pub(super) const fn new(threshold: Duration) -> Self {
        Self {
            depth: AtomicUsize::new(0),
            began: Nanos::new(0),
            threshold: AtomicU32::new(saturating_nanos(threshold)),
            is_recording: AtomicU32::new(0),
            missed: AtomicU32::new(0),
            missed_nanos: Nanos::new(0),
        }
    }

    pub(super) fn set_threshold(&self, threshold: Duration) {
        let nanos = saturating_nanos(threshold);
        self.threshold.store(nanos, Ordering::Relaxed);
    }

    /// A section has begun.
    #[inline]
    pub(super) fn begin(&self, tracer: impl FnOnce() -> Option<&'static dyn Tracer>) {
        let depth = self.depth.load(Ordering::Relaxed);
        // First: the tracer's clock may use sections of its own.
        self.depth.store(depth.wrapping_add(2), Ordering::Relaxed);
        if depth == 0
            && let Some(tracer) = tracer()
        {
            self.began.store(tracer.now().as_nanos());
            self.depth.store(3, Ordering::Relaxed);
        }
    }

    /// A section is about to end. Answers how many nanoseconds it was held, if that is to be recorded; who gets an
    /// answer has to [finish](Self::finish).
    #[inline]
    pub(super) fn end(&self, tracer: impl FnOnce() -> Option<&'static dyn Tracer>) -> Option<u64> {
        let depth = self.depth.load(Ordering::Relaxed);
        let held = if depth == 3
            && let Some(tracer) = tracer()
        {
            // Still within: the clock's own sections are no outermost ones.
            self.held_until(tracer.now().as_nanos())
        } else {
            None
        };
        let outside = if depth == 3 { 0 } else { depth.wrapping_sub(2) };
        self.depth.store(outside, Ordering::Relaxed);
        held
    }

    /// What was missed since it was asked last. It is asked within a section, too.
    pub(super) fn take_missed(&self) -> Missed {
        let missed = Missed {
            count: self.missed.load(Ordering::Relaxed),
            held: self.missed_nanos.load(),
        };
        self.missed.store(0, Ordering::Relaxed);
        self.missed_nanos.store(0);
        missed
    }

    /// The hold is recorded, and others may be. This needs no section: nothing is read because of it.
    pub(super) fn finish(&self) {
        self.is_recording.store(0, Ordering::Relaxed);
    }

    #[inline]
    fn held_until(&self, now: u64) -> Option<u64> {
        let held = now.saturating_sub(self.began.load());
        let is_long = held >= self.threshold.load(Ordering::Relaxed).into();
        (is_long && self.may_record(held)).then_some(held)
    }

    #[cold]
    fn may_record(&self, held: u64) -> bool {
        if self.is_recording.load(Ordering::Relaxed) == 0 {
            self.is_recording.store(1, Ordering::Relaxed);
            return true;
        }
        let count = self.missed.load(Ordering::Relaxed);
        self.missed.store(count.wrapping_add(1), Ordering::Relaxed);
        self.missed_nanos
            .store(self.missed_nanos.load().saturating_add(held));
        false
    }
}

const fn saturating_nanos(duration: Duration) -> u32 {
    let nanos = duration.as_nanos();
    if nanos > u32::MAX as u128 {
        u32::MAX
    } else {
        nanos as u32
    }
}

/// A 64-bit number whose halves are read and written one by one.
#[derive(Debug)]
struct Nanos {
    low: AtomicU32,
    high: AtomicU32,
}

impl Nanos {
    const fn new(nanos: u64) -> Self {
        Self {
            low: AtomicU32::new(nanos as u32),
            high: AtomicU32::new((nanos >> 32) as u32),
        }
    }

    #[inline]
    fn load(&self) -> u64 {
        let (low, high) = (&self.low, &self.high);
        u64::from(high.load(Ordering::Relaxed)) << 32 | u64::from(low.load(Ordering::Relaxed))
    }

    #[inline]
    fn store(&self, nanos: u64) {
        self.low.store(nanos as u32, Ordering::Relaxed);
        self.high.store((nanos >> 32) as u32, Ordering::Relaxed);
    }
}
