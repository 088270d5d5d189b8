//! A program that does all that may meet a sampler, at once, for the test `storm`.
//!
//! With the argument `overflow` a thread's stack overflows while it is sampled. Without, it does what the test says:
//!
//! * `storm`: starts the threads. `progress`: the least and the most rounds that any of them made so far.
//! * `forks COUNT`: forks so often while they are at it; how many children ended well.
//! * `calm`: ends the threads.
//! * `heap RATE`: sets the rate.
//! * `chain`: puts a handler on top of the profiler's, which hands on to it. `raise`: raises SIGPROF; how often that
//!   handler was called so far.
//! * `wild KIND`: computes and allocates with a frame pointer that points to nowhere good; for how many rounds.
//! * `deep FRAMES`: computes and allocates so deep in a recursion.
//! * `signal-stack BYTES`: computes on a thread whose stack for signals is that large; how much of it was used.

use core::ffi::{c_int, c_void};
use core::hint::black_box;
use core::panic::AssertUnwindSafe;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use std::io;
use std::panic;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use picoprof_std::{Allocator, Server, interpose, set_heap_rate};
use picoprof_tests::http;
use picoprof_tests::subject::obey;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::system();
interpose!();

fn main() -> io::Result<()> {
    handle(libc::SIGUSR1, on_usr1);
    // Somebody else's SIGPROF, which the profiler is to leave alone.
    handle(libc::SIGPROF, on_foreign_sigprof);
    panic::set_hook(Box::new(|_| ()));
    let pprof = Server::bind(0)?.allow_host("test").spawn()?;
    let address = pprof.local_addr().ok_or(io::ErrorKind::AddrNotAvailable)?;
    if std::env::args().nth(1).is_some_and(|it| it == "overflow") {
        return overflow(address);
    }
    let mut storm = Vec::new();
    obey(address, |line| {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<usize>().expect("a number");
        match words[0] {
            "storm" => {
                IS_STORMY.store(true, Ordering::SeqCst);
                storm.extend((0..ROUNDS.len()).map(|at| thread::spawn(move || weather(at))));
                String::new()
            }
            "progress" => {
                let rounds = ROUNDS.each_ref().map(|r| r.load(Ordering::SeqCst));
                let (least, most) = (rounds.iter().min(), rounds.iter().max());
                let signals = [&USR1, &FOREIGN].map(|count| count.load(Ordering::SeqCst));
                let [usr1, foreign] = signals;
                format!(
                    "{} {} {usr1} {foreign}",
                    least.unwrap_or(&0),
                    most.unwrap_or(&0)
                )
            }
            "calm" => {
                IS_STORMY.store(false, Ordering::SeqCst);
                let ended = storm.drain(..).map(JoinHandle::join).filter(Result::is_ok);
                ended.count().to_string()
            }
            "heap" => {
                set_heap_rate(number(1));
                String::new()
            }
            "chain" => {
                chain::put();
                String::new()
            }
            "raise" => {
                // SAFETY: it has a handler.
                assert_eq!(unsafe { libc::raise(libc::SIGPROF) }, 0);
                chain::CALLS.load(Ordering::SeqCst).to_string()
            }
            "forks" => (0..number(1)).filter(|_| fork_once()).count().to_string(),
            #[cfg(target_arch = "x86_64")]
            "wild" => wild::run(words[1]).to_string(),
            "deep" => deep(number(1)).to_string(),
            "signal-stack" => {
                let bytes = number(1);
                let thread = thread::spawn(move || on_signal_stack(bytes));
                thread.join().expect("it does not panic").to_string()
            }
            other => panic!("{other}"),
        }
    })
}

static IS_STORMY: AtomicBool = AtomicBool::new(false);
/// What each thread has done.
static ROUNDS: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

/// One of the threads.
fn weather(at: usize) {
    let works: [fn(u64); 8] = [
        |_| compute(Duration::from_millis(1)),
        allocate,
        unwind,
        threads,
        load,
        signals,
        contend,
        |round| {
            deep_down(1 + round as usize % 300, round);
        },
    ];
    for round in 0.. {
        if !IS_STORMY.load(Ordering::SeqCst) {
            return;
        }
        // All do a bit of everything, each mostly its own.
        let work = if round % 4 == 3 {
            round as usize / 4
        } else {
            at
        };
        works[work % works.len()](round);
        ROUNDS[at].fetch_add(1, Ordering::SeqCst);
    }
}

