//! One loaded object's unwind rules, compact: four bytes for each stretch of code with one rule.
//!
//! `.eh_frame` itself is no use in a signal handler: a look-up there runs a program of call frame
//! instructions for each frame. A table is that program run beforehand. Its rows are in address order; an
//! index says where the rows of each page of 512 bytes begin, so a look-up searches some 30 of them.
//! An object has few distinct rules (some hundreds), so a row names its rule by number.

#![forbid(unsafe_code)]

use core::hash::{BuildHasherDefault, Hasher};
use core::ops::Range;
use std::collections::HashMap;

use super::rule::Rule;

const PAGE_BITS: u32 = 9;
const IN_PAGE: u32 = (1 << PAGE_BITS) - 1;

/// The number of `Rule::UNKNOWN`, and a row for offset 0 that has it.
const UNKNOWN: u32 = 0;

/// Code without call frame information of at most this many bytes is padding between functions.
pub(super) const PADDING: u32 = 64;

/// What a walk needs of one object. Offsets are bytes from the start of the object's code.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// For each page, the number of its first row; one more at the end.
    pages: Box<[u32]>,
    /// The offset in its page above, the rule's number in the lower 16 bits. The first row is for offset 0, so that
    /// every page has a row before its own.
    rows: Box<[u32]>,
    rules: Box<[Rule]>,
    /// The longest stretch of code in which every caller keeps a frame record.
    records: Range<u32>,
    /// Bytes of functions that keep frame records, and of those that do not.
    code: [u64; 2],
    /// Function entries whose call frame information could not be read.
    skipped: u32,
}

impl Table {
    /// The number of the rule for the instruction at `offset`.
    ///
    /// May run in a signal handler: about 60 instructions.
    pub(super) fn find(&self, offset: u32) -> Option<u16> {
        let page = (offset >> PAGE_BITS) as usize;
        let &[first, last] = self.pages.get(page..page + 2)? else {
            return None;
        };
        let key = (offset & IN_PAGE) << 16 | u32::from(u16::MAX);
        let (before, inside) = self
            .rows
            .get((first as usize).wrapping_sub(1)..last as usize)?
            .split_first()?;
        let after = inside.partition_point(|&row| row <= key);
        let row = inside.get(after.wrapping_sub(1)).unwrap_or(before);
        Some(*row as u16)
    }

    /// The rule with that number.
    ///
    /// May run in a signal handler.
    #[inline]
    pub(super) fn rule(&self, number: u16) -> Option<&Rule> {
        self.rules.get(usize::from(number))
    }

    /// Code in which every caller's frame pointer points to its frame record: no look-up is needed there.
    #[inline]
    pub(super) fn records(&self) -> Range<u32> {
        self.records.clone()
    }

    pub(super) fn code(&self) -> [u64; 2] {
        self.code
    }

    pub(super) fn skipped(&self) -> u32 {
        self.skipped
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.pages) + size_of_val(&*self.rows) + size_of_val(&*self.rules)
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }
}

/// What a function's rules say about its frame pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frames {
    /// It has a frame record wherever it makes a call.
    Record,
    /// It makes no calls, so it is never a caller.
    Leaf,
    /// Anything else.
    Other,
}

/// Collects the rows of a [`Table`], which must come in address order.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pages: Vec<u32>,
    rows: Vec<u32>,
    rules: Vec<Rule>,
    numbers: HashMap<Rule, u16, BuildHasherDefault<Mix>>,
    /// The offset and rule of the last row.
    last: Option<(u32, u16)>,
    /// The end of the last function.
    end: u32,
    stretch: Range<u32>,
    records: Range<u32>,
    code: [u64; 2],
    skipped: u32,
}

