//! The legacy text of `debug=1`: for people, and for tools that read Go's.
//!
//! Columns are separated by single tabs; Go pads them. Lines that begin with `#` are comments to all readers.
//! The addresses after `@` are return addresses, those in the comments are calls.

#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use super::Body;
use super::records::{self, Cursor, Records};
use super::source::Source;
use super::used::Used;
use super::wire::Window;
use crate::profile::buckets::{RowId, Values};
use crate::profile::heap::{ALLOCATED_BYTES, ALLOCATED_OBJECTS, FREED_BYTES, FREED_OBJECTS};
use crate::profile::{Kind, SampleValues};
use crate::stack::{Frame, LocationId, StackId};
use crate::target::Target;

/// Encodes a profile as text.
///
/// Records are sorted as Go sorts them: by bytes in use, upwards, or by count, downwards. Without memory for
/// that they come in the table's order.
#[derive(Debug)]
pub struct TextEncoder<'t, T: Target> {
    source: Source<'t, T>,
    symbols: T::Symbols,
    order: Option<Order<T::Scratch>>,
    totals: Values,
    /// The sum of all samples' values.
    estimates: SampleValues,
    /// Samples that were lost, and that were not watched: known when the records are out.
    losses: [u64; 2],
    section: Section,
    cursor: Cursor,
    /// The record, where it is one.
    record: (StackId, Values),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Head,
    Records,
    Tail,
    Done,
}

impl<'t, T: Target> TextEncoder<'t, T> {
    /// Reads the whole profile once, for its locations, its order and its totals.
    pub fn new(source: Source<'t, T>) -> Self {
        let mut used = Used::marked(&source.stacks, |words| source.target.scratch(words));
        let mut order = Order::new(&source);
        let mut totals = Values::default();
        let mut estimates = SampleValues::default();
        for row in source.rows.rows() {
            let Some((stack, counted)) = source.counted(row) else {
                continue;
            };
            let frames = source.stacks.frames(stack);
            frames.for_each(|location| used.insert(location));
            order = order.and_then(|order| order.with(row, sort_key(source.kind, &counted)));
            for (total, value) in totals.iter_mut().zip(counted) {
                *total = total.saturating_add(value);
            }
            for (estimate, value) in estimates.iter_mut().zip(source.values(&counted)) {
                *estimate = estimate.saturating_add(value);
            }
        }
        Self {
            symbols: source.symbols(&used),
            order: order.map(Order::sorted),
            totals,
            estimates,
            losses: [0; 2],
            section: Section::Head,
            cursor: Cursor::default(),
            record: (StackId::EMPTY, Values::default()),
            source,
        }
    }

    fn find_row(&mut self) -> bool {
        while let Some(row) = self.row() {
            if let Some(record) = self.source.counted(row) {
                self.record = record;
                return true;
            }
            self.cursor.index += 1;
        }
        false
    }

    fn row(&self) -> Option<RowId> {
        match &self.order {
            Some(order) => order.row(self.cursor.index),
            None => self.source.row(self.cursor.index),
        }
    }

    fn render_head(&self, sink: &mut Window<'_>) -> fmt::Result {
        let name = self.source.kind.name();
        if self.is_heap() {
            let mut totals = HeapCounts::of(&self.totals);
            // As Go: where nothing was freed so far, readers would take equal figures for a profile that has those
            // of the memory in use only.
            totals.allocated[1] = totals.allocated[1].max(totals.in_use[1].saturating_add(1));
            // As Go: twice the rate; readers halve it.
            let rate = self.source.scale.period().saturating_mul(2);
            writeln!(sink, "heap profile: {totals} @ heap/{rate}")?;
        } else {
            writeln!(sink, "{name} profile: total {}", self.totals[0])?;
        }
        if !self.source.note.is_empty() {
            writeln!(sink, "# {}", self.source.note)?;
        }
        Ok(())
    }

    fn render_record(&self, sink: &mut Window<'_>) -> fmt::Result {
        let (stack, counted) = &self.record;
        if self.is_heap() {
            write!(sink, "{} @", HeapCounts::of(counted))?;
        } else {
            write!(sink, "{} @", counted[0])?;
        }
        let frames = || {
            let locations = self.source.stacks.frames(*stack);
            locations.map(|location| (location, self.source.stacks.location(location)))
        };
        for (_, frame) in frames() {
            match frame {
                Frame::Pc(pc) => write!(sink, " {:#x}", pc.wrapping_add(1))?,
                // Readers want an address, and subtract one.
                Frame::Marker(_) => write!(sink, " 0x1")?,
            }
        }
        writeln!(sink)?;
        for (location, frame) in frames() {
            match frame {
                Frame::Pc(pc) => self.render_frame(sink, location, pc)?,
                Frame::Marker(marker) => writeln!(sink, "#\t0x0\t{}", marker.name())?,
            }
        }
        writeln!(sink)
    }

    fn render_frame(&self, sink: &mut Window<'_>, location: LocationId, pc: usize) -> fmt::Result {
        let mut is_known = false;
        for (name, file, line) in Source::<T>::functions(&self.symbols, location) {
            writeln!(sink, "#\t{pc:#x}\t{name}\t{file}:{line}")?;
            is_known = true;
        }
        if !is_known {
            writeln!(sink, "#\t{pc:#x}")?;
        }
        Ok(())
    }

