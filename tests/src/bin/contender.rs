//! A program whose threads wait for each other, for the test `contention`.
//!
//! * `hold LOCK ROUNDS MILLISECONDS`: a thread holds a lock (`mutex`, `parking`, `write`) so often and so long while three
//!   others want it; for how many nanoseconds it had it, and for how many the others waited, all in all.
//! * `each MILLISECONDS`: waits once for each thing that there is to wait for, so long.
//! * `uncontended`: uses locks that nobody else wants.
//! * `rates BLOCK MUTEX`: sets what is sampled.
//! * `crowd THREADS`: has so many threads wait at one address; how many were woken.
//! * `calls`: makes futex system calls whose results are known; which were wrong.

use core::hint::black_box;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use core::time::Duration;
use std::io;
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Barrier, Condvar, Mutex, Once, OnceLock, RwLock};
use std::thread;
use std::time::Instant;

use picoprof_std::{Server, interpose, set_block_rate, set_mutex_fraction};
use picoprof_tests::subject::obey;

interpose!();

fn main() -> io::Result<()> {
    let pprof = Server::bind(0)?.allow_host("test").spawn()?;
    let address = pprof.local_addr().ok_or(io::ErrorKind::AddrNotAvailable)?;
    obey(address, |line| {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u32>().expect("a number");
        match words[0] {
            "hold" => {
                let time = Duration::from_millis(number(3).into());
                let [held, waited] = match words[1] {
                    "mutex" => contend(&Mutex::new(()), number(2), time),
                    "parking" => contend(&parking_lot::Mutex::new(()), number(2), time),
                    "write" => contend(&RwLock::new(()), number(2), time),
                    other => panic!("{other}"),
                };
                format!("{} {}", held.as_nanos(), waited.as_nanos())
            }
            "each" => {
                WAIT.store(number(1), Ordering::SeqCst);
                each();
                String::new()
            }
            "uncontended" => {
                uncontended();
                String::new()
            }
            "rates" => {
                set_block_rate(number(1).into());
                set_mutex_fraction(number(2).into());
                String::new()
            }
            "calls" => calls().join(", "),
            "crowd" => crowd(number(1)).to_string(),
            other => panic!("{other}"),
        }
    })
}

/// What three threads can want at once.
trait Lock: Sync {
    fn locked<R>(&self, f: impl FnOnce() -> R) -> R;
}

impl Lock for Mutex<()> {
    #[inline]
    fn locked<R>(&self, f: impl FnOnce() -> R) -> R {
        let _guard = self.lock().expect("nobody panics");
        f()
    }
}

impl Lock for parking_lot::Mutex<()> {
    #[inline]
    fn locked<R>(&self, f: impl FnOnce() -> R) -> R {
        let _guard = self.lock();
        f()
    }
}

impl Lock for RwLock<()> {
    #[inline]
    fn locked<R>(&self, f: impl FnOnce() -> R) -> R {
        let _guard = self.write().expect("nobody panics");
        f()
    }
}

/// How long the lock was held while others waited, and how long those did.
fn contend<L: Lock>(lock: &L, rounds: u32, time: Duration) -> [Duration; 2] {
    let start = Barrier::new(4);
    let end = Barrier::new(4);
    thread::scope(|scope| {
        let waiting = || {
            let mut waited = Duration::ZERO;
            for _ in 0..rounds {
                start.wait();
                waited += wants(lock);
                end.wait();
            }
            waited
        };
        let others: Vec<_> = (0..3).map(|_| scope.spawn(waiting)).collect();
        let mut held = Duration::ZERO;
        for _ in 0..rounds {
            held += holds(lock, &start, time);
            end.wait();
        }
        let waited = others.into_iter().map(|other| other.join());
        let waited = waited.map(|waited| waited.expect("it does not panic"));
        [held, waited.sum()]
    })
}

#[inline(never)]
fn holds<L: Lock>(lock: &L, start: &Barrier, time: Duration) -> Duration {
    let held = lock.locked(|| {
        start.wait();
        let begun = Instant::now();
        thread::sleep(time);
        begun.elapsed()
    });
    black_box(held)
}

