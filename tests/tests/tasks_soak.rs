//! Tasks that come, go, wake each other and are taken away from all threads at once, while they are looked at: nothing is
//! lost, nothing is left.
//!
//! It takes two minutes; `PICOPROF_SOAK_SECONDS` makes it another time.

#![forbid(unsafe_code)]

use core::future::{Future, pending, poll_fn};
use core::net::SocketAddr;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::panic;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use picoprof_std::{Server, task};
use picoprof_tests::http;
use picoprof_tests::subject::profile_in;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::oneshot;

/// Tasks at once, so that the machine is busy and not full.
const MOST_AT_ONCE: u64 = 2_000;

/// Tasks that there is room for.
const ROOM: usize = 1 << 17;

static IS_OVER: AtomicBool = AtomicBool::new(false);
static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// What others do to tasks.
enum Deed {
    Send(oneshot::Sender<()>),
    /// Of a task that may have ended long ago.
    Wake(Waker),
    Forget(Waker),
    Abort(tokio::task::JoinHandle<()>),
}

/// Counts a task's beginning and, when it is dropped, its end.
struct Life;

impl Life {
    fn begin() -> Self {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        ENDED.fetch_add(1, Ordering::SeqCst);
    }
}

/// Numbers that differ enough: xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Keeps its waker, more than once, and is woken by whoever likes.
struct Restless {
    polls: u64,
    deeds: mpsc::UnboundedSender<Deed>,
}

