//! One socket of the pool: it listens, serves whoever connects, and listens again.

use core::time::Duration;

use picoprof::http::Connection;
use picoprof::transport::{self, Wait};
use picoprof::{Instant, Target};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time;
use smoltcp::wire::IpListenEndpoint;

use crate::server::Counters;
use crate::stream::{Reset, Stream};

/// How long a client may not take what is sent.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection whose answers have arrived still throws away what comes. Closing it with bytes unread would
/// reset it, and the client might lose the answer (RFC 9112 9.6).
const LINGER: Duration = Duration::from_secs(1);
/// How long a client may do nothing, or be connecting, before it has to make room for others: one that asks again and again
/// keeps its connection. A lost SYN|ACK is sent again after a second.
const GRACE: Duration = Duration::from_secs(2);
/// A SYN that was not answered comes again after a second; not before this.
const SYN_AGAIN: Duration = Duration::from_millis(500);
/// How long to wait for a reset to be sent. It is not where the client's hardware address can't be found.
const RESET_TIMEOUT: Duration = Duration::from_secs(1);
/// When a silent client is asked whether it is still there, and when it is taken for gone: one that vanishes while a
/// profile is taken says nothing.
const KEEP_ALIVE: time::Duration = time::Duration::from_secs(10);
const VANISHED: time::Duration = time::Duration::from_secs(60);

/// A socket, and what it is used for.
#[derive(Debug)]
pub(crate) struct Client<'t, T: Target, const HEAD: usize> {
    pub(crate) handle: SocketHandle,
    phase: Phase<'t, T, HEAD>,
    /// Bytes that were sent and not acknowledged when it was polled last.
    queued: usize,
    /// When a client that takes nothing of them is given up.
    stalls: Instant,
}

#[allow(
    clippy::large_enum_variant,
    reason = "there is no heap to put the large one in"
)]
#[derive(Debug)]
enum Phase<'t, T: Target, const HEAD: usize> {
    /// Nobody's: listening, or somebody is connecting, since a moment.
    Free { connecting: Option<Instant> },
    /// Somebody's.
    Serving(Session<'t, T, HEAD>),
    /// Everything is said; the client has not acknowledged it. It may be saying something itself.
    Closing { is_talking: bool },
    /// It has, and may say what it has to say until a time.
    Lingering { until: Instant, is_talking: bool },
    /// It was idle and had to make room: nothing of it is on its way. It is told, until a time.
    Dismissed { until: Instant },
    /// A reset is to be sent, and is forgotten at a time.
    Resetting { until: Instant },
}

impl<T: Target, const HEAD: usize> Phase<'_, T, HEAD> {
    const FREE: Self = Self::Free { connecting: None };
}

#[derive(Debug)]
struct Session<'t, T: Target, const HEAD: usize> {
    connection: Connection<'t, T, HEAD>,
    wait: Wait,
    /// When it had something to do last.
    last_active: Instant,
}

impl<T: Target, const HEAD: usize> Client<'_, T, HEAD> {
    pub(crate) const fn new(handle: SocketHandle) -> Self {
        Self {
            handle,
            phase: Phase::FREE,
            queued: 0,
            stalls: Instant::from_nanos(0),
        }
    }
}

