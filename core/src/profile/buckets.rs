//! Counters by stack: what every profile kind keeps.

#![forbid(unsafe_code)]

use core::time::Duration;

use super::labels::LabelSetId;
use crate::stack::{Counter, StackId, set};
use crate::sync::{AtomicU8, AtomicUsize, Ordering, array_of, const_fn};
use crate::time::saturating_nanos;

/// Bits of a key that hold the tag; the stack is in the others.
const HALF: u32 = usize::BITS / 2;
const TAG_MASK: usize = (1 << HALF) - 1;

/// The most counters that a row can have.
pub const MAX_WIDTH: usize = 4;

/// The counters of one row.
pub type Values = [u64; MAX_WIDTH];

/// The memory of one profile kind: `ROWS` rows of `WIDTH` counters, a row for each pair of a stack and a tag
/// (a size class, a label set).
///
/// `ROWS` must be a power of two from 8 up, at most 32,768 on a 32-bit machine. A row takes a word, and 8
/// bytes a counter. It is made for a `static`.
#[derive(Debug)]
pub struct Buckets<const ROWS: usize, const WIDTH: usize> {
    keys: [AtomicUsize; ROWS],
    counters: [[Counter; WIDTH]; ROWS],
    lost: [Counter; WIDTH],
    /// Why something was lost: bits.
    causes: AtomicU8,
}

/// In [`Buckets::causes`]: a stack found no row.
const NO_ROW: u8 = 1;
/// In [`Buckets::causes`]: a stack had found no room in the stack table.
const NO_STACK: u8 = 2;

impl<const ROWS: usize, const WIDTH: usize> Buckets<ROWS, WIDTH> {
    const VALID: () = {
        assert!(
            set::is_valid_len(ROWS),
            "ROWS must be a power of two from 8 up (on a 32-bit machine to 32,768)"
        );
        assert!(WIDTH >= 1 && WIDTH <= MAX_WIDTH);
    };

    const_fn! {
        /// No rows in use.
        #[must_use]
        pub fn new() -> Self {
            let () = Self::VALID;
            Self {
                keys: array_of!(AtomicUsize::new(0)),
                counters: array_of!(array_of!(Counter::new())),
                lost: array_of!(Counter::new()),
                causes: AtomicU8::new(0),
            }
        }
    }

    /// The same without the sizes in the type.
    #[must_use]
    pub const fn view(&self) -> Rows<'_> {
        Rows {
            keys: &self.keys,
            counters: self.counters.as_flattened(),
            lost: &self.lost,
            causes: &self.causes,
        }
    }
}

impl<const ROWS: usize, const WIDTH: usize> Default for Buckets<ROWS, WIDTH> {
    fn default() -> Self {
        Self::new()
    }
}

/// [`Buckets`] whose sizes are not in the type.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    keys: &'a [AtomicUsize],
    counters: &'a [Counter],
    lost: &'a [Counter],
    causes: &'a AtomicU8,
}

#[cfg(not(loom))]
impl Rows<'static> {
    /// No rows, and no counters.
    pub(super) const fn none() -> Self {
        static CAUSES: AtomicU8 = AtomicU8::new(0);
        Self {
            keys: &[],
            counters: &[],
            lost: &[],
            causes: &CAUSES,
        }
    }
}

impl<'a> Rows<'a> {
    /// Adds `values` to the counters of `stack` with `tag`, and answers the row.
    ///
    /// `tag` must fit in half a word. Without a row to spare, for [`StackId::LOST`], and for the pair of
    /// [`StackId::EMPTY`] and 0, the values count in [`RowId::LOST`].
    ///
    /// May run in a signal handler or an interrupt: one look-up, no lock, bounded.
    #[inline]
    pub fn add(&self, stack: StackId, tag: u32, values: &[u64]) -> RowId {
        let row = self.row(stack, tag);
        self.add_to(row, values);
        row
    }

    /// Counts a wait of `stack` with these labels: that there was one, and its nanoseconds. For
    /// [`Profiles::block`](super::Profiles::block) and [`Profiles::mutex`](super::Profiles::mutex).
    ///
    /// May run in a signal handler or an interrupt.
    pub fn add_wait(&self, stack: StackId, labels: LabelSetId, waited: Duration) -> RowId {
        self.add(stack, labels.to_bits(), &[1, saturating_nanos(waited)])
    }

    /// Adds `values` to the counters of a row.
    ///
    /// May run in a signal handler or an interrupt.
    #[inline]
    pub fn add_to(&self, row: RowId, values: &[u64]) {
        for (counter, &value) in self.counters_of(row).iter().zip(values) {
            if value != 0 {
                counter.add(value);
            }
        }
    }

    /// What is counted in a row now, and zero where a row has fewer than four counters.
    ///
    /// Read from the last counter to the first: where a later counter only ever counts what an earlier one
    /// has counted (freed, after allocated), it never shows more.
    #[must_use]
    pub fn values(&self, row: RowId) -> Values {
        let mut values = [0; MAX_WIDTH];
        for (value, counter) in values.iter_mut().zip(self.counters_of(row)).rev() {
            *value = counter.load();
        }
        values
    }

