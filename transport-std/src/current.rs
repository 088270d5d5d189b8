//! What the calling thread is at: the task that it polls, and its labels.

#![forbid(unsafe_code)]

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering, compiler_fence};

use picoprof::profile::labels::LabelSetId;
use picoprof::profile::task::Context;

use crate::{recording, tables, unwind};

thread_local! {
    /// Constant at first and without a destructor, so that an access is an instruction or two and works at any time of
    /// a thread's life.
    static CURRENT: Cell<Context> = const { Cell::new(Context::EMPTY) };
    /// Since when it waits for others, in nanoseconds, as far as that is seen; 0 if it doesn't.
    static WAITS_SINCE: Cell<u64> = const { Cell::new(0) };
}

/// Whether a signal handler may read it.
static IS_STATIC: AtomicBool = AtomicBool::new(false);

/// Runs `f` with these labels for what the calling thread does meanwhile, as Go's `pprof.Do` does.
///
/// They go before labels with the same key that the thread has already, and those come back when `f` returns or unwinds.
/// `go tool pprof -tags` shows them, `-tagfocus` and `-tagroot` choose by them. They are in `profile`, `heap`,
/// `allocs`, `block`, `mutex` and `goroutine`. A thread that is created inside begins with the labels of its creator where the
/// program uses [`interpose!`](crate::interpose).
///
/// Keys and values are kept for ever, in a table of fixed size: they are to be few, such as tenants and routes, and not the number
/// of a request. Up to 16 labels at once, of up to 128 bytes a string. Where there is no room, `f` runs with the labels of
/// before, and the index page counts it.
///
/// In a shared library that contains this crate, CPU samples have no labels, nor has a thread in `goroutine` (but for the one
/// that is asked): a signal handler can't safely read a thread's memory there.
///
/// ```
/// let sum: u64 = picoprof_std::with_labels([("tenant", "a"), ("route", "/sum")], || (1..100).sum());
/// assert_eq!(sum, 4950);
/// ```
pub fn with_labels<'l, R>(labels: impl AsRef<[(&'l str, &'l str)]>, f: impl FnOnce() -> R) -> R {
    let all = tables::labels().extend(self::labels(), labels.as_ref());
    let _before = Restored(swap_labels(all));
    f()
}

/// The labels to go back to when this is dropped.
struct Restored(LabelSetId);

impl Drop for Restored {
    fn drop(&mut self) {
        swap_labels(self.0);
    }
}

/// The labels of what the calling thread does.
///
/// For a handler there is [`labels_in_handler`].
#[inline]
pub(crate) fn labels() -> LabelSetId {
    CURRENT.get().labels()
}

/// Sets them; answers those before.
#[inline]
pub(crate) fn swap_labels(labels: LabelSetId) -> LabelSetId {
    let before = swap_context(CURRENT.get().with_labels(labels)).labels();
    if before != labels {
        recording::labels_changed(labels);
    }
    before
}

/// The task that the calling thread polls, and its labels.
#[inline]
pub(crate) fn context() -> Context {
    CURRENT.get()
}

/// Sets them; answers those before.
#[inline]
pub(crate) fn swap_context(context: Context) -> Context {
    // For handlers on this thread: what it does before and after is not moved to the other side, and no context is left out
    // because another comes soon.
    compiler_fence(Ordering::SeqCst);
    let before = CURRENT.replace(context);
    compiler_fence(Ordering::SeqCst);
    before
}

/// The labels of the thread that a signal handler interrupted, as far as it may read them.
#[inline]
pub(crate) fn labels_in_handler() -> LabelSetId {
    if is_static() {
        labels()
    } else {
        LabelSetId::EMPTY
    }
}

/// Whether a signal handler may use this crate's thread-local memory.
#[inline]
pub(crate) fn is_static() -> bool {
    IS_STATIC.load(Ordering::Relaxed)
}

/// Notes that the calling thread waits since `start`, in nanoseconds, while `f` runs.
#[inline(always)]
pub(crate) fn while_waiting<R>(start: u64, f: impl FnOnce() -> R) -> R {
    let before = WAITS_SINCE.replace(start);
    compiler_fence(Ordering::SeqCst);
    let result = f();
    compiler_fence(Ordering::SeqCst);
    WAITS_SINCE.set(before);
    result
}

/// Since when the thread waits that a signal handler interrupted, in nanoseconds; 0 if that's not known.
#[inline]
pub(crate) fn waits_since_in_handler() -> u64 {
    if IS_STATIC.load(Ordering::Relaxed) {
        WAITS_SINCE.get()
    } else {
        0
    }
}

/// To be called before the first handler runs, in ordinary context.
///
/// The main program's thread-local memory is a part of each thread from the beginning, at a fixed distance. That of a library
/// which was loaded later is allocated when a thread first uses it, which must not be in a handler.
pub(crate) fn look_where_it_is() {
    let code = look_where_it_is as fn() as usize;
    IS_STATIC.store(unwind::is_in_main_program(code), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn now() -> Vec<String> {
        let pairs = tables::labels().pairs(labels());
        pairs.map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn labels_nest_and_come_back() {
        assert_eq!(labels(), LabelSetId::EMPTY);
        let inner = with_labels([("b", "1"), ("a", "2")], || {
            assert_eq!(now(), ["a=2", "b=1"]);
            let labels = vec![("a", "3")];
            let inner = with_labels(&labels, now);
            assert_eq!(now(), ["a=2", "b=1"]);
            inner
        });
        assert_eq!(inner, ["a=3", "b=1"]);
        assert_eq!(labels(), LabelSetId::EMPTY);
    }

    #[test]
    fn labels_come_back_when_it_panics() {
        with_labels([("a", "1")], || {
            let result = catch_unwind(|| with_labels([("a", "2")], || panic!("{:?}", now())));
            assert_eq!(
                result.unwrap_err().downcast_ref::<String>().unwrap(),
                r#"["a=2"]"#
            );
            assert_eq!(now(), ["a=1"]);
        });
        assert_eq!(labels(), LabelSetId::EMPTY);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_changes_nothing() {
        let long = "x".repeat(1000);
        let lost = tables::labels().lost();
        with_labels([("a", "1")], || {
            assert_eq!(with_labels([("b", long.as_str())], now), ["a=1"]);
        });
        assert_eq!(tables::labels().lost(), lost + 1);
    }

    #[test]
    fn a_handler_in_a_main_program_may_read_them() {
        look_where_it_is();
        let seen = with_labels([("a", "1")], || (labels_in_handler(), labels()));
        assert_eq!(seen.0, seen.1);
        // libc's is another object's.
        assert!(!unwind::is_in_main_program(
            libc::getpid as *const () as usize
        ));
    }
}
