//! The C function `pthread_create`: libc's, with a note of who called it.

#![allow(unsafe_code)]

use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};

use picoprof::profile::labels::LabelSetId;
use picoprof::stack::StackId;

use crate::stack_bounds::Stack;
use crate::{contention, cpu, current, recording, stack, sys, tables};

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
    /// The calling thread is one of this crate's own, or is creating one.
    static IS_UNSEEN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, whose new threads are this crate's own: no part of `threadcreate`, what they wait for no part of `block` or
/// `mutex` and of no trace, and deaf to the program's signals.
pub(crate) fn unseen<R>(f: impl FnOnce() -> R) -> R {
    while_unseen(|| sys::blocking_signals(f))
}

/// Runs `f`, of which nothing is recorded.
pub(crate) fn while_unseen<R>(f: impl FnOnce() -> R) -> R {
    struct Before(bool);

    impl Drop for Before {
        fn drop(&mut self) {
            IS_UNSEEN.set(self.0);
        }
    }

    let _before = Before(IS_UNSEEN.replace(true));
    f()
}

/// Lets the calling thread be one of this crate's own from its begin on, also where the program does not use the macro.
pub(crate) fn be_unseen() {
    IS_UNSEEN.set(true);
}

/// Whether what the calling thread does is this crate's own business. May be called in a signal handler.
pub(crate) fn is_unseen() -> bool {
    IS_UNSEEN.get()
}

/// Whether the program uses the macro, as far as it has created a thread.
pub(crate) fn is_used() -> bool {
    IS_USED.load(Ordering::Relaxed)
}

/// What a new thread is to do.
struct NewThread {
    start: Start,
    argument: *mut c_void,
    is_unseen: bool,
    labels: LabelSetId,
    /// What a trace knows it by; 0 if it is to be in none.
    ticket: u32,
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
    if !IS_USED.swap(true, Ordering::Relaxed) {
        // SAFETY: the function may run in a forked child: it is a loop over atomics.
        unsafe { libc::pthread_atfork(None, None, Some(forget_after_fork)) };
    }
    let is_unseen = IS_UNSEEN.get();
    // Before the call, so that in a trace it is created before it begins.
    let (stack, ticket) = if is_unseen {
        (StackId::EMPTY, 0)
    } else {
        let stack = stack::intern_here();
        (stack, recording::thread_created(stack))
    };
    let new = Box::into_raw(Box::new(NewThread {
        start,
        argument,
        is_unseen,
        labels: if is_unseen {
            LabelSetId::EMPTY
        } else {
            current::labels()
        },
        ticket,
    }));
    // SAFETY: the caller's arguments, and a function that takes the box.
    let result = unsafe { real(thread, attributes, run, new.cast()) };
    if result == 0 {
        if !is_unseen {
            tables::threads().add(stack, 0, &[1]);
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
    let new = *unsafe { Box::from_raw(new.cast::<NewThread>()) };
    let NewThread {
        start,
        argument,
        is_unseen,
        labels,
        ticket,
    } = new;
    IS_UNSEEN.set(is_unseen);
    recording::thread_began(ticket);
    current::swap_labels(labels);
    // Now, as one that waits can't look for it.
    Stack::note_that_of_new_thread();
    cpu::thread_began();
    let result = start(argument);
    // A thread that ends in pthread_exit doesn't get here; the next scan, and the next look at the trace's buffers, find that
    // it's gone.
    cpu::thread_ends();
    recording::thread_ends();
    result
}

/// A forked child has none of the threads that wait here.
extern "C" fn forget_after_fork() {
    contention::forget_waiters();
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
