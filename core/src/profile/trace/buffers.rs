//! The buffers of a trace: taken in turns by all threads and interrupts, written by one at a time, read by anyone.
//!
//! # Who has a buffer
//!
//! A buffer's `state` is the number of the turn that it was taken in, and whether who took it still writes. It is taken by
//! a compare-and-swap, in turns: the one that was taken longest ago comes next, be it read or not. One that is still
//! written is passed over. So who writes never waits, and what is in the buffers is what happened last.
//!
//! # How it is read while it is written
//!
//! Its first word, `published`, says how far it is written, and in which turn; what is before that changes no more in this
//! turn. A reader looks at `state` before and after: if it is the same, what it read is of one turn. For that, who
//! takes a buffer has a release fence after the swap, and the reader an acquire fence before its second look: had a word been
//! of a later turn, the second look would have seen that.

#![deny(unsafe_code)]

use super::name::Names;
use crate::stack::{Counter, set};
use crate::sync::{AtomicU32, AtomicUsize, Ordering, array_of, const_fn, fence};

/// Words before the first event: how far it is written, and what it begins with.
pub(crate) const HEADER: usize = 1 + BEGIN;
/// What a buffer begins with: the stream, the time (low, high), the number of the first event.
pub(crate) const BEGIN: usize = 4;
/// The bit of a state that says that it is still written.
const OPEN: u32 = 1 << 31;
pub(crate) const TURN: u32 = OPEN - 1;
/// The bits of `published` that say how far it is written.
const LEN_BITS: u32 = 16;
const LEN: u32 = (1 << LEN_BITS) - 1;
/// The bits of a turn that are published.
const PUBLISHED_TURN: u32 = u32::MAX >> LEN_BITS;

/// How many buffers are looked at for an event, before it is lost. Where there are thousands, and a thread for each, that
/// bounds the time, and how fast turns go by. Who comes next looks further on.
const MOST_TRIES: usize = 256;

/// The memory of a trace: `BUFFERS` pieces of `WORDS` words of four bytes each, and two words for each of `NAMES` names of
/// tasks, regions and kinds of logs.
///
/// From 2 buffers of 32 words on; at most 65,535 words. `NAMES` is a power of two from 8 up, at most 32,768 on a 32-bit
/// machine. Each thread and each interrupt that records has one
/// at a time, so there should be twice as many as those, or more. Text is cut so that it fits in one. 2 KB are
/// `TraceBuffers<14, 32, 16>`: some 125 events. It is made for a `static`:
///
/// ```
/// use picoprof::profile::trace::TraceBuffers;
///
/// static TRACE: TraceBuffers<14, 32, 16> = TraceBuffers::new();
///
/// assert_eq!(TRACE.view().lost(), 0);
/// ```
#[derive(Debug)]
pub struct TraceBuffers<const BUFFERS: usize, const WORDS: usize, const NAMES: usize = 64> {
    words: [[AtomicU32; WORDS]; BUFFERS],
    /// Of each buffer the turn that it was taken in, and [`OPEN`]; 0 before the first.
    states: [AtomicU32; BUFFERS],
    /// Those of names, and the names: written by [`Names`] alone.
    names: [[AtomicUsize; NAMES]; 2],
    shared: Shared,
}

impl<const BUFFERS: usize, const WORDS: usize, const NAMES: usize>
    TraceBuffers<BUFFERS, WORDS, NAMES>
{
    const VALID: () = assert!(
        BUFFERS >= 2
            && BUFFERS < 1 << 24
            && WORDS >= 32
            && WORDS < 1 << LEN_BITS
            && set::is_valid_len(NAMES),
        "BUFFERS must be from 2 to 16,777,215, WORDS from 32 to 65,535, and NAMES a power of two from 8 up"
    );

    const_fn! {
        /// Nothing is recorded. It is all zeros, so that a static takes no room in the binary.
        #[must_use]
        pub fn new() -> Self {
            let () = Self::VALID;
            Self {
                words: array_of!(array_of!(AtomicU32::new(0))),
                states: array_of!(AtomicU32::new(0)),
                names: array_of!(array_of!(AtomicUsize::new(0))),
                shared: Shared::new(),
            }
        }
    }

    #[allow(unsafe_code, reason = "its condition is about this type's own field")]
    const fn names(&self) -> Names<'_> {
        let [addresses, names] = &self.names;
        // SAFETY: they begin as zeros, and are lent to nobody else.
        unsafe { Names::new(addresses, names) }
    }

    /// The buffers as everything else uses them, without their size in the type.
    #[must_use]
    pub const fn view(&self) -> Trace<'_> {
        Trace {
            words: self.words.as_flattened(),
            states: &self.states,
            names: self.names(),
            shared: &self.shared,
            size: WORDS,
        }
    }
}

