//! The threads of this process as they are now, for `goroutine`.
//!
//! The kernel says which there are, and of each its name, its state and its system call (`kernel`). Where it is in the
//! program only the thread itself can tell: it is asked with a SIGPROF, whose handler walks the stack that it interrupted
//! and leaves the answer in a place made for it (`questions`). Nothing is stopped, and nobody is waited for: a thread that
//! is silent at the deadline is listed without its stack, and what it says later goes nowhere.

#![deny(unsafe_code)]

mod kernel;
mod questions;
mod signal;

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::thread;
use std::time::Instant;

use picoprof::Thread;
use picoprof::profile::Wait;
use picoprof::profile::labels::LabelSetId;
use picoprof::stack::StackId;

use self::questions::Question;
use crate::{clock, cpu, current, stack, stack_bounds, unwind};

pub(crate) use self::kernel::ids;
pub(crate) use self::questions::{Answer, answer, forget_after_fork, is_ours};

/// How long answers are waited for when all were asked.
const DEADLINE: Duration = Duration::from_millis(100);
/// Threads that are woken at once: with more, those that have work would wait for long.
const BATCH: usize = 32;
/// How long a batch is waited for before the next one; who is late has until the deadline.
const BATCH_PAUSE: Duration = Duration::from_millis(1);
/// Between two looks for answers: at first, and at most.
const LOOKS: [Duration; 2] = [Duration::from_micros(30), Duration::from_millis(4)];
/// How often a thread is asked that is not found on a known stack.
const TRIES: u32 = 3;

/// Threads that were listed without their stack.
static SILENT: AtomicU64 = AtomicU64::new(0);

/// All threads, the calling one first. Takes some 30 microseconds for each, and up to 100 ms more if one does not answer.
pub(crate) fn take() -> Vec<Thread> {
    let this = cpu::this_thread();
    let mut others = ids().unwrap_or_default();
    others.retain(|&id| id != this);
    // What the handlers go by, after the list: so it covers all that are on it.
    unwind::refresh();
    stack_bounds::refresh();
    let can_ask = cpu::listen().is_ok();
    let mut all = Vec::with_capacity(others.len());
    for batch in others.chunks(BATCH) {
        let before = all.len();
        all.extend(batch.iter().filter_map(|&id| Asked::new(id, can_ask)));
        let asked = all.get_mut(before..).unwrap_or_default();
        gather(asked, Instant::now() + BATCH_PAUSE);
    }
    let deadline = Instant::now() + DEADLINE;
    gather(&mut all, deadline);
    for _ in 1..TRIES {
        if !ask_again(&mut all) {
            break;
        }
        gather(&mut all, deadline);
    }
    all.retain(|asked| !asked.is_gone);
    let silent = all.iter().filter(|asked| !asked.has_told).count();
    SILENT.fetch_add(silent as u64, Ordering::Relaxed);
    let others = all.into_iter().map(|asked| asked.thread);
    core::iter::once(calling_thread(this))
        .chain(others)
        .collect()
}

/// How many there are; far cheaper than [`take`].
pub(crate) fn count() -> usize {
    ids().map_or(0, |ids| ids.len())
}

/// How many were listed without their stack so far, each time that it happened.
pub(crate) fn silent() -> u64 {
    SILENT.load(Ordering::Relaxed)
}

fn calling_thread(id: i32) -> Thread {
    let stack = stack::intern_here();
    Thread {
        id: u64::try_from(id).unwrap_or(0),
        name: kernel::look(id).map_or([0; 16], |seen| seen.name),
        stack,
        labels: current::labels(),
        wait: Wait::Running,
        waiting: Duration::ZERO,
    }
}

/// A thread that was, or will be, asked for its stack.
#[derive(Debug)]
struct Asked {
    id: i32,
    thread: Thread,
    /// Until it is answered.
    question: Option<Question>,
    has_told: bool,
    /// It was not on a stack that was known; the next look at the process's memory may show it.
    is_cut: bool,
    is_gone: bool,
}

impl Asked {
    /// Asks a thread, if it can be; `None` if it has ended.
    fn new(id: i32, can_ask: bool) -> Option<Self> {
        // Before the signal disturbs it.
        let seen = kernel::look(id)?;
        let mut asked = Self {
            id,
            thread: Thread {
                id: u64::try_from(id).unwrap_or(0),
                name: seen.name,
                stack: StackId::EMPTY,
                labels: LabelSetId::EMPTY,
                wait: seen.wait,
                waiting: Duration::ZERO,
            },
            question: None,
            has_told: false,
            is_cut: false,
            is_gone: false,
        };
        if can_ask && !seen.blocks_signal {
            asked.ask();
        }
        (!asked.is_gone).then_some(asked)
    }

    fn ask(&mut self) {
        self.question = Question::new();
        self.remind();
    }

    /// Sends the signal. If it has come before, another one does nothing.
    ///
    /// One may not come: the kernel keeps only one of a kind for a thread, and that may be a timer's.
    fn remind(&mut self) {
        let Some(question) = &self.question else {
            return;
        };
        match signal::send(self.id, question.value()) {
            Ok(()) => {}
            Err(error) => {
                self.question = None;
                self.is_gone = error.raw_os_error() == Some(libc::ESRCH);
            }
        }
    }

