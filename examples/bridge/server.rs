//! What Go's tools and browsers talk to: each request is one for the device, and its answer gets names on the way.

#![forbid(unsafe_code)]

use core::convert::Infallible;
use core::fmt;
use core::net::IpAddr;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::{sleep, timeout};

use crate::device::{Answer, Device, Failure, PIECES, Piece, Question, body, no_answer};
use crate::names::Code;
use crate::profile::{self, Refusal};
use crate::text;
use crate::trace::Namer;

/// Clients at once.
const MOST_CLIENTS: usize = 64;

/// Of a request's body: a list of addresses.
const MOST_ASKED: usize = 4 << 20;

/// How long a client may take for a request.
const ASKS: Duration = Duration::from_secs(30);

/// The longest word that can be an address.
const MOST_WORD: usize = 32;

/// Of a build id that is not ours: a good one has 40 characters.
const MOST_SHOWN: usize = 100;

const SYMBOL: &str = "/debug/pprof/symbol";

const TRACE: &str = "/debug/pprof/trace";

/// Of a profile of no time, where it says which program it is of: what a device is asked that has not been asked for
/// a profile. It may not have all of them.
const PROFILES: [&str; 5] = ["threadcreate", "block", "mutex", "heap", "goroutine"];

/// Tells `go tool pprof` to show the text of an error.
const X_GO_PPROF: HeaderName = HeaderName::from_static("x-go-pprof");

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// What can't be seen without a build id on both sides.
const DOUBT: &str = "it can't be told whether the device runs this file: for that both need a build id (--build-id)";

type Reply = Response<Content>;

/// What is sent: all at once, or as it comes.
#[derive(Debug)]
enum Content {
    Whole(Full<Bytes>),
    Pieces(Receiver<Result<Bytes, Failure>>),
}

