//! What the calling thread is at: its labels.

#![forbid(unsafe_code)]

use core::cell::Cell;

use picoprof::profile::labels::LabelSetId;

thread_local! {
    /// Constant at first and without a destructor, so that an access is an instruction or two and works at any time of
    /// a thread's life.
    static LABELS: Cell<LabelSetId> = const { Cell::new(LabelSetId::EMPTY) };
}

/// The labels of what the calling thread does.
#[inline]
pub(crate) fn labels() -> LabelSetId {
    LABELS.get()
}

/// Sets them; answers those before.
#[inline]
pub(crate) fn swap_labels(labels: LabelSetId) -> LabelSetId {
    LABELS.replace(labels)
}
