//! What the second hart does: it compresses blocks that tasks of the first one hand it, and enters them in the ledger.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use firmware_common::compress::Compressor;
use firmware_common::mailbox::Mailbox;
use picoprof::trace;
use riscv_machine::interrupts;

use crate::ledger::{self, Lock};
use crate::trace::{sleep_unless, wakes};

/// The hart that compresses.
pub(crate) const HART: usize = 1;

static JOBS: Lock<VecDeque<Job>> = Lock::new(VecDeque::new());
static IS_RUNNING: AtomicBool = AtomicBool::new(false);

/// A block, and where the task waits for its length.
struct Job {
    block: Box<[u8]>,
    compressed: Arc<Mailbox<usize>>,
}

/// Compresses a block and enters it in the ledger, on the second hart; without one, at once. Answers the compressed length.
pub(crate) async fn compress(block: Box<[u8]>) -> usize {
    if !is_running() {
        return compress_and_enter(&block);
    }
    let compressed = Arc::new(Mailbox::new());
    let job = Job {
        block,
        compressed: compressed.clone(),
    };
    JOBS.lock().push_back(job);
    wakes(HART);
    interrupts::send(HART);
    compressed.receive().await
}

/// Whether there's a second hart at work.
pub(crate) fn is_running() -> bool {
    IS_RUNNING.load(Ordering::Relaxed)
}

/// The second hart's loop.
pub(crate) fn run() -> ! {
    IS_RUNNING.store(true, Ordering::Relaxed);
    loop {
        let job = JOBS.lock().pop_front();
        match job {
            Some(job) => finish(job),
            None => sleep_unless(|| !JOBS.lock().is_empty()),
        }
    }
}

#[inline(never)]
fn finish(job: Job) {
    let len = trace::region("compress", || compress_and_enter(&job.block));
    job.compressed.put(len);
}

#[inline(never)]
fn compress_and_enter(block: &[u8]) -> usize {
    let mut compressed = Vec::new();
    Compressor::new().compress_block(block, &mut |part| compressed.extend_from_slice(part));
    ledger::enter_block(&compressed);
    compressed.len()
}
