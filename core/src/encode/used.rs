//! Which locations a profile uses, and the ids that they have in it.

#![forbid(unsafe_code)]

use super::halves;
use crate::stack::{LocationId, Marker, Stacks};

/// Markers have the first places, the table's slots the others.
const MARKERS: usize = Marker::ALL.len();

/// A set of locations, each with an id from 1 up.
///
/// Ids by first use are the smallest, so that most take one byte in a sample; that takes half a word of memory a
/// location of the table. With a bit a location, ids go by the table's slots. With no memory at all the set is
/// always full.
#[derive(Debug)]
pub(crate) enum Used<S> {
    /// The id of each place, or 0; two to a word. And the last that was given out.
    Numbered { words: S, last: u32 },
    /// A bit for each place.
    Marked { words: S },
    /// No memory.
    All,
}

impl<S: AsRef<[u64]> + AsMut<[u64]>> Used<S> {
    /// An empty set with the smallest ids that there's memory for: `scratch` answers so many words of zeros.
    pub(crate) fn numbered(stacks: &Stacks<'_>, scratch: impl Fn(usize) -> Option<S>) -> Self {
        match scratch(places(stacks).div_ceil(2)) {
            Some(words) => Self::Numbered { words, last: 0 },
            None => Self::marked(stacks, scratch),
        }
    }

    /// An empty set whose ids don't matter.
    pub(crate) fn marked(stacks: &Stacks<'_>, scratch: impl Fn(usize) -> Option<S>) -> Self {
        match scratch(places(stacks).div_ceil(64)) {
            Some(words) => Self::Marked { words },
            None => Self::All,
        }
    }

    /// Puts a location in; answers its id.
    #[inline]
    pub(crate) fn insert(&mut self, location: LocationId) -> u32 {
        let place = place_of(location);
        match self {
            Self::Numbered { words, last } => return number(words.as_mut(), last, place),
            Self::Marked { words } => {
                halves::set(words.as_mut(), place / 32, 1 << (place % 32));
            }
            Self::All => {}
        }
        place as u32 + 1
    }

    /// The id of a location that is in; 0 for others.
    #[inline]
    pub(crate) fn id(&self, location: LocationId) -> u32 {
        let place = place_of(location);
        match self {
            Self::Numbered { words, .. } => halves::at(words.as_ref(), place),
            Self::Marked { words }
                if halves::at(words.as_ref(), place / 32) >> (place % 32) & 1 == 0 =>
            {
                0
            }
            Self::Marked { .. } | Self::All => place as u32 + 1,
        }
    }

    /// Whether a location is in.
    #[inline]
    pub(crate) fn contains(&self, location: LocationId) -> bool {
        self.id(location) != 0
    }
}

/// The id at a place, which gets the next if it has none; 0 where there's no such place.
#[inline]
fn number(words: &mut [u64], last: &mut u32, place: usize) -> u32 {
    let id = halves::at(words, place);
    if id != 0 || !halves::set(words, place, *last + 1) {
        return id;
    }
    *last += 1;
    *last
}

/// How many places there are: one for each location that a table can have.
pub(crate) const fn places(stacks: &Stacks<'_>) -> usize {
    places_of(stacks.location_capacity())
}

/// The same for a table with room for so many locations.
pub(crate) const fn places_of(locations: usize) -> usize {
    locations + MARKERS
}

/// The location at a place.
pub(crate) fn location_at(place: usize) -> Option<LocationId> {
    match Marker::ALL.get(place) {
        Some(marker) => Some(marker.location()),
        None => Some(LocationId::new(u32::try_from(place - MARKERS).ok()?)),
    }
}

/// The place of a location.
#[inline]
pub(crate) fn place_of(location: LocationId) -> usize {
    match location.marker() {
        Some(marker) => marker as usize,
        None => location.index() as usize + MARKERS,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::stack::StackTable;

    #[test]
    fn ids_are_unique_and_stay_whatever_the_memory() {
        let table = StackTable::<64, 64>::new();
        let stacks = table.view();
        let locations = [9, 3, 63, 0, 9].map(LocationId::new);
        let with_memory =
            |limit: usize| move |words: usize| (words <= limit).then(|| vec![0u64; words]);
        for (limit, expected) in [
            (100, [1, 2, 3, 4, 1]),
            (2, [15, 9, 69, 6, 15]),
            (0, [15, 9, 69, 6, 15]),
        ] {
            let mut used = Used::numbered(&stacks, with_memory(limit));
            for (&location, id) in locations.iter().zip(expected) {
                assert_eq!(used.insert(location), id, "{limit}");
            }
            used.insert(Marker::TooDeep.location());
            let ids: Vec<_> = locations
                .iter()
                .map(|&location| used.id(location))
                .collect();
            assert_eq!(ids, expected, "{limit}");
            assert!(used.contains(Marker::TooDeep.location()));
            assert_eq!(used.contains(LocationId::new(5)), limit == 0);
        }
    }

    #[test]
    fn every_place_has_its_location() {
        for place in 0..100 {
            assert_eq!(place_of(location_at(place).unwrap()), place);
        }
    }
}
