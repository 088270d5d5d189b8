//! What a request leads to: which status, which profile, from when to when. As Go's `net/http/pprof`.

#![forbid(unsafe_code)]

use core::time::Duration;

use heapless::Vec;

use super::entry::Entry;
use super::index::IndexPage;
use super::job::{CpuSession, Job, Reply};
use super::listing::Listing;
use super::request::{BodyLength, Method, Request, number};
use super::response::{BINARY, HTML, Head, Status, TEXT};
use super::route::{Path, Route};
use super::sending::{Content, Sending};
use super::state::{State, Step};
use super::symbol::{self, SymbolBody};
use super::tracing::{self, Tracing};
use crate::encode::dump::DumpEncoder;
use crate::encode::profile::ProfileEncoder;
use crate::encode::source::{Before, Source, Waits};
use crate::encode::text::TextEncoder;
use crate::encode::trace::{Span, TraceError};
use crate::profile::Kind;
use crate::target::{StartError, Symbols, Target};
use crate::time::Instant;

/// Go's default for `profile`.
const DEFAULT_CPU_SECONDS: u64 = 30;

const NO_MEMORY: &str = "no memory for a difference: ask without seconds\n";

/// A request and its answer.
#[derive(Debug)]
pub(super) struct Exchange<'t, T: Target> {
    pub(super) target: &'t T,
    pub(super) now: Instant,
    pub(super) reply: Reply,
}

