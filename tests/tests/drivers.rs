//! The drivers of the core over streams that do as little at a time as they may: all say the same.

#![forbid(unsafe_code)]

use core::cell::{Cell, RefCell};
use core::convert::Infallible;
use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::VecDeque;
use std::rc::Rc;

use picoprof::Instant;
use picoprof::http::Connection;
use picoprof::transport::{
    AsyncClock, Clock, Polled, Received, Transport, Wait, poll, serve_async, serve_blocking,
};
use picoprof_tests::http::{Response, parse_answers};
use picoprof_tests::model::{Model, talk};
use picoprof_tests::trace::Trace;
use proptest::prelude::*;

const HEAD: usize = 256;

/// Requests of every sort, the last of which ends the connection.
const REQUESTS: &[u8] = b"GET /debug/pprof/ HTTP/1.1\r\nHost: a\r\n\r\n\
    POST /debug/pprof/symbol HTTP/1.1\r\nHost: a\r\nContent-Length: 27\r\n\r\n0x1001+0x1002+0x1003+0x1004\
    GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\nHost: a\r\n\r\n\
    GET /debug/pprof/nosuch HTTP/1.1\r\nHost: a\r\n\r\n\
    GET /debug/pprof/symbol?0x1001+0x1006 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
    GET /debug/pprof/heap?seconds=2 HTTP/1.1\r\nHost: a\r\n\r\n\
    GET /debug/pprof/heap?debug=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn model() -> Box<Model> {
    let model = Box::<Model>::default();
    model.sample_cpu(&[0x1001, 0x2003], None, 3);
    model.allocate(&[0x4001, 0x2003, 0x3004], 0x10_0000, 100);
    model
}

fn answers(sent: &[u8]) -> Vec<Response> {
    parse_answers(sent, &["GET", "POST"]).expect("HTTP")
}

/// Without a driver.
fn expected() -> Vec<Response> {
    let answers = answers(&talk::<HEAD>(&model(), &[REQUESTS], 1024).sent);
    assert_eq!(answers.len(), 7);
    answers
}

/// How many bytes each operation may move, over and over; 0 is not at all.
#[derive(Clone, Debug)]
struct Pace {
    steps: Vec<usize>,
    next: usize,
}

impl Pace {
    fn new(steps: &[usize]) -> Self {
        Self {
            steps: steps.to_vec(),
            next: 0,
        }
    }

    fn next(&mut self) -> usize {
        let step = self.steps[self.next % self.steps.len()];
        self.next += 1;
        step
    }
}

/// Paces that do not stand still for ever.
fn paces() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    let pace = || {
        prop::collection::vec(0usize..90, 1..8).prop_map(|mut steps| {
            steps.push(1);
            steps
        })
    };
    (pace(), pace())
}

// ---- poll

/// A stream with short buffers of its own, of which the other side fills and empties a part at a time.
struct Lending {
    to_receive: VecDeque<u8>,
    received: Vec<u8>,
    to_send: Vec<u8>,
    sent: Vec<u8>,
    is_closed: bool,
    is_ended_after: bool,
}

const LENT: usize = 50;

impl Lending {
    fn new(is_ended_after: bool) -> Self {
        Self {
            to_receive: REQUESTS.iter().copied().collect(),
            received: Vec::new(),
            to_send: Vec::new(),
            sent: Vec::new(),
            is_closed: false,
            is_ended_after,
        }
    }

    /// How far it has come.
    fn moved(&self) -> [usize; 4] {
        let to_receive = self.to_receive.len();
        [
            to_receive,
            self.received.len(),
            self.to_send.len(),
            self.sent.len(),
        ]
    }

    /// The other side sends and takes a few bytes.
    fn move_on(&mut self, sends: usize, takes: usize) {
        let n = sends
            .min(self.to_receive.len())
            .min(LENT - self.received.len());
        self.received.extend(self.to_receive.drain(..n));
        let n = takes.min(self.to_send.len());
        self.sent.extend(self.to_send.drain(..n));
    }
}

impl Transport for Lending {
    type Error = Infallible;

    fn receive(&mut self, consume: impl FnOnce(&[u8]) -> usize) -> Result<Received, Infallible> {
        if !self.received.is_empty() {
            let n = consume(&self.received);
            self.received.drain(..n);
        }
        let is_over = self.received.is_empty() && self.to_receive.is_empty();
        Ok(if is_over && self.is_ended_after {
            Received::Ended
        } else {
            Received::Open
        })
    }

