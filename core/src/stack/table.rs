//! Each call stack once: a calling-context tree in two append-only sets.
//!
//! `locations` holds code addresses; `calls` holds (caller's call, location) pairs, one word each. A stack
//! is the call of its leaf, and following callers from there yields its frames leaf first, which is the
//! order of profile.proto's `Sample.location_id`. Stacks share their outer frames, and a [`StackId`] stays
//! good for ever, so a live allocation or a trace event can hold one.

#![forbid(unsafe_code)]

use super::capture::{Registers, StackBounds, walk_frame_pointers_to};
use super::counter::Counter;
use super::set;
use crate::sync::{AtomicUsize, Ordering, array_of, const_fn};

/// Bits of a call's word that hold the location; the caller is in the others.
const HALF: u32 = usize::BITS / 2;
const LOCATION_MASK: usize = (1 << HALF) - 1;

/// The memory of a stack table: room for `LOCATIONS` code addresses and `CALLS` calls.
///
/// Both must be powers of two from 8 up, at most 32,768 on a 32-bit machine; a word each. A table holds
/// about 95 % of that before it loses anything. It is made for a `static`:
///
/// ```
/// use picoprof::stack::{StackTable, Stacks};
///
/// static STACKS: StackTable<256, 1024> = StackTable::new();
///
/// let stacks: Stacks<'static> = STACKS.view();
/// let stack = stacks.intern(&[0x1010, 0x2020], None);
/// assert_eq!(stacks.intern(&[0x1010, 0x2020], None), stack);
/// ```
#[derive(Debug)]
pub struct StackTable<const LOCATIONS: usize, const CALLS: usize> {
    locations: [AtomicUsize; LOCATIONS],
    calls: [AtomicUsize; CALLS],
    lost: [Counter; 2],
}

impl<const LOCATIONS: usize, const CALLS: usize> StackTable<LOCATIONS, CALLS> {
    const VALID: () = assert!(
        set::is_valid_len(LOCATIONS) && set::is_valid_len(CALLS),
        "LOCATIONS and CALLS must be powers of two from 8 up (on a 32-bit machine to 32,768)"
    );

    const_fn! {
        /// An empty table.
        #[must_use]
        pub fn new() -> Self {
            let () = Self::VALID;
            Self {
                locations: array_of!(AtomicUsize::new(0)),
                calls: array_of!(AtomicUsize::new(0)),
                lost: array_of!(Counter::new()),
            }
        }
    }

    /// The table as everything else uses it, without its sizes in the type.
    #[must_use]
    pub const fn view(&self) -> Stacks<'_> {
        Stacks {
            locations: &self.locations,
            calls: &self.calls,
            lost: &self.lost,
        }
    }
}

impl<const LOCATIONS: usize, const CALLS: usize> Default for StackTable<LOCATIONS, CALLS> {
    fn default() -> Self {
        Self::new()
    }
}

/// A stack table whose sizes are not in its type.
#[derive(Clone, Copy, Debug)]
pub struct Stacks<'a> {
    locations: &'a [AtomicUsize],
    calls: &'a [AtomicUsize],
    /// Stacks that found no room: for a location, for a call.
    lost: &'a [Counter; 2],
}

impl<'a> Stacks<'a> {
    /// The id of the stack with these frames, leaf first, which is put in if it is new.
    ///
    /// `outermost` adds a frame that says why the frames end there. A table with no room left answers
    /// [`StackId::LOST`] and counts it. A pc of zero is left out.
    ///
    /// May run in a signal handler or an interrupt: two look-ups a frame, no lock, bounded.
    #[must_use]
    pub fn intern(&self, pcs: &[usize], outermost: Option<Marker>) -> StackId {
        let mut call = Some(StackId::EMPTY);
        if let Some(marker) = outermost {
            call = self.call(StackId::EMPTY, marker.location());
        }
        for &pc in pcs.iter().rev() {
            call = call.and_then(|caller| self.call_from(caller, pc));
        }
        call.unwrap_or(StackId::LOST)
    }

