//! Labels: what a program says of the work that it does, as Go's `pprof.Do` does.
//!
//! A string is interned a few bytes at a time, in the manner of a stack: each word of the set `text` is a pair of what
//! comes before and the next bytes, and the index of the last word is the string. A set of labels is a chain in the set
//! `sets` in the same way: key, value, key, value. They are in the order of the keys' numbers, which costs less than that of
//! the keys, and makes equal sets the same set too. Both grow by the one lock-free step of this crate, and nothing in
//! them ever changes or goes.

#![forbid(unsafe_code)]

use core::fmt;

use super::label_text::{self, Place};
use crate::encode::labels::{NUMBERING, Numbering};
use crate::encode::wire::Window;
use crate::stack::{Counter, set};
use crate::sync::{AtomicUsize, Ordering, array_of, const_fn};

/// The most labels that a set can have.
pub const MAX_LABELS: usize = 16;

/// The longest key or value, in bytes.
pub const MAX_TEXT: usize = 128;

/// Bits of a word for what is new in it; what it continues is in the others.
const HALF: u32 = usize::BITS / 2;
const NEW_MASK: usize = (1 << HALF) - 1;

/// Bytes of text in a word.
const CHUNK: usize = size_of::<usize>() / 2;

/// A set of labels, by its number in a [`LabelTable`]: the same for equal sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LabelSetId(u32);

impl LabelSetId {
    /// The set without labels.
    pub const EMPTY: Self = Self(0);

    /// Half a word's worth of bits; what [`from_bits`](Self::from_bits) takes back.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The set with this number.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// The memory of all labels: `TEXT` words for keys and values, each of which holds half a word's bytes of one string,
/// and `SETS` words for sets, of which a label takes two or, where another set has that key in that place, one.
///
/// Both must be powers of two from 8 up, at most 32,768 on a 32-bit machine. Strings that begin alike share words, and
/// what was interned stays: labels are for values that come again, not for a number of its own for each request. It is
/// made for a `static`:
///
/// ```
/// use picoprof::profile::labels::{LabelSetId, LabelTable};
///
/// static LABELS: LabelTable<256, 64> = LabelTable::new();
///
/// let labels = LABELS.view();
/// let outer = labels.extend(LabelSetId::EMPTY, &[("tenant", "a"), ("route", "/")]);
/// let inner = labels.extend(outer, &[("tenant", "b")]);
/// let pairs: Vec<_> = labels.pairs(inner).map(|(k, v)| format!("{k}={v}")).collect();
/// assert_eq!(pairs, ["route=/", "tenant=b"]);
/// ```
#[derive(Debug)]
pub struct LabelTable<const TEXT: usize, const SETS: usize> {
    text: [AtomicUsize; TEXT],
    sets: [AtomicUsize; SETS],
    lost: Counter,
}

impl<const TEXT: usize, const SETS: usize> LabelTable<TEXT, SETS> {
    const VALID: () = assert!(
        set::is_valid_len(TEXT) && set::is_valid_len(SETS),
        "TEXT and SETS must be powers of two from 8 up (on a 32-bit machine to 32,768)"
    );

    const_fn! {
        /// An empty table.
        #[must_use]
        pub fn new() -> Self {
            let () = Self::VALID;
            Self {
                text: array_of!(AtomicUsize::new(0)),
                sets: array_of!(AtomicUsize::new(0)),
                lost: Counter::new(),
            }
        }
    }

    /// The table as everything else uses it, without its sizes in the type.
    #[must_use]
    pub const fn view(&self) -> Labels<'_> {
        Labels {
            text: &self.text,
            sets: &self.sets,
            lost: &self.lost,
            reader: &Reader {
                set: read,
                text,
                write: label_text::write,
                numbering: NUMBERING,
            },
        }
    }
}

/// What reads a table. The view brings it, so that a program without a table is without this code.
#[derive(Debug)]
struct Reader {
    set: fn(&[AtomicUsize], LabelSetId) -> Pairs,
    text: fn(&[AtomicUsize], TextId) -> Text,
    write: fn(Labels<'_>, LabelSetId, Place, &mut Window<'_>),
    numbering: Numbering,
}

