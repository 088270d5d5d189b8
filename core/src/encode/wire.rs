//! The protocol buffer wire format (protobuf.dev, "Encoding"), and sinks that count it or cut a window out.

#![forbid(unsafe_code)]

use core::fmt;

/// Where bytes go.
pub(crate) trait Sink {
    /// One byte.
    fn byte(&mut self, byte: u8);

    /// Several.
    fn bytes(&mut self, bytes: &[u8]);
}

/// Counts what it is given.
#[derive(Debug, Default)]
pub(crate) struct Count(pub(crate) u64);

impl Sink for Count {
    #[inline]
    fn byte(&mut self, _byte: u8) {
        self.0 += 1;
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len() as u64;
    }
}

impl fmt::Write for Count {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.bytes(s.as_bytes());
        Ok(())
    }
}

/// Writes to a buffer what fits, and goes on counting.
///
/// A record is rendered once for each buffer that it takes part in. The first time, `skip` is 0; when it did
/// not fit, the next time `skip` is what went out before.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    out: &'a mut [u8],
    filled: usize,
    skip: u64,
    is_cut: bool,
}

impl<'a> Window<'a> {
    pub(crate) fn new(out: &'a mut [u8]) -> Self {
        Self {
            out,
            filled: 0,
            skip: 0,
            is_cut: false,
        }
    }

    /// Bytes in the buffer.
    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    /// Lets `render` write a record of which `sent` bytes went out before. `None` if it is complete now, else how
    /// many bytes of it have gone out.
    pub(crate) fn record(&mut self, sent: u64, render: impl FnOnce(&mut Self)) -> Option<u64> {
        let filled_before = self.filled;
        self.skip = sent;
        self.is_cut = false;
        render(self);
        let written = (self.filled - filled_before) as u64;
        self.is_cut.then_some(sent + written)
    }
}

impl Sink for Window<'_> {
    #[inline]
    fn byte(&mut self, byte: u8) {
        if self.skip > 0 {
            self.skip -= 1;
        } else if let Some(place) = self.out.get_mut(self.filled) {
            *place = byte;
            self.filled += 1;
        } else {
            self.is_cut = true;
        }
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        let skipped = usize::try_from(self.skip)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        self.skip -= skipped as u64;
        let bytes = bytes.get(skipped..).unwrap_or_default();
        let room = self.out.get_mut(self.filled..).unwrap_or_default();
        let n = bytes.len().min(room.len());
        for (place, &byte) in room.iter_mut().zip(bytes) {
            *place = byte;
        }
        self.filled += n;
        self.is_cut |= n < bytes.len();
    }
}

impl fmt::Write for Window<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.bytes(s.as_bytes());
        Ok(())
    }
}

/// A message that can be rendered to any sink, the same each time.
pub(crate) trait Message {
    fn render(&self, sink: &mut impl Sink);
}

/// A varint: seven bits a byte, the lowest first.
#[inline]
pub(crate) fn varint(sink: &mut impl Sink, mut value: u64) {
    while value >= 0x80 {
        sink.byte(value as u8 | 0x80);
        value >>= 7;
    }
    sink.byte(value as u8);
}

/// The length of a varint in bytes.
#[inline]
pub(crate) const fn varint_len(value: u64) -> u64 {
    let bits = 64 - (value | 1).leading_zeros() as u64;
    bits.div_ceil(7)
}

/// A field of an integer type; left out when it is zero, as proto3 does.
#[inline]
pub(crate) fn int(sink: &mut impl Sink, field: u32, value: u64) {
    if value != 0 {
        varint(sink, u64::from(field << 3));
        varint(sink, value);
    }
}

/// The start of a field with a length: what follows must be `len` bytes.
#[inline]
pub(crate) fn length_prefix(sink: &mut impl Sink, field: u32, len: u64) {
    varint(sink, u64::from(field << 3 | 2));
    varint(sink, len);
}

/// A field that is a message, empty or not.
pub(crate) fn message(sink: &mut impl Sink, field: u32, message: &impl Message) {
    let mut count = Count::default();
    message.render(&mut count);
    length_prefix(sink, field, count.0);
    message.render(sink);
}

/// A string or bytes field, empty or not.
pub(crate) fn string(sink: &mut impl Sink, field: u32, value: &str) {
    length_prefix(sink, field, value.len() as u64);
    sink.bytes(value.as_bytes());
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    #[test]
    fn varint_lengths_agree() {
        for value in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            u64::from(u32::MAX),
            u64::MAX,
        ] {
            let mut count = Count::default();
            varint(&mut count, value);
            assert_eq!(count.0, varint_len(value), "{value}");
        }
    }

    #[test]
    fn a_record_comes_out_whole_through_any_window() {
        let record = |w: &mut Window<'_>| {
            varint(w, 300);
            string(w, 6, "abcdefg");
            int(w, 2, 5);
        };
        let mut whole = [0; 64];
        let mut window = Window::new(&mut whole);
        assert_eq!(window.record(0, record), None);
        let len = window.filled();
        for size in 1..=len {
            let mut pieces = Vec::new();
            let mut sent = Some(0);
            while let Some(before) = sent {
                let mut out = std::vec![0; size];
                let mut window = Window::new(&mut out);
                sent = window.record(before, record);
                let filled = window.filled();
                pieces.extend_from_slice(&out[..filled]);
            }
            assert_eq!(pieces, whole[..len]);
        }
    }
}
