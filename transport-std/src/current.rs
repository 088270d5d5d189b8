//! What the calling thread is at: the task that it polls, and its labels.

#![forbid(unsafe_code)]

use core::cell::Cell;

use picoprof::profile::labels::LabelSetId;
use picoprof::profile::task::Context;

thread_local! {
    /// Constant at first and without a destructor, so that an access is an instruction or two and works at any time of
    /// a thread's life.
    static CURRENT: Cell<Context> = const { Cell::new(Context::EMPTY) };
}

/// The labels of what the calling thread does.
///
/// May run in a signal handler.
#[inline]
pub(crate) fn labels() -> LabelSetId {
    CURRENT.get().labels()
}

/// Sets them; answers those before.
#[inline]
pub(crate) fn swap_labels(labels: LabelSetId) -> LabelSetId {
    let before = CURRENT.get();
    CURRENT.set(before.with_labels(labels));
    before.labels()
}

/// The task that the calling thread polls, and its labels.
#[inline]
pub(crate) fn context() -> Context {
    CURRENT.get()
}

/// Sets them; answers those before.
#[inline]
pub(crate) fn swap_context(context: Context) -> Context {
    CURRENT.replace(context)
}
