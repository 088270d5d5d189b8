//! What `/debug/pprof` needs of this program: tables, the tick, a [`Target`] and a [`Tracer`].

#![forbid(unsafe_code)]

use core::cell::Cell;
use core::fmt;
use core::time::Duration;

use critical_section::Mutex;
use firmware_common::linker;
use picoprof::encode::Body;
use picoprof::interrupt::{SingleCore, is_waiting};
use picoprof::profile::buckets::Buckets;
use picoprof::profile::cpu::Sampler;
use picoprof::profile::heap::Heap;
use picoprof::profile::labels::LabelSetId;
use picoprof::profile::lock::CriticalSection;
use picoprof::profile::task::{Context, TaskPool, Tasks};
use picoprof::profile::{Kind, Profiles};
use picoprof::scratch::{Lent, ScratchPool};
use picoprof::stack::capture::{Registers, registers_here};
use picoprof::stack::{Counter, StackId, StackTable, Stacks};
use picoprof::trace::{Event, TraceHost};
use picoprof::{BuildId, Instant, LocationId, NoSymbols, StartError, Target, Thread, Tracer};

use portable_atomic::{AtomicUsize, Ordering};

use crate::{clock, trace};

/// Frames of a stack; the outer ones of a deeper one are missing.
const DEPTH: usize = 24;

// What there's no room for is counted as lost, and shown.
static STACKS: StackTable<1024, 2048> = StackTable::new();
static CPU: Buckets<1024, 1> = Buckets::new();
static BLOCK: Buckets<32, 2> = Buckets::new();
static MUTEX: Buckets<32, 2> = Buckets::new();
static THREADS: Buckets<8, 1> = Buckets::new();
static TASKS: TaskPool<4> = TaskPool::new();

/// For the locations' ids of a profile, or whatever else a response needs. Too small for a snapshot of CPU, which is
/// therefore emptied when a CPU profile begins: so it has all its rows for each of them.
static SCRATCH: ScratchPool<10, 64> = ScratchPool::new();

static SAMPLER: Sampler<DEPTH> = Sampler::new();
/// Samples that were handed to it, and how many of these were of a processor that waited.
static SAMPLES: Counter = Counter::new();
static IDLE: Counter = Counter::new();

// Who keeps interrupts masked for long is counted in MUTEX.
critical_section::set_impl!(CriticalSection<SingleCore>);

static TRACER: &dyn Tracer = &Profiler;
/// One core: there's one thing that is being done.
static CURRENT: Mutex<Cell<Context>> = Mutex::new(Cell::new(Context::EMPTY));
/// Where the stack of an interrupt's handler begins that wakes tasks; 0 outside of it.
static HANDLER_BASE: AtomicUsize = AtomicUsize::new(0);

/// This program, as the endpoints see it.
#[derive(Debug)]
pub(crate) struct Profiler;

/// What was counted here.
pub(crate) struct Counts {
    /// Samples of CPU time.
    pub(crate) samples: u64,
    /// Those in which the processor waited.
    pub(crate) idle: u64,
    /// Tasks now.
    pub(crate) tasks: usize,
    /// What the tables had no room for.
    pub(crate) lost: u64,
}

/// To be called once, before there are tasks.
#[inline(never)]
pub(crate) fn start() {
    picoprof::set_tracer(&TRACER);
    THREADS.view().add(stack_from(registers_here(), 0), 0, &[1]);
}

/// What was counted so far.
pub(crate) fn counts() -> Counts {
    let profiles = Profiler.profiles();
    let kinds = [Kind::Cpu, Kind::Block, Kind::Mutex, Kind::ThreadCreate];
    Counts {
        samples: SAMPLES.load(),
        idle: IDLE.load(),
        tasks: TASKS.view().len(),
        lost: kinds.iter().map(|&kind| profiles.lost(kind)).sum(),
    }
}

/// Runs the handler of an interrupt that wakes tasks: it's not the task that was interrupted who does, so `mutex` is to have the
/// handler's own frames, and none of what it happened to interrupt.
pub(crate) fn in_handler(interrupted: Registers, handler: impl FnOnce()) {
    let task = Profiler.swap_current(Context::EMPTY);
    let base = HANDLER_BASE.swap(interrupted.sp, Ordering::Relaxed);
    handler();
    HANDLER_BASE.store(base, Ordering::Relaxed);
    Profiler.swap_current(task);
}

