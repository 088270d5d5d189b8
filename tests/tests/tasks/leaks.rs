//! Tasks that can never run again, and those that look alike and can.

use core::future::{Future, pending};
use core::hint::black_box;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::thread;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use picoprof_std::{Traced, task};
use tokio::sync::{mpsc, oneshot};

use crate::seen::{alone, goroutines, profile, samples, text, until};

/// Keeps no waker.
struct Forgetful;

impl Future for Forgetful {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// Keeps the waker for a while, and then drops it without a word.
struct Unreliable;

impl Future for Unreliable {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            drop(waker);
        });
        Poll::Pending
    }
}

/// It is never seen to wait, so it is where it was made.
#[inline(never)]
fn forgets_to_register() -> Traced<Forgetful> {
    black_box(task("forgetful", Forgetful))
}

async fn loses_its_waker() {
    Unreliable.await;
}

async fn selects(mut never: mpsc::Receiver<()>, end: oneshot::Receiver<()>) {
    tokio::select! {
        _ = never.recv() => (),
        _ = end => (),
    }
}

async fn joins(mut end: mpsc::Receiver<()>) {
    tokio::join!(
        async { end.recv().await },
        tokio::time::sleep(Duration::from_millis(1))
    );
}

async fn has_many(ends: Vec<oneshot::Receiver<()>>) {
    let mut all: FuturesUnordered<_> = ends
        .into_iter()
        .map(|end| task("one_of_many", one_of_many(end)))
        .collect();
    while all.next().await.is_some() {}
}

async fn one_of_many(end: oneshot::Receiver<()>) {
    let _ = end.await;
}

async fn has_a_timeout(end: oneshot::Receiver<()>) {
    let _ = tokio::time::timeout(Duration::from_secs(60), end).await;
}

async fn is_idle(mut messages: mpsc::Receiver<()>) {
    while messages.recv().await.is_some() {}
}

async fn is_cancelled() {
    pending::<()>().await;
}

/// A task that is its own in the middle of another one.
async fn is_nested(end: oneshot::Receiver<()>) {
    task("one_of_many", one_of_many(end)).await;
}

const REACHABLE: [&str; 7] = [
    "selects",
    "joins",
    "has_many",
    "one_of_many",
    "has_a_timeout",
    "is_idle",
    "is_nested",
];

#[test]
fn what_cannot_run_again_is_found_and_nothing_else() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("there is room for it");
    let _entered = runtime.enter();
    let (never, nothing) = mpsc::channel(1);
    let (join, joined) = mpsc::channel(1);
    let (message, messages) = mpsc::channel(1);
    let (ends, mut ended): (Vec<_>, Vec<_>) = (0..8).map(|_| oneshot::channel()).unzip();
    let mut end = || ended.pop().expect("there are enough");
    let reachable = [
        runtime.spawn(task("selects", selects(nothing, end()))),
        runtime.spawn(task("joins", joins(joined))),
        runtime.spawn(task("has_many", has_many(vec![end(), end(), end()]))),
        runtime.spawn(task("has_a_timeout", has_a_timeout(end()))),
        runtime.spawn(task("is_idle", is_idle(messages))),
        runtime.spawn(task("is_nested", is_nested(end()))),
    ];
    let leaks = [
        runtime.spawn(forgets_to_register()),
        runtime.spawn(task("loses_its_waker", loses_its_waker())),
    ];
    let cancelled = runtime.spawn(task("is_cancelled", is_cancelled()));
    cancelled.abort();
    until("both are found", || {
        let leaked = samples(&profile("goroutineleak"));
        ["forgets_to_register", "loses_its_waker"]
            .iter()
            .all(|function| goroutines(&leaked, function, None) == 1)
    });
    for _ in 0..50 {
        let leaked = samples(&profile("goroutineleak"));
        for function in ["forgets_to_register", "loses_its_waker"] {
            assert_eq!(goroutines(&leaked, function, None), 1, "{leaked:#?}");
        }
        for function in REACHABLE.into_iter().chain(["is_cancelled"]) {
            assert_eq!(
                goroutines(&leaked, function, None),
                0,
                "{function}: {leaked:#?}"
            );
        }
        let all = samples(&profile("goroutine"));
        for function in REACHABLE {
            assert_ne!(goroutines(&all, function, None), 0, "{function}: {all:#?}");
        }
        assert_eq!(goroutines(&all, "is_cancelled", None), 0, "{all:#?}");
    }
    // They say what they are.
    let dump = text("goroutine?debug=2");
    assert_eq!(dump.matches("(leaked)").count(), 2, "{dump}");
    drop((ends, join, message, never));
    for task in reachable {
        runtime.block_on(task).expect("it does not panic");
    }
    for task in &leaks {
        task.abort();
    }
    until("none is left", || {
        profile("goroutineleak").sample.is_empty()
    });
}
