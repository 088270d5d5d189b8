//! A small executor: tasks in a list, a bit each that says that it is to be polled, and sleep when there's none.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};

use critical_section::Mutex;
use picoprof::Instant;
use riscv_machine::interrupts;

use crate::{profiler, trace};

/// The tasks of the first hart.
pub(crate) struct Executor {
    tasks: Vec<Task>,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    ready: Arc<Ready>,
    waker: Waker,
}

/// Whether a task is to be polled.
struct Ready(AtomicBool);

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
        // It may sleep; an interrupt on the first hart itself has woken it already.
        if interrupts::hart() != 0 {
            interrupts::send(0);
        }
    }
}

impl Executor {
    pub(crate) const fn new() -> Self {
        Self { tasks: Vec::new() }
    }

    /// Adds a task.
    pub(crate) fn spawn(&mut self, future: impl Future<Output = ()> + 'static) {
        let ready = Arc::new(Ready(AtomicBool::new(true)));
        let waker = Waker::from(ready.clone());
        self.tasks.push(Task {
            future: Box::pin(future),
            ready,
            waker,
        });
    }

    /// Runs the tasks, for ever.
    pub(crate) fn run(mut self) -> ! {
        loop {
            wake_sleepers(profiler::now());
            let mut is_idle = true;
            for task in &mut self.tasks {
                if task.ready.0.swap(false, Ordering::Acquire) {
                    is_idle = false;
                    // The tasks never end.
                    let _ = task
                        .future
                        .as_mut()
                        .poll(&mut Context::from_waker(&task.waker));
                }
            }
            if is_idle {
                trace::sleep_unless(|| self.has_work());
            }
        }
    }

    fn has_work(&self) -> bool {
        self.tasks
            .iter()
            .any(|task| task.ready.0.load(Ordering::Acquire))
    }
}

/// Who sleeps, and until when.
static SLEEPERS: Mutex<RefCell<Vec<Sleeper>>> = Mutex::new(RefCell::new(Vec::new()));

struct Sleeper {
    until: Instant,
    id: u64,
    waker: Waker,
}

/// Waits until then, or up to a tick longer.
#[derive(Debug)]
pub(crate) struct Sleep {
    until: Instant,
    id: u64,
}

/// Waits until then, or up to a tick longer.
pub(crate) fn sleep_until(until: Instant) -> Sleep {
    static IDS: AtomicU64 = AtomicU64::new(0);
    let id = IDS.fetch_add(1, Ordering::Relaxed);
    Sleep { until, id }
}

impl Sleep {
    /// Takes it out of the list.
    fn forget(&self) {
        let sleeper = with_sleepers(|sleepers| {
            let index = sleepers.iter().position(|sleeper| sleeper.id == self.id);
            index.map(|index| sleepers.swap_remove(index))
        });
        drop(sleeper);
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if profiler::now() >= self.until {
            return Poll::Ready(());
        }
        self.forget();
        let waker = context.waker().clone();
        let (until, id) = (self.until, self.id);
        with_sleepers(|sleepers| sleepers.push(Sleeper { until, id, waker }));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Wakes those whose time has come. Each tick ends the executor's sleep, so it looks often enough.
fn wake_sleepers(now: Instant) {
    let next_due = || {
        with_sleepers(|sleepers| {
            let index = sleepers.iter().position(|sleeper| sleeper.until <= now);
            index.map(|index| sleepers.swap_remove(index))
        })
    };
    while let Some(sleeper) = next_due() {
        sleeper.waker.wake();
    }
}

fn with_sleepers<R>(f: impl FnOnce(&mut Vec<Sleeper>) -> R) -> R {
    critical_section::with(|cs| f(&mut SLEEPERS.borrow_ref_mut(cs)))
}

/// Waits for whichever comes first.
pub(crate) async fn either(a: impl Future, b: impl Future) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(|context| {
        let is_ready = a.as_mut().poll(context).is_ready() || b.as_mut().poll(context).is_ready();
        if is_ready {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
