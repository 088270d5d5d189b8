//! Waits in every way that threads can, for the test `threads`.
//!
//! * `wait`: a thread more in each of the functions below; how many.
//! * `crowd COUNT`: so many threads that sleep.
//! * `deaf`: a thread that keeps every signal away.
//! * `stick`: a thread that the kernel does not let run for six seconds, nor handle a signal.
//! * `work`: threads that wait briefly, over and over. `rest`: ends them; how often they waited, and how many of these
//!   waits ended otherwise than they should.

use core::ffi::{c_int, c_void};
use core::hint::{black_box, spin_loop};
use core::net::Ipv4Addr;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use picoprof_std::Server;
use picoprof_tests::subject::obey;

fn main() -> io::Result<()> {
    let pprof = Server::bind(0)?.allow_host("test").spawn()?;
    let address = pprof.local_addr().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut workers = Vec::new();
    obey(address, |line| {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "wait" => wait().expect("there are sockets").to_string(),
            "crowd" => {
                for _ in 0..words[1].parse().expect("a number") {
                    spawn("crowd", in_crowd);
                }
                String::new()
            }
            "deaf" => {
                spawn_after(block_signals, "deaf", hears_nothing);
                String::new()
            }
            "stick" => {
                spawn("stuck", sticks);
                thread::sleep(Duration::from_millis(20));
                String::new()
            }
            "work" => {
                IS_WORKING.store(true, Ordering::SeqCst);
                let works: [fn() -> bool; 7] = [
                    sleep,
                    wait_for_time,
                    wait_for_message,
                    wait_for_thread,
                    wait_for_bytes,
                    wait_for_client,
                    wait_for_child,
                ];
                workers.extend(works.map(|work| thread::spawn(move || repeat(work))));
                String::new()
            }
            "rest" => {
                IS_WORKING.store(false, Ordering::SeqCst);
                for worker in workers.drain(..) {
                    let worker: JoinHandle<()> = worker;
                    worker.join().expect("it does not panic");
                }
                let counts = [&WAITS, &SURPRISES].map(|count| count.swap(0, Ordering::SeqCst));
                format!("{} {}", counts[0], counts[1])
            }
            other => panic!("{other}"),
        }
    })
}

/// A thread that has begun.
fn spawn(name: &str, f: impl FnOnce() + Send + 'static) {
    spawn_after(|| (), name, f);
}

/// A thread that has done `first`.
fn spawn_after(first: fn(), name: &str, f: impl FnOnce() + Send + 'static) {
    let begun = Arc::new(Barrier::new(2));
    let others = Arc::clone(&begun);
    let thread = thread::Builder::new().name(name.into()).spawn(move || {
        first();
        others.wait();
        f();
    });
    thread.expect("there is room for it");
    begun.wait();
}

static LOCK: Mutex<()> = Mutex::new(());
static IS_SIGNALLED: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

fn wait() -> io::Result<usize> {
    spawn("holder", holds_lock);
    thread::sleep(Duration::from_millis(20));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (sender, messages) = mpsc::channel();
    spawn("locker", waits_for_lock);
    spawn("sleeper", sleeps);
    spawn("reader", move || reads(client));
    spawn("accepter", move || accepts(&listener));
    spawn("receiver", move || receives(&messages));
    spawn("condition", waits_for_condition);
    spawn("parker", parks);
    spawn("spinner", spins);
    spawn("a-name-of-fifteen-and-more", waits_under_long_name);
    // What they wait for does not come.
    core::mem::forget(sender);
    thread::sleep(Duration::from_millis(20));
    Ok(10)
}

#[inline(never)]
fn holds_lock() {
    let _lock = LOCK.lock().expect("nobody panics");
    loop {
        thread::park();
    }
}

#[inline(never)]
fn waits_for_lock() {
    let lock = LOCK.lock();
    black_box(&lock);
}

/// As the others below it ends in a number of its own, so that the compiler does not make one function of two.
#[inline(never)]
fn sleeps() {
    thread::sleep(Duration::from_hours(1));
    black_box(1);
}

#[inline(never)]
fn reads(mut stream: TcpStream) {
    let mut byte = [0];
    let read = stream.read(&mut byte);
    let _ = black_box(read);
}

#[inline(never)]
fn accepts(listener: &TcpListener) {
    // The first is there already.
    let first = listener.accept();
    let second = listener.accept();
    let _ = black_box((first, second));
}

#[inline(never)]
fn receives(messages: &Receiver<()>) {
    let message = messages.recv();
    let _ = black_box(message);
}

