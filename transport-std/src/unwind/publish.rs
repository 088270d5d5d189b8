//! A value that signal handlers read while ordinary code replaces it.
//!
//! A reader counts itself in, loads the pointer, and counts itself out when it is done: it never waits. The
//! writer swaps the pointer and then looks at the count. All four are sequentially consistent, so they
//! have one order. If the writer sees zero, then a reader that counts itself in later also loads the pointer later
//! than the swap, and gets the new value; and every reader from before has counted itself out, and what
//! it read happened before that (release, and the writer's load acquires). So nobody has an old value any
//! more. If the writer sees another number, old values are kept until the next replacement; with too many
//! of them, nothing is replaced until readers are done.

#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// How many replaced values may wait for readers.
const RETIRED: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Published<T> {
    current: AtomicPtr<T>,
    readers: AtomicUsize,
    /// How many values there were; counted after the value is there.
    version: AtomicUsize,
    /// Whether a writer is at work.
    writing: AtomicBool,
    /// For the writer at work: replaced values that readers may still have.
    retired: UnsafeCell<[*mut T; RETIRED]>,
}

// SAFETY: `current` is shared as `&T` with any thread that reads, and a value may be dropped by another thread than
// the one that made it, so T must be Sync and Send. `retired` is used only by the thread that set `writing`.
unsafe impl<T: Send + Sync> Sync for Published<T> {}

// SAFETY: owns values of type T, and nothing that is bound to a thread.
unsafe impl<T: Send> Send for Published<T> {}

/// What an update did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Update {
    /// Another one is at work: nothing.
    Busy,
    /// Nothing: there was no new value, or too many old ones are still being read.
    Unchanged,
    /// The new value is there for all readers that start from now on.
    Replaced,
}

