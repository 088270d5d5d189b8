//! Labels in texts, as Go writes them.

#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use super::labels::{LabelSetId, Labels};

/// Where labels are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The line `# labels: {"key":"value", "key":"value"}` of `debug=1`, as `runtime/pprof`'s labelMap.String has it.
    Line,
    /// The ` {key: value, key: value}` in the header of a goroutine's stack in `debug=2`.
    Header,
}

/// Writes the labels of a set; nothing for the set without labels.
pub(crate) fn write(
    labels: Labels<'_>,
    set: LabelSetId,
    place: Place,
    out: &mut dyn Write,
) -> fmt::Result {
    let mut separator = match place {
        Place::Line => "# labels: {",
        Place::Header => " {",
    };
    for (key, value) in labels.pairs(set) {
        let (key, value) = (key.as_str(), value.as_str());
        match place {
            Place::Line => write!(out, "{separator}{}:{}", Quoted(key), Quoted(value))?,
            Place::Header => write!(out, "{separator}{}: {}", Word(key), Word(value))?,
        }
        separator = ", ";
    }
    match place {
        _ if separator != ", " => Ok(()),
        Place::Line => out.write_str("}\n"),
        Place::Header => out.write_str("}"),
    }
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
        let labels = table.view();
        let set = table.view().extend(
            LabelSetId::EMPTY,
            &[("tenant", "t1"), ("route", "/a b"), ("x-y", "")],
        );
        let mut text = String::new();
        labels.write(set, Place::Line, &mut text).unwrap();
        labels
            .write(LabelSetId::EMPTY, Place::Line, &mut text)
            .unwrap();
        assert_eq!(
            text,
            "# labels: {\"route\":\"/a b\", \"tenant\":\"t1\", \"x-y\":\"\"}\n"
        );
        text.clear();
        labels.write(set, Place::Header, &mut text).unwrap();
        labels
            .write(LabelSetId::EMPTY, Place::Header, &mut text)
            .unwrap();
        assert_eq!(text, r#" {route: "/a b", tenant: t1, "x-y": ""}"#);
    }
}
