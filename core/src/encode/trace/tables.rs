//! The stacks and strings of a generation, which go out at its end: only then are names asked for.

#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use super::ids::{Entry, Ids};
use super::text::Text;
use super::wire;
use crate::encode::reasons::Reasons;
use crate::encode::records::{Cursor, Records};
use crate::encode::source;
use crate::encode::used::{self, Used};
use crate::encode::wire::{Window, varint};
use crate::profile::labels::{LabelSetId, Labels};
use crate::profile::trace::name::clipped;
use crate::profile::trace::{Trace, TraceHost};
use crate::profile::{Role, Wait};
use crate::stack::{Frame, LocationId, StackId, Stacks};
use crate::target::{Symbols, Target};

/// Slots of a table whose entries are a batch, and strings of the code.
const CHUNK: usize = 16;
/// Words that a thread's name is kept in: a byte for its length, and the others for itself.
const NAME_WORDS: usize = 4;
const NAME_BYTES: usize = NAME_WORDS * size_of::<u64>();
/// How the names of functions begin that stand between what waits and what records that: the leaf is the former.
const MACHINERY: [&str; 2] = ["core::task::wake::", "picoprof::profile::task::"];

/// What is known of a generation once nothing more happens in it.
#[derive(Debug)]
pub(super) struct Tables<'t, T: Target> {
    target: &'t T,
    host: &'t dyn TraceHost,
    trace: Trace<'static>,
    stacks: Stacks<'t>,
    labels: Option<Labels<'t>>,
    generation: u32,
    /// The time that its batches have.
    time: u64,
    used: Used<T::Scratch>,
    symbols: T::Symbols,
    reasons: Option<Reasons<T::Scratch>>,
    /// The threads' names as they were when the generation ended, by their slots: what is written must be the same as often as it
    /// is. `None` without memory for them; there a thread's name never changes.
    threads: Option<T::Scratch>,
    /// A bit for each of the code's strings that some frame has; `None` without memory for that, and then all are written.
    named: Option<T::Scratch>,
    /// The number of the code's first string, and of the first address's that has no name.
    first_symbol: u64,
    first_address: u64,
    part: Part,
    cursor: Cursor,
}

/// What a batch is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Stacks,
    Names,
    Reasons,
    Symbols,
    Addresses,
}

impl<'t, T: Target> Tables<'t, T> {
    /// Looks up all that is asked for, which may take its time. `strings` have numbers already.
    pub(super) fn new(
        target: &'t T,
        host: &'t dyn TraceHost,
        stacks_used: &Ids<'_>,
        names: &Ids<'_>,
        generation: u32,
        time: u64,
        strings: u32,
    ) -> Self {
        let profiles = target.profiles();
        let stacks = profiles.stacks;
        let mut used = Used::marked(&stacks, |words| target.scratch(words));
        for entry in (0..stacks_used.slots()).filter_map(|slot| stacks_used.at(slot)) {
            for location in stacks.frames(stack_of(entry)) {
                used.insert(location);
            }
        }
        let symbols = source::symbols(target, &stacks, &used);
        let first_symbol = u64::from(strings) + 1;
        let mut count = 0;
        while symbols.string(count).is_some() {
            count += 1;
        }
        let words = (count as usize).div_ceil(64);
        let mut named = target.scratch(words).filter(|_| words > 0);
        if let Some(named) = &mut named {
            let functions = (0..).map_while(|index| symbols.function(index));
            for string in functions.flat_map(|it| [it.name, it.filename]) {
                if let Some(word) = named.as_mut().get_mut(string as usize / 64) {
                    *word |= 1 << (string % 64);
                }
            }
        }
        let mut threads = target.scratch(NAME_WORDS * names.slots());
        if let Some(threads) = &mut threads {
            let entries = (0..names.slots()).filter_map(|slot| names.at(slot));
            for (slot, stream) in entries.filter_map(|it| Some((it.slot, stream_of(it)?))) {
                let mut name = ThreadName([0; NAME_BYTES]);
                // What doesn't fit is cut off.
                let _ = host.stream_name(stream, &mut name);
                let words = threads.as_mut().get_mut(NAME_WORDS * slot..);
                let (bytes, _) = name.0.as_chunks();
                for (to, &word) in words.unwrap_or_default().iter_mut().zip(bytes) {
                    *to = u64::from_le_bytes(word);
                }
            }
        }
        Self {
            target,
            host,
            threads,
            trace: host.buffers(),
            named,
            stacks,
            labels: profiles.labels,
            generation,
            time,
            reasons: Reasons::new(target, &stacks, &used, &symbols),
            used,
            symbols,
            first_symbol,
            first_address: first_symbol + u64::from(count),
            part: Part::Stacks,
            cursor: Cursor::default(),
        }
    }

