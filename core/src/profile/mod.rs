//! The profile kinds: what each counts, and the tables that it counts in.

#![deny(unsafe_code)]

pub mod buckets;
pub mod cpu;
pub mod heap;
mod kind;
pub(crate) mod label_text;
pub mod labels;
#[cfg(any(feature = "critical-section", feature = "lock_api"))]
pub mod lock;
pub(crate) mod snapshot;
pub(crate) mod tag;
pub mod task;
pub mod trace;
mod wait;

pub use kind::{Kind, ValueType};
pub use wait::{Role, Wait};

use self::buckets::{Rows, Values};
use self::heap::{
    ALLOCATED_BYTES, ALLOCATED_OBJECTS, FREED_BYTES, FREED_OBJECTS, Heap, interval::unsample,
};
use crate::stack::Stacks;

/// The tables that a program keeps: one stack table, and what each kind counts by its stacks.
///
/// A kind that is `None` has no endpoint. Fill in what there is, over [`of`](Self::of).
#[derive(Clone, Copy, Debug)]
pub struct Profiles<'a> {
    /// The stacks of all kinds.
    pub stacks: Stacks<'a>,
    /// What the tags of rows, threads and tasks say beside their stacks.
    pub labels: Option<labels::Labels<'a>>,
    /// `profile`: samples. The tag is the bits of a [`LabelSetId`](labels::LabelSetId).
    pub cpu: Option<Rows<'a>>,
    /// `heap` and `allocs`.
    pub heap: Option<Heap<'a>>,
    /// `threadcreate`: threads.
    pub threads: Option<Rows<'a>>,
    /// `block`: how many times was waited, and nanoseconds. The tag is the bits of a
    /// [`LabelSetId`](labels::LabelSetId).
    pub block: Option<Rows<'a>>,
    /// `mutex`: how many were kept waiting, and nanoseconds. The tag is the bits of a
    /// [`LabelSetId`](labels::LabelSetId).
    pub mutex: Option<Rows<'a>>,
    /// `goroutine` and `goroutineleak`: tasks. The threads beside them are the
    /// [`Target`](crate::Target::threads)'s.
    pub tasks: Option<task::Tasks<'a>>,
}

impl<'a> Profiles<'a> {
    /// No kinds yet.
    #[must_use]
    pub const fn of(stacks: Stacks<'a>) -> Self {
        Self {
            stacks,
            labels: None,
            cpu: None,
            heap: None,
            threads: None,
            block: None,
            mutex: None,
            tasks: None,
        }
    }

    /// Whether a kind has an endpoint.
    #[must_use]
    pub fn keeps(&self, kind: Kind) -> bool {
        match kind {
            Kind::Goroutine | Kind::GoroutineLeak => self.tasks.is_some(),
            _ => self.rows(kind).is_some(),
        }
    }

    /// The counters of a kind, if it has some and is kept.
    #[must_use]
    pub fn rows(&self, kind: Kind) -> Option<Rows<'a>> {
        match kind {
            Kind::Allocs | Kind::Heap => Some(self.heap?.rows()),
            Kind::Block => self.block,
            Kind::Mutex => self.mutex,
            Kind::Goroutine | Kind::GoroutineLeak => None,
            Kind::Cpu => self.cpu,
            Kind::ThreadCreate => self.threads,
        }
    }

    /// Samples that the tables had no room for: those of `kind`, and stacks of any kind.
    #[must_use]
    pub fn lost(&self, kind: Kind) -> u64 {
        self.rows(kind)
            .map_or(0, |rows| rows.values(buckets::RowId::LOST)[0])
    }
}

/// What turns counters into the values of a sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    period: u64,
    scale: ScaleCounters,
}

/// The values of a sample, as many as its kind has sample types; the rest is zero.
pub(crate) type SampleValues = [i64; 4];

/// What a sample says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scaled {
    pub(crate) values: SampleValues,
    /// The mean size of the objects, for the kinds that have objects.
    pub(crate) object_size: Option<u64>,
}

impl Scaled {
    pub(crate) const EMPTY: Self = Self::new(0, 0);

