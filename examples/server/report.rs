//! The report: what each author has in the store.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use serde::Serialize;

use crate::store::{Entry, Usage};

/// The answer to `GET /report`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    usage: Usage,
    /// Most words first.
    authors: Vec<Author>,
}

#[derive(Debug, Serialize)]
struct Author {
    name: String,
    documents: usize,
    words: u64,
    /// Length of the documents in bytes.
    length: usize,
    /// Their share of the store in bytes.
    packed: usize,
    median_length: usize,
    median_age_ms: u128,
}

/// The documents of one author.
type Shelves<'a> = HashMap<&'a str, Vec<&'a Entry>>;

/// Reads the entries with a thread for each half of them, for they may be many.
///
/// # Errors
///
/// When the system has no thread to give.
pub(crate) fn make(entries: &[Arc<Entry>], usage: Usage, now: Instant) -> io::Result<Report> {
    let (left, right) = entries.split_at(entries.len() / 2);
    let mut authors = thread::scope(|scope| {
        let left = thread::Builder::new()
            .name("report".to_owned())
            .spawn_scoped(scope, || shelve(left))?;
        let mut shelves = shelve(right);
        let left = left
            .join()
            .map_err(|_| io::Error::other("the thread of a report panicked"))?;
        for (author, shelf) in left {
            shelves.entry(author).or_default().extend(shelf);
        }
        Ok::<_, io::Error>(summarise(shelves, now))
    })?;
    authors.sort_by(|a, b| b.words.cmp(&a.words).then_with(|| a.name.cmp(&b.name)));
    Ok(Report { usage, authors })
}

fn shelve(entries: &[Arc<Entry>]) -> Shelves<'_> {
    let mut shelves = Shelves::new();
    for entry in entries {
        shelves.entry(&entry.packed.author).or_default().push(entry);
    }
    shelves
}

fn summarise(shelves: Shelves<'_>, now: Instant) -> Vec<Author> {
    shelves
        .into_iter()
        .map(|(name, mut shelf)| Author {
            name: name.to_owned(),
            documents: shelf.len(),
            words: shelf.iter().map(|entry| entry.packed.words).sum(),
            length: shelf.iter().map(|entry| entry.packed.length).sum(),
            packed: shelf.iter().map(|entry| entry.packed.weight()).sum(),
            median_length: median(&mut shelf, |entry| entry.packed.length),
            median_age_ms: median(&mut shelf, |entry| {
                now.saturating_duration_since(entry.stored).as_millis()
            }),
        })
        .collect()
}

/// The median of what `measure` says of each, the upper one if there are two; 0 of none.
fn median<T, M: Ord + Default>(of: &mut [T], measure: impl Fn(&T) -> M) -> M {
    of.sort_unstable_by_key(&measure);
    of.get(of.len() / 2).map(measure).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{self, Document};
    use crate::store::Store;

    #[test]
    fn authors_are_summed_and_sorted() {
        let store = Store::new(1 << 20);
        let now = Instant::now();
        for (id, author, text) in [
            ("1", "Ann", "one two"),
            ("2", "Bob", "one two three four five six"),
            ("3", "Ann", "one"),
        ] {
            let document = Document {
                title: "T".to_owned(),
                author: author.to_owned(),
                tags: Vec::new(),
                paragraphs: vec![text.to_owned()],
            };
            let (packed, terms) = document::pack(document).unwrap();
            store.put(id, packed, &terms, now);
        }
        let report = make(&store.entries(), store.usage(), now).unwrap();
        let of = |author: &Author| (author.name.clone(), author.documents, author.words);
        assert_eq!(
            report.authors.iter().map(of).collect::<Vec<_>>(),
            [("Bob".to_owned(), 1, 8), ("Ann".to_owned(), 2, 7)]
        );
        assert_eq!(report.usage.documents, 3);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&mut [5, 1, 3], |n| *n), 3);
        assert_eq!(median(&mut [4, 1], |n| *n), 4);
        assert_eq!(median::<u8, u8>(&mut [], |n| *n), 0);
    }
}