    /// An address's number among the strings, if it is one that has no name.
    fn address(&self, location: LocationId) -> u64 {
        self.first_address + used::place_of(location) as u64
    }

    fn is_address(&self, place: usize) -> Option<LocationId> {
        let location = used::location_at(place).filter(|&location| self.used.contains(location))?;
        self.symbols.lines(location).is_empty().then_some(location)
    }

    /// Calls `f` with each frame of a stack, leaf first.
    fn frames(&self, entry: Entry, f: &mut dyn FnMut([u64; 4])) {
        let name = entry.key >> 32;
        // The outermost says whose the stack is.
        let mut room = wire::MAX_FRAMES - usize::from(name != 0);
        let mut is_leaf = true;
        for location in self.stacks.frames(stack_of(entry)) {
            let lines = self.symbols.lines(location);
            if lines.is_empty() && room > 0 {
                room -= 1;
                is_leaf = false;
                // Readers know a frame by its address: here it is the real one, for whoever knows names.
                let pc = match self.stacks.location(location) {
                    Frame::Pc(pc) => pc as u64,
                    Frame::Marker(_) => u64::MAX - used::place_of(location) as u64,
                };
                f([pc, self.address(location), 0, 0]);
            }
            for (depth, line) in lines.iter().enumerate() {
                let Some(function) = self.symbols.function(line.function).filter(|_| room > 0)
                else {
                    continue;
                };
                if is_leaf && self.is_profilers(function.name) {
                    continue;
                }
                room -= 1;
                is_leaf = false;
                // Any number will do that no other frame has.
                let pc = (used::place_of(location) as u64) << 8 | depth.min(255) as u64;
                f([
                    pc << 1 | 1,
                    self.first_symbol + u64::from(function.name),
                    self.first_symbol + u64::from(function.filename),
                    u64::from(line.line),
                ]);
            }
        }
        if name != 0 {
            f([(1 << 40 | name) << 1 | 1, name, 0, 0]);
        }
    }

    fn is_profilers(&self, name: u32) -> bool {
        let name = self.symbols.string(name).unwrap_or_default();
        let path = name.strip_prefix('<').unwrap_or(name);
        MACHINERY.iter().any(|it| path.starts_with(it))
            || self.target.role_of(name) == Role::Profiler
    }

    /// One of the code's strings, if some frame has it.
    fn symbol(&self, index: usize) -> Option<&str> {
        let word = (self.named.as_ref()).map_or(Some(u64::MAX), |named| {
            named.as_ref().get(index / 64).copied()
        })?;
        let text = self.symbols.string(u32::try_from(index).ok()?)?;
        (word >> (index % 64) & 1 == 1).then_some(text)
    }

    fn stack(&self, out: &mut Window<'_>, entry: Entry) {
        let mut count = 0;
        self.frames(entry, &mut |_| count += 1);
        out.byte(wire::STACK);
        varint(out, u64::from(entry.number));
        varint(out, count);
        self.frames(entry, &mut |frame| {
            frame.into_iter().for_each(|number| varint(out, number));
        });
    }

    fn name(&self, out: &mut dyn Write, entry: Entry) -> fmt::Result {
        match Text::of_bits(entry.key) {
            Text::Name(0) => out.write_str("task"),
            Text::Name(number) => out.write_str(self.trace.name(number)),
            Text::Thread(_) | Text::Created(_) => self.thread(out, entry),
            Text::Labels(set) => self.set(out, LabelSetId::from_bits(set)),
            Text::Word(word) => out.write_str(word.as_str()),
        }
    }

