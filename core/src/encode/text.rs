//! The legacy text of `debug=1`: for people, and for tools that read Go's.
//!
//! Columns are separated by single tabs; Go pads them. Lines that begin with `#` are comments to all readers.
//! The addresses after `@` are return addresses, those in the comments are calls.

#![forbid(unsafe_code)]

use super::Body;
use super::losses::Losses;
use super::pairs::{self, Pairs};
use super::records::{self, Cursor, Records};
use super::source::{self, Record, Source};
use super::used::Used;
use super::wire::Window;
use crate::profile::buckets::Values;
use crate::profile::heap::{ALLOCATED_BYTES, ALLOCATED_OBJECTS, FREED_BYTES, FREED_OBJECTS};
use crate::profile::label_text::Place;
use crate::profile::{Kind, SampleValues};
use crate::stack::{Frame, LocationId, Marker, StackId};
use crate::target::Target;

/// Encodes a profile as text.
///
/// Records are sorted as Go sorts them: by bytes in use, upwards, or by delay or count, downwards. Without memory
/// for that they come in the table's order.
#[derive(Debug)]
pub struct TextEncoder<'t, T: Target> {
    source: Source<'t, T>,
    symbols: T::Symbols,
    order: Option<Order<T::Scratch>>,
    totals: Values,
    /// The sum of all samples' values.
    estimates: SampleValues,
    losses: Losses,
    /// Samples of the heap that were not watched.
    untracked: u64,
    section: Section,
    cursor: Cursor,
    /// The record, where it is one.
    record: Record,
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
        let (mut lost, mut is_cut) = (0, false);
        for index in 0..source.extent() {
            let Some(Record { stack, counted, .. }) = source.record(index) else {
                continue;
            };
            for location in source.stacks.frames(stack) {
                used.insert(location);
                is_cut |= location == Marker::TooDeep.location();
            }
            if stack == StackId::LOST {
                lost += counted[0];
            }
            let key = sort_key(source.kind, &counted);
            if order.as_mut().is_some_and(|order| !order.push(index, key)) {
                // It came in between: rather all of them unsorted than some of them left out.
                order = None;
            }
            for (total, value) in totals.iter_mut().zip(counted) {
                *total = total.saturating_add(value);
            }
            for (estimate, value) in estimates
                .iter_mut()
                .zip(source.scale.scaled(&counted).values)
            {
                *estimate = estimate.saturating_add(value);
            }
        }
        if let Some(order) = &mut order {
            pairs::sort(order.pairs.as_mut_slice());
        }
        Self {
            symbols: source.symbols(&used),
            order,
            totals,
            estimates,
            losses: source.losses(lost, is_cut),
            untracked: (source.target.profiles().heap).map_or(0, |heap| heap.untracked()),
            section: Section::Head,
            cursor: Cursor::default(),
            record: Record::EMPTY,
            source,
        }
    }

    fn find_record(&mut self) -> bool {
        while let Some(index) = self.record_number() {
            if let Some(record) = self.source.record(index) {
                self.record = record;
                return true;
            }
            self.cursor.index += 1;
        }
        false
    }

    fn record_number(&self) -> Option<usize> {
        match &self.order {
            Some(order) => order.record(self.cursor.index),
            None => Some(self.cursor.index).filter(|&index| index < self.source.extent()),
        }
    }

    fn render_head(&self, sink: &mut Window<'_>) {
        match self.source.kind {
            Kind::Heap | Kind::Allocs => {
                let mut totals = HeapCounts::of(&self.totals);
                // As Go: where nothing was freed so far, readers would take equal figures for a profile that has
                // those of the memory in use only.
                totals.allocated[1] = totals.allocated[1].max(totals.in_use[1].saturating_add(1));
                // As Go: twice the rate; readers halve it.
                let rate = self.source.scale.period().saturating_mul(2);
                sink.text("heap profile: ");
                totals.render(sink);
                sink.numbers(" @ heap/$\n", &[rate]);
            }
            // Delays are in nanoseconds.
            Kind::Block => sink.text("--- contention:\ncycles/second=1000000000\n"),
            Kind::Mutex => {
                sink.text("--- mutex:\ncycles/second=1000000000\nsampling period=1\n");
            }
            kind => {
                sink.text(kind.name());
                sink.numbers(" profile: total $\n", &[self.totals[0]]);
            }
        }
        if !self.source.note.is_empty() {
            sink.text("# ");
            sink.text(self.source.note);
            sink.byte(b'\n');
        }
        for line in 0..self.losses.count() {
            sink.text("# ");
            self.losses.render_line(line, sink);
            sink.byte(b'\n');
        }
    }

    fn render_record(&self, sink: &mut Window<'_>) {
        let Record {
            stack,
            labels,
            counted,
        } = &self.record;
        match self.source.kind {
            Kind::Heap | Kind::Allocs => HeapCounts::of(counted).render(sink),
            Kind::Block | Kind::Mutex => sink.numbers("$ $", &[counted[1], counted[0]]),
            _ => sink.decimal(counted[0]),
        }
        sink.text(" @");
        let frames = || {
            let locations = self.source.stacks.frames(*stack);
            locations.map(|location| (location, self.source.stacks.location(location)))
        };
        for (_, frame) in frames() {
            match frame {
                Frame::Pc(pc) => {
                    sink.byte(b' ');
                    sink.hex(pc.wrapping_add(1));
                }
                // Readers want an address, and subtract one.
                Frame::Marker(_) => sink.text(" 0x1"),
            }
        }
        sink.byte(b'\n');
        if let Some(table) = self.source.labels {
            table.write(*labels, Place::Line, sink);
        }
        for (location, frame) in frames() {
            match frame {
                Frame::Pc(pc) => self.render_frame(sink, location, pc),
                Frame::Marker(marker) => {
                    sink.text("#\t0x0\t");
                    sink.text(marker.name());
                    sink.byte(b'\n');
                }
            }
        }
        sink.byte(b'\n');
    }

    fn render_frame(&self, sink: &mut Window<'_>, location: LocationId, pc: usize) {
        let mut is_known = false;
        for (name, file, line) in source::functions::<T>(&self.symbols, location) {
            sink.text("#\t");
            sink.hex(pc);
            sink.byte(b'\t');
            sink.text(name);
            sink.byte(b'\t');
            sink.text(file);
            sink.numbers(":$\n", &[line.into()]);
            is_known = true;
        }
        if !is_known {
            sink.text("#\t");
            sink.hex(pc);
            sink.byte(b'\n');
        }
    }

    /// Of the numbers that Go prints here (readers ignore them), those that are known.
    fn render_tail(&self, sink: &mut Window<'_>) {
        if !self.is_heap() {
            return;
        }
        let [objects, bytes, live_objects, live_bytes] = self.estimates;
        let frees = objects.saturating_sub(live_objects);
        let estimates = [live_bytes, bytes, objects, frees, live_objects];
        sink.text("\n# runtime.MemStats (estimated from the samples)\n");
        sink.numbers(
            "# Alloc = %\n# TotalAlloc = %\n# Mallocs = %\n# Frees = %\n# HeapObjects = %\n",
            &estimates.map(|estimate| estimate as u64),
        );
        sink.numbers(
            "# Samples lost = $\n# Samples not watched until freed = $\n",
            &[self.losses.samples(), self.untracked],
        );
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
                Section::Records => (self.find_record(), Section::Tail),
                Section::Tail | Section::Done => (self.cursor.index == 0, Section::Done),
            };
            if found {
                return true;
            }
            self.section = next;
            self.cursor.index = 0;
        }
        false
    }

    fn render(&self, window: &mut Window<'_>) {
        match self.section {
            Section::Head => self.render_head(window),
            Section::Records => self.render_record(window),
            Section::Tail => self.render_tail(window),
            Section::Done => {}
        }
    }
}

