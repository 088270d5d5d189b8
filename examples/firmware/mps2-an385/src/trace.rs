//! The execution trace: by which clock it is, and who records into which stream.

#![allow(unsafe_code)]

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use picoprof::stack::StackId;
use picoprof::trace::{Event, Limits, Stream, Trace, TraceBuffers, TraceHost, is_on};

use crate::clock;

/// 32 KB: what happens in some 100 ms under load. Over the UART it takes as long until all is fetched.
static BUFFERS: TraceBuffers<64, 128> = TraceBuffers::new();

/// Who records: the program itself, or an interrupt's handler.
#[derive(Clone, Copy)]
pub enum Source {
    Main = 0,
    Uart = 1,
    Alarm = 2,
    Sensor = 3,
    Ethernet = 4,
}

const SOURCES: usize = 5;
const NAMES: [&str; SOURCES] = ["main", "UART", "alarm", "sensor", "Ethernet"];

static STREAMS: [OneCore; SOURCES] = streams(0);
/// The tick's: samples of each of them.
static SAMPLES: [OneCore; SOURCES] = streams(Stream::SAMPLES);

/// Who runs: a [`Source`].
static RUNNING: AtomicUsize = AtomicUsize::new(Source::Main as usize);

/// A stream in a static.
struct OneCore(Stream);

// SAFETY: there is one core, and nothing that takes turns on it: interrupts return before what they interrupted goes on, as
// `Stream` asks for where one is shared.
unsafe impl Sync for OneCore {}

/// A stream for each source, with numbers from 1 up.
const fn streams(kind: u32) -> [OneCore; SOURCES] {
    let mut streams = [const { OneCore(Stream::new(0)) }; SOURCES];
    let mut i = 0;
    while i < SOURCES {
        streams[i] = OneCore(Stream::new((i as u32 + 1) | kind));
        i += 1;
    }
    streams
}

/// An interrupt's handler runs for as long as this lives.
pub struct Handler {
    interrupted: usize,
}

impl Handler {
    /// To be called first in it.
    pub fn enter(source: Source) -> Self {
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
pub fn record(event: Event) {
    record_into(&STREAMS, event);
}

/// The same of something with a name or a text.
pub fn record_with(event: Event, name: &'static str, text: &str) {
    if let Some(stream) = running(&STREAMS) {
        BUFFERS
            .view()
            .record_with(stream, clock::cycles(), event, name, text);
    }
}

/// For the tick: records a sample of whoever it interrupted.
pub fn sample(stack: Option<StackId>) {
    if let Some(stack) = stack.filter(|&stack| stack != StackId::IDLE && is_on()) {
        record_into(&SAMPLES, Event::sample(stack));
    }
}

/// Runs `sleep`, in which the processor waits for an interrupt.
pub fn idle(sleep: impl FnOnce()) {
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
pub struct Host;

impl TraceHost for Host {
    fn buffers(&self) -> Trace<'static> {
        BUFFERS.view()
    }

    fn ticks(&self) -> u64 {
        clock::cycles()
    }

    fn ticks_per_second(&self) -> u64 {
        u64::from(clock::CORE_HZ)
    }

    /// 32 KB of the heap, for as long as a trace is taken.
    fn limits(&self) -> Limits {
        Limits {
            goroutines: 48,
            streams: 2 * SOURCES + 1,
            stacks: 384,
            names: 48,
            regions: 32,
            pieces: SOURCES + 3,
            piece_bytes: 1024,
        }
    }

    fn stream_name(&self, stream: u32, name: &mut dyn fmt::Write) -> fmt::Result {
        let index = (stream as usize).wrapping_sub(1);
        name.write_str(NAMES.get(index).unwrap_or(&"?"))
    }
}
