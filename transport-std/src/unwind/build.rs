//! From `.eh_frame` to a [`Table`]. In ordinary context only: it allocates.
//!
//! The format is DWARF's call frame information (DWARF 5, 6.4) with the changes of the Linux Standard Base
//! Core Specification 5.0, 10.6. gimli reads it. An entry that cannot be read is counted and left out: its
//! code gets no rows.

#![forbid(unsafe_code)]

use core::ops::Range;

use gimli::{
    BaseAddresses, CfaRule, CommonInformationEntry, EhFrame, EhFrameOffset, EndianSlice,
    Expression, FrameDescriptionEntry, NativeEndian, Operation, Register, RegisterRule,
    UnwindContext, UnwindContextStorage, UnwindExpression, UnwindSection, UnwindTableRow,
};

use super::arch;
use super::rule::{Cfa, Rule, Slot};
use super::table::{Builder, Frames, Table};

type Bytes<'a> = EndianSlice<'a, NativeEndian>;
type Fde<'a> = FrameDescriptionEntry<Bytes<'a>>;
type Cie<'a> = CommonInformationEntry<Bytes<'a>>;

/// Room for gimli's rows, inline: an entry that needs more is counted as skipped. Compilers save each
/// register once (x86-64 has 17, AArch64 has 20 that a callee saves) and remember one state at a time.
struct Inline;

impl UnwindContextStorage<usize> for Inline {
    type Rules = [(Register, RegisterRule<usize>); 40];
    type Stack = [UnwindTableRow<usize, Self>; 6];
}

/// The table of the code at `text` (addresses), from the `.eh_frame` section that is mapped at `address` and
/// whose end may be unknown: its terminator is looked for.
pub(super) fn table(
    eh_frame: &[u8],
    address: usize,
    text: Range<usize>,
    trampoline: Option<usize>,
) -> Table {
    let Ok(len) = u32::try_from(text.len()) else {
        return Table::default();
    };
    let section = Section::new(eh_frame, address, text);
    let mut builder = Builder::default();
    let functions = section.functions(&mut builder);
    let mut context = UnwindContext::new_in();
    let mut cie = None;
    let mut trampoline = trampoline.and_then(|at| section.offset(at as u64));
    for (start, at) in functions {
        if let Some(at) = trampoline.take_if(|at| *at < start) {
            signal_trampoline(&mut builder, at);
        }
        builder.gap_up_to(start);
        let done = section
            .fde(at, &mut cie)
            .and_then(|fde| section.function(&fde, &mut context, &mut builder));
        if done.is_none() {
            builder.skip();
        }
    }
    if let Some(at) = trampoline {
        signal_trampoline(&mut builder, at);
    }
    builder.finish(len)
}

/// A signal trampoline without call frame information. A handler returns to its first instruction, and the
/// call site is the byte before.
fn signal_trampoline(builder: &mut Builder, at: u32) {
    let function = at.saturating_sub(1)..at.saturating_add(8);
    builder.gap_up_to(function.start);
    builder.row(function.start, Rule::SIGNAL);
    builder.function(function, Frames::Other);
}

struct Section<'a> {
    frames: EhFrame<Bytes<'a>>,
    bytes: &'a [u8],
    bases: BaseAddresses,
    text: Range<u64>,
}

impl<'a> Section<'a> {
    fn new(bytes: &'a [u8], address: usize, text: Range<usize>) -> Self {
        let mut frames = EhFrame::new(bytes, NativeEndian);
        frames.set_address_size(8);
        frames.set_vendor(arch::VENDOR);
        let text = text.start as u64..text.end as u64;
        Self {
            frames,
            bytes,
            bases: BaseAddresses::default()
                .set_eh_frame(address as u64)
                .set_text(text.start),
            text,
        }
    }

    /// The offset in the text of an address inside.
    fn offset(&self, address: u64) -> Option<u32> {
        if !self.text.contains(&address) {
            return None;
        }
        u32::try_from(address - self.text.start).ok()
    }

