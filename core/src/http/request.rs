//! Request heads, and the parameters in their queries.

#![forbid(unsafe_code)]

use heapless::Vec;

/// Header fields that a head may have: more than any client of these endpoints sends.
const MAX_HEADERS: usize = 32;

/// The longest value of a parameter: a number, with zeros before it if need be.
const MAX_VALUE: usize = 32;

/// The head of a request; it borrows from the bytes that it came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'b> {
    pub(super) method: Method,
    /// As it was sent: percent-encoded.
    pub(super) path: &'b str,
    /// As it was sent, without the `?`.
    pub(super) query: &'b str,
    /// HTTP/1.1, not 1.0.
    pub(super) is_http_11: bool,
    pub(super) keep_alive: bool,
    pub(super) host: Option<&'b [u8]>,
    pub(super) body: BodyLength,
    /// Bytes of the head.
    pub(super) len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Other,
}

/// How long a request's body is (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    /// Nothing is said of a body, so there is none.
    None,
    Known(u64),
    /// A transfer coding: there's no need for one here, so none is understood.
    Unknown,
}

/// Why bytes are not the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) enum BadHead {
    Malformed,
    TooManyHeaders,
    Version,
}

impl<'b> Request<'b> {
    /// Parses a head; `None` if its end is not there yet.
    pub(super) fn parse(bytes: &'b [u8]) -> Result<Option<Self>, BadHead> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Request::new(&mut headers);
        let len = match head.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(BadHead::TooManyHeaders),
            Err(httparse::Error::Version) => return Err(BadHead::Version),
            Err(_) => return Err(BadHead::Malformed),
        };
        let is_http_11 = head.version == Some(1);
        let method = match head.method {
            Some("GET") => Method::Get,
            Some("HEAD") => Method::Head,
            Some("POST") => Method::Post,
            _ => Method::Other,
        };
        let (path, query) = split_target(head.path.unwrap_or(""));
        let mut request = Self {
            method,
            path,
            query,
            is_http_11,
            keep_alive: is_http_11,
            host: None,
            body: BodyLength::None,
            len,
        };
        for header in head.headers.iter() {
            request.note_header(header)?;
        }
        // RFC 9112 3.2: a request without Host is no HTTP/1.1 request.
        if is_http_11 && request.host.is_none() {
            return Err(BadHead::Malformed);
        }
        Ok(Some(request))
    }

    fn note_header(&mut self, header: &httparse::Header<'b>) -> Result<(), BadHead> {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("host") {
            if self.host.is_some() {
                return Err(BadHead::Malformed);
            }
            self.host = Some(header.value.trim_ascii());
        } else if is("connection") {
            // RFC 9112 9.3: a server may go on with HTTP/1.0 when asked to; this one doesn't.
            let mut options = header.value.split(|&b| b == b',');
            if options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close")) {
                self.keep_alive = false;
            }
        } else if is("content-length") {
            let length = parse_decimal(header.value).ok_or(BadHead::Malformed)?;
            match self.body {
                BodyLength::None => self.body = BodyLength::Known(length),
                BodyLength::Known(before) if before != length => return Err(BadHead::Malformed),
                BodyLength::Known(_) | BodyLength::Unknown => {}
            }
        } else if is("transfer-encoding") {
            self.body = BodyLength::Unknown;
        }
        Ok(())
    }

    /// The first value of a parameter of the query, decoded; `None` if it's absent, "" if it is not decodable,
    /// and no number if it is longer than any value that means something here.
    pub(super) fn parameter(&self, name: &str) -> Option<heapless::String<MAX_VALUE>> {
        let value = self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode::<MAX_VALUE>(key, true)? == name.as_bytes()).then_some(value)
        })?;
        let decoded = match percent_decode(value, true) {
            Some(decoded) => heapless::String::from_utf8(decoded).ok(),
            None if value.len() > MAX_VALUE => heapless::String::try_from("too long").ok(),
            None => None,
        };
        Some(decoded.unwrap_or_default())
    }
}

/// Decodes `%41`, and in queries `+` for a space; `None` if it's malformed or longer than `N`.
pub(super) fn percent_decode<const N: usize>(text: &str, is_query: bool) -> Option<Vec<u8, N>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            b'+' if is_query => b' ',
            byte => byte,
        };
        decoded.push(byte).ok()?;
    }
    Some(decoded)
}

/// Path and query of a request target, in origin form or in absolute form (RFC 9112 3.2).
fn split_target(target: &str) -> (&str, &str) {
    let after_scheme = target.strip_prefix("http://");
    let origin = match after_scheme {
        Some(rest) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    };
    origin.split_once('?').unwrap_or((origin, ""))
}

/// Digits only, as RFC 9110 8.6 wants them: no sign.
fn parse_decimal(value: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(value.trim_ascii()).ok()?;
    let is_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Request<'_> {
        Request::parse(bytes).unwrap().unwrap()
    }

    #[test]
    fn what_go_tool_pprof_sends() {
        let bytes = b"GET /debug/pprof/heap?seconds=5&gc=1 HTTP/1.1\r\nHost: localhost:9990\r\n\
            User-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\nrest";
        let request = parse(bytes);
        assert_eq!(request.method, Method::Get);
        assert_eq!(request.path, "/debug/pprof/heap");
        assert_eq!(request.parameter("seconds").as_deref(), Some("5"));
        assert_eq!(request.parameter("gc").as_deref(), Some("1"));
        assert_eq!(request.parameter("debug"), None);
        assert_eq!(request.host, Some(&b"localhost:9990"[..]));
        assert!(request.keep_alive);
        assert_eq!(&bytes[request.len..], b"rest");
    }

    #[test]
    fn an_unfinished_head_is_waited_for() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for end in 0..bytes.len() {
            assert!(Request::parse(&bytes[..end]).unwrap().is_none(), "{end}");
        }
    }

    #[test]
    fn framing_that_could_be_read_in_two_ways_is_refused() {
        for bad in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 2\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
            b"\x16\x03\x01\x02\x00",
        ] {
            assert_eq!(
                Request::parse(bad).err(),
                Some(BadHead::Malformed),
                "{bad:?}"
            );
        }
        let both = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n";
        assert_eq!(parse(both).body, BodyLength::Unknown);
    }

    #[test]
    fn targets_in_absolute_form() {
        let request = parse(b"GET http://localhost:1/debug/pprof/?a=b HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!((request.path, request.query), ("/debug/pprof/", "a=b"));
        let request = parse(b"GET http://localhost HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!((request.path, request.query), ("/", ""));
    }

    #[test]
    fn parameters_are_decoded() {
        let request = parse(b"GET /?second%73=%35+&x&debug=1&debug=2 HTTP/1.0\r\n\r\n");
        assert_eq!(request.parameter("seconds").as_deref(), Some("5 "));
        assert_eq!(request.parameter("x").as_deref(), Some(""));
        assert_eq!(request.parameter("debug").as_deref(), Some("1"));
        assert!(!request.keep_alive);
        let request = parse(b"GET /?a=%z&b=111111111111111111111111111111111 HTTP/1.0\r\n\r\n");
        assert_eq!(request.parameter("a").as_deref(), Some(""));
        assert_eq!(request.parameter("b").as_deref(), Some("too long"));
        assert_eq!(percent_decode::<8>("%4", false), None);
        assert_eq!(percent_decode::<8>("%zz", false), None);
        assert_eq!(percent_decode::<2>("abc", false), None);
    }
}
