//! A response on its way out: its head, and its body in one of HTTP/1.1's framings (RFC 9112 6).

#![forbid(unsafe_code)]

use core::fmt;
use core::time::Duration;

use heapless::Vec;

use super::index::IndexPage;
use super::job::{CpuSession, Reply};
use super::listing::Listing;
use super::response::{Framing, Head};
use super::symbol::SymbolBody;
use super::tracing::Tracing;
use crate::encode::Body;
use crate::encode::dump::DumpEncoder;
use crate::encode::profile::ProfileEncoder;
use crate::encode::text::TextEncoder;
use crate::encode::wire::Window;
use crate::target::Target;
use crate::time::Instant;

/// Bytes that a chunk needs besides its data, in a buffer that it's written to directly: four digits and two
/// line ends.
const CHUNK_FRAME: usize = 8;
/// The shortest buffer that a chunk is written to directly.
const MIN_DIRECT: usize = 64;
/// The most data in such a chunk: what four digits can say.
const MAX_CHUNK: usize = 0xffff;
/// Data in the chunks that are made for shorter buffers.
const SMALL_CHUNK: usize = 16;

/// A response on its way out.
#[derive(Debug)]
pub(super) struct Sending<'t, T: Target> {
    head: Head,
    /// How much of the head is out; `None` when all of it is.
    head_sent: Option<usize>,
    content: Content<'t, T>,
    reply: Reply,
    /// The body's end is out, or in `chunk`.
    is_complete: bool,
    /// A chunk that was made for a buffer too short for it, and how much of it is out.
    chunk: Vec<u8, { SMALL_CHUNK + CHUNK_FRAME }>,
    chunk_sent: usize,
    deadline: Option<Instant>,
    /// Held while the profile is read from counters that a new session would clear.
    _session: Option<CpuSession<'t, T>>,
}

