//! Memory for responses in a static, for programs without a heap: what [`Target::scratch`](crate::Target::scratch)
//! lends out.
//!
//! Blocks are lent in runs of neighbours. Which are taken is one word, so a loan is one compare-and-swap.
//!
//! ```
//! use picoprof::scratch::{ScratchPool, words_for};
//!
//! /// One client at a time, a `StackTable<256, 1024>`, `Buckets<64, 2>` and no labels: up to four pieces.
//! const WORDS: usize = 32;
//! const BLOCKS: usize = words_for(256, 64, 2).div_ceil(WORDS) + 3;
//!
//! static SCRATCH: ScratchPool<BLOCKS, WORDS> = ScratchPool::new();
//!
//! let memory = SCRATCH.lend(100).unwrap();
//! assert_eq!(memory.as_ref(), [0; 100]);
//! assert!(SCRATCH.lend(BLOCKS * WORDS).is_none());
//! drop(memory);
//! assert!(SCRATCH.lend(BLOCKS * WORDS).is_some());
//! ```
//!
//! `unsafe` is here for the slices of the pool's memory that its loans are.

#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::encode::used;
use crate::sync::{AtomicU32, Ordering, const_fn};

/// The words that one response needs at a time for a profile that counts in `ROWS` rows of `WIDTH` counters, with the
/// stacks of a table for `LOCATIONS`: whatever the parameters of the request. They are in up to four pieces.
///
/// A [`LabelTable`](crate::profile::labels::LabelTable) adds its `TEXT`. A `goroutine` profile of N tasks and threads
/// needs `words_for(LOCATIONS, 5 * N + 8, 2)`.
#[must_use]
pub const fn words_for(locations: usize, rows: usize, width: usize) -> usize {
    // The counters when it began, or in text each row and what it is sorted by; the row of what was lost counts too.
    let of_rows = (rows + 1) * if width < 2 { 2 } else { width };
    let places = used::places_of(locations);
    // What waits are told apart by, and the locations' ids.
    of_rows + places.div_ceil(8) + places.div_ceil(2)
}

/// `BLOCKS` blocks of `WORDS` words of 8 bytes; at most 32 blocks. A loan takes as many neighbouring blocks as it needs.
#[derive(Debug)]
pub struct ScratchPool<const BLOCKS: usize, const WORDS: usize> {
    memory: UnsafeCell<[[u64; WORDS]; BLOCKS]>,
    taken: Taken,
}

// SAFETY: the memory is reached only through loans, and `Taken` gives a block to one at a time. A loan's words are
// plain numbers, which any thread may use.
unsafe impl<const BLOCKS: usize, const WORDS: usize> Sync for ScratchPool<BLOCKS, WORDS> {}

impl<const BLOCKS: usize, const WORDS: usize> ScratchPool<BLOCKS, WORDS> {
    const VALID: () = assert!(
        BLOCKS >= 1 && BLOCKS <= 32 && WORDS >= 1,
        "BLOCKS must be from 1 to 32, and WORDS at least 1"
    );

    const_fn! {
        /// Nothing is lent. It is all zeros, so that a static takes no room in the binary.
        #[must_use]
        pub fn new() -> Self {
            let () = Self::VALID;
            Self {
                memory: UnsafeCell::new([[0; WORDS]; BLOCKS]),
                taken: Taken::new(),
            }
        }
    }

    /// Lends `words` zeros until the loan is dropped; `None` if there are not so many free in one piece.
    #[must_use]
    pub fn lend(&self, words: usize) -> Option<Lent<'_>> {
        let memory = NonNull::new(self.memory.get().cast::<u64>())?;
        let run = self.taken.take(words.div_ceil(WORDS), BLOCKS)?;
        let first = run.first as usize * WORDS;
        // SAFETY: a run is of the pool's blocks, so its first word is in the array, or just behind it if the run is empty.
        let start = unsafe { memory.add(first) };
        let lent = Lent {
            words: NonNull::slice_from_raw_parts(start, words),
            run,
            taken: &self.taken,
            lifetime: PhantomData,
        };
        Some(lent.zeroed())
    }
}

impl<const BLOCKS: usize, const WORDS: usize> Default for ScratchPool<BLOCKS, WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

/// Memory that is lent, and given back when this is dropped.
pub struct Lent<'a> {
    /// Not a reference, as that would have to be good until the end of a function that drops the loan, when the memory may be
    /// another's.
    words: NonNull<[u64]>,
    run: Run,
    taken: &'a Taken,
    lifetime: PhantomData<&'a mut [u64]>,
}

// SAFETY: as a `&mut [u64]`, which it is but for when it ends.
unsafe impl Send for Lent<'_> {}

// SAFETY: as a `&mut [u64]`: what is shared of it can only be read.
unsafe impl Sync for Lent<'_> {}

impl Lent<'_> {
    fn zeroed(mut self) -> Self {
        self.as_mut().fill(0);
        self
    }
}

impl AsRef<[u64]> for Lent<'_> {
    fn as_ref(&self) -> &[u64] {
        // SAFETY: the words are in blocks that nobody else has until the drop of `self`, which this borrows; the
        // pool lives for longer. They have been numbers from the pool's start on.
        unsafe { self.words.as_ref() }
    }
}

impl AsMut<[u64]> for Lent<'_> {
    fn as_mut(&mut self) -> &mut [u64] {
        // SAFETY: as for `as_ref`, and `self` is borrowed by nobody else.
        unsafe { self.words.as_mut() }
    }
}

impl fmt::Debug for Lent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lent({} words)", self.words.len())
    }
}

