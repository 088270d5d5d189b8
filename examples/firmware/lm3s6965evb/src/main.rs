//! A measuring device on a Cortex-M3 with 256 KB of flash and 64 KB of RAM, and its `/debug/pprof`. No heap.
//!
//! One loop polls the network and the tasks, and sleeps when there is nothing to do. Of the interrupts, a timer's has the highest
//! priority and samples (`profiler`); another's takes the sensor's samples (`sensor`); Ethernet's only ends the sleep.

#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod clock;
mod console;
mod corrupt;
mod ethernet;
mod executor;
mod interrupts;
mod profiler;
mod registers;
mod sensor;
mod trace;
mod waker;

use core::cell::RefCell;
use core::fmt::{self, Write};
use core::pin::pin;
use core::time::Duration;

use cortex_m_rt::entry;
use firmware_common::mailbox::Mailbox;
use firmware_common::network::{self, MAC};
use firmware_common::protocol::{self, Board, Command, Protocol};
use firmware_common::readings::filter;
use firmware_common::work::Worker;
use picoprof::trace::Region;
use picoprof_smoltcp::Server;
use smoltcp::iface::{Interface, PollIngressSingleResult, SocketSet, SocketStorage};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use static_cell::ConstStaticCell;

use crate::ethernet::Ethernet;
use crate::profiler::Profiler;

/// How many profiles can be fetched at once: by four clients, and a socket that listens for one of them who comes again before its last
/// connection has ended.
const CLIENTS: usize = 5;

/// The longest head of a request.
const HEAD: usize = 512;

/// The most bytes of a `put`.
const BODY: usize = 1024;

static SOCKETS: ConstStaticCell<[SocketStorage<'static>; CLIENTS + 1]> =
    ConstStaticCell::new([SocketStorage::EMPTY; CLIENTS + 1]);
static PROFILER_BUFFERS: ConstStaticCell<[Buffers<256, 1024>; CLIENTS]> =
    ConstStaticCell::new([const { Buffers::new() }; CLIENTS]);
static APPLICATION_BUFFERS: ConstStaticCell<Buffers<512, 256>> =
    ConstStaticCell::new(Buffers::new());
static PUT: ConstStaticCell<[u8; BODY]> = ConstStaticCell::new([0; BODY]);
static WORKER: ConstStaticCell<Worker> = ConstStaticCell::new(Worker::new());

/// The buffers of a socket.
struct Buffers<const RECEIVE: usize, const TRANSMIT: usize> {
    receive: [u8; RECEIVE],
    transmit: [u8; TRANSMIT],
}

impl<const RECEIVE: usize, const TRANSMIT: usize> Buffers<RECEIVE, TRANSMIT> {
    const fn new() -> Self {
        Self {
            receive: [0; RECEIVE],
            transmit: [0; TRANSMIT],
        }
    }

    fn socket(&mut self) -> tcp::Socket<'_> {
        let receive = tcp::SocketBuffer::new(&mut self.receive[..]);
        let transmit = tcp::SocketBuffer::new(&mut self.transmit[..]);
        tcp::Socket::new(receive, transmit)
    }
}

#[entry]
fn main() -> ! {
    let mut core = cortex_m::Peripherals::take();
    if let Some(core) = &mut core {
        clock::start(&mut core.SYST);
    }
    profiler::start();
    let mut ethernet = Ethernet::new(MAC);
    let mut interface = network::interface(&mut ethernet, now(), clock::now().as_nanos());
    let mut sockets = SocketSet::new(&mut SOCKETS.take()[..]);
    let profiler_sockets = PROFILER_BUFFERS
        .take()
        .each_mut()
        .map(|buffers| sockets.add(buffers.socket()));
    let application_socket = sockets.add(APPLICATION_BUFFERS.take().socket());

    let protocol = RefCell::new(Protocol::new(PUT.take()));
    let commands: Mailbox<Command<'_>> = Mailbox::new();
    let serve = protocol::serve(&protocol, &commands, WORKER.take(), &Evaluation);
    let serve = pin!(picoprof::task("application", serve));
    let watch = pin!(picoprof::task("sensor", sensor::watch()));
    let tasks: &mut [executor::Task<'_>] = &mut [serve, watch];

    // It is not a static: it would be made on the stack all the same, and take its memory twice.
    let mut server =
        Server::<_, CLIENTS, HEAD>::new(&Profiler, network::PROFILER_PORT, profiler_sockets);

    sensor::start();
    // It is there: nobody else takes it.
    if let Some(core) = core {
        interrupts::start(core);
    }
    let mut is_up = false;
    loop {
        executor::run(tasks);
        // A trace has what is no task's by this. Where there's no frame there's little to be seen.
        let region = ethernet.holds_frame().then(|| Region::new("network"));
        // The server has a look after each frame, so that the next to connect finds a socket that listens.
        while receive_frame(&mut interface, &mut ethernet, &mut sockets) {
            server.poll(now(), &mut sockets);
        }
        poll_interface(&mut interface, &mut ethernet, &mut sockets);
        let mut has_changed = server.poll(now(), &mut sockets);
        has_changed |= network::poll_application(
            sockets.get_mut(application_socket),
            &mut protocol.borrow_mut(),
            &commands,
        );
        drop(region);
        // All sockets listen now.
        if !core::mem::replace(&mut is_up, true) {
            console::println!("picoprof: up lm3s6965evb");
        }
        // A time to wait for is waited for to the tick.
        let is_due = [interface.poll_at(now(), &sockets), server.poll_at()]
            .into_iter()
            .flatten()
            .any(|time| time <= now());
        if !has_changed && !is_due {
            interrupts::sleep_unless(|| waker::is_any_woken() || ethernet.has_frame());
        }
    }
}

/// Takes a frame, if there's one. In a function of its own, as is the next, as they need room for frames on the stack.
#[inline(never)]
fn receive_frame(
    interface: &mut Interface,
    ethernet: &mut Ethernet,
    sockets: &mut SocketSet<'static>,
) -> bool {
    interface.poll_ingress_single(now(), ethernet, sockets) != PollIngressSingleResult::None
}

#[inline(never)]
fn poll_interface(
    interface: &mut Interface,
    ethernet: &mut Ethernet,
    sockets: &mut SocketSet<'static>,
) {
    interface.poll(now(), ethernet, sockets);
}

fn now() -> Instant {
    Instant::from_micros((clock::now().as_nanos() / 1000) as i64)
}

/// The board that is evaluated.
struct Evaluation;

impl Board for Evaluation {
    fn stats(&self, worker: &Worker, answer: &mut dyn Write) -> fmt::Result {
        let (profiler, sensor) = (profiler::counts(), sensor::counts());
        write!(
            answer,
            " ticks={} samples={} idle={} tasks={} masked={} masked_us={} lost={} readings={} taken={}",
            clock::ticks(),
            profiler.samples,
            profiler.idle,
            profiler.tasks,
            sensor.masked,
            sensor.masked_nanos / 1000,
            profiler.lost,
            worker.readings(),
            sensor.taken,
        )
    }

    fn corrupt(&self) {
        for garbage in corrupt::KINDS {
            corrupt::with_corrupt_frame_pointer(garbage, work_on_a_corrupt_stack);
        }
    }

    fn exit(&self) -> ! {
        console::exit()
    }
}

/// Works for 50 ms.
extern "C" fn work_on_a_corrupt_stack() {
    let end = clock::now() + Duration::from_millis(50);
    let mut values = [0; 32];
    while clock::now() < end {
        values[0] += 1;
        filter(core::hint::black_box(&mut values));
    }
}
