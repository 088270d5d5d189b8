//! What was recorded, stream by stream, in the order of time.
//!
//! Buffers are read while they are written and while others are taken anew. Of each stream the next event's time is known, if
//! it has one. What was overwritten before it was read is counted.

#![forbid(unsafe_code)]

use super::streams::{NEVER, Stream, Streams};
use crate::profile::trace::Trace;
use crate::profile::trace::buffers::{self, Look};
use crate::profile::trace::event::{self, Read, Recorded};

/// What a reader keeps between two looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// Buffers of this turn and earlier ones are of no interest, unless they are still written or are being read.
    pub(super) first_turn: u32,
    /// Nor are events before this time.
    pub(super) start: u64,
    /// Nor after this one.
    pub(super) end: u64,
    /// The latest time that an event was known to be before, when it was looked which buffers there are.
    pub(super) seen: u64,
    /// Events that were overwritten before they were read, and those of streams for which there was no room.
    pub(super) lost: u64,
}

/// An event, and where its text is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) time: u64,
    pub(super) recorded: Recorded,
    text: Option<(Look, u32, u32)>,
}

/// Reads the buffers of a trace.
#[derive(Debug)]
pub(super) struct Reader<'r> {
    pub(super) trace: Trace<'static>,
    pub(super) position: &'r mut Position,
}

