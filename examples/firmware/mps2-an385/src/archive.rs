//! What was measured, compressed, the last blocks of it: work for the heap, for a lock, and for interrupts that are masked.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::fmt::Write;

use core::sync::atomic::{AtomicU32, Ordering};
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::mutex::{Mutex, MutexGuard};
use embassy_time::{Instant, Timer};
use firmware_common::compress::{BLOCK, Compressor};
use firmware_common::work::yield_now;
use heapless::String;
use picoprof::trace;

use crate::clock;
use crate::sensor::MEASURED;

/// Blocks that are kept.
const KEPT: usize = 24;

/// How long the slow memory takes to write a block, in microseconds: nothing else may happen meanwhile.
const WRITE_MICROS: u64 = 200;

static ARCHIVE: Mutex<CriticalSectionRawMutex, VecDeque<Box<[u8]>>> = Mutex::new(VecDeque::new());

static ALLOCS: AtomicU32 = AtomicU32::new(0);
static FREES: AtomicU32 = AtomicU32::new(0);
static LIVE_BYTES: AtomicU32 = AtomicU32::new(0);
static MASKED: AtomicU32 = AtomicU32::new(0);
static MASKED_MICROS: AtomicU32 = AtomicU32::new(0);
static BLOCKED: AtomicU32 = AtomicU32::new(0);
static BLOCKED_MICROS: AtomicU32 = AtomicU32::new(0);

/// What was counted here.
pub struct Counts {
    /// Blocks that were allocated by [`archive_block`], and freed again; bytes of those that were not.
    pub allocs: u32,
    pub frees: u32,
    pub live_bytes: u32,
    /// How often [`hold_interrupts_masked`] held interrupts masked, and microseconds.
    pub masked: u32,
    pub masked_micros: u32,
    /// How often somebody waited for the archive, and microseconds.
    pub blocked: u32,
    pub blocked_micros: u32,
}

/// What was counted so far.
pub fn counts() -> Counts {
    let now = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
    Counts {
        allocs: now(&ALLOCS),
        frees: now(&FREES),
        live_bytes: now(&LIVE_BYTES),
        masked: now(&MASKED),
        masked_micros: now(&MASKED_MICROS),
        blocked: now(&BLOCKED),
        blocked_micros: now(&BLOCKED_MICROS),
    }
}

/// Puts what is measured into the archive, for ever: the body of a task.
pub async fn keep_measurements() {
    let mut text = String::<BLOCK>::new();
    let mut compressor = Compressor::new();
    loop {
        let measured = MEASURED.receive().await;
        if writeln!(text, "{} ch1 {}", measured.number, measured.value).is_err() {
            // The line that was cut off is in the next block, or none.
            let task = trace::task("block");
            let mut archive = lock().await;
            task.log("archive", format_args!("{} blocks", archive.len()));
            task.region("compress", || {
                archive_block(&mut archive, &mut compressor, text.as_bytes());
            });
            drop(archive);
            text.clear();
        }
    }
}

/// Checks now and then whether the archive is what it was, for ever: the body of a task.
pub async fn check_archive() {
    loop {
        Timer::after_millis(500).await;
        let archive = lock().await;
        let mut bytes = 0;
        for block in archive.iter() {
            bytes += u32::from(!block.is_empty()) * block.len() as u32;
            // It keeps the lock while others go on.
            Timer::after_millis(2).await;
        }
        drop(archive);
        defmt::debug!("the archive has {=u32} bytes", bytes);
        yield_now().await;
    }
}

/// The archive, when nobody else has it.
async fn lock() -> MutexGuard<'static, CriticalSectionRawMutex, VecDeque<Box<[u8]>>> {
    if let Ok(archive) = ARCHIVE.try_lock() {
        return archive;
    }
    let since = Instant::now();
    let archive = ARCHIVE.lock().await;
    add(&BLOCKED, 1);
    add(&BLOCKED_MICROS, since.elapsed().as_micros() as u32);
    archive
}

#[inline(never)]
fn archive_block(archive: &mut VecDeque<Box<[u8]>>, compressor: &mut Compressor, text: &[u8]) {
    let mut compressed = heapless::Vec::<u8, { 2 * BLOCK }>::new();
    compressor.compress_block(text, &mut |part| {
        // It's hardly ever longer than the text.
        let _ = compressed.extend_from_slice(part);
    });
    if archive.len() == KEPT {
        free_oldest(archive);
    }
    let block = store_block(&compressed);
    hold_interrupts_masked(&block);
    archive.push_back(block);
}

/// A copy in memory of its own.
#[inline(never)]
fn store_block(bytes: &[u8]) -> Box<[u8]> {
    let block: Box<[u8]> = Box::from(bytes);
    add(&ALLOCS, 1);
    add(&LIVE_BYTES, block.len() as u32);
    block
}

fn free_oldest(archive: &mut VecDeque<Box<[u8]>>) {
    if let Some(block) = archive.pop_front() {
        add(&FREES, 1);
        add(&LIVE_BYTES, (block.len() as u32).wrapping_neg());
    }
}

/// Writes a block to a memory that can't be read meanwhile, code neither: so no interrupt may come. Of the memory there's
/// but the time that it takes.
#[inline(never)]
fn hold_interrupts_masked(block: &[u8]) {
    let held = critical_section::with(|_| {
        let begin = clock::micros();
        let mut sum = 0_u32;
        loop {
            sum = block
                .iter()
                .fold(sum, |sum, &byte| sum.rotate_left(5) ^ u32::from(byte));
            core::hint::black_box(sum);
            let held = clock::micros() - begin;
            if held >= WRITE_MICROS {
                return held;
            }
        }
    });
    add(&MASKED, 1);
    add(&MASKED_MICROS, held as u32);
}

/// Only tasks write them, and one at a time.
fn add(counter: &AtomicU32, n: u32) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(n),
        Ordering::Relaxed,
    );
}
