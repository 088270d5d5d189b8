//! The heap and allocs profiles: who allocated, how much, and what of it is still there.
//!
//! Allocations are sampled by their bytes ([`interval`]); a sampled one is counted by stack and size class
//! and watched until it is freed. [`Allocator`] puts this around any `GlobalAlloc`.

#![deny(unsafe_code)]

mod allocator;
pub mod interval;
mod live;

pub use allocator::{Allocator, Sampler};

use self::live::{Live, LiveView};
#[cfg(all(test, not(loom)))]
use super::buckets::RowId;
use super::buckets::{Buckets, Rows};
use super::labels::LabelSetId;
use super::{ScaleCounters, Scaled, scaled_heap, tag};
use crate::stack::{Counter, StackId};
use crate::sync::{AtomicUsize, Ordering, const_fn};

/// Go's `runtime.MemProfileRate`: one sample in so many bytes, on average.
pub const DEFAULT_RATE: usize = 512 * 1024;

/// The counters of a row, in order.
pub(crate) const ALLOCATED_OBJECTS: usize = 0;
pub(crate) const ALLOCATED_BYTES: usize = 1;
pub(crate) const FREED_OBJECTS: usize = 2;
pub(crate) const FREED_BYTES: usize = 3;

/// The memory of the heap profile: `ROWS` pairs of a stack and a size class, and `LIVE` sampled allocations
/// that are not freed yet.
///
/// Both must be powers of two, from 16 up. It is made for a `static`.
#[derive(Debug)]
pub struct HeapProfile<const ROWS: usize, const LIVE: usize> {
    buckets: Buckets<ROWS, 4>,
    live: Live<LIVE>,
    rate: Rate,
    untracked: Counter,
    unlabeled: Counter,
}

impl<const ROWS: usize, const LIVE: usize> HeapProfile<ROWS, LIVE> {
    const_fn! {
        /// An empty profile, to be sampled once in `rate` bytes on average; 1 samples every allocation.
        #[must_use]
        pub fn new(rate: usize) -> Self {
            Self {
                buckets: Buckets::new(),
                live: Live::new(),
                rate: Rate::new(rate),
                untracked: Counter::new(),
                unlabeled: Counter::new(),
            }
        }
    }

    /// The same without the sizes in the type.
    #[must_use]
    pub const fn view(&self) -> Heap<'_> {
        Heap {
            rows: self.buckets.view(),
            scale: scaled_heap,
            live: self.live.view(),
            rate: &self.rate,
            untracked: &self.untracked,
            unlabeled: &self.unlabeled,
        }
    }
}

/// [`HeapProfile`] whose sizes are not in the type.
#[derive(Clone, Copy, Debug)]
pub struct Heap<'a> {
    rows: Rows<'a>,
    scale: ScaleCounters,
    live: LiveView<'a>,
    rate: &'a Rate,
    untracked: &'a Counter,
    unlabeled: &'a Counter,
}

#[cfg(not(loom))]
impl Heap<'static> {
    /// What a program without a heap puts into [`Profiles::heap`](super::Profiles::heap), so that `heap` and `allocs`
    /// answer empty profiles: [`Target::note`](crate::Target::note) says why they are. Nothing is recorded in it.
    ///
    /// It takes a few bytes for all of the program.
    #[must_use]
    pub const fn none() -> Self {
        static RATE: Rate = Rate::new(DEFAULT_RATE);
        static COUNTER: Counter = Counter::new();
        Self {
            rows: Rows::none(),
            scale: |_, _| Scaled::EMPTY,
            live: LiveView::NONE,
            rate: &RATE,
            untracked: &COUNTER,
            unlabeled: &COUNTER,
        }
    }
}

