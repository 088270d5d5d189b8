//! The clock of a trace: the processor's counter where that can be trusted, else the monotonic clock.
//!
//! To read the counter takes a third of what the monotonic clock takes, and most of what an event costs is its time.

#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::counter::{counter, frequency, is_trusted};
use crate::clock;

const UNKNOWN: u8 = 0;
const COUNTER: u8 = 1;
const MONOTONIC: u8 = 2;

/// Which clock it is. Once it is known it never changes.
static SOURCE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// How many ticks the counter has in a second; 0 until it was measured.
static FREQUENCY: AtomicU64 = AtomicU64::new(0);

/// The time now.
///
/// May run in a signal handler.
#[inline]
pub(super) fn ticks() -> u64 {
    counter_ticks().unwrap_or_else(other_ticks)
}

/// The time now where it is known to be the processor's counter.
///
/// May run in a signal handler.
#[inline(always)]
pub(super) fn counter_ticks() -> Option<u64> {
    (SOURCE.load(Ordering::Relaxed) == COUNTER).then(counter)
}

#[cold]
#[inline(never)]
fn other_ticks() -> u64 {
    match source() {
        COUNTER => counter(),
        _ => clock::now().as_nanos(),
    }
}

/// How many ticks there are in a second. Always the same, as it is measured once: ordinary context.
pub(super) fn ticks_per_second() -> u64 {
    if source() == MONOTONIC {
        return 1_000_000_000;
    }
    let known = FREQUENCY.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let found = frequency().max(1);
    // Who comes second goes by what the first one found.
    let set = FREQUENCY.compare_exchange(0, found, Ordering::Relaxed, Ordering::Relaxed);
    set.map_or_else(|first| first, |_| found)
}

/// Which clock it is; the first time it is chosen.
///
/// May run in a signal handler.
fn source() -> u8 {
    let source = SOURCE.load(Ordering::Relaxed);
    if source != UNKNOWN {
        return source;
    }
    let chosen = if is_trusted() { COUNTER } else { MONOTONIC };
    let set = SOURCE.compare_exchange(UNKNOWN, chosen, Ordering::Relaxed, Ordering::Relaxed);
    set.map_or_else(|first| first, |_| chosen)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::thread;

    use super::*;

    #[test]
    fn it_goes_as_the_monotonic_clock_goes() {
        let hz = ticks_per_second();
        assert_eq!(hz, ticks_per_second());
        let (ticks_before, before) = (ticks(), clock::now());
        thread::sleep(Duration::from_millis(50));
        let (ticks, time) = (ticks(), clock::now());
        let seconds = (ticks - ticks_before) as f64 / hz as f64;
        let expected = time.since(before).as_secs_f64();
        // The two are not read at once.
        assert!(
            (seconds - expected).abs() < 0.005,
            "{seconds} of {expected} at {hz}"
        );
    }

    #[test]
    fn it_does_not_go_back() {
        let mut last = ticks();
        for _ in 0..100_000 {
            let now = ticks();
            assert!(now >= last);
            last = now;
        }
    }
}
