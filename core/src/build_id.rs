//! The GNU build id, as a program reads it in its own memory.

#![forbid(unsafe_code)]

use core::fmt;

use heapless::String;

/// The longest build id, in bytes: a SHA-1.
const MAX_LEN: usize = 20;

/// `NT_GNU_BUILD_ID` of the Linux Standard Base.
const NT_GNU_BUILD_ID: u32 = 3;

/// A GNU build id: tells readers of a profile whether a file is the program that made it.
///
/// The linker makes it (`--build-id=sha1`) and puts it into the section `.note.gnu.build-id`, which the linker script must
/// keep in the flash memory between two symbols:
///
/// ```
/// use picoprof::BuildId;
///
/// // As a little-endian machine has it: sizes of the name and of what it names, type, name, id.
/// # #[cfg(target_endian = "little")] {
/// let section = b"\x04\0\0\0\x04\0\0\0\x03\0\0\0GNU\0\xde\xad\xbe\xef";
/// assert_eq!(BuildId::from_note(section).as_str(), "deadbeef");
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BuildId {
    /// Not an array of bytes, as nothing that is small makes a string of those.
    hex: String<{ 2 * MAX_LEN }>,
}

impl BuildId {
    /// Not known: the empty string.
    pub const NONE: Self = Self { hex: String::new() };

    /// The build id in a section of ELF notes in this program's memory; [`NONE`](Self::NONE) if there's none of up to 20
    /// bytes in it.
    #[must_use]
    pub fn from_note(section: &[u8]) -> Self {
        let mut notes = section;
        while let Some((id, rest)) = first_note(notes) {
            if let Some(id) = id {
                return Self::from_bytes(id);
            }
            notes = rest;
        }
        Self::NONE
    }

    /// In hexadecimal.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.hex
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let mut id = Self::NONE;
        if bytes.len() > MAX_LEN {
            return id;
        }
        for nibble in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
            let digit = char::from_digit(nibble.into(), 16).unwrap_or_default();
            // There's room for all of them.
            let _ = id.hex.push(digit);
        }
        id
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BuildId").field(&self.as_str()).finish()
    }
}

/// What the first note says if it is a build id, and what is behind the note. Names and contents are padded to four bytes.
fn first_note(notes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (name_len, rest) = word(notes)?;
    let (len, rest) = word(rest)?;
    let (kind, rest) = word(rest)?;
    let (name, rest) = padded(rest, name_len)?;
    let (contents, rest) = padded(rest, len)?;
    let is_build_id = kind == NT_GNU_BUILD_ID && name == b"GNU\0";
    Some((is_build_id.then_some(contents), rest))
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    Some((u32::from_ne_bytes(*word), rest))
}

/// The first `len` bytes, and what is behind their padding, which the last note may lack.
fn padded(bytes: &[u8], len: u32) -> Option<(&[u8], &[u8])> {
    let len = usize::try_from(len).ok()?;
    let front = bytes.get(..len)?;
    let padded = len.checked_next_multiple_of(4)?;
    Some((front, bytes.get(padded..).unwrap_or_default()))
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::string::String;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn note(name: &[u8], kind: u32, contents: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [name.len() as u32, contents.len() as u32, kind] {
            note.extend(word.to_ne_bytes());
        }
        for part in [name, contents] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    fn found(section: &[u8]) -> String {
        String::from(BuildId::from_note(section).as_str())
    }

    #[test]
    fn is_found_among_other_notes() {
        let id = [0x0f, 0xa0, 0x99];
        let section = [
            note(b"Rust\0", NT_GNU_BUILD_ID, &[1, 2, 3, 4, 5]),
            note(b"GNU\0", 1, &[6]),
            note(b"", NT_GNU_BUILD_ID, &[]),
            note(b"GNU\0", NT_GNU_BUILD_ID, &id),
            note(b"GNU\0", NT_GNU_BUILD_ID, &[9]),
        ]
        .concat();
        assert_eq!(found(&section), "0fa099");
        assert_eq!(found(&section[..section.len() - 20]), "0fa099");
        // The padding may be cut off.
        let alone = note(b"GNU\0", NT_GNU_BUILD_ID, &id);
        assert_eq!(found(&alone[..alone.len() - 1]), "0fa099");
        assert_eq!(found(&alone[..alone.len() - 2]), "");
    }

    #[test]
    fn one_that_is_too_long_is_none_and_not_cut() {
        let longest = note(b"GNU\0", NT_GNU_BUILD_ID, &[0xab; MAX_LEN]);
        assert_eq!(found(&longest), "ab".repeat(MAX_LEN));
        let longer = note(b"GNU\0", NT_GNU_BUILD_ID, &[0xab; MAX_LEN + 1]);
        assert_eq!(BuildId::from_note(&longer), BuildId::NONE);
    }

    proptest! {
        #[test]
        fn garbage_is_read_without_harm(
            garbage in prop::collection::vec(any::<u8>(), 0..64),
            sizes in prop::array::uniform2(prop_oneof![0u32..40, Just(u32::MAX), Just(u32::MAX - 3)]),
            id in prop::collection::vec(any::<u8>(), 1..MAX_LEN),
        ) {
            let _ = found(&garbage);
            let mut section: Vec<u8> = sizes.iter().flat_map(|size| size.to_ne_bytes()).collect();
            section.extend(NT_GNU_BUILD_ID.to_ne_bytes());
            section.extend(b"GNU\0");
            section.extend(&garbage);
            let _ = found(&section);

            let mut section = note(b"other", 7, &garbage);
            section.extend(note(b"GNU\0", NT_GNU_BUILD_ID, &id));
            section.extend(&garbage);
            let hex: String = id.iter().map(|byte| std::format!("{byte:02x}")).collect();
            prop_assert_eq!(found(&section), hex);
        }
    }
}
