//! A program of picoprof alone, on the kernel alone: no std, no libc, no allocator, no unwinder.
//!
//! That it links shows that neither picoprof nor anything below it needs one of these: a dependency
//! that pulls in `alloc` stops the build. That it exits with 0 shows that what was linked works.

#![no_std]
#![no_main]

mod endpoints;
#[cfg(feature = "defmt")]
mod log;
mod memory;
mod runtime;

use picoprof::stack::capture::{End, Registers, StackBounds, walk_frame_pointers};

#[cfg(feature = "heap")]
extern crate alloc;

/// The exit status: 0, or the number of the first check that failed.
fn run() -> u8 {
    #[cfg(feature = "heap")]
    core::hint::black_box(alloc::boxed::Box::new(1));
    // In this order: the answers show what was recorded.
    let checks = [
        walks_a_stack,
        endpoints::records,
        endpoints::answers,
        endpoints::profiles_cpu_time,
    ];
    let failed = checks.iter().position(|check| !check());
    failed.map_or(0, |index| index as u8 + 1)
}

fn walks_a_stack() -> bool {
    // Two frame records of caller's frame pointer and return address; the second is the outermost.
    let mut words = [0, 101, 0, 102];
    let low = words.as_ptr().expose_provenance();
    words[0] = low + 2 * size_of::<usize>();
    let words = core::hint::black_box(&words);
    // SAFETY: the words live to the end of this function.
    let bounds = unsafe { StackBounds::new(low, low + size_of_val(words)) };
    let registers = Registers {
        pc: 7,
        sp: low,
        fp: low,
    };
    let mut pcs = [0; 8];
    let (len, end) = walk_frame_pointers(registers, bounds, &mut pcs);
    #[cfg(feature = "defmt")]
    defmt::info!("{} {} {}", registers, bounds, end);
    pcs.get(..len) == Some(&[7, 100, 101]) && end == End::Outermost
}
