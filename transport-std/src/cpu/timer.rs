//! POSIX timers on the CPU time of a thread of this process.

#![allow(unsafe_code)]

use core::mem;
use core::ptr;
use std::io;

use picoprof::profile::labels::LabelSetId;
use picoprof::stack::StackId;

use super::slots::{self, Slot, Taken};
use crate::stack_bounds::Stack;

/// Sends SIGPROF to a thread whenever it has used so much CPU time more, until it is dropped.
#[derive(Debug)]
pub(super) struct Timer {
    kernel: KernelTimer,
    /// What the handler works with; given back after the timer is gone.
    slot: Taken,
}

/// CPU time that a thread had used and no sample stood for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// Samples.
    pub(super) weight: u64,
    /// Where the thread was last seen, and its labels, if it was.
    pub(super) last: Option<(StackId, LabelSetId)>,
}

#[derive(Debug)]
struct KernelTimer {
    id: libc::timer_t,
    thread: i32,
    /// The thread's CPU time at the first expiry, and between two; nanoseconds.
    first: u64,
    period: u64,
}

// SAFETY: a timer belongs to the process; any thread may set or delete it.
unsafe impl Send for KernelTimer {}

/// The kernel's id of the calling thread.
pub(crate) fn this_thread() -> i32 {
    // SAFETY: it has no conditions.
    unsafe { libc::gettid() }
}

impl Timer {
    /// Starts a timer for a thread of this process that expires every `period` nanoseconds; `stack` is the thread's, or
    /// none if that's not known.
    ///
    /// # Errors
    ///
    /// `NotFound` if there's no such thread (any more), others if the kernel or this crate has no room for it.
    pub(super) fn start(thread: i32, period: u64, stack: Stack) -> io::Result<Self> {
        let slot = slots::take(thread, stack).ok_or(io::ErrorKind::OutOfMemory)?;
        let kernel = KernelTimer::start(thread, period, &slot)?;
        Ok(Self { kernel, slot })
    }
}

impl Timer {
    /// Stops the timer of the calling thread, and answers what it did not get to tell.
    ///
    /// The kernel looks for expired timers at its tick, so what a thread used since the last one would be missing:
    /// two milliseconds on average, which is most of a thread that lives for three.
    pub(super) fn end(self) -> Rest {
        let Self { kernel, slot } = self;
        let (thread, first, period) = (kernel.thread, kernel.first, kernel.period);
        // Its last signal comes now or never.
        drop(kernel);
        let due = cpu_time_of(thread)
            .and_then(|now| now.checked_sub(first))
            .map_or(0, |after| 1 + after / period);
        let seen = slot.with_work(|work| (work.counted, work.last));
        let (counted, last) = seen.unwrap_or((due, None));
        Rest {
            weight: due.saturating_sub(counted),
            last,
        }
    }
}

impl Drop for KernelTimer {
    fn drop(&mut self) {
        // SAFETY: the timer was created by `start` and is deleted once, here.
        unsafe { libc::timer_delete(self.id) };
        // A signal that is still on its way finds the slot free, or another thread's; the handler bears both.
    }
}

impl KernelTimer {
    fn start(thread: i32, period: u64, slot: &Slot) -> io::Result<Self> {
        // SAFETY: all zeros is a value of the type.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGPROF;
        event.sigev_notify_thread_id = thread;
        event.sigev_value.sival_ptr = ptr::from_ref(slot).cast_mut().cast();
        let mut id = ptr::null_mut();
        // SAFETY: both pointers are to locals of the right types.
        if unsafe { libc::timer_create(cpu_clock_of(thread), &raw mut event, &raw mut id) } != 0 {
            let error = io::Error::last_os_error();
            // EINVAL says that the clock's thread is not there.
            return Err(match error.raw_os_error() {
                Some(libc::EINVAL | libc::ESRCH) => io::ErrorKind::NotFound.into(),
                _ => error,
            });
        }
        // The first expiry comes at a random time of the period, so that threads which use less than a period are
        // seen in proportion.
        let first = slot.random() % period + 1;
        let timer = Self {
            id,
            thread,
            first: cpu_time_of(thread)
                .unwrap_or(u64::MAX)
                .saturating_add(first),
            period,
        };
        let times = libc::itimerspec {
            it_interval: timespec(period),
            it_value: timespec(first),
        };
        // SAFETY: the timer was just created; the old value is not asked for.
        if unsafe { libc::timer_settime(id, 0, &raw const times, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(timer)
    }
}

/// The clock of a thread's CPU time: `MAKE_THREAD_CPUCLOCK(thread, CPUCLOCK_SCHED)` of Linux's
/// include/linux/posix-timers.h, part of the ABI as the result of `pthread_getcpuclockid`.
const fn cpu_clock_of(thread: i32) -> libc::clockid_t {
    const CPUCLOCK_PERTHREAD: i32 = 4;
    const CPUCLOCK_SCHED: i32 = 2;
    (!thread) << 3 | CPUCLOCK_PERTHREAD | CPUCLOCK_SCHED
}

/// Whether there is a thread with this id in this process.
pub(crate) fn is_alive(thread: i32) -> bool {
    cpu_time_of(thread).is_some()
}

/// A thread's CPU time in nanoseconds; `None` if it's gone.
fn cpu_time_of(thread: i32) -> Option<u64> {
    let mut time = timespec(0);
    // SAFETY: the pointer is to a local.
    let result = unsafe { libc::clock_gettime(cpu_clock_of(thread), &raw mut time) };
    (result == 0).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

const fn timespec(nanos: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: (nanos / 1_000_000_000) as _,
        tv_nsec: (nanos % 1_000_000_000) as _,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_the_one_of_pthread_getcpuclockid() {
        let mut clock = 0;
        // SAFETY: it has no conditions.
        let thread = unsafe { libc::pthread_self() };
        // SAFETY: the thread is this one, and the pointer is to a local.
        let result = unsafe { libc::pthread_getcpuclockid(thread, &raw mut clock) };
        assert_eq!(result, 0);
        assert_eq!(cpu_clock_of(this_thread()), clock);
    }

    #[test]
    fn a_thread_that_is_not_there_is_told_from_a_lack_of_room() {
        // The highest that Linux gives out is 2^22 - 1 (PID_MAX_LIMIT).
        const NO_THREAD: i32 = 1 << 22;
        let error = Timer::start(NO_THREAD, 1_000_000, Stack::NONE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
