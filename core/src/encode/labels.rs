//! Labels as the encoders show them: as strings of a profile, and in the texts as Go writes them.

#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use crate::profile::labels::{LabelSetId, Labels, Text, TextId};

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
            for (key, value) in labels.ids(set) {
                self.insert_text(key);
                self.insert_text(value);
            }
        }
    }

    /// Keys and values of a set that is in, by their numbers; 0 for a string that is empty.
    pub(crate) fn pairs(&self, set: LabelSetId) -> impl Iterator<Item = (u64, u64)> {
        let labels = self.labels.filter(|_| set != LabelSetId::EMPTY);
        let pairs = labels.into_iter().flat_map(move |labels| labels.ids(set));
        pairs.map(|(key, value)| (self.number(key), self.number(value)))
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

/// The line `# labels: {"key":"value", "key":"value"}` of `debug=1`, as `runtime/pprof`'s labelMap.String has it;
/// nothing for the set without labels.
pub(crate) fn render_line(
    out: &mut impl Write,
    labels: Option<Labels<'_>>,
    set: LabelSetId,
) -> fmt::Result {
    let mut separator = "# labels: {";
    for (key, value) in pairs(labels, set) {
        write!(
            out,
            "{separator}{}:{}",
            Quoted(key.as_str()),
            Quoted(value.as_str())
        )?;
        separator = ", ";
    }
    if separator == ", " {
        out.write_str("}\n")
    } else {
        Ok(())
    }
}

/// The ` {key: value, key: value}` in the header of a goroutine's stack in `debug=2`; nothing for the set without
/// labels.
pub(crate) fn render_in_header(
    out: &mut impl Write,
    labels: Option<Labels<'_>>,
    set: LabelSetId,
) -> fmt::Result {
    let mut separator = " {";
    for (key, value) in pairs(labels, set) {
        write!(
            out,
            "{separator}{}: {}",
            Word(key.as_str()),
            Word(value.as_str())
        )?;
        separator = ", ";
    }
    if separator == ", " {
        out.write_str("}")
    } else {
        Ok(())
    }
}

fn pairs<'a>(
    labels: Option<Labels<'a>>,
    set: LabelSetId,
) -> impl Iterator<Item = (Text, Text)> + 'a {
    labels.into_iter().flat_map(move |labels| labels.pairs(set))
}

/// A string that is quoted where it could be taken for something else, as Go's runtime does.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"./_".contains(&byte);
        if !self.0.is_empty() && self.0.bytes().all(is_plain) {
            f.write_str(self.0)
        } else {
            fmt::Display::fmt(&Quoted(self.0), f)
        }
    }
}

/// A string as Go's `strconv.Quote` writes it.
///
/// What can't be printed is told by Rust's tables. For marks that combine with the character before they
/// differ from Go's, which prints them; who reads the string gets the same.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                '\x07' => f.write_str("\\a")?,
                '\x08' => f.write_str("\\b")?,
                '\x0c' => f.write_str("\\f")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\x0b' => f.write_str("\\v")?,
                ' '..='~' => f.write_char(character)?,
                '\0'..='\x7f' => write!(f, "\\x{:02x}", u32::from(character))?,
                _ if is_printable(character) => f.write_char(character)?,
                '\u{80}'..='\u{ffff}' => write!(f, "\\u{:04x}", u32::from(character))?,
                _ => write!(f, "\\U{:08x}", u32::from(character))?,
            }
        }
        f.write_char('"')
    }
}

fn is_printable(character: char) -> bool {
    !character.is_whitespace() && character.escape_debug().len() == 1
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::string::{String, ToString};
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::profile::labels::LabelTable;

    /// What Go 1.27's strconv.Quote makes of them.
    #[test]
    fn quotes_as_go_does() {
        for (text, quoted) in [
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("\"\\'", r#""\"\\'""#),
            (
                "\0\x07\x08\t\n\x0b\x0c\r\x1b\x7f",
                r#""\x00\a\b\t\n\v\f\r\x1b\x7f""#,
            ),
            ("é日😀", r#""é日😀""#),
            (
                "\u{a0}\u{200b}\u{feff}\u{e000}",
                r#""\u00a0\u200b\ufeff\ue000""#,
            ),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(Quoted(text).to_string(), quoted);
        }
    }

    #[test]
    fn texts_are_those_of_go() {
        let table = LabelTable::<64, 64>::new();
        let labels = Some(table.view());
        let set = table.view().extend(
            LabelSetId::EMPTY,
            &[("tenant", "t1"), ("route", "/a b"), ("x-y", "")],
        );
        let mut text = String::new();
        render_line(&mut text, labels, set).unwrap();
        render_line(&mut text, labels, LabelSetId::EMPTY).unwrap();
        render_line(&mut text, None, set).unwrap();
        assert_eq!(
            text,
            "# labels: {\"route\":\"/a b\", \"tenant\":\"t1\", \"x-y\":\"\"}\n"
        );
        text.clear();
        render_in_header(&mut text, labels, set).unwrap();
        render_in_header(&mut text, labels, LabelSetId::EMPTY).unwrap();
        assert_eq!(text, r#" {route: "/a b", tenant: t1, "x-y": ""}"#);
    }

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
                let mut texts: Vec<_> = strings
                    .pairs(set)
                    .map(|(key, value)| {
                        let text = |number| labels.text(strings.text(number)).to_string();
                        (text(key), text(value))
                    })
                    .collect();
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
        assert_eq!((no_labels.count(), no_labels.pairs(other).count()), (0, 0));
    }
}
