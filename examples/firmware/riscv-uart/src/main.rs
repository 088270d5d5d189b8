//! The smallest of these programs: QEMU's RISC-V `virt` machine, of 32 or 64 bits, that serves its profiles over the
//! UART. There's no heap, no network and no executor. The work is done in an interrupt; the tick, which comes first,
//! samples it; and the main loop serves one client after the other.
//!
//! ```sh
//! cargo build --release -p riscv-uart --target riscv32imac-unknown-none-elf
//! qemu-system-riscv32 -M virt -m 32M -bios none -display none -monitor none \
//!     -serial tcp:127.0.0.1:8080,server=on,wait=off -kernel target/riscv32imac-unknown-none-elf/release/riscv-uart
//! go tool pprof -top 'http://127.0.0.1:8080/debug/pprof/profile?seconds=5'
//! ```

#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod profiler;
mod stack;
mod station;
mod trace;
mod traps;
mod uart;

use core::fmt::Write;
use core::panic::PanicInfo;

use picoprof::http::Connection;
use picoprof::transport::serve_blocking;
use riscv_machine::console::Uart;
use riscv_machine::interrupts;

use crate::profiler::{MachineClock, Station};
use crate::uart::SleepingUart;

/// The longest head of a request.
const HEAD: usize = 1024;

riscv_machine::entry!(main);

fn main() -> ! {
    trace::start();
    traps::start();
    // It has no errors, and nor has the other one below. Whoever is connected already sees this; else nobody does.
    let _ = writeln!(Uart, "picoprof: up riscv-uart");
    loop {
        let mut connection = Connection::<_, HEAD>::new(&Station).without_keep_alive();
        let Ok(()) = serve_blocking(
            &mut connection,
            &mut SleepingUart,
            &mut MachineClock,
            &mut [0; 256],
        );
    }
}

#[panic_handler]
fn panic(panic: &PanicInfo<'_>) -> ! {
    interrupts::mask();
    let _ = writeln!(Uart, "{panic}");
    riscv_machine::exit(101)
}
