//! Numbers in order of first use: of the stacks and of the names in a generation.

#![forbid(unsafe_code)]

use crate::profile::trace::host::ID_WORDS;

type Slot = [u64; ID_WORDS];

/// A hash table from keys, which are not 0, to numbers from 1 up, each with 32 bits more.
#[derive(Debug)]
pub(super) struct Ids<'m> {
    slots: &'m mut [Slot],
    len: &'m mut usize,
}

/// What is in a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) slot: usize,
    pub(super) key: u64,
    pub(super) number: u32,
    /// What is kept with it: 0 at first.
    pub(super) beside: u32,
}

impl<'m> Ids<'m> {
    /// In this memory, whose length in slots is a power of two, with so many in it.
    pub(super) fn new(words: &'m mut [u64], len: &'m mut usize) -> Self {
        let (slots, _) = words.as_chunks_mut();
        Self { slots, len }
    }

    /// Whether it has no room for so many more.
    pub(super) fn is_full(&self, more: usize) -> bool {
        // A quarter stays empty, so that a search ends soon.
        *self.len + more > self.slots.len() / 4 * 3
    }

    /// The number of a key, which is one more than `last` if it is new; 0 if there's no room for it, and of 0.
    pub(super) fn number(&mut self, key: u64, last: &mut u32) -> u32 {
        let Some(index) = self.place(key) else {
            return 0;
        };
        let is_full = self.is_full(1);
        let Some(slot) = self.slots.get_mut(index) else {
            return 0;
        };
        if slot[0] == 0 && !is_full {
            *last += 1;
            *self.len += 1;
            *slot = [key, u64::from(*last)];
        }
        slot[1] as u32
    }

    /// What is kept with a key that has a number; 0 of others.
    pub(super) fn beside(&self, key: u64) -> u32 {
        let slot = self.place(key).and_then(|index| self.slots.get(index));
        slot.map_or(0, |slot| (slot[1] >> 32) as u32)
    }

    /// Keeps something with a key, if it has a number.
    pub(super) fn set_beside(&mut self, key: u64, beside: u32) {
        if let Some(slot) = self.place(key).and_then(|index| self.slots.get_mut(index))
            && slot[0] == key
        {
            slot[1] = slot[1] as u32 as u64 | u64::from(beside) << 32;
        }
    }

    pub(super) fn clear(&mut self) {
        if *self.len > 0 {
            self.slots.fill([0; ID_WORDS]);
            *self.len = 0;
        }
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// What is in a slot, if there's something.
    pub(super) fn at(&self, slot: usize) -> Option<Entry> {
        let &[key, value] = self.slots.get(slot)?;
        (key != 0).then_some(Entry {
            slot,
            key,
            number: value as u32,
            beside: (value >> 32) as u32,
        })
    }

    /// The slot of a key, or the empty one that it would go to.
    fn place(&self, key: u64) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1).filter(|_| key != 0)?;
        let home = hash(key) & mask;
        let mut places = (0..=mask).map(|step| (home + step) & mask);
        places.find(|&index| {
            let slot = self.slots.get(index);
            slot.is_some_and(|slot| slot[0] == key || slot[0] == 0)
        })
    }
}

/// What tells keys apart: the middle of a product, which all bits of the key reach.
pub(super) fn hash(key: u64) -> usize {
    let product = (key ^ key >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product >> 32) as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_once_and_in_order() {
        let mut memory = [0; 8 * ID_WORDS];
        let (mut len, mut last) = (0, 10);
        let mut ids = Ids::new(&mut memory, &mut len);
        for round in 0..2 {
            for key in 1..=6 {
                let number = ids.number(key << 40, &mut last);
                assert_eq!(number, 10 + key as u32, "{round}");
            }
        }
        assert!(ids.is_full(1) && !ids.is_full(0));
        assert_eq!(ids.number(77, &mut last), 0);
        assert_eq!(ids.number(0, &mut last), 0);
        ids.set_beside(2 << 40, 5);
        ids.set_beside(77, 5);
        assert_eq!(
            (ids.beside(2 << 40), ids.beside(1 << 40), ids.beside(77)),
            (5, 0, 0)
        );
        assert_eq!(ids.number(2 << 40, &mut last), 12);
        assert_eq!((0..8).filter_map(|slot| ids.at(slot)).count(), 6);
        ids.clear();
        assert_eq!((0..8).filter_map(|slot| ids.at(slot)).count(), 0);
    }
}
