//! Two machines and the link between them: a server under test, and its clients.
//!
//! Each is polled when it says so, or when something arrives, and at no other time: who forgets to say when it wants to
//! be polled stands still, and the test fails.

use core::cell::RefCell;
use core::fmt;
use std::rc::Rc;

use picoprof_smoltcp::Server;
use picoprof_tests::http::{Response, parse_answers};
use picoprof_tests::model::Model;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Medium};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpProtocol, Ipv4Address, Ipv4Packet,
    Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use crate::network::{End, Faults, Link};

pub(crate) const PORT: u16 = 80;

/// Bytes of a socket's buffers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) received: usize,
    pub(crate) to_send: usize,
}

impl Sizes {
    pub(crate) const ROOMY: Self = Self {
        received: 4096,
        to_send: 4096,
    };

    fn socket(self) -> Socket<'static> {
        let received = SocketBuffer::new(vec![0; self.received]);
        Socket::new(received, SocketBuffer::new(vec![0; self.to_send]))
    }
}

pub(crate) struct World<'m, const CLIENTS: usize, const HEAD: usize> {
    pub(crate) now: Instant,
    pub(crate) link: Rc<RefCell<Link>>,
    pub(crate) server: Server<'m, Model, CLIENTS, HEAD>,
    pub(crate) here: Machine,
    there: Machine,
    peers: Vec<Peer>,
    /// Sockets of connections that have ended; those in TIME-WAIT go too.
    forgotten: Vec<SocketHandle>,
    next_port: u16,
    /// Polls of the server.
    pub(crate) polls: u64,
}

impl<const CLIENTS: usize, const HEAD: usize> fmt::Debug for World<'_, CLIENTS, HEAD> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: ", self.now)?;
        let sockets = |machine: &Machine| -> Vec<String> {
            let sockets = machine.sockets.iter();
            let sockets = sockets.map(|(_, socket)| match socket {
                smoltcp::socket::Socket::Tcp(socket) => format!(
                    "{} {:?} to send {} received {}",
                    socket.state(),
                    socket.remote_endpoint(),
                    socket.send_queue(),
                    socket.recv_queue()
                ),
                #[allow(
                    unreachable_patterns,
                    reason = "with other features there are other sockets"
                )]
                _ => String::new(),
            });
            sockets.collect()
        };
        f.debug_list()
            .entries(sockets(&self.here))
            .entry(&"clients")
            .entries(sockets(&self.there))
            .entries(
                self.peers
                    .iter()
                    .map(|peer| (peer.outbox.len(), peer.inbox.len(), peer.end)),
            )
            .entry(&self.server.counters())
            .finish()
    }
}

/// An interface, and its sockets.
pub(crate) struct Machine {
    device: End,
    pub(crate) iface: Interface,
    pub(crate) sockets: SocketSet<'static>,
}

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerId(usize);

struct Peer {
    handle: SocketHandle,
    outbox: Vec<u8>,
    inbox: Vec<u8>,
    /// It takes what it is sent.
    reads: bool,
    /// It closes its side when all is sent.
    finishes: bool,
    /// It keeps its side open when the server has closed the other.
    stays: bool,
    end: Option<Outcome>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server closed it.
    Closed,
    /// It was reset, or refused.
    Reset,
}

impl Machine {
    fn new(number: u8, mut device: End, medium: Medium) -> Self {
        let mut config = Config::new(match medium {
            Medium::Ethernet => EthernetAddress([2, 0, 0, 0, 0, number]).into(),
            _ => HardwareAddress::Ip,
        });
        config.random_seed = u64::from(number);
        let mut iface = Interface::new(config, &mut device, Instant::ZERO);
        iface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(address(number), 24))
                .expect("there's room");
        });
        Self {
            device,
            iface,
            sockets: SocketSet::new(Vec::new()),
        }
    }

    fn poll(&mut self, now: Instant) {
        self.iface.poll(now, &mut self.device, &mut self.sockets);
    }
}

fn address(number: u8) -> IpAddress {
    IpAddress::v4(10, 0, 2, number)
}

impl<'m, const CLIENTS: usize, const HEAD: usize> World<'m, CLIENTS, HEAD> {
    pub(crate) fn new(model: &'m Model, faults: Faults, sizes: Sizes) -> Self {
        let (link, [here, there]) = Link::new(faults);
        let mut here = Machine::new(15, here, faults.medium);
        let there = Machine::new(2, there, faults.medium);
        let handles = [(); CLIENTS].map(|()| here.sockets.add(sizes.socket()));
        let mut world = Self {
            now: Instant::ZERO,
            link,
            server: Server::new(model, PORT, handles),
            here,
            there,
            peers: Vec::new(),
            forgotten: Vec::new(),
            next_port: 49152,
            polls: 0,
        };
        world.server.poll(world.now, &mut world.here.sockets);
        world
    }

