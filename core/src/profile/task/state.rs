//! What a task does, who still refers to it, and whom to wake for it: one word, and the executor's waker.
//!
//! # Whose the waker is
//!
//! * While `HAS_WAKER` is set: whoever set it, who clears it. It is set in a task that is alive and not being polled.
//! * Else, while the task is being polled (`RUNNING`): the poller's.
//! * Once the task ended, if nobody had the waker then: the one's who ended it, until its wrapper clears `HELD`.
//!
//! # No wake-up is lost
//!
//! A wake-up is a read-modify-write of the word even where it changes nothing, and so are the beginning and the end of a
//! poll, and every other change. So they have an order, and who comes later acquires what those before released.
//!
//! * A poll that begins after the wake-up: the child sees what it was woken for.
//! * A wake-up between the beginning and the end of a poll leaves `NOTIFIED`. The end sees it, and wakes the executor by
//!   the waker of this poll.
//! * One after the end finds `NOTIFIED` clear: it takes the executor's waker, which that poll left, and wakes it. Or set:
//!   then somebody has done that, or is about to, and no poll began since.
//! * While someone has the executor's waker, a poll may begin and end. It can't leave its own there; so it leaves
//!   `NOTIFIED` and wakes its executor at once, and the next poll tries again.

#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::task::Waker;

use crate::sync::{AtomicUsize, Ordering, UnsafeCell, const_fn};

/// The wrapper is there: it keeps the slot.
const HELD: usize = 1;
/// The task has not ended.
const ALIVE: usize = 1 << 1;
/// It is being polled.
const RUNNING: usize = 1 << 2;
/// It was woken since its last poll began.
const NOTIFIED: usize = 1 << 3;
/// Someone who does not poll it has the executor's waker.
const HAS_WAKER: usize = 1 << 4;
/// It was polled before.
const POLLED: usize = 1 << 5;
/// Another task polled it last.
const NESTED: usize = 1 << 6;
/// A clone of its waker. The count is in the uppermost bits: should it ever overflow, it harms nothing beside it.
const CLONE: usize = 1 << 8;
const FLAGS: usize = CLONE - 1;
/// Without any of these the slot is free.
const IN_USE: usize = HELD | HAS_WAKER | !FLAGS;
/// What tells, of these, that a wake-up is the first since the task became pending.
const PENDING_OF: usize = ALIVE | RUNNING | NOTIFIED | HAS_WAKER;
const PENDING: usize = ALIVE;

#[derive(Debug)]
pub(super) struct State {
    word: AtomicUsize,
    /// The executor's, of the last poll that left the task pending.
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: the waker is used by one at a time, as the head of this module says. Wakers are Send.
unsafe impl Sync for State {}

impl State {
    const_fn! {
        pub(super) fn new() -> Self {
            Self {
                word: AtomicUsize::new(0),
                waker: UnsafeCell::new(None),
            }
        }
    }

    /// A new task begins. `None` if something refers to one here already.
    pub(super) fn begin(&self) -> Option<Held<'_>> {
        // Release: who sees the task sees what was written about it.
        self.update(|word| (word & IN_USE == 0).then_some(HELD | ALIVE))?;
        Some(Held { state: self })
    }

    /// A clone more of the task's waker.
    #[inline]
    pub(super) fn add_clone(&self) {
        // Whoever clones has one, or is lent one by the poll: nothing can be freed meanwhile.
        self.word.fetch_add(CLONE, Ordering::Relaxed);
    }

    /// A clone less. True if nothing refers to the task any more, which is said once.
    pub(super) fn drop_clone(&self) -> bool {
        // The last one of a pending task: nothing can wake it by us. Then we must not keep what belongs to the
        // executor, which may well go by it: some drop a task that no waker is left of.
        let is_last = |word: usize| word & PENDING_OF == PENDING && word & !FLAGS == CLONE;
        let dropped = self.update(|word| {
            let less = word.wrapping_sub(CLONE);
            Some(if is_last(word) {
                less | HAS_WAKER
            } else {
                less
            })
        });
        let before = dropped.unwrap_or(0);
        if is_last(before) {
            // SAFETY: this has just set HAS_WAKER.
            let waker = unsafe { self.replace_waker(None) };
            let is_free = self.release(HAS_WAKER);
            drop(waker);
            return is_free;
        }
        before.wrapping_sub(CLONE) & IN_USE == 0
    }

