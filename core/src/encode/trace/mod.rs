//! Go's execution trace (`go 1.22 trace`), of what was recorded.
//!
//! What the streams recorded is read in the order of time (`reader`, `streams`), told to a `world` that knows what Go's readers
//! would believe by then (`goroutines`, `regions`), which answers with events that fit, in batches that are put together in
//! `pieces`. A generation is about a second of that; at its end `tables` has its stacks and strings, which got their
//! numbers (`ids`, `text`) when they were first used. `wire` has the format's numbers.
//!
//! All memory is one piece of the target's scratch memory, as large as the host's [limits](crate::trace::Limits) say.

#![forbid(unsafe_code)]

mod goroutines;
mod ids;
mod pieces;
mod reader;
mod regions;
mod streams;
mod tables;
#[cfg(all(test, not(loom)))]
mod tests;
mod text;
mod wire;
mod world;

use core::fmt;

use self::goroutines::Goroutines;
use self::ids::Ids;
use self::pieces::{Bytes, Pieces, PiecesState};
use self::reader::{Position, Reader};
use self::regions::Regions;
use self::streams::Streams;
use self::tables::{Rendering, Tables};
use self::world::{Scalars, World};
use super::records;
use super::wire::Window;
use crate::profile::trace::event::Recorded;
use crate::profile::trace::host::{
    GOROUTINE_WORDS, ID_WORDS, PIECE_WORDS, REGION_WORDS, STREAM_WORDS, slots,
};
use crate::profile::trace::name::clipped;
use crate::profile::trace::state::{FlightRecorder, Session};
use crate::profile::trace::{Limits, TraceHost};
use crate::target::Target;

/// Pieces that must be free before a fact is told: for what it makes a thread, another, and a string.
const FREE_PIECES: usize = 3;
/// The most units of time in a second, so that most differences take a byte or two.
const MAX_FREQUENCY: u64 = 1 << 26;
/// How long an event may take to get into its buffer, as a part of a second, before others go out that came after it.
const GRACE: u64 = 2000;
/// How often the heap's size is looked at, as a part of a second.
const HEAP_LOOKS: u64 = 10;
/// The most bytes of a log's text.
const MAX_TEXT: usize = 256;

/// What part of what happens a trace shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Span {
    /// What is recorded from now on.
    FromNow,
    /// What the flight recorder has.
    Flight,
}

/// Encodes a trace while it is recorded.
pub struct TraceEncoder<'t, T: Target> {
    target: &'t T,
    host: &'t dyn TraceHost,
    limits: Limits,
    memory: T::Scratch,
    /// While something is recorded for this trace.
    session: Option<Session>,
    kept: Kept,
    phase: Phase<'t, T>,
    /// How much of what goes out now has gone.
    sent: usize,
    is_over: bool,
}

/// What is kept between two calls, besides the tables in memory.
#[derive(Debug)]
struct Kept {
    scalars: Scalars,
    pieces: PiecesState,
    position: Position,
    goroutines: usize,
    streams: usize,
    stacks: usize,
    names: usize,
    /// By how many bits ticks are shifted to get the trace's units, and how many of those are in a second.
    shift: u32,
    frequency: u64,
    /// The time of the generation's begin, in units.
    began: u64,
    /// Whether its first batch is made.
    has_begun: bool,
    /// What was said to be lost.
    lost: u64,
    /// What the recorder had lost before this trace, and names that found no room.
    lost_before: u64,
    /// Whether it was looked in this call what there is to be read.
    has_looked: bool,
    /// When the heap's size was looked at last.
    heap_seen: u64,
}

#[allow(
    clippy::large_enum_variant,
    reason = "there is no heap to put the large one in"
)]
#[derive(Debug)]
enum Phase<'t, T: Target> {
    Header,
    /// Facts become events.
    Telling,
    /// All that was told goes out, and then the tables.
    Closing,
    Tables(Tables<'t, T>),
    Done,
}

/// What came of [`TraceEncoder::fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// So many bytes are in the buffer. There may be more.
    Wrote(usize),
    /// There's nothing yet: ask again in some milliseconds.
    Nothing,
    /// That was all.
    Done,
}

/// Why a trace did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TraceError {
    /// Nothing is recorded for traces here.
    Unavailable,
    /// Somebody else's is being taken.
    AlreadyEnabled,
    /// There's no memory for it.
    NoMemory,
    /// The flight recorder isn't on.
    NotRecording,
}

