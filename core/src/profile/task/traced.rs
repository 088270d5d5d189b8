//! The wrapper around a future that makes it a task with a name.

#![forbid(unsafe_code)]

use core::fmt;
use core::future::Future;
use core::hint::black_box;
use core::pin::Pin;
use core::task::{Context as PollContext, Poll, Waker};

use pin_project_lite::pin_project;

use super::installed::tracer;
use super::pool::{Slot, Spawn};
use super::state::{Held, Polling};
use super::tracer::{Context, Tracer};
use super::waker;
use crate::stack::StackId;
use crate::stack::capture::{Registers, registers_here};

/// Makes a future a task that is seen in `goroutine`, with this name: to be spawned on any executor, or awaited as a
/// part of another task.
///
/// Its stack is where it was made, and then the await that it is at. It belongs to the task that it is made in, and
/// begins with the labels there. Without a [tracer](super::set_tracer) the future runs as it would without this; so it
/// does when the tracer's pool is full, which counts it.
///
/// ```
/// async fn accept() {}
///
/// let accepts = picoprof::task("accept", accept()).labels([("port", "80")]);
/// # drop(accepts);
/// // As in `executor.spawn(accepts)`.
/// ```
#[inline(never)]
pub fn task<F: Future>(name: &'static str, future: F) -> Traced<F> {
    // Of this function, which has a frame of its own: that is not part of the stack.
    let registers = registers_here();
    Traced {
        future,
        seen: Seen::begin(name, registers),
    }
}

pin_project! {
    /// A future as [`task`] makes it.
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct Traced<F> {
        // Dropped before the task ends: what it drops belongs to the task.
        #[pin]
        future: F,
        seen: Option<Seen>,
    }
}

impl<F> Traced<F> {
    /// Adds labels to those that the task has of whoever spawned it.
    pub fn labels<'l>(self, labels: impl AsRef<[(&'l str, &'l str)]>) -> Self {
        if let (Some(seen), Some(tracer)) = (&self.seen, tracer()) {
            let all = tracer.extend_labels(seen.slot.labels(), labels.as_ref());
            seen.slot.relabel(all);
        }
        self
    }
}

impl<F: Future> Future for Traced<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, executor: &mut PollContext<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Some(polled) = Polled::begin(this.seen, registers_here().sp) else {
            return this.future.poll(executor);
        };
        let waker = waker::lent(polled.slot);
        // Not inlined, so that what is polled has a frame of its own below the stack pointer from above.
        let poll: fn(Pin<&mut F>, &mut PollContext<'_>) -> Poll<F::Output> = F::poll;
        let result = black_box(poll)(this.future, &mut PollContext::from_waker(&waker));
        if result.is_pending() {
            polled.pend(executor.waker());
        }
        // Else, and when it panics, the task ends.
        result
    }
}

impl<F> fmt::Debug for Traced<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.seen.as_ref().map(|seen| seen.slot.id());
        f.debug_struct("Traced")
            .field("task", &id)
            .finish_non_exhaustive()
    }
}

/// A task in its pool.
struct Seen {
    slot: &'static Slot,
    /// Always there, but for the moment that this is dropped in.
    held: Option<Held<'static>>,
}

impl Seen {
    /// A task begins, made by who called the function that `registers` are of.
    fn begin(name: &'static str, registers: Registers) -> Option<Self> {
        let tracer = tracer()?;
        let spawner = tracer.current();
        let (slot, id) = tracer.tasks().claim()?;
        let spawn = Spawn {
            id,
            parent: spawner.task(),
            labels: spawner.labels(),
            stack: tracer.stack(registers, spawner.base()),
            now: tracer.now(),
        };
        let held = Some(slot.begin(name, &spawn)?);
        Some(Self { slot, held })
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.slot.end(held);
        }
    }
}

/// A poll: the task is what its thread is at.
struct Polled<'a> {
    slot: &'static Slot,
    tracer: &'static dyn Tracer,
    /// What the thread was at before, and is again after.
    outside: Context,
    /// The await stack of the last poll.
    awaited_at: StackId,
    /// Always there, but for the moment that this is dropped in.
    polling: Option<Polling<'a>>,
}

impl<'a> Polled<'a> {
    /// `None` if the task isn't seen, or has ended.
    fn begin(seen: &'a mut Option<Seen>, base: usize) -> Option<Self> {
        let Seen { slot, held } = seen.as_mut()?;
        let tracer = tracer()?;
        let outside = tracer.current();
        let polling = slot.poll(held.as_mut()?, base, outside.is_in_task(), tracer)?;
        tracer.swap_current(Context::polling(slot));
        Some(Self {
            slot,
            tracer,
            outside,
            awaited_at: slot.awaits_at(),
            polling: Some(polling),
        })
    }

    /// The child is pending.
    fn pend(mut self, executor: &Waker) {
        // First, as `executor` may be the waker of a task outside, which it is cloned in.
        self.tracer.swap_current(self.outside);
        if let Some(polling) = self.polling.take() {
            self.slot
                .pend(polling, executor, self.awaited_at, self.tracer);
        }
    }
}

/// The child is ready, or has panicked: the task ends.
impl Drop for Polled<'_> {
    fn drop(&mut self) {
        if let Some(polling) = self.polling.take() {
            self.tracer.swap_current(self.outside);
            self.slot.finish(polling);
        }
    }
}
