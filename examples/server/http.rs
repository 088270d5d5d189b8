//! Just enough of HTTP/1.1, for both ends: messages with a length, on connections that are kept.
//!
//! Nothing here waits: what a connection received is fed to [`Received`], which gives the messages back.

#![forbid(unsafe_code)]

/// What came on a connection and is not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Received {
    bytes: Vec<u8>,
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query, as they stand in the request line.
    pub(crate) target: String,
    /// Whether the client may ask again on this connection.
    pub(crate) keep: bool,
    pub(crate) body: Vec<u8>,
}

/// What the service answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) media_type: &'static str,
    pub(crate) body: Vec<u8>,
}

const HEAD_LIMIT: usize = 8 << 10;
const BODY_LIMIT: usize = 256 << 10;
const HEADERS_LIMIT: usize = 32;
/// As much as is received at once, at the least.
const PIECE: usize = 16 << 10;

impl Received {
    /// Adds what came next.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Where what comes next goes, at the end; there is some room.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        self.bytes.reserve(PIECE);
        &mut self.bytes
    }

    /// Takes the next request; None if it is not all there. An error is the status to refuse it with.
    pub(crate) fn take_request(&mut self) -> Result<Option<Request>, u16> {
        let message = self.take(request_head)?;
        Ok(message.map(|(head, body)| Request {
            method: head.method,
            target: head.target,
            keep: head.keep,
            body,
        }))
    }

    /// Takes the next response, its status and its body; None if it is not all there.
    pub(crate) fn take_response(&mut self) -> Result<Option<(u16, Vec<u8>)>, u16> {
        self.take(response_head)
    }

    /// Whether there is no part of a message.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn take<H>(
        &mut self,
        parse_head: impl Fn(&[u8]) -> Result<Option<Head<H>>, u16>,
    ) -> Result<Option<(H, Vec<u8>)>, u16> {
        let Some(head) = parse_head(&self.bytes)? else {
            return if self.bytes.len() < HEAD_LIMIT {
                Ok(None)
            } else {
                Err(431)
            };
        };
        if head.body_length > BODY_LIMIT {
            return Err(413);
        }
        let end = head.length + head.body_length;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let next = self.bytes.split_off(end);
        let mut body = core::mem::replace(&mut self.bytes, next);
        body.drain(..head.length);
        Ok(Some((head.of, body)))
    }
}

/// A request as it is sent.
pub(crate) fn request(method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    );
    message(head, body)
}

impl Response {
    /// As it is sent. `keep` tells the client whether it may go on.
    pub(crate) fn message(&self, keep: bool) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n",
            self.status,
            reason(self.status),
            self.media_type,
            self.body.len(),
            if keep { "keep-alive" } else { "close" },
        );
        message(head, &self.body)
    }
}

/// In one piece, so that a small message is one packet.
fn message(head: String, body: &[u8]) -> Vec<u8> {
    let mut message = head.into_bytes();
    message.extend_from_slice(body);
    message
}

/// The head of a message, parsed.
struct Head<H> {
    of: H,
    /// Length of the head in bytes, the empty line included.
    length: usize,
    body_length: usize,
}

struct RequestHead {
    method: String,
    target: String,
    keep: bool,
}

/// None: there is more to come. An error is the status to refuse it with.
fn request_head(bytes: &[u8]) -> Result<Option<Head<RequestHead>>, u16> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(431),
        Err(_) => return Err(400),
    };
    if header(request.headers, "Transfer-Encoding").is_some() {
        return Err(411);
    }
    let closes = header(request.headers, "Connection")
        .is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    Ok(Some(Head {
        length,
        body_length: body_length(request.headers)?,
        of: RequestHead {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            keep: request.version == Some(1) && !closes,
        },
    }))
}

fn response_head(bytes: &[u8]) -> Result<Option<Head<u16>>, u16> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => Ok(Some(Head {
            length,
            body_length: body_length(response.headers)?,
            of: response.code.unwrap_or_default(),
        })),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(400),
    }
}

fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

fn body_length(headers: &[httparse::Header<'_>]) -> Result<usize, u16> {
    let Some(value) = header(headers, "Content-Length") else {
        return Ok(0);
    };
    // RFC 9110, 8.6: digits, and nothing else.
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(400);
    }
    let digits = core::str::from_utf8(value).map_err(|_| 400_u16)?;
    digits.parse().map_err(|_| 413)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(bytes: &[u8]) -> Received {
        let mut received = Received::default();
        received.extend(bytes);
        received
    }

    #[test]
    fn requests_come_in_pieces_of_any_size() {
        let sent = [
            request("PUT", "/documents/a", b"{}"),
            request("GET", "/search?q=b", b""),
        ]
        .concat();
        for step in 1..=sent.len() {
            let mut received = Received::default();
            let mut requests = Vec::new();
            for piece in sent.chunks(step) {
                received.extend(piece);
                while let Some(request) = received.take_request().unwrap() {
                    requests.push(request);
                }
            }
            let [put, get] = &requests[..] else {
                panic!("{step}: {requests:?}");
            };
            assert_eq!(
                (put.method.as_str(), put.body.as_slice()),
                ("PUT", &b"{}"[..])
            );
            assert_eq!(get.target, "/search?q=b");
            assert!(get.keep && get.body.is_empty());
            assert!(received.is_empty());
        }
    }

    #[test]
    fn responses_are_read_as_written() {
        let response = Response {
            status: 404,
            media_type: "text/plain",
            body: b"no such document\n".to_vec(),
        };
        let mut received = received(&response.message(true));
        assert_eq!(received.take_response(), Ok(Some((404, response.body))));
    }

    #[test]
    fn what_is_refused() {
        let status = |bytes: &[u8]| received(bytes).take_request().unwrap_err();
        assert_eq!(status(b"\x00\x01\x02\r\n\r\n"), 400);
        assert_eq!(
            status(b"PUT / HTTP/1.1\r\nContent-Length: +2\r\n\r\n{}"),
            400
        );
        assert_eq!(
            status(b"PUT / HTTP/1.1\r\nContent-Length: 999999\r\n\r\n"),
            413
        );
        assert_eq!(
            status(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            411
        );
        let endless = [&b"GET /"[..], &[b'a'; HEAD_LIMIT]].concat();
        assert_eq!(status(&endless), 431);
    }

    #[test]
    fn half_a_message_is_waited_for() {
        let mut half = received(b"PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{");
        assert_eq!(half.take_request(), Ok(None));
        assert!(!half.is_empty());
    }

    #[test]
    fn connections_are_kept_unless_the_client_says_otherwise() {
        let keep = |bytes: &[u8]| received(bytes).take_request().unwrap().unwrap().keep;
        assert!(keep(b"GET / HTTP/1.1\r\n\r\n"));
        assert!(!keep(b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n"));
        assert!(!keep(b"GET / HTTP/1.0\r\n\r\n"));
    }
}
