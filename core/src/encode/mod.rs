//! Encoders: each is a [`Body`], pulled piece by piece into buffers of any size.

#![forbid(unsafe_code)]

pub(crate) mod census;
pub mod dump;
pub(crate) mod goroutines;
pub(crate) mod halves;
pub(crate) mod labels;
pub(crate) mod losses;
pub(crate) mod pairs;
pub(crate) mod plain;
pub mod profile;
pub(crate) mod reasons;
pub(crate) mod records;
pub mod source;
pub mod text;
pub mod trace;
pub(crate) mod used;
pub(crate) mod wire;

/// Bytes that are made as they are asked for.
///
/// The bytes are the same whatever the sizes of the buffers.
pub trait Body {
    /// Writes the next bytes to the front of `out`, which is not empty, and answers how many; 0 means that
    /// there are no more. Never blocks. Call it again when there is room again.
    fn fill(&mut self, out: &mut [u8]) -> usize;
}
