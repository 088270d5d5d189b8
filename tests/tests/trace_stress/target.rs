//! The program as the encoder sees it: tables, a clock that runs fast, symbols that are made up.

#![allow(unsafe_code)]

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Instant;

use picoprof::encode::Body;
use picoprof::profile::heap::HeapProfile;
use picoprof::profile::labels::LabelTable;
use picoprof::profile::task::TaskPool;
use picoprof::profile::{Profiles, Role, Wait};
use picoprof::stack::{StackId, StackTable};
use picoprof::trace::{Limits, Stream, Trace, TraceHost};
use picoprof::{Function, Line, LocationId, Mapping, StartError, Symbols, Target, Thread};

pub(crate) static STACKS: StackTable<1024, 4096> = StackTable::new();
pub(crate) static LABELS: LabelTable<256, 64> = LabelTable::new();
pub(crate) static TASKS: TaskPool<48> = TaskPool::new();
pub(crate) static HEAP: LazyLock<HeapProfile<64, 64>> = LazyLock::new(|| HeapProfile::new(1));

/// The trace's nanoseconds in a real one: a trace of ten milliseconds has two generations.
const SPEED: u64 = 200;

pub(crate) fn ticks() -> u64 {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    5_000_000_000 + BEGIN.elapsed().as_nanos() as u64 * SPEED
}

/// Threads that have ended and may not have said so, by their numbers.
pub(crate) static DEAD: [AtomicBool; 64] = [const { AtomicBool::new(false) }; 64];

/// What one trace is made by.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) trace: Trace<'static>,
    /// Its buffers, and their words.
    pub(crate) size: [usize; 2],
    pub(crate) limits: Limits,
    pub(crate) has_symbols: bool,
    pub(crate) refreshed: AtomicU32,
}

impl TraceHost for Host {
    fn buffers(&self) -> Trace<'static> {
        self.trace
    }

    fn ticks(&self) -> u64 {
        ticks()
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn stream_name(&self, stream: u32, name: &mut dyn fmt::Write) -> fmt::Result {
        match stream % 5 {
            0 => Ok(()),
            _ => write!(name, "thread {stream} 🦀"),
        }
    }

    fn refresh(&self) {
        self.refreshed.fetch_add(1, Ordering::Relaxed);
        let is_dead = |stream: u32| {
            let dead = DEAD.get((stream & !Stream::SAMPLES) as usize);
            dead.is_some_and(|dead| dead.load(Ordering::SeqCst))
        };
        // SAFETY: a number is there only while no thread has it.
        unsafe { self.trace.reclaim(is_dead) };
    }
}

/// Functions, each with what it waits for.
const FUNCTIONS: [(&str, Role); 8] = [
    ("app::main", Role::Program),
    (
        "app::worker::<impl Fn(&str) -> Result<(), Box<dyn Error>>>::run",
        Role::Program,
    ),
    ("std::sync::Mutex<T>::lock", Role::Waits(Wait::Mutex)),
    (
        "tokio::sync::mpsc::Receiver::recv",
        Role::Waits(Wait::Receive),
    ),
    ("tokio::sync::mpsc::Sender::send", Role::Waits(Wait::Send)),
    ("tokio::net::TcpStream::read", Role::Waits(Wait::Io)),
    ("tokio::time::sleep", Role::Waits(Wait::Sleep)),
    ("core::task::poll_fn", Role::Library),
];

/// A stack of those.
pub(crate) fn stack(number: u64) -> StackId {
    if number.is_multiple_of(7) {
        return StackId::EMPTY;
    }
    let depth = 1 + number as usize % 6;
    let pcs: Vec<usize> = (0..depth)
        .map(|at| 0x1000 + (number as usize * 31 + at * 7) % 40 * 16)
        .collect();
    STACKS.view().intern(&pcs, None)
}

#[derive(Debug)]
pub(crate) struct Names(HashMap<u32, Vec<Line>>);

impl Symbols for Names {
    fn mapping(&self, _index: usize) -> Option<Mapping> {
        None
    }

    fn mapping_of(&self, _pc: usize) -> Option<usize> {
        None
    }

    fn lines(&self, location: LocationId) -> &[Line] {
        self.0.get(&location.index()).map_or(&[], Vec::as_slice)
    }

    fn function(&self, index: u32) -> Option<Function> {
        ((index as usize) < FUNCTIONS.len()).then_some(Function {
            name: index,
            system_name: index,
            filename: FUNCTIONS.len() as u32,
            start_line: 1,
        })
    }

    fn string(&self, index: u32) -> Option<&str> {
        match FUNCTIONS.get(index as usize) {
            Some((name, _)) => Some(name),
            None => (index as usize == FUNCTIONS.len()).then_some("src/a file.rs"),
        }
    }
}

impl Target for Host {
    type Scratch = Vec<u64>;
    type Symbols = Names;
    type Encoded<B: Body> = B;
    type Threads = [Thread; 0];

    fn profiles(&self) -> Profiles<'_> {
        Profiles {
            labels: Some(LABELS.view()),
            heap: Some(HEAP.view()),
            tasks: Some(TASKS.view()),
            ..Profiles::of(STACKS.view())
        }
    }

    fn scratch(&self, words: usize) -> Option<Vec<u64>> {
        Some(vec![0; words])
    }

    fn symbols(&self, locations: &mut dyn Iterator<Item = (LocationId, usize)>) -> Names {
        let lines = |pc: usize| {
            let inlined = 0..pc / 16 % 3;
            inlined
                .map(|depth| Line {
                    function: ((pc / 16 + depth) % FUNCTIONS.len()) as u32,
                    line: (pc % 100 + depth) as u32,
                })
                .collect()
        };
        Names(if self.has_symbols {
            locations
                .map(|(location, pc)| (location.index(), lines(pc)))
                .collect()
        } else {
            HashMap::new()
        })
    }

    fn encode<B: Body>(&self, profile: B) -> B {
        profile
    }

    fn threads(&self) -> [Thread; 0] {
        []
    }

    fn role_of(&self, function: &str) -> Role {
        let known = FUNCTIONS.iter().find(|known| known.0 == function);
        known.map_or(Role::Program, |known| known.1)
    }

    fn trace(&self) -> Option<&dyn TraceHost> {
        Some(self)
    }

    fn start_cpu(&self, _hz: u32) -> Result<u64, StartError> {
        Err(StartError::Unavailable)
    }

    fn stop_cpu(&self) {}
}
