//! The time of day: Goldfish's real time clock.

#![forbid(unsafe_code)]

use crate::registers::Register32;

/// `TIME_LOW` and `TIME_HIGH`: reading the first keeps the second as it is at that moment.
const TIME_LOW: Register32 = Register32::at(0x10_1000);
const TIME_HIGH: Register32 = Register32::at(0x10_1004);

/// Nanoseconds since 1970.
#[must_use]
pub fn unix_nanos() -> u64 {
    let low = TIME_LOW.read();
    u64::from(TIME_HIGH.read()) << 32 | u64::from(low)
}
