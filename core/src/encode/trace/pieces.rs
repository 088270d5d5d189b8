//! Pieces of memory in which batches are put together: a thread's events, strings, or samples.
//!
//! A batch says how long it is before it says anything else, and batches of different threads are put together at the
//! same time. A piece is free, open (somebody's events go there) or complete (a batch, which waits to be sent).

#![forbid(unsafe_code)]

use super::wire;
use crate::profile::trace::host::PIECE_WORDS;

/// Room for a batch's head before its payload: kind, generation, thread, time, length.
const HEAD: usize = 32;
/// The longest event: a byte, a time, and five numbers of 32 bits or four and one of 64.
pub(super) const MAX_EVENT: usize = 1 + 10 + 4 * 5 + 10;

/// Whose events are in a piece: a thread's, by its number, or one of these.
pub(super) type Owner = u64;
pub(super) const STRINGS: Owner = 1 << 32;
pub(super) const SAMPLES: Owner = 2 << 32;
pub(super) const FREQUENCY: Owner = 3 << 32;

/// What is known of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// 0: free; 1: open; else complete, in this order.
    order: u32,
    owner: Owner,
    /// Where the batch begins and ends.
    start: u32,
    end: u32,
    /// The time of the last event in it.
    last: u64,
}

const FREE: u32 = 0;
const OPEN: u32 = 1;

/// All pieces.
#[derive(Debug)]
pub(super) struct Pieces<'m> {
    about: &'m mut [[u64; PIECE_WORDS]],
    bytes: &'m mut [u8],
    size: usize,
    state: &'m mut PiecesState,
}

/// What is kept of all pieces together.
#[derive(Clone, Copy, Debug)]
pub(super) struct PiecesState {
    /// The last order that was given.
    order: u32,
    /// How many are complete, and how many are open.
    complete: usize,
    open: usize,
}

impl PiecesState {
    pub(super) const NEW: Self = Self {
        order: OPEN,
        complete: 0,
        open: 0,
    };
}

impl<'m> Pieces<'m> {
    pub(super) fn new(
        about: &'m mut [u64],
        words: &'m mut [u64],
        size: usize,
        state: &'m mut PiecesState,
    ) -> Self {
        let (about, _) = about.as_chunks_mut();
        Self {
            about,
            bytes: bytemuck::cast_slice_mut(words),
            size,
            state,
        }
    }

    /// Bytes that an empty piece has room for.
    pub(super) const fn capacity(&self) -> usize {
        self.size.saturating_sub(HEAD + 1)
    }

    pub(super) fn free(&self) -> usize {
        self.about.len() - self.state.complete - self.state.open
    }

    pub(super) fn has_complete(&self) -> bool {
        self.state.complete > 0
    }

    /// Opens a piece for an owner, whose first event is at `time`; `None` if none is free.
    pub(super) fn open(&mut self, owner: Owner, time: u64) -> Option<u32> {
        let index = (0..self.about.len()).find(|&index| self.get(index).order == FREE)?;
        let piece = Piece {
            order: OPEN,
            owner,
            start: HEAD as u32,
            end: HEAD as u32,
            last: time,
        };
        self.set(index, piece);
        // The batch's time is here until its head is written.
        self.put(index, 0, &time.to_le_bytes());
        self.state.open += 1;
        Some(index as u32 + 1)
    }

    /// The open piece of an owner.
    pub(super) fn of(&self, owner: Owner) -> Option<u32> {
        let mut indices = 0..self.about.len();
        let index = indices.find(|&index| {
            let piece = self.get(index);
            piece.order == OPEN && piece.owner == owner
        })?;
        Some(index as u32 + 1)
    }

    /// Whether a piece is still open, and this owner's.
    pub(super) fn is_open(&self, piece: u32, owner: Owner) -> bool {
        piece.checked_sub(1).is_some_and(|index| {
            let piece = self.get(index as usize);
            piece.order == OPEN && piece.owner == owner
        })
    }

    /// Bytes that still fit.
    pub(super) fn room(&self, piece: u32) -> usize {
        let Some(index) = piece.checked_sub(1) else {
            return 0;
        };
        self.size - (self.get(index as usize).end as usize).min(self.size)
    }

