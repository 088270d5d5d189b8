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
    pub(crate) fn with_room(count: usize, scratch: impl Fn(usize) -> Option<S>) -> Option<Self> {
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

/// Sorts pairs by their first words, and those with the same by their second.
pub(crate) fn sort(pairs: &mut [[u64; 2]]) {
    #[cfg(target_pointer_width = "64")]
    pairs.sort_unstable();
    // The library's is four KiB of code, and there's not so much to sort.
    #[cfg(not(target_pointer_width = "64"))]
    heap_sort(pairs);
}

#[cfg(any(test, not(target_pointer_width = "64")))]
fn heap_sort(pairs: &mut [[u64; 2]]) {
    // First what makes it a heap, with the greatest in front; then the greatest of the rest goes to its end.
    for step in (0..pairs.len() + pairs.len() / 2).rev() {
        let (root, len) = match step.checked_sub(pairs.len()) {
            Some(root) => (root, pairs.len()),
            None => {
                swap(pairs, 0, step);
                (0, step)
            }
        };
        if let Some(heap) = pairs.get_mut(..len) {
            sift_down(heap, root);
        }
    }
}

/// Lets the pair at `place` sink below those that are greater.
#[cfg(any(test, not(target_pointer_width = "64")))]
fn sift_down(heap: &mut [[u64; 2]], mut place: usize) {
    loop {
        let mut greatest = place;
        for child in [2 * place + 1, 2 * place + 2] {
            if heap
                .get(child)
                .is_some_and(|pair| Some(pair) > heap.get(greatest))
            {
                greatest = child;
            }
        }
        if greatest == place {
            return;
        }
        swap(heap, place, greatest);
        place = greatest;
    }
}

/// Word by word: pairs would be moved by a `memmove` of any length.
#[cfg(any(test, not(target_pointer_width = "64")))]
fn swap(pairs: &mut [[u64; 2]], a: usize, b: usize) {
    let words = pairs.as_flattened_mut();
    words.swap(2 * a, 2 * b);
    words.swap(2 * a + 1, 2 * b + 1);
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_ways_to_sort_agree(
            pairs in prop::collection::vec(prop::array::uniform2(prop_oneof![0u64..8, any::<u64>()]), 0..100)
        ) {
            let mut expected: Vec<_> = pairs.clone();
            sort(&mut expected);
            let mut sorted = pairs;
            heap_sort(&mut sorted);
            prop_assert_eq!(sorted, expected);
        }
    }
}
