//! Tasks in `goroutine`, `goroutineleak`, `block` and `mutex`: on executors and with libraries as they come.

#![forbid(unsafe_code)]

mod embassy;
mod executors;
mod leaks;
mod seen;
mod waits;