    /// The id of the stack of whoever called the function that `registers` are of, by frame pointers: without that
    /// function's own frame, ending before the one whose stack pointer is `base` (0: at its root). For
    /// [`Tracer::stack`](crate::Tracer::stack).
    ///
    /// `DEPTH` frames are walked, that function's own among them: a word of the stack each.
    ///
    /// May run in a signal handler or an interrupt: as the walk and [`intern`](Self::intern).
    #[must_use]
    pub fn intern_callers<const DEPTH: usize>(
        &self,
        registers: Registers,
        base: usize,
        bounds: StackBounds,
    ) -> StackId {
        let mut pcs = [0; DEPTH];
        let (len, end) = walk_frame_pointers_to(registers, base, bounds, &mut pcs);
        self.intern(pcs.get(1..len).unwrap_or_default(), end.marker())
    }

    /// As [`intern`](Self::intern), starting from what `memo` remembers of the stack before: the outer frames
    /// that two successive samples of a thread share cost one comparison each.
    ///
    /// May run in a signal handler or an interrupt that has a memo of its own.
    #[must_use]
    pub fn intern_with_memo<const DEPTH: usize>(
        &self,
        pcs: &[usize],
        outermost: Option<Marker>,
        memo: &mut Memo<DEPTH>,
    ) -> StackId {
        let call = self.intern_beyond(pcs, outermost, memo);
        call.unwrap_or(StackId::LOST)
    }

    fn intern_beyond<const DEPTH: usize>(
        &self,
        pcs: &[usize],
        outermost: Option<Marker>,
        memo: &mut Memo<DEPTH>,
    ) -> Option<StackId> {
        let marker = Memo::<DEPTH>::code(outermost);
        if memo.outermost != marker {
            memo.len = 0;
            memo.outermost = marker;
        }
        let shared = memo.shared_with(pcs);
        let mut call = match (shared.checked_sub(1), outermost) {
            (Some(last), _) => *memo.calls.get(last)?,
            (None, Some(marker)) => self.call(StackId::EMPTY, marker.location())?,
            (None, None) => StackId::EMPTY,
        };
        memo.len = shared;
        // Most often none. Not by `skip`: with that the table's sizes are looked at even so.
        let others = pcs.len().saturating_sub(shared);
        for &pc in pcs.get(..others).unwrap_or_default().iter().rev() {
            call = self.call_from(call, pc)?;
            memo.push(pc, call);
        }
        Some(call)
    }

    /// The frames of a stack, leaf first.
    #[must_use]
    pub const fn frames(&self, stack: StackId) -> Frames<'a> {
        Frames {
            calls: self.calls,
            next: stack,
        }
    }

    /// What a location stands for.
    #[must_use]
    pub fn location(&self, location: LocationId) -> Frame {
        if let Some(marker) = location.marker() {
            return Frame::Marker(marker);
        }
        let pc = (self.locations.get(location.0 as usize))
            .map_or(0, |word| word.load(Ordering::Acquire));
        Frame::Pc(pc)
    }

    /// How many locations the table has room for: every pc's [`LocationId::index`] is below it.
    #[must_use]
    pub const fn location_capacity(&self) -> usize {
        self.locations.len()
    }

    /// Locations and calls in use: (used, room) each. Reads the whole table.
    #[must_use]
    pub fn usage(&self) -> [(usize, usize); 2] {
        let used = |words: &[AtomicUsize]| {
            let used = words.iter().filter(|w| w.load(Ordering::Relaxed) != 0);
            (used.count(), words.len())
        };
        [used(self.locations), used(self.calls)]
    }

    /// How many stacks found no room so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let [locations, calls] = self.lost_for();
        locations + calls
    }

    /// How many of them had an address that found no room among the locations, and how many a call among the calls.
    #[must_use]
    pub fn lost_for(&self) -> [u64; 2] {
        let [locations, calls] = self.lost;
        [locations.load(), calls.load()]
    }

    #[inline]
    fn call_from(&self, caller: StackId, pc: usize) -> Option<StackId> {
        if pc == 0 {
            return Some(caller);
        }
        let Some(location) = set::find_or_insert(self.locations, pc) else {
            return lost(&self.lost[0]);
        };
        self.call(caller, LocationId(location as u32))
    }

    #[inline]
    fn call(&self, caller: StackId, location: LocationId) -> Option<StackId> {
        // Not zero, as the location's part is one more than its id.
        let word = (caller.0 as usize) << HALF | (location.0 as usize + 1);
        match set::find_or_insert(self.calls, word) {
            Some(index) => Some(StackId(index as u32 + 1)),
            None => lost(&self.lost[1]),
        }
    }
}

