//! The words of a response's memory, half by half: 32-bit machines have no word that is longer.
//!
//! By their bytes: a choice of a half would be made a shift by so many bits, which takes such machines long.

#![forbid(unsafe_code)]

/// The half at a place; 0 where there is none.
#[inline]
pub(crate) fn at(words: &[u64], place: usize) -> u32 {
    words.get(place / 2).map_or(0, |word| {
        let bytes = word.to_le_bytes();
        let (halves, _) = bytes.as_chunks::<4>();
        u32::from_le_bytes(halves[place % 2])
    })
}

/// Sets bits of the half at a place; false where there is none.
#[inline]
pub(crate) fn set(words: &mut [u64], place: usize, bits: u32) -> bool {
    let Some(word) = words.get_mut(place / 2) else {
        return false;
    };
    let mut bytes = word.to_le_bytes();
    let (halves, _) = bytes.as_chunks_mut::<4>();
    let half = &mut halves[place % 2];
    *half = (u32::from_le_bytes(*half) | bits).to_le_bytes();
    *word = u64::from_le_bytes(bytes);
    true
}