    fn transmit(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> Result<bool, Infallible> {
        let room = LENT - self.to_send.len();
        if room == 0 {
            return Ok(false);
        }
        let mut buffer = vec![0; room];
        let n = write(&mut buffer);
        self.to_send.extend_from_slice(&buffer[..n]);
        Ok(true)
    }

    fn close(&mut self) {
        self.is_closed = true;
    }
}

fn polled(sends: &[usize], takes: &[usize]) -> Vec<Response> {
    let model = model();
    let mut connection = Connection::<_, HEAD>::new(&*model);
    let mut stream = Lending::new(false);
    let (mut sends, mut takes) = (Pace::new(sends), Pace::new(takes));
    let mut now = Instant::from_millis(0);
    let mut quiet = 0;
    loop {
        let before = stream.moved();
        stream.move_on(sends.next(), takes.next());
        let Ok(wait) = poll(&mut connection, &mut stream, now);
        match wait {
            Wait::Closed => break,
            // All that could be sent was sent.
            Wait::Transmit => assert_eq!(stream.to_send.len(), LENT),
            Wait::Receive(time) => {
                assert!(time > now);
                // Longer than any pace stands still: it waits for the time.
                if quiet > 20 {
                    now = time;
                }
            }
        }
        quiet = if before == stream.moved() {
            quiet + 1
        } else {
            0
        };
        assert!(quiet < 100, "it stands still");
    }
    assert!(stream.is_closed && !model.is_sampling());
    stream.move_on(0, LENT);
    answers(&stream.sent)
}

#[test]
fn a_poll_says_when_to_come_again() {
    let model = model();
    let mut connection = Connection::<_, HEAD>::new(&*model);
    let mut stream = Lending::new(true);
    let start = Instant::from_millis(7);
    stream.to_receive.clear();
    stream.is_ended_after = false;
    let Ok(wait) = poll(&mut connection, &mut stream, start);
    assert_eq!(wait, Wait::Receive(start + Duration::from_secs(60)));
    stream.received = b"GET /debug/pprof/profile HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    let Ok(wait) = poll(&mut connection, &mut stream, start);
    assert_eq!(wait, Wait::Receive(start + Duration::from_secs(30)));
    assert!(model.is_sampling());
    // The client goes.
    stream.is_ended_after = true;
    let Ok(wait) = poll(&mut connection, &mut stream, start);
    assert_eq!(wait, Wait::Closed);
    assert!(!model.is_sampling() && stream.is_closed);
}

#[test]
fn a_poll_without_room_waits_for_room() {
    let model = model();
    let mut connection = Connection::<_, HEAD>::new(&*model);
    let mut stream = Lending::new(true);
    stream.to_receive.clear();
    stream.received = b"GET /debug/pprof/cmdline HTTP/1.0\r\n\r\n".to_vec();
    let mut polls = 0;
    let mut wait = Wait::Transmit;
    while wait == Wait::Transmit {
        Ok(wait) = poll(&mut connection, &mut stream, Instant::from_millis(0));
        assert!(wait == Wait::Closed || stream.to_send.len() == LENT);
        let sent = core::mem::take(&mut stream.to_send);
        stream.sent.extend(sent);
        polls += 1;
    }
    // No more of them than buffers.
    assert_eq!(polls, stream.sent.len().div_ceil(LENT));
    assert_eq!(answers(&stream.sent)[0].body, b"app\0-v\0file");
}

// ---- blocking

/// What both kinds of embedded streams are made of.
struct Stream {
    to_receive: VecDeque<u8>,
    sent: Vec<u8>,
    reads: Pace,
    writes: Pace,
    is_flushed: bool,
}

impl Stream {
    fn new(reads: &[usize], writes: &[usize]) -> Self {
        Self {
            to_receive: REQUESTS.iter().copied().collect(),
            sent: Vec::new(),
            reads: Pace::new(reads),
            writes: Pace::new(writes),
            is_flushed: true,
        }
    }

    /// Whoever waits for an answer must have it by then.
    fn read_now(&mut self, buffer: &mut [u8], most: usize) -> usize {
        assert!(self.is_flushed, "it reads before it has sent");
        assert!(!buffer.is_empty(), "it reads nothing");
        let n = most.min(buffer.len()).min(self.to_receive.len());
        for (place, byte) in buffer.iter_mut().zip(self.to_receive.drain(..n)) {
            *place = byte;
        }
        n
    }

