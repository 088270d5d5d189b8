//! Go's execution traces, of the version that is written here (`go 1.22 trace`): read, checked, and asked for who did what when.
//!
//! It shares no code with what writes them. It knows the events that are written here, and is stricter than Go's readers:
//! the time never goes back on a thread; events taken in the order of their times are in a right order, so that the
//! picture is what happened; each thing is defined once; no two threads have one processor.
//!
//! Written after the sources of Go's `internal/trace` were read: `order.go` says what may follow what.

#[cfg(test)]
mod made;
mod replay;
mod wire;

use std::sync::Arc;

/// A function, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Its name.
    pub function: Arc<str>,
    /// The file.
    pub file: Arc<str>,
    /// The line.
    pub line: u64,
}

/// Frames, leaf first.
pub type Stack = Arc<[Frame]>;

/// A trace. Times are in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// How many parts it has.
    pub generations: usize,
    /// When the first and the last event were.
    pub begins: u64,
    /// See `begins`.
    pub ends: u64,
    /// Events, of all kinds.
    pub events: usize,
    /// All that there were; several may have had the same number, one after the other.
    pub goroutines: Vec<Goroutine>,
    /// User tasks, in the order in which they are told of.
    pub tasks: Vec<UserTask>,
    /// Regions, in the order in which they begin.
    pub regions: Vec<Region>,
    /// Logs.
    pub logs: Vec<Log>,
    /// CPU samples, by time.
    pub samples: Vec<Sample>,
    /// Bytes of the heap, and since when.
    pub heap: Vec<(u64, u64)>,
    /// Numbers of processors, and since when.
    pub procs: Vec<(u64, u64)>,
    /// How many processors there were, all in all.
    pub procs_seen: usize,
}

/// A thread, a task or a handler.
#[derive(Clone, Debug)]
pub struct Goroutine {
    /// The number that the trace has for it.
    pub id: u64,
    /// The outermost function of the first stack of its own, as Go names it; empty if there's none.
    pub name: Arc<str>,
    /// Who created it, and when; `None` if it was there when the trace began.
    pub created: Option<Wake>,
    /// What it did, without gaps.
    pub slices: Vec<Slice>,
    /// Its labels, and since when.
    pub labels: Vec<(u64, Arc<str>)>,
    /// When it ended; `None` if it did not.
    pub ended: Option<u64>,
}

/// Something that a goroutine did, or waited for, without a break.
#[derive(Clone, Debug)]
pub struct Slice {
    /// What it did.
    pub state: State,
    /// When that began.
    pub from: u64,
    /// When it was over; the end of the trace, if it was not.
    pub to: u64,
    /// Whether it was over.
    pub is_over: bool,
    /// On which thread it ran.
    pub thread: Option<u64>,
    /// What it waited for, or why it stopped; empty if it runs.
    pub reason: Arc<str>,
    /// Where it waited or stopped.
    pub stack: Stack,
    /// Who let it go on; of one that waited.
    pub woken: Option<Wake>,
}

impl Slice {
    /// For how long, in nanoseconds.
    #[must_use]
    pub fn nanos(&self) -> u64 {
        self.to - self.from
    }

    /// Whether it's there, or a closure of it.
    #[must_use]
    pub fn is_at(&self, function: &str) -> bool {
        has_function(&self.stack, function)
    }
}

/// What a goroutine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It could run.
    Runnable,
    /// It runs.
    Running,
    /// It is in a system call.
    Syscall,
    /// It waits for something.
    Waiting,
}

/// Who woke or created somebody.
#[derive(Clone, Debug)]
pub struct Wake {
    /// When.
    pub at: u64,
    /// Which goroutine it was: its place in [`Trace::goroutines`]. `None` if the thread ran none.
    pub by: Option<usize>,
    /// On which thread.
    pub thread: u64,
    /// Where.
    pub stack: Stack,
}

/// A user task.
#[derive(Clone, Debug)]
pub struct UserTask {
    /// Its number.
    pub id: u64,
    /// The task that it's a part of, or 0.
    pub parent: u64,
    /// Its name.
    pub name: Arc<str>,
    /// When it began; `None` if the trace has its end only.
    pub began: Option<u64>,
    /// Who began it.
    pub by: usize,
    /// When it ended, and who ended it.
    pub ended: Option<(u64, usize)>,
}

