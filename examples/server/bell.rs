//! A mistake, made on purpose so that the profile `goroutineleak` has something to show: a task whose waker is lost.

#![forbid(unsafe_code)]

use core::future::poll_fn;
use core::task::{Poll, Waker};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What tasks wait for.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    waiting: Mutex<Vec<Waker>>,
}

impl Bell {
    /// Is over when the bell rings, which it never does.
    pub(crate) async fn heard(self: Arc<Self>) {
        poll_fn(|context| {
            self.waiting().push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Takes the bell down. The mistake: who waits for it should be woken, to learn that it will not ring.
    pub(crate) fn take_down(&self) {
        self.waiting().clear();
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waker>> {
        // Nothing that runs under the lock leaves it half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