    /// The time of the last event in it.
    pub(super) fn last(&self, piece: u32) -> u64 {
        piece
            .checked_sub(1)
            .map_or(0, |index| self.get(index as usize).last)
    }

    /// Adds bytes to an open piece that has room for them, and says the time of the event that they are.
    pub(super) fn append(&mut self, piece: u32, time: u64, bytes: &[u8]) {
        let Some(index) = piece.checked_sub(1) else {
            return;
        };
        let index = index as usize;
        let mut about = self.get(index);
        if about.end as usize + bytes.len() > self.size {
            return;
        }
        self.put(index, about.end as usize, bytes);
        about.end += bytes.len() as u32;
        about.last = time;
        self.set(index, about);
    }

    /// Makes a batch of an open piece: it goes out after all those before.
    pub(super) fn complete(&mut self, piece: u32, generation: u32) {
        let Some(index) = piece.checked_sub(1).map(|index| index as usize) else {
            return;
        };
        let mut about = self.get(index);
        if about.order != OPEN {
            return;
        }
        let time = self.bytes_of(index).first_chunk().copied();
        let mut head = Bytes::<HEAD>::new();
        head.push(wire::EVENT_BATCH);
        head.varint(u64::from(generation));
        // Whose the tables are doesn't matter.
        head.varint(if about.owner >> 32 == 0 {
            about.owner
        } else {
            0
        });
        head.varint(u64::from_le_bytes(time.unwrap_or_default()));
        head.varint(u64::from(about.end - about.start));
        let head = head.as_slice();
        about.start -= head.len() as u32;
        self.put(index, about.start as usize, head);
        self.state.order += 1;
        about.order = self.state.order;
        self.set(index, about);
        self.state.open -= 1;
        self.state.complete += 1;
    }

    /// The same with the open piece that has most in it, to have one free soon; false if none is open.
    pub(super) fn complete_largest(&mut self, generation: u32) -> bool {
        let open = (0..self.about.len()).filter(|&index| self.get(index).order == OPEN);
        match open.max_by_key(|&index| self.get(index).end) {
            Some(index) => {
                self.complete(index as u32 + 1, generation);
                true
            }
            None => false,
        }
    }

    /// Copies of the first complete batch from `sent` on; answers how many bytes, and whether that was its end.
    pub(super) fn send(&mut self, sent: usize, out: &mut [u8]) -> (usize, bool) {
        let complete = (0..self.about.len()).filter(|&index| self.get(index).order > OPEN);
        let Some(index) = complete.min_by_key(|&index| self.get(index).order) else {
            return (0, true);
        };
        let mut piece = self.get(index);
        let batch = self.bytes_of(index);
        let batch = batch.get(piece.start as usize..piece.end as usize);
        let rest = batch.unwrap_or_default().get(sent..).unwrap_or_default();
        let n = rest.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        let is_end = n == rest.len();
        if is_end {
            piece.order = FREE;
            self.set(index, piece);
            self.state.complete -= 1;
            if self.state.complete + self.state.open == 0 {
                self.state.order = OPEN;
            }
        }
        (n, is_end)
    }

    fn get(&self, index: usize) -> Piece {
        let [order, owner, extent, last] = self.about.get(index).copied().unwrap_or_default();
        Piece {
            order: order as u32,
            owner,
            start: extent as u32,
            end: (extent >> 32) as u32,
            last,
        }
    }

    fn set(&mut self, index: usize, piece: Piece) {
        if let Some(about) = self.about.get_mut(index) {
            *about = [
                u64::from(piece.order),
                piece.owner,
                u64::from(piece.start) | u64::from(piece.end) << 32,
                piece.last,
            ];
        }
    }

    fn bytes_of(&self, index: usize) -> &[u8] {
        let start = index * self.size;
        self.bytes.get(start..start + self.size).unwrap_or_default()
    }

    fn put(&mut self, index: usize, place: usize, bytes: &[u8]) {
        let start = index * self.size + place;
        if let Some(to) = self.bytes.get_mut(start..start + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }
}

/// Up to `N` bytes.
#[derive(Debug)]
pub(super) struct Bytes<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Bytes<N> {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }

    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    #[inline]
    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
