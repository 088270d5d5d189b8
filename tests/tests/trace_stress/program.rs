//! A program that does anything at any time: threads, an executor, guards that change hands, facts that are not true.

use core::cell::{Cell, RefCell};
use core::mem;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::task::{Context as PollContext, Poll, Waker};
use core::time::Duration;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::Wake;
use std::thread::{self, JoinHandle};

use picoprof::Instant;
use picoprof::profile::labels::LabelSetId;
use picoprof::profile::task::{Context, Tasks, Traced, Tracer, set_tracer, task};
use picoprof::stack::StackId;
use picoprof::stack::capture::Registers;
use picoprof::trace::{self, Event, Limits, Region, Stream, Trace, TraceBuffers};

use crate::target::{DEAD, HEAP, Host, LABELS, TASKS, stack, ticks};

/// Numbers that look like those of dice.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below another.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ it >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ it >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (it ^ it >> 31) % limit
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// Takes any one out.
    fn take<T>(&mut self, all: &mut Vec<T>) -> Option<T> {
        let count = all.len() as u64;
        (count > 0).then(|| all.swap_remove(self.below(count) as usize))
    }
}

/// The buffers that there are; which are in use.
static TRACES: LazyLock<Vec<(Trace<'static>, [usize; 2])>> = LazyLock::new(|| {
    fn new<const BUFFERS: usize, const WORDS: usize, const NAMES: usize>()
    -> (Trace<'static>, [usize; 2]) {
        let buffers: &'static TraceBuffers<BUFFERS, WORDS, NAMES> = Box::leak(Box::default());
        (buffers.view(), [BUFFERS, WORDS])
    }
    vec![
        new::<2, 32, 8>(),
        new::<3, 32, 8>(),
        new::<4, 33, 16>(),
        new::<5, 48, 16>(),
        new::<8, 32, 8>(),
        new::<8, 64, 16>(),
        new::<7, 61, 64>(),
        new::<16, 64, 64>(),
        new::<64, 128, 64>(),
        new::<64, 1024, 64>(),
    ]
});
static TRACE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STREAM: Stream = const { Stream::new(0) };
    static SAMPLES: Stream = const { Stream::new(0) };
    static CONTEXT: Cell<Context> = const { Cell::new(Context::EMPTY) };
    /// The buffers that it records into.
    static LAST: Cell<usize> = const { Cell::new(0) };
    /// By how much its clock is late.
    static SKEW: Cell<u64> = const { Cell::new(0) };
    static STASH: RefCell<Stash> = RefCell::default();
}

/// Where everything is recorded now.
fn current() -> Trace<'static> {
    let now = TRACE.load(Ordering::SeqCst);
    let last = LAST.replace(now);
    if last != now {
        // A program has one place to record to. Here there are others after it, so what a thread has there is given back.
        close(TRACES[last].0);
    }
    TRACES[now].0
}

fn close(trace: Trace<'static>) {
    STREAM.with(|stream| trace.close_stream(stream));
    SAMPLES.with(|stream| trace.close_stream(stream));
}

fn record(event: Event) {
    record_with(event, "", "");
}

fn record_with(event: Event, name: &'static str, text: &str) {
    let trace = current();
    let ticks = ticks() - SKEW.get();
    STREAM.with(|stream| match (name, text) {
        ("", "") => trace.record(stream, ticks, event),
        _ => trace.record_with(stream, ticks, event, name, text),
    });
}

struct Told;

impl Tracer for Told {
    fn tasks(&self) -> Tasks<'static> {
        TASKS.view()
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(ticks())
    }

    fn stack(&self, _registers: Registers, base: usize) -> StackId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        stack(NEXT.fetch_add(1, Ordering::Relaxed) + base as u64 % 11)
    }

    fn current(&self) -> Context {
        CONTEXT.get()
    }

    fn swap_current(&self, context: Context) -> Context {
        CONTEXT.replace(context)
    }

    fn record_block(&self, _stack: StackId, _labels: LabelSetId, _waited: Duration) {}

    fn record_mutex(&self, _stack: StackId, _labels: LabelSetId, _waited: Duration) {}

    fn record(&self, event: Event) {
        record(event);
    }

    fn record_with(&self, event: Event, name: &'static str, text: &str) {
        record_with(event, name, text);
    }

    fn extend_labels(&self, base: LabelSetId, labels: &[(&str, &str)]) -> LabelSetId {
        LABELS.view().extend(base, labels)
    }
}