impl<T: Target> Body for TextEncoder<'_, T> {
    fn fill(&mut self, out: &mut [u8]) -> usize {
        records::fill::<dyn Records>(self, out)
    }
}

/// `<objects>: <bytes> [<objects>: <bytes>]`: in use, and in brackets allocated so far; as sampled, unscaled.
struct HeapCounts {
    in_use: [u64; 2],
    allocated: [u64; 2],
}

impl HeapCounts {
    #[inline(never)]
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

    fn render(&self, sink: &mut Window<'_>) {
        let ([objects, bytes], [all_objects, all_bytes]) = (self.in_use, self.allocated);
        sink.numbers("$: $ [$: $]", &[objects, bytes, all_objects, all_bytes]);
    }
}

/// What records are sorted by.
fn sort_key(kind: Kind, counted: &Values) -> u64 {
    match kind {
        Kind::Heap | Kind::Allocs => HeapCounts::of(counted).in_use[1],
        Kind::Block | Kind::Mutex => u64::MAX - counted[1],
        _ => u64::MAX - counted[0],
    }
}

/// The numbers of the records in the order to show them: each behind the key that it is sorted by.
#[derive(Debug)]
struct Order<S> {
    pairs: Pairs<S>,
}

impl<S: AsRef<[u64]> + AsMut<[u64]>> Order<S> {
    /// No records, and room for as many as there are; `None` without memory for that, and where they are sorted as
    /// they come.
    fn new<T: Target<Scratch = S>>(source: &Source<'_, T>) -> Option<Self> {
        let pairs = Pairs::with_room(source.unsorted()?, |words| source.target.scratch(words))?;
        Some(Self { pairs })
    }

    /// One more; false if there's no room for it.
    fn push(&mut self, record: usize, key: u64) -> bool {
        self.pairs.push([key, record as u64])
    }

    fn record(&self, index: usize) -> Option<usize> {
        let [_, record] = *self.pairs.as_slice().get(index)?;
        usize::try_from(record).ok()
    }
}
