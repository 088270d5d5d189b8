//! The strings of a trace, before they are written: 64 bits each.

#![forbid(unsafe_code)]

/// What a string says. A goroutine's name comes from its kind; thus all are told apart by what they are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// A name by its number in the recorder's table; 0 is that of a task that has none.
    Name(u32),
    /// Of a thread or an interrupt, by its stream's number.
    Thread(u32),
    /// Of a thread that was created with this ticket.
    Created(u32),
    /// A set of labels, by its number.
    Labels(u32),
    /// Something of our own: its place in [`WORDS`].
    Word(Word),
}

/// What is always called the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Word {
    /// Go's reason for a goroutine that had to make room.
    Preempted,
    /// What a thread's own goroutine waits for while the thread polls tasks, and a machine that has nothing to do.
    System,
    /// What an interrupt's goroutine waits for.
    Interrupt,
    /// Who writes the trace, and what it logs.
    Picoprof,
}

const WORDS: [&str; 4] = [
    "preempted",
    "system goroutine wait",
    "wait for interrupt",
    "picoprof",
];

impl Text {
    /// Not 0.
    pub(super) const fn to_bits(self) -> u64 {
        let (kind, number) = match self {
            Self::Name(number) => (1, number),
            Self::Thread(number) => (2, number),
            Self::Created(number) => (3, number),
            Self::Labels(number) => (4, number),
            Self::Word(word) => (5, word as u32),
        };
        (kind as u64) << 32 | number as u64
    }

    pub(super) const fn of_bits(bits: u64) -> Self {
        let number = bits as u32;
        match bits >> 32 {
            1 => Self::Name(number),
            2 => Self::Thread(number),
            3 => Self::Created(number),
            4 => Self::Labels(number),
            _ => Self::Word(match number {
                0 => Word::Preempted,
                1 => Word::System,
                2 => Word::Interrupt,
                _ => Word::Picoprof,
            }),
        }
    }
}

impl Word {
    pub(super) const fn as_str(self) -> &'static str {
        WORDS[self as usize]
    }
}