impl<'t, T: Target> Exchange<'t, T> {
    /// Begins the answer to `request`, whose head is at the front of `input`.
    #[inline(never)]
    pub(super) fn start(&self, request: &Request<'_>, input: &[u8]) -> Step<'t, T> {
        let is_traced = self.target.trace().is_some();
        let mut clean = Path::new();
        let route = Route::of(request.path, &mut clean, Entry::of(self.target));
        let is_allowed = request
            .host
            .is_none_or(|host| self.target.is_host_allowed(host));
        let mut kept = 0..0;
        let state = match (route, request.method) {
            _ if !is_allowed => {
                #[cfg(feature = "defmt")]
                defmt::warn!("picoprof: refused a request for a foreign host");
                let text = "requests for this Host are not served here: see allow_host\n";
                self.plain_error(Status::FORBIDDEN, text)
            }
            (Route::Entry(Entry::Symbol), Method::Post) => return self.symbol_post(request),
            (Route::Entry(Entry::Symbol), Method::Get | Method::Head) => {
                // The query stays in the input, to be read like a body. An empty one need not lie in there.
                if T::FUNCTION_NAMES && !request.query.is_empty() {
                    let offset = request.query.as_ptr().addr() - input.as_ptr().addr();
                    kept = offset..offset + request.query.len();
                }
                self.symbols(request.query.len() as u64)
            }
            (Route::NotFound, _) => self.plain_error(Status::NOT_FOUND, "404 page not found\n"),
            (route, Method::Post | Method::Other) => self.not_allowed(&route),
            (Route::Index, _) => self.index(),
            (Route::Entry(Entry::CommandLine), _) => self.command_line(),
            (Route::Entry(Entry::Profile(kind)), _) => self.profile(kind, request),
            // Said again, so that a program without traces is without this.
            (Route::Entry(Entry::Trace), _) if is_traced => self.trace(request),
            (Route::Redirect(path), _) => self.redirect(path, request.query),
            (Route::Entry(Entry::Trace) | Route::Unknown, _) => {
                self.error(Status::NOT_FOUND, "Unknown profile\n")
            }
        };
        Step {
            state,
            head: request.len,
            kept,
        }
    }

    /// Ends a profile that took some time.
    #[inline(never)]
    pub(super) fn finish(&self, job: Job<'t, T>) -> State<'t, T> {
        let period = job.session.as_ref().map_or(0, |session| session.period);
        let Some(mut source) = Source::new(self.target, job.kind, period) else {
            return self.error(Status::INTERNAL_SERVER_ERROR, "no such profile any more\n");
        };
        source.duration_nanos = self.now.nanos_since(job.began);
        if job.kind == Kind::Cpu {
            // As Go: a CPU profile has the time it began, a difference the time it ended.
            source.time_nanos = job.began_unix_nanos;
        }
        let mut session = job.session;
        if let Some(before) = job.before {
            if source.subtract(before).is_none() {
                return self.explained(Status::INTERNAL_SERVER_ERROR, NO_MEMORY);
            }
            source.show(job.waits);
            // The difference is a copy, so from here on somebody else may begin, and clear the counters.
            session = None;
        }
        self.binary(source, job.kind != Kind::Cpu, session)
    }

    /// An answer that is not one of the handlers': without their header.
    #[inline(never)]
    pub(super) fn plain_error(&self, status: Status, text: &'static str) -> State<'t, T> {
        let text = if T::TEXTS { text } else { status.text() };
        #[cfg(feature = "defmt")]
        defmt::debug!("picoprof: answered {} {}", status, text);
        self.send(Head::new(status, TEXT), Content::bytes(text.as_bytes()))
    }

    /// An error of the handlers, which `go tool pprof` shows.
    #[inline(never)]
    fn error(&self, status: Status, text: &'static str) -> State<'t, T> {
        self.explained(status, if T::TEXTS { text } else { status.text() })
    }

    /// The same, with its text wherever there are none else: about what is there at other times, or in other ways.
    #[inline(never)]
    fn explained(&self, status: Status, text: &'static str) -> State<'t, T> {
        #[cfg(feature = "defmt")]
        defmt::debug!("picoprof: answered {} {}", status, text);
        let mut head = Head::new(status, TEXT);
        head.is_pprof_error = true;
        self.send(head, Content::bytes(text.as_bytes()))
    }

    #[inline(never)]
    fn not_allowed(&self, route: &Route<'_>) -> State<'t, T> {
        let mut head = Head::new(Status::METHOD_NOT_ALLOWED, TEXT);
        head.allow = Some(match route {
            Route::Entry(Entry::Symbol) => "GET, HEAD, POST",
            _ => "GET, HEAD",
        });
        self.send(head, Content::bytes(b"Method Not Allowed\n"))
    }

    #[inline(never)]
    fn redirect(&self, path: &[u8], query: &[u8]) -> State<'t, T> {
        let mut head = Head::new(Status::TEMPORARY_REDIRECT, HTML);
        let location = head.location.insert(Vec::new());
        let separator = if query.is_empty() { &b""[..] } else { b"?" };
        for part in [path, separator, query] {
            if location.extend_from_slice(part).is_err() {
                return self.plain_error(Status::NOT_FOUND, "404 page not found\n");
            }
        }
        self.send(head, Content::bytes(b"<p>Temporary Redirect</p>\n"))
    }

    #[inline(never)]
    fn index(&self) -> State<'t, T> {
        let page = if T::TEXTS {
            Content::Index(IndexPage::new(self.target))
        } else {
            Content::Listing(Listing::new(self.target))
        };
        self.page(HTML, page)
    }

    #[inline(never)]
    fn command_line(&self) -> State<'t, T> {
        self.page(TEXT, Content::bytes(self.target.command_line()))
    }

    /// The names for addresses in the next `length` bytes of the input.
    #[inline(never)]
    fn symbols(&self, length: u64) -> State<'t, T> {
        let body = if T::FUNCTION_NAMES {
            Content::Symbol(SymbolBody::new(self.target, length))
        } else {
            Content::bytes(symbol::FIRST_LINE.as_bytes())
        };
        self.page(TEXT, body)
    }

    #[inline(never)]
    fn page(&self, content_type: &'static str, content: Content<'t, T>) -> State<'t, T> {
        self.send(Head::new(Status::OK, content_type), content)
    }

    #[inline(never)]
    fn symbol_post(&self, request: &Request<'_>) -> Step<'t, T> {
        let length = match request.body {
            BodyLength::None => Some(0),
            BodyLength::Known(length) => Some(length),
            BodyLength::Unknown => None,
        };
        let state = match length {
            Some(length) => {
                // The whole body is read for the answer, and nothing of it is left to throw away; or there's nothing to look
                // for in it.
                let reply = Reply {
                    discard: if T::FUNCTION_NAMES { 0 } else { length },
                    keep_alive: request.keep_alive,
                    ..self.reply
                };
                Self { reply, ..*self }.symbols(length)
            }
            None => {
                let text = "say how long the body is: Content-Length\n";
                self.plain_error(Status::LENGTH_REQUIRED, text)
            }
        };
        Step {
            state,
            head: request.len,
            kept: 0..0,
        }
    }

    /// A profile, at once or after some time. The order of the checks is Go's.
    #[inline(never)]
    fn profile(&self, kind: Kind, request: &Request<'_>) -> State<'t, T> {
        let mut seconds = Vec::new();
        let seconds = (request.parameter(b"seconds", &mut seconds)).unwrap_or_default();
        if kind == Kind::Cpu {
            return self.start_cpu(positive(seconds).unwrap_or(DEFAULT_CPU_SECONDS), request);
        }
        let debug = integer(request, b"debug").unwrap_or(0);
        let is_set = |name: &[u8]| integer(request, name).is_some_and(|value| value > 0);
        let waits = if !T::Symbols::HAVE_NAMES || is_set(b"all") {
            Waits::All
        } else if is_set(b"idle") {
            Waits::AndIdle
        } else {
            Waits::Synchronization
        };
        if !seconds.is_empty() {
            let Some(seconds) = positive(seconds) else {
                let text = "invalid value for \"seconds\" - must be a positive integer\n";
                return self.error(Status::BAD_REQUEST, text);
            };
            if debug != 0 {
                let text = "seconds and debug params are incompatible\n";
                return self.error(Status::BAD_REQUEST, text);
            }
            return self.wait(kind, seconds, waits, None);
        }
        if debug != 0 && !T::TEXTS {
            let text = "this program has no texts: ask without debug\n";
            return self.explained(Status::NOT_IMPLEMENTED, text);
        }
        if kind == Kind::Heap && is_set(b"gc") {
            self.target.collect();
        }
        if T::TEXTS && matches!(kind, Kind::Goroutine | Kind::GoroutineLeak) && debug >= 2 {
            return self.dump();
        }
        let Some(mut source) = Source::new(self.target, kind, 0) else {
            return self.error(Status::NOT_FOUND, "Unknown profile\n");
        };
        source.show(waits);
        if debug == 0 || !T::TEXTS {
            return self.binary(source, false, None);
        }
        self.text(source)
    }

    #[inline(never)]
    fn dump(&self) -> State<'t, T> {
        self.page(TEXT, Content::Dump(DumpEncoder::new(self.target, self.now)))
    }

    #[inline(never)]
    fn text(&self, source: Source<'t, T>) -> State<'t, T> {
        self.page(TEXT, Content::Text(TextEncoder::new(source)))
    }

    #[inline(never)]
    fn start_cpu(&self, seconds: u64, request: &Request<'_>) -> State<'t, T> {
        let hz = integer(request, b"hz").and_then(|hz| u32::try_from(hz).ok());
        let session = match self.target.start_cpu(hz.unwrap_or(0)) {
            Ok(period) => CpuSession {
                target: self.target,
                period,
            },
            Err(error) => {
                let text = match error {
                    StartError::AlreadyRunning => {
                        "Could not enable CPU profiling: cpu profiling already in use\n"
                    }
                    StartError::Unavailable => {
                        "Could not enable CPU profiling: it is not available here\n"
                    }
                };
                return self.explained(Status::INTERNAL_SERVER_ERROR, text);
            }
        };
        self.wait(Kind::Cpu, seconds, Waits::All, Some(session))
    }

    /// An execution trace, which begins at once.
    #[inline(never)]
    fn trace(&self, request: &Request<'_>) -> State<'t, T> {
        let is_flight = integer(request, b"flight").is_some_and(|value| value > 0);
        let (span, duration) = if is_flight {
            (Span::Flight, Some(Duration::ZERO))
        } else {
            let mut seconds = Vec::new();
            let seconds = request.parameter(b"seconds", &mut seconds);
            (
                Span::FromNow,
                tracing::duration(seconds.unwrap_or_default()),
            )
        };
        let Some(duration) = duration else {
            let text = "invalid value for \"seconds\" - must be at most 86400\n";
            return self.error(Status::BAD_REQUEST, text);
        };
        let trace = match Tracing::begin(self.target, span, self.now, duration) {
            Ok(trace) => trace,
            Err(error) => {
                let text = match error {
                    TraceError::AlreadyEnabled => {
                        "Could not enable tracing: execution tracer already enabled\n"
                    }
                    TraceError::NoMemory => "Could not enable tracing: there is no memory for it\n",
                    TraceError::NotRecording => {
                        let text = "the flight recorder is not on: the program has to begin one, or ask without flight\n";
                        return self.explained(Status::NOT_FOUND, text);
                    }
                    TraceError::Unavailable => {
                        "Could not enable tracing: it is not available here\n"
                    }
                };
                return self.explained(Status::INTERNAL_SERVER_ERROR, text);
            }
        };
        let mut head = Head::new(Status::OK, BINARY);
        head.attachment = Some(("trace", false));
        self.send(head, Content::Trace(trace))
    }

    /// Begins what ends in some seconds: CPU sampling (`session`), or a difference.
    #[inline(never)]
    fn wait(
        &self,
        kind: Kind,
        seconds: u64,
        waits: Waits,
        session: Option<CpuSession<'t, T>>,
    ) -> State<'t, T> {
        let before = Before::now(self.target, kind);
        if before.is_none() {
            if session.is_none() {
                return self.explained(Status::INTERNAL_SERVER_ERROR, NO_MEMORY);
            }
            if let Some(rows) = self.target.profiles().cpu {
                rows.clear();
            }
        }
        State::Waiting {
            until: self.now + Duration::from_secs(seconds),
            job: Job {
                kind,
                waits,
                before,
                began: self.now,
                began_unix_nanos: self.target.unix_nanos(),
                session,
            },
            reply: self.reply,
        }
    }

    #[inline(never)]
    fn binary(
        &self,
        source: Source<'t, T>,
        is_delta: bool,
        session: Option<CpuSession<'t, T>>,
    ) -> State<'t, T> {
        let mut head = Head::new(Status::OK, BINARY);
        head.attachment = Some((source.kind.name(), is_delta));
        let encoded = self.target.encode(encoder(source));
        head.date = self.target.date();
        let content = Content::Profile(encoded);
        State::Sending(Sending::new(head, content, self.reply, session))
    }

    fn send(&self, mut head: Head, content: Content<'t, T>) -> State<'t, T> {
        head.date = self.target.date();
        State::Sending(Sending::new(head, content, self.reply, None))
    }
}

/// Not in who calls it, where it would be made somewhere else first, and copied in two pieces.
#[inline(never)]
fn encoder<'t, T: Target>(source: Source<'t, T>) -> ProfileEncoder<'t, T> {
    ProfileEncoder::new(source)
}

/// An integer above zero.
fn positive(text: &[u8]) -> Option<u64> {
    u64::try_from(parse(text)?).ok().filter(|&value| value > 0)
}

/// A parameter that is an integer; anything else counts as absent.
fn integer(request: &Request<'_>, name: &[u8]) -> Option<i64> {
    parse(request.parameter(name, &mut Vec::new())?)
}

/// As Go's `strconv.ParseInt(text, 10, 64)`.
fn parse(text: &[u8]) -> Option<i64> {
    match text {
        [b'-', digits @ ..] => 0i64.checked_sub_unsigned(number(digits, 10)?),
        [b'+', digits @ ..] | digits => 0i64.checked_add_unsigned(number(digits, 10)?),
    }
}
