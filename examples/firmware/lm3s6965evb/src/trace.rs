//! The execution trace: by which clock it is, and who records into which stream.

#![allow(unsafe_code)]

use core::fmt;

use picoprof::stack::StackId;
use picoprof::trace::{Event, Limits, Stream, Trace, TraceBuffers, TraceHost, is_on};
use portable_atomic::{AtomicUsize, Ordering};

use crate::clock;

/// 2 KB: what happens in some 50 ms, of which each is fetched within 10.
static BUFFERS: TraceBuffers<14, 32, 16> = TraceBuffers::new();

/// Who records: the program itself, or an interrupt's handler.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Main = 0,
    Sensor = 1,
    Ethernet = 2,
}

const SOURCES: usize = 3;
const NAMES: [&str; SOURCES] = ["main", "TIMER_0A", "ETHERNET"];

static STREAMS: [OneCore; SOURCES] = [OneCore::new(1), OneCore::new(2), OneCore::new(3)];
/// The tick's: samples of each of them.
static SAMPLES: [OneCore; SOURCES] = [
    OneCore::new(1 | Stream::SAMPLES),
    OneCore::new(2 | Stream::SAMPLES),
    OneCore::new(3 | Stream::SAMPLES),
];

/// Who runs: a [`Source`].
static RUNNING: AtomicUsize = AtomicUsize::new(Source::Main as usize);

/// A stream in a static.
struct OneCore(Stream);

// SAFETY: there is one core, and nothing that takes turns on it: interrupts return before what they interrupted goes on, as
// `Stream` asks for where one is shared.
unsafe impl Sync for OneCore {}

impl OneCore {
    const fn new(id: u32) -> Self {
        Self(Stream::new(id))
    }
}

/// An interrupt's handler runs for as long as this lives.
pub(crate) struct Handler {
    interrupted: usize,
}

impl Handler {
    /// To be called first in it.
    pub(crate) fn enter(source: Source) -> Self {
        // Another interrupt ends, and has put back what it found, before this goes on: loads and stores are enough.
        let interrupted = RUNNING.load(Ordering::Relaxed);
        RUNNING.store(source as usize, Ordering::Relaxed);
        if is_on() {
            record(Event::handler_entered());
        }
        Self { interrupted }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        if is_on() {
            record(Event::handler_left());
        }
        RUNNING.store(self.interrupted, Ordering::Relaxed);
    }
}

/// Records what just happened to whoever runs.
pub(crate) fn record(event: Event) {
    record_into(&STREAMS, event);
}

/// The same of something with a name or a text.
pub(crate) fn record_with(event: Event, name: &'static str, text: &str) {
    if let Some(stream) = running(&STREAMS) {
        BUFFERS
            .view()
            .record_with(stream, clock::cycles(), event, name, text);
    }
}

/// For the tick: records a sample of whoever it interrupted.
pub(crate) fn sample(stack: Option<StackId>) {
    if let Some(stack) = stack.filter(|&stack| stack != StackId::IDLE && is_on()) {
        record_into(&SAMPLES, Event::sample(stack));
    }
}

/// Runs `sleep`, in which the processor waits for an interrupt.
pub(crate) fn idle(sleep: impl FnOnce()) {
    if is_on() {
        record(Event::waits(0, StackId::IDLE));
    }
    sleep();
    if is_on() {
        record(Event::resumed());
    }
}

fn record_into(streams: &[OneCore; SOURCES], event: Event) {
    if let Some(stream) = running(streams) {
        BUFFERS.view().record(stream, clock::cycles(), event);
    }
}

/// The stream of whoever runs: there is one.
fn running(streams: &[OneCore; SOURCES]) -> Option<&Stream> {
    let stream = streams.get(RUNNING.load(Ordering::Relaxed))?;
    Some(&stream.0)
}

/// What `/debug/pprof/trace` needs of this program.
#[derive(Debug)]
pub(crate) struct Host;

impl TraceHost for Host {
    fn buffers(&self) -> Trace<'static> {
        BUFFERS.view()
    }

    fn ticks(&self) -> u64 {
        clock::cycles()
    }

    fn ticks_per_second(&self) -> u64 {
        u64::from(clock::CLOCK)
    }

    /// 3.4 KB of the memory for responses, of which that leaves enough for what is looked up meanwhile.
    fn limits(&self) -> Limits {
        Limits {
            goroutines: 12,
            streams: 7,
            stacks: 24,
            names: 12,
            regions: 4,
            pieces: 6,
            piece_bytes: 160,
        }
    }

    fn stream_name(&self, stream: u32, name: &mut dyn fmt::Write) -> fmt::Result {
        let index = (stream as usize).wrapping_sub(1);
        name.write_str(NAMES.get(index).unwrap_or(&"?"))
    }
}
