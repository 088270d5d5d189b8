//! The execution trace: by which clock it is, and who records into which stream.

#![allow(unsafe_code)]

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use picoprof::Tracer;
use picoprof::stack::StackId;
use picoprof::stack::capture::registers_here;
use picoprof::trace::{Event, Limits, Stream, Trace, TraceBuffers, TraceHost, is_on};
use riscv_machine::{HARTS, interrupts, timer};

use crate::profiler::{self, Machine};

/// 128 KB: what happens in some 100 ms under load.
static BUFFERS: TraceBuffers<128, 256> = TraceBuffers::new();

/// Who records on a hart: the program itself, or an interrupt's handler.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Hart = 0,
    Card = 1,
    Software = 2,
}

const SOURCES: usize = 3;
const NAMES: [[&str; SOURCES]; HARTS] = [
    ["hart 0", "hart 0, card", "hart 0, software interrupt"],
    ["hart 1", "hart 1, card", "hart 1, software interrupt"],
];

static STREAMS: [[OneHart; SOURCES]; HARTS] = streams(0);
/// The ticks': samples of each of them.
static SAMPLES: [[OneHart; SOURCES]; HARTS] = streams(Stream::SAMPLES);

/// Who runs on each hart: a [`Source`].
static RUNNING: [AtomicUsize; HARTS] = [const { AtomicUsize::new(Source::Hart as usize) }; HARTS];

/// A stream in a static.
struct OneHart(Stream);

// SAFETY: `running` is the only place that takes them, and takes those of the hart that it runs on; nothing moves from
// one hart to another. Interrupts return before what they interrupted goes on, as `Stream` asks
// for where one is shared.
unsafe impl Sync for OneHart {}

/// A stream for each source of each hart, with numbers from 1 up.
const fn streams(kind: u32) -> [[OneHart; SOURCES]; HARTS] {
    let mut streams = [const { [const { OneHart(Stream::new(0)) }; SOURCES] }; HARTS];
    let mut i = 0;
    while i < HARTS * SOURCES {
        streams[i / SOURCES][i % SOURCES] = OneHart(Stream::new((i as u32 + 1) | kind));
        i += 1;
    }
    streams
}

/// An interrupt's handler runs for as long as this lives.
pub(crate) struct Handler {
    interrupted: usize,
}

impl Handler {
    /// To be called first in it.
    pub(crate) fn enter(source: Source) -> Self {
        // Another interrupt of this hart ends, and has put back what it found, before this goes on: loads and stores are
        // enough.
        let running = &RUNNING[interrupts::hart()];
        let interrupted = running.load(Ordering::Relaxed);
        running.store(source as usize, Ordering::Relaxed);
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
        RUNNING[interrupts::hart()].store(self.interrupted, Ordering::Relaxed);
    }
}

/// Records what just happened to whoever runs on this hart.
pub(crate) fn record(event: Event) {
    record_into(&STREAMS, event);
}

/// The same of something with a name or a text.
pub(crate) fn record_with(event: Event, name: &'static str, text: &str) {
    let stream = running(&STREAMS);
    BUFFERS
        .view()
        .record_with(stream, timer::ticks(), event, name, text);
}

/// For the tick: records a sample of whoever it interrupted.
pub(crate) fn sample(stack: Option<StackId>) {
    if let Some(stack) = stack.filter(|&stack| stack != StackId::IDLE && is_on()) {
        record_into(&SAMPLES, Event::sample(stack));
    }
}

/// [`interrupts::sleep_unless`], as a wait of this hart.
pub(crate) fn sleep_unless(is_busy: impl FnOnce() -> bool) {
    let mut sleeps = false;
    interrupts::sleep_unless(|| {
        let is_busy = is_busy();
        sleeps = !is_busy;
        if sleeps && is_on() {
            record(Event::waits(place_of(interrupts::hart()), StackId::IDLE));
        }
        is_busy
    });
    if sleeps && is_on() {
        record(Event::resumed());
    }
}

/// This hart is about to wake another one: if that sleeps, an arrow leads there.
// With a frame of its own, as a stack begins with the caller of the function whose registers it is taken by.
#[inline(never)]
pub(crate) fn wakes(hart: usize) {
    if is_on() {
        let base = Machine.current().base();
        let stack = profiler::stack_from(registers_here(), base);
        record(Event::wakes(place_of(hart), 1, stack));
    }
}

/// Where a hart sleeps.
const fn place_of(hart: usize) -> u32 {
    1 + hart as u32
}

fn record_into(streams: &[[OneHart; SOURCES]; HARTS], event: Event) {
    BUFFERS
        .view()
        .record(running(streams), timer::ticks(), event);
}

/// The stream of whoever runs on this hart.
fn running(streams: &[[OneHart; SOURCES]; HARTS]) -> &Stream {
    let hart = interrupts::hart();
    &streams[hart][RUNNING[hart].load(Ordering::Relaxed)].0
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

    /// 60 KB of the heap, for as long as a trace is taken.
    fn limits(&self) -> Limits {
        Limits {
            goroutines: 96,
            streams: 2 * HARTS * SOURCES + 1,
            stacks: 768,
            names: 48,
            regions: 64,
            pieces: HARTS * SOURCES + 3,
            piece_bytes: 2048,
        }
    }

    fn stream_name(&self, stream: u32, name: &mut dyn fmt::Write) -> fmt::Result {
        let index = (stream as usize).wrapping_sub(1);
        name.write_str(NAMES.as_flattened().get(index).unwrap_or(&"?"))
    }
}
