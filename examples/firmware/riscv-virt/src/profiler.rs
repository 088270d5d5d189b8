//! What picoprof needs of this machine: tables, the tick, the clock, the harts.

#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use picoprof::encode::Body;
use picoprof::interrupt::is_waiting;
use picoprof::profile::buckets::{Buckets, RowId};
use picoprof::profile::cpu::Sampler;
use picoprof::profile::heap::{DEFAULT_RATE, Heap, HeapProfile};
use picoprof::profile::labels::{LabelSetId, LabelTable};
use picoprof::profile::task::{Context, TaskPool, Tasks};
use picoprof::profile::{Kind, Profiles, Wait};
use picoprof::stack::capture::{Registers, StackBounds, registers_here, walk_frame_pointers_to};
use picoprof::stack::{StackId, StackTable};
use picoprof::trace::{Event, TraceHost};
use picoprof::{BuildId, Instant, LocationId, NoSymbols, StartError, Target, Thread, Tracer};
use riscv_machine::console::Uart;
use riscv_machine::{HARTS, HartLocal, clock, interrupts, memory, timer};

use crate::{compressor, heap, network, self_check, stacks, trace, traps};

/// The deepest stack that is kept as a whole.
const DEPTH: usize = 64;

static STACKS: StackTable<8192, 65536> = StackTable::new();
static LABELS: LabelTable<256, 64> = LabelTable::new();
static CPU: Buckets<8192, 1> = Buckets::new();
// At this rate it is all zeros, and takes no room in the file; `init` sets the one that is used.
static HEAP: HeapProfile<1024, 4096> = HeapProfile::new(DEFAULT_RATE);
static THREADS: Buckets<8, 1> = Buckets::new();
static BLOCK: Buckets<512, 2> = Buckets::new();
static MUTEX: Buckets<512, 2> = Buckets::new();
static TASKS: TaskPool<32> = TaskPool::new();

static SAMPLERS: [Sampler<DEPTH>; HARTS] = [const { Sampler::new() }; HARTS];
static CURRENT: HartLocal<Cell<Context>> =
    HartLocal::new([const { Cell::new(Context::EMPTY) }; HARTS]);

static TICKS: AtomicU64 = AtomicU64::new(0);
static SAMPLES: AtomicU64 = AtomicU64::new(0);
static IDLE: AtomicU64 = AtomicU64::new(0);

static TRACER: &dyn Tracer = &Machine;

/// One allocation is sampled in so many bytes, on average.
const HEAP_RATE: usize = 512;

/// Lets allocations and tasks be seen that are made from now on.
pub(crate) fn init() {
    HEAP.view().set_rate(HEAP_RATE);
    picoprof::set_tracer(&TRACER);
}

/// Says that clients can come.
pub(crate) fn say_up() {
    let harts = 1 + usize::from(compressor::is_running());
    let mut console = Uart;
    // It has no errors.
    let _ = writeln!(
        console,
        "picoprof: up riscv-virt harts={harts} http://10.0.2.15:80/debug/pprof/"
    );
}

/// Since the machine was started.
pub(crate) fn now() -> Instant {
    Instant::from_nanos(timer::nanos())
}

/// The allocations.
pub(crate) fn heap() -> Heap<'static> {
    HEAP.view()
}

/// Who starts the second hart.
static STARTER: AtomicU32 = AtomicU32::new(0);

/// Notes that the caller is about to start the second hart.
// With a frame of its own, as a stack begins with the caller of the function whose registers it is taken by.
#[inline(never)]
pub(crate) fn starts_hart() {
    STARTER.store(stack_from(registers_here(), 0).to_bits(), Ordering::Release);
}

/// For the second hart: counts that it was started, by whom that was noted.
pub(crate) fn hart_started() {
    let starter = StackId::from_bits(STARTER.load(Ordering::Acquire));
    THREADS.view().add(starter, 0, &[1]);
}

/// The labels of what this hart does.
pub(crate) fn labels_here() -> LabelSetId {
    CURRENT.with(|context| context.get().labels())
}

/// The stack of who called the function that these registers are of.
pub(crate) fn stack_from(registers: Registers, base: usize) -> StackId {
    let stacks = STACKS.view();
    stacks.intern_callers::<DEPTH>(registers, base, bounds_here())
}

/// A tick of a hart: a sample, if the profile is taken.
pub(crate) fn on_tick(interrupted: Registers) {
    let hart = interrupts::hart();
    let sampler = &SAMPLERS[hart];
    if sampler.is_running() {
        let labels = labels_here();
        let sample = sampler.tick(
            interrupted,
            bounds_here(),
            STACKS.view(),
            CPU.view(),
            labels.to_bits(),
        );
        trace::sample(sample);
        SAMPLES.fetch_add(1, Ordering::Relaxed);
        if is_waiting(interrupted.pc) {
            IDLE.fetch_add(1, Ordering::Relaxed);
        }
    }
    TICKS.fetch_add(1, Ordering::Relaxed);
    if hart == 0 {
        self_check::on_tick();
    }
}

/// What was counted.
pub(crate) struct Counted {
    /// Of all harts.
    pub(crate) ticks: u64,
    /// Of all harts.
    pub(crate) samples: u64,
    /// How many samples were of a hart that had nothing to do.
    pub(crate) idle: u64,
    /// Those that there are.
    pub(crate) tasks: usize,
    /// Samples that there was no room for.
    pub(crate) lost: u64,
}

