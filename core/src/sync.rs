//! The atomics and cells of this crate: portable-atomic's and core's, or loom's under `--cfg loom`.

#![forbid(unsafe_code)]

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use portable_atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering, fence};

/// Keeps code of one thread in order, for who interrupts it there.
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::compiler_fence;

/// Nothing interrupts a model's threads.
#[cfg(loom)]
pub(crate) const fn compiler_fence(_: Ordering) {}

/// A cell as loom has it.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// Lends a pointer to what is in, which is to be used in `with` alone, and by nobody else then.
    #[inline]
    pub(crate) fn with_mut<R>(&self, with: impl FnOnce(*mut T) -> R) -> R {
        with(self.0.get())
    }
}

/// `[expression; N]` for values that are not `Copy`; loom's atomics have no constant constructor, so there
/// each element is made at run time.
#[cfg(not(loom))]
macro_rules! array_of {
    ($value:expr) => {
        [const { $value }; _]
    };
}
#[cfg(loom)]
macro_rules! array_of {
    ($value:expr) => {
        core::array::from_fn(|_| $value)
    };
}
pub(crate) use array_of;

/// Declares a `const fn` that loom builds run at run time.
#[cfg(not(loom))]
macro_rules! const_fn {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        $(#[$meta])* $vis const fn $($rest)*
    };
}
#[cfg(loom)]
macro_rules! const_fn {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        $(#[$meta])* $vis fn $($rest)*
    };
}
pub(crate) use const_fn;
