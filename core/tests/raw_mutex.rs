//! Waits for a lock and whom they are charged to, against what is known of them.
#![cfg(feature = "lock_api")]

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Instant as StdInstant;

use lock_api::{GuardSend, RawMutex as _, RawMutexFair, RawMutexTimed};
use picoprof::profile::labels::LabelSetId;
use picoprof::profile::lock::RawMutex;
use picoprof::profile::task::{Context, TaskPool, Tasks};
use picoprof::stack::StackId;
use picoprof::stack::capture::Registers;
use picoprof::{Instant, Tracer, set_tracer};

static POOL: TaskPool<1> = TaskPool::new();
static TRACER: &dyn Tracer = &Host;
static BLOCK: Mutex<Vec<Record>> = Mutex::new(Vec::new());
static MUTEX: Mutex<Vec<Record>> = Mutex::new(Vec::new());
static STACKS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// What the thread is at, as its stack and as its labels.
    static AT: Cell<u32> = const { Cell::new(0) };
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Record {
    /// Whose stack and labels it is.
    at: u32,
    nanos: u64,
}

struct Host;

impl Tracer for Host {
    fn tasks(&self) -> Tasks<'static> {
        POOL.view()
    }
    fn now(&self) -> Instant {
        Instant::from_nanos(started().elapsed().as_nanos() as u64)
    }
    fn stack(&self, registers: Registers, base: usize) -> StackId {
        assert_ne!(registers.sp, 0);
        assert_eq!(base, 0);
        STACKS.fetch_add(1, Ordering::SeqCst);
        StackId::from_bits(AT.get())
    }
    fn current(&self) -> Context {
        Context::EMPTY.with_labels(LabelSetId::from_bits(AT.get()))
    }
    fn swap_current(&self, context: Context) -> Context {
        context
    }
    fn record_block(&self, stack: StackId, labels: LabelSetId, waited: Duration) {
        record(&BLOCK, stack, labels, waited);
    }
    fn record_mutex(&self, stack: StackId, labels: LabelSetId, waited: Duration) {
        record(&MUTEX, stack, labels, waited);
    }
}

fn record(records: &Mutex<Vec<Record>>, stack: StackId, labels: LabelSetId, waited: Duration) {
    let at = stack.to_bits();
    assert_eq!(labels.to_bits(), at);
    let nanos = waited.as_nanos() as u64;
    records.lock().unwrap().push(Record { at, nanos });
}

fn started() -> StdInstant {
    static STARTED: OnceLock<StdInstant> = OnceLock::new();
    *STARTED.get_or_init(StdInstant::now)
}

fn take() -> [Vec<Record>; 2] {
    [&BLOCK, &MUTEX].map(|records| core::mem::take(&mut *records.lock().unwrap()))
}

/// Where a thread is that holds the lock first.
const HOLDER: u32 = 1;

type Spin = spin::Mutex<()>;

/// Has this thread hold a lock until as many others wait for it, and then for as long. They wait as `wait` does, which answers
/// whether it has the lock, and unlock it at once. Answers how long each of them waited at least and at most.
fn contend<R: lock_api::RawMutex + Sync>(
    waiters: u32,
    held: Duration,
    wait: fn(&RawMutex<R>) -> bool,
    unlock: fn(&RawMutex<R>),
) -> (u64, Vec<u64>) {
    let lock = RawMutex::<R>::INIT;
    let lock = &lock;
    AT.set(HOLDER);
    lock.lock();
    let stacks = STACKS.load(Ordering::SeqCst);
    thread::scope(|scope| {
        let waiters: Vec<_> = (1..=waiters)
            .map(|nth| {
                scope.spawn(move || {
                    AT.set(HOLDER + nth);
                    let began = StdInstant::now();
                    let has_lock = wait(lock);
                    let waited = began.elapsed();
                    if has_lock {
                        unlock(lock);
                    }
                    waited.as_nanos() as u64
                })
            })
            .collect();
        if tracer_is_set() {
            while STACKS.load(Ordering::SeqCst) < stacks + waiters.len() as u32 {
                thread::yield_now();
            }
        }
        let began = StdInstant::now();
        thread::sleep(held);
        let least = began.elapsed().as_nanos() as u64;
        unlock(lock);
        let waited = waiters.into_iter().map(|waiter| waiter.join().unwrap());
        (least, waited.collect())
    })
}

