//! The profiler: its tables, and what it needs of this program.

#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use firmware_common::linker;
use picoprof::encode::Body;
use picoprof::profile::buckets::Buckets;
use picoprof::profile::cpu::Sampler;
use picoprof::profile::heap::{DEFAULT_RATE, HeapProfile};
use picoprof::profile::labels::{LabelSetId, LabelTable};
use picoprof::profile::lock::set_masked_threshold;
use picoprof::profile::task::{Context, TaskPool, Tasks, Tracer, set_tracer};
use picoprof::profile::{Kind, Profiles, Wait};
use picoprof::stack::capture::{Registers, registers_here};
use picoprof::stack::{StackId, StackTable};
use picoprof::trace::{Event, TraceHost};
use picoprof::{BuildId, Exclusive, Instant, LocationId, NoSymbols, StartError, Target, Thread};

use crate::interrupts::TICK_HZ;
use crate::{clock, trace};

/// Frames of a stack; the outer ones of a deeper one are left out.
const DEPTH: usize = 48;

// How much there may be of everything. The sizes are for the benchmark, which fills the tables (`benchmark`): a
// program of this size gets by with a quarter.
pub static STACKS: StackTable<4096, 32_768> = StackTable::new();
static LABELS: LabelTable<256, 64> = LabelTable::new();
static CPU: Buckets<4096, 1> = Buckets::new();
pub static HEAP: HeapProfile<512, 1024> = HeapProfile::new(DEFAULT_RATE);
static THREADS: Buckets<8, 1> = Buckets::new();
pub static BLOCK: Buckets<32_768, 2> = Buckets::new();
static MUTEX: Buckets<2048, 2> = Buckets::new();
static TASKS: TaskPool<16> = TaskPool::new();

/// Interrupts that are masked for longer than this are in the `mutex` profile: a byte of the UART takes 87.
const MASKED: Duration = Duration::from_micros(80);

static SAMPLER: Sampler<DEPTH> = Sampler::new();

/// What the only core is at. Whoever interrupts a change of it is at nothing.
static CURRENT: Exclusive<Context> = Exclusive::new(Context::EMPTY);

/// Where the frame of the handler of an interrupt ends, that goes on; 0 if there's none.
static INTERRUPT: AtomicUsize = AtomicUsize::new(0);

/// What the tick counts, for comparison with the profiles.
static TICKS: AtomicU32 = AtomicU32::new(0);
static SAMPLES: AtomicU32 = AtomicU32::new(0);
static IDLE: AtomicU32 = AtomicU32::new(0);

/// The one profiler.
pub static PROFILER: Profiler = Profiler;
static TRACER: &dyn Tracer = &PROFILER;

/// This program as the endpoints see it, and as tasks do.
#[derive(Debug)]
pub struct Profiler;

/// Gets it ready: tasks that begin from now on are seen.
pub fn start() {
    // Every allocation. (If the static said so it would take room in flash memory.)
    HEAP.view().set_rate(1);
    set_masked_threshold(MASKED);
    set_tracer(&TRACER);
    // The one thread, which all tasks are polled in.
    let (stack, _) = PROFILER.here(registers_here());
    THREADS.view().add(stack, 0, &[1]);
}

/// Runs `handle` in the handler of an interrupt that `registers` are of. Stacks that are taken in it, because it wakes a task,
/// begin with the handler: what it happened to interrupt has nothing to do with that.
pub fn within_interrupt(registers: Registers, handle: impl FnOnce()) {
    const FRAME_RECORD: usize = 2 * size_of::<usize>();
    // One of a higher priority ends before this goes on, so that it's enough to load and store.
    let outer = INTERRUPT.load(Ordering::Relaxed);
    INTERRUPT.store(registers.fp.wrapping_add(FRAME_RECORD), Ordering::Relaxed);
    handle();
    INTERRUPT.store(outer, Ordering::Relaxed);
}

picoprof::cortex_m_tick!(SysTick => on_tick);

/// A millisecond has passed.
fn on_tick(interrupted: Registers) {
    clock::on_tick();
    count(&TICKS);
    if !SAMPLER.is_running() {
        return;
    }
    count(&SAMPLES);
    if picoprof::interrupt::is_waiting(interrupted.pc) {
        count(&IDLE);
    }
    let labels = CURRENT.try_with(|current| current.labels());
    let tag = labels.unwrap_or(LabelSetId::EMPTY).to_bits();
    let sample = SAMPLER.tick(interrupted, linker::stack(), STACKS.view(), CPU.view(), tag);
    trace::sample(sample);
}

/// Only the tick writes them.
fn count(counter: &AtomicU32) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(1),
        Ordering::Relaxed,
    );
}

/// What the tick has counted.
pub struct Counts {
    pub ticks: u32,
    pub samples: u32,
    pub idle: u32,
}