picoprof::cortex_m_tick!(TIMER_1A => on_tick);

fn on_tick(interrupted: Registers) {
    clock::tick();
    if SAMPLER.is_running() {
        SAMPLES.add(1);
        IDLE.add(u64::from(is_waiting(interrupted.pc)));
    }
    let sample = SAMPLER.tick(interrupted, linker::stack(), stacks(), CPU.view(), 0);
    trace::sample(sample);
}

fn stacks() -> Stacks<'static> {
    STACKS.view()
}

/// The stack of the function that `registers` are of, without itself, as far as the one on whose stack pointer is `base`.
fn stack_from(registers: Registers, base: usize) -> StackId {
    let base = match HANDLER_BASE.load(Ordering::Relaxed) {
        0 => base,
        handler => handler,
    };
    stacks().intern_callers::<{ DEPTH + 1 }>(registers, base, linker::stack())
}

/// The tables as the endpoints see them: in flash memory, as `Target::profiles` has it.
static PROFILES: Profiles<'static> = Profiles {
    cpu: Some(CPU.view()),
    heap: Some(Heap::none()),
    threads: Some(THREADS.view()),
    block: Some(BLOCK.view()),
    mutex: Some(MUTEX.view()),
    tasks: Some(TASKS.view()),
    ..Profiles::of(STACKS.view())
};

impl Target for Profiler {
    type Scratch = Lent<'static>;
    type Symbols = NoSymbols;
    type Encoded<B: Body> = B;
    type Threads = [Thread; 0];

    fn profiles(&self) -> Profiles<'_> {
        PROFILES
    }

    fn scratch(&self, words: usize) -> Option<Lent<'static>> {
        SCRATCH.lend(words)
    }

    fn symbols(&self, _: &mut dyn Iterator<Item = (LocationId, usize)>) -> NoSymbols {
        NoSymbols {
            file: "lm3s6965evb",
            build_id: BuildId::from_note(linker::build_id_note()),
        }
    }

    fn encode<B: Body>(&self, profile: B) -> B {
        profile
    }

    fn command_line(&self) -> &[u8] {
        b"lm3s6965evb"
    }

    fn threads(&self) -> [Thread; 0] {
        []
    }

    fn start_cpu(&self, _hz: u32) -> Result<u64, StartError> {
        if SAMPLER.start() {
            Ok(u64::from(clock::TICK_NANOS))
        } else {
            Err(StartError::AlreadyRunning)
        }
    }

    fn stop_cpu(&self) {
        SAMPLER.stop();
    }

    fn trace(&self) -> Option<&dyn TraceHost> {
        Some(&trace::Host)
    }

    fn note(&self, kind: Kind) -> &'static str {
        match kind {
            Kind::Heap | Kind::Allocs => "this program has no heap",
            _ => "",
        }
    }

    fn describe(&self, page: &mut dyn fmt::Write) -> fmt::Result {
        write!(
            page,
            "<p>A timer samples {} times a second, by frame pointers.</p>",
            clock::TICKS
        )
    }
}

impl Tracer for Profiler {
    fn tasks(&self) -> Tasks<'static> {
        TASKS.view()
    }

    fn now(&self) -> Instant {
        clock::now()
    }

    fn stack(&self, registers: Registers, base: usize) -> StackId {
        stack_from(registers, base)
    }

    fn current(&self) -> Context {
        critical_section::with(|cs| CURRENT.borrow(cs).get())
    }

    fn swap_current(&self, context: Context) -> Context {
        critical_section::with(|cs| CURRENT.borrow(cs).replace(context))
    }

    fn record_block(&self, stack: StackId, labels: LabelSetId, waited: Duration) {
        BLOCK.view().add_wait(stack, labels, waited);
    }

    fn record_mutex(&self, stack: StackId, labels: LabelSetId, waited: Duration) {
        MUTEX.view().add_wait(stack, labels, waited);
    }

    fn record(&self, event: Event) {
        trace::record(event);
    }

    fn record_with(&self, event: Event, name: &'static str, text: &str) {
        trace::record_with(event, name, text);
    }
}
