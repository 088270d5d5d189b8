//! Execution traces: what comes out is what happened, Go's tools take it, and it is never broken, whatever happens.

#![forbid(unsafe_code)]

mod files;
mod scenes;
mod viewer;
