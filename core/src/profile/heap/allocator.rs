//! The `GlobalAlloc` wrapper. The only unsafe code here is what the trait asks for: handing each call on to
//! the inner allocator unchanged.

#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};

/// Decides which allocations are sampled, and records them: what [`Allocator`] calls.
///
/// The methods run inside the allocator. They must not unwind, and where they allocate themselves they
/// must know their own calls again and do nothing for those.
pub trait Sampler {
    /// Counts `size` bytes down; true when this allocation is to be sampled. In the fast path of every
    /// allocation: a subtraction and a branch.
    fn is_due(&self, size: usize) -> bool;

    /// Records the allocation that was due. It is inlined where it asks to be: the function that calls it is rarely
    /// run, and never inlined itself.
    fn record_alloc(&self, address: usize, size: usize);

    /// Takes back what `is_due` counted: the allocation that was due came to nothing. Without it the next one, however
    /// small, would be a sample in place of this.
    fn give_back(&self, size: usize);

    /// Whether the allocation may have been sampled. In the fast path of every free: one load.
    fn may_be_sampled(&self, address: usize) -> bool;

    /// Records that the allocation is about to be freed; answers whether it was a sampled one.
    fn record_free(&self, address: usize) -> bool;
}

/// Samples the allocations of the allocator inside it.
///
/// An allocation costs a subtraction and a branch more, a free one load and a branch; only a sampled
/// allocation costs more than that. A `realloc` counts as a free of the old block and an allocation of the
/// new one.
///
/// ```
/// use std::alloc::System;
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use picoprof::profile::heap::{Allocator, Sampler};
///
/// /// Samples every tenth allocation.
/// struct EveryTenth(AtomicUsize);
///
/// impl Sampler for EveryTenth {
///     fn is_due(&self, _size: usize) -> bool {
///         self.0.fetch_add(1, Ordering::Relaxed) % 10 == 9
///     }
///     fn record_alloc(&self, _address: usize, _size: usize) {}
///     fn give_back(&self, _size: usize) {}
///     fn may_be_sampled(&self, _address: usize) -> bool { false }
///     fn record_free(&self, _address: usize) -> bool { false }
/// }
///
/// #[global_allocator]
/// static ALLOCATOR: Allocator<System, EveryTenth> =
///     Allocator::new(System, EveryTenth(AtomicUsize::new(0)));
///
/// assert_eq!(vec![1, 2, 3].len(), 3);
/// ```
#[derive(Debug)]
pub struct Allocator<A, S> {
    inner: A,
    sampler: S,
}

impl<A, S> Allocator<A, S> {
    /// Wraps `inner`.
    pub const fn new(inner: A, sampler: S) -> Self {
        Self { inner, sampler }
    }

    /// The allocator inside.
    pub const fn inner(&self) -> &A {
        &self.inner
    }
}

/// What is rare, each in a function of its own: the other way through the trait's methods then ends in a jump to the
/// inner allocator, and saves no register.
impl<A: GlobalAlloc, S: Sampler> Allocator<A, S> {
    /// # Safety
    ///
    /// As for `alloc`.
    #[cold]
    #[inline(never)]
    unsafe fn alloc_sampled(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the inner allocator's conditions.
        let block = unsafe { self.inner.alloc(layout) };
        self.record(block, layout.size());
        block
    }

    /// # Safety
    ///
    /// As for `alloc_zeroed`.
    #[cold]
    #[inline(never)]
    unsafe fn alloc_zeroed_sampled(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc_sampled`.
        let block = unsafe { self.inner.alloc_zeroed(layout) };
        self.record(block, layout.size());
        block
    }

    /// # Safety
    ///
    /// As for `dealloc`.
    #[cold]
    #[inline(never)]
    unsafe fn dealloc_sampled(&self, block: *mut u8, layout: Layout) {
        // Before: once it is freed, another thread may get the address and record it.
        self.sampler.record_free(block.addr());
        // SAFETY: as for `alloc_sampled`; the block came from the inner allocator.
        unsafe { self.inner.dealloc(block, layout) }
    }

    /// Where the old block, or the new one, or both may be samples.
    ///
    /// # Safety
    ///
    /// As for `realloc`.
    #[cold]
    #[inline(never)]
    unsafe fn realloc_sampled(
        &self,
        block: *mut u8,
        layout: Layout,
        new_size: usize,
        is_due: bool,
    ) -> *mut u8 {
        // Before, as in `dealloc_sampled`.
        let was_sampled = self.sampler.record_free(block.addr());
        // SAFETY: as for `dealloc_sampled`.
        let new_block = unsafe { self.inner.realloc(block, layout, new_size) };
        if is_due {
            self.record(new_block, new_size);
        }
        if new_block.is_null() && was_sampled {
            // The old block stays as it was; it goes on as a new sample of this stack.
            self.record(block, layout.size());
        }
        new_block
    }

    /// Records what was just allocated, if there is something.
    #[inline(always)]
    fn record(&self, block: *mut u8, size: usize) {
        if block.is_null() {
            self.sampler.give_back(size);
        } else {
            self.sampler.record_alloc(block.expose_provenance(), size);
        }
    }
}

// SAFETY: every block comes from the inner allocator and goes back to it with the layout that it was given
// for, and the sampler is told addresses only, which it cannot use to reach the memory.
unsafe impl<A: GlobalAlloc, S: Sampler> GlobalAlloc for Allocator<A, S> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.sampler.is_due(layout.size()) {
            // SAFETY: the caller keeps to `alloc`'s conditions.
            return unsafe { self.alloc_sampled(layout) };
        }
        // SAFETY: the caller's promises are the inner allocator's conditions.
        unsafe { self.inner.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if self.sampler.is_due(layout.size()) {
            // SAFETY: the caller keeps to `alloc_zeroed`'s conditions.
            return unsafe { self.alloc_zeroed_sampled(layout) };
        }
        // SAFETY: as for `alloc`.
        unsafe { self.inner.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.sampler.may_be_sampled(block.addr()) {
            // SAFETY: the caller keeps to `dealloc`'s conditions.
            return unsafe { self.dealloc_sampled(block, layout) };
        }
        // SAFETY: as for `alloc`; the block came from the inner allocator.
        unsafe { self.inner.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let is_due = self.sampler.is_due(new_size);
        if is_due || self.sampler.may_be_sampled(block.addr()) {
            // SAFETY: the caller keeps to `realloc`'s conditions.
            return unsafe { self.realloc_sampled(block, layout, new_size, is_due) };
        }
        // SAFETY: as for `dealloc`.
        unsafe { self.inner.realloc(block, layout, new_size) }
    }
}
