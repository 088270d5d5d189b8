//! Compression in LZ4's block format, for small memories: no buffer for what comes out, and 512 bytes to find repetitions
//! with.

#![forbid(unsafe_code)]

/// The most bytes that are compressed in one go. Each block can be decompressed by itself.
pub const BLOCK: usize = 1024;

/// Slots for where four bytes were last seen.
const SLOTS: usize = 256;

/// The shortest repetition that has a code.
const MIN_MATCH: usize = 4;

/// The last bytes of a block are always literal ("End of block conditions" of the format).
const LAST_LITERALS: usize = 5;

/// No repetition begins this close to the end.
const MATCH_MARGIN: usize = 12;

/// Compresses blocks of up to [`BLOCK`] bytes.
#[derive(Debug)]
pub struct Compressor {
    /// One more than the place where the four bytes of this hash were last seen; 0 if nowhere.
    seen: [u16; SLOTS],
}

impl Compressor {
    /// A compressor at rest.
    #[must_use]
    pub const fn new() -> Self {
        Self { seen: [0; SLOTS] }
    }

    /// Hands the compressed form of `block` to `out`, bit by bit. What is beyond [`BLOCK`] is left out.
    #[inline(never)]
    pub fn compress_block(&mut self, block: &[u8], out: &mut dyn FnMut(&[u8])) {
        let block = &block[..block.len().min(BLOCK)];
        self.seen.fill(0);
        let mut literals = 0;
        let mut at = 0;
        while at + MATCH_MARGIN <= block.len() {
            let Some(before) = self.find(block, at) else {
                at += 1;
                continue;
            };
            let end = block.len() - LAST_LITERALS;
            let len = match_length(&block[before..], &block[at..end]);
            emit_sequence(&block[literals..at], Some((at - before, len)), out);
            at += len;
            literals = at;
        }
        emit_sequence(&block[literals..], None, out);
    }

    /// Where the four bytes at `at` were seen before.
    #[inline]
    fn find(&mut self, block: &[u8], at: usize) -> Option<usize> {
        let four = block.get(at..at + MIN_MATCH)?;
        let slot = &mut self.seen[hash(four)];
        let before = usize::from(*slot).checked_sub(1);
        *slot = at as u16 + 1;
        before.filter(|&before| block.get(before..before + MIN_MATCH) == Some(four))
    }
}

impl Default for Compressor {
    fn default() -> Self {
        Self::new()
    }
}

/// Knuth's multiplicative hash.
#[inline]
fn hash(four: &[u8]) -> usize {
    let word = four
        .iter()
        .fold(0, |word: u32, &byte| word << 8 | u32::from(byte));
    (word.wrapping_mul(2_654_435_761) >> 24) as usize
}

/// How many bytes the two have in common at their beginning.
#[inline]
fn match_length(before: &[u8], now: &[u8]) -> usize {
    now.iter()
        .zip(before)
        .take_while(|(now, before)| now == before)
        .count()
}

/// Literal bytes, and the repetition that follows them: how far back, and how long.
#[inline(never)]
fn emit_sequence(literals: &[u8], repeat: Option<(usize, usize)>, out: &mut dyn FnMut(&[u8])) {
    let more = repeat.map_or(0, |(_, len)| len - MIN_MATCH);
    let token = (nibble(literals.len()) << 4) | nibble(more);
    out(&[token]);
    emit_rest(literals.len(), out);
    out(literals);
    if let Some((distance, _)) = repeat {
        out(&(distance as u16).to_le_bytes());
        emit_rest(more, out);
    }
}

/// A length's part in the token.
#[inline]
fn nibble(len: usize) -> u8 {
    len.min(15) as u8
}

/// What of a length is not in the token.
#[inline]
fn emit_rest(len: usize, out: &mut dyn FnMut(&[u8])) {
    let Some(mut rest) = len.checked_sub(15) else {
        return;
    };
    while rest >= 255 {
        out(&[255]);
        rest -= 255;
    }
    out(&[rest as u8]);
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn compressed(block: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Compressor::new().compress_block(block, &mut |part| bytes.extend_from_slice(part));
        bytes
    }

    #[test]
    fn text_becomes_small() {
        let text = b"1042 ch3 -217\n1043 ch3 -218\n1044 ch3 -219\n".repeat(20);
        assert!(compressed(&text).len() < text.len() / 10);
    }

    #[test]
    fn long_lengths_have_more_bytes() {
        for len in [0, 1, 14, 15, 16, 269, 270, 271, 600, BLOCK] {
            let zeros = std::vec![0; len];
            let bytes = compressed(&zeros);
            assert_eq!(
                lz4_flex::block::decompress(&bytes, len).unwrap(),
                zeros,
                "{len}"
            );
        }
    }

    proptest! {
        #[test]
        fn lz4_decompresses_it(block in prop::collection::vec(0u8..4, 0..BLOCK)) {
            prop_assert_eq!(lz4_flex::block::decompress(&compressed(&block), block.len()).unwrap(), block);
        }

        #[test]
        fn noise_grows_by_little(block in prop::collection::vec(any::<u8>(), 0..BLOCK)) {
            let bytes = compressed(&block);
            prop_assert!(bytes.len() <= block.len() + block.len() / 255 + 16);
            prop_assert_eq!(lz4_flex::block::decompress(&bytes, block.len()).unwrap(), block);
        }
    }
}
