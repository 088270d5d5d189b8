//! Tasks of a made-up program: the wrapper as it is, around futures that do as they are told, under a tracer that is
//! told the stacks and the time.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::pin::Pin;
use core::task::{Context as PollContext, Poll, Waker};
use core::time::Duration;
use std::rc::Rc;

use picoprof::Instant;
use picoprof::profile::labels::LabelSetId;
use picoprof::profile::task::{self, Context, TaskPool, Tasks, Traced, Tracer, set_tracer};
use picoprof::stack::StackId;
use picoprof::stack::capture::Registers;

/// How many tasks there can be at once.
pub const TASKS: usize = 64;

type Pool = TaskPool<TASKS>;

thread_local! {
    /// Pools that no model has now.
    static FREE: RefCell<Vec<&'static Pool>> = const { RefCell::new(Vec::new()) };
    /// What the tracer says of the thread: the pool, the stack, the time and the context.
    static POOL: Cell<Option<&'static Pool>> = const { Cell::new(None) };
    static STACK: Cell<StackId> = const { Cell::new(StackId::EMPTY) };
    static NOW: Cell<Instant> = const { Cell::new(Instant::from_millis(1000)) };
    static CONTEXT: Cell<Context> = const { Cell::new(Context::EMPTY) };
}

static TRACER: &dyn Tracer = &Told;

/// A tracer that says what the thread was told. What tasks wait it doesn't count.
struct Told;

impl Tracer for Told {
    fn tasks(&self) -> Tasks<'static> {
        POOL.get().expect("a model is at work").view()
    }

    fn now(&self) -> Instant {
        NOW.get()
    }

    fn stack(&self, _registers: Registers, _base: usize) -> StackId {
        STACK.get()
    }

    fn current(&self) -> Context {
        CONTEXT.get()
    }

    fn swap_current(&self, context: Context) -> Context {
        CONTEXT.replace(context)
    }

    fn record_block(&self, _stack: StackId, _labels: LabelSetId, _waited: Duration) {}

    fn record_mutex(&self, _stack: StackId, _labels: LabelSetId, _waited: Duration) {}
}

/// A task that waits whenever it's polled.
struct Waiting(Rc<Orders>);

/// What a task is told, and what became of it.
struct Orders {
    /// Whether its waker is to be kept.
    keeps_waker: Cell<bool>,
    awaits_at: Cell<StackId>,
    waker: Cell<Option<Waker>>,
    /// Another task to spawn, and that task.
    spawns: Cell<Option<(&'static str, StackId)>>,
    spawned: Cell<Option<Ran>>,
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            keeps_waker: Cell::default(),
            awaits_at: Cell::new(StackId::EMPTY),
            waker: Cell::default(),
            spawns: Cell::default(),
            spawned: Cell::default(),
        }
    }
}

impl Future for Waiting {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut PollContext<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        self.0.waker.set(self.0.keeps_waker.get().then_some(waker));
        if let Some((name, stack)) = self.0.spawns.take() {
            STACK.set(stack);
            self.0.spawned.set(Some(Ran::new(name)));
        }
        Poll::Pending
    }
}

/// A task with those who can wake it.
struct Ran {
    future: Pin<Box<Traced<Waiting>>>,
    orders: Rc<Orders>,
}

impl Ran {
    fn new(name: &'static str) -> Self {
        let orders = Rc::<Orders>::default();
        let future = Box::pin(task::task(name, Waiting(orders.clone())));
        Self { future, orders }
    }

    fn poll(&mut self) {
        let context = &mut PollContext::from_waker(Waker::noop());
        assert_eq!(self.future.as_mut().poll(context), Poll::Pending);
    }
}

/// The tasks of one model, numbered from 0. They stay on its thread.
pub struct ModelTasks {
    pool: &'static Pool,
    all: RefCell<Vec<Option<Ran>>>,
}

impl ModelTasks {
    /// The pool.
    #[must_use]
    pub fn view(&self) -> Tasks<'static> {
        self.pool.view()
    }

    /// From now on there's a task that was spawned at a stack; answers its number, if there was room to see it.
    pub fn spawn(&self, name: &'static str, stack: StackId, now: Instant) -> Option<usize> {
        self.begin(stack, now);
        self.push(Ran::new(name))
    }

    /// The same, by another task, which is polled for that.
    pub fn spawn_by(
        &self,
        parent: usize,
        name: &'static str,
        stack: StackId,
        now: Instant,
    ) -> Option<usize> {
        let orders = self.with(parent, |ran| ran.orders.clone())?;
        orders.spawns.set(Some((name, stack)));
        self.poll(
            parent,
            orders.awaits_at.get(),
            orders.keeps_waker.get(),
            now,
        );
        self.push(orders.spawned.take()?)
    }

    /// Polls a task: it gets as far as the await at this stack. Somebody has a waker of it, or not.
    pub fn poll(&self, task: usize, stack: StackId, has_waker: bool, now: Instant) {
        self.begin(stack, now);
        self.with(task, |ran| {
            ran.orders.keeps_waker.set(has_waker);
            ran.orders.awaits_at.set(stack);
            ran.poll();
        });
    }

    /// Wakes a task, if somebody can.
    pub fn wake(&self, task: usize, now: Instant) {
        self.begin(StackId::EMPTY, now);
        let waker = self.with(task, |ran| ran.orders.waker.take());
        if let Some(waker) = waker.flatten() {
            waker.wake();
        }
    }

    /// Drops a task.
    pub fn end(&self, task: usize) {
        self.begin(StackId::EMPTY, NOW.get());
        if let Some(task) = self.all.borrow_mut().get_mut(task) {
            *task = None;
        }
    }

    /// What is to be seen of the task with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<task::Task> {
        let tasks = self.pool.view();
        let mut all = (0..tasks.capacity()).filter_map(|slot| tasks.get(slot));
        all.find(|task| task.name == name)
    }

    fn begin(&self, stack: StackId, now: Instant) {
        POOL.set(Some(self.pool));
        STACK.set(stack);
        NOW.set(now);
    }

    fn push(&self, ran: Ran) -> Option<usize> {
        let lost = format!("{:?}", ran.future).contains("None");
        let mut all = self.all.borrow_mut();
        all.push(Some(ran));
        (!lost).then(|| all.len() - 1)
    }

    fn with<R>(&self, task: usize, run: impl FnOnce(&mut Ran) -> R) -> Option<R> {
        self.all.borrow_mut().get_mut(task)?.as_mut().map(run)
    }
}

impl Default for ModelTasks {
    fn default() -> Self {
        set_tracer(&TRACER);
        let free = FREE.with_borrow_mut(Vec::pop);
        Self {
            pool: free.unwrap_or_else(|| Box::leak(Box::default())),
            all: RefCell::default(),
        }
    }
}

impl Drop for ModelTasks {
    fn drop(&mut self) {
        self.begin(StackId::EMPTY, NOW.get());
        self.all.borrow_mut().clear();
        assert!(self.pool.view().is_empty(), "tasks are left over");
        FREE.with_borrow_mut(|free| free.push(self.pool));
    }
}

impl fmt::Debug for ModelTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ModelTasks")
            .field(&self.pool.view().len())
            .finish()
    }
}
