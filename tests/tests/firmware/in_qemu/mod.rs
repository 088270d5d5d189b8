//! So called that they can be run with more threads than there are processors: they mostly wait.

mod bridge;
mod clients;
mod counts;
mod endpoints;
mod serial;
mod soak;
mod stacks;
mod station;
mod trace;
