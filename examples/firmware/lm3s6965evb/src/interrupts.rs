//! The interrupts: which there are, what their priorities are, and sleeping until there is one.

#![allow(unsafe_code)]

use cortex_m::peripheral::NVIC;
use lm3s6965::Interrupt;
use picoprof::interrupt::wait_for_interrupt_masked;

use crate::trace;

/// The highest: it is to see all others.
const TICK: u8 = 0;

/// The part has three bits of priority, the upper ones.
const SENSOR: u8 = 2 << 5;
const ETHERNET: u8 = 3 << 5;

/// Lets them come, with the tick above all others.
pub(crate) fn start(mut core: cortex_m::Peripherals) {
    // SAFETY: no critical section is made by a priority.
    unsafe { core.NVIC.set_priority(Interrupt::TIMER_1A, TICK) };
    // SAFETY: the same.
    unsafe { core.NVIC.set_priority(Interrupt::TIMER_0A, SENSOR) };
    // SAFETY: the same.
    unsafe { core.NVIC.set_priority(Interrupt::ETHERNET, ETHERNET) };
    // SAFETY: no critical section is made by a mask of single interrupts.
    unsafe { NVIC::unmask(Interrupt::TIMER_1A) };
    // SAFETY: the same.
    unsafe { NVIC::unmask(Interrupt::TIMER_0A) };
    // SAFETY: the same.
    unsafe { NVIC::unmask(Interrupt::ETHERNET) };
    crate::clock::start_ticks();
}

/// Waits for an interrupt, if there's still nothing to do. To be called by the main loop, with interrupts on.
pub(crate) fn sleep_unless(is_something_to_do: impl FnOnce() -> bool) {
    cortex_m::interrupt::disable();
    if is_something_to_do() {
        // SAFETY: they were on, and no critical section is open: the main loop calls this.
        unsafe { cortex_m::interrupt::enable() };
    } else {
        trace::idle(|| {
            // SAFETY: the same.
            unsafe { wait_for_interrupt_masked() };
        });
    }
}
