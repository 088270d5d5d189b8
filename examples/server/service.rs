//! The service: tasks that talk with the clients, threads that work, one thread that looks after the store.
//!
//! | request | answer |
//! |---|---|
//! | `PUT /documents/ID` | keeps the JSON of a [`Document`](document::Document), and has its digest put on record |
//! | `GET /documents/ID` | the document as a page |
//! | `GET /search?q=WORDS` | the documents that hold all of the words, best first |
//! | `GET /report` | what each author has in the store |

#![forbid(unsafe_code)]

use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use picoprof_std::{task, trace, with_labels};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::bell::Bell;
use crate::document;
use crate::http::{Received, Request, Response};
use crate::notary::{self, Line};
use crate::report;
use crate::store::Store;

/// A service that runs.
#[derive(Debug)]
pub(crate) struct Service {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Runtime,
    threads: Vec<JoinHandle<()>>,
}

/// What the tasks and threads of the service share.
#[derive(Debug)]
struct Shared {
    store: Store,
    jobs: Queue<Job>,
    line: Line,
    bell: Arc<Bell>,
    stopping: AtomicBool,
    served: AtomicU64,
}

/// A request on its way to a worker, and where the answer goes.
#[derive(Debug)]
struct Job {
    request: Request,
    route: &'static str,
    traced: Arc<trace::Task>,
    answer: oneshot::Sender<Answer>,
}

/// What a worker makes of a request.
#[derive(Debug)]
enum Answer {
    Done(Response),
    /// A document is in the store, and its digest is to be put on record.
    Stored {
        digest: [u8; 32],
        replaced: bool,
    },
}

/// Threads that talk with the clients.
const TALKERS: usize = 2;
/// Threads that do the work.
const WORKERS: usize = 4;
/// How many requests may wait for a worker.
const BACKLOG: usize = 64;
/// How long a task waits for a client before it looks whether the service stops.
const GLANCE: Duration = Duration::from_millis(250);
/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(5);

/// The budget of the store swings between these, as that of a cache which makes room for its
/// neighbours does.
const BUDGET_LOW: usize = 8 << 20;
const BUDGET_HIGH: usize = 32 << 20;
const BUDGET_PERIOD: Duration = Duration::from_secs(40);
const MAINTENANCE_PERIOD: Duration = Duration::from_millis(200);
const DOCUMENT_AGE: Duration = Duration::from_secs(120);

const HITS: usize = 10;
const ID_LIMIT: usize = 64;

