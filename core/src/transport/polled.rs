//! Over any `embedded_io` stream that says when it is ready: a UART that a main loop polls.

#![forbid(unsafe_code)]

use embedded_io::{Read, ReadReady, Write, WriteReady};

use super::{Received, Transport};

/// How many times the stream is read and written before the caller has its turn: a stream that is always ready must not
/// keep it.
const TURNS: u32 = 16;

/// A stream that is never waited for, as a [`Transport`]: it is only read and written when it says that it is ready.
///
/// `RECEIVED` and `TO_SEND` are the sizes of its buffers; some 64 bytes are enough, and a stream with a buffer of its own
/// is served well with that. What a stream takes only a part of stays in here until it takes the rest.
///
/// Unlike in [`serve_blocking`](super::serve_blocking), the connection's time limits hold, and other things can be done
/// meanwhile. Call [`poll`](super::poll) whenever the stream may be ready, and at the time that it says:
///
/// ```
/// # use core::convert::Infallible;
/// # use picoprof::encode::Body;
/// # use picoprof::profile::Profiles;
/// # use picoprof::stack::StackTable;
/// # use picoprof::{BuildId, Instant, LocationId, NoSymbols, StartError, Target, Thread};
/// use picoprof::http::Connection;
/// use picoprof::transport::{self, Polled, Wait};
/// # static STACKS: StackTable<8, 8> = StackTable::new();
/// # struct Firmware;
/// # impl Target for Firmware {
/// #     type Scratch = [u64; 1];
/// #     type Symbols = NoSymbols;
/// #     type Encoded<B: Body> = B;
/// #     type Threads = [Thread; 0];
/// #     fn profiles(&self) -> Profiles<'_> {
/// #         Profiles::of(STACKS.view())
/// #     }
/// #     fn scratch(&self, words: usize) -> Option<[u64; 1]> { (words <= 1).then_some([0]) }
/// #     fn symbols(&self, _: &mut dyn Iterator<Item = (LocationId, usize)>) -> NoSymbols {
/// #         NoSymbols { file: "[firmware]", build_id: BuildId::NONE }
/// #     }
/// #     fn encode<B: Body>(&self, profile: B) -> B { profile }
/// #     fn threads(&self) -> [Thread; 0] { [] }
/// #     fn command_line(&self) -> &[u8] { b"firmware" }
/// #     fn start_cpu(&self, _: u32) -> Result<u64, StartError> { Err(StartError::Unavailable) }
/// #     fn stop_cpu(&self) {}
/// # }
/// # // Somebody asks over it, in the middle of something that it did not finish before.
/// # struct Uart { to_read: &'static [u8], next: &'static [u8], sent: Vec<u8> }
/// # impl embedded_io::ErrorType for Uart { type Error = Infallible; }
/// # impl embedded_io::ReadReady for Uart {
/// #     fn read_ready(&mut self) -> Result<bool, Infallible> { Ok(!self.to_read.is_empty()) }
/// # }
/// # impl embedded_io::Read for Uart {
/// #     fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> { embedded_io::Read::read(&mut self.to_read, buffer) }
/// # }
/// # impl embedded_io::WriteReady for Uart {
/// #     fn write_ready(&mut self) -> Result<bool, Infallible> { Ok(true) }
/// # }
/// # impl embedded_io::Write for Uart {
/// #     fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> { self.sent.extend(bytes); Ok(bytes.len()) }
/// #     fn flush(&mut self) -> Result<(), Infallible> { Ok(()) }
/// # }
/// # let uart = Uart {
/// #     to_read: b"GET /debug/pp",
/// #     next: b"GET /debug/pprof/cmdline HTTP/1.1\r\nHost: a\r\n\r\n",
/// #     sent: Vec::new(),
/// # };
/// # let mut time = Instant::from_millis(0);
///
/// let mut uart = Polled::<_, 64, 64>::new(uart);
/// let mut connection = Connection::<_, 256>::new(&Firmware);
/// loop {
///     let now = // … the clock's …
/// #       time;
///     let wait = transport::poll(&mut connection, &mut uart, now)?;
///     if wait == Wait::Closed {
///         // A UART has no end: the next request is the next connection's.
///         connection = Connection::new(&Firmware);
/// #       assert!(uart.stream().sent.starts_with(b"HTTP/1.1 408 "));
/// #       uart.stream().to_read = uart.stream().next;
///     }
///     // … the application's turn …
/// #   if let Wait::Receive(until) = wait { time = until; }
/// #   if uart.stream().sent.ends_with(b"\r\n\r\nfirmware") { break; }
/// }
/// # Ok::<(), Infallible>(())
/// ```
///
/// # Over a UART
///
/// A UART doesn't know who is at its other end, and whether anybody is. So:
///
/// * One client after another. What the next sends before the last answer is out, is the next request.
/// * Half a request of a client that left is answered with 408 ten seconds after its first byte, and forgotten. What a new client
///   asks before is taken for the rest of it: it should wait for so long, or begin again after an error's answer.
/// * A client that leaves during an answer doesn't stop it: a UART takes bytes that nobody reads. A profile that is taken goes on
///   to its end; ask for few `seconds`.
/// * Ask in HTTP/1.1: an answer to HTTP/1.0 may end with the connection only, and there is none.
/// * Bytes that are lost, as without flow control they may be, are lost to HTTP too.
#[derive(Debug)]
pub struct Polled<S, const RECEIVED: usize, const TO_SEND: usize> {
    stream: S,
    received: Buffer<RECEIVED>,
    to_send: Buffer<TO_SEND>,
    is_ended: bool,
    /// Something was consumed since there was a turn to send.
    has_consumed: bool,
    turns: u32,
}

