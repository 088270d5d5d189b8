//! The names in a program's file, as GNU binutils read them: what a bridge's are compared with.

use core::fmt::Write as _;
use core::ops::Range;
use core::time::Duration;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;

use crate::process::{command, run};
use crate::profile::Stack;
use crate::profile_proto::Profile;

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The function, as people write it.
    pub function: String,
    /// The file, as the compiler was given it.
    pub file: String,
    /// The line; 0 if it is not known.
    pub line: i64,
}

/// The build id that the linker wrote into a file.
///
/// # Panics
///
/// If there is none.
#[must_use]
#[track_caller]
pub fn build_id(file: &Path) -> String {
    let notes = output(&mut command("readelf", ["-n".as_ref(), file.as_os_str()]));
    let mut lines = notes.lines();
    let id = lines.find_map(|line| line.trim().strip_prefix("Build ID: "));
    id.unwrap_or_else(|| panic!("{}: {notes}", file.display()))
        .to_owned()
}

/// What is at some addresses of a program: the innermost of the inlined functions first.
///
/// # Panics
///
/// If the file is no program.
#[must_use]
#[track_caller]
pub fn lines(file: &Path, addresses: impl IntoIterator<Item = u64>) -> HashMap<u64, Vec<Line>> {
    let addresses: BTreeSet<u64> = addresses.into_iter().collect();
    if addresses.is_empty() {
        return HashMap::new();
    }
    let mut addr2line = command("addr2line", ["-aifC", "-e"]);
    addr2line.arg(file);
    addr2line.args(addresses.iter().map(|address| format!("{address:#x}")));
    let text = output(&mut addr2line);
    let mut found: HashMap<u64, Vec<Line>> = HashMap::new();
    let (mut address, mut rows) = (0, text.lines());
    while let Some(row) = rows.next() {
        let digits = row.strip_prefix("0x");
        if let Some(next) = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
            address = next;
            continue;
        }
        // The number may be followed by a discriminator, and be a question mark.
        let place = rows.next().unwrap_or_default();
        let (path, line) = place.rsplit_once(':').unwrap_or((place, ""));
        let line = line.split(' ').next().unwrap_or_default();
        found.entry(address).or_default().push(Line {
            function: row.to_owned(),
            file: path.to_owned(),
            line: line.parse().unwrap_or(0),
        });
    }
    // Code in assembly has no debug information, and addr2line then finds what was left out of the program: that is
    // at address 0. Such code is called by a plain name.
    let symbols = symbols(file);
    for (address, lines) in &mut found {
        if let Some((_, name)) = symbols.iter().find(|(range, _)| range.contains(address))
            && !name.contains("::")
            && lines
                .last()
                .is_none_or(|outermost| outermost.function != *name)
        {
            *lines = vec![Line {
                function: name.clone(),
                file: "??".to_owned(),
                line: 0,
            }];
        }
    }
    found
}

/// The functions in a file's table of symbols, and where they are.
fn symbols(file: &Path) -> Vec<(Range<u64>, String)> {
    let text = output(&mut command("nm", ["-SC".as_ref(), file.as_os_str()]));
    let symbol = |line: &str| {
        let mut words = line.splitn(4, ' ');
        let number = |digits: Option<&str>| u64::from_str_radix(digits?, 16).ok();
        let (start, len) = (number(words.next())?, number(words.next())?);
        let is_function = matches!(words.next()?, "t" | "T" | "w" | "W");
        // Bit 0 of a Thumb function's address is no part of it, and it is at least as long without.
        is_function.then(|| {
            (
                (start & !1)..start + len,
                words.next().unwrap_or_default().to_owned(),
            )
        })
    };
    text.lines().filter_map(symbol).collect()
}

/// The stacks of a profile that has but addresses, with names.
///
/// # Panics
///
/// If the file is no program.
#[must_use]
#[track_caller]
pub fn named(file: &Path, profile: &Profile) -> Vec<Stack> {
    let named = lines(
        file,
        profile.location.iter().map(|location| location.address),
    );
    let mut stacks = profile.stacks();
    for stack in &mut stacks {
        let frames = core::mem::take(&mut stack.frames);
        for frame in frames {
            let digits = frame.strip_prefix("0x");
            let address = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            match address.and_then(|address| named.get(&address)) {
                Some(lines) => {
                    let functions = lines.iter().map(|line| line.function.clone());
                    stack.frames.extend(functions);
                }
                None => stack.frames.push(frame),
            }
        }
    }
    stacks
}

/// Stacks as text, for those who look for a mistake.
#[must_use]
pub fn show(stacks: &[Stack]) -> String {
    let mut text = String::new();
    for stack in stacks {
        let _ = writeln!(text, "{:?} {}", stack.values, stack.frames.join(" < "));
    }
    text
}

#[track_caller]
fn output(command: &mut Command) -> String {
    let finished = run(command, Duration::from_mins(1));
    let finished =
        finished.unwrap_or_else(|error| panic!("{command:?} (Debian: binutils): {error}"));
    finished.succeeded().text().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_functions_address_has_its_name() {
        let here = std::env::current_exe().expect("the system knows");
        let symbols = output(&mut command("nm", ["-C".as_ref(), here.as_os_str()]));
        let symbol = symbols.lines().find_map(|line| {
            let (address, name) = line.split_once(' ')?;
            name.ends_with("a_functions_address_has_its_name")
                .then_some(address)
        });
        let address = u64::from_str_radix(symbol.expect(&symbols[..200]), 16).unwrap();
        let lines = &lines(&here, [address])[&address];
        let outer = lines.last().unwrap();
        assert!(
            outer.function.contains("a_functions_address_has_its_name"),
            "{lines:?}"
        );
        assert!(
            outer.file.ends_with("src/elf.rs") && outer.line > 0,
            "{lines:?}"
        );
        assert_eq!(build_id(&here).len(), 40);
    }
}
