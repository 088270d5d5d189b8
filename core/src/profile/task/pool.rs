//! The slots that tasks are in: taking one, giving it back, and reading it while all goes on.
//!
//! Which slots are taken is in a bit map, where taking one is a compare-and-swap of one word that says all there is to
//! say: no list, no ABA. The lowest free one is taken, so that of a large static pool only as many pages are ever
//! touched as there were tasks at once.

#![forbid(unsafe_code)]

use core::mem;
use core::task::Waker;

use super::installed::tracer;
use super::name::Name;
use super::state::{Flags, Held, Polling, State as SlotState};
use super::tracer::Tracer;
use super::wide::Wide;
use super::{State, Task, waker};
use crate::profile::labels::LabelSetId;
use crate::profile::trace::{self, Event};
use crate::stack::capture::Registers;
use crate::stack::{Counter, StackId};
use crate::sync::{AtomicU32, AtomicUsize, Ordering, array_of, const_fn};
use crate::time::Instant;

/// Slots in a word of the map.
const BITS: usize = usize::BITS as usize;

/// How often a slot that changes is read again; loom tries every way in which it may.
const TRIES: usize = if cfg!(loom) { 3 } else { 16 };

/// The memory for up to `N` tasks at once, from 1 to 16,777,216: 136 bytes each on a 64-bit machine, 88 on a
/// 32-bit one. It is made for a `static`, and given to the [`Tracer`] of the program:
///
/// ```
/// use picoprof::profile::task::{TaskPool, Tasks};
///
/// static POOL: TaskPool<64> = TaskPool::new();
///
/// let tasks: Tasks<'static> = POOL.view();
/// assert_eq!((tasks.len(), tasks.capacity()), (0, 64));
/// ```
#[derive(Debug)]
pub struct TaskPool<const N: usize> {
    slots: [Slot; N],
    /// A bit for each slot, so only the first ones are used; an array's length can't be calculated from `N`.
    taken: [AtomicUsize; N],
    shared: Shared,
}

impl<const N: usize> TaskPool<N> {
    const VALID: () = assert!(N >= 1 && N <= 1 << 24, "N must be from 1 to 16,777,216");

    const_fn! {
        /// An empty pool.
        #[must_use]
        pub fn new() -> Self {
            let () = Self::VALID;
            Self {
                slots: array_of!(Slot::new()),
                taken: array_of!(AtomicUsize::new(0)),
                shared: Shared::new(),
            }
        }
    }

    /// The pool as everything else uses it, without its size in the type.
    #[must_use]
    pub const fn view(&self) -> Tasks<'_> {
        Tasks {
            slots: &self.slots,
            taken: &self.taken,
            shared: &self.shared,
            observe: Slot::observe,
        }
    }
}

impl<const N: usize> Default for TaskPool<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug)]
struct Shared {
    /// The first word of the map that may have room, at best.
    first: AtomicUsize,
    /// Tasks that have not ended.
    alive: AtomicUsize,
    lost: Counter,
}

impl Shared {
    const_fn! {
        fn new() -> Self {
            Self {
                first: AtomicUsize::new(0),
                alive: AtomicUsize::new(0),
                lost: Counter::new(),
            }
        }
    }
}

/// The pool of tasks, whose size is not in the type.
#[derive(Clone, Copy, Debug)]
pub struct Tasks<'a> {
    slots: &'a [Slot],
    taken: &'a [AtomicUsize],
    shared: &'a Shared,
    /// [`Slot::observe`], as the view of a pool has it, so that a program without a pool is without this code.
    observe: fn(&Slot, &mut Read<'_>) -> Option<&'static str>,
}

/// Reads what is to be known of a slot's task, given its flags and how many times it was polled.
type Read<'a> = dyn FnMut(Flags, u64) + 'a;

/// Where a task is, at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whereabouts {
    /// Where it was spawned, if it was not polled yet.
    pub(crate) stack: StackId,
    pub(crate) labels: LabelSetId,
    pub(crate) is_leaked: bool,
}

