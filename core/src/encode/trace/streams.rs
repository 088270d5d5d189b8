//! Who records: threads and interrupts, how far they were read, and what each is at.

#![forbid(unsafe_code)]

use super::goroutines::Key;
use super::world::RECORDER;
use crate::profile::trace::host::STREAM_WORDS;

type Slot = [u64; STREAM_WORDS];

/// The time of a stream that has nothing to be read.
pub(super) const NEVER: u64 = u64::MAX;
/// A goroutine that is polled within another, that within a third, and so on: how many of the others are remembered.
const OUTER: usize = 2;

/// A thread or an interrupt. To Go's tools it is a thread and a processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// Its number; of samples, the thread's and a bit.
    pub(super) id: u32,
    /// Whether it has a processor now.
    pub(super) has_processor: bool,
    /// Whether tasks are polled there, so that what it does between them is no goroutine's.
    pub(super) is_worker: bool,
    /// Whether it began while the trace was taken.
    pub(super) is_new: bool,
    /// Whether its thread has ended: who comes next may have the entry, and the processor.
    pub(super) is_over: bool,
    /// Whether all its buffers are of no interest any more, so that none of them is taken for another's.
    pub(super) is_read: bool,
    /// Whether `expected` is known.
    pub(super) is_counted: bool,

    /// The buffer that is read: one more than its number, or 0.
    pub(super) buffer: u32,
    /// Its turn, or that of the last one.
    pub(super) turn: u32,
    /// The word that comes next.
    pub(super) place: u32,
    /// The number of the event that comes next.
    pub(super) expected: u32,
    /// The time of the event before.
    pub(super) last: u64,
    /// The time of the event that comes next; [`NEVER`] if there's none yet.
    pub(super) next: u64,

    /// One more than its processor's number; 0 if it never had one.
    pub(super) processor: u32,
    /// The number of that one's last start, and the generation.
    pub(super) starts: u32,
    pub(super) generation: u32,
    /// Who runs.
    pub(super) current: Option<Key>,
    /// Who polls that one.
    pub(super) outer: [Option<Key>; OUTER],
    /// Who ran when the thread began to wait.
    pub(super) parked: Option<Key>,
    /// Since when it waits, and at which place.
    pub(super) parked_at: u32,
    pub(super) parked_since: u64,
    /// The piece that its events go to: one more than its number, or 0.
    pub(super) piece: u32,
}

const HAS_PROCESSOR: u64 = 1 << 32;
const IS_WORKER: u64 = 1 << 33;
const IS_NEW: u64 = 1 << 34;
const IS_OVER: u64 = 1 << 35;
const IS_COUNTED: u64 = 1 << 36;
const IS_READ: u64 = 1 << 37;

impl Stream {
    pub(super) const fn new(id: u32) -> Self {
        Self {
            id,
            has_processor: false,
            is_worker: false,
            is_new: false,
            is_over: false,
            is_read: false,
            is_counted: false,
            buffer: 0,
            turn: 0,
            place: 0,
            expected: 0,
            last: 0,
            next: NEVER,
            processor: 0,
            starts: 0,
            generation: 0,
            current: None,
            outer: [None; OUTER],
            parked: None,
            parked_at: 0,
            parked_since: 0,
            piece: 0,
        }
    }

    fn to_slot(self) -> Slot {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let [first, second] = self.outer.map(Key::to_bits);
        [
            u64::from(self.id)
                | flag(self.has_processor, HAS_PROCESSOR)
                | flag(self.is_worker, IS_WORKER)
                | flag(self.is_new, IS_NEW)
                | flag(self.is_over, IS_OVER)
                | flag(self.is_read, IS_READ)
                | flag(self.is_counted, IS_COUNTED),
            pair(self.buffer, self.turn),
            pair(self.place, self.expected),
            self.last,
            self.next,
            pair(self.processor, self.starts),
            pair(self.generation, self.piece),
            Key::to_bits(self.current),
            first,
            second,
            Key::to_bits(self.parked),
            u64::from(self.parked_at),
            self.parked_since,
        ]
    }

