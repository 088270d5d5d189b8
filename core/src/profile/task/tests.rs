//! Tasks on executors as simple as can be.

extern crate std;

use core::cell::{Cell, RefCell};
use core::future::{Future, pending, poll_fn, ready};
use core::panic::AssertUnwindSafe;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::task::{Context as PollContext, Poll, Waker};
use core::time::Duration;
use std::boxed::Box;
use std::collections::VecDeque;
use std::panic::catch_unwind;
use std::sync::{Arc, Condvar, Mutex};
use std::task::Wake;
use std::vec::Vec;
use std::{format, thread, thread_local};

use super::*;
use crate::stack::capture::{Registers, registers_here};

static POOL: TaskPool<4096> = TaskPool::new();
static TRACER: &dyn Tracer = &Host;

/// The stacks that were asked for, as their leaf's and their base's stack pointers; a stack's number is its place.
static STACKS: Mutex<Vec<[usize; 2]>> = Mutex::new(Vec::new());
/// The waits that were counted.
static WAITS: Mutex<Vec<Wait>> = Mutex::new(Vec::new());

thread_local! {
    static CURRENT: Cell<Context> = const { Cell::new(Context::EMPTY) };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Block,
    Mutex,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    count: Count,
    stack: StackId,
    labels: u32,
    waited: Duration,
}

struct Host;

impl Host {
    fn record(count: Count, stack: StackId, labels: LabelSetId, waited: Duration) {
        WAITS.lock().unwrap().push(Wait {
            count,
            stack,
            labels: labels.to_bits(),
            waited,
        });
    }
}

impl Tracer for Host {
    fn tasks(&self) -> Tasks<'static> {
        POOL.view()
    }

    fn now(&self) -> Instant {
        static NOW: AtomicUsize = AtomicUsize::new(1);
        Instant::from_nanos(NOW.fetch_add(1, Ordering::Relaxed) as u64)
    }

    fn stack(&self, registers: Registers, base: usize) -> StackId {
        let mut stacks = STACKS.lock().unwrap();
        stacks.push([registers.sp, base]);
        StackId::from_bits(stacks.len() as u32)
    }

    fn current(&self) -> Context {
        CURRENT.get()
    }

    fn swap_current(&self, context: Context) -> Context {
        CURRENT.replace(context)
    }

    fn record_block(&self, stack: StackId, labels: LabelSetId, waited: Duration) {
        Self::record(Count::Block, stack, labels, waited);
    }

    fn record_mutex(&self, stack: StackId, labels: LabelSetId, waited: Duration) {
        Self::record(Count::Mutex, stack, labels, waited);
    }

    /// A set's number is the sum of its values.
    fn extend_labels(&self, base: LabelSetId, labels: &[(&str, &str)]) -> LabelSetId {
        let values = labels
            .iter()
            .map(|(_, value)| value.parse::<u32>().unwrap());
        LabelSetId::from_bits(base.to_bits() + values.sum::<u32>())
    }
}

/// As [`super::task`], with this host. Each test has names and labels of its own.
fn task<F: Future>(name: &'static str, future: F) -> Traced<F> {
    set_tracer(&TRACER);
    super::task(name, future)
}

fn seen(name: &str) -> Option<Task> {
    let tasks = POOL.view();
    let mut tasks = (0..tasks.capacity()).filter_map(|slot| tasks.get(slot));
    tasks.find(|task| task.name == name)
}

fn waits(labels: u32) -> Vec<Wait> {
    let waits = WAITS.lock().unwrap();
    waits
        .iter()
        .copied()
        .filter(|wait| wait.labels == labels)
        .collect()
}

fn stack(id: StackId) -> [usize; 2] {
    STACKS.lock().unwrap()[id.to_bits() as usize - 1]
}

/// An executor with one task: how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Woken {
    fn new() -> (Arc<Self>, Waker) {
        let woken = Arc::new(Self::default());
        (woken.clone(), Waker::from(woken))
    }

    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A leaf that others let go on.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<(bool, Option<Waker>)>>);

impl Gate {
    fn waker(&self) -> Option<Waker> {
        self.0.lock().unwrap().1.take()
    }

