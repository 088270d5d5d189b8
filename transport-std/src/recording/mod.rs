//! The execution trace of this process: what its threads record, and with what.
//!
//! Each thread has a [`Stream`], whose number is the kernel's for the thread, and a second one that the handler of CPU samples
//! writes. They are constant at first and have no destructor, so that an event may be recorded at any time of a thread's life,
//! in a signal handler too. A thread that ends gives its buffers back; of one that ends without a word `refresh` takes them.
//!
//! A forked child records into its own copy of all this.

#![deny(unsafe_code)]

mod clock;
mod counter;
mod host;
mod names;
mod reclaim;
mod recorder;

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};

use picoprof::profile::labels::LabelSetId;
use picoprof::profile::trace::{Event, Stream, Trace, TraceBuffers};
use picoprof::stack::StackId;

pub(crate) use host::ThisProcess;
pub(crate) use picoprof::trace::is_on;
pub use recorder::FlightRecorder;

use crate::{cpu, current, interposed};

/// 8 MB, of which only what was written counts: a second of a million small events, or 2,048 threads at once.
static BUFFERS: TraceBuffers<2048, 1024, 4096> = TraceBuffers::new();
/// Their view is in memory, so that an event needs not put it together.
static TRACE: Trace<'static> = BUFFERS.view();

thread_local! {
    /// Its number is 0 until the thread's first event, and again when it has ended.
    static STREAM: Stream = const { Stream::new(0) };
    /// For CPU samples. Only for handlers that [may use it](current::is_static).
    static SAMPLES: Stream = const { Stream::new(0) };
    /// The thread has said that it ends. What its thread-local variables do when they are dropped is no part of a trace.
    static HAS_ENDED: Cell<bool> = const { Cell::new(false) };
}

/// The time by the clock of events.
///
/// May run in a signal handler.
#[inline]
pub(crate) fn ticks() -> u64 {
    clock::ticks()
}

/// Records what just happened on the calling thread. To be called if a trace [is on](is_on).
///
/// May run in a signal handler: no lock, no allocation, and no system call but once in a thread's life, to ask for its number.
#[inline]
pub(crate) fn record(event: Event) {
    let is_recorded = STREAM.with(|stream| {
        let ticks = clock::counter_ticks();
        ticks.is_some_and(|ticks| stream.try_record(ticks, event))
    });
    if !is_recorded {
        record_otherwise(event);
    }
}

/// A thread's first event, one that needs a new buffer, and those of machines without a counter.
#[cold]
#[inline(never)]
fn record_otherwise(event: Event) {
    record_at(clock::ticks(), event);
}

/// The same of what has a name or a text.
pub(crate) fn record_with(event: Event, name: &'static str, text: &str) {
    STREAM.with(|stream| {
        if stream.id() != 0 || begin(stream, 0) {
            TRACE.record_with(stream, clock::ticks(), event, name, text);
        }
    });
}

/// The same for what happened at a time before.
pub(crate) fn record_at(ticks: u64, event: Event) {
    STREAM.with(|stream| {
        if stream.id() != 0 || begin(stream, 0) {
            TRACE.record(stream, ticks, event);
        }
    });
}

/// Gives the calling thread's stream its number; false if the thread is to be in no trace.
///
/// May run in a signal handler.
#[cold]
#[inline(never)]
fn begin(stream: &Stream, kind: u32) -> bool {
    if interposed::is_unseen() || HAS_ENDED.get() {
        return false;
    }
    reclaim::note_process();
    stream.set_id(cpu::this_thread() as u32 | kind);
    true
}

/// A CPU sample of the thread that a handler interrupted.
///
/// It runs in the signal handler.
#[inline]
pub(crate) fn sample_in_handler(stack: StackId) {
    // Before it is known that a handler may, it must not look at this thread's memory.
    if is_on() && current::is_static() {
        SAMPLES.with(|stream| {
            if stream.id() != 0 || begin(stream, Stream::SAMPLES) {
                TRACE.record(stream, clock::ticks(), Event::sample(stack));
            }
        });
    }
}

/// The ticket of a thread that the calling one, at `stack`, is about to create.
pub(crate) fn thread_created(stack: StackId) -> u32 {
    static TICKETS: AtomicU32 = AtomicU32::new(1);
    let ticket = TICKETS.fetch_add(1, Ordering::Relaxed);
    if is_on() {
        record(Event::thread_created(ticket, stack));
    }
    ticket
}

/// The calling thread is new; this is its ticket.
pub(crate) fn thread_began(ticket: u32) {
    if is_on() {
        record(Event::thread_began(ticket));
    }
}