fn lock_it<R: lock_api::RawMutex>(lock: &RawMutex<R>) -> bool {
    lock.lock();
    true
}

fn unlock<R: lock_api::RawMutex>(lock: &RawMutex<R>) {
    assert!(lock.is_locked());
    // SAFETY: who calls this has locked it.
    unsafe { lock.unlock() };
}

/// Each wait is in `block` with its time, and in `mutex` once, the first for who held the lock and each other for the one
/// that had it before.
fn check(least: u64, waited: &[u64]) {
    let [block, mutex] = take();
    assert_eq!(block.len(), waited.len());
    for record in &block {
        let waited = waited[(record.at - HOLDER) as usize - 1];
        assert!(
            (least..=waited).contains(&record.nanos),
            "{record:?}: {least} to {waited}"
        );
    }
    let times = |records: &[Record]| {
        let mut times: Vec<_> = records.iter().map(|record| record.nanos).collect();
        times.sort_unstable();
        times
    };
    assert_eq!(times(&block), times(&mutex));
    let mut unlockers: Vec<_> = mutex.iter().map(|record| record.at).collect();
    unlockers.sort_unstable();
    unlockers.dedup();
    assert_eq!(unlockers.len(), mutex.len(), "{mutex:?}");
    assert_eq!(unlockers.first(), Some(&HOLDER));
}

fn tracer_is_set() -> bool {
    IS_SET.load(Ordering::SeqCst)
}

static IS_SET: AtomicBool = AtomicBool::new(false);

/// One test at a time, with a tracer.
fn traced() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !tracer_is_set() {
        // Without one it is the lock that it is around.
        let held = Duration::from_millis(20);
        contend::<Spin>(2, held, lock_it, unlock);
        assert_eq!(take(), [[], []]);
        assert!(set_tracer(&TRACER));
        IS_SET.store(true, Ordering::SeqCst);
    }
    one
}

#[test]
fn a_free_lock_counts_nothing() {
    let _one = traced();
    static COUNT: lock_api::Mutex<RawMutex<Spin>, u32> = lock_api::Mutex::new(0);
    *COUNT.lock() += 1;
    {
        let locked = COUNT.lock();
        assert!(COUNT.is_locked() && COUNT.try_lock().is_none());
        assert_eq!(*locked, 1);
    }
    assert!(!COUNT.is_locked() && COUNT.try_lock().is_some());
    assert_eq!(take(), [[], []]);
}

#[test]
fn a_wait_is_charged_to_whose_unlock_ended_it() {
    let _one = traced();
    for waiters in [1, 4] {
        for held in [0, 30] {
            let held = Duration::from_millis(held);
            let (least, waited) = contend::<Spin>(waiters, held, lock_it, unlock);
            check(least, &waited);
        }
    }
}

#[test]
fn a_fair_unlock_is_charged_too() {
    let _one = traced();
    let held = Duration::from_millis(10);
    // SAFETY: who calls this has locked it.
    let (least, waited) = contend::<Plain>(3, held, lock_it, |lock| unsafe { lock.unlock_fair() });
    check(least, &waited);

    // To bump it is to unlock and to wait.
    let lock = RawMutex::<Plain>::INIT;
    let lock = &lock;
    lock.lock();
    // SAFETY: locked above.
    unsafe { lock.bump() };
    assert_eq!(
        (BUMPS.load(Ordering::SeqCst), take()),
        (1, [vec![], vec![]])
    );
    // SAFETY: locked above, and again by `bump`.
    unsafe { lock.unlock() };
    let (least, waited) = contend::<Plain>(1, held, lock_it, |lock| {
        if AT.get() == HOLDER {
            // SAFETY: who calls this has locked it.
            unsafe { lock.bump() };
        }
        unlock(lock);
    });
    assert_eq!(BUMPS.load(Ordering::SeqCst), 1);
    let [block, mutex] = take();
    let of_waiter = block.iter().find(|record| record.at == HOLDER + 1).unwrap();
    assert!((least..=waited[0]).contains(&of_waiter.nanos));
    assert!(mutex.contains(&Record {
        at: HOLDER,
        ..*of_waiter
    }));
}