impl<const BUFFERS: usize, const WORDS: usize, const NAMES: usize> Default
    for TraceBuffers<BUFFERS, WORDS, NAMES>
{
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug)]
struct Shared {
    /// The last turn that was taken.
    turn: AtomicU32,
    /// Events for which there was no buffer, or that came while their stream was recording another.
    lost: Counter,
    /// Events whose name found no room.
    unnamed: Counter,
}

impl Shared {
    const_fn! {
        fn new() -> Self {
            Self {
                turn: AtomicU32::new(0),
                lost: Counter::new(),
                unnamed: Counter::new(),
            }
        }
    }
}

/// The buffers of a trace, whose size is not in the type.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    words: &'a [AtomicU32],
    states: &'a [AtomicU32],
    names: Names<'a>,
    shared: &'a Shared,
    /// Words of a buffer.
    size: usize,
}

/// The turn that a buffer was taken in: whoever took it has the right to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn<'a> {
    /// The buffer's.
    state: &'a AtomicU32,
    number: u32,
}

impl Turn<'_> {
    /// What is published when so many words are written: one word more is one more.
    pub(super) const fn published(self, len: usize) -> u32 {
        self.number << LEN_BITS | len as u32 & LEN
    }

    /// Ends the right to write. If the turn has ended meanwhile, this does nothing.
    pub(super) fn close(self) {
        // Not if it was taken away.
        let _ = self.state.compare_exchange(
            self.number | OPEN,
            self.number,
            Ordering::Release,
            Ordering::Relaxed,
        );
    }
}

/// How many words are written of a buffer of which this is published.
#[inline]
pub(super) const fn len_of(published: u32) -> usize {
    (published & LEN) as usize
}

/// Lets readers see what is [written](Turn::published): to the first word of a buffer.
#[inline]
pub(super) fn publish(to: &AtomicU32, published: u32) {
    to.store(published, Ordering::Release);
}

/// What a reader knows of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) buffer: u32,
    /// The turn that it was taken in: later ones have higher numbers, but for when they start from 1 again.
    pub(crate) turn: u32,
    pub(crate) is_open: bool,
    /// How many words are written.
    pub(crate) len: u32,
}