    /// Whose row it is: its stack and tag; `None` for a row that is not in use.
    #[must_use]
    pub fn key(&self, row: RowId) -> Option<(StackId, u32)> {
        if row == RowId::LOST {
            return Some((StackId::LOST, 0));
        }
        let key = self.keys.get(row.0 as usize)?.load(Ordering::Acquire);
        let stack = StackId::from_bits((key >> HALF) as u32);
        (key != 0).then_some((stack, (key & TAG_MASK) as u32))
    }

    /// Every row that is in use, and at the end [`RowId::LOST`] if anything was lost.
    pub fn rows(self) -> impl Iterator<Item = RowId> + 'a {
        let any_lost = self.any_lost();
        (0..self.keys.len() as u32)
            .map(RowId)
            .filter(move |&row| self.key(row).is_some())
            .chain(any_lost.then_some(RowId::LOST))
    }

    /// How many rows are in use. Reads the whole table.
    #[must_use]
    pub fn len(&self) -> usize {
        let used = self.keys.iter().filter(|k| k.load(Ordering::Acquire) != 0);
        used.count() + usize::from(self.any_lost())
    }

    /// Whether no row is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows().next().is_none()
    }

    /// One more than the highest row in use.
    #[must_use]
    pub fn extent(&self) -> usize {
        let last = self
            .keys
            .iter()
            .rposition(|k| k.load(Ordering::Acquire) != 0);
        last.map_or(0, |last| last + 1)
    }

    /// Counters in a row.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.lost.len()
    }

    /// How many rows there is room for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.keys.len()
    }

    /// Empties all rows. What is added at the same moment may be lost, or count in a row that another stack
    /// takes later. So stop the sampler first, where a sample more or less matters.
    pub fn clear(&self) {
        // Only what is not zero, so that memory which was never touched stays so.
        for key in self.keys.iter().filter(|k| k.load(Ordering::Relaxed) != 0) {
            key.store(0, Ordering::Release);
        }
        self.causes.store(0, Ordering::Relaxed);
        for counter in self.counters.iter().chain(self.lost) {
            if counter.load() != 0 {
                counter.reset();
            }
        }
    }

    /// [Clears](Self::clear) the rows if more than half are in use: a program may be profiled every minute for months,
    /// and new stacks must find room. To be called before a CPU profile begins, where there is memory for a snapshot of the
    /// rows; of a profile that is being sent just now, the rest is then missing.
    pub fn make_room(&self) {
        if self.len() > self.capacity() / 2 {
            self.clear();
        }
    }

    /// Whether a stack found no row: there should be more `ROWS`.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.causes.load(Ordering::Relaxed) & NO_ROW != 0
    }

    /// Whether something was counted for [`StackId::LOST`]: the stack table should have more room.
    #[must_use]
    pub fn has_lost_stacks(&self) -> bool {
        self.causes.load(Ordering::Relaxed) & NO_STACK != 0
    }

    /// The row with this number, where [`RowId::LOST`] comes after all others.
    #[inline]
    pub(crate) const fn row_at(&self, index: usize) -> RowId {
        if index < self.keys.len() {
            RowId(index as u32)
        } else {
            RowId::LOST
        }
    }

    fn any_lost(&self) -> bool {
        self.lost.iter().any(|counter| counter.load() != 0)
    }

    #[inline]
    fn row(&self, stack: StackId, tag: u32) -> RowId {
        if stack == StackId::LOST {
            return self.lost(NO_STACK);
        }
        // The stack without frames has no bits of its own, so it must not meet the tag 0.
        let key = (stack.to_bits() as usize) << HALF | (tag as usize & TAG_MASK);
        if key == 0 {
            return RowId::LOST;
        }
        match set::find_or_insert(self.keys, key) {
            Some(row) => RowId(row as u32),
            None => self.lost(NO_ROW),
        }
    }

    #[cold]
    fn lost(&self, cause: u8) -> RowId {
        // Not at every sample, as others may look at the same line of the cache.
        if self.causes.load(Ordering::Relaxed) & cause == 0 {
            self.causes.fetch_or(cause, Ordering::Relaxed);
        }
        RowId::LOST
    }

    #[inline]
    fn counters_of(&self, row: RowId) -> &'a [Counter] {
        let first = (row.0 as usize).saturating_mul(self.lost.len());
        let end = first.saturating_add(self.lost.len());
        self.counters.get(first..end).unwrap_or(self.lost)
    }
}

/// A row of [`Buckets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RowId(u32);

impl RowId {
    /// The row of everything that found no other.
    pub const LOST: Self = Self(u32::MAX);

