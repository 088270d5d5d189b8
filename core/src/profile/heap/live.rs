//! Which sampled allocations are still live: a fixed hash table without locks.
//!
//! An address can be in any slot of its group of sixteen; a free slot is one without an address, so nothing
//! is left behind when an address goes. Beside the slots is a filter, a count by address hash: one load
//! of it tells for nearly every `free` that the address was never sampled.

#![forbid(unsafe_code)]

use super::super::buckets::RowId;
use crate::sync::{AtomicU8, AtomicUsize, Ordering, array_of, const_fn};

/// Slots that an address may be in.
const GROUP: usize = 16;

/// In a slot that an insert has taken and not yet filled; no allocation has this address.
const TAKEN: usize = 1;

/// The memory: room for `SLOTS` addresses, a power of two from 16 up; three words and a byte each.
#[derive(Debug)]
pub(super) struct Live<const SLOTS: usize> {
    slots: [Slot; SLOTS],
    filter: [AtomicU8; SLOTS],
}

impl<const SLOTS: usize> Live<SLOTS> {
    const VALID: () = assert!(
        SLOTS.is_power_of_two() && SLOTS >= GROUP,
        "SLOTS must be a power of two from 16 up"
    );

    const_fn! {
        pub(super) fn new() -> Self {
            let () = Self::VALID;
            Self {
                slots: array_of!(Slot::new()),
                filter: array_of!(AtomicU8::new(0)),
            }
        }
    }

    pub(super) const fn view(&self) -> LiveView<'_> {
        LiveView {
            slots: &self.slots,
            filter: &self.filter,
        }
    }
}

#[derive(Debug)]
struct Slot {
    /// 0: free.
    address: AtomicUsize,
    size: AtomicUsize,
    row: AtomicUsize,
}

impl Slot {
    const_fn! {
        fn new() -> Self {
            Self {
                address: AtomicUsize::new(0),
                size: AtomicUsize::new(0),
                row: AtomicUsize::new(0),
            }
        }
    }
}

/// [`Live`] without the size in the type.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiveView<'a> {
    slots: &'a [Slot],
    filter: &'a [AtomicU8],
}

impl LiveView<'_> {
    /// No room.
    #[cfg(not(loom))]
    pub(super) const NONE: Self = Self {
        slots: &[],
        filter: &[],
    };

    /// Whether `address` may be in. Never false for one that is.
    ///
    /// The caller owns the allocation, so its insert, if there was one, happened before.
    #[inline]
    pub(super) fn may_contain(&self, address: usize) -> bool {
        self.filter_of(address)
            .is_some_and(|count| count.load(Ordering::Relaxed) != 0)
    }

    /// Puts a new allocation in; false if there is no room for it. `address` is not in yet.
    pub(super) fn insert(&self, address: usize, size: usize, row: RowId) -> bool {
        if !self.count_up(address) {
            return false;
        }
        for slot in self.group_of(address) {
            let taken =
                slot.address
                    .compare_exchange(0, TAKEN, Ordering::Acquire, Ordering::Relaxed);
            if taken.is_ok() {
                slot.size.store(size, Ordering::Relaxed);
                slot.row.store(row.index() as usize, Ordering::Relaxed);
                // Release: whoever finds the address finds its size and row.
                slot.address.store(address, Ordering::Release);
                return true;
            }
        }
        self.count_down(address);
        false
    }

    /// Takes an allocation out that is about to be freed: its size and row, if it was in.
    pub(super) fn remove(&self, address: usize) -> Option<(usize, RowId)> {
        if address <= TAKEN {
            return None;
        }
        let mut group = self.group_of(address).iter();
        let slot = group.find(|slot| slot.address.load(Ordering::Acquire) == address)?;
        let size = slot.size.load(Ordering::Relaxed);
        let row = RowId::new(slot.row.load(Ordering::Relaxed) as u32);
        // Release: the next to take the slot writes after these reads.
        slot.address.store(0, Ordering::Release);
        self.count_down(address);
        Some((size, row))
    }

    /// How many are in. Reads the whole table.
    pub(super) fn len(&self) -> usize {
        let addresses = self
            .slots
            .iter()
            .map(|slot| slot.address.load(Ordering::Relaxed));
        addresses.filter(|&address| address > TAKEN).count()
    }

    /// False at 255, which no sensibly sized table reaches: the count must not wrap.
    fn count_up(&self, address: usize) -> bool {
        self.filter_of(address).is_some_and(|count| {
            count
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1))
                .is_ok()
        })
    }

    fn count_down(&self, address: usize) {
        if let Some(count) = self.filter_of(address) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[inline]
    fn filter_of(&self, address: usize) -> Option<&AtomicU8> {
        // The uppermost bits of the product: they depend on all of the address, and the index needs no mask.
        let bits = self.filter.len().trailing_zeros();
        self.filter.get(product(address) >> (usize::BITS - bits))
    }

    fn group_of(&self, address: usize) -> &[Slot] {
        let first = hash(address) & self.slots.len().wrapping_sub(1) & !(GROUP - 1);
        self.slots.get(first..first + GROUP).unwrap_or_default()
    }
}

/// Fibonacci hashing, as in the stack table; allocators align addresses, so their lowest bits say nothing.
#[inline]
fn hash(address: usize) -> usize {
    product(address) >> (usize::BITS / 2)
}

