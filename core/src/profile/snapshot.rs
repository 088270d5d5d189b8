//! Counters at a moment, and what was counted since: for CPU profiles and `seconds=N`.

#![forbid(unsafe_code)]

use super::buckets::{RowId, Rows, Values};

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

    /// The counters of a row, or their differences.
    pub(crate) fn values(&self, rows: &Rows<'_>, row: RowId) -> Values {
        let mut values = Values::default();
        let words = self.words.as_ref().get(first_word(rows, row)..);
        for (value, &word) in (values.iter_mut().zip(words.unwrap_or_default())).take(rows.width())
        {
            *value = word;
        }
        values
    }

    /// What was counted beyond what the words say: at first they say zero.
    fn update(&mut self, rows: &Rows<'_>) {
        for row in rows.rows() {
            let words = self.words.as_mut().get_mut(first_word(rows, row)..);
            let values = rows.values(row);
            for (word, &value) in
                (words.unwrap_or_default().iter_mut().zip(&values)).take(rows.width())
            {
                *word = value.saturating_sub(*word);
            }
        }
    }
}

fn first_word(rows: &Rows<'_>, row: RowId) -> usize {
    let index = if row == RowId::LOST {
        rows.capacity()
    } else {
        row.index() as usize
    };
    index.saturating_mul(rows.width())
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
        assert_eq!(difference.values(&rows, old), [1, 10, 0, 0]);
        assert_eq!(difference.values(&rows, new), [3, 30, 0, 0]);
        assert_eq!(difference.values(&rows, RowId::LOST), [7, 70, 0, 0]);
    }
}