impl<B: Into<Bytes>> From<B> for Content {
    fn from(bytes: B) -> Self {
        Self::Whole(Full::new(bytes.into()))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self.get_mut() {
            Self::Whole(body) => {
                let Poll::Ready(frame) = Pin::new(body).poll_frame(context) else {
                    return Poll::Pending;
                };
                Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Self::Pieces(pieces) => {
                let piece = pieces.poll_recv(context);
                piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Pieces(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}

/// A device, and the file that it runs.
#[derive(Debug)]
pub(crate) struct Bridge {
    device: Device,
    /// Who waits for it and leaves is forgotten.
    code: Arc<tokio::sync::Mutex<Code>>,
    /// Where the file is, and its build id or "".
    path: String,
    build_id: String,
    /// The last program that the device was seen to run, if it was another: its build id.
    other: Mutex<Option<String>>,
    has_warned: AtomicBool,
}

impl Bridge {
    pub(crate) fn new(device: Device, code: Code) -> Self {
        Self {
            device,
            path: code.path().to_owned(),
            build_id: code.build_id().to_owned(),
            code: Arc::new(tokio::sync::Mutex::new(code)),
            other: Mutex::default(),
            has_warned: AtomicBool::new(false),
        }
    }

    /// Asks the device which program it runs; answers what to tell the user.
    pub(crate) async fn introduce(&self) -> String {
        match self.device_build_id().await {
            Ok(Some(id)) => {
                // What was told a client before is told here, too.
                let news = self.learn(&id);
                match &*self.other() {
                    Some(other) => self.refusal(other),
                    None if id != self.build_id || id.is_empty() => DOUBT.to_owned(),
                    None => {
                        news.unwrap_or_else(|| format!("the device runs this file: build id {id}"))
                    }
                }
            }
            Ok(None) => "the device has no profile that says which program it runs".to_owned(),
            Err(failure) => format!("not yet: {failure}"),
        }
    }

    /// Serves all who come.
    ///
    /// # Errors
    ///
    /// None so far: it goes on until the program ends.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        let room = Arc::new(Semaphore::new(MOST_CLIENTS));
        loop {
            let place = Arc::clone(&room).acquire_owned().await;
            let Ok((stream, _)) = listener.accept().await else {
                // Such as too many open files: that passes.
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let bridge = Arc::clone(&self);
            tokio::spawn(async move {
                bridge.serve_client(stream).await;
                drop(place);
            });
        }
    }

    /// A client that leaves ends what is done for it: hyper drops the answer that is being made.
    async fn serve_client(self: Arc<Self>, stream: TcpStream) {
        // Where that can't be set, answers are late.
        let _ = stream.set_nodelay(true);
        let service = service_fn(move |request| {
            let bridge = Arc::clone(&self);
            async move { Ok::<_, Infallible>(bridge.reply(request).await) }
        });
        let mut http = http1::Builder::new();
        let http = http.timer(TokioTimer::new()).header_read_timeout(ASKS);
        // What goes wrong is the client's.
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn reply(self: &Arc<Self>, request: Request<Incoming>) -> Reply {
        if !is_for_this_machine(&request) {
            let text = "requests for this Host are not served here: use localhost";
            return plain_error(StatusCode::FORBIDDEN, text);
        }
        let (head, body) = request.into_parts();
        if ![Method::GET, Method::HEAD, Method::POST].contains(&head.method) {
            let mut reply = plain_error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
            let allowed = HeaderValue::from_static("GET, HEAD, POST");
            reply.headers_mut().insert(ALLOW, allowed);
            return reply;
        }
        let body = match timeout(ASKS, read(body)).await {
            Ok(Ok(Some(body))) => body,
            Ok(Ok(None)) => {
                let text = format!("the request has more than {MOST_ASKED} bytes");
                return plain_error(StatusCode::PAYLOAD_TOO_LARGE, &text);
            }
            Ok(Err(error)) => {
                let text = format!("the request can't be read: {error}");
                return plain_error(StatusCode::BAD_REQUEST, &text);
            }
            Err(_) => return plain_error(StatusCode::REQUEST_TIMEOUT, "the request is too slow"),
        };
        if head.uri.path() == SYMBOL {
            let query = head.uri.query().unwrap_or_default();
            let words = if head.method == Method::POST {
                body
            } else {
                Bytes::copy_from_slice(query.as_bytes())
            };
            return self.symbol(words).await;
        }
        let target = head
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let question = Question {
            method: head.method.clone(),
            target: target.to_owned(),
            body,
        };
        if head.method != Method::HEAD && head.uri.path() == TRACE {
            return self.trace(question).await;
        }
        match self.device.ask(question).await {
            Ok(answer) if answer.status == StatusCode::OK && head.method != Method::HEAD => {
                self.add_names(head.uri.path(), answer).await
            }
            Ok(answer) => forward(answer),
            Err(failure) => error(StatusCode::BAD_GATEWAY, &failure),
        }
    }

    /// The answer with names, by what is in it.
    async fn add_names(&self, path: &str, answer: Answer) -> Reply {
        let name = path.rsplit('/').next().unwrap_or_default();
        let is = |kind: &str| {
            let value = answer.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
            value.is_some_and(|value| value.starts_with(kind.as_bytes()))
        };
        if profile::is_gzip(&answer.body) || is("application/octet-stream") && name != "trace" {
            self.name_profile(name, answer).await
        } else if is("text/html") {
            self.describe(answer)
        } else if is("text/plain") && name != "cmdline" {
            self.name_text(answer).await
        } else {
            forward(answer)
        }
    }

    async fn name_profile(&self, name: &str, answer: Answer) -> Reply {
        let (bytes, name) = (answer.body.clone(), name.to_owned());
        let named = self.with_code(move |code| profile::add_names(&bytes, &name, code));
        match named.await {
            Ok(Ok((id, named))) => {
                self.note(&id);
                forward(Answer {
                    body: named.into(),
                    ..answer
                })
            }
            Ok(Err(Refusal::WrongElf(id))) => {
                self.note(&id);
                error(StatusCode::CONFLICT, &self.refusal(&id))
            }
            Ok(Err(refusal)) => error(StatusCode::BAD_GATEWAY, &refusal),
            Err(failure) => error(StatusCode::INTERNAL_SERVER_ERROR, &failure),
        }
    }

    /// Text does not say which program it is of, so the device is asked.
    async fn name_text(&self, answer: Answer) -> Reply {
        let Ok(text) = String::from_utf8(answer.body.to_vec()) else {
            return forward(answer);
        };
        if !text::has_addresses(&text) {
            return forward(answer);
        }
        if let Ok(Some(id)) = self.device_build_id().await {
            self.note(&id);
        }
        if let Some(other) = &*self.other() {
            return error(StatusCode::CONFLICT, &self.refusal(other));
        }
        match self
            .with_code(move |code| text::add_names(&text, code))
            .await
        {
            Ok(Some(named)) => forward(Answer {
                body: named.into(),
                ..answer
            }),
            Ok(None) => error(StatusCode::BAD_GATEWAY, &"the device's text is too long"),
            Err(failure) => error(StatusCode::INTERNAL_SERVER_ERROR, &failure),
        }
    }

    /// A trace with names, as it comes. It does not say which program it is of, so the device is asked.
    async fn trace(self: &Arc<Self>, question: Question) -> Reply {
        if let Ok(Some(id)) = self.device_build_id().await {
            self.note(&id);
        }
        if let Some(other) = &*self.other() {
            return error(StatusCode::CONFLICT, &self.refusal(other));
        }
        let (sender, mut pieces) = mpsc::channel(PIECES);
        let bridge = Arc::clone(self);
        let asked =
            tokio::spawn(async move { bridge.device.ask_for_pieces(question, sender).await });
        let Some(Piece::Head(status, headers)) = pieces.recv().await else {
            let failure = asked.await.map(Result::err).unwrap_or_default();
            return error(StatusCode::BAD_GATEWAY, &failure.unwrap_or_else(no_answer));
        };
        if status != StatusCode::OK {
            return match body(pieces).await {
                Ok(body) => forward(Answer {
                    status,
                    headers,
                    body,
                }),
                Err(failure) => error(StatusCode::BAD_GATEWAY, &failure),
            };
        }
        let (sender, named) = mpsc::channel(PIECES);
        let bridge = Arc::clone(self);
        tokio::spawn(async move {
            let mut namer = Namer::new();
            loop {
                // A device may have nothing to say for long, so it is not asked for more before who has left is seen.
                let piece = tokio::select! {
                    piece = pieces.recv() => piece,
                    () = sender.closed() => return,
                };
                let is_end = piece.is_none();
                let done = bridge.with_code(move |code| {
                    let (mut out, mut names) = (Vec::new(), |address| code.frames(address));
                    if let Some(Piece::Body(bytes)) = piece {
                        namer.push(&bytes, &mut names, &mut out);
                    } else if is_end {
                        namer.finish(&mut names, &mut out);
                    }
                    (namer, out)
                });
                let out = match done.await {
                    Ok((back, out)) => {
                        namer = back;
                        out
                    }
                    Err(failure) => {
                        let _ = sender.send(Err(Failure(failure))).await;
                        return;
                    }
                };
                // Who has left wants no more.
                if !out.is_empty() && sender.send(Ok(out.into())).await.is_err() {
                    return;
                }
                if is_end {
                    break;
                }
            }
            if let Ok(Err(failure)) = asked.await {
                // So that the reader sees that it broke off.
                let _ = sender.send(Err(failure)).await;
            }
        });
        reply_with(status, headers, Content::Pieces(named))
    }

    /// The index page says where the names come from.
    fn describe(&self, answer: Answer) -> Reply {
        let Ok(page) = core::str::from_utf8(&answer.body) else {
            return forward(answer);
        };
        let (before, after) = page.split_at(page.rfind("</body>").unwrap_or(page.len()));
        let path = escape(&self.path);
        let id = match &*self.build_id {
            "" => "which has no build id".to_owned(),
            id => format!("build id {id}"),
        };
        let refusal = self.other().as_deref().map(|other| self.refusal(other));
        let refusal = refusal.map_or(String::new(), |text| {
            format!("<p><strong>{}</strong></p>\n", escape(&text))
        });
        let named = format!(
            "{before}<h2>Names</h2>\n<p>By picoprof's bridge, from <code>{path}</code>, {id}.</p>\n{refusal}{after}"
        );
        forward(Answer {
            body: named.into(),
            ..answer
        })
    }

    /// As Go: names for addresses that are separated by `+`.
    async fn symbol(&self, words: Bytes) -> Reply {
        if let Some(other) = &*self.other() {
            return error(StatusCode::CONFLICT, &self.refusal(other));
        }
        let named = self.with_code(move |code| {
            // Readers only look whether it is zero.
            let mut names = "num_symbols: 1\n".to_owned();
            for address in words.split(|&b| b == b'+').filter_map(parse_address) {
                if let Some(name) = code.symbol(address) {
                    names.push_str(&format!("{address:#x} {name}\n"));
                }
                if names.len() > crate::MOST_BYTES {
                    break;
                }
            }
            names
        });
        match named.await {
            Ok(names) => {
                let mut reply = Response::new(names.into());
                reply.headers_mut().insert(CONTENT_TYPE, TEXT);
                reply.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
                reply
            }
            Err(failure) => error(StatusCode::INTERNAL_SERVER_ERROR, &failure),
        }
    }
}

impl Bridge {
    /// The build id that the device's profiles have: "" if they have none. `None` if it has no such profile.
    async fn device_build_id(&self) -> Result<Option<String>, String> {
        for name in PROFILES {
            let question = Question::get(&format!("/debug/pprof/{name}"));
            let answer = self.device.ask(question).await;
            let answer = answer.map_err(|failure| failure.to_string())?;
            if answer.status == StatusCode::OK {
                let id = self.with_code(move |_| profile::build_id(&answer.body));
                return id.await?.map(Some).map_err(|refusal| refusal.to_string());
            }
        }
        Ok(None)
    }

    /// The device was seen to run the program with this build id, or does not say which. Answers what is new.
    fn learn(&self, id: &str) -> Option<String> {
        let is_known = !id.is_empty() && !self.build_id.is_empty();
        let now = Some(id.to_owned()).filter(|id| is_known && *id != self.build_id);
        let before = core::mem::replace(&mut *self.other(), now.clone());
        if !is_known {
            let has_warned = self.has_warned.swap(true, Ordering::Relaxed);
            return (!has_warned).then(|| DOUBT.to_owned());
        }
        match now {
            _ if now == before => None,
            Some(other) => Some(self.refusal(&other)),
            None => Some("the device runs this file now".to_owned()),
        }
    }

    /// As [`learn`](Self::learn), and tells the user what is new.
    fn note(&self, id: &str) {
        if let Some(news) = self.learn(id) {
            eprintln!("bridge: {news}");
        }
    }

    fn refusal(&self, other: &str) -> String {
        // A hostile device could write to the user's terminal by it.
        let shown: String = other.chars().take(MOST_SHOWN).collect();
        let other = shown.escape_debug();
        format!(
            "wrong ELF file: the device runs the program with build id {other}, and {} has build id {}. Start the \
             bridge with the file that is on the device",
            self.path, self.build_id
        )
    }

    fn other(&self) -> MutexGuard<'_, Option<String>> {
        // It is whole at any time.
        self.other.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what may take its time, and only one at a time: decoded, a profile may be many times as large.
    async fn with_code<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Code) -> R + Send + 'static,
    ) -> Result<R, String> {
        let mut code = Arc::clone(&self.code).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || f(&mut code));
        let path = &self.path;
        done.await
            .map_err(|error| format!("{path} can't be read: {error}"))
    }
}

/// The body of a request; `None` if it is too large. It is read to its end all the same: a client that still sends
/// when the connection is closed may never see the answer.
async fn read(mut body: Incoming) -> Result<Option<Bytes>, hyper::Error> {
    let mut bytes = Some(Vec::new());
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame?.into_data() {
            bytes = bytes.filter(|bytes| bytes.len() + piece.len() <= MOST_ASKED);
            bytes
                .iter_mut()
                .for_each(|bytes| bytes.extend_from_slice(&piece));
        }
    }
    Ok(bytes.map(Bytes::from))
}

/// Whether the name that a client used is this machine's own. A page of a foreign web site that makes its name lead
/// here (DNS rebinding) gives itself away by it.
fn is_for_this_machine<B>(request: &Request<B>) -> bool {
    let headers = request.headers().get_all(HOST).iter();
    let authority = request
        .uri()
        .authority()
        .map(|authority| Ok(authority.as_str()));
    let mut names = headers.map(HeaderValue::to_str).chain(authority);
    names.all(|name| name.is_ok_and(|name| is_own_name(without_port(name))))
}

fn is_own_name(name: &str) -> bool {
    let literal = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    literal.unwrap_or(name).parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

/// As Go's `strconv.ParseUint(word, 0, 64)`: the base is in the prefix. `None` for 0 too.
fn parse_address(word: &[u8]) -> Option<u64> {
    let word = core::str::from_utf8(word).ok()?.trim_ascii();
    if word.len() > MOST_WORD {
        return None;
    }
    let (digits, base) = match word.as_bytes() {
        [b'0', b'x' | b'X', ..] => (word.get(2..)?, 16),
        [b'0', b'o' | b'O', ..] => (word.get(2..)?, 8),
        [b'0', b'b' | b'B', ..] => (word.get(2..)?, 2),
        [b'0', _, ..] => (word.get(1..)?, 8),
        _ => (word, 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, base)
        .ok()
        .filter(|&address| address != 0)
}

fn escape(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    escaped.replace('>', "&gt;").replace('"', "&quot;")
}

/// The device's answer, with a body that may be another. How its end is told is decided here anew.
fn forward(answer: Answer) -> Reply {
    reply_with(answer.status, answer.headers, answer.body.into())
}

fn reply_with(status: StatusCode, headers: HeaderMap, content: Content) -> Reply {
    let mut reply = Response::new(content);
    *reply.status_mut() = status;
    *reply.headers_mut() = headers;
    let headers = reply.headers_mut();
    // RFC 9110 7.6.1: what is named there is of the connection, too.
    let named = headers.get_all(CONNECTION).iter();
    let named: Vec<HeaderName> = (named.filter_map(|value| value.to_str().ok()))
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let of_the_connection = [
        CONNECTION,
        CONTENT_LENGTH,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    for name in named.into_iter().chain(of_the_connection) {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
    reply
}

/// An error of what is served here, which `go tool pprof` shows.
fn error(status: StatusCode, text: &dyn fmt::Display) -> Reply {
    let mut reply = plain_error(status, &text.to_string());
    reply
        .headers_mut()
        .insert(X_GO_PPROF, HeaderValue::from_static("1"));
    reply
}

fn plain_error(status: StatusCode, text: &str) -> Reply {
    let mut reply = Response::new(format!("{text}\n").into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, TEXT);
    reply.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    reply
}
