//! Response heads, with the fields and in the order that Go sends them.

#![forbid(unsafe_code)]

use heapless::Vec;

use crate::encode::wire::Window;

/// The head of a response. What it renders never changes.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) status: Status,
    pub(super) content_type: &'static str,
    /// The kind's name and whether it is a difference, for the name of the file to save it in.
    pub(super) attachment: Option<(&'static str, bool)>,
    pub(super) allow: Option<&'static str>,
    /// Path and query.
    pub(super) location: Option<Vec<u8, 160>>,
    /// An error of the handlers themselves: tells `go tool pprof` to show the text.
    pub(super) is_pprof_error: bool,
    pub(super) date: Option<[u8; 29]>,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There's no body, and nothing is said of it: HEAD.
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// A status code with its phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Status(&'static str);

impl Status {
    /// The code and its phrase.
    pub(super) const fn text(self) -> &'static str {
        self.0
    }

    pub(super) const OK: Self = Self("200 OK");
    pub(super) const TEMPORARY_REDIRECT: Self = Self("307 Temporary Redirect");
    pub(super) const BAD_REQUEST: Self = Self("400 Bad Request");
    pub(super) const FORBIDDEN: Self = Self("403 Forbidden");
    pub(super) const NOT_FOUND: Self = Self("404 Not Found");
    pub(super) const METHOD_NOT_ALLOWED: Self = Self("405 Method Not Allowed");
    pub(super) const REQUEST_TIMEOUT: Self = Self("408 Request Timeout");
    pub(super) const LENGTH_REQUIRED: Self = Self("411 Length Required");
    pub(super) const HEADER_FIELDS_TOO_LARGE: Self = Self("431 Request Header Fields Too Large");
    pub(super) const INTERNAL_SERVER_ERROR: Self = Self("500 Internal Server Error");
    pub(super) const NOT_IMPLEMENTED: Self = Self("501 Not Implemented");
    pub(super) const VERSION_NOT_SUPPORTED: Self = Self("505 HTTP Version Not Supported");
}

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const BINARY: &str = "application/octet-stream";

impl Head {
    pub(super) const fn new(status: Status, content_type: &'static str) -> Self {
        Self {
            status,
            content_type,
            attachment: None,
            allow: None,
            location: None,
            is_pprof_error: false,
            date: None,
            framing: Framing::None,
            keep_alive: false,
        }
    }

    pub(super) fn render(&self, out: &mut Window<'_>) {
        let field = |out: &mut Window<'_>, name: &str, value: &[u8]| {
            out.text(name);
            out.bytes(value);
            out.text("\r\n");
        };
        field(out, "HTTP/1.1 ", self.status.0.as_bytes());
        if let Some(allow) = self.allow {
            field(out, "Allow: ", allow.as_bytes());
        }
        if let Some((name, is_delta)) = self.attachment {
            out.text("Content-Disposition: attachment; filename=\"");
            out.text(name);
            field(out, if is_delta { "-delta" } else { "" }, b"\"");
        }
        field(out, "Content-Type: ", self.content_type.as_bytes());
        if let Some(location) = &self.location {
            field(out, "Location: ", location);
        }
        out.text("X-Content-Type-Options: nosniff\r\n");
        if self.is_pprof_error {
            out.text("X-Go-Pprof: 1\r\n");
        }
        if let Some(date) = &self.date {
            field(out, "Date: ", date);
        }
        match self.framing {
            Framing::Length(length) => {
                out.text("Content-Length: ");
                out.decimal(length);
                out.text("\r\n");
            }
            Framing::Chunked => out.text("Transfer-Encoding: chunked\r\n"),
            Framing::None | Framing::UntilClose => {}
        }
        if !self.keep_alive {
            out.text("Connection: close\r\n");
        }
        out.text("\r\n");
    }
}
