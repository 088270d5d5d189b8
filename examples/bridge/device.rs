//! The device: questions go out, whole answers come back, however slow, broken or hostile it is.

#![forbid(unsafe_code)]

use core::error::Error;
use core::fmt;
use core::future::pending;
use core::time::Duration;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::timeout;

use crate::MOST_BYTES;
use crate::serial::Line;

/// How long a device may take to accept a connection.
pub(crate) const CONNECTS: Duration = Duration::from_secs(5);

/// How long it may take for the head of an answer, beside the time that it was asked to wait, and then for each
/// piece.
const ANSWERS: Duration = Duration::from_mins(1);

/// Go's default for `profile`.
const DEFAULT_CPU_SECONDS: u64 = 30;

/// Pieces of an answer that wait for who asked.
pub(crate) const PIECES: usize = 4;

/// Of an answer's head.
const MOST_HEAD: usize = 64 << 10;

/// Where the device is.
#[derive(Debug)]
pub(crate) enum Device {
    /// As `127.0.0.1:8080`. It may have several clients at once.
    Http(String),
    /// One client after the other.
    Serial(Arc<Mutex<Line>>),
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) body: Bytes,
}

/// A part of a response, as it comes: first the head, then pieces of the body.
#[derive(Debug)]
pub(crate) enum Piece {
    Head(StatusCode, HeaderMap),
    Body(Bytes),
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Failure {}

impl Question {
    /// A GET.
    pub(crate) fn get(target: &str) -> Self {
        Self {
            method: Method::GET,
            target: target.to_owned(),
            body: Bytes::new(),
        }
    }

    /// How long the device may be silent before it answers: it waits as long as it was asked to.
    fn patience(&self) -> Duration {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let mut parameters = form_urlencoded::parse(query.as_bytes());
        let seconds = parameters.find(|(key, _)| key == "seconds");
        let seconds = seconds.and_then(|(_, value)| value.parse::<f64>().ok());
        let wait = match seconds.map(Duration::try_from_secs_f64) {
            Some(Ok(wait)) if !wait.is_zero() => wait,
            _ if path.ends_with("/profile") => Duration::from_secs(DEFAULT_CPU_SECONDS),
            _ => Duration::ZERO,
        };
        wait.saturating_add(ANSWERS)
    }

    /// As short as can be: a device may have room for a head of some hundred bytes.
    fn into_request(self, host: &str) -> Result<Request<Full<Bytes>>, Failure> {
        Request::builder()
            .method(self.method)
            .uri(self.target)
            .header(HOST, host)
            .body(Full::new(self.body))
            .map_err(|error| Failure(format!("the device can't be asked that: {error}")))
    }
}

impl Device {
    /// The device at `http://HOST[:PORT]`.
    ///
    /// # Errors
    ///
    /// If that's not what it is.
    pub(crate) fn http(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let is_http = uri.scheme_str().is_none_or(|scheme| scheme == "http");
        let is_root = ["", "/", "/debug/pprof", "/debug/pprof/"].contains(&uri.path());
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        match uri.host().filter(|_| is_http && is_root) {
            Some(host) if host == authority => Ok(Self::Http(format!("{host}:80"))),
            Some(host) if authority.starts_with(host) && uri.port_u16().is_some() => {
                Ok(Self::Http(authority.to_owned()))
            }
            _ => Err(format!("{url}: write http://HOST:PORT")),
        }
    }

    /// Its answer. Dropping the future tells a device at a socket that nobody listens any more, so that it stops
    /// sampling; a device at a serial line can't be told, and goes on to the end, which the next question waits for.
    ///
    /// # Errors
    ///
    /// If it is off, takes too long, breaks off, says too much, or does not speak HTTP.
    pub(crate) async fn ask(&self, question: Question) -> Result<Answer, Failure> {
        let (pieces, answer) = mpsc::channel(PIECES);
        let (asked, answer) = tokio::join!(self.ask_for_pieces(question, pieces), whole(answer));
        let answer = answer?;
        asked?;
        answer.ok_or_else(no_answer)
    }

    /// The same, piece by piece as it comes. If nobody takes them any more, it ends as when [`ask`](Self::ask) is dropped.
    ///
    /// # Errors
    ///
    /// As for [`ask`](Self::ask).
    pub(crate) async fn ask_for_pieces(
        &self,
        question: Question,
        pieces: Sender<Piece>,
    ) -> Result<(), Failure> {
        let patience = question.patience();
        match self {
            // A connection for each question, and closed from here: it's the side that closes first which has to
            // remember a connection for a while, and a device has few.
            Self::Http(authority) => {
                let request = question.into_request(authority)?;
                let unreachable = |why: &dyn fmt::Display| {
                    Failure(format!("the device can't be reached at {authority}: {why}"))
                };
                let stream = match timeout(CONNECTS, TcpStream::connect(authority)).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return Err(unreachable(&error)),
                    Err(late) => return Err(unreachable(&late)),
                };
                // Questions are short, and wanted at once. Where that can't be set, they are late.
                let _ = stream.set_nodelay(true);
                let leaves = pieces.clone();
                tokio::select! {
                    done = exchange(stream, request, patience, &pieces) => done,
                    () = leaves.closed() => Ok(()),
                }
            }
            Self::Serial(line) => {
                let request = question.into_request("localhost")?;
                let mut line = Arc::clone(line).lock_owned().await;
                let exchange =
                    tokio::spawn(async move { line.ask(request, patience, &pieces).await });
                let ended = exchange.await;
                ended.unwrap_or_else(|error| Err(Failure(format!("the serial line: {error}"))))
            }
        }
    }
}