/// What was counted.
pub(crate) fn counted() -> Counted {
    Counted {
        ticks: TICKS.load(Ordering::Relaxed),
        samples: SAMPLES.load(Ordering::Relaxed),
        idle: IDLE.load(Ordering::Relaxed),
        tasks: TASKS.view().len(),
        lost: CPU.view().values(RowId::LOST)[0],
    }
}

fn bounds_here() -> StackBounds {
    stacks::bounds_of(interrupts::hart())
}

/// Asks each other hart where it is, by an interrupt.
static QUESTIONS: [Question; HARTS] = [const { Question::new() }; HARTS];

struct Question {
    is_asked: AtomicBool,
    is_idle: AtomicBool,
    stack: AtomicU32,
}

impl Question {
    const fn new() -> Self {
        Self {
            is_asked: AtomicBool::new(false),
            is_idle: AtomicBool::new(false),
            stack: AtomicU32::new(0),
        }
    }
}

/// Answers where this hart is, if it was asked.
pub(crate) fn on_question(interrupted: Registers) {
    let question = &QUESTIONS[interrupts::hart()];
    if !question.is_asked.load(Ordering::Acquire) {
        return;
    }
    let mut pcs = [0; DEPTH];
    let (len, end) = walk_frame_pointers_to(interrupted, 0, bounds_here(), &mut pcs);
    let stack = STACKS
        .view()
        .intern(pcs.get(..len).unwrap_or_default(), end.marker());
    question.stack.store(stack.to_bits(), Ordering::Relaxed);
    question
        .is_idle
        .store(is_waiting(interrupted.pc), Ordering::Relaxed);
    question.is_asked.store(false, Ordering::Release);
}

/// How long a hart may take to answer, in nanoseconds: it may be in a critical section.
const PATIENCE: u64 = 2_000_000;

/// Where another hart is, and whether it waits; no stack if it doesn't answer in time.
fn ask(hart: usize) -> (StackId, Wait) {
    let question = &QUESTIONS[hart];
    question.is_asked.store(true, Ordering::Release);
    interrupts::send(hart);
    let end = timer::nanos() + PATIENCE;
    while question.is_asked.load(Ordering::Acquire) {
        if timer::nanos() > end {
            return (StackId::EMPTY, Wait::Unknown);
        }
        core::hint::spin_loop();
    }
    let wait = if question.is_idle.load(Ordering::Relaxed) {
        Wait::Idle
    } else {
        Wait::Running
    };
    (
        StackId::from_bits(question.stack.load(Ordering::Relaxed)),
        wait,
    )
}

/// The program, as the endpoints see it.
#[derive(Debug)]
pub(crate) struct Machine;

impl Target for Machine {
    type Scratch = Vec<u64>;
    type Symbols = NoSymbols;
    type Encoded<B: Body> = B;
    type Threads = Vec<Thread>;

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
            file: "[riscv-virt]",
            build_id: BuildId::from_note(memory::build_id_note()),
        }
    }

    fn encode<B: Body>(&self, profile: B) -> B {
        profile
    }

    fn unix_nanos(&self) -> u64 {
        clock::unix_nanos()
    }

    fn command_line(&self) -> &[u8] {
        b"riscv-virt"
    }

    fn threads(&self) -> Vec<Thread> {
        let mut threads = Vec::new();
        threads.push(Thread {
            stack: stack_from(registers_here(), 0),
            ..thread(0, Wait::Running)
        });
        if compressor::is_running() {
            let (stack, wait) = ask(compressor::HART);
            threads.push(Thread {
                stack,
                ..thread(compressor::HART, wait)
            });
        }
        threads
    }

    fn trace(&self) -> Option<&dyn TraceHost> {
        Some(&trace::Host)
    }

    fn thread_count(&self) -> usize {
        1 + usize::from(compressor::is_running())
    }

    fn start_cpu(&self, _hz: u32) -> Result<u64, StartError> {
        let [first, others @ ..] = &SAMPLERS;
        if !first.start() {
            return Err(StartError::AlreadyRunning);
        }
        CPU.view().make_room();
        for sampler in others {
            sampler.start();
        }
        Ok(1_000_000_000 / traps::TICK_HZ)
    }

    fn stop_cpu(&self) {
        SAMPLERS.iter().for_each(Sampler::stop);
    }

    fn note(&self, kind: Kind) -> &'static str {
        match kind {
            Kind::ThreadCreate => "threads are harts: here is who started the second one",
            _ => "",
        }
    }

    fn describe(&self, page: &mut dyn Write) -> fmt::Result {
        let (used, corrupt) = (heap::used(), network::corrupt_frames());
        writeln!(
            page,
            "<li>Frame pointers, from the machine timer of each hart.</li>\
            \n<li>Heap: {used} bytes in use.</li>\
            \n<li>Network: {corrupt} frames came damaged.</li>"
        )
    }
}

/// A hart as a thread, without its stack.
fn thread(hart: usize, wait: Wait) -> Thread {
    let mut name = *b"hart 0\0\0\0\0\0\0\0\0\0\0";
    name[5] += hart as u8;
    Thread {
        id: hart as u64,
        name,
        stack: StackId::EMPTY,
        labels: LabelSetId::EMPTY,
        wait,
        waiting: Duration::ZERO,
    }
}

impl Tracer for Machine {
    fn tasks(&self) -> Tasks<'static> {
        TASKS.view()
    }

    fn now(&self) -> Instant {
        now()
    }

    fn stack(&self, registers: Registers, base: usize) -> StackId {
        stack_from(registers, base)
    }

    fn current(&self) -> Context {
        CURRENT.with(Cell::get)
    }

    fn swap_current(&self, context: Context) -> Context {
        CURRENT.with(|current| current.replace(context))
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
