//! A value that one may use at a time, and that nobody waits for.

#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

/// See the module.
pub(crate) struct Exclusive<T> {
    is_busy: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is only reached through `try_with`, which lets one in at a time; so it goes from thread to thread,
// which is what Send allows.
unsafe impl<T: Send> Sync for Exclusive<T> {}

impl<T> Exclusive<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            is_busy: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Runs `f` with the value; `None` if somebody uses it already, on this thread or another. If `f` unwinds, nobody
    /// gets it any more.
    ///
    /// May run in a signal handler, if `f` may: an atomic exchange and a store.
    #[inline]
    pub(crate) fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.is_busy.swap(true, Ordering::Acquire) {
            return None;
        }
        // SAFETY: whoever finds `is_busy` false is alone until it is false again, which is after `f`. A handler that
        // interrupts this one on the same thread finds it true. Acquire and release order one's use before the
        // next one's.
        let value = unsafe { &mut *self.value.get() };
        let result = f(value);
        self.is_busy.store(false, Ordering::Release);
        Some(result)
    }
}

impl<T> fmt::Debug for Exclusive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exclusive").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_gets_in_meanwhile() {
        let value = Exclusive::new(5);
        let inner = value.try_with(|_| value.try_with(|_| ()));
        assert_eq!(inner, Some(None));
        assert_eq!(value.try_with(|value| *value), Some(5));
    }
}
