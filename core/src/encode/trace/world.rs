//! What Go's readers believe: who exists, who runs where. Facts go in, and events that are true to that come out.
//!
//! A reader takes nothing that doesn't fit: it keeps for each thread its processor and its goroutine, for each goroutine
//! and processor a status and a sequence number (src/internal/trace/order.go), and gives up at the first event that can't follow.
//! So each fact is taken from where the world is to where the fact wants it, by as many events as it takes: what was not
//! recorded is made up for, what comes twice is left out. Most facts are one event. All go out at times that never
//! go back, in the order in which they are true, so what fits here fits there.

#![forbid(unsafe_code)]

use super::goroutines::{Goroutine, Goroutines, Key, Status};
use super::ids::Ids;
use super::pieces::{self, Bytes, MAX_EVENT, Owner, Pieces};
use super::regions::{Region, Regions};
use super::streams::{Stream, Streams};
use super::text::{Text, Word};
use super::wire;
use crate::profile::labels::LabelSetId;
use crate::profile::task::Tasks;
use crate::profile::trace::event::Recorded;
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

    /// Takes a fact of a stream in, that was so at `time`. There must be three free pieces.
    pub(super) fn tell(&mut self, index: usize, time: u64, fact: Recorded, string: u32) {
        self.scalars.now = self.scalars.now.max(time);
        let Some(mut stream) = self.streams.get(index) else {
            return;
        };
        if stream.is_over {
            // Another thread has the number now.
            stream.is_over = false;
            stream.is_new = true;
            self.streams.set(index, &stream);
        }
        if let Recorded::Sample { stack } = fact {
            return self.sample(stream.id, stack);
        }
        if stream.id & RecorderStream::SAMPLES != 0 {
            return;
        }
        match fact {
            Recorded::ThreadBegan { ticket } => return self.thread_began(index, ticket),
            Recorded::ThreadEnded => return self.thread_ended(index),
            _ => self.set_up(index),
        }
        match fact {
            Recorded::TaskSpawned {
                task,
                name,
                labels,
                stack,
            } => self.task_spawned(index, task, name, labels, stack),
            Recorded::TaskPolled { task, is_nested } => self.task_polled(index, task, is_nested),
            Recorded::TaskPending { task, stack } => self.task_pending(index, task, stack),
            Recorded::TaskWoken { task, stack } => self.task_woken(index, task, stack),
            Recorded::TaskEnded { task } => self.task_ended(index, task),
            Recorded::TaskLabelled { task, labels } => {
                if let Some(goroutine) = self.goroutines.get(Key::task(task)) {
                    self.label(goroutine, labels.to_bits());
                }
            }
            Recorded::ThreadCreated { ticket, stack } => self.thread_created(index, ticket, stack),
            Recorded::Waits { place, stack } => self.waits(index, place, stack),
            Recorded::Resumed => self.resumed(index),
            Recorded::Wakes {
                place,
                count,
                stack,
            } => self.wakes(index, place, count, stack),
            Recorded::Labels { labels } => self.labels(index, labels),
            Recorded::RegionBegan { region, task, name } => {
                self.region_began(index, region, task, name);
            }
            Recorded::RegionEnded { region } => self.region_ended(index, region),
            Recorded::UserTaskBegan { task, parent, name } => {
                if self.run(index).is_some() {
                    let name = self.name(Text::Name(name));
                    let arguments = [u64::from(task), u64::from(parent), name, 0];
                    self.emit(index, wire::USER_TASK_BEGIN, &arguments);
                }
            }
            Recorded::UserTaskEnded { task } => {
                if self.run(index).is_some() {
                    self.emit(index, wire::USER_TASK_END, &[u64::from(task), 0]);
                }
            }
            Recorded::Log { task, category } => self.log(index, task, Text::Name(category), string),
            Recorded::HandlerEntered => self.handler_entered(index),
            Recorded::HandlerLeft => {
                self.block(index, Reason::Word(Word::Interrupt), StackId::EMPTY);
            }
            Recorded::ThreadBegan { .. } | Recorded::ThreadEnded | Recorded::Sample { .. } => {}
        }
        if let Some(bytes) = self.scalars.heap.take() {
            self.emit(index, wire::HEAP_ALLOC, &[bytes]);
        }
    }

    /// Says something of the recorder's own: a string that was added.
    pub(super) fn remark(&mut self, string: u32) {
        let index = match self.streams.find(RECORDER) {
            Some(index) => index,
            None => match self.streams.add(RECORDER) {
                Some(index) => index,
                None => return,
            },
        };
        self.set_up(index);
        self.log(index, 0, Text::Word(Word::Picoprof), string);
        self.block(index, Reason::Word(Word::System), StackId::EMPTY);
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

    // Tasks.

    fn task_spawned(
        &mut self,
        index: usize,
        task: u32,
        name: u32,
        labels: LabelSetId,
        stack: StackId,
    ) {
        let key = Key::task(task);
        self.forget(key);
        let _ = self.run(index);
        let spawner = self.stack(index, stack);
        let Some(goroutine) = self.create(index, key, Text::Name(name), spawner) else {
            return;
        };
        self.label(goroutine, labels.to_bits());
    }

    fn task_polled(&mut self, index: usize, task: u32, is_nested: bool) {
        let key = Key::task(task);
        self.make_room(index, is_nested);
        if self.make_runnable(index, key, StackId::EMPTY, Status::Runnable) {
            self.start(index, key);
        }
    }

    /// Lets nobody run in a stream where a task is about to. With that it is a worker's.
    fn make_room(&mut self, index: usize, is_nested: bool) {
        let Some(mut stream) = self.streams.get(index) else {
            return;
        };
        let Some(current) = stream.current else {
            stream.is_worker = true;
            stream.parked = None;
            return self.streams.set(index, &stream);
        };
        if current.is_thread() {
            self.block(index, Reason::Word(Word::System), StackId::EMPTY);
        } else {
            self.stop(index);
        }
        if let Some(mut stream) = self.streams.get(index) {
            if is_nested && !current.is_thread() {
                stream.push(current);
            }
            stream.is_worker = true;
            self.streams.set(index, &stream);
        }
    }

    fn task_pending(&mut self, index: usize, task: u32, stack: StackId) {
        let key = Key::task(task);
        if !self.runs_here(index, key) {
            // Its poll is not known of. If it is known to wait, this comes twice.
            if self.status(key) == Some(Status::Waiting) {
                return;
            }
            self.task_polled(index, task, false);
        }
        if self.runs_here(index, key) {
            self.block(index, Reason::OfStack, stack);
            self.resume_outer(index);
        }
    }

    fn task_woken(&mut self, index: usize, task: u32, stack: StackId) {
        let key = Key::task(task);
        if self.status(key) != Some(Status::Running) {
            let _ = self.run_or_worker(index);
            self.make_runnable(index, key, stack, Status::Waiting);
        }
    }

    fn task_ended(&mut self, index: usize, task: u32) {
        let key = Key::task(task);
        if self.status(key).is_none() {
            return;
        }
        if self.runs_here(index, key) {
            self.destroy(index);
            return self.resume_outer(index);
        }
        // It was dropped where it doesn't run, by who does.
        let current = self.streams.get(index).and_then(|stream| stream.current);
        self.stop(index);
        if self.make_runnable(index, key, StackId::EMPTY, Status::Waiting) {
            self.start(index, key);
            self.destroy(index);
        }
        if let Some(current) = current {
            self.start(index, current);
        }
    }

    /// Goes on with who polled what ran here.
    fn resume_outer(&mut self, index: usize) {
        let Some(mut stream) = self.streams.get(index) else {
            return;
        };
        if let Some(outer) = stream.pop() {
            self.streams.set(index, &stream);
            if self.status(outer) == Some(Status::Runnable) {
                self.start(index, outer);
            }
        }
    }

    // Threads.

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

    fn thread_created(&mut self, index: usize, ticket: u32, stack: StackId) {
        let _ = self.run(index);
        let creator = self.stack(index, stack);
        let key = Key::ticket(ticket);
        self.forget(key);
        let _ = self.create(index, key, Text::Created(ticket), creator);
    }

    fn thread_began(&mut self, index: usize, ticket: u32) {
        let Some(mut stream) = self.streams.get(index) else {
            return;
        };
        if stream.has_processor {
            // Another thread had the number, and its end is not known of.
            self.thread_ended(index);
            let Some(again) = self.streams.get(index) else {
                return;
            };
            stream = again;
            stream.is_over = false;
        }
        stream.is_new = true;
        self.streams.set(index, &stream);
        self.set_up(index);
        let key = Key::thread(stream.id);
        self.forget(key);
        if let Some(mut goroutine) = self.goroutines.get(Key::ticket(ticket)) {
            self.names
                .set_beside(Text::Created(ticket).to_bits(), stream.id);
            self.goroutines.remove(goroutine.key);
            goroutine.key = key;
            goroutine.name = Text::Thread(stream.id).to_bits();
            self.goroutines.put(goroutine);
        }
        if self.make_runnable(index, key, StackId::EMPTY, Status::Runnable) {
            self.start(index, key);
        }
    }

    fn thread_ended(&mut self, index: usize) {
        let Some(stream) = self.streams.get(index) else {
            return;
        };
        let key = Key::thread(stream.id);
        if stream.has_processor {
            if !self.runs_here(index, key) {
                self.stop(index);
            }
            if self.status(key).is_some() && self.run_thread(index).is_some() {
                self.destroy(index);
            }
            self.emit(index, wire::PROC_STOP, &[]);
        }
        if let Some(stream) = self.streams.get(index) {
            // Before another thread with the number says anything.
            self.pieces.complete(stream.piece, self.scalars.generation);
            let over = Stream {
                piece: 0,
                has_processor: false,
                is_over: true,
                is_new: false,
                is_worker: false,
                current: None,
                outer: [None; 2],
                parked: None,
                ..stream
            };
            self.streams.set(index, &over);
        }
    }

    fn waits(&mut self, index: usize, place: u32, stack: StackId) {
        let since = self.scalars.now;
        let is_idle = stack == StackId::IDLE;
        let current = if is_idle {
            self.streams.get(index).and_then(|stream| stream.current)
        } else {
            self.run_or_worker(index)
        };
        let Some(key) = current else {
            return;
        };
        if is_idle {
            self.block(index, Reason::Word(Word::System), StackId::EMPTY);
        } else {
            self.block(index, Reason::OfStack, stack);
        }
        if let Some(stream) = self.streams.get(index) {
            let parked = Stream {
                parked: Some(key),
                parked_at: place,
                parked_since: since,
                ..stream
            };
            self.streams.set(index, &parked);
        }
    }

    fn resumed(&mut self, index: usize) {
        let Some(mut stream) = self.streams.get(index) else {
            return;
        };
        if stream.current.is_some() {
            return;
        }
        let key = match stream.parked.take() {
            Some(key) => key,
            // It may be that its wait began before the trace.
            None if !stream.is_worker && self.status(Key::thread(stream.id)).is_none() => {
                Key::thread(stream.id)
            }
            None => return,
        };
        self.streams.set(index, &stream);
        if self.status(key) != Some(Status::Running)
            && self.make_runnable(index, key, StackId::EMPTY, Status::Waiting)
        {
            self.start(index, key);
        }
    }

    fn wakes(&mut self, index: usize, place: u32, count: u32, stack: StackId) {
        let _ = self.run_or_worker(index);
        for _ in 0..count.min(self.streams.len() as u32) {
            let waiting = (0..self.streams.len()).filter_map(|index| self.streams.get(index));
            let first = waiting
                .filter(|stream| stream.parked_at == place)
                .filter_map(|stream| Some((stream.parked_since, stream.parked?)))
                .filter(|&(_, key)| self.status(key) == Some(Status::Waiting))
                .min_by_key(|&(since, _)| since);
            // Who is left out for want of room is let go on when it goes on.
            let Some((_, key)) = first.filter(|_| self.pieces.free() > 1) else {
                break;
            };
            self.make_runnable(index, key, stack, Status::Waiting);
        }
    }

    fn labels(&mut self, index: usize, labels: LabelSetId) {
        let Some(key) = self.run(index) else {
            return;
        };
        if let Some(mut goroutine) = self.goroutines.get(key) {
            goroutine.labels = labels.to_bits();
            goroutine.is_relabelled = true;
            self.goroutines.put(goroutine);
            self.say_labels(index, goroutine);
        }
    }

    fn handler_entered(&mut self, index: usize) {
        let Some(stream) = self.streams.get(index) else {
            return;
        };
        let key = Key::thread(stream.id);
        if stream.current.is_none()
            && self.make_runnable(index, key, StackId::EMPTY, Status::Waiting)
        {
            self.start(index, key);
        }
    }

    // What the program says.

    fn region_began(&mut self, index: usize, id: u32, task: u32, name: u32) {
        let Some(key) = self.run(index) else {
            return;
        };
        let Some(mut goroutine) = self.goroutines.get(key) else {
            return;
        };
        let name = Text::Name(name);
        let region = Region {
            id,
            is_over: false,
            task,
            name: name.to_bits(),
            outer: goroutine.region,
        };
        let Some(place) = self.regions.add(region) else {
            self.scalars.lost += 1;
            return;
        };
        goroutine.region = place;
        self.goroutines.put(goroutine);
        let name = self.name(name);
        self.emit(index, wire::USER_REGION_BEGIN, &[u64::from(task), name, 0]);
    }

    fn region_ended(&mut self, index: usize, id: u32) {
        self.regions.end(id);
        let current = self.streams.get(index).and_then(|stream| stream.current);
        if let Some(goroutine) = current.and_then(|key| self.goroutines.get(key)) {
            self.end_regions(index, goroutine);
        }
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

    fn log(&mut self, index: usize, task: u32, category: Text, string: u32) {
        if self.run(index).is_some() {
            let category = self.name(category);
            let arguments = [u64::from(task), category, u64::from(string), 0];
            self.emit(index, wire::USER_LOG, &arguments);
        }
    }

    fn sample(&mut self, id: u32, stack: StackId) {
        let thread = id & !RecorderStream::SAMPLES;
        let index = self.streams.find(thread);
        let stream = index.and_then(|index| self.streams.get(index));
        let (mut processor, mut goroutine, mut name) =
            (wire::NONE, 0, Text::Thread(thread).to_bits());
        if let Some(stream) = stream.filter(|stream| stream.has_processor) {
            processor = u64::from(stream.processor) - 1;
            if let Some(current) = stream.current.and_then(|key| self.goroutines.get(key)) {
                goroutine = u64::from(current.id);
                name = current.name;
            }
        }
        let stack = self.stack_of(stack, name);
        let mut bytes = Bytes::<MAX_EVENT>::new();
        bytes.push(wire::CPU_SAMPLE);
        for number in [
            self.scalars.now,
            u64::from(thread),
            processor,
            goroutine,
            stack,
        ] {
            bytes.varint(number);
        }
        let needed = bytes.as_slice().len();
        if let Some(piece) = self.special(pieces::SAMPLES, wire::CPU_SAMPLES, needed) {
            let time = self.scalars.now;
            self.pieces.append(piece, time, bytes.as_slice());
        }
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
