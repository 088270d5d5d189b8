//! Tasks where there's no tracer, and where its pool has no room.

use core::cell::Cell;
use core::future::{pending, poll_fn};
use core::pin::pin;
use core::task::{Context as PollContext, Poll, Waker};
use core::time::Duration;
use std::sync::Arc;
use std::task::Wake;

use picoprof::profile::labels::LabelSetId;
use picoprof::profile::task::{Context, TaskPool, Tasks, Traced};
use picoprof::stack::StackId;
use picoprof::stack::capture::Registers;
use picoprof::{Instant, Tracer, set_tracer, task};

static POOL: TaskPool<2> = TaskPool::new();
static TRACER: &dyn Tracer = &Host;

thread_local! {
    static CURRENT: Cell<Context> = const { Cell::new(Context::EMPTY) };
}

struct Host;

impl Tracer for Host {
    fn tasks(&self) -> Tasks<'static> {
        POOL.view()
    }
    fn now(&self) -> Instant {
        Instant::from_nanos(1)
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
}

struct Executor;

impl Wake for Executor {
    fn wake(self: Arc<Self>) {}
}

/// Whether the future of a task is polled with the executor's own waker.
fn is_unseen(task: Traced<impl Future<Output = Waker>>) -> bool {
    let waker = Waker::from(Arc::new(Executor));
    match pin!(task).poll(&mut PollContext::from_waker(&waker)) {
        Poll::Ready(seen) => seen.will_wake(&waker),
        Poll::Pending => unreachable!("it is ready at once"),
    }
}

async fn own_waker() -> Waker {
    poll_fn(|context| Poll::Ready(context.waker().clone())).await
}

fn ids() -> Vec<u64> {
    let tasks = POOL.view();
    let tasks = (0..tasks.capacity()).filter_map(|slot| tasks.get(slot));
    tasks.map(|task| task.id).collect()
}

#[test]
fn whoever_finds_no_room_runs_unseen() {
    assert!(is_unseen(
        task("too early", own_waker()).labels([("a", "b")])
    ));

    assert!(set_tracer(&TRACER));
    assert!(!set_tracer(&TRACER), "the first one stays");
    let tasks = POOL.view();
    assert!(!is_unseen(task("seen", own_waker())));
    assert_eq!((tasks.len(), tasks.lost()), (0, 0));

    let one = task("one", pending::<()>());
    let two = task("two", pending::<()>());
    assert!(is_unseen(task("three", own_waker()).labels([("a", "b")])));
    assert_eq!((tasks.len(), tasks.lost()), (2, 1));
    // The first slot had a task before.
    assert_eq!(ids(), [3, 2]);

    drop(one);
    assert_eq!((tasks.len(), ids()), (1, vec![2]));
    let four = task("four", pending::<()>());
    assert_eq!(ids(), [5, 2]);
    drop((two, four));
    assert!(tasks.is_empty());
    let task = task("debug", async {});
    assert_eq!(format!("{task:?}"), "Traced { task: Some(7), .. }");
}
