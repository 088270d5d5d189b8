//! What a request leaves to do once it is answered for: the answer's terms, and a profile that takes time.

#![forbid(unsafe_code)]

use super::request::{BodyLength, Method, Request};
use crate::encode::source::{Before, Waits};
use crate::profile::Kind;
use crate::target::Target;
use crate::time::Instant;

/// The longest body of a request that is read and thrown away to keep the connection.
const MAX_DISCARDED: u64 = 64 * 1024;

/// What the answer must know of its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    pub(super) is_http_11: bool,
    pub(super) is_head: bool,
    pub(super) keep_alive: bool,
    /// Bytes of the request's body that are to be thrown away.
    pub(super) discard: u64,
}

impl Reply {
    /// To what was no request: the connection ends with it.
    pub(super) const LAST: Self = Self {
        is_http_11: true,
        is_head: false,
        keep_alive: false,
        discard: 0,
    };

    pub(super) fn to(request: &Request<'_>) -> Self {
        let discard = match request.body {
            BodyLength::None => Some(0),
            BodyLength::Known(length) if length <= MAX_DISCARDED => Some(length),
            _ => None,
        };
        Self {
            is_http_11: request.is_http_11,
            is_head: request.method == Method::Head,
            keep_alive: request.keep_alive && discard.is_some(),
            discard: discard.unwrap_or(0),
        }
    }
}

/// A profile over some time.
#[derive(Debug)]
pub(super) struct Job<'t, T: Target> {
    pub(super) kind: Kind,
    pub(super) waits: Waits,
    /// The counters when it began; `None` for a CPU profile where there was no memory for them: the counters then
    /// began at zero.
    pub(super) before: Option<Before<T::Scratch>>,
    pub(super) began: Instant,
    pub(super) began_unix_nanos: u64,
    pub(super) session: Option<CpuSession<'t, T>>,
}

/// CPU sampling, for as long as this lives.
#[derive(Debug)]
pub(super) struct CpuSession<'t, T: Target> {
    pub(super) target: &'t T,
    /// Nanoseconds.
    pub(super) period: u64,
}

impl<T: Target> Drop for CpuSession<'_, T> {
    fn drop(&mut self) {
        self.target.stop_cpu();
    }
}
