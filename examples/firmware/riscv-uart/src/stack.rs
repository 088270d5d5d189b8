//! Which memory is the stack.

#![allow(unsafe_code)]

use picoprof::stack::capture::StackBounds;
use riscv_machine::memory;

/// The stack.
pub(crate) fn bounds() -> StackBounds {
    let stack = memory::stack_of(0);
    // SAFETY: the linker script has memory there, which stays.
    unsafe { StackBounds::new(stack.start, stack.end) }
}