    fn of_slot(slot: &Slot) -> Self {
        let [
            about,
            buffer,
            place,
            last,
            next,
            processor,
            generation,
            current,
            first,
            second,
            parked,
            parked_at,
            parked_since,
        ] = *slot;
        let pair = |pair: u64| (pair as u32, (pair >> 32) as u32);
        let (buffer, turn) = pair(buffer);
        let (place, expected) = pair(place);
        let (processor, starts) = pair(processor);
        let (generation, piece) = pair(generation);
        Self {
            id: about as u32,
            has_processor: about & HAS_PROCESSOR != 0,
            is_worker: about & IS_WORKER != 0,
            is_new: about & IS_NEW != 0,
            is_over: about & IS_OVER != 0,
            is_read: about & IS_READ != 0,
            is_counted: about & IS_COUNTED != 0,
            buffer,
            turn,
            place,
            expected,
            last,
            next,
            processor,
            starts,
            generation,
            current: Key::from_bits(current),
            outer: [first, second].map(Key::from_bits),
            parked: Key::from_bits(parked),
            parked_at: parked_at as u32,
            parked_since,
            piece,
        }
    }

    /// Puts who runs aside. Where there's no room, the outermost is forgotten.
    pub(super) fn push(&mut self, key: Key) {
        let [first, second] = &mut self.outer;
        *second = first.replace(key);
    }

    pub(super) fn pop(&mut self) -> Option<Key> {
        let [first, second] = &mut self.outer;
        core::mem::replace(first, second.take())
    }
}

/// All streams that were seen.
#[derive(Debug)]
pub(super) struct Streams<'m> {
    slots: &'m mut [Slot],
    len: &'m mut usize,
}

impl<'m> Streams<'m> {
    pub(super) fn new(words: &'m mut [u64], len: &'m mut usize) -> Self {
        let (slots, _) = words.as_chunks_mut();
        Self { slots, len }
    }

    pub(super) fn len(&self) -> usize {
        *self.len
    }

    pub(super) fn get(&self, index: usize) -> Option<Stream> {
        Some(Stream::of_slot(self.used().get(index)?))
    }

    pub(super) fn set(&mut self, index: usize, stream: &Stream) {
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = stream.to_slot();
        }
    }

    /// The stream with this number, be it over: what comes there belongs to it, or to the next thread with the number.
    pub(super) fn find(&self, id: u32) -> Option<usize> {
        self.used().iter().position(|slot| slot[0] as u32 == id)
    }

    /// A new stream's entry, which may have been another's; `None` if there's no room.
    pub(super) fn add(&mut self, id: u32) -> Option<usize> {
        if let Some(index) = self.used().iter().position(Self::is_free) {
            let before = self.get(index)?;
            let stream = Stream {
                processor: before.processor,
                starts: before.starts,
                generation: before.generation,
                is_new: true,
                ..Stream::new(id)
            };
            self.set(index, &stream);
            return Some(index);
        }
        let index = *self.len;
        // One is kept for what is to be said of the trace itself.
        let kept = usize::from(id != RECORDER);
        if index + kept >= self.slots.len() {
            return None;
        }
        *self.len += 1;
        self.set(index, &Stream::new(id));
        Some(index)
    }

    /// Whether there's room for another.
    pub(super) fn has_room(&self) -> bool {
        *self.len < self.slots.len() || self.used().iter().any(Self::is_free)
    }

    /// Whether another may have a stream's entry.
    fn is_free(slot: &Slot) -> bool {
        let needed = IS_OVER | IS_READ;
        slot[0] & needed == needed && slot[1] as u32 == 0
    }

    /// The one whose next event is the first of all, and the time of the first of the others.
    pub(super) fn first(&self) -> Option<(usize, u64, u64)> {
        let mut first = None;
        let mut others = NEVER;
        for (index, slot) in self.used().iter().enumerate() {
            let next = slot[4];
            match first {
                Some((_, time)) if time <= next => others = others.min(next),
                _ if next == NEVER => {}
                _ => {
                    if let Some((_, time)) = first {
                        others = others.min(time);
                    }
                    first = Some((index, next));
                }
            }
        }
        first.map(|(index, time)| (index, time, others))
    }

    fn used(&self) -> &[Slot] {
        self.slots.get(..*self.len).unwrap_or_default()
    }
}
