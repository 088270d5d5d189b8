//! The profile kinds by name, and the metadata that Go gives each.

#![forbid(unsafe_code)]

/// A kind of profile, by the name that its endpoint has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Kind {
    /// `allocs`: everything allocated so far.
    Allocs,
    /// `block`: where threads and tasks wait.
    Block,
    /// `goroutine`: threads and tasks, and where each is.
    Goroutine,
    /// `goroutineleak`: tasks that can never run again.
    GoroutineLeak,
    /// `heap`: what is allocated now.
    Heap,
    /// `mutex`: who others wait for.
    Mutex,
    /// `profile`: where CPU time goes.
    Cpu,
    /// `threadcreate`: who created threads.
    ThreadCreate,
}

/// profile.proto's `ValueType`: what a number counts, and in which unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ValueType {
    /// Such as `alloc_space`.
    pub name: &'static str,
    /// Such as `bytes`.
    pub unit: &'static str,
}

const fn value_type(name: &'static str, unit: &'static str) -> ValueType {
    ValueType { name, unit }
}

/// Those of the samples, and that of the period.
type Types = [ValueType];

const HEAP_TYPES: &Types = &[
    value_type("alloc_objects", "count"),
    value_type("alloc_space", "bytes"),
    value_type("inuse_objects", "count"),
    value_type("inuse_space", "bytes"),
    value_type("space", "bytes"),
];

const CPU_TYPES: &Types = &[
    value_type("samples", "count"),
    value_type("cpu", "nanoseconds"),
    value_type("cpu", "nanoseconds"),
];

const CONTENTION_TYPES: &Types = &[
    value_type("contentions", "count"),
    value_type("delay", "nanoseconds"),
    value_type("contentions", "count"),
];

const GOROUTINE_TYPES: &Types = &[value_type("goroutine", "count"); 2];

const GOROUTINE_LEAK_TYPES: &Types = &[value_type("goroutineleak", "count"); 2];

const THREAD_CREATE_TYPES: &Types = &[value_type("threadcreate", "count"); 2];

impl Kind {
    /// All of them, by name.
    pub const ALL: [Self; 8] = [
        Self::Allocs,
        Self::Block,
        Self::Goroutine,
        Self::GoroutineLeak,
        Self::Heap,
        Self::Mutex,
        Self::Cpu,
        Self::ThreadCreate,
    ];

    /// The last part of its endpoint's path.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allocs => "allocs",
            Self::Block => "block",
            Self::Goroutine => "goroutine",
            Self::GoroutineLeak => "goroutineleak",
            Self::Heap => "heap",
            Self::Mutex => "mutex",
            Self::Cpu => "profile",
            Self::ThreadCreate => "threadcreate",
        }
    }

    /// What each sample's values are, in order.
    #[must_use]
    pub const fn sample_types(self) -> &'static [ValueType] {
        match self.types() {
            [samples @ .., _] => samples,
            [] => &[],
        }
    }

    /// The sample type to show first, where it isn't the last.
    ///
    /// Go loses it in a delta of `allocs`; here it is kept, as `alloc_space` is what was asked for.
    #[must_use]
    pub const fn default_sample_type(self) -> Option<&'static str> {
        match self {
            Self::Allocs => Some(HEAP_TYPES[Self::ALLOC_SPACE].name),
            _ => None,
        }
    }

    /// What lies between two samples.
    #[must_use]
    pub const fn period_type(self) -> ValueType {
        match self.types() {
            [.., period] => *period,
            [] => value_type("", ""),
        }
    }

    /// The number of the type that [`default_sample_type`](Self::default_sample_type) names.
    pub(crate) const ALLOC_SPACE: usize = 1;

    /// The types of the samples, and behind them that of the period.
    pub(crate) const fn types(self) -> &'static [ValueType] {
        match self {
            Self::Allocs | Self::Heap => HEAP_TYPES,
            Self::Block | Self::Mutex => CONTENTION_TYPES,
            Self::Goroutine => GOROUTINE_TYPES,
            Self::GoroutineLeak => GOROUTINE_LEAK_TYPES,
            Self::Cpu => CPU_TYPES,
            Self::ThreadCreate => THREAD_CREATE_TYPES,
        }
    }

    /// What it shows, in a sentence for the index page.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Allocs => {
                "Every allocation since the start, freed or not: who makes the garbage. \
                 Sampled by bytes and scaled to the whole. The same data as heap, shown as alloc_space."
            }
            Self::Block => {
                "Where threads and tasks waited for each other, and for how long: locks, channels, joins. \
                 With all=1 also for time and the network, with idle=1 also workers without work."
            }
            Self::Goroutine => {
                "Every thread and task, and the call stack that it is at. With debug=2 each by itself: what it \
                 waits for, and since when."
            }
            Self::GoroutineLeak => {
                "Tasks that wait and that nothing can wake any more: nobody has a waker of theirs."
            }
            Self::Heap => {
                "The allocations that are still live: who holds the memory. With gc=1 the allocator \
                 first gives free memory back."
            }
            Self::Mutex => {
                "Who held the locks that others waited for: the call stacks that released them, and the time \
                 that was waited."
            }
            Self::Cpu => {
                "CPU time by call stack, of all threads, for seconds=N (default 30), at hz=N samples \
                 a second of CPU time. Only one at a time."
            }
            Self::ThreadCreate => "The call stacks that created the program's threads.",
        }
    }
}