impl<'t, T: Target, const HEAD: usize> Client<'t, T, HEAD> {
    /// Does what can be done now.
    pub(crate) fn poll(
        &mut self,
        target: &'t T,
        socket: &mut Socket<'_>,
        now: Instant,
        counters: &mut Counters,
    ) {
        if socket.send_queue() < self.queued {
            self.stalls = now + STALL_TIMEOUT;
        } else if self.may_stall() && now >= self.stalls {
            counters.stalled = counters.stalled.saturating_add(1);
            #[cfg(feature = "defmt")]
            defmt::warn!("picoprof: gave up a client that takes nothing");
            self.reset(socket, now);
        }
        if let Phase::Free { connecting } = &mut self.phase {
            match socket.state() {
                State::SynReceived => *connecting = connecting.or(Some(now)),
                State::Established | State::CloseWait => {
                    counters.accepted = counters.accepted.saturating_add(1);
                    self.phase = Phase::Serving(Session::new(target, now));
                }
                // Who began to connect took it back. smoltcp listens again then, and takes the time until the next client
                // comes for a round trip: its segments would be sent again after a minute. So the socket begins anew.
                State::Listen if connecting.is_some() => self.forget(socket),
                _ => *connecting = None,
            }
        }
        match &mut self.phase {
            Phase::Serving(session) => match session.serve(socket, now) {
                Ok(Wait::Closed) => {
                    self.stalls = now + STALL_TIMEOUT;
                    let is_talking = socket.can_recv();
                    self.phase = Phase::Closing { is_talking };
                }
                Ok(_) => {}
                Err(Reset) => {
                    counters.reset = counters.reset.saturating_add(1);
                    self.phase = Phase::Resetting {
                        until: now + RESET_TIMEOUT,
                    };
                }
            },
            Phase::Closing { is_talking } => {
                *is_talking |= discard(socket);
                match socket.state() {
                    State::FinWait2 => {
                        self.phase = Phase::Lingering {
                            until: now + LINGER,
                            is_talking: *is_talking,
                        };
                    }
                    // In TIME-WAIT both sides have said all.
                    State::TimeWait | State::Closed => self.phase = Phase::FREE,
                    _ => {}
                }
            }
            Phase::Lingering { until, is_talking } => {
                *is_talking |= discard(socket);
                // At the end it knows that nothing more comes, and may still be reading: a reset could cost it that.
                let is_over = matches!(socket.state(), State::TimeWait | State::Closed);
                if now >= *until || is_over {
                    self.phase = Phase::FREE;
                }
            }
            Phase::Dismissed { until } => match socket.state() {
                State::FinWait1 | State::Closing | State::LastAck if now < *until => {}
                State::FinWait1 | State::Closing | State::LastAck => self.reset(socket, now),
                _ => self.phase = Phase::FREE,
            },
            Phase::Free { .. } | Phase::Resetting { .. } => {}
        }
        // The remote endpoint is known for as long as there is a reset to be sent.
        if let Phase::Resetting { until } = self.phase
            && (now >= until || socket.remote_endpoint().is_none())
        {
            self.phase = Phase::FREE;
        }
        if self.queued == 0 {
            self.stalls = now + STALL_TIMEOUT;
        }
        self.queued = socket.send_queue();
    }

    /// When to poll it even if nothing comes.
    pub(crate) fn poll_at(&self, now: Instant) -> Option<Instant> {
        let stalls = self.may_stall().then_some(self.stalls);
        let other = match &self.phase {
            Phase::Serving(session) => match session.wait {
                Wait::Receive(time) => Some(time),
                Wait::Transmit | Wait::Closed => None,
            },
            Phase::Lingering { until, .. }
            | Phase::Dismissed { until }
            | Phase::Resetting { until } => Some(*until),
            Phase::Free { connecting } => {
                let again = connecting.map(|since| since + SYN_AGAIN);
                again.filter(|again| now < *again)
            }
            Phase::Closing { .. } => None,
        };
        stalls.into_iter().chain(other).min()
    }

    /// Whether it is about to listen again without anybody's doing.
    pub(crate) const fn is_leaving(&self) -> bool {
        matches!(
            self.phase,
            Phase::Lingering { .. } | Phase::Dismissed { .. } | Phase::Resetting { .. }
        )
    }

    /// Whether both sides have said all, as far as can be seen. What it waits for is that nothing gets lost or comes late.
    pub(crate) fn is_over(&self, socket: &Socket<'_>) -> bool {
        let is_quiet = matches!(
            self.phase,
            Phase::Lingering {
                is_talking: false,
                ..
            }
        );
        is_quiet || socket.state() == State::TimeWait
    }