    /// Where each function begins, and where in the section its entry is, in address order.
    ///
    /// gimli's own iterator ends at the first entry that it cannot read; entries carry their length, so
    /// the next one can be found.
    fn functions(&self, builder: &mut Builder) -> Vec<(u32, u32)> {
        let mut functions = Vec::new();
        let mut cie = None;
        let mut at = 0;
        while let Some((is_cie, next)) = self.entry(at) {
            if !is_cie {
                match self.fde(at, &mut cie) {
                    // Code that the linker dropped has entries for address 0.
                    Some(fde) => functions
                        .extend(self.offset(fde.initial_address()).map(|start| (start, at))),
                    None => builder.skip(),
                }
            }
            at = next;
        }
        functions.sort_unstable();
        functions
    }

    /// Whether the entry at `at` is a common information entry, and where the next entry is. None at the
    /// terminator, and at the end of the bytes.
    fn entry(&self, at: u32) -> Option<(bool, u32)> {
        let word = |at: u32| {
            let bytes = self.bytes.get(at as usize..)?.first_chunk()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        // Lengths of 64 bits (0xffffffff and then the length) are for sections beyond 4 GiB, and an offset
        // here has 32 bits: such a length runs past the end and ends the reading.
        let len = word(at).filter(|&len| len != 0)?;
        let id = word(at.checked_add(4)?)?;
        Some((id == 0, at.checked_add(4)?.checked_add(len)?))
    }

    /// The entry at `at`. Its common information entry is nearly always that of the one before: `cie` keeps it.
    fn fde(&self, at: u32, cie: &mut Option<Cie<'a>>) -> Option<Fde<'a>> {
        self.frames
            .fde_from_offset(
                &self.bases,
                EhFrameOffset(at as usize),
                |frames, bases, offset| match cie {
                    Some(cie) if cie.offset() == offset.0 => Ok(cie.clone()),
                    _ => {
                        let parsed = frames.cie_from_offset(bases, offset)?;
                        *cie = Some(parsed.clone());
                        Ok(parsed)
                    }
                },
            )
            .ok()
    }

    /// Adds one function's rows.
    fn function(
        &self,
        fde: &Fde<'a>,
        context: &mut UnwindContext<usize, Inline>,
        builder: &mut Builder,
    ) -> Option<()> {
        let start = self.offset(fde.initial_address())?;
        let text_len = (self.text.end - self.text.start) as u32;
        let end = u32::try_from(fde.end_address().saturating_sub(self.text.start))
            .map_or(text_len, |end| end.min(text_len));
        let mut kind = FrameKind::default();
        let mut rows = fde.rows(&self.frames, &self.bases, context).ok()?;
        let mut reached = start;
        loop {
            let row = match rows.next_row() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(_) => {
                    builder.row(reached, Rule::UNKNOWN);
                    builder.function(start..end, Frames::Other);
                    return None;
                }
            };
            let Some(offset) = self
                .offset(row.start_address())
                .filter(|&offset| offset < end)
            else {
                break;
            };
            reached = self.offset(row.end_address()).unwrap_or(end);
            let rule = self.rule(fde, row);
            kind.see(rule);
            builder.row(offset, rule);
        }
        builder.function(start..end, kind.frames());
        Some(())
    }

    fn rule(&self, fde: &Fde<'a>, row: &UnwindTableRow<usize, Inline>) -> Rule {
        self.known_rule(fde, row).unwrap_or(Rule::UNKNOWN)
    }

    fn known_rule(&self, fde: &Fde<'a>, row: &UnwindTableRow<usize, Inline>) -> Option<Rule> {
        let (cfa, offset, add) = self.cfa(fde, row.cfa())?;
        if cfa == Cfa::Signal {
            return Some(Rule::SIGNAL);
        }
        let ra = match row.register(fde.cie().return_address_register()) {
            Some(RegisterRule::Undefined) => return Some(Rule::OUTERMOST),
            None | Some(RegisterRule::SameValue) if arch::LINK_REGISTER => Slot::SAME,
            Some(RegisterRule::Offset(offset)) => Slot::saved_at(offset),
            _ => return None,
        };
        (ra != Slot::LOST).then(|| Rule::new(cfa, offset, add, self.fp_slot(fde, row), ra))
    }

    fn fp_slot(&self, fde: &Fde<'a>, row: &UnwindTableRow<usize, Inline>) -> Slot {
        match row.register(arch::FP) {
            None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => Slot::SAME,
            Some(RegisterRule::Offset(offset)) => Slot::saved_at(offset),
            Some(RegisterRule::Expression(expression)) => match self.base(fde, expression) {
                Some((register, 0, None)) if register == arch::FP => Slot::AT_FP,
                _ => Slot::LOST,
            },
            Some(_) => Slot::LOST,
        }
    }

    /// Where the canonical frame address is: the first three parts of a rule.
    fn cfa(&self, fde: &Fde<'a>, cfa: &CfaRule<usize>) -> Option<(Cfa, i32, i8)> {
        let (register, offset, after) = match *cfa {
            CfaRule::RegisterAndOffset { register, offset } => (register, offset, None),
            CfaRule::Expression(expression) => {
                if let Some(pushed) = self.plt(expression) {
                    return Some((Cfa::Plt, pushed, 0));
                }
                self.base(fde, expression)?
            }
        };
        let (cfa, add) = match (register, after) {
            (arch::SP, None) => (Cfa::Sp, 0),
            (arch::FP, None) => (Cfa::Fp, 0),
            // What a signal trampoline says on x86-64: the caller's stack pointer is in the `ucontext`.
            (arch::SP, Some(0))
                if fde.is_signal_trampoline()
                    && usize::try_from(offset) == Ok(arch::SIGNAL_FRAME.sp) =>
            {
                (Cfa::Signal, 0)
            }
            (arch::SP, Some(add)) => (Cfa::DerefSp, add),
            (arch::FP, Some(add)) => (Cfa::DerefFp, add),
            _ => return None,
        };
        if add % 8 != 0 {
            return None;
        }
        Some((
            cfa,
            i32::try_from(offset).ok()?,
            i8::try_from(add / 8).ok()?,
        ))
    }

    /// Reads an expression of the forms `register + offset` and `*(register + offset) + more`: the register,
    /// the offset, and, if it dereferences, what is added then.
    fn base(
        &self,
        fde: &Fde<'a>,
        expression: UnwindExpression<usize>,
    ) -> Option<(Register, i64, Option<i64>)> {
        let mut operations = expression
            .get(&self.frames)
            .ok()?
            .operations(fde.cie().encoding());
        let Operation::RegisterOffset {
            register, offset, ..
        } = operations.next().ok()??
        else {
            return None;
        };
        let after = match operations.next().ok()? {
            None => return Some((register, offset, None)),
            Some(Operation::Deref {
                size: 8,
                space: false,
                ..
            }) => operations.next().ok()?,
            Some(_) => return None,
        };
        let add = match after {
            None => 0,
            Some(Operation::PlusConstant { value }) => i64::try_from(value).ok()?,
            Some(_) => return None,
        };
        operations
            .next()
            .ok()?
            .is_none()
            .then_some((register, offset, Some(add)))
    }

    /// The one expression that linkers write for x86-64 procedure linkage tables:
    /// `rsp + 8 + (((rip & 15) >= n) << 3)`. Returns n.
    fn plt(&self, expression: UnwindExpression<usize>) -> Option<i32> {
        let Expression(bytes) = expression.get(&self.frames).ok()?;
        // breg7 8, breg16 0, lit15, and, lit<n>, ge, lit3, shl, plus.
        let &[
            0x77,
            8,
            0x80,
            0,
            0x3f,
            0x1a,
            pushed @ 0x30..=0x3f,
            0x2a,
            0x33,
            0x24,
            0x22,
        ] = bytes.slice()
        else {
            return None;
        };
        (!arch::LINK_REGISTER).then(|| i32::from(pushed - 0x30))
    }
}

/// Tells a function that keeps a frame record wherever it calls from the others, by its rows.
///
/// A compiler that keeps frame records sets one up before the first call and drops it after the last, so its
/// functions have the rules of the entry, of the push, and of the frame record, and no others. A function
/// with the rule of the entry alone makes no calls: the stack pointer must be aligned to 16 there
/// (psABI 3.2.2), or, with a link register, the return address must be saved first.
#[derive(Debug, Default)]
struct FrameKind {
    record: bool,
    other: bool,
}

impl FrameKind {
    fn see(&mut self, rule: Rule) {
        let entry = rule.cfa == Cfa::Sp && rule.offset == arch::ENTRY_OFFSET;
        let pushed = rule.cfa == Cfa::Sp && rule.saves_record() && rule.offset == 16;
        if rule.is_frame_record() {
            self.record = true;
        } else if !entry && !pushed {
            self.other = true;
        }
    }

