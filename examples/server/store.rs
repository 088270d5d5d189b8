//! What the service keeps in memory: a cache of documents with a budget of bytes, and the index
//! of their words.

#![forbid(unsafe_code)]

use core::cmp::Reverse;
use core::fmt;
use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use lru::LruCache;
use serde::Serialize;

use crate::document::{Packed, Term, Word};

/// The documents and their index, shared by all threads of the service.
#[derive(Debug)]
pub(crate) struct Store {
    state: Mutex<State>,
}

/// A document in the store.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: Arc<str>,
    pub(crate) packed: Packed,
    pub(crate) stored: Instant,
    /// Never used twice: a document that replaces another gets the next one.
    number: u64,
    /// How many different words the index knows it by.
    terms: usize,
}

/// A document that a search found.
#[derive(Debug, Serialize)]
pub(crate) struct Hit {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) score: f64,
}

/// How full the store is.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Usage {
    pub(crate) documents: usize,
    pub(crate) bytes: usize,
    pub(crate) budget: usize,
}

impl Store {
    /// An empty store that keeps to `budget` bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            state: Mutex::new(State {
                cache: Cache::new(budget),
                index: Index::default(),
                next: 0,
            }),
        }
    }

    /// Keeps a document, in place of the one of that name if there is one: then true.
    pub(crate) fn put(&self, id: &str, packed: Packed, terms: &[Term], now: Instant) -> bool {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let entry = Arc::new(Entry {
            id: Arc::from(id),
            packed,
            stored: now,
            number,
            terms: terms.len(),
        });
        state.index.add(&entry, terms);
        let replaced = state.cache.insert(Arc::clone(&entry.id), entry);
        if let Some(old) = &replaced {
            state.index.remove(old);
        }
        state.evict();
        replaced.is_some()
    }

    /// The document of that name, which now counts as used.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Entry>> {
        self.state().cache.get(id).map(Arc::clone)
    }

    /// The documents that hold all of the words, best first, at most `limit`.
    pub(crate) fn search(&self, words: &[Word], limit: usize) -> Vec<Hit> {
        self.state().index.search(words, limit)
    }

    /// All documents, in no order.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.state().cache.values().map(Arc::clone).collect()
    }

    /// Sets the budget, and lets go of what no longer fits: the least recently used first.
    /// Returns how many documents that were.
    pub(crate) fn set_budget(&self, bytes: usize) -> usize {
        let mut state = self.state();
        state.cache.budget = bytes;
        state.evict()
    }

    /// Lets go of the documents stored longer than `age` ago. Returns how many that were.
    pub(crate) fn expire(&self, now: Instant, age: Duration) -> usize {
        self.state().expire(now, age)
    }

    pub(crate) fn usage(&self) -> Usage {
        let state = self.state();
        Usage {
            documents: state.cache.entries.len(),
            bytes: state.cache.weight,
            budget: state.cache.budget,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Should a thread have panicked meanwhile, the others go on: the worst that it can leave
        // behind is a document which searches do not find.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct State {
    cache: Cache<Arc<Entry>>,
    index: Index,
    next: u64,
}

impl State {
    fn evict(&mut self) -> usize {
        let mut evicted = 0;
        while let Some(entry) = self.cache.pop_excess() {
            self.index.remove(&entry);
            evicted += 1;
        }
        self.index.sweep_if_due();
        evicted
    }

    fn expire(&mut self, now: Instant, age: Duration) -> usize {
        let expired: Vec<Arc<str>> = self
            .cache
            .values()
            .filter(|entry| now.saturating_duration_since(entry.stored) > age)
            .map(|entry| Arc::clone(&entry.id))
            .collect();
        for id in &expired {
            if let Some(entry) = self.cache.remove(id) {
                self.index.remove(&entry);
            }
        }
        self.index.sweep_if_due();
        expired.len()
    }
}

/// What knows how many bytes it holds on to.
trait Weigh {
    fn weight(&self) -> usize;
}

impl Weigh for Arc<Entry> {
    fn weight(&self) -> usize {
        size_of::<Entry>()
            + self.id.len()
            + self.packed.weight()
            + self.terms * size_of::<Posting>()
    }
}

/// Values by name, of which the least recently used give way when they outweigh the budget.
struct Cache<V> {
    entries: LruCache<Arc<str>, V>,
    weight: usize,
    budget: usize,
}

impl<V: Weigh> Cache<V> {
    fn new(budget: usize) -> Self {
        Self {
            entries: LruCache::unbounded(),
            weight: 0,
            budget,
        }
    }

    /// Returns the value that was there before. May leave the cache over its budget.
    fn insert(&mut self, id: Arc<str>, value: V) -> Option<V> {
        self.weight += value.weight();
        let replaced = self.entries.put(id, value);
        self.weight -= replaced.as_ref().map_or(0, Weigh::weight);
        replaced
    }

    fn remove(&mut self, id: &str) -> Option<V> {
        let removed = self.entries.pop(id);
        self.weight -= removed.as_ref().map_or(0, Weigh::weight);
        removed
    }

    /// Removes the least recently used value if the cache is over its budget.
    fn pop_excess(&mut self) -> Option<V> {
        if self.weight <= self.budget {
            return None;
        }
        let (_, value) = self.entries.pop_lru()?;
        self.weight -= value.weight();
        Some(value)
    }

    fn get(&mut self, id: &str) -> Option<&V> {
        self.entries.get(id)
    }

    fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }
}

