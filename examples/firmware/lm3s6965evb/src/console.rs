//! The console and the end of the program: semihosting, which a debugger or QEMU serves.

#![forbid(unsafe_code)]

use core::panic::PanicInfo;

use cortex_m_semihosting::debug::{self, EXIT_FAILURE, EXIT_SUCCESS};
use cortex_m_semihosting::hprintln;

pub(crate) use cortex_m_semihosting::hprintln as println;

/// Ends the machine: all is well.
pub(crate) fn exit() -> ! {
    loop {
        debug::exit(EXIT_SUCCESS);
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    hprintln!("{}", info);
    loop {
        debug::exit(EXIT_FAILURE);
    }
}
