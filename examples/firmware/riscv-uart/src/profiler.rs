//! What picoprof needs of this machine: tables, the tick, the clock.

#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use picoprof::encode::Body;
use picoprof::profile::buckets::Buckets;
use picoprof::profile::cpu::Sampler;
use picoprof::profile::heap::Heap;
use picoprof::profile::task::{TaskPool, Tasks};
use picoprof::profile::{Kind, Profiles};
use picoprof::scratch::{Lent, ScratchPool, words_for};
use picoprof::stack::StackTable;
use picoprof::stack::capture::Registers;
use picoprof::trace::{Limits, TraceHost};
use picoprof::transport::Clock;
use picoprof::{BuildId, Instant, LocationId, NoSymbols, StartError, Target, Thread};
use riscv_machine::{clock, memory, timer};

use crate::trace::{self, wait_for_interrupt};
use crate::{stack, station, traps};

const LOCATIONS: usize = 512;
const ROWS: usize = 256;

/// Words in a block of memory for responses.
const WORDS: usize = 64;
/// One client at a time, whose response takes up to four pieces: a profile, or a trace.
const BLOCKS: usize = {
    let (profile, trace) = (words_for(LOCATIONS, ROWS, 2), Limits::SMALL.words());
    let words = if profile > trace { profile } else { trace };
    words.div_ceil(WORDS) + 3
};

static STACKS: StackTable<LOCATIONS, 2048> = StackTable::new();
static CPU: Buckets<ROWS, 1> = Buckets::new();
static THREADS: Buckets<8, 1> = Buckets::new();
static BLOCK: Buckets<8, 2> = Buckets::new();
static MUTEX: Buckets<8, 2> = Buckets::new();
static TASKS: TaskPool<1> = TaskPool::new();
static SCRATCH: ScratchPool<BLOCKS, WORDS> = ScratchPool::new();
static SAMPLER: Sampler<32> = Sampler::new();

/// A tick: a sample, if the profile is taken.
pub(crate) fn on_tick(interrupted: Registers) {
    let sample = SAMPLER.tick(interrupted, stack::bounds(), STACKS.view(), CPU.view(), 0);
    trace::sample(sample);
}

/// The tasks, of which there are none.
pub(crate) fn tasks() -> Tasks<'static> {
    TASKS.view()
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

/// The program, as the endpoints see it.
#[derive(Debug)]
pub(crate) struct Station;

impl Target for Station {
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
            file: "[riscv-uart]",
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
        b"riscv-uart"
    }

    fn threads(&self) -> [Thread; 0] {
        []
    }

    fn start_cpu(&self, _hz: u32) -> Result<u64, StartError> {
        if !SAMPLER.start() {
            return Err(StartError::AlreadyRunning);
        }
        Ok(1_000_000_000 / u64::from(traps::TICK_HZ))
    }

    fn stop_cpu(&self) {
        SAMPLER.stop();
    }

    fn trace(&self) -> Option<&dyn TraceHost> {
        Some(&trace::Host)
    }

    fn note(&self, kind: Kind) -> &'static str {
        match kind {
            Kind::Allocs | Kind::Heap => "empty: this program has no heap",
            Kind::Goroutine | Kind::GoroutineLeak => {
                "empty: this program has no tasks, only a main loop and interrupts"
            }
            Kind::ThreadCreate => "empty: this program has no threads",
            Kind::Block | Kind::Mutex => {
                "empty: nothing waits for anything but time in this program"
            }
            Kind::Cpu => "",
        }
    }

    fn describe(&self, page: &mut dyn Write) -> fmt::Result {
        let (blocks, bytes) = station::done();
        writeln!(
            page,
            "<li>Frame pointers, from the machine timer.</li>\
            \n<li>Work: {blocks} blocks, {bytes} bytes when compressed.</li>"
        )
    }
}

/// The machine's timer.
pub(crate) struct MachineClock;

impl Clock for MachineClock {
    fn now(&mut self) -> Instant {
        Instant::from_nanos(timer::nanos())
    }

    fn wait_until(&mut self, time: Instant) {
        while self.now() < time {
            wait_for_interrupt();
        }
    }
}
