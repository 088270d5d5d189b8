//! Labels in texts, as Go writes them.

#![forbid(unsafe_code)]

use super::labels::{LabelSetId, Labels};
use crate::encode::wire::Window;

/// Where labels are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The line `# labels: {"key":"value", "key":"value"}` of `debug=1`, as `runtime/pprof`'s labelMap.String has it.
    Line,
    /// The ` {key: value, key: value}` in the header of a goroutine's stack in `debug=2`.
    Header,
}

/// Writes the labels of a set; nothing for the set without labels.
pub(crate) fn write(labels: Labels<'_>, set: LabelSetId, place: Place, out: &mut Window<'_>) {
    let mut separator = match place {
        Place::Line => "# labels: {",
        Place::Header => " {",
    };
    for (key, value) in labels.pairs(set) {
        out.text(separator);
        match place {
            Place::Line => {
                quoted(out, key.as_str());
                out.byte(b':');
                quoted(out, value.as_str());
            }
            Place::Header => {
                word(out, key.as_str());
                out.text(": ");
                word(out, value.as_str());
            }
        }
        separator = ", ";
    }
    match place {
        _ if separator != ", " => {}
        Place::Line => out.text("}\n"),
        Place::Header => out.byte(b'}'),
    }
}

/// A string that is quoted where it could be taken for something else, as Go's runtime does.
fn word(out: &mut Window<'_>, text: &str) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"./_".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        out.text(text);
    } else {
        quoted(out, text);
    }
}

/// A string as Go's `strconv.Quote` writes it.
///
/// What can't be printed is told by Rust's tables. For marks that combine with the character before they
/// differ from Go's, which prints them; who reads the string gets the same.
fn quoted(out: &mut Window<'_>, text: &str) {
    out.byte(b'"');
    for character in text.chars() {
        let code = character as usize;
        match character {
            '"' | '\\' => {
                out.byte(b'\\');
                out.character(character);
            }
            '\x07' => out.text("\\a"),
            '\x08' => out.text("\\b"),
            '\x0c' => out.text("\\f"),
            '\n' => out.text("\\n"),
            '\r' => out.text("\\r"),
            '\t' => out.text("\\t"),
            '\x0b' => out.text("\\v"),
            ' '..='~' => out.character(character),
            '\0'..='\x7f' => {
                out.text("\\x");
                out.hex_digits(code, 2);
            }
            _ if is_printable(character) => out.character(character),
            '\u{80}'..='\u{ffff}' => {
                out.text("\\u");
                out.hex_digits(code, 4);
            }
            _ => {
                out.text("\\U");
                out.hex_digits(code, 8);
            }
        }
    }
    out.byte(b'"');
}

fn is_printable(character: char) -> bool {
    !character.is_whitespace() && character.escape_debug().len() == 1
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::string::String;

    use super::*;
    use crate::profile::labels::LabelTable;

    fn written(write: impl FnOnce(&mut Window<'_>)) -> String {
        let mut out = [0; 200];
        let mut window = Window::new(&mut out);
        write(&mut window);
        let filled = window.filled();
        String::from_utf8(out[..filled].into()).unwrap()
    }

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
            assert_eq!(written(|out| super::quoted(out, text)), quoted);
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
        let text = |place| {
            written(|out| {
                labels.write(set, place, out);
                labels.write(LabelSetId::EMPTY, place, out);
            })
        };
        assert_eq!(
            text(Place::Line),
            "# labels: {\"route\":\"/a b\", \"tenant\":\"t1\", \"x-y\":\"\"}\n"
        );
        assert_eq!(
            text(Place::Header),
            r#" {route: "/a b", tenant: t1, "x-y": ""}"#
        );
    }
}