#[inline(never)]
fn waits_for_condition() {
    let (is_signalled, condition) = &IS_SIGNALLED;
    let guard = is_signalled.lock().expect("nobody panics");
    let guard = condition.wait_while(guard, |is_signalled| !*is_signalled);
    black_box(&guard);
}

#[inline(never)]
fn parks() {
    loop {
        thread::park();
    }
}

#[inline(never)]
fn spins() {
    loop {
        spin_loop();
    }
}

#[inline(never)]
fn waits_under_long_name() {
    thread::sleep(Duration::from_hours(1));
    black_box(2);
}

#[inline(never)]
fn in_crowd() {
    thread::sleep(Duration::from_hours(1));
    black_box(3);
}

#[inline(never)]
fn hears_nothing() {
    thread::sleep(Duration::from_hours(1));
    black_box(4);
}

fn block_signals() {
    // SAFETY: all zeros is a value of the type.
    let mut all: libc::sigset_t = unsafe { core::mem::zeroed() };
    // SAFETY: the pointer is to a local.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: the pointer is to a local; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, ptr::null_mut()) };
}

/// A thread that waits for a child which has its memory, as in vfork(2), is not interrupted.
#[inline(never)]
fn sticks() {
    extern "C" fn sleeps(_: *mut c_void) -> c_int {
        // SAFETY: it has no conditions.
        unsafe { libc::sleep(6) };
        0
    }
    let mut stack = vec![0_u128; 4096];
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the child has a stack of its own, which is there until it has ended: this thread waits for that.
    let child = unsafe { libc::clone(sleeps, top, flags, ptr::null_mut()) };
    assert!(child > 0);
    loop {
        thread::park();
    }
}

static IS_WORKING: AtomicBool = AtomicBool::new(false);
static WAITS: AtomicU64 = AtomicU64::new(0);
static SURPRISES: AtomicU64 = AtomicU64::new(0);

const BRIEFLY: Duration = Duration::from_millis(2);

/// Waits over and over. `work` answers whether all was as it should be.
fn repeat(work: fn() -> bool) {
    while IS_WORKING.load(Ordering::SeqCst) {
        if !work() {
            SURPRISES.fetch_add(1, Ordering::SeqCst);
        }
        WAITS.fetch_add(1, Ordering::SeqCst);
    }
}

fn sleep() -> bool {
    let begun = Instant::now();
    thread::sleep(BRIEFLY);
    begun.elapsed() >= BRIEFLY
}

fn wait_for_time() -> bool {
    let never = (Mutex::new(()), Condvar::new());
    let guard = never.0.lock().expect("nobody panics");
    let begun = Instant::now();
    let (_guard, timeout) = (never.1)
        .wait_timeout_while(guard, BRIEFLY, |()| true)
        .expect("nobody panics");
    timeout.timed_out() && begun.elapsed() >= BRIEFLY
}

fn wait_for_message() -> bool {
    let (sender, messages) = mpsc::channel();
    let nothing = messages.recv_timeout(BRIEFLY) == Err(RecvTimeoutError::Timeout);
    let thread = thread::spawn(move || {
        thread::sleep(BRIEFLY);
        sender.send(7)
    });
    let something = messages.recv() == Ok(7);
    nothing && something && matches!(thread.join(), Ok(Ok(())))
}

fn wait_for_thread() -> bool {
    let barrier = Arc::new(Barrier::new(2));
    let other = Arc::clone(&barrier);
    let thread = thread::spawn(move || {
        thread::sleep(BRIEFLY);
        other.wait();
        5
    });
    barrier.wait();
    matches!(thread.join(), Ok(5))
}

fn wait_for_bytes() -> bool {
    let exchange = || -> io::Result<bool> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let (mut served, _) = listener.accept()?;
        let thread = thread::spawn(move || {
            thread::sleep(BRIEFLY);
            served.write_all(b"all")
        });
        // Not `read_exact`, which tries again.
        let mut bytes = [0; 8];
        let read = client.read(&mut bytes)?;
        Ok(read == 3 && thread.join().is_ok())
    };
    exchange().unwrap_or(false)
}

fn wait_for_client() -> bool {
    let exchange = || -> io::Result<bool> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let thread = thread::spawn(move || {
            thread::sleep(BRIEFLY);
            TcpStream::connect(address)
        });
        listener.accept()?;
        Ok(matches!(thread.join(), Ok(Ok(_))))
    };
    exchange().unwrap_or(false)
}

fn wait_for_child() -> bool {
    let status = std::process::Command::new("/bin/true").status();
    status.is_ok_and(|status| status.success())
}
