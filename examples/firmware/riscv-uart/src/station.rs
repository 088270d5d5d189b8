//! What the machine is for: it measures, takes readings apart, smooths and compresses them.

#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering};

use firmware_common::compress::{BLOCK, Compressor};
use firmware_common::readings::{filter, measure, parse_reading};
use heapless::{String, Vec};
use picoprof::trace;

/// Readings of a block.
const READINGS: usize = 48;

/// Blocks of a round: some milliseconds' work for an emulated machine, so that ticks fall into it.
const BLOCKS: u32 = 16;

static DONE: AtomicU32 = AtomicU32::new(0);
static BYTES: AtomicU32 = AtomicU32::new(0);

/// A round of it.
#[inline(never)]
pub(crate) fn work() {
    let round = trace::task("round");
    let mut sum = 0;
    for _ in 0..BLOCKS {
        let block = DONE.fetch_add(1, Ordering::Relaxed);
        let len = round.region("block", || work_on_block(block));
        BYTES.fetch_add(len, Ordering::Relaxed);
        sum += len;
    }
    round.log("station", format_args!("{sum} bytes"));
}

/// How many blocks there were, and how many compressed bytes of them.
pub(crate) fn done() -> (u32, u32) {
    (DONE.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed))
}

#[inline(never)]
fn work_on_block(block: u32) -> u32 {
    let mut text = String::<BLOCK>::new();
    measure(
        block.wrapping_mul(READINGS as u32),
        READINGS as u32,
        &mut text,
    );
    let readings = text
        .lines()
        .filter_map(|line| parse_reading(line.as_bytes()));
    // No more than that were measured.
    let mut values: Vec<i32, READINGS> = readings
        .map(|reading| reading.value)
        .take(READINGS)
        .collect();
    filter(&mut values);
    let mut len = 0;
    Compressor::new().compress_block(text.as_bytes(), &mut |part| len += part.len() as u32);
    len
}
