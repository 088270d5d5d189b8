//! A place for one value, that a task waits for and anybody may put something in, interrupts too.

#![forbid(unsafe_code)]

use core::cell::RefCell;
use core::fmt;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use critical_section::Mutex;

/// Holds up to one value, and the waker of the task that waits for it.
pub struct Mailbox<T> {
    state: Mutex<RefCell<State<T>>>,
}

struct State<T> {
    value: Option<T>,
    reader: Option<Waker>,
}

impl<T> Mailbox<T> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: Mutex::new(RefCell::new(State {
                value: None,
                reader: None,
            })),
        }
    }

    /// Puts a value in, and wakes who waits for one. A value that nobody took yet is replaced, and answered.
    ///
    /// May be called in an interrupt.
    pub fn put(&self, value: T) -> Option<T> {
        let (replaced, reader) =
            self.with(|state| (state.value.replace(value), state.reader.take()));
        // With interrupts on: to wake may take a while.
        if let Some(reader) = reader {
            reader.wake();
        }
        replaced
    }

    /// Takes the value out, if there is one.
    pub fn take(&self) -> Option<T> {
        self.with(|state| state.value.take())
    }

    /// Waits for a value. One task at a time may wait.
    pub async fn receive(&self) -> T {
        poll_fn(|context| {
            if let Some(value) = self.take() {
                return Poll::Ready(value);
            }
            let waker = context.waker().clone();
            let (value, replaced) =
                self.with(|state| (state.value.take(), state.reader.replace(waker)));
            drop(replaced);
            value.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn with<R>(&self, f: impl FnOnce(&mut State<T>) -> R) -> R {
        critical_section::with(|cs| f(&mut self.state.borrow_ref_mut(cs)))
    }
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mailbox")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::future::Future;
    use core::pin::pin;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use core::task::Context;
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_is_woken_once_and_gets_the_value() {
        let mailbox = Mailbox::new();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let mut receive = pin!(mailbox.receive());
        assert!(receive.as_mut().poll(&mut context).is_pending());
        assert!(receive.as_mut().poll(&mut context).is_pending());
        assert_eq!(mailbox.put(1), None);
        assert_eq!(mailbox.put(2), Some(1));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(receive.as_mut().poll(&mut context), Poll::Ready(2));
        assert_eq!(mailbox.take(), None);
    }
}
