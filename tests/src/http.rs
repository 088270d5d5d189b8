//! An HTTP/1.1 client that sends exactly the bytes it is given, whole or in pieces, and that accepts
//! no answer that bends the rules of RFC 9112.

use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Instant;

/// One GET on a connection of its own.
///
/// # Errors
///
/// If the server can't be reached, answers wrongly, or takes more than a minute.
pub fn get(address: impl ToSocketAddrs, target: &str) -> io::Result<Response> {
    let mut client = Client::connect(address)?;
    client.set_limit(Duration::from_mins(1));
    client.send(request("GET", target, &["Connection: close"], b"").as_slice())?;
    client.read_response()
}

/// The bytes of a request. `Host` is there, and `Content-Length` where there is a body.
#[must_use]
pub fn request(method: &str, target: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Received, not yet consumed.
    received: Vec<u8>,
    limit: Duration,
}

impl Client {
    /// Connects. The limit of [`Client::set_limit`] is ten seconds at first.
    ///
    /// # Errors
    ///
    /// If nobody listens there.
    pub fn connect(address: impl ToSocketAddrs) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        // What is sent apart is to arrive apart.
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            limit: Duration::from_secs(10),
        })
    }

    /// How long each response, and each send, may take as a whole.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// The connection itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends `bytes`.
    ///
    /// # Errors
    ///
    /// If the server has closed the connection, or takes nothing any more.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.limit))?;
        self.stream.write_all(bytes)
    }

    /// Sends `bytes` in pieces of `len`, with a `pause` after each.
    ///
    /// # Errors
    ///
    /// As [`Client::send`].
    pub fn send_in_pieces(&mut self, bytes: &[u8], len: usize, pause: Duration) -> io::Result<()> {
        for piece in bytes.chunks(len) {
            self.send(piece)?;
            thread::sleep(pause);
        }
        Ok(())
    }

    /// Tells the server that nothing more will come; its answers still do.
    ///
    /// # Errors
    ///
    /// If the connection is gone.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Reads the next response.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidData`] if it is malformed, [`ErrorKind::UnexpectedEof`] if it is cut short,
    /// [`ErrorKind::TimedOut`] if it takes too long.
    pub fn read_response(&mut self) -> io::Result<Response> {
        self.read_answer_to("GET")
    }

    /// As [`Client::read_response`], for a request with that method: HEAD gets no body, whatever the headers
    /// say.
    ///
    /// # Errors
    ///
    /// As [`Client::read_response`].
    pub fn read_answer_to(&mut self, method: &str) -> io::Result<Response> {
        self.input().answer_to(method)
    }

    /// All that comes until the server closes the connection.
    ///
    /// # Errors
    ///
    /// If it does not, or resets it.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut input = self.input();
        while input.fill()? {}
        Ok(core::mem::take(&mut self.received))
    }

    /// Whether the server closes or resets the connection within `limit`, without another byte.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let filled = self.input_until(deadline).fill();
        match filled {
            Ok(more) => !more && self.received.is_empty(),
            Err(error) => error.kind() == ErrorKind::ConnectionReset && self.received.is_empty(),
        }
    }

    fn input(&mut self) -> Input<'_, Timed<'_>> {
        self.input_until(Instant::now() + self.limit)
    }

    fn input_until(&mut self, deadline: Instant) -> Input<'_, Timed<'_>> {
        Input {
            source: Timed {
                stream: &self.stream,
                deadline,
            },
            received: &mut self.received,
        }
    }
}

/// The answers in `bytes`, all that a server sent on one connection before it closed it: one to each of
/// `methods`, in order, and to GET beyond their end.
///
/// # Errors
///
/// [`ErrorKind::InvalidData`] if one is malformed, [`ErrorKind::UnexpectedEof`] if the last is cut short.
pub fn parse_answers(bytes: &[u8], methods: &[&str]) -> io::Result<Vec<Response>> {
    let mut received = Vec::new();
    let mut input = Input {
        source: bytes,
        received: &mut received,
    };
    let mut methods = methods.iter().copied();
    let mut answers = Vec::new();
    while !input.received.is_empty() || input.fill()? {
        answers.push(input.answer_to(methods.next().unwrap_or("GET"))?);
    }
    Ok(answers)
}

/// A connection's bytes until a moment.
struct Timed<'c> {
    stream: &'c TcpStream,
    deadline: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "no answer in time"));
        }
        self.stream.set_read_timeout(Some(left))?;
        match self.stream.read(buffer) {
            // What a read timeout is called depends on the system.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(io::Error::new(ErrorKind::TimedOut, "no answer in time"))
            }
            // A socket with a time-out is not read further when a signal came, such as a profiler's.
            Err(error) if error.kind() == ErrorKind::Interrupted => self.read(buffer),
            read => read,
        }
    }
}

/// What a server sends, from `source`, after what was received and not consumed before.
struct Input<'a, S> {
    source: S,
    received: &'a mut Vec<u8>,
}

