//! The smoltcp transport of picoprof: `/debug/pprof` from firmware and unikernels.
//!
//! The caller owns the interface, the device, the sockets and the time, as smoltcp's users expect. A [`Server`] is given
//! some TCP sockets of the caller's `SocketSet`, and is polled as the interface is. It needs no heap and never blocks;
//! profiles are encoded straight into the sockets' transmit buffers, so they are never in memory as a whole.
//!
//! ```
//! use picoprof_smoltcp::Server;
//! use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketSet, SocketStorage};
//! use smoltcp::phy::{Loopback, Medium};
//! use smoltcp::socket::tcp;
//! use smoltcp::time::{Duration, Instant};
//! use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
//! # use picoprof::encode::Body;
//! # use picoprof::profile::Profiles;
//! # use picoprof::stack::StackTable;
//! # use picoprof::{BuildId, LocationId, NoSymbols, StartError, Target, Thread};
//! # static STACKS: StackTable<8, 8> = StackTable::new();
//! # struct Firmware;
//! # impl Target for Firmware {
//! #     type Scratch = [u64; 1];
//! #     type Symbols = NoSymbols;
//! #     type Encoded<B: Body> = B;
//! #     type Threads = [Thread; 0];
//! #     fn profiles(&self) -> Profiles<'_> {
//! #         Profiles::of(STACKS.view())
//! #     }
//! #     fn scratch(&self, words: usize) -> Option<[u64; 1]> { (words <= 1).then_some([0]) }
//! #     fn symbols(&self, _: &mut dyn Iterator<Item = (LocationId, usize)>) -> NoSymbols {
//! #         NoSymbols { file: "[firmware]", build_id: BuildId::NONE }
//! #     }
//! #     fn encode<B: Body>(&self, profile: B) -> B { profile }
//! #     fn threads(&self) -> [Thread; 0] { [] }
//! #     fn command_line(&self) -> &[u8] { b"firmware" }
//! #     fn start_cpu(&self, _: u32) -> Result<u64, StartError> { Err(StartError::Unavailable) }
//! #     fn stop_cpu(&self) {}
//! # }
//!
//! // The board's: a device and a clock.
//! let mut device = Loopback::new(Medium::Ethernet);
//! let mut now = Instant::ZERO;
//!
//! let config = Config::new(EthernetAddress([2, 0, 0, 0, 0, 1]).into());
//! let mut iface = Interface::new(config, &mut device, now);
//! iface.update_ip_addrs(|addresses| {
//!     addresses.push(IpCidr::new(IpAddress::v4(127, 0, 0, 1), 8)).unwrap();
//! });
//!
//! // Two clients at once; statics on a board.
//! let (mut received, mut to_send) = ([[0; 512]; 2], [[0; 1024]; 2]);
//! let mut storage = [SocketStorage::EMPTY; 3];
//! let mut sockets = SocketSet::new(&mut storage[..]);
//! let mut buffers = received.iter_mut().zip(&mut to_send);
//! let handles = [(); 2].map(|()| {
//!     let (received, to_send) = buffers.next().unwrap();
//!     let [received, to_send] = [&mut received[..], &mut to_send[..]].map(tcp::SocketBuffer::new);
//!     sockets.add(tcp::Socket::new(received, to_send))
//! });
//!
//! let mut server = Server::<_, 2, 512>::new(&Firmware, 80, handles);
//! # // The other side, in the same set, as the device is a loop.
//! # let (mut received, mut to_send) = ([0; 1024], [0; 256]);
//! # let [received, to_send] = [&mut received[..], &mut to_send[..]].map(tcp::SocketBuffer::new);
//! # let client = sockets.add(tcp::Socket::new(received, to_send));
//! # let mut begins = true;
//! # let mut answer = [0; 1024];
//! # let mut len = 0;
//! loop {
//!     // After each frame, as the next may be from somebody who wants the socket of a client that just left.
//!     while iface.poll_ingress_single(now, &mut device, &mut sockets) != PollIngressSingleResult::None {
//!         server.poll(now, &mut sockets);
//!     }
//!     iface.poll(now, &mut device, &mut sockets);
//!     server.poll(now, &mut sockets);
//!     // … the application's turn …
//! #     let socket = sockets.get_mut::<tcp::Socket>(client);
//! #     if begins {
//! #         begins = false;
//! #         socket.connect(iface.context(), (IpAddress::v4(127, 0, 0, 1), 80), 49152).unwrap();
//! #     }
//! #     if socket.can_send() && socket.send_queue() == 0 && len == 0 {
//! #         socket.send_slice(b"GET /debug/pprof/cmdline HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
//! #     }
//! #     if socket.can_recv() {
//! #         len += socket.recv_slice(&mut answer[len..]).unwrap();
//! #     }
//! #     if answer[..len].ends_with(b"\r\n\r\nfirmware") {
//! #         assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
//! #         assert_eq!(server.counters().accepted, 1);
//! #         break;
//! #     }
//! #     assert!(now < Instant::from_secs(10), "no answer: {:?}", core::str::from_utf8(&answer[..len]));
//!
//!     // Sleep until the device has a frame, or until then:
//!     let wake = [iface.poll_at(now, &sockets), server.poll_at()].into_iter().flatten().min();
//! #     now = wake.unwrap_or(now).max(now + Duration::from_micros(1));
//! }
//! ```
//!
//! # What it sees to
//!
//! * A socket listens again after each client, and one does whenever that can be had: see [`Server`]. A socket in TIME-WAIT is
//!   used again after a second, or at once if no other listens. For clients to come and go with hardly more sockets than
//!   clients, the server is polled after each frame, as above; with sockets to spare, after each poll of the interface.
//! * A client that takes nothing of its answer for 30 seconds is given up, and one that vanished after a minute: smoltcp's
//!   keep-alive asks it. Clients that are slow to ask are timed out by the core.
//! * A client that goes while a profile is taken ends it: sampling stops in the poll that sees it.
//! * A client has received its answer before its connection is closed, even if it sent more than was read.
//! * What became of clients is counted: [`Server::counters`].
//!
//! The server sets its sockets' keep-alive interval and time-out, and turns Nagle's algorithm off; the rest of their
//! options are the caller's.
//!
//! Whoever reaches the port can read what the endpoints show, and have samples taken: there is no password.
//! [`Target::is_host_allowed`](picoprof::Target::is_host_allowed) keeps out web pages, not machines.
//!
//! # Features
//!
//! * `default`: smoltcp's `medium-ethernet` and `proto-ipv4`. Programs with another medium, or with IPv6 only, turn it
//!   off and choose among smoltcp's features themselves.
//! * `defmt`: the public types are [`defmt::Format`](https://docs.rs/defmt); clients that are given up are logged. It
//!   turns on that of picoprof and of smoltcp.

#![no_std]
#![forbid(unsafe_code)]

mod client;
mod server;
mod stream;
mod time;

pub use server::{Counters, Server};
