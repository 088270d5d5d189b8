//! Threads and tasks as one list: what Go has as goroutines.

#![forbid(unsafe_code)]

use core::fmt;

use crate::profile::Kind;
use crate::profile::labels::LabelSetId;
use crate::profile::task::{Task, Tasks};
use crate::stack::StackId;
use crate::target::{Target, Thread};

/// The number of the first task as a goroutine: what systems number threads by is below (Linux: 2^22 at the
/// most), and people can still tell a task's own number.
const FIRST_TASK: u64 = 1_000_000_000;

/// The goroutines that a profile is about, numbered from 0 with gaps: the threads at a moment, and the tasks as
/// they are when they are looked at.
pub(crate) struct Goroutines<'t, T: Target> {
    threads: Option<T::Threads>,
    tasks: Option<Tasks<'t>>,
    leaked_only: bool,
}

impl<'t, T: Target> Goroutines<'t, T> {
    /// Whether there can be threads: the `[Thread; 0]` of a program without them takes no memory. Such a program is small,
    /// and is to be without what is only for them.
    pub(crate) const HAS_THREADS: bool = size_of::<T::Threads>() != 0;

    /// Takes the threads, if `kind` is about them.
    pub(crate) fn of(target: &'t T, kind: Kind) -> Self {
        let leaked_only = kind == Kind::GoroutineLeak;
        Self {
            threads: (!leaked_only).then(|| target.threads()),
            tasks: target.profiles().tasks,
            leaked_only,
        }
    }

    /// How many there are now, or a few more.
    pub(crate) fn len(&self) -> usize {
        self.threads().len() + self.tasks.map_or(0, |tasks| tasks.len())
    }

    /// One more than the highest number.
    pub(crate) fn extent(&self) -> usize {
        self.threads().len() + self.tasks.map_or(0, |tasks| tasks.capacity())
    }

    /// The one with this number, if there's one now.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<Goroutine> {
        let threads = self.threads();
        if let Some(thread) = threads.get(index) {
            return Some(Goroutine::Thread(*thread));
        }
        match self.tasks?.get(index - threads.len()) {
            Some(task) if !self.leaked_only || task.is_leaked() => Some(Goroutine::Task(task)),
            _ => None,
        }
    }

    /// Where the one with this number is, and its labels, if there's one now.
    pub(crate) fn place(&self, index: usize) -> Option<(StackId, LabelSetId)> {
        let threads = self.threads();
        if let Some(thread) = threads.get(index) {
            return Some((known(thread.stack), thread.labels));
        }
        match self.tasks?.whereabouts(index - threads.len()) {
            Some(task) if !self.leaked_only || task.is_leaked => {
                Some((known(task.stack), task.labels))
            }
            _ => None,
        }
    }

    /// All that there are now.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Goroutine> {
        (0..self.extent()).filter_map(|index| self.get(index))
    }

    fn threads(&self) -> &[Thread] {
        self.threads.as_ref().map_or(&[], AsRef::as_ref)
    }
}

impl<T: Target> fmt::Debug for Goroutines<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Goroutines")
            .field("threads", &self.threads)
            .field("tasks", &self.tasks)
            .finish_non_exhaustive()
    }
}

/// A thread or a task at a moment.
#[allow(
    clippy::large_enum_variant,
    reason = "there is no heap to put the large one in"
)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goroutine {
    Thread(Thread),
    Task(Task),
}

impl Goroutine {
    /// The number that it has in dumps: a thread's is the system's.
    pub(crate) fn id(&self) -> u64 {
        match self {
            Self::Thread(thread) => thread.id,
            Self::Task(task) => id_of_task(task.id),
        }
    }

    /// Where it is: a task that was not polled yet is where it was spawned.
    #[inline]
    pub(crate) fn stack(&self) -> StackId {
        known(match self {
            Self::Thread(thread) => thread.stack,
            Self::Task(task) if task.awaits_at == StackId::EMPTY => task.spawned_at,
            Self::Task(task) => task.awaits_at,
        })
    }

    #[inline]
    pub(crate) const fn labels(&self) -> LabelSetId {
        match self {
            Self::Thread(thread) => thread.labels,
            Self::Task(task) => task.labels,
        }
    }
}

/// A stack that is shown: no goroutine is without one.
#[inline]
fn known(stack: StackId) -> StackId {
    if stack == StackId::EMPTY {
        StackId::UNAVAILABLE
    } else {
        stack
    }
}

/// The number that a task has in dumps.
pub(crate) const fn id_of_task(id: u64) -> u64 {
    FIRST_TASK.saturating_add(id)
}
