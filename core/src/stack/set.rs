//! An append-only set of non-zero words in a fixed array: the one lock-free step of this crate.
//!
//! An insert is one compare-and-swap of one word. There is no "being written" state, so it may run in a
//! signal handler or an interrupt that interrupted another insert, and on all cores at once. A word never
//! moves and never goes, so its index is its name for ever.
//!
//! The array is filled in levels of 4,096, 4,096, 8,192, 16,384 … words: a word goes to the next level only
//! when its group of eight (one cache line on a 64-bit machine) in this one is full. A large array whose
//! pages are committed when first touched therefore costs memory in proportion to what it holds, and
//! indices stay small, which makes for short varints in a profile.

#![forbid(unsafe_code)]

use crate::sync::{AtomicUsize, Ordering};

/// Words in the first level; an array of up to so many has one level only.
const FIRST_LEVEL: usize = 4096;
/// Words that are tried in each level but the last.
const GROUP: usize = 8;
/// Words that are tried in the last level: a bound for the time in an interrupt. An array is about 95 %
/// full when the first insert fails by it.
const LAST_LEVEL_PROBES: usize = 64;

/// Whether an array of `len` words can be a set: a power of two, large enough for one group, and with
/// indices that fit in half a word.
pub(crate) const fn is_valid_len(len: usize) -> bool {
    len.is_power_of_two() && len >= GROUP && len <= 1 << (usize::BITS / 2 - 1)
}

/// The index of `word`, which is put in if it is not there yet; `None` if there is no room.
///
/// `word` must not be zero. May run in a signal handler or an interrupt: at most 8 probes a level and 64 in
/// the last.
#[inline]
pub(crate) fn find_or_insert(slots: &[AtomicUsize], word: usize) -> Option<usize> {
    let hash = hash(word);
    // An array without words has no index that is looked up in vain.
    let index = hash & slots.len().min(FIRST_LEVEL).wrapping_sub(1);
    if slots.get(index)?.load(Ordering::Acquire) == word {
        return Some(index);
    }
    probe_levels(slots, hash, word)
}

fn probe_levels(slots: &[AtomicUsize], hash: usize, word: usize) -> Option<usize> {
    let mut base = 0;
    let mut size = slots.len().min(FIRST_LEVEL);
    loop {
        let level = slots.get(base..base + size)?;
        let is_last = base + size == slots.len();
        let start = hash & (size - 1);
        let probes = if is_last {
            LAST_LEVEL_PROBES.min(size)
        } else {
            GROUP
        };
        for i in 0..probes {
            let index = if is_last {
                // Wider and wider steps, which come to each word once: words that follow each other make no heaps.
                (start + i * (i + 1) / 2) & (size - 1)
            } else {
                (start & !(GROUP - 1)) | ((start + i) & (GROUP - 1))
            };
            if holds_or_takes(level.get(index)?, word) {
                return Some(base + index);
            }
        }
        if is_last {
            return None;
        }
        base += size;
        size = base;
    }
}

/// Whether `slot` holds `word`, or was empty and holds it now.
///
/// Acquire and release, as what a word refers to (a call's parent) was put in before it: whoever finds the
/// word, on any core, also sees those.
fn holds_or_takes(slot: &AtomicUsize, word: usize) -> bool {
    let held = slot.load(Ordering::Acquire);
    if held != 0 {
        return held == word;
    }
    match slot.compare_exchange(0, word, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => true,
        Err(held) => held == word,
    }
}

