//! The network: what the card's interrupt does, the card as smoltcp sees it, and the task that serves all sockets.

#![forbid(unsafe_code)]

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{RefCell, RefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use critical_section::Mutex;
use firmware_common::mailbox::Mailbox;
use firmware_common::network::{PROFILER_PORT, interface, poll_application};
use firmware_common::work::yield_now;
use picoprof_smoltcp::Server;
use smoltcp::iface::{PollIngressSingleResult, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket};

use crate::application::Client;
use crate::executor::{either, sleep_until};
use crate::profiler::{self, Machine};
use crate::traffic;
use crate::virtio::{Card, Frame, Outgoing};

/// Clients of the profiler at a time.
const CLIENTS: usize = 8;

/// How long the task sleeps at the most.
const IDLE: core::time::Duration = core::time::Duration::from_secs(1);

/// The longest head of a request.
const HEAD: usize = 1024;

static CARD: Mutex<RefCell<Option<Card>>> = Mutex::new(RefCell::new(None));
static RECEIVED: Mutex<RefCell<VecDeque<Frame>>> = Mutex::new(RefCell::new(VecDeque::new()));

/// What the network's task waits for: a frame, room to send, or something to say.
pub(crate) static ATTENTION: Mailbox<()> = Mailbox::new();

static CORRUPT_FRAMES: AtomicU32 = AtomicU32::new(0);

/// Looks for the card; answers its interrupt.
pub(crate) fn init() -> Option<u32> {
    let (card, interrupt) = Card::find()?;
    critical_section::with(|cs| CARD.borrow_ref_mut(cs).replace(card));
    Some(interrupt)
}

/// The card has received something, or has sent what it had: checks what came and hands it on.
#[inline(never)]
pub(crate) fn handle_network_interrupt() {
    with_card(|mut card| card.end_interrupt());
    while let Some(frame) = with_card(|mut card| card.receive()) {
        traffic::count(frame.bytes().len());
        if is_intact(frame.bytes()) {
            critical_section::with(|cs| RECEIVED.borrow_ref_mut(cs).push_back(frame));
        } else {
            CORRUPT_FRAMES.fetch_add(1, Ordering::Relaxed);
            with_card(|mut card| card.recycle(frame));
        }
    }
    ATTENTION.put(());
}

/// How many frames were thrown away, as a checksum was wrong.
pub(crate) fn corrupt_frames() -> u32 {
    CORRUPT_FRAMES.load(Ordering::Relaxed)
}

/// The task: serves the profiler's sockets and the application's, for ever.
pub(crate) async fn serve(mut card: Network, clients: impl IntoIterator<Item = Client>) {
    let mut interface = interface(&mut card, now(), riscv_machine::clock::unix_nanos());
    let mut sockets = SocketSet::new(Vec::new());
    let handles: [SocketHandle; CLIENTS] =
        core::array::from_fn(|_| sockets.add(socket(4096, 16384)));
    let mut server = Server::<_, CLIENTS, HEAD>::new(&Machine, PROFILER_PORT, handles);
    let clients: Vec<_> = clients
        .into_iter()
        .map(|client| (sockets.add(socket(16384, 1024)), client))
        .collect();
    let mut is_up = false;
    loop {
        // The server has a look after each frame, so that the next to connect finds a socket that listens.
        while interface.poll_ingress_single(now(), &mut card, &mut sockets)
            != PollIngressSingleResult::None
        {
            server.poll(now(), &mut sockets);
        }
        interface.poll(now(), &mut card, &mut sockets);
        let has_more = server.poll(now(), &mut sockets);
        for (socket, client) in &clients {
            let socket = sockets.get_mut::<Socket<'_>>(*socket);
            poll_application(socket, &mut client.protocol.borrow_mut(), &client.commands);
        }
        // All sockets listen now.
        if !core::mem::replace(&mut is_up, true) {
            profiler::say_up();
        }
        let due = [interface.poll_at(now(), &sockets), server.poll_at()];
        let due = due.into_iter().flatten().min();
        if has_more || due.is_some_and(|due| due <= now()) {
            // Others have their turn between.
            yield_now().await;
        } else {
            let wait = due.map_or(IDLE, |due| (due - now()).into());
            either(ATTENTION.receive(), sleep_until(profiler::now() + wait)).await;
        }
    }
}

fn socket(receive: usize, transmit: usize) -> Socket<'static> {
    Socket::new(
        SocketBuffer::new(vec![0; receive]),
        SocketBuffer::new(vec![0; transmit]),
    )
}

/// Whether the checksums of a frame are right: IPv4's, and TCP's. smoltcp needn't look at them again.
#[inline(never)]
fn is_intact(frame: &[u8]) -> bool {
    let Ok(frame) = EthernetFrame::new_checked(frame) else {
        return false;
    };
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return true;
    }
    let Ok(packet) = Ipv4Packet::new_checked(frame.payload()) else {
        return false;
    };
    if packet.next_header() != IpProtocol::Tcp || packet.more_frags() || packet.frag_offset() != 0 {
        return packet.verify_checksum();
    }
    let segment = TcpPacket::new_checked(packet.payload());
    packet.verify_checksum()
        && segment.is_ok_and(|segment| {
            segment.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into())
        })
}

fn with_card<R>(f: impl FnOnce(RefMut<'_, Card>) -> R) -> R {
    critical_section::with(|cs| {
        let card = RefMut::filter_map(CARD.borrow_ref_mut(cs), Option::as_mut);
        // Interrupts are let in, and the interface is made, once there's a card.
        f(card.ok().expect("the card was found"))
    })
}

fn now() -> Instant {
    Instant::from_micros((riscv_machine::timer::nanos() / 1000) as i64)
}

/// The card as smoltcp sees it. There's one.
pub(crate) struct Network;

impl Device for Network {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending)> {
        // What is received may be answered: without room for that it has to wait.
        let sending = self.transmit(now())?;
        let frame = critical_section::with(|cs| RECEIVED.borrow_ref_mut(cs).pop_front())?;
        Some((Received(Some(frame)), sending))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending> {
        let frame = with_card(|mut card| card.outgoing())?;
        Some(Sending(Some(frame)))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

/// A frame that was received; its buffer goes back to the card.
pub(crate) struct Received(Option<Frame>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0.as_ref().map_or(&[], Frame::bytes))
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(frame) = self.0.take() {
            with_card(|mut card| card.recycle(frame));
        }
    }
}

/// A buffer to send a frame in; unused, it goes back to the card.
pub(crate) struct Sending(Option<Outgoing>);

impl TxToken for Sending {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, len: usize, f: F) -> R {
        // It is only taken here, and in `drop`.
        let mut frame = self.0.take().expect("a frame");
        let result = f(&mut frame.bytes()[..len]);
        with_card(|mut card| card.send(frame, len));
        result
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(frame) = self.0.take() {
            with_card(|mut card| card.discard(frame));
        }
    }
}
