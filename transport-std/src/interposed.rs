//! New threads, seen where they are created: what [`interpose!`](crate::interpose) calls.
//!
//! A program that defines `pthread_create` itself comes before libc's in the linker's order, for its own code, for
//! the standard library and for every library that it loads. Ours notes the stack, and hands on to libc's.

#![allow(unsafe_code)]

use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::{cpu, stack, sys, tables};

/// Puts the program's own `pthread_create` in front of libc's, so that every new thread is seen.
///
/// Write it once, in `main.rs`. It fills `threadcreate`, and lets CPU profiles see a thread from its first
/// instruction on; without it new threads are found within 100 ms. It defines the C function `pthread_create` in the
/// program, which calls libc's: nothing else is changed. Opt-in, for Linux with glibc or musl. A library must
/// not use it: a program can have it only once.
///
/// ```
/// picoprof_std::interpose!();
///
/// fn main() {
///     std::thread::spawn(|| ()).join().unwrap();
/// }
/// ```
#[macro_export]
macro_rules! interpose {
    () => {
        #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
        compile_error!(
            "glibc's pthread_create can't be reached behind another one in a static program"
        );

        const _: () = {
            #[unsafe(no_mangle)]
            unsafe extern "C" fn pthread_create(
                thread: *mut $crate::__private::pthread_t,
                attributes: *const $crate::__private::pthread_attr_t,
                start: $crate::__private::Start,
                argument: *mut ::core::ffi::c_void,
            ) -> ::core::ffi::c_int {
                // SAFETY: the caller keeps to pthread_create's conditions.
                unsafe { $crate::__private::pthread_create(thread, attributes, start, argument) }
            }
        };
    };
}

/// A new thread's function. glibc ends a thread early, in `pthread_exit`, by unwinding through it.
pub type Start = extern "C-unwind" fn(*mut c_void) -> *mut c_void;

type PthreadCreate = unsafe extern "C" fn(
    *mut libc::pthread_t,
    *const libc::pthread_attr_t,
    Start,
    *mut c_void,
) -> c_int;

/// Whether a thread was created through here: the macro is in use.
static IS_USED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The calling thread is creating one of this crate's own.
    static IS_UNSEEN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, whose new threads are this crate's own: no part of any profile's `threadcreate`, and deaf to the program's
/// signals.
pub(crate) fn unseen<R>(f: impl FnOnce() -> R) -> R {
    let before = IS_UNSEEN.replace(true);
    let result = sys::blocking_signals(f);
    IS_UNSEEN.set(before);
    result
}

/// Whether the program uses the macro, as far as it has created a thread.
pub(crate) fn is_used() -> bool {
    IS_USED.load(Ordering::Relaxed)
}

/// What a new thread is to do.
struct NewThread {
    start: Start,
    argument: *mut c_void,
}

/// Creates a thread as libc's `pthread_create` does, and notes who did.
///
/// # Safety
///
/// As for `pthread_create`.
#[inline(never)]
pub unsafe fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    let Some(real) = real_pthread_create() else {
        return libc::EAGAIN;
    };
    IS_USED.store(true, Ordering::Relaxed);
    let new = Box::into_raw(Box::new(NewThread { start, argument }));
    // SAFETY: the caller's arguments, and a function that takes the box.
    let result = unsafe { real(thread, attributes, run, new.cast()) };
    if result == 0 {
        if !IS_UNSEEN.get() {
            tables::threads().add(stack::intern_here(), 0, &[1]);
        }
    } else {
        // SAFETY: no thread was created, so the box is still ours.
        drop(unsafe { Box::from_raw(new) });
    }
    result
}

/// The first function of each new thread.
extern "C-unwind" fn run(new: *mut c_void) -> *mut c_void {
    // SAFETY: `pthread_create` made the box for this thread.
    let NewThread { start, argument } = *unsafe { Box::from_raw(new.cast::<NewThread>()) };
    cpu::thread_began();
    let result = start(argument);
    // A thread that ends in pthread_exit doesn't get here; the next scan finds that it's gone.
    cpu::thread_ends();
    result
}

/// libc's function: the next of that name after the program's own.
#[cfg(not(all(target_env = "musl", target_feature = "crt-static")))]
fn real_pthread_create() -> Option<PthreadCreate> {
    use core::sync::atomic::AtomicUsize;

    static REAL: AtomicUsize = AtomicUsize::new(0);
    let mut address = REAL.load(Ordering::Relaxed);
    if address == 0 {
        // SAFETY: a constant and a string that ends in NUL.
        address = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_create".as_ptr()) } as usize;
        REAL.store(address, Ordering::Relaxed);
    }
    // SAFETY: it's the function of that name, which POSIX gives this type, or null, which is `None`.
    unsafe { core::mem::transmute::<usize, Option<PthreadCreate>>(address) }
}

/// libc's function. A static program has no next of that name; in musl it is a weak name for this one.
#[cfg(all(target_env = "musl", target_feature = "crt-static"))]
fn real_pthread_create() -> Option<PthreadCreate> {
    unsafe extern "C" {
        fn __pthread_create(
            thread: *mut libc::pthread_t,
            attributes: *const libc::pthread_attr_t,
            start: Start,
            argument: *mut c_void,
        ) -> c_int;
    }
    Some(__pthread_create)
}
