//! What a profile is made of: the rows to show, and how to read their counters.

#![forbid(unsafe_code)]

use core::time::Duration;

use super::used::{self, Used};
use crate::profile::buckets::{RowId, Rows, Values};
use crate::profile::snapshot::Snapshot;
use crate::profile::{Kind, Profiles, SampleValues, Scale};
use crate::stack::{Frame, LocationId, StackId, Stacks};
use crate::target::{Symbols, Target};

/// A profile that is to be encoded.
#[derive(Debug)]
pub struct Source<'t, T: Target> {
    pub(crate) target: &'t T,
    pub(crate) kind: Kind,
    pub(crate) stacks: Stacks<'t>,
    pub(crate) rows: Rows<'t>,
    pub(crate) scale: Scale,
    pub(crate) time_nanos: u64,
    pub(crate) duration_nanos: u64,
    /// What the reader should be told, or "".
    pub(crate) note: &'static str,
    /// The target's, or "".
    pub(crate) drop_frames: &'static str,
    difference: Option<Snapshot<T::Scratch>>,
}

impl<'t, T: Target> Source<'t, T> {
    /// All that a kind has counted so far, if the target keeps the kind.
    ///
    /// `period` is what lies between two samples: nanoseconds for CPU; for the other kinds it is
    /// known and ignored.
    #[must_use]
    pub fn new(target: &'t T, kind: Kind, period: u64) -> Option<Self> {
        let profiles: Profiles<'t> = target.profiles();
        let period = match kind {
            Kind::Cpu => period,
            Kind::Allocs | Kind::Heap => profiles.heap?.rate() as u64,
            _ => 1,
        };
        Some(Self {
            target,
            kind,
            stacks: profiles.stacks,
            rows: profiles.rows(kind)?,
            scale: Scale::new(kind, period),
            time_nanos: target.unix_nanos(),
            duration_nanos: 0,
            note: target.note(kind),
            drop_frames: target.drop_frames(kind),
            difference: None,
        })
    }

    /// What was counted since a snapshot.
    pub(crate) fn since(self, start: Snapshot<T::Scratch>) -> Self {
        Self {
            difference: Some(start.into_difference(&self.rows)),
            ..self
        }
    }

    pub(crate) fn with_duration(self, duration: Duration) -> Self {
        Self {
            duration_nanos: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
            ..self
        }
    }

    pub(crate) fn with_time(self, time_nanos: u64) -> Self {
        Self { time_nanos, ..self }
    }

    /// The row with this number, counting [`RowId::LOST`] behind the others; `None` at the end.
    pub(crate) fn row(&self, index: usize) -> Option<RowId> {
        if index == self.rows.capacity() {
            return Some(RowId::LOST);
        }
        (index < self.rows.capacity()).then(|| RowId::new(index as u32))
    }

    /// A row's stack and counters, if the row is part of the profile.
    ///
    /// As in Go, a row whose values are all zero is part of a whole profile and not of a difference.
    pub(crate) fn counted(&self, row: RowId) -> Option<(StackId, Values)> {
        let (stack, _) = self.rows.key(row)?;
        let (values, may_be_zero) = match &self.difference {
            Some(difference) => (difference.values(&self.rows, row), false),
            None => (self.rows.values(row), row != RowId::LOST),
        };
        (may_be_zero || values != Values::default()).then_some((stack, values))
    }

    /// The values of a sample.
    pub(crate) fn values(&self, counted: &Values) -> SampleValues {
        self.scale.values(counted)
    }

    /// How many samples the tables had no room for.
    pub(crate) fn lost(&self) -> u64 {
        self.counted(RowId::LOST).map_or(0, |(_, values)| values[0])
    }

    /// What is known of the code at the locations of a set.
    pub(crate) fn symbols(&self, used: &Used<T::Scratch>) -> T::Symbols {
        let places = 0..used::places(&self.stacks);
        let mut locations = places
            .filter_map(used::location_at)
            .filter(|&location| used.contains(location))
            .filter_map(|location| match self.stacks.location(location) {
                Frame::Pc(pc) if pc != 0 => Some((location, pc)),
                _ => None,
            });
        self.target.symbols(&mut locations)
    }

    /// The name, file and line of each function at a location, innermost first.
    pub(crate) fn functions(
        symbols: &T::Symbols,
        location: LocationId,
    ) -> impl Iterator<Item = (&str, &str, u32)> {
        symbols.lines(location).iter().filter_map(|line| {
            let function = symbols.function(line.function)?;
            let name = symbols.string(function.name)?;
            Some((name, symbols.string(function.filename)?, line.line))
        })
    }
}
