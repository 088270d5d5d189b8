//! The endpoints below the prefix, which the index page links to.

#![forbid(unsafe_code)]

use crate::profile::Kind;
use crate::target::Target;

/// An endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Profile(Kind),
    CommandLine,
    Symbol,
    Trace,
}

impl Entry {
    /// By name.
    pub(super) const ALL: [Self; 11] = [
        Self::Profile(Kind::Allocs),
        Self::Profile(Kind::Block),
        Self::CommandLine,
        Self::Profile(Kind::Goroutine),
        Self::Profile(Kind::GoroutineLeak),
        Self::Profile(Kind::Heap),
        Self::Profile(Kind::Mutex),
        Self::Profile(Kind::Cpu),
        Self::Symbol,
        Self::Profile(Kind::ThreadCreate),
        Self::Trace,
    ];

    /// Those that a target has.
    pub(super) fn of<T: Target>(target: &T) -> impl Iterator<Item = Self> {
        (Self::ALL.iter().copied()).filter(|entry| entry.is_of(target))
    }

    #[inline(never)]
    fn is_of<T: Target>(self, target: &T) -> bool {
        match self {
            Self::Profile(kind) => target.profiles().keeps(kind),
            Self::Trace => target.trace().is_some(),
            Self::CommandLine | Self::Symbol => true,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Profile(kind) => kind.name(),
            Self::CommandLine => "cmdline",
            Self::Symbol => "symbol",
            Self::Trace => "trace",
        }
    }
}