impl Service {
    /// Starts the service on a listener.
    ///
    /// # Errors
    ///
    /// When the system has no thread to give. Those already started end with the program.
    pub(crate) fn spawn(listener: StdListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (line, end_of_line) = Line::new();
        let shared = Arc::new(Shared {
            store: Store::new(BUDGET_LOW),
            jobs: Queue::new(BACKLOG),
            line,
            bell: Arc::new(Bell::default()),
            stopping: AtomicBool::new(false),
            served: AtomicU64::new(0),
        });
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(TALKERS)
            .thread_name("talker")
            .enable_all()
            .build()?;
        let mut service = Self {
            address,
            shared,
            runtime,
            threads: Vec::new(),
        };
        for number in 0..WORKERS {
            service.spawn_thread(format!("worker-{number}"), work)?;
        }
        service.spawn_thread("maintenance".to_owned(), maintain)?;

        // picoprof: a future that is wrapped is in the profiles as a task with this name, from here on.
        let _context = service.runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        let shared = &service.shared;
        tokio::spawn(task("notary", notary::keep_records(end_of_line)));
        tokio::spawn(task("acceptor", accept(listener, Arc::clone(shared))));
        tokio::spawn(task("leaked on purpose", Arc::clone(&shared.bell).heard()));
        Ok(service)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until all its threads have ended: for ever, unless one of them panics.
    pub(crate) fn join(self) {
        for thread in self.threads {
            // The panic of a thread has been printed where it happened.
            drop(thread.join());
        }
    }

    /// Ends it: what is being answered is answered first, if that is soon. Returns how many requests it served.
    pub(crate) fn stop(self) -> u64 {
        self.shared.stopping.store(true, Ordering::Release);
        // Two glances: the acceptor's, and that of a connection which it accepted last.
        thread::sleep(2 * GLANCE);
        self.shared.jobs.close();
        let shared = Arc::clone(&self.shared);
        self.join();
        shared.served.load(Ordering::Relaxed)
    }

    fn spawn_thread(
        &mut self,
        name: String,
        run: impl FnOnce(&Shared) + Send + 'static,
    ) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name(name);
        self.threads.push(thread.spawn(move || run(&shared))?);
        Ok(())
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while !shared.is_stopping() {
        match timeout(GLANCE, listener.accept()).await {
            Ok(Ok((stream, _))) => {
                let connection = serve_connection(stream, Arc::clone(&shared));
                // A connection that breaks is the client's affair.
                tokio::spawn(task("connection", connection));
            }
            // Out of file descriptors, most likely: time may help.
            Ok(Err(_)) => tokio::time::sleep(GLANCE).await,
            Err(_) => {}
        }
    }
}

async fn serve_connection(mut stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received = Received::default();
    loop {
        let request = match read_request(&mut stream, &mut received, &shared).await? {
            Next::Request(request) => request,
            Next::Refused(response) => return stream.write_all(&response.message(false)).await,
            Next::Nothing => return Ok(()),
        };
        let keep = request.keep && !shared.is_stopping();
        // picoprof: labels tell what it is done for. Any future can be a task of its own within another one.
        let route = route(&request);
        let response = task("request", respond(request, route, &shared))
            .labels([("route", route)])
            .await;
        timeout(PATIENCE, stream.write_all(&response.message(keep))).await??;
        shared.served.fetch_add(1, Ordering::Relaxed);
        if !keep {
            return Ok(());
        }
    }
}

/// What a client sends next.
#[derive(Debug)]
enum Next {
    Request(Request),
    /// What is no request, and the answer to it.
    Refused(Response),
    Nothing,
}

async fn read_request(
    stream: &mut TcpStream,
    received: &mut Received,
    shared: &Shared,
) -> io::Result<Next> {
    let heard = Instant::now();
    loop {
        match received.take_request() {
            Ok(None) => {}
            Ok(Some(request)) => return Ok(Next::Request(request)),
            Err(status) => return Ok(Next::Refused(error(status, "not taken"))),
        }
        match timeout(GLANCE, stream.read_buf(received.buffer())).await {
            Ok(Ok(0)) => return Ok(Next::Nothing),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) if heard.elapsed() < PATIENCE && !shared.is_stopping() => {}
            Err(_) if received.is_empty() => return Ok(Next::Nothing),
            Err(_) => return Ok(Next::Refused(error(408, "too slow"))),
        }
    }
}

/// Has a request answered by a worker, and a document's digest put on record.
async fn respond(request: Request, route: &'static str, shared: &Shared) -> Response {
    // picoprof: in an execution trace, what is done for a request, on any thread and in any task.
    let traced = Arc::new(trace::task(route));
    traced.log(
        "http",
        format_args!("{} {}", request.method, request.target),
    );
    let (answer, answered) = oneshot::channel();
    let job = Job {
        request,
        route,
        traced: Arc::clone(&traced),
        answer,
    };
    if shared.jobs.push(job).is_err() {
        return error(503, "too busy");
    }
    let (digest, replaced) = match answered.await {
        Ok(Answer::Stored { digest, replaced }) => (digest, replaced),
        Ok(Answer::Done(response)) => return response,
        Err(_) => return error(500, "the worker is gone"),
    };
    let _region = traced.begin_region("registration");
    // picoprof: the frames of async functions are often inlined, which costs them their names; a task's is not.
    match task("registration", shared.line.register(digest)).await {
        Some(receipt) => text(
            if replaced { 200 } else { 201 },
            format!("{}\n{}\n", hex(&digest), hex(&receipt)),
        ),
        None => error(500, "the notary is gone"),
    }
}

/// A name for what a request is about.
fn route(request: &Request) -> &'static str {
    let path = request.target.split('?').next().unwrap_or_default();
    match (request.method.as_str(), path) {
        ("PUT", path) if path.starts_with("/documents/") => "put",
        ("GET", path) if path.starts_with("/documents/") => "get",
        ("GET", "/search") => "search",
        ("GET", "/report") => "report",
        _ => "other",
    }
}