#[test]
fn who_gives_up_has_waited_for_nobody() {
    let _one = traced();
    let waits = |lock: &RawMutex<Plain>| lock.try_lock_for(Duration::from_millis(20));
    let lock = RawMutex::<Plain>::INIT;
    let lock = &lock;
    AT.set(HOLDER);
    assert!(waits(lock) && !waits(lock));
    let until = StdInstant::now() + Duration::from_millis(20);
    assert!(!lock.try_lock_until(until));
    unlock(lock);
    assert!(lock.try_lock_until(until));
    unlock(lock);
    let [block, mutex] = take();
    assert_eq!((block.len(), mutex), (2, vec![]));
    assert!(block.iter().all(|record| record.at == HOLDER));
    assert!(block[0].nanos >= 20_000_000, "{block:?}");

    let held = Duration::from_millis(10);
    let patient = |lock: &RawMutex<Plain>| lock.try_lock_for(Duration::from_secs(60));
    let (least, waited) = contend::<Plain>(2, held, patient, unlock);
    check(least, &waited);
}

#[test]
fn threads_that_come_and_go_are_all_charged() {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 2_000;
    let _one = traced();
    static COUNT: lock_api::Mutex<RawMutex<Spin>, u32> = lock_api::Mutex::new(0);
    let waited: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|nth| {
                scope.spawn(move || {
                    AT.set(HOLDER + nth);
                    let mut waited = 0;
                    for round in 0..ROUNDS {
                        let began = StdInstant::now();
                        let mut count = COUNT.lock();
                        waited += began.elapsed().as_nanos() as u64;
                        *count += 1;
                        if round.is_multiple_of(64) {
                            // So that others find it taken, on one core too.
                            thread::yield_now();
                        }
                    }
                    waited
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(*COUNT.lock(), THREADS * ROUNDS);
    let [block, mutex] = take();
    let total = |records: &[Record]| records.iter().map(|record| record.nanos).sum::<u64>();
    println!(
        "{} waits, {} ns of {waited}; {} charged, {} ns",
        block.len(),
        total(&block),
        mutex.len(),
        total(&mutex)
    );
    assert!(!block.is_empty() && !mutex.is_empty());
    assert!(
        mutex.len() <= block.len() && total(&mutex) <= total(&block) && total(&block) <= waited
    );
    for charged in mutex {
        assert!(block.iter().any(|record| record.nanos == charged.nanos));
    }
}

/// A lock with all that a lock may have.
struct Plain(AtomicBool);

static BUMPS: AtomicU32 = AtomicU32::new(0);

// SAFETY: who sets the flag has it locked, until it clears it.
unsafe impl lock_api::RawMutex for Plain {
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardSend;

    fn lock(&self) {
        while !self.try_lock() {
            thread::yield_now();
        }
    }
    fn try_lock(&self) -> bool {
        !self.0.swap(true, Ordering::Acquire)
    }
    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

// SAFETY: as above.
unsafe impl RawMutexFair for Plain {
    unsafe fn unlock_fair(&self) {
        self.0.store(false, Ordering::Release);
    }
    unsafe fn bump(&self) {
        BUMPS.fetch_add(1, Ordering::SeqCst);
    }
}

// SAFETY: as above.
unsafe impl RawMutexTimed for Plain {
    type Duration = Duration;
    type Instant = StdInstant;

    fn try_lock_for(&self, timeout: Duration) -> bool {
        self.try_lock_until(StdInstant::now() + timeout)
    }
    fn try_lock_until(&self, timeout: StdInstant) -> bool {
        while !self.try_lock() {
            if StdInstant::now() >= timeout {
                return false;
            }
            thread::yield_now();
        }
        true
    }
}
