//! Wakers without memory of their own: to wake is to set a bit.

#![allow(unsafe_code)]

use core::task::{RawWaker, RawWakerVTable, Waker};

use portable_atomic::{AtomicU32, Ordering};

/// Who was woken. In the beginning all were.
static WOKEN: AtomicU32 = AtomicU32::new(u32::MAX);

/// The task's number in the place of a pointer: nobody follows it.
static VTABLE: RawWakerVTable = RawWakerVTable::new(raw, wake, wake, |_| {});

/// The waker of the task with this number, below 32.
pub(crate) fn of(number: usize) -> Waker {
    // SAFETY: the functions of the table take any data, may run anywhere, and there's nothing to free.
    unsafe { Waker::from_raw(raw(core::ptr::without_provenance(number))) }
}

/// The bits of the tasks that were woken since the last time.
pub(crate) fn take_woken() -> u32 {
    WOKEN.swap(0, Ordering::Acquire)
}

/// Whether any was.
pub(crate) fn is_any_woken() -> bool {
    WOKEN.load(Ordering::Acquire) != 0
}

fn raw(number: *const ()) -> RawWaker {
    RawWaker::new(number, &VTABLE)
}

fn wake(number: *const ()) {
    WOKEN.fetch_or(1 << number.addr(), Ordering::Release);
}