    fn write_now(&mut self, bytes: &[u8], most: usize) -> usize {
        let n = most.min(bytes.len());
        self.sent.extend_from_slice(&bytes[..n]);
        self.is_flushed = false;
        n
    }
}

impl embedded_io::ErrorType for Stream {
    type Error = Infallible;
}

impl embedded_io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let most = self.reads.next().max(1);
        Ok(self.read_now(buffer, most))
    }
}

impl embedded_io::Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let most = self.writes.next().max(1);
        Ok(self.write_now(bytes, most))
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        self.is_flushed = true;
        Ok(())
    }
}

/// A clock that a wait sets.
#[derive(Clone, Debug, Default)]
struct ManualClock {
    now: Rc<Cell<Instant>>,
    waits: Rc<RefCell<Vec<Instant>>>,
    /// Counts what was done without it.
    moves: Rc<Cell<usize>>,
}

impl Clock for ManualClock {
    fn now(&mut self) -> Instant {
        self.now.get()
    }

    fn wait_until(&mut self, time: Instant) {
        self.now.set(time);
        self.waits.borrow_mut().push(time);
    }
}

fn served_blocking(reads: &[usize], writes: &[usize], size: usize) -> Vec<Response> {
    let model = model();
    let mut connection = Connection::<_, HEAD>::new(&*model);
    let mut stream = Stream::new(reads, writes);
    let mut clock = ManualClock::default();
    let Ok(()) = serve_blocking(&mut connection, &mut stream, &mut clock, &mut vec![0; size]);
    assert!(stream.is_flushed && !model.is_sampling());
    let waits = [1, 3].map(|n| Instant::from_millis(n * 1000));
    assert_eq!(*clock.waits.borrow(), waits);
    answers(&stream.sent)
}

#[test]
fn a_blocking_stream_that_ends_ends_the_serving() {
    let model = model();
    let mut connection = Connection::<_, HEAD>::new(&*model);
    let mut stream = Stream::new(&[1], &[1]);
    stream.to_receive.truncate(20);
    let mut clock = ManualClock::default();
    let Ok(()) = serve_blocking(&mut connection, &mut stream, &mut clock, &mut [0; 64]);
    assert!(stream.sent.is_empty());
}

// ---- polled

/// A [`Stream`] that may be asked first: it moves no more bytes than it said that it was ready for.
struct ReadyStream {
    stream: Stream,
    readable: usize,
    writable: usize,
    ends: bool,
    /// What it is asked over and over, and is ready for at once.
    endless: Option<&'static [u8]>,
}

impl ReadyStream {
    fn new(reads: &[usize], writes: &[usize]) -> Self {
        Self {
            stream: Stream::new(reads, writes),
            readable: 0,
            writable: 0,
            ends: false,
            endless: None,
        }
    }
}

impl embedded_io::ErrorType for ReadyStream {
    type Error = Infallible;
}

impl embedded_io::ReadReady for ReadyStream {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        if let Some(bytes) = self.endless.filter(|_| self.stream.to_receive.is_empty()) {
            self.stream.to_receive.extend(bytes);
        }
        self.readable = self.stream.reads.next();
        let is_over = self.stream.to_receive.is_empty();
        Ok(if is_over {
            self.ends
        } else {
            self.readable > 0
        })
    }
}

impl embedded_io::Read for ReadyStream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        assert!(self.readable > 0 || self.ends, "it would block");
        self.stream.is_flushed = true;
        let most = core::mem::take(&mut self.readable);
        Ok(self.stream.read_now(buffer, most))
    }
}

impl embedded_io::WriteReady for ReadyStream {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        self.writable = self.stream.writes.next();
        Ok(self.writable > 0)
    }
}

impl embedded_io::Write for ReadyStream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        assert!(self.writable > 0 && !bytes.is_empty(), "it would block");
        let most = core::mem::take(&mut self.writable);
        Ok(self.stream.write_now(bytes, most))
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        panic!("it would block");
    }
}

fn polled_ready<const SIZE: usize>(reads: &[usize], writes: &[usize]) -> Vec<Response> {
    let model = model();
    let mut connection = Connection::<_, HEAD>::new(&*model);
    let mut stream = Polled::<_, SIZE, SIZE>::new(ReadyStream::new(reads, writes));
    let mut now = Instant::from_millis(0);
    let mut quiet = 0;
    loop {
        let before = stream.stream().stream.sent.len();
        let to_receive = stream.stream().stream.to_receive.len();
        let Ok(wait) = poll(&mut connection, &mut stream, now);
        let inner = &stream.stream().stream;
        let has_moved = (inner.sent.len(), inner.to_receive.len()) != (before, to_receive);
        quiet = if has_moved { 0 } else { quiet + 1 };
        match wait {
            Wait::Closed => break,
            Wait::Receive(time) if quiet > 20 => now = time,
            Wait::Transmit | Wait::Receive(_) => {}
        }
        assert!(quiet < 100, "it stands still");
    }
    assert!(!model.is_sampling());
    answers(&stream.stream().stream.sent)
}