    fn frames(&self) -> Frames {
        match self {
            Self { other: true, .. } => Frames::Other,
            Self { record: true, .. } => Frames::Record,
            _ => Frames::Leaf,
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    const TEXT: usize = 0x40_0000;
    const SECTION: usize = 0x50_0000;
    /// Of the text.
    const LEN: usize = 0x4000;

    /// A section made by hand: DWARF 5, 6.4.1, and LSB Core 5.0, 10.6.1.
    #[derive(Default)]
    struct EhFrame {
        bytes: Vec<u8>,
        cie: usize,
    }

    impl EhFrame {
        fn entry(&mut self, id: u32, body: &[u8]) -> usize {
            let at = self.bytes.len();
            let padded = body.len().next_multiple_of(4);
            self.bytes.extend((padded as u32 + 4).to_ne_bytes());
            self.bytes.extend(id.to_ne_bytes());
            self.bytes.extend(body);
            // DW_CFA_nop.
            self.bytes.resize(at + 8 + padded, 0);
            at
        }

        /// What compilers write: code alignment 1, data alignment -8, return address in column 16, pointers relative to
        /// their place, in 4 bytes; then CFA = rsp + 8 and the return address at CFA - 8.
        fn cie(mut self, augmentation: &str) -> Self {
            let mut body = vec![1];
            body.extend(augmentation.bytes());
            body.extend([0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1]);
            self.cie = self.entry(0, &body);
            self
        }

        fn function(mut self, code: Range<usize>, instructions: &[u8]) -> Self {
            let at = self.bytes.len();
            let start = (TEXT + code.start) as u32;
            let mut body = Vec::from(start.wrapping_sub((SECTION + at + 8) as u32).to_ne_bytes());
            body.extend((code.len() as u32).to_ne_bytes());
            // No augmentation data.
            body.push(0);
            body.extend(instructions);
            self.entry((at + 4 - self.cie) as u32, &body);
            self
        }

        fn table(&self) -> Table {
            let mut bytes = self.bytes.clone();
            // The terminator, and what follows the section.
            bytes.extend([0; 4]);
            bytes.extend([0x5a; 40]);
            table(&bytes, SECTION, TEXT..TEXT + LEN, None)
        }
    }

    fn compiler() -> EhFrame {
        EhFrame::default().cie("zR")
    }

    fn look_up(table: &Table, offset: u32) -> Rule {
        *table
            .find(offset)
            .and_then(|number| table.rule(number))
            .unwrap_or(&Rule::UNKNOWN)
    }

    fn rule(cfa: Cfa, offset: i32, fp: Slot) -> Rule {
        Rule::new(cfa, offset, 0, fp, Slot::saved_at(-8))
    }

    /// push rbp; mov rbp, rsp; …; pop rbp; ret.
    const RECORD: &[u8] = &[0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x60, 0x0c, 7, 8];

    #[test]
    fn a_function_with_a_frame_record() {
        let table = compiler().function(0x100..0x140, RECORD).table();
        let saved = Slot::saved_at(-16);
        assert_eq!(look_up(&table, 0xff), Rule::UNKNOWN);
        assert_eq!(look_up(&table, 0x100), rule(Cfa::Sp, 8, Slot::SAME));
        assert_eq!(look_up(&table, 0x101), rule(Cfa::Sp, 16, saved));
        assert_eq!(look_up(&table, 0x104), rule(Cfa::Fp, 16, saved));
        assert_eq!(look_up(&table, 0x123), rule(Cfa::Fp, 16, saved));
        // GCC leaves the rule for the popped register.
        assert_eq!(look_up(&table, 0x124), rule(Cfa::Sp, 8, saved));
        assert_eq!(look_up(&table, 0x140), Rule::UNKNOWN);
        assert_eq!(
            (table.records(), table.code(), table.skipped()),
            (0x100..0x140, [0x40, 0], 0)
        );
    }

    #[test]
    fn functions_in_any_order_and_with_any_frame() {
        let table = compiler()
            .function(0x300..0x400, RECORD)
            // A leaf.
            .function(0x200..0x300, &[])
            // push rbx; sub rsp, 64: rbx (3) is saved, and rbp is not.
            .function(0x100..0x200, &[0x41, 0x0e, 16, 0x83, 2, 0x43, 0x0e, 80])
            // With a frame record, but it also calls without: sub rsp, 8.
            .function(
                0x400..0x500,
                &[
                    0x41, 0x0e, 16, 0x42, 0x0e, 8, 0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6,
                ],
            )
            .table();
        assert_eq!(look_up(&table, 0x1ff), rule(Cfa::Sp, 80, Slot::SAME));
        assert_eq!(look_up(&table, 0x2ff), rule(Cfa::Sp, 8, Slot::SAME));
        assert_eq!(
            look_up(&table, 0x3f0),
            rule(Cfa::Sp, 8, Slot::saved_at(-16))
        );
        assert_eq!(
            look_up(&table, 0x4f0),
            rule(Cfa::Fp, 16, Slot::saved_at(-16))
        );
        assert_eq!(
            (table.records(), table.code()),
            (0x200..0x400, [0x100, 0x200])
        );
    }

    #[test]
    fn the_expressions_that_are_in_use() {
        // DW_CFA_def_cfa_expression.
        let expression = |operations: &[u8]| [&[0x0f, operations.len() as u8], operations].concat();
        let slot = Slot::SAME;
        let plt = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
        let lazy = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x39, 0x2a, 0x33, 0x24, 0x22];
        for (operations, expected) in [
            (&plt[..], rule(Cfa::Plt, 11, slot)),
            (&lazy, rule(Cfa::Plt, 9, slot)),
            (
                &[0x76, 0x78, 0x06],
                Rule::new(Cfa::DerefFp, -8, 0, slot, Slot::saved_at(-8)),
            ),
            (
                &[0x77, 0xb8, 0x04, 0x06, 0x23, 8],
                Rule::new(Cfa::DerefSp, 568, 1, slot, Slot::saved_at(-8)),
            ),
            (&[0x77, 0x18], rule(Cfa::Sp, 24, slot)),
            // rbx + 8; *rsp + 4; **rsp; a division by zero.
            (&[0x73, 8], Rule::UNKNOWN),
            (&[0x77, 0, 0x06, 0x23, 4], Rule::UNKNOWN),
            (&[0x77, 0, 0x06, 0x06], Rule::UNKNOWN),
            (&[0x30, 0x30, 0x1b], Rule::UNKNOWN),
            // The signal trampoline's, in a function that is none.
            (
                &[0x77, 0xa0, 0x01, 0x06],
                Rule::new(Cfa::DerefSp, 160, 0, slot, Slot::saved_at(-8)),
            ),
        ] {
            let table = compiler()
                .function(0x100..0x200, &expression(operations))
                .table();
            assert_eq!(look_up(&table, 0x180), expected, "{operations:x?}");
            assert_eq!((table.skipped(), table.code()), (0, [0, 0x100]));
        }
        let trampoline = EhFrame::default().cie("zRS");
        let table = trampoline
            .function(0x100..0x110, &expression(&[0x77, 0xa0, 0x01, 0x06]))
            .table();
        assert_eq!(look_up(&table, 0x100), Rule::SIGNAL);
    }

    #[test]
    fn registers_that_are_nowhere() {
        for (instructions, expected) in [
            // DW_CFA_undefined 16: nobody called.
            (&[0x07, 16][..], Rule::OUTERMOST),
            // The return address is in rax.
            (&[0x09, 16, 0], Rule::UNKNOWN),
            // CFA = r10 + 0.
            (&[0x0c, 10, 0], Rule::UNKNOWN),
            // rbp is in rax; rbp is in the word at rbp.
            (&[0x09, 6, 0], rule(Cfa::Sp, 8, Slot::LOST)),
            (&[0x10, 6, 2, 0x76, 0], rule(Cfa::Sp, 8, Slot::AT_FP)),
        ] {
            let table = compiler().function(0x100..0x200, instructions).table();
            assert_eq!(look_up(&table, 0x180), expected, "{instructions:x?}");
        }
    }

    #[test]
    fn a_broken_entry_is_counted_and_the_others_stay() {
        // An unknown instruction; restoring a state that was not remembered.
        for broken in [&[0x41, 0x3f][..], &[0x41, 0x0b]] {
            let table = compiler()
                .function(0x100..0x200, RECORD)
                .function(0x200..0x300, broken)
                .function(0x300..0x400, RECORD)
                .table();
            assert_eq!(table.skipped(), 1);
            assert_eq!(look_up(&table, 0x104).cfa, Cfa::Fp);
            assert_eq!(look_up(&table, 0x202), Rule::UNKNOWN);
            assert_eq!(look_up(&table, 0x304).cfa, Cfa::Fp);
            assert_eq!(table.records().len(), 0x100);
        }
        // A common information entry of an unknown version.
        let mut section = compiler().function(0x100..0x200, RECORD);
        section.bytes[8] = 77;
        assert_eq!(section.table().skipped(), 1);
        // Code elsewhere, as of functions that the linker dropped.
        let table = compiler()
            .function(LEN + 1..LEN + 2, RECORD)
            .function(0x100..0x200, RECORD)
            .table();
        assert_eq!((table.skipped(), look_up(&table, 0x104).cfa), (0, Cfa::Fp));
    }

    #[test]
    fn a_trampoline_without_an_entry_is_put_in_its_place() {
        for at in [0x80, 0x180, 0x280] {
            let section = compiler()
                .function(0x100..0x110, RECORD)
                .function(0x200..0x210, RECORD);
            let mut bytes = section.bytes.clone();
            bytes.extend([0; 4]);
            let table = table(&bytes, SECTION, TEXT..TEXT + LEN, Some(TEXT + at));
            let at = at as u32;
            for (offset, expected) in [
                (at - 2, Cfa::Unknown),
                (at - 1, Cfa::Signal),
                (at + 7, Cfa::Signal),
                (at + 8, Cfa::Unknown),
            ] {
                assert_eq!(look_up(&table, offset).cfa, expected, "{at:x} {offset:x}");
            }
            assert_eq!(look_up(&table, 0x204).cfa, Cfa::Fp);
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let section = compiler()
            .function(0x100..0x200, RECORD)
            .function(
                0x180..0x400,
                &[
                    0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22,
                ],
            )
            .function(
                0x400..0x900,
                &[
                    0x0a, 0x41, 0x0e, 16, 0x10, 6, 2, 0x76, 0, 0x04, 1, 0, 0, 0, 0x0b,
                ],
            );
        let mut random = 0x5eed_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize % below
        };
        let mut skipped = 0;
        for _ in 0..20_000 {
            let mut bytes = section.bytes.clone();
            for _ in 0..1 + next(4) {
                let at = next(bytes.len());
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, next(256) as u8][next(6)];
            }
            bytes.truncate(bytes.len() - next(4) * next(30));
            let table = table(&bytes, SECTION, TEXT..TEXT + LEN, None);
            for offset in (0..LEN as u32 + 600).step_by(61) {
                look_up(&table, offset);
            }
            assert!(table.records().end <= LEN as u32);
            skipped += table.skipped();
        }
        assert!(skipped > 1_000, "{skipped}");
    }
}
