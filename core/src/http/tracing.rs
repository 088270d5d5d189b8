//! The endpoint `trace`: what it is asked for, and a body that takes its time.

#![forbid(unsafe_code)]

use core::fmt;
use core::time::Duration;

use crate::encode::trace::{Filled, Span, TraceEncoder, TraceError};
use crate::target::Target;
use crate::time::Instant;

/// How often what was recorded is fetched: the buffers must hold as much as happens meanwhile.
const PAUSE: Duration = Duration::from_millis(10);
/// Go's default, in nanoseconds.
const DEFAULT: u64 = NANOS;
/// The longest trace: a day.
const LONGEST: u64 = 86_400 * NANOS;
const NANOS: u64 = 1_000_000_000;

/// A trace that goes out while it is recorded, or what the flight recorder has.
pub(super) struct Tracing<'t, T: Target> {
    encoder: TraceEncoder<'t, T>,
    /// The pointer is made where a trace begins, so that a program that takes none is without what encodes it.
    encode: Encode<'t, T>,
    /// Until when it is recorded.
    until: Instant,
    /// There's nothing before this time.
    next: Instant,
    /// It goes on, as far as is known.
    is_recording: bool,
    is_done: bool,
}

/// [`TraceEncoder::fill`].
type Encode<'t, T> = fn(&mut TraceEncoder<'t, T>, &mut [u8], bool) -> Filled;

impl<'t, T: Target> Tracing<'t, T> {
    pub(super) fn begin(
        target: &'t T,
        span: Span,
        now: Instant,
        duration: Duration,
    ) -> Result<Self, TraceError> {
        Ok(Self {
            encoder: TraceEncoder::new(target, span)?,
            encode: TraceEncoder::fill,
            until: now + duration,
            next: now,
            is_recording: span == Span::FromNow,
            is_done: false,
        })
    }

    /// Whether it is of what happens meanwhile: that ends if the client goes.
    pub(super) fn is_recording(&self) -> bool {
        self.is_possible() && self.is_recording
    }

    pub(super) fn fill(&mut self, now: Instant, out: &mut [u8]) -> usize {
        if !self.is_possible() || self.is_done || now < self.next {
            return 0;
        }
        let is_over = now >= self.until;
        self.is_recording &= !is_over;
        match (self.encode)(&mut self.encoder, out, is_over) {
            Filled::Wrote(n) => n,
            Filled::Nothing => {
                self.next = (now + PAUSE).min(self.until);
                0
            }
            Filled::Done => {
                self.is_done = true;
                0
            }
        }
    }

    /// Until when there's nothing to be sent; `None` at the end.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        (self.is_possible() && !self.is_done).then_some(self.next)
    }

    /// Until when it is recorded; `None` if that's over.
    pub(super) fn ends_at(&self, now: Instant) -> Option<Instant> {
        (self.is_possible() && now < self.until).then_some(self.until)
    }

    /// Always, as there is one. The compiler knows of a program that takes none, which so is without all this.
    #[inline]
    fn is_possible(&self) -> bool {
        self.encoder.target().trace().is_some()
    }
}

impl<T: Target> fmt::Debug for Tracing<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.encoder.fmt(f)
    }
}

/// For how long a trace is asked for; `None` if that's too long.
///
/// As Go reads it, in decimal: what is no number, not above zero or NaN is a second. Go would wait for ever, or not at all, where
/// it's infinite or doesn't fit; here that is refused.
pub(super) fn duration(seconds: &[u8]) -> Option<Duration> {
    let nanos = match nanos(seconds) {
        None | Some(0) => DEFAULT,
        Some(nanos) => nanos,
    };
    (nanos <= LONGEST).then(|| Duration::from_nanos(nanos))
}

/// A number of seconds in nanoseconds, rounded down, at least one if it is above zero; at most [`u64::MAX`]. `None` if
/// it's no number, or negative.
fn nanos(text: &[u8]) -> Option<u64> {
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let infinite: [&[u8]; 2] = [b"inf", b"infinity"];
    if infinite.iter().any(|it| text.eq_ignore_ascii_case(it)) {
        return Some(u64::MAX);
    }
    let (number, exponent) = match cut(text, b"eE") {
        (number, Some(exponent)) => (number, power(exponent)?),
        (number, None) => (number, 0),
    };
    let (whole, fraction) = cut(number, b".");
    let fraction = fraction.unwrap_or_default();
    let digits = whole.iter().chain(fraction).copied();
    if whole.is_empty() && fraction.is_empty() || digits.clone().any(|it| !it.is_ascii_digit()) {
        return None;
    }
    // The place of the first digit after the point, if nanoseconds are ones.
    let mut place = exponent.saturating_add(9 + whole.len() as i32);
    let mut nanos = 0u64;
    let mut is_above = false;
    for digit in digits {
        let digit = u64::from(digit - b'0');
        is_above |= digit != 0;
        if place > 0 {
            nanos = nanos.saturating_mul(10).saturating_add(digit);
        }
        place -= 1;
    }
    while place > 0 && nanos != 0 && nanos != u64::MAX {
        nanos = nanos.saturating_mul(10);
        place -= 1;
    }
    Some(nanos.max(u64::from(is_above)))
}

/// A text as far as the first of some bytes, and what is behind that, if there's one.
fn cut<'t>(text: &'t [u8], at: &[u8]) -> (&'t [u8], Option<&'t [u8]>) {
    let mut parts = text.splitn(2, |byte| at.contains(byte));
    (parts.next().unwrap_or_default(), parts.next())
}

/// An exponent; one that is too large to matter is cut off.
fn power(text: &[u8]) -> Option<i32> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut power = 0i32;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        power = (power * 10 + i32::from(digit - b'0')).min(100_000);
    }
    Some(if is_negative { -power } else { power })
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_go_takes_it() {
        let millis = |text: &str| duration(text.as_bytes()).map(|it| it.as_millis());
        for (text, expected) in [
            ("", 1000),
            ("0.2", 200),
            ("2", 2000),
            ("+1.5", 1500),
            (".5", 500),
            ("5.", 5000),
            ("25e-2", 250),
            ("0.0025E+3", 2500),
            ("86400", 86_400_000),
            ("0", 1000),
            ("-3", 1000),
            ("NaN", 1000),
            ("1s", 1000),
            (".", 1000),
            ("e5", 1000),
            ("1e", 1000),
            ("1e5x", 1000),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        for text in [
            "+Inf",
            "inf",
            "Infinity",
            "1e99",
            "86401",
            "1e999999999999",
            "99999999999999999999",
        ] {
            assert_eq!(millis(text), None, "{text}");
        }
        assert_eq!(duration(b"1e-99999"), Some(Duration::from_nanos(1)));
    }

    proptest! {
        #[test]
        fn numbers_are_what_they_are(text in "[0-9]{0,6}(\\.[0-9]{0,12})?(e-?[0-9]{1,2})?") {
            let expected = text.parse::<f64>().ok().map(|it| it * 1e9);
            match (nanos(text.as_bytes()), expected) {
                (None, None) => {}
                (Some(u64::MAX), Some(nanos)) => prop_assert!(nanos >= 1.8e19),
                (Some(ours), Some(nanos)) => {
                    let difference = (ours as f64 - nanos).abs();
                    prop_assert!(difference <= 1.0 + nanos * 1e-9, "{ours} {nanos}");
                }
                (ours, theirs) => prop_assert!(false, "{ours:?} {theirs:?}"),
            }
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.eEinfIN_x ]{0,30}") {
            let _ = duration(text.as_bytes());
        }
    }
}