impl Builder {
    /// From `offset` on, `rule` holds. A row below the last one is ignored: functions overlap only in
    /// broken input, and the first one wins.
    pub(super) fn row(&mut self, offset: u32, rule: Rule) {
        let number = self.number(rule);
        if self.rows.is_empty() {
            self.rows.push(UNKNOWN);
        }
        match self.last {
            Some((last, _)) if offset < last => return,
            // The pages that began with the row that goes begin with the one that takes its place.
            Some((last, _)) if offset == last => drop(self.rows.pop()),
            Some((_, same)) if same == number => return,
            _ => {}
        }
        self.pages_up_to(offset >> PAGE_BITS);
        self.rows.push((offset & IN_PAGE) << 16 | u32::from(number));
        self.last = Some((offset, number));
    }

    /// The rows of the function at `function` were given, and there are no others before its end.
    pub(super) fn function(&mut self, function: Range<u32>, frames: Frames) {
        let continues = function.start.saturating_sub(self.stretch.end) <= PADDING;
        match frames {
            Frames::Record | Frames::Leaf if continues => self.stretch.end = function.end,
            Frames::Record | Frames::Leaf => self.stretch = function.clone(),
            Frames::Other => self.stretch = function.end..function.end,
        }
        if self.stretch.len() > self.records.len() {
            self.records = self.stretch.clone();
        }
        let bytes = u64::from(function.end.saturating_sub(function.start));
        match frames {
            Frames::Record => self.code[0] += bytes,
            Frames::Other => self.code[1] += bytes,
            Frames::Leaf => {}
        }
        self.end = self.end.max(function.end);
    }

    /// The next function begins at `offset`: what lies between is unknown, unless it is padding.
    pub(super) fn gap_up_to(&mut self, offset: u32) {
        if offset.saturating_sub(self.end) > PADDING {
            self.row(self.end, Rule::UNKNOWN);
        }
    }

    pub(super) fn skip(&mut self) {
        self.skipped = self.skipped.saturating_add(1);
    }

    /// The table for code of `len` bytes.
    pub(super) fn finish(mut self, len: u32) -> Table {
        self.row(self.end, Rule::UNKNOWN);
        self.pages_up_to((len >> PAGE_BITS) + 1);
        Table {
            pages: self.pages.into_boxed_slice(),
            rows: self.rows.into_boxed_slice(),
            rules: self.rules.into_boxed_slice(),
            records: self.records,
            code: self.code,
            skipped: self.skipped,
        }
    }

    fn pages_up_to(&mut self, page: u32) {
        let rows = self.rows.len() as u32;
        let pages = page as usize + 1;
        if pages > self.pages.len() {
            self.pages.resize(pages, rows);
        }
    }

    /// The rule's number in the dictionary. Rules beyond the 65,535th become unknown.
    fn number(&mut self, rule: Rule) -> u16 {
        if self.rules.is_empty() {
            self.rules.push(Rule::UNKNOWN);
            self.numbers.insert(Rule::UNKNOWN, UNKNOWN as u16);
        }
        if let Some(&number) = self.numbers.get(&rule) {
            return number;
        }
        let Ok(number) = u16::try_from(self.rules.len()) else {
            return UNKNOWN as u16;
        };
        self.rules.push(rule);
        self.numbers.insert(rule, number);
        number
    }
}

