//! What a trace needs of its host.

#![forbid(unsafe_code)]

use core::fmt;

use super::buffers::Trace;

/// What a host supplies for `trace`: see [`Target::trace`](crate::Target::trace).
pub trait TraceHost {
    /// What events are recorded into.
    fn buffers(&self) -> Trace<'static>;

    /// The time now, by the clock that events are recorded with.
    fn ticks(&self) -> u64;

    /// How many ticks that clock has in a second; the same for all of a trace.
    fn ticks_per_second(&self) -> u64 {
        1_000_000_000
    }

    /// How large the encoder's tables are; they come from [`Target::scratch`](crate::Target::scratch), in one piece of
    /// [`Limits::words`].
    fn limits(&self) -> Limits;

    /// Writes the name of the thread or interrupt with this [stream](super::Stream); nothing if it has none.
    ///
    /// # Errors
    ///
    /// Those of `name`.
    fn stream_name(&self, stream: u32, name: &mut dyn fmt::Write) -> fmt::Result {
        let _ = (stream, name);
        Ok(())
    }

    /// Is called when a trace begins, and about every second of it: to [take buffers away](Trace::reclaim) from threads that are
    /// gone, say.
    fn refresh(&self) {}
}

impl fmt::Debug for dyn TraceHost + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TraceHost")
    }
}

/// How much a trace may show at once. What finds no room is left out and counted, or ends a part of the trace early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Limits {
    /// Tasks and threads that are alive. 40 bytes each, and a third more.
    pub goroutines: usize,
    /// Threads and interrupts that record, and those of them that CPU samples are of once more. 104 bytes each.
    pub streams: usize,
    /// Different stacks in a part of a trace of about a second. 16 bytes each, and a third more.
    pub stacks: usize,
    /// Different names of tasks and so on in such a part. 16 bytes each, and a third more.
    pub names: usize,
    /// [Regions](super::Region) that are open. 24 bytes each.
    pub regions: usize,
    /// Pieces that what goes out is put together in: one for each stream that is busy, and three more. At least 4.
    pub pieces: usize,
    /// Bytes of a piece, besides 32 for what is said of it: a multiple of 8 from 128 to 32,768. Each costs a dozen bytes of
    /// the trace. A log's text is cut to what fits.
    pub piece_bytes: usize,
}

impl Limits {
    /// For a small machine: about 4.5 KB.
    pub const SMALL: Self = Self {
        goroutines: 20,
        streams: 6,
        stacks: 40,
        names: 20,
        regions: 8,
        pieces: 5,
        piece_bytes: 192,
    };

    /// The same, with as many and as large pieces as it takes at least.
    pub(crate) const fn at_least(self) -> Self {
        let pieces = if self.pieces < 4 { 4 } else { self.pieces };
        let piece_bytes = match self.piece_bytes & !7 {
            ..128 => 128,
            bytes if bytes > 1 << 15 => 1 << 15,
            bytes => bytes,
        };
        Self {
            pieces,
            piece_bytes,
            ..self
        }
    }

    /// The words of eight bytes that all that takes.
    #[must_use]
    pub const fn words(self) -> usize {
        let this = self.at_least();
        this.words_as_they_are()
    }

    const fn words_as_they_are(self) -> usize {
        GOROUTINE_WORDS * slots(self.goroutines)
            + STREAM_WORDS * self.streams
            + ID_WORDS * (slots(self.stacks) + slots(self.names))
            + REGION_WORDS * self.regions
            + self.pieces * (PIECE_WORDS + self.piece_bytes / 8)
    }
}

/// Words of an entry of each of the encoder's tables.
pub(crate) const GOROUTINE_WORDS: usize = 5;
pub(crate) const STREAM_WORDS: usize = 13;
pub(crate) const ID_WORDS: usize = 2;
pub(crate) const REGION_WORDS: usize = 3;
pub(crate) const PIECE_WORDS: usize = 4;

/// The slots of a hash table for so many entries, and one more: a power of two, of which a quarter at least stays empty.
pub(crate) const fn slots(entries: usize) -> usize {
    let slots = (entries + 1).saturating_mul(4).div_ceil(3);
    if slots < 4 {
        4
    } else {
        slots.next_power_of_two()
    }
}
