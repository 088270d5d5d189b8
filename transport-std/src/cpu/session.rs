//! Who is sampled: the session of a CPU profile, and the search for threads while it lasts.

#![forbid(unsafe_code)]

use core::mem;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{io, process, thread};

use picoprof::StartError;
use picoprof::stack::capture::registers_here;

use super::handler;
use super::timer::{self, Timer};
use crate::stack_bounds::Stack;
use crate::{current, interposed, stack, stack_bounds, tables, threads, unwind};

/// Go's rate.
const DEFAULT_HZ: u32 = 100;
/// More often than this the handler itself would be most of what is measured.
const MAX_HZ: u32 = 10_000;
/// How often new threads and libraries are looked for.
const SCAN_INTERVAL: Duration = Duration::from_millis(100);

/// The rate of profiles that don't ask for one.
static HZ: AtomicU32 = AtomicU32::new(DEFAULT_HZ);
/// Whether new threads are to be sampled.
static IS_RUNNING: AtomicBool = AtomicBool::new(false);
/// Threads that could not be sampled: the kernel had no timer to spare, or there was no slot.
static THREADS_MISSED: AtomicU64 = AtomicU64::new(0);

/// How many sessions there were.
static SESSIONS: AtomicU64 = AtomicU64::new(0);
static SESSION: Mutex<Option<Session>> = Mutex::new(None);

/// Sets the rate of CPU profiles that don't ask for one with `?hz=`: samples a second of CPU time, from 1 to
/// 10,000; 100 at first.
pub fn set_cpu_rate(hz: u32) {
    HZ.store(hz.clamp(1, MAX_HZ), Ordering::Relaxed);
}

/// Starts sampling; answers the nanoseconds between samples.
pub(crate) fn start(hz: u32) -> Result<u64, StartError> {
    let mut session = lock();
    match session.take() {
        Some(running) if running.process == process::id() => {
            *session = Some(running);
            return Err(StartError::AlreadyRunning);
        }
        // Of the process that forked this one: neither its timers nor its scanner are here.
        inherited => mem::forget(inherited),
    }
    listen().map_err(|_| StartError::Unavailable)?;
    let hz = if hz == 0 {
        HZ.load(Ordering::Relaxed)
    } else {
        hz
    };
    let period = 1_000_000_000 / u64::from(hz.clamp(1, MAX_HZ));
    tables::cpu().make_room();
    unwind::refresh();
    let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
    let mut new = Session {
        process: process::id(),
        number,
        period,
        timers: HashMap::new(),
        scanner: Scanner::start(number).map_err(|_| StartError::Unavailable)?,
    };
    // With the scanner's own stack.
    stack_bounds::refresh();
    // From now on a thread that begins waits for the lock and then finds the session: before the look at those that
    // are there, so that none falls between.
    IS_RUNNING.store(true, Ordering::Release);
    match threads::ids() {
        Ok(threads) => new.update(&threads),
        Err(_) => {
            IS_RUNNING.store(false, Ordering::Release);
            // The scanner may be waiting for it.
            drop(session);
            new.scanner.stop();
            return Err(StartError::Unavailable);
        }
    }
    *session = Some(new);
    Ok(period)
}

/// Ends it.
pub(crate) fn stop() {
    IS_RUNNING.store(false, Ordering::Release);
    let session = lock().take();
    // Timers first, so that the scanner's end is no part of the profile.
    if let Some(session) = session {
        drop(session.timers);
        session.scanner.stop();
    }
}

/// Lets the calling thread, which is new, be sampled from its begin on.
pub(crate) fn thread_began() {
    if IS_RUNNING.load(Ordering::Acquire)
        && let Some(session) = lock().as_mut()
    {
        let thread = timer::this_thread();
        // What is there under its id is a thread's that has ended.
        session.timers.remove(&thread);
        // Its stack is newer than the list that the handler looks in.
        let stack = Stack::of_this_thread(registers_here().sp);
        session.arm(thread, stack);
    }
}

