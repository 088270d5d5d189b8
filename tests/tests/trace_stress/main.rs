//! Thousands of short traces of a program that does anything at any time, through buffers that are too small: each is a
//! trace, for Go's readers of 1.27 and 1.22 and for the strict one.
//!
//! `PICOPROF_TRACES_COUNT` says how many (2000), and `PICOPROF_TRACES_SEED` where the dice begin (the time).

mod program;
mod target;

use core::time::Duration;
use std::thread;
use std::time::{Instant, SystemTime};

use picoprof::encode::trace::{Filled, Span, TraceEncoder, TraceError};
use picoprof::trace::FlightRecorder;
use picoprof_tests::go::{Go, keep_trace};
use picoprof_tests::trace::{State, Trace};

use crate::program::{Dice, Program};
use crate::target::Host;

#[test]
fn whatever_happens_makes_a_trace() {
    let number = |name, default| {
        let text = std::env::var(name).ok();
        text.map_or(default, |text| text.parse().expect("it is a number"))
    };
    let count = number("PICOPROF_TRACES_COUNT", 2000);
    let seed = number("PICOPROF_TRACES_SEED", seed());
    println!("PICOPROF_TRACES_SEED={seed}");
    let mut dice = Dice::new(seed);
    let program = Program::start(seed);
    let mut readers = Go::new().trace_readers();
    let mut seen = Seen::default();
    let mut flight = None;
    let mut broken = Vec::new();
    for round in 0..count {
        if dice.below(20) == 0 {
            flight = match flight {
                Some(_) => None,
                None => FlightRecorder::begin(),
            };
        }
        let host = program.next_host(&mut dice);
        let is_flight = flight.is_some() && dice.below(3) == 0;
        let span = if is_flight {
            Span::Flight
        } else {
            Span::FromNow
        };
        if is_flight {
            thread::sleep(Duration::from_micros(dice.below(4000)));
        }
        let Some(bytes) = take(&host, span, &mut dice) else {
            seen.given_up += 1;
            continue;
        };
        let go = readers.read(&bytes);
        let ours = Trace::read(&bytes);
        match (go, ours) {
            (Ok(_), Ok(trace)) => seen.add(&trace),
            (go, ours) => broken.push(format!(
                "trace {round}, {} bytes, {:?}, {:?}, in {}\n{:?}\n{:?}",
                bytes.len(),
                host.size,
                host.limits,
                keep_trace(&bytes).display(),
                go.err(),
                ours.err()
            )),
        }
    }
    assert!(
        broken.is_empty(),
        "{} of {} of seed {seed}:\n{}",
        broken.len(),
        seen.traces + broken.len() as u64,
        broken.join("\n")
    );
    println!("{seen:#?}");
    // They were traces of something.
    let each = seen.traces.max(1);
    assert!(seen.traces > count / 2, "{seen:#?}");
    assert!(
        seen.goroutines > 5 * each && seen.events > 50 * each,
        "{seen:#?}"
    );
    for some in [
        seen.woken,
        seen.created_by_others,
        seen.tasks,
        seen.regions,
        seen.ended_regions,
        seen.logs,
        seen.samples,
        seen.losses,
        seen.labels,
        seen.heap,
        seen.later_generations,
    ] {
        assert!(some > each / 20, "{seen:#?}");
    }
}

fn seed() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    time.map_or(1, |time| time.as_nanos() as u64)
}

/// A trace, for some milliseconds; `None` if whoever wanted it was gone before the end.
fn take(host: &Host, span: Span, dice: &mut Dice) -> Option<Vec<u8>> {
    let mut encoder = match TraceEncoder::new(host, span) {
        Ok(encoder) => encoder,
        Err(error) => panic!("{error:?}"),
    };
    let other = TraceEncoder::new(host, Span::FromNow).map(drop);
    match span {
        Span::FromNow => assert_eq!(other.err(), Some(TraceError::AlreadyEnabled)),
        // They don't hinder each other.
        Span::Flight => assert_eq!(other.err(), None),
    }
    let begun = Instant::now();
    let time = Duration::from_micros(dice.below(12_000));
    let leaves = dice.below(40) == 0;
    let is_slow = dice.below(4) == 0;
    let size = 1 + dice.below(3000) as usize;
    let mut bytes = Vec::new();
    loop {
        let is_over = begun.elapsed() >= time;
        let mut out = vec![0; size];
        match encoder.fill(&mut out, is_over) {
            Filled::Wrote(n) => bytes.extend(&out[..n]),
            Filled::Nothing => {
                assert!(!is_over, "it is over");
                thread::sleep(Duration::from_micros(dice.below(700)));
            }
            Filled::Done => return Some(bytes),
        }
        if is_slow {
            thread::sleep(Duration::from_micros(dice.below(200)));
        }
        if leaves && is_over {
            return None;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not end");
    }
}

/// What there was in the traces, all in all.
#[derive(Debug, Default)]
struct Seen {
    traces: u64,
    given_up: u64,
    events: u64,
    goroutines: u64,
    created_by_others: u64,
    woken: u64,
    tasks: u64,
    regions: u64,
    ended_regions: u64,
    logs: u64,
    /// Logs that say that something was lost.
    losses: u64,
    samples: u64,
    labels: u64,
    heap: u64,
    later_generations: u64,
}

impl Seen {
    fn add(&mut self, trace: &Trace) {
        self.traces += 1;
        self.events += trace.events as u64;
        self.goroutines += trace.goroutines.len() as u64;
        self.tasks += trace.tasks.len() as u64;
        self.regions += trace.regions.len() as u64;
        let ended = trace.regions.iter().filter(|region| region.to.is_some());
        self.ended_regions += ended.count() as u64;
        self.logs += trace.logs.len() as u64;
        let losses = trace
            .logs
            .iter()
            .filter(|log| log.message.contains(" events were lost"));
        self.losses += losses.count() as u64;
        self.samples += trace.samples.len() as u64;
        self.heap += trace.heap.len() as u64;
        self.later_generations += trace.generations as u64 - 1;
        for goroutine in &trace.goroutines {
            let by = goroutine.created.as_ref().and_then(|created| created.by);
            self.created_by_others += u64::from(by.is_some());
            self.labels += goroutine.labels.len() as u64;
            let waits = goroutine
                .slices
                .iter()
                .filter(|it| it.state == State::Waiting);
            let woken = waits
                .filter_map(|it| it.woken.as_ref())
                .filter(|wake| wake.by.is_some());
            self.woken += woken.count() as u64;
        }
    }
}
