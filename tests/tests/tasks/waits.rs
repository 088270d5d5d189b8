//! Functions that wait, each for something else, and what ends their waiting.

use core::hint::black_box;
use core::pin::Pin;
use std::sync::Arc;

use futures::StreamExt;
use picoprof_std::{Traced, task};
use tokio::sync;

/// A task's future.
pub(crate) type Future = Pin<Box<dyn core::future::Future<Output = ()> + Send>>;

/// A task that waits.
pub(crate) struct Waiting {
    /// The function that does.
    pub(crate) function: &'static str,
    pub(crate) task: Traced<Future>,
    /// Ends it.
    pub(crate) release: Box<dyn FnOnce() + Send>,
}

impl Waiting {
    #[inline(never)]
    pub(crate) fn new(
        function: &'static str,
        future: impl core::future::Future<Output = ()> + Send + 'static,
        release: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self {
            function,
            task: task(function, Box::pin(future) as Future),
            release: Box::new(release),
        }
    }

    /// The line of its await.
    pub(crate) fn line(&self) -> i64 {
        line_of(self.function)
    }
}

/// The line that says that it's where this function waits.
pub(crate) fn line_of(function: &str) -> i64 {
    let mark = format!("// {function} waits here");
    let mut lines = (1..).zip(include_str!("waits.rs").lines());
    let found = lines.find(|(_, line)| line.ends_with(&mark));
    found.expect("it is marked").0
}

/// One of each kind that any executor can run.
pub(crate) fn all() -> Vec<Waiting> {
    let mut all = Vec::new();

    let lock: &'static sync::Mutex<()> = Box::leak(Box::default());
    let guard = lock.try_lock().expect("it is new");
    all.push(Waiting::new("in_mutex", in_mutex(lock), move || {
        releases_mutex(guard);
    }));

    let lock: &'static sync::RwLock<()> = Box::leak(Box::default());
    let guard = lock.try_write().expect("it is new");
    all.push(Waiting::new("in_rw_lock", in_rw_lock(lock), || drop(guard)));

    let semaphore = Arc::new(sync::Semaphore::new(0));
    let release = Arc::clone(&semaphore);
    all.push(Waiting::new(
        "in_semaphore",
        in_semaphore(semaphore),
        move || {
            releases_semaphore(&release);
        },
    ));

    let notify = Arc::new(sync::Notify::new());
    let release = Arc::clone(&notify);
    all.push(Waiting::new("in_notify", in_notify(notify), move || {
        release.notify_one();
    }));

    let (sender, receiver) = sync::oneshot::channel();
    all.push(Waiting::new("in_oneshot", in_oneshot(receiver), || {
        let _ = sender.send(());
    }));

    let (sender, receiver) = sync::mpsc::channel(1);
    all.push(Waiting::new("in_mpsc", in_mpsc(receiver), move || {
        sends_message(&sender);
    }));

    let (sender, receiver) = sync::mpsc::channel(1);
    sender.try_send(()).expect("there is room for one");
    all.push(Waiting::new("in_mpsc_send", in_mpsc_send(sender), || {
        drop(receiver);
    }));

    let (sender, receiver) = sync::watch::channel(());
    all.push(Waiting::new("in_watch", in_watch(receiver), move || {
        sender.send_replace(());
    }));

    let (sender, receiver) = sync::broadcast::channel(1);
    all.push(Waiting::new(
        "in_broadcast",
        in_broadcast(receiver),
        move || {
            let _ = sender.send(());
        },
    ));

    let (sender, receiver) = futures::channel::oneshot::channel();
    all.push(Waiting::new(
        "in_futures_oneshot",
        in_futures_oneshot(receiver),
        move || {
            let _ = sender.send(());
        },
    ));

    let (sender, receiver) = futures::channel::mpsc::unbounded();
    all.push(Waiting::new(
        "in_futures_mpsc",
        in_futures_mpsc(receiver),
        move || {
            let _ = sender.unbounded_send(());
        },
    ));

    let lock = Arc::new(futures::lock::Mutex::new(()));
    let guard = lock.try_lock_owned().expect("it is new");
    all.push(Waiting::new(
        "in_futures_mutex",
        in_futures_mutex(lock),
        || {
            drop(guard);
        },
    ));

    let (sender, receiver) = async_channel::unbounded();
    all.push(Waiting::new(
        "in_async_channel",
        in_async_channel(receiver),
        move || {
            let _ = sender.try_send(());
        },
    ));

    let (sender, receiver) = flume::unbounded();
    all.push(Waiting::new("in_flume", in_flume(receiver), move || {
        let _ = sender.send(());
    }));

    let lock = Arc::new(smol::lock::Mutex::new(()));
    let guard = lock.try_lock_arc().expect("it is new");
    all.push(Waiting::new("in_async_lock", in_async_lock(lock), || {
        drop(guard)
    }));

    all
}

