//! Time since the start: ticks of SysTick, and what its counter says in between.

#![forbid(unsafe_code)]

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{SCB, SYST};
use picoprof::Instant;
use picoprof::stack::Counter;

/// The processor's clock in Hz, at reset; the board that QEMU models makes it so.
pub(crate) const CLOCK: u32 = 12_500_000;

/// Ticks a second.
pub(crate) const TICKS: u32 = 1000;

/// Clock cycles in a tick.
const PERIOD: u32 = CLOCK / TICKS;

/// Nanoseconds in a clock cycle.
const NANOS: u32 = 1_000_000_000 / CLOCK;

/// Nanoseconds in a tick.
pub(crate) const TICK_NANOS: u32 = 1_000_000_000 / TICKS;

static ELAPSED: Counter = Counter::new();

/// Lets the ticks begin.
pub(crate) fn start(mut timer: SYST) {
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(PERIOD - 1);
    timer.clear_current();
    timer.enable_counter();
    timer.enable_interrupt();
}

/// To be called first in each tick.
pub(crate) fn tick() {
    ELAPSED.add(1);
}

/// Ticks so far.
pub(crate) fn ticks() -> u64 {
    ELAPSED.load()
}

/// The time now, to a cycle.
pub(crate) fn now() -> Instant {
    Instant::from_nanos(cycles() * u64::from(NANOS))
}

/// Clock cycles since the start, of which there are [`CLOCK`] in a second. They never go back, not in interrupts either; but
/// if interrupts are masked for longer than a tick, ticks are missing.
pub(crate) fn cycles() -> u64 {
    loop {
        let ticks = ticks();
        let mut cycles = cycles_since_tick();
        let is_tick_pending = SCB::is_pendst_pending();
        if is_tick_pending {
            // It began again, now at the latest.
            cycles = cycles_since_tick();
        }
        // Or else a tick came between.
        if ELAPSED.load() == ticks {
            let ticks = ticks + u64::from(is_tick_pending);
            return ticks * u64::from(PERIOD) + u64::from(cycles);
        }
    }
}

/// Clock cycles since the last tick. The counter counts down, and is zero when the tick comes.
fn cycles_since_tick() -> u32 {
    match SYST::get_current() {
        0 => 0,
        left => PERIOD - left,
    }
}
