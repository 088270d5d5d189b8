//! CPU profiles: a timer for each thread, on the CPU time of that thread.
//!
//! Each expiry is a SIGPROF to the thread itself, which records its stack (`handler`). The kernel checks such timers at
//! its tick, often 4 ms, so at high rates one signal stands for several expiries: it says for how many, and the sample
//! weighs so much. The sum is the CPU time that passed, at any rate.
//!
//! Threads are found when sampling starts; later ones at their creation where [`interpose!`](crate::interpose) is
//! used, and else by looking for them every 100 ms.
//!
//! The handler also answers for `threads`, whose signals are SIGPROF too: a program gives up one signal, not two.

#![deny(unsafe_code)]

mod handler;
mod session;
mod slots;
mod timer;

pub use session::set_cpu_rate;
pub(crate) use session::{listen, lost, stacks_unknown, start, stop, thread_began, thread_ends};
pub(crate) use timer::{is_alive, this_thread};
