//! Locks that say who is kept waiting, and by whom: for programs whose waits no operating system sees.
//!
//! * `CriticalSection` (feature `critical-section`) is an implementation of `critical_section` around another. It puts into
//!   `mutex` who kept interrupts masked for long: the worst interrupt latency, by name.
//! * `RawMutex` (feature `lock_api`) is a lock around another. It puts waits into `block`, and whose unlock ended them
//!   into `mutex`.
//!
//! Both count by the program's [tracer](crate::set_tracer); without one they are what they are around.

#![deny(unsafe_code)]

#[cfg(feature = "critical-section")]
mod hold;
#[cfg(feature = "critical-section")]
mod masked;
#[cfg(all(feature = "lock_api", not(loom)))]
mod raw_mutex;
#[cfg(feature = "lock_api")]
mod waiters;

#[cfg(feature = "critical-section")]
pub use masked::{CriticalSection, set_masked_threshold};
#[cfg(all(feature = "lock_api", not(loom)))]
pub use raw_mutex::RawMutex;