    fn look(&mut self) {
        if let Some(answer) = self.question.as_ref().and_then(Question::answer) {
            self.thread.stack = answer.stack;
            self.thread.labels = answer.labels;
            if answer.waits_since != 0 {
                let since = picoprof::Instant::from_nanos(answer.waits_since);
                self.thread.waiting = clock::now().since(since);
            }
            self.is_cut = answer.is_cut;
            self.has_told = true;
            self.question = None;
        }
    }
}

/// Waits for answers, at most until `deadline`.
fn gather(all: &mut [Asked], deadline: Instant) {
    let [mut pause, longest] = LOOKS;
    loop {
        all.iter_mut().for_each(Asked::look);
        let now = Instant::now();
        if now >= deadline || all.iter().all(|asked| asked.question.is_none()) {
            return;
        }
        thread::sleep(pause.min(deadline - now));
        pause = (2 * pause).min(longest);
        if pause == longest {
            all.iter_mut().for_each(Asked::remind);
        }
    }
}

/// Asks those that were not on a known stack, as the list of stacks may have been made anew at that moment, or is
/// older than the stack; answers whether there are any.
fn ask_again(all: &mut [Asked]) -> bool {
    if !all.iter().any(|asked| asked.is_cut) {
        return false;
    }
    // Another thread may be at it, and done then.
    thread::sleep(Duration::from_millis(1));
    stack_bounds::refresh();
    for asked in all.iter_mut().filter(|asked| asked.is_cut) {
        asked.is_cut = false;
        asked.ask();
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver};
    use std::sync::{Arc, Barrier};

    use super::*;
    use crate::symbols::Symbolizer;
    use crate::tables;
    use picoprof::stack::Frame;

    #[inline(never)]
    fn waits_for_the_test(begun: &Barrier, end: &Receiver<()>) {
        begun.wait();
        let _ = end.recv();
    }

    /// The names of a thread's functions, leaf first.
    fn functions(thread: &Thread) -> Vec<String> {
        let mut symbolizer = Symbolizer::default();
        let stacks = tables::stacks();
        let frames = stacks.frames(thread.stack);
        let name = |location| match stacks.location(location) {
            Frame::Pc(pc) => symbolizer
                .name(pc)
                .map_or(String::new(), |name| name.to_string()),
            Frame::Marker(marker) => marker.name().to_owned(),
        };
        frames.map(name).collect()
    }

    #[track_caller]
    fn assert_is_in(thread: &Thread, name: &str) {
        let functions = functions(thread);
        assert!(
            functions.iter().any(|it| it.contains(name)),
            "{functions:#?}"
        );
    }

    fn text(thread: &Thread) -> &str {
        let name = core::str::from_utf8(&thread.name).unwrap();
        name.trim_end_matches('\0')
    }

    /// A thread that first does `begin`, until the sender is dropped.
    fn waiting(name: &str, begin: fn()) -> (mpsc::Sender<()>, thread::JoinHandle<()>) {
        let (end, ends) = mpsc::channel();
        let begun = Arc::new(Barrier::new(2));
        let others = Arc::clone(&begun);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            begin();
            waits_for_the_test(&others, &ends);
        });
        begun.wait();
        (end, thread.unwrap())
    }

    #[test]
    fn threads_say_where_they_are() {
        // Another test may be making the tables, and then nobody waits for them.
        while !unwind::is_ready() {
            unwind::refresh();
            thread::yield_now();
        }
        let (end, thread) = waiting("tells", || ());
        let all = take();
        let (first, others) = all.split_first().unwrap();
        assert_eq!(first.id, cpu::this_thread() as u64);
        assert_eq!(first.wait, Wait::Running);
        assert_is_in(first, "threads_say_where_they_are");
        let told: Vec<_> = others.iter().filter(|it| text(it) == "tells").collect();
        assert_eq!(told.len(), 1, "{all:?}");
        assert_is_in(told[0], "waits_for_the_test");
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn how_long_a_thread_waits_is_known_where_that_is_seen() {
        current::look_where_it_is();
        let start = clock::now().as_nanos();
        let (end, ends) = mpsc::channel::<()>();
        let begun = Arc::new(Barrier::new(2));
        let others = Arc::clone(&begun);
        let thread = thread::Builder::new().name("seen".into()).spawn(move || {
            current::while_waiting(start, || waits_for_the_test(&others, &ends));
        });
        begun.wait();
        thread::sleep(Duration::from_millis(5));
        let all = take();
        let seen = all.iter().find(|it| text(it) == "seen").unwrap();
        assert!(seen.waiting >= Duration::from_millis(5), "{seen:?}");
        assert_eq!(all[0].waiting, Duration::ZERO);
        drop(end);
        thread.unwrap().join().unwrap();
    }

    #[test]
    fn a_thread_that_cannot_tell_is_listed_all_the_same() {
        let (end, thread) = waiting("deaf", signal::block);
        let before = silent();
        let all = take();
        let mut deaf = all.iter().filter(|it| text(it) == "deaf");
        assert_eq!(deaf.next().unwrap().stack, StackId::EMPTY, "{all:?}");
        assert_eq!(deaf.next(), None);
        assert!(silent() > before);
        drop(end);
        thread.join().unwrap();
    }
}
