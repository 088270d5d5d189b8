//! What the handler works with: a slot for each thread that is sampled, in memory that is never freed.

#![forbid(unsafe_code)]

use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicI32, Ordering};

use picoprof::profile::labels::LabelSetId;
use picoprof::stack::{Memo, StackId};

use crate::stack_bounds::Stack;
use crate::tables::MAX_DEPTH;
use picoprof::Exclusive;

/// Threads that can be sampled at once; those beyond are counted as missed.
const MAX_THREADS: usize = 4096;

static SLOTS: [Slot; MAX_THREADS] = [const { Slot::new() }; MAX_THREADS];

/// One thread's memory for its samples: a page, so that a slot's number is cheaply told from its address.
#[repr(align(4096))]
pub(super) struct Slot {
    /// The thread, or 0 if the slot is free.
    thread: AtomicI32,
    work: Exclusive<Work>,
}

/// What a handler may change.
pub(super) struct Work {
    /// The stack that the last sample was on.
    pub(super) stack: Stack,
    /// The weight of all samples of this thread so far.
    pub(super) counted: u64,
    /// What the last sample was counted as, if there was one.
    pub(super) last: Option<(StackId, LabelSetId)>,
    pub(super) pcs: [usize; MAX_DEPTH],
    pub(super) memo: Memo<MAX_DEPTH>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

/// A slot that belongs to a thread, until this is dropped.
#[derive(Debug)]
pub(super) struct Taken(&'static Slot);

/// A free slot, for a thread that is on this stack, as far as that's known. Ordinary context.
pub(super) fn take(thread: i32, stack: Stack) -> Option<Taken> {
    // Threads that come and go get the same few slots, so little memory is touched.
    let mut free = (SLOTS.iter()).filter(|slot| slot.thread.load(Ordering::Relaxed) == 0);
    free.find_map(|slot| {
        slot.thread
            .compare_exchange(0, thread, Ordering::AcqRel, Ordering::Relaxed)
            .ok()?;
        let taken = Taken(slot);
        // What is left from another thread says nothing of this one: that one's stack may be unmapped by now.
        slot.with_work(|work| work.reset(stack))?;
        Some(taken)
    })
}

impl Deref for Taken {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        self.0
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.thread.store(0, Ordering::Release);
    }
}

/// The slot that a signal's value points to, if it does.
///
/// May run in a signal handler.
pub(super) fn at(address: usize) -> Option<&'static Slot> {
    let offset = address.checked_sub(SLOTS.as_ptr().addr())?;
    if !offset.is_multiple_of(size_of::<Slot>()) {
        return None;
    }
    SLOTS.get(offset / size_of::<Slot>())
}

impl Work {
    fn reset(&mut self, stack: Stack) {
        self.stack = stack;
        self.counted = 0;
        self.last = None;
    }
}

impl Slot {
    const fn new() -> Self {
        Self {
            thread: AtomicI32::new(0),
            work: Exclusive::new(Work {
                stack: Stack::NONE,
                counted: 0,
                last: None,
                pcs: [0; MAX_DEPTH],
                memo: Memo::new(),
            }),
        }
    }

    /// Runs `f` with the slot's memory; `None` if somebody does already: a signal that came late, when the slot was
    /// another thread's.
    ///
    /// May run in a signal handler, if `f` may: two atomic operations.
    pub(super) fn with_work<R>(&self, f: impl FnOnce(&mut Work) -> R) -> Option<R> {
        self.work.try_with(f)
    }

    /// A number that differs from slot to slot and from thread to thread.
    pub(super) fn random(&self) -> u64 {
        let seed =
            self.thread.load(Ordering::Relaxed) as u64 ^ core::ptr::from_ref(self).addr() as u64;
        // splitmix64's finalizer (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_to_a_slot_is_known_and_others_are_not() {
        let slot = &SLOTS[5];
        let address = core::ptr::from_ref(slot).addr();
        assert!(core::ptr::eq(at(address).unwrap(), slot));
        assert!(at(address + 8).is_none());
        assert!(at(0).is_none());
        assert!(at(usize::MAX).is_none());
        assert!(at(SLOTS.as_ptr_range().end.addr()).is_none());
    }
}
