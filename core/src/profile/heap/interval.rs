//! Poisson sampling of bytes: how far to the next sample, and how much a sample stands for.
//!
//! Each byte is sampled with probability 1/rate, independently, so the distance to the next sampled byte is
//! exponential with mean `rate`, and an allocation of `size` bytes is sampled with probability
//! 1 - e^(-size/rate). Both in integers: this runs on machines without floating point, and inside allocators.

#![forbid(unsafe_code)]

/// 1 in the Q32 fixed point of this file.
const ONE: u64 = 1 << 32;
/// ln 2 in Q32.
const LN_2: u64 = 2_977_044_472;

/// Bytes that pass before the one that is sampled next: an exponentially distributed distance with mean `rate`,
/// rounded down. An allocation that is larger than what is left of them is a sample; so an allocation of `size` bytes is
/// one with exactly the probability above, and with a rate of 1 or 0 each is.
///
/// `random` is 32 uniform bits. The distance is at most 22 times the mean, as 32 bits have no smaller
/// probability than 2^-32. About 130 instructions.
#[must_use]
pub fn next_sample(rate: usize, random: u32) -> usize {
    if rate <= 1 {
        return 0;
    }
    // u in (0, 1] as (random + 1) / 2^32; -ln u = (32 - log2(random + 1)) * ln 2.
    let minus_log2 = (32 << 32) - log2(u64::from(random) + 1);
    let minus_ln = (u128::from(minus_log2) * u128::from(LN_2)) >> 32;
    let distance = (minus_ln * rate as u128) >> 32;
    usize::try_from(distance).unwrap_or(usize::MAX)
}

/// `sampled` (objects, or bytes), of allocations of `size` bytes each, as an estimate of all there were: times
/// 1 / (1 - e^(-size/rate)).
///
/// This is `scaleHeapSample` of Go's runtime/pprof. A rate of 0 or 1 means that every allocation was sampled.
#[must_use]
pub fn unsample(sampled: u64, size: u64, rate: usize) -> u64 {
    let rate = rate as u64;
    if rate <= 1 || size == 0 || sampled == 0 {
        return sampled;
    }
    let sampled = u128::from(sampled);
    let estimate = if size < rate / 4 {
        // With x = size/rate below 1/4: 1/(1 - e^-x) = 1/x + 1/2 + x/12 - x^3/720 …; what is cut off is
        // below 6e-6 of it.
        let (size, rate) = (u128::from(size), u128::from(rate));
        sampled * rate / size + sampled / 2 + sampled * size / (12 * rate)
    } else {
        // Beyond x = 32 the probability rounds to 1.
        let x = (u128::from(size) << 32) / u128::from(rate);
        let probability = match u64::try_from(x) {
            Ok(x) if x < 32 * ONE => ONE - exp_minus(x),
            _ => ONE,
        };
        (sampled << 32) / u128::from(probability)
    };
    u64::try_from(estimate).unwrap_or(u64::MAX)
}

/// log2 of a number from 1 to 2^32, in Q32; 20 bits of the fraction are right.
fn log2(n: u64) -> u64 {
    let whole = u64::from(63 - n.leading_zeros());
    // The mantissa in [1, 2) as Q31, whose square fits; each squaring brings one bit of the fraction to
    // the front.
    let mut mantissa = (n << (63 - whole)) >> 32;
    let mut fraction = 0;
    for bit in (12..32).rev() {
        mantissa = (mantissa * mantissa) >> 31;
        if mantissa >= ONE {
            mantissa >>= 1;
            fraction |= 1 << bit;
        }
    }
    whole << 32 | fraction
}

/// e^-x for `x` below 32, both in Q32.
fn exp_minus(x: u64) -> u64 {
    // e^-x = 2^-k * e^-y with y below ln 2; e^-y by its series in Horner's form, to y^9/9! < 1e-7.
    let (k, y) = (x / LN_2, x % LN_2);
    let series = (1..=9)
        .rev()
        .fold(ONE, |sum, n| ONE - ((y * sum) >> 32) / n);
    series.checked_shr(k as u32).unwrap_or(0)
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn distances_are_exponential() {
        let rate = 512 * 1024;
        let n = 1 << 16;
        // Evenly spread u, so that mean and median are exact but for the arithmetic's error.
        let distances = (0..n).map(|i| next_sample(rate, (i << 16) + (1 << 15)));
        let mean = distances.clone().map(|d| d as f64).sum::<f64>() / f64::from(n);
        assert!((mean / rate as f64 - 1.0).abs() < 1e-3, "{mean}");
        let below_median = distances.filter(|&d| (d as f64) < rate as f64 * 2f64.ln());
        assert!((below_median.count() as f64 / f64::from(n) - 0.5).abs() < 1e-3);
        assert_eq!(next_sample(1, 5), 0);
        assert_eq!(next_sample(0, 5), 0);
        assert!(next_sample(rate, 0) < 23 * rate);
        assert_eq!(next_sample(rate, u32::MAX), 0);
        assert!(next_sample(usize::MAX, 0) == usize::MAX);
    }

    #[test]
    fn estimates_agree_with_floating_point() {
        for rate in [2usize, 100, 4096, 512 * 1024, 1 << 30] {
            for size in [1u64, 8, 100, 1000, 4096, 100_000, 1 << 20, 1 << 33] {
                for sampled in [1u64, 77, 1_000_000_007, 1 << 45] {
                    let exact = (sampled as f64 / -(-(size as f64) / rate as f64).exp_m1())
                        .min(u64::MAX as f64);
                    let ours = unsample(sampled, size, rate) as f64;
                    let error = (ours - exact).abs();
                    assert!(
                        error <= 3.0 + exact * 1e-5,
                        "{sampled} of {size} at {rate}: {ours} for {exact}"
                    );
                }
            }
        }
        assert_eq!(unsample(u64::MAX, 1, usize::MAX), u64::MAX);
        assert_eq!(unsample(5, 0, 100), 5);
        assert_eq!(unsample(5, 100, 1), 5);
    }
}