#[test]
fn a_stream_without_connections_serves_one_client_after_another() {
    let model = model();
    let mut connection = Connection::<_, HEAD>::new(&*model);
    let mut stream = Polled::<_, 64, 64>::new(ReadyStream::new(&[1000], &[1000]));
    // The first goes in the middle of its request.
    stream.stream().stream.to_receive.truncate(20);
    let start = Instant::from_millis(5);
    let Ok(wait) = poll(&mut connection, &mut stream, start);
    let given_up = start + Duration::from_secs(10);
    assert_eq!(wait, Wait::Receive(given_up));
    // However often it is asked: no spurious wake-ups.
    for _ in 0..100 {
        let Ok(again) = poll(&mut connection, &mut stream, start);
        assert_eq!(again, wait);
    }
    let mut wait = wait;
    while wait != Wait::Closed {
        Ok(wait) = poll(&mut connection, &mut stream, given_up);
    }
    let sent = core::mem::take(&mut stream.stream().stream.sent);
    assert_eq!(answers(&sent)[0].status, 408);
    // The next.
    connection = Connection::new(&*model);
    let request = b"GET /debug/pprof/cmdline HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.stream().stream.to_receive.extend(request);
    let Ok(wait) = poll(&mut connection, &mut stream, given_up);
    assert!(matches!(wait, Wait::Receive(_)));
    assert_eq!(
        answers(&stream.stream().stream.sent)[0].body,
        b"app\0-v\0file"
    );
}

#[test]
fn a_stream_that_is_always_ready_leaves_its_caller_the_time() {
    let requests: [&[u8]; 2] = [
        b"GET /debug/pprof/cmdline HTTP/1.1\r\nHost: a\r\n\r\n",
        // Addresses that nothing is said to.
        b"POST /debug/pprof/symbol HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++",
    ];
    for request in requests {
        let model = model();
        let mut connection = Connection::<_, HEAD>::new(&*model);
        let mut stream = Polled::<_, 64, 64>::new(ReadyStream::new(&[1000], &[1000]));
        stream.stream().stream.to_receive.clear();
        stream.stream().endless = Some(request);
        let mut sent = 0;
        for _ in 0..1000 {
            let Ok(wait) = poll(&mut connection, &mut stream, Instant::from_millis(0));
            // It wants to go on, if it may.
            assert_eq!(wait, Wait::Transmit);
            let now_sent = stream.stream().stream.sent.len();
            assert!(now_sent - sent <= 16 * 64, "{}", now_sent - sent);
            sent = now_sent;
        }
        assert!(sent > 10_000);
    }
}

#[test]
fn a_polled_stream_that_ends_ends_its_profile() {
    let model = model();
    let mut connection = Connection::<_, HEAD>::new(&*model);
    let mut stream = Polled::<_, 64, 64>::new(ReadyStream::new(&[1000], &[1000]));
    let request = b"GET /debug/pprof/profile HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.stream().stream.to_receive = request.iter().copied().collect();
    let start = Instant::from_millis(0);
    let Ok(wait) = poll(&mut connection, &mut stream, start);
    assert_eq!(wait, Wait::Receive(start + Duration::from_secs(30)));
    assert!(model.is_sampling());
    stream.stream().ends = true;
    let Ok(wait) = poll(&mut connection, &mut stream, start);
    assert!(wait == Wait::Closed && !model.is_sampling());
}

// ---- asynchronous

/// A [`Stream`] that is not ready each second time, and that never ends.
struct AsyncStream {
    stream: Stream,
    is_ready: bool,
    moves: Rc<Cell<usize>>,
}

impl AsyncStream {
    fn new(stream: Stream, clock: &ManualClock) -> Self {
        Self {
            stream,
            is_ready: false,
            moves: clock.moves.clone(),
        }
    }