impl<'a> Tasks<'a> {
    /// How many tasks there is room for: [`get`](Self::get)'s argument is below it.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// How many tasks there are now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.alive.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tasks found no room so far: they run unseen.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load()
    }

    /// The task in a slot, if there's one: as it is at one moment, while it goes on.
    ///
    /// May run in a signal handler or an interrupt: no lock, bounded. A task that changes all the time, faster than
    /// it can be read, is given as it was at about the same moment; a slot that changes its tasks that fast, as empty.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<Task> {
        let slot = self.slot(slot)?;
        let mut task = None;
        let name = (self.observe)(slot, &mut |flags, polls| {
            task = Some(slot.read(flags, polls));
        });
        Some(Task {
            name: name?,
            ..task?
        })
    }

    /// The same, of which only so much is read.
    pub(crate) fn whereabouts(&self, slot: usize) -> Option<Whereabouts> {
        let slot = self.slot(slot)?;
        let mut found = None;
        (self.observe)(slot, &mut |flags, _| {
            found = Some(Whereabouts {
                stack: match slot.awaits_at() {
                    StackId::EMPTY => load_stack(&slot.spawned_at),
                    stack => stack,
                },
                labels: slot.labels(),
                is_leaked: flags.is_leaked(),
            });
        })?;
        found
    }

    /// The slot with this number, if it is taken.
    fn slot(&self, slot: usize) -> Option<&'a Slot> {
        let (word, bit) = place(slot);
        if self.taken.get(word)?.load(Ordering::Acquire) & bit == 0 {
            return None;
        }
        self.slots.get(slot)
    }

    /// The task that a trace calls so.
    pub(crate) fn find(&self, traced: u32) -> Option<Task> {
        // Numbers beyond 2^32, of a pool whose size is no power of two, aren't found.
        let slot = (traced.wrapping_sub(1) as usize).checked_rem(self.capacity())?;
        self.get(slot).filter(|task| task.id as u32 == traced)
    }

    /// A slot for a task that begins, and the task's number; `None` if there's no room, which is counted.
    pub(super) fn claim(&self) -> Option<(&'a Slot, u64)> {
        let claimed = self.claim_index().and_then(|index| {
            let slot = self.slots.get(index)?;
            // The numbers of a slot's tasks are a capacity apart.
            let id = match slot.id() {
                0 => index as u64 + 1,
                before => before.wrapping_add(self.slots.len() as u64),
            };
            Some((slot, id))
        });
        match claimed {
            Some(_) => {
                self.shared.alive.fetch_add(1, Ordering::Relaxed);
            }
            None => self.shared.lost.add(1),
        }
        claimed
    }

    /// Gives back the slot that nothing refers to any more.
    fn free(&self, slot: &Slot) {
        let capacity = self.slots.len() as u64;
        let index = (slot.id().wrapping_sub(1).checked_rem(capacity)).unwrap_or(0) as usize;
        let is_ours = (self.slots.get(index)).is_some_and(|ours| core::ptr::eq(ours, slot));
        let (word, bit) = place(index);
        // A tracer that changes its pool must not free what another one has.
        if let (true, Some(taken)) = (is_ours, self.taken.get(word)) {
            // Release: the next to take the slot writes after all that was read and written here.
            taken.fetch_and(!bit, Ordering::Release);
            self.shared.first.fetch_min(word, Ordering::Relaxed);
        }
    }

    fn claim_index(&self) -> Option<usize> {
        let words = self.slots.len().div_ceil(BITS);
        let first = self.shared.first.load(Ordering::Relaxed).min(words);
        let (word, index) = (first..words)
            .chain(0..first)
            .find_map(|word| Some((word, self.claim_in(word)?)))?;
        if word != first {
            // It stays if a lower one was freed meanwhile; if another one was, that is found all the same.
            let _ = self.shared.first.compare_exchange(
                first,
                word,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
        Some(index)
    }

    /// The lowest free slot of a word of the map.
    fn claim_in(&self, word: usize) -> Option<usize> {
        let taken = self.taken.get(word)?;
        let mut bits = taken.load(Ordering::Relaxed);
        loop {
            let bit = bits.trailing_ones() as usize;
            let index = word * BITS + bit;
            if bit == BITS || index >= self.slots.len() {
                return None;
            }
            match taken.compare_exchange_weak(
                bits,
                bits | 1 << bit,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(index),
                Err(now) => bits = now,
            }
        }
    }
}

/// The word of the map and the bit that a slot has.
const fn place(slot: usize) -> (usize, usize) {
    (slot / BITS, 1 << (slot % BITS))
}

/// Where a task is.
///
/// What a poll writes comes first, in a cache line of its own.
#[derive(Debug)]
#[cfg_attr(target_pointer_width = "64", repr(C, align(64)))]
pub(super) struct Slot {
    state: SlotState,
    labels: AtomicU32,
    awaits_at: AtomicU32,
    /// The stack pointer of who polls it, or did last.
    base: AtomicUsize,
    polls: Wide,
    /// When it was pending last: written by the poll.
    pended: Wide,
    /// When it was woken last, 0 if never: written by who has the right to wake the executor, which a poll may have too.
    woken: Wide,

    name: Name,
    /// Stays when the task is gone, for the next one's.
    id: Wide,
    parent: Wide,
    spawned: Wide,
    spawned_at: AtomicU32,
}

impl Slot {
    const_fn! {
        fn new() -> Self {
            Self {
                state: SlotState::new(),
                labels: AtomicU32::new(0),
                awaits_at: AtomicU32::new(0),
                base: AtomicUsize::new(0),
                polls: Wide::new(),
                pended: Wide::new(),
                woken: Wide::new(),
                name: Name::new(),
                id: Wide::new(),
                parent: Wide::new(),
                spawned: Wide::new(),
                spawned_at: AtomicU32::new(0),
            }
        }
    }

    /// A task begins in a slot that was claimed for it.
    pub(super) fn begin(&self, name: &'static str, spawn: &Spawn) -> Option<Held<'_>> {
        let written = self.name.write(name, || {
            self.id.store(spawn.id);
            self.parent.store(spawn.parent.unwrap_or(0));
            self.spawned.store(spawn.now.as_nanos());
            store_stack(&self.spawned_at, spawn.stack);
            self.set_labels(spawn.labels);
            store_stack(&self.awaits_at, StackId::EMPTY);
            self.polls.store(0);
            self.pended.store(0);
            self.woken.store(0);
        });
        let held = if written { self.state.begin() } else { None };
        if held.is_some() && trace::is_on() {
            let id = self.traced_id();
            trace::record_with(Event::task_spawned(id, spawn.stack), name, "");
            if spawn.labels != LabelSetId::EMPTY {
                trace::record(|| Event::task_labelled(id, spawn.labels));
            }
        }
        held
    }

    /// A poll begins, by someone whose stack pointer is `base`.
    #[inline]
    pub(super) fn poll<'a>(
        &self,
        held: &'a mut Held<'static>,
        base: usize,
        is_nested: bool,
        tracer: &dyn Tracer,
    ) -> Option<Polling<'a>> {
        let polling = held.poll(is_nested)?;
        self.base.store(base, Ordering::Relaxed);
        self.polls.store(self.polls.load().wrapping_add(1));
        trace::record_by(tracer, || Event::task_polled(self.traced_id(), is_nested));
        Some(polling)
    }

    /// The poll ends, and the task waits. `awaited_at` is what [`awaits_at`](Self::awaits_at) was when it began.
    pub(super) fn pend(
        &self,
        polling: Polling<'_>,
        executor: &Waker,
        awaited_at: StackId,
        tracer: &dyn Tracer,
    ) {
        // Polled for another's sake, as by a `select!` around it, it's still in the same wait.
        let pended = (!polling.is_continued() || self.awaits_at() != awaited_at).then(|| {
            let now = tracer.now().as_nanos();
            self.pended.store(now);
            now
        });
        // Before anybody can wake it, or another thread poll it.
        trace::record_by(tracer, || {
            Event::task_pending(self.traced_id(), self.awaits_at())
        });
        polling.pend(executor, || {
            trace::record_by(tracer, || {
                Event::task_woken(self.traced_id(), StackId::EMPTY)
            });
            let now = pended.unwrap_or_else(|| tracer.now().as_nanos());
            self.woken.store(now);
        });
    }

    /// The task ends with this poll.
    pub(super) fn finish(&self, polling: Polling<'_>) {
        trace::record(|| Event::task_ended(self.traced_id()));
        if polling.finish() {
            count_end();
        }
    }

    /// The wrapper goes.
    pub(super) fn end(&self, held: Held<'_>) {
        let id = self.traced_id();
        let end = held.end();
        if end.is_end {
            trace::record(|| Event::task_ended(id));
            count_end();
        }
        self.free_if(end.is_free);
    }

    /// The task's waker was cloned by who called the function that `registers` are of.
    #[inline]
    pub(super) fn waker_cloned(&self, registers: Registers) {
        self.state.add_clone();
        let Some(tracer) = tracer() else { return };
        let context = tracer.current();
        if context.polls(self) {
            store_stack(&self.awaits_at, tracer.stack(registers, context.base()));
        }
    }

    /// A clone of the task's waker was dropped.
    pub(super) fn waker_dropped(&self) {
        self.free_if(self.state.drop_clone());
    }

    /// The task's waker was used, and given up (`by_value`) or not, by who called the function that `registers` are of.
    pub(super) fn wake(&self, registers: Registers, by_value: bool) {
        let woken = self.state.wake(by_value, || self.record_wake(registers));
        self.free_if(woken.is_free);
        let mut executor = woken.executor;
        // Of a task in a task only the inner one's wait is counted: it is one wait, and that one's stack tells more.
        while let Some(outer) = executor.as_ref().and_then(waker::slot_of) {
            let woken = outer.state.wake(false, || outer.record_woken());
            let inner = mem::replace(&mut executor, woken.executor);
            drop(inner);
        }
        if let Some(executor) = executor {
            executor.wake();
        }
    }

    /// Counts a wait that ends now.
    fn record_wake(&self, registers: Registers) {
        let Some(tracer) = tracer() else { return };
        let now = tracer.now();
        self.woken.store(now.as_nanos());
        let waited = now.since(Instant::from_nanos(self.pended.load()));
        let waker = tracer.current();
        let stack = tracer.stack(registers, waker.base());
        trace::record_by(tracer, || Event::task_woken(self.traced_id(), stack));
        tracer.record_mutex(stack, waker.labels(), waited);
        tracer.record_block(self.awaits_at(), self.labels(), waited);
    }

    fn record_woken(&self) {
        if let Some(tracer) = tracer() {
            self.woken.store(tracer.now().as_nanos());
            trace::record_by(tracer, || {
                Event::task_woken(self.traced_id(), StackId::EMPTY)
            });
        }
    }

    /// Gives the slot back, if nothing refers to it any more.
    fn free_if(&self, is_free: bool) {
        if let (true, Some(tracer)) = (is_free, tracer()) {
            tracer.tasks().free(self);
        }
    }

    /// The task gets other labels before it is polled.
    pub(super) fn relabel(&self, labels: LabelSetId) {
        self.set_labels(labels);
        trace::record(|| Event::task_labelled(self.traced_id(), labels));
    }

    fn set_labels(&self, labels: LabelSetId) {
        self.labels.store(labels.to_bits(), Ordering::Release);
    }

    #[inline]
    pub(super) fn labels(&self) -> LabelSetId {
        LabelSetId::from_bits(self.labels.load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn awaits_at(&self) -> StackId {
        load_stack(&self.awaits_at)
    }

    /// The stack pointer of who polls it.
    pub(super) fn base(&self) -> usize {
        self.base.load(Ordering::Relaxed)
    }

    /// The number of the task that is or was in it; 0 before the first.
    pub(super) fn id(&self) -> u64 {
        self.id.load()
    }

    /// What a trace calls the task: no two are called the same that are there at the same time, or nearly so.
    #[inline]
    fn traced_id(&self) -> u32 {
        self.id() as u32
    }

    /// Lets `read` read what is to be known of the task in it, if need be again; the last time counts. Answers the task's
    /// name, and `None` if there's no task.
    fn observe(&self, read: &mut Read<'_>) -> Option<&'static str> {
        let mut name = None;
        for _ in 0..TRIES {
            // A poll sets a flag, counts itself, writes, and clears the flag; a wake-up does as much. So, whatever was
            // written between these two looks at the count and the flags, one of them has changed.
            let polls = self.polls.load();
            let flags = self.state.load();
            if !flags.is_alive() {
                return None;
            }
            name = self.name.read(|| read(flags, polls));
            let is_whole = flags.is_same_but_clones(self.state.load())
                && !flags.is_being_woken()
                && self.polls.load() == polls;
            if name.is_some() && is_whole {
                break;
            }
        }
        name
    }

    /// All but the name.
    fn read(&self, flags: Flags, polls: u64) -> Task {
        let instant = |time: &Wide| Instant::from_nanos(time.load());
        let spawned = instant(&self.spawned);
        let pended = instant(&self.pended);
        let woken = instant(&self.woken);
        let state = flags.state();
        Task {
            id: self.id.load(),
            parent: self.parent.load(),
            name: "",
            labels: self.labels(),
            spawned_at: load_stack(&self.spawned_at),
            awaits_at: self.awaits_at(),
            state,
            spawned,
            since: match state {
                State::New => spawned,
                State::Running => spawned.max(woken).max(pended),
                State::Pending => pended,
                // By the time that the poll ended, if it was woken during that.
                State::Woken => woken.max(pended),
            },
            polls,
            woken: (woken != Instant::default()).then_some(woken),
            wakers: flags.clones(),
            is_nested: flags.is_nested(),
        }
    }
}

/// How a task begins.
#[derive(Debug)]
pub(super) struct Spawn {
    pub(super) id: u64,
    pub(super) parent: Option<u64>,
    pub(super) labels: LabelSetId,
    pub(super) stack: StackId,
    pub(super) now: Instant,
}

fn count_end() {
    if let Some(tracer) = tracer() {
        let tasks = tracer.tasks();
        tasks.shared.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

#[inline]
fn store_stack(place: &AtomicU32, stack: StackId) {
    place.store(stack.to_bits(), Ordering::Release);
}

#[inline]
fn load_stack(place: &AtomicU32) -> StackId {
    StackId::from_bits(place.load(Ordering::Acquire))
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    const NAMES: [&str; 2] = ["a", "the other"];

    /// The `n`th task of a slot, in all that a snapshot shows.
    fn spawn(n: usize, id: u64) -> Spawn {
        Spawn {
            id,
            parent: Some(id + 100),
            labels: LabelSetId::from_bits(n as u32 + 200),
            stack: StackId::from_bits(n as u32 + 300),
            now: Instant::from_nanos(n as u64 + 400),
        }
    }

    fn begin<'a>(slot: &'a Slot, n: usize, id: u64) -> Held<'a> {
        slot.begin(NAMES[n], &spawn(n, id)).unwrap()
    }

    /// Ends it as `Slot::end` does, which needs a tracer.
    fn end(tasks: Tasks<'_>, slot: &Slot, held: Held<'_>) {
        if held.end().is_free {
            tasks.free(slot);
        }
    }

    #[test]
    fn loom_a_slot_is_one_task_s_at_a_time() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let pool = Arc::new(TaskPool::<2>::new());
            let churn = |pool: &TaskPool<2>| {
                let tasks = pool.view();
                let (slot, id) = tasks.claim().unwrap();
                // Would fail if another task were in it.
                let held = begin(slot, 0, id);
                end(tasks, slot, held);
                id
            };
            let other = thread::spawn({
                let pool = pool.clone();
                move || [churn(&pool), churn(&pool)]
            });
            let ours = churn(&pool);
            assert!(!other.join().unwrap().contains(&ours));
            let tasks = pool.view();
            assert!(tasks.claim().is_some() && tasks.claim().is_some() && tasks.claim().is_none());
            assert_eq!(tasks.lost(), 1);
        });
    }

    #[test]
    fn loom_a_snapshot_is_of_one_task() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let pool = Arc::new(TaskPool::<1>::new());
            let (slot, id) = pool.view().claim().unwrap();
            let held = begin(slot, 0, id);
            let reads = thread::spawn({
                let pool = pool.clone();
                move || pool.view().get(0)
            });
            end(pool.view(), slot, held);
            let (slot, id) = pool.view().claim().unwrap();
            let _held = begin(slot, 1, id);
            if let Some(task) = reads.join().unwrap() {
                let n = (task.id - 1) as usize;
                let expected = spawn(n, task.id);
                assert_eq!(task.name, NAMES[n]);
                assert_eq!(Some(task.parent), expected.parent);
                assert_eq!(
                    (task.labels, task.spawned_at),
                    (expected.labels, expected.stack)
                );
                assert_eq!((task.spawned, task.state), (expected.now, State::New));
            }
        });
    }

    /// What a poll left, or what it found, but no mixture.
    #[test]
    fn loom_a_snapshot_is_of_one_poll() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let pool = Arc::new(TaskPool::<1>::new());
            let (slot, id) = pool.view().claim().unwrap();
            let mut held = begin(slot, 0, id);
            let mut poll = |polls: u32| {
                let polling = held.poll(false).unwrap();
                slot.polls.store(u64::from(polls));
                store_stack(&slot.awaits_at, StackId::from_bits(polls * 1000));
                slot.pended.store(u64::from(polls) * 1000);
                polling.pend(Waker::noop(), || ());
            };
            poll(1);
            let reads = thread::spawn({
                let pool = pool.clone();
                move || pool.view().get(0)
            });
            poll(2);
            let task = reads.join().unwrap().unwrap();
            let pended = task.polls * 1000;
            match task.state {
                State::Pending => {
                    assert_eq!(task.since, Instant::from_nanos(pended));
                    assert_eq!(task.awaits_at, StackId::from_bits(pended as u32));
                }
                state => assert_eq!(state, State::Running),
            }
        });
    }
}
