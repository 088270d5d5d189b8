//! Runs some tasks that never end: a bit for each says whether it was woken.

#![forbid(unsafe_code)]

use core::future::Future;
use core::pin::Pin;
use core::task::Context;

use crate::waker;

/// A task.
pub(crate) type Task<'a> = Pin<&'a mut dyn Future<Output = ()>>;

/// Polls each task once that was woken.
pub(crate) fn run(tasks: &mut [Task<'_>]) {
    let woken = waker::take_woken();
    for (number, task) in tasks.iter_mut().enumerate() {
        if woken & 1 << number != 0 {
            let waker = waker::of(number);
            let _ = task.as_mut().poll(&mut Context::from_waker(&waker));
        }
    }
}
