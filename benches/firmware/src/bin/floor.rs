//! What every image has: the start, and the compiler's own functions for memory, which no program is without.

#![no_std]
#![no_main]

use core::hint::black_box;

use bench_firmware::uart::{put, take};
use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    let (mut from, mut to) = ([0; 64], [0; 64]);
    loop {
        // Of a length that the compiler doesn't know, on data that it doesn't.
        let len = usize::from(take()) % 64;
        let (Some(from), Some(to)) = (from.get_mut(..len), to.get_mut(..len)) else {
            continue;
        };
        from.fill(take());
        put(u8::from(from == to));
        to.copy_from_slice(black_box(from));
    }
}
