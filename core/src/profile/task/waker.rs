//! A task's own waker, which stands before the executor's: its data is the task's slot, which is there for ever.
//!
//! Each function has a frame of its own, as its caller is the one whose stack counts.

#![allow(unsafe_code)]

use core::mem::ManuallyDrop;
use core::task::{RawWaker, RawWakerVTable, Waker};

use super::pool::Slot;
use crate::stack::capture::registers_here;

/// One for all, so that `will_wake` holds between any two wakers of a task.
static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_clone);

/// The waker that a poll lends to the child: not a clone, and not counted.
#[inline]
pub(super) fn lent(slot: &'static Slot) -> ManuallyDrop<Waker> {
    let waker = RawWaker::new(core::ptr::from_ref(slot).cast(), &VTABLE);
    // SAFETY: the data of this table's functions is a slot's address, as here. They may be called on any thread, in any
    // number: all that they touch is atomic, or guarded by it.
    ManuallyDrop::new(unsafe { Waker::from_raw(waker) })
}

/// The slot whose waker this is, if it is a task's of ours.
pub(super) fn slot_of(waker: &Waker) -> Option<&'static Slot> {
    if !core::ptr::eq(waker.vtable(), &raw const VTABLE) {
        return None;
    }
    // SAFETY: the table is private, and goes with data from `lent` or `clone` alone.
    Some(unsafe { slot(waker.data()) })
}

/// # Safety
///
/// The data is that of a waker with our table.
#[inline]
unsafe fn slot(data: *const ()) -> &'static Slot {
    // SAFETY: `lent` made the pointer from such a reference, and `clone` copied it.
    unsafe { &*data.cast::<Slot>() }
}

/// # Safety
///
/// As for [`slot`].
#[inline(never)]
unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: as the caller says.
    let slot = unsafe { slot(data) };
    slot.waker_cloned(registers_here());
    RawWaker::new(data, &VTABLE)
}

/// # Safety
///
/// As for [`slot`].
#[inline(never)]
unsafe fn wake(data: *const ()) {
    // SAFETY: as the caller says.
    let slot = unsafe { slot(data) };
    slot.wake(registers_here(), true);
}

/// # Safety
///
/// As for [`slot`].
#[inline(never)]
unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: as the caller says.
    let slot = unsafe { slot(data) };
    slot.wake(registers_here(), false);
}

/// # Safety
///
/// As for [`slot`].
unsafe fn drop_clone(data: *const ()) {
    // SAFETY: as the caller says.
    let slot = unsafe { slot(data) };
    slot.waker_dropped();
}
