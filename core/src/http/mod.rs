//! The endpoints as a sans-io state machine: HTTP/1.1 (RFC 9110, RFC 9112) as far as Go's
//! `net/http/pprof` shows it.

#![forbid(unsafe_code)]

mod connection;
mod entry;
mod exchange;
mod index;
mod job;
mod listing;
mod request;
mod response;
mod route;
mod sending;
mod state;
mod symbol;
mod tracing;

pub use connection::{Connection, Transmit};
