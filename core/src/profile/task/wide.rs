//! A 64-bit value in as many words as it takes.

#![forbid(unsafe_code)]

use crate::sync::{AtomicUsize, Ordering, array_of, const_fn};

const WORDS: usize = (u64::BITS / usize::BITS) as usize;

/// One writes at a time. Who reads at the same moment on a 32-bit machine may get the halves of two values, and must
/// be able to tell by other means that something changed: whoever sees a written half sees all that was written
/// before it.
#[derive(Debug)]
pub(super) struct Wide {
    /// The lowest first.
    words: [AtomicUsize; WORDS],
}

impl Wide {
    const_fn! {
        pub(super) fn new() -> Self {
            Self {
                words: array_of!(AtomicUsize::new(0)),
            }
        }
    }

    #[inline]
    pub(super) fn load(&self) -> u64 {
        // Two words at the most, and no loop: it is read in many places.
        let [low, above @ ..] = &self.words;
        let load = |word: &AtomicUsize| word.load(Ordering::Acquire) as u64;
        let high = above.first().map_or(0, load);
        high.unbounded_shl(usize::BITS) | load(low)
    }

    #[inline]
    pub(super) fn store(&self, value: u64) {
        for (i, word) in self.words.iter().enumerate() {
            word.store(
                (value >> (i as u32 * usize::BITS)) as usize,
                Ordering::Release,
            );
        }
    }
}