#[inline(never)]
fn compute(time: Duration) {
    let end = Instant::now() + time;
    let mut value = 1_u64;
    while Instant::now() < end {
        for _ in 0..1_000 {
            value = black_box(value.wrapping_mul(6_364_136_223_846_793_005) + 1);
        }
    }
}

/// Blocks of many sizes, grown, and freed in another order.
#[inline(never)]
fn allocate(round: u64) {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    for at in 0..200_u64 {
        let size = 1 << ((round + at * 7) % 17);
        let mut block = vec![1; size];
        block.reserve(size);
        blocks.push(block);
        if at % 3 == 0 {
            blocks.swap_remove(at as usize % blocks.len());
        }
    }
}

#[inline(never)]
fn unwind(round: u64) {
    #[inline(never)]
    fn throw(depth: u64) -> u64 {
        let guard = vec![depth; 3];
        if depth == 0 {
            panic::panic_any(guard);
        }
        throw(depth - 1) + guard[0]
    }
    for depth in 0..20 {
        let caught = panic::catch_unwind(|| throw(depth + round % 20));
        assert!(caught.is_err());
    }
}

#[inline(never)]
fn threads(_: u64) {
    let some: Vec<_> = (0..8)
        .map(|at| thread::spawn(move || vec![at; 1_000].iter().sum::<u64>()))
        .collect();
    for (at, thread) in (0..).zip(some) {
        let sum = thread.join().expect("it does not panic");
        assert_eq!(sum, at * 1_000);
    }
}

/// Libraries of libc6 come and go; one has code to run.
#[inline(never)]
fn load(_: u64) {
    for name in [c"libm.so.6", c"libresolv.so.2", c"libanl.so.1"] {
        // SAFETY: the name ends in NUL, and these libraries do nothing when they are loaded.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
        if library.is_null() {
            // Another C library.
            continue;
        }
        // SAFETY: the handle is open and the name ends in NUL.
        let lgamma = unsafe { libc::dlsym(library, c"lgamma".as_ptr()) };
        if !lgamma.is_null() {
            // SAFETY: a function of that name takes and gives a double (C99, 7.12.8.3).
            let lgamma: extern "C" fn(f64) -> f64 = unsafe { core::mem::transmute(lgamma) };
            let sum: f64 = (1..2_000).map(|n| lgamma(f64::from(n))).sum();
            assert!(sum > 0.0);
        }
        // SAFETY: the handle is open, and nothing of the library is used any more.
        unsafe { libc::dlclose(library) };
    }
}

/// What there is to wait for, each for a moment; signals come meanwhile, and wake others.
#[inline(never)]
fn contend(round: u64) {
    static LOCK: Mutex<u64> = Mutex::new(0);
    static PARKING: parking_lot::RwLock<u64> = parking_lot::RwLock::new(0);
    let (sender, receiver) = channel();
    let others: Vec<_> = (0..3)
        .map(|_| {
            let sender = sender.clone();
            thread::spawn(move || {
                for _ in 0..20 {
                    *LOCK.lock().expect("nobody panics") += 1;
                    let seen = *PARKING.read();
                    *PARKING.write() += seen % 3;
                    thread::yield_now();
                }
                sender.send(1).expect("somebody listens");
            })
        })
        .collect();
    drop(sender);
    for _ in 0..20 {
        let mut guard = LOCK.lock().expect("nobody panics");
        *guard += round;
        compute(Duration::from_micros(20));
        drop(guard);
        // SAFETY: it has a handler, which wakes those who wait at the word.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
        wait_a_moment();
    }
    assert_eq!(receiver.iter().sum::<u64>(), 3);
    for other in others {
        other.join().expect("it does not panic");
    }
}

/// Where threads wait for a signal.
static WORD: AtomicU32 = AtomicU32::new(0);

fn wait_a_moment() {
    let moment = libc::timespec {
        tv_sec: 0,
        tv_nsec: 100_000,
    };
    // SAFETY: the word is a static, and the time a local.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            WORD.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            0,
            &raw const moment,
        )
    };
}

static USR1: AtomicU64 = AtomicU64::new(0);
static FOREIGN: AtomicU64 = AtomicU64::new(0);

/// Signals of others, to this thread: it is in no allocator now, so that this one's handler may allocate.
#[inline(never)]
fn signals(_: u64) {
    for signal in [libc::SIGUSR1, libc::SIGPROF] {
        // SAFETY: both have handlers.
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }
    // SAFETY: it has no conditions.
    let process = unsafe { libc::getpid() };
    // SAFETY: the process is this one, and SIGPROF has a handler.
    assert_eq!(unsafe { libc::kill(process, libc::SIGPROF) }, 0);
    compute(Duration::from_micros(200));
}

