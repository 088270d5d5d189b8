//! A socket as the core's [`Transport`]: both sides lend their buffers, so nothing is copied twice.

use picoprof::transport::{Received, Transport};
use smoltcp::socket::tcp::{Socket, State};

/// A socket whose connection was established.
pub(crate) struct Stream<'s, 'b>(pub(crate) &'s mut Socket<'b>);

/// The connection was reset, or given up by smoltcp because nothing comes any more.
pub(crate) struct Reset;

impl Transport for Stream<'_, '_> {
    type Error = Reset;

    fn receive(&mut self, consume: impl FnOnce(&[u8]) -> usize) -> Result<Received, Reset> {
        if self.0.can_recv() {
            let received = self.0.recv(|bytes| (consume(bytes), ()));
            received.map_err(|_| Reset)?;
        }
        match self.0.state() {
            State::Closed => Err(Reset),
            State::CloseWait if !self.0.can_recv() => Ok(Received::Ended),
            _ => Ok(Received::Open),
        }
    }

    fn transmit(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> Result<bool, Reset> {
        if !self.0.can_send() {
            return if self.0.may_send() {
                Ok(false)
            } else {
                Err(Reset)
            };
        }
        let sent = self.0.send(|room| (write(room), ()));
        sent.map_err(|_| Reset)?;
        Ok(true)
    }

    fn close(&mut self) {
        self.0.close();
    }
}
