//! The endpoints of a program without anything: tables in statics, streams in arrays.

use core::cell::Cell;
use core::convert::Infallible;
use core::fmt;
use core::future::{Future, ready};
use core::pin::{Pin, pin};
use core::task::{Context as PollContext, Poll, Waker};
use core::time::Duration;

use embedded_io::{ErrorType, Read, Write};
use picoprof::encode::Body;
use picoprof::http::Connection;
use picoprof::profile::Profiles;
use picoprof::profile::buckets::Buckets;
use picoprof::profile::heap::HeapProfile;
use picoprof::profile::labels::{LabelSetId, LabelTable};
use picoprof::profile::task::{Context, TaskPool, Tasks, Tracer, set_tracer, task};
use picoprof::stack::capture::Registers;
use picoprof::stack::{Marker, Memo, StackId, StackTable};
use picoprof::transport::{self, Clock, Received, Transport, Wait, serve_blocking};
use picoprof::{BuildId, Instant, LocationId, NoSymbols, StartError, Target, Thread};

static STACKS: StackTable<64, 128> = StackTable::new();
static LABELS: LabelTable<16, 8> = LabelTable::new();
static CPU: Buckets<16, 1> = Buckets::new();
static HEAP: HeapProfile<16, 16> = HeapProfile::new(1);
static THREADS: Buckets<8, 1> = Buckets::new();
static BLOCK: Buckets<8, 2> = Buckets::new();
static MUTEX: Buckets<8, 2> = Buckets::new();
static TASKS: TaskPool<8> = TaskPool::new();

/// The program as the endpoints see it.
struct Firmware {
    is_sampling: Cell<bool>,
}

/// Memory for a response: enough for a snapshot of the largest table.
#[derive(Debug)]
struct Words([u64; 80]);

impl AsRef<[u64]> for Words {
    fn as_ref(&self) -> &[u64] {
        &self.0
    }
}

impl AsMut<[u64]> for Words {
    fn as_mut(&mut self) -> &mut [u64] {
        &mut self.0
    }
}

impl Target for Firmware {
    type Scratch = Words;
    type Symbols = NoSymbols;
    type Encoded<B: Body> = B;
    type Threads = [Thread; 0];

    fn profiles(&self) -> Profiles<'_> {
        Profiles {
            labels: Some(LABELS.view()),
            cpu: Some(CPU.view()),
            heap: Some(HEAP.view()),
            threads: Some(THREADS.view()),
            block: Some(BLOCK.view()),
            mutex: Some(MUTEX.view()),
            tasks: Some(TASKS.view()),
            ..Profiles::of(STACKS.view())
        }
    }

    fn scratch(&self, words: usize) -> Option<Words> {
        let memory = Words([0; 80]);
        (words <= memory.0.len()).then_some(memory)
    }

    fn symbols(&self, _: &mut dyn Iterator<Item = (LocationId, usize)>) -> NoSymbols {
        NoSymbols {
            file: "[firmware]",
            build_id: BuildId::NONE,
        }
    }

    fn encode<B: Body>(&self, profile: B) -> B {
        profile
    }

    fn function_name(&self, pc: usize, name: &mut dyn fmt::Write) -> Result<bool, fmt::Error> {
        let is_known = (0x1000..0x2000).contains(&pc);
        if is_known {
            name.write_str("reset")?;
        }
        Ok(is_known)
    }

    fn command_line(&self) -> &[u8] {
        b"firmware"
    }

    fn threads(&self) -> [Thread; 0] {
        []
    }

    fn start_cpu(&self, _hz: u32) -> Result<u64, StartError> {
        if self.is_sampling.replace(true) {
            return Err(StartError::AlreadyRunning);
        }
        Ok(1_000_000)
    }

    fn stop_cpu(&self) {
        self.is_sampling.set(false);
    }
}

/// What tasks need: a stack that is always the same, a clock that stands still, and one thread.
struct Executor;

static TRACER: &dyn Tracer = &Executor;

/// What the only thread is at.
struct Current(Cell<Context>);

// SAFETY: this program has one thread, and no signal handlers.
unsafe impl Sync for Current {}

static CURRENT: Current = Current(Cell::new(Context::EMPTY));

impl Tracer for Executor {
    fn tasks(&self) -> Tasks<'static> {
        TASKS.view()
    }

    fn now(&self) -> Instant {
        Instant::from_millis(0)
    }

    fn stack(&self, _registers: Registers, _base: usize) -> StackId {
        STACKS.view().intern(&[0x1020, 0x1030], None)
    }

    fn current(&self) -> Context {
        CURRENT.0.get()
    }

    fn swap_current(&self, context: Context) -> Context {
        CURRENT.0.replace(context)
    }

    fn record_block(&self, stack: StackId, labels: LabelSetId, waited: Duration) {
        BLOCK.view().add_wait(stack, labels, waited);
    }

    fn record_mutex(&self, stack: StackId, labels: LabelSetId, waited: Duration) {
        MUTEX.view().add_wait(stack, labels, waited);
    }
}