/// The calling thread is about to end, and records nothing more.
pub(crate) fn thread_ends() {
    let has_recorded = STREAM.with(Stream::id) != 0;
    if is_on() && has_recorded {
        // Before the kernel has forgotten it.
        names::keep(STREAM.with(Stream::id));
        record(Event::thread_ended());
    }
    HAS_ENDED.set(true);
    for stream in [&STREAM, &SAMPLES] {
        stream.with(|stream| {
            // So that the next event that needs a buffer asks whether it has ended: also that of a signal's handler, from here on.
            stream.set_id(0);
            TRACE.close_stream(stream);
        });
    }
}

/// What the calling thread does has these labels from now on.
#[inline]
pub(crate) fn labels_changed(labels: LabelSetId) {
    if is_on() {
        record(Event::labels(labels));
    }
}

/// The calling thread is going to wait at this address.
///
/// May run in a signal handler.
pub(crate) fn waits(address: usize, stack: StackId) {
    record(Event::waits(place(address), stack));
}

/// It waits no more.
///
/// May run in a signal handler.
#[inline]
pub(crate) fn resumed() {
    if is_on() {
        record(Event::resumed());
    }
}

/// At `ticks`, the calling thread let so many go on that waited at this address.
///
/// May run in a signal handler.
pub(crate) fn wakes(ticks: u64, address: usize, woken: u64, stack: StackId) {
    let woken = u32::try_from(woken).unwrap_or(u32::MAX);
    record_at(ticks, Event::wakes(place(address), woken, stack));
}

/// What a place in memory is told by: futexes are words, and those that are the same here are 16 GB apart.
const fn place(address: usize) -> u32 {
    (address >> 2) as u32
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
    use std::thread;

    use picoprof::trace::Region;

    use super::*;

    /// Traces are the process's, so the tests of them come one after the other.
    pub(super) fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trace of what `f` does.
    pub(super) fn recorded(f: impl FnOnce()) -> Vec<u8> {
        let _alone = alone();
        recorded_alone(f)
    }

    /// The same where the caller is [`alone`].
    pub(super) fn recorded_alone(f: impl FnOnce()) -> Vec<u8> {
        let recorder = FlightRecorder::start().expect("nobody else records");
        f();
        let mut trace = Vec::new();
        FlightRecorder::write_to(&mut trace).unwrap();
        drop(recorder);
        assert!(trace.starts_with(b"go 1.22 trace\0\0\0"));
        trace
    }

    pub(super) fn contains(trace: &[u8], text: &str) -> bool {
        trace
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    }

    #[test]
    fn a_thread_that_begins_and_ends_is_in_the_trace() {
        let trace = recorded(|| {
            let named = thread::Builder::new().name("comes and goes".into());
            let thread = named.spawn(|| {
                thread_began(thread_created(StackId::EMPTY));
                drop(Region::new("what it does"));
                thread_ends();
                drop(Region::new("too late"));
            });
            thread.unwrap().join().unwrap();
        });
        assert!(contains(&trace, "comes and goes"));
        assert!(contains(&trace, "what it does"));
        assert!(!contains(&trace, "too late"));
    }

    #[test]
    fn what_is_unseen_is_in_no_trace() {
        let trace = recorded(|| {
            thread::spawn(|| {
                interposed::be_unseen();
                drop(Region::new("of this crate's own"));
            })
            .join()
            .unwrap();
        });
        assert!(!contains(&trace, "of this crate's own"));
    }

    /// Without the macro nobody hears that a thread ends.
    #[test]
    fn threads_that_say_nothing_at_their_end_leave_no_buffer_taken() {
        let before = BUFFERS.view().lost();
        let trace = recorded(|| {
            // More than there are buffers.
            for _ in 0..3 {
                for _ in 0..1000 {
                    thread::spawn(|| drop(Region::new("silent")))
                        .join()
                        .unwrap();
                }
                reclaim::refresh();
            }
        });
        assert_eq!(BUFFERS.view().lost(), before);
        assert!(contains(&trace, "silent"));
    }

    #[test]
    fn waits_and_wakes_are_recorded_where_no_profile_wants_them() {
        let trace = recorded(|| {
            let (sender, receiver) = mpsc::channel::<()>();
            let thread = thread::Builder::new().name("waits".into()).spawn(move || {
                waits(0x7000, StackId::EMPTY);
                let _ = receiver.recv_timeout(Duration::from_millis(5));
                resumed();
            });
            thread::sleep(Duration::from_millis(1));
            let before = ticks();
            drop(sender);
            wakes(before, 0x7000, 1, StackId::EMPTY);
            thread.unwrap().join().unwrap();
        });
        assert!(!trace.is_empty());
    }

    #[test]
    fn who_is_at_it_already_is_refused() {
        let _alone = alone();
        let Err(error) = FlightRecorder::write_to(&mut Vec::new()) else {
            panic!("nothing is recorded");
        };
        assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
        let first = FlightRecorder::start();
        assert!(first.is_some() && FlightRecorder::start().is_none());
        let refused = interposed::while_unseen(|| FlightRecorder::write_to(&mut Vec::new()));
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
}
