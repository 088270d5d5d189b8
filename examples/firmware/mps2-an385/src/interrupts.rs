//! Which interrupt goes where, and how urgent each is.
//!
//! The tick is above all others, so that what they do is sampled too.

#![allow(unsafe_code)]

use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::scb::SystemHandler;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{NVIC, Peripherals};
use cortex_m_rt::{ExceptionFrame, exception};
use picoprof::interrupt::SingleCore;
use picoprof::profile::lock::CriticalSection;
use picoprof::stack::capture::registers_here;

use crate::profiler::within_interrupt;
use crate::trace::{Handler, Source};
use crate::{clock, ethernet, network, sensor, uart};

// Who keeps interrupts masked for long is in the `mutex` profile.
critical_section::set_impl!(CriticalSection<SingleCore>);

/// Interrupts by their numbers on this board.
#[derive(Clone, Copy)]
enum Interrupt {
    Uart0Receive = 0,
    Uart0Transmit = 1,
    Timer0 = 8,
    Timer1 = 9,
    Ethernet = 13,
}

// SAFETY: the numbers are those of the board's interrupts (AN385, table 3-3), and never change.
unsafe impl InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self as u16
    }
}

/// An entry of the vector table.
type Vector = Option<unsafe extern "C" fn()>;

/// The board's part of the vector table.
// SAFETY: this is the section and the name that `cortex-m-rt` has for it; each entry is a handler or none; those
// without one never come, as they stay masked.
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
static __INTERRUPTS: [Vector; 32] = {
    let mut vectors: [Vector; 32] = [None; 32];
    vectors[Interrupt::Uart0Receive as usize] = Some(handle_uart_interrupt);
    vectors[Interrupt::Uart0Transmit as usize] = Some(handle_uart_interrupt);
    vectors[Interrupt::Timer0 as usize] = Some(handle_alarm_interrupt);
    vectors[Interrupt::Timer1 as usize] = Some(handle_sensor_interrupt);
    vectors[Interrupt::Ethernet as usize] = Some(handle_ethernet_interrupt);
    vectors
};

extern "C" fn handle_uart_interrupt() {
    let _handler = Handler::enter(Source::Uart);
    within_interrupt(registers_here(), uart::on_interrupt);
}

extern "C" fn handle_alarm_interrupt() {
    let _handler = Handler::enter(Source::Alarm);
    within_interrupt(registers_here(), clock::on_alarm);
}

extern "C" fn handle_sensor_interrupt() {
    let _handler = Handler::enter(Source::Sensor);
    within_interrupt(registers_here(), sensor::on_interrupt);
}

extern "C" fn handle_ethernet_interrupt() {
    let _handler = Handler::enter(Source::Ethernet);
    within_interrupt(registers_here(), || {
        ethernet::on_interrupt();
        network::attend();
    });
}

/// A fault is a mistake, which ends the machine.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    panic!("a fault at {frame:?}")
}

/// Ticks in a second, each of them a sample where a profile is taken.
pub const TICK_HZ: u32 = 1_000;

/// Lets them come.
pub fn enable(mut peripherals: Peripherals) {
    // Of eight bits, the highest two are there on any Cortex-M; lower is more urgent.
    let priorities = [
        (Interrupt::Uart0Receive, 0x40),
        (Interrupt::Uart0Transmit, 0x40),
        (Interrupt::Timer0, 0x80),
        (Interrupt::Ethernet, 0x80),
        (Interrupt::Timer1, 0xc0),
    ];
    for (interrupt, priority) in priorities {
        // SAFETY: no critical section of this program relies on priorities.
        unsafe { peripherals.NVIC.set_priority(interrupt, priority) };
    }
    // SAFETY: as above.
    unsafe { peripherals.SCB.set_priority(SystemHandler::SysTick, 0) };
    for (interrupt, _) in priorities {
        // SAFETY: as above; what the handlers need are statics, which are ready.
        unsafe { NVIC::unmask(interrupt) };
    }
    let tick = &mut peripherals.SYST;
    tick.set_clock_source(SystClkSource::Core);
    tick.set_reload(clock::CORE_HZ / TICK_HZ - 1);
    tick.clear_current();
    tick.enable_counter();
    tick.enable_interrupt();
}
