//! Text of the device (`debug=1`, and `goroutine?debug=2`) gets the names that it would have had if the device
//! knew them, where the device would have written them.
//!
//! A frame without a name is a line `#<tab>0xPC` in the first, and in the second `0xPC(...)` or `created by 0xPC`,
//! with a line `<tab>??:0` behind it. No other line looks like these: names of threads and tasks have one of
//! their own, and labels are quoted.

#![forbid(unsafe_code)]

use core::fmt::Write as _;

use crate::names::{Code, Frame};

/// Beyond that a text is of nobody's program.
const MOST_TEXT: usize = 4 * crate::MOST_BYTES;

/// In place of the file and line of a frame without a name.
const UNKNOWN_PLACE: &str = "\t??:0";

/// Whether there is an address in it that a name can be put to.
pub(crate) fn has_addresses(text: &str) -> bool {
    text.lines().any(|line| Place::of(line).is_some())
}

/// The text with the names of `code`; `None` if it becomes too long.
pub(crate) fn add_names(text: &str, code: &mut Code) -> Option<String> {
    let mut named = String::with_capacity(text.len() * 2);
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let place = Place::of(line.trim_end_matches('\n'));
        let frames = place.as_ref().map(|place| code.frames(place.address()));
        match (place, frames.as_deref()) {
            (Some(place), Some(frames @ [innermost, ..])) => match place {
                Place::Comment(address) => frames.iter().for_each(|frame| {
                    let Frame { function, line } = frame;
                    // Writing to a String does not fail, here and below.
                    let _ = writeln!(
                        named,
                        "#\t{address:#x}\t{}\t{}:{line}",
                        function.name, function.file
                    );
                }),
                Place::Frame(_) => {
                    skip_unknown_place(&mut lines);
                    frames.iter().for_each(|frame| {
                        let _ = writeln!(named, "{}(...)", callee(&frame.function.name));
                        write_place(&mut named, frame);
                    });
                }
                Place::Creator(_, task) => {
                    skip_unknown_place(&mut lines);
                    let name = callee(&innermost.function.name);
                    let _ = writeln!(named, "created by {name}{task}");
                    write_place(&mut named, innermost);
                }
            },
            _ => named.push_str(line),
        }
        if named.len() > MOST_TEXT {
            return None;
        }
    }
    Some(named)
}

/// What a line says of an address that has no name.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Comment(u64),
    Frame(u64),
    /// And in which task.
    Creator(u64, &'a str),
}

impl<'a> Place<'a> {
    fn of(line: &'a str) -> Option<Self> {
        if let Some(address) = line.strip_prefix("#\t") {
            return Some(Self::Comment(parse(address)?));
        }
        if let Some(creator) = line.strip_prefix("created by ") {
            let end = creator.find(' ').unwrap_or(creator.len());
            let (address, task) = creator.split_at(end);
            return Some(Self::Creator(parse(address)?, task));
        }
        Some(Self::Frame(parse(line.strip_suffix("(...)")?)?))
    }

    fn address(&self) -> u64 {
        match *self {
            Self::Comment(address) | Self::Frame(address) | Self::Creator(address, _) => address,
        }
    }
}

fn parse(address: &str) -> Option<u64> {
    let digits = address.strip_prefix("0x")?;
    let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| is_hex)
}

fn skip_unknown_place<'a>(lines: &mut core::iter::Peekable<impl Iterator<Item = &'a str>>) {
    lines.next_if(|line| line.trim_end_matches('\n') == UNKNOWN_PLACE);
}

fn write_place(out: &mut String, frame: &Frame) {
    let file = &*frame.function.file;
    let file = if file.is_empty() { "??" } else { file };
    let _ = writeln!(out, "\t{file}:{}", frame.line);
}