extern "C" fn on_usr1(_: c_int) {
    black_box(vec![7_u8; 5_000]);
    let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is a static, whose value nobody minds.
    unsafe { libc::syscall(libc::SYS_futex, WORD.as_ptr(), wake, 1) };
    USR1.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn on_foreign_sigprof(_: c_int) {
    FOREIGN.fetch_add(1, Ordering::SeqCst);
}

fn handle(signal: c_int, handler: extern "C" fn(c_int)) {
    // SAFETY: all zeros is a value of the type.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the pointer is to a local, and the handlers do what they may where the signals are raised.
    let result = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    assert_eq!(result, 0);
}

/// A handler that hands on to the one before it.
mod chain {
    use core::ffi::{c_int, c_void};
    use core::ptr;
    use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    pub(super) static CALLS: AtomicU64 = AtomicU64::new(0);
    static BEFORE: AtomicUsize = AtomicUsize::new(0);

    type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

    pub(super) fn put() {
        // SAFETY: all zeros is a value of the type.
        let mut before: libc::sigaction = unsafe { core::mem::zeroed() };
        // SAFETY: the new action is none, and the other pointer is to a local.
        unsafe { libc::sigaction(libc::SIGPROF, ptr::null(), &raw mut before) };
        assert_ne!(before.sa_flags & libc::SA_SIGINFO, 0);
        BEFORE.store(before.sa_sigaction, Ordering::SeqCst);
        let mut action = before;
        action.sa_sigaction = on_sigprof as Handler as usize;
        // SAFETY: the handler has the signature that the flags ask for, and does what a handler may.
        unsafe { libc::sigaction(libc::SIGPROF, &raw const action, ptr::null_mut()) };
    }

    extern "C" fn on_sigprof(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        CALLS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: it was installed with SA_SIGINFO, so it has this signature.
        let before: Handler = unsafe { core::mem::transmute(BEFORE.load(Ordering::SeqCst)) };
        before(signal, info, context);
    }
}

/// Whether a forked child did its work and ended well.
fn fork_once() -> bool {
    // SAFETY: the child allocates, which the C library allows after fork, and makes a thread. It shares no lock of
    // this program's with other threads.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: it has no conditions. A child that hangs dies of SIGALRM.
        unsafe { libc::alarm(20) };
        let work = || {
            allocate(3);
            compute(Duration::from_millis(3));
            wait_a_moment();
            let thread = child_thread();
            unwind(2);
            thread.is_some_and(joins)
        };
        let is_well = panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or(false);
        // SAFETY: it has no conditions.
        unsafe { libc::_exit(if is_well { 0 } else { 3 }) };
    }
    let mut status = 0;
    // SAFETY: the pointer is to a local, and the child is this process's.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    if waited != child || status != 0 {
        eprintln!("child {child}: {waited}, status {status:#x}");
    }
    child > 0 && waited == child && status == 0
}

/// A thread of a forked child's. Not std's: that takes a lock for each new thread, which may have been another thread's in
/// the moment of the fork, with a profiler or without.
fn child_thread() -> Option<libc::pthread_t> {
    extern "C" fn work(_: *mut c_void) -> *mut c_void {
        compute(Duration::from_millis(2));
        allocate(5);
        wait_a_moment();
        ptr::without_provenance_mut(7)
    }
    let mut thread = 0;
    // SAFETY: the pointer is to a local, and the function takes any argument.
    let result =
        unsafe { libc::pthread_create(&raw mut thread, ptr::null(), work, ptr::null_mut()) };
    (result == 0).then_some(thread)
}

/// Whether that thread ends as it should.
fn joins(thread: libc::pthread_t) -> bool {
    let mut value = ptr::null_mut();
    // SAFETY: the thread was created joinable, and is joined once.
    let result = unsafe { libc::pthread_join(thread, &raw mut value) };
    result == 0 && value.addr() == 7
}

/// So many frames down.
fn deep(frames: usize) -> usize {
    let thread = thread::Builder::new().stack_size(64 << 20);
    let thread = thread.spawn(move || deep_down(frames, 1_000_000));
    let depth = thread.expect("there is room").join();
    depth.expect("it does not panic")
}

#[inline(never)]
fn deep_down(frames: usize, work: u64) -> usize {
    if frames == 0 {
        compute(Duration::from_micros(work.min(300_000)));
        allocate(work);
        return 0;
    }
    1 + black_box(deep_down(black_box(frames - 1), work))
}

