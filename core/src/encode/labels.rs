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
    numbers: Numbers<S>,
}

#[derive(Debug)]
enum Numbers<S> {
    /// For each place, in the lower half of its word its number or 0, and in the upper half of the word of each number the
    /// place. And the last number.
    Given { words: S, last: u32 },
    /// No memory.
    All,
}

/// Bits of a word for a place, or for a number.
const HALF: u32 = 32;

impl<'t, S: AsRef<[u64]> + AsMut<[u64]>> LabelStrings<'t, S> {
    /// None yet. `scratch` answers so many words of zeros.
    pub(crate) fn new(labels: Option<Labels<'t>>, scratch: impl Fn(usize) -> Option<S>) -> Self {
        let words = labels.and_then(|labels| scratch(labels.text_capacity()));
        Self {
            labels,
            numbers: words.map_or(Numbers::All, |words| Numbers::Given { words, last: 0 }),
        }
    }

    /// Puts the strings of a set in.
    pub(crate) fn insert(&mut self, set: LabelSetId) {
        if set != LabelSetId::EMPTY
            && let Some(labels) = self.labels
        {
            for &(key, value) in labels.ids(set).as_slice() {
                self.insert_text(key);
                self.insert_text(value);
            }
        }
    }

    /// Shows the keys and values of a set that is in, by their numbers; 0 for a string that is empty.
    pub(crate) fn for_each_pair(&self, set: LabelSetId, mut visit: impl FnMut(u64, u64)) {
        if set != LabelSetId::EMPTY
            && let Some(labels) = self.labels
        {
            for &(key, value) in labels.ids(set).as_slice() {
                visit(self.number(key), self.number(value));
            }
        }
    }

    /// The highest number.
    pub(crate) fn count(&self) -> u64 {
        match (&self.numbers, &self.labels) {
            (Numbers::Given { last, .. }, _) => u64::from(*last),
            (Numbers::All, labels) => labels.map_or(0, |labels| labels.text_capacity() as u64),
        }
    }

    /// The string with this number. Without memory it may be new since the last call.
    pub(crate) fn text(&self, number: u64) -> TextId {
        match &self.numbers {
            Numbers::Given { words, .. } => {
                let place = |number: u64| usize::try_from(number).ok()?.checked_sub(1);
                let word = place(number).and_then(|place| words.as_ref().get(place));
                TextId::new(word.map_or(0, |word| (word >> HALF) as u32))
            }
            Numbers::All => {
                let text = TextId::new(number as u32);
                let is_label = self.labels.is_some_and(|labels| labels.has(text));
                if is_label { text } else { TextId::EMPTY }
            }
        }
    }

    fn insert_text(&mut self, text: TextId) {
        if text == TextId::EMPTY || self.number(text) != 0 {
            return;
        }
        if let Numbers::Given { words, last } = &mut self.numbers {
            let words = words.as_mut();
            if let Some(place) = words.get_mut(*last as usize) {
                *place |= u64::from(text.number()) << HALF;
                *last += 1;
            }
            if let Some(word) = words.get_mut(text.number() as usize - 1) {
                *word |= u64::from(*last);
            }
        }
    }

    fn number(&self, text: TextId) -> u64 {
        match &self.numbers {
            Numbers::Given { words, .. } => {
                let place = (text.number() as usize).checked_sub(1);
                let word = place.and_then(|place| words.as_ref().get(place));
                word.map_or(0, |word| word & u64::from(u32::MAX))
            }
            Numbers::All => u64::from(text.number()),
        }
    }
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
                strings.for_each_pair(set, |key, value| {
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
        no_labels.for_each_pair(other, |_, _| panic!("there are none"));
        assert_eq!(no_labels.count(), 0);
    }
}
