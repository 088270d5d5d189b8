//! What a walk depended on, so that the next one need not be made.
//!
//! A thread that waits for a lock again does so on the stack of the time before, mostly. To see that it is the same takes a
//! fraction of what a walk takes, and the [`StackId`] is known then.
//!
//! It is exact, and no guess. A walk goes by its registers, by the bounds of what it may read, by the tables, and by the words
//! that it reads; where it reads next follows from those before. If the first three are what they were, it begins with the
//! same read, and if each word that was read holds what it held, then each read is followed by the same one, to the same end.
//! A frame pointer that was read but never used leads nowhere: what it holds is of no account (code without frame pointers
//! keeps anything in that register). The stack with these frames has one id, which is good for ever.

#![forbid(unsafe_code)]

use picoprof::stack::StackId;
use picoprof::stack::capture::{Registers, StackBounds};

use super::words::Words;

/// Words that are remembered of a walk; those of a longer one are not. Two for each frame with a record, less for others.
const WORDS: usize = 128;

/// Hears what a walk depends on.
pub(super) trait Notes {
    /// It read a word, and went by it.
    fn word(&mut self, index: usize, value: usize);
    /// It read a frame pointer, for when it needs one.
    fn frame_pointer(&mut self, index: usize, value: usize);
    /// It needs the last frame pointer that it read, or the register if there was none.
    fn uses_frame_pointer(&mut self);
    /// It goes a way that is not noted.
    fn give_up(&mut self);
}

/// Nobody: a walk costs what it costs without.
impl Notes for () {
    #[inline(always)]
    fn word(&mut self, _: usize, _: usize) {}
    #[inline(always)]
    fn frame_pointer(&mut self, _: usize, _: usize) {}
    #[inline(always)]
    fn uses_frame_pointer(&mut self) {}
    #[inline(always)]
    fn give_up(&mut self) {}
}

/// What a walk begins with. The version is that of the tables, and 0 if there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(super) version: usize,
    pub(super) registers: Registers,
    pub(super) bounds: StackBounds,
    /// The stack pointer of the frame that it ends before.
    pub(super) base: usize,
}

/// A walk, and the stack that came of it.
#[derive(Debug)]
pub(crate) struct Trail {
    /// With version 0 there is none.
    begin: Begin,
    stack: StackId,
    /// Whether it went by the frame pointer that it began with.
    is_by_register: bool,
    /// Whether all that it depended on is here.
    is_whole: bool,
    /// The last frame pointer that was read.
    frame_pointer: FramePointer,
    len: usize,
    // All zeros at first, so that one in a static takes no room in the binary.
    indices: [u32; WORDS],
    values: [usize; WORDS],
}

#[derive(Clone, Copy, Debug)]
enum FramePointer {
    Register,
    Word(usize, usize),
    Noted,
}

impl Trail {
    const fn new() -> Self {
        Self {
            begin: Begin {
                version: 0,
                registers: Registers {
                    pc: 0,
                    sp: 0,
                    fp: 0,
                },
                bounds: StackBounds::EMPTY,
                base: 0,
            },
            stack: StackId::EMPTY,
            is_by_register: false,
            is_whole: false,
            frame_pointer: FramePointer::Register,
            len: 0,
            indices: [0; WORDS],
            values: [0; WORDS],
        }
    }

    /// For a walk that is about to be made.
    pub(super) fn restart(&mut self) {
        self.begin.version = 0;
        self.is_by_register = false;
        self.is_whole = true;
        self.frame_pointer = FramePointer::Register;
        self.len = 0;
    }

    /// The walk that was made began so, and that is its stack.
    pub(crate) fn leads_to(&mut self, begin: Begin, stack: StackId) {
        // Whatever finds no room counts as lost, each time.
        if self.is_whole && begin.version != 0 && stack != StackId::LOST {
            (self.begin, self.stack) = (begin, stack);
        }
    }

    /// Whether the walk that begins so is this one. `words` are those of its bounds.
    #[inline]
    fn is_of(&self, begin: &Begin, words: Words) -> bool {
        let fp = if self.is_by_register {
            self.begin.registers.fp
        } else {
            begin.registers.fp
        };
        let registers = Registers {
            fp,
            ..self.begin.registers
        };
        let indices = self.indices.get(..self.len).unwrap_or_default();
        let values = self.values.get(..self.len).unwrap_or_default();
        let is_there = |(&index, &value): (&u32, &usize)| words.get(index as usize) == Some(value);
        Begin {
            registers,
            ..self.begin
        } == *begin
            && indices.iter().zip(values).all(is_there)
    }
}

impl Notes for Trail {
    #[inline]
    fn word(&mut self, index: usize, value: usize) {
        match (
            u32::try_from(index),
            self.indices.get_mut(self.len),
            self.values.get_mut(self.len),
        ) {
            (Ok(index), Some(known_index), Some(known)) => {
                (*known_index, *known) = (index, value);
                self.len += 1;
            }
            _ => self.is_whole = false,
        }
    }

    #[inline]
    fn frame_pointer(&mut self, index: usize, value: usize) {
        self.frame_pointer = FramePointer::Word(index, value);
    }

    #[inline]
    fn uses_frame_pointer(&mut self) {
        match self.frame_pointer {
            FramePointer::Register => self.is_by_register = true,
            FramePointer::Word(index, value) => self.word(index, value),
            FramePointer::Noted => {}
        }
        self.frame_pointer = FramePointer::Noted;
    }

    #[inline]
    fn give_up(&mut self) {
        self.is_whole = false;
    }
}

/// The last few walks: of several places that take turns, each is known.
#[derive(Debug)]
pub(crate) struct Trails<const N: usize> {
    trails: [Trail; N],
    /// The one that is the oldest.
    next: usize,
}

impl<const N: usize> Trails<N> {
    pub(crate) const fn new() -> Self {
        Self {
            trails: [const { Trail::new() }; N],
            next: 0,
        }
    }

    /// The stack that the walk which begins so would find, if that is known.
    ///
    /// May run in a signal handler: it reads what the walk would read.
    #[inline]
    pub(crate) fn find(&self, begin: &Begin) -> Option<StackId> {
        if begin.version == 0 {
            return None;
        }
        let words = super::walk::words(begin.registers, begin.bounds);
        let mut trails = self.trails.iter();
        (trails.find(|trail| trail.is_of(begin, words))).map(|trail| trail.stack)
    }

    /// One to note a walk in, for one that was not found.
    pub(crate) fn oldest(&mut self) -> Option<&mut Trail> {
        let next = self.next % N;
        self.next = next + 1;
        self.trails.get_mut(next)
    }
}
