//! Names that are there for ever, each of which has a number.
//!
//! The one place where a name is made of its address and length again.

#![allow(unsafe_code)]

use crate::stack::set;
use crate::sync::{AtomicUsize, Ordering};

/// The longest name, in bytes: Go's readers take no longer string. On a 16-bit machine, what a word has room for.
const MAX_LEN: usize = if LEN < 1024 { LEN } else { 1024 };
/// Bits of a name's word that hold its length; the place of its address is in the others.
const HALF: u32 = usize::BITS / 2;
const LEN: usize = (1 << HALF) - 1;

/// The names that were given to some trace: two sets of words, as a stack table's are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    /// The addresses of their first bytes.
    addresses: &'a [AtomicUsize],
    /// An address's place in `addresses`, and the length of a name that begins there.
    names: &'a [AtomicUsize],
}

impl<'a> Names<'a> {
    /// # Safety
    ///
    /// Both are all zeros, or nothing was ever written to them but by [`number`](Self::number) of such a pair of these two.
    pub(super) const unsafe fn new(addresses: &'a [AtomicUsize], names: &'a [AtomicUsize]) -> Self {
        Self { addresses, names }
    }

    /// The number of a name, which is cut off after 1,024 bytes: from 1 up. 0 of the empty one, `None` if there's no room.
    ///
    /// May run in a signal handler or an interrupt: two look-ups.
    pub(super) fn number(&self, name: &'static str) -> Option<u32> {
        let name = clipped(name, MAX_LEN);
        if name.is_empty() {
            return Some(0);
        }
        let address = name.as_ptr().expose_provenance();
        let place = set::find_or_insert(self.addresses, address)?;
        let word = (place << HALF) | name.len();
        Some(set::find_or_insert(self.names, word)? as u32 + 1)
    }

    /// The name with this number; empty if there's none.
    pub(super) fn get(&self, number: u32) -> &'static str {
        self.find(number).unwrap_or_default()
    }

    fn find(&self, number: u32) -> Option<&'static str> {
        let index = number.checked_sub(1)?;
        let word = self.names.get(index as usize)?.load(Ordering::Acquire);
        if word == 0 {
            return None;
        }
        let address = self.addresses.get(word >> HALF)?.load(Ordering::Acquire);
        let start = core::ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: `new`'s caller says that all words are `number`'s, which puts a place and a length together only for a
        // `&'static str` that begins at the address there, which it has exposed, and has that length. A word never
        // changes, and the address was there before the other.
        let bytes: &'static [u8] = unsafe { core::slice::from_raw_parts(start, word & LEN) };
        // SAFETY: these are that `str`'s bytes.
        Some(unsafe { core::str::from_utf8_unchecked(bytes) })
    }
}

/// The front of a text, up to so many bytes and whole characters.
#[inline]
pub(crate) fn clipped(text: &str, len: usize) -> &str {
    if text.len() <= len {
        return text;
    }
    let mut end = len;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let addresses = [const { AtomicUsize::new(0) }; 8];
        let words = [const { AtomicUsize::new(0) }; 8];
        // SAFETY: they are zeros, and used here alone.
        let names = unsafe { Names::new(&addresses, &words) };
        let all = "a longer one, with ü";
        let some = [&all[..1], all, "", &all[2..8]];
        let numbers = some.map(|name| names.number(name).unwrap());
        assert_eq!(numbers.map(|number| names.get(number)), some);
        assert_eq!(names.number(all), Some(numbers[1]));
        assert_eq!(names.get(77), "");
        assert_eq!(names.get(u32::MAX), "");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(clipped("aü", 2), "a");
        assert_eq!(clipped("aü", 3), "aü");
        assert_eq!(clipped("aü", 0), "");
    }
}
