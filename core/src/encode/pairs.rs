//! Pairs of words in the memory of a response: what is sorted here.

#![forbid(unsafe_code)]

/// A list of pairs with a fixed room.
#[derive(Debug)]
pub(crate) struct Pairs<S> {
    words: S,
    len: usize,
}

impl<S: AsRef<[u64]> + AsMut<[u64]>> Pairs<S> {
    /// No pairs, and room for `count`; `None` without memory for that: `scratch` answers so many words of zeros.
    pub(crate) fn with_room(
        count: usize,
        scratch: impl FnOnce(usize) -> Option<S>,
    ) -> Option<Self> {
        let words = scratch(count.checked_mul(2)?)?;
        Some(Self { words, len: 0 })
    }

    /// One more; false if there's no room for it.
    #[inline]
    pub(crate) fn push(&mut self, pair: [u64; 2]) -> bool {
        let (places, _) = self.words.as_mut().as_chunks_mut::<2>();
        let Some(place) = places.get_mut(self.len) else {
            return false;
        };
        *place = pair;
        self.len += 1;
        true
    }

    /// Keeps the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(crate) fn as_slice(&self) -> &[[u64; 2]] {
        let (places, _) = self.words.as_ref().as_chunks::<2>();
        places.get(..self.len).unwrap_or_default()
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [[u64; 2]] {
        let (places, _) = self.words.as_mut().as_chunks_mut::<2>();
        places.get_mut(..self.len).unwrap_or_default()
    }
}
