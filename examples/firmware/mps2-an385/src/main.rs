//! Async firmware on a Cortex-M3 with 4 MB of RAM: Arm's MPS2 board with the image of application note AN385, as QEMU's
//! `mps2-an385` has it. It builds for a Cortex-M0 (thumbv6m-none-eabi) too.
//!
//! Tasks of `embassy-executor`, each in [`picoprof::task`]; a heap; logs by `defmt`. Profiles are served on port 80, and on
//! the first UART; the second one says when the program is up. What it does all day: a sensor's interrupt measures, the
//! `archive` task keeps that, and `application` works when it is asked to, on port 7.
//!
//! ```text
//! main ── executor ─┬─ network      smoltcp over the LAN9118: profiles, the application, a plain download
//!                   ├─ serial       profiles over the UART, by embedded-io-async
//!                   ├─ application  what port 7 asks for
//!                   ├─ archive      what the sensor measures
//!                   └─ check        whether the archive is in order
//! SysTick ── profiler        timers ── clock, sensor        UART, Ethernet ── wake their tasks
//! ```

#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod application;
mod archive;
mod benchmark;
mod clock;
mod corrupt;
mod ethernet;
mod executor;
mod heap;
mod interrupts;
mod network;
mod profiler;
mod registers;
mod ring;
mod sensor;
mod serial;
mod trace;
mod uart;

use alloc::boxed::Box;
use alloc::vec;
use core::cell::RefCell;
use core::fmt::Write as _;
use core::future::{Future, poll_fn};
use core::panic::PanicInfo;
use core::pin::pin;

use cortex_m::Peripherals;
use cortex_m_rt::entry;
use cortex_m_semihosting::debug;
use defmt_semihosting as _;
use embassy_executor::raw::Executor;
use firmware_common::linker;
use firmware_common::mailbox::Mailbox;
use firmware_common::network::MAC;
use firmware_common::protocol::{self, Command, Protocol};
use firmware_common::work::Worker;
use picoprof::profile::task::Traced;

use crate::application::Mps2;
use crate::ethernet::Lan9118;
use crate::uart::{Console, Uart};

/// The longest `put`.
const PUT: usize = 16 * 1024;

/// What port 7 asks for, and what it is answered.
struct Application {
    protocol: RefCell<Protocol<'static>>,
    commands: Mailbox<Command<'static>>,
}

#[entry]
fn main() -> ! {
    clock::start();
    profiler::start();
    heap::start();
    let peripherals = Peripherals::take().expect("nobody took them before");
    let ethernet = Lan9118::start(MAC).expect("the board has an Ethernet controller");
    let uart = Uart::start();
    sensor::start();
    interrupts::enable(peripherals);
    let app = &*Box::leak(Box::new(Application {
        protocol: RefCell::new(Protocol::new(Box::leak(vec![0; PUT].into_boxed_slice()))),
        commands: Mailbox::new(),
    }));
    let executor = Box::leak(Box::new(Executor::new(core::ptr::null_mut())));
    executor::run(executor, |spawner| {
        // Each is spawned once, which there's room for.
        spawner.spawn(network(ethernet, app).expect("one network"));
        spawner.spawn(serial(uart).expect("one UART"));
        spawner.spawn(application(app).expect("one application"));
        spawner.spawn(archive().expect("one archive"));
        spawner.spawn(check().expect("one check"));
    });
}

/// Says that the servers listen: the one line on the console.
fn say_up() {
    let stack = linker::stack();
    // The console never fails.
    let _ = writeln!(
        Console::start(),
        "picoprof: up mps2-an385, {} bytes of heap in use, {} of stack free",
        heap::used(),
        stack.high() - stack.low(),
    );
    defmt::info!("up");
}

#[embassy_executor::task]
async fn network(ethernet: Lan9118, app: &'static Application) {
    let run = network::run(ethernet, &app.protocol, &app.commands);
    named("network", run).await;
}

#[embassy_executor::task]
async fn serial(uart: Uart) {
    named("serial", serial::serve(uart)).await;
}

#[embassy_executor::task]
async fn application(app: &'static Application) {
    let mut worker = Worker::new();
    let mut serve = pin!(protocol::serve(
        &app.protocol,
        &app.commands,
        &mut worker,
        &Mps2
    ));
    let serve = poll_fn(|context| {
        let result = serve.as_mut().poll(context);
        // There may be an answer.
        network::attend();
        result
    });
    named("application", serve).await;
}

#[embassy_executor::task]
async fn archive() {
    named("archive", archive::keep_measurements()).await;
}

#[embassy_executor::task]
async fn check() {
    named("check", archive::check_archive()).await;
}

/// A task that profiles know by its name: `goroutine` as it is, the others by a label.
fn named<F: Future>(name: &'static str, future: F) -> Traced<F> {
    picoprof::task(name, future).labels([("task", name)])
}

defmt::timestamp!("{=u64:us}", clock::micros());

#[panic_handler]
fn on_panic(info: &PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    // The console never fails.
    let _ = writeln!(Console::start(), "{info}");
    loop {
        debug::exit(debug::EXIT_FAILURE);
    }
}
