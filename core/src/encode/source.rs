//! What a profile is made of: the records to show, and how to read their counters.

#![forbid(unsafe_code)]

use super::census::{Census, Counted};
use super::losses::Losses;
use super::reasons::Reasons;
use super::used::{self, Used};
use crate::profile::buckets::{RowId, Rows, Values};
use crate::profile::labels::{LabelSetId, Labels};
use crate::profile::snapshot::{self, Snapshot};
use crate::profile::{Kind, Profiles, Scale, Wait, tag};
use crate::stack::{Frame, LocationId, StackId, Stacks};
use crate::target::{Symbols, Target};

/// A profile that is to be encoded.
#[derive(Debug)]
pub struct Source<'t, T: Target> {
    pub(crate) target: &'t T,
    pub(crate) kind: Kind,
    pub(crate) stacks: Stacks<'t>,
    pub(crate) labels: Option<Labels<'t>>,
    records: Records<'t, T>,
    pub(crate) scale: Scale,
    pub(crate) time_nanos: u64,
    pub(crate) duration_nanos: u64,
    /// What the reader should be told, or "".
    pub(crate) note: &'static str,
    /// The target's, or "".
    pub(crate) drop_frames: &'static str,
    filter: Option<Filter<T::Scratch>>,
}

/// Where the records come from.
#[derive(Debug)]
enum Records<'t, T: Target> {
    /// Counters that count up, and what they have counted since a moment, if a difference is asked for.
    Rows(Rows<'t>, Option<Difference<T::Scratch>>),
    /// The pointer is made where a census is, so that a program that takes none is without what reads it.
    Census(Census<'t, T>, ReadCensus<'t, T>),
}

/// A snapshot that was turned into a difference, and [`Snapshot::values`]: again a pointer, for programs that take none.
type Difference<S> = (Snapshot<S>, fn(&Snapshot<S>, &Rows<'_>, usize) -> Values);

/// [`Census::record`].
type ReadCensus<'t, T> = fn(&Census<'t, T>, usize) -> Option<(StackId, LabelSetId, Values)>;

/// Which waits a `block` or `mutex` profile shows.
///
/// What a thread or task waited for is told by the functions on its stack ([`Target::role_of`]). Where no
/// function has a name, and where there is no memory for a byte for each location of the stack table,
/// everything is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Waits {
    /// As Go: in `block` those for other threads and tasks, in `mutex` those for locks.
    Synchronization,
    /// In `block` also those for work ([`Wait::Idle`]).
    AndIdle,
    /// All.
    All,
}

/// A record of a profile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) stack: StackId,
    /// [`LabelSetId::EMPTY`] for the kinds that have none.
    pub(crate) labels: LabelSetId,
    pub(crate) counted: Values,
}

impl Record {
    pub(crate) const EMPTY: Self = Self {
        stack: StackId::EMPTY,
        labels: LabelSetId::EMPTY,
        counted: [0; 4],
    };
}

impl<'t, T: Target> Source<'t, T> {
    /// All that a kind has counted so far, or for `goroutine` and `goroutineleak` who there is now, if the target
    /// keeps the kind.
    ///
    /// `period` is what lies between two samples: nanoseconds for CPU; for the other kinds it is
    /// known and ignored.
    #[must_use]
    pub fn new(target: &'t T, kind: Kind, period: u64) -> Option<Self> {
        let profiles: Profiles<'t> = target.profiles();
        if !profiles.keeps(kind) {
            return None;
        }
        let period = match kind {
            Kind::Cpu => period,
            Kind::Allocs | Kind::Heap => profiles.heap?.rate() as u64,
            _ => 1,
        };
        let records = match profiles.rows(kind) {
            Some(rows) => Records::Rows(rows, None),
            None => Records::Census(Census::take(target, kind), Census::record),
        };
        Some(Self {
            target,
            kind,
            stacks: profiles.stacks,
            labels: profiles.labels,
            records,
            scale: Scale::new(kind, period, profiles.heap),
            time_nanos: target.unix_nanos(),
            duration_nanos: 0,
            note: target.note(kind),
            drop_frames: target.drop_frames(kind),
            filter: None,
        })
    }

    /// Leaves out of `block` and `mutex` what they are not about. It asks for the names of the functions on all
    /// stacks of the profile.
    #[must_use]
    pub fn showing(mut self, waits: Waits) -> Self {
        self.show(waits);
        self
    }

    /// The same where it is: it is large.
    pub(crate) fn show(&mut self, waits: Waits) {
        let is_filtered = matches!(self.kind, Kind::Block | Kind::Mutex) && waits != Waits::All;
        if !is_filtered || !T::Symbols::HAVE_NAMES {
            return;
        }
        let mut used = Used::marked(&self.stacks, |words| self.target.scratch(words));
        for record in self.iter() {
            for location in self.stacks.frames(record.stack) {
                used.insert(location);
            }
        }
        let symbols = self.symbols(&used);
        let reasons = Reasons::new(self.target, &self.stacks, &used, &symbols);
        self.filter = reasons.map(|reasons| Filter {
            reasons,
            waits,
            shows: Filter::shows,
        });
    }

