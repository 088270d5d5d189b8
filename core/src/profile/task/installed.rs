//! The program's tracer: a pointer that is set once.

#![allow(unsafe_code)]

use core::ptr;

use portable_atomic::{AtomicPtr, Ordering};

use super::Tracer;

/// The tracer, as its address; loom has none.
static TRACER: AtomicPtr<&'static dyn Tracer> = AtomicPtr::new(ptr::null_mut());

/// Lets `tracer` see the tasks that are made from now on, for the rest of the program's life. The first one stays: a
/// task's slot is one of its pool. Answers whether this was the first.
pub fn set_tracer(tracer: &'static &'static dyn Tracer) -> bool {
    let tracer = ptr::from_ref(tracer).cast_mut();
    let set = TRACER.compare_exchange(
        ptr::null_mut(),
        tracer,
        Ordering::Release,
        Ordering::Relaxed,
    );
    set.is_ok()
}

/// The program's tracer, if it has one.
#[inline]
pub(super) fn tracer() -> Option<&'static dyn Tracer> {
    let tracer = TRACER.load(Ordering::Acquire);
    // SAFETY: it is null, or was made from a reference that is good for ever and only read.
    unsafe { tracer.as_ref() }.copied()
}