/// A worker. It keeps a frame of its own, for readers that know nothing of inlined functions.
#[inline(never)]
fn work(shared: &Shared) {
    while let Some(job) = shared.jobs.pop() {
        // picoprof: on a thread, labels hold for a function's time.
        let answer = with_labels([("route", job.route)], || {
            job.traced
                .region("answer", || answer(&job.request, &shared.store))
        });
        // The client may be gone.
        let _ = job.answer.send(answer);
    }
}

fn maintain(shared: &Shared) {
    let start = Instant::now();
    while !shared.is_stopping() {
        thread::sleep(MAINTENANCE_PERIOD);
        let now = Instant::now();
        shared.store.set_budget(budget(now - start));
        shared.store.expire(now, DOCUMENT_AGE);
        shared.bell.take_down();
    }
}

/// The budget after so long: up for half of the period, and down again.
fn budget(elapsed: Duration) -> usize {
    let phase = (elapsed.as_secs_f64() / BUDGET_PERIOD.as_secs_f64()).fract();
    let height = 1.0 - (2.0 * phase - 1.0).abs();
    BUDGET_LOW + ((BUDGET_HIGH - BUDGET_LOW) as f64 * height) as usize
}

fn answer(request: &Request, store: &Store) -> Answer {
    let (path, query) = match request.target.split_once('?') {
        Some((path, query)) => (path, query),
        None => (request.target.as_str(), ""),
    };
    let id = path.strip_prefix("/documents/");
    Answer::Done(match (request.method.as_str(), path, id) {
        (_, _, Some(id)) if !is_id(id) => error(400, "not a name for a document"),
        ("PUT", _, Some(id)) => return put_document(id, &request.body, store),
        ("GET", _, Some(id)) => get_document(id, store),
        ("GET", "/search", _) => search(query, store),
        ("GET", "/report", _) => make_report(store),
        ("GET", "/", _) => text(200, USAGE.to_owned()),
        (_, "/" | "/search" | "/report", _) | (_, _, Some(_)) => error(405, "no such method"),
        _ => error(404, "no such page"),
    })
}

const USAGE: &str = "\
PUT /documents/ID     {\"title\": \"\", \"author\": \"\", \"tags\": [\"\"], \"paragraphs\": [\"\"]}
GET /documents/ID
GET /search?q=WORDS
GET /report
";

fn is_id(id: &str) -> bool {
    (1..=ID_LIMIT).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn put_document(id: &str, body: &[u8], store: &Store) -> Answer {
    let document = match document::parse(body) {
        Ok(document) => document,
        Err(invalid) => return Answer::Done(error(422, &invalid.to_string())),
    };
    let (packed, terms) = match document::pack(document) {
        Ok(packed) => packed,
        Err(failure) => return Answer::Done(error(500, &failure.to_string())),
    };
    let digest = packed.digest;
    let replaced = store.put(id, packed, &terms, Instant::now());
    Answer::Stored { digest, replaced }
}

fn get_document(id: &str, store: &Store) -> Response {
    let Some(entry) = store.get(id) else {
        return error(404, "no such document");
    };
    match document::unpack(&entry.packed) {
        Ok(document) => Response {
            status: 200,
            media_type: "text/html; charset=utf-8",
            body: document::render(&document).into_bytes(),
        },
        Err(failure) => error(500, &failure.to_string()),
    }
}

fn search(query: &str, store: &Store) -> Response {
    let mut words: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "q")
        .flat_map(|(_, value)| document::words(&value).collect::<Vec<_>>())
        .collect();
    words.sort_unstable();
    words.dedup();
    json(&store.search(&words, HITS))
}

fn make_report(store: &Store) -> Response {
    match report::make(&store.entries(), store.usage(), Instant::now()) {
        Ok(report) => json(&report),
        Err(failure) => error(500, &failure.to_string()),
    }
}

fn json<T: Serialize>(value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => Response {
            status: 200,
            media_type: "application/json",
            body,
        },
        Err(failure) => error(500, &failure.to_string()),
    }
}

fn text(status: u16, body: String) -> Response {
    Response {
        status,
        media_type: "text/plain; charset=utf-8",
        body: body.into_bytes(),
    }
}