    /// Leaves what was counted since a moment; `None`, and nothing of use, without memory for it.
    pub(crate) fn subtract(&mut self, before: Before<T::Scratch>) -> Option<()> {
        match (&mut self.records, before) {
            (Records::Rows(rows, difference), Before::Rows(snapshot)) => {
                *difference = Some((snapshot.into_difference(rows), Snapshot::values));
            }
            (Records::Census(census, _), Before::Census(before)) => {
                census.subtract(&before, self.target)?;
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether there can be labels. Of a small program the compiler knows, which it does not of `labels`, and leaves out what
    /// is for them.
    #[inline(always)]
    pub(crate) fn may_have_labels(&self) -> bool {
        cfg!(target_pointer_width = "64") || self.target.profiles().labels.is_some()
    }

    /// One more than the highest number of a record.
    pub(crate) fn extent(&self) -> usize {
        match &self.records {
            // The last is for what was lost.
            Records::Rows(rows, _) => rows.capacity() + 1,
            Records::Census(census, _) => census.extent(),
        }
    }

    /// The record with this number, if there's one and it is part of the profile.
    ///
    /// As in Go, a record whose values are all zero is part of a whole profile and not of a difference.
    pub(crate) fn record(&self, index: usize) -> Option<Record> {
        let (stack, labels, counted) = match &self.records {
            Records::Rows(rows, difference) => {
                let row = rows.row_at(index);
                let (stack, tag) = rows.key(row)?;
                let (counted, may_be_zero) = match difference {
                    Some((difference, values)) => (values(difference, rows, index), false),
                    None => (rows.values(row), row != RowId::LOST),
                };
                if !may_be_zero && counted.iter().all(|&value| value == 0) {
                    return None;
                }
                (stack, tag::labels(self.kind, tag), counted)
            }
            Records::Census(census, read) => read(census, index)?,
        };
        let shows = |filter: &Filter<_>| (filter.shows)(filter, self.kind, &self.stacks, stack);
        self.filter.as_ref().is_none_or(shows).then_some(Record {
            stack,
            labels,
            counted,
        })
    }

    /// The records in the table's order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Record> {
        (0..self.extent()).filter_map(|index| self.record(index))
    }

    /// How many records there are, or a few more; `None` if they are sorted as they are.
    pub(crate) fn unsorted(&self) -> Option<usize> {
        match &self.records {
            Records::Rows(rows, _) => Some(rows.len()),
            Records::Census(..) => None,
        }
    }

    /// What is lost so far, of a profile with so many samples of [`StackId::LOST`]. `is_cut`: it has stacks that are cut
    /// off.
    pub(crate) fn losses(&self, lost: u64, is_cut: bool) -> Losses {
        Losses::of(&self.target.profiles(), self.kind, lost, is_cut)
    }

    /// What is known of the code at the locations of a set.
    pub(crate) fn symbols(&self, used: &Used<T::Scratch>) -> T::Symbols {
        symbols(self.target, &self.stacks, used)
    }
}

/// What a difference is taken from.
#[derive(Debug)]
pub(crate) enum Before<S> {
    Rows(Snapshot<S>),
    Census(Counted<S>),
}

impl<S: AsRef<[u64]> + AsMut<[u64]>> Before<S> {
    /// The moment now, of a kind; `None` if that is not kept, or without memory for it.
    pub(crate) fn now<T: Target<Scratch = S>>(target: &T, kind: Kind) -> Option<Self> {
        let profiles = target.profiles();
        if !profiles.keeps(kind) {
            return None;
        }
        let Some(rows) = profiles.rows(kind) else {
            return match Census::take(target, kind) {
                Census::Counted(counted) => Some(Self::Census(counted)),
                Census::Each(_) => None,
            };
        };
        let scratch = target.scratch(snapshot::words(&rows))?;
        Some(Self::Rows(Snapshot::new(&rows, scratch)))
    }
}

/// What a profile leaves out.
#[derive(Debug)]
struct Filter<S> {
    reasons: Reasons<S>,
    waits: Waits,
    /// [`Filter::shows`]: a pointer, so that a program that filters nothing is without it.
    shows: fn(&Self, Kind, &Stacks<'_>, StackId) -> bool,
}

impl<S: AsRef<[u64]> + AsMut<[u64]>> Filter<S> {
    fn shows(&self, kind: Kind, stacks: &Stacks<'_>, stack: StackId) -> bool {
        if stack == StackId::LOST {
            return true;
        }
        let wait = self.reasons.wait_of(stacks.frames(stack));
        match (kind, wait) {
            (Kind::Mutex, wait) => wait.is_some_and(Wait::is_lock),
            (_, Some(Wait::Idle)) => self.waits == Waits::AndIdle,
            (_, wait) => wait.is_none_or(Wait::is_synchronization),
        }
    }
}

/// What is known of the code at the locations of a set.
pub(crate) fn symbols<T: Target>(
    target: &T,
    stacks: &Stacks<'_>,
    used: &Used<T::Scratch>,
) -> T::Symbols {
    let places = 0..used::places(stacks);
    let mut locations = places
        .filter_map(used::location_at)
        .filter(|&location| used.contains(location))
        .filter_map(|location| match stacks.location(location) {
            Frame::Pc(pc) if pc != 0 => Some((location, pc)),
            _ => None,
        });
    target.symbols(&mut locations)
}

/// The name, file and line of each function at a location, innermost first.
pub(crate) fn functions<T: Target>(
    symbols: &T::Symbols,
    location: LocationId,
) -> impl Iterator<Item = (&str, &str, u32)> {
    symbols.lines(location).iter().filter_map(|line| {
        let function = symbols.function(line.function)?;
        let name = symbols.string(function.name)?;
        Some((name, symbols.string(function.filename)?, line.line))
    })
}