/// A thread's stack overflows while it is sampled: std says so and ends the program.
fn overflow(address: core::net::SocketAddr) -> io::Result<()> {
    thread::spawn(move || http::get(address, "/debug/pprof/profile?seconds=9&hz=10000"));
    // The first profile keeps SIGPROF out of the handler that says so; before that, it says so undisturbed.
    while !is_kept_out() {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(150));
    #[inline(never)]
    fn endless(depth: u64) -> u64 {
        let local = black_box([depth; 16]);
        // Slowly, so that there are samples on the way.
        for _ in 0..200 {
            black_box(depth);
        }
        endless(depth + 1) + local[3]
    }
    let thread = thread::Builder::new()
        .name("deep".into())
        .spawn(|| endless(0))?;
    let _ = thread.join();
    Ok(())
}

/// Whether SIGPROF has to wait while SIGSEGV is handled.
fn is_kept_out() -> bool {
    // SAFETY: all zeros is a value of the type.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: the new action is none, and the other pointer is to a local.
    let result = unsafe { libc::sigaction(libc::SIGSEGV, ptr::null(), &raw mut action) };
    // SAFETY: the pointer is to a local, which the kernel filled in.
    result == 0 && unsafe { libc::sigismember(&raw const action.sa_mask, libc::SIGPROF) } == 1
}

/// Computes with a stack for signals of so many bytes, in memory whose every byte is known; answers how many of them,
/// from the top down, signals changed.
fn on_signal_stack(bytes: usize) -> usize {
    const PATTERN: u8 = 0xa5;
    // Beside it there is room for what does not fit, so that the answer may be more than there is.
    let mut memory = vec![PATTERN; bytes + (64 << 10)];
    let low = memory.len() - bytes;
    let stack = libc::stack_t {
        ss_sp: memory[low..].as_mut_ptr().cast::<c_void>(),
        ss_flags: 0,
        ss_size: bytes,
    };
    let mut before = libc::stack_t {
        ss_sp: ptr::null_mut(),
        ss_flags: 0,
        ss_size: 0,
    };
    // SAFETY: the memory stays until the stack is taken away again, below.
    let set = unsafe { libc::sigaltstack(&raw const stack, &raw mut before) };
    if set == 0 {
        compute(Duration::from_millis(700));
        // SAFETY: the stack that was there before still is.
        unsafe { libc::sigaltstack(&raw const before, ptr::null_mut()) };
    }
    let untouched = memory.iter().take_while(|byte| **byte == PATTERN).count();
    memory.len() - untouched
}

/// Frame pointers that point to nowhere good.
#[cfg(target_arch = "x86_64")]
mod wild {
    use core::arch::asm;
    use core::ptr;
    use core::time::Duration;
    use std::time::Instant;

    /// For some rounds of a bad frame pointer.
    pub(super) fn run(kind: &str) -> u64 {
        let local = 0_usize;
        let here = (&raw const local).addr();
        let value = match kind {
            "null" => 0,
            "one" => 1,
            "ones" => usize::MAX,
            "unaligned" => here + 3,
            "below" => here - 4096,
            "above" => here + 4096,
            "self" => here & !15,
            "code" => run as *const () as usize,
            "unreadable" => unreadable(),
            "noncanonical" => 0x8000_0000_0000_0000,
            other => panic!("{other}"),
        };
        let end = Instant::now() + Duration::from_millis(400);
        let mut rounds = 0;
        while Instant::now() < end {
            with_frame_pointer(value);
            rounds += 1;
        }
        rounds
    }

    /// A page that may not be touched.
    fn unreadable() -> usize {
        // SAFETY: a new mapping, which overlaps no other.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                4096,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        page.addr() + 128
    }

    extern "C" fn allocates() {
        super::allocate(9);
    }

    /// Computes and allocates with this frame pointer.
    #[inline(never)]
    fn with_frame_pointer(value: usize) {
        // SAFETY: the frame pointer and the stack pointer are restored, all that a call may change is named, and the
        // stack is aligned for the call. The red zone may be written, as `nostack` is not promised.
        unsafe {
            asm!(
                "push rbp",
                "mov r12, rsp",
                "and rsp, -16",
                "mov rbp, {value}",
                "2:",
                "imul rcx, rcx, 7",
                "dec r13",
                "jnz 2b",
                "call {allocates}",
                "mov rsp, r12",
                "pop rbp",
                value = in(reg) value,
                inout("r13") 2_000_000_u64 => _,
                allocates = sym allocates,
                out("r12") _,
                clobber_abi("C"),
            );
        }
    }
}
