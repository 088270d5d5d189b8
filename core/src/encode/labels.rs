//! Labels as strings of a profile.

#![forbid(unsafe_code)]

use crate::profile::labels::{LabelSetId, Labels, TextId};

/// The strings of the labels that a profile uses, each with a number from 1 up.
///
/// Numbers go by first use, which takes a word of memory for each word of the table's text. Without that a string's
/// number is its place in the table, and places that are no label's have an empty string.
#[derive(Debug)]
pub(crate) struct LabelStrings<'t, S> {
    labels: Option<Labels<'t>>,
    /// For each place, in the lower half of its word its number or 0, and in the upper half of the word of each number the
    /// place.
    words: Option<S>,
    /// The last number that was given.
    last: u32,
}

/// Is shown the numbers of a key and a value.
type Visit<'a> = dyn FnMut(u32, u32) + 'a;

/// What reads and gives numbers. The view of a table brings it, so that a program without labels is without this code.
#[derive(Debug)]
pub(crate) struct Numbering {
    insert: fn(Labels<'_>, LabelSetId, &mut [u64], &mut u32),
    visit: fn(Labels<'_>, LabelSetId, Option<&[u64]>, &mut Visit<'_>),
    find: fn(Labels<'_>, u32, Option<&[u64]>) -> TextId,
}

pub(crate) const NUMBERING: Numbering = Numbering {
    insert,
    visit,
    find,
};

/// Bits of a word for a place, or for a number.
const HALF: u32 = 32;

impl<'t, S: AsRef<[u64]> + AsMut<[u64]>> LabelStrings<'t, S> {
    /// None yet. `scratch` answers so many words of zeros.
    pub(crate) fn new(labels: Option<Labels<'t>>, scratch: impl Fn(usize) -> Option<S>) -> Self {
        Self {
            labels,
            words: labels.and_then(|labels| scratch(labels.text_capacity())),
            last: 0,
        }
    }

    /// Puts the strings of a set in.
    pub(crate) fn insert(&mut self, set: LabelSetId) {
        if let (Some(labels), Some(words)) = (self.of(set), &mut self.words) {
            (labels.numbering().insert)(labels, set, words.as_mut(), &mut self.last);
        }
    }

    /// Shows the keys and values of a set that is in, by their numbers; 0 for a string that is empty.
    pub(crate) fn for_each_pair(&self, set: LabelSetId, visit: &mut Visit<'_>) {
        if let Some(labels) = self.of(set) {
            (labels.numbering().visit)(labels, set, self.words(), visit);
        }
    }

    /// The highest number.
    pub(crate) fn count(&self) -> u32 {
        match (&self.words, &self.labels) {
            (None, Some(labels)) => labels.text_capacity() as u32,
            _ => self.last,
        }
    }

    /// The string with this number. Without memory it may be new since the last call.
    pub(crate) fn text(&self, number: u32) -> TextId {
        self.labels.map_or(TextId::EMPTY, |labels| {
            (labels.numbering().find)(labels, number, self.words())
        })
    }

    /// The table, for a set with labels.
    fn of(&self, set: LabelSetId) -> Option<Labels<'t>> {
        self.labels.filter(|_| set != LabelSetId::EMPTY)
    }

    fn words(&self) -> Option<&[u64]> {
        self.words.as_ref().map(AsRef::as_ref)
    }
}

fn insert(labels: Labels<'_>, set: LabelSetId, words: &mut [u64], last: &mut u32) {
    for &(key, value) in labels.ids(set).as_slice() {
        for text in [key, value] {
            if text == TextId::EMPTY || number(text, Some(words)) != 0 {
                continue;
            }
            if let Some(place) = words.get_mut(*last as usize) {
                *place |= u64::from(text.number()) << HALF;
                *last += 1;
            }
            if let Some(word) = words.get_mut(text.number() as usize - 1) {
                *word |= u64::from(*last);
            }
        }
    }
}

fn visit(labels: Labels<'_>, set: LabelSetId, words: Option<&[u64]>, visit: &mut Visit<'_>) {
    for &(key, value) in labels.ids(set).as_slice() {
        visit(number(key, words), number(value, words));
    }
}

fn find(labels: Labels<'_>, number: u32, words: Option<&[u64]>) -> TextId {
    let text = TextId::new(number);
    match words {
        Some(words) => {
            let word = (number as usize)
                .checked_sub(1)
                .and_then(|place| words.get(place));
            TextId::new(word.map_or(0, |word| (word >> HALF) as u32))
        }
        None if labels.has(text) => text,
        None => TextId::EMPTY,
    }
}

fn number(text: TextId, words: Option<&[u64]>) -> u32 {
    let Some(words) = words else {
        return text.number();
    };
    let place = (text.number() as usize).checked_sub(1);
    let word = place.and_then(|place| words.get(place));
    word.map_or(0, |&word| word as u32)
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::string::ToString;
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::profile::labels::LabelTable;

    #[test]
    fn every_number_has_its_string_whatever_the_memory() {
        let table = LabelTable::<64, 64>::new();
        let labels = table.view();
        let other = labels.extend(LabelSetId::EMPTY, &[("unused", "x")]);
        let a = labels.extend(LabelSetId::EMPTY, &[("key", "value"), ("tenant", "key")]);
        let b = labels.extend(a, &[("key", ""), ("longer key", "value")]);
        for memory in [63, 64] {
            let scratch = |words: usize| (words <= memory).then(|| vec![0u64; words]);
            let mut strings = LabelStrings::new(Some(labels), scratch);
            strings.insert(a);
            strings.insert(b);
            strings.insert(LabelSetId::EMPTY);
            for set in [a, b] {
                let mut texts = Vec::new();
                strings.for_each_pair(set, &mut |key, value| {
                    let text = |number| labels.text(strings.text(number)).to_string();
                    texts.push((text(key), text(value)));
                });
                texts.sort();
                let expected = labels.pairs(set);
                let expected: Vec<_> = expected
                    .map(|(k, v)| (k.to_string(), v.to_string()))
                    .collect();
                assert_eq!(texts, expected);
            }
            let all: Vec<_> = (1..=strings.count())
                .map(|number| labels.text(strings.text(number)).to_string())
                .filter(|text| !text.is_empty())
                .collect();
            if memory == 64 {
                let mut all = all;
                all.sort();
                assert_eq!(all, ["key", "longer key", "tenant", "value"]);
                assert_eq!(strings.count(), 4);
            } else {
                assert_eq!(all.len(), 6);
            }
        }
        let no_labels = LabelStrings::<Vec<u64>>::new(None, |_| None);
        no_labels.for_each_pair(other, &mut |_, _| panic!("there are none"));
        assert_eq!(no_labels.count(), 0);
    }
}