/// Counts a reader out.
struct Reader<'a>(&'a AtomicUsize);

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Lets the next writer in.
struct Writer<'a>(&'a AtomicBool);

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<T> Published<T> {
    pub(super) const fn new() -> Self {
        Self {
            current: AtomicPtr::new(null_mut()),
            readers: AtomicUsize::new(0),
            version: AtomicUsize::new(0),
            writing: AtomicBool::new(false),
            retired: UnsafeCell::new([null_mut(); RETIRED]),
        }
    }

    /// Whether there is a value.
    pub(super) fn is_some(&self) -> bool {
        !self.current.load(Ordering::Relaxed).is_null()
    }

    /// The current value's number; 0 if there is none.
    ///
    /// What is read after this was asked holds for as long as the answer is the same: it was read from the value with that
    /// number, or from the next one, whose update has not ended yet. It can be no later one, as that is put in place after the
    /// next one was counted.
    ///
    /// May run in a signal handler.
    #[inline]
    pub(super) fn version(&self) -> usize {
        self.version.load(Ordering::SeqCst)
    }

    /// Calls `f` with the current value. May run in a signal handler: two atomic additions and a load.
    // Always: what is called so is often a whole walk.
    #[inline(always)]
    pub(super) fn read<R>(&self, f: impl FnOnce(Option<&T>) -> R) -> R {
        self.readers.fetch_add(1, Ordering::SeqCst);
        let _reader = Reader(&self.readers);
        let current = self.current.load(Ordering::SeqCst);
        // SAFETY: null, or made by `Box::into_raw` in `update`. It was loaded after this reader was counted, so it is
        // not dropped before the reader is counted out, which is when `_reader` is dropped, after `f` (see the
        // module).
        f(unsafe { current.as_ref() })
    }

    /// Replaces the value by what `make` makes of it, if it makes one. In ordinary context only; never waits for
    /// another update or for readers.
    pub(super) fn update(&self, make: impl FnOnce(Option<&T>) -> Option<T>) -> Update {
        if self.writing.swap(true, Ordering::Acquire) {
            return Update::Busy;
        }
        let _writer = Writer(&self.writing);
        // SAFETY: only the thread that set `writing` gets here, and `_writer` clears it after the last use.
        let retired = unsafe { &mut *self.retired.get() };
        self.drop_unread(retired);
        let Some(free) = retired.iter_mut().find(|old| old.is_null()) else {
            return Update::Unchanged;
        };
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: null, or made by `Box::into_raw` here, and only a writer replaces or drops it.
        let Some(new) = make(unsafe { current.as_ref() }) else {
            return Update::Unchanged;
        };
        *free = self
            .current
            .swap(Box::into_raw(Box::new(new)), Ordering::SeqCst);
        self.version.fetch_add(1, Ordering::SeqCst);
        self.drop_unread(retired);
        Update::Replaced
    }

    /// Drops the replaced values if nobody is reading.
    fn drop_unread(&self, retired: &mut [*mut T; RETIRED]) {
        if self.readers.load(Ordering::SeqCst) != 0 {
            return;
        }
        for old in retired {
            let old = core::mem::replace(old, null_mut());
            if !old.is_null() {
                // SAFETY: made by `Box::into_raw`, swapped out once, and taken out of the list here. The count was zero
                // after the swap, so no reader has it (see the module).
                drop(unsafe { Box::from_raw(old) });
            }
        }
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        let current = *self.current.get_mut();
        for value in self.retired.get_mut().iter().copied().chain([current]) {
            if !value.is_null() {
                // SAFETY: made by `Box::into_raw`, and `&mut self` says that nobody reads or writes.
                drop(unsafe { Box::from_raw(value) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicUsize;
    use std::sync::Arc;
    use std::thread;

    /// A value that can be seen to be dropped: its word changes, and it counts.
    struct Seen {
        word: AtomicUsize,
        dropped: Arc<AtomicUsize>,
    }

    const ALIVE: usize = 0x600d;

    impl Seen {
        fn new(dropped: &Arc<AtomicUsize>) -> Self {
            Self {
                word: AtomicUsize::new(ALIVE),
                dropped: Arc::clone(dropped),
            }
        }
    }

    impl Drop for Seen {
        fn drop(&mut self) {
            self.word.store(0xdead, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn replaced_values_are_dropped_once_nobody_reads() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let published = Published::new();
        assert!(!published.is_some());
        assert!(published.read(|value: Option<&Seen>| value.is_none()));
        assert_eq!(
            published.update(|_| Some(Seen::new(&dropped))),
            Update::Replaced
        );
        assert_eq!(published.update(|_| None), Update::Unchanged);
        assert_eq!(published.version(), 1);
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        assert_eq!(
            published.update(|_| Some(Seen::new(&dropped))),
            Update::Replaced
        );
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        assert_eq!(published.version(), 2);
        drop(published);
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_reader_keeps_its_value_and_writers_stop_at_the_bound() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let published = Published::new();
        published.update(|_| Some(Seen::new(&dropped)));
        published.read(|value| {
            let value = value.unwrap();
            for _ in 0..RETIRED {
                assert_eq!(
                    published.update(|_| Some(Seen::new(&dropped))),
                    Update::Replaced
                );
            }
            assert_eq!(
                published.update(|_| Some(Seen::new(&dropped))),
                Update::Unchanged
            );
            assert_eq!(value.word.load(Ordering::Relaxed), ALIVE);
            assert_eq!(dropped.load(Ordering::Relaxed), 0);
        });
        assert_eq!(published.update(|_| None), Update::Unchanged);
        assert_eq!(dropped.load(Ordering::Relaxed), RETIRED);
    }

    #[test]
    fn a_second_writer_returns_at_once() {
        let published = Published::<u32>::new();
        let outer = published.update(|_| {
            assert_eq!(published.update(|_| Some(2)), Update::Busy);
            Some(1)
        });
        assert_eq!(outer, Update::Replaced);
        assert_eq!(published.read(|value| value.copied()), Some(1));
    }

    #[test]
    fn readers_never_see_a_dropped_value() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let published = Published::new();
        published.update(|_| Some(Seen::new(&dropped)));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let word = published
                            .read(|value| value.map(|value| value.word.load(Ordering::Relaxed)));
                        assert_eq!(word, Some(ALIVE));
                    }
                });
            }
            let mut replaced = 0;
            for _ in 0..20_000 {
                replaced += usize::from(
                    published.update(|_| Some(Seen::new(&dropped))) == Update::Replaced,
                );
            }
            stop.store(true, Ordering::Relaxed);
            assert!(replaced > 0);
        });
        published.update(|_| None);
        assert!(dropped.load(Ordering::Relaxed) > 0);
    }
}
