//! A value that one may use at a time, and that nobody waits for.

#![allow(unsafe_code)]

use core::fmt;

use crate::sync::{AtomicU8, Ordering, UnsafeCell, const_fn};

const FREE: u8 = 0;
const BUSY: u8 = 1;

/// A value in a static that one may use at a time, and that nobody waits for: the state of a sampler, a driver.
///
/// ```
/// use picoprof::Exclusive;
///
/// static LINES: Exclusive<u32> = Exclusive::new(0);
///
/// assert_eq!(LINES.try_with(|lines| { *lines += 1; *lines }), Some(1));
/// ```
pub struct Exclusive<T> {
    state: AtomicU8,
    value: UnsafeCell<T>,
}

// SAFETY: the value is only reached through `try_with`, which lets one in at a time; so it goes from thread to thread,
// which is what Send allows.
unsafe impl<T: Send> Sync for Exclusive<T> {}

impl<T> Exclusive<T> {
    const_fn! {
        /// Nobody uses it yet.
        pub fn new(value: T) -> Self {
            Self {
                state: AtomicU8::new(FREE),
                value: UnsafeCell::new(value),
            }
        }
    }

    /// Runs `f` with the value; `None` if somebody uses it already, on this core or another. If `f` unwinds, nobody
    /// gets it any more.
    ///
    /// May run in a signal handler or an interrupt, if `f` may: a compare-and-swap and a store.
    #[inline]
    pub fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let entered =
            (self.state).compare_exchange(FREE, BUSY, Ordering::Acquire, Ordering::Relaxed);
        entered.ok()?;
        let result = self.value.with_mut(|value| {
            // SAFETY: whoever finds it free is alone until it is free again, which is after `f`. A handler that
            // interrupts this one on the same core finds it busy. Acquire and release order one's use before the
            // next one's.
            let value = unsafe { &mut *value };
            f(value)
        });
        self.state.store(FREE, Ordering::Release);
        Some(result)
    }
}

impl<T> fmt::Debug for Exclusive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exclusive").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
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

#[cfg(all(test, loom))]
mod loom_models {
    extern crate std;

    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn loom_one_at_a_time_and_each_sees_the_last() {
        loom::model(|| {
            let value = Arc::new(Exclusive::new(0));
            let other = thread::spawn({
                let value = value.clone();
                move || value.try_with(|value| *value += 1).is_some()
            });
            let ours = value.try_with(|value| *value += 1).is_some();
            let theirs = other.join().unwrap();
            assert!(ours || theirs);
            let sum = i32::from(ours) + i32::from(theirs);
            assert_eq!(value.try_with(|value| *value), Some(sum));
        });
    }
}