impl Drop for Lent<'_> {
    // Once, and not in each place where memory is given back.
    #[inline(never)]
    fn drop(&mut self) {
        self.taken.give_back(self.run);
    }
}

/// Neighbouring blocks.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u32,
    /// A bit for each.
    bits: u32,
}

/// Which blocks are lent: a bit for each.
#[derive(Debug)]
struct Taken(AtomicU32);

impl Taken {
    const_fn! {
        fn new() -> Self {
            Self(AtomicU32::new(0))
        }
    }

    /// Takes the first run of `len` blocks that is free among the first `count`.
    fn take(&self, len: usize, count: usize) -> Option<Run> {
        let bits = ones(len)?;
        let firsts = 0..(count + 1).checked_sub(len)? as u32;
        let mut taken = self.0.load(Ordering::Relaxed);
        loop {
            let first = firsts.clone().find(|first| bits << first & taken == 0)?;
            let run = Run {
                first,
                bits: bits << first,
            };
            // Acquire: who had the blocks before is done with them.
            match self.0.compare_exchange(
                taken,
                taken | run.bits,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(run),
                Err(now) => taken = now,
            }
        }
    }

    fn give_back(&self, run: Run) {
        // Release: the next to take the blocks comes after all that was done with them.
        self.0.fetch_and(!run.bits, Ordering::Release);
    }
}

/// That many ones; `None` if they are more than a word has.
const fn ones(count: usize) -> Option<u32> {
    match count {
        0..32 => Some((1 << count) - 1),
        32 => Some(u32::MAX),
        _ => None,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::collections::HashSet;
    use std::thread;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_lent_is_zero_and_comes_back() {
        let pool = ScratchPool::<4, 8>::new();
        let mut memory = pool.lend(9).unwrap();
        assert_eq!(memory.as_ref(), [0; 9]);
        memory.as_mut().fill(u64::MAX);
        // Two of the four are left.
        assert!(pool.lend(17).is_none());
        let rest = pool.lend(16).unwrap();
        assert!(pool.lend(1).is_none());
        assert_eq!(pool.lend(0).unwrap().as_ref(), []);
        drop(memory);
        assert_eq!(pool.lend(16).unwrap().as_ref(), [0; 16]);
        drop(rest);
        assert_eq!(pool.lend(32).unwrap().as_ref(), [0; 32]);
        assert!(pool.lend(33).is_none());
        assert!(pool.lend(usize::MAX).is_none());
    }

    #[test]
    fn a_whole_word_of_blocks_can_be_lent() {
        let pool = ScratchPool::<32, 1>::new();
        assert!(pool.lend(32).is_some());
        let each: Vec<_> = (0..32).map(|_| pool.lend(1).unwrap()).collect();
        let places: HashSet<_> = each.iter().map(|lent| lent.as_ref().as_ptr()).collect();
        assert_eq!(places.len(), 32);
        assert!(pool.lend(1).is_none());
    }

    #[test]
    fn threads_never_share_a_word() {
        let pool = ScratchPool::<8, 4>::new();
        let use_it = |mark: u64| {
            for round in 0..2000 {
                if let Some(mut memory) = pool.lend(1 + round % 20) {
                    assert!(memory.as_ref().iter().all(|&word| word == 0));
                    memory.as_mut().fill(mark);
                    assert!(memory.as_ref().iter().all(|&word| word == mark));
                }
            }
        };
        thread::scope(|scope| {
            for mark in 1..=3 {
                scope.spawn(move || use_it(mark));
            }
        });
        assert!(pool.lend(32).is_some());
    }

    proptest! {
        /// Loans are in the pool, apart from each other, and refused only where no run is long enough.
        #[test]
        fn agrees_with_a_list_of_blocks(
            steps in prop::collection::vec((0usize..24, any::<prop::sample::Index>(), any::<bool>()), 1..100)
        ) {
            let pool = ScratchPool::<6, 3>::new();
            let mut loans: Vec<(Lent<'_>, usize, usize)> = Vec::new();
            let base = pool.memory.get() as usize;
            for (words, index, gives_back) in steps {
                if gives_back && !loans.is_empty() {
                    let at = index.index(loans.len());
                    drop(loans.swap_remove(at));
                    continue;
                }
                let blocks = words.div_ceil(3);
                let mut free = [true; 6];
                for &(_, first, len) in &loans {
                    free[first..first + len].fill(false);
                }
                let first = (0..=6usize.saturating_sub(blocks))
                    .find(|&first| first + blocks <= 6 && free[first..first + blocks].iter().all(|&f| f));
                let lent = pool.lend(words);
                prop_assert_eq!(lent.is_some(), first.is_some());
                if let (Some(lent), Some(first)) = (lent, first) {
                    prop_assert_eq!(lent.as_ref().len(), words);
                    prop_assert_eq!(lent.as_ref().as_ptr() as usize, base + first * 24);
                    loans.push((lent, first, blocks));
                }
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::UnsafeCell;

    /// Two that want both of two blocks, or one: nobody has what another has, and sees all that was done with it.
    #[test]
    fn loom_a_block_is_one_borrowers_at_a_time() {
        loom::model(|| {
            let pool = Arc::new((Taken::new(), [0, 1].map(UnsafeCell::new)));
            let borrow = |len: usize| {
                let pool = pool.clone();
                move || {
                    if let Some(run) = pool.0.take(len, 2) {
                        for block in run.first as usize..run.first as usize + len {
                            pool.1[block].with_mut(|_| {});
                        }
                        pool.0.give_back(run);
                    }
                }
            };
            let other = thread::spawn(borrow(2));
            borrow(1)();
            borrow(1)();
            other.join().unwrap();
            assert!(pool.0.take(2, 2).is_some());
        });
    }
}