impl<V> fmt::Debug for Cache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("entries", &self.entries.len())
            .field("weight", &self.weight)
            .field("budget", &self.budget)
            .finish()
    }
}

/// Which documents hold a word.
///
/// A document that is removed leaves its postings behind, which searches pass over. A sweep takes
/// them out when there is one for every three that count.
#[derive(Debug, Default)]
struct Index {
    postings: HashMap<Word, Vec<Posting>>,
    live: HashMap<u64, Arc<Entry>>,
    live_postings: usize,
    dead_postings: usize,
}

#[derive(Debug, Clone, Copy)]
struct Posting {
    number: u64,
    count: u32,
}

impl Index {
    fn add(&mut self, entry: &Arc<Entry>, terms: &[Term]) {
        for term in terms {
            // Numbers only rise, so every list is sorted by them.
            self.postings.entry(term.word).or_default().push(Posting {
                number: entry.number,
                count: term.count,
            });
        }
        self.live.insert(entry.number, Arc::clone(entry));
        self.live_postings += terms.len();
    }

    fn remove(&mut self, entry: &Entry) {
        if self.live.remove(&entry.number).is_some() {
            self.live_postings -= entry.terms;
            self.dead_postings += entry.terms;
        }
    }

    fn sweep_if_due(&mut self) {
        if self.dead_postings > self.live_postings / 3 {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        // Expiry bounds how far apart the numbers are.
        let oldest = self.live.keys().copied().min().unwrap_or(0);
        let newest = self.live.keys().copied().max().unwrap_or(0);
        let mut live = vec![false; (newest - oldest) as usize + 1];
        for number in self.live.keys() {
            live[(number - oldest) as usize] = true;
        }
        let is_live = |number: u64| {
            let place = number.checked_sub(oldest);
            place.is_some_and(|place| live.get(place as usize) == Some(&true))
        };
        self.postings.retain(|_, list| {
            list.retain(|posting| is_live(posting.number));
            if list.len() < list.capacity() / 4 {
                list.shrink_to(list.len() * 2);
            }
            !list.is_empty()
        });
        if self.postings.len() < self.postings.capacity() / 4 {
            self.postings.shrink_to(self.postings.len() * 2);
        }
        self.dead_postings = 0;
    }

    fn search(&self, words: &[Word], limit: usize) -> Vec<Hit> {
        // A word that no document holds leaves nothing to find.
        let Some(mut lists) = words
            .iter()
            .map(|word| self.postings.get(word))
            .collect::<Option<Vec<_>>>()
        else {
            return Vec::new();
        };
        lists.sort_by_key(|list| list.len());
        let Some((rarest, others)) = lists.split_first() else {
            return Vec::new();
        };
        let mut found: Vec<(f64, &Arc<Entry>)> = rarest
            .iter()
            .filter_map(|posting| {
                let entry = self.live.get(&posting.number)?;
                let mut score = self.score(posting.count, rarest.len());
                for list in others {
                    let at = list
                        .binary_search_by_key(&posting.number, |other| other.number)
                        .ok()?;
                    score += self.score(list[at].count, list.len());
                }
                Some((score, entry))
            })
            .collect();
        // The newest first among equals.
        found.sort_unstable_by(|a, b| {
            b.0.total_cmp(&a.0)
                .then_with(|| Reverse(a.1.number).cmp(&Reverse(b.1.number)))
        });
        found
            .into_iter()
            .take(limit)
            .map(|(score, entry)| Hit {
                id: entry.id.to_string(),
                title: entry.packed.title.clone(),
                score,
            })
            .collect()
    }

    /// What a word adds to the score of a document that holds it `count` times, when `holders`
    /// documents hold it: the rarer the more (tf-idf).
    fn score(&self, count: u32, holders: usize) -> f64 {
        let rarity = 1.0 + self.live.len() as f64 / holders as f64;
        (1.0 + f64::from(count).ln()) * rarity.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{self, Document};

    const ROOM: usize = 1 << 20;

    fn put(store: &Store, id: &str, text: &str, now: Instant) -> bool {
        let document = Document {
            title: format!("Title of {id}"),
            author: "Author".to_owned(),
            tags: Vec::new(),
            paragraphs: vec![text.to_owned()],
        };
        let (packed, terms) = document::pack(document).unwrap();
        store.put(id, packed, &terms, now)
    }

    fn search(store: &Store, query: &str) -> Vec<String> {
        let words: Vec<Word> = document::words(query).collect();
        let hits = store.search(&words, 10);
        hits.into_iter().map(|hit| hit.id).collect()
    }

    #[test]
    fn a_document_is_found_by_name_and_by_its_words() {
        let store = Store::new(ROOM);
        let now = Instant::now();
        assert!(!put(&store, "one", "red green", now));
        assert!(!put(&store, "two", "green blue", now));
        assert_eq!(store.get("one").unwrap().packed.title, "Title of one");
        assert!(store.get("three").is_none());
        assert_eq!(search(&store, "Blue"), ["two"]);
        assert_eq!(search(&store, "green"), ["two", "one"]);
        assert_eq!(search(&store, "green red"), ["one"]);
        assert!(search(&store, "red blue").is_empty());
        assert!(search(&store, "").is_empty());
    }

    #[test]
    fn more_of_a_word_is_better() {
        let store = Store::new(ROOM);
        let now = Instant::now();
        put(&store, "much", "oak oak oak oak elm", now);
        put(&store, "little", "oak elm elm elm", now);
        assert_eq!(search(&store, "oak"), ["much", "little"]);
        assert_eq!(search(&store, "elm"), ["little", "much"]);
    }

    #[test]
    fn a_replaced_document_is_gone() {
        let store = Store::new(ROOM);
        let now = Instant::now();
        put(&store, "one", "red", now);
        let before = store.usage();
        assert!(put(&store, "one", "blue", now));
        assert!(search(&store, "red").is_empty());
        assert_eq!(search(&store, "blue"), ["one"]);
        assert_eq!(store.usage().documents, 1);
        assert!(store.usage().bytes.abs_diff(before.bytes) < 16);
    }

    #[test]
    fn the_least_recently_used_give_way() {
        let store = Store::new(ROOM);
        let now = Instant::now();
        for id in ["a", "b", "c", "d"] {
            put(&store, id, "same words", now);
        }
        let full = store.usage().bytes;
        store.get("a");
        assert_eq!(store.set_budget(full / 2), 2);
        assert!(store.get("a").is_some() && store.get("d").is_some());
        assert!(store.get("b").is_none() && store.get("c").is_none());
        assert_eq!(search(&store, "words"), ["d", "a"]);
        assert!(store.usage().bytes <= full / 2);
        store.set_budget(full);
        put(&store, "e", "same words", now);
        assert_eq!(store.usage().documents, 3);
    }

    #[test]
    fn an_empty_store_weighs_nothing_and_keeps_no_posting() {
        let store = Store::new(ROOM);
        let now = Instant::now();
        for n in 0..100 {
            put(&store, &format!("id{}", n % 40), "common words", now);
        }
        assert_eq!(store.set_budget(0), 40);
        let state = store.state();
        assert_eq!(state.cache.weight, 0);
        assert!(state.index.postings.is_empty() && state.index.live.is_empty());
        assert_eq!(
            (state.index.live_postings, state.index.dead_postings),
            (0, 0)
        );
    }

    #[test]
    fn old_documents_expire() {
        let store = Store::new(ROOM);
        let start = Instant::now();
        put(&store, "old", "word", start);
        put(&store, "new", "word", start + Duration::from_secs(5));
        let later = start + Duration::from_secs(12);
        assert_eq!(store.expire(later, Duration::from_secs(10)), 1);
        assert_eq!(search(&store, "word"), ["new"]);
    }
}
