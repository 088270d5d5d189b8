//! The ledger of compressed blocks: both harts write and read it, under one lock.

#![forbid(unsafe_code)]

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use crc::{CRC_32_ISO_HDLC, Crc, Table};
use lock_api::MutexGuard;
use picoprof::profile::lock::RawMutex;
use riscv_machine::{HARTS, interrupts, timer};
use spin::RelaxStrategy;
use spin::mutex::SpinMutex;

/// A lock that is spun on; `block` and `mutex` show who waited and for whom.
pub(crate) type RawLock = RawMutex<SpinMutex<(), CountedSpin>>;

/// What is protected by it.
pub(crate) type Lock<T> = lock_api::Mutex<RawLock, T>;

static CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

/// Blocks that are kept, in memory and in the ledger.
const BLOCKS: usize = 64;

static LEDGER: Lock<Ledger> = Lock::new(Ledger {
    blocks: VecDeque::new(),
    seal: 0,
});

/// How often each hart found a lock taken that it was spinning on.
static SPINS: [AtomicU64; HARTS] = [const { AtomicU64::new(0) }; HARTS];

static WAITS: AtomicU64 = AtomicU64::new(0);
static WAITED_NANOS: AtomicU64 = AtomicU64::new(0);
static STORED: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);
static LIVE_BYTES: AtomicU64 = AtomicU64::new(0);

/// Spins, and counts that.
pub(crate) struct CountedSpin;

impl RelaxStrategy for CountedSpin {
    fn relax() {
        SPINS[interrupts::hart()].fetch_add(1, Ordering::Relaxed);
        core::hint::spin_loop();
    }
}

struct Ledger {
    blocks: VecDeque<Vec<u8>>,
    /// The checksum over all of them.
    seal: u32,
}

/// Keeps a compressed block, in place of the oldest if there are many.
#[inline(never)]
pub(crate) fn enter_block(block: &[u8]) {
    let block = store_block(block);
    let mut ledger = lock_ledger();
    ledger.blocks.push_back(block);
    let oldest = if ledger.blocks.len() > BLOCKS {
        ledger.blocks.pop_front()
    } else {
        None
    };
    ledger.seal = seal(&ledger.blocks);
    drop(ledger);
    if let Some(oldest) = oldest {
        FREED.fetch_add(1, Ordering::Relaxed);
        LIVE_BYTES.fetch_sub(oldest.len() as u64, Ordering::Relaxed);
    }
}

/// Whether the blocks are as they were when they came.
#[inline(never)]
pub(crate) fn audit_ledger() -> bool {
    let ledger = lock_ledger();
    ledger.seal == seal(&ledger.blocks)
}

/// A copy of a block, in memory of just its size.
#[inline(never)]
fn store_block(block: &[u8]) -> Vec<u8> {
    STORED.fetch_add(1, Ordering::Relaxed);
    LIVE_BYTES.fetch_add(block.len() as u64, Ordering::Relaxed);
    block.to_vec()
}

#[inline(never)]
fn seal(blocks: &VecDeque<Vec<u8>>) -> u32 {
    let mut digest = CRC.digest();
    blocks.iter().for_each(|block| digest.update(block));
    digest.finalize()
}

/// Locks it, and counts how long that took if somebody else had it. That isn't known from a try that fails: the lock may
/// be free again before the next try, which is then no wait.
#[inline(never)]
fn lock_ledger() -> MutexGuard<'static, RawLock, Ledger> {
    let spins = &SPINS[interrupts::hart()];
    let (start, before) = (timer::nanos(), spins.load(Ordering::Relaxed));
    let ledger = LEDGER.lock();
    if spins.load(Ordering::Relaxed) != before {
        WAITS.fetch_add(1, Ordering::Relaxed);
        WAITED_NANOS.fetch_add(timer::nanos() - start, Ordering::Relaxed);
    }
    ledger
}

/// How often one hart waited for the other to unlock it, and for how many nanoseconds.
pub(crate) fn waits() -> (u64, u64) {
    (
        WAITS.load(Ordering::Relaxed),
        WAITED_NANOS.load(Ordering::Relaxed),
    )
}

/// How many blocks were stored, how many of those are freed, and bytes of the others.
pub(crate) fn blocks() -> (u64, u64, u64) {
    (
        STORED.load(Ordering::Relaxed),
        FREED.load(Ordering::Relaxed),
        LIVE_BYTES.load(Ordering::Relaxed),
    )
}
