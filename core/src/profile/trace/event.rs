//! What there is to record, and how it lies in a buffer.
//!
//! An event is a word with its kind and the time since the event before, and up to four more. Text follows
//! as its length in bytes and the bytes.

#![forbid(unsafe_code)]

use crate::profile::labels::LabelSetId;
use crate::stack::StackId;

/// Words of the longest event, without text.
pub(super) const MAX_WORDS: usize = 4;
/// Bits of an event's first word that say its kind; the others are the time.
pub(super) const KIND_BITS: u32 = 6;
const KIND: u32 = (1 << KIND_BITS) - 1;
/// The longest time since the event before that the first word holds.
pub(super) const MAX_DELTA: u64 = (1 << (u32::BITS - KIND_BITS)) - 1;

/// Something that happened, to be [recorded](super::Trace::record): four words, which fit in two registers.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The kind; how many words it has, if its name and its text are empty; the first argument in the upper half.
    head: u64,
    /// The other two.
    tail: u64,
}

const LEN_SHIFT: u32 = 8;

/// Declares the kinds of events: their numbers, how many words they have, and whether there's text.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $words:literal;)*) => {
        /// What kind of event it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Kind { $($(#[$doc])* $name = $number,)* }

        impl Kind {
            const ALL: &[(Self, usize)] = &[$((Self::$name, $words),)*];

            /// The kind with this number, and how many words its events have without text.
            pub(super) fn of(number: u32) -> Option<(Self, usize)> {
                Self::ALL.get(number as usize).copied()
            }

            /// Whether its last word is a name's number.
            pub(super) const fn has_name(self) -> bool {
                matches!(
                    self,
                    Self::TaskSpawned | Self::RegionBegan | Self::UserTaskBegan | Self::Log
                )
            }

            /// Whether text follows.
            pub(super) const fn has_text(self) -> bool {
                matches!(self, Self::Log)
            }
        }
    };
}

kinds! {
    /// The time, where it can't be told by a difference: low and high word.
    Time = 0, 3;
    TaskSpawned = 1, 4;
    TaskPolled = 2, 2;
    TaskPending = 3, 3;
    TaskWoken = 4, 3;
    TaskEnded = 5, 2;
    ThreadCreated = 6, 3;
    ThreadBegan = 7, 2;
    ThreadEnded = 8, 1;
    Waits = 9, 3;
    Resumed = 10, 1;
    Wakes = 11, 4;
    Sample = 12, 2;
    Labels = 13, 2;
    RegionBegan = 14, 4;
    RegionEnded = 15, 2;
    UserTaskBegan = 16, 4;
    UserTaskEnded = 17, 2;
    Log = 18, 3;
    HandlerEntered = 19, 1;
    HandlerLeft = 20, 1;
    /// By another task.
    TaskPolledWithin = 21, 2;
    TaskLabelled = 22, 3;
}

impl Event {
    #[inline]
    const fn new<const N: usize>(kind: Kind, some: [u32; N]) -> Self {
        let mut arguments = [0; MAX_WORDS - 1];
        let mut i = 0;
        while i < N {
            arguments[i] = some[i] as u64;
            i += 1;
        }
        let [first, second, third] = arguments;
        let len = 1 + N + kind.has_name() as usize + kind.has_text() as usize;
        Self {
            head: kind as u64 | (len as u64) << LEN_SHIFT | first << 32,
            tail: second | third << 32,
        }
    }

    /// Whether all that it lacks is a name, which is the last of its words.
    #[inline]
    pub(super) const fn takes_name(self) -> bool {
        const SPAWNED: u8 = Kind::TaskSpawned as u8;
        const REGION: u8 = Kind::RegionBegan as u8;
        const TASK: u8 = Kind::UserTaskBegan as u8;
        matches!(self.head as u8, SPAWNED | REGION | TASK)
    }

    /// One that [takes a name](Self::takes_name), with the number of that.
    #[inline]
    pub(super) const fn with_name(self, number: u32) -> Self {
        Self {
            tail: self.tail & u32::MAX as u64 | (number as u64) << 32,
            ..self
        }
    }

    #[inline]
    pub(crate) const fn task_spawned(task: u32, stack: StackId) -> Self {
        Self::new(Kind::TaskSpawned, [task, stack.to_bits()])
    }

    #[inline]
    pub(crate) const fn task_polled(task: u32, is_nested: bool) -> Self {
        let kind = if is_nested {
            Kind::TaskPolledWithin
        } else {
            Kind::TaskPolled
        };
        Self::new(kind, [task])
    }

    pub(crate) const fn task_labelled(task: u32, labels: LabelSetId) -> Self {
        Self::new(Kind::TaskLabelled, [task, labels.to_bits()])
    }