    /// A wake-up by a clone of the task's waker, which is given up (`by_value`) or kept.
    ///
    /// If it is the first since the task became pending, `record` is called, and no other one's is at the same time.
    pub(super) fn wake(&self, by_value: bool, record: impl FnOnce()) -> Wake {
        let spent = if by_value { CLONE } else { 0 };
        // Where it changes nothing it is a read-modify-write all the same: see the head of this module.
        let woken = self.update(|word| {
            Some(match word & PENDING_OF {
                PENDING => word | NOTIFIED | HAS_WAKER,
                flags if flags & ALIVE == 0 => word.wrapping_sub(spent),
                _ => word.wrapping_sub(spent) | NOTIFIED,
            })
        });
        let before = woken.unwrap_or(0);
        if before & PENDING_OF != PENDING {
            return Wake {
                executor: None,
                is_free: by_value && before.wrapping_sub(spent) & IN_USE == 0,
            };
        }
        record();
        // SAFETY: this has set HAS_WAKER.
        let executor = unsafe { self.replace_waker(None) };
        Wake {
            executor,
            is_free: self.release(HAS_WAKER | spent),
        }
    }

    /// What the task does at the moment.
    pub(super) fn load(&self) -> Flags {
        Flags(self.word.load(Ordering::Acquire))
    }

    /// The task ends; false if it had already. Only its wrapper calls this, or the poll of that.
    fn stop(&self) -> bool {
        let before = (self.word).fetch_and(!(ALIVE | RUNNING | NOTIFIED), Ordering::AcqRel);
        // Else the one who has the waker drops it.
        if before & (ALIVE | HAS_WAKER) == ALIVE {
            // SAFETY: if the task was being polled, it was by the caller. HAS_WAKER was clear and stays so, as it is not
            // set in a task that has ended. No poll begins there either, and no other task before HELD is cleared, which
            // the caller's wrapper does after this.
            drop(unsafe { self.replace_waker(None) });
        }
        before & ALIVE != 0
    }

    /// Clears bits that are set, or takes a clone off. True if nothing refers to the task any more, which is said once.
    fn release(&self, bits: usize) -> bool {
        let before = self.word.fetch_sub(bits, Ordering::AcqRel);
        before.wrapping_sub(bits) & IN_USE == 0
    }

    /// The word before the change; `None` if there was none.
    #[inline]
    fn update(&self, change: impl Fn(usize) -> Option<usize>) -> Option<usize> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let new = change(word)?;
            let changed =
                self.word
                    .compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Relaxed);
            match changed {
                Ok(_) => return Some(word),
                Err(now) => word = now,
            }
        }
    }

    /// # Safety
    ///
    /// The waker is the caller's: see the head of this module.
    unsafe fn replace_waker(&self, waker: Option<Waker>) -> Option<Waker> {
        self.waker.with_mut(|place| {
            // SAFETY: the caller has it for itself, and this calls nothing that might come back here.
            unsafe { core::mem::replace(&mut *place, waker) }
        })
    }
}

/// What a task's wrapper has: there is one for each task, and nobody else polls or ends it.
#[derive(Debug)]
pub(super) struct Held<'a> {
    state: &'a State,
}

impl Held<'_> {
    /// A poll begins, in another task's or not. `None` if the task has ended.
    #[inline]
    pub(super) fn poll(&mut self, is_nested: bool) -> Option<Polling<'_>> {
        let nested = if is_nested { NESTED } else { 0 };
        let before = self.state.update(|word| {
            let polled = word & !(NOTIFIED | NESTED) | RUNNING | POLLED | nested;
            (word & ALIVE != 0).then_some(polled)
        })?;
        Some(Polling {
            state: self.state,
            is_continued: before & (POLLED | NOTIFIED | HAS_WAKER) == POLLED,
            held: PhantomData,
        })
    }

    /// The wrapper goes, and with it the task.
    pub(super) fn end(self) -> End {
        let is_end = self.state.stop();
        End {
            is_end,
            is_free: self.state.release(HELD),
        }
    }
}

