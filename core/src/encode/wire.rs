//! The protocol buffer wire format (protobuf.dev, "Encoding"), and what counts it or cuts a window out.

#![forbid(unsafe_code)]

use core::fmt;

/// Writes to a buffer what fits, and goes on counting.
///
/// A record is rendered once for each buffer that it takes part in. The first time, `skip` is 0; when it did
/// not fit, the next time `skip` is what went out before. And once without a buffer to know its length: that is the same
/// code, as machines with little memory have no room for two of it.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    out: &'a mut [u8],
    filled: usize,
    skip: usize,
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

    /// One that writes nothing; [`count`](Self::count) says how much it would have been.
    pub(crate) fn counting() -> Self {
        Self {
            skip: usize::MAX,
            ..Self::new(&mut [])
        }
    }

    /// Bytes that a [`counting`](Self::counting) window was given.
    pub(crate) const fn count(&self) -> usize {
        usize::MAX - self.skip
    }

    /// Bytes in the buffer.
    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    /// Lets `render` write a record of which `sent` bytes went out before. `None` if it is complete now, else how
    /// many bytes of it have gone out.
    pub(crate) fn record(&mut self, sent: usize, render: impl FnOnce(&mut Self)) -> Option<usize> {
        let filled_before = self.filled;
        self.skip = sent;
        self.is_cut = false;
        render(self);
        let written = self.filled - filled_before;
        self.is_cut.then_some(sent + written)
    }

    /// One byte.
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub(crate) fn byte(&mut self, byte: u8) {
        if self.skip > 0 {
            self.skip -= 1;
        } else if let Some(place) = self.out.get_mut(self.filled) {
            *place = byte;
            self.filled += 1;
        } else {
            self.is_cut = true;
        }
    }

    /// Several.
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let bytes = bytes.get(skipped..).unwrap_or_default();
        let room = self.out.get_mut(self.filled..).unwrap_or_default();
        let n = bytes.len().min(room.len());
        if let (Some(room), Some(bytes)) = (room.get_mut(..n), bytes.get(..n)) {
            room.copy_from_slice(bytes);
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

/// A message that can be rendered several times, the same each time.
pub(crate) trait Message {
    fn render(&self, sink: &mut Window<'_>);
}

/// A varint: seven bits a byte, the lowest first.
///
/// What most numbers take, ids of locations above all, is one look at the buffer.
#[cfg_attr(target_pointer_width = "64", inline)]
pub(crate) fn varint(sink: &mut Window<'_>, value: u64) {
    let room = sink.out.get_mut(sink.filled..).unwrap_or_default();
    let n = match (sink.skip, value, room) {
        (0, ..0x80, [first, ..]) => {
            *first = value as u8;
            1
        }
        (0, ..0x4000, [first, second, ..]) => {
            *first = value as u8 | 0x80;
            *second = (value >> 7) as u8;
            2
        }
        _ => return varint_bytes(sink, value),
    };
    sink.filled += n;
}

/// The same, byte by byte.
fn varint_bytes(sink: &mut Window<'_>, mut value: u64) {
    while value >= 0x80 {
        sink.byte(value as u8 | 0x80);
        value >>= 7;
    }
    sink.byte(value as u8);
}

/// A field of an integer type; left out when it is zero, as proto3 does.
#[cfg_attr(target_pointer_width = "64", inline)]
pub(crate) fn int(sink: &mut Window<'_>, field: u32, value: u64) {
    if value != 0 {
        varint(sink, u64::from(field << 3));
        varint(sink, value);
    }
}

/// The start of a field with a length: what follows must be `len` bytes.
#[cfg_attr(target_pointer_width = "64", inline)]
pub(crate) fn length_prefix(sink: &mut Window<'_>, field: u32, len: usize) {
    varint(sink, u64::from(field << 3 | 2));
    varint(sink, len as u64);
}

/// A field that is a message, empty or not.
pub(crate) fn message(sink: &mut Window<'_>, field: u32, message: &dyn Message) {
    let mut counting = Window::counting();
    message.render(&mut counting);
    length_prefix(sink, field, counting.count());
    message.render(sink);
}

/// A field that is a message of integers: those of its fields 1, 2, 3 and so on.
pub(crate) fn integers(sink: &mut Window<'_>, field: u32, values: &[u64]) {
    message(sink, field, &values);
}

impl Message for &[u64] {
    fn render(&self, sink: &mut Window<'_>) {
        for (field, &value) in (1..).zip(*self) {
            int(sink, field, value);
        }
    }
}

/// A string field, empty or not.
pub(crate) fn string(sink: &mut Window<'_>, field: u32, value: &str) {
    bytes(sink, field, value.as_bytes());
}

/// A string or bytes field, empty or not.
pub(crate) fn bytes(sink: &mut Window<'_>, field: u32, value: &[u8]) {
    length_prefix(sink, field, value.len());
    sink.bytes(value);
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

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
