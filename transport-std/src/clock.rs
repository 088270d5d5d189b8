//! The time that this crate goes by.

#![allow(unsafe_code)]

use picoprof::Instant;

/// The monotonic clock's time: of tasks, waits and connections alike.
///
/// May run in a signal handler: no system call where the kernel offers its clock in user space.
#[inline]
pub(crate) fn now() -> Instant {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a local. POSIX.1-2016 lists it as async-signal-safe.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Instant::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}
