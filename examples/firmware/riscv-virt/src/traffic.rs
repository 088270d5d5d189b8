//! How long the frames are that came: counted in the card's interrupt, and read with it masked.

#![forbid(unsafe_code)]

use core::cell::RefCell;
use core::sync::atomic::{AtomicU64, Ordering};

use crc::{CRC_32_ISO_HDLC, Crc, Table};
use critical_section::Mutex;
use riscv_machine::timer;

static CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

/// Frames of each length.
static LENGTHS: Mutex<RefCell<[u32; 1536]>> = Mutex::new(RefCell::new([0; 1536]));

static MASKED: AtomicU64 = AtomicU64::new(0);
static MASKED_NANOS: AtomicU64 = AtomicU64::new(0);

/// Counts a frame.
pub(crate) fn count(len: usize) {
    critical_section::with(|cs| {
        if let Some(count) = LENGTHS.borrow_ref_mut(cs).get_mut(len) {
            *count = count.wrapping_add(1);
        }
    });
}

/// A checksum of all counts as they are at one moment; for that, interrupts are masked for as long as it takes. So this
/// is what `mutex` has to show: a better program would copy the counts first.
#[inline(never)]
pub(crate) fn hold_interrupts_masked() -> u32 {
    let (checksum, nanos) = critical_section::with(|cs| {
        let start = timer::nanos();
        let lengths = LENGTHS.borrow_ref(cs);
        let mut digest = CRC.digest();
        lengths
            .iter()
            .for_each(|count| digest.update(&count.to_le_bytes()));
        (digest.finalize(), timer::nanos() - start)
    });
    MASKED.fetch_add(1, Ordering::Relaxed);
    MASKED_NANOS.fetch_add(nanos, Ordering::Relaxed);
    checksum
}

/// How often interrupts were masked for long, and for how many nanoseconds.
pub(crate) fn masked() -> (u64, u64) {
    (
        MASKED.load(Ordering::Relaxed),
        MASKED_NANOS.load(Ordering::Relaxed),
    )
}