/// A quick hash for the dictionary. Its keys come from code that the program runs anyway, so it need not
/// withstand chosen ones.
#[derive(Debug, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            // FNV-1a's prime.
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::{Cfa, Slot};
    use super::*;

    fn sp(offset: i32) -> Rule {
        Rule::new(Cfa::Sp, offset, 0, Slot::SAME, Slot::saved_at(-8))
    }

    fn look_up(table: &Table, offset: u32) -> Rule {
        *table
            .find(offset)
            .and_then(|number| table.rule(number))
            .unwrap_or(&Rule::UNKNOWN)
    }

    #[test]
    fn every_offset_has_the_last_rule_at_or_before_it() {
        // Dense and sparse pages, pages without a row, rows at the first and last byte of a page.
        let mut offsets: Vec<u32> = (100..700).step_by(3).collect();
        offsets.extend([1023, 1024, 1535, 5000, 5001, 70_000, 70_144]);
        let mut builder = Builder::default();
        builder.gap_up_to(100);
        for (&offset, number) in offsets.iter().zip(1..) {
            builder.row(offset, sp(8 * number));
        }
        builder.function(100..71_000, Frames::Other);
        let table = builder.finish(72_000);
        for offset in 0..73_000 {
            let before = offsets.partition_point(|&row| row <= offset) as i32;
            let expected = match offset {
                100..71_000 => sp(8 * before),
                _ => Rule::UNKNOWN,
            };
            assert_eq!(look_up(&table, offset), expected, "{offset}");
        }
        assert_eq!(look_up(&table, u32::MAX), Rule::UNKNOWN);
        // Two for the unknown code before the first, one for that after the last.
        assert_eq!(table.rows(), offsets.len() + 3);
    }

    #[test]
    fn an_empty_table_knows_nothing() {
        for table in [
            Table::default(),
            Builder::default().finish(0),
            Builder::default().finish(600),
        ] {
            for offset in [0, 1, 599, 600, u32::MAX] {
                assert_eq!(look_up(&table, offset), Rule::UNKNOWN);
            }
        }
    }

    #[test]
    fn equal_neighbours_share_a_row_and_equal_rules_a_number() {
        let mut builder = Builder::default();
        for (offset, rule) in [(0, 8), (1, 16), (2, 16), (40, 8), (40, 24), (50, 8)] {
            builder.row(offset, sp(rule));
        }
        // Out of order: ignored.
        builder.row(45, sp(800));
        builder.function(0..60, Frames::Other);
        let table = builder.finish(60);
        for (offset, rule) in [
            (0, 8),
            (1, 16),
            (39, 16),
            (40, 24),
            (45, 24),
            (50, 8),
            (59, 8),
        ] {
            assert_eq!(look_up(&table, offset), sp(rule), "{offset}");
        }
        // Before the first, four of these, and after the last.
        assert_eq!(table.rows(), 6);
        assert_eq!(table.rules.len(), 5);
    }

    #[test]
    fn padding_continues_the_function_before_it_and_larger_gaps_are_unknown() {
        for (gap, rule) in [(PADDING, sp(8)), (PADDING + 1, Rule::UNKNOWN)] {
            let mut builder = Builder::default();
            builder.row(0, sp(8));
            builder.function(0..100, Frames::Leaf);
            builder.gap_up_to(100 + gap);
            builder.row(100 + gap, sp(16));
            builder.function(100 + gap..300, Frames::Leaf);
            let table = builder.finish(300);
            assert_eq!(look_up(&table, 99), sp(8));
            assert_eq!(look_up(&table, 99 + gap), rule);
            assert_eq!(look_up(&table, 100 + gap), sp(16));
        }
    }

    #[test]
    fn the_longest_stretch_of_frame_records_is_found() {
        let mut builder = Builder::default();
        for (function, frames) in [
            (0..50, Frames::Record),
            (50..60, Frames::Other),
            (64..100, Frames::Record),
            (110..150, Frames::Leaf),
            (150 + PADDING..300, Frames::Record),
            (301 + PADDING..400, Frames::Record),
            (400..900, Frames::Other),
        ] {
            builder.function(function, frames);
        }
        let table = builder.finish(900);
        // With the padding before it.
        assert_eq!(table.records(), 60..300);
        assert_eq!(
            table.code(),
            [
                50 + 36 + (150 - u64::from(PADDING)) + (99 - u64::from(PADDING)),
                10 + 500
            ]
        );
    }

    #[test]
    fn rules_that_find_no_number_are_unknown() {
        let mut builder = Builder::default();
        for offset in 0..70_000 {
            builder.row(offset, sp(offset as i32));
        }
        builder.function(0..70_000, Frames::Other);
        let table = builder.finish(70_000);
        for (offset, known) in [(0, true), (65_534, true), (65_535, false), (69_999, false)] {
            assert_eq!(
                look_up(&table, offset) == sp(offset as i32),
                known,
                "{offset}"
            );
            assert_eq!(look_up(&table, offset) == Rule::UNKNOWN, !known, "{offset}");
        }
    }
}