#[inline(never)]
fn wants<L: Lock>(lock: &L) -> Duration {
    let begun = Instant::now();
    black_box(lock.locked(|| begun.elapsed()))
}

/// How long each of [`each`] waits, at least, in milliseconds.
static WAIT: AtomicU32 = AtomicU32::new(0);

fn sleep_a_while() {
    thread::sleep(Duration::from_millis(WAIT.load(Ordering::SeqCst).into()));
}

/// Has one function wait for another.
fn meet(waits: impl FnOnce() + Send, releases: impl FnOnce() + Send) {
    let begun = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| begins(&begun, waits));
        wait_after(&begun);
        releases();
    });
}

/// Locks, has `waits` wait for it, unlocks.
fn meet_at<G>(lock: impl FnOnce() -> G, waits: impl FnOnce() + Send, releases: fn(G)) {
    let guard = lock();
    let begun = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| begins(&begun, waits));
        wait_after(&begun);
        releases(guard);
    });
}

fn begins(begun: &AtomicBool, work: impl FnOnce()) {
    begun.store(true, Ordering::SeqCst);
    work();
}

/// A while after a thread has begun, which may take its time on a busy machine. Not by what is looked at.
fn wait_after(begun: &AtomicBool) {
    while !begun.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
    sleep_a_while();
}

/// A function of its own, which is to be on the stack.
macro_rules! named {
    ($name:ident, $work:expr) => {{
        #[inline(never)]
        fn $name(work: impl FnOnce()) {
            work();
            // Functions that are the same would be made one.
            black_box(stringify!($name));
        }
        || $name($work)
    }};
}

/// The same, for a guard.
macro_rules! drops {
    ($name:ident) => {{
        #[inline(never)]
        fn $name<G>(guard: G) {
            drop(guard);
            black_box(stringify!($name));
        }
        $name
    }};
}

/// How it went doesn't matter.
fn ignore<T>(_: T) {}

fn each() {
    locks();
    signals();
    channels();
}

fn locks() {
    let lock = Mutex::new(());
    meet_at(
        || lock.lock(),
        named!(waits_mutex, || drop(lock.lock())),
        drops!(releases_mutex),
    );
    let lock = RwLock::new(());
    meet_at(
        || lock.write(),
        named!(waits_read, || drop(lock.read())),
        drops!(releases_write),
    );
    meet_at(
        || lock.read(),
        named!(waits_write, || drop(lock.write())),
        drops!(releases_read),
    );
    let lock = parking_lot::Mutex::new(());
    meet_at(
        || lock.lock(),
        named!(waits_parking_mutex, || drop(lock.lock())),
        drops!(releases_parking_mutex),
    );
    let lock = parking_lot::RwLock::new(());
    meet_at(
        || lock.write(),
        named!(waits_parking_read, || drop(lock.read())),
        drops!(releases_parking_write),
    );
    meet_at(
        || lock.read(),
        named!(waits_parking_write, || drop(lock.write())),
        drops!(releases_parking_read),
    );
}

