//! One document: from the JSON of a request to what the store keeps, and back to a page.

#![forbid(unsafe_code)]

use core::fmt;
use std::collections::HashMap;
use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A document as its author sends it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    pub(crate) title: String,
    pub(crate) author: String,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    pub(crate) paragraphs: Vec<String>,
}

/// A document as the store keeps it.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) title: String,
    pub(crate) author: String,
    /// SHA-256 of the JSON.
    pub(crate) digest: [u8; 32],
    /// Length of the JSON in bytes.
    pub(crate) length: usize,
    /// How many words the text has.
    pub(crate) words: u64,
    /// The JSON, in zlib's format.
    body: Box<[u8]>,
}

/// A word without regard to case, known by its hash: should two words share one, a search finds
/// both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Word(u64);

/// A word of a document and how often it stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Term {
    pub(crate) word: Word,
    pub(crate) count: u32,
}

/// Why a document is refused.
#[derive(Debug)]
pub(crate) enum Invalid {
    /// Not the JSON of a document.
    Json(serde_json::Error),
    /// A field that must say something is blank.
    Blank(&'static str),
    /// A field is longer than its limit.
    TooLong(&'static str, usize),
    /// A text holds a control character other than a tab or a line break.
    Control(&'static str),
}

const TITLE_LIMIT: usize = 200;
const TAG_LIMIT: usize = 40;
const TAGS_LIMIT: usize = 16;

/// Reads a document from JSON.
///
/// # Errors
///
/// [`Invalid`] says what is wrong with it.
pub(crate) fn parse(json: &[u8]) -> Result<Document, Invalid> {
    let document = serde_json::from_slice(json).map_err(Invalid::Json)?;
    validate(&document)?;
    Ok(document)
}

/// Makes of a document what the store keeps, and the terms to index it under.
///
/// # Errors
///
/// Only when the encoders fail, which they have no reason to while they write to memory.
pub(crate) fn pack(document: Document) -> io::Result<(Packed, Vec<Term>)> {
    let json = serde_json::to_vec(&document)?;
    let terms = count_words(&document);
    let packed = Packed {
        digest: digest(&json),
        length: json.len(),
        words: terms.iter().map(|term| u64::from(term.count)).sum(),
        body: compress(&json)?,
        title: document.title,
        author: document.author,
    };
    Ok((packed, terms))
}

/// The document that [`pack`] packed.
///
/// # Errors
///
/// When the kept bytes are damaged.
pub(crate) fn unpack(packed: &Packed) -> io::Result<Document> {
    let json = decompress(&packed.body, packed.length)?;
    if digest(&json) != packed.digest {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the digest does not match",
        ));
    }
    Ok(serde_json::from_slice(&json)?)
}

/// The document as a page of HTML.
pub(crate) fn render(document: &Document) -> String {
    let text: usize = document.paragraphs.iter().map(String::len).sum();
    let mut page = String::with_capacity(text + text / 16 + 512);
    page.push_str("<!doctype html>\n<meta charset=\"utf-8\">\n<title>");
    escape(&document.title, &mut page);
    page.push_str("</title>\n<h1>");
    escape(&document.title, &mut page);
    page.push_str("</h1>\n<address>");
    escape(&document.author, &mut page);
    page.push_str("</address>\n<ul>\n");
    for tag in &document.tags {
        page.push_str("<li>");
        escape(tag, &mut page);
        page.push('\n');
    }
    page.push_str("</ul>\n");
    for paragraph in &document.paragraphs {
        page.push_str("<p>");
        escape(paragraph, &mut page);
        page.push('\n');
    }
    page
}

/// The words of a text, in order.
pub(crate) fn words(text: &str) -> impl Iterator<Item = Word> + '_ {
    text.split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(fold_word)
}

impl Packed {
    /// How many bytes it holds on to.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + self.title.len() + self.author.len() + self.body.len()
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(f, "not a document: {error}"),
            Self::Blank(field) => write!(f, "{field}: blank"),
            Self::TooLong(field, limit) => write!(f, "{field}: more than {limit}"),
            Self::Control(field) => write!(f, "{field}: holds a control character"),
        }
    }
}

fn validate(document: &Document) -> Result<(), Invalid> {
    check("title", &document.title, TITLE_LIMIT)?;
    check("author", &document.author, TITLE_LIMIT)?;
    if document.tags.len() > TAGS_LIMIT {
        return Err(Invalid::TooLong("tags", TAGS_LIMIT));
    }
    for tag in &document.tags {
        check("tag", tag, TAG_LIMIT)?;
    }
    if document.paragraphs.is_empty() {
        return Err(Invalid::Blank("paragraphs"));
    }
    for paragraph in &document.paragraphs {
        check("paragraph", paragraph, usize::MAX)?;
    }
    Ok(())
}

fn check(field: &'static str, text: &str, limit: usize) -> Result<(), Invalid> {
    if text.trim().is_empty() {
        return Err(Invalid::Blank(field));
    }
    if text.len() > limit {
        return Err(Invalid::TooLong(field, limit));
    }
    if text
        .chars()
        .any(|letter| letter.is_control() && !matches!(letter, '\t' | '\n' | '\r'))
    {
        return Err(Invalid::Control(field));
    }
    Ok(())
}

