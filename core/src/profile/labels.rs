//! Labels: what a program says of the work that it does, as Go's `pprof.Do` does.

#![forbid(unsafe_code)]

/// A set of labels, by its number in the table of labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LabelSetId(u32);

impl LabelSetId {
    /// The set without labels.
    pub const EMPTY: Self = Self(0);

    /// What [`from_bits`](Self::from_bits) takes back.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The set with this number.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}
