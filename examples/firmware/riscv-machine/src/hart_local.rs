//! Values that each hart has for itself.

#![allow(unsafe_code)]

use core::fmt;

use crate::HARTS;
use crate::interrupts::{hart, with_masked};

/// One value for each hart, in a static.
pub struct HartLocal<T>([T; HARTS]);

// SAFETY: a hart reaches its own value only, and `with` masks its interrupts meanwhile: so a value is used by one flow of
// control at a time. Which one that is changes when this is made or dropped, for which `T` must be Send.
unsafe impl<T: Send> Sync for HartLocal<T> {}

impl<T> HartLocal<T> {
    /// With what each begins with.
    pub const fn new(values: [T; HARTS]) -> Self {
        Self(values)
    }

    /// Runs `f` with this hart's value, and interrupts masked.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        with_masked(|| f(&self.0[hart()]))
    }
}

impl<T> fmt::Debug for HartLocal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HartLocal")
    }
}