    async fn readiness(&mut self) {
        core::future::poll_fn(|context| {
            self.is_ready = !self.is_ready;
            if self.is_ready {
                self.moves.set(self.moves.get() + 1);
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

impl embedded_io_async::ErrorType for AsyncStream {
    type Error = Infallible;
}

impl embedded_io_async::Read for AsyncStream {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        self.readiness().await;
        if self.stream.to_receive.is_empty() {
            core::future::pending::<()>().await;
        }
        let most = self.stream.reads.next().max(1);
        Ok(self.stream.read_now(buffer, most))
    }
}

impl embedded_io_async::Write for AsyncStream {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.readiness().await;
        let most = self.stream.writes.next().max(1);
        Ok(self.stream.write_now(bytes, most))
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        self.stream.is_flushed = true;
        Ok(())
    }
}

/// Is ready when the clock says so.
struct Until {
    clock: ManualClock,
    time: Instant,
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.clock.now.get() >= self.time {
            return Poll::Ready(());
        }
        let mut waits = self.clock.waits.borrow_mut();
        if waits.last() != Some(&self.time) {
            waits.push(self.time);
        }
        Poll::Pending
    }
}

impl AsyncClock for ManualClock {
    fn now(&mut self) -> Instant {
        self.now.get()
    }

    fn wait_until(&mut self, time: Instant) -> impl Future<Output = ()> {
        Until {
            clock: self.clone(),
            time,
        }
    }
}

/// Polls on; when nothing moves any more, the time comes that it waits for.
fn block_on<F: Future>(clock: &ManualClock, future: F) -> F::Output {
    let mut future = pin!(future);
    let (mut moves, mut quiet) = (0, 0);
    loop {
        if let Poll::Ready(output) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return output;
        }
        quiet = if clock.moves.get() == moves {
            quiet + 1
        } else {
            0
        };
        moves = clock.moves.get();
        if quiet > 4 {
            let last = *clock.waits.borrow().last().expect("it waits for a time");
            clock.now.set(last.max(clock.now.get()));
        }
        assert!(quiet < 100, "it stands still");
    }
}

fn served_async(reads: &[usize], writes: &[usize], size: usize) -> Vec<Response> {
    let model = model();
    let mut connection = Connection::<_, HEAD>::new(&*model);
    let clock = ManualClock::default();
    let mut stream = AsyncStream::new(Stream::new(reads, writes), &clock);
    let mut buffer = vec![0; size];
    let mut its_clock = clock.clone();
    let serving = serve_async(&mut connection, &mut stream, &mut its_clock, &mut buffer);
    let Ok(()) = block_on(&clock, serving);
    assert!(stream.stream.is_flushed && !model.is_sampling());
    answers(&stream.stream.sent)
}

#[test]
fn an_async_client_that_says_nothing_is_left() {
    let model = model();
    let mut connection = Connection::<_, HEAD>::new(&*model);
    let clock = ManualClock::default();
    let mut stream = AsyncStream::new(Stream::new(&[1], &[1]), &clock);
    stream.stream.to_receive.clear();
    let mut its_clock = clock.clone();
    let mut buffer = [0; 64];
    let serving = serve_async(&mut connection, &mut stream, &mut its_clock, &mut buffer);
    let Ok(()) = block_on(&clock, serving);
    assert_eq!(clock.now.get(), Instant::from_millis(60_000));
    assert!(stream.stream.sent.is_empty());
}

// ---- all of them

/// Times of a wait are the driver's, so durations are not compared: the bodies of binary profiles.
fn comparable(mut answers: Vec<Response>) -> Vec<Response> {
    for answer in &mut answers {
        if answer.header("content-type") == Some("application/octet-stream") {
            let mut profile = picoprof_tests::profile::decode(&answer.body).expect("a profile");
            profile.duration_nanos = 0;
            answer.body = prost::Message::encode_to_vec(&profile);
        }
    }
    answers
}

#[test]
fn drivers_agree() {
    let expected = comparable(expected());
    for pace in [1, 2, 7, 50, 1000] {
        assert_eq!(comparable(polled(&[pace], &[pace])), expected, "{pace}");
        let ready = [
            polled_ready::<1>(&[pace], &[pace]),
            polled_ready::<64>(&[pace], &[pace]),
            polled_ready::<300>(&[pace], &[pace]),
        ];
        assert_eq!(ready.map(comparable), [(); 3].map(|()| expected.clone()));
        for size in [1, 9, 64, 500] {
            assert_eq!(
                comparable(served_blocking(&[pace], &[pace], size)),
                expected
            );
            assert_eq!(comparable(served_async(&[pace], &[pace], size)), expected);
        }
    }
}

proptest! {
    #[test]
    fn drivers_agree_at_any_pace((reads, writes) in paces(), size in 1usize..300) {
        let expected = comparable(expected());
        prop_assert_eq!(&comparable(polled(&reads, &writes)), &expected);
        prop_assert_eq!(&comparable(polled_ready::<50>(&reads, &writes)), &expected);
        prop_assert_eq!(&comparable(served_blocking(&reads, &writes, size)), &expected);
        prop_assert_eq!(&comparable(served_async(&reads, &writes, size)), &expected);
    }
}

// ---- traces

const TRACE: &[u8] =
    b"GET /debug/pprof/trace?seconds=0.5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn assert_is_trace(sent: &[u8]) {
    let answers = answers(sent);
    assert_eq!((answers.len(), answers[0].status), (1, 200));
    let _whole = Trace::of(&answers[0].body);
    assert!(!picoprof::trace::is_on());
}