#[cold]
fn lost(counter: &Counter) -> Option<StackId> {
    counter.add(1);
    None
}

/// A stack in a [`StackTable`]: good for as long as the table, and the same for equal frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StackId(u32);

impl StackId {
    /// The stack without frames.
    pub const EMPTY: Self = Self(0);
    /// Stands for every stack that found no room in the table.
    pub const LOST: Self = Self(LOCATION_MASK as u32);
    /// Stands for the stack of who can't tell it: [`Marker::Unavailable`] is its only frame.
    ///
    /// No call has this number: a table has at most half as many.
    pub(crate) const UNAVAILABLE: Self = Self(LOCATION_MASK as u32 - 1);
    /// Stands for a machine that waits for an interrupt: [`Marker::Idle`] is its only frame.
    ///
    /// No call has this number either.
    pub const IDLE: Self = Self(LOCATION_MASK as u32 - 2);

    /// Half a word's worth of bits; what [`from_bits`](Self::from_bits) takes back.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The id with these bits.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// A code address in a [`StackTable`], or a [`Marker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LocationId(u32);

impl LocationId {
    /// Above every index: markers are counted down from here.
    const MARKERS: u32 = LOCATION_MASK as u32 - 1;

    /// The location with this index.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Its number, from 0: below [`Stacks::location_capacity`] unless it is a marker.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0
    }

    /// The marker that it is, if it is one.
    #[must_use]
    pub fn marker(self) -> Option<Marker> {
        let number = Self::MARKERS.wrapping_sub(self.0) as usize;
        Marker::ALL.get(number).copied()
    }
}

/// A frame that is no code: it says what is missing there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Marker {
    /// The whole sample: a table was full.
    Lost,
    /// The callers beyond: the stack was deeper than the sampler's buffer.
    TooDeep,
    /// The callers beyond: the walk could not go on, as [`End::Broken`](super::capture::End::Broken) says.
    Broken,
    /// The whole stack: a thread that could not be asked, or not in time.
    Unavailable,
    /// The whole sample: the machine was waiting for an interrupt.
    Idle,
}

impl Marker {
    /// All of them; a marker's place is its number.
    pub const ALL: [Self; 5] = [
        Self::Lost,
        Self::TooDeep,
        Self::Broken,
        Self::Unavailable,
        Self::Idle,
    ];

    /// The function name that profiles show for it, in the manner of Go's `runtime._LostExternalCode`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "picoprof._LostSample",
            Self::TooDeep => "picoprof._StackTooDeep",
            Self::Broken => "picoprof._StackBroken",
            Self::Unavailable => "picoprof._StackUnavailable",
            Self::Idle => "picoprof._Idle",
        }
    }

    /// Its place in a [`StackTable`].
    #[must_use]
    pub const fn location(self) -> LocationId {
        LocationId(LocationId::MARKERS - self as u32)
    }
}

/// What a location is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Frame {
    /// A code address: the interrupted instruction of a leaf, the call's address of a caller.
    Pc(usize),
    /// No code.
    Marker(Marker),
}

