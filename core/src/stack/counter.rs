//! A 64-bit counter on machines that have 32-bit atomics only.

#![forbid(unsafe_code)]

#[cfg(not(target_pointer_width = "64"))]
use crate::sync::array_of;
use crate::sync::{AtomicUsize, Ordering, const_fn};

/// Counts up; never blocks. May be used in a signal handler or an interrupt.
///
/// Who reads a sum sees, in other counters, all that was counted before its last addend: what was freed is
/// never more than what was allocated, if it is read first.
///
/// On a 32-bit machine it is two words with a carry between them. A reader on another core that looks
/// between the two steps of a carry sees 2^32 too little, for that moment; a reader that the counting code
/// interrupts, or that it is interrupted by, never does.
#[derive(Debug)]
pub struct Counter {
    #[cfg(target_pointer_width = "64")]
    word: AtomicUsize,
    /// Low, then high.
    #[cfg(not(target_pointer_width = "64"))]
    words: [AtomicUsize; 2],
}

impl Counter {
    const_fn! {
        /// A counter at zero.
        #[must_use]
        pub fn new() -> Self {
            Self {
                #[cfg(target_pointer_width = "64")]
                word: AtomicUsize::new(0),
                #[cfg(not(target_pointer_width = "64"))]
                words: array_of!(AtomicUsize::new(0)),
            }
        }
    }

    /// Sets it to zero; what another core adds at the same moment may be kept or lost.
    pub fn reset(&self) {
        self.set(0);
    }
}

#[cfg(target_pointer_width = "64")]
impl Counter {
    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.word.fetch_add(n as usize, Ordering::Release);
    }

    /// The sum so far.
    #[must_use]
    #[inline]
    pub fn load(&self) -> u64 {
        self.word.load(Ordering::Acquire) as u64
    }

    fn set(&self, n: usize) {
        self.word.store(n, Ordering::Relaxed);
    }
}

#[cfg(not(target_pointer_width = "64"))]
impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        let [low, high] = &self.words;
        let n_low = n as u32 as usize;
        let before = low.fetch_add(n_low, Ordering::AcqRel);
        let carry = usize::from(before.checked_add(n_low).is_none());
        let n_high = ((n >> 32) as usize).wrapping_add(carry);
        if n_high != 0 {
            high.fetch_add(n_high, Ordering::Release);
        }
    }

    /// The sum so far.
    #[must_use]
    pub fn load(&self) -> u64 {
        let [low, high] = &self.words;
        loop {
            let before = high.load(Ordering::Acquire);
            let value = low.load(Ordering::Acquire);
            if high.load(Ordering::Acquire) == before {
                return (before as u64) << 32 | value as u64;
            }
        }
    }

    fn set(&self, n: usize) {
        let [low, high] = &self.words;
        high.store(0, Ordering::Relaxed);
        low.store(n, Ordering::Relaxed);
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn counts_beyond_32_bits() {
        let counter = Counter::new();
        counter.add(u64::from(u32::MAX));
        counter.add(1);
        counter.add(5 << 32);
        assert_eq!(counter.load(), (6 << 32));
        counter.reset();
        assert_eq!(counter.load(), 0);
    }
}
