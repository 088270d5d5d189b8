//! The code's checksum, again and again, as standards for safety ask for (IEC 60730, annex H.2.19): in an interrupt of
//! low priority, which all others may interrupt.

#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crc::{CRC_32_ISO_HDLC, Crc, Table};
use riscv_machine::{interrupts, memory};

static CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

/// Ticks between two checks.
const EVERY: u32 = 100;

static TICKS: AtomicU32 = AtomicU32::new(0);
static IS_DUE: AtomicBool = AtomicBool::new(false);
static RUNS: AtomicU32 = AtomicU32::new(0);
/// Of the first run.
static CHECKSUM: AtomicU32 = AtomicU32::new(0);

/// For the first hart's tick: asks for a check when it is time for one.
pub(crate) fn on_tick() {
    if TICKS.fetch_add(1, Ordering::Relaxed).is_multiple_of(EVERY) {
        IS_DUE.store(true, Ordering::Relaxed);
        interrupts::send(interrupts::hart());
    }
}

/// For the interrupt: checks the code if that was asked for.
pub(crate) fn run_if_due() {
    if IS_DUE.swap(false, Ordering::Relaxed) {
        check_code();
    }
}

/// How often the code was checked.
pub(crate) fn runs() -> u32 {
    RUNS.load(Ordering::Relaxed)
}

#[inline(never)]
fn check_code() {
    let checksum = CRC.checksum(memory::code());
    if RUNS.fetch_add(1, Ordering::Relaxed) == 0 {
        CHECKSUM.store(checksum, Ordering::Relaxed);
    }
    assert_eq!(
        checksum,
        CHECKSUM.load(Ordering::Relaxed),
        "the code is damaged"
    );
}
