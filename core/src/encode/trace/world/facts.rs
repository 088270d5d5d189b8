//! What each fact changes in the world.

#![forbid(unsafe_code)]

use super::super::goroutines::{Key, Status};
use super::super::pieces::{self, Bytes, MAX_EVENT};
use super::super::regions::Region;
use super::super::streams::Stream;
use super::super::text::{Text, Word};
use super::super::wire;
use super::{RECORDER, Reason, World};
use crate::profile::labels::LabelSetId;
use crate::profile::trace::Stream as RecorderStream;
use crate::profile::trace::event::Recorded;
use crate::stack::StackId;

impl World<'_> {
    /// Takes a fact of a stream in, that was so at `time`. There must be three free pieces.
    pub(in super::super) fn tell(&mut self, index: usize, time: u64, fact: Recorded, string: u32) {
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
            Recorded::TaskSpawned { task, name, stack } => {
                self.task_spawned(index, task, name, stack);
            }
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
    pub(in super::super) fn remark(&mut self, string: u32) {
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

    // Tasks.

    fn task_spawned(&mut self, index: usize, task: u32, name: u32, stack: StackId) {
        let key = Key::task(task);
        self.forget(key);
        let _ = self.run(index);
        let spawner = self.stack(index, stack);
        self.create(index, key, Text::Name(name), spawner);
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
}