/// Each comes back when it is told, and no sooner. All in one test, as there is one trace at a time.
#[test]
fn a_trace_is_sent_while_it_is_taken() {
    let model = model();
    model.keep_trace();
    let end = Instant::from_millis(500);
    let often = 25..=100;

    let mut connection = Connection::<_, HEAD>::new(&*model);
    let mut stream = Lending::new(false);
    stream.to_receive.clear();
    stream.received = TRACE.to_vec();
    let (mut now, mut waits) = (Instant::from_millis(0), 0);
    loop {
        let Ok(wait) = poll(&mut connection, &mut stream, now);
        let sent = core::mem::take(&mut stream.to_send);
        stream.sent.extend(sent);
        match wait {
            Wait::Closed => break,
            Wait::Transmit => {}
            Wait::Receive(time) => {
                assert!(time > now && time <= end);
                now = time;
                waits += 1;
            }
        }
    }
    assert!(now == end && often.contains(&waits), "{waits}");
    assert_is_trace(&stream.sent);

    // Its client goes meanwhile.
    let mut connection = Connection::<_, HEAD>::new(&*model);
    let mut stream = Lending::new(false);
    stream.to_receive.clear();
    stream.received = TRACE.to_vec();
    let mut wait = Wait::Transmit;
    while wait == Wait::Transmit {
        Ok(wait) = poll(&mut connection, &mut stream, Instant::from_millis(0));
        stream.to_send.clear();
    }
    assert!(picoprof::trace::is_on());
    stream.is_ended_after = true;
    let Ok(wait) = poll(&mut connection, &mut stream, Instant::from_millis(1));
    assert!(wait == Wait::Closed && stream.is_closed && !picoprof::trace::is_on());

    let mut connection = Connection::<_, HEAD>::new(&*model);
    let mut stream = Polled::<_, 64, 64>::new(ReadyStream::new(&[1000], &[1000]));
    stream.stream().stream.to_receive = TRACE.iter().copied().collect();
    let (mut now, mut waits) = (Instant::from_millis(0), 0);
    loop {
        let Ok(wait) = poll(&mut connection, &mut stream, now);
        match wait {
            Wait::Closed => break,
            Wait::Transmit => {}
            Wait::Receive(time) => {
                assert!(time > now && time <= end);
                now = time;
                waits += 1;
            }
        }
    }
    assert!(now == end && often.contains(&waits), "{waits}");
    assert_is_trace(&stream.stream().stream.sent);

    let mut connection = Connection::<_, HEAD>::new(&*model);
    let mut stream = Stream::new(&[1000], &[1000]);
    stream.to_receive = TRACE.iter().copied().collect();
    let mut clock = ManualClock::default();
    let Ok(()) = serve_blocking(&mut connection, &mut stream, &mut clock, &mut [0; 64]);
    let waits = clock.waits.take();
    assert!(waits.is_sorted_by(|before, after| before < after));
    assert!(waits.last() == Some(&end) && often.contains(&waits.len()));
    assert_is_trace(&stream.sent);

    let mut connection = Connection::<_, HEAD>::new(&*model);
    let clock = ManualClock::default();
    let mut stream = AsyncStream::new(Stream::new(&[1000], &[1000]), &clock);
    stream.stream.to_receive = TRACE.iter().copied().collect();
    let (mut its_clock, mut buffer) = (clock.clone(), [0; 64]);
    let serving = serve_async(&mut connection, &mut stream, &mut its_clock, &mut buffer);
    let Ok(()) = block_on(&clock, serving);
    let waits = clock.waits.take();
    assert!(clock.now.get() == end && often.contains(&waits.len()));
    assert_is_trace(&stream.stream.sent);
}
