//! Between the two clocks: smoltcp counts microseconds, picoprof nanoseconds.

use picoprof::Instant;
use smoltcp::time;

/// What smoltcp calls `time`. A moment before the clock's start counts as its start.
pub(crate) fn from_smoltcp(time: time::Instant) -> Instant {
    let micros = u64::try_from(time.total_micros()).unwrap_or(0);
    Instant::from_nanos(micros.saturating_mul(1000))
}

/// What picoprof calls `time`, or the first microsecond after it: whoever waits for it is not early.
pub(crate) fn to_smoltcp(time: Instant) -> time::Instant {
    // At most a thousandth of what 64 bits hold, so it fits.
    let micros = i64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(i64::MAX);
    time::Instant::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_kept() {
        for micros in [0, 1, 999, 1_000_001, 1_i64 << 53] {
            let time = time::Instant::from_micros(micros);
            assert_eq!(from_smoltcp(time).as_nanos(), micros as u64 * 1000);
            assert_eq!(to_smoltcp(from_smoltcp(time)), time);
        }
    }

    #[test]
    fn nothing_is_early_and_nothing_overflows() {
        assert_eq!(to_smoltcp(Instant::from_nanos(1001)).total_micros(), 2);
        let end = Instant::from_nanos(u64::MAX);
        assert_eq!(to_smoltcp(end).total_micros(), 18_446_744_073_709_552);
        assert_eq!(from_smoltcp(time::Instant::from_micros(i64::MAX)), end);
        let before = time::Instant::from_micros(-5);
        assert_eq!(from_smoltcp(before), Instant::from_nanos(0));
    }
}
