//! The execution trace: what happens when, for `go tool trace`.
//!
//! Whoever does something worth telling, records an [`Event`]: with its [`Stream`], one for each thread and for each
//! interrupt, into [`TraceBuffers`] that all share. That takes no lock and no memory, and never waits: where no buffer
//! is free the event is lost and counted, and who reads too slowly loses the oldest. Events are plain
//! facts. `encode::trace` makes Go's trace of them, and repairs what is missing or comes twice, so that whatever was
//! recorded can be read.
//!
//! `state` says whether somebody wants events; `event` what there is to record; `stream` and `buffers` are where it goes;
//! `name` keeps names that are there for ever; `annotation` is what a program says of itself.

#![deny(unsafe_code)]

pub(crate) mod annotation;
pub(crate) mod buffers;
pub(crate) mod event;
pub(crate) mod host;
pub(crate) mod name;
pub(crate) mod state;
mod stream;

pub use annotation::{Region, Task, log, region, task};
pub use buffers::{Trace, TraceBuffers};
pub use event::Event;
pub use host::{Limits, TraceHost};
pub use state::{FlightRecorder, is_on};
pub use stream::Stream;

use super::task::{Tracer, tracer};

/// Records what just happened on the calling thread, if somebody wants to know.
#[inline]
pub(crate) fn record(event: impl FnOnce() -> Event) {
    if is_on() {
        record_plain(event());
    }
}

/// The same where the tracer is known.
#[inline]
pub(crate) fn record_by(tracer: &dyn Tracer, event: impl FnOnce() -> Event) {
    if is_on() {
        tracer.record(event());
    }
}

#[cold]
#[inline(never)]
fn record_plain(event: Event) {
    if let Some(tracer) = tracer() {
        tracer.record(event);
    }
}

/// The same with a name or some text of the event's, which is to be asked for before.
#[cold]
#[inline(never)]
pub(crate) fn record_with(event: Event, name: &'static str, text: &str) {
    if let Some(tracer) = tracer() {
        tracer.record_with(event, name, text);
    }
}