static TRACER: &dyn Tracer = &Told;

/// What somebody has begun and not ended.
#[derive(Default)]
struct Stash {
    regions: Vec<Region>,
    tasks: Vec<trace::Task>,
}

impl Stash {
    fn is_full(&self) -> bool {
        self.regions.len() + self.tasks.len() > 12
    }
}

/// What all share.
#[derive(Default)]
struct Shared {
    jobs: Mutex<Vec<Arc<Job>>>,
    wakers: Mutex<Vec<Waker>>,
    stash: Mutex<Stash>,
    /// Numbers that no thread has.
    numbers: Mutex<Vec<u32>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    is_over: AtomicBool,
}

static SHARED: LazyLock<Shared> = LazyLock::new(Shared::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A task of the executor's.
struct Job {
    future: Mutex<Option<Pin<Box<Traced<Script>>>>>,
    is_queued: AtomicBool,
}

impl Wake for Job {
    fn wake(self: Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::SeqCst) {
            lock(&SHARED.jobs).push(self);
        }
    }
}

impl Job {
    fn run(self: Arc<Self>) {
        self.is_queued.store(false, Ordering::SeqCst);
        let Ok(mut future) = self.future.try_lock() else {
            // Another thread polls it.
            return self.wake();
        };
        let waker = Waker::from(Arc::clone(&self));
        if let Some(it) = &mut *future
            && it
                .as_mut()
                .poll(&mut PollContext::from_waker(&waker))
                .is_ready()
        {
            *future = None;
        }
    }
}

/// A future that does anything whenever it's polled.
struct Script {
    dice: Dice,
    stash: Stash,
    inner: Option<Pin<Box<Traced<Self>>>>,
}

impl Script {
    fn new(dice: &mut Dice) -> Self {
        Self {
            dice: Dice::new(dice.below(u64::MAX)),
            stash: Stash::default(),
            inner: None,
        }
    }
}

const NAMES: [&str; 9] = [
    "accept",
    "respond",
    "flush",
    "",
    "a name with ü and 🦀",
    "runtime.main",
    "{{closure}}",
    "x",
    "long long long long long long",
];

impl Future for Script {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut PollContext<'_>) -> Poll<()> {
        let this = &mut *self;
        for _ in 0..this.dice.below(4) {
            act(&mut this.dice, &mut this.stash, 1);
        }
        if let Some(inner) = &mut this.inner
            && inner.as_mut().poll(context).is_ready()
        {
            this.inner = None;
        }
        match this.dice.below(16) {
            0 => return Poll::Ready(()),
            1 => context.waker().wake_by_ref(),
            2 => {
                // By what it is woken otherwise, too.
                let waker = context.waker().clone();
                act(&mut this.dice, &mut this.stash, 1);
                waker.wake();
            }
            // Nobody can wake it.
            3 => return Poll::Pending,
            4 if this.inner.is_none() => {
                let name = this.dice.one_of(&NAMES);
                this.inner = Some(Box::pin(task(name, Self::new(&mut this.dice))));
                context.waker().wake_by_ref();
            }
            _ => {}
        }
        let mut wakers = lock(&SHARED.wakers);
        wakers.push(context.waker().clone());
        let old = (wakers.len() > 40)
            .then(|| this.dice.take(&mut wakers))
            .flatten();
        drop(wakers);
        if let Some(old) = old {
            old.wake();
        }
        Poll::Pending
    }
}