/// What a body is made of.
#[allow(
    clippy::large_enum_variant,
    reason = "there is no heap to put the large one in"
)]
// As of a connection's state, a byte says which.
#[repr(u8)]
pub(super) enum Content<'t, T: Target> {
    Bytes { bytes: &'t [u8], sent: usize },
    Index(IndexPage<'t, T>),
    Listing(Listing<'t, T>),
    Profile(T::Encoded<ProfileEncoder<'t, T>>),
    Text(TextEncoder<'t, T>),
    Dump(DumpEncoder<'t, T>),
    Symbol(SymbolBody<'t, T>),
    Trace(Tracing<'t, T>),
}

/// What came of filling a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// So many bytes.
    Wrote(usize),
    /// None, before more of the request's body is fed.
    WantsInput,
    /// None, before this time.
    WaitUntil(Instant),
    /// None: all is out.
    Done,
}

impl<'t, T: Target> Sending<'t, T> {
    pub(super) fn new(
        mut head: Head,
        content: Content<'t, T>,
        mut reply: Reply,
        session: Option<CpuSession<'t, T>>,
    ) -> Self {
        head.framing = match &content {
            Content::Bytes { bytes, .. } => Framing::Length(bytes.len() as u64),
            _ if reply.is_head => Framing::None,
            _ if reply.is_http_11 => Framing::Chunked,
            _ => Framing::UntilClose,
        };
        reply.keep_alive &= head.framing != Framing::UntilClose;
        head.keep_alive = reply.keep_alive;
        Self {
            head,
            head_sent: Some(0),
            content,
            reply,
            is_complete: reply.is_head,
            chunk: Vec::new(),
            chunk_sent: 0,
            deadline: None,
            _session: session,
        }
    }

    pub(super) const fn reply(&self) -> Reply {
        self.reply
    }

    /// Takes of the request's body what the content can use now; answers how many bytes.
    pub(super) fn feed(&mut self, input: &[u8]) -> usize {
        let taken = match &mut self.content {
            _ if !T::FUNCTION_NAMES => 0,
            Content::Symbol(body) if self.reply.is_head => body.skip(input),
            Content::Symbol(body) => body.feed(input),
            _ => 0,
        };
        if taken > 0 {
            self.deadline = None;
        }
        taken
    }

    /// Until when the request's body may go on; `None` if that time has come.
    pub(super) fn wait_for_input(&mut self, now: Instant, timeout: Duration) -> Option<Instant> {
        let deadline = *self.deadline.get_or_insert(now + timeout);
        (now < deadline).then_some(deadline)
    }

    /// Whether it shows what happens meanwhile: that ends if the client goes.
    pub(super) fn is_recording(&self) -> bool {
        matches!(&self.content, Content::Trace(trace) if trace.is_recording())
    }

    /// Writes the next bytes to the front of `out`.
    pub(super) fn fill(&mut self, now: Instant, out: &mut [u8]) -> Fill {
        if let Some(end) = self.withholds_until(now) {
            return Fill::WaitUntil(end);
        }
        let head = self.fill_head(out);
        let rest = out.get_mut(head..).unwrap_or_default();
        let body = if self.head_sent.is_none() && !rest.is_empty() {
            self.fill_body(now, rest)
        } else {
            0
        };
        match head + body {
            0 if self.wants_input() => Fill::WantsInput,
            0 => self.pause().map_or(Fill::Done, Fill::WaitUntil),
            n => Fill::Wrote(n),
        }
    }

    /// Until when nothing is said: as in Go, HEAD takes as long as GET does.
    fn withholds_until(&self, now: Instant) -> Option<Instant> {
        match &self.content {
            Content::Trace(trace) if self.reply.is_head => trace.ends_at(now),
            _ => None,
        }
    }

    fn wants_input(&self) -> bool {
        T::FUNCTION_NAMES && matches!(&self.content, Content::Symbol(body) if body.wants_input())
    }

    /// Until when there's nothing to be sent of a body that is not at its end.
    fn pause(&self) -> Option<Instant> {
        match &self.content {
            Content::Trace(trace) if !self.is_complete => trace.waits_until(),
            _ => None,
        }
    }

    fn fill_head(&mut self, out: &mut [u8]) -> usize {
        let Some(sent) = self.head_sent else {
            return 0;
        };
        let mut window = Window::new(out);
        self.head_sent = window.record(sent, |window| self.head.render(window));
        window.filled()
    }

    fn fill_body(&mut self, now: Instant, out: &mut [u8]) -> usize {
        if self.reply.is_head {
            return 0;
        }
        if self.head.framing == Framing::Chunked {
            return self.fill_chunked(now, out);
        }
        self.content.fill(now, out)
    }

    fn fill_chunked(&mut self, now: Instant, out: &mut [u8]) -> usize {
        if self.chunk_sent == self.chunk.len() && !self.is_complete {
            if out.len() >= MIN_DIRECT {
                return self.fill_chunk(now, out);
            }
            let mut chunk = [0; SMALL_CHUNK + CHUNK_FRAME];
            let n = self.fill_chunk(now, &mut chunk);
            self.chunk_sent = 0;
            self.chunk.clear();
            // It's as long as the array at the most.
            let _ = self
                .chunk
                .extend_from_slice(chunk.get(..n).unwrap_or_default());
        }
        let rest = self.chunk.get(self.chunk_sent..).unwrap_or_default();
        let n = copy(rest, out);
        self.chunk_sent += n;
        n
    }

    /// A whole chunk, or the last one; nothing if there are no data yet.
    fn fill_chunk(&mut self, now: Instant, out: &mut [u8]) -> usize {
        let room = (out.len() - CHUNK_FRAME).min(MAX_CHUNK);
        let data = out.get_mut(6..6 + room).unwrap_or_default();
        let n = self.content.fill(now, data);
        if n == 0 {
            if self.wants_input() || self.pause().is_some() {
                return 0;
            }
            self.is_complete = true;
            return copy(b"0\r\n\r\n", out);
        }
        let mut frame = Window::new(out);
        frame.hex_digits(n, 4);
        frame.text("\r\n");
        copy(b"\r\n", out.get_mut(6 + n..).unwrap_or_default());
        n + CHUNK_FRAME
    }
}

impl<'t, T: Target> Content<'t, T> {
    pub(super) const fn bytes(bytes: &'t [u8]) -> Self {
        Self::Bytes { bytes, sent: 0 }
    }
}

impl<T: Target> Content<'_, T> {
    fn fill(&mut self, now: Instant, out: &mut [u8]) -> usize {
        match self {
            Self::Bytes { bytes, sent } => {
                let n = copy(bytes.get(*sent..).unwrap_or_default(), out);
                *sent += n;
                n
            }
            Self::Profile(profile) => profile.fill(out),
            Self::Symbol(body) if T::FUNCTION_NAMES => body.fill(out),
            Self::Trace(trace) => trace.fill(now, out),
            Self::Listing(page) if !T::TEXTS => page.fill(out),
            Self::Index(page) if T::TEXTS => page.fill(out),
            Self::Text(text) if T::TEXTS => text.fill(out),
            Self::Dump(dump) if T::TEXTS => dump.fill(out),
            // A target has no others: the conditions are there so that a program is without what fills them.
            Self::Symbol(_) | Self::Listing(_) | Self::Index(_) | Self::Text(_) | Self::Dump(_) => {
                0
            }
        }
    }
}

impl<T: Target> fmt::Debug for Content<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes { .. } => "Bytes",
            Self::Index(_) => "Index",
            Self::Listing(_) => "Listing",
            Self::Profile(_) => "Profile",
            Self::Text(_) => "Text",
            Self::Dump(_) => "Dump",
            Self::Symbol(_) => "Symbol",
            Self::Trace(_) => "Trace",
        })
    }
}

/// Copies what fits; answers how many bytes.
fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let n = from.len().min(to.len());
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
    n
}
