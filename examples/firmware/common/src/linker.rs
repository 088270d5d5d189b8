//! What the linker knows: where the build id is, and the stack.

#![allow(unsafe_code)]

use picoprof::stack::capture::StackBounds;

unsafe extern "C" {
    // Of build-id.x.
    static __build_id_start: u8;
    static __build_id_end: u8;
    // Of cortex-m-rt's link.x, and of riscv-rt's.
    static _stack_start: u8;
    #[cfg(target_arch = "arm")]
    static _stack_end: u8;
}

/// The note with the GNU build id, as the linker has made it; empty if it was not told to.
#[must_use]
pub fn build_id_note() -> &'static [u8] {
    let start = &raw const __build_id_start;
    let len = (&raw const __build_id_end)
        .addr()
        .wrapping_sub(start.addr());
    // SAFETY: the two symbols are around an output section in flash, which nobody writes to.
    unsafe { core::slice::from_raw_parts(start, len) }
}

/// The stack: from the end of the statics to the end of memory.
#[cfg(target_arch = "arm")]
#[must_use]
pub fn stack() -> StackBounds {
    let (low, high) = (&raw const _stack_end, &raw const _stack_start);
    // SAFETY: it is memory, and all of the stack's.
    unsafe { StackBounds::new(low.expose_provenance(), high.expose_provenance()) }
}
