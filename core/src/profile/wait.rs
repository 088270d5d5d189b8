//! Why a goroutine doesn't run, in the words of Go's dumps.

#![forbid(unsafe_code)]

/// What a thread or task waits for, or that it doesn't wait.
///
/// The names are Go's, where Go has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Wait {
    /// It runs.
    Running,
    /// It could run.
    Runnable,
    /// It is in the kernel for something else.
    Syscall,
    /// It waits, nobody knows for what.
    Unknown,
    /// A mutual exclusion lock.
    Mutex,
    /// A read lock.
    ReadLock,
    /// A write lock.
    WriteLock,
    /// A condition variable.
    Condition,
    /// A semaphore.
    Semaphore,
    /// A value that another initializes.
    Once,
    /// Others that come to the same point.
    Barrier,
    /// A message.
    Receive,
    /// Room for a message.
    Send,
    /// A notification without a value.
    Notify,
    /// The end of a thread or task.
    Join,
    /// Being unparked.
    Park,
    /// A moment in time.
    Sleep,
    /// The network, or a file.
    Io,
    /// Work, as an executor's or a pool's thread does that has none.
    Idle,
}

impl Wait {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Running,
        Self::Runnable,
        Self::Syscall,
        Self::Unknown,
        Self::Mutex,
        Self::ReadLock,
        Self::WriteLock,
        Self::Condition,
        Self::Semaphore,
        Self::Once,
        Self::Barrier,
        Self::Receive,
        Self::Send,
        Self::Notify,
        Self::Join,
        Self::Park,
        Self::Sleep,
        Self::Io,
        Self::Idle,
    ];

    /// As in the brackets of a goroutine's header in a dump.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Runnable => "runnable",
            Self::Syscall => "syscall",
            Self::Unknown => "waiting",
            Self::Mutex => "sync.Mutex.Lock",
            Self::ReadLock => "sync.RWMutex.RLock",
            Self::WriteLock => "sync.RWMutex.Lock",
            Self::Condition => "sync.Cond.Wait",
            Self::Semaphore => "semacquire",
            Self::Once => "sync.Once.Do",
            Self::Barrier => "barrier wait",
            Self::Receive => "chan receive",
            Self::Send => "chan send",
            Self::Notify => "notify wait",
            Self::Join => "sync.WaitGroup.Wait",
            Self::Park => "park",
            Self::Sleep => "sleep",
            Self::Io => "IO wait",
            Self::Idle => "worker (idle)",
        }
    }

    /// Whether somebody holds what is waited for, so that the `mutex` profile is about it.
    #[must_use]
    pub const fn is_lock(self) -> bool {
        matches!(
            self,
            Self::Mutex | Self::ReadLock | Self::WriteLock | Self::Semaphore
        )
    }

    /// Whether another thread or task is waited for, so that the `block` profile is about it: neither time nor
    /// the outside world, nor work.
    #[must_use]
    pub const fn is_synchronization(self) -> bool {
        !matches!(
            self,
            Self::Running | Self::Runnable | Self::Syscall | Self::Sleep | Self::Io | Self::Idle
        )
    }

    /// Whether other things are made of it, so that a caller of the function that waits may know better: a
    /// channel parks, and so does a lock.
    #[must_use]
    pub const fn is_generic(self) -> bool {
        matches!(
            self,
            Self::Unknown
                | Self::Syscall
                | Self::Condition
                | Self::Semaphore
                | Self::Notify
                | Self::Park
        )
    }
}

/// What a function's name says of a stack that it is on; see [`Target::role_of`](crate::Target::role_of).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Role {
    /// It waits for this, or ends others' waiting for it.
    Waits(Wait),
    /// It is part of a library of such functions: its caller may say more.
    Library,
    /// Of the profiler itself, in front of what waits: a dump's stacks begin after it.
    Profiler,
    /// The program's own.
    Program,
}
