//! Who waits for a lock, and who let it go while somebody did.

#![forbid(unsafe_code)]

use crate::profile::labels::LabelSetId;
use crate::stack::StackId;
use crate::sync::{AtomicU32, AtomicUsize, Ordering, const_fn};

/// In `state`: the holder that let go last has left a note.
const NOTED: usize = 1;
/// In `state`: one that waits.
const WAITER: usize = 2;

/// Beside a lock: how many wait for it, and a note of who unlocked it.
///
/// Only the lock's holder writes and reads the note, and sets and clears its bit in `state`, so it is the lock that orders
/// that. A note is of the last unlock: who unlocks a lock that has one leaves another, or takes it away.
#[derive(Debug)]
pub(super) struct Waiters {
    state: AtomicUsize,
    stack: AtomicU32,
    labels: AtomicU32,
}

/// Who unlocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) stack: StackId,
    pub(super) labels: LabelSetId,
}

impl Waiters {
    const_fn! {
        pub(super) fn new() -> Self {
            Self {
                state: AtomicUsize::new(0),
                stack: AtomicU32::new(0),
                labels: AtomicU32::new(0),
            }
        }
    }

    /// Somebody waits from now on, until it [got the lock](Self::got) or [gave up](Self::gave_up).
    pub(super) fn wait(&self) {
        self.state.fetch_add(WAITER, Ordering::Relaxed);
    }

    /// One that waited doesn't want it any more.
    pub(super) fn gave_up(&self) {
        self.state.fetch_sub(WAITER, Ordering::Relaxed);
    }

    /// One that waited holds the lock now. Answers who let it go; `None` if that one did not see that somebody waited,
    /// as the wait had only just begun.
    pub(super) fn got(&self) -> Option<Note> {
        let noted = self.state.load(Ordering::Relaxed) & NOTED;
        let note = (noted != 0).then(|| Note {
            stack: StackId::from_bits(self.stack.load(Ordering::Relaxed)),
            labels: LabelSetId::from_bits(self.labels.load(Ordering::Relaxed)),
        });
        self.state.fetch_sub(WAITER + noted, Ordering::Relaxed);
        note
    }

    /// Whether the lock's holder has nothing to say when it unlocks.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.state.load(Ordering::Relaxed) == 0
    }

    /// The lock's holder is about to unlock it, and leaves a note if somebody waits.
    pub(super) fn unlocks(&self, note: impl FnOnce() -> Option<Note>) {
        let state = self.state.load(Ordering::Relaxed);
        let note = if state >= WAITER { note() } else { None };
        if let Some(Note { stack, labels }) = note {
            self.stack.store(stack.to_bits(), Ordering::Relaxed);
            self.labels.store(labels.to_bits(), Ordering::Relaxed);
            self.state.fetch_or(NOTED, Ordering::Relaxed);
        } else {
            self.state.fetch_and(!NOTED, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn note(at: u32) -> Note {
        Note {
            stack: StackId::from_bits(at),
            labels: LabelSetId::from_bits(at + 1),
        }
    }

    #[test]
    fn the_last_unlock_is_noted() {
        let waiters = Waiters::new();
        assert!(waiters.is_quiet());
        waiters.wait();
        waiters.wait();
        for at in [1, 2] {
            assert!(!waiters.is_quiet());
            waiters.unlocks(|| Some(note(at)));
        }
        assert_eq!(waiters.got(), Some(note(2)));
        // The other one's lock was not unlocked since.
        assert_eq!(waiters.got(), None);
        assert!(waiters.is_quiet());
    }

    #[test]
    fn a_note_that_nobody_read_goes_with_the_next_unlock() {
        let waiters = Waiters::new();
        waiters.wait();
        waiters.unlocks(|| Some(note(1)));
        waiters.gave_up();
        assert!(!waiters.is_quiet());
        waiters.unlocks(|| unreachable!("nobody waits"));
        assert!(waiters.is_quiet());
        waiters.wait();
        assert_eq!(waiters.got(), None);
    }

    #[test]
    fn who_has_nothing_to_say_takes_the_note_away() {
        let waiters = Waiters::new();
        waiters.wait();
        waiters.unlocks(|| Some(note(1)));
        waiters.unlocks(|| None);
        assert_eq!(waiters.got(), None);
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::{Arc, Mutex, MutexGuard};
    use loom::thread;

    use super::*;

    /// A lock, in which there is who unlocked it last, by a number that is not 0.
    struct Lock {
        unlocked_by: Mutex<u32>,
        waiters: Waiters,
    }

    impl Lock {
        fn new() -> Self {
            Self {
                unlocked_by: Mutex::new(0),
                waiters: Waiters::new(),
            }
        }

        /// Locks it. Who had to wait reads the note of who unlocked it last, or none.
        fn lock(&self) -> MutexGuard<'_, u32> {
            if let Ok(locked) = self.unlocked_by.try_lock() {
                return locked;
            }
            self.waiters.wait();
            let locked = self.unlocked_by.lock().unwrap();
            if let Some(Note { stack, labels }) = self.waiters.got() {
                assert_ne!(*locked, 0);
                assert_eq!([stack.to_bits(), labels.to_bits()], [*locked, *locked]);
            }
            locked
        }

        fn unlock(&self, mut locked: MutexGuard<'_, u32>, by: u32) {
            if !self.waiters.is_quiet() {
                self.waiters.unlocks(|| {
                    Some(Note {
                        stack: StackId::from_bits(by),
                        labels: LabelSetId::from_bits(by),
                    })
                });
            }
            *locked = by;
        }
    }

    #[test]
    fn loom_a_note_is_of_the_unlock_before() {
        loom::model(|| {
            let lock = Arc::new(Lock::new());
            let threads = [1, 2].map(|by| {
                let lock = lock.clone();
                thread::spawn(move || lock.unlock(lock.lock(), by))
            });
            lock.unlock(lock.lock(), 3);
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(lock.waiters.is_quiet());
        });
    }

    #[test]
    fn loom_who_gives_up_leaves_no_note_for_others() {
        loom::model(|| {
            let lock = Arc::new(Lock::new());
            let impatient = lock.clone();
            let impatient = thread::spawn(move || {
                impatient.waiters.wait();
                impatient.waiters.gave_up();
            });
            let other = lock.clone();
            let other = thread::spawn(move || other.unlock(other.lock(), 1));
            lock.unlock(lock.lock(), 2);
            other.join().unwrap();
            impatient.join().unwrap();
            // If there is a note still, it goes with the next unlock.
            let locked = lock.lock();
            lock.unlock(locked, 3);
            assert!(lock.waiters.is_quiet());
        });
    }

    /// Who waited when the lock was about to be unlocked knows by whom.
    #[test]
    fn loom_a_wait_that_is_seen_is_charged() {
        loom::model(|| {
            let lock = Arc::new(Lock::new());
            let locked = lock.lock();
            lock.waiters.wait();
            let waiter = lock.clone();
            let waiter = thread::spawn(move || {
                let locked = waiter.unlocked_by.lock().unwrap();
                let note = waiter.waiters.got().map(|note| note.stack.to_bits());
                assert_eq!(note, Some(*locked));
            });
            lock.unlock(locked, 1);
            // It may come before the waiter, and is charged then.
            lock.unlock(lock.lock(), 2);
            waiter.join().unwrap();
            assert!(lock.waiters.is_quiet());
        });
    }
}
