//! What the images share.

#![no_std]

pub mod sampled;
pub mod served;
pub mod uart;

use core::panic::PanicInfo;

use picoprof::interrupt::SingleCore;

critical_section::set_impl!(SingleCore);

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // As firmware that nobody looks at has it.
    cortex_m::peripheral::SCB::sys_reset();
}