async fn in_mutex(lock: &'static sync::Mutex<()>) {
    let guard = lock.lock().await; // in_mutex waits here
    black_box(&guard);
}

#[inline(never)]
fn releases_mutex(guard: sync::MutexGuard<'static, ()>) {
    drop(guard);
    black_box(());
}

async fn in_rw_lock(lock: &'static sync::RwLock<()>) {
    let guard = lock.read().await; // in_rw_lock waits here
    black_box(&guard);
}

async fn in_semaphore(semaphore: Arc<sync::Semaphore>) {
    let permit = semaphore.acquire().await; // in_semaphore waits here
    black_box(&permit);
}

#[inline(never)]
fn releases_semaphore(semaphore: &sync::Semaphore) {
    semaphore.add_permits(1);
    black_box(());
}

async fn in_notify(notify: Arc<sync::Notify>) {
    notify.notified().await; // in_notify waits here
}

async fn in_oneshot(receiver: sync::oneshot::Receiver<()>) {
    let received = receiver.await; // in_oneshot waits here
    black_box(&received);
}

async fn in_mpsc(mut receiver: sync::mpsc::Receiver<()>) {
    let received = receiver.recv().await; // in_mpsc waits here
    black_box(&received);
}

#[inline(never)]
fn sends_message(sender: &sync::mpsc::Sender<()>) {
    let sent = sender.try_send(());
    let _ = black_box(sent);
}

async fn in_mpsc_send(sender: sync::mpsc::Sender<()>) {
    let sent = sender.send(()).await; // in_mpsc_send waits here
    black_box(&sent);
}

async fn in_watch(mut receiver: sync::watch::Receiver<()>) {
    let changed = receiver.changed().await; // in_watch waits here
    black_box(&changed);
}

async fn in_broadcast(mut receiver: sync::broadcast::Receiver<()>) {
    let received = receiver.recv().await; // in_broadcast waits here
    black_box(&received);
}

async fn in_futures_oneshot(receiver: futures::channel::oneshot::Receiver<()>) {
    let received = receiver.await; // in_futures_oneshot waits here
    black_box(&received);
}

async fn in_futures_mpsc(mut receiver: futures::channel::mpsc::UnboundedReceiver<()>) {
    let received = receiver.next().await; // in_futures_mpsc waits here
    black_box(&received);
}

async fn in_futures_mutex(lock: Arc<futures::lock::Mutex<()>>) {
    let guard = lock.lock().await; // in_futures_mutex waits here
    black_box(&guard);
}

async fn in_async_channel(receiver: async_channel::Receiver<()>) {
    let received = receiver.recv().await; // in_async_channel waits here
    black_box(&received);
}

async fn in_flume(receiver: flume::Receiver<()>) {
    let received = receiver.recv_async().await; // in_flume waits here
    black_box(&received);
}

async fn in_async_lock(lock: Arc<smol::lock::Mutex<()>>) {
    let guard = lock.lock().await; // in_async_lock waits here
    black_box(&guard);
}

/// With tokio's timer.
pub(crate) async fn in_tokio_sleep(wakes: tokio::time::Instant) {
    tokio::time::sleep_until(wakes).await; // in_tokio_sleep waits here
}

/// With tokio's event loop.
pub(crate) async fn in_tokio_read(mut stream: tokio::net::TcpStream) {
    let mut byte = [0];
    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut byte).await; // in_tokio_read waits here
    let _ = black_box(read);
}

/// With async-io's timer.
pub(crate) async fn in_smol_timer(wakes: std::time::Instant) {
    smol::Timer::at(wakes).await; // in_smol_timer waits here
}

/// With async-io's event loop.
pub(crate) async fn in_smol_read(stream: smol::Async<std::net::TcpStream>) {
    let mut byte = [0];
    let mut stream = stream;
    let read = smol::io::AsyncReadExt::read(&mut stream, &mut byte).await; // in_smol_read waits here
    let _ = black_box(read);
}