/// A function's name as readers of dumps can tell it from its arguments: parentheses in parentheses become braces,
/// and all do where they are no pairs.
fn callee(name: &str) -> String {
    let count = |wanted| name.chars().filter(|&c| c == wanted).count();
    let is_paired = count('(') == count(')');
    let mut depth = 0_i64;
    let braced = name.chars().map(|c| match c {
        '(' => {
            depth += 1;
            if is_paired && depth == 1 { '(' } else { '{' }
        }
        ')' => {
            depth -= 1;
            if is_paired && depth == 0 { ')' } else { '}' }
        }
        c if c.is_control() => '?',
        c => c,
    });
    braced.collect()
}

#[cfg(test)]
mod tests {
    use object::{Architecture, SymbolKind, SymbolScope};

    use super::*;
    use crate::names::tests::file_with;

    fn named(text: &str) -> String {
        let (function, all) = (SymbolKind::Text, SymbolScope::Linkage);
        // Of a firmware, `core::ptr::drop_in_place::<((), u8)>`.
        let generic = "_RINvNtCs1234_4core3ptr13drop_in_placeTuhEEB2_";
        let names = [
            ("start", 0, 4, function, all),
            (generic, 4, 4, function, all),
        ];
        let mut code = file_with(Architecture::Riscv32, &names);
        add_names(text, &mut code).expect("it is short")
    }

    #[test]
    fn comments_get_names() {
        let text = "mutex:\n1 @ 0x2 0x6 0x1\n# labels: {\"a\":\"#\\t0x1\"}\n#\t0x1\n#\t0x5\n#\t0x99\n#\t0x0\tmarker\n\n#\t0x1\tx\n# 0x1\n#\t0x\n#\t0x1g\n";
        let frames = "#\t0x1\tstart\t:0\n#\t0x5\tcore::ptr::drop_in_place::<((), u8)>\t:0\n";
        assert!(has_addresses(text));
        assert_eq!(named(text), text.replacen("#\t0x1\n#\t0x5\n", frames, 1));
        // What is cut off stays so.
        assert_eq!(named("#\t0x99"), "#\t0x99");
        assert_eq!(named(""), "");
        assert!(!has_addresses(
            "heap profile: 0: 0 [0: 0] @ heap/2\n# 0x1\n"
        ));
    }

    #[test]
    fn dumps_get_names() {
        let dump = "goroutine 1 [running]:\n0x1(...)\n\t??:0\n0x99(...)\n\t??:0\npicoprof.thread[0x1(...)](...)\n\
                    \t<autogenerated>:1\ncreated by 0x5 in goroutine 7\n\t??:0\n\ngoroutine 2 [select]:\n0x5(...)\n\
                    \tother\ncreated by 0x1\n\t??:0\n";
        let expected = "goroutine 1 [running]:\nstart(...)\n\t??:0\n0x99(...)\n\t??:0\npicoprof.thread[0x1(...)](...)\n\
                        \t<autogenerated>:1\ncreated by core::ptr::drop_in_place::<({}, u8)> in goroutine 7\n\t??:0\n\n\
                        goroutine 2 [select]:\ncore::ptr::drop_in_place::<({}, u8)>(...)\n\t??:0\n\tother\n\
                        created by start\n\t??:0\n";
        assert_eq!(named(dump), expected);
    }

    #[test]
    fn a_text_does_not_grow_without_end() {
        let text = "#\t0x5\n".repeat(MOST_TEXT / 40);
        let (function, all) = (SymbolKind::Text, SymbolScope::Linkage);
        let long = "f".repeat(60);
        let mut code = file_with(Architecture::Riscv32, &[(&long, 4, 4, function, all)]);
        assert_eq!(add_names(&text, &mut code), None);
    }

    #[test]
    fn parentheses_are_told_from_those_of_arguments() {
        for (name, shown) in [
            ("f", "f"),
            ("drop<(u8, u8)>", "drop<(u8, u8)>"),
            ("f<fn((A, B)) -> (C,)>::g", "f<fn({A, B}) -> (C,)>::g"),
            (")a(", "}a{"),
            ("cut<(", "cut<{"),
            ("two\nlines", "two?lines"),
        ] {
            assert_eq!(callee(name), shown);
        }
    }
}
