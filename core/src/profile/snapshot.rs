//! Counters at a moment, and what was counted since: for CPU profiles and `seconds=N`.

#![forbid(unsafe_code)]

use super::buckets::{Rows, Values};

/// Words of memory that a snapshot of `rows` takes.
pub(crate) const fn words(rows: &Rows<'_>) -> usize {
    (rows.capacity() + 1) * rows.width()
}

/// What each row had counted at a moment, or the difference to a later one.
#[derive(Debug)]
pub(crate) struct Snapshot<S> {
    words: S,
}

impl<S: AsRef<[u64]> + AsMut<[u64]>> Snapshot<S> {
    /// The counters now. `words` is [`words`] zeros.
    pub(crate) fn new(rows: &Rows<'_>, words: S) -> Self {
        let mut snapshot = Self { words };
        snapshot.update(rows);
        snapshot
    }

    /// Turns what was counted at the moment of the snapshot into what was counted since: nothing for rows that
    /// were cleared meanwhile.
    pub(crate) fn into_difference(mut self, rows: &Rows<'_>) -> Self {
        self.update(rows);
        self
    }

    /// The counters of the row with this number, or their differences.
    pub(crate) fn values(&self, rows: &Rows<'_>, index: usize) -> Values {
        let mut values = Values::default();
        let words = self.words.as_ref().get(index * rows.width()..);
        let words = words.unwrap_or_default().iter().take(rows.width());
        for (value, &word) in values.iter_mut().zip(words) {
            *value = word;
        }
        values
    }

    /// What was counted beyond what the words say: at first they say zero.
    fn update(&mut self, rows: &Rows<'_>) {
        let words_of_rows = self.words.as_mut().chunks_mut(rows.width().max(1));
        for (index, words) in words_of_rows.enumerate() {
            let row = rows.row_at(index);
            if rows.key(row).is_some() {
                for (word, value) in words.iter_mut().zip(rows.values(row)) {
                    *word = value.saturating_sub(*word);
                }
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::super::buckets::Buckets;
    use super::*;
    use crate::stack::StackId;

    #[test]
    fn a_difference_has_what_came_between() {
        let buckets = Buckets::<8, 2>::new();
        let rows = buckets.view();
        let old = rows.add(StackId::from_bits(1), 0, &[5, 50]);
        rows.add(StackId::LOST, 0, &[1, 1]);
        let snapshot = Snapshot::new(&rows, std::vec![0; words(&rows)]);
        rows.add_to(old, &[1, 10]);
        let new = rows.add(StackId::from_bits(2), 0, &[3, 30]);
        rows.add(StackId::LOST, 0, &[7, 70]);
        let difference = snapshot.into_difference(&rows);
        rows.add_to(old, &[1000, 1000]);
        for (row, expected) in [(old, [1, 10, 0, 0]), (new, [3, 30, 0, 0])] {
            assert_eq!(difference.values(&rows, row.index() as usize), expected);
        }
        assert_eq!(difference.values(&rows, rows.capacity()), [7, 70, 0, 0]);
    }
}