    /// The row with this number.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Its number.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::collections::HashMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn stack(bits: u32) -> StackId {
        StackId::from_bits(bits)
    }

    #[test]
    fn a_full_table_counts_in_the_lost_row() {
        let buckets = Buckets::<8, 2>::new();
        let rows = buckets.view();
        for i in 1..=10 {
            rows.add(stack(i), 0, &[1, 100]);
        }
        assert!(rows.is_full() && !rows.has_lost_stacks());
        rows.add(StackId::LOST, 0, &[1, 100]);
        assert!(rows.has_lost_stacks());
        assert_eq!(rows.values(RowId::LOST), [3, 300, 0, 0]);
        assert_eq!(rows.len(), 9);
        let sum: u64 = rows.rows().map(|row| rows.values(row)[0]).sum();
        assert_eq!(sum, 11);
    }

    #[test]
    fn room_is_made_when_more_than_half_is_used() {
        let buckets = Buckets::<8, 2>::new();
        let rows = buckets.view();
        for (used, kept) in [(4, 4), (5, 0)] {
            for i in 1..=used {
                rows.add_wait(stack(i), LabelSetId::EMPTY, Duration::from_micros(2));
            }
            rows.make_room();
            assert_eq!(rows.len(), kept);
        }
    }

    #[test]
    fn a_wait_counts_once_and_for_its_time() {
        let buckets = Buckets::<8, 2>::new();
        let labels = LabelSetId::from_bits(3);
        let rows = buckets.view();
        let row = rows.add_wait(stack(1), labels, Duration::from_micros(2));
        assert_eq!(rows.key(row), Some((stack(1), 3)));
        assert_eq!(rows.values(row), [1, 2_000, 0, 0]);
        let endless = rows.add_wait(stack(2), labels, Duration::MAX);
        assert_eq!(rows.values(endless), [1, u64::MAX, 0, 0]);
    }

    #[test]
    fn clear_forgets_everything() {
        let buckets = Buckets::<8, 1>::new();
        let rows = buckets.view();
        rows.add(stack(1), 3, &[5]);
        rows.add(StackId::LOST, 0, &[1]);
        rows.clear();
        assert!(rows.is_empty() && !rows.has_lost_stacks());
        assert_eq!(rows.extent(), 0);
    }

    proptest! {
        #[test]
        fn agrees_with_a_hash_map(
            adds in prop::collection::vec((1u32..40, 0u32..4, 1u64..1000), 1..400)
        ) {
            let buckets = Buckets::<256, 2>::new();
            let rows = buckets.view();
            let mut model = HashMap::<_, [u64; 2]>::new();
            for &(id, tag, value) in &adds {
                rows.add(stack(id), tag, &[1, value]);
                let sums = model.entry((stack(id), tag)).or_default();
                sums[0] += 1;
                sums[1] += value;
            }
            let mut found: Vec<_> = rows
                .rows()
                .map(|row| (rows.key(row).unwrap(), rows.values(row)))
                .collect();
            let mut expected: Vec<_> =
                model.into_iter().map(|(key, [n, sum])| (key, [n, sum, 0, 0])).collect();
            found.sort();
            expected.sort();
            prop_assert_eq!(found, expected);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    extern crate std;

    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn loom_concurrent_adds_sum_up() {
        loom::model(|| {
            let buckets = Arc::new(Buckets::<8, 2>::new());
            let add = |first: u32, second: u32| {
                let buckets = buckets.clone();
                move || {
                    let rows = buckets.view();
                    rows.add(StackId::from_bits(first), 0, &[1, 10]);
                    rows.add(StackId::from_bits(second), 0, &[1, 10]);
                }
            };
            let other = thread::spawn(add(2, 1));
            add(1, 2)();
            other.join().unwrap();
            let rows = buckets.view();
            assert_eq!(rows.rows().count(), 2);
            assert!(rows.rows().all(|row| rows.values(row) == [2, 20, 0, 0]));
        });
    }

    /// As with allocations and frees: what the second counter counts, the first counted before, be it on another
    /// thread.
    #[test]
    fn loom_a_later_counter_is_never_ahead() {
        use crate::sync::AtomicUsize;

        loom::model(|| {
            let buckets = Arc::new((Buckets::<8, 2>::new(), AtomicUsize::new(0)));
            let row = buckets.0.view().add(StackId::from_bits(1), 0, &[]);
            let allocates = thread::spawn({
                let buckets = buckets.clone();
                move || {
                    buckets.0.view().add_to(row, &[1, 0]);
                    buckets.1.store(1, Ordering::Release);
                }
            });
            let frees = thread::spawn({
                let buckets = buckets.clone();
                move || {
                    if buckets.1.load(Ordering::Acquire) == 1 {
                        buckets.0.view().add_to(row, &[0, 1]);
                    }
                }
            });
            let [allocated, freed, ..] = buckets.0.view().values(row);
            assert!(freed <= allocated);
            allocates.join().unwrap();
            frees.join().unwrap();
        });
    }
}