impl<const TEXT: usize, const SETS: usize> Default for LabelTable<TEXT, SETS> {
    fn default() -> Self {
        Self::new()
    }
}

/// A table of labels whose sizes are not in its type.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    text: &'a [AtomicUsize],
    sets: &'a [AtomicUsize],
    lost: &'a Counter,
    reader: &'static Reader,
}

impl<'a> Labels<'a> {
    /// The set with the labels of `base` and these, which go before those with the same key; of two with one key
    /// here, the later counts.
    ///
    /// Answers `base`, and counts that in [`lost`](Self::lost), if there is no room for all of them: the table is full,
    /// a string is longer than [`MAX_TEXT`], or they would be more than [`MAX_LABELS`].
    ///
    /// May run in a signal handler or an interrupt: no lock, bounded.
    #[must_use]
    pub fn extend(&self, base: LabelSetId, labels: &[(&str, &str)]) -> LabelSetId {
        self.extended(base, labels).unwrap_or_else(|| {
            self.lost.add(1);
            base
        })
    }

    /// Keys and values of a set, by key.
    pub fn pairs(self, set: LabelSetId) -> impl Iterator<Item = (Text, Text)> + 'a {
        let Pairs { mut pairs, len } = self.read(set);
        let by_text = |a: &Pair, b: &Pair| self.text(a.0).as_str().cmp(self.text(b.0).as_str());
        if let Some(pairs) = pairs.get_mut(..len) {
            pairs.sort_unstable_by(by_text);
        }
        let pairs = pairs.into_iter().take(len);
        pairs.map(move |(key, value)| (self.text(key), self.text(value)))
    }

    /// How many times a set was not made for want of room.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load()
    }

    /// Words in use for text and for sets: (used, room) each. Reads the whole table.
    #[must_use]
    pub fn usage(&self) -> [(usize, usize); 2] {
        let used = |words: &[AtomicUsize]| {
            let used = words.iter().filter(|w| w.load(Ordering::Relaxed) != 0);
            (used.count(), words.len())
        };
        [used(self.text), used(self.sets)]
    }

    /// Keys and values of a set by their numbers, in no order that means something.
    pub(crate) fn ids(&self, set: LabelSetId) -> Pairs {
        self.read(set)
    }

    /// The string with this number.
    pub(crate) fn text(&self, id: TextId) -> Text {
        (self.reader.text)(self.text, id)
    }

    /// What gives numbers to strings.
    pub(crate) const fn numbering(&self) -> &'static Numbering {
        &self.reader.numbering
    }

    /// Writes the labels of a set as Go does; nothing for the set without labels.
    pub(crate) fn write(&self, set: LabelSetId, place: Place, out: &mut Window<'_>) {
        (self.reader.write)(*self, set, place, out);
    }

    /// Whether a set has this string for a key or a value. Reads the whole table.
    pub(crate) fn has(&self, id: TextId) -> bool {
        let mut words = self.sets.iter().map(|word| word.load(Ordering::Acquire));
        words.any(|word| word & NEW_MASK == id.code())
    }

    /// The highest number that a string can have.
    pub(crate) const fn text_capacity(&self) -> usize {
        self.text.len()
    }

    fn extended(&self, base: LabelSetId, labels: &[(&str, &str)]) -> Option<LabelSetId> {
        let mut pairs = self.read(base);
        for &(key, value) in labels {
            pairs.put((self.intern(key)?, self.intern(value)?))?;
        }
        let mut pairs = pairs.pairs.iter().take(pairs.len);
        pairs.try_fold(LabelSetId::EMPTY, |set, &(key, value)| {
            self.link(self.link(set, key)?, value)
        })
    }

    fn intern(&self, text: &str) -> Option<TextId> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let mut chunks = text.as_bytes().chunks(CHUNK);
        chunks.try_fold(TextId::EMPTY, |before, chunk| {
            let word = (before.0 as usize) << HALF | packed(chunk);
            let index = set::find_or_insert(self.text, word)?;
            Some(TextId(index as u32 + 1))
        })
    }

    fn link(&self, before: LabelSetId, text: TextId) -> Option<LabelSetId> {
        let word = (before.0 as usize) << HALF | text.code();
        let index = set::find_or_insert(self.sets, word)?;
        Some(LabelSetId(index as u32 + 1))
    }

    fn read(&self, set: LabelSetId) -> Pairs {
        (self.reader.set)(self.sets, set)
    }
}

