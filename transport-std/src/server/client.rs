//! One connection: a socket that is never waited for, and the state machine that it feeds.

#![forbid(unsafe_code)]

use core::time::Duration;
use std::io::{self, Read, Write};

use picoprof::Instant;
use picoprof::http::Connection;
use picoprof::transport::{self, Received, Transport, Wait};

use super::listener::Stream;
use crate::host::Host;
use crate::sys::Interest;

/// The longest request head: browsers send up to some kilobytes of cookies.
const MAX_HEAD: usize = 8 * 1024;
/// Bytes that are read at once.
const RECEIVE_BUFFER: usize = 4 * 1024;
/// Bytes that are made and written at once.
const TRANSMIT_BUFFER: usize = 32 * 1024;
/// How often a client may be sent to, and be answered, before others have their turn: one that sends for ever must not
/// have the thread for itself.
const TURNS: u32 = 32;
/// How long a client may not take what is sent.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection that is being closed still throws away what comes. Closing with bytes unread would
/// reset it, and the client might lose the answer (RFC 9112 9.6).
const LINGER: Duration = Duration::from_secs(1);

/// A client of the server.
pub(super) struct Client<'h> {
    socket: Socket,
    connection: Box<Connection<'h, Host, MAX_HEAD>>,
    phase: Phase,
    last_active: Instant,
    /// Something came since it was served last.
    is_ready: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For bytes of the client, or until a time.
    Receiving(Instant),
    /// For room to send, until a time.
    Transmitting(Instant),
    /// For the client to close its side too, until a time.
    Lingering(Instant),
    Closed,
}

impl<'h> Client<'h> {
    pub(super) fn new(stream: Stream, host: &'h Host, now: Instant) -> Self {
        Self {
            socket: Socket::new(stream),
            connection: Box::new(Connection::new(host)),
            phase: Phase::Receiving(now),
            last_active: now,
            is_ready: true,
        }
    }

    /// Does what can be done now.
    pub(super) fn serve(&mut self, now: Instant) {
        let is_due = self.deadline().is_some_and(|deadline| deadline <= now);
        if !self.is_ready && !is_due {
            return;
        }
        let has_room_again = self.is_ready;
        if self.is_ready {
            self.last_active = now;
        }
        self.is_ready = false;
        self.phase = match self.phase {
            Phase::Transmitting(_) if !has_room_again => Phase::Closed,
            Phase::Receiving(_) | Phase::Transmitting(_) => self.poll(now),
            Phase::Lingering(deadline) if now < deadline && self.socket.discard() => {
                Phase::Lingering(deadline)
            }
            Phase::Lingering(_) | Phase::Closed => Phase::Closed,
        };
    }

    /// Lets go of it as it is.
    pub(super) fn give_up(&mut self) {
        self.phase = Phase::Closed;
    }

    fn poll(&mut self, now: Instant) -> Phase {
        let sent_before = self.socket.sent_in_all;
        self.socket.turns = TURNS;
        match transport::poll(&mut self.connection, &mut self.socket, now) {
            Ok(Wait::Receive(time)) => Phase::Receiving(time),
            Ok(Wait::Transmit) => match self.phase {
                Phase::Transmitting(deadline) if self.socket.sent_in_all == sent_before => {
                    Phase::Transmitting(deadline)
                }
                _ => Phase::Transmitting(now + STALL_TIMEOUT),
            },
            Ok(Wait::Closed) if self.socket.discard() => Phase::Lingering(now + LINGER),
            Ok(Wait::Closed) | Err(_) => Phase::Closed,
        }
    }

    /// What to wait for at the socket.
    pub(super) fn interest(&self) -> Interest<'_> {
        Interest {
            fd: self.socket.stream.as_fd(),
            events: match self.phase {
                // Not that the client will send no more: it would be told so again and again.
                Phase::Transmitting(_) => libc::POLLOUT,
                // With its buffer full of requests to come, it must not be woken for more of them.
                Phase::Receiving(_) if self.connection.room() == 0 => libc::POLLRDHUP,
                _ => libc::POLLIN,
            },
        }
    }

    /// Notes what came at the socket.
    pub(super) fn note(&mut self, events: i16) {
        if events & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
            && self.connection.room() == 0
        {
            // It can't be read to its end, but the end is in sight.
            self.connection.receive_end();
        }
        self.is_ready |= events != 0;
    }

    /// When to serve it even if nothing comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Receiving(time) | Phase::Transmitting(time) | Phase::Lingering(time) => {
                Some(time)
            }
            Phase::Closed => None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    pub(super) fn is_idle(&self) -> bool {
        self.connection.is_idle() || matches!(self.phase, Phase::Lingering(_))
    }

    pub(super) fn last_active(&self) -> Instant {
        self.last_active
    }
}

/// Tells a client that there are too many.
pub(super) fn refuse(mut stream: Stream) {
    // If it does not fit into the socket's buffer now, the closed connection says enough.
    let _ = stream.write(
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
          Content-Length: 21\r\nConnection: close\r\n\r\ntoo many connections\n",
    );
}

/// A socket with what came and is not consumed, and what is made and not sent. Idle, it has neither.
struct Socket {
    stream: Stream,
    received: Vec<u8>,
    is_ended: bool,
    to_send: Vec<u8>,
    sent: usize,
    sent_in_all: u64,
    /// How often it may still be written to before others have their turn.
    turns: u32,
}

impl Socket {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            is_ended: false,
            to_send: Vec::new(),
            sent: 0,
            sent_in_all: 0,
            turns: 0,
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; RECEIVE_BUFFER];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.is_ended = true,
            Ok(n) => self
                .received
                .extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Sends what is made; false if not all of it went.
    fn flush(&mut self) -> io::Result<bool> {
        while let Some(rest) = self
            .to_send
            .get(self.sent..)
            .filter(|rest| !rest.is_empty())
        {
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.sent += n;
                    self.sent_in_all += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        self.to_send.clear();
        Ok(true)
    }

    /// Throws away what came; false if there will come no more.
    fn discard(&mut self) -> bool {
        let mut buffer = [0; RECEIVE_BUFFER];
        // As much as a request may have for its body, and then it's enough.
        for _ in 0..64 {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return is_passing(&error),
            }
        }
        false
    }
}

impl Transport for Socket {
    type Error = io::Error;

    fn receive(&mut self, consume: impl FnOnce(&[u8]) -> usize) -> io::Result<Received> {
        if self.received.is_empty() && !self.is_ended {
            self.read()?;
        }
        if !self.received.is_empty() {
            let consumed = consume(&self.received);
            self.received.drain(..consumed);
            if self.received.is_empty() {
                self.received = Vec::new();
            }
        }
        let is_ended = self.is_ended && self.received.is_empty();
        Ok(if is_ended {
            Received::Ended
        } else {
            Received::Open
        })
    }

    fn transmit(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> io::Result<bool> {
        if !self.flush()? || self.turns == 0 {
            return Ok(false);
        }
        self.turns -= 1;
        self.to_send.resize(TRANSMIT_BUFFER, 0);
        let written = write(&mut self.to_send);
        self.to_send.truncate(written);
        if self.flush()? && written == 0 {
            self.to_send = Vec::new();
        }
        Ok(true)
    }

    fn close(&mut self) {
        // The client may be gone already.
        let _ = self.stream.shutdown_write();
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
