//! A queue of bytes.

#![forbid(unsafe_code)]

/// Up to `N` bytes.
pub struct Ring<const N: usize> {
    bytes: [u8; N],
    start: usize,
    len: usize,
}

impl<const N: usize> Ring<N> {
    pub const fn new() -> Self {
        Self {
            bytes: [0; N],
            start: 0,
            len: 0,
        }
    }

    /// Puts a byte at the end, if there's room.
    pub fn push(&mut self, byte: u8) {
        if self.room() > 0 {
            self.bytes[(self.start + self.len) % N] = byte;
            self.len += 1;
        }
    }

    /// Puts as many bytes at the end as there's room for; answers how many.
    pub fn push_slice(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        bytes[..n].iter().for_each(|&byte| self.push(byte));
        n
    }

    /// Takes the first byte.
    pub fn pop(&mut self) -> Option<u8> {
        self.len = self.len.checked_sub(1)?;
        let byte = self.bytes[self.start];
        self.start = (self.start + 1) % N;
        Some(byte)
    }

    /// Takes as many bytes as there are and `buffer` has room for; answers how many.
    pub fn pop_slice(&mut self, buffer: &mut [u8]) -> usize {
        let mut n = 0;
        for (to, from) in buffer.iter_mut().zip(core::iter::from_fn(|| self.pop())) {
            *to = from;
            n += 1;
        }
        n
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn room(&self) -> usize {
        N - self.len
    }
}
