//! Tasks on executors as simple as can be.

extern crate std;

use core::cell::Cell;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::Wake;
use std::{thread, thread_local};

use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context as PollContext, Poll, Waker};
use core::time::Duration;

use super::*;
use crate::stack::capture::Registers;

static POOL: TaskPool<4096> = TaskPool::new();
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
        static NOW: AtomicUsize = AtomicUsize::new(1);
        Instant::from_nanos(NOW.fetch_add(1, Ordering::Relaxed) as u64)
    }
    fn stack(&self, _: Registers, _: usize) -> StackId {
        StackId::from_bits(1)
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

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut PollContext::from_waker(&waker)) {
            return result;
        }
        thread::park();
    }
}

struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut PollContext<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        let waker = context.waker().clone();
        thread::spawn(move || waker.wake());
        Poll::Pending
    }
}

#[test]
fn a_task_runs_to_its_end() {
    set_tracer(&TRACER);
    let task = task("yields", async {
        for _ in 0..100 {
            Yield(false).await;
        }
        7
    });
    assert_eq!(block_on(task), 7);
}
