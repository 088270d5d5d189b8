//! Over any `embedded_io_async` stream, on any executor.

#![forbid(unsafe_code)]

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

use embedded_io_async::{Read, Write};

use crate::http::{Connection, Transmit};
use crate::target::Target;
use crate::time::Instant;

/// A clock that can be awaited.
pub trait AsyncClock {
    /// The time.
    fn now(&mut self) -> Instant;

    /// Is ready at `time`, or later.
    fn wait_until(&mut self, time: Instant) -> impl Future<Output = ()>;
}

/// Serves one connection to its end.
///
/// `buffer` is for what goes out and what comes in; some 64 bytes are enough, more is faster. A `read` of
/// the stream is dropped when a time limit comes first, so it must not lose bytes then; those of the usual
/// stacks don't.
///
/// # Errors
///
/// Those of the stream.
pub async fn serve_async<S, T, C, const HEAD: usize>(
    connection: &mut Connection<'_, T, HEAD>,
    stream: &mut S,
    clock: &mut C,
    buffer: &mut [u8],
) -> Result<(), S::Error>
where
    S: Read + Write,
    T: Target,
    C: AsyncClock,
{
    loop {
        let time = match connection.transmit(clock.now(), buffer) {
            Transmit::Wrote(n) => {
                stream
                    .write_all(buffer.get(..n).unwrap_or_default())
                    .await?;
                continue;
            }
            Transmit::WaitUntil(time) | Transmit::WantRead(time) => time,
            Transmit::Close => return stream.flush().await,
        };
        stream.flush().await?;
        let room = connection.room().min(buffer.len());
        if room == 0 {
            clock.wait_until(time).await;
            continue;
        }
        let read = stream.read(buffer.get_mut(..room).unwrap_or_default());
        match first(read, clock.wait_until(time)).await {
            Some(Ok(0)) => connection.receive_end(),
            Some(Ok(n)) => {
                connection.receive(buffer.get(..n).unwrap_or_default());
            }
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
}

/// What `future` comes to, or `None` if `timer` is ready before.
async fn first<F: Future>(future: F, timer: impl Future<Output = ()>) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timer = pin!(timer);
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}
