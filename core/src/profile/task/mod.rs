//! Tasks, as Go shows goroutines: for any executor.
//!
//! [`task`] wraps a future and polls it with a waker of its own. A leaf future that waits clones the waker: the stack at
//! that clone is the await that the task is at, and a task of whose waker there's no clone waits for ever. Whoever
//! wakes it does so by that waker: the stack there is who let it go on.
//!
//! A task has a slot in a [`TaskPool`], which is the data of its waker. The slot is kept until the wrapper and all clones
//! of the waker are gone. `state` is the one word that all agree by; `pool` the slots, and who has which; `waker` the
//! waker's functions; `traced` the wrapper.

#![deny(unsafe_code)]

mod installed;
mod name;
mod pool;
mod state;
#[cfg(all(test, not(loom)))]
mod tests;
mod traced;
mod tracer;
mod waker;
mod wide;

pub use installed::set_tracer;
pub(crate) use installed::tracer;
pub use pool::{TaskPool, Tasks};
pub use traced::{Traced, task};
pub use tracer::{Context, Tracer};

use super::labels::LabelSetId;
use crate::stack::StackId;
use crate::time::Instant;

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
    /// Since when it is in this state. Of one that runs: since when it could.
    pub since: Instant,
    /// How many times it was polled.
    pub polls: u64,
    /// When it was woken last; `None` if it never was.
    pub woken: Option<Instant>,
    /// How many clones of its waker there are, without the one that it is polled with.
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
