//! The network: profiles on port 80, the application on port 7, and a plain download to compare with on port 9.

#![forbid(unsafe_code)]

use alloc::vec;
use core::cell::RefCell;

use embassy_futures::select::select;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::Timer;
use firmware_common::mailbox::Mailbox;
use firmware_common::network::{PROFILER_PORT, interface, poll_application};
use firmware_common::protocol::{Command, Protocol};
use firmware_common::work::yield_now;
use picoprof_smoltcp::Server;
use smoltcp::iface::{PollIngressSingleResult, PollResult, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;

use crate::benchmark::Download;
use crate::clock;
use crate::ethernet::Lan9118;
use crate::profiler::PROFILER;

/// Clients of the profiler at once.
const CLIENTS: usize = 8;

/// The longest head of a request: some browsers' are nearly as long.
const HEAD: usize = 2 * 1024;

/// The buffers of a socket: for what came, and for what is to go.
const RECEIVE: usize = 2 * 1024;
const TRANSMIT: usize = 16 * 1024;

/// Whether there's something to do.
static ATTENTION: Signal<CriticalSectionRawMutex, ()> = Signal::new();

/// Says that there may be something to do: a frame came, or the application has an answer. For interrupts and tasks.
pub fn attend() {
    ATTENTION.signal(());
}

/// Moves frames, for ever: the body of a task.
pub async fn run<'b>(
    mut device: Lan9118,
    protocol: &RefCell<Protocol<'b>>,
    commands: &Mailbox<Command<'b>>,
) {
    let mut interface = interface(&mut device, now(), clock::cycles());
    let mut sockets = SocketSet::new(vec![]);
    let application = sockets.add(socket());
    let clients = core::array::from_fn(|_| sockets.add(socket()));
    let mut server = Server::<_, CLIENTS, HEAD>::new(&PROFILER, PROFILER_PORT, clients);
    let mut download = Download::new(sockets.add(socket()));
    let mut is_up = false;
    loop {
        let mut has_changed = false;
        // The server has a look after each frame, so that the next to connect finds a socket that listens.
        while interface.poll_ingress_single(now(), &mut device, &mut sockets)
            != PollIngressSingleResult::None
        {
            has_changed = true;
            server.poll(now(), &mut sockets);
        }
        has_changed |= server.poll(now(), &mut sockets);
        poll_application(
            sockets.get_mut(application),
            &mut protocol.borrow_mut(),
            commands,
        );
        download.poll(&mut sockets);
        // All sockets listen now.
        if !core::mem::replace(&mut is_up, true) {
            crate::say_up();
        }
        let sent = interface.poll_egress(now(), &mut device, &mut sockets);
        if has_changed || sent == PollResult::SocketStateChanged {
            // There's more to do, and others have their turn.
            yield_now().await;
        } else {
            let interface_at = interface.poll_at(now(), &sockets);
            let at = [interface_at, server.poll_at()].into_iter().flatten().min();
            wait(&mut device, at).await;
        }
    }
}

fn socket() -> Socket<'static> {
    Socket::new(
        SocketBuffer::new(vec![0; RECEIVE]),
        SocketBuffer::new(vec![0; TRANSMIT]),
    )
}

/// Until there's something to do: at this time at the latest, if there's one.
async fn wait(device: &mut Lan9118, at: Option<Instant>) {
    device.expect_frame();
    let micros = at.map_or(u64::MAX, |at| at.total_micros().unsigned_abs());
    let timer = Timer::at(embassy_time::Instant::from_micros(micros));
    select(ATTENTION.wait(), timer).await;
}

fn now() -> Instant {
    Instant::from_micros(clock::micros() as i64)
}
