//! A program with everything that there is an endpoint for, but a heap.

use core::sync::atomic::{AtomicU32, Ordering};

use picoprof::encode::Body;
use picoprof::http::Connection;
use picoprof::profile::buckets::Buckets;
use picoprof::profile::heap::Heap;
use picoprof::profile::task::TaskPool;
use picoprof::profile::{Kind, Profiles};
use picoprof::scratch::Lent;
use picoprof::stack::capture::Registers;
use picoprof::transport::{Clock, serve_blocking};
use picoprof::{BuildId, Instant, LocationId, NoSymbols, StartError, Target, Thread};

use crate::sampled::{self, CPU, ROWS, SAMPLER, SCRATCH, STACKS};
use crate::uart::{Uart, take};

/// Tasks at once.
pub const TASKS_AT_ONCE: usize = 8;

pub static THREADS: Buckets<ROWS, 1> = Buckets::new();
pub static BLOCK: Buckets<ROWS, 2> = Buckets::new();
pub static MUTEX: Buckets<ROWS, 2> = Buckets::new();
pub static TASKS: TaskPool<TASKS_AT_ONCE> = TaskPool::new();

/// In flash memory, and so copied as a whole and not view by view.
static PROFILES: Profiles<'static> = Profiles {
    cpu: Some(CPU.view()),
    heap: Some(Heap::none()),
    threads: Some(THREADS.view()),
    block: Some(BLOCK.view()),
    mutex: Some(MUTEX.view()),
    tasks: Some(TASKS.view()),
    ..Profiles::of(STACKS.view())
};

/// With texts for people or without.
#[derive(Debug)]
pub struct Firmware<const TEXTS: bool>;

impl<const TEXTS: bool> Target for Firmware<TEXTS> {
    type Scratch = Lent<'static>;
    type Symbols = NoSymbols;
    type Encoded<B: Body> = B;
    type Threads = [Thread; 0];

    const TEXTS: bool = TEXTS;
    const FUNCTION_NAMES: bool = TEXTS;

    fn profiles(&self) -> Profiles<'_> {
        PROFILES
    }

    fn scratch(&self, words: usize) -> Option<Lent<'static>> {
        SCRATCH.lend(words)
    }

    fn symbols(&self, _: &mut dyn Iterator<Item = (LocationId, usize)>) -> NoSymbols {
        NoSymbols {
            file: "[firmware]",
            build_id: BuildId::NONE,
        }
    }

    fn encode<B: Body>(&self, profile: B) -> B {
        profile
    }

    fn command_line(&self) -> &[u8] {
        b"firmware"
    }

    fn threads(&self) -> [Thread; 0] {
        []
    }

    fn start_cpu(&self, _hz: u32) -> Result<u64, StartError> {
        if SAMPLER.start() {
            Ok(1_000_000)
        } else {
            Err(StartError::AlreadyRunning)
        }
    }

    fn stop_cpu(&self) {
        SAMPLER.stop();
    }

    fn note(&self, kind: Kind) -> &'static str {
        match kind {
            Kind::Heap | Kind::Allocs => "empty: this program has no heap",
            _ => "",
        }
    }
}

/// Milliseconds since the start.
static MILLIS: AtomicU32 = AtomicU32::new(0);

/// What the timer's handler does.
pub fn on_tick(interrupted: Registers) {
    // The only one that writes it.
    let now = MILLIS.load(Ordering::Relaxed);
    MILLIS.store(now.wrapping_add(1), Ordering::Relaxed);
    sampled::on_tick(interrupted);
}

/// Ticks.
struct Millis;

impl Clock for Millis {
    fn now(&mut self) -> Instant {
        Instant::from_millis(MILLIS.load(Ordering::Relaxed).into())
    }

    fn wait_until(&mut self, time: Instant) {
        while self.now() < time {
            picoprof::interrupt::wait_for_interrupt();
        }
    }
}

/// Counts something and serves it.
pub fn run<const TEXTS: bool>() -> ! {
    sampled::start_timer();
    // What happens in the program, so that the compiler can't tell what the tables hold.
    let stack = STACKS.view().intern(&[usize::from(take()), 1], None);
    for rows in [THREADS.view(), BLOCK.view(), MUTEX.view()] {
        rows.add(stack, 0, &[1, u64::from(take())]);
    }
    loop {
        let mut connection = Connection::<_, 256>::new(&Firmware::<TEXTS>);
        let Ok(()) = serve_blocking(&mut connection, &mut Uart, &mut Millis, &mut [0; 64]);
    }
}
