//! The unmodified `go tool pprof` on the example server under load: every endpoint, every parameter, every kind of report.
//!
//! Machines that run this are slow and shared: what is asserted are shares and names, never rates.

#![forbid(unsafe_code)]

mod builds;
mod commands;
mod endpoints;
mod mappings;
mod reports;
mod server;
mod symbol;
mod tasks;
mod trace;