impl<'a> Trace<'a> {
    /// How many events found no buffer so far, or came while their stream was recording another. Those that were not
    /// read in time are not among them: they are told in the trace.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load()
    }

    /// The number of a name; that of none if there's no room, which is counted.
    pub(crate) fn number_of(&self, name: &'static str) -> u32 {
        self.names.number(name).unwrap_or_else(|| {
            self.shared.unnamed.add(1);
            0
        })
    }

    /// The name with a number that an event has.
    pub(crate) fn name(&self, number: u32) -> &'static str {
        self.names.get(number)
    }

    /// How many events had a name for which there was no room so far: they are without one.
    #[must_use]
    pub fn unnamed(&self) -> u64 {
        self.shared.unnamed.load()
    }

    /// Words of a buffer.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// How many buffers there are.
    pub(crate) const fn len(&self) -> usize {
        self.states.len()
    }

    /// The words of a buffer; none if there's no such.
    fn buffer(&self, number: usize) -> &'a [AtomicU32] {
        let words = self.words.get(number.saturating_mul(self.size)..);
        let words = words.and_then(|words| words.get(..self.size));
        words.unwrap_or_default()
    }

    /// Whether that is one of its buffers.
    #[inline]
    pub(super) fn has(&self, buffer: &[AtomicU32]) -> bool {
        self.words.as_ptr_range().contains(&buffer.as_ptr())
    }

    pub(super) fn count_lost(&self) {
        self.shared.lost.add(1);
    }

    /// Takes the next buffer, and writes what it begins with; `None` if all are being written, or so many in a row that it
    /// takes too long to look further.
    ///
    /// May run in a signal handler or an interrupt: it looks at 256 buffers at most.
    pub(super) fn take(&self, begin: [u32; BEGIN]) -> Option<(Turn<'a>, &'a [AtomicU32])> {
        for _ in 0..self.states.len().min(MOST_TRIES) {
            let turn = self
                .shared
                .turn
                .fetch_add(1, Ordering::Relaxed)
                .wrapping_add(1)
                & TURN;
            let number = turn as usize % self.states.len();
            let buffer = self.buffer(number);
            let (Some(state), [published, words @ ..]) = (self.states.get(number), buffer) else {
                break;
            };
            // Acquire: what is published is of this turn, if the swap finds it unchanged.
            let before = state.load(Ordering::Acquire);
            // One that was last taken 65,536 turns ago: who reads would take what is in it for this turn's.
            let is_taken_for_new =
                published.load(Ordering::Relaxed) >> LEN_BITS == turn & PUBLISHED_TURN;
            if before & OPEN != 0 || turn == 0 || is_taken_for_new {
                continue;
            }
            let taken = Turn {
                state,
                number: turn,
            };
            // Acquire: who had it before is done with it.
            let swapped =
                state.compare_exchange(before, turn | OPEN, Ordering::AcqRel, Ordering::Relaxed);
            if swapped.is_ok() {
                // Who reads a word of this turn sees the state of this turn: see the head of this module.
                fence(Ordering::Release);
                for (to, word) in words.iter().zip(begin) {
                    to.store(word, Ordering::Relaxed);
                }
                publish(published, taken.published(HEADER));
                return Some((taken, buffer));
            }
        }
        None
    }

    /// Takes their buffers away from threads that died without giving them back: those whose stream `is_dead`.
    ///
    /// # Safety
    ///
    /// No stream with such a number records any more. One that begins anew with the number may.
    #[allow(unsafe_code, reason = "to call it is unsafe; it does nothing that is")]
    pub unsafe fn reclaim(&self, is_dead: impl Fn(u32) -> bool) {
        for buffer in 0..self.len() {
            if let Some(look) = self.look(buffer)
                && look.is_open
                && is_dead(self.stream(look) & !super::Stream::SAMPLES)
            {
                let state = self.states.get(buffer);
                let turn = state.map(|state| Turn {
                    state,
                    number: look.turn,
                });
                turn.into_iter().for_each(Turn::close);
            }
        }
    }

    /// What a buffer is; `None` if nothing was written in it in its turn.
    pub(crate) fn look(&self, buffer: usize) -> Option<Look> {
        // Acquire: of a closed buffer, `published` says all of it.
        let state = self.states.get(buffer)?.load(Ordering::Acquire);
        // Acquire: what is published is written.
        let published = self.buffer(buffer).first()?.load(Ordering::Acquire);
        let turn = state & TURN;
        let is_of_turn = published >> LEN_BITS == turn & PUBLISHED_TURN;
        (turn != 0 && is_of_turn).then_some(Look {
            buffer: buffer as u32,
            turn,
            is_open: state & OPEN != 0,
            len: published & LEN,
        })
    }

    /// A word of a buffer, which may be of another turn: see [`is_still`](Self::is_still).
    pub(crate) fn word(&self, look: Look, place: u32) -> u32 {
        let word = self.buffer(look.buffer as usize).get(place as usize);
        word.map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// What a buffer begins with, the same way.
    pub(crate) fn begin(&self, look: Look) -> [u32; BEGIN] {
        [1, 2, 3, 4].map(|place| self.word(look, place))
    }

    /// The stream that a buffer is of, the same way.
    pub(crate) fn stream(&self, look: Look) -> u32 {
        self.word(look, 1)
    }

    /// Whether all that was read of the buffer is of this turn.
    pub(crate) fn is_still(&self, look: Look) -> bool {
        fence(Ordering::Acquire);
        let state = self.states.get(look.buffer as usize);
        state.is_some_and(|state| state.load(Ordering::Relaxed) & TURN == look.turn)
    }

    /// The last turn that was taken.
    pub(crate) fn turn(&self) -> u32 {
        self.shared.turn.load(Ordering::Acquire) & TURN
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_thread_had_is_free_again() {
        static BUFFERS: TraceBuffers<2, 32> = TraceBuffers::new();
        let trace = BUFFERS.view();
        let take = |stream| trace.take([stream, 0, 0, 0]);
        let owners = || [0, 1].map(|buffer| trace.look(buffer).map(|look| trace.stream(look)));
        take(1 | super::super::Stream::SAMPLES).unwrap();
        let (_, alive) = take(2).unwrap();
        assert!(take(3).is_none());
        #[allow(unsafe_code, reason = "what is tested")]
        // SAFETY: who had it is forgotten.
        unsafe {
            trace.reclaim(|stream| stream == 1);
        }
        // Not the other one's.
        let (_, next) = take(3).unwrap();
        assert!(!core::ptr::eq(next, alive));
        assert!(take(4).is_none());
        assert!(owners().contains(&Some(2)) && owners().contains(&Some(3)));
    }
}

#[cfg(all(test, loom))]
#[allow(unsafe_code, reason = "to make what the models are of")]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// The word that follows the header.
    const WORD: usize = HEADER;
    const SIZE: usize = HEADER + 1;

    struct Memory {
        words: [AtomicU32; 2 * SIZE],
        states: [AtomicU32; 2],
        names: [AtomicUsize; 1],
        shared: Shared,
    }

    impl Memory {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                words: array_of!(AtomicU32::new(0)),
                states: array_of!(AtomicU32::new(0)),
                names: array_of!(AtomicUsize::new(0)),
                shared: Shared::new(),
            })
        }

        fn trace(&self) -> Trace<'_> {
            Trace {
                words: &self.words,
                states: &self.states,
                // SAFETY: nobody gives a name a number here.
                names: unsafe { Names::new(&self.names, &self.names) },
                shared: &self.shared,
                size: SIZE,
            }
        }

        /// Takes a buffer and writes its turn into it; answers where that is.
        fn write(&self, is_closed: bool) -> Option<usize> {
            let (turn, buffer) = self.trace().take([0; BEGIN])?;
            buffer[WORD].store(turn.number, Ordering::Relaxed);
            publish(&buffer[0], turn.published(SIZE));
            if is_closed {
                turn.close();
            }
            Some(buffer.as_ptr().addr())
        }

        /// What is read of a buffer, if it is of one turn.
        fn read(&self, buffer: usize) {
            let trace = self.trace();
            let Some(look) = trace.look(buffer) else {
                return;
            };
            // A closed one is whole.
            assert!(look.is_open || look.len as usize == SIZE);
            if look.len as usize == SIZE {
                let word = trace.word(look, WORD as u32);
                if trace.is_still(look) {
                    assert_eq!(word, look.turn);
                }
            }
        }
    }

    fn bounded() -> loom::model::Builder {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder
    }

    /// One buffer is open for ever, so that the other one is taken again and again.
    ///
    /// The reader is the thread that begins last: loom knows of a race with the last access to a word only, and a writer looks
    /// at a state before it swaps it, so that it never saw the reader's look.
    #[test]
    fn loom_what_is_read_is_of_one_turn() {
        bounded().check(|| {
            let memory = Memory::new();
            memory.write(false);
            let reader = thread::spawn({
                let memory = memory.clone();
                move || memory.read(0)
            });
            // Turns begin with 1.
            memory.write(true);
            memory.write(true);
            reader.join().unwrap();
            memory.read(0);
            memory.read(1);
        });
    }

    #[test]
    fn loom_the_only_free_one_goes_to_one() {
        bounded().check(|| {
            let memory = Memory::new();
            memory.write(false);
            let other = thread::spawn({
                let memory = memory.clone();
                move || memory.write(false).is_some()
            });
            let is_ours = memory.write(false).is_some();
            assert_ne!(is_ours, other.join().unwrap());
            memory.read(0);
        });
    }

    #[test]
    fn loom_a_buffer_is_one_writers() {
        bounded().check(|| {
            let memory = Memory::new();
            let other = thread::spawn({
                let memory = memory.clone();
                move || memory.write(false)
            });
            let ours = memory.write(false);
            let theirs = other.join().unwrap();
            // Each may have come upon what the other had just taken.
            if let (Some(ours), Some(theirs)) = (ours, theirs) {
                assert_ne!(ours, theirs);
            }
            assert!(ours.is_some() || theirs.is_some());
            memory.read(0);
            memory.read(1);
        });
    }
}
