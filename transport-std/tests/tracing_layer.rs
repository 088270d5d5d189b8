//! What the layer for `tracing` records, as a tracer that stands in for this process's hears it.

use core::cell::Cell;
use core::fmt;
use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context as Polling, Poll, Waker};
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use picoprof::profile::labels::LabelSetId;
use picoprof::profile::task::{Context, TaskPool, Tasks};
use picoprof::stack::StackId;
use picoprof::stack::capture::Registers;
use picoprof::trace::{Event, FlightRecorder};
use picoprof::{Instant, Tracer};
use picoprof_std::TracingLayer;
use tracing::{Instrument, Level, Span, error, info, info_span, span};
use tracing_subscriber::layer::SubscriberExt;

static TASKS: TaskPool<8> = TaskPool::new();
static TRACER: &dyn Tracer = &Listener;
static HEARD: Mutex<Vec<Heard>> = Mutex::new(Vec::new());

thread_local! {
    static CURRENT: Cell<Context> = const { Cell::new(Context::EMPTY) };
}

struct Listener;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    what: What,
    /// The region's or the task's; 0 of a log.
    id: u32,
    /// The task of a region or a log.
    task: u32,
    name: &'static str,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Region,
    RegionEnds,
    Task,
    TaskEnds,
    Log,
}

/// An event says what it is to those that debug it: the kind and the first argument in one number, the second in the other.
fn hear(event: Event, name: &'static str, text: &str) {
    let words = format!("{event:?}");
    let numbers = words.split(|c: char| !c.is_ascii_digit());
    let numbers: Vec<u64> = numbers.filter_map(|number| number.parse().ok()).collect();
    let [head, tail] = numbers[..] else {
        panic!("{words}");
    };
    let (first, second) = ((head >> 32) as u32, tail as u32);
    let (what, id, task) = match head & 0x3f {
        14 => (What::Region, first, second),
        15 => (What::RegionEnds, first, 0),
        16 => (What::Task, first, 0),
        17 => (What::TaskEnds, first, 0),
        18 => (What::Log, 0, first),
        _ => panic!("{words}"),
    };
    heard().push(Heard {
        what,
        id,
        task,
        name,
        text: text.into(),
    });
}

fn heard() -> MutexGuard<'static, Vec<Heard>> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tracer for Listener {
    fn tasks(&self) -> Tasks<'static> {
        TASKS.view()
    }
    fn now(&self) -> Instant {
        Instant::from_nanos(0)
    }
    fn stack(&self, _: Registers, _: usize) -> StackId {
        StackId::EMPTY
    }
    fn current(&self) -> Context {
        CURRENT.get()
    }
    fn swap_current(&self, context: Context) -> Context {
        CURRENT.replace(context)
    }
    fn record_block(&self, _: StackId, _: LabelSetId, _: Duration) {}
    fn record_mutex(&self, _: StackId, _: LabelSetId, _: Duration) {}
    fn record(&self, event: Event) {
        hear(event, "", "");
    }
    fn record_with(&self, event: Event, name: &'static str, text: &str) {
        hear(event, name, text);
    }
}

/// Runs `f` with the layer, while something is recorded if `f` begins that; answers what was.
///
/// One at a time: who records is the same for all threads.
fn listen(f: impl FnOnce()) -> Vec<Heard> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    picoprof::set_tracer(&TRACER);
    heard().clear();
    let subscriber = tracing_subscriber::registry().with(TracingLayer::new());
    tracing::subscriber::with_default(subscriber, f);
    core::mem::take(&mut *heard())
}

fn record() -> FlightRecorder {
    FlightRecorder::begin().unwrap()
}

/// As `request(parse log:text parse) request`, with each name's end as `)`; `!` where what ends is not what began last.
/// `^` is before what is of no task.
fn told(heard: &[Heard]) -> String {
    let mut open: Vec<&Heard> = Vec::new();
    let mut all = String::new();
    let mut add = |text: fmt::Arguments<'_>| {
        if !all.is_empty() {
            all.push(' ');
        }
        fmt::Write::write_fmt(&mut all, text).unwrap();
    };
    for it in heard {
        let of = if it.task == 0 { "^" } else { "" };
        match it.what {
            What::Task => {
                open.push(it);
                add(format_args!("{}{{", it.name));
            }
            What::Region => {
                open.push(it);
                add(format_args!("{of}{}(", it.name));
            }
            What::Log => add(format_args!("{of}{:?}", it.text)),
            What::TaskEnds | What::RegionEnds => {
                let (begin, end) = match it.what {
                    What::TaskEnds => (What::Task, '}'),
                    _ => (What::Region, ')'),
                };
                let is_it = |other: &&&Heard| other.what == begin && other.id == it.id;
                let place = open.iter().rposition(|other| is_it(&other)).unwrap();
                let is_last = place + 1 == open.len();
                let began = open.remove(place);
                let wrong = if is_last { "" } else { "!" };
                add(format_args!("{wrong}{end}{}", began.name));
            }
        }
    }
    assert_eq!(open, [] as [&Heard; 0]);
    all
}

/// Pending for so many polls.
struct Polls(u32);

impl Future for Polls {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Polling<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        Poll::Pending
    }
}

fn run(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let mut polling = Polling::from_waker(Waker::noop());
    while future.as_mut().poll(&mut polling).is_pending() {}
}

