//! One client's connection: bytes in, bytes out, no socket and no clock.

#![forbid(unsafe_code)]

use core::ops::Range;
use core::time::Duration;

use heapless::Vec;

use super::exchange::Exchange;
use super::job::Reply;
use super::request::{BadHead, Request};
use super::response::Status;
use super::sending::Fill;
use super::state::State;
use crate::target::Target;
use crate::time::Instant;

/// How long a client may take to send a head, from its first byte on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may lie idle between requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may pause in the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What to do next; see [`Connection::transmit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Transmit {
    /// So many bytes are in the buffer. Send them, and call `transmit` again.
    Wrote(usize),
    /// A profile or a trace is being taken. Call `transmit` again at this time, and
    /// [`receive_end`](Connection::receive_end) if the client goes before.
    WaitUntil(Instant),
    /// More of a request is needed. Call [`receive`](Connection::receive) when there is some, then
    /// `transmit`; or `transmit` at this time.
    WantRead(Instant),
    /// Close the connection once everything is sent.
    Close,
}

/// The server's side of an HTTP/1.1 connection, without the connection.
///
/// The driver moves bytes between it and a stream: what came goes to [`receive`](Self::receive), and
/// [`transmit`](Self::transmit) says what to do next. Dropping it ends what it was doing: a CPU profile that
/// nobody waits for any more stops.
///
/// `HEAD` is the size of the buffer for request heads: 512 is enough for Go's tools and for curl, browsers
/// want 2,048. A longer head is answered with 431.
///
/// ```
/// # use core::fmt;
/// # use picoprof::{BuildId, Instant, LocationId, NoSymbols, StartError, Target, Thread};
/// # use picoprof::encode::Body;
/// # use picoprof::profile::Profiles;
/// # use picoprof::stack::StackTable;
/// use picoprof::http::{Connection, Transmit};
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
///
/// let mut connection = Connection::<_, 256>::new(&Firmware);
/// connection.receive(b"GET /debug/pprof/cmdline HTTP/1.0\r\n\r\n");
/// let mut out = [0; 512];
/// let Transmit::Wrote(n) = connection.transmit(Instant::from_millis(0), &mut out) else { panic!() };
/// assert!(out[..n].starts_with(b"HTTP/1.1 200 OK\r\n"));
/// assert!(out[..n].ends_with(b"\r\n\r\nfirmware"));
/// assert_eq!(connection.transmit(Instant::from_millis(1), &mut out), Transmit::Close);
/// ```
#[derive(Debug)]
pub struct Connection<'t, T: Target, const HEAD: usize> {
    target: &'t T,
    input: Vec<u8, HEAD>,
    state: State<'t, T>,
    /// The client will send no more.
    is_ended: bool,
    /// Another request may follow an answer.
    keeps_alive: bool,
}

impl<'t, T: Target, const HEAD: usize> Connection<'t, T, HEAD> {
    /// A connection whose client has not said anything yet.
    #[must_use]
    pub const fn new(target: &'t T) -> Self {
        Self {
            target,
            input: Vec::new(),
            // Not a constant's, which would lie in flash memory with room for all else, to be copied.
            state: State::Reading { limit: None },
            is_ended: false,
            keeps_alive: true,
        }
    }

    /// The same, ending with its first answer, which tells the client so (`Connection: close`).
    ///
    /// It's for a stream that one client has for itself until it lets go of it, such as a UART behind a socket: a client
    /// that keeps a connection for later would keep it from all others, and `go tool pprof` from itself.
    #[must_use]
    pub const fn without_keep_alive(mut self) -> Self {
        self.keeps_alive = false;
        self
    }