/// The poll of a task: it ends with [`pend`](Self::pend) or [`finish`](Self::finish).
#[derive(Debug)]
pub(super) struct Polling<'a> {
    state: &'a State,
    is_continued: bool,
    /// There's one at a time.
    held: PhantomData<&'a mut Held<'a>>,
}

impl Polling<'_> {
    /// Whether nothing had woken the task since the poll before: then it may still be in the same wait.
    pub(super) const fn is_continued(&self) -> bool {
        self.is_continued
    }

    /// The task has ended with this poll.
    pub(super) fn finish(self) -> bool {
        self.state.stop()
    }

    /// The child is pending, and `executor` is to be woken for it. `woken_now` is called if it was woken during this
    /// poll; then the executor is woken here.
    pub(super) fn pend(self, executor: &Waker, woken_now: impl Fn()) {
        let state = self.state;
        let mut word = state.word.load(Ordering::Acquire);
        loop {
            let is_woken = word & (NOTIFIED | HAS_WAKER) != 0;
            let mut new = word & !RUNNING;
            if is_woken {
                new |= NOTIFIED;
                if word & HAS_WAKER == 0 {
                    woken_now();
                }
            } else if word & !FLAGS == 0 {
                // SAFETY: the task is being polled, by us, and HAS_WAKER is clear and stays so while it is.
                drop(unsafe { state.replace_waker(None) });
            } else {
                // SAFETY: as above.
                unsafe { state.keep_waker(executor) };
            }
            let changed =
                state
                    .word
                    .compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Acquire);
            match changed {
                Ok(_) => {
                    if is_woken {
                        executor.wake_by_ref();
                    }
                    return;
                }
                Err(now) => word = now,
            }
        }
    }
}

impl State {
    /// Keeps a clone of `executor`, if what is there doesn't wake the same already.
    ///
    /// # Safety
    ///
    /// As for [`replace_waker`](Self::replace_waker).
    unsafe fn keep_waker(&self, executor: &Waker) {
        let is_kept = self.waker.with_mut(|place| {
            // SAFETY: the caller has it for itself. `will_wake` compares two pointers each.
            unsafe { (*place).as_ref() }.is_some_and(|waker| waker.will_wake(executor))
        });
        if !is_kept {
            let waker = executor.clone();
            // SAFETY: the caller has it for itself.
            drop(unsafe { self.replace_waker(Some(waker)) });
        }
    }
}

/// What came of the end of a wrapper.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Whether the task had not ended before.
    pub(super) is_end: bool,
    /// Whether nothing refers to the task any more.
    pub(super) is_free: bool,
}

/// What came of a wake-up.
#[derive(Debug)]
pub(super) struct Wake {
    /// To be woken.
    pub(super) executor: Option<Waker>,
    /// Whether nothing refers to the task any more.
    pub(super) is_free: bool,
}

/// The state at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flags(usize);

impl Flags {
    pub(super) const fn is_alive(self) -> bool {
        self.0 & ALIVE != 0
    }

    /// Whether somebody is about to wake it.
    pub(super) const fn is_being_woken(self) -> bool {
        self.0 & HAS_WAKER != 0
    }

    pub(super) const fn is_nested(self) -> bool {
        self.0 & NESTED != 0
    }

    /// Whether nothing can wake it any more: [`Task::is_leaked`](super::Task::is_leaked).
    pub(super) fn is_leaked(self) -> bool {
        self.state() == super::State::Pending && self.clones() == 0 && !self.is_nested()
    }

    pub(super) const fn clones(self) -> usize {
        self.0 / CLONE
    }

    pub(super) const fn state(self) -> super::State {
        if self.0 & RUNNING != 0 {
            super::State::Running
        } else if self.0 & NOTIFIED != 0 {
            super::State::Woken
        } else if self.0 & POLLED != 0 {
            super::State::Pending
        } else {
            super::State::New
        }
    }