/// Waits to be woken, at once or never.
struct Wakes(bool);

impl Future for Wakes {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut PollContext<'_>) -> Poll<()> {
        // It must be cloned to be seen.
        let waker = context.waker().clone();
        if self.0 {
            waker.wake();
        }
        Poll::Pending
    }
}

/// A client that has said all it has to say, and keeps the answers.
struct Client<'r> {
    request: &'r [u8],
    answer: [u8; 8192],
    len: usize,
    is_closed: bool,
}

impl<'r> Client<'r> {
    fn new(request: &'r [u8]) -> Self {
        Self {
            request,
            answer: [0; 8192],
            len: 0,
            is_closed: false,
        }
    }

    fn answer(&self) -> &[u8] {
        self.answer.get(..self.len).unwrap_or_default()
    }
}

impl ErrorType for Client<'_> {
    type Error = Infallible;
}

impl Read for Client<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let n = buffer.len().min(self.request.len()).min(7);
        let (now, later) = self.request.split_at(n);
        buffer
            .iter_mut()
            .zip(now)
            .for_each(|(to, from)| *to = *from);
        self.request = later;
        Ok(n)
    }
}

impl Write for Client<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let room = self.answer.get_mut(self.len..).unwrap_or_default();
        for (to, from) in room.iter_mut().zip(bytes) {
            *to = *from;
            self.len += 1;
        }
        // What there's no room for is noticed by who looks at the answer.
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Transport for Client<'_> {
    type Error = Infallible;

    fn receive(&mut self, consume: impl FnOnce(&[u8]) -> usize) -> Result<Received, Infallible> {
        let n = consume(self.request);
        self.request = self.request.get(n..).unwrap_or_default();
        Ok(Received::Open)
    }

    fn transmit(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> Result<bool, Infallible> {
        let room = self.answer.get_mut(self.len..).unwrap_or_default();
        if room.is_empty() {
            return Ok(false);
        }
        self.len += write(room);
        Ok(true)
    }

    fn close(&mut self) {
        self.is_closed = true;
    }
}

/// Time passes when it is waited for.
struct PassingTime(Instant);

impl Clock for PassingTime {
    fn now(&mut self) -> Instant {
        self.0
    }

    fn wait_until(&mut self, time: Instant) {
        samples();
        self.0 = time;
    }
}

/// What happens while a profile is taken.
fn samples() {
    let stack = STACKS
        .view()
        .intern(&[0x1010, 0x1020], Some(Marker::TooDeep));
    CPU.view().add(stack, 0, &[5]);
}

/// What the program does before anybody asks.
pub(crate) fn records() -> bool {
    let stacks = STACKS.view();
    let mut memo = Memo::<4>::new();
    let stack = stacks.intern_with_memo(&[0x1010, 0x1020, 0x1030], None, &mut memo);
    let again = stacks.intern(&[0x1010, 0x1020, 0x1030], None);
    let heap = HEAP.view();
    let labels = LABELS.view().extend(LabelSetId::EMPTY, &[("task", "idle")]);
    heap.record_alloc(stack, labels, 0x2000_0000, 64);
    heap.record_alloc(stack, labels, 0x2000_1000, 64);
    let was_sampled = heap.may_be_sampled(0x2000_0000) && heap.record_free(0x2000_0000);
    THREADS.view().add(stacks.intern(&[0x1040], None), 0, &[1]);
    #[cfg(feature = "defmt")]
    defmt::info!("{} {}", stack, heap.live());
    stack == again && was_sampled && heap.live() == 1 && stacks.usage() == [(4, 64), (4, 128)]
}