#[test]
fn a_root_is_a_task_and_what_is_entered_are_its_regions() {
    let heard = listen(|| {
        let _recorder = record();
        let request = info_span!("request");
        request.in_scope(|| {
            info_span!("parse").in_scope(|| info!("12 bytes"));
            info_span!("store").in_scope(|| ());
        });
        request.in_scope(|| ());
    });
    assert_eq!(
        told(&heard),
        "request{ request( parse( \"12 bytes\" )parse store( )store )request request( )request }request"
    );
    let task = heard[0].id;
    let of_tasks = heard.iter().filter(|it| it.task != 0);
    assert!(of_tasks.clone().count() == 5 && of_tasks.into_iter().all(|it| it.task == task));
}

#[test]
fn an_instrumented_future_is_a_region_for_each_poll() {
    let heard = listen(|| {
        let _recorder = record();
        run(async {
            Polls(1).instrument(info_span!("read")).await;
            info!("between");
        }
        .instrument(info_span!("connection")));
    });
    assert_eq!(
        told(&heard),
        "connection{ connection( read( )read )connection \
         connection( read( )read read( )read \"between\" )connection connection( )connection }connection"
    );
}

#[test]
fn an_event_is_a_log_with_all_its_fields() {
    let heard = listen(|| {
        let _recorder = record();
        error!(target: "db", code = 7, name = "käse", is_late = true, "no {}", "answer");
        info!(only = ?Some(1));
        span!(Level::INFO, "query").in_scope(|| info!(message = "last", first = 1.5));
        info!("{}", "long ".repeat(100));
    });
    let logs: Vec<_> = heard.iter().filter(|it| it.what == What::Log).collect();
    assert_eq!(logs[0].text, "no answer code=7 name=käse is_late=true");
    assert_eq!((logs[0].name, logs[0].task), ("db", 0));
    assert_eq!(logs[1].text, "only=Some(1)");
    assert_eq!(logs[1].name, "tracing_layer");
    assert_eq!(logs[2].text, "last first=1.5");
    assert_ne!(logs[2].task, 0);
    assert_eq!(logs[3].text.len(), 256);
}

#[test]
fn what_was_made_before_is_of_no_task() {
    let heard = listen(|| {
        let request = info_span!("request");
        let entered = request.enter();
        info!("nobody hears it");
        let recorder = record();
        info_span!("parse").in_scope(|| info!("heard"));
        drop(entered);
        request.in_scope(|| ());
        let late = info_span!(parent: None, "late");
        let entered = late.enter();
        drop(recorder);
        // Its region is not to be there when somebody records again.
        drop(entered);
        let again = record();
        info_span!(parent: &late, "later").in_scope(|| ());
        drop(late);
        drop(again);
    });
    let ends = heard.len() - 2;
    assert_eq!(told(&heard[..3]), "^parse( ^\"heard\" )parse");
    assert_eq!(told(&heard[3..5]), "^request( )request");
    let [task, region] = [&heard[5], &heard[6]];
    assert_eq!((task.what, task.name), (What::Task, "late"));
    assert_eq!((region.what, region.task), (What::Region, task.id));
    // What was made while the trace was taken keeps its task in the next.
    assert_eq!(heard[7].name, "later");
    assert_eq!(heard[7].task, task.id);
    assert_eq!(heard[ends].what, What::RegionEnds);
    assert_eq!(heard[ends + 1].what, What::TaskEnds);
}

#[test]
fn exits_in_any_order_and_on_any_thread_do_no_harm() {
    let heard = listen(|| {
        let _recorder = record();
        let (a, b) = (info_span!("a"), info_span!("b"));
        let (in_a, in_b) = (a.enter(), b.enter());
        drop(in_a);
        drop(in_b);
        // Once more than it was entered, and as often as it was, elsewhere.
        let exit = |span: &Span| {
            span.with_subscriber(|(id, subscriber)| subscriber.exit(id));
        };
        exit(&a);
        span_enter(&b);
        elsewhere(|| {
            exit(&b);
            let _in_b = b.enter();
        });
        exit(&b);
        // One that is never left ends with its thread.
        elsewhere(|| span_enter(&a));
        drop(a);
        drop(b);
    });
    let mut names: Vec<_> = told(&heard).split(' ').map(String::from).collect();
    assert_eq!(names[..6], ["a{", "b{", "a(", "b(", "!)a", ")b"]);
    assert_eq!(names[6..12], ["b(", "b(", ")b", ")b", "a(", ")a"]);
    names.sort();
    assert!(names.iter().any(|it| it.ends_with("}b")));
}

/// Runs `f` in a thread that has ended, with all that was its own, when this returns.
fn elsewhere(f: impl FnOnce() + Send) {
    thread::scope(|scope| scope.spawn(f).join().unwrap());
}

fn span_enter(span: &Span) {
    span.with_subscriber(|(id, subscriber)| subscriber.enter(id));
}

/// Regions that are never left don't pile up, and of many that are entered the innermost are seen.
#[test]
fn a_thread_keeps_so_many_regions_and_no_more() {
    const DEPTH: usize = 1000;
    let heard = listen(|| {
        let _recorder = record();
        let span = info_span!("deep");
        for _ in 0..DEPTH {
            span_enter(&span);
        }
        for _ in 0..DEPTH {
            span.with_subscriber(|(id, subscriber)| subscriber.exit(id));
        }
    });
    let count = |what| heard.iter().filter(|it| it.what == what).count();
    assert_eq!([count(What::Region), count(What::RegionEnds)], [DEPTH; 2]);
    let mut open = 0_usize;
    let most = heard.iter().map(|it| {
        open = match it.what {
            What::Region => open + 1,
            What::RegionEnds => open - 1,
            _ => open,
        };
        open
    });
    assert!(most.max().unwrap() <= 129);
}

#[test]
fn nothing_is_told_while_nothing_is_recorded() {
    let heard = listen(|| {
        let span = info_span!("request");
        span.in_scope(|| info!("a message"));
        drop(span);
    });
    assert_eq!(heard, []);
}