/// A region.
#[derive(Clone, Debug)]
pub struct Region {
    /// Whose: a place in [`Trace::goroutines`].
    pub goroutine: usize,
    /// The task, or 0.
    pub task: u64,
    /// Its name.
    pub name: Arc<str>,
    /// When it began.
    pub from: u64,
    /// When it ended; `None` if it did not.
    pub to: Option<u64>,
    /// In how many others it is.
    pub depth: usize,
}

/// A log.
#[derive(Clone, Debug)]
pub struct Log {
    /// Whose: a place in [`Trace::goroutines`].
    pub goroutine: usize,
    /// The task, or 0.
    pub task: u64,
    /// When.
    pub at: u64,
    /// The category.
    pub category: Arc<str>,
    /// The message.
    pub message: Arc<str>,
}

/// A sample of a CPU profile.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When.
    pub at: u64,
    /// The thread, if it's known.
    pub thread: Option<u64>,
    /// The goroutine: a number; 0 if there's none.
    pub goroutine: u64,
    /// Where.
    pub stack: Stack,
}

impl Trace {
    /// Reads a whole trace.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let generations = wire::generations(bytes)?;
        // What is at the same time may come in any order.
        replay::replay(&generations, true)?;
        replay::replay(&generations, false)
    }

    /// As [`read`](Self::read).
    ///
    /// # Panics
    ///
    /// If something is wrong with it: then the file is kept, and the message says where.
    #[must_use]
    #[track_caller]
    pub fn of(bytes: &[u8]) -> Self {
        Self::read(bytes).unwrap_or_else(|error| {
            let kept = crate::go::keep_trace(bytes);
            panic!("{error}\nthe trace is in {}", kept.display())
        })
    }

    /// The goroutines with this name.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Goroutine> {
        let named = move |it: &&Goroutine| &*it.name == name;
        self.goroutines.iter().filter(named)
    }

    /// The only goroutine with this name.
    ///
    /// # Panics
    ///
    /// If there's none, or another.
    #[must_use]
    #[track_caller]
    pub fn only(&self, name: &str) -> &Goroutine {
        let mut named = self.named(name);
        match (named.next(), named.next()) {
            (Some(it), None) => it,
            (found, _) => {
                let names: Vec<&str> = self.goroutines.iter().map(|it| &*it.name).collect();
                let count = if found.is_some() {
                    "more than one"
                } else {
                    "no"
                };
                panic!("{count} {name} in {names:?}")
            }
        }
    }

    /// Whose it was that somebody was woken or created by; empty if nobody's.
    #[must_use]
    pub fn waker(&self, wake: &Wake) -> &str {
        wake.by.map_or("", |by| &self.goroutines[by].name)
    }
}

impl Goroutine {
    /// The waits at a function, or a closure of it.
    pub fn waits_at<'a>(&'a self, function: &'a str) -> impl Iterator<Item = &'a Slice> {
        let waits = self.slices.iter();
        waits.filter(move |it| it.state == State::Waiting && it.is_at(function))
    }

    /// For how long it was in a state, in nanoseconds.
    #[must_use]
    pub fn nanos(&self, state: State) -> u64 {
        let slices = self.slices.iter().filter(|it| it.state == state);
        slices.map(Slice::nanos).sum()
    }
}

/// Whether a stack has a function, or a closure or an async block of it.
#[must_use]
pub fn has_function(stack: &[Frame], function: &str) -> bool {
    let is_in = |frame: &Frame| frame.function.split("::").any(|part| part == function);
    stack.iter().any(is_in)
}

