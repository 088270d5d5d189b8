//! The work that is measured of an allocator.

use core::hint::black_box;
use std::alloc::{Layout, alloc, dealloc};

use crate::signal;

/// Blocks that the mix keeps.
const SLOTS: usize = 256;

/// Runs the work of a mode, if it is one of these; `pairs` are pairs of an allocation and a free.
///
/// * `pair`: 64 bytes, freed at once.
/// * `mix`: from 16 to 1039 bytes, in random order, each freed when its slot of 256 is used again.
pub fn run(mode: &str, pairs: usize) -> bool {
    let work: fn(usize) = match mode {
        "pair" => pair,
        "mix" => mix,
        _ => return false,
    };
    // What is done at the first sample only; and the distance to it may be one at the profiler's rate before: 16 MiB are
    // beyond what 32 random bits can make of 512 KiB.
    drop(black_box(Vec::<u8>::with_capacity(16 << 20)));
    work(2 * SLOTS);
    // Such that 28 frames are recorded, or one more where the allocator has one of its own.
    signal::below(19, &mut || work(pairs));
    true
}

#[inline(never)]
fn pair(pairs: usize) {
    for _ in 0..pairs {
        let block = allocate(black_box(64));
        free(black_box(block));
    }
}

#[inline(never)]
fn mix(pairs: usize) {
    let mut slots: Vec<_> = (0..SLOTS).map(|_| allocate(64)).collect();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..pairs {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let slot = &mut slots[random as usize % SLOTS];
        let size = 16 + (random >> 32) as usize % 1024;
        let old = core::mem::replace(slot, allocate(size));
        free(old);
    }
    slots.into_iter().for_each(free);
}

type Block = (*mut u8, Layout);

#[inline(always)]
fn allocate(size: usize) -> Block {
    let layout = Layout::from_size_align(size, 1).unwrap_or(Layout::new::<u8>());
    // SAFETY: no size here is zero.
    (unsafe { alloc(layout) }, layout)
}

#[inline(always)]
fn free((block, layout): Block) {
    // SAFETY: `allocate` gave it with this layout, and each block is moved into here once.
    unsafe { dealloc(block, layout) };
}
