//! Numbers and times in texts, as `core::fmt` writes them, without its means: those take a Cortex-M3 four KiB.
//!
//! Hardly anything is inlined: there are many calls, and texts are not what has to be fast.

#![forbid(unsafe_code)]

use super::wire::Window;

impl Window<'_> {
    /// A text as it is.
    #[inline(never)]
    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A text with a number in place of each `$`, and of each `%` one that may be below zero.
    #[inline(never)]
    pub(crate) fn numbers(&mut self, text: &str, numbers: &[u64]) {
        let mut numbers = numbers.iter().copied();
        for &byte in text.as_bytes() {
            match byte {
                b'$' => self.decimal(numbers.next().unwrap_or(0)),
                b'%' => self.signed(numbers.next().unwrap_or(0) as i64),
                byte => self.byte(byte),
            }
        }
    }

    /// `{}`.
    pub(crate) fn decimal(&mut self, mut value: u64) {
        let mut digits = [0; 20];
        let mut first = digits.len();
        for place in digits.iter_mut().rev() {
            let digit;
            (value, digit) = divided(value, 10);
            *place = b'0' + digit as u8;
            first -= 1;
            if value == 0 {
                break;
            }
        }
        self.bytes(digits.get(first..).unwrap_or_default());
    }

    /// The same of what may be below zero.
    #[inline(never)]
    pub(crate) fn signed(&mut self, value: i64) {
        if value < 0 {
            self.byte(b'-');
        }
        self.decimal(value.unsigned_abs());
    }

    /// `{:#x}`.
    #[inline(never)]
    pub(crate) fn hex(&mut self, value: usize) {
        self.text("0x");
        self.hex_digits(
            value,
            (usize::BITS - (value | 1).leading_zeros()).div_ceil(4),
        );
    }

    /// The last so many hexadecimal digits.
    #[inline(never)]
    pub(crate) fn hex_digits(&mut self, value: usize, digits: u32) {
        for place in (0..digits).rev() {
            let digit = (value >> (4 * place) & 15) as u8;
            self.byte(digit + if digit < 10 { b'0' } else { b'a' - 10 });
        }
    }

    /// `{}`.
    #[inline(never)]
    pub(crate) fn character(&mut self, character: char) {
        self.text(character.encode_utf8(&mut [0; 4]));
    }

    /// `{:.1?}` of a `Duration` of so many nanoseconds.
    #[inline(never)]
    pub(crate) fn duration(&mut self, nanos: u64) {
        // The product of the two is a tenth of the unit.
        let (factors, unit) = match nanos {
            0..1_000 => {
                self.decimal(nanos);
                self.text(".0ns");
                return;
            }
            1_000..1_000_000 => ([1, 100], "µs"),
            1_000_000..1_000_000_000 => ([100, 1_000], "ms"),
            _ => ([10_000, 10_000], "s"),
        };
        let (parts, low) = divided(nanos, factors[0]);
        let (mut tenths, high) = divided(parts, factors[1]);
        let [rest, half] = [high * factors[0] + low, factors[1] * factors[0] / 2];
        // To the nearest, of two the even one.
        if rest > half || rest == half && tenths % 2 == 1 {
            tenths += 1;
        }
        let (whole, tenth) = divided(tenths, 10);
        self.numbers("$.$", &[whole, tenth.into()]);
        self.text(unit);
    }
}

/// Quotient and remainder of a division by what half a word holds.
///
/// In steps for which 32-bit machines have an instruction: what divides 64 bits for them is large.
pub(crate) fn divided(value: u64, by: u32) -> (u64, u32) {
    let (high, low) = ((value >> 32) as u32, value as u32);
    let middle = (high % by) << 16 | low >> 16;
    let last = (middle % by) << 16 | low & 0xffff;
    let quotient = u64::from(high / by) << 32 | u64::from(middle / by) << 16 | u64::from(last / by);
    (quotient, last % by)
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use core::time::Duration;
    use std::format;
    use std::string::String;

    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Window<'_>)) -> String {
        let mut out = [0; 100];
        let mut window = Window::new(&mut out);
        write(&mut window);
        let filled = window.filled();
        String::from_utf8(out[..filled].into()).unwrap()
    }

    #[test]
    fn a_text_has_its_numbers() {
        assert_eq!(written(|w| w.numbers("$ of $.", &[7, 0])), "7 of 0.");
        let below = -8i64 as u64;
        assert_eq!(written(|w| w.numbers("$: %", &[9, below])), "9: -8");
    }

    #[test]
    fn powers_of_ten_have_their_digits() {
        let powers = (0..20).flat_map(|n| [10u64.pow(n) - 1, 10u64.pow(n), 10u64.pow(n) + 1]);
        for number in powers.chain([u64::MAX]) {
            assert_eq!(written(|w| w.decimal(number)), format!("{number}"));
        }
    }

    /// Numbers of all lengths, and such that are a half of something.
    fn numbers() -> impl Strategy<Value = u64> {
        let any_length = (any::<u64>(), 0u32..64).prop_map(|(n, shift)| n >> shift);
        let halves =
            (0u64..1000, 0u32..18).prop_map(|(n, zeros)| (n * 5).wrapping_mul(10u64.pow(zeros)));
        prop_oneof![any_length, halves]
    }

    proptest! {
        #[test]
        fn as_core_writes_them(number in numbers(), character: char) {
            prop_assert_eq!(written(|w| w.decimal(number)), format!("{number}"));
            let signed = number as i64;
            prop_assert_eq!(written(|w| w.signed(signed)), format!("{signed}"));
            let address = number as usize;
            prop_assert_eq!(written(|w| w.hex(address)), format!("{address:#x}"));
            prop_assert_eq!(written(|w| w.character(character)), format!("{character}"));
            let duration = Duration::from_nanos(number);
            prop_assert_eq!(written(|w| w.duration(number)), format!("{duration:.1?}"));
        }

        #[test]
        fn divides_as_the_machine(value in numbers(), by in 1u32..=1 << 16) {
            let expected = (value / u64::from(by), (value % u64::from(by)) as u32);
            prop_assert_eq!(divided(value, by), expected);
        }
    }
}