    fn thread(&self, out: &mut dyn Write, entry: Entry) -> fmt::Result {
        let Some(stream) = stream_of(entry) else {
            return out.write_str("thread");
        };
        out.write_str("thread ")?;
        let Some(threads) = &self.threads else {
            return self.host.stream_name(stream, out);
        };
        let words = threads.as_ref().get(NAME_WORDS * entry.slot..);
        let mut name = ThreadName([0; NAME_BYTES]);
        let (bytes, _) = name.0.as_chunks_mut();
        for (to, word) in bytes.iter_mut().zip(words.unwrap_or_default()) {
            *to = word.to_le_bytes();
        }
        out.write_str(name.as_str())
    }

    fn set(&self, out: &mut dyn Write, set: LabelSetId) -> fmt::Result {
        let Some(labels) = self.labels else {
            return Ok(());
        };
        let mut separator = "";
        for (key, value) in labels.pairs(set) {
            for part in [separator, key.as_str(), "=", value.as_str()] {
                out.write_str(part)?;
            }
            separator = ",";
        }
        Ok(())
    }

    fn reason(&self, entry: Entry) -> &'static str {
        let frames = self.stacks.frames(stack_of(entry));
        let wait = self.reasons.as_ref().and_then(|it| it.wait_of(frames));
        reason_of(wait)
    }

    fn address_text(&self, out: &mut dyn Write, location: LocationId) -> fmt::Result {
        let pc = match self.stacks.location(location) {
            Frame::Marker(marker) => return out.write_str(marker.name()),
            Frame::Pc(pc) => pc,
        };
        out.write_str("0x")?;
        // All of them: where it isn't known which addresses are used, others come while this is written, and how long it is
        // must stay.
        let digits = usize::BITS / 4;
        (0..digits).rev().try_for_each(|digit| {
            let digit = (pc >> (4 * digit) & 15) as u32;
            out.write_char(char::from_digit(digit, 16).unwrap_or('?'))
        })
    }
}

/// The tables with what was counted in them.
#[derive(Debug)]
pub(super) struct Rendering<'a, 't, T: Target> {
    pub(super) tables: &'a mut Tables<'t, T>,
    pub(super) stacks: &'a Ids<'a>,
    pub(super) names: &'a Ids<'a>,
}

impl<T: Target> Rendering<'_, '_, T> {
    fn entries<'i>(&self, ids: &'i Ids<'i>) -> impl Iterator<Item = Entry> + use<'i, T> {
        let first = self.tables.cursor.index * CHUNK;
        (first..first + CHUNK).filter_map(|slot| ids.at(slot))
    }

    /// Whether the cursor's batch has anything in it; `None` behind the part's last one.
    fn has_any(&self) -> Option<bool> {
        let first = self.tables.cursor.index * CHUNK;
        match self.tables.part {
            Part::Stacks => {
                (first < self.stacks.slots()).then(|| self.entries(self.stacks).next().is_some())
            }
            Part::Names => {
                (first < self.names.slots()).then(|| self.entries(self.names).next().is_some())
            }
            Part::Reasons => (first < self.stacks.slots())
                .then(|| self.entries(self.stacks).any(|it| it.beside != 0)),
            Part::Symbols => self.tables.symbols.string(first as u32).map(|_| {
                let mut all = first..first + CHUNK;
                all.any(|index| self.tables.symbol(index).is_some())
            }),
            Part::Addresses => {
                let places = used::places(&self.tables.stacks);
                let mut all = first..(first + CHUNK).min(places);
                (first < places).then(|| all.any(|it| self.tables.is_address(it).is_some()))
            }
        }
    }

    fn payload(&self, out: &mut Window<'_>) {
        let tables = &*self.tables;
        let first = tables.cursor.index * CHUNK;
        out.byte(match tables.part {
            Part::Stacks => wire::STACKS,
            _ => wire::STRINGS,
        });
        match tables.part {
            Part::Stacks => self
                .entries(self.stacks)
                .for_each(|entry| tables.stack(out, entry)),
            Part::Names => self.entries(self.names).for_each(|entry| {
                string(out, u64::from(entry.number), &|out| tables.name(out, entry));
            }),
            Part::Reasons => {
                let entries = self.entries(self.stacks).filter(|it| it.beside != 0);
                entries.for_each(|entry| {
                    let reason = tables.reason(entry);
                    string(out, u64::from(entry.beside), &|out| out.write_str(reason));
                });
            }
            Part::Symbols => {
                for index in first..first + CHUNK {
                    if let Some(text) = tables.symbol(index) {
                        let number = tables.first_symbol + index as u64;
                        string(out, number, &|out| out.write_str(text));
                    }
                }
            }
            Part::Addresses => {
                for location in (first..first + CHUNK).filter_map(|place| tables.is_address(place))
                {
                    string(out, tables.address(location), &|out| {
                        tables.address_text(out, location)
                    });
                }
            }
        }
    }
}

