//! CPU samples, taken by the handler as if its timers had expired, at places that we choose.
//!
//! The handler takes only signals of its own timers: of the kind SI_TIMER, with the address that it gave the timer
//! for this thread. So `timer_create` is defined here, in front of libc's: it notes that address and makes no timer.
//! A thread may queue any signal to itself, so each sample here is a `rt_tgsigqueueinfo` with what the kernel's timer
//! would have sent. All that runs is what runs in a program; that no timer expires keeps the counts exact.

use core::ffi::c_int;
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bench::{meter, print, signal, stacks};
use picoprof_std::{Running, Server};
use picoprof_tests::{http, profile};

/// What the timer for the working thread was to send; 0 before it was made.
static VALUE: AtomicUsize = AtomicUsize::new(0);
/// Who waits for that.
static WORKER: OnceLock<Thread> = OnceLock::new();
static WORKER_ID: AtomicI32 = AtomicI32::new(0);
const TIMEOUT: Duration = Duration::from_secs(60);
/// Whether timers are real.
static HAS_TIMERS: AtomicBool = AtomicBool::new(false);

/// A queued signal's `siginfo_t`, as a POSIX timer's looks on 64-bit Linux (include/uapi/asm-generic/siginfo.h).
#[repr(C)]
struct TimerInfo {
    signo: c_int,
    errno: c_int,
    code: c_int,
    padding: c_int,
    timer: c_int,
    overrun: c_int,
    value: usize,
    rest: [u64; 12],
}

const _: () = assert!(size_of::<TimerInfo>() == size_of::<libc::siginfo_t>());

/// In front of libc's.
///
/// # Safety
///
/// As for libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn timer_create(
    clock: libc::clockid_t,
    event: *mut libc::sigevent,
    timer: *mut libc::timer_t,
) -> c_int {
    if HAS_TIMERS.load(Ordering::Relaxed) {
        let name = c"timer_create".as_ptr();
        // SAFETY: a constant and a string that ends in NUL.
        let real = unsafe { libc::dlsym(libc::RTLD_NEXT, name) };
        // SAFETY: that is libc's function of this name and type.
        let real: unsafe extern "C" fn(
            libc::clockid_t,
            *mut libc::sigevent,
            *mut libc::timer_t,
        ) -> c_int = unsafe { core::mem::transmute(real) };
        // SAFETY: the caller's arguments.
        return unsafe { real(clock, event, timer) };
    }
    // SAFETY: the caller gives a valid event.
    let event = unsafe { &*event };
    if event.sigev_notify_thread_id == WORKER_ID.load(Ordering::Relaxed) {
        VALUE.store(event.sigev_value.sival_ptr.addr(), Ordering::Release);
        if let Some(worker) = WORKER.get() {
            worker.unpark();
        }
    }
    // SAFETY: the caller gives room for an id.
    unsafe { timer.write(core::ptr::without_provenance_mut(usize::MAX)) };
    0
}

/// In front of libc's: there is no timer to set.
#[unsafe(no_mangle)]
extern "C" fn timer_settime(
    timer: libc::timer_t,
    flags: c_int,
    new: *const libc::itimerspec,
    old: *mut libc::itimerspec,
) -> c_int {
    if HAS_TIMERS.load(Ordering::Relaxed) {
        // SAFETY: the caller's arguments, to what libc's function of this name does.
        return unsafe { libc::syscall(libc::SYS_timer_settime, timer, flags, new, old) } as c_int;
    }
    0
}

/// In front of libc's: there is no timer to delete.
#[unsafe(no_mangle)]
extern "C" fn timer_delete(timer: libc::timer_t) -> c_int {
    if HAS_TIMERS.load(Ordering::Relaxed) {
        // SAFETY: the caller's argument, to what libc's function of this name does.
        return unsafe { libc::syscall(libc::SYS_timer_delete, timer) } as c_int;
    }
    0
}