    /// A client connects.
    pub(crate) fn connect(&mut self, sizes: Sizes) -> PeerId {
        self.next_port = self.next_port.checked_add(1).unwrap_or(49152);
        self.connect_from(self.next_port, sizes)
    }

    pub(crate) fn connect_from(&mut self, port: u16, sizes: Sizes) -> PeerId {
        let mut socket = sizes.socket();
        // Else a tiny buffer waits for an acknowledgement after each piece.
        socket.set_nagle_enabled(false);
        // As a client's system does; here sooner.
        socket.set_keep_alive(Some(Duration::from_secs(60)));
        socket.set_timeout(Some(Duration::from_secs(120)));
        let remote = (address(15), PORT);
        socket
            .connect(self.there.iface.context(), remote, port)
            .expect("it can");
        self.peers.push(Peer {
            handle: self.there.sockets.add(socket),
            outbox: Vec::new(),
            inbox: Vec::new(),
            reads: true,
            finishes: false,
            stays: false,
            end: None,
        });
        PeerId(self.peers.len() - 1)
    }

    /// A client that asks, when it can.
    pub(crate) fn ask(&mut self, sizes: Sizes, bytes: &[u8]) -> PeerId {
        let peer = self.connect(sizes);
        self.send(peer, bytes);
        peer
    }

    pub(crate) fn send(&mut self, peer: PeerId, bytes: &[u8]) {
        self.peers[peer.0].outbox.extend_from_slice(bytes);
        self.act();
    }

    /// Closes the client's side once all is sent.
    pub(crate) fn finish(&mut self, peer: PeerId) {
        self.peers[peer.0].finishes = true;
        self.act();
    }

    pub(crate) fn set_reads(&mut self, peer: PeerId, reads: bool) {
        self.peers[peer.0].reads = reads;
        self.act();
    }

    /// Keeps the client's side open when the server closes the other.
    pub(crate) fn stay(&mut self, peer: PeerId) {
        self.peers[peer.0].stays = true;
    }

    /// Bytes that could not be sent yet.
    pub(crate) fn unsent(&self, peer: PeerId) -> usize {
        self.peers[peer.0].outbox.len()
    }

    pub(crate) fn reset(&mut self, peer: PeerId) {
        self.socket(peer).abort();
    }

    pub(crate) fn received(&self, peer: PeerId) -> &[u8] {
        &self.peers[peer.0].inbox
    }

    /// All that was answered; the methods are those of the requests.
    #[track_caller]
    pub(crate) fn answers(&self, peer: PeerId, methods: &[&str]) -> Vec<Response> {
        parse_answers(self.received(peer), methods).expect("HTTP")
    }

    /// How many requests are answered, if the last answer is whole.
    pub(crate) fn answered(&self, peer: PeerId) -> usize {
        parse_answers(self.received(peer), &[]).map_or(0, |answers| answers.len())
    }

    /// Runs until so many requests are answered.
    #[track_caller]
    pub(crate) fn run_until_answered(&mut self, peer: PeerId, requests: usize) {
        self.run_until(|world| world.answered(peer) == requests);
    }

    pub(crate) fn end(&self, peer: PeerId) -> Option<Outcome> {
        self.peers[peer.0].end
    }

    /// Lets go of connections that have ended; all have.
    pub(crate) fn forget_ended(&mut self) {
        assert!(self.peers.iter().all(|peer| peer.end.is_some()), "{self:?}");
        let handles = self.peers.drain(..).map(|peer| peer.handle);
        self.forgotten.extend(handles);
    }

