//! The UART as a stream whose reader sleeps.

#![forbid(unsafe_code)]

use core::convert::Infallible;

use embedded_io::{ErrorType, Read, ReadReady, Write};
use riscv_machine::console::Uart;
use riscv_machine::timer;

use crate::trace::wait_for_interrupt;

/// A line that is silent for so long, in nanoseconds, is as good as closed: a client that left in the middle of a request
/// would else be continued by the next one.
const SILENCE: u64 = 1_000_000_000;

/// The console. Who reads from it sleeps until something has come; each tick looks.
pub(crate) struct SleepingUart;

impl ErrorType for SleepingUart {
    type Error = Infallible;
}

impl Read for SleepingUart {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let end = timer::nanos() + SILENCE;
        while !Uart.read_ready()? {
            if timer::nanos() > end {
                return Ok(0);
            }
            wait_for_interrupt();
        }
        Uart.read(buffer)
    }
}

impl Write for SleepingUart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        Write::write(&mut Uart, bytes)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Write::flush(&mut Uart)
    }
}
