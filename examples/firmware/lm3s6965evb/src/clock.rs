//! Time since the start: SysTick counts on, whatever the program does, and a timer's tick extends its 24 bits.
//!
//! Ticks that are late, or lost as interrupts were masked for long or an emulator was not given a processor, cost no time.

#![forbid(unsafe_code)]

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use picoprof::Instant;
use picoprof::stack::Counter;
use portable_atomic::{AtomicU32, Ordering};

use crate::registers::Register;

/// The processor's clock in Hz, at reset; the board that QEMU models makes it so.
pub(crate) const CLOCK: u32 = 12_500_000;

/// Ticks a second.
pub(crate) const TICKS: u32 = 1000;

/// Nanoseconds in a clock cycle.
const NANOS: u32 = 1_000_000_000 / CLOCK;

/// Nanoseconds in a tick.
pub(crate) const TICK_NANOS: u32 = 1_000_000_000 / TICKS;

/// The most that SysTick's counter can be.
const RANGE: u32 = 0x00ff_ffff;

/// Which bit of the counter says in which half of its range it is.
const HALF: u32 = 23;

/// Ticks that came.
static TAKEN: Counter = Counter::new();

/// How often the counter went past half of its range.
static HALVES: AtomicU32 = AtomicU32::new(0);

/// Begins to count. To be called before anybody asks what time it is.
pub(crate) fn start(counter: &mut SYST) {
    counter.set_clock_source(SystClkSource::Core);
    counter.set_reload(RANGE);
    counter.clear_current();
    counter.enable_counter();
    // It is 0 until it begins, which is also its end.
    while SYST::get_current() == 0 {}
}

/// Lets the ticks begin, as soon as the timer's interrupt is enabled.
pub(crate) fn start_ticks() {
    Register::ClockGating1.write(Register::ClockGating1.read() | 1 << 17);
    Register::TickControl.write(0);
    // 32 bits, periodic, an interrupt at its end.
    Register::TickConfiguration.write(0);
    Register::TickMode.write(2);
    Register::TickInterval.write(CLOCK / TICKS - 1);
    Register::TickInterruptMask.write(1);
    Register::TickControl.write(1);
}

/// To be called first in each tick. One has to come while the counter goes through half of its range, which takes 671 ms.
pub(crate) fn tick() {
    Register::TickInterruptClear.write(1);
    TAKEN.add(1);
    let halves = HALVES.load(Ordering::Relaxed);
    if counter() >> HALF != halves & 1 {
        HALVES.store(halves.wrapping_add(1), Ordering::Release);
    }
}

/// Ticks so far.
pub(crate) fn ticks() -> u64 {
    TAKEN.load()
}

/// The time now, to a cycle.
pub(crate) fn now() -> Instant {
    Instant::from_nanos(cycles() * u64::from(NANOS))
}

/// Clock cycles since the start, of which there are [`CLOCK`] in a second. They never go back, not in interrupts either.
pub(crate) fn cycles() -> u64 {
    // Before the counter: that may go past half a range between the two, and then its highest bit tells.
    let halves = HALVES.load(Ordering::Acquire);
    let beyond = counter() ^ ((halves & 1) << HALF);
    (u64::from(halves) << HALF) + u64::from(beyond)
}

fn counter() -> u32 {
    // It counts down.
    RANGE - SYST::get_current()
}
