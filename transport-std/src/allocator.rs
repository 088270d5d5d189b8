//! The global allocator: any allocator, with samples taken of what it gives out.

#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::fmt;
use std::alloc::System;

use picoprof::profile::heap::interval::next_sample;
use picoprof::profile::heap::{Allocator as Wrapper, Sampler};

use crate::{current, stack, tables};

/// The global allocator, which the `heap` and `allocs` profiles are made from.
///
/// One allocation in 512 KiB is sampled, on average; [`set_heap_rate`](crate::set_heap_rate) changes that. Others cost a
/// few instructions more than without it, and use no lock. It is for `#[global_allocator]`, around the system's
/// allocator or any other:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: picoprof_std::Allocator = picoprof_std::Allocator::system();
/// # fn main() {}
/// ```
///
/// ```
/// use std::alloc::System; // or jemalloc's, or mimalloc's
///
/// #[global_allocator]
/// static ALLOCATOR: picoprof_std::Allocator<System> = picoprof_std::Allocator::new(System);
/// # fn main() {}
/// ```
pub struct Allocator<A = System> {
    wrapper: Wrapper<A, HeapSampler>,
}

impl Allocator {
    /// Around the system's allocator.
    #[must_use]
    pub const fn system() -> Self {
        Self::new(System)
    }
}

impl<A> Allocator<A> {
    /// Around any allocator.
    pub const fn new(inner: A) -> Self {
        Self {
            wrapper: Wrapper::new(inner, HeapSampler),
        }
    }
}

impl<A> fmt::Debug for Allocator<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocator").finish_non_exhaustive()
    }
}

// SAFETY: every call goes to the wrapper, which is an allocator, unchanged.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Allocator<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the wrapper's conditions.
        unsafe { self.wrapper.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe { self.wrapper.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as for `alloc`.
        unsafe { self.wrapper.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe { self.wrapper.realloc(block, layout, new_size) }
    }
}

/// Samples by a count of bytes that each thread has for itself.
struct HeapSampler;

// Each constant at first and without a destructor, so that an access is an instruction or two and works at any time of
// a thread's life.
thread_local! {
    /// Bytes to the next sample.
    static COUNTDOWN: Cell<isize> = const { Cell::new(0) };
    /// Whether the countdown began with a distance that was drawn.
    static IS_DRAWN: Cell<bool> = const { Cell::new(false) };
    /// Inside a sample: what it allocates itself is not sampled.
    static IS_SAMPLING: Cell<bool> = const { Cell::new(false) };
    /// Of a xorshift generator (Marsaglia, "Xorshift RNGs", 2003); 0 before it is seeded.
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

impl Sampler for HeapSampler {
    #[inline]
    fn is_due(&self, size: usize) -> bool {
        let left = COUNTDOWN.get().wrapping_sub_unsigned(size);
        COUNTDOWN.set(left);
        left < 0
    }

    // Always, so that the function that the stack is taken in is the wrapper's own, and a stack begins with who called
    // that.
    #[inline(always)]
    fn record_alloc(&self, address: usize, size: usize) {
        if is_sample() {
            let stack = stack::intern_here();
            tables::heap().record_alloc(stack, current::labels(), address, size);
            IS_SAMPLING.set(false);
        }
    }

    fn give_back(&self, size: usize) {
        COUNTDOWN.set(COUNTDOWN.get().wrapping_add_unsigned(size));
    }

    #[inline]
    fn may_be_sampled(&self, address: usize) -> bool {
        tables::heap().may_be_sampled(address)
    }

    fn record_free(&self, address: usize) -> bool {
        tables::heap().record_free(address)
    }
}

/// Draws the next distance, for an allocation that went beyond the last. Whether it is a sample; if so,
/// `IS_SAMPLING` is set.
fn is_sample() -> bool {
    let rate = tables::heap().rate();
    let passed = COUNTDOWN.get().wrapping_neg();
    COUNTDOWN.set(next_distance(rate));
    if rate == 0 || IS_SAMPLING.get() {
        return false;
    }
    // The first time in a thread, it is the distance just drawn that decides whether this allocation is hit.
    if !IS_DRAWN.replace(true) && rate > 1 {
        let left = COUNTDOWN.get().saturating_sub(passed.max(0));
        if left >= 0 {
            COUNTDOWN.set(left);
            return false;
        }
        COUNTDOWN.set(next_distance(rate));
    }
    IS_SAMPLING.set(true);
    true
}

fn next_distance(rate: usize) -> isize {
    if rate == 0 {
        // To look again now and then whether it is still 0.
        return 1 << 20;
    }
    let mut random = RANDOM.get();
    if random == 0 {
        // Addresses of thread-local memory differ between threads, and between runs of the program.
        let seed = RANDOM.with(|cell| core::ptr::from_ref(cell).addr()) as u64;
        random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    }
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    RANDOM.set(random);
    isize::try_from(next_sample(rate, (random >> 32) as u32)).unwrap_or(isize::MAX)
}