/// Fibonacci hashing (Knuth, TAOCP vol. 3, 6.4): the bits above the middle of the product depend on all of
/// the word's lower half and, through it, on what the callers pack into the upper one.
#[inline]
fn hash(word: usize) -> usize {
    #[cfg(target_pointer_width = "64")]
    const FACTOR: usize = 0x9e37_79b9_7f4a_7c15;
    #[cfg(not(target_pointer_width = "64"))]
    const FACTOR: usize = 0x9e37_79b9;
    word.wrapping_mul(FACTOR) >> (usize::BITS / 2)
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::collections::HashMap;
    use std::vec::Vec;

    use super::*;

    fn empty(len: usize) -> Vec<AtomicUsize> {
        (0..len).map(|_| AtomicUsize::new(0)).collect()
    }

    #[test]
    fn words_keep_their_index_and_share_none() {
        for len in [8, 64, 4096, 8192, 65_536] {
            let slots = empty(len);
            let mut known = HashMap::new();
            let mut taken = HashMap::new();
            for i in 0..len * 3 / 4 {
                let word = 0x5500_0000 + i * 7;
                if let Some(index) = find_or_insert(&slots, word) {
                    known.insert(word, index);
                    assert_eq!(taken.insert(index, word), None);
                }
            }
            for (&word, &index) in &known {
                assert_eq!(find_or_insert(&slots, word), Some(index));
                assert_eq!(slots[index].load(Ordering::Relaxed), word);
            }
        }
    }

    #[test]
    fn three_quarters_of_the_room_is_usable() {
        for len in [64, 512, 4096, 32_768, 262_144] {
            if !is_valid_len(len) {
                continue;
            }
            let slots = empty(len);
            let lost = (0..len * 3 / 4)
                .filter(|i| find_or_insert(&slots, (i + 1) << 4).is_none())
                .count();
            assert_eq!(lost, 0, "{len}");
        }
    }

    #[test]
    fn a_full_set_refuses_and_still_finds() {
        let slots = empty(8);
        for word in 1..=8 {
            assert!(find_or_insert(&slots, word).is_some());
        }
        assert_eq!(find_or_insert(&slots, 9), None);
        assert!(find_or_insert(&slots, 8).is_some());
    }

    #[test]
    fn few_words_stay_at_the_front() {
        let slots = empty(1 << 20);
        let highest = (1..2000).filter_map(|i| find_or_insert(&slots, i * 48));
        assert!(highest.max().unwrap_or(0) < 2 * FIRST_LEVEL);
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    extern crate std;

    use std::vec::Vec;

    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::array_of;

    /// Words that want the same slot of eight.
    fn colliding<const N: usize>() -> [usize; N] {
        let mut words = (1..).filter(|&word| hash(word) & 7 == 0);
        core::array::from_fn(|_| words.next().unwrap())
    }

    /// What the threads found out for each of their words, after they inserted them all at once.
    fn insert_at_once(
        before: &[usize],
        threads: &[&[usize]],
    ) -> (Vec<usize>, Vec<Vec<Option<usize>>>) {
        let slots: Arc<[AtomicUsize; 8]> = Arc::new(array_of!(AtomicUsize::new(0)));
        for &word in before {
            assert!(find_or_insert(&*slots, word).is_some());
        }
        let insert = |words: &[usize]| {
            let (slots, words) = (slots.clone(), words.to_vec());
            move || {
                let found = words.iter().map(|&word| find_or_insert(&*slots, word));
                found.collect::<Vec<_>>()
            }
        };
        let (first, others) = threads.split_first().unwrap();
        let others: Vec<_> = others
            .iter()
            .map(|words| thread::spawn(insert(words)))
            .collect();
        let mut found = std::vec![insert(first)()];
        found.extend(others.into_iter().map(|other| other.join().unwrap()));
        (
            slots
                .iter()
                .map(|slot| slot.load(Ordering::Relaxed))
                .collect(),
            found,
        )
    }

    /// Every index that was answered holds its word, and no word is there twice.
    fn check(slots: &[usize], threads: &[&[usize]], found: &[Vec<Option<usize>>]) {
        for (&word, index) in threads
            .iter()
            .copied()
            .flatten()
            .zip(found.iter().flatten())
        {
            let holding: Vec<_> = (0..slots.len()).filter(|&i| slots[i] == word).collect();
            assert_eq!(holding, index.iter().copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn loom_two_threads_agree_on_every_word() {
        loom::model(|| {
            let [a, b, c] = colliding();
            let threads: [&[usize]; 2] = [&[a, b], &[b, c, a]];
            let (slots, found) = insert_at_once(&[], &threads);
            check(&slots, &threads, &found);
            assert!(found.iter().flatten().all(Option::is_some));
            assert_eq!(slots.iter().filter(|&&word| word != 0).count(), 3);
        });
    }

    #[test]
    fn loom_three_threads_agree_on_every_word() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let [a, b] = colliding();
            let threads: [&[usize]; 3] = [&[a], &[a, b], &[b]];
            let (slots, found) = insert_at_once(&[], &threads);
            check(&slots, &threads, &found);
            assert!(found.iter().flatten().all(Option::is_some));
            assert_eq!(slots.iter().filter(|&&word| word != 0).count(), 2);
        });
    }

    #[test]
    fn loom_the_last_slot_goes_to_one_word() {
        loom::model(|| {
            let [a, b] = colliding();
            let others: Vec<_> = (1..).filter(|w| ![a, b].contains(w)).take(7).collect();
            let threads: [&[usize]; 3] = [&[a], &[b], &[a]];
            let (slots, found) = insert_at_once(&others, &threads);
            check(&slots, &threads, &found);
            assert_eq!(found[0], found[2]);
            assert_ne!(found[0][0].is_some(), found[1][0].is_some());
        });
    }
}
