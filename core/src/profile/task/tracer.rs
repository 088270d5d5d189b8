//! What tasks need of their host: a clock, the stack, and where it counts.

#![forbid(unsafe_code)]

use core::fmt;
use core::time::Duration;

use super::pool::{Slot, Tasks};
use crate::profile::labels::LabelSetId;
use crate::profile::trace::Event;
use crate::stack::StackId;
use crate::stack::capture::Registers;
use crate::time::Instant;

/// What a host supplies for its tasks: see [`set_tracer`](super::set_tracer).
///
/// Wakers call it, so if they are used in signal handlers or interrupts, it must work there. It must not panic, and
/// not spawn, poll or wake traced tasks.
pub trait Tracer: Sync {
    /// The pool that tasks are kept in: always the same one.
    fn tasks(&self) -> Tasks<'static>;

    /// The time now, by the clock of [`Connection::transmit`](crate::http::Connection::transmit).
    fn now(&self) -> Instant;

    /// The stack of whoever called the function that `registers` are of: without that function's own frame, and without
    /// the frames from the one on whose stack pointer is `base`. With a `base` of 0, to its root.
    ///
    /// That function is still running. With frame pointers,
    /// [`walk_frame_pointers_to`](crate::stack::capture::walk_frame_pointers_to) walks it so; its first entry is the
    /// function itself. A host that can't walk stacks answers [`StackId::EMPTY`].
    fn stack(&self, registers: Registers, base: usize) -> StackId;

    /// What the calling thread is at: in a thread-local variable, or a static where there's one core.
    fn current(&self) -> Context;

    /// Sets what the calling thread is at; answers what it was.
    fn swap_current(&self, context: Context) -> Context;

    /// A task with these labels was woken after it had waited, at the await `stack`; or who wanted a
    /// [lock](crate::profile) has it now. For `block`.
    fn record_block(&self, stack: StackId, labels: LabelSetId, waited: Duration);

    /// A task was woken after it had waited, by whoever is at `stack` and has these labels; or that one unlocked what others
    /// waited for, or let interrupts wait. For `mutex`.
    fn record_mutex(&self, stack: StackId, labels: LabelSetId, waited: Duration);

    /// Something happened that belongs into a [trace](crate::trace), just now and on the calling thread: for
    /// [`Trace::record`](crate::trace::Trace::record). It is only called while [somebody wants to know](crate::trace::is_on).
    fn record(&self, event: Event) {
        let _ = event;
    }

    /// The same of something with a name or a text: for [`Trace::record_with`](crate::trace::Trace::record_with).
    fn record_with(&self, event: Event, name: &'static str, text: &str) {
        let _ = (event, name, text);
    }

    /// The labels of `base` and these; where there are no labels, `base`.
    fn extend_labels(&self, base: LabelSetId, labels: &[(&str, &str)]) -> LabelSetId {
        let _ = labels;
        base
    }
}

impl fmt::Debug for dyn Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tracer")
    }
}

/// What a thread is at: the task that it polls, and its labels. Two words.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    task: Option<&'static Slot>,
    labels: LabelSetId,
}

impl Context {
    /// No task and no labels: what a thread begins with.
    pub const EMPTY: Self = Self {
        task: None,
        labels: LabelSetId::EMPTY,
    };

    /// The polling of a task.
    #[inline]
    pub(super) fn polling(task: &'static Slot) -> Self {
        Self {
            task: Some(task),
            labels: task.labels(),
        }
    }

    /// The same with other labels.
    #[must_use]
    pub const fn with_labels(self, labels: LabelSetId) -> Self {
        Self { labels, ..self }
    }

    /// The labels of what is being done.
    #[must_use]
    pub const fn labels(&self) -> LabelSetId {
        self.labels
    }

    /// The number of the task that is polled: its [`Task::id`](super::Task::id). `None` outside of tasks.
    #[must_use]
    pub fn task(&self) -> Option<u64> {
        self.task.map(Slot::id)
    }

    /// Where the task's part of the stack ends, as [`Tracer::stack`] takes it; 0 outside of tasks.
    #[must_use]
    pub fn base(&self) -> usize {
        self.task.map_or(0, Slot::base)
    }

    pub(super) const fn is_in_task(&self) -> bool {
        self.task.is_some()
    }

    pub(super) fn polls(&self, task: &Slot) -> bool {
        self.task.is_some_and(|polled| core::ptr::eq(polled, task))
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::EMPTY
    }
}