    fn open(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn pass(&self) {
        poll_fn(|context| {
            let mut state = self.0.lock().unwrap();
            if state.0 {
                return Poll::Ready(());
            }
            let kept = state.1.as_ref();
            if !kept.is_some_and(|waker| waker.will_wake(context.waker())) {
                state.1 = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut PollContext::from_waker(waker))
}

#[test]
fn a_task_begins_with_what_spawned_it() {
    let spawner = pin!(
        task("spawner", async {
            let child = task("spawned", pending::<()>()).labels([("a", "20"), ("b", "5")]);
            let seen = seen("spawned").unwrap();
            drop(child);
            seen
        })
        .labels([("a", "10")])
    );
    let (id, before) = (seen("spawner").unwrap().id, registers_here().sp);
    let Poll::Ready(child) = poll(spawner, Waker::noop()) else {
        panic!()
    };
    assert_eq!((child.name, child.parent), ("spawned", id));
    assert_eq!((child.labels.to_bits(), child.state), (35, State::New));
    assert_eq!((child.polls, child.wakers, child.woken), (0, 0, None));
    assert_eq!(
        (child.awaits_at, child.since),
        (StackId::EMPTY, child.spawned)
    );
    // Its stack ends where its spawner was polled.
    let [leaf, base] = stack(child.spawned_at);
    assert!(
        leaf < base && base <= before,
        "{leaf:#x} {base:#x} {before:#x}"
    );
    assert_eq!((seen("spawner"), seen("spawned")), (None, None));
}

#[test]
fn the_await_is_where_the_waker_was_cloned() {
    let (woken, waker) = Woken::new();
    let gate = Gate::default();
    let mut future = pin!(task("awaits", gate.pass()).labels([("", "1001")]));
    assert!(poll(future.as_mut(), &waker).is_pending());
    let first = seen("awaits").unwrap();
    assert_eq!(
        (first.state, first.polls, first.wakers),
        (State::Pending, 1, 1)
    );
    assert!(first.since > first.spawned && !first.is_leaked() && !first.is_nested);
    let [leaf, base] = stack(first.awaits_at);
    assert!(leaf < base && base <= registers_here().sp);
    // Polled for no reason: the leaf keeps its waker, and it's still the same wait.
    assert!(poll(future.as_mut(), &waker).is_pending());
    let second = seen("awaits").unwrap();
    assert_eq!(second, Task { polls: 2, ..first });
    assert!(waits(1001).is_empty());
    // Let go on: that is counted, once.
    gate.open();
    assert_eq!(woken.times(), 1);
    let third = seen("awaits").unwrap();
    assert_eq!(
        (third.state, third.wakers, third.awaits_at),
        (State::Woken, 0, first.awaits_at)
    );
    assert_eq!(third.woken, Some(third.since));
    let waits = waits(1001);
    let [
        Wait {
            count: Count::Block,
            stack,
            waited,
            ..
        },
    ] = *waits
    else {
        panic!("{waits:?}")
    };
    assert_eq!(
        (stack, waited),
        (first.awaits_at, third.since.since(first.since))
    );
    assert!(poll(future.as_mut(), &waker).is_ready());
    assert_eq!(seen("awaits"), None);
    assert_eq!(woken.times(), 1);
}

#[test]
fn a_running_task_is_seen_running() {
    let mut future = pin!(task("runs", async { seen("runs") }));
    let Poll::Ready(Some(task)) = poll(future.as_mut(), Waker::noop()) else {
        panic!()
    };
    assert_eq!(
        (task.state, task.polls, task.since),
        (State::Running, 1, task.spawned)
    );
}

#[test]
fn who_wakes_is_counted_with_its_own_labels() {
    let gate = Gate::default();
    let mut waits_for = pin!(task("waits for", gate.pass()).labels([("", "1002")]));
    assert!(poll(waits_for.as_mut(), Waker::noop()).is_pending());
    let before = registers_here().sp;
    let holder = pin!(task("holds", async { gate.open() }).labels([("", "1003")]));
    assert!(poll(holder, Waker::noop()).is_ready());
    let (blocked, held) = (waits(1002), waits(1003));
    let [
        Wait {
            count: Count::Block,
            waited,
            ..
        },
    ] = *blocked
    else {
        panic!("{blocked:?}")
    };
    let [
        Wait {
            count: Count::Mutex,
            stack: at,
            waited: kept,
            ..
        },
    ] = *held
    else {
        panic!("{held:?}")
    };
    assert!(waited == kept && !waited.is_zero());
    let [leaf, base] = stack(at);
    assert!(leaf < base && base <= before);
}

#[test]
fn woken_during_a_poll_it_is_polled_again() {
    for from_another_thread in [false, true] {
        let (woken, waker) = Woken::new();
        let mut future = pin!(
            task(
                "woken in its poll",
                poll_fn(|context| {
                    let waker = context.waker().clone();
                    if from_another_thread {
                        thread::spawn(move || waker.wake()).join().unwrap();
                    } else {
                        waker.wake();
                    }
                    Poll::<()>::Pending
                })
            )
            .labels([("", "1004")])
        );
        for polls in 1..=3 {
            assert!(poll(future.as_mut(), &waker).is_pending());
            let task = seen("woken in its poll").unwrap();
            assert_eq!(
                (task.state, task.polls, task.wakers),
                (State::Woken, polls, 0)
            );
            assert_eq!(task.woken, Some(task.since));
            assert_eq!(woken.times() as u64, polls);
        }
    }
    // It never waited.
    assert!(waits(1004).is_empty());
}

#[test]
fn a_waker_may_outlive_its_task_and_the_executor() {
    let (woken, waker) = Woken::new();
    let gate = Gate::default();
    let mut future = Box::pin(task("outlived", gate.pass()));
    assert!(poll(future.as_mut(), &waker).is_pending());
    let kept = gate.waker().unwrap();
    drop((future, waker));
    // Nothing of the executor is kept.
    assert_eq!(Arc::strong_count(&woken), 1);
    let slot = super::waker::slot_of(&kept).unwrap();
    let id = slot.id();
    let others: Vec<_> = (0..70).map(|_| task("other", pending::<()>())).collect();
    assert_eq!(slot.id(), id);
    kept.wake_by_ref();
    assert!(kept.clone().will_wake(&kept));
    thread::spawn(move || kept.wake()).join().unwrap();
    assert_eq!((woken.times(), seen("outlived")), (0, None));
    drop(others);
}

#[test]
fn a_completed_task_is_woken_in_vain() {
    let (woken, waker) = Woken::new();
    let gate = Gate::default();
    let mut future = pin!(task("completed", gate.pass()));
    assert!(poll(future.as_mut(), &waker).is_pending());
    let kept = gate.waker().unwrap();
    gate.open();
    assert!(poll(future.as_mut(), &waker).is_ready());
    assert_eq!(seen("completed"), None);
    kept.wake();
    assert_eq!(woken.times(), 0);
}

#[test]
fn dropped_at_any_time_and_anywhere() {
    drop(task("dropped", pending::<()>()));
    assert_eq!(seen("dropped"), None);
    let gate = Gate::default();
    for elsewhere in [false, true] {
        let pass = gate.clone();
        let mut future = Box::pin(task("dropped", async move { pass.pass().await }));
        assert!(poll(future.as_mut(), Waker::noop()).is_pending());
        assert!(seen("dropped").is_some());
        if elsewhere {
            thread::spawn(move || drop(future)).join().unwrap();
        } else {
            drop(future);
        }
        assert_eq!(seen("dropped"), None);
    }
    gate.open();
}

#[test]
fn a_task_in_a_task_is_counted_once_and_never_leaked() {
    let (woken, waker) = Woken::new();
    let gate = Gate::default();
    let inner = gate.clone();
    let mut future = pin!(
        task("outer", async move {
            task("inner", async move { inner.pass().await })
                .labels([("", "7")])
                .await;
        })
        .labels([("", "1010")])
    );
    assert!(poll(future.as_mut(), &waker).is_pending());
    let [outer, inner] = ["outer", "inner"].map(|name| seen(name).unwrap());
    assert_eq!(
        (inner.parent, inner.is_nested, outer.is_nested),
        (outer.id, true, false)
    );
    assert_eq!([outer.state, inner.state], [State::Pending; 2]);
    // The inner keeps the outer's waker, as any leaf does.
    assert_eq!([outer.wakers, inner.wakers], [1, 1]);
    let ([_, outer_base], [leaf, inner_base]) = (stack(outer.awaits_at), stack(inner.awaits_at));
    assert!(leaf < inner_base && inner_base < outer_base);
    gate.open();
    assert_eq!(
        ["outer", "inner"].map(|name| seen(name).unwrap().state),
        [State::Woken; 2]
    );
    assert_eq!(
        (woken.times(), waits(1010).len(), waits(1017).len()),
        (1, 0, 1)
    );
    assert!(poll(future.as_mut(), &waker).is_ready());
    assert_eq!(["outer", "inner"].map(seen), [None; 2]);
}

#[test]
fn a_panic_ends_the_task_and_leaves_no_trace_on_its_thread() {
    let outside = CURRENT.get().task();
    let mut future = pin!(task("panics", async { panic!("as it should") }));
    let result = catch_unwind(AssertUnwindSafe(|| poll(future.as_mut(), Waker::noop())));
    assert!(result.is_err() && seen("panics").is_none());
    assert_eq!(CURRENT.get().task(), outside);
    // An async block says so itself.
    let again = catch_unwind(AssertUnwindSafe(|| poll(future.as_mut(), Waker::noop())));
    assert!(again.is_err());
}

#[test]
fn leaked_is_what_nobody_can_wake() {
    // A leaf that forgets to register.
    let (woken, waker) = Woken::new();
    let mut forgets = pin!(task("forgets", pending::<()>()));
    assert!(!seen("forgets").unwrap().is_leaked());
    assert!(poll(forgets.as_mut(), &waker).is_pending());
    assert!(seen("forgets").unwrap().is_leaked());
    // Nothing keeps its executor from noticing.
    assert_eq!(Arc::strong_count(&woken), 2);

    // Whoever has the waker drops it.
    let gate = Gate::default();
    let mut dropped = pin!(task("dropped waker", gate.pass()));
    assert!(poll(dropped.as_mut(), &waker).is_pending());
    let kept = gate.waker().unwrap();
    let copy = kept.clone();
    drop(kept);
    assert_eq!(
        (
            seen("dropped waker").unwrap().wakers,
            Arc::strong_count(&woken)
        ),
        (1, 3)
    );
    drop(copy);
    assert!(seen("dropped waker").unwrap().is_leaked());
    assert_eq!(Arc::strong_count(&woken), 2);
    // An executor that polls it all the same gives it another chance.
    assert!(poll(dropped.as_mut(), &waker).is_pending());
    assert!(!seen("dropped waker").unwrap().is_leaked());
    gate.open();
    assert_eq!(woken.times(), 1);
}

#[test]
fn a_clone_elsewhere_only_counts() {
    let gate = Gate::default();
    let mut future = pin!(task("cloned elsewhere", gate.pass()));
    assert!(poll(future.as_mut(), Waker::noop()).is_pending());
    let kept = gate.waker().unwrap();
    let before = seen("cloned elsewhere").unwrap();
    let here = kept.clone();
    let there = thread::spawn(move || kept.clone()).join().unwrap();
    let after = seen("cloned elsewhere").unwrap();
    assert_eq!(
        after,
        Task {
            wakers: 2,
            ..before
        }
    );
    drop((here, there));
}

#[test]
fn the_executor_of_the_last_poll_is_woken() {
    let [(first, one), (second, two)] = [Woken::new(), Woken::new()];
    let gate = Gate::default();
    let mut future = pin!(task("moves", gate.pass()));
    assert!(poll(future.as_mut(), &one).is_pending());
    assert!(poll(future.as_mut(), &two).is_pending());
    gate.open();
    assert_eq!((first.times(), second.times()), (0, 1));
    assert_eq!(Arc::strong_count(&first), 2);
}

#[test]
fn a_second_await_is_another_wait() {
    let gates = [0; 3].map(|_| Gate::default());
    let mut future = pin!(task("two awaits", async {
        gates[0].pass().await;
        gates[1].pass().await;
    }));
    assert!(poll(future.as_mut(), Waker::noop()).is_pending());
    let first = seen("two awaits").unwrap();
    // Goes on without a wake-up, as in a `select!` that was polled for another branch.
    let kept = gates[0].waker();
    gates[0].open();
    assert!(poll(future.as_mut(), Waker::noop()).is_pending());
    let second = seen("two awaits").unwrap();
    assert_ne!(first.awaits_at, second.awaits_at);
    assert!(second.since > first.since && second.woken.is_none());
    drop(kept);
    // And one with, after which it waits for the next.
    let (woken, waker) = Woken::new();
    let pass = gates.clone();
    let mut future = pin!(task("two more awaits", async move {
        pass[1].pass().await;
        pass[2].pass().await;
    }));
    assert!(poll(future.as_mut(), &waker).is_pending());
    gates[1].open();
    assert!(poll(future.as_mut(), &waker).is_pending());
    let task = seen("two more awaits").unwrap();
    assert_eq!(
        (task.state, task.wakers, woken.times()),
        (State::Pending, 1, 1)
    );
    assert!(task.since > task.woken.unwrap());
}

#[test]
fn outside_of_a_poll_a_thread_is_at_no_task() {
    let at = RefCell::new(Vec::new());
    let mut future = pin!(task(
        "at",
        poll_fn(|_| {
            at.borrow_mut().push(CURRENT.get().task());
            // What a poll changes of its thread ends with the poll.
            CURRENT.set(CURRENT.get().with_labels(LabelSetId::from_bits(99)));
            Poll::<()>::Pending
        })
    ));
    let outside = Context::EMPTY.with_labels(LabelSetId::from_bits(42));
    CURRENT.set(outside);
    for _ in 0..2 {
        assert!(poll(future.as_mut(), Waker::noop()).is_pending());
        let context = CURRENT.get();
        assert_eq!((context.task(), context.labels().to_bits()), (None, 42));
        assert_eq!(context.base(), 0);
    }
    let id = seen("at").unwrap().id;
    assert_eq!(*at.borrow(), [Some(id); 2]);
    assert_eq!(seen("at").unwrap().labels.to_bits(), 0);
    CURRENT.set(Context::EMPTY);
    assert_eq!(
        format!("{future:?}"),
        format!("Traced {{ task: Some({id}), .. }}")
    );
}

/// An executor with several threads and one queue.
#[derive(Default)]
struct Queue {
    /// Tasks to poll; `None` ends a thread.
    tasks: Mutex<VecDeque<Option<Arc<Spawned>>>>,
    is_filled: Condvar,
}

struct Spawned {
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    is_queued: AtomicBool,
    queue: Arc<Queue>,
}

impl Queue {
    fn push(&self, task: Option<Arc<Spawned>>) {
        self.tasks.lock().unwrap().push_back(task);
        self.is_filled.notify_one();
    }

    fn spawn(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) {
        let spawned = Spawned {
            future: Mutex::new(Some(Box::pin(future))),
            is_queued: AtomicBool::new(true),
            queue: self.clone(),
        };
        self.push(Some(Arc::new(spawned)));
    }

    fn run(&self) {
        loop {
            let tasks = self.tasks.lock().unwrap();
            let mut tasks = (self.is_filled)
                .wait_while(tasks, |tasks| tasks.is_empty())
                .unwrap();
            let Some(task) = tasks.pop_front().flatten() else {
                return;
            };
            drop(tasks);
            let mut future = task.future.lock().unwrap();
            task.is_queued.store(false, Ordering::SeqCst);
            let waker = Waker::from(task.clone());
            if let Some(polled) = &mut *future
                && poll(polled.as_mut(), &waker).is_ready()
            {
                *future = None;
            }
        }
    }
}

impl Wake for Spawned {
    fn wake(self: Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::SeqCst) {
            let queue = self.queue.clone();
            queue.push(Some(self));
        }
    }
}

/// Two tasks that hand a turn to each other: each lost wake-up would stop them.
#[derive(Default)]
struct PingPong(Mutex<(usize, [Option<Waker>; 2])>);

impl PingPong {
    async fn play(&self, side: usize, turns: usize) {
        for turn in 0..turns {
            poll_fn(|context| {
                let mut state = self.0.lock().unwrap();
                if state.0 == 2 * turn + side {
                    return Poll::Ready(());
                }
                state.1[side] = Some(context.waker().clone());
                Poll::Pending
            })
            .await;
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            let waker = state.1[1 - side].take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

#[test]
fn nothing_is_lost_among_many_threads() {
    const PAIRS: usize = 50;
    const TURNS: usize = 200;
    let queue = Arc::new(Queue::default());
    let done = Arc::new(AtomicUsize::new(0));
    for _ in 0..PAIRS {
        let game = Arc::new(PingPong::default());
        for side in 0..2 {
            let (game, done, queue_too) = (game.clone(), done.clone(), queue.clone());
            queue.spawn(task("plays", async move {
                task("nested in it", game.play(side, TURNS)).await;
                // A task more, that ends on another thread perhaps.
                let done_too = done.clone();
                queue_too.spawn(task("plays on", async move {
                    ready(()).await;
                    done_too.fetch_add(1, Ordering::SeqCst);
                }));
                done.fetch_add(1, Ordering::SeqCst);
            }));
        }
    }
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let queue = queue.clone();
            thread::spawn(move || queue.run())
        })
        .collect();
    // Meanwhile all that is read is whole.
    let mut reads = 0;
    while done.load(Ordering::SeqCst) < 4 * PAIRS {
        let tasks = POOL.view();
        for task in (0..tasks.capacity()).filter_map(|slot| tasks.get(slot)) {
            reads += 1;
            assert!(
                !task.name.is_empty() && task.since >= task.spawned,
                "{task:?}"
            );
            // One that runs may not have counted this poll yet.
            let was_polled = matches!(task.state, State::Pending | State::Woken);
            assert!(!was_polled || task.polls > 0, "{task:?}");
        }
    }
    assert!(reads > 0);
    threads.iter().for_each(|_| queue.push(None));
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(
        ["plays", "nested in it", "plays on"]
            .map(seen)
            .iter()
            .all(Option::is_none)
    );
}
