//! The server: a pool of sockets, each of which serves one client at a time.

use picoprof::{Instant, Target};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time;
use smoltcp::wire::IpListenEndpoint;

use crate::client::Client;
use crate::time::{from_smoltcp, to_smoltcp};

/// A server of `/debug/pprof/` on sockets that the caller made, as many as may be connected at once.
///
/// Call [`poll`](Self::poll) after each poll of the interface, and both again at the earlier of the two times that
/// [`poll_at`](Self::poll_at) and the interface's own `poll_at` say, or when the device has something. See
/// the [crate's documentation](crate) for a whole program.
///
/// `CLIENTS` is the number of sockets, and `HEAD` the size of the buffer for request heads, as
/// [`Connection`](picoprof::http::Connection) has it: 512 is enough for Go's tools and for curl, browsers want
/// 2,048.
///
/// smoltcp has no queue of clients to come: who connects while no socket listens is refused. So the server
/// sees to it that one does. When all are taken, the client that has been idle for longest is asked to go, once that's two
/// seconds; so is who says nothing after connecting, or does not go on with it. Clients that are being served are left
/// alone. Four sockets serve four clients at once, who may come and go if the server is polled after each frame. With a
/// single socket, clients are served one after another.
#[derive(Debug)]
pub struct Server<'t, T: Target, const CLIENTS: usize, const HEAD: usize> {
    target: &'t T,
    endpoint: IpListenEndpoint,
    clients: [Client<'t, T, HEAD>; CLIENTS],
    counters: Counters,
    /// When it was polled last.
    polled: Instant,
    /// No socket listens.
    is_full: bool,
    /// When a client may be asked to make room.
    makes_room_at: Option<Instant>,
}

/// What became of clients; each count stays at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Counters {
    /// Connections that were established.
    pub accepted: u32,
    /// Idle clients that made room for others.
    pub made_room: u32,
    /// Who began to connect, did not go on with it, and made room for others.
    pub half_open: u32,
    /// Clients that took nothing for 30 seconds.
    pub stalled: u32,
    /// Connections that the client reset while it was served, or that smoltcp gave up because it vanished.
    pub reset: u32,
    /// How often it came to pass that no socket listened: the interface refuses clients then, and tells nobody
    /// how many.
    pub full: u32,
}

impl<'t, T: Target, const CLIENTS: usize, const HEAD: usize> Server<'t, T, CLIENTS, HEAD> {
    /// A server on these sockets, which listen from the first [`poll`](Self::poll) on. The endpoint is a port, or an
    /// address and a port.
    ///
    /// The sockets are closed ones, and the server's from then on. Their buffers may have any size; a transmit
    /// buffer of 64 bytes works, one that holds several segments is faster.
    ///
    /// # Panics
    ///
    /// If the port is 0. It does not compile without sockets.
    // Not inlined, so that what it takes of the stack is free afterwards.
    #[must_use]
    #[inline(never)]
    pub fn new(
        target: &'t T,
        endpoint: impl Into<IpListenEndpoint>,
        sockets: [SocketHandle; CLIENTS],
    ) -> Self {
        const { assert!(CLIENTS > 0, "a server wants sockets") };
        let endpoint = endpoint.into();
        assert!(endpoint.port != 0, "a server wants a port");
        Self {
            target,
            endpoint,
            clients: sockets.map(Client::new),
            counters: Counters::default(),
            polled: Instant::from_nanos(0),
            is_full: false,
            makes_room_at: None,
        }
    }

    /// Does what can be done now, for each client: takes what came, and makes what there is room for. True if the
    /// interface has something to do then, such as to send that: poll it again.
    ///
    /// It never blocks. No more is made than the transmit buffers hold, so a client has its turn whatever others ask for.
    ///
    /// # Panics
    ///
    /// If one of the sockets isn't there, or is not a TCP socket, as `SocketSet::get_mut`.
    pub fn poll(&mut self, now: time::Instant, sockets: &mut SocketSet<'_>) -> bool {
        let now = from_smoltcp(now);
        let mut has_changed = false;
        for client in &mut self.clients {
            let socket = sockets.get_mut(client.handle);
            let before = look(socket);
            client.poll(self.target, socket, now, &mut self.counters);
            has_changed |= look(socket) != before;
        }
        self.polled = now;
        self.forget_doubles(sockets);
        self.makes_room_at = None;
        let was_full = self.is_full;
        self.is_full = !self.listen(now, sockets);
        if self.is_full {
            if !was_full {
                self.counters.full = self.counters.full.saturating_add(1);
            }
            if self.make_room(now, sockets) {
                has_changed = true;
                self.is_full = !self.listen(now, sockets);
            }
        }
        has_changed
    }