impl<S: Read> Input<'_, S> {
    fn answer_to(&mut self, method: &str) -> io::Result<Response> {
        let (version, status, reason) = parse_status_line(&self.line()?)?;
        let headers = self.fields()?;
        let mut response = Response {
            version,
            status,
            reason,
            headers,
            framing: Framing::Absent,
            body: Vec::new(),
            trailers: Vec::new(),
        };
        response.framing = response.framing_for(method)?;
        match response.framing {
            Framing::Absent => {}
            Framing::Length(len) => response.body = self.exactly(len)?,
            Framing::Chunked => self.chunks(&mut response)?,
            Framing::Close => {
                while self.fill()? {}
                response.body = core::mem::take(self.received);
            }
        }
        Ok(response)
    }

    /// RFC 9112, section 7.1.
    fn chunks(&mut self, response: &mut Response) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default();
            let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
            let size = usize::from_str_radix(size, 16).ok().filter(|_| digits);
            let Some(size) = size else {
                return Err(malformed(format!("chunk size {line:?}")));
            };
            if size == 0 {
                response.trailers = self.fields()?;
                return Ok(());
            }
            response.body.extend(self.exactly(size)?);
            if self.exactly(2)? != b"\r\n" {
                return Err(malformed("a chunk is longer than it says".to_owned()));
            }
        }
    }

    /// Header or trailer fields, to the empty line.
    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let field = line.split_once(':').filter(|(name, _)| is_token(name));
            let Some((name, value)) = field else {
                return Err(malformed(format!("header {line:?}")));
            };
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// A line, without its CR LF.
    fn line(&mut self) -> io::Result<String> {
        let end = loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                break end;
            }
            if self.received.len() > LONGEST_LINE {
                return Err(malformed("a line without an end".to_owned()));
            }
            self.need_more()?;
        };
        let line: Vec<u8> = self.received.drain(..=end).collect();
        let text = line
            .strip_suffix(b"\r\n")
            .and_then(|line| str::from_utf8(line).ok());
        match text {
            Some(text) if !text.contains(|c: char| c.is_control() && c != '\t') => {
                Ok(text.to_owned())
            }
            _ => Err(malformed(format!(
                "line {:?}",
                String::from_utf8_lossy(&line)
            ))),
        }
    }

    fn exactly(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < len {
            self.need_more()?;
        }
        Ok(self.received.drain(..len).collect())
    }

    fn need_more(&mut self) -> io::Result<()> {
        if self.fill()? {
            return Ok(());
        }
        let so_far = String::from_utf8_lossy(self.received);
        Err(io::Error::new(
            ErrorKind::UnexpectedEof,
            format!("the connection was closed after {so_far:?}"),
        ))
    }

    /// Waits for some bytes; `false` at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let len = loop {
            match self.source.read(&mut buffer) {
                // A signal: to a read with a time limit it comes through, whatever its handler says (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.received.extend_from_slice(&buffer[..len]);
        Ok(len > 0)
    }
}

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The minor version of HTTP/1.
    pub version: u8,
    /// As 200.
    pub status: u16,
    /// As `OK`.
    pub reason: String,
    /// Names and values, in order.
    pub headers: Vec<(String, String)>,
    /// How the end of the body was found.
    pub framing: Framing,
    /// The body, without what the framing added.
    pub body: Vec<u8>,
    /// The fields after the last chunk.
    pub trailers: Vec<(String, String)>,
}

impl Response {
    /// The value of the first header with that name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers_named(name).next()
    }

    /// The body as text.
    ///
    /// # Panics
    ///
    /// If it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("the body is text")
    }

    fn headers_named(&self, name: &str) -> impl Iterator<Item = &str> {
        let all = self.headers.iter();
        all.filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// RFC 9112, section 6.3.
    fn framing_for(&self, method: &str) -> io::Result<Framing> {
        let mut lengths = self.headers_named("content-length");
        let length = lengths.next();
        if lengths.next().is_some() {
            return Err(malformed("two lengths".to_owned()));
        }
        let coding = self.header("transfer-encoding");
        if length.is_some() && coding.is_some() {
            return Err(malformed("a length and a transfer coding".to_owned()));
        }
        if coding.is_some() && self.version == 0 {
            return Err(malformed("a transfer coding in HTTP/1.0".to_owned()));
        }
        let length = length.map(parse_length).transpose()?;
        if method == "HEAD" || self.status < 200 || matches!(self.status, 204 | 304) {
            return Ok(Framing::Absent);
        }
        match (coding, length) {
            (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            (Some(coding), _) => Err(malformed(format!("transfer coding {coding:?}"))),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (None, None) => Ok(Framing::Close),
        }
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    Absent,
    /// By its length.
    Length(usize),
    /// By a last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
}

const LONGEST_LINE: usize = 64 * 1024;

/// RFC 9112, section 4.
fn parse_status_line(line: &str) -> io::Result<(u8, u16, String)> {
    let parse = || {
        let (version, rest) = line.strip_prefix("HTTP/1.")?.split_once(' ')?;
        let (status, reason) = rest.split_once(' ')?;
        let version = matches!(version, "0" | "1").then(|| version == "1")?;
        let digits = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
        let status: u16 = status
            .parse()
            .ok()
            .filter(|status| digits && *status >= 100)?;
        Some((u8::from(version), status, reason.to_owned()))
    };
    parse().ok_or_else(|| malformed(format!("status line {line:?}")))
}

fn parse_length(text: &str) -> io::Result<usize> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let length = text.parse().ok().filter(|_| digits);
    length.ok_or_else(|| malformed(format!("length {text:?}")))
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let is_token_char =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_char)
}

