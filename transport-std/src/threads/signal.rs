//! The signal that asks a thread.

#![allow(unsafe_code)]

use core::ffi::c_int;
use std::{io, process};

/// Linux's `siginfo_t` of a queued signal (signal(7), include/uapi/asm-generic/siginfo.h): 128 bytes.
#[repr(C)]
struct QueueInfo {
    signo: c_int,
    errno: c_int,
    code: c_int,
    padding: c_int,
    process: libc::pid_t,
    user: libc::uid_t,
    value: usize,
    rest: [u64; 12],
}

const _: () = assert!(size_of::<QueueInfo>() == size_of::<libc::siginfo_t>());

/// Sends SIGPROF with a value to a thread of this process. The C library of musl has no function for it.
///
/// # Errors
///
/// `ESRCH` if there is no such thread (any more), others if the kernel won't.
pub(super) fn send(thread: i32, value: usize) -> io::Result<()> {
    // SAFETY: it has no conditions.
    let user = unsafe { libc::getuid() };
    let process = process::id() as libc::pid_t;
    let info = QueueInfo {
        signo: libc::SIGPROF,
        errno: 0,
        code: libc::SI_QUEUE,
        padding: 0,
        process,
        user,
        value,
        rest: [0; 12],
    };
    let number = libc::SYS_rt_tgsigqueueinfo;
    // SAFETY: the pointer is to a whole `siginfo_t`, which the kernel reads. The signal has a handler: `cpu::listen` put it
    // there.
    let result = unsafe { libc::syscall(number, process, thread, libc::SIGPROF, &raw const info) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Keeps it from the calling thread.
#[cfg(test)]
pub(super) fn block() {
    // SAFETY: all zeros is a value of the type.
    let mut signals: libc::sigset_t = unsafe { core::mem::zeroed() };
    // SAFETY: the pointer is to a local.
    unsafe { libc::sigaddset(&raw mut signals, libc::SIGPROF) };
    // SAFETY: the pointer is to a local; the old mask is not asked for.
    let result = unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, core::ptr::null_mut())
    };
    assert_eq!(result, 0);
}