fn read(sets: &[AtomicUsize], set: LabelSetId) -> Pairs {
    let mut pairs = Pairs::default();
    let mut rest = set;
    let mut next = || {
        let word = word_at(sets, rest.0)?;
        rest = LabelSetId((word >> HALF) as u32);
        TextId::of_code(word & NEW_MASK)
    };
    while let Some(value) = next()
        && let Some(key) = next()
        && pairs.put((key, value)).is_some()
    {}
    pairs
}

fn text(words: &[AtomicUsize], id: TextId) -> Text {
    let mut text = Text::EMPTY;
    let mut rest = id;
    // None is longer.
    while let Some(word) = word_at(words, rest.0).filter(|_| text.start > 0) {
        text.put_before(word);
        rest = TextId((word >> HALF) as u32);
    }
    text
}

/// The word that a number names, if it does: 0 is what chains begin with.
fn word_at(words: &[AtomicUsize], number: u32) -> Option<usize> {
    let word = words.get((number as usize).checked_sub(1)?)?;
    Some(word.load(Ordering::Acquire)).filter(|&word| word != 0)
}

/// Bytes of UTF-8, the first lowest. They are inverted: no byte of UTF-8 is 0xff, so zeros are what is not there.
fn packed(chunk: &[u8]) -> usize {
    let bytes = chunk.iter().rev();
    bytes.fold(0, |word, &byte| word << 8 | usize::from(!byte))
}

/// A string by its number: one more than the index of its last word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TextId(u32);

impl TextId {
    pub(crate) const EMPTY: Self = Self(0);

    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    pub(crate) const fn number(self) -> u32 {
        self.0
    }

    /// As a word of a set has it: not zero.
    const fn code(self) -> usize {
        self.0 as usize + 1
    }

    fn of_code(code: usize) -> Option<Self> {
        Some(Self(code.checked_sub(1)? as u32))
    }
}

/// Key and value.
pub(crate) type Pair = (TextId, TextId);

/// Labels by their keys' numbers.
#[derive(Default)]
pub(crate) struct Pairs {
    pairs: [Pair; MAX_LABELS],
    len: usize,
}

impl Pairs {
    pub(crate) fn as_slice(&self) -> &[Pair] {
        self.pairs.get(..self.len).unwrap_or_default()
    }

    /// Puts a label in, for that with the same key if there's one; `None` if there is no room.
    fn put(&mut self, pair: Pair) -> Option<()> {
        let held = self.pairs.get(..self.len)?;
        let place = held.iter().position(|other| other.0 >= pair.0);
        let place = place.unwrap_or(self.len);
        if place == self.len || self.pairs.get(place)?.0 != pair.0 {
            self.pairs.get_mut(self.len)?;
            self.len += 1;
            self.pairs.get_mut(place..self.len)?.rotate_right(1);
        }
        *self.pairs.get_mut(place)? = pair;
        Some(())
    }
}

/// A key or a value.
#[derive(Clone)]
pub struct Text {
    bytes: [u8; MAX_TEXT],
    /// The first that is in use; all are behind it.
    start: usize,
}

impl Text {
    const EMPTY: Self = Self {
        bytes: [0; MAX_TEXT],
        start: MAX_TEXT,
    };

