//! Interrupts: who handles which, and what may interrupt what. The tick comes first, then the card, then the rest.

#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

use picoprof::stack::capture::Registers;
use riscv_machine::interrupts::{self, EXTERNAL, Enabled, SOFTWARE, TIMER};
use riscv_machine::{HARTS, timer};

use crate::trace::{Handler, Source};
use crate::{network, profiler, self_check};

/// Ticks a second.
pub(crate) const TICK_HZ: u64 = 1000;

const TICK: u64 = timer::HZ / TICK_HZ;

const ALL: Enabled = Enabled {
    external: true,
    software: true,
    timer: true,
};
const TICK_AND_CARD: Enabled = Enabled {
    software: false,
    ..ALL
};
const TICK_ONLY: Enabled = Enabled {
    external: false,
    ..TICK_AND_CARD
};

/// When each hart's next tick is due.
static NEXT_TICK: [AtomicU64; HARTS] = [const { AtomicU64::new(0) }; HARTS];

picoprof::riscv_trap!(trap_entry => on_trap);

/// Lets interrupts in on this hart, the tick too; for its outermost loop.
pub(crate) fn start() {
    // SAFETY: it is one.
    unsafe { interrupts::set_trap_entry(trap_entry) };
    set_next_tick();
    interrupts::set_enabled(ALL);
    // SAFETY: the trap entry is set, and this is called in nothing that needs interrupts masked.
    unsafe { interrupts::unmask() };
}

fn on_trap(cause: usize, interrupted: Registers) {
    // Of what is pending together the timer's comes last (privileged ISA, "Machine Interrupt Registers"). But a tick
    // that is due is one of the code that all of them interrupt.
    if interrupts::is_timer_pending() {
        set_next_tick();
        profiler::on_tick(interrupted);
    }
    match cause {
        TIMER => {}
        EXTERNAL => {
            let Some(source) = interrupts::claim() else {
                return;
            };
            let _handler = Handler::enter(Source::Card);
            interrupts::nest(TICK_ONLY, network::handle_network_interrupt);
            interrupts::complete(source);
        }
        SOFTWARE => {
            interrupts::receive();
            let _handler = Handler::enter(Source::Software);
            profiler::on_question(interrupted);
            interrupts::nest(TICK_AND_CARD, self_check::run_if_due);
        }
        _ => panic!("trap {cause:#x} at {:#x}", interrupted.pc),
    }
}

/// A tick that is late doesn't move the next; those that are missed as a whole are left out.
fn set_next_tick() {
    let (next, now) = (&NEXT_TICK[interrupts::hart()], timer::ticks());
    let due = next.load(Ordering::Relaxed) + TICK;
    let due = if due > now { due } else { now + TICK };
    next.store(due, Ordering::Relaxed);
    timer::interrupt_at(due);
}
