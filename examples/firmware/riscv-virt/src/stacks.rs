//! Which memory is a hart's stack.

#![allow(unsafe_code)]

use picoprof::stack::capture::StackBounds;
use riscv_machine::memory;

/// A hart's stack.
pub(crate) fn bounds_of(hart: usize) -> StackBounds {
    let stack = memory::stack_of(hart);
    // SAFETY: the linker script has memory there, which stays.
    unsafe { StackBounds::new(stack.start, stack.end) }
}