#[inline]
fn product(address: usize) -> usize {
    #[cfg(target_pointer_width = "64")]
    const FACTOR: usize = 0x9e37_79b9_7f4a_7c15;
    #[cfg(not(target_pointer_width = "64"))]
    const FACTOR: usize = 0x9e37_79b9;
    address.wrapping_mul(FACTOR)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_once() {
        let live = Live::<64>::new();
        let live = live.view();
        for i in 1..20 {
            assert!(live.insert(i * 4096, i, RowId::new(i as u32)));
        }
        assert_eq!(live.len(), 19);
        for i in 1..20 {
            assert!(live.may_contain(i * 4096));
            assert_eq!(live.remove(i * 4096), Some((i, RowId::new(i as u32))));
            assert_eq!(live.remove(i * 4096), None);
        }
        assert!((1..20).all(|i| !live.may_contain(i * 4096)));
        assert_eq!(live.len(), 0);
    }

    #[test]
    fn a_full_group_refuses_and_keeps_the_filter_right() {
        let live = Live::<16>::new();
        let live = live.view();
        let accepted = (1..=40)
            .filter(|i| live.insert(i * 16, 1, RowId::LOST))
            .count();
        assert_eq!(accepted, 16);
        for i in 1..=40 {
            live.remove(i * 16);
        }
        assert!((1..=40).all(|i| !live.may_contain(i * 16)));
    }

    #[test]
    fn no_address_is_mistaken_for_an_empty_or_taken_slot() {
        let live = Live::<16>::new();
        assert_eq!(live.view().remove(0), None);
        assert_eq!(live.view().remove(TAKEN), None);
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    extern crate std;

    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// An allocator's free list of one address: what it hands over is freed before it is allocated.
    fn hand_over(to: &AtomicUsize, address: usize) {
        to.store(address, Ordering::Release);
    }

    fn take_over(from: &AtomicUsize) -> Option<usize> {
        let address = from.load(Ordering::Acquire);
        (address != 0).then_some(address)
    }

    #[test]
    fn loom_an_allocation_is_freed_by_another_thread() {
        loom::model(|| {
            let shared = Arc::new((Live::<16>::new(), AtomicUsize::new(0)));
            let other = thread::spawn({
                let shared = shared.clone();
                move || {
                    let live = shared.0.view();
                    // Slots are contended for meanwhile.
                    assert!(live.insert(0x2000, 20, RowId::new(2)));
                    take_over(&shared.1).map(|address| {
                        assert!(live.may_contain(address));
                        live.remove(address)
                    })
                }
            });
            let live = shared.0.view();
            assert!(live.insert(0x1000, 10, RowId::new(1)));
            hand_over(&shared.1, 0x1000);
            match other.join().unwrap() {
                Some(removed) => assert_eq!(removed, Some((10, RowId::new(1)))),
                None => assert_eq!(live.remove(0x1000), Some((10, RowId::new(1)))),
            }
            assert!(!live.may_contain(0x1000) || live.may_contain(0x2000));
            assert_eq!(live.remove(0x2000), Some((20, RowId::new(2))));
            assert_eq!(live.len(), 0);
            assert!(!live.may_contain(0x1000) && !live.may_contain(0x2000));
        });
    }

    /// The address goes on to another allocation, in whatever slot, and what is known of it is the new one's.
    #[test]
    fn loom_an_address_is_allocated_again_by_another_thread() {
        loom::model(|| {
            let shared = Arc::new((Live::<16>::new(), AtomicUsize::new(0)));
            let live = shared.0.view();
            assert!(live.insert(0x1000, 10, RowId::new(1)));
            let other = thread::spawn({
                let shared = shared.clone();
                move || {
                    let live = shared.0.view();
                    assert!(live.insert(0x2000, 20, RowId::new(2)));
                    let address = take_over(&shared.1);
                    if let Some(address) = address {
                        assert!(live.insert(address, 30, RowId::new(3)));
                        assert_eq!(live.remove(address), Some((30, RowId::new(3))));
                    }
                    assert_eq!(live.remove(0x2000), Some((20, RowId::new(2))));
                }
            });
            assert_eq!(live.remove(0x1000), Some((10, RowId::new(1))));
            hand_over(&shared.1, 0x1000);
            other.join().unwrap();
            assert_eq!(live.len(), 0);
            assert!(!live.may_contain(0x1000) && !live.may_contain(0x2000));
        });
    }

    #[test]
    fn loom_the_last_slot_goes_to_one_address() {
        let mut model = loom::model::Builder::new();
        // Each of the 32 slots that are tried is a place to switch at.
        model.preemption_bound = Some(2);
        model.check(|| {
            let shared = Arc::new(Live::<16>::new());
            let live = shared.view();
            for i in 1..16 {
                assert!(live.insert(i * 64, 1, RowId::LOST));
            }
            let other = thread::spawn({
                let shared = shared.clone();
                move || shared.view().insert(0x1_0000, 1, RowId::LOST)
            });
            let ours = live.insert(0x2_0000, 1, RowId::LOST);
            let theirs = other.join().unwrap();
            assert_ne!(ours, theirs);
            assert_eq!(live.remove(0x1_0000).is_some(), theirs);
            assert_eq!(live.remove(0x2_0000).is_some(), ours);
        });
    }
}
