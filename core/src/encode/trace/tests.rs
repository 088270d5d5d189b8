//! Any facts, in any order, through buffers of any size: whatever comes out must be a trace.

extern crate std;

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::boxed::Box;
use std::sync::Mutex;
use std::vec::Vec;
use std::{format, vec};

use super::{Filled, Span, TraceEncoder, TraceError};
use crate::encode::Body;
use crate::profile::Profiles;
use crate::profile::labels::LabelSetId;
use crate::stack::{StackId, StackTable};
use crate::trace::{Event, Limits, Stream, Trace, TraceBuffers, TraceHost};
use crate::{BuildId, LocationId, NoSymbols, StartError, Target, Thread};

static STACKS: StackTable<256, 1024> = StackTable::new();

struct Host {
    trace: Trace<'static>,
    ticks: AtomicU64,
    limits: Limits,
}

impl TraceHost for Host {
    fn buffers(&self) -> Trace<'static> {
        self.trace
    }
    fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }
    fn limits(&self) -> Limits {
        self.limits
    }
    fn stream_name(&self, stream: u32, name: &mut dyn fmt::Write) -> fmt::Result {
        write!(name, "t{stream}")
    }
}

impl Target for Host {
    type Scratch = Vec<u64>;
    type Symbols = NoSymbols;
    type Encoded<B: Body> = B;
    type Threads = [Thread; 0];

    fn profiles(&self) -> Profiles<'_> {
        Profiles::of(STACKS.view())
    }
    fn scratch(&self, words: usize) -> Option<Vec<u64>> {
        Some(vec![0; words])
    }
    fn symbols(&self, _: &mut dyn Iterator<Item = (LocationId, usize)>) -> NoSymbols {
        NoSymbols {
            file: "",
            build_id: BuildId::NONE,
        }
    }
    fn encode<B: Body>(&self, profile: B) -> B {
        profile
    }
    fn threads(&self) -> [Thread; 0] {
        []
    }
    fn trace(&self) -> Option<&dyn TraceHost> {
        Some(self)
    }
    fn start_cpu(&self, _: u32) -> Result<u64, StartError> {
        Err(StartError::Unavailable)
    }
    fn stop_cpu(&self) {}
}

static ALONE: Mutex<()> = Mutex::new(());

struct Random(u64);
impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % below
    }
}

fn event(random: &mut Random) -> (Event, &'static str) {
    let name = ["one", "two", ""][random.next(3) as usize];
    (plain_event(random), name)
}

fn plain_event(random: &mut Random) -> Event {
    let stack = match random.next(4) {
        0 => StackId::EMPTY,
        _ => STACKS.view().intern(
            &[0x1000 + random.next(9) as usize * 16, 0x2000, 0x3000],
            None,
        ),
    };
    let number = 1 + random.next(4) as u32;
    let task = 1 + random.next(6) as u32;
    match random.next(27) {
        0 => Event::thread_created(number, stack),
        1 => Event::thread_began(number),
        2 => Event::thread_ended(),
        3 => Event::waits(number, stack),
        4 => Event::resumed(),
        5 => Event::wakes(number, random.next(3) as u32, stack),
        6 => Event::sample(stack),
        7 => Event::handler_entered(),
        8 => Event::handler_left(),
        9..12 => Event::task_polled(task, random.next(4) == 0),
        12..15 => Event::task_pending(task, stack),
        15..18 => Event::task_woken(task, stack),
        18 => Event::task_ended(task),
        19 => Event::task_spawned(task, stack),
        20 => Event::region_began(task, number),
        21 => Event::region_ended(task),
        22 => Event::user_task_began(7 + random.next(1 << 31) as u32, number),
        23 => Event::user_task_ended(task),
        24 => Event::task_labelled(task, LabelSetId::EMPTY),
        _ => Event::log(number),
    }
}

#[test]
fn a_second_one_leaves_the_first_alone() {
    let _alone = ALONE.lock().unwrap();
    static BUFFERS: TraceBuffers<6, 32> = TraceBuffers::new();
    let host = Host {
        trace: BUFFERS.view(),
        ticks: AtomicU64::new(5_000_000_000),
        limits: Limits::SMALL,
    };
    let first = TraceEncoder::new(&host, Span::FromNow).unwrap();
    for _ in 0..2 {
        let second = TraceEncoder::new(&host, Span::FromNow).map(drop);
        assert_eq!(second, Err(TraceError::AlreadyEnabled));
        assert!(crate::trace::is_on());
    }
    drop(first);
    assert!(TraceEncoder::new(&host, Span::FromNow).is_ok());
    assert!(!crate::trace::is_on());
}

