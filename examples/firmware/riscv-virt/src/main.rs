//! A unikernel on QEMU's riscv64 `virt` machine with its profiler: an executor with tasks that work on what clients send,
//! a second hart that compresses for them, a network card, and `/debug/pprof` on port 80.
//!
//! ```sh
//! cargo build --release -p riscv-virt --target riscv64gc-unknown-none-elf
//! qemu-system-riscv64 -M virt -smp 2 -m 32M -bios none -display none -monitor none -serial stdio \
//!     -netdev user,id=n0,hostfwd=tcp:127.0.0.1:8080-10.0.2.15:80,hostfwd=tcp:127.0.0.1:8007-10.0.2.15:7 \
//!     -device virtio-net-device,netdev=n0 -kernel target/riscv64gc-unknown-none-elf/release/riscv-virt
//! ```

#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod application;
mod compressor;
mod corrupt;
mod executor;
mod heap;
mod ledger;
mod network;
mod profiler;
mod self_check;
mod stacks;
mod trace;
mod traffic;
mod traps;
mod virtio;

use core::fmt::Write;
use core::panic::PanicInfo;

use picoprof::profile::lock::CriticalSection;
use picoprof::task;
use riscv_machine::console::Uart;
use riscv_machine::harts::AllHarts;
use riscv_machine::{interrupts, start};

use crate::application::Client;
use crate::executor::Executor;
use crate::network::Network;

/// Clients of port 7 at a time.
const CLIENTS: usize = 4;

// Who holds one for long is in `mutex`.
critical_section::set_impl!(CriticalSection<AllHarts>);
riscv_machine::entry!(main, second);

/// The first hart: everything but compression.
fn main() -> ! {
    heap::init();
    profiler::init();
    let card = network::init().expect("a virtio network card");
    interrupts::route(card, interrupts::hart());
    start_second_hart();
    let mut executor = Executor::new();
    spawn_tasks(&mut executor);
    traps::start();
    executor.run()
}

/// The second hart.
fn second() -> ! {
    profiler::hart_started();
    traps::start();
    compressor::run()
}

#[inline(never)]
fn start_second_hart() {
    profiler::starts_hart();
    start::start_second_hart();
}

/// Each is a goroutine to the profiler.
#[inline(never)]
fn spawn_tasks(executor: &mut Executor) {
    let clients = [(); CLIENTS].map(|()| Client::new());
    for (client, number) in clients.iter().zip(["1", "2", "3", "4"]) {
        let serve = task("application", client.clone().serve());
        executor.spawn(serve.labels([("client", number)]));
    }
    executor.spawn(task("measure", application::measure_always()));
    executor.spawn(task("audit", application::audit_always()));
    executor.spawn(task("network", network::serve(Network, clients)));
}

#[panic_handler]
fn panic(panic: &PanicInfo<'_>) -> ! {
    interrupts::mask();
    // It has no errors.
    let _ = writeln!(Uart, "{panic}");
    riscv_machine::exit(101)
}
