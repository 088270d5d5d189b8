//! Over any blocking `embedded_io` stream: a UART, a socket of a thread's own.

#![forbid(unsafe_code)]

use embedded_io::{Read, Write};

use crate::http::{Connection, Transmit};
use crate::target::Target;
use crate::time::Instant;

/// A clock that can be waited on.
pub trait Clock {
    /// The time.
    fn now(&mut self) -> Instant;

    /// Returns at `time`, or later.
    fn wait_until(&mut self, time: Instant);
}

/// Serves one connection to its end.
///
/// `buffer` is for what goes out and what comes in; some 64 bytes are enough, more is faster. As reading
/// blocks, the time limits for slow clients do not hold here, and a client that goes while a profile is taken
/// is noticed when the profile is sent. A stream that says when it is ready does better: [`Polled`](super::Polled).
///
/// # Errors
///
/// Those of the stream.
pub fn serve_blocking<S, T, C, const HEAD: usize>(
    connection: &mut Connection<'_, T, HEAD>,
    stream: &mut S,
    clock: &mut C,
    buffer: &mut [u8],
) -> Result<(), S::Error>
where
    S: Read + Write,
    T: Target,
    C: Clock,
{
    loop {
        match connection.transmit(clock.now(), buffer) {
            Transmit::Wrote(n) => stream.write_all(buffer.get(..n).unwrap_or_default())?,
            Transmit::WaitUntil(time) => {
                stream.flush()?;
                clock.wait_until(time);
            }
            Transmit::WantRead(_) => {
                stream.flush()?;
                let room = connection.room().min(buffer.len());
                let n = stream.read(buffer.get_mut(..room).unwrap_or_default())?;
                if n == 0 {
                    connection.receive_end();
                } else {
                    connection.receive(buffer.get(..n).unwrap_or_default());
                }
            }
            Transmit::Close => return stream.flush(),
        }
    }
}