impl<'t, T: Target> TraceEncoder<'t, T> {
    /// Begins to record, or to read what was.
    ///
    /// # Errors
    ///
    /// See [`TraceError`].
    pub fn new(target: &'t T, span: Span) -> Result<Self, TraceError> {
        let host = target.trace().ok_or(TraceError::Unavailable)?;
        let limits = host.limits().at_least();
        let is_flight = span == Span::Flight;
        if is_flight && !FlightRecorder::is_on() {
            return Err(TraceError::NotRecording);
        }
        // Where there's memory for one, that is why there's none.
        if !is_flight && Session::is_on() {
            return Err(TraceError::AlreadyEnabled);
        }
        let memory = target.scratch(limits.words()).ok_or(TraceError::NoMemory)?;
        host.refresh();
        let trace = host.buffers();
        let ticks_per_second = host.ticks_per_second().max(1);
        let shift = (0..64).find(|shift| ticks_per_second >> shift <= MAX_FREQUENCY);
        let shift = shift.unwrap_or(0);
        let ticks = host.ticks();
        let turn = trace.turn();
        let position = if is_flight {
            // From the oldest on. What is lost before is no loss.
            Position {
                first_turn: turn.wrapping_sub(trace.len() as u32),
                start: 0,
                end: ticks,
                seen: 0,
                lost: 0,
            }
        } else {
            Position {
                first_turn: turn,
                start: ticks,
                end: u64::MAX - 1,
                seen: 0,
                lost: 0,
            }
        };
        let session = if is_flight {
            None
        } else {
            Some(Session::begin().ok_or(TraceError::AlreadyEnabled)?)
        };
        let mut encoder = Self {
            target,
            host,
            limits,
            memory,
            session,
            kept: Kept {
                scalars: Scalars {
                    now: (ticks >> shift).max(1),
                    ..Scalars::NEW
                },
                pieces: PiecesState::NEW,
                position,
                goroutines: 0,
                streams: 0,
                stacks: 0,
                names: 0,
                shift,
                frequency: ticks_per_second >> shift,
                began: 0,
                has_begun: false,
                lost: 0,
                lost_before: trace.lost(),
                has_looked: false,
                heap_seen: 0,
            },
            phase: Phase::Header,
            sent: 0,
            is_over: is_flight,
        };
        encoder.look_around(ticks);
        if is_flight {
            let first = encoder.first_time().unwrap_or(ticks);
            encoder.kept.scalars.now = (first >> shift).max(1);
        }
        encoder.kept.began = encoder.kept.scalars.now;
        Ok(encoder)
    }