    /// Takes bytes that came, from the front; answers how many. What it didn't take, give it again after the
    /// next [`transmit`](Self::transmit). Call `transmit` after it.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        if matches!(self.state, State::Closed) {
            return bytes.len();
        }
        let taken = bytes.get(..self.room()).unwrap_or(bytes);
        // There is room, so it fits.
        let _ = self.input.extend_from_slice(taken);
        taken.len()
    }

    /// How many bytes [`receive`](Self::receive) would take now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.input.capacity() - self.input.len()
    }

    /// Says that the client will send no more. As in Go's server, a client that closes its side while a
    /// profile or a trace is being taken has gone: sampling stops. Any other response that has begun is still sent. Call
    /// `transmit` after it.
    pub fn receive_end(&mut self) {
        self.is_ended = true;
        let is_taken = match &self.state {
            State::Waiting { .. } => true,
            State::Sending(sending) => sending.is_recording(),
            _ => false,
        };
        if is_taken {
            // Sampling ends here and not when `transmit` is called.
            self.state = State::Closed;
        }
    }

    /// Writes the next bytes to the front of `out`, or says what it waits for.
    ///
    /// Call it with an `out` that is not empty, or it may do nothing (`Wrote(0)`): after `receive` or
    /// `receive_end`, after it wrote something,
    /// and at the time that it said. `now` never goes backwards. It does not block, but it may take the time
    /// that it takes to make a profile: [`Target::symbols`] is called in here.
    #[inline(never)]
    pub fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Transmit {
        loop {
            // A state stays where it is: it is large, and stacks may be small.
            let answer = match &self.state {
                State::Reading { limit } => self.read(now, *limit),
                // The client has gone, be it before the profile or the trace was begun.
                State::Waiting { .. } if self.is_ended => self.close(),
                State::Waiting { until, .. } if now < *until => Some(Transmit::WaitUntil(*until)),
                State::Waiting { .. } => self.finish(now),
                State::Sending(sending) if self.is_ended && sending.is_recording() => self.close(),
                State::Sending(_) if out.is_empty() => Some(Transmit::Wrote(0)),
                State::Sending(_) => self.send(now, out),
                State::Discarding {
                    remaining,
                    deadline,
                    keep_alive,
                } => self.discard(now, *remaining, *deadline, *keep_alive),
                State::Closed => Some(Transmit::Close),
            };
            if let Some(answer) = answer {
                return answer;
            }
        }
    }

    /// Whether it waits for the first byte of a request: nothing is lost if it is closed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Reading { .. }) && self.input.is_empty()
    }

    /// Whether a profile is being taken, or something is to be sent.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self.state, State::Waiting { .. } | State::Sending(_))
    }

    #[inline(never)]
    fn read(&mut self, now: Instant, limit: Option<(Instant, bool)>) -> Option<Transmit> {
        // RFC 9112 2.2: an empty line or two before a request is no offence.
        let first = self.input.iter().position(|b| !matches!(b, b'\r' | b'\n'));
        self.consume(first.unwrap_or(self.input.len()), 0..0);
        let exchange = self.exchange(now, Reply::LAST);
        let (status, text) = match Request::parse(&self.input) {
            Ok(Some(mut request)) => {
                request.keep_alive &= self.keeps_alive;
                let step = self
                    .exchange(now, Reply::to(&request))
                    .start(&request, &self.input);
                self.state = step.state;
                // Only the names of functions are asked for in what may be kept.
                let kept = if T::FUNCTION_NAMES { step.kept } else { 0..0 };
                self.consume(step.head, kept);
                return None;
            }
            Ok(None) if self.input.is_full() => {
                (Status::HEADER_FIELDS_TOO_LARGE, "request head too long\n")
            }
            Ok(None) if self.is_ended => return self.close(),
            Ok(None) => {
                let is_idle = self.input.is_empty();
                // The first byte of a head starts a time of its own.
                let deadline = match limit {
                    Some((deadline, was_idle)) if was_idle == is_idle => deadline,
                    _ if is_idle => now + IDLE_TIMEOUT,
                    _ => now + HEAD_TIMEOUT,
                };
                if now < deadline {
                    self.state = State::Reading {
                        limit: Some((deadline, is_idle)),
                    };
                    return Some(Transmit::WantRead(deadline));
                }
                if is_idle {
                    return self.close();
                }
                (
                    Status::REQUEST_TIMEOUT,
                    "request head not finished in time\n",
                )
            }
            Err(BadHead::TooManyHeaders) => {
                (Status::HEADER_FIELDS_TOO_LARGE, "too many header fields\n")
            }
            Err(BadHead::Version) => (Status::VERSION_NOT_SUPPORTED, "only HTTP/1.0 and 1.1\n"),
            Err(BadHead::Malformed) => (Status::BAD_REQUEST, "malformed request\n"),
        };
        self.input.clear();
        self.state = exchange.plain_error(status, text);
        None
    }

    /// The profile's time has come.
    #[inline(never)]
    fn finish(&mut self, now: Instant) -> Option<Transmit> {
        if let State::Waiting { job, reply, .. } =
            core::mem::replace(&mut self.state, State::Closed)
        {
            self.state = self.exchange(now, reply).finish(job);
        }
        None
    }

    #[inline(never)]
    fn send(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        let State::Sending(sending) = &mut self.state else {
            return None;
        };
        let taken = sending.feed(&self.input);
        consume(&mut self.input, taken, 0..0);
        match sending.fill(now, out) {
            Fill::Wrote(n) => Some(Transmit::Wrote(n)),
            Fill::WantsInput if taken > 0 || !self.input.is_empty() => None,
            Fill::WantsInput if self.is_ended => self.close(),
            Fill::WantsInput => match sending.wait_for_input(now, BODY_TIMEOUT) {
                Some(deadline) => Some(Transmit::WantRead(deadline)),
                None => self.close(),
            },
            Fill::WaitUntil(time) => Some(Transmit::WaitUntil(time)),
            // Where the connection ends, too: on a line that has no end, what is left would be the next request.
            Fill::Done => {
                self.state = State::Discarding {
                    remaining: sending.reply().discard,
                    deadline: None,
                    keep_alive: sending.reply().keep_alive,
                };
                None
            }
        }
    }

    fn discard(
        &mut self,
        now: Instant,
        remaining: u64,
        deadline: Option<Instant>,
        keep_alive: bool,
    ) -> Option<Transmit> {
        let taken = usize::try_from(remaining)
            .unwrap_or(usize::MAX)
            .min(self.input.len());
        self.consume(taken, 0..0);
        let remaining = remaining - taken as u64;
        if remaining == 0 {
            self.state = if keep_alive {
                State::Reading { limit: None }
            } else {
                State::Closed
            };
            return None;
        }
        let deadline = deadline
            .filter(|_| taken == 0)
            .unwrap_or(now + BODY_TIMEOUT);
        if self.is_ended || now >= deadline {
            return self.close();
        }
        self.state = State::Discarding {
            remaining,
            deadline: Some(deadline),
            keep_alive,
        };
        Some(Transmit::WantRead(deadline))
    }

    fn close(&mut self) -> Option<Transmit> {
        self.state = State::Closed;
        None
    }

    const fn exchange(&self, now: Instant, reply: Reply) -> Exchange<'t, T> {
        Exchange {
            target: self.target,
            now,
            reply,
        }
    }

    fn consume(&mut self, n: usize, kept: Range<usize>) {
        consume(&mut self.input, n, kept);
    }
}

/// Removes the first `n` bytes of the input but for a part of them.
fn consume<const HEAD: usize>(input: &mut Vec<u8, HEAD>, n: usize, kept: Range<usize>) {
    let len = input.len();
    let (n, kept_len) = (n.min(len), kept.len());
    if n == 0 || kept.end > n {
        return;
    }
    move_to(input, 0, kept);
    move_to(input, kept_len, n..len);
    input.truncate(len - n + kept_len);
}

/// Moves bytes forward to a place. By swaps, as the compiler makes one `memmove` of what copies, and firmware has
/// no other use for its 1.6 KiB.
fn move_to(bytes: &mut [u8], place: usize, range: Range<usize>) {
    for (to, from) in (place..).zip(range) {
        bytes.swap(to, from);
    }
}