fn signals() {
    let (lock, condition) = (Mutex::new(false), Condvar::new());
    meet(
        named!(waits_condvar, || {
            let guard = lock.lock().expect("nobody panics");
            drop(condition.wait_while(guard, |done| !*done));
        }),
        named!(releases_condvar, || {
            *lock.lock().expect("nobody panics") = true;
            condition.notify_all();
        }),
    );
    let (lock, condition) = (parking_lot::Mutex::new(false), parking_lot::Condvar::new());
    meet(
        named!(waits_parking_condvar, || {
            condition.wait_while(&mut lock.lock(), |done| !*done);
        }),
        named!(releases_parking_condvar, || {
            *lock.lock() = true;
            condition.notify_all();
        }),
    );
    let barrier = Barrier::new(2);
    meet(
        named!(waits_barrier, || ignore(barrier.wait())),
        named!(releases_barrier, || ignore(barrier.wait())),
    );
    let once = Once::new();
    let begun = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(named!(releases_once, || once.call_once(|| {
            begun.store(true, Ordering::SeqCst);
            sleep_a_while();
        })));
        while !begun.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        scope.spawn(named!(waits_once, || once.call_once(|| ())));
    });
    let value = OnceLock::new();
    let begun = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(named!(releases_once_lock, || {
            value.get_or_init(|| {
                begun.store(true, Ordering::SeqCst);
                sleep_a_while();
            });
        }));
        while !begun.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        scope.spawn(named!(waits_once_lock, || *value.wait()));
    });
    let done = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&done);
    let parked = thread::spawn(named!(
        waits_park,
        move || while !seen.load(Ordering::SeqCst) {
            thread::park();
        }
    ));
    sleep_a_while();
    done.store(true, Ordering::SeqCst);
    let thread = parked.thread().clone();
    named!(releases_park, || thread.unpark())();
    parked.join().expect("it does not panic");
    // A scope waits for its threads by parking.
    named!(waits_scope, || thread::scope(|scope| {
        scope.spawn(sleep_a_while);
    }))();
}

fn channels() {
    let (sender, receiver) = channel();
    meet(
        named!(waits_mpsc, move || ignore(receiver.recv())),
        named!(releases_mpsc, move || ignore(sender.send(1))),
    );
    let (sender, receiver) = sync_channel(1);
    meet(
        named!(waits_sync_channel, move || (0..2)
            .for_each(|n| ignore(sender.send(n)))),
        named!(releases_sync_channel, move || ignore(receiver.recv())),
    );
    let (sender, receiver) = crossbeam_channel::unbounded();
    meet(
        named!(waits_crossbeam, move || ignore(receiver.recv())),
        named!(releases_crossbeam, move || ignore(sender.send(1))),
    );
    let (sender, receiver) = crossbeam_channel::bounded(0);
    meet(
        named!(waits_crossbeam_send, move || ignore(sender.send(1))),
        named!(releases_crossbeam_send, move || ignore(receiver.recv())),
    );
    let (sender, receiver) = crossbeam_channel::unbounded();
    meet(
        named!(waits_crossbeam_select, move || {
            crossbeam_channel::select! {
                recv(receiver) -> it => ignore(it),
                recv(crossbeam_channel::never::<u32>()) -> it => ignore(it),
            }
        }),
        named!(releases_crossbeam_select, move || ignore(sender.send(1))),
    );
    let (sender, receiver) = flume::unbounded();
    meet(
        named!(waits_flume, move || ignore(receiver.recv())),
        named!(releases_flume, move || ignore(sender.send(1))),
    );
    let (sender, receiver) = flume::bounded(0);
    meet(
        named!(waits_flume_send, move || ignore(sender.send(1))),
        named!(releases_flume_send, move || ignore(receiver.recv())),
    );
    let (sender, receiver) = async_channel::unbounded();
    meet(
        named!(waits_async_channel, move || ignore(
            receiver.recv_blocking()
        )),
        named!(releases_async_channel, move || ignore(
            sender.send_blocking(1)
        )),
    );
}

fn uncontended() {
    #[inline(never)]
    fn alone() {
        let (lock, shared) = (Mutex::new(1), RwLock::new(1));
        let (other, others) = (parking_lot::Mutex::new(1), parking_lot::RwLock::new(1));
        let (sender, receiver) = channel();
        for _ in 0..10_000 {
            *lock.lock().expect("nobody panics") += 1;
            *shared.write().expect("nobody panics") += 1;
            *other.lock() += *shared.read().expect("nobody panics");
            *others.write() += 1;
            ignore(sender.send(*others.read()));
            ignore(receiver.recv());
        }
        black_box((&lock, &other));
    }
    alone();
}