fn error(status: u16, why: &str) -> Response {
    text(status, format!("{why}\n"))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('?');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Items on their way to threads, first come, first served.
#[derive(Debug)]
struct Queue<T> {
    state: Mutex<QueueState<T>>,
    /// Told when an item comes, and when no more will.
    changed: Condvar,
    limit: usize,
}

#[derive(Debug)]
struct QueueState<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(QueueState {
                items: VecDeque::new(),
                closed: false,
            }),
            changed: Condvar::new(),
            limit,
        }
    }

    /// Gives the item back if the queue is full or closed. Waits for no room, so that a task may call it.
    fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.state();
        if state.closed || state.items.len() >= self.limit {
            return Err(item);
        }
        state.items.push_back(item);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for an item. None once the queue is closed and empty.
    fn pop(&self) -> Option<T> {
        let mut state = self
            .changed
            .wait_while(self.state(), |state| {
                state.items.is_empty() && !state.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.items.pop_front()
    }

    fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, QueueState<T>> {
        // Nothing that runs under the lock leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::load::Connection;

    fn service() -> Service {
        Service::spawn(StdListener::bind(("127.0.0.1", 0)).unwrap()).unwrap()
    }

    fn client(service: &Service) -> Connection {
        Connection::open(service.address()).unwrap()
    }

    fn ask(client: &mut Connection, method: &str, target: &str, body: &str) -> (u16, String) {
        let (status, body) = client.ask(method, target, body.as_bytes()).unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_document_comes_back() {
        let service = service();
        let mut client = client(&service);
        let document = r#"{"title":"Tea","author":"Ann Lee","paragraphs":["Hot water."]}"#;
        assert_eq!(ask(&mut client, "PUT", "/documents/tea", document).0, 201);
        let (status, digest) = ask(&mut client, "PUT", "/documents/tea", document);
        assert_eq!((status, digest.len()), (200, 130));
        let (status, page) = ask(&mut client, "GET", "/documents/tea", "");
        assert!(status == 200 && page.contains("<p>Hot water.\n"), "{page}");
        let (status, hits) = ask(&mut client, "GET", "/search?q=WATER+hot", "");
        assert!(status == 200 && hits.contains("\"tea\""), "{hits}");
        assert_eq!(ask(&mut client, "GET", "/search?q=cold", "").1, "[]");
        let (status, report) = ask(&mut client, "GET", "/report", "");
        assert!(status == 200 && report.contains("\"Ann Lee\""), "{report}");
        assert_eq!(service.stop(), 6);
    }

    #[test]
    fn mistakes_are_answered() {
        let service = service();
        let mut client = client(&service);
        for (method, target, body, status) in [
            ("GET", "/", "", 200),
            ("GET", "/documents/none", "", 404),
            ("GET", "/elsewhere", "", 404),
            ("DELETE", "/documents/none", "", 405),
            ("PUT", "/report", "", 405),
            ("GET", "/documents/../x", "", 400),
            ("PUT", "/documents/a", "{}", 422),
        ] {
            assert_eq!(
                ask(&mut client, method, target, body).0,
                status,
                "{method} {target}"
            );
        }
        service.stop();
    }

    #[test]
    fn an_idle_client_does_not_keep_it_from_stopping() {
        let service = service();
        let _idle = client(&service);
        let before = Instant::now();
        service.stop();
        assert!(before.elapsed() < PATIENCE);
    }

    #[test]
    fn the_budget_swings() {
        let at = |tenths: u32| budget(BUDGET_PERIOD * tenths / 10);
        assert_eq!(at(0), BUDGET_LOW);
        assert_eq!(at(5), BUDGET_HIGH);
        assert!(at(2) > at(1) && at(8) > at(9));
        assert!(at(1).abs_diff(at(19)) < 1000);
    }

    #[test]
    fn a_queue_keeps_order_and_its_limit() {
        let queue = Queue::new(2);
        assert_eq!(
            (queue.push(1), queue.push(2), queue.push(3)),
            (Ok(()), Ok(()), Err(3))
        );
        assert_eq!(queue.pop(), Some(1));
        queue.close();
        assert_eq!(queue.push(4), Err(4));
        assert_eq!((queue.pop(), queue.pop()), (Some(2), None));
    }
}