    /// The string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It was a string when it was interned.
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn put_before(&mut self, word: usize) {
        let bytes = (0..CHUNK).rev().map(|place| (word >> (8 * place)) as u8);
        for byte in bytes.filter(|&byte| byte != 0) {
            let place = self.start.saturating_sub(1);
            if let Some(free) = self.bytes.get_mut(place) {
                (*free, self.start) = (!byte, place);
            }
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::collections::{BTreeMap, HashMap};
    use std::string::{String, ToString};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn pairs(labels: Labels<'_>, set: LabelSetId) -> Vec<(String, String)> {
        let pairs = labels.pairs(set);
        pairs.map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let pairs = pairs.iter();
        pairs.map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn equal_sets_are_one_whatever_the_order() {
        let table = LabelTable::<64, 64>::new();
        let labels = table.view();
        let a = labels.extend(LabelSetId::EMPTY, &[("tenant", "a"), ("route", "/x")]);
        let outer = labels.extend(LabelSetId::EMPTY, &[("route", "/y"), ("tenant", "a")]);
        assert_ne!(outer, a);
        assert_eq!(labels.extend(outer, &[("route", "/x")]), a);
        assert_eq!(labels.extend(a, &[("route", "1"), ("route", "/x")]), a);
        assert_eq!(labels.extend(a, &[]), a);
        assert_eq!(pairs(labels, a), owned(&[("route", "/x"), ("tenant", "a")]));
        assert_eq!(labels.lost(), 0);
    }

    #[test]
    fn any_string_comes_back() {
        let table = LabelTable::<1024, 64>::new();
        let labels = table.view();
        let longest = "é".repeat(MAX_TEXT / 2);
        for text in [
            "",
            "\0",
            "\0\0\0\0\0",
            "a\0",
            "abcd",
            "abcde",
            "😀",
            "tenant\n\"",
            &longest,
        ] {
            let set = labels.extend(LabelSetId::EMPTY, &[(text, "v"), ("k", text)]);
            let found: BTreeMap<_, _> = pairs(labels, set).into_iter().collect();
            assert_eq!(found[text], "v");
            assert_eq!(found["k"], text);
        }
        assert_eq!(labels.lost(), 0);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_the_base_kept() {
        let table = LabelTable::<64, 64>::new();
        let labels = table.view();
        let base = labels.extend(LabelSetId::EMPTY, &[("k", "v")]);
        let too_long = "x".repeat(MAX_TEXT + 1);
        assert_eq!(labels.extend(base, &[("a", "b"), ("c", &too_long)]), base);
        assert_eq!(labels.lost(), 1);

        let keys: Vec<String> = (0..MAX_LABELS).map(|i| i.to_string()).collect();
        let many: Vec<_> = keys.iter().map(|key| (key.as_str(), "")).collect();
        assert_eq!(labels.extend(base, &many), base);
        assert_eq!(labels.lost(), 2);
        let most = labels.extend(base, &many[1..]);
        assert_eq!(pairs(labels, most).len(), MAX_LABELS);
        assert_eq!(
            pairs(labels, labels.extend(most, &[("k", "w")]))[MAX_LABELS - 1].1,
            "w"
        );

        let values: Vec<String> = (0..100).map(|i| std::format!("value {i}")).collect();
        for value in &values {
            let set = labels.extend(base, &[("k", value)]);
            assert!(set == base || pairs(labels, set) == owned(&[("k", value)]));
        }
        assert!(labels.lost() > 2);
        let full = labels.usage()[0];
        assert_eq!(full.0, full.1);
    }

    #[test]
    fn a_number_of_no_set_is_read_as_something() {
        let table = LabelTable::<64, 64>::new();
        let labels = table.view();
        let set = labels.extend(LabelSetId::EMPTY, &[("a", "b"), ("c", "d")]);
        for bits in (0..100).chain([set.to_bits() + 1, u32::MAX]) {
            assert!(pairs(labels, LabelSetId::from_bits(bits)).len() <= 2);
        }
    }

    #[test]
    fn what_a_set_has_is_known() {
        let table = LabelTable::<64, 64>::new();
        let labels = table.view();
        let set = labels.extend(LabelSetId::EMPTY, &[("tenant", "acme")]);
        for &(key, value) in labels.ids(set).as_slice() {
            assert!(labels.has(key) && labels.has(value));
        }
        let count =
            (1..=labels.text_capacity() as u32).filter(|&number| labels.has(TextId::new(number)));
        assert_eq!(count.count(), 2);
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(
            steps in prop::collection::vec(
                (any::<prop::sample::Index>(), prop::collection::vec(("[ab]{0,5}|\\PC{0,9}", "[01]{0,9}"), 0..4)),
                1..60,
            )
        ) {
            let table = LabelTable::<8192, 4096>::new();
            let labels = table.view();
            let mut sets = std::vec![(LabelSetId::EMPTY, BTreeMap::<String, String>::new())];
            let mut known = HashMap::new();
            for (base, added) in &steps {
                let (base, mut model) = base.get(&sets).clone();
                let added: Vec<_> = added.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                model.extend(owned(&added));
                let set = labels.extend(base, &added);
                if model.len() > MAX_LABELS {
                    prop_assert_eq!(set, base);
                    continue;
                }
                let expected: Vec<_> = model.clone().into_iter().collect();
                prop_assert_eq!(pairs(labels, set), expected);
                prop_assert_eq!(*known.entry(model.clone()).or_insert(set), set);
                sets.push((set, model));
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    extern crate std;

    use std::string::{String, ToString};
    use std::vec::Vec;

    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn pairs(labels: Labels<'_>, set: LabelSetId) -> Vec<(String, String)> {
        let pairs = labels.pairs(set);
        pairs.map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    /// A set takes a dozen steps, each of which is one that the set's own models try in full.
    fn bounded() -> loom::model::Builder {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model
    }

    #[test]
    fn loom_two_threads_agree_on_a_set() {
        bounded().check(|| {
            let table = Arc::new(LabelTable::<8, 8>::new());
            let extend = |labels: [(&'static str, &'static str); 2]| {
                let table = table.clone();
                move || table.view().extend(LabelSetId::EMPTY, &labels)
            };
            let other = thread::spawn(extend([("k", "v"), ("l", "v")]));
            let ours = extend([("l", "v"), ("k", "v")])();
            // What is read at once is whole.
            assert_eq!(pairs(table.view(), ours).len(), 2);
            assert_eq!(other.join().unwrap(), ours);
            assert_eq!(table.view().usage(), [(3, 8), (4, 8)]);
        });
    }

    /// As a row's tag does: the number of a set goes to a reader on another thread.
    #[test]
    fn loom_a_set_is_whole_for_who_is_told_of_it() {
        bounded().check(|| {
            let shared = Arc::new((LabelTable::<8, 8>::new(), AtomicUsize::new(0)));
            let writer = thread::spawn({
                let shared = shared.clone();
                move || {
                    let set = shared
                        .0
                        .view()
                        .extend(LabelSetId::EMPTY, &[("key", "value")]);
                    shared.1.store(set.to_bits() as usize, Ordering::Release);
                }
            });
            let set = LabelSetId::from_bits(shared.1.load(Ordering::Acquire) as u32);
            let found = pairs(shared.0.view(), set);
            assert!(set == LabelSetId::EMPTY || found == [("key".into(), "value".into())]);
            writer.join().unwrap();
        });
    }

    #[test]
    fn loom_the_last_room_goes_to_one_and_the_other_is_counted() {
        bounded().check(|| {
            let table = Arc::new(LabelTable::<64, 8>::new());
            let labels = table.view();
            // One label of three links is left room for: the key's and one value's.
            for value in ["1", "2", "3", "4", "5", "6"] {
                assert_ne!(
                    labels.extend(LabelSetId::EMPTY, &[("k", value)]),
                    LabelSetId::EMPTY
                );
            }
            let extend = |value: &'static str| {
                let table = table.clone();
                move || table.view().extend(LabelSetId::EMPTY, &[("k", value)])
            };
            let other = thread::spawn(extend("7"));
            let ours = extend("8")();
            let theirs = other.join().unwrap();
            assert_ne!(ours == LabelSetId::EMPTY, theirs == LabelSetId::EMPTY);
            assert_eq!(table.view().lost(), 1);
        });
    }
}