    #[inline]
    pub(crate) const fn task_pending(task: u32, stack: StackId) -> Self {
        Self::new(Kind::TaskPending, [task, stack.to_bits()])
    }

    #[inline]
    pub(crate) const fn task_woken(task: u32, stack: StackId) -> Self {
        Self::new(Kind::TaskWoken, [task, stack.to_bits()])
    }

    #[inline]
    pub(crate) const fn task_ended(task: u32) -> Self {
        Self::new(Kind::TaskEnded, [task])
    }

    /// The calling thread creates one, at `stack`. The ticket is what the new one [begins](Self::thread_began) with: no
    /// two are the same within a minute or so.
    #[must_use]
    pub const fn thread_created(ticket: u32, stack: StackId) -> Self {
        Self::new(Kind::ThreadCreated, [ticket, stack.to_bits()])
    }

    /// The calling thread is new.
    #[must_use]
    pub const fn thread_began(ticket: u32) -> Self {
        Self::new(Kind::ThreadBegan, [ticket])
    }

    /// The calling thread is about to end; it records no more.
    #[must_use]
    pub const fn thread_ended() -> Self {
        Self::new(Kind::ThreadEnded, [])
    }

    /// The calling thread, or the task that it polls, is going to wait, at `stack`; `place` is what
    /// [`wakes`](Self::wakes) tells who is woken by, such as a part of an address, or 0.
    ///
    /// A machine that waits for an interrupt does so at [`StackId::IDLE`].
    #[must_use]
    pub const fn waits(place: u32, stack: StackId) -> Self {
        Self::new(Kind::Waits, [place, stack.to_bits()])
    }

    /// The calling thread waits no more.
    #[must_use]
    pub const fn resumed() -> Self {
        Self::new(Kind::Resumed, [])
    }

    /// The calling thread lets `count` of those go on that wait at `place`: who waits for longest first.
    #[must_use]
    pub const fn wakes(place: u32, count: u32, stack: StackId) -> Self {
        Self::new(Kind::Wakes, [place, count, stack.to_bits()])
    }

    /// A sample of a CPU profile. In a stream of its own, which is the thread's with [`Stream::SAMPLES`](super::Stream::SAMPLES)
    /// added.
    #[must_use]
    pub const fn sample(stack: StackId) -> Self {
        Self::new(Kind::Sample, [stack.to_bits()])
    }

    /// What the calling thread does has these labels from now on.
    #[must_use]
    pub const fn labels(labels: LabelSetId) -> Self {
        Self::new(Kind::Labels, [labels.to_bits()])
    }

    /// The calling interrupt handler begins. Each has a stream of its own.
    #[must_use]
    pub const fn handler_entered() -> Self {
        Self::new(Kind::HandlerEntered, [])
    }

    /// The calling interrupt handler ends.
    #[must_use]
    pub const fn handler_left() -> Self {
        Self::new(Kind::HandlerLeft, [])
    }

    #[inline]
    pub(crate) const fn region_began(region: u32, task: u32) -> Self {
        Self::new(Kind::RegionBegan, [region, task])
    }

    #[inline]
    pub(crate) const fn region_ended(region: u32) -> Self {
        Self::new(Kind::RegionEnded, [region])
    }

    pub(crate) const fn user_task_began(task: u32, parent: u32) -> Self {
        Self::new(Kind::UserTaskBegan, [task, parent])
    }

    pub(crate) const fn user_task_ended(task: u32) -> Self {
        Self::new(Kind::UserTaskEnded, [task])
    }

    pub(crate) const fn log(task: u32) -> Self {
        Self::new(Kind::Log, [task])
    }

    pub(super) fn kind(self) -> Option<Kind> {
        Some(Kind::of(self.head as u8 as u32)?.0)
    }

    /// How many words it has, if its name and its text are empty: those are 0.
    #[inline]
    pub(super) const fn len(self) -> usize {
        (self.head as u32 >> LEN_SHIFT) as usize
    }

    /// Its words, the time since the event before among them; 0 beyond the last.
    #[inline]
    pub(super) const fn words(self, delta: u32) -> [u32; MAX_WORDS] {
        [
            delta << KIND_BITS | self.head as u8 as u32,
            (self.head >> 32) as u32,
            self.tail as u32,
            (self.tail >> 32) as u32,
        ]
    }
}

