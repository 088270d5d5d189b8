//! The console: an NS16550 UART.

#![forbid(unsafe_code)]

use core::convert::Infallible;
use core::fmt;

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

use crate::registers::Register8;

const UART: usize = 0x1000_0000;
/// RBR and THR: what was received, and what is to be sent.
const DATA: Register8 = Register8::at(UART);
/// LSR.
const LINE_STATUS: Register8 = Register8::at(UART + 5);
const DATA_READY: u8 = 1;
const ROOM: u8 = 1 << 5;

/// The UART, polled. All of these are the same one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uart;

impl Uart {
    fn has(self, status: u8) -> bool {
        LINE_STATUS.read() & status != 0
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl Read for Uart {
    /// Waits for a byte, and takes what there is behind it.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        for (i, byte) in buffer.iter_mut().enumerate() {
            while !self.has(DATA_READY) {
                if i > 0 {
                    return Ok(i);
                }
                core::hint::spin_loop();
            }
            *byte = DATA.read();
        }
        Ok(buffer.len())
    }
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(self.has(DATA_READY))
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        for &byte in bytes {
            while !self.has(ROOM) {
                core::hint::spin_loop();
            }
            DATA.write(byte);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl WriteReady for Uart {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(self.has(ROOM))
    }
}

impl fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Ok(()) = Write::write_all(self, text.as_bytes());
        Ok(())
    }
}