/// Why there's nothing, where nothing else is known to be wrong.
pub(crate) fn no_answer() -> Failure {
    Failure("the device has no answer".to_owned())
}

/// Puts an answer together; `None` if its head did not come.
async fn whole(mut pieces: Receiver<Piece>) -> Result<Option<Answer>, Failure> {
    let Some(Piece::Head(status, headers)) = pieces.recv().await else {
        return Ok(None);
    };
    Ok(Some(Answer {
        status,
        headers,
        body: body(pieces).await?,
    }))
}

/// Puts the body of an answer together, whose head has come.
pub(crate) async fn body(mut pieces: Receiver<Piece>) -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.recv().await {
        if let Piece::Body(piece) = piece {
            if bytes.len() + piece.len() > MOST_BYTES {
                let text = format!("the device's answer has more than {MOST_BYTES} bytes");
                return Err(Failure(text));
            }
            bytes.extend_from_slice(&piece);
        }
    }
    Ok(bytes.into())
}

/// A request over a stream, and the pieces of its answer: all of them, even if nobody takes them any more. The stream is
/// as it is left.
pub(crate) async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    patience: Duration,
    pieces: &Sender<Piece>,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut http = http1::Builder::new();
    let handshake = http
        .max_buf_size(MOST_HEAD)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = handshake.map_err(broken)?;
    let answer = async move {
        let response = timeout(patience, sender.send_request(request)).await;
        let response = response.map_err(|_| late(patience))?.map_err(broken)?;
        let (head, mut body) = response.into_parts();
        if head.status.is_informational() {
            return Err(Failure(format!("the device answers {}", head.status)));
        }
        let mut is_wanted = true;
        is_wanted &= (pieces.send(Piece::Head(head.status, head.headers)).await).is_ok();
        let mut unwanted = 0;
        while let Some(frame) = timeout(ANSWERS, body.frame())
            .await
            .map_err(|_| late(ANSWERS))?
        {
            // Fields behind the last chunk are of no interest.
            let Ok(piece) = frame.map_err(broken)?.into_data() else {
                continue;
            };
            let len = piece.len();
            is_wanted = is_wanted && pieces.send(Piece::Body(piece)).await.is_ok();
            unwanted += if is_wanted { 0 } else { len };
            if unwanted > MOST_BYTES {
                return Err(Failure("the device does not come to an end".to_owned()));
            }
        }
        Ok(())
    };
    // What goes wrong on the connection is told to who waits for the answer.
    let moving = async {
        let _ = connection.await;
        pending().await
    };
    tokio::select! {
        answer = answer => answer,
        never = moving => never,
    }
}

fn late(patience: Duration) -> Failure {
    let seconds = patience.as_secs();
    Failure(format!("the device was silent for {seconds} seconds"))
}

/// With all causes, as the last of them is what went wrong.
fn broken(error: hyper::Error) -> Failure {
    let mut text = format!("the device's answer is broken: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    Failure(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_given_by_url() {
        for (url, authority) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://[::1]:80/", "[::1]:80"),
            ("http://board.local/debug/pprof/", "board.local:80"),
            ("board:99", "board:99"),
        ] {
            match Device::http(url) {
                Ok(Device::Http(known)) => assert_eq!(known, authority, "{url}"),
                other => panic!("{url}: {other:?}"),
            }
        }
        for bad in [
            "",
            "/dev/ttyUSB0",
            "https://a",
            "http://a/b",
            "http://u@a/",
            "http://a:x",
        ] {
            assert!(Device::http(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_device_may_wait_as_long_as_it_is_asked_to() {
        for (target, seconds) in [
            ("/debug/pprof/heap", 60),
            ("/debug/pprof/heap?debug=1&seconds=5", 65),
            ("/debug/pprof/profile", 90),
            ("/debug/pprof/profile?seconds=x", 90),
            ("/debug/pprof/profile?seconds=0", 90),
            ("/debug/pprof/profile?seconds=100", 160),
            ("/debug/pprof/trace?seconds=-1", 60),
        ] {
            let patience = Question::get(target).patience();
            assert_eq!(patience, Duration::from_secs(seconds), "{target}");
        }
        let longest = Question::get("/debug/pprof/profile?seconds=1e18").patience();
        assert!(longest > Duration::from_secs(1 << 50));
    }
}