/// An event as it is read from a buffer. Names are their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    TaskSpawned {
        task: u32,
        name: u32,
        stack: StackId,
    },
    /// Of one that doesn't run.
    TaskLabelled {
        task: u32,
        labels: LabelSetId,
    },
    TaskPolled {
        task: u32,
        is_nested: bool,
    },
    TaskPending {
        task: u32,
        stack: StackId,
    },
    TaskWoken {
        task: u32,
        stack: StackId,
    },
    TaskEnded {
        task: u32,
    },
    ThreadCreated {
        ticket: u32,
        stack: StackId,
    },
    ThreadBegan {
        ticket: u32,
    },
    ThreadEnded,
    Waits {
        place: u32,
        stack: StackId,
    },
    Resumed,
    Wakes {
        place: u32,
        count: u32,
        stack: StackId,
    },
    Sample {
        stack: StackId,
    },
    Labels {
        labels: LabelSetId,
    },
    RegionBegan {
        region: u32,
        task: u32,
        name: u32,
    },
    RegionEnded {
        region: u32,
    },
    UserTaskBegan {
        task: u32,
        parent: u32,
        name: u32,
    },
    UserTaskEnded {
        task: u32,
    },
    /// Its text is where the reader found it.
    Log {
        task: u32,
        category: u32,
    },
    HandlerEntered,
    HandlerLeft,
}

impl Recorded {
    /// The event of these words; `None` if it's only about the time.
    pub(super) fn of(kind: Kind, words: &[u32; MAX_WORDS]) -> Option<Self> {
        let [_, first, second, third] = *words;
        let stack = StackId::from_bits;
        Some(match kind {
            Kind::Time => return None,
            Kind::TaskSpawned => Self::TaskSpawned {
                task: first,
                stack: stack(second),
                name: third,
            },
            Kind::TaskPolled | Kind::TaskPolledWithin => Self::TaskPolled {
                task: first,
                is_nested: kind == Kind::TaskPolledWithin,
            },
            Kind::TaskLabelled => Self::TaskLabelled {
                task: first,
                labels: LabelSetId::from_bits(second),
            },
            Kind::TaskPending => Self::TaskPending {
                task: first,
                stack: stack(second),
            },
            Kind::TaskWoken => Self::TaskWoken {
                task: first,
                stack: stack(second),
            },
            Kind::TaskEnded => Self::TaskEnded { task: first },
            Kind::ThreadCreated => Self::ThreadCreated {
                ticket: first,
                stack: stack(second),
            },
            Kind::ThreadBegan => Self::ThreadBegan { ticket: first },
            Kind::ThreadEnded => Self::ThreadEnded,
            Kind::Waits => Self::Waits {
                place: first,
                stack: stack(second),
            },
            Kind::Resumed => Self::Resumed,
            Kind::Wakes => Self::Wakes {
                place: first,
                count: second,
                stack: stack(third),
            },
            Kind::Sample => Self::Sample {
                stack: stack(first),
            },
            Kind::Labels => Self::Labels {
                labels: LabelSetId::from_bits(first),
            },
            Kind::RegionBegan => Self::RegionBegan {
                region: first,
                task: second,
                name: third,
            },
            Kind::RegionEnded => Self::RegionEnded { region: first },
            Kind::UserTaskBegan => Self::UserTaskBegan {
                task: first,
                parent: second,
                name: third,
            },
            Kind::UserTaskEnded => Self::UserTaskEnded { task: first },
            Kind::Log => Self::Log {
                task: first,
                category: second,
            },
            Kind::HandlerEntered => Self::HandlerEntered,
            Kind::HandlerLeft => Self::HandlerLeft,
        })
    }
}

/// Words of an event that says the time.
pub(crate) const TIME_WORDS: u32 = 3;

/// The time since the event before, of an event with this first word; `None` of one that says the time itself.
pub(crate) const fn time_of(first: u32) -> Option<u64> {
    if first & KIND == Kind::Time as u32 {
        None
    } else {
        Some((first >> KIND_BITS) as u64)
    }
}

/// An event as it lies in a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) recorded: Recorded,
    /// The time since the event before.
    pub(crate) delta: u64,
    /// How many words it has, with its text.
    pub(crate) words: u32,
    /// How many words on its text begins, and how many bytes that has.
    pub(crate) text: Option<(u32, u32)>,
}

impl Read {
    /// The event whose words these are; `None` if they are no event's.
    pub(crate) fn of(word: impl Fn(u32) -> u32) -> Option<Self> {
        let first = word(0);
        let (kind, len) = Kind::of(first & KIND)?;
        let mut words = [0; MAX_WORDS];
        for (ahead, to) in words.iter_mut().enumerate().take(len).skip(1) {
            *to = word(ahead as u32);
        }
        let len = len as u32;
        let text = kind.has_text().then(|| (len + 1, word(len)));
        let text_words = text.map_or(0, |(_, bytes)| 1 + bytes.div_ceil(4));
        Some(Self {
            recorded: Recorded::of(kind, &words)?,
            delta: u64::from(first >> KIND_BITS),
            words: len + text_words,
            text,
        })
    }
}