impl<T: Target> Records for Rendering<'_, '_, T> {
    fn cursor(&mut self) -> &mut Cursor {
        &mut self.tables.cursor
    }

    fn find(&mut self) -> bool {
        loop {
            match self.has_any() {
                Some(true) => return true,
                Some(false) => self.tables.cursor.index += 1,
                None => {
                    self.tables.part = match self.tables.part {
                        Part::Stacks => Part::Names,
                        Part::Names => Part::Reasons,
                        Part::Reasons => Part::Symbols,
                        Part::Symbols => Part::Addresses,
                        Part::Addresses => return false,
                    };
                    self.tables.cursor.index = 0;
                }
            }
        }
    }

    fn render(&self, out: &mut Window<'_>) {
        let mut counting = Window::counting();
        self.payload(&mut counting);
        out.byte(wire::EVENT_BATCH);
        // Whose it is doesn't matter.
        let head = [u64::from(self.tables.generation), 0, self.tables.time];
        head.into_iter().for_each(|number| varint(out, number));
        varint(out, counting.count() as u64);
        self.payload(out);
    }
}

/// The stream that an entry is the name of.
fn stream_of(entry: Entry) -> Option<u32> {
    match Text::of_bits(entry.key) {
        Text::Thread(stream) => Some(stream),
        Text::Created(_) if entry.beside != 0 => Some(entry.beside),
        _ => None,
    }
}

/// A name of up to 31 bytes, and how many those are in front.
struct ThreadName([u8; NAME_BYTES]);

impl ThreadName {
    fn as_str(&self) -> &str {
        let [len, bytes @ ..] = &self.0;
        let bytes = bytes.get(..usize::from(*len)).unwrap_or_default();
        str::from_utf8(bytes).unwrap_or_default()
    }
}

impl Write for ThreadName {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let [len, bytes @ ..] = &mut self.0;
        let room = bytes.get_mut(usize::from(*len)..).unwrap_or_default();
        let fits = clipped(text, room.len());
        for (to, byte) in room.iter_mut().zip(fits.bytes()) {
            *to = byte;
        }
        *len += fits.len() as u8;
        Ok(())
    }
}

fn stack_of(entry: Entry) -> StackId {
    StackId::from_bits(entry.key as u32)
}

/// A string of a table, cut off where readers would refuse it.
fn string(out: &mut Window<'_>, number: u64, write: &dyn Fn(&mut dyn Write) -> fmt::Result) {
    let mut counting = Window::counting();
    // To a window, what is cut off is the only error.
    let _ = write(&mut Clipping::new(&mut counting));
    out.byte(wire::STRING);
    varint(out, number);
    varint(out, counting.count() as u64);
    let _ = write(&mut Clipping::new(out));
}

/// Lets as much through as a string may have.
struct Clipping<'a, 'w> {
    out: &'a mut Window<'w>,
    room: usize,
}

impl<'a, 'w> Clipping<'a, 'w> {
    fn new(out: &'a mut Window<'w>) -> Self {
        Self {
            out,
            room: wire::MAX_STRING,
        }
    }
}

impl Write for Clipping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = clipped(text, self.room);
        self.out.bytes(fits.as_bytes());
        self.room -= fits.len();
        if fits.len() < text.len() {
            // Nothing more, even if it would fit.
            self.room = 0;
            return Err(fmt::Error);
        }
        Ok(())
    }
}

/// Go's reason for a wait: its tools make profiles of those with "chan", "sync" or "select" in it, and of "network".
const fn reason_of(wait: Option<Wait>) -> &'static str {
    match wait {
        Some(Wait::Receive) => "chan receive",
        Some(Wait::Send) => "chan send",
        Some(Wait::Condition) => "sync.(*Cond).Wait",
        Some(Wait::Sleep) => "sleep",
        Some(Wait::Io) => "network",
        Some(Wait::Idle) => "system goroutine wait",
        // Whoever waits is let go on by another.
        _ => "sync",
    }
}
