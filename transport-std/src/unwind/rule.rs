//! How to get from a frame to its caller's: one row of call frame information (DWARF 5, 6.4), cut
//! down to the three registers that a walk carries.

#![forbid(unsafe_code)]

/// How to find the canonical frame address: on both architectures the stack pointer's value in the
/// caller, once the call has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Cfa {
    /// The stack pointer + `offset`.
    Sp,
    /// The frame pointer + `offset`.
    Fp,
    /// The word at stack pointer + `offset`, + `add` words: hand-written code that aligned the stack.
    DerefSp,
    /// The word at frame pointer + `offset`, + `add` words: GCC's prologue when it aligns the stack.
    DerefFp,
    /// x86-64 procedure linkage table: the stack pointer + 8, and + 8 more from the `offset`th byte of
    /// each 16-byte entry on, where the entry has pushed its relocation's number.
    Plt,
    /// The kernel's signal frame: all registers are in the `ucontext` on the stack.
    Signal,
    /// The return address is undefined: nobody called this code.
    Outermost,
    /// Nothing that a walk can use.
    Unknown,
}

/// Where a register's value in the caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot(u16);

impl Slot {
    /// Still in its register.
    pub(super) const SAME: Self = Self(0);
    /// In the word that the frame pointer points to.
    pub(super) const AT_FP: Self = Self(u16::MAX - 1);
    /// Nowhere that a walk can find.
    pub(super) const LOST: Self = Self(u16::MAX);

    /// Saved at `offset` from the canonical frame address; lost if that is not a whole number of words
    /// below it.
    pub(super) fn saved_at(offset: i64) -> Self {
        let below = offset.checked_neg().filter(|below| below % 8 == 0);
        match below.and_then(|below| u16::try_from(below / 8).ok()) {
            Some(words) if words > 0 && words < Self::AT_FP.0 => Self(words),
            _ => Self::LOST,
        }
    }

    /// The address of a slot that `saved_at` made.
    #[inline]
    pub(super) fn address(self, cfa: usize) -> usize {
        cfa.wrapping_sub(8 * usize::from(self.0))
    }
}

/// One rule of a table's dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub(super) offset: i32,
    pub(super) cfa: Cfa,
    pub(super) add: i8,
    /// The caller's frame pointer.
    pub(super) fp: Slot,
    /// The return address.
    pub(super) ra: Slot,
    /// Whether it saves a frame record: register + offset, with the frame pointer and the return address just below.
    pub(super) is_record: bool,
    pub(super) kind: Kind,
}

/// How a rule is applied: the common ones have short ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Register + offset, with the return address and perhaps the frame pointer saved.
    Plain,
    Outermost,
    Rare,
}

impl Rule {
    pub(super) const UNKNOWN: Self = Self::special(Cfa::Unknown);
    pub(super) const OUTERMOST: Self = Self::special(Cfa::Outermost);
    pub(super) const SIGNAL: Self = Self::special(Cfa::Signal);

    const fn special(cfa: Cfa) -> Self {
        Self::new(cfa, 0, 0, Slot::SAME, Slot::SAME)
    }

    pub(super) const fn new(cfa: Cfa, offset: i32, add: i8, fp: Slot, ra: Slot) -> Self {
        Self {
            offset,
            cfa,
            add,
            fp,
            ra,
            is_record: matches!(cfa, Cfa::Sp | Cfa::Fp) && fp.0 == 2 && ra.0 == 1,
            kind: match cfa {
                Cfa::Sp | Cfa::Fp
                    if fp.0 < Slot::AT_FP.0 && ra.0 > Slot::SAME.0 && ra.0 < Slot::AT_FP.0 =>
                {
                    Kind::Plain
                }
                Cfa::Outermost => Kind::Outermost,
                _ => Kind::Rare,
            },
        }
    }

    /// A frame record: the caller's frame pointer and the return address are the two words at the frame
    /// pointer, and the frame ends above them.
    pub(super) fn is_frame_record(self) -> bool {
        self.cfa == Cfa::Fp && self.offset == 16 && self.saves_record()
    }

    /// The frame record is the first thing in the frame, whether or not the frame pointer points to it yet.
    pub(super) fn saves_record(self) -> bool {
        self.fp == Slot::saved_at(-16) && self.ra == Slot::saved_at(-8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_words_below_the_cfa() {
        assert_eq!(Slot::saved_at(-16).address(0x1000), 0xff0);
        assert_eq!(
            Slot::saved_at(-8 * 65_533).address(0x100_000),
            0x100_000 - 8 * 65_533
        );
        for unusable in [0, 8, -7, -8 * 65_534, i64::MIN, i64::MAX] {
            assert_eq!(Slot::saved_at(unusable), Slot::LOST, "{unusable}");
        }
    }

    #[test]
    fn a_frame_record_is_told_from_its_likes() {
        let record = Rule::new(Cfa::Fp, 16, 0, Slot::saved_at(-16), Slot::saved_at(-8));
        assert!(record.is_frame_record());
        for other in [
            Rule {
                offset: 32,
                ..record
            },
            Rule {
                cfa: Cfa::Sp,
                ..record
            },
            Rule {
                fp: Slot::SAME,
                ..record
            },
            Rule {
                ra: Slot::SAME,
                ..record
            },
            Rule::OUTERMOST,
        ] {
            assert!(!other.is_frame_record(), "{other:?}");
        }
    }
}
