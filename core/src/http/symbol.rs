//! `symbol`: addresses in, function names out, a word at a time, whatever their number.
//!
//! Words are separated by `+`. Go reads a POST's body with `%2B` as it stands, and a GET's query likewise.

#![forbid(unsafe_code)]

use heapless::Vec;

use super::request::number;
use crate::encode::Body;
use crate::encode::records::{self, Cursor, Records};
use crate::encode::wire::Window;
use crate::target::Target;

/// The longest word that can be an address: 64 octal digits would not be one.
const MAX_WORD: usize = 32;

/// Addresses that are looked up together.
const BATCH: usize = 64;

/// Readers only look whether it is zero.
pub(super) const FIRST_LINE: &str = "num_symbols: 1\n";

/// The answer to a list of addresses that is still coming in.
#[derive(Debug)]
pub(super) struct SymbolBody<'t, T> {
    target: &'t T,
    /// Bytes of the list that have not come yet.
    remaining: u64,
    word: Vec<u8, MAX_WORD>,
    /// The word is too long to be an address.
    is_overlong: bool,
    batch: Vec<usize, BATCH>,
    /// The batch is complete, and being answered.
    is_answering: bool,
    /// The first of the batch that is not answered.
    next: usize,
    cursor: Cursor,
    /// The record, where it is a line: an address whose name is known.
    line: usize,
}

impl<'t, T: Target> SymbolBody<'t, T> {
    /// Begins, with a list of so many bytes to come.
    pub(super) fn new(target: &'t T, remaining: u64) -> Self {
        Self {
            target,
            remaining,
            word: Vec::new(),
            is_overlong: false,
            batch: Vec::new(),
            is_answering: false,
            next: 0,
            cursor: Cursor::default(),
            line: 0,
        }
    }

    /// Whether there's nothing more to write before more of the list is fed.
    pub(super) fn wants_input(&self) -> bool {
        self.remaining > 0
    }

    /// Takes bytes of the list until there's a batch to answer; answers how many.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        for &byte in bytes {
            if self.remaining == 0 || self.is_answering {
                break;
            }
            taken += 1;
            self.remaining -= 1;
            if byte == b'+' {
                self.end_word();
            } else if self.word.push(byte).is_err() {
                self.is_overlong = true;
            }
            if self.remaining == 0 {
                self.end_word();
            }
            if self.batch.is_full() || self.remaining == 0 {
                self.target.prepare_function_names(&self.batch);
                self.is_answering = true;
            }
        }
        taken
    }

    /// Takes bytes of the list without an answer to them: the request was a HEAD.
    pub(super) fn skip(&mut self, bytes: &[u8]) -> usize {
        let taken = usize::try_from(self.remaining)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        self.remaining -= taken as u64;
        taken
    }

    fn end_word(&mut self) {
        let address = parse_address(&self.word).filter(|_| !self.is_overlong);
        self.word.clear();
        self.is_overlong = false;
        if let Some(pc) = address.filter(|&pc| pc != 0) {
            // There's room: a full batch is answered before more is fed.
            let _ = self.batch.push(pc);
        }
    }

    /// Moves on to the next address of the batch with a name.
    fn find_line(&mut self) -> bool {
        while let Some(&pc) = self.batch.get(self.next).filter(|_| self.is_answering) {
            self.next += 1;
            if self.target.function_name(pc, &mut Window::counting()) == Ok(true) {
                self.line = pc;
                return true;
            }
        }
        if self.is_answering {
            self.batch.clear();
            self.next = 0;
            self.is_answering = false;
        }
        false
    }
}

impl<T: Target> Records for SymbolBody<'_, T> {
    fn cursor(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    fn find(&mut self) -> bool {
        self.cursor.index == 0 || self.find_line()
    }

    fn render(&self, window: &mut Window<'_>) {
        if self.cursor.index == 0 {
            window.text(FIRST_LINE);
        } else {
            window.hex(self.line);
            window.byte(b' ');
            // A window never fails.
            let _ = self.target.function_name(self.line, window);
            window.byte(b'\n');
        }
    }
}

impl<T: Target> Body for SymbolBody<'_, T> {
    fn fill(&mut self, out: &mut [u8]) -> usize {
        records::fill::<dyn Records>(self, out)
    }
}

/// As Go's `strconv.ParseUint(word, 0, 64)`: the base is in the prefix.
fn parse_address(word: &[u8]) -> Option<usize> {
    let (digits, base) = match word.trim_ascii() {
        [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
        [b'0', b'o' | b'O', digits @ ..] => (digits, 8),
        [b'0', b'b' | b'B', digits @ ..] => (digits, 2),
        [b'0', digits @ ..] if !digits.is_empty() => (digits, 8),
        digits => (digits, 10),
    };
    usize::try_from(number(digits, base)?).ok()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_all_of_gos_bases() {
        for (word, address) in [
            (&b"0x1f"[..], Some(31)),
            (b"0X1F", Some(31)),
            (b"31", Some(31)),
            (b"037", Some(31)),
            (b"0", Some(0)),
            (b"", None),
            (b"0x", None),
            (b"1f", None),
            (b"+1", None),
            (b"0x+1", None),
            (b"\xff", None),
            (b"0xffffffffffffffffff", None),
        ] {
            assert_eq!(parse_address(word), address, "{word:?}");
        }
    }
}