/// Which calls of the C function `syscall` did not answer what futex(2) says.
fn calls() -> Vec<&'static str> {
    let mut wrong = Vec::new();
    let mut check = |name: &'static str, is_right: bool| {
        if !is_right {
            wrong.push(name);
        }
    };
    let word = AtomicU32::new(5);
    let long = libc::timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let short = libc::timespec {
        tv_sec: 0,
        tv_nsec: 3_000_000,
    };
    check(
        "changed",
        futex(&word, libc::FUTEX_WAIT, 6, None) == Err(libc::EAGAIN),
    );
    let begun = Instant::now();
    let late = futex(&word, libc::FUTEX_WAIT, 5, Some(&short));
    check("late", late == Err(libc::ETIMEDOUT));
    check("how late", begun.elapsed() >= Duration::from_millis(3));
    check("nobody", futex(&word, libc::FUTEX_WAKE, 1, None) == Ok(0));
    check(
        "no such operation",
        futex(&word, 120, 0, None) == Err(libc::ENOSYS),
    );
    let waiting = AtomicI32::new(0);
    thread::scope(|scope| {
        let interrupted = scope.spawn(|| {
            // SAFETY: it has no conditions.
            let id = unsafe { libc::gettid() };
            waiting.store(id, Ordering::SeqCst);
            futex(&word, libc::FUTEX_WAIT, 5, Some(&long))
        });
        while waiting.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        // It may not wait yet.
        while !interrupted.is_finished() {
            thread::sleep(Duration::from_millis(20));
            interrupt(waiting.load(Ordering::SeqCst));
        }
        check(
            "interrupted",
            interrupted.join().ok() == Some(Err(libc::EINTR)),
        );
        let two: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| futex(&word, libc::FUTEX_WAIT, 5, Some(&long))))
            .collect();
        // Each when it is there.
        let mut woken = 0;
        while woken < 2 {
            thread::sleep(Duration::from_millis(50));
            let more = futex(&word, libc::FUTEX_WAKE, i32::MAX as u32, None);
            check(
                "woken",
                more.is_ok_and(|more| (0..=2 - woken).contains(&more)),
            );
            woken += more.unwrap_or(2);
        }
        let well = two.into_iter().all(|it| it.join().ok() == Some(Ok(0)));
        check("both", well);
    });
    // SAFETY: it has no conditions.
    let process = unsafe { libc::syscall(libc::SYS_getpid) };
    check("process", process == i64::from(std::process::id()));
    wrong
}

/// Has so many threads wait at one address, and wakes them.
fn crowd(threads: u32) -> i64 {
    #[inline(never)]
    fn crowds(word: &AtomicU32) {
        let waited = futex(word, libc::FUTEX_WAIT, 0, None);
        assert_eq!(black_box(waited), Ok(0));
    }
    let word = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            let small = thread::Builder::new().stack_size(64 << 10);
            small
                .spawn_scoped(scope, || crowds(&word))
                .expect("there is room");
        }
        let mut woken = 0;
        while woken < i64::from(threads) {
            thread::sleep(Duration::from_millis(200));
            woken += futex(&word, libc::FUTEX_WAKE, i32::MAX as u32, None).expect("it is sound");
        }
        woken
    })
}

/// futex(2), and errno, which it changes only where there is an error.
#[inline(never)]
fn futex(
    word: &AtomicU32,
    operation: i32,
    value: u32,
    time: Option<&libc::timespec>,
) -> Result<i64, i32> {
    // SAFETY: it has no conditions.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the pointer is to the thread's own.
    unsafe { errno.write(99) };
    let time = time.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the word and the time are borrowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            operation | libc::FUTEX_PRIVATE_FLAG,
            value,
            time,
        )
    };
    // SAFETY: as above.
    let errno = unsafe { errno.read() };
    if result == -1 {
        return Err(errno);
    }
    assert_eq!(errno, 99, "errno of a call without an error");
    Ok(result)
}

/// Interrupts what a thread waits for.
fn interrupt(thread: i32) {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: all zeros is a value of the type.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as usize;
    // SAFETY: the pointer is to a local, and the handler does nothing.
    unsafe { libc::sigaction(libc::SIGUSR2, &raw const action, ptr::null_mut()) };
    // SAFETY: it has no conditions.
    let process = unsafe { libc::getpid() };
    // SAFETY: the signal has a handler.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR2) };
}
