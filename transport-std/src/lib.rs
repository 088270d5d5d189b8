//! Go's `/debug/pprof` for Rust programs with an operating system.
//!
//! One line serves it, one line lets it see allocations, one line lets it see threads being created and
//! waiting for each other:
//!
//! ```no_run
//! #[global_allocator]
//! static ALLOCATOR: picoprof_std::Allocator = picoprof_std::Allocator::system();
//! picoprof_std::interpose!();
//!
//! fn main() -> std::io::Result<()> {
//!     let _pprof = picoprof_std::Server::bind(9990)?.spawn()?;
//!     // … the program …
//!     Ok(())
//! }
//! ```
//!
//! Then `go tool pprof http://localhost:9990/debug/pprof/profile` and all that Go developers are used to.
//! Profiles carry their symbols: whoever reads them needs no binary. A release build has lines where
//! its profile says `debug = "line-tables-only"` (or more); without them profiles have functions or addresses.
//!
//! For Linux on x86-64 and AArch64, with glibc or musl.

#![deny(unsafe_code)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("picoprof-std is for 64-bit Linux; picoprof itself, without -std, runs anywhere");

mod allocator;
mod clock;
mod contention;
mod cpu;
mod current;
mod gzip;
mod host;
mod interposed;
mod maps;
mod recording;
mod roles;
mod server;
mod stack;
mod stack_bounds;
mod symbols;
mod sys;
mod tables;
mod threads;
mod tracer;
#[cfg(feature = "tracing")]
mod tracing_layer;
mod unwind;

pub use allocator::Allocator;
pub use contention::{set_block_rate, set_mutex_fraction};
pub use cpu::set_cpu_rate;
pub use current::with_labels;
pub use picoprof::profile::Wait;
pub use picoprof::profile::task::Traced;
/// What a program says of itself in a trace, as Go's `runtime/trace` has it: `trace::task`, `trace::region`, `trace::log`.
#[doc(no_inline)]
pub use picoprof::trace;
pub use recording::FlightRecorder;
pub use roles::add_wait;
pub use server::{Running, Server};
pub use tracer::task;
#[cfg(feature = "tracing")]
pub use tracing_layer::TracingLayer;

/// Sets the mean number of bytes between two sampled allocations: 524,288 at first, as Go's `runtime.MemProfileRate`.
///
/// 1 samples every allocation, 0 none. As in Go it is to be set once and early: all samples are scaled by the rate that
/// holds when a profile is made.
pub fn set_heap_rate(bytes: usize) {
    tables::heap().set_rate(bytes);
}

/// What the macros of this crate expand to; nothing to call directly.
#[doc(hidden)]
pub mod __private {
    pub use crate::interposed::{Start, pthread_create, syscall};
    pub use libc::{pthread_attr_t, pthread_t};
}

/// The README's examples, as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