    const fn new(first: i64, second: i64) -> Self {
        Self {
            values: [first, second, 0, 0],
            object_size: None,
        }
    }
}

/// From a row's counters, or their differences, and what lies between two samples: bytes, or nanoseconds.
///
/// It is a pointer, which for heaps the table's view brings, so that a program is without the code of what it doesn't
/// count.
pub(crate) type ScaleCounters = fn(&Values, u64) -> Scaled;

impl Scale {
    pub(crate) fn new(kind: Kind, period: u64, heap: Option<Heap<'_>>) -> Self {
        Self {
            period,
            scale: match kind {
                Kind::Allocs | Kind::Heap => heap.map_or(scaled_count, |heap| heap.scale()),
                Kind::Cpu => scaled_time,
                Kind::Goroutine | Kind::GoroutineLeak => scaled_difference,
                Kind::Block | Kind::Mutex | Kind::ThreadCreate => scaled_count,
            },
        }
    }

    pub(crate) const fn period(self) -> u64 {
        self.period
    }

    /// What the sample of a row whose counters, or whose counters' differences, are `counted` says.
    pub(crate) fn scaled(self, counted: &Values) -> Scaled {
        (self.scale)(counted, self.period)
    }
}

/// As it was counted: how many, and how much.
fn scaled_count(counted: &Values, _period: u64) -> Scaled {
    Scaled::new(signed(counted[0]), signed(counted[1]))
}

/// How many samples, and how much time.
fn scaled_time(counted: &Values, period: u64) -> Scaled {
    let samples = counted[0];
    Scaled::new(signed(samples), signed(samples.saturating_mul(period)))
}

/// How many more, and how many fewer.
fn scaled_difference(counted: &Values, _period: u64) -> Scaled {
    Scaled::new(signed(counted[0]) - signed(counted[1]), 0)
}

/// To all allocations, of which only some were sampled.
pub(crate) fn scaled_heap(counted: &Values, rate: u64) -> Scaled {
    let mean = |bytes: usize, objects: usize| counted[bytes].checked_div(counted[objects]);
    let mean =
        mean(ALLOCATED_BYTES, ALLOCATED_OBJECTS).or_else(|| mean(FREED_BYTES, FREED_OBJECTS));
    let size = mean.unwrap_or(0);
    let rate = usize::try_from(rate).unwrap_or(usize::MAX);
    let net = |allocated: usize, freed: usize| {
        let estimate = |n| signed(unsample(n, size, rate));
        let (allocated, freed) = (counted[allocated], counted[freed]);
        match allocated.checked_sub(freed) {
            Some(in_use) => estimate(in_use),
            None => -estimate(freed - allocated),
        }
    };
    Scaled {
        values: [
            signed(unsample(counted[ALLOCATED_OBJECTS], size, rate)),
            signed(unsample(counted[ALLOCATED_BYTES], size, rate)),
            net(ALLOCATED_OBJECTS, FREED_OBJECTS),
            net(ALLOCATED_BYTES, FREED_BYTES),
        ],
        object_size: mean,
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn heap_values_are_scaled_and_may_be_negative() {
        let every = |counted| scaled_heap(&counted, 1).values;
        assert_eq!(every([3, 300, 1, 100]), [3, 300, 2, 200]);
        assert_eq!(every([0, 0, 1, 100]), [0, 0, -1, -100]);
        let sampled = |counted| scaled_heap(&counted, 1000).values;
        // 100 bytes at a rate of 1000: sampled with probability 1 - e^-0.1, so each stands for 10.508.
        assert_eq!(sampled([100, 10_000, 0, 0]), [1050, 105_083, 1050, 105_083]);
        assert_eq!(sampled([0, 0, 100, 10_000]), [0, 0, -1050, -105_083]);
    }

    #[test]
    fn cpu_values_are_samples_and_nanoseconds() {
        let scale = Scale::new(Kind::Cpu, 10_000_000, None);
        assert_eq!(scale.scaled(&[7, 0, 0, 0]).values, [7, 70_000_000, 0, 0]);
    }
}