    /// Somebody begins to connect from an address and port; if it isn't the client machine's, it can't go on.
    pub(crate) fn forge_syn(&mut self, from: u8, port: u16) {
        let tcp = TcpRepr {
            src_port: port,
            dst_port: PORT,
            control: TcpControl::Syn,
            seq_number: TcpSeqNumber(1),
            ack_number: None,
            window_len: 1000,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let (source, target) = (
            Ipv4Address::new(10, 0, 2, from),
            Ipv4Address::new(10, 0, 2, 15),
        );
        let ip = Ipv4Repr {
            src_addr: source,
            dst_addr: target,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let checksums = ChecksumCapabilities::default();
        let mut bytes = vec![0; ip.buffer_len() + tcp.buffer_len()];
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &checksums);
        let mut packet = TcpPacket::new_unchecked(&mut bytes[ip.buffer_len()..]);
        tcp.emit(&mut packet, &source.into(), &target.into(), &checksums);
        self.link.borrow_mut().forge(0, self.now, bytes);
    }

    /// How many sockets of the server listen.
    pub(crate) fn listening(&self) -> usize {
        let sockets = self.here.sockets.iter();
        let sockets = sockets.filter_map(|(_, socket)| match socket {
            smoltcp::socket::Socket::Tcp(socket) => Some(socket),
            #[allow(unreachable_patterns)]
            _ => None,
        });
        sockets.filter(|socket| socket.is_listening()).count()
    }

    /// Runs until `is_done`, which is asked after each moment at which something happens.
    #[track_caller]
    pub(crate) fn run_until(&mut self, mut is_done: impl FnMut(&Self) -> bool) {
        let limit = self.now + Duration::from_secs(600);
        while !is_done(self) {
            assert!(self.now < limit, "ten minutes passed: {self:?}");
            assert!(self.step(limit), "nobody waits for anything: {self:?}");
        }
    }

    /// Runs for some time.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until every one of these connections has ended.
    #[track_caller]
    pub(crate) fn run_to_end(&mut self, peers: &[PeerId]) {
        self.run_until(|world| peers.iter().all(|peer| world.end(*peer).is_some()));
    }

    /// Goes on to the next moment at which somebody wants to be polled, unless it's after `end`.
    fn step(&mut self, end: Instant) -> bool {
        let server_wakes = self.server_wakes();
        let there_wakes = self
            .there
            .iface
            .poll_at(self.now, &self.there.sockets)
            .into_iter()
            .chain(self.link.borrow().arrival(1))
            .min();
        let Some(next) = server_wakes.into_iter().chain(there_wakes).min() else {
            return false;
        };
        if next > end {
            return false;
        }
        self.now = self.now.max(next);
        if server_wakes.is_some_and(|time| time <= self.now) {
            self.here.poll(self.now);
            self.server.poll(self.now, &mut self.here.sockets);
            self.polls += 1;
        }
        if there_wakes.is_some_and(|time| time <= self.now) {
            self.there.poll(self.now);
            self.act();
        }
        true
    }

    /// When the server's machine wants to be polled.
    pub(crate) fn server_wakes(&mut self) -> Option<Instant> {
        let iface = self.here.iface.poll_at(self.now, &self.here.sockets);
        let arrival = self.link.borrow().arrival(0);
        [iface, self.server.poll_at(), arrival]
            .into_iter()
            .flatten()
            .min()
    }

    fn socket(&mut self, peer: PeerId) -> &mut Socket<'static> {
        self.there.sockets.get_mut(self.peers[peer.0].handle)
    }

    /// What clients do when something happened.
    fn act(&mut self) {
        self.forgotten.retain(|handle| {
            let is_open = self.there.sockets.get::<Socket<'_>>(*handle).is_open();
            if !is_open {
                self.there.sockets.remove(*handle);
            }
            is_open
        });
        for peer in &mut self.peers {
            if peer.end.is_none() {
                peer.act(self.there.sockets.get_mut(peer.handle));
            }
        }
    }
}

impl Peer {
    fn act(&mut self, socket: &mut Socket<'static>) {
        if socket.state() == State::SynSent {
            return;
        }
        while self.reads && socket.can_recv() {
            let inbox = &mut self.inbox;
            let received = socket.recv(|bytes| {
                inbox.extend_from_slice(bytes);
                (bytes.len(), ())
            });
            received.expect("there is something");
        }
        if socket.can_send() {
            let sent = socket.send_slice(&self.outbox).expect("it can");
            self.outbox.drain(..sent);
        }
        if self.finishes && self.outbox.is_empty() {
            socket.close();
        }
        match socket.recv(|_| (0, ())) {
            // What came before may still be read.
            Ok(()) if socket.state() == State::Closed => self.end = Some(Outcome::Reset),
            Ok(()) => {}
            Err(RecvError::Finished) => {
                self.end = Some(Outcome::Closed);
                if !self.stays {
                    socket.close();
                }
            }
            Err(RecvError::InvalidState) => self.end = Some(Outcome::Reset),
        }
    }
}
