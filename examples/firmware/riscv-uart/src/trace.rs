//! The execution trace: by which clock it is, and who records into which stream.

#![allow(unsafe_code)]

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use picoprof::profile::labels::LabelSetId;
use picoprof::profile::task::{Context, Tasks};
use picoprof::stack::StackId;
use picoprof::stack::capture::Registers;
use picoprof::trace::{Event, Limits, Stream, Trace, TraceBuffers, TraceHost, is_on};
use picoprof::{Instant, Tracer};
use riscv_machine::timer;

use crate::profiler;

static BUFFERS: TraceBuffers<16, 128, 16> = TraceBuffers::new();

/// Who records: the main loop, or the interrupt that works.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Main = 0,
    Work = 1,
}

const SOURCES: usize = 2;
const NAMES: [&str; SOURCES] = ["main", "software interrupt"];

static STREAMS: [OneCore; SOURCES] = [OneCore::new(1), OneCore::new(2)];
/// The tick's: samples of each of them.
static SAMPLES: [OneCore; SOURCES] = [
    OneCore::new(1 | Stream::SAMPLES),
    OneCore::new(2 | Stream::SAMPLES),
];

/// Who runs: a [`Source`].
static RUNNING: AtomicUsize = AtomicUsize::new(Source::Main as usize);

static TRACER: &dyn Tracer = &Recorder;

/// A stream in a static.
struct OneCore(Stream);

// SAFETY: one hart runs this, and nothing that takes turns on it: interrupts return before what they interrupted goes on, as
// `Stream` asks for where one is shared.
unsafe impl Sync for OneCore {}

impl OneCore {
    const fn new(id: u32) -> Self {
        Self(Stream::new(id))
    }
}

/// Lets what the program says of itself be recorded: its regions and logs.
pub(crate) fn start() {
    picoprof::set_tracer(&TRACER);
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
fn record(event: Event) {
    record_into(&STREAMS, event);
}

/// The same of something with a name or a text.
fn record_with(event: Event, name: &'static str, text: &str) {
    if let Some(stream) = running(&STREAMS) {
        BUFFERS
            .view()
            .record_with(stream, timer::ticks(), event, name, text);
    }
}

/// For the tick: records a sample of whoever it interrupted.
pub(crate) fn sample(stack: Option<StackId>) {
    if let Some(stack) = stack.filter(|&stack| stack != StackId::IDLE && is_on()) {
        record_into(&SAMPLES, Event::sample(stack));
    }
}

/// Waits for an interrupt.
pub(crate) fn wait_for_interrupt() {
    if is_on() {
        record(Event::waits(0, StackId::IDLE));
    }
    picoprof::interrupt::wait_for_interrupt();
    if is_on() {
        record(Event::resumed());
    }
}

fn record_into(streams: &[OneCore; SOURCES], event: Event) {
    if let Some(stream) = running(streams) {
        BUFFERS.view().record(stream, timer::ticks(), event);
    }
}

/// The stream of whoever runs: there is one.
fn running(streams: &[OneCore; SOURCES]) -> Option<&Stream> {
    let stream = streams.get(RUNNING.load(Ordering::Relaxed))?;
    Some(&stream.0)
}

/// What `/debug/pprof/trace` needs of this machine.
#[derive(Debug)]
pub(crate) struct Host;

impl TraceHost for Host {
    fn buffers(&self) -> Trace<'static> {
        BUFFERS.view()
    }

    fn ticks(&self) -> u64 {
        timer::ticks()
    }

    fn ticks_per_second(&self) -> u64 {
        timer::HZ
    }

    fn limits(&self) -> Limits {
        Limits::SMALL
    }

    fn stream_name(&self, stream: u32, name: &mut dyn fmt::Write) -> fmt::Result {
        let index = (stream as usize).wrapping_sub(1);
        name.write_str(NAMES.get(index).unwrap_or(&"?"))
    }
}

/// There are no tasks: what is left of a [`Tracer`] is the recorder.
struct Recorder;

impl Tracer for Recorder {
    fn tasks(&self) -> Tasks<'static> {
        profiler::tasks()
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(timer::nanos())
    }

    fn stack(&self, _: Registers, _: usize) -> StackId {
        StackId::EMPTY
    }

    fn current(&self) -> Context {
        Context::EMPTY
    }

    fn swap_current(&self, _: Context) -> Context {
        Context::EMPTY
    }

    fn record_block(&self, _: StackId, _: LabelSetId, _: Duration) {}

    fn record_mutex(&self, _: StackId, _: LabelSetId, _: Duration) {}

    fn record(&self, event: Event) {
        record(event);
    }

    fn record_with(&self, event: Event, name: &'static str, text: &str) {
        record_with(event, name, text);
    }
}
