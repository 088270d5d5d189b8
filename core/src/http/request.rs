//! Request heads, and the parameters in their queries.

#![forbid(unsafe_code)]

use core::mem::MaybeUninit;

use heapless::{Vec, VecView};

/// Header fields that a head may have: more than any client of these endpoints sends.
const MAX_HEADERS: usize = 32;

/// The longest value of a parameter: a number, with zeros before it if need be.
const MAX_VALUE: usize = 32;

/// Room for one.
pub(super) type Value = Vec<u8, MAX_VALUE>;

/// The head of a request; it borrows from the bytes that it came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'b> {
    pub(super) method: Method,
    /// As it was sent: percent-encoded.
    pub(super) path: &'b [u8],
    /// As it was sent, without the `?`.
    pub(super) query: &'b [u8],
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
        // Not made of empty ones, which would lie in flash memory to be copied.
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut head = httparse::Request::new(&mut []);
        let len = match head.parse_with_uninit_headers(bytes, &mut headers) {
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
        let (path, query) = split_target(head.path.unwrap_or_default().as_bytes());
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
            request.note_header(header.name.as_bytes(), header.value.trim_ascii())?;
        }
        // RFC 9112 3.2: a request without Host is no HTTP/1.1 request.
        if is_http_11 && request.host.is_none() {
            return Err(BadHead::Malformed);
        }
        Ok(Some(request))
    }

    fn note_header(&mut self, name: &[u8], value: &'b [u8]) -> Result<(), BadHead> {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        if is(b"host") {
            if self.host.is_some() {
                return Err(BadHead::Malformed);
            }
            self.host = Some(value);
        } else if is(b"connection") {
            // RFC 9112 9.3: a server may go on with HTTP/1.0 when asked to; this one doesn't.
            let mut options = Some(value);
            while let Some(rest) = options {
                let (option, others) = cut(rest, b',');
                self.keep_alive &= !option.trim_ascii().eq_ignore_ascii_case(b"close");
                options = others;
            }
        } else if is(b"content-length") {
            // RFC 9110 8.6: digits only.
            let length = number(value, 10).ok_or(BadHead::Malformed)?;
            match self.body {
                BodyLength::None => self.body = BodyLength::Known(length),
                BodyLength::Known(before) if before != length => return Err(BadHead::Malformed),
                BodyLength::Known(_) | BodyLength::Unknown => {}
            }
        } else if is(b"transfer-encoding") {
            self.body = BodyLength::Unknown;
        }
        Ok(())
    }

    /// The first value of a parameter of the query, decoded; `None` if it's absent, "" if it is not decodable,
    /// and no number if it is longer than any value that means something here.
    pub(super) fn parameter<'v>(&self, name: &[u8], value: &'v mut Value) -> Option<&'v [u8]> {
        let mut pairs = Some(self.query);
        while let Some(rest) = pairs {
            let (pair, others) = cut(rest, b'&');
            let (key, encoded) = cut(pair, b'=');
            if percent_decode(key, true, value).is_some_and(|key| key == name) {
                let encoded = encoded.unwrap_or_default();
                return Some(match percent_decode(encoded, true, value) {
                    Some(decoded) => decoded,
                    None if encoded.len() > MAX_VALUE => b"too long",
                    None => b"",
                });
            }
            pairs = others;
        }
        None
    }
}

fn split_at(bytes: &[u8], at: Option<usize>) -> (&[u8], &[u8]) {
    let at = at.unwrap_or(bytes.len());
    bytes.split_at_checked(at).unwrap_or_default()
}

/// What comes before the first of such bytes, and what comes after it, if there is one.
fn cut(bytes: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    let (before, rest) = split_at(bytes, bytes.iter().position(|&other| other == byte));
    (before, rest.split_first().map(|(_, after)| after))
}