/// Each endpoint over both drivers; they agree, and say what they should.
pub(crate) fn answers() -> bool {
    let heap_text =
        b"\nheap profile: 1: 64 [2: 128] @ heap/2\n1: 64 [2: 128] @ 0x1011 0x1021 0x1031\n\
        # labels: {\"task\":\"idle\"}\n#\t0x1010\n#\t0x1020\n#\t0x1030\n\n";
    let context = &mut PollContext::from_waker(Waker::noop());
    set_tracer(&TRACER);
    let _new = task("new", ready(()));
    let mut woken = pin!(task("woken", Wakes(true)));
    let mut forgotten = pin!(task("forgotten", Wakes(false)));
    if woken.as_mut().poll(context).is_ready() || forgotten.as_mut().poll(context).is_ready() {
        return false;
    }
    BLOCK
        .view()
        .add(STACKS.view().intern(&[0x1010], None), 0, &[2, 300]);
    MUTEX
        .view()
        .add(STACKS.view().intern(&[0x1020], None), 0, &[2, 300]);
    let endpoints: [(&[u8], &[u8]); 17] = [
        (
            b"GET /debug/pprof/ HTTP/1.0\r\n\r\n",
            b"4 of 64 locations, 6 of 128 calls in use",
        ),
        (
            b"GET /debug/pprof/cmdline HTTP/1.0\r\n\r\n",
            b"\r\n\r\nfirmware",
        ),
        (b"GET /debug/pprof/heap HTTP/1.0\r\n\r\n", b"inuse_space"),
        (
            b"GET /debug/pprof/allocs HTTP/1.0\r\n\r\n",
            b"filename=\"allocs\"",
        ),
        (b"GET /debug/pprof/heap?debug=1 HTTP/1.0\r\n\r\n", heap_text),
        (
            b"GET /debug/pprof/threadcreate HTTP/1.0\r\n\r\n",
            b"[firmware]",
        ),
        (
            b"GET /debug/pprof/threadcreate?debug=1 HTTP/1.0\r\n\r\n",
            b"total 1\n1 @ 0x1041\n",
        ),
        (
            b"GET /debug/pprof/symbol?0x1010+0x9 HTTP/1.0\r\n\r\n",
            b"num_symbols: 1\n0x1010 reset\n",
        ),
        (
            b"POST /debug/pprof/symbol HTTP/1.0\r\nContent-Length: 13\r\n\r\n0x1010+0x1020",
            b"0x1010 reset\n0x1020 reset\n",
        ),
        (b"GET /debug/pprof/block HTTP/1.0\r\n\r\n", b"contentions"),
        (
            b"GET /debug/pprof/block?debug=1 HTTP/1.0\r\n\r\n",
            b"--- contention:\ncycles/second=1000000000\n300 2 @ 0x1011\n",
        ),
        (
            b"GET /debug/pprof/mutex?debug=1 HTTP/1.0\r\n\r\n",
            b"\nsampling period=1\n300 2 @ 0x1021\n",
        ),
        (
            b"GET /debug/pprof/goroutine?seconds=1 HTTP/1.0\r\n\r\n",
            b"filename=\"goroutine-delta\"",
        ),
        (
            b"GET /debug/pprof/goroutine?debug=1 HTTP/1.0\r\n\r\n",
            b"goroutine profile: total 3\n3 @ 0x1021 0x1031\n",
        ),
        (
            b"GET /debug/pprof/goroutineleak?debug=1 HTTP/1.0\r\n\r\n",
            b"goroutineleak profile: total 1\n",
        ),
        (
            b"GET /debug/pprof/goroutine?debug=2 HTTP/1.0\r\n\r\n",
            b"\ngoroutine 1000000003 [waiting (leaked)]:\n0x1020(...)\n\t??:0\n0x1030(...)\n\t??:0\n\
            picoprof.task[forgotten](polls: 1, spawned: ",
        ),
        (
            b"GET /debug/pprof/nosuch HTTP/1.0\r\n\r\n",
            b"X-Go-Pprof: 1\r\n",
        ),
    ];
    endpoints.iter().all(|(request, part)| {
        let firmware = Firmware {
            is_sampling: Cell::new(false),
        };
        let blocking = served(&firmware, request);
        let polled = polled(&firmware, request);
        blocking.answer() == polled.answer() && contains(polled.answer(), part)
    })
}

/// A CPU profile stops what it started, and has what came in its time.
pub(crate) fn profiles_cpu_time() -> bool {
    let firmware = Firmware {
        is_sampling: Cell::new(false),
    };
    let request = b"GET /debug/pprof/profile?seconds=2 HTTP/1.0\r\n\r\n";
    let client = served(&firmware, request);
    // `Sample.value` (field 2, packed): 5 samples, of a millisecond each in nanoseconds.
    let values = b"\x12\x05\x05\xc0\x96\xb1\x02";
    !firmware.is_sampling.get()
        && client.answer().starts_with(b"HTTP/1.1 200 OK\r\n")
        && contains(client.answer(), values)
        && polled(&firmware, request).is_closed
}

fn served<'r>(firmware: &Firmware, request: &'r [u8]) -> Client<'r> {
    let mut connection = Connection::<_, 256>::new(firmware);
    let mut client = Client::new(request);
    let mut clock = PassingTime(Instant::from_millis(0));
    let Ok(()) = serve_blocking(&mut connection, &mut client, &mut clock, &mut [0; 64]);
    client
}

fn polled<'r>(firmware: &Firmware, request: &'r [u8]) -> Client<'r> {
    let mut connection = Connection::<_, 256>::new(firmware);
    let mut client = Client::new(request);
    let mut now = Instant::from_millis(0);
    // A poll for the answer, and one for each time that is waited for.
    for _ in 0..3 {
        match transport::poll(&mut connection, &mut client, now) {
            Ok(Wait::Receive(time)) => now = time,
            Ok(Wait::Transmit | Wait::Closed) => break,
        }
    }
    client
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
