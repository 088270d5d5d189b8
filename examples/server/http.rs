//! Just enough of HTTP/1.1, for both ends: messages with a length, on connections that are kept.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    /// What was received and not yet taken.
    received: Vec<u8>,
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

/// Why there is no message.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The other end closed the connection, between two messages.
    Closed,
    /// Nothing came within the time limit of the stream. Asking again goes on where this left off.
    Waiting,
    /// The connection broke.
    Broken(io::Error),
    /// This is not a message that we take: the status says why.
    Refused(u16),
}

const HEAD_LIMIT: usize = 8 << 10;
const BODY_LIMIT: usize = 256 << 10;
const HEADERS_LIMIT: usize = 32;

impl<S: Read + Write> Connection<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Waits for a request.
    pub(crate) fn read_request(&mut self) -> Result<Request, Failure> {
        let (head, body) = self.read_message(request_head)?;
        Ok(Request {
            method: head.method,
            target: head.target,
            keep: head.keep,
            body,
        })
    }

    /// Waits for a response: its status and its body.
    pub(crate) fn read_response(&mut self) -> Result<(u16, Vec<u8>), Failure> {
        self.read_message(response_head)
    }

    /// Sends a request.
    pub(crate) fn write_request(
        &mut self,
        method: &str,
        target: &str,
        body: &[u8],
    ) -> io::Result<()> {
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        );
        self.write_message(head, body)
    }

    /// Sends a response. `keep` tells the client whether it may go on.
    pub(crate) fn write_response(&mut self, response: &Response, keep: bool) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n",
            response.status,
            reason(response.status),
            response.media_type,
            response.body.len(),
            if keep { "keep-alive" } else { "close" },
        );
        self.write_message(head, &response.body)
    }

    /// Whether a part of a message has come.
    pub(crate) fn is_within_message(&self) -> bool {
        !self.received.is_empty()
    }

    fn write_message(&mut self, head: String, body: &[u8]) -> io::Result<()> {
        // One write, so that a small message is one packet.
        let mut message = head.into_bytes();
        message.extend_from_slice(body);
        self.stream.write_all(&message)?;
        self.stream.flush()
    }

    fn read_message<H>(
        &mut self,
        parse_head: impl Fn(&[u8]) -> Result<Option<Head<H>>, u16>,
    ) -> Result<(H, Vec<u8>), Failure> {
        let head = loop {
            if let Some(head) = parse_head(&self.received).map_err(Failure::Refused)? {
                break head;
            }
            if self.received.len() >= HEAD_LIMIT {
                return Err(Failure::Refused(431));
            }
            self.receive()?;
        };
        if head.body_length > BODY_LIMIT {
            return Err(Failure::Refused(413));
        }
        let end = head.length + head.body_length;
        while self.received.len() < end {
            self.receive()?;
        }
        let next = self.received.split_off(end);
        let mut body = core::mem::replace(&mut self.received, next);
        body.drain(..head.length);
        Ok((head.of, body))
    }

    fn receive(&mut self) -> Result<(), Failure> {
        let mut chunk = [0; 16 << 10];
        let length = loop {
            match self.stream.read(&mut chunk) {
                Ok(length) => break length,
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    // Which of the two a time limit gives depends on the system.
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        return Err(Failure::Waiting);
                    }
                    _ => return Err(Failure::Broken(error)),
                },
            }
        };
        if length == 0 {
            return Err(if self.received.is_empty() {
                Failure::Closed
            } else {
                Failure::Broken(io::ErrorKind::UnexpectedEof.into())
            });
        }
        self.received.extend(chunk.iter().take(length));
        Ok(())
    }
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

    /// Gives what it was made of in pieces of `step` bytes, and keeps what is written.
    struct Pieces<'a> {
        input: &'a [u8],
        step: usize,
        output: Vec<u8>,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.step.min(buffer.len()).min(self.input.len());
            let (piece, rest) = self.input.split_at(length);
            buffer[..length].copy_from_slice(piece);
            self.input = rest;
            Ok(length)
        }
    }

    impl Write for Pieces<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.output.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn connection(input: &[u8], step: usize) -> Connection<Pieces<'_>> {
        Connection::new(Pieces {
            input,
            step,
            output: Vec::new(),
        })
    }

    #[test]
    fn requests_come_in_pieces_of_any_size() {
        let mut sender = connection(b"", 1);
        sender.write_request("PUT", "/documents/a", b"{}").unwrap();
        sender.write_request("GET", "/search?q=b", b"").unwrap();
        let sent = sender.stream.output;
        for step in 1..=sent.len() {
            let mut receiver = connection(&sent, step);
            let put = receiver.read_request().unwrap();
            assert_eq!(
                (put.method.as_str(), put.body.as_slice()),
                ("PUT", &b"{}"[..])
            );
            let get = receiver.read_request().unwrap();
            assert_eq!(get.target, "/search?q=b");
            assert!(get.keep && get.body.is_empty());
            assert!(matches!(receiver.read_request(), Err(Failure::Closed)));
        }
    }

    #[test]
    fn responses_are_read_as_written() {
        let mut sender = connection(b"", 1);
        let response = Response {
            status: 404,
            media_type: "text/plain",
            body: b"no such document\n".to_vec(),
        };
        sender.write_response(&response, true).unwrap();
        let sent = sender.stream.output;
        let (status, body) = connection(&sent, 7).read_response().unwrap();
        assert_eq!((status, body), (404, response.body));
    }

    #[test]
    fn what_is_refused() {
        let status = |bytes: &[u8]| match connection(bytes, 1000).read_request() {
            Err(Failure::Refused(status)) => status,
            other => panic!("{other:?}"),
        };
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
    fn a_message_that_breaks_off_is_no_message() {
        let mut half = connection(b"PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{", 9);
        assert!(matches!(half.read_request(), Err(Failure::Broken(_))));
    }

    #[test]
    fn connections_are_kept_unless_the_client_says_otherwise() {
        let keep = |bytes: &[u8]| connection(bytes, 1000).read_request().unwrap().keep;
        assert!(keep(b"GET / HTTP/1.1\r\n\r\n"));
        assert!(!keep(b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n"));
        assert!(!keep(b"GET / HTTP/1.0\r\n\r\n"));
    }
}
