//! A serial line: HTTP over a UART, or over a socket that leads to one.
//!
//! Nothing on a line says where an answer begins, and nothing can be closed. So there is one question at a time, and
//! each answer is read to its end, even if nobody wants it any more. When it is not known what the device is about to
//! say (at the start, after noise, a reset, or an answer that broke off), a question that nobody else can have asked
//! brings the two sides together again: a path that is not clean, with a number in it that comes back in the
//! redirect to the clean one.

#![forbid(unsafe_code)]

use core::fmt;
use core::hash::BuildHasher as _;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::hash_map::RandomState;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use rustix::fs::OFlags;
use rustix::termios::{self, ControlModes, OptionalActions};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, timeout};

use crate::device::{CONNECTS, Failure, Piece, exchange};

/// The rate of a line without another one.
const BAUD: u32 = 115_200;

/// How long a line is to be silent before the question for the number is sent again.
const SILENT: Duration = Duration::from_secs(2);

/// How long it is to be silent behind the answer.
const QUIET: Duration = Duration::from_millis(200);

/// How long that may take in all.
const SYNCS: Duration = Duration::from_secs(15);

/// Where a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A device file and its rate.
    Tty(PathBuf, u32),
    /// A socket that leads to one: an emulator's, or a serial server's.
    Tcp(String),
}

impl Place {
    /// `PATH[,BAUD]` or `tcp:HOST:PORT`.
    ///
    /// # Errors
    ///
    /// If it is neither.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(address) = text.strip_prefix("tcp:") {
            return Ok(Self::Tcp(address.to_owned()));
        }
        let (path, baud) = match text.rsplit_once(',') {
            Some((path, baud)) => (path, baud.parse()),
            None => (text, Ok(BAUD)),
        };
        match baud {
            Ok(baud) if baud > 0 && !path.is_empty() => Ok(Self::Tty(path.into(), baud)),
            _ => Err(format!("{text}: write PATH or PATH,BAUD")),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tty(path, baud) => write!(f, "{} at {baud} baud", path.display()),
            Self::Tcp(address) => write!(f, "the serial line at {address}"),
        }
    }
}

/// A line, and what is known of it.
#[derive(Debug)]
pub(crate) struct Line {
    place: Place,
    port: Option<Port>,
    /// The device waits for a question.
    is_in_step: bool,
}

impl Line {
    /// It is opened when there's a question.
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            port: None,
            is_in_step: false,
        }
    }

    /// The answer to a request, in pieces.
    pub(crate) async fn ask(
        &mut self,
        request: Request<Full<Bytes>>,
        patience: Duration,
        pieces: &Sender<Piece>,
    ) -> Result<(), Failure> {
        let Self {
            place,
            port,
            is_in_step,
        } = self;
        let mut was_open = port.is_some();
        let known = core::mem::take(is_in_step);
        let unusable = |error: io::Error| Failure(format!("{place}: {error}"));
        loop {
            let line = match port.take() {
                Some(line) => line,
                None => Port::open(place).await.map_err(unusable)?,
            };
            let line = port.insert(line);
            // A reset makes a device say what nobody asked.
            let is_silent = timeout(Duration::ZERO, line.read_u8()).await.is_err();
            if !(known && is_silent) {
                match line.fall_into_step().await {
                    Ok(true) => {}
                    Ok(false) => {
                        let seconds = SYNCS.as_secs();
                        return Err(Failure(format!(
                            "the device did not answer on {place} within {seconds} seconds: is it on, or still busy \
                             with what somebody else asked?"
                        )));
                    }
                    // One that was unplugged is opened anew.
                    Err(error) => {
                        *port = None;
                        if !core::mem::take(&mut was_open) {
                            return Err(unusable(error));
                        }
                        continue;
                    }
                }
            }
            exchange(line, request, patience, pieces).await?;
            *is_in_step = true;
            return Ok(());
        }
    }
}

/// An open line. Closing it for writing is not done: there's a next question.
#[derive(Debug)]
enum Port {
    /// To the runtime it is as two pipes, one for each direction.
    Tty(pipe::Receiver, pipe::Sender),
    Tcp(TcpStream),
}

impl Port {
    async fn open(place: &Place) -> io::Result<Self> {
        match place {
            Place::Tty(path, baud) => {
                let flags = OFlags::NOCTTY | OFlags::NONBLOCK;
                let mut options = OpenOptions::new();
                options.read(true).write(true);
                let file = options.custom_flags(flags.bits() as i32).open(path)?;
                let mut modes = termios::tcgetattr(&file)?;
                modes.make_raw();
                modes.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
                modes.control_modes -= ControlModes::CRTSCTS;
                modes.set_speed(*baud)?;
                termios::tcsetattr(&file, OptionalActions::Now, &modes)?;
                let from = pipe::Receiver::from_file_unchecked(file.try_clone()?)?;
                Ok(Self::Tty(from, pipe::Sender::from_file_unchecked(file)?))
            }
            Place::Tcp(address) => {
                let stream = timeout(CONNECTS, TcpStream::connect(address)).await??;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
        }
    }

    /// Reads away all that comes before the answer to a question of its own; false if that does not come.
    async fn fall_into_step(&mut self) -> io::Result<bool> {
        let deadline = Instant::now() + SYNCS;
        while Instant::now() < deadline {
            let number = format!("{:016x}", RandomState::new().hash_one(0));
            // The empty lines end what may have been begun.
            let question = format!(
                "\r\n\r\nGET //picoprof-bridge/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            );
            // To a device that takes nothing it is sent again.
            if let Ok(sent) = timeout(SILENT, self.write_all(question.as_bytes())).await {
                sent?;
            }
            let is_heard = |heard: &[u8]| {
                let mut parts = heard.windows(number.len());
                parts.any(|part| part == number.as_bytes())
            };
            if self.read_until(is_heard, SILENT, deadline).await? {
                self.read_until(|_| false, QUIET, deadline).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads until some bytes are there, or the line is silent, or it is too late; answers whether they were.
    async fn read_until(
        &mut self,
        is_there: impl Fn(&[u8]) -> bool,
        silence: Duration,
        deadline: Instant,
    ) -> io::Result<bool> {
        let mut heard = Vec::new();
        let mut buffer = [0; 512];
        while Instant::now() < deadline {
            let Ok(read) = timeout(silence, self.read(&mut buffer)).await else {
                return Ok(false);
            };
            let len = read?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            heard.extend_from_slice(buffer.get(..len).unwrap_or_default());
            if is_there(&heard) {
                return Ok(true);
            }
            // What is looked for may be cut in two.
            let old = heard.len().saturating_sub(buffer.len());
            heard.drain(..old);
        }
        Ok(false)
    }
}

impl AsyncRead for Port {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tty(from, _) => Pin::new(from).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tty(_, to) => Pin::new(to).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_given_by_path_and_rate() {
        let tty = |path: &str, baud| Place::Tty(path.into(), baud);
        for (text, place) in [
            ("/dev/ttyUSB0", tty("/dev/ttyUSB0", BAUD)),
            ("/dev/ttyACM0,921600", tty("/dev/ttyACM0", 921_600)),
            ("a,b,9600", tty("a,b", 9600)),
            (
                "tcp:127.0.0.1:4444",
                Place::Tcp("127.0.0.1:4444".to_owned()),
            ),
        ] {
            assert_eq!(Place::parse(text), Ok(place));
        }
        for bad in [
            "",
            ",9600",
            "/dev/ttyS0,",
            "/dev/ttyS0,fast",
            "/dev/ttyS0,0",
        ] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }
}
