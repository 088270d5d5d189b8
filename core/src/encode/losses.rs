//! What a profile lacks, and what to raise so that it doesn't: lines for its readers.

#![forbid(unsafe_code)]

use super::wire::Window;
use crate::profile::{Kind, Profiles};

/// The losses of a profile at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Losses {
    kind: Kind,
    /// Samples that were counted under [`Marker::Lost`](crate::stack::Marker::Lost).
    samples: u64,
    /// A bit for each of [`PARAMETERS`].
    short: u8,
}

/// The tables' sizes, as who declares the tables knows them.
const PARAMETERS: [&str; 7] = [
    "StackTable is full: raise LOCATIONS",
    "StackTable is full: raise CALLS",
    "Buckets are full: raise ROWS",
    "HeapProfile is full: raise ROWS",
    "HeapProfile can't watch all samples until they are freed: raise LIVE",
    "TaskPool is full, and some tasks run unseen: raise N",
    "stacks are cut off where they are deeper than the sampler's buffer: raise its DEPTH",
];

/// The bits of the tables that samples are lost for.
const FULL_TABLES: u8 = 0b1111;

impl Losses {
    /// None.
    pub(crate) const fn none(kind: Kind) -> Self {
        Self {
            kind,
            samples: 0,
            short: 0,
        }
    }

    /// Those of a profile of `kind` that lost so many samples. `is_cut`: it has stacks that are cut off.
    pub(crate) fn of(profiles: &Profiles<'_>, kind: Kind, samples: u64, is_cut: bool) -> Self {
        let rows = profiles.rows(kind);
        let has_lost_stacks = rows.is_none_or(|rows| rows.has_lost_stacks());
        let [locations, calls] = profiles.stacks.lost_for();
        let is_full = rows.is_some_and(|rows| rows.is_full());
        let is_heap = matches!(kind, Kind::Heap | Kind::Allocs);
        let is_tasks = matches!(kind, Kind::Goroutine | Kind::GoroutineLeak);
        let untracked = profiles.heap.map_or(0, |heap| heap.untracked());
        let unseen = profiles.tasks.map_or(0, |tasks| tasks.lost());
        let any = samples != 0;
        let short = [
            any && has_lost_stacks && locations != 0,
            any && has_lost_stacks && calls != 0,
            any && is_full && !is_heap,
            any && is_full && is_heap,
            is_heap && untracked != 0,
            is_tasks && unseen != 0,
            is_cut,
        ];
        let add = |bits: u8, is_short| bits >> 1 | u8::from(is_short) << (PARAMETERS.len() - 1);
        Self {
            kind,
            samples,
            short: short.into_iter().fold(0, add),
        }
    }

    pub(crate) const fn samples(&self) -> u64 {
        self.samples
    }

    /// How many lines there are.
    pub(crate) const fn count(&self) -> usize {
        (self.samples != 0) as usize + self.short.count_ones() as usize
    }

    /// The line with this number.
    pub(crate) fn line(&self, number: usize) -> Option<Line<'_>> {
        let sum = (self.samples != 0).then_some(Line::Samples(self));
        let is_short = |i: &usize| self.short >> i & 1 == 1;
        let short = (0..PARAMETERS.len()).filter(is_short).map(Line::Short);
        sum.into_iter().chain(short).nth(number)
    }

    /// All lines.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        (0..self.count()).filter_map(|number| self.line(number))
    }
}

/// A sentence about a loss.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Line<'a> {
    /// How many samples are without their stacks.
    Samples(&'a Losses),
    /// One of [`PARAMETERS`].
    Short(usize),
}

impl Line<'_> {
    pub(crate) fn render(&self, sink: &mut Window<'_>) {
        sink.text("picoprof: ");
        match self {
            Self::Samples(losses) => {
                sink.decimal(losses.samples);
                sink.text(" of ");
                sink.text(losses.kind.name());
                sink.text("'s samples were lost");
                // Else who counted them knows why.
                if losses.short & FULL_TABLES != 0 {
                    sink.text(", as a table was full");
                }
            }
            Self::Short(number) => {
                sink.text(PARAMETERS.get(*number).unwrap_or(&""));
            }
        }
    }
}
