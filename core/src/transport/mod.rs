//! Drivers: what moves bytes between a [`Connection`] and a stream.
//!
//! [`poll`] is for stacks that never block and lend their buffers, through [`Transport`], such as smoltcp (crate
//! `picoprof-smoltcp`); with [`Polled`] also for any `embedded_io` stream that says when it is ready. [`serve_blocking`] is for
//! any other `embedded_io` stream, and [`serve_async`] for any `embedded_io_async` stream: a UART of an async HAL, a TCP
//! socket of an async network stack such as embassy-net, with an own task and an own [`Connection`] for each socket.

#![forbid(unsafe_code)]

mod asynchronous;
mod blocking;
mod polled;

pub use asynchronous::{AsyncClock, serve_async};
pub use blocking::{Clock, serve_blocking};
pub use polled::Polled;

use crate::http::{Connection, Transmit};
use crate::target::Target;
use crate::time::Instant;

/// A stream of bytes that is never waited for, and that lends its own buffers.
pub trait Transport {
    /// What breaks the stream.
    type Error;

    /// Lends what was received and is not consumed yet, if there's any, to `consume`, which answers how many bytes
    /// of it are consumed now.
    ///
    /// # Errors
    ///
    /// When the stream is broken.
    fn receive(&mut self, consume: impl FnOnce(&[u8]) -> usize) -> Result<Received, Self::Error>;

    /// Lends room for bytes to send, if there's any, to `write`, which answers how many bytes it wrote to the
    /// front. False if there was no room.
    ///
    /// # Errors
    ///
    /// When the stream is broken.
    fn transmit(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> Result<bool, Self::Error>;

    /// Closes the stream when everything is sent.
    fn close(&mut self);
}

/// What came of receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Received {
    /// There may come more.
    Open,
    /// There will be no more, and all there was is consumed.
    Ended,
}

/// When to poll again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Wait {
    /// When something was received that the connection has [room](Connection::room) for, or at this time.
    Receive(Instant),
    /// When the stream has room again.
    Transmit,
    /// Never: the connection is closed.
    Closed,
}

/// Moves as many bytes as it can now, and says when to call it again.
///
/// # Errors
///
/// Those of the transport; the connection is of no more use then.
pub fn poll<T: Target, S: Transport, const HEAD: usize>(
    connection: &mut Connection<'_, T, HEAD>,
    transport: &mut S,
    now: Instant,
) -> Result<Wait, S::Error> {
    loop {
        let mut consumed = 0;
        let received = transport.receive(|bytes| {
            consumed = connection.receive(bytes);
            consumed
        })?;
        if received == Received::Ended {
            connection.receive_end();
        }
        // As if there was no room, if the transport lends none.
        let mut answer = Transmit::Wrote(0);
        transport.transmit(|out| {
            answer = connection.transmit(now, out);
            match answer {
                Transmit::Wrote(n) => n,
                _ => 0,
            }
        })?;
        match answer {
            Transmit::Wrote(0) => return Ok(Wait::Transmit),
            // It may write more, or take more of what is there.
            Transmit::Wrote(_) => {}
            Transmit::WantRead(_) if consumed > 0 => {}
            Transmit::WantRead(time) | Transmit::WaitUntil(time) => {
                return Ok(Wait::Receive(time));
            }
            Transmit::Close => {
                transport.close();
                return Ok(Wait::Closed);
            }
        }
    }
}
