//! The program's tracer: a pointer that is set once.

#![allow(unsafe_code)]

use core::ptr;
// To load it takes no section on any machine, as it does with portable-atomic's where there's no compare-and-swap.
use core::sync::atomic::AtomicPtr;

use portable_atomic::{AtomicBool, Ordering};

use super::Tracer;

/// The tracer, as its address; loom has none.
static TRACER: AtomicPtr<&'static dyn Tracer> = AtomicPtr::new(ptr::null_mut());
/// Whether there's one, or is about to be.
static IS_SET: AtomicBool = AtomicBool::new(false);

/// Lets `tracer` see the tasks that are made from now on, for the rest of the program's life. The first one stays: a
/// task's slot is one of its pool. Answers whether this was the first.
pub fn set_tracer(tracer: &'static &'static dyn Tracer) -> bool {
    let is_first = !IS_SET.swap(true, Ordering::Relaxed);
    if is_first {
        TRACER.store(ptr::from_ref(tracer).cast_mut(), Ordering::Release);
    }
    is_first
}

/// The program's tracer, if it has one.
#[inline]
pub(crate) fn tracer() -> Option<&'static dyn Tracer> {
    let tracer = TRACER.load(Ordering::Acquire);
    // SAFETY: it is null, or was made from a reference that is good for ever and only read.
    unsafe { tracer.as_ref() }.copied()
}
