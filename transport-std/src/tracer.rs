//! Tasks in this process: what `picoprof` asks of its host for them.

#![allow(unsafe_code)]

use core::time::Duration;
use std::sync::Once;

use picoprof::profile::labels::LabelSetId;
use picoprof::profile::task::{Context, Tasks, Traced, Tracer};
use picoprof::profile::trace::Event;
use picoprof::stack::StackId;
use picoprof::stack::capture::Registers;
use picoprof::{Instant, set_tracer};

use crate::{clock, contention, current, recording, stack, tables};

/// Makes a future a task that is seen in `goroutine`, with this name: to be spawned on any executor, or awaited as a part of
/// another task.
///
/// From then on there is where it was made, the await that it is at, for how long, and how often it was polled. How long it
/// waited is in `block`, and who ended that in `mutex`.
///
/// ```
/// # fn spawn(_: impl Future) {}
/// spawn(picoprof_std::task("greeter", async {
///     println!("hello");
/// }));
/// ```
///
/// It is [`picoprof::task`], which a library uses that knows of no operating system, and sees to it that tasks are
/// seen. For that one alone they are from the first [`Server::spawn`](crate::Server::spawn) on.
// Always inlined, so that the stack begins with who calls this.
#[inline(always)]
pub fn task<F: Future>(name: &'static str, future: F) -> Traced<F> {
    see_tasks();
    picoprof::task(name, future)
}

/// Lets tasks be seen that are made from now on.
#[inline]
pub(crate) fn see_tasks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        set_tracer(&TRACER);
    });
}

static TRACER: &dyn Tracer = &ThisProcess;

#[derive(Debug)]
struct ThisProcess;

impl Tracer for ThisProcess {
    fn tasks(&self) -> Tasks<'static> {
        tables::tasks()
    }

    fn now(&self) -> Instant {
        clock::now()
    }

    fn stack(&self, registers: Registers, base: usize) -> StackId {
        let base = if base == 0 { usize::MAX } else { base };
        // SAFETY: only `picoprof`'s tasks and locks have this tracer, and they keep to what `Tracer::stack` says of the registers.
        unsafe { stack::intern_up_to(base, registers) }
    }

    fn current(&self) -> Context {
        current::context()
    }

    fn swap_current(&self, context: Context) -> Context {
        current::swap_context(context)
    }

    fn record_block(&self, stack: StackId, labels: LabelSetId, waited: Duration) {
        contention::task_waited(stack, labels, waited);
    }

    fn record_mutex(&self, stack: StackId, labels: LabelSetId, waited: Duration) {
        contention::task_woken(stack, labels, waited);
    }

    fn record(&self, event: Event) {
        recording::record(event);
    }

    fn record_with(&self, event: Event, name: &'static str, text: &str) {
        recording::record_with(event, name, text);
    }

    fn extend_labels(&self, base: LabelSetId, labels: &[(&str, &str)]) -> LabelSetId {
        tables::labels().extend(base, labels)
    }
}
