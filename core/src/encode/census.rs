//! How many threads and tasks are at each stack: the samples of `goroutine` and `goroutineleak`.

#![forbid(unsafe_code)]

use super::goroutines::Goroutines;
use super::pairs::{self, Pairs};
use crate::profile::Kind;
use crate::profile::buckets::Values;
use crate::profile::labels::LabelSetId;
use crate::stack::StackId;
use crate::target::Target;

/// Threads and tasks at a moment.
#[derive(Debug)]
pub(crate) enum Census<'t, T: Target> {
    /// How many for each stack with its labels, most first.
    Counted(Counted<T::Scratch>),
    /// Without memory to count in: each by itself.
    Each(Goroutines<'t, T>),
}

impl<'t, T: Target> Census<'t, T> {
    pub(crate) fn take(target: &'t T, kind: Kind) -> Self {
        let goroutines = Goroutines::of(target, kind);
        match Counted::of(&goroutines, |words| target.scratch(words)) {
            Some(counted) => Self::Counted(counted),
            None => Self::Each(goroutines),
        }
    }

    /// Leaves what is different since `before`; `None` without memory for it.
    pub(crate) fn subtract(&mut self, before: &Counted<T::Scratch>, target: &T) -> Option<()> {
        let Self::Counted(counted) = self else {
            return None;
        };
        let len = counted.pairs.as_slice().len() + before.pairs.as_slice().len();
        let mut pairs = Pairs::with_room(len, |words| target.scratch(words))?;
        // A loop that copied would be made one `memmove`, and firmware has no other use for its 1.6 KiB.
        for (list, sign) in [(&counted.pairs, 1), (&before.pairs, -1i64 as u64)] {
            for &[key, count] in list.as_slice() {
                pairs.push([key, count.wrapping_mul(sign)]);
            }
        }
        counted.pairs = pairs;
        counted.sum();
        Some(())
    }

    /// One more than the highest number of a record.
    pub(crate) fn extent(&self) -> usize {
        match self {
            Self::Counted(counted) => counted.pairs.as_slice().len(),
            Self::Each(goroutines) => goroutines.extent(),
        }
    }

    /// A record's stack and labels, and how many there are and how many fewer.
    pub(crate) fn record(&self, index: usize) -> Option<(StackId, LabelSetId, Values)> {
        match self {
            Self::Counted(counted) => {
                let &[key, count] = counted.pairs.as_slice().get(index)?;
                let count = count as i64;
                let (more, fewer) = (count.max(0), count.min(0));
                let values = [more.unsigned_abs(), fewer.unsigned_abs(), 0, 0];
                Some((stack_of(key), labels_of(key), values))
            }
            Self::Each(goroutines) => {
                let (stack, labels) = goroutines.place(index)?;
                Some((stack, labels, [1, 0, 0, 0]))
            }
        }
    }
}

/// A key (stack and labels) and a count, which is signed, for each.
#[derive(Debug)]
pub(crate) struct Counted<S> {
    pairs: Pairs<S>,
}

impl<S: AsRef<[u64]> + AsMut<[u64]>> Counted<S> {
    /// `None` without memory for it: `scratch` answers so many words of zeros.
    pub(crate) fn of<T: Target>(
        goroutines: &Goroutines<'_, T>,
        scratch: impl Fn(usize) -> Option<S>,
    ) -> Option<Self> {
        let count = goroutines.len();
        // Some may come while the others are counted, and one pair is for those that have no room all the same.
        let mut pairs = Pairs::with_room(count.saturating_add(count / 16 + 2), scratch)?;
        let places = 0..goroutines.extent();
        for (stack, labels) in places.filter_map(|index| goroutines.place(index)) {
            if !pairs.push([key(stack, labels), 1])
                && let Some(last) = pairs.as_mut_slice().last_mut()
            {
                let lost = key(StackId::LOST, LabelSetId::EMPTY);
                // The last one gives its place away, and is one of them.
                let others = if last[0] == lost { last[1] } else { 1 };
                *last = [lost, others + 1];
            }
        }
        let mut counted = Self { pairs };
        counted.sum();
        Some(counted)
    }

    /// Leaves one pair for each key, if its counts don't add up to nothing; most first, then by key, as Go sorts them.
    fn sum(&mut self) {
        let pairs = self.pairs.as_mut_slice();
        pairs::sort(pairs);
        let mut len = 0;
        let mut next = 0;
        while let Some(&[key, _]) = pairs.get(next) {
            let run = pairs.get(next..).unwrap_or_default();
            let run = run.iter().take_while(|pair| pair[0] == key);
            let (run, sum) = run.fold((0, 0u64), |(run, sum), pair| {
                (run + 1, sum.wrapping_add(pair[1]))
            });
            if sum != 0
                && let Some(place) = pairs.get_mut(len)
            {
                *place = [key, sum];
                len += 1;
            }
            next += run;
        }
        self.pairs.truncate(len);
        let pairs = self.pairs.as_mut_slice();
        // The greatest count, which is signed, has the least key: one way to sort is enough for all.
        let turned = |count: u64| !(count ^ 1 << 63);
        pairs
            .iter_mut()
            .for_each(|pair| *pair = [turned(pair[1]), pair[0]]);
        pairs::sort(pairs);
        pairs
            .iter_mut()
            .for_each(|pair| *pair = [pair[1], turned(pair[0])]);
    }
}

#[inline]
fn key(stack: StackId, labels: LabelSetId) -> u64 {
    u64::from(stack.to_bits()) << 32 | u64::from(labels.to_bits())
}

const fn stack_of(key: u64) -> StackId {
    StackId::from_bits((key >> 32) as u32)
}

const fn labels_of(key: u64) -> LabelSetId {
    LabelSetId::from_bits(key as u32)
}
