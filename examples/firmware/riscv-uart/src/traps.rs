//! Interrupts: the tick, and the work, which the tick may interrupt.

#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering};

use picoprof::stack::capture::Registers;
use riscv_machine::interrupts::{self, Enabled, SOFTWARE, TIMER};
use riscv_machine::timer;

use crate::trace::{Handler, Source};
use crate::{profiler, station};

/// Ticks a second.
pub(crate) const TICK_HZ: u32 = 1000;

/// Ticks between two rounds of work.
const WORK_EVERY: u32 = 5;

const TICK: Enabled = Enabled {
    external: false,
    software: false,
    timer: true,
};

static TICKS: AtomicU32 = AtomicU32::new(0);

picoprof::riscv_trap!(trap_entry => on_trap);

/// Lets interrupts in.
pub(crate) fn start() {
    // SAFETY: it is one.
    unsafe { interrupts::set_trap_entry(trap_entry) };
    set_next_tick();
    interrupts::set_enabled(Enabled {
        software: true,
        ..TICK
    });
    // SAFETY: the trap entry is set, and this is called in nothing that needs interrupts masked.
    unsafe { interrupts::unmask() };
}

fn on_trap(cause: usize, interrupted: Registers) {
    // Of what is pending together the timer's comes last (privileged ISA, "Machine Interrupt Registers"). But a tick
    // that is due is one of the code that all of them interrupt.
    if interrupts::is_timer_pending() {
        set_next_tick();
        profiler::on_tick(interrupted);
        let ticks = TICKS.fetch_add(1, Ordering::Relaxed);
        if ticks.is_multiple_of(WORK_EVERY) {
            interrupts::send(interrupts::hart());
        }
    }
    match cause {
        TIMER => {}
        SOFTWARE => {
            interrupts::receive();
            let _handler = Handler::enter(Source::Work);
            interrupts::nest(TICK, station::work);
        }
        _ => panic!("trap {cause:#x} at {:#x}", interrupted.pc),
    }
}

fn set_next_tick() {
    timer::interrupt_at(timer::ticks() + timer::HZ / u64::from(TICK_HZ));
}