    /// Of the numbers that Go prints here (readers ignore them), those that are known.
    fn render_tail(&self, sink: &mut Window<'_>) -> fmt::Result {
        if !self.is_heap() {
            return Ok(());
        }
        let [objects, bytes, live_objects, live_bytes] = self.estimates;
        let [lost, untracked] = self.losses;
        writeln!(sink, "\n# runtime.MemStats (estimated from the samples)")?;
        writeln!(sink, "# Alloc = {live_bytes}")?;
        writeln!(sink, "# TotalAlloc = {bytes}")?;
        writeln!(sink, "# Mallocs = {objects}")?;
        writeln!(sink, "# Frees = {}", objects.saturating_sub(live_objects))?;
        writeln!(sink, "# HeapObjects = {live_objects}")?;
        writeln!(sink, "# Samples lost = {lost}")?;
        writeln!(sink, "# Samples not watched until freed = {untracked}")
    }

    fn losses(&self) -> [u64; 2] {
        let heap = self.source.target.profiles().heap;
        [self.source.lost(), heap.map_or(0, |heap| heap.untracked())]
    }

    fn is_heap(&self) -> bool {
        matches!(self.source.kind, Kind::Heap | Kind::Allocs)
    }
}

impl<T: Target> Records for TextEncoder<'_, T> {
    fn cursor(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    fn find(&mut self) -> bool {
        while self.section != Section::Done {
            let (found, next) = match self.section {
                Section::Head => (self.cursor.index == 0, Section::Records),
                Section::Records => (self.find_row(), Section::Tail),
                Section::Tail | Section::Done => (self.cursor.index == 0, Section::Done),
            };
            if found {
                return true;
            }
            if next == Section::Tail {
                self.losses = self.losses();
            }
            self.section = next;
            self.cursor.index = 0;
        }
        false
    }

    fn render(&self, window: &mut Window<'_>) {
        // A window never fails.
        let _ = match self.section {
            Section::Head => self.render_head(window),
            Section::Records => self.render_record(window),
            Section::Tail => self.render_tail(window),
            Section::Done => Ok(()),
        };
    }
}

impl<T: Target> Body for TextEncoder<'_, T> {
    fn fill(&mut self, out: &mut [u8]) -> usize {
        records::fill(self, out)
    }
}

/// `<objects>: <bytes> [<objects>: <bytes>]`: in use, and in brackets allocated so far; as sampled, unscaled.
struct HeapCounts {
    in_use: [u64; 2],
    allocated: [u64; 2],
}

impl HeapCounts {
    fn of(counted: &Values) -> Self {
        let net =
            |allocated: usize, freed: usize| counted[allocated].saturating_sub(counted[freed]);
        Self {
            in_use: [
                net(ALLOCATED_OBJECTS, FREED_OBJECTS),
                net(ALLOCATED_BYTES, FREED_BYTES),
            ],
            allocated: [counted[ALLOCATED_OBJECTS], counted[ALLOCATED_BYTES]],
        }
    }
}

impl fmt::Display for HeapCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([objects, bytes], [all_objects, all_bytes]) = (self.in_use, self.allocated);
        write!(f, "{objects}: {bytes} [{all_objects}: {all_bytes}]")
    }
}

/// What a record is sorted by, in 40 bits.
fn sort_key(kind: Kind, counted: &Values) -> u64 {
    const LAST: u64 = u64::MAX >> ROW_BITS;
    match kind {
        Kind::Heap | Kind::Allocs => HeapCounts::of(counted).in_use[1].min(LAST),
        Kind::Block | Kind::Mutex => LAST - counted[1].min(LAST),
        _ => LAST - counted[0].min(LAST),
    }
}

/// Bits of a word in [`Order`] that hold the row; the sort key is in the others.
const ROW_BITS: u32 = 24;
const ROW_MASK: u64 = (1 << ROW_BITS) - 1;

/// The rows in the order to show them.
#[derive(Debug)]
struct Order<S> {
    words: S,
    len: usize,
}

impl<S: AsRef<[u64]> + AsMut<[u64]>> Order<S> {
    /// No rows, and room for as many as there are; `None` without memory for that.
    fn new<T: Target<Scratch = S>>(source: &Source<'_, T>) -> Option<Self> {
        if source.rows.capacity() as u64 > ROW_MASK {
            return None;
        }
        let words = source.target.scratch(source.rows.len())?;
        Some(Self { words, len: 0 })
    }

    /// With one more; `None` if that came in between and there's no room for it: rather all of them unsorted
    /// than some of them left out.
    fn with(mut self, row: RowId, key: u64) -> Option<Self> {
        *self.words.as_mut().get_mut(self.len)? =
            key << ROW_BITS | u64::from(row.index()) & ROW_MASK;
        self.len += 1;
        Some(self)
    }

    fn sorted(mut self) -> Self {
        if let Some(words) = self.words.as_mut().get_mut(..self.len) {
            words.sort_unstable();
        }
        self
    }

    fn row(&self, index: usize) -> Option<RowId> {
        let words = self.words.as_ref().get(..self.len)?;
        let row = words.get(index)? & ROW_MASK;
        Some(if row == ROW_MASK {
            RowId::LOST
        } else {
            RowId::new(row as u32)
        })
    }
}
