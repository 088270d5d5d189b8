//! The stack as an array of words, so that one comparison checks a read.

#![allow(unsafe_code)]

use picoprof::stack::capture::StackBounds;

const WORD: usize = size_of::<usize>();

/// The words inside a [`StackBounds`], numbered upwards from 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    base: usize,
    len: usize,
}

impl Words {
    pub(super) fn of(bounds: StackBounds) -> Self {
        let base = bounds
            .low()
            .checked_next_multiple_of(WORD)
            .unwrap_or(usize::MAX);
        Self {
            base,
            len: bounds.high().saturating_sub(base) / WORD,
        }
    }

    /// The number of the word at `address`; beyond every length if it is below the first or not aligned,
    /// as the rotation brings the low bits or the borrow to the top.
    #[inline]
    pub(super) const fn index(self, address: usize) -> usize {
        address
            .wrapping_sub(self.base)
            .rotate_right(WORD.trailing_zeros())
    }

    /// The word numbered `index`. May run in a signal handler.
    #[inline]
    pub(super) fn get(self, index: usize) -> Option<usize> {
        // SAFETY: the number is below `len`.
        (index < self.len).then(|| unsafe { self.load(index) })
    }

    /// The words numbered `index` and `index + 1`. May run in a signal handler.
    #[inline]
    pub(super) fn pair(self, index: usize) -> Option<(usize, usize)> {
        if index >= self.len.saturating_sub(1) {
            return None;
        }
        // SAFETY: the number is below `len`.
        let first = unsafe { self.load(index) };
        // SAFETY: so is the next one.
        Some((first, unsafe { self.load(index + 1) }))
    }

    /// For pairs at rising addresses.
    #[inline]
    pub(super) const fn rising(self) -> Rising {
        let pairs = self.len.saturating_sub(1);
        // Of the last pair, if there is one.
        let last = self
            .base
            .wrapping_add(pairs.wrapping_sub(1).wrapping_mul(WORD));
        Rising {
            not_last: !last,
            before: !pairs,
        }
    }

    /// # Safety
    ///
    /// `index` must be below `len`.
    #[inline]
    unsafe fn load(self, index: usize) -> usize {
        let word = core::ptr::with_exposed_provenance::<usize>(self.base + index * WORD);
        // SAFETY: `of` numbers only aligned words that lie wholly inside a `StackBounds`, and the caller of
        // `StackBounds::new` vouched that each of them is readable for as long as the bounds are used, which
        // is while this copy of them is. Volatile, as the owner may be writing the word.
        unsafe { word.read_volatile() }
    }

    /// The word at `address`, if it is aligned and inside. May run in a signal handler.
    #[inline]
    pub(super) fn read(self, address: usize) -> Option<usize> {
        self.get(self.index(address))
    }
}

/// Reads pairs of [`Words`] at addresses that rise from one to the next.
#[derive(Debug)]
pub(super) struct Rising {
    /// Where the last pair begins, with all bits flipped: x86-64 keeps the address where it adds, not where it
    /// subtracts.
    not_last: usize,
    /// The rank of the pair that was read before, or of what is just below the first one.
    before: usize,
}

impl Rising {
    /// The word at `address` and the one above; None if they are not both inside, `address` is not aligned or not above
    /// the one before. May run in a signal handler.
    #[inline(always)]
    pub(super) fn pair(&mut self, address: usize) -> Option<(usize, usize)> {
        // All ones for the last pair, one less for each below it. As with `Words::index`, one comparison tells all: the
        // sum is `address - last - 1`, and the rotation brings its low bits to the top. They are all ones only if the
        // address is aligned; above the last pair the sum is small, and what follows them is less than for any pair.
        let rank = address
            .wrapping_add(self.not_last)
            .rotate_right(WORD.trailing_zeros());
        if rank <= self.before {
            return None;
        }
        self.before = rank;
        let pair = core::ptr::with_exposed_provenance::<usize>(address);
        // SAFETY: `last` is aligned, and the rank is all ones less a number that is below that of the pairs. There are too
        // few of those to reach the bits that were rotated to the top, so `address` is `last` less so many words: one of
        // the pairs, which are readable as `Words::load` says.
        let first = unsafe { pair.read_volatile() };
        let second = pair.wrapping_add(1);
        // SAFETY: so is the second word of that pair.
        Some((first, unsafe { second.read_volatile() }))
    }
}

/// Calls `f` with the bounds of `words`, which it must not keep. Atomic, as a walk reads them by their address.
#[cfg(all(test, target_arch = "x86_64"))]
pub(super) fn with_bounds<R>(
    words: &[core::sync::atomic::AtomicUsize],
    f: impl FnOnce(StackBounds) -> R,
) -> R {
    let low = words.as_ptr().expose_provenance();
    // SAFETY: the words are borrowed until `f` returns.
    f(unsafe { StackBounds::new(low, low + size_of_val(words)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_read_agrees_with_the_bounds_it_came_from() {
        let words = [11_usize, 22, 33];
        let low = words.as_ptr().expose_provenance();
        for (from, to) in [
            (low, low + 24),
            (low + 1, low + 24),
            (low, low + 23),
            (low + 8, low + 8),
        ] {
            // SAFETY: inside `words`, which outlives the bounds.
            let bounds = unsafe { StackBounds::new(from, to) };
            let stack = Words::of(bounds);
            for address in (low - 32..low + 64).chain([0, 8, usize::MAX - 7, usize::MAX]) {
                assert_eq!(stack.read(address), bounds.read(address), "{address:#x}");
                let both = bounds
                    .read(address)
                    .zip(bounds.read(address.wrapping_add(8)));
                assert_eq!(stack.pair(stack.index(address)), both, "{address:#x}");
                let mut rising = stack.rising();
                assert_eq!(rising.pair(address), both, "{address:#x}");
                // Nothing at or below it any more, and all above.
                if both.is_some() {
                    assert_eq!(rising.pair(address), None, "{address:#x}");
                    assert_eq!(rising.pair(address - 8), None, "{address:#x}");
                    let next = address + 8;
                    let above = stack.pair(stack.index(next));
                    assert_eq!(rising.pair(next), above, "{address:#x}");
                }
            }
        }
        assert_eq!(Words::of(StackBounds::EMPTY).read(0), None);
    }
}
