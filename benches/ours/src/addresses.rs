//! Through the encoder of the core, without symbols, in pieces of 4 KiB: ten thousand stacks of 30 frames, and tasks.

use core::cell::Cell;
use core::hint::black_box;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use bench::{meter, print};
use picoprof::encode::Body;
use picoprof::encode::profile::ProfileEncoder;
use picoprof::encode::source::Source;
use picoprof::profile::buckets::Buckets;
use picoprof::profile::labels::LabelSetId;
use picoprof::profile::task::{Context, TaskPool, Tasks};
use picoprof::profile::{Kind, Profiles};
use picoprof::stack::capture::Registers;
use picoprof::stack::{StackId, StackTable};
use picoprof::{BuildId, Instant, LocationId, NoSymbols, StartError, Target, Thread};

use super::tasks;

const STACKS: usize = 10_000;
const FRAMES: usize = 30;

static TABLE: StackTable<{ 1 << 15 }, { 1 << 19 }> = StackTable::new();
static CPU: Buckets<{ 1 << 15 }, 1> = Buckets::new();
static TASKS: TaskPool<{ 1 << 17 }> = TaskPool::new();

struct Bare;

impl Target for Bare {
    type Scratch = Vec<u64>;
    type Symbols = NoSymbols;
    type Encoded<B: Body> = B;
    type Threads = [Thread; 0];

    fn profiles(&self) -> Profiles<'_> {
        Profiles {
            cpu: Some(CPU.view()),
            tasks: Some(TASKS.view()),
            ..Profiles::of(TABLE.view())
        }
    }

    fn scratch(&self, words: usize) -> Option<Vec<u64>> {
        Some(vec![0; words])
    }

    fn symbols(&self, _: &mut dyn Iterator<Item = (LocationId, usize)>) -> NoSymbols {
        NoSymbols {
            file: "[bench]",
            build_id: BuildId::NONE,
        }
    }

    fn encode<B: Body>(&self, profile: B) -> B {
        profile
    }

    fn threads(&self) -> [Thread; 0] {
        []
    }

    fn start_cpu(&self, _: u32) -> Result<u64, StartError> {
        Err(StartError::Unavailable)
    }

    fn stop_cpu(&self) {}
}

/// Milliseconds and bytes.
pub(crate) fn measure() {
    fill();
    let mut out = [0; 4096];
    let mut total = 0;
    let ms = meter::best_ms(20, || total = encode(Kind::Cpu, &mut out));
    print("addresses_ms", ms);
    print("addresses_bytes", total as f64);
    print("buffer_bytes", size_of_val(&out) as f64);
}

/// Milliseconds for so many tasks.
pub(crate) fn measure_tasks(n: usize) {
    picoprof::set_tracer(&TRACER);
    let _runtime = tasks::start(n);
    assert_eq!(TASKS.view().len(), n);
    let mut out = [0; 4096];
    let ms = meter::best_ms(20, || _ = encode(Kind::Goroutine, &mut out));
    print("profile_ms", ms);
}

/// The length of a profile.
fn encode(kind: Kind, out: &mut [u8]) -> usize {
    let source = Source::new(&Bare, kind, 10_000_000).expect("it is kept");
    let mut encoder = ProfileEncoder::new(source);
    let mut total = 0;
    loop {
        match encoder.fill(out) {
            0 => return total,
            len => total += black_box(&out[..len]).len(),
        }
    }
}

/// What tasks need, without a clock or an unwinder.
struct Tracer;

static TRACER: &dyn picoprof::Tracer = &Tracer;

thread_local! {
    static CURRENT: Cell<Context> = const { Cell::new(Context::EMPTY) };
}

impl picoprof::Tracer for Tracer {
    fn tasks(&self) -> Tasks<'static> {
        TASKS.view()
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(1)
    }

    /// One of ten, of eight frames.
    fn stack(&self, _: Registers, _: usize) -> StackId {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let route = NEXT.fetch_add(1, Ordering::Relaxed) % 10;
        let pcs: [usize; 8] = core::array::from_fn(|level| 0x5555_5555_0000 + 256 * level + route);
        TABLE.view().intern(&pcs, None)
    }

    fn current(&self) -> Context {
        CURRENT.get()
    }

    fn swap_current(&self, context: Context) -> Context {
        CURRENT.replace(context)
    }

    fn record_block(&self, _: StackId, _: LabelSetId, _: Duration) {}

    fn record_mutex(&self, _: StackId, _: LabelSetId, _: Duration) {}
}

/// Stacks in the form of `bench::stacks`: four decimal digits choose the way.
fn fill() {
    let mut pcs = [0; FRAMES];
    for stack in 0..STACKS {
        for (level, pc) in pcs.iter_mut().rev().enumerate() {
            let chosen = match level {
                0..8 => 0,
                8..14 => stack / 1000,
                14..20 => stack / 100,
                20..29 => stack / 10,
                _ => stack,
            };
            *pc = 0x5555_5555_0000 + (level * 20 + chosen % 20) * 64 + stack / 1000 % 3 * 8;
        }
        let id = TABLE.view().intern(&pcs, None);
        CPU.view().add(id, 0, &[1]);
    }
    assert_eq!(CPU.view().len(), STACKS);
}
