//! The work that is measured of tasks: very many that wait at the end of a chain of async functions, and one that is
//! polled.
//!
//! Profilers that want each async function annotated have the same chain with their annotations; [`route!`] makes both.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::Mutex;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::meter::{self, measure_ns};
use crate::{print, unknown_mode};

/// What tasks wait for; it never comes.
static NEVER: Notify = Notify::const_new();
/// Tasks that wait for it.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Waits for ever.
pub async fn never() {
    WAITING.fetch_add(1, Ordering::Relaxed);
    NEVER.notified().await;
}

/// Four async functions, each of which awaits the next one: `serve::<ROUTE>(leaf)` is the outermost.
///
/// A number makes each route a function of its own, so that there is more than one stack.
#[macro_export]
macro_rules! route {
    ($(#[$attribute:meta])* |$future:ident| $awaited:expr) => {
        $crate::route! { @ [$(#[$attribute])*] $future $awaited, serve answer, answer query, query read }

        $(#[$attribute])*
        async fn read<const ROUTE: usize>(leaf: impl Future<Output = ()>) {
            let $future = leaf;
            $awaited.await;
            core::hint::black_box(ROUTE);
        }
    };
    (@ $attributes:tt $future:ident $awaited:expr, $($name:ident $next:ident),*) => {
        $($crate::route! { @@ $attributes $future $awaited, $name $next })*
    };
    (@@ [$(#[$attribute:meta])*] $future:ident $awaited:expr, $name:ident $next:ident) => {
        $(#[$attribute])*
        async fn $name<const ROUTE: usize>(leaf: impl Future<Output = ()>) {
            let $future = $next::<ROUTE>(leaf);
            $awaited.await;
            core::hint::black_box(ROUTE);
        }
    };
}

/// Calls `$spawn` with the future of `$serve` on one of ten routes.
#[macro_export]
macro_rules! spawn_route {
    ($number:expr, $spawn:ident, $serve:ident) => {
        match $number % 10 {
            0 => $spawn($serve::<0>($crate::tasks::never())),
            1 => $spawn($serve::<1>($crate::tasks::never())),
            2 => $spawn($serve::<2>($crate::tasks::never())),
            3 => $spawn($serve::<3>($crate::tasks::never())),
            4 => $spawn($serve::<4>($crate::tasks::never())),
            5 => $spawn($serve::<5>($crate::tasks::never())),
            6 => $spawn($serve::<6>($crate::tasks::never())),
            7 => $spawn($serve::<7>($crate::tasks::never())),
            8 => $spawn($serve::<8>($crate::tasks::never())),
            _ => $spawn($serve::<9>($crate::tasks::never())),
        }
    };
}

/// A runtime of this thread, whose tasks all wait.
///
/// `spawn` starts the task with this number.
#[must_use]
pub fn spawn_all(tasks: usize, spawn: fn(usize)) -> Runtime {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        (0..tasks).for_each(spawn);
        while WAITING.load(Ordering::Relaxed) < tasks {
            yield_now().await;
        }
    });
    runtime
}

/// Bytes of resident memory that each of so many tasks takes.
pub fn measure_memory(tasks: usize, spawn: fn(usize)) {
    let (before, _) = meter::resident_mb();
    let runtime = spawn_all(tasks, spawn);
    let (after, _) = meter::resident_mb();
    print("bytes_per_task", (after - before) * 1e6 / tasks as f64);
    drop(runtime);
}

/// The waker that [`kept`] and [`cloned`] hold.
static WAKER: Mutex<Option<Waker>> = Mutex::new(None);

/// Waits for ever; keeps its waker as the futures of libraries do: it clones one only if that wakes another task than the
/// one it has.
pub async fn kept() {
    poll_fn(|context| {
        let mut waker = WAKER.lock().expect("nobody panics");
        match &mut *waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waker = Some(context.waker().clone()),
        }
        Poll::Pending
    })
    .await
}

/// Waits for ever; clones its waker at each poll.
pub async fn cloned() {
    poll_fn(|context| {
        let clone = context.waker().clone();
        *WAKER.lock().expect("nobody panics") = Some(clone);
        Poll::Pending
    })
    .await
}

/// Polls a task, so many times, in the way of a mode:
///
/// * `poll`: nothing else; the leaf is one of Tokio's that keeps its waker.
/// * `wake`: it is woken before.
/// * `clone`: the leaf clones its waker, and drops the clone it had.
pub fn poll(mode: &str, polls: usize, task: impl Future) {
    let mut task = pin!(task);
    // An executor that has nothing to do for a waker.
    let mut context = Context::from_waker(Waker::noop());
    let mut poll = || assert!(task.as_mut().poll(&mut context).is_pending());
    poll();
    match mode {
        "poll" | "clone" => measure_ns(polls, poll),
        "wake" => measure_ns(polls, || {
            let waker = WAKER.lock().expect("nobody panics").take();
            let waker = waker.expect("the task waits");
            waker.wake_by_ref();
            *WAKER.lock().expect("nobody panics") = Some(waker);
            poll();
        }),
        _ => unknown_mode(),
    }
}

/// Calls `$poll(future)` with the task that a mode polls.
#[macro_export]
macro_rules! poll_route {
    ($mode:expr, $polls:expr, $wrap:expr, $serve:ident) => {{
        use $crate::tasks;
        match $mode {
            "clone" => tasks::poll($mode, $polls, $wrap($serve::<0>(tasks::cloned()))),
            "wake" => tasks::poll($mode, $polls, $wrap($serve::<0>(tasks::kept()))),
            _ => tasks::poll($mode, $polls, $wrap($serve::<0>(tasks::never()))),
        }
    }};
}
