//! What Go's readers believe: who exists, who runs where. `facts` go in, and events that are true to that come out.
//!
//! A reader takes nothing that doesn't fit: it keeps for each thread its processor and its goroutine, for each goroutine
//! and processor a status and a sequence number (src/internal/trace/order.go), and gives up at the first event that can't follow.
//! So each fact is taken from where the world is to where the fact wants it, by as many events as it takes: what was not
//! recorded is made up for, what comes twice is left out. Most facts are one event. All go out at times that never
//! go back, in the order in which they are true, so what fits here fits there.

#![forbid(unsafe_code)]

mod facts;

use super::goroutines::{Goroutine, Goroutines, Key, Status};
use super::ids::Ids;
use super::pieces::{self, Bytes, MAX_EVENT, Owner, Pieces};
use super::regions::Regions;
use super::streams::Streams;
use super::text::{Text, Word};
use super::wire;
use crate::profile::task::Tasks;
use crate::profile::trace::{Stream as RecorderStream, Trace};
use crate::stack::StackId;

/// The thread that says what the recorder has to say.
pub(super) const RECORDER: u32 = RecorderStream::SAMPLES - 1;

/// What is kept of the world besides its tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scalars {
    /// The generation that goes out.
    pub(super) generation: u32,
    /// The time of the last event, in units of the trace.
    pub(super) now: u64,
    /// The last numbers that were given: to goroutines, and in this generation to strings and stacks.
    pub(super) goroutines: u32,
    pub(super) strings: u32,
    pub(super) stacks: u32,
    /// Processors, and how many of them were announced.
    pub(super) processors: u32,
    pub(super) announced: u32,
    /// Whether there was any event in this generation.
    pub(super) has_events: bool,
    /// Facts for which there was no room in a table.
    pub(super) lost: u64,
    /// Bytes of the heap that are in use, to be said where something is.
    pub(super) heap: Option<u64>,
}

impl Scalars {
    pub(super) const NEW: Self = Self {
        generation: 1,
        now: 1,
        goroutines: 0,
        strings: 0,
        stacks: 0,
        processors: 0,
        announced: 0,
        has_events: false,
        lost: 0,
        heap: None,
    };
}

/// The world as it was told so far.
#[derive(Debug)]
pub(super) struct World<'m> {
    pub(super) goroutines: Goroutines<'m>,
    pub(super) streams: Streams<'m>,
    /// Stacks, each with the name that it ends in; and the number of the reason of who waits there.
    pub(super) stacks: Ids<'m>,
    /// Names; and of those of threads that were created, the thread.
    pub(super) names: Ids<'m>,
    pub(super) regions: Regions<'m>,
    pub(super) pieces: Pieces<'m>,
    pub(super) scalars: &'m mut Scalars,
    /// Those that there are, for the names of those whose begin was not recorded.
    pub(super) tasks: Option<Tasks<'m>>,
    pub(super) trace: Trace<'static>,
}

/// Why a goroutine waits.
#[derive(Clone, Copy, Debug)]
enum Reason {
    Word(Word),
    /// What the functions of the stack say.
    OfStack,
}

