//! What a slot says of its task from the beginning, which a reader gets whole or not at all.
//!
//! The one place where a name is made of a pointer and a length.

#![allow(unsafe_code)]

use crate::sync::{AtomicUsize, Ordering, const_fn};

/// A name, and a number that tells whether what is beside it was replaced while it was read.
#[derive(Debug)]
pub(super) struct Name {
    /// 0: nothing was written yet. Odd: something is being written.
    sequence: AtomicUsize,
    address: AtomicUsize,
    len: AtomicUsize,
}

impl Name {
    const_fn! {
        pub(super) fn new() -> Self {
            Self {
                sequence: AtomicUsize::new(0),
                address: AtomicUsize::new(0),
                len: AtomicUsize::new(0),
            }
        }
    }

    /// Writes the name, and lets `others` write what belongs to it. False, and nothing is written, if another one
    /// is at it.
    pub(super) fn write(&self, name: &'static str, others: impl FnOnce()) -> bool {
        let sequence = self.sequence.load(Ordering::Relaxed) & !1;
        // It keeps all other writers out, whoever calls this.
        let taken = self.sequence.compare_exchange(
            sequence,
            sequence | 1,
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        if taken.is_err() {
            return false;
        }
        // Release, here and in what `others` does: who sees any of it sees the sequence odd, or later.
        (self.address).store(name.as_ptr().expose_provenance(), Ordering::Release);
        self.len.store(name.len(), Ordering::Release);
        others();
        // It never gets back to 0, which has no name.
        let next = sequence.wrapping_add(2).max(2);
        self.sequence.store(next, Ordering::Release);
        true
    }

    /// The name, while `others` reads what belongs to it, by acquiring loads; `None` if nothing was written yet, or
    /// something else was meanwhile.
    pub(super) fn read(&self, others: impl FnOnce()) -> Option<&'static str> {
        let sequence = self.sequence.load(Ordering::Acquire);
        if sequence == 0 || sequence & 1 == 1 {
            return None;
        }
        let address = self.address.load(Ordering::Acquire);
        let len = self.len.load(Ordering::Acquire);
        others();
        if self.sequence.load(Ordering::Relaxed) != sequence {
            return None;
        }
        let start = core::ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: the sequence was even, not 0, and the same before and after the two loads. They acquired, so had
        // either of them read what a later `write` released, the last load would have seen that write's sequence.
        // So both are of the one `write` before: a `&'static str`'s address, which it exposed, and length. (For the same
        // number to come again meanwhile, 2^31 tasks would have to begin in this slot on a 32-bit machine.)
        let bytes: &'static [u8] = unsafe { core::slice::from_raw_parts(start, len) };
        // SAFETY: these are that `str`'s bytes.
        Some(unsafe { core::str::from_utf8_unchecked(bytes) })
    }
}