impl<S, const RECEIVED: usize, const TO_SEND: usize> Polled<S, RECEIVED, TO_SEND> {
    /// A transport over `stream`. It does not compile with an empty buffer.
    #[must_use]
    pub const fn new(stream: S) -> Self {
        const { assert!(RECEIVED > 0 && TO_SEND > 0, "a stream wants buffers") };
        Self {
            stream,
            received: Buffer::EMPTY,
            to_send: Buffer::EMPTY,
            is_ended: false,
            has_consumed: false,
            turns: TURNS,
        }
    }

    /// The stream, such as to enable its interrupts.
    pub const fn stream(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S, const RECEIVED: usize, const TO_SEND: usize> Transport for Polled<S, RECEIVED, TO_SEND>
where
    S: Read + ReadReady + Write + WriteReady,
{
    type Error = S::Error;

    fn receive(&mut self, consume: impl FnOnce(&[u8]) -> usize) -> Result<Received, S::Error> {
        let wants_more = self.received.is_empty() && !self.is_ended && self.turns > 0;
        if wants_more && self.stream.read_ready()? {
            self.turns -= 1;
            let len = self.stream.read(&mut self.received.bytes)?;
            self.received.set_filled(len);
            self.is_ended = len == 0;
        }
        self.has_consumed = false;
        if !self.received.is_empty() {
            let consumed = consume(self.received.filled());
            self.received.consume(consumed);
            self.has_consumed = consumed > 0;
        }
        Ok(if self.is_ended && self.received.is_empty() {
            Received::Ended
        } else {
            Received::Open
        })
    }

    fn transmit(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> Result<bool, S::Error> {
        if !self.send()? {
            return Ok(false);
        }
        if self.turns == 0 {
            self.turns = TURNS;
            return Ok(false);
        }
        let len = write(&mut self.to_send.bytes);
        self.to_send.set_filled(len);
        if len > 0 {
            self.turns -= 1;
            self.send()?;
        } else if !self.has_consumed {
            // The caller's turn is next anyway.
            self.turns = TURNS;
        }
        Ok(true)
    }

    fn close(&mut self) {
        // All is handed to the stream by now, and the stream has no end.
    }
}

impl<S: Write + WriteReady, const RECEIVED: usize, const TO_SEND: usize>
    Polled<S, RECEIVED, TO_SEND>
{
    /// Hands the stream what it takes now; false if that's not all.
    fn send(&mut self) -> Result<bool, S::Error> {
        while !self.to_send.is_empty() {
            if !self.stream.write_ready()? {
                return Ok(false);
            }
            let sent = self.stream.write(self.to_send.filled())?;
            self.to_send.consume(sent);
        }
        Ok(true)
    }
}

/// Bytes that are filled in at once, and consumed a part at a time.
#[derive(Debug)]
struct Buffer<const SIZE: usize> {
    bytes: [u8; SIZE],
    start: usize,
    end: usize,
}

impl<const SIZE: usize> Buffer<SIZE> {
    const EMPTY: Self = Self {
        bytes: [0; SIZE],
        start: 0,
        end: 0,
    };

    const fn set_filled(&mut self, len: usize) {
        self.start = 0;
        self.end = len;
    }

    fn consume(&mut self, len: usize) {
        self.start = self.end.min(self.start.saturating_add(len));
    }

    fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.filled().is_empty()
    }
}