impl<'a> Heap<'a> {
    /// Counts a sampled allocation of `size` bytes at `address`, made by `stack` with these labels.
    ///
    /// A set of labels with a number too high for half a word beside the size (from 2^23 on, on a 32-bit machine
    /// from 256 on) is left out, which [`unlabeled`](Self::unlabeled) counts.
    ///
    /// Where there is no room to watch it until it is freed, it is counted as freed at once, so that in-use
    /// figures never grow by mistake, and [`untracked`](Self::untracked) counts it.
    ///
    /// May run inside an allocator, a signal handler or an interrupt: no lock, bounded.
    pub fn record_alloc(&self, stack: StackId, labels: LabelSetId, address: usize, size: usize) {
        let bytes = size as u64;
        let class = SizeClass::of(size);
        let tag = tag::of_heap(class, labels).unwrap_or_else(|| {
            self.unlabeled.add(1);
            class.number()
        });
        let row = self.rows.add(stack, tag, &[1, bytes]);
        if !self.live.insert(address, size, row) {
            self.rows.add_to(row, &[0, 0, 1, bytes]);
            self.untracked.add(1);
        }
    }

    /// Whether the allocation at `address` may have been sampled: one load, false for nearly all that
    /// were not.
    #[must_use]
    #[inline]
    pub fn may_be_sampled(&self, address: usize) -> bool {
        self.live.may_contain(address)
    }

    /// Counts the allocation at `address` as freed, if it was sampled; answers whether it was. To be called
    /// before it is really freed: afterwards the address may already be another's.
    ///
    /// May run inside an allocator, a signal handler or an interrupt: no lock, bounded.
    pub fn record_free(&self, address: usize) -> bool {
        let Some((size, row)) = self.live.remove(address) else {
            return false;
        };
        self.rows.add_to(row, &[0, 0, 1, size as u64]);
        true
    }

    /// Bytes that are allocated now, by what was sampled. Reads all rows.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        let rate = self.rate() as u64;
        let rows = self.rows.rows().map(|row| self.rows.values(row));
        let bytes: i64 = rows
            .map(|counted| {
                let [.., bytes] = (self.scale)(&counted, rate).values;
                bytes
            })
            .fold(0, i64::saturating_add);
        u64::try_from(bytes).unwrap_or(0)
    }

    /// Mean bytes between samples.
    #[must_use]
    #[inline]
    pub fn rate(&self) -> usize {
        self.rate.get()
    }

    /// Sets the mean bytes between samples. As with Go's `runtime.MemProfileRate`, it is to be done once and
    /// early: all samples are scaled by the rate that holds when a profile is made.
    pub fn set_rate(&self, rate: usize) {
        self.rate.set(rate);
    }

    /// How many sampled allocations could not be watched, as the table was full.
    #[must_use]
    pub fn untracked(&self) -> u64 {
        self.untracked.load()
    }

    /// How many sampled allocations are shown without their labels.
    #[must_use]
    pub fn unlabeled(&self) -> u64 {
        self.unlabeled.load()
    }

    /// How many sampled allocations are live. Reads the whole table.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// The rows: allocated objects and bytes, freed objects and bytes, unscaled.
    #[must_use]
    pub const fn rows(&self) -> Rows<'a> {
        self.rows
    }

    /// How the rows' counters become values.
    pub(crate) const fn scale(&self) -> ScaleCounters {
        self.scale
    }

    /// The row that an allocation is counted in.
    #[cfg(all(test, not(loom)))]
    fn row_of(&self, stack: StackId, size: usize) -> RowId {
        self.rows.add(stack, SizeClass::of(size).number(), &[])
    }
}

/// Mean bytes between samples, as the difference to the default: so a profile at that rate is all zeros, and its
/// static takes no room in a binary or in flash memory.
#[derive(Debug)]
struct Rate(AtomicUsize);

impl Rate {
    const_fn! {
        fn new(rate: usize) -> Self {
            Self(AtomicUsize::new(rate ^ DEFAULT_RATE))
        }
    }

