//! The few calls of libc that nobody wraps.

#![allow(unsafe_code)]

use core::ffi::c_int;
use core::mem;
use core::ptr;
use core::time::Duration;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What is waited for, and came, at a file descriptor: poll(2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interest<'fd> {
    pub(crate) fd: BorrowedFd<'fd>,
    pub(crate) events: i16,
}

/// Waits until one of the events or an error comes, or the time is over. Answers what came, in the order of the
/// interests.
pub(crate) fn poll(interests: &[Interest<'_>], timeout: Option<Duration>) -> io::Result<Vec<i16>> {
    let mut fds: Vec<_> = interests
        .iter()
        .map(|interest| libc::pollfd {
            fd: interest.fd.as_raw_fd(),
            events: interest.events,
            revents: 0,
        })
        .collect();
    // Rounded up, so that the time is over when it returns.
    let millis = timeout.map_or(-1, |timeout| {
        i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
    });
    // SAFETY: the pointer and the length are those of a vector of initialized entries.
    let result = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
    if result < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(fds.iter().map(|fd| fd.revents).collect())
}

/// Gives free memory of glibc's allocator back to the system.
#[cfg(target_env = "gnu")]
pub(crate) fn malloc_trim() {
    // SAFETY: it has no conditions, and may be called by any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Runs `f`, whose new threads block every signal but those that are theirs alone: a fault's, and a CPU timer's.
///
/// A signal for the process goes to any thread that does not block it. A program may block one everywhere and wait for
/// it, and knows nothing of this crate's threads: its signal would find them, and end the process.
pub(crate) fn blocking_signals<R>(f: impl FnOnce() -> R) -> R {
    struct Before(libc::sigset_t);

    impl Drop for Before {
        fn drop(&mut self) {
            // SAFETY: the pointer is to a set that the call below filled in; the old one is not asked for.
            unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut());
            }
        }
    }

    // SAFETY: all zeros is a value of the type.
    let mut mask: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a local.
    unsafe { libc::sigfillset(&raw mut mask) };
    for own in FAULTS
        .into_iter()
        .chain([libc::SIGABRT, libc::SIGSYS, libc::SIGPROF])
    {
        // SAFETY: the pointer is to a local, and it's a signal.
        unsafe { libc::sigdelset(&raw mut mask, own) };
    }
    // SAFETY: as for the mask.
    let mut before = Before(unsafe { mem::zeroed() });
    // SAFETY: both pointers are to locals.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const mask, &raw mut before.0) };
    f()
}

/// What a thread's own mistakes raise.
pub(crate) const FAULTS: [c_int; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
];

/// Runs `f`, which reads files, where the calling thread must not end: `pthread_cancel` takes effect in a `read`, but
/// not in the allocator or in `pthread_create` (POSIX.1-2024, 2.9.5.2), where this crate is called.
pub(crate) fn without_cancellation<R>(f: impl FnOnce() -> R) -> R {
    unsafe extern "C" {
        fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
    }
    /// Of glibc's and musl's pthread.h.
    const PTHREAD_CANCEL_DISABLE: c_int = 1;

    struct Before(c_int);

    impl Drop for Before {
        fn drop(&mut self) {
            let mut disabled = 0;
            // SAFETY: the state is one that the call below answered, and the pointer is to a local.
            unsafe { pthread_setcancelstate(self.0, &raw mut disabled) };
        }
    }

    let mut before = Before(0);
    // SAFETY: the state is one of the two, and the pointer is to a local.
    unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before.0) };
    f()
}

/// Runs `f` and sets errno to what it was before, for where the interrupted code may be about to look at it.
///
/// May run in a signal handler, if `f` may.
#[cfg(target_arch = "x86_64")]
pub(crate) fn keeping_errno<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: it has no conditions, and what it answers is the calling thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the pointer is to the calling thread's errno.
    let before = unsafe { *errno };
    let result = f();
    // SAFETY: as above.
    unsafe { *errno = before };
    result
}

/// The calling thread's name, with zeros behind it.
pub(crate) fn thread_name() -> [u8; 16] {
    let mut name = [0; 16];
    // SAFETY: it writes at most 16 bytes (prctl(2), PR_GET_NAME), and the pointer is to so many.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

#[cfg(test)]
mod tests {
    use core::ffi::c_void;

    use super::*;
    use crate::stack_bounds::Stack;

    /// A thread that is cancelled ends where POSIX lets it, and not where it allocates.
    #[test]
    fn a_cancelled_thread_finds_its_stack() {
        extern "C-unwind" fn work(_: *mut c_void) -> *mut c_void {
            // SAFETY: it has no conditions.
            let this = unsafe { libc::pthread_self() };
            // SAFETY: the thread is this one. It has no cancellation point before it ends, but for what is tested.
            unsafe { libc::pthread_cancel(this) };
            let stack = Stack::of_this_thread(picoprof::stack::capture::registers_here().sp);
            ptr::without_provenance_mut(usize::from(stack != Stack::NONE))
        }
        type Start = extern "C-unwind" fn(*mut c_void) -> *mut c_void;
        // SAFETY: the two types differ in whether a thread may be unwound, which libc does and Rust has no say in.
        let start =
            unsafe { mem::transmute::<Start, extern "C" fn(*mut c_void) -> *mut c_void>(work) };
        // A number with glibc, a pointer with musl.
        // SAFETY: all zeros is a value of either.
        let mut thread: libc::pthread_t = unsafe { mem::zeroed() };
        // SAFETY: the pointers are to a local or null, and the function takes any argument.
        let created =
            unsafe { libc::pthread_create(&raw mut thread, ptr::null(), start, ptr::null_mut()) };
        assert_eq!(created, 0);
        let mut value = ptr::null_mut();
        // SAFETY: the thread was created joinable, and is joined once.
        let joined = unsafe { libc::pthread_join(thread, &raw mut value) };
        assert_eq!((joined, value.addr()), (0, 1));
    }
}
