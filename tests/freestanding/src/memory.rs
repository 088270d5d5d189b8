//! The memory functions that compiled code may call anywhere.
//!
//! A target without an operating system gets them from `compiler_builtins`; on this one they are
//! the C library's to supply. String instructions, as a loop would be compiled into a call of itself.

use core::arch::asm;

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller vouches for `len` bytes at both; the direction flag is clear (psABI 3.2.1).
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= len {
        // SAFETY: no byte is written before it is read: `to` is below `from`, or beyond its end.
        return unsafe { memcpy(to, from, len) };
    }
    let to_last = to.wrapping_add(len).wrapping_sub(1);
    let from_last = from.wrapping_add(len).wrapping_sub(1);
    // SAFETY: the same bytes from the last to the first; the direction flag is restored.
    unsafe {
        asm!(
            "std", "rep movsb", "cld",
            inout("rcx") len => _, inout("rdi") to_last => _, inout("rsi") from_last => _,
            options(nostack),
        );
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller vouches for `len` bytes; the direction flag is clear.
    unsafe {
        asm!(
            "rep stosb",
            inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags),
        );
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    for i in 0..len {
        let (left, right) = (left.wrapping_add(i), right.wrapping_add(i));
        // SAFETY: the caller vouches for `len` bytes at `left`.
        let left = unsafe { left.read_volatile() };
        // SAFETY: and at `right`.
        let right = unsafe { right.read_volatile() };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(left, right, len) }
}
