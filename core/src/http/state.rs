//! The states of a connection.

#![forbid(unsafe_code)]

use core::ops::Range;

use super::job::{Job, Reply};
use super::sending::Sending;
use crate::target::Target;
use crate::time::Instant;

/// What a connection is doing.
#[allow(
    clippy::large_enum_variant,
    reason = "there is no heap to put the large one in"
)]
#[derive(Debug)]
// A byte says which: one that a 64-bit field has to spare takes more code to look at.
#[repr(u8)]
pub(super) enum State<'t, T: Target> {
    /// Waiting for a request.
    Reading {
        /// Until when, and whether for its first byte; set when the time is known.
        limit: Option<(Instant, bool)>,
    },
    /// Taking a profile.
    Waiting {
        until: Instant,
        job: Job<'t, T>,
        reply: Reply,
    },
    Sending(Sending<'t, T>),
    /// Throwing a request's body away.
    Discarding {
        remaining: u64,
        deadline: Option<Instant>,
        /// Another request may follow.
        keep_alive: bool,
    },
    Closed,
}

/// A request's effect: the new state, and what of the input stays.
pub(super) struct Step<'t, T: Target> {
    pub(super) state: State<'t, T>,
    /// Bytes of the head.
    pub(super) head: usize,
    /// A part of the head that stays in front of what follows it: the query of a GET, where it is to be read like a
    /// body.
    pub(super) kept: Range<usize>,
}
