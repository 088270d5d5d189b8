//! Regions that are open: of each goroutine, a list from the innermost outwards.

#![forbid(unsafe_code)]

use crate::profile::trace::host::REGION_WORDS;

type Slot = [u64; REGION_WORDS];

/// An open region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    pub(super) id: u32,
    /// It has ended, but others began within it that have not.
    pub(super) is_over: bool,
    pub(super) task: u32,
    /// A [`Text`](super::text::Text)'s bits.
    pub(super) name: u64,
    /// One more than the next one outwards, or 0.
    pub(super) outer: u32,
}

/// All open regions. What isn't one is free.
#[derive(Debug)]
pub(super) struct Regions<'m> {
    slots: &'m mut [Slot],
}

const IS_OVER: u64 = 1 << 32;

impl<'m> Regions<'m> {
    pub(super) fn new(words: &'m mut [u64]) -> Self {
        let (slots, _) = words.as_chunks_mut();
        Self { slots }
    }

    /// One more than the place that it is put in; `None` if there's no room.
    pub(super) fn add(&mut self, region: Region) -> Option<u32> {
        let index = self.slots.iter().position(|slot| slot[0] == 0)?;
        self.set(index as u32 + 1, region);
        Some(index as u32 + 1)
    }

    pub(super) fn get(&self, place: u32) -> Option<Region> {
        let &[about, name, outer] = self.slots.get(place.checked_sub(1)? as usize)?;
        (about != 0).then_some(Region {
            id: about as u32,
            is_over: about & IS_OVER != 0,
            task: (outer >> 32) as u32,
            name,
            outer: outer as u32,
        })
    }

    pub(super) fn set(&mut self, place: u32, region: Region) {
        let slot = (place.checked_sub(1)).and_then(|index| self.slots.get_mut(index as usize));
        if let Some(slot) = slot {
            let over = if region.is_over { IS_OVER } else { 0 };
            *slot = [
                u64::from(region.id) | over,
                region.name,
                u64::from(region.outer) | u64::from(region.task) << 32,
            ];
        }
    }

    pub(super) fn remove(&mut self, place: u32) {
        let slot = (place.checked_sub(1)).and_then(|index| self.slots.get_mut(index as usize));
        if let Some(slot) = slot {
            *slot = [0; REGION_WORDS];
        }
    }

    /// Marks a region as over, wherever it is.
    pub(super) fn end(&mut self, id: u32) {
        let slot = self.slots.iter_mut().find(|slot| slot[0] as u32 == id);
        if let Some(slot) = slot {
            slot[0] |= IS_OVER;
        }
    }
}