fn malformed(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("malformed answer: {what}"))
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use std::net::TcpListener;

    use super::*;

    /// A client whose server sends `answer` byte by byte, and closes.
    fn answered(answer: &'static [u8]) -> Client {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = Client::connect(listener.local_addr().unwrap()).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            for byte in answer {
                // The client may have seen enough.
                let _ = stream.write_all(core::slice::from_ref(byte));
            }
        });
        client
    }

    #[test]
    fn a_length_ends_the_body_and_the_next_answer_follows() {
        let mut client = answered(
            b"HTTP/1.1 200 OK\r\ncontent-LENGTH: \t3 \r\nX-A: b:c\r\n\r\nabcHTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n",
        );
        let first = client.read_response().unwrap();
        assert_eq!(
            (first.version, first.status, first.reason.as_str()),
            (1, 200, "OK")
        );
        assert_eq!((first.text(), first.framing), ("abc", Framing::Length(3)));
        assert_eq!(
            (first.header("x-a"), first.header("x-b")),
            (Some("b:c"), None)
        );
        let second = client.read_response().unwrap();
        assert_eq!((second.status, second.text()), (404, ""));
        assert!(client.is_closed_within(Duration::from_secs(5)));
    }

    #[test]
    fn chunks_are_joined() {
        let mut client = answered(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
              3\r\nabc\r\n0A;ext=\"1\"\r\n0123\r\n6789\r\n0\r\nX-Sum: 7\r\n\r\n",
        );
        let response = client.read_response().unwrap();
        assert_eq!(
            (response.text(), response.framing),
            ("abc0123\r\n6789", Framing::Chunked)
        );
        assert_eq!(response.trailers, [("X-Sum".to_owned(), "7".to_owned())]);
        assert_eq!(client.read_to_end().unwrap(), b"");
    }

    #[test]
    fn the_end_of_the_connection_ends_a_body_without_a_length() {
        let response = answered(b"HTTP/1.0 200 OK\r\n\r\nabc\r\n")
            .read_response()
            .unwrap();
        assert_eq!((response.version, response.text()), (0, "abc\r\n"));
        assert_eq!(response.framing, Framing::Close);
    }

    #[test]
    fn some_answers_have_no_body() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        assert_eq!(
            answered(head).read_answer_to("HEAD").unwrap().framing,
            Framing::Absent
        );
        let mut client =
            answered(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n");
        assert_eq!(client.read_response().unwrap().status, 100);
        assert_eq!(client.read_response().unwrap().framing, Framing::Absent);
    }

    #[test]
    fn bent_rules_are_refused() {
        let answers: [&[u8]; 16] = [
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 200\r\n\r\n",
            b"HTTP/1.1 +20 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\n\n",
            b"HTTP/1.1 200 OK\r\nName : value\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n folded: value\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        ];
        for answer in answers {
            let error = answered(answer).read_response().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        }
    }

    #[test]
    fn answers_cut_short_are_told() {
        let answers: [&[u8]; 5] = [
            b"",
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        ];
        for answer in answers {
            let error = answered(answer).read_response().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
        }
    }

    #[test]
    fn a_silent_server_is_left_in_time() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = Client::connect(listener.local_addr().unwrap()).unwrap();
        client.set_limit(Duration::from_millis(50));
        assert_eq!(
            client.read_response().unwrap_err().kind(),
            ErrorKind::TimedOut
        );
        assert!(!client.is_closed_within(Duration::from_millis(1)));
    }

    #[test]
    fn pieces_are_sent_apart_and_in_order() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = Client::connect(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let bytes = request("POST", "/x", &["A: b"], b"body");
        let (pause, begun) = (Duration::from_millis(10), Instant::now());
        client.send_in_pieces(&bytes, 40, pause).unwrap();
        client.finish_sending().unwrap();
        assert!(begun.elapsed() >= pause * 2);
        let mut sent = String::new();
        stream.read_to_string(&mut sent).unwrap();
        let expected = "POST /x HTTP/1.1\r\nHost: test\r\nA: b\r\nContent-Length: 4\r\n\r\nbody";
        assert_eq!(sent, expected);
        drop(stream);
        assert_eq!(client.read_to_end().unwrap(), b"");
    }
}