/// Does something; what is deeper does nothing that goes deeper still.
fn act(dice: &mut Dice, stash: &mut Stash, depth: u32) {
    match dice.below(30) {
        0..4 if !stash.is_full() => {
            let name = dice.one_of(&NAMES);
            let any = stash.tasks.last().filter(|_| dice.below(2) == 0);
            let region = any.map_or_else(|| Region::new(name), |task| task.begin_region(name));
            stash.regions.push(region);
        }
        4..7 => drop(dice.take(&mut stash.regions)),
        7 if !stash.is_full() => {
            let name = dice.one_of(&NAMES);
            let part = stash.tasks.last().map(|task| task.task(name));
            stash.tasks.push(part.unwrap_or_else(|| trace::task(name)));
        }
        8 => drop(dice.take(&mut stash.tasks)),
        9 | 10 => {
            let text = "a message with äöü 🦀🦀🦀 ".repeat(dice.below(8) as usize);
            match stash.tasks.last() {
                Some(task) if dice.below(2) == 0 => task.log(dice.one_of(&NAMES), text),
                _ => trace::log(dice.one_of(&NAMES), format_args!("{text}!")),
            }
        }
        11 => {
            // They change hands.
            let mut others = lock(&SHARED.stash);
            mem::swap(&mut others.regions, &mut stash.regions);
            if dice.below(2) == 0 {
                mem::swap(&mut others.tasks, &mut stash.tasks);
            }
        }
        12 | 13 if lock(&SHARED.jobs).len() < 60 => {
            let future = task(dice.one_of(&NAMES), Script::new(dice));
            let future = match dice.below(3) {
                0 => future.labels([("route", dice.one_of(&NAMES)), ("n", "1")]),
                _ => future,
            };
            let job = Arc::new(Job {
                future: Mutex::new(Some(Box::pin(future))),
                is_queued: AtomicBool::new(false),
            });
            job.wake();
        }
        14..18 => {
            let waker = dice.take(&mut lock(&SHARED.wakers));
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        18 => {
            // Perhaps the last that has it: then it goes.
            let job = dice.take(&mut lock(&SHARED.jobs));
            drop(job);
        }
        19 => {
            let address = 16 + dice.below(64) as usize * 16;
            let size = dice.below(100_000) as usize;
            HEAP.view()
                .record_alloc(stack(dice.below(50)), LabelSetId::EMPTY, address, size);
            HEAP.view().record_free(16 + dice.below(64) as usize * 16);
        }
        _ if trace::is_on() => tell(dice, stash, depth),
        _ => {}
    }
}

/// Records what a host would.
fn tell(dice: &mut Dice, stash: &mut Stash, depth: u32) {
    let at = stack(dice.below(50));
    let place = dice.below(4) as u32;
    match dice.below(10) {
        0 | 1 => {
            record(Event::waits(place, at));
            if depth == 0 {
                thread::yield_now();
            }
            if dice.below(10) > 0 {
                record(Event::resumed());
            }
        }
        2 | 3 => record(Event::wakes(place, dice.below(3) as u32, at)),
        4 => record(Event::resumed()),
        5 => {
            let route = dice.one_of(&NAMES);
            let labels = LABELS.view().extend(LabelSetId::EMPTY, &[("route", route)]);
            record(Event::labels(labels));
        }
        6 | 7 => {
            let trace = current();
            SAMPLES.with(|stream| trace.record(stream, ticks(), Event::sample(at)));
        }
        8 if depth == 0 => interrupt(dice, stash),
        9 if depth == 0 => {
            let number = lock(&SHARED.numbers).pop();
            let Some(number) = number else {
                return;
            };
            let ticket = next_ticket();
            if dice.below(8) > 0 {
                record(Event::thread_created(ticket, at));
            }
            let seed = dice.below(u64::MAX);
            let thread = thread::spawn(move || short_thread(number, ticket, seed));
            lock(&SHARED.threads).push(thread);
        }
        _ => {}
    }
}

fn next_ticket() -> u32 {
    static TICKET: AtomicU32 = AtomicU32::new(0);
    TICKET.fetch_add(1, Ordering::Relaxed)
}

/// A handler: what it does is recorded in a stream of its own.
fn interrupt(dice: &mut Dice, stash: &mut Stash) {
    static HANDLERS: [Mutex<()>; 2] = [const { Mutex::new(()) }; 2];
    thread_local! {
        static STREAMS: [Stream; 2] = const { [const { Stream::new(0) }; 2] };
    }
    let which = dice.below(2) as usize;
    // On one core at a time.
    let Ok(_alone) = HANDLERS[which].try_lock() else {
        return;
    };
    STREAMS.with(|streams| {
        let stream = &streams[which];
        stream.set_id(200 + which as u32);
        let trace = current();
        trace.record(stream, ticks(), Event::handler_entered());
        for _ in 0..dice.below(3) {
            let wakes = Event::wakes(dice.below(4) as u32, 1, stack(dice.below(50)));
            trace.record(stream, ticks(), wakes);
        }
        act(dice, stash, 1);
        if dice.below(20) > 0 {
            trace.record(stream, ticks(), Event::handler_left());
        }
        // Another thread may be next.
        trace.close_stream(stream);
    });
}

/// Sets up what the calling thread records with.
fn begin(number: u32, dice: &mut Dice) {
    DEAD[number as usize].store(false, Ordering::SeqCst);
    STREAM.with(|stream| stream.set_id(number));
    SAMPLES.with(|stream| stream.set_id(number | Stream::SAMPLES));
    SKEW.set(dice.one_of(&[0, 0, 1000, 300_000, 5_000_000]));
}

fn short_thread(number: u32, ticket: u32, seed: u64) {
    let mut dice = Dice::new(seed);
    begin(number, &mut dice);
    if dice.below(8) > 0 && trace::is_on() {
        record(Event::thread_began(ticket));
    }
    for _ in 0..dice.below(30) {
        step(&mut dice);
    }
    if dice.below(4) > 0 && trace::is_on() {
        record(Event::thread_ended());
    }
    STASH.take();
    if dice.below(4) > 0 {
        close(current());
    }
    DEAD[number as usize].store(true, Ordering::SeqCst);
    lock(&SHARED.numbers).push(number);
}

fn step(dice: &mut Dice) {
    if dice.below(3) == 0 {
        let job = dice.take(&mut lock(&SHARED.jobs));
        if let Some(job) = job {
            job.run();
        }
    }
    STASH.with_borrow_mut(|stash| act(dice, stash, 0));
}

fn long_thread(number: u32, mut dice: Dice) {
    begin(number, &mut dice);
    while !SHARED.is_over.load(Ordering::SeqCst) {
        for _ in 0..dice.below(200) {
            step(&mut dice);
        }
        match dice.below(3) {
            0 => thread::sleep(Duration::from_micros(dice.below(1000))),
            1 => thread::yield_now(),
            _ => {}
        }
        // Those that have ended.
        let ended = {
            let mut threads = lock(&SHARED.threads);
            let (ended, others) = mem::take(&mut *threads)
                .into_iter()
                .partition(JoinHandle::is_finished);
            *threads = others;
            let ended: Vec<JoinHandle<()>> = ended;
            ended
        };
        for thread in ended {
            thread.join().expect("it does not panic");
        }
    }
    STASH.take();
}

/// Threads that go on until this is dropped.
pub(crate) struct Program {
    threads: Vec<JoinHandle<()>>,
}

impl Program {
    pub(crate) fn start(seed: u64) -> Self {
        set_tracer(&TRACER);
        lock(&SHARED.numbers).extend(10..16);
        let threads = (1..4).map(|number| {
            thread::spawn(move || long_thread(number, Dice::new(seed ^ u64::from(number) << 56)))
        });
        Self {
            threads: threads.collect(),
        }
    }

    /// What the next trace is made by; from now on all is recorded into its buffers.
    pub(crate) fn next_host(&self, dice: &mut Dice) -> Host {
        let trace = dice.below(TRACES.len() as u64) as usize;
        TRACE.store(trace, Ordering::SeqCst);
        let mut less = |most: u64| 1 + dice.below(most) as usize;
        let limits = match less(3) {
            1 => Limits::SMALL,
            2 => Limits {
                goroutines: less(8),
                streams: less(8),
                stacks: 4 + less(20),
                names: 4 + less(20),
                regions: less(4),
                pieces: less(8),
                piece_bytes: less(300),
            },
            _ => Limits {
                goroutines: 200,
                streams: 40,
                stacks: 300,
                names: 100,
                regions: 100,
                pieces: 40,
                piece_bytes: 2048,
            },
        };
        let has_symbols = dice.below(4) > 0;
        let (trace, size) = TRACES[trace];
        Host {
            trace,
            size,
            limits,
            has_symbols,
            refreshed: AtomicU32::new(0),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        SHARED.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "it does not panic");
        }
    }
}