    /// From when on it may have to make room for others, if it does nothing that they should wait for.
    pub(crate) fn makes_room_at(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Free { connecting } => connecting.map(|since| since + GRACE),
            // Its last answer has arrived.
            Phase::Serving(session) if session.connection.is_idle() && self.queued == 0 => {
                Some(session.last_active + GRACE)
            }
            _ => None,
        }
    }

    /// Whether nobody has connected, but somebody has begun to.
    pub(crate) const fn is_connecting(&self) -> bool {
        matches!(
            self.phase,
            Phase::Free {
                connecting: Some(_)
            }
        )
    }

    /// Whether the SYN of who is connecting may come again.
    pub(crate) fn awaits_syn_again(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Free { connecting } => connecting.is_some_and(|since| now >= since + SYN_AGAIN),
            _ => false,
        }
    }

    /// Whether it could listen, and does not.
    pub(crate) fn is_free(&self, socket: &Socket<'_>) -> bool {
        let is_taken = matches!(socket.state(), State::Listen | State::SynReceived);
        matches!(self.phase, Phase::Free { .. }) && !is_taken
    }

    /// Asks a client to go, or forgets one that has not connected yet.
    pub(crate) fn make_room(&mut self, socket: &mut Socket<'_>, now: Instant) {
        if matches!(self.phase, Phase::Serving(_)) {
            socket.close();
            self.phase = Phase::Dismissed {
                until: now + LINGER,
            };
        } else {
            self.forget(socket);
        }
    }

    /// Is free, and says nothing to whoever is connected: it may not be who it says that it is.
    pub(crate) fn forget(&mut self, socket: &mut Socket<'_>) {
        socket.abort();
        self.phase = Phase::FREE;
        self.queued = 0;
    }

    /// Listens, if it is free.
    pub(crate) fn listen(&mut self, endpoint: IpListenEndpoint, socket: &mut Socket<'_>) {
        if self.is_free(socket) {
            socket.set_nagle_enabled(false);
            socket.set_keep_alive(Some(KEEP_ALIVE));
            socket.set_timeout(Some(VANISHED));
            // What the caller, or a client that is forgotten, may have left open.
            socket.abort();
            // The socket is closed, and the port was checked.
            let _ = socket.listen(endpoint);
        }
    }

    /// Does not listen for now.
    pub(crate) fn pause(&mut self, socket: &mut Socket<'_>) {
        if socket.is_listening() {
            socket.close();
        }
    }

    fn reset(&mut self, socket: &mut Socket<'_>, now: Instant) {
        socket.abort();
        self.phase = Phase::Resetting {
            until: now + RESET_TIMEOUT,
        };
    }

    const fn may_stall(&self) -> bool {
        match self.phase {
            Phase::Serving(_) => self.queued > 0,
            Phase::Closing { .. } => true,
            _ => false,
        }
    }
}

impl<'t, T: Target, const HEAD: usize> Session<'t, T, HEAD> {
    const fn new(target: &'t T, now: Instant) -> Self {
        Self {
            connection: Connection::new(target),
            wait: Wait::Receive(now),
            last_active: now,
        }
    }

    /// Does what can be done now, if what it waits for has come.
    fn serve(&mut self, socket: &mut Socket<'_>, now: Instant) -> Result<Wait, Reset> {
        if !self.is_ready(socket, now) {
            return Ok(self.wait);
        }
        self.last_active = now;
        self.wait = transport::poll(&mut self.connection, &mut Stream(socket), now)?;
        if matches!(self.wait, Wait::Receive(_)) && self.is_ended_unread(socket) {
            // It can't be read to its end, but the end is in sight.
            self.connection.receive_end();
            self.wait = transport::poll(&mut self.connection, &mut Stream(socket), now)?;
        }
        Ok(self.wait)
    }

    /// Whether what it waits for has come.
    fn is_ready(&self, socket: &Socket<'_>, now: Instant) -> bool {
        match self.wait {
            Wait::Closed => false,
            Wait::Transmit => socket.can_send() || !socket.may_send(),
            Wait::Receive(time) => {
                let is_received = socket.can_recv() && self.connection.room() > 0;
                now >= time || is_received || socket.state() != State::Established
            }
        }
    }

    /// Whether the client will send no more, and what it sent last finds no room.
    fn is_ended_unread(&self, socket: &Socket<'_>) -> bool {
        socket.state() == State::CloseWait && self.connection.room() == 0
    }
}

/// Throws away what came; answers whether something did.
fn discard(socket: &mut Socket<'_>) -> bool {
    let has_come = socket.can_recv();
    while socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {}
    has_come
}