    /// When to poll next, if nothing comes before; `None` if there's nothing to wait for but clients. It says
    /// nothing of what the sockets wait for: that's the interface's `poll_at`.
    #[must_use]
    pub fn poll_at(&self) -> Option<time::Instant> {
        let times = self.clients.iter();
        let times = times.filter_map(|client| client.poll_at(self.polled));
        times.chain(self.makes_room_at).min().map(to_smoltcp)
    }

    /// What became of clients so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Lets sockets listen that can; answers whether one does.
    ///
    /// A SYN comes again if its answer is lost. Of the sockets that would take it smoltcp asks the first in its set: that
    /// must be the one that took it before, or the client is told that it is not connected. So none listens then that is
    /// before that one.
    fn listen(&mut self, now: Instant, sockets: &mut SocketSet<'_>) -> bool {
        let awaiting = self
            .clients
            .iter()
            .filter(|client| client.awaits_syn_again(now));
        let last = awaiting.map(|client| client.handle).max();
        let mut is_listening = false;
        for client in &mut self.clients {
            let socket = sockets.get_mut::<Socket<'_>>(client.handle);
            if last.is_none_or(|last| client.handle > last) {
                client.listen(self.endpoint, socket);
            } else {
                client.pause(socket);
            }
            is_listening |= socket.is_listening();
        }
        is_listening
    }

    /// If a second socket took a SYN when the first had its client already, the second
    /// must not get what else comes from that client.
    fn forget_doubles(&mut self, sockets: &mut SocketSet<'_>) {
        for client in &mut self.clients {
            let socket = sockets.get::<Socket<'_>>(client.handle);
            let ends = (socket.local_endpoint(), socket.remote_endpoint());
            let is_double = socket.state() == State::SynReceived
                && sockets.iter().any(|(_, other)| match other {
                    smoltcp::socket::Socket::Tcp(other) => {
                        other.state() == State::Established
                            && (other.local_endpoint(), other.remote_endpoint()) == ends
                    }
                    #[allow(unreachable_patterns, reason = "the caller's features add others")]
                    _ => false,
                });
            if is_double {
                client.forget(sockets.get_mut(client.handle));
            }
        }
    }

    /// Lets somebody go if there is somebody who can, so that a socket can listen; answers whether it did.
    fn make_room(&mut self, now: Instant, sockets: &mut SocketSet<'_>) -> bool {
        let is_over =
            |client: &&mut Client<'t, T, HEAD>| client.is_over(sockets.get(client.handle));
        if let Some(client) = self.clients.iter_mut().find(is_over) {
            client.forget(sockets.get_mut(client.handle));
            return true;
        }
        if self.clients.iter().any(Client::is_leaving) {
            return false;
        }
        // One that is free waits for who is connecting, and for nobody else.
        let is_free = |client: &Client<'t, T, HEAD>| client.is_free(sockets.get(client.handle));
        let has_free = self.clients.iter().any(is_free);
        let candidates = self.clients.iter_mut();
        let dated = candidates
            .filter(|client| !has_free || client.is_connecting())
            .filter_map(|client| client.makes_room_at().map(|time| (time, client)));
        let Some((time, client)) = dated.min_by_key(|(time, _)| *time) else {
            return false;
        };
        if now < time {
            self.makes_room_at = Some(time);
            return false;
        }
        let count = if client.is_connecting() {
            &mut self.counters.half_open
        } else {
            &mut self.counters.made_room
        };
        *count = count.saturating_add(1);
        client.make_room(sockets.get_mut(client.handle), now);
        true
    }
}

/// All of a socket that a poll may change.
fn look(socket: &Socket<'_>) -> (State, usize, usize) {
    (socket.state(), socket.send_queue(), socket.recv_queue())
}
