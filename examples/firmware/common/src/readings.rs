//! Readings of a sensor: a line of text each, such as `1042 ch3 -217`.

#![forbid(unsafe_code)]

use core::fmt::{self, Write};

/// What a channel measured at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// When, in milliseconds.
    pub millis: u32,
    /// Which channel.
    pub channel: u8,
    /// What.
    pub value: i32,
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ch{} {}", self.millis, self.channel, self.value)
    }
}

/// The reading that a line is of; `None` if it is none.
#[must_use]
#[inline(never)]
pub fn parse_reading(line: &[u8]) -> Option<Reading> {
    let mut words = core::str::from_utf8(line).ok()?.split(' ');
    let reading = Reading {
        millis: words.next()?.parse().ok()?,
        channel: words.next()?.strip_prefix("ch")?.parse().ok()?,
        value: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(reading)
}

/// Smooths values in place: spikes of one value go by a median, and what remains is averaged.
#[inline(never)]
pub fn filter(values: &mut [i32]) {
    let mut before = values.first().copied().unwrap_or(0);
    let mut mean = before;
    for i in 0..values.len() {
        let now = values[i];
        let after = values.get(i + 1).copied().unwrap_or(now);
        mean = smoothed(mean, median(before, now, after));
        before = now;
        values[i] = mean;
    }
}

/// Appends a line for each of `count` readings that begin at `seed`: a slow wave, noise, and a spike now and then. What
/// there's no room for is left out.
#[inline(never)]
pub fn measure(seed: u32, count: u32, text: &mut dyn Write) {
    for millis in seed..seed.saturating_add(count) {
        let noise = scrambled(millis);
        let wave = (millis % 200).abs_diff(100) as i32;
        let spike = if noise & 31 == 0 { 500 } else { 0 };
        let reading = Reading {
            millis,
            channel: (noise >> 8 & 3) as u8,
            value: wave + spike - (noise >> 16 & 7) as i32,
        };
        // Room for no more: fewer readings.
        let _ = writeln!(text, "{reading}");
    }
}

#[inline]
fn median(a: i32, b: i32, c: i32) -> i32 {
    a.min(b).max(a.max(b).min(c))
}

/// A quarter of the way to `value`.
#[inline]
fn smoothed(mean: i32, value: i32) -> i32 {
    mean.saturating_add(value.saturating_sub(mean) / 4)
}

/// Marsaglia's xorshift, of a number that is not zero.
#[inline]
fn scrambled(n: u32) -> u32 {
    let mut n = n.wrapping_mul(2_654_435_761) | 1;
    n ^= n << 13;
    n ^= n >> 17;
    n ^ n << 5
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::{String, ToString};

    use super::*;

    #[test]
    fn a_reading_is_parsed_as_written() {
        let reading = Reading {
            millis: 1042,
            channel: 3,
            value: -217,
        };
        assert_eq!(reading.to_string(), "1042 ch3 -217");
        assert_eq!(parse_reading(b"1042 ch3 -217"), Some(reading));
    }

    #[test]
    fn what_is_no_reading_is_told() {
        for line in [
            &b""[..],
            b"1042",
            b"1042 ch3",
            b"1042 ch3 ",
            b"1042 3 -217",
            b"1042 ch300 1",
            b"1 ch1 1 1",
            b"\xff ch1 1",
        ] {
            assert_eq!(parse_reading(line), None, "{line:?}");
        }
    }

    #[test]
    fn spikes_are_filtered_out() {
        let mut values = [10, 10, 900, 10, 10, 10];
        filter(&mut values);
        assert_eq!(values, [10; 6]);
        let mut step = [0, 0, 100, 100, 100, 100];
        filter(&mut step);
        assert_eq!(step, [0, 0, 25, 43, 57, 67]);
        filter(&mut []);
        filter(&mut [i32::MIN, i32::MAX, i32::MIN]);
    }

    #[test]
    fn what_is_measured_can_be_parsed() {
        let mut text = String::new();
        measure(7, 100, &mut text);
        let readings = text.lines().map(|line| parse_reading(line.as_bytes()));
        assert_eq!(readings.flatten().count(), 100);
        let mut again = String::new();
        measure(7, 100, &mut again);
        assert_eq!(text, again);
    }
}