/// The locations of a stack, leaf first.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    calls: &'a [AtomicUsize],
    next: StackId,
}

impl Frames<'_> {
    /// No frames.
    pub(crate) const EMPTY: Self = Self {
        calls: &[],
        next: StackId::EMPTY,
    };

    fn only(&mut self, marker: Marker) -> Option<LocationId> {
        self.next = StackId::EMPTY;
        Some(marker.location())
    }
}

impl Iterator for Frames<'_> {
    type Item = LocationId;

    #[inline]
    fn next(&mut self) -> Option<LocationId> {
        // Most often it is a call; the numbers that are none are beyond every table.
        let index = (self.next.0 as usize).wrapping_sub(1);
        let Some(word) = self.calls.get(index) else {
            return match self.next {
                StackId::LOST => self.only(Marker::Lost),
                StackId::UNAVAILABLE => self.only(Marker::Unavailable),
                StackId::IDLE => self.only(Marker::Idle),
                _ => None,
            };
        };
        let word = word.load(Ordering::Acquire);
        self.next = StackId((word >> HALF) as u32);
        // No call has a zero word: its id was given out after the word was put in.
        (word & LOCATION_MASK)
            .checked_sub(1)
            .map(|location| LocationId(location as u32))
    }
}

/// What a sampler remembers of its last stack, for [`Stacks::intern_with_memo`]: up to `DEPTH` outer frames.
///
/// One for each thread or interrupt that samples; it is not shared. Two words a frame.
#[derive(Debug)]
pub struct Memo<const DEPTH: usize> {
    /// As [`code`](Self::code) has it: a new memo is all zeros, so that one in a static takes no room in the binary.
    outermost: u8,
    /// Frames that are remembered.
    len: usize,
    /// Leaf first, as the stacks that they are compared with; the outermost frame is at the array's end.
    pcs: [usize; DEPTH],
    /// The call of each frame, outermost first.
    calls: [StackId; DEPTH],
}

impl<const DEPTH: usize> Memo<DEPTH> {
    /// Remembers nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            outermost: 0,
            len: 0,
            pcs: [0; DEPTH],
            calls: [StackId::EMPTY; DEPTH],
        }
    }

    /// A number for each marker, and 0 for none.
    #[inline]
    const fn code(outermost: Option<Marker>) -> u8 {
        match outermost {
            Some(marker) => marker as u8 + 1,
            None => 0,
        }
    }

    /// How many outer frames of the stack are remembered.
    #[inline]
    fn shared_with(&self, pcs: &[usize]) -> usize {
        let first = DEPTH.saturating_sub(self.len);
        let known = self.pcs.get(first..).unwrap_or_default();
        // Small machines compare words one by one anyway, and have no room for more code.
        if usize::BITS == 64 {
            same_at_end_of_many(known, pcs)
        } else {
            same_at_end(known, pcs)
        }
    }

    /// One frame more, if there is room for it.
    #[inline]
    fn push(&mut self, pc: usize, call: StackId) {
        let place = DEPTH.checked_sub(self.len + 1);
        if let (Some(place), Some(known_call)) = (place, self.calls.get_mut(self.len))
            && let Some(known_pc) = self.pcs.get_mut(place)
        {
            (*known_pc, *known_call) = (pc, call);
            self.len += 1;
        }
    }
}

/// How many words are the same, counted from the ends.
#[inline]
fn same_at_end(known: &[usize], pcs: &[usize]) -> usize {
    let pairs = known.iter().rev().zip(pcs.iter().rev());
    pairs.take_while(|(known, pc)| known == pc).count()
}

