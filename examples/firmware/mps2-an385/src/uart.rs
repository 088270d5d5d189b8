//! UARTs: one is a stream of bytes for tasks, moved by interrupts; the other is the console.

#![forbid(unsafe_code)]

use core::cell::RefCell;
use core::fmt;
use core::future::poll_fn;
use core::task::Poll;

use critical_section::Mutex;
use embassy_sync::waitqueue::AtomicWaker;
use embassy_time::{Duration, with_timeout};
use embedded_io_async::{ErrorKind, ErrorType, Read, Write};

use crate::clock::CORE_HZ;
use crate::registers::Register;
use crate::ring::Ring;

const BAUD: u32 = 115_200;

/// `STATE`: the byte to be sent, and the one that was received, are still there.
const TRANSMIT_FULL: u32 = 1 << 0;
const RECEIVE_FULL: u32 = 1 << 1;

/// `CTRL`: transmitter and receiver; their interrupts.
const ENABLE: u32 = 0b11;
const TRANSMIT_INTERRUPT: u32 = 1 << 2;
const RECEIVE_INTERRUPT: u32 = 1 << 3;

/// How long a client may pause within the head of a request.
const PAUSE: Duration = Duration::from_secs(1);

static RECEIVED: Mutex<RefCell<Ring<1024>>> = Mutex::new(RefCell::new(Ring::new()));
static TO_SEND: Mutex<RefCell<Ring<1024>>> = Mutex::new(RefCell::new(Ring::new()));
static READER: AtomicWaker = AtomicWaker::new();
static WRITER: AtomicWaker = AtomicWaker::new();

/// The first UART as a stream of requests and answers, of which there is one.
///
/// A serial line doesn't tell that a client has gone, and another one is there. But a client says nothing while it waits
/// for an answer, and does not pause for long in what it says; one that does has gone.
pub struct Uart {
    request: Request,
}

/// How far it is with a request.
#[derive(Clone, Copy, PartialEq)]
enum Request {
    /// None has begun.
    None,
    /// The head has: so many bytes of the empty line at its end were read last.
    Head { end: usize, has_body: bool },
    /// A body, of which nothing is known here, and the answer.
    Body,
    /// All of it was read.
    Read,
    /// All of it was read, and the answer has begun.
    Answering,
}

/// Whoever asked has gone: somebody else says something.
#[derive(Debug)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client has gone")
    }
}

impl core::error::Error for Gone {}

impl embedded_io_async::Error for Gone {
    fn kind(&self) -> ErrorKind {
        ErrorKind::ConnectionReset
    }
}

impl Uart {
    /// Switches it on.
    pub fn start() -> Self {
        Register::Uart0BaudDivider.write(CORE_HZ / BAUD);
        Register::Uart0Control.write(ENABLE | TRANSMIT_INTERRUPT | RECEIVE_INTERRUPT);
        Self {
            request: Request::None,
        }
    }

    /// Forgets whoever asked, and what it was to be told.
    pub fn reset(&mut self) {
        self.request = Request::None;
        critical_section::with(|cs| TO_SEND.borrow_ref_mut(cs).clear());
    }

    fn saw(&mut self, bytes: &[u8]) {
        const END: &[u8; 4] = b"\r\n\r\n";
        for &byte in bytes {
            self.request = match self.request {
                // An empty line before a request is no offence.
                Request::None if byte == b'\r' || byte == b'\n' => Request::None,
                Request::None => Request::Head {
                    end: 0,
                    has_body: byte == b'P',
                },
                Request::Head { end, has_body } if byte == END[end] => match (end + 1, has_body) {
                    (4, false) => Request::Read,
                    (4, true) => Request::Body,
                    (end, _) => Request::Head { end, has_body },
                },
                Request::Head { has_body, .. } => Request::Head {
                    end: usize::from(byte == END[0]),
                    has_body,
                },
                after => return self.request = after,
            };
        }
    }
}

/// Moves bytes between the device and the rings.
pub fn on_interrupt() {
    Register::Uart0Interrupts.write(0b11);
    let received = critical_section::with(|cs| {
        let mut received = RECEIVED.borrow_ref_mut(cs);
        let before = received.len();
        // One that is left in the device holds up who sends, where the line has flow control.
        while received.room() > 0 && Register::Uart0State.read() & RECEIVE_FULL != 0 {
            received.push(Register::Uart0Data.read() as u8);
        }
        received.len() > before
    });
    if received {
        READER.wake();
    }
    if send() {
        WRITER.wake();
    }
}

/// Hands bytes to the device, as many as it takes; answers whether there were some.
fn send() -> bool {
    critical_section::with(|cs| {
        let mut to_send = TO_SEND.borrow_ref_mut(cs);
        let before = to_send.len();
        while Register::Uart0State.read() & TRANSMIT_FULL == 0 {
            let Some(byte) = to_send.pop() else { break };
            Register::Uart0Data.write(byte.into());
        }
        to_send.len() < before
    })
}

impl ErrorType for Uart {
    type Error = Gone;
}

impl Read for Uart {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Gone> {
        if let Request::Answering = self.request {
            // That's over.
            self.request = Request::None;
        }
        let request = self.request;
        let read = poll_fn(|context| {
            READER.register(context.waker());
            critical_section::with(|cs| {
                let mut received = RECEIVED.borrow_ref_mut(cs);
                match received.len() {
                    0 => Poll::Pending,
                    _ if request == Request::Read => Poll::Ready(Err(Gone)),
                    _ => Poll::Ready(Ok(received.pop_slice(buffer))),
                }
            })
        });
        let n = if let Request::Head { .. } = request {
            with_timeout(PAUSE, read).await.unwrap_or(Err(Gone))?
        } else {
            read.await?
        };
        // There may be room again for what the device still has.
        on_interrupt();
        self.saw(&buffer[..n]);
        Ok(n)
    }
}

impl Write for Uart {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Gone> {
        self.request = match self.request {
            Request::Read | Request::Answering => Request::Answering,
            _ => Request::None,
        };
        let is_answering = self.request == Request::Answering;
        let sent = poll_fn(|context| {
            WRITER.register(context.waker());
            critical_section::with(|cs| {
                if is_answering && RECEIVED.borrow_ref(cs).len() > 0 {
                    return Poll::Ready(Err(Gone));
                }
                match TO_SEND.borrow_ref_mut(cs).push_slice(bytes) {
                    0 => Poll::Pending,
                    n => Poll::Ready(Ok(n)),
                }
            })
        });
        let n = sent.await?;
        send();
        Ok(n)
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        poll_fn(|context| {
            WRITER.register(context.waker());
            match critical_section::with(|cs| TO_SEND.borrow_ref(cs).len()) {
                0 => Poll::Ready(Ok(())),
                _ => Poll::Pending,
            }
        })
        .await
    }
}

/// The second UART: lines for people and for tests.
pub struct Console;

impl Console {
    /// Switches it on.
    pub fn start() -> Self {
        Register::Uart1BaudDivider.write(CORE_HZ / BAUD);
        Register::Uart1Control.write(ENABLE);
        Self
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while Register::Uart1State.read() & TRANSMIT_FULL != 0 {}
            Register::Uart1Data.write(byte.into());
        }
        Ok(())
    }
}
