//! The heap: all memory that is left, and samples of who takes it.

#![allow(unsafe_code)]

use core::cell::Cell;

use embedded_alloc::LlffHeap;
use picoprof::profile::heap::interval::next_sample;
use picoprof::profile::heap::{Allocator, Sampler};
use picoprof::stack::capture::registers_here;
use riscv_machine::{HARTS, HartLocal, memory};

use crate::profiler;

#[global_allocator]
static ALLOCATOR: Allocator<LlffHeap, HeapSampler> = Allocator::new(LlffHeap::empty(), HeapSampler);

/// Gives the heap its memory. To be called once, before anything allocates.
pub(crate) fn init() {
    let range = memory::heap();
    // SAFETY: the linker script leaves that range to the heap, and nothing else uses it.
    unsafe { ALLOCATOR.inner().init(range.start, range.len()) }
}

/// Bytes in use, as the allocator itself counts them.
pub(crate) fn used() -> usize {
    ALLOCATOR.inner().used()
}

/// Samples by a count of bytes that each hart has for itself.
struct HeapSampler;

struct Countdown {
    /// Bytes to the next sample.
    left: Cell<isize>,
    /// Of a xorshift generator (Marsaglia, "Xorshift RNGs", 2003).
    random: Cell<u64>,
}

static COUNTDOWN: HartLocal<Countdown> = HartLocal::new(
    [const {
        Countdown {
            left: Cell::new(0),
            random: Cell::new(0x9e37_79b9_7f4a_7c15),
        }
    }; HARTS],
);

impl Sampler for HeapSampler {
    #[inline]
    fn is_due(&self, size: usize) -> bool {
        COUNTDOWN.with(|countdown| {
            let left = countdown.left.get().wrapping_sub_unsigned(size);
            countdown.left.set(left);
            left < 0
        })
    }

    // So that the function whose registers these are is the wrapper's own, and a stack begins with who called that.
    #[inline(always)]
    fn record_alloc(&self, address: usize, size: usize) {
        draw();
        let stack = profiler::stack_from(registers_here(), 0);
        profiler::heap().record_alloc(stack, profiler::labels_here(), address, size);
    }

    fn give_back(&self, size: usize) {
        COUNTDOWN.with(|countdown| {
            countdown
                .left
                .set(countdown.left.get().wrapping_add_unsigned(size))
        });
    }

    #[inline]
    fn may_be_sampled(&self, address: usize) -> bool {
        profiler::heap().may_be_sampled(address)
    }

    fn record_free(&self, address: usize) -> bool {
        profiler::heap().record_free(address)
    }
}

/// Draws how far it is to the next sample.
fn draw() {
    COUNTDOWN.with(|countdown| {
        let mut random = countdown.random.get();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        countdown.random.set(random);
        let distance = next_sample(profiler::heap().rate(), (random >> 32) as u32);
        countdown
            .left
            .set(isize::try_from(distance).unwrap_or(isize::MAX));
    });
}
