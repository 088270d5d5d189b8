//! The words of a response's memory, byte by byte.
//!
//! Not by shifts: to shift 64 bits by an amount that is not known takes a 32-bit machine long.

#![forbid(unsafe_code)]

/// The byte at a place; 0 where there is none.
#[inline]
pub(crate) fn at(words: &[u64], place: usize) -> u8 {
    words
        .get(place / 8)
        .map_or(0, |word| word.to_le_bytes()[place % 8])
}

/// Sets bits of the byte at a place, if there is one.
#[inline]
pub(crate) fn set(words: &mut [u64], place: usize, bits: u8) {
    if let Some(word) = words.get_mut(place / 8) {
        let mut bytes = word.to_le_bytes();
        bytes[place % 8] |= bits;
        *word = u64::from_le_bytes(bytes);
    }
}