impl Reader<'_> {
    /// Looks which buffers there are, at the time `now`.
    pub(super) fn look_around(&mut self, streams: &mut Streams<'_>, now: u64) {
        self.position.seen = now;
        let last = self.trace.turn();
        let count = self.trace.len() as u32;
        // In the order that they were taken in.
        for age in (0..count).rev() {
            let turn = last.wrapping_sub(age) & buffers::TURN;
            self.look_at(streams, turn as usize % count as usize);
        }
        for index in 0..streams.len() {
            self.find_next(streams, index);
        }
        self.pass_what_was_read(streams, last);
    }

    /// Moves on to the first buffer, as far as the turn `last`, that nobody has begun to read. A thread that is over is
    /// forgotten once its buffers are before that: sooner, and they would be taken for those of a new thread.
    fn pass_what_was_read(&mut self, streams: &mut Streams<'_>, last: u32) {
        let count = self.trace.len() as u32;
        // What is older was overwritten.
        let mut first = self.position.first_turn & buffers::TURN;
        let oldest = last.wrapping_sub(count) & buffers::TURN;
        if is_after(oldest, first) {
            first = oldest;
        }
        while is_after(last, first) {
            let turn = first.wrapping_add(1) & buffers::TURN;
            if turn != 0 && !self.is_passed(streams, turn) {
                break;
            }
            first = turn;
        }
        self.position.first_turn = first;
        for index in 0..streams.len() {
            let over = streams.get(index).filter(|stream| stream.is_over);
            if let Some(mut stream) = over
                && !stream.is_read
                && !is_after(stream.turn, first)
            {
                stream.is_read = true;
                streams.set(index, &stream);
            }
        }
    }

    /// Whether there's nothing in the buffer of a turn that somebody has not at least begun to read.
    fn is_passed(&self, streams: &Streams<'_>, turn: u32) -> bool {
        let Some(look) = (self.trace).look(turn as usize % self.trace.len()) else {
            // It is just being taken.
            return false;
        };
        if look.turn != turn {
            // It is a later one's by now, or in this turn was passed over. If not, it is just being taken.
            return is_after(look.turn, turn) || look.is_open;
        }
        let id = self.trace.stream(look);
        match streams.find(id).and_then(|index| streams.get(index)) {
            Some(stream) => stream.has_read_to(turn),
            // Nobody will.
            None => !streams.has_room(),
        }
    }

    fn look_at(&mut self, streams: &mut Streams<'_>, buffer: usize) {
        let Some(look) = self.trace.look(buffer) else {
            return;
        };
        let is_late = is_after(look.turn, self.position.first_turn);
        if !is_late && !look.is_open {
            return;
        }
        let id = self.trace.stream(look);
        if !self.trace.is_still(look) {
            return;
        }
        let known = streams.find(id);
        if let Some(stream) = known.and_then(|index| streams.get(index))
            && (stream.buffer != 0 || stream.has_read_to(look.turn))
        {
            return;
        }
        let Some(index) = known.or_else(|| streams.add(id)) else {
            // Nobody reads it. It's counted when it is next looked at too, so the sum says little more than that.
            self.position.lost += 1;
            return;
        };
        if let Some(mut stream) = streams.get(index) {
            self.enter(&mut stream, look);
            streams.set(index, &stream);
        }
    }

    /// Begins with a buffer of a stream.
    fn enter(&mut self, stream: &mut Stream, look: Look) {
        let [_, low, high, first] = self.trace.begin(look);
        if !self.trace.is_still(look) {
            return;
        }
        if stream.is_counted {
            self.position.lost += u64::from(first.wrapping_sub(stream.expected));
        }
        stream.is_counted = true;
        stream.is_read = false;
        stream.expected = first;
        stream.buffer = look.buffer + 1;
        stream.turn = look.turn;
        stream.place = buffers::HEADER as u32;
        stream.last = u64::from(low) | u64::from(high) << 32;
    }

    /// Finds out when a stream's next event is.
    pub(super) fn find_next(&mut self, streams: &mut Streams<'_>, index: usize) {
        let Some(mut stream) = streams.get(index) else {
            return;
        };
        stream.next = NEVER;
        while let Some(look) = self.look_of(&mut stream) {
            if stream.place < look.len {
                let first = self.trace.word(look, stream.place);
                match event::time_of(first) {
                    Some(delta) => {
                        stream.next = stream.last.wrapping_add(delta);
                        if stream.next > self.position.end {
                            stream.next = NEVER;
                            break;
                        }
                        if stream.next >= self.position.start {
                            break;
                        }
                        // From before the trace.
                        let _ = self.read_at(&mut stream, look);
                    }
                    None => {
                        let [low, high] =
                            [1, 2].map(|ahead| self.trace.word(look, stream.place + ahead));
                        stream.last = u64::from(low) | u64::from(high) << 32;
                        stream.place += event::TIME_WORDS;
                    }
                }
                continue;
            }
            if look.is_open {
                stream.next = NEVER;
                break;
            }
            // It has been read to its end.
            stream.buffer = 0;
        }
        streams.set(index, &stream);
    }

    /// The buffer that a stream is read in; the next one if there's none. It may be no more the stream's: then, too, it goes
    /// on with the next.
    fn look_of(&mut self, stream: &mut Stream) -> Option<Look> {
        if let Some(buffer) = stream.buffer.checked_sub(1) {
            let look = self.trace.look(buffer as usize);
            if let Some(look) = look.filter(|look| look.turn == stream.turn) {
                return Some(look);
            }
            stream.buffer = 0;
        }
        let last = self.trace.turn();
        let count = self.trace.len() as u32;
        let ahead = last.wrapping_sub(stream.turn) & buffers::TURN;
        for age in (0..ahead.min(count)).rev() {
            let turn = last.wrapping_sub(age) & buffers::TURN;
            let look = self.trace.look(turn as usize % count as usize);
            if let Some(look) = look.filter(|look| look.turn == turn)
                && is_after(turn, self.position.first_turn)
                && self.trace.stream(look) == stream.id
            {
                self.enter(stream, look);
                if stream.buffer != 0 {
                    return Some(look);
                }
            }
        }
        None
    }

    /// The stream's next event, at [`Stream::next`]; `None` if it's gone.
    pub(super) fn read(&mut self, streams: &mut Streams<'_>, index: usize) -> Option<Event> {
        let mut stream = streams.get(index)?;
        let turn = stream.turn;
        let look = self.look_of(&mut stream);
        // In another buffer it is to be found first.
        let look = look.filter(|look| stream.turn == turn && stream.place < look.len);
        let event = look.and_then(|look| self.read_at(&mut stream, look));
        streams.set(index, &stream);
        event
    }

    fn read_at(&mut self, stream: &mut Stream, look: Look) -> Option<Event> {
        let read = Read::of(|ahead| self.trace.word(look, stream.place + ahead));
        if !self.trace.is_still(look) {
            stream.buffer = 0;
            return None;
        }
        let Some(read) = read.filter(|read| stream.place + read.words <= look.len) else {
            // Not what anybody writes.
            stream.place = look.len;
            return None;
        };
        let text = read
            .text
            .map(|(ahead, len)| (look, stream.place + ahead, len));
        stream.place += read.words;
        stream.last = stream.last.wrapping_add(read.delta);
        stream.expected = stream.expected.wrapping_add(1);
        Some(Event {
            time: stream.last,
            recorded: read.recorded,
            text,
        })
    }

    /// An event's text, as far as there's room; empty if it's gone.
    pub(super) fn text<'t>(&self, event: &Event, room: &'t mut [u8]) -> &'t str {
        let Some((look, place, len)) = event.text else {
            return "";
        };
        let len = room.len().min(len as usize);
        let room = room.get_mut(..len).unwrap_or_default();
        for (ahead, bytes) in room.chunks_mut(size_of::<u32>()).enumerate() {
            let word = self.trace.word(look, place + ahead as u32).to_le_bytes();
            bytes.iter_mut().zip(word).for_each(|(to, byte)| *to = byte);
        }
        if !self.trace.is_still(look) {
            return "";
        }
        // It may be cut within a character.
        let whole = room.utf8_chunks().next();
        whole.map_or("", |chunk| chunk.valid())
    }
}

impl Stream {
    /// Whether a buffer of its that was taken in this turn has been read, or is being read.
    fn has_read_to(&self, turn: u32) -> bool {
        // 0 is before all turns, however far they are.
        self.turn != 0 && !is_after(turn, self.turn)
    }
}

/// Whether one turn came after another. They count from 1 again after 2^31.
const fn is_after(turn: u32, other: u32) -> bool {
    let ahead = turn.wrapping_sub(other) & buffers::TURN;
    ahead != 0 && ahead <= buffers::TURN / 2
}
