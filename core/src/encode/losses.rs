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
    /// A bit for each line that there is: that of the samples, then those of [`PARAMETERS`].
    lines: u8,
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

/// The lines of the tables that samples are lost for.
const FULL_TABLES: u8 = 0b1_1110;

impl Losses {
    /// None.
    pub(crate) const fn none(kind: Kind) -> Self {
        Self {
            kind,
            samples: 0,
            lines: 0,
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
        let line = |bit: u8, is_there: bool| if is_there { bit } else { 0 };
        let mut lines = 0;
        if samples != 0 {
            lines = 1;
            if has_lost_stacks {
                lines |= line(1 << 1, locations != 0) | line(1 << 2, calls != 0);
            }
            lines |= line(if is_heap { 1 << 4 } else { 1 << 3 }, is_full);
        }
        lines |= line(1 << 5, is_heap && untracked != 0);
        lines |= line(1 << 6, is_tasks && unseen != 0);
        lines |= line(1 << 7, is_cut);
        Self {
            kind,
            samples,
            lines,
        }
    }

    pub(crate) const fn samples(&self) -> u64 {
        self.samples
    }

    /// How many lines there are.
    pub(crate) const fn count(&self) -> usize {
        self.lines.count_ones() as usize
    }

    /// The line with this number, a sentence about a loss.
    pub(crate) fn render_line(&self, number: usize, sink: &mut Window<'_>) {
        let lines = (0..number).fold(self.lines, |lines, _| lines & lines.wrapping_sub(1));
        sink.text("picoprof: ");
        if let Some(parameter) = (lines.trailing_zeros() as usize).checked_sub(1) {
            sink.text(PARAMETERS.get(parameter).unwrap_or(&""));
            return;
        }
        sink.decimal(self.samples);
        sink.text(" of ");
        sink.text(self.kind.name());
        sink.text("'s samples were lost");
        // Else who counted them knows why.
        if lines & FULL_TABLES != 0 {
            sink.text(", as a table was full");
        }
    }
}
