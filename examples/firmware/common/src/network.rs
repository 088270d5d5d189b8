//! The network as QEMU's user mode has it, and the application's socket.

#![forbid(unsafe_code)]

use smoltcp::iface::{Config, Interface};
use smoltcp::phy::Device;
use smoltcp::socket::tcp::{ListenError, Socket, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address};

use crate::mailbox::Mailbox;
use crate::protocol::{Command, Protocol};

/// The machine's address on its network.
pub const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/// Where the profiles are.
pub const PROFILER_PORT: u16 = 80;

/// Where the application is.
pub const APPLICATION_PORT: u16 = 7;

/// The machine: 10.0.2.15/24.
const ADDRESS: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);

/// The way out.
const GATEWAY: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);

/// A client that isn't heard of for so long has gone.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The interface, with its address. `seed` should differ from start to start: it makes port and sequence numbers.
pub fn interface(device: &mut impl Device, now: Instant, seed: u64) -> Interface {
    let mut config = Config::new(EthernetAddress(MAC).into());
    config.random_seed = seed;
    let mut interface = Interface::new(config, device, now);
    interface.update_ip_addrs(|addresses| {
        // There's room for at least one address, and for one route.
        let _ = addresses.push(IpCidr::new(ADDRESS.into(), 24));
    });
    let _ = interface.routes_mut().add_default_ipv4_route(GATEWAY);
    interface
}

/// Moves bytes between the application's socket and its protocol, and what is asked for to `commands`. Never blocks. True if the
/// interface has something to do then.
pub fn poll_application<'b>(
    socket: &mut Socket<'_>,
    protocol: &mut Protocol<'b>,
    commands: &Mailbox<Command<'b>>,
) -> bool {
    // Both sides have said all, or nobody was there yet: the next client needn't wait.
    if matches!(socket.state(), State::Closed | State::TimeWait) {
        protocol.reset();
        listen(socket);
    }
    // It can't fail, as the socket can receive; nor does sending, below.
    let taken = socket.can_recv().then(|| {
        let take = |bytes: &mut [u8]| {
            let n = protocol.receive(bytes);
            (n, n)
        };
        socket.recv(take).unwrap_or(0)
    });
    if let Some(command) = protocol.command() {
        // The last one is answered, or there would be none.
        let _ = commands.put(command);
    }
    let written = socket.can_send().then(|| {
        let write = |out: &mut [u8]| {
            let n = protocol.transmit(out);
            (n, n)
        };
        socket.send(write).unwrap_or(0)
    });
    let mut has_changed = taken.is_some_and(|n| n > 0) || written.is_some_and(|n| n > 0);
    if socket.state() == State::CloseWait && !socket.can_recv() && protocol.is_idle() {
        socket.close();
        has_changed = true;
    }
    has_changed
}

fn listen(socket: &mut Socket<'_>) {
    socket.abort();
    socket.set_timeout(Some(TIMEOUT));
    socket.set_keep_alive(Some(TIMEOUT / 2));
    // Answers are short, and waited for.
    socket.set_nagle_enabled(false);
    // It can't fail: the port is not 0, and the socket is closed.
    let _: Result<(), ListenError> = socket.listen(APPLICATION_PORT);
}