/// The same, for machines that compare many words at a time.
#[inline]
fn same_at_end_of_many(known: &[usize], pcs: &[usize]) -> usize {
    // Most often only the leaf is another.
    if let (Some((leaf, callers)), Some((known_leaf, known_callers))) =
        (pcs.split_first(), known.split_first())
        && callers == known_callers
    {
        return callers.len() + usize::from(leaf == known_leaf);
    }
    // Else they part somewhere: four at a time are a few wide comparisons.
    let (_, known_fours) = known.as_rchunks::<4>();
    let (_, fours) = pcs.as_rchunks::<4>();
    let pairs = known_fours.iter().rev().zip(fours.iter().rev());
    let same = 4 * pairs.take_while(|(known, four)| known == four).count();
    let inner = |frames: &[usize]| frames.len().saturating_sub(same);
    let known = known.get(..inner(known)).unwrap_or_default();
    let pcs = pcs.get(..inner(pcs)).unwrap_or_default();
    same + same_at_end(known, pcs)
}

impl<const DEPTH: usize> Default for Memo<DEPTH> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::collections::HashMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn pcs(stacks: Stacks<'_>, stack: StackId) -> Vec<Frame> {
        (stacks.frames(stack)).map(|l| stacks.location(l)).collect()
    }

    #[test]
    fn frames_come_back_leaf_first() {
        let table = StackTable::<64, 64>::new();
        let stacks = table.view();
        let stack = stacks.intern(&[30, 20, 10], Some(Marker::TooDeep));
        let expected = [
            Frame::Pc(30),
            Frame::Pc(20),
            Frame::Pc(10),
            Frame::Marker(Marker::TooDeep),
        ];
        assert_eq!(pcs(stacks, stack), expected);
        assert_eq!(pcs(stacks, stacks.intern(&[], None)), []);
    }

    #[test]
    fn callers_are_without_the_function_itself_and_say_where_they_end() {
        let table = StackTable::<8, 8>::new();
        let stacks = table.view();
        let registers = |fp| Registers { pc: 7, sp: 8, fp };
        let callers = |fp| {
            let stack = stacks.intern_callers::<4>(registers(fp), 0, StackBounds::EMPTY);
            pcs(stacks, stack)
        };
        assert_eq!(callers(0), []);
        assert_eq!(callers(16), [Frame::Marker(Marker::Broken)]);
    }

    #[test]
    fn a_full_table_answers_lost_and_counts() {
        let table = StackTable::<8, 8>::new();
        let stacks = table.view();
        let lost = (1..100).filter(|&pc| stacks.intern(&[pc], None) == StackId::LOST);
        assert_eq!(lost.count(), 91);
        assert_eq!(stacks.lost(), 91);
        assert_eq!(stacks.lost_for()[0], 91);
        let table = StackTable::<128, 8>::new();
        let lost = (1..100).filter(|&pc| table.view().intern(&[pc], None) == StackId::LOST);
        assert_eq!(lost.count(), 91);
        assert_eq!(table.view().lost_for(), [0, 91]);
        assert_eq!(pcs(stacks, StackId::LOST), [Frame::Marker(Marker::Lost)]);
        // What is in stays known.
        assert_eq!(pcs(stacks, stacks.intern(&[1], None)), [Frame::Pc(1)]);
    }

    #[test]
    fn every_marker_has_a_location_of_its_own() {
        for marker in Marker::ALL {
            assert_eq!(marker.location().marker(), Some(marker));
        }
        assert_eq!(LocationId::new(0).marker(), None);
        assert_eq!(LocationId::new(1 << (HALF - 1)).marker(), None);
    }

    proptest! {
        /// The table is a map from frames to ids and back, with and without a memo.
        #[test]
        fn agrees_with_a_hash_map(
            samples in prop::collection::vec(
                (prop::collection::vec(1usize..30, 0..12), prop::option::of(0usize..Marker::ALL.len())),
                1..200,
            )
        ) {
            let table = StackTable::<64, 4096>::new();
            let stacks = table.view();
            let mut memo = Memo::<8>::new();
            let mut model = HashMap::new();
            for (frames, marker) in &samples {
                let marker = marker.map(|m| Marker::ALL[m]);
                let id = stacks.intern_with_memo(frames, marker, &mut memo);
                prop_assert_eq!(stacks.intern(frames, marker), id);
                let mut expected: Vec<_> = frames.iter().map(|&pc| Frame::Pc(pc)).collect();
                expected.extend(marker.map(Frame::Marker));
                prop_assert_eq!(pcs(stacks, id), expected);
                prop_assert_eq!(*model.entry((frames.clone(), marker)).or_insert(id), id);
            }
            let mut ids: Vec<_> = model.values().collect();
            ids.sort();
            ids.dedup();
            prop_assert_eq!(ids.len(), model.len());
        }
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    extern crate std;

    use std::vec::Vec;

    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    type Table = StackTable<8, 8>;

    fn pcs(stacks: Stacks<'_>, stack: StackId) -> Vec<Frame> {
        (stacks.frames(stack)).map(|l| stacks.location(l)).collect()
    }

    fn interned(pcs: &[usize]) -> Vec<Frame> {
        pcs.iter().map(|&pc| Frame::Pc(pc)).collect()
    }

    #[test]
    fn loom_stacks_that_share_callers_are_each_kept_once() {
        loom::model(|| {
            let table = Arc::new(Table::new());
            let other = thread::spawn({
                let table = table.clone();
                move || [&[1, 9][..], &[2, 9]].map(|pcs| table.view().intern(pcs, None))
            });
            let ours = [&[2, 9][..], &[3, 9]].map(|pcs| table.view().intern(pcs, None));
            let theirs = other.join().unwrap();
            let stacks = table.view();
            assert_eq!(theirs[1], ours[0]);
            for (id, expected) in [(theirs[0], [1, 9]), (ours[0], [2, 9]), (ours[1], [3, 9])] {
                assert_eq!(pcs(stacks, id), interned(&expected));
            }
            assert_eq!(stacks.usage(), [(4, 8), (4, 8)]);
            assert_eq!(stacks.lost(), 0);
        });
    }

    /// A row's key leads to all of its stack, also where another thread than the one that added the row had put
    /// the stack's words in.
    ///
    /// The reader is spawned, so that it comes last at first: loom goes back from a load to the stores before it,
    /// and not always from a store to the loads before it.
    #[test]
    fn loom_who_finds_a_row_sees_its_whole_stack() {
        use crate::profile::buckets::Buckets;

        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let table = Arc::new((Table::new(), Buckets::<8, 1>::new()));
            let interns = thread::spawn({
                let table = table.clone();
                move || {
                    let _ = table.0.view().intern(&[1, 9], None);
                }
            });
            let reads = thread::spawn({
                let table = table.clone();
                move || {
                    let (stacks, rows) = (table.0.view(), table.1.view());
                    for row in rows.rows() {
                        let (stack, _) = rows.key(row).unwrap();
                        assert_eq!(pcs(stacks, stack), interned(&[1, 9]));
                    }
                }
            });
            let stack = table.0.view().intern(&[1, 9], None);
            table.1.view().add(stack, 0, &[1]);
            interns.join().unwrap();
            reads.join().unwrap();
            assert_eq!(table.1.view().rows().count(), 1);
        });
    }

    #[test]
    fn loom_a_full_table_loses_and_counts_what_it_loses() {
        loom::model(|| {
            let table = Arc::new(Table::new());
            for pc in 1..=7 {
                let _ = table.view().intern(&[pc], None);
            }
            let other = thread::spawn({
                let table = table.clone();
                move || table.view().intern(&[8], None)
            });
            let ours = table.view().intern(&[9], None);
            let theirs = other.join().unwrap();
            let stacks = table.view();
            assert_ne!(ours == StackId::LOST, theirs == StackId::LOST);
            assert_eq!(stacks.lost(), 1);
        });
    }
}