/// A sample of this thread, with a profile being taken.
#[inline(never)]
fn take() {
    let info = TimerInfo {
        signo: libc::SIGPROF,
        errno: 0,
        code: libc::SI_TIMER,
        padding: 0,
        timer: 0,
        overrun: 0,
        value: VALUE.load(Ordering::Relaxed),
        rest: [0; 12],
    };
    // SAFETY: it has no conditions.
    let process = unsafe { libc::getpid() };
    let arguments = [
        process as usize,
        signal::this_thread() as usize,
        libc::SIGPROF as usize,
        (&raw const info).expose_provenance(),
    ];
    // SAFETY: the thread is this one, and the pointer is to a local of the size that the kernel reads.
    unsafe { signal::call(libc::SYS_rt_tgsigqueueinfo, arguments) };
    signal::settle();
}

/// A server of this process, and its address.
pub(crate) fn serve() -> (Running, SocketAddr) {
    // The name that the tests' client asks for.
    let server = Server::bind(0).expect("a free port").allow_host("test");
    let address = server.local_addr().expect("an address");
    (server.spawn().expect("a thread"), address)
}

/// Asks for a CPU profile and waits until it is being taken; the connection must be kept for as long.
fn start(address: SocketAddr) -> TcpStream {
    i_am_the_worker();
    let mut stream = TcpStream::connect(address).expect("the server");
    let request = b"GET /debug/pprof/profile?seconds=3600 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).expect("the server listens");
    wait_for_timer();
    stream
}

fn i_am_the_worker() {
    WORKER.get_or_init(thread::current);
    WORKER_ID.store(signal::this_thread(), Ordering::Relaxed);
}

/// Asleep, not looking again and again: that would count.
fn wait_for_timer() {
    let begin = Instant::now();
    while VALUE.load(Ordering::Acquire) == 0 {
        assert!(begin.elapsed() < TIMEOUT, "no profile is taken");
        thread::park_timeout(TIMEOUT);
    }
    // Until the session has begun and its own threads wait.
    thread::sleep(Duration::from_millis(20));
}

/// So many samples of one stack.
pub(crate) fn one_stack(samples: usize) {
    let (_server, address) = serve();
    let _profile = start(address);
    signal::below(signal::DEPTH, &mut || (0..samples).for_each(|_| take()));
    exit();
}

/// So many samples of each of ten thousand stacks.
pub(crate) fn many_stacks(passes: usize) {
    let (_server, address) = serve();
    let _profile = start(address);
    (0..passes).for_each(|_| stacks::each(&mut take));
    exit();
}

/// Without the end of the profile, which is not measured here.
fn exit() -> ! {
    // SAFETY: nothing is left to be done in this process.
    unsafe { libc::_exit(0) }
}

/// Takes a profile of one second while `f` runs in this thread; its gzip file.
pub(crate) fn profile_of(address: SocketAddr, f: impl FnOnce(fn())) -> Vec<u8> {
    i_am_the_worker();
    VALUE.store(0, Ordering::Release);
    let client = thread::spawn(move || {
        let response = http::get(address, "/debug/pprof/profile?seconds=1").expect("a response");
        assert_eq!(response.status, 200);
        response.body
    });
    wait_for_timer();
    f(take);
    client.join().expect("the client does not panic")
}

/// Shows that what the other modes count is what they say: all samples arrive, with the stack that was meant.
pub(crate) fn check() {
    const SAMPLES: usize = 100;
    let (_server, address) = serve();
    let body = profile_of(address, |take| {
        signal::below(signal::DEPTH, &mut || {
            (0..black_box(SAMPLES)).for_each(|_| take())
        });
    });
    let profile = profile::decode(&body).expect("a profile");
    print("stacks", profile.sample.len() as f64);
    print(
        "samples",
        profile.sample.iter().map(|s| s.value[0]).sum::<i64>() as f64,
    );
    print(
        "frames",
        profile.sample.first().map_or(0, |s| s.location_id.len()) as f64,
    );
}

/// CPU seconds reported, over those really used, at so many samples a second.
pub(crate) fn rate(hz: usize) {
    HAS_TIMERS.store(true, Ordering::Relaxed);
    let (_server, address) = serve();
    let target = format!("/debug/pprof/profile?seconds=3&hz={hz}");
    let client = thread::spawn(move || http::get(address, &target).expect("a response").body);
    thread::sleep(Duration::from_millis(300));
    let real = meter::spin(2000.0);
    let profile =
        profile::decode(&client.join().expect("the client does not panic")).expect("a profile");
    print("ratio", profile.total("cpu", "spin") as f64 / (real * 1e6));
}