    #[inline]
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed) ^ DEFAULT_RATE
    }

    fn set(&self, rate: usize) {
        self.0.store(rate ^ DEFAULT_RATE, Ordering::Relaxed);
    }
}

/// Eight classes to each doubling of the size, so that objects of one class differ by an eighth at the most.
///
/// Go has a record for each exact size after rounding to its allocator's classes, which are about as many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SizeClass(u16);

impl SizeClass {
    /// Every class's number is below.
    pub(super) const COUNT: u32 = usize::BITS * 8;

    pub(super) const fn number(self) -> u32 {
        self.0 as u32
    }

    pub(super) const fn of(size: usize) -> Self {
        if size < 16 {
            return Self(size as u16);
        }
        let log2 = usize::BITS - 1 - size.leading_zeros();
        let eighth = (size >> (log2 - 3)) & 7;
        Self((log2 * 8) as u16 + eighth as u16)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn classes_rise_with_the_size_and_are_narrow() {
        let mut before = SizeClass::of(0);
        let mut first_of_class = 0;
        for size in 1..100_000 {
            let class = SizeClass::of(size);
            assert!(class >= before, "{size}");
            if class != before {
                first_of_class = size;
            }
            assert!(
                size < 16 || size - first_of_class <= first_of_class / 8,
                "{size}"
            );
            before = class;
        }
        assert_eq!(SizeClass::of(usize::MAX).number(), SizeClass::COUNT - 1);
    }

    #[test]
    fn counts_by_stack_and_class_until_freed() {
        let profile = HeapProfile::<64, 64>::new(1);
        let heap = profile.view();
        let stack = StackId::from_bits(5);
        heap.record_alloc(stack, LabelSetId::EMPTY, 0x1000, 100);
        heap.record_alloc(stack, LabelSetId::EMPTY, 0x2000, 101);
        heap.record_alloc(stack, LabelSetId::EMPTY, 0x3000, 200);
        assert!(heap.may_be_sampled(0x1000));
        assert!(heap.record_free(0x2000));
        assert!(!heap.record_free(0x2000));
        let row = heap.row_of(stack, 100);
        assert_eq!(heap.rows().values(row), [2, 201, 1, 101]);
        assert_eq!(heap.live(), 2);
        assert_eq!(heap.rows().len(), 2);
    }

    #[test]
    fn labels_are_rows_of_their_own_where_they_fit() {
        let profile = HeapProfile::<64, 64>::new(1);
        let heap = profile.view();
        let stack = StackId::from_bits(5);
        for (address, labels) in [(0x1000, 0), (0x2000, 1), (0x3000, 1), (0x4000, u32::MAX)] {
            heap.record_alloc(stack, LabelSetId::from_bits(labels), address, 100);
        }
        assert_eq!(heap.unlabeled(), 1);
        assert_eq!(heap.rows().len(), 2);
        assert_eq!(heap.rows().values(heap.row_of(stack, 100)), [2, 200, 0, 0]);
    }

    #[test]
    fn where_there_is_no_heap_nothing_is_recorded() {
        let heap = Heap::none();
        heap.record_alloc(StackId::from_bits(1), LabelSetId::EMPTY, 0x1000, 100);
        assert!(!heap.may_be_sampled(0x1000) && !heap.record_free(0x1000));
        assert!(heap.rows().is_empty());
        assert_eq!((heap.live(), heap.rows().values(RowId::LOST)), (0, [0; 4]));
    }

    #[test]
    fn what_cannot_be_watched_is_not_in_use() {
        let profile = HeapProfile::<64, 16>::new(1);
        let heap = profile.view();
        for i in 1..=20 {
            heap.record_alloc(StackId::from_bits(1), LabelSetId::EMPTY, i * 64, 10);
        }
        assert_eq!(heap.untracked(), 4);
        let row = heap.row_of(StackId::from_bits(1), 10);
        assert_eq!(heap.rows().values(row), [20, 200, 4, 40]);
    }
}