/// Decodes `%41`, and in queries `+` for a space, into what is emptied for it; `None` if it's malformed, or longer than
/// the room there.
pub(super) fn percent_decode<'d>(
    text: &[u8],
    is_query: bool,
    decoded: &'d mut VecView<u8>,
) -> Option<&'d [u8]> {
    decoded.clear();
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let byte = match byte {
            b'%' => (digit()? << 4 | digit()?) as u8,
            b'+' if is_query => b' ',
            byte => byte,
        };
        decoded.push(byte).ok()?;
    }
    Some(decoded)
}

/// The number that these digits are, and nothing but digits.
pub(super) fn number(digits: &[u8], base: u32) -> Option<u64> {
    let add = |value: u64, &digit: &u8| {
        let digit = char::from(digit).to_digit(base)?;
        value.checked_mul(base.into())?.checked_add(digit.into())
    };
    let value = digits.iter().try_fold(0, add)?;
    (!digits.is_empty()).then_some(value)
}

/// Path and query of a request target, in origin form or in absolute form (RFC 9112 3.2).
fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    let origin = match target.strip_prefix(b"http://") {
        Some(rest) => match split_at(rest, rest.iter().position(|&byte| byte == b'/')) {
            (_, []) => b"/",
            (_, origin) => origin,
        },
        None => target,
    };
    let (path, query) = cut(origin, b'?');
    (path, query.unwrap_or_default())
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::string::String;

    use super::*;

    fn parse(bytes: &[u8]) -> Request<'_> {
        Request::parse(bytes).unwrap().unwrap()
    }

    fn parameter(request: &Request<'_>, name: &str) -> Option<String> {
        let mut value = Vec::new();
        let value = request.parameter(name.as_bytes(), &mut value)?;
        Some(String::from_utf8(value.into()).unwrap())
    }

    #[test]
    fn what_go_tool_pprof_sends() {
        let bytes = b"GET /debug/pprof/heap?seconds=5&gc=1 HTTP/1.1\r\nHost: localhost:9990\r\n\
            User-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\nrest";
        let request = parse(bytes);
        assert_eq!(request.method, Method::Get);
        assert_eq!(request.path, b"/debug/pprof/heap");
        assert_eq!(parameter(&request, "seconds").as_deref(), Some("5"));
        assert_eq!(parameter(&request, "gc").as_deref(), Some("1"));
        assert_eq!(parameter(&request, "debug"), None);
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
        assert_eq!(
            (request.path, request.query),
            (&b"/debug/pprof/"[..], &b"a=b"[..])
        );
        let request = parse(b"GET http://localhost HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!((request.path, request.query), (&b"/"[..], &b""[..]));
    }

    #[test]
    fn parameters_are_decoded() {
        let request = parse(b"GET /?second%73=%35+&x&debug=1&debug=2 HTTP/1.0\r\n\r\n");
        assert_eq!(parameter(&request, "seconds").as_deref(), Some("5 "));
        assert_eq!(parameter(&request, "x").as_deref(), Some(""));
        assert_eq!(parameter(&request, "debug").as_deref(), Some("1"));
        assert!(!request.keep_alive);
        let request = parse(b"GET /?a=%z&b=111111111111111111111111111111111 HTTP/1.0\r\n\r\n");
        assert_eq!(parameter(&request, "a").as_deref(), Some(""));
        assert_eq!(parameter(&request, "b").as_deref(), Some("too long"));
        let mut decoded = Vec::<u8, 2>::new();
        for text in ["%4", "%zz", "abc"] {
            assert_eq!(percent_decode(text.as_bytes(), false, &mut decoded), None);
        }
    }

    #[test]
    fn numbers_are_digits_only() {
        for (digits, base, value) in [
            ("0", 10, Some(0)),
            ("18446744073709551615", 10, Some(u64::MAX)),
            ("18446744073709551616", 10, None),
            ("fF", 16, Some(255)),
            ("8", 8, None),
            ("", 10, None),
            ("+1", 10, None),
            ("1 ", 10, None),
        ] {
            assert_eq!(number(digits.as_bytes(), base), value, "{digits:?}");
        }
    }
}