    /// Whether the two differ in the number of clones at most.
    pub(super) const fn is_same_but_clones(self, other: Self) -> bool {
        (self.0 ^ other.0) & FLAGS == 0
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    extern crate std;

    use core::sync::atomic::AtomicBool;
    use std::sync::Arc as StdArc;
    use std::task::Wake as StdWake;

    use loom::sync::Arc;
    use loom::sync::atomic::AtomicBool as Data;
    use loom::thread;

    use super::*;

    /// An executor with one task. Loom doesn't see into it, so it orders nothing that the state doesn't.
    #[derive(Default)]
    struct Executor {
        is_woken: AtomicBool,
    }

    impl StdWake for Executor {
        fn wake(self: StdArc<Self>) {
            self.is_woken.store(true, Ordering::SeqCst);
        }
    }

    /// A future that waits for some data, and keeps the waker that it has cloned.
    struct Waiter {
        executor: StdArc<Executor>,
        waker: Waker,
        is_cloned: bool,
        is_ready: bool,
    }

    impl Waiter {
        fn new() -> Self {
            let executor = StdArc::new(Executor::default());
            Self {
                waker: Waker::from(executor.clone()),
                executor,
                is_cloned: false,
                is_ready: false,
            }
        }

        fn is_woken(&self) -> bool {
            self.executor.is_woken.load(Ordering::SeqCst)
        }

        fn poll(&mut self, state: &State, held: &mut Held<'_>, data: &[&Data]) {
            if self.is_ready {
                return;
            }
            self.executor.is_woken.store(false, Ordering::SeqCst);
            let polling = held.poll(false).unwrap();
            self.is_ready = data.iter().all(|data| data.load(Ordering::Relaxed));
            if self.is_ready {
                assert!(polling.finish());
                return;
            }
            if !self.is_cloned {
                self.is_cloned = true;
                data.iter().for_each(|_| state.add_clone());
            }
            polling.pend(&self.waker, || ());
        }
    }

    fn wake(state: &State, by_value: bool) -> bool {
        let wake = state.wake(by_value, || ());
        if let Some(executor) = wake.executor {
            executor.wake();
        }
        wake.is_free
    }

    /// Whenever a wake-up comes, also between, at and after two polls: if the task has not seen what it was woken for,
    /// its executor is woken.
    #[test]
    fn loom_no_wake_up_is_lost() {
        loom::model(|| {
            let shared = Arc::new((State::new(), Data::new(false)));
            let (state, data) = &*shared;
            let mut held = state.begin().unwrap();
            let mut waiter = Waiter::new();
            waiter.poll(state, &mut held, &[data]);
            let waker = thread::spawn({
                let shared = shared.clone();
                move || {
                    shared.1.store(true, Ordering::Relaxed);
                    wake(&shared.0, true)
                }
            });
            waiter.poll(state, &mut held, &[data]);
            waiter.poll(state, &mut held, &[data]);
            let is_free = waker.join().unwrap();
            assert!(waiter.is_ready || waiter.is_woken());
            assert!(!is_free && held.end().is_free);
        });
    }

    /// The executor's word for it is enough: a poll that it makes as it was woken sees the data.
    #[test]
    fn loom_who_is_woken_sees_what_for() {
        loom::model(|| {
            let shared = Arc::new((State::new(), Data::new(false), AtomicBool::new(false)));
            let (state, data, is_done) = &*shared;
            let mut held = state.begin().unwrap();
            let mut waiter = Waiter::new();
            waiter.poll(state, &mut held, &[data]);
            let waker = thread::spawn({
                let shared = shared.clone();
                move || {
                    shared.1.store(true, Ordering::Relaxed);
                    wake(&shared.0, true);
                    shared.2.store(true, Ordering::SeqCst);
                }
            });
            let must_be_ready = is_done.load(Ordering::SeqCst);
            waiter.poll(state, &mut held, &[data]);
            assert!(waiter.is_ready || !must_be_ready);
            waker.join().unwrap();
        });
    }

    /// Two that wake at once: nothing is lost of either, and they don't record at the same time.
    #[test]
    fn loom_two_wake_at_once() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let shared = Arc::new((State::new(), [Data::new(false), Data::new(false)]));
            let recording = StdArc::new(AtomicBool::new(false));
            let (state, [one, other]) = &*shared;
            let mut held = state.begin().unwrap();
            let mut waiter = Waiter::new();
            waiter.poll(state, &mut held, &[one, other]);
            let wakers = [0, 1].map(|i| {
                let (shared, recording) = (shared.clone(), recording.clone());
                thread::spawn(move || {
                    shared.1[i].store(true, Ordering::Relaxed);
                    let wake = shared.0.wake(true, || {
                        assert!(!recording.swap(true, Ordering::SeqCst));
                        thread::yield_now();
                        recording.store(false, Ordering::SeqCst);
                    });
                    if let Some(executor) = wake.executor {
                        executor.wake();
                    }
                    assert!(!wake.is_free);
                })
            });
            waiter.poll(state, &mut held, &[one, other]);
            for waker in wakers {
                waker.join().unwrap();
            }
            assert!(waiter.is_ready || waiter.is_woken());
            waiter.poll(state, &mut held, &[one, other]);
            assert!(waiter.is_ready && held.end().is_free);
        });
    }

    /// The last clone goes, and with it our hold of the executor; a poll at the same time makes a new one, by which
    /// the task is woken.
    #[test]
    fn loom_the_last_clone_goes_as_a_poll_makes_another() {
        loom::model(|| {
            let shared = Arc::new((State::new(), Data::new(false)));
            let (state, data) = &*shared;
            let mut held = state.begin().unwrap();
            let mut waiter = Waiter::new();
            waiter.poll(state, &mut held, &[data]);
            let drops = thread::spawn({
                let shared = shared.clone();
                move || assert!(!shared.0.drop_clone())
            });
            waiter.is_cloned = false;
            waiter.poll(state, &mut held, &[data]);
            data.store(true, Ordering::Relaxed);
            assert!(!wake(state, true));
            drops.join().unwrap();
            assert!(waiter.is_woken());
            waiter.poll(state, &mut held, &[data]);
            assert!(waiter.is_ready && held.end().is_free);
            assert_eq!(StdArc::strong_count(&waiter.executor), 2);
        });
    }

    /// The wrapper goes, one clone is used and one dropped, all at once: one of them finds the slot free, and
    /// nobody keeps the executor.
    #[test]
    fn loom_the_slot_is_free_once_when_all_are_gone() {
        loom::model(|| {
            let shared = Arc::new((State::new(), Data::new(false), Data::new(false)));
            let (state, one, other) = &*shared;
            let mut held = state.begin().unwrap();
            let mut waiter = Waiter::new();
            waiter.poll(state, &mut held, &[one, other]);
            let wakes = thread::spawn({
                let shared = shared.clone();
                move || wake(&shared.0, true)
            });
            let drops = thread::spawn({
                let shared = shared.clone();
                move || shared.0.drop_clone()
            });
            let freed = [
                held.end().is_free,
                wakes.join().unwrap(),
                drops.join().unwrap(),
            ];
            assert_eq!(freed.iter().filter(|&&is_free| is_free).count(), 1);
            assert_eq!(StdArc::strong_count(&waiter.executor), 2);
            assert!(state.begin().is_some());
        });
    }

    /// A wake-up after the end, or as it ends, finds nobody to wake, or an executor that doesn't mind.
    #[test]
    fn loom_a_wake_up_as_the_task_completes() {
        loom::model(|| {
            let shared = Arc::new((State::new(), Data::new(false)));
            let (state, data) = &*shared;
            let mut held = state.begin().unwrap();
            let mut waiter = Waiter::new();
            waiter.poll(state, &mut held, &[data]);
            let wakes = thread::spawn({
                let shared = shared.clone();
                move || {
                    assert!(!wake(&shared.0, false));
                    wake(&shared.0, true)
                }
            });
            data.store(true, Ordering::Relaxed);
            waiter.poll(state, &mut held, &[data]);
            assert!(waiter.is_ready && held.poll(false).is_none());
            let freed = [held.end().is_free, wakes.join().unwrap()];
            assert_ne!(freed[0], freed[1]);
            assert_eq!(StdArc::strong_count(&waiter.executor), 2);
        });
    }
}