impl Profiler {
    /// What the tick has counted so far.
    pub fn counts(&self) -> Counts {
        Counts {
            ticks: TICKS.load(Ordering::Relaxed),
            samples: SAMPLES.load(Ordering::Relaxed),
            idle: IDLE.load(Ordering::Relaxed),
        }
    }

    /// Tasks that are alive.
    pub fn tasks_alive(&self) -> usize {
        TASKS.view().len()
    }

    /// What found no room: samples, stacks, tasks.
    pub fn lost(&self) -> u64 {
        let rows = [CPU.view(), HEAP.view().rows(), BLOCK.view(), MUTEX.view()];
        let lost = rows
            .iter()
            .map(|rows| rows.values(picoprof::profile::buckets::RowId::LOST)[0]);
        lost.sum::<u64>() + TASKS.view().lost()
    }

    /// The stack of whoever called the function that `registers` are of, and its labels.
    #[inline]
    pub fn here(&self, registers: Registers) -> (StackId, LabelSetId) {
        let current = self.current();
        (self.stack(registers, current.base()), current.labels())
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
        let base = match INTERRUPT.load(Ordering::Relaxed) {
            0 => base,
            handler => handler,
        };
        let stacks = STACKS.view();
        stacks.intern_callers::<DEPTH>(registers, base, linker::stack())
    }

    fn current(&self) -> Context {
        CURRENT
            .try_with(|current| *current)
            .unwrap_or(Context::EMPTY)
    }

    fn swap_current(&self, context: Context) -> Context {
        let swapped = CURRENT.try_with(|current| core::mem::replace(current, context));
        swapped.unwrap_or(Context::EMPTY)
    }

    fn record_block(&self, stack: StackId, labels: LabelSetId, waited: Duration) {
        BLOCK.view().add_wait(stack, labels, waited);
    }

    fn record_mutex(&self, stack: StackId, labels: LabelSetId, waited: Duration) {
        MUTEX.view().add_wait(stack, labels, waited);
    }

    fn extend_labels(&self, base: LabelSetId, labels: &[(&str, &str)]) -> LabelSetId {
        LABELS.view().extend(base, labels)
    }

    fn record(&self, event: Event) {
        trace::record(event);
    }

    fn record_with(&self, event: Event, name: &'static str, text: &str) {
        trace::record_with(event, name, text);
    }
}

impl Target for Profiler {
    type Scratch = Vec<u64>;
    type Symbols = NoSymbols;
    type Encoded<B: Body> = B;
    type Threads = [Thread; 1];

    fn profiles(&self) -> Profiles<'_> {
        Profiles {
            labels: Some(LABELS.view()),
            cpu: Some(CPU.view()),
            heap: Some(HEAP.view()),
            threads: Some(THREADS.view()),
            block: Some(BLOCK.view()),
            mutex: Some(MUTEX.view()),
            tasks: Some(TASKS.view()),
            ..Profiles::of(STACKS.view())
        }
    }

    fn scratch(&self, words: usize) -> Option<Vec<u64>> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(words).ok()?;
        memory.resize(words, 0);
        Some(memory)
    }

    fn symbols(&self, _: &mut dyn Iterator<Item = (LocationId, usize)>) -> NoSymbols {
        NoSymbols {
            file: "[mps2-an385]",
            build_id: BuildId::from_note(linker::build_id_note()),
        }
    }

    fn encode<B: Body>(&self, profile: B) -> B {
        profile
    }

    fn command_line(&self) -> &[u8] {
        b"mps2-an385"
    }

    fn threads(&self) -> [Thread; 1] {
        let mut name = [0; 16];
        name[..4].copy_from_slice(b"main");
        let (stack, labels) = self.here(registers_here());
        [Thread {
            id: 1,
            name,
            stack,
            labels,
            wait: Wait::Running,
            waiting: Duration::ZERO,
        }]
    }

    fn trace(&self) -> Option<&dyn TraceHost> {
        Some(&trace::Host)
    }

    fn drop_frames(&self, kind: Kind) -> &'static str {
        match kind {
            // What is between a container and the allocator: the leaf is who asked for memory.
            Kind::Heap | Kind::Allocs => concat!(
                r"<?alloc::(alloc|raw_vec)::.*|.*__rust_(alloc|alloc_zeroed|realloc)|",
                r".*picoprof::profile::heap::allocator::.*|<?embedded_alloc::.*",
            ),
            _ => "",
        }
    }

    fn describe(&self, page: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(
            page,
            "<li>Stacks are walked by frame pointers, {DEPTH} frames at the most; {TICK_HZ} ticks a second.</li>"
        )
    }

    fn start_cpu(&self, _hz: u32) -> Result<u64, StartError> {
        if SAMPLER.is_running() {
            return Err(StartError::AlreadyRunning);
        }
        CPU.view().make_room();
        SAMPLER.start();
        Ok(u64::from(1_000_000_000 / TICK_HZ))
    }

    fn stop_cpu(&self) {
        SAMPLER.stop();
    }
}
