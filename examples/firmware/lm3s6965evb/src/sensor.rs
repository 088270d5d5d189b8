//! A sensor: a timer's interrupt takes samples, filters them, and tells a task of what it has seen.

#![forbid(unsafe_code)]

use core::cell::RefCell;
use core::time::Duration;

use critical_section::Mutex;
use firmware_common::mailbox::Mailbox;
use firmware_common::readings::filter;
use picoprof::Exclusive;
use picoprof::stack::Counter;
use picoprof::stack::capture::Registers;
use picoprof::trace;

use crate::registers::Register;
use crate::trace::{Handler, Source};
use crate::{clock, profiler};

/// Clock cycles between two samples: 397 a second. It has no common measure with the tick's 1,000, so that a tick comes in any part
/// of the handler sooner or later.
const INTERVAL: u32 = 12_500_000 / 397;

/// Samples that are filtered together.
const WINDOW: usize = 64;

/// Samples between two summaries.
const SUMMARY: usize = 64;

/// Summaries that are kept.
const HISTORY: usize = 32;

/// How long interrupts are masked to sort them.
const MASKED: Duration = Duration::from_micros(50);

/// The interrupt's own.
static RING: Exclusive<Ring> = Exclusive::new(Ring {
    samples: [0; WINDOW],
    filtered: [0; WINDOW],
    at: 0,
});

/// The mean of what was seen lately.
static SUMMARIES: Mailbox<i32> = Mailbox::new();

/// The summaries, in order of size.
static SORTED: Mutex<RefCell<[i32; HISTORY]>> = Mutex::new(RefCell::new([0; HISTORY]));

/// How often interrupts were masked on purpose, and for how many nanoseconds.
static MASKED_TIMES: Counter = Counter::new();
static MASKED_NANOS: Counter = Counter::new();

/// Samples that were taken.
static TAKEN: Counter = Counter::new();

struct Ring {
    samples: [i32; WINDOW],
    filtered: [i32; WINDOW],
    at: usize,
}

/// What was counted here.
pub(crate) struct Counts {
    /// Samples of the sensor.
    pub(crate) taken: u64,
    /// How often interrupts were masked for long.
    pub(crate) masked: u64,
    /// For how long in all.
    pub(crate) masked_nanos: u64,
}

/// Lets the samples begin, as soon as the interrupt is enabled.
pub(crate) fn start() {
    Register::ClockGating1.write(Register::ClockGating1.read() | 1 << 16);
    Register::TimerControl.write(0);
    // 32 bits, periodic, an interrupt at its end.
    Register::TimerConfiguration.write(0);
    Register::TimerMode.write(2);
    Register::TimerInterval.write(INTERVAL - 1);
    Register::TimerInterruptMask.write(1);
    Register::TimerControl.write(1);
}

/// The task that the interrupt tells of what it has seen.
pub(crate) async fn watch() {
    loop {
        let summary = SUMMARIES.receive().await;
        trace::log("sensor", format_args!("mean {summary}"));
        trace::region("sort", || hold_interrupts_masked(summary));
    }
}

/// What was counted so far.
pub(crate) fn counts() -> Counts {
    Counts {
        taken: TAKEN.load(),
        masked: MASKED_TIMES.load(),
        masked_nanos: MASKED_NANOS.load(),
    }
}

picoprof::cortex_m_tick!(TIMER_0A => on_timer);

fn on_timer(interrupted: Registers) {
    let _handler = Handler::enter(Source::Sensor);
    Register::TimerInterruptClear.write(1);
    TAKEN.add(1);
    // No one else has the ring.
    let summary = RING.try_with(take_sample).flatten();
    if let Some(summary) = summary {
        // If there's still one, it was not waited for.
        profiler::in_handler(interrupted, || {
            let _ = SUMMARIES.put(summary);
        });
    }
}

/// Takes a sample and filters the last ones; answers their mean now and then.
#[inline(never)]
fn take_sample(ring: &mut Ring) -> Option<i32> {
    let sample = (clock::now().as_nanos() >> 4 & 0xff) as i32;
    ring.samples[ring.at % WINDOW] = sample;
    ring.at = ring.at.wrapping_add(1);
    ring.filtered = ring.samples;
    // Smooth, and smoother.
    for _ in 0..16 {
        filter(&mut ring.filtered);
    }
    let mean = ring.filtered.iter().sum::<i32>() / WINDOW as i32;
    ring.at.is_multiple_of(SUMMARY).then_some(mean)
}

/// Sorts with interrupts masked, over and over: what a program should not do, and what `mutex` finds.
#[inline(never)]
fn hold_interrupts_masked(summary: i32) {
    let held = critical_section::with(|cs| {
        let begin = clock::now();
        let mut sorted = SORTED.borrow_ref_mut(cs);
        sorted[0] = summary;
        loop {
            insertion_sort(&mut *sorted);
            sorted.reverse();
            let held = clock::now().since(begin);
            if held >= MASKED {
                return held;
            }
        }
    });
    MASKED_TIMES.add(1);
    MASKED_NANOS.add(held.as_nanos() as u64);
}

#[inline(never)]
fn insertion_sort(values: &mut [i32]) {
    for end in 1..values.len() {
        let mut at = end;
        while at > 0 && values[at - 1] > values[at] {
            values.swap(at - 1, at);
            at -= 1;
        }
    }
}