/// The words of a document and how often each occurs.
fn count_words(document: &Document) -> Vec<Term> {
    let mut counts = HashMap::<Word, u32>::new();
    let texts = [&document.title, &document.author]
        .into_iter()
        .chain(&document.tags)
        .chain(&document.paragraphs);
    for text in texts {
        for word in words(text) {
            let count = counts.entry(word).or_default();
            *count = count.saturating_add(1);
        }
    }
    counts
        .into_iter()
        .map(|(word, count)| Term { word, count })
        .collect()
}

/// The word that is spelled so: FNV-1a over its letters in lower case.
///
/// Always part of its caller, and so an example of a function that profiles name though the
/// program has no code of its own for it.
#[inline(always)]
fn fold_word(spelled: &str) -> Word {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = OFFSET_BASIS;
    for letter in spelled.chars() {
        for lower in letter.to_lowercase() {
            hash = (hash ^ u64::from(lower)).wrapping_mul(PRIME);
        }
    }
    Word(hash)
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn compress(bytes: &[u8]) -> io::Result<Box<[u8]>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish().map(Vec::into_boxed_slice)
}

fn decompress(bytes: &[u8], length: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(length);
    ZlibDecoder::new(bytes)
        .take(length as u64)
        .read_to_end(&mut out)?;
    Ok(out)
}

/// Appends a text to a page, with what HTML would take for markup escaped.
fn escape(text: &str, page: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find(['&', '<', '>', '"']) {
        let (plain, special) = rest.split_at(at);
        page.push_str(plain);
        page.push_str(match special.as_bytes().first() {
            Some(b'&') => "&amp;",
            Some(b'<') => "&lt;",
            Some(b'>') => "&gt;",
            _ => "&quot;",
        });
        // Each of the four is one byte long.
        rest = special.get(1..).unwrap_or_default();
    }
    page.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        Document {
            title: "On locks & keys".to_owned(),
            author: "A. Smith".to_owned(),
            tags: vec!["iron".to_owned()],
            paragraphs: vec!["A lock, a LOCK; an Ärger.".to_owned(), "1 < 2".to_owned()],
        }
    }

    fn json(title: &str, paragraphs: &[&str]) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({
            "title": title, "author": "A", "paragraphs": paragraphs
        }))
        .unwrap()
    }

    #[test]
    fn a_document_survives_packing() {
        let before = document();
        let json = serde_json::to_vec(&before).unwrap();
        assert_eq!(parse(&json).unwrap(), before);
        let (packed, _) = pack(before.clone()).unwrap();
        assert_eq!(packed.length, json.len());
        assert_eq!(unpack(&packed).unwrap(), before);
    }

    #[test]
    fn repetition_is_compressed() {
        let long = Document {
            paragraphs: vec!["the same again ".repeat(1000)],
            ..document()
        };
        let (packed, _) = pack(long).unwrap();
        assert!(packed.weight() < packed.length / 10);
    }

    #[test]
    fn damage_is_noticed() {
        let (mut packed, _) = pack(document()).unwrap();
        packed.digest[0] ^= 1;
        assert!(unpack(&packed).is_err());
        packed.digest[0] ^= 1;
        let middle = packed.body.len() / 2;
        packed.body[middle] ^= 0x10;
        assert!(unpack(&packed).is_err());
    }

    #[test]
    fn what_is_not_a_document_is_refused() {
        assert!(matches!(parse(b""), Err(Invalid::Json(_))));
        assert!(matches!(parse(b"{\"title\":1}"), Err(Invalid::Json(_))));
        assert!(matches!(
            parse(&json(" ", &["x"])),
            Err(Invalid::Blank("title"))
        ));
        assert!(matches!(
            parse(&json("t", &[])),
            Err(Invalid::Blank("paragraphs"))
        ));
        assert!(matches!(
            parse(&json(&"t".repeat(201), &["x"])),
            Err(Invalid::TooLong("title", 200))
        ));
        assert!(matches!(
            parse(&json("t", &["bell \u{7}"])),
            Err(Invalid::Control("paragraph"))
        ));
    }

    #[test]
    fn words_are_counted_without_regard_to_case() {
        let terms = count_words(&document());
        let count = |spelled| {
            let word = fold_word(spelled);
            terms
                .iter()
                .find(|term| term.word == word)
                .map(|term| term.count)
        };
        assert_eq!(count("lock"), Some(2));
        assert_eq!(count("ärger"), Some(1));
        assert_eq!(count("ÄRGER"), Some(1));
        assert_eq!(count("a"), Some(3));
        assert_eq!(count("door"), None);
    }

    #[test]
    fn words_are_split_at_what_is_no_letter_or_digit() {
        let of = |text| words(text).collect::<Vec<_>>();
        assert_eq!(
            of(" one,two--Three3 "),
            ["one", "two", "three3"].map(fold_word)
        );
        assert_eq!(of("  ... "), []);
    }

    #[test]
    fn pages_are_escaped() {
        let page = render(&document());
        assert!(page.contains("<h1>On locks &amp; keys</h1>"));
        assert!(page.contains("<p>1 &lt; 2\n"));
        assert!(page.contains("<li>iron\n"));
    }
}