#[test]
fn any_facts_make_a_trace() {
    let _alone = ALONE.lock().unwrap();
    let out_dir = std::env::var("TRACE_OUT").ok();
    for seed in 0..std::env::var("TRACE_SEEDS").map_or(200, |n| n.parse().unwrap()) {
        let seed: u64 = seed;
        let mut random = Random(seed.wrapping_mul(0x9e3779b97f4a7c15));
        let buffers: &'static TraceBuffers<6, 32> = Box::leak(Box::new(TraceBuffers::new()));
        let host = Host {
            trace: buffers.view(),
            ticks: AtomicU64::new(5_000_000_000),
            limits: Limits::SMALL,
        };
        let streams: Vec<_> = (1..5).map(Stream::new).collect();
        let samples: Vec<_> = (1..5).map(|id| Stream::new(id | Stream::SAMPLES)).collect();
        let mut encoder = TraceEncoder::new(&host, Span::FromNow).unwrap();
        let mut bytes = Vec::new();
        for _ in 0..random.next(2000) {
            let at = random.next(4) as usize;
            host.ticks
                .fetch_add(random.next(3_000_000), Ordering::Relaxed);
            let (event, name) = event(&mut random);
            let ticks = host.ticks().saturating_sub(random.next(50) * 1000);
            let text = &"abcdefghijkl"[..random.next(13) as usize];
            if random.next(4) == 0 {
                host.trace.record(&streams[at], ticks, event);
            } else {
                host.trace
                    .record_with(&streams[at], ticks, event, name, text);
            }
            if random.next(3) == 0 {
                let event = Event::sample(StackId::EMPTY);
                host.trace.record(&samples[at], host.ticks(), event);
            }
            if random.next(5) == 0 {
                let mut out = vec![0; 1 + random.next(700) as usize];
                if let Filled::Wrote(n) = encoder.fill(&mut out, false) {
                    bytes.extend_from_slice(&out[..n]);
                }
            }
        }
        loop {
            let mut out = vec![0; 1 + random.next(700) as usize];
            match encoder.fill(&mut out, true) {
                Filled::Wrote(n) => bytes.extend_from_slice(&out[..n]),
                Filled::Nothing => panic!("it is over"),
                Filled::Done => break,
            }
        }
        if let Some(dir) = &out_dir {
            std::fs::write(format!("{dir}/{seed}.trace"), &bytes).unwrap();
        }
    }
}

/// What is kept of a thread that has ended is another's soon, while its buffers are still there.
#[test]
fn threads_that_come_and_go_are_told_once() {
    const THREADS: u32 = 500;
    let _alone = ALONE.lock().unwrap();
    let buffers: &'static TraceBuffers<64, 32> = Box::leak(Box::new(TraceBuffers::new()));
    let host = Host {
        trace: buffers.view(),
        ticks: AtomicU64::new(5_000_000_000),
        limits: Limits::SMALL,
    };
    let mut encoder = TraceEncoder::new(&host, Span::FromNow).unwrap();
    let mut out = vec![0; 1 << 16];
    let mut len = 0;
    let busy = Stream::new(1);
    for thread in 0..THREADS {
        let stream = Stream::new(100 + thread);
        for event in [
            Event::thread_began(thread),
            Event::waits(1, StackId::EMPTY),
            Event::resumed(),
            Event::thread_ended(),
        ] {
            let ticks = host.ticks.fetch_add(100_000, Ordering::Relaxed);
            host.trace.record(&stream, ticks, event);
        }
        host.trace.close_stream(&stream);
        host.trace.record(&busy, host.ticks(), Event::resumed());
        while let Filled::Wrote(n) = encoder.fill(&mut out, false) {
            len += n;
        }
    }
    while let Filled::Wrote(n) = encoder.fill(&mut out, true) {
        len += n;
    }
    // Some 60 bytes a thread, with its strings.
    let each = len / THREADS as usize;
    assert!((20..200).contains(&each), "{each} bytes a thread");
    assert_eq!(host.trace.lost(), 0);
}
