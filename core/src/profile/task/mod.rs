//! Tasks, as Go shows goroutines: for any executor.

#![deny(unsafe_code)]

use super::labels::LabelSetId;
use crate::stack::StackId;
use crate::time::Instant;

/// The pool of tasks, whose size is not in the type.
#[derive(Clone, Copy, Debug)]
pub struct Tasks<'a> {
    slots: &'a [()],
}

impl Tasks<'_> {
    /// How many tasks there is room for: [`get`](Self::get)'s argument is below it.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// How many tasks there are now.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tasks found no room so far: they run unseen.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        0
    }

    /// The task in a slot, if there's one.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<Task> {
        let _ = slot;
        None
    }
}

/// A task at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Task {
    /// Its number: no other task of this program has or had it.
    pub id: u64,
    /// Who spawned it: the number of the task, 0 if it was none.
    pub parent: u64,
    /// The name it was given.
    pub name: &'static str,
    /// Its labels.
    pub labels: LabelSetId,
    /// Where it was spawned.
    pub spawned_at: StackId,
    /// The await that it is at, leaf first, as far as the wrapper; [`StackId::EMPTY`] before the first.
    pub awaits_at: StackId,
    /// What it does.
    pub state: State,
    /// When it was spawned.
    pub spawned: Instant,
    /// Since when it is in this state.
    pub since: Instant,
    /// How many times it was polled.
    pub polls: u64,
    /// When it was woken last; `None` if it never was.
    pub woken: Option<Instant>,
    /// How many clones of its waker there are.
    pub wakers: usize,
    /// Whether another task polls it: then that one's waker matters.
    pub is_nested: bool,
}

impl Task {
    /// Whether nothing can wake it any more.
    #[must_use]
    pub fn is_leaked(&self) -> bool {
        self.state == State::Pending && self.wakers == 0 && !self.is_nested
    }
}

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum State {
    /// It was not polled yet.
    New,
    /// It is being polled.
    Running,
    /// It waits to be woken.
    Pending,
    /// It was woken, and waits to be polled.
    Woken,
}
