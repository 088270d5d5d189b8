//! A program with everything that there is an endpoint for, but a heap.

use picoprof::encode::Body;
use picoprof::profile::buckets::Buckets;
use picoprof::profile::heap::Heap;
use picoprof::profile::task::TaskPool;
use picoprof::profile::{Kind, Profiles};
use picoprof::scratch::Lent;
use picoprof::{BuildId, LocationId, NoSymbols, StartError, Target, Thread};

use crate::sampled::{CPU, ROWS, SAMPLER, SCRATCH, STACKS};

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

#[derive(Debug)]
pub struct Firmware;

impl Target for Firmware {
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
