//! The heap, with every allocation in the profile.

#![allow(unsafe_code)]

use core::mem::MaybeUninit;

use embedded_alloc::LlffHeap;
use picoprof::profile::heap::{Allocator, Sampler};
use picoprof::stack::capture::registers_here;

use crate::profiler::{HEAP, PROFILER};

/// Bytes of it.
const SIZE: usize = 2 * 1024 * 1024;

#[global_allocator]
static ALLOCATOR: Allocator<LlffHeap, EveryAllocation> =
    Allocator::new(LlffHeap::empty(), EveryAllocation);

/// Gives it its memory. To be called once, before anything allocates.
pub fn start() {
    static mut MEMORY: [MaybeUninit<u8>; SIZE] = [MaybeUninit::uninit(); SIZE];
    let start = (&raw mut MEMORY).expose_provenance();
    // SAFETY: nothing has been allocated yet, and this is called once: `main` does, first of all. Nobody else knows of that
    // memory.
    unsafe { ALLOCATOR.inner().init(start, SIZE) };
}

/// Bytes that are in use.
pub fn used() -> usize {
    ALLOCATOR.inner().used()
}

/// There are few allocations here, so all of them are samples: the profile's figures are exact.
struct EveryAllocation;

impl Sampler for EveryAllocation {
    fn is_due(&self, _size: usize) -> bool {
        true
    }

    // So that the stack is that of the wrapper's caller, as the trait has it.
    #[inline(always)]
    fn record_alloc(&self, address: usize, size: usize) {
        let (stack, labels) = PROFILER.here(registers_here());
        HEAP.view().record_alloc(stack, labels, address, size);
    }

    fn give_back(&self, _size: usize) {}

    fn may_be_sampled(&self, address: usize) -> bool {
        HEAP.view().may_be_sampled(address)
    }

    fn record_free(&self, address: usize) -> bool {
        HEAP.view().record_free(address)
    }
}
