//! What is where in memory, as the linker script has it.

#![allow(unsafe_code)]

use core::ops::Range;

/// Bytes of each hart's stack: a power of two.
pub const STACK_LEN: usize = 64 * 1024;

macro_rules! symbols {
    ($($(#[$meta:meta])* $name:ident = $start:ident .. $end:ident;)*) => {$(
        $(#[$meta])*
        #[must_use]
        pub fn $name() -> Range<usize> {
            unsafe extern "C" {
                static $start: u8;
                static $end: u8;
            }
            // Only the addresses are looked at; there's no object of that type.
            let (start, end) = (&raw const $start, &raw const $end);
            start.expose_provenance()..end.expose_provenance()
        }
    )*};
}

symbols! {
    /// The code.
    text = _text_start .. _text_end;
    /// The stacks of all harts.
    stacks = _stacks_start .. _stacks_end;
    /// All that is left: for a heap. The address is exposed: a pointer may be made of it.
    heap = _heap_start .. _heap_end;
    /// The ELF note with the build id.
    build_id_range = _build_id_start .. _build_id_end;
}

/// The stack of a hart.
#[must_use]
pub fn stack_of(hart: usize) -> Range<usize> {
    let end = stacks().end - hart * STACK_LEN;
    end - STACK_LEN..end
}

/// The code, as data.
#[must_use]
pub fn code() -> &'static [u8] {
    let range = text();
    let code = core::ptr::with_exposed_provenance(range.start);
    // SAFETY: the linker script puts the code there, nobody writes to it, and it is there for ever.
    unsafe { core::slice::from_raw_parts(code, range.len()) }
}

/// The ELF note with the GNU build id; empty if it was linked without one.
#[must_use]
pub fn build_id_note() -> &'static [u8] {
    let range = build_id_range();
    let note = core::ptr::with_exposed_provenance(range.start);
    // SAFETY: as for `code`.
    unsafe { core::slice::from_raw_parts(note, range.len()) }
}