impl World<'_> {
    /// Whether a fact might find no room in this generation.
    pub(super) fn is_full(&self) -> bool {
        self.stacks.is_full(4) || self.names.is_full(4)
    }

    /// Adds a string of which nobody else has the number; 0 if there's no room.
    pub(super) fn add_string(&mut self, text: &str) -> u32 {
        let number = self.scalars.strings + 1;
        let mut head = Bytes::<16>::new();
        head.push(wire::STRING);
        head.varint(u64::from(number));
        head.varint(text.len() as u64);
        let time = self.scalars.now;
        let needed = head.as_slice().len() + text.len();
        let Some(piece) = self.special(pieces::STRINGS, wire::STRINGS, needed) else {
            return 0;
        };
        self.scalars.strings = number;
        self.pieces.append(piece, time, head.as_slice());
        self.pieces.append(piece, time, text.as_bytes());
        number
    }

    /// Bytes of a string that fit in a piece for sure.
    pub(super) fn max_string(&self) -> usize {
        self.pieces
            .capacity()
            .saturating_sub(16)
            .min(wire::MAX_STRING)
    }

    // Goroutines.

    fn status(&self, key: Key) -> Option<Status> {
        Some(self.goroutines.get(key)?.status)
    }

    fn runs_here(&self, index: usize, key: Key) -> bool {
        self.streams.get(index).and_then(|stream| stream.current) == Some(key)
    }

    /// Who runs in a stream, if need be the thread's own goroutine from now on.
    fn run(&mut self, index: usize) -> Option<Key> {
        match self.streams.get(index)?.current {
            Some(key) => Some(key),
            None => self.run_thread(index),
        }
    }

    /// The same, but that a worker's thread has nobody who runs between tasks.
    fn run_or_worker(&mut self, index: usize) -> Option<Key> {
        let stream = self.streams.get(index)?;
        if stream.is_worker {
            return stream.current;
        }
        self.run(index)
    }

    /// Lets the thread's own goroutine run, where nobody else does.
    fn run_thread(&mut self, index: usize) -> Option<Key> {
        let stream = self.streams.get(index)?;
        let key = Key::thread(stream.id);
        if stream.current == Some(key) {
            return Some(key);
        }
        let is_old = self.scalars.generation == 1 && !stream.is_new && self.status(key).is_none();
        if is_old {
            let goroutine = self.add(key, Self::name_of_thread(stream.id), Status::Running)?;
            let arguments = [
                u64::from(goroutine.id),
                u64::from(stream.id),
                Status::Running as u64,
            ];
            self.emit(index, wire::GO_STATUS, &arguments);
            self.set_current(index, Some(key));
            // A status has no stack, and so no name; this has.
            self.stop(index);
            self.start(index, key);
            return Some(key);
        }
        if !self.make_runnable(index, key, StackId::EMPTY, Status::Runnable) {
            return None;
        }
        self.start(index, key);
        Some(key)
    }

    fn set_current(&mut self, index: usize, current: Option<Key>) {
        if let Some(mut stream) = self.streams.get(index) {
            stream.current = current;
            if current.is_some() {
                stream.parked = None;
            }
            self.streams.set(index, &stream);
        }
    }

    /// Puts a new goroutine in; `None` if there's no room, which is counted.
    fn add(&mut self, key: Key, name: Text, status: Status) -> Option<Goroutine> {
        let goroutine = Goroutine {
            key,
            id: self.scalars.goroutines + 1,
            status,
            generation: self.scalars.generation as u16,
            sequence: 0,
            labels: 0,
            is_relabelled: false,
            name: name.to_bits(),
            region: 0,
        };
        if !self.goroutines.put(goroutine) {
            self.scalars.lost += 1;
            return None;
        }
        self.scalars.goroutines += 1;
        Some(goroutine)
    }

    /// Creates a goroutine, whose creator is at a stack with this number.
    fn create(&mut self, index: usize, key: Key, name: Text, creator: u64) -> Option<Goroutine> {
        let goroutine = self.add(key, name, Status::Runnable)?;
        let stack = self.stack_of(StackId::EMPTY, goroutine.name);
        self.emit(
            index,
            wire::GO_CREATE,
            &[u64::from(goroutine.id), stack, creator],
        );
        Some(goroutine)
    }

    /// What a goroutine is called whose begin was not recorded, and its labels.
    fn what_is_known_of(&self, key: Key) -> (Text, u32) {
        if let Some(id) = key.stream() {
            return (Self::name_of_thread(id), 0);
        }
        let task = (self.tasks).and_then(|tasks| tasks.find(key.number()));
        task.map_or((Text::Name(0), 0), |task| {
            let name = self.trace.number_of(task.name);
            (Text::Name(name), task.labels.to_bits())
        })
    }

    const fn name_of_thread(id: u32) -> Text {
        if id == RECORDER {
            Text::Word(Word::Picoprof)
        } else {
            Text::Thread(id)
        }
    }

    /// Lets somebody be runnable, whatever they are; false if there's no room for them. If they wait, whoever is at
    /// `stack` ends that. `before` is what they have been, should they be new.
    fn make_runnable(&mut self, index: usize, key: Key, stack: StackId, before: Status) -> bool {
        let Some(mut goroutine) = self.goroutines.get(key) else {
            let (name, labels) = self.what_is_known_of(key);
            // A new one can only be said to be created, but for those that are there when the trace begins.
            let is_new = self.streams.get(index).is_some_and(|stream| stream.is_new);
            if self.scalars.generation != 1 || is_new && key.is_thread() {
                let created = self.create(index, key, name, 0);
                return created.is_some_and(|it| self.label(it, labels));
            }
            let Some(added) = self.add(key, name, before) else {
                return false;
            };
            self.label(added, labels);
            let arguments = [u64::from(added.id), wire::NONE, before as u64];
            self.emit(index, wire::GO_STATUS, &arguments);
            return before != Status::Waiting || self.make_runnable(index, key, stack, before);
        };
        match goroutine.status {
            Status::Runnable => {}
            Status::Waiting => {
                let stack = self.stack(index, stack);
                self.announce(index, &mut goroutine);
                goroutine.sequence += 1;
                goroutine.status = Status::Runnable;
                self.goroutines.put(goroutine);
                let arguments = [
                    u64::from(goroutine.id),
                    u64::from(goroutine.sequence),
                    stack,
                ];
                self.emit(index, wire::GO_UNBLOCK, &arguments);
            }
            Status::Running => {
                // It has stopped without telling.
                let elsewhere = (0..self.streams.len()).find(|&index| self.runs_here(index, key));
                match elsewhere {
                    Some(elsewhere) => self.stop(elsewhere),
                    None => return false,
                }
            }
        }
        true
    }

    /// Says what a goroutine is, if that was not said in this generation.
    fn announce(&mut self, index: usize, goroutine: &mut Goroutine) {
        let generation = self.scalars.generation as u16;
        if goroutine.generation != generation {
            goroutine.generation = generation;
            goroutine.sequence = 0;
            // A status that isn't so yet is an error, and of two streams' events at the same time either may come first.
            self.scalars.now += 1;
            let arguments = [u64::from(goroutine.id), wire::NONE, goroutine.status as u64];
            self.emit(index, wire::GO_STATUS, &arguments);
        }
    }

    /// Lets a runnable goroutine run, where nobody does.
    fn start(&mut self, index: usize, key: Key) {
        let Some(mut goroutine) = self.goroutines.get(key) else {
            return;
        };
        if goroutine.status != Status::Runnable {
            return;
        }
        self.announce(index, &mut goroutine);
        goroutine.sequence += 1;
        goroutine.status = Status::Running;
        self.goroutines.put(goroutine);
        self.set_current(index, Some(key));
        self.emit(
            index,
            wire::GO_START,
            &[u64::from(goroutine.id), u64::from(goroutine.sequence)],
        );
        self.announce_processors(index);
        if goroutine.is_relabelled {
            self.say_labels(index, goroutine);
        }
        if goroutine.region != 0
            && let Some(goroutine) = self.goroutines.get(key)
        {
            self.end_regions(index, goroutine);
        }
    }

    /// Gives a goroutine labels that are to be said when it runs next.
    fn label(&mut self, mut goroutine: Goroutine, labels: u32) -> bool {
        goroutine.labels = labels;
        goroutine.is_relabelled = labels != 0;
        self.goroutines.put(goroutine)
    }

    fn say_labels(&mut self, index: usize, mut goroutine: Goroutine) {
        goroutine.is_relabelled = false;
        self.goroutines.put(goroutine);
        let label = match goroutine.labels {
            0 => 0,
            labels => self.name(Text::Labels(labels)),
        };
        self.emit(index, wire::GO_LABEL, &[label]);
    }

    /// Lets who runs wait, at `stack`.
    fn block(&mut self, index: usize, reason: Reason, stack: StackId) {
        let current = self.streams.get(index).and_then(|stream| stream.current);
        let Some(mut goroutine) = current.and_then(|key| self.goroutines.get(key)) else {
            return;
        };
        let number = self.stack_of(stack, goroutine.name);
        let reason = match reason {
            Reason::Word(word) => self.name(Text::Word(word)),
            Reason::OfStack => self.reason_of(stack, goroutine.name),
        };
        goroutine.status = Status::Waiting;
        self.goroutines.put(goroutine);
        self.set_current(index, None);
        self.emit(index, wire::GO_BLOCK, &[reason, number]);
    }

    /// Lets who runs make room.
    fn stop(&mut self, index: usize) {
        let current = self.streams.get(index).and_then(|stream| stream.current);
        let Some(mut goroutine) = current.and_then(|key| self.goroutines.get(key)) else {
            return;
        };
        let reason = self.name(Text::Word(Word::Preempted));
        let stack = self.stack_of(StackId::EMPTY, goroutine.name);
        goroutine.status = Status::Runnable;
        self.goroutines.put(goroutine);
        self.set_current(index, None);
        self.emit(index, wire::GO_STOP, &[reason, stack]);
    }

    /// Ends who runs.
    fn destroy(&mut self, index: usize) {
        let current = self.streams.get(index).and_then(|stream| stream.current);
        let Some(key) = current else {
            return;
        };
        self.emit(index, wire::GO_DESTROY, &[]);
        self.set_current(index, None);
        self.forget(key);
    }

    /// Ends the regions of who runs that are over and have none within them.
    fn end_regions(&mut self, index: usize, mut goroutine: Goroutine) {
        // What is left for want of room ends when it runs next.
        while self.pieces.free() > 1
            && let Some(region) = self.regions.get(goroutine.region).filter(|it| it.is_over)
        {
            let name = self.name(Text::of_bits(region.name));
            self.emit(
                index,
                wire::USER_REGION_END,
                &[u64::from(region.task), name, 0],
            );
            self.regions.remove(goroutine.region);
            goroutine.region = region.outer;
            self.goroutines.put(goroutine);
        }
    }

    /// Forgets somebody who isn't heard of any more. To the reader, one that does not run is there for ever.
    fn forget(&mut self, key: Key) {
        let Some(goroutine) = self.goroutines.get(key) else {
            return;
        };
        if goroutine.status == Status::Running
            && let Some(elsewhere) = (0..self.streams.len()).find(|&i| self.runs_here(i, key))
        {
            self.stop(elsewhere);
        }
        let mut place = goroutine.region;
        while let Some(region) = self.regions.get(place) {
            self.regions.remove(place);
            place = region.outer;
        }
        self.goroutines.remove(key);
    }

    /// Gives a stream its processor.
    fn set_up(&mut self, index: usize) {
        let Some(mut stream) = self.streams.get(index) else {
            return;
        };
        if stream.has_processor {
            return;
        }
        let generation = self.scalars.generation;
        if stream.processor == 0 {
            self.scalars.processors += 1;
            stream.processor = self.scalars.processors;
        }
        let processor = u64::from(stream.processor) - 1;
        let is_old = generation == 1 && stream.generation == 0 && !stream.is_new;
        if stream.generation != generation {
            stream.generation = generation;
            stream.starts = 0;
            // One that was there before the trace began runs from its begin on.
            if !is_old {
                // Another thread may have had it until now: see `announce`.
                self.scalars.now += 1;
            }
            let status = if is_old {
                wire::PROC_RUNNING
            } else {
                wire::PROC_IDLE
            };
            self.emit(index, wire::PROC_STATUS, &[processor, status]);
        }
        if !is_old {
            stream.starts += 1;
            self.emit(
                index,
                wire::PROC_START,
                &[processor, u64::from(stream.starts)],
            );
        }
        stream.has_processor = true;
        // The piece may be another one now.
        stream.piece = self.streams.get(index).map_or(0, |stream| stream.piece);
        self.streams.set(index, &stream);
    }

    /// Says how many processors there are, where that has changed; a viewer's plot fails without it.
    fn announce_processors(&mut self, index: usize) {
        if self.scalars.announced != self.scalars.processors {
            self.scalars.announced = self.scalars.processors;
            let count = u64::from(self.scalars.processors);
            self.emit(index, wire::PROCS_CHANGE, &[count, 0]);
        }
    }

    // Numbers.

    /// The number of a stack of who runs in a stream.
    fn stack(&mut self, index: usize, stack: StackId) -> u64 {
        if stack == StackId::EMPTY {
            return 0;
        }
        let current = self.streams.get(index).and_then(|stream| stream.current);
        let name = current.and_then(|key| self.goroutines.get(key));
        self.stack_of(stack, name.map_or(0, |goroutine| goroutine.name))
    }

    /// The number of a stack that ends in a frame with this name, or 0 for none.
    fn stack_of(&mut self, stack: StackId, name: u64) -> u64 {
        let key = self.stack_key(stack, name);
        u64::from(self.stacks.number(key, &mut self.scalars.stacks))
    }

    /// The number of the reason of who waits at such a stack.
    fn reason_of(&mut self, stack: StackId, name: u64) -> u64 {
        let key = self.stack_key(stack, name);
        let mut reason = self.stacks.beside(key);
        if reason == 0 {
            reason = self.scalars.strings + 1;
            self.stacks.set_beside(key, reason);
            if self.stacks.beside(key) == 0 {
                return 0;
            }
            self.scalars.strings = reason;
        }
        u64::from(reason)
    }

    fn stack_key(&mut self, stack: StackId, name: u64) -> u64 {
        let name = self.names.number(name, &mut self.scalars.strings);
        u64::from(stack.to_bits()) | u64::from(name) << 32
    }

    fn name(&mut self, text: Text) -> u64 {
        u64::from(self.names.number(text.to_bits(), &mut self.scalars.strings))
    }

    // Events.

    /// An open piece of an owner's with so much room, for things that are no events, after the byte that says of what kind
    /// they are.
    fn special(&mut self, owner: Owner, kind: u8, needed: usize) -> Option<u32> {
        let time = self.scalars.now;
        if let Some(piece) = self.pieces.of(owner) {
            if self.pieces.room(piece) >= needed {
                return Some(piece);
            }
            self.pieces.complete(piece, self.scalars.generation);
        }
        let piece = self.pieces.open(owner, time)?;
        self.pieces.append(piece, time, &[kind]);
        (self.pieces.room(piece) >= needed).then_some(piece)
    }

    /// Adds an event to a stream, at the time that it is.
    fn emit(&mut self, index: usize, kind: u8, arguments: &[u64]) {
        let Some(mut stream) = self.streams.get(index) else {
            return;
        };
        let owner = Owner::from(stream.id);
        let now = self.scalars.now;
        if !self.pieces.is_open(stream.piece, owner) {
            stream.piece = 0;
        }
        if stream.piece == 0 || self.pieces.room(stream.piece) < MAX_EVENT {
            self.pieces.complete(stream.piece, self.scalars.generation);
            // There are some free ones: see `tell`.
            stream.piece = self.pieces.open(owner, now).unwrap_or(0);
            self.streams.set(index, &stream);
        }
        let mut bytes = Bytes::<MAX_EVENT>::new();
        bytes.push(kind);
        bytes.varint(now - self.pieces.last(stream.piece).min(now));
        for &argument in arguments {
            bytes.varint(argument);
        }
        self.pieces.append(stream.piece, now, bytes.as_slice());
        self.scalars.has_events = true;
    }
}
