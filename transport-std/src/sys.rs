//! Two calls of libc that nobody wraps.

#![allow(unsafe_code)]

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