/// Ends the sampling of the calling thread, which is about to end.
pub(crate) fn thread_ends() {
    if !IS_RUNNING.load(Ordering::Acquire) {
        return;
    }
    let timer = lock()
        .as_mut()
        .and_then(|session| session.timers.remove(&timer::this_thread()));
    if let Some(Some(timer)) = timer {
        let rest = timer.end();
        if rest.weight > 0 {
            // A thread that no sample was taken of is shown with the frames that it ends in.
            let (stack, labels) = match rest.last {
                Some(last) => last,
                None => (stack::intern_here(), current::labels()),
            };
            tables::cpu().add(stack, labels.to_bits(), &[rest.weight]);
        }
    }
}

/// Sees to it that the handler is in place.
pub(crate) fn listen() -> io::Result<()> {
    current::look_where_it_is();
    handler::install(forget_after_fork)
}

/// A forked child has neither the timers nor the scanner, nor who was asked.
extern "C" fn forget_after_fork() {
    IS_RUNNING.store(false, Ordering::Relaxed);
    threads::forget_after_fork();
}

/// Signals that came when their slot was busy, and threads that could not be sampled.
pub(crate) fn lost() -> (u64, u64) {
    (
        handler::signals_lost(),
        THREADS_MISSED.load(Ordering::Relaxed),
    )
}

/// Samples whose stack was not found in memory.
pub(crate) fn stacks_unknown() -> u64 {
    handler::stacks_unknown()
}

#[derive(Debug)]
struct Session {
    process: u32,
    number: u64,
    /// Nanoseconds.
    period: u64,
    /// By thread id; `None` for a thread that could not be given one.
    timers: HashMap<i32, Option<Timer>>,
    scanner: Scanner,
}

impl Session {
    /// Gives a thread its timer, if it has none.
    fn arm(&mut self, thread: i32, stack: Stack) {
        let Entry::Vacant(place) = self.timers.entry(thread) else {
            return;
        };
        match Timer::start(thread, self.period, stack) {
            Ok(timer) => {
                place.insert(Some(timer));
            }
            // It has ended since it was found.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => {
                place.insert(None);
                THREADS_MISSED.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn update(&mut self, threads: &[i32]) {
        // The kernel's list may leave a thread out while others end, so each is asked for.
        self.timers.retain(|&thread, _| timer::is_alive(thread));
        for &thread in threads {
            self.arm(thread, Stack::NONE);
        }
    }
}

/// The thread that looks for new threads and libraries while a profile is taken.
#[derive(Debug)]
struct Scanner {
    is_stopped: Arc<(Mutex<bool>, Condvar)>,
    thread: thread::JoinHandle<()>,
}

impl Scanner {
    fn start(session: u64) -> io::Result<Self> {
        let is_stopped = Arc::new((Mutex::new(false), Condvar::new()));
        let seen = Arc::clone(&is_stopped);
        let thread = interposed::unseen(|| {
            let builder = thread::Builder::new().name("picoprof-scan".into());
            builder.spawn(move || {
                interposed::be_unseen();
                scan(session, &seen);
            })
        })?;
        Ok(Self { is_stopped, thread })
    }

    fn stop(self) {
        let (is_stopped, changed) = &*self.is_stopped;
        *is_stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
        // It does not panic, and there's nothing to do if it did.
        let _ = self.thread.join();
    }
}

fn scan(session: u64, (is_stopped, changed): &(Mutex<bool>, Condvar)) {
    let mut stopped = is_stopped.lock().unwrap_or_else(PoisonError::into_inner);
    while !*stopped {
        let (guard, _) = changed
            .wait_timeout(stopped, SCAN_INTERVAL)
            .unwrap_or_else(PoisonError::into_inner);
        stopped = guard;
        if *stopped {
            return;
        }
        drop(stopped);
        unwind::refresh();
        look_for_threads(session);
        stopped = is_stopped.lock().unwrap_or_else(PoisonError::into_inner);
    }
}

fn look_for_threads(number: u64) {
    // Without the lock: a new thread takes it.
    let Ok(threads) = threads::ids() else {
        return;
    };
    stack_bounds::refresh();
    // The session may have ended, and another begun.
    if let Some(session) = lock().as_mut().filter(|session| session.number == number) {
        session.update(&threads);
    }
}

fn lock() -> MutexGuard<'static, Option<Session>> {
    // Nothing in here is left half done by a panic.
    SESSION.lock().unwrap_or_else(PoisonError::into_inner)
}