    /// Whose trace it is.
    pub(crate) const fn target(&self) -> &'t T {
        self.target
    }

    /// Writes the next bytes to the front of `out`, which is not empty. Once `is_over`, nothing is recorded any more, and
    /// what was goes out. Never blocks.
    ///
    /// What is recorded between two calls must fit in the buffers, or the oldest is lost.
    pub fn fill(&mut self, out: &mut [u8], is_over: bool) -> Filled {
        if is_over && !self.is_over {
            self.is_over = true;
            // First, so that what is read then is all. Others may go on recording.
            self.session = None;
            self.kept.position.end = self.host.ticks();
        }
        self.kept.has_looked = false;
        let mut filled = 0;
        while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let n = self.send(rest);
            filled += n;
            if n == 0 && !self.advance() {
                break;
            }
        }
        match (filled, &self.phase) {
            (0, Phase::Done) => Filled::Done,
            (0, _) => Filled::Nothing,
            (n, _) => Filled::Wrote(n),
        }
    }

    /// Writes what is ready to be sent; 0 if nothing is.
    fn send(&mut self, out: &mut [u8]) -> usize {
        match &mut self.phase {
            Phase::Header => {
                let mut window = Window::new(out);
                let sent = window.record(self.sent, |window| window.bytes(wire::HEADER));
                self.sent = sent.unwrap_or(0);
                if sent.is_none() {
                    self.phase = Phase::Telling;
                    return window.filled();
                }
                window.filled()
            }
            Phase::Telling | Phase::Closing => {
                let sent = self.sent;
                let (n, is_end) = self.world().pieces.send(sent, out);
                self.sent = if is_end { 0 } else { sent + n };
                n
            }
            Phase::Tables(tables) => {
                let (stacks, names) = split_ids(self.memory.as_mut(), &self.limits, &mut self.kept);
                let mut rendering = Rendering {
                    tables,
                    stacks: &stacks,
                    names: &names,
                };
                records::fill(&mut rendering, out)
            }
            Phase::Done => 0,
        }
    }

    /// Makes something that can be sent; false if there's nothing to be made of yet, or any more.
    fn advance(&mut self) -> bool {
        match self.phase {
            Phase::Header => true,
            Phase::Telling => self.tell(),
            Phase::Closing => {
                let generation = self.kept.scalars.generation;
                if self.world().pieces.complete_largest(generation) {
                    return true;
                }
                let (target, host) = (self.target, self.host);
                let (time, strings) = (self.kept.began, self.kept.scalars.strings);
                let (stacks, names) = split_ids(self.memory.as_mut(), &self.limits, &mut self.kept);
                let tables = Tables::new(target, host, &stacks, &names, generation, time, strings);
                self.phase = Phase::Tables(tables);
                true
            }
            // All are out.
            Phase::Tables(_) => {
                let is_end = self.is_over && self.first_time().is_none();
                self.phase = if is_end { Phase::Done } else { Phase::Telling };
                if !is_end {
                    self.next_generation();
                }
                !is_end
            }
            Phase::Done => false,
        }
    }

    fn next_generation(&mut self) {
        self.host.refresh();
        self.kept.has_begun = false;
        self.kept.began = self.kept.scalars.now;
        let mut world = self.world();
        world.scalars.generation += 1;
        world.scalars.strings = 0;
        world.scalars.stacks = 0;
        world.scalars.has_events = false;
        world.stacks.clear();
        world.names.clear();
    }

    /// Begins a generation once something is told in it: Go 1.22 takes none without events. There must be a free piece.
    fn begin_generation(&mut self) {
        if core::mem::replace(&mut self.kept.has_begun, true) {
            return;
        }
        let mut bytes = Bytes::<16>::new();
        bytes.push(wire::FREQUENCY);
        bytes.varint(self.kept.frequency);
        let mut world = self.world();
        let (now, generation) = (world.scalars.now, world.scalars.generation);
        if let Some(piece) = world.pieces.open(pieces::FREQUENCY, now) {
            world.pieces.append(piece, now, bytes.as_slice());
            world.pieces.complete(piece, generation);
        }
    }

    /// Tells the world a fact, or ends the generation; false if there's no fact yet.
    fn tell(&mut self) -> bool {
        let shift = self.kept.shift;
        let end = self.kept.began + self.kept.frequency;
        let mut next = self.first_time();
        if next.is_none_or(|time| time > self.kept.position.seen) {
            // Once in a call, or whoever records faster than this reads would keep it for ever.
            if core::mem::replace(&mut self.kept.has_looked, true) && !self.is_over {
                return false;
            }
            let now = self.host.ticks();
            let grace = self.host.ticks_per_second() / GRACE;
            self.look_around(if self.is_over {
                now
            } else {
                now.saturating_sub(grace)
            });
            next = self.first_time();
            self.look_at_heap(now);
        }
        let limit = if self.is_over {
            u64::MAX
        } else {
            self.kept.position.seen
        };
        let Some(time) = next.filter(|&time| time <= limit) else {
            if self.is_over {
                let is_empty = !self.kept.has_begun && self.kept.scalars.generation > 1;
                if is_empty && self.lost() == self.kept.lost {
                    self.phase = Phase::Done;
                } else {
                    self.close();
                }
                return true;
            }
            // Something was told: it goes out in time, whether or not more comes.
            if self.kept.has_begun && self.kept.position.seen >> shift >= end {
                self.close();
                return true;
            }
            return false;
        };
        if time >> shift >= end && self.kept.scalars.now == self.kept.began {
            // Nothing happened for long, and nothing was told: it begins here.
            self.kept.began = time >> shift;
            self.kept.scalars.now = self.kept.began;
        }
        let end = self.kept.began + self.kept.frequency;
        if time >> shift >= end || self.world().is_full() {
            self.close();
            return true;
        }
        if !self.has_free_pieces() {
            return true;
        }
        self.begin_generation();
        let (mut reader, mut world) = self.reader_and_world();
        let Some((index, _, others)) = world.streams.first() else {
            return false;
        };
        // As many of the same stream as come before another's.
        while let Some(stream) = world.streams.get(index) {
            if stream.next > others.min(limit)
                || stream.next >> shift >= end
                || world.pieces.free() < FREE_PIECES
                || world.pieces.has_complete()
                || world.is_full()
            {
                break;
            }
            if let Some(event) = reader.read(&mut world.streams, index) {
                let mut string = 0;
                if let Recorded::Log { .. } = event.recorded {
                    world.scalars.now = world.scalars.now.max(event.time >> shift);
                    let mut text = [0; MAX_TEXT];
                    let text = clipped(reader.text(&event, &mut text), world.max_string());
                    string = world.add_string(text);
                }
                world.tell(index, event.time >> shift, event.recorded, string);
            }
            reader.find_next(&mut world.streams, index);
        }
        true
    }

    /// Ends the generation, and says what was lost in it.
    fn close(&mut self) {
        if !self.has_free_pieces() {
            return;
        }
        self.phase = Phase::Closing;
        self.begin_generation();
        let lost = self.lost();
        if lost != self.kept.lost {
            let more = lost.wrapping_sub(self.kept.lost);
            self.kept.lost = lost;
            let mut text = [0; 128];
            let mut window = Window::new(&mut text);
            window.decimal(more);
            window.text(" events were lost: the buffers are too small, or were read too slowly");
            let len = window.filled();
            let mut world = self.world();
            let text = str::from_utf8(text.get(..len).unwrap_or_default());
            let string = world.add_string(text.unwrap_or_default());
            world.remark(string);
        }
        // There must be somebody, or a plot of the viewer's fails; and something, or Go 1.22 does.
        let has_nobody = self.is_over && self.kept.scalars.announced == 0;
        if has_nobody || !self.kept.scalars.has_events {
            let mut world = self.world();
            let string = world.add_string("nothing was recorded");
            world.remark(string);
        }
    }

    /// Facts that are no part of the trace so far.
    fn lost(&self) -> u64 {
        let unrecorded = (self.host.buffers().lost()).wrapping_sub(self.kept.lost_before);
        self.kept.position.lost + self.kept.scalars.lost + unrecorded
    }

    /// Whether a fact may be told. If not, some batch can be sent, and then it will be.
    fn has_free_pieces(&mut self) -> bool {
        let generation = self.kept.scalars.generation;
        let mut world = self.world();
        if world.pieces.free() >= FREE_PIECES {
            return true;
        }
        if !world.pieces.has_complete() {
            world.pieces.complete_largest(generation);
        }
        false
    }

    fn first_time(&mut self) -> Option<u64> {
        let (_, time, _) = self.world().streams.first()?;
        Some(time)
    }

    fn look_around(&mut self, now: u64) {
        let (mut reader, mut world) = self.reader_and_world();
        reader.look_around(&mut world.streams, now);
    }

    /// What the flight recorder has was long ago, so it's without.
    fn look_at_heap(&mut self, now: u64) {
        let pause = self.host.ticks_per_second() / HEAP_LOOKS;
        if self.session.is_none() || now.wrapping_sub(self.kept.heap_seen) < pause {
            return;
        }
        self.kept.heap_seen = now;
        let heap = self.target.profiles().heap;
        self.kept.scalars.heap = heap.map(|heap| heap.in_use()).filter(|&bytes| bytes > 0);
    }

    fn world(&mut self) -> World<'_> {
        self.reader_and_world().1
    }

    fn reader_and_world(&mut self) -> (Reader<'_>, World<'_>) {
        let tasks = self.target.profiles().tasks;
        let limits = &self.limits;
        let mut rest = self.memory.as_mut();
        let mut take = |words: usize| -> &mut [u64] {
            let (taken, others) = core::mem::take(&mut rest)
                .split_at_mut_checked(words)
                .unwrap_or_default();
            rest = others;
            taken
        };
        let stacks = take(ID_WORDS * slots(limits.stacks));
        let names = take(ID_WORDS * slots(limits.names));
        let goroutines = take(GOROUTINE_WORDS * slots(limits.goroutines));
        let streams = take(STREAM_WORDS * limits.streams);
        let regions = take(REGION_WORDS * limits.regions);
        let pieces = take(PIECE_WORDS * limits.pieces);
        let bytes = take(limits.pieces * limits.piece_bytes / 8);
        let kept = &mut self.kept;
        let reader = Reader {
            trace: self.host.buffers(),
            position: &mut kept.position,
        };
        let world = World {
            goroutines: Goroutines::new(goroutines, &mut kept.goroutines),
            streams: Streams::new(streams, &mut kept.streams),
            stacks: Ids::new(stacks, &mut kept.stacks),
            names: Ids::new(names, &mut kept.names),
            regions: Regions::new(regions),
            pieces: Pieces::new(pieces, bytes, limits.piece_bytes, &mut kept.pieces),
            scalars: &mut kept.scalars,
            tasks,
            trace: self.host.buffers(),
        };
        (reader, world)
    }
}

/// The tables of stacks and of names, in the memory's first words.
fn split_ids<'m>(memory: &'m mut [u64], limits: &Limits, kept: &'m mut Kept) -> (Ids<'m>, Ids<'m>) {
    let of_stacks = ID_WORDS * slots(limits.stacks);
    let of_names = ID_WORDS * slots(limits.names);
    let (stacks, rest) = memory.split_at_mut_checked(of_stacks).unwrap_or_default();
    let names = rest.get_mut(..of_names).unwrap_or_default();
    (
        Ids::new(stacks, &mut kept.stacks),
        Ids::new(names, &mut kept.names),
    )
}

impl<T: Target> fmt::Debug for TraceEncoder<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceEncoder")
            .field("kept", &self.kept)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}