impl Future for Restless {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.polls == 0 {
            return Poll::Ready(());
        }
        self.polls -= 1;
        for deed in [Deed::Forget, Deed::Wake, Deed::Wake] {
            let _ = self.deeds.send(deed(context.waker().clone()));
        }
        if self.polls.is_multiple_of(3) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

async fn yields(times: u64) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

async fn has_parts(receivers: Vec<oneshot::Receiver<()>>) {
    let mut parts: FuturesUnordered<_> = receivers
        .into_iter()
        .map(|receiver| {
            task("part", async move {
                let _life = Life::begin();
                let _ = receiver.await;
            })
        })
        .collect();
    while parts.next().await.is_some() {}
}

/// A task more; its kind is a matter of chance.
fn spawn(numbers: &mut Numbers, deeds: &mpsc::UnboundedSender<Deed>) {
    let oneshot = || {
        let (sender, receiver) = oneshot::channel();
        let _ = deeds.send(Deed::Send(sender));
        receiver
    };
    let life = Life::begin();
    match numbers.below(8) {
        0 => {
            let times = numbers.below(20);
            tokio::spawn(task("yields", async move {
                let _life = life;
                yields(times).await;
            }));
        }
        1 => {
            let receiver = oneshot();
            tokio::spawn(task("receives", async move {
                let _life = life;
                let _ = receiver.await;
            }));
        }
        2 => {
            let task = tokio::spawn(task("is_aborted", async move {
                let _life = life;
                pending::<()>().await;
            }));
            let _ = deeds.send(Deed::Abort(task));
        }
        3 => {
            let receiver = oneshot();
            let task = tokio::spawn(task("may_be_aborted", async move {
                let _life = life;
                let _ = receiver.await;
            }));
            let _ = deeds.send(Deed::Abort(task));
        }
        4 => {
            let (receiver, never) = (oneshot(), pending::<()>());
            tokio::spawn(task("selects", async move {
                let _life = life;
                tokio::select! {
                    _ = receiver => (),
                    () = never => (),
                    () = tokio::time::sleep(Duration::from_millis(1)) => (),
                }
            }));
        }
        5 => {
            let receivers = (0..numbers.below(4)).map(|_| oneshot()).collect();
            tokio::spawn(task("has_parts", async move {
                let _life = life;
                has_parts(receivers).await;
            }));
        }
        6 => {
            let receiver = oneshot();
            tokio::spawn(task("panics", async move {
                let _life = life;
                let _ = receiver.await;
                panic::panic_any(());
            }));
        }
        _ => {
            let polls = numbers.below(9);
            let deeds = deeds.clone();
            tokio::spawn(task("is_restless", async move {
                let _life = life;
                Restless { polls, deeds }.await;
            }));
        }
    }
}

/// Does what is to be done, outside of any runtime and in any order.
fn does(deeds: &Mutex<mpsc::UnboundedReceiver<Deed>>, mut numbers: Numbers) {
    let mut late = Vec::new();
    loop {
        let deed = deeds
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .try_recv();
        let is_last = matches!(deed, Err(TryRecvError::Disconnected));
        let most = match deed {
            Ok(deed) => {
                late.push(deed);
                50
            }
            Err(TryRecvError::Empty) => {
                thread::sleep(Duration::from_micros(50));
                late.len().saturating_sub(1)
            }
            Err(TryRecvError::Disconnected) => 0,
        };
        while late.len() > most {
            let at = numbers.below(late.len() as u64) as usize;
            do_it(late.swap_remove(at));
        }
        if is_last {
            return;
        }
    }
}

fn do_it(deed: Deed) {
    match deed {
        Deed::Send(sender) => {
            let _ = sender.send(());
        }
        Deed::Wake(waker) => waker.wake(),
        Deed::Forget(waker) => drop(waker),
        Deed::Abort(task) => task.abort(),
    }
}

/// Looks at them all; how often.
fn watches(address: SocketAddr) -> u64 {
    let mut looks = 0;
    while !IS_OVER.load(Ordering::SeqCst) {
        for target in ["goroutine", "goroutineleak", "block?all=1", "mutex?all=1"] {
            let profile = profile_in(target, &get(address, target));
            if target == "goroutine" {
                assert!(!profile.sample.is_empty());
            }
            looks += 1;
        }
        for target in ["goroutine?debug=1", "goroutine?debug=2", ""] {
            assert_eq!(get(address, target).status, 200, "{target}");
            looks += 1;
        }
    }
    looks
}

fn get(address: SocketAddr, target: &str) -> http::Response {
    http::get(address, &format!("/debug/pprof/{target}")).expect("it answers")
}

/// What the index page says of tasks: how many there are now, and how many found no room.
fn tasks(address: SocketAddr) -> (u64, u64) {
    let page = get(address, "");
    let line = page.text().lines().find(|line| line.contains("Tasks: "));
    let line = line.expect("it says so");
    let words: Vec<&str> = line.split([' ', ';']).collect();
    let before = |word: &str| {
        let at = words.iter().position(|it| *it == word).expect(word);
        words[at - 1].parse().expect(line)
    };
    (before("now,"), before("ran"))
}

#[test]
fn soak_loses_nothing_and_leaves_nothing() {
    let seconds =
        std::env::var("PICOPROF_SOAK_SECONDS").map_or(120, |it| it.parse().expect("a number"));
    panic::set_hook(Box::new(|info| {
        // Those of the tasks that are to panic have nothing to say.
        if !info.payload().is::<()>() {
            eprintln!("{info}");
        }
    }));
    let server = Server::bind(0)
        .and_then(|server| server.allow_host("test").spawn())
        .expect("a port is free");
    let address = server.local_addr().expect("it has a port");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("there is room for it");
    let (deeds, todo) = mpsc::unbounded_channel();
    let todo = Arc::new(Mutex::new(todo));
    let doers = [7, 11].map(|seed| {
        let todo = Arc::clone(&todo);
        thread::spawn(move || does(&todo, Numbers(seed)))
    });
    let watcher = thread::spawn(move || watches(address));
    let spawners = [1, 2, 3].map(|seed| {
        let deeds = deeds.clone();
        let entered = runtime.handle().clone();
        thread::spawn(move || {
            let _entered = entered.enter();
            let mut numbers = Numbers(seed);
            while !IS_OVER.load(Ordering::SeqCst) {
                let now = BEGUN.load(Ordering::SeqCst) - ENDED.load(Ordering::SeqCst);
                if now > MOST_AT_ONCE {
                    thread::sleep(Duration::from_micros(200));
                } else {
                    spawn(&mut numbers, &deeds);
                }
            }
        })
    });
    drop(deeds);
    thread::sleep(Duration::from_secs(seconds));
    IS_OVER.store(true, Ordering::SeqCst);
    for thread in spawners {
        thread.join().expect("it does not panic");
    }
    let looks = watcher.join().expect("it does not panic");
    for thread in doers {
        thread.join().expect("it does not panic");
    }
    let begun = Instant::now();
    while BEGUN.load(Ordering::SeqCst) != ENDED.load(Ordering::SeqCst) {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "some hang: {}",
            get(address, "goroutine?debug=1").text()
        );
        thread::sleep(Duration::from_millis(5));
    }
    let all = ENDED.load(Ordering::SeqCst);
    println!("{all} tasks, {looks} looks in {seconds} s");
    assert!(all > 1_000 * seconds && looks > seconds, "{all} {looks}");
    // A task's life ends a moment before the task does.
    while tasks(address).0 != 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{:?}",
            tasks(address)
        );
    }
    assert_eq!(tasks(address), (0, 0));
    // Not one place was left behind by a waker: all that there are can be had at once.
    let full: Vec<_> = (0..ROOM)
        .map(|_| task("fills", poll_fn(|_| Poll::<()>::Pending)))
        .collect();
    assert_eq!(tasks(address), (ROOM as u64, 0));
    drop(full);
    assert_eq!(tasks(address), (0, 0));
}