/// The front of a trace that was cut off somewhere: the generations that are there as a whole for sure. `None` if
/// there's none.
#[must_use]
pub fn whole_generations(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..wire::whole_generations(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::made::{Maker, example};
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn an_example_is_read() {
        for generations in 1..4 {
            let bytes = example(generations);
            let trace = Trace::read(&bytes).unwrap();
            assert_eq!(trace.generations, generations);
            let main = trace.only("app::main");
            let waits: Vec<&Slice> = main.waits_at("recv").collect();
            assert_eq!(waits.len(), generations);
            assert_eq!(
                (waits[0].nanos(), &*waits[0].reason),
                (3 * MS, "chan receive")
            );
            let wake = waits[0].woken.as_ref().unwrap();
            assert_eq!(trace.waker(wake), "app::worker::run");
            assert_eq!(trace.named("app::worker::run").count(), generations);
            assert_eq!(trace.tasks.len(), generations);
            assert_eq!(&*trace.tasks[0].name, "handle_request");
            let [region, ..] = &trace.regions[..] else {
                panic!("{:?}", trace.regions);
            };
            assert_eq!((&*region.name, region.task, region.depth), ("decode", 7, 0));
            assert_eq!(region.to.unwrap() - region.from, 3 * MS);
            let log = &trace.logs[0];
            assert_eq!((&*log.category, &*log.message), ("http", "GET /index"));
            assert_eq!(trace.samples.len(), 2 * generations);
            assert!(has_function(&trace.samples[0].stack, "spin"));
        }
    }

    #[test]
    fn what_follows_whole_generations_may_be_cut() {
        let bytes = example(3);
        let mut last = 0;
        for end in 0..bytes.len() {
            let Some(whole) = whole_generations(&bytes[..end]) else {
                continue;
            };
            let trace = Trace::read(whole).unwrap();
            assert!((1..3).contains(&trace.generations));
            assert!(whole.len() >= last && (whole == whole_generations(&bytes[..end]).unwrap()));
            last = whole.len();
        }
        assert!(last > bytes.len() / 2);
    }

    #[test]
    fn what_is_cut_off_or_changed_is_seen() {
        let bytes = example(1);
        for end in 0..bytes.len() {
            // What is missing may be a table that nothing needs.
            let _ = Trace::read(&bytes[..end]);
        }
        let mut errors = 0;
        for place in 16..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 0x10;
            errors += usize::from(Trace::read(&changed).is_err());
        }
        assert!(errors > bytes.len() / 3, "{errors} of {}", bytes.len());
    }

    /// What a trace is refused for that begins like any other.
    #[track_caller]
    fn refused(why: &str, make: impl FnOnce(&mut Maker)) {
        let mut maker = Maker::new();
        maker.thread(5, 100, &[(13, &[0, 1]), (25, &[1, 5, 2])]);
        make(&mut maker);
        let error = Trace::read(&maker.finish()).unwrap_err();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn rules_that_go_has_are_kept() {
        refused("GoStart", |it| {
            it.thread(6, 100, &[(13, &[1, 1]), (16, &[9, 1])])
        });
        refused("has no goroutine", |it| {
            it.thread(6, 100, &[(13, &[1, 1]), (17, &[])])
        });
        refused("has no processor", |it| {
            it.thread(6, 100, &[(14, &[2, 0, 0])])
        });
        refused("is there already", |it| {
            it.thread(5, 100, &[(14, &[1, 0, 0])])
        });
        refused("GoUnblock", |it| it.thread(5, 100, &[(21, &[1, 1, 0])]));
        refused("ends region", |it| {
            it.string(3, "a");
            it.string(4, "b");
            it.thread(5, 100, &[(42, &[0, 3, 0]), (43, &[0, 4, 0])]);
        });
        refused("user task 3", |it| {
            it.thread(5, 100, &[(40, &[3, 0, 0, 0]), (40, &[3, 0, 0, 0])]);
        });
        refused("string 7", |it| it.thread(5, 100, &[(20, &[7, 0])]));
        refused("stack 7", |it| it.thread(5, 100, &[(20, &[0, 7])]));
        refused("event 48", |it| it.thread(5, 100, &[(48, &[])]));
        refused("status", |it| {
            it.next_generation();
            it.thread(5, 200, &[(25, &[1, u64::MAX, 4])]);
        });
        refused("new", |it| {
            it.next_generation();
            it.thread(5, 200, &[(25, &[2, u64::MAX, 4])]);
        });
    }

    #[test]
    fn rules_that_go_has_not_are_kept() {
        refused("after an event", |it| it.thread(5, 99, &[(37, &[7])]));
        refused("is on thread", |it| it.thread(6, 100, &[(13, &[0, 1])]));
        refused("too late", |it| {
            it.thread(6, 150, &[(13, &[1, 1]), (14, &[2, 0, 0])]);
            it.thread(7, 140, &[(13, &[2, 1]), (16, &[2, 1])]);
        });
        refused("twice", |it| {
            it.string(3, "a");
            it.string(3, "a");
        });
        refused("two frames", |it| {
            it.stack(1, &[[4, 0, 0, 5], [4, 0, 0, 6]]);
        });
    }
}
