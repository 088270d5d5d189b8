//! What a trace says: its events, in the order of their times, and what they do to threads, processors and goroutines.

use core::cmp::Reverse;
use core::mem;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

use super::wire::{Generation, Kind, Raw};
use super::{Goroutine, Log, Region, Sample, Slice, Stack, State, Trace, UserTask, Wake};

/// No thread, or no processor.
const NONE: u64 = u64::MAX;
const NANOS: u128 = 1_000_000_000;

/// Of events at the same time, those of the threads with the lowest or the highest numbers come first.
pub(super) fn replay(generations: &[Generation], is_reversed: bool) -> Result<Trace, String> {
    let mut it = Replay {
        is_reversed,
        ..Replay::default()
    };
    it.trace.generations = generations.len();
    let first = &generations[0];
    it.trace.begins = nanos(first, first.begins);
    it.now = it.trace.begins;
    for generation in generations {
        let played = it.play(generation);
        played.map_err(|error| format!("generation {}: {error}", generation.number))?;
    }
    Ok(it.finish())
}

fn nanos(generation: &Generation, units: u64) -> u64 {
    (u128::from(units) * NANOS / u128::from(generation.frequency)) as u64
}

#[derive(Default)]
struct Replay {
    trace: Trace,
    now: u64,
    is_reversed: bool,
    is_first: bool,
    threads: HashMap<u64, Thread>,
    procs: HashMap<u64, Proc>,
    /// Those that are alive, by their numbers.
    alive: HashMap<u64, Alive>,
    /// User tasks that have begun, by their numbers.
    tasks: HashMap<u64, usize>,
    /// The last event of each thread, of this generation and of those before.
    last: HashMap<u64, u64>,
}

#[derive(Clone, Copy, Default)]
struct Thread {
    proc: Option<u64>,
    /// A number.
    goroutine: Option<u64>,
}

struct Proc {
    status: ProcStatus,
    /// `None` as long as the generation has not said its status.
    seq: Option<u64>,
    thread: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProcStatus {
    Running,
    Idle,
    Syscall,
}

struct Alive {
    /// Its place in the trace's goroutines.
    index: usize,
    state: State,
    seq: Option<u64>,
    thread: Option<u64>,
    /// Open regions, the innermost last.
    regions: Vec<usize>,
}

/// An event, with what it refers to.
struct Event<'a> {
    kind: Kind,
    arguments: [u64; 4],
    thread: u64,
    generation: &'a Generation,
}

impl Event<'_> {
    fn text(&self, argument: usize) -> Arc<str> {
        let text = self.generation.strings.get(self.arguments[argument]);
        text.unwrap_or_default()
    }

    fn stack(&self, argument: usize) -> Stack {
        let stack = self.generation.stacks.get(&self.arguments[argument]);
        stack.cloned().unwrap_or_default()
    }
}

impl Replay {
    fn play(&mut self, generation: &Generation) -> Result<(), String> {
        self.is_first = generation.number == 1;
        for proc in self.procs.values_mut() {
            proc.seq = None;
        }
        for goroutine in self.alive.values_mut() {
            goroutine.seq = None;
        }
        for (&thread, events) in &generation.threads {
            let first = nanos(generation, events[0].time);
            if let Some(&last) = self.last.get(&thread)
                && first < last
            {
                return Err(format!("thread {thread}: {first} after an event at {last}"));
            }
            self.last
                .insert(thread, nanos(generation, events[events.len() - 1].time));
        }
        let mut fronts: BTreeMap<u64, &[Raw]> = BTreeMap::new();
        let mut order = BinaryHeap::new();
        // Its own inverse.
        let is_reversed = self.is_reversed;
        let rank = |thread: u64| if is_reversed { !thread } else { thread };
        for (&thread, events) in &generation.threads {
            order.push(Reverse((events[0].time, rank(thread))));
            fronts.insert(thread, events);
        }
        // Those that can't be yet, at this time: what they wait for may have the same time.
        let mut waiting: Vec<(u64, String)> = Vec::new();
        while let Some(&Reverse((time, ranked))) = order.peek() {
            let thread = rank(ranked);
            if let [(_, error), ..] = &waiting[..]
                && nanos(generation, time) != self.now
            {
                return Err(format!(
                    "too late, or missing, is what comes before this: {error}"
                ));
            }
            order.pop();
            let Some((raw, rest)) = fronts[&thread].split_first() else {
                continue;
            };
            self.now = nanos(generation, time);
            let event = Event {
                kind: raw.kind,
                arguments: raw.arguments,
                thread,
                generation,
            };
            if let Err(error) = self.apply(&event) {
                let (kind, arguments) = (raw.kind, raw.arguments);
                let error = format!(
                    "thread {thread} at {}: {kind:?} {arguments:?}: {error}",
                    self.now
                );
                // Go's reader tries others first for these, and for no others.
                if !matches!(kind, Kind::ProcStart | Kind::GoStart | Kind::GoUnblock) {
                    return Err(error);
                }
                waiting.push((thread, error));
                continue;
            }
            self.trace.events += 1;
            fronts.insert(thread, rest);
            let others = mem::take(&mut waiting)
                .into_iter()
                .map(|(thread, _)| thread);
            for thread in others.chain([thread]) {
                if let Some(next) = fronts[&thread].first() {
                    order.push(Reverse((next.time, rank(thread))));
                }
            }
        }
        if let [(_, error), ..] = &waiting[..] {
            return Err(error.clone());
        }
        for sample in &generation.samples {
            let stack = generation.stacks.get(&sample.stack);
            self.trace.samples.push(Sample {
                at: nanos(generation, sample.time),
                thread: (sample.thread != NONE).then_some(sample.thread),
                goroutine: sample.goroutine,
                stack: stack.cloned().unwrap_or_default(),
            });
        }
        Ok(())
    }

    fn finish(mut self) -> Trace {
        self.trace.ends = self.now;
        self.trace.samples.sort_by_key(|sample| sample.at);
        self.trace.procs_seen = self.procs.len();
        for goroutine in &mut self.trace.goroutines {
            if goroutine.ended.is_none()
                && let Some(last) = goroutine.slices.last_mut()
            {
                last.to = self.now;
            }
        }
        self.trace
    }

    /// Does what the event says, or changes nothing.
    fn apply(&mut self, event: &Event<'_>) -> Result<(), String> {
        let [first, second, third, _] = event.arguments;
        match event.kind {
            Kind::ProcStatus => self.proc_status(event.thread, first, second),
            Kind::ProcStart => {
                if let Some(proc) = self.thread(event.thread).proc {
                    return Err(format!("it has processor {proc}"));
                }
                let proc = self
                    .procs
                    .get_mut(&first)
                    .ok_or("there's no such processor")?;
                if proc.status != ProcStatus::Idle {
                    return Err(format!("it is {:?}", proc.status));
                }
                next(&mut proc.seq, second)?;
                proc.status = ProcStatus::Running;
                proc.thread = Some(event.thread);
                self.threads.entry(event.thread).or_default().proc = Some(first);
                Ok(())
            }
            Kind::ProcStop => {
                let id = self.proc_of(event.thread)?;
                // Go's reader doesn't mind, but then nothing can be said of it.
                if let Some(goroutine) = self.thread(event.thread).goroutine {
                    return Err(format!("goroutine {goroutine} runs there"));
                }
                let proc = self.procs.get_mut(&id).ok_or("no processor")?;
                proc.status = ProcStatus::Idle;
                proc.thread = None;
                self.threads.entry(event.thread).or_default().proc = None;
                Ok(())
            }
            Kind::ProcsChange => {
                self.running(event.thread)?;
                self.trace.procs.push((self.now, first));
                Ok(())
            }
            Kind::GoStatus => self.go_status(event.thread, first, second, third),
            Kind::GoCreate => self.go_create(event),
            Kind::GoStart => {
                self.proc_of(event.thread)?;
                if let Some(goroutine) = self.thread(event.thread).goroutine {
                    return Err(format!("goroutine {goroutine} runs there"));
                }
                let it = self
                    .alive
                    .get_mut(&first)
                    .ok_or("there's no such goroutine")?;
                if it.state != State::Runnable {
                    return Err(format!("it is {:?}", it.state));
                }
                next(&mut it.seq, second)?;
                self.threads.entry(event.thread).or_default().goroutine = Some(first);
                self.change(first, State::Running, event, None);
                Ok(())
            }
            Kind::GoDestroy => {
                let (id, it) = self.running(event.thread)?;
                let goroutine = &mut self.trace.goroutines[it];
                goroutine.ended = Some(self.now);
                if let Some(last) = goroutine.slices.last_mut() {
                    (last.to, last.is_over) = (self.now, true);
                }
                self.alive.remove(&id);
                self.threads.entry(event.thread).or_default().goroutine = None;
                Ok(())
            }
            Kind::GoStop | Kind::GoBlock => {
                let (id, _) = self.running(event.thread)?;
                self.name(id, &event.stack(1));
                self.threads.entry(event.thread).or_default().goroutine = None;
                let is_stop = event.kind == Kind::GoStop;
                let state = if is_stop {
                    State::Runnable
                } else {
                    State::Waiting
                };
                self.change(id, state, event, Some((event.text(0), event.stack(1))));
                Ok(())
            }
            Kind::GoUnblock => {
                let it = self
                    .alive
                    .get_mut(&first)
                    .ok_or("there's no such goroutine")?;
                if it.state != State::Waiting {
                    return Err(format!("it is {:?}", it.state));
                }
                next(&mut it.seq, second)?;
                let wake = self.wake(event, 2);
                let index = self.alive[&first].index;
                if let Some(last) = self.trace.goroutines[index].slices.last_mut() {
                    last.woken = Some(wake);
                }
                self.change(first, State::Runnable, event, None);
                Ok(())
            }
            Kind::GoSyscallBegin => {
                let (id, _) = self.running(event.thread)?;
                let proc_id = self.proc_of(event.thread)?;
                let proc = self.procs.get_mut(&proc_id).ok_or("no processor")?;
                next(&mut proc.seq, first)?;
                proc.status = ProcStatus::Syscall;
                self.name(id, &event.stack(1));
                self.change(
                    id,
                    State::Syscall,
                    event,
                    Some((Arc::default(), event.stack(1))),
                );
                Ok(())
            }
            Kind::GoSyscallEnd => {
                let thread = self.thread(event.thread);
                let id = thread.goroutine.ok_or("it has no goroutine")?;
                let proc_id = thread.proc.ok_or("it has no processor")?;
                let proc = self.procs.get_mut(&proc_id).ok_or("no processor")?;
                if self.alive[&id].state != State::Syscall {
                    return Err("it is in no system call".to_owned());
                }
                proc.status = ProcStatus::Running;
                self.change(id, State::Running, event, None);
                Ok(())
            }
            Kind::HeapAlloc => {
                self.proc_of(event.thread)?;
                self.trace.heap.push((self.now, first));
                Ok(())
            }
            Kind::HeapGoal => self.proc_of(event.thread).map(drop),
            Kind::GoLabel => {
                let (_, it) = self.running(event.thread)?;
                self.trace.goroutines[it]
                    .labels
                    .push((self.now, event.text(0)));
                Ok(())
            }
            Kind::UserTaskBegin => {
                let (_, by) = self.running(event.thread)?;
                if first == 0 || self.tasks.contains_key(&first) {
                    return Err(format!("user task {first} is there already"));
                }
                self.tasks.insert(first, self.trace.tasks.len());
                self.trace.tasks.push(UserTask {
                    id: first,
                    parent: second,
                    name: event.text(2),
                    began: Some(self.now),
                    by,
                    ended: None,
                });
                Ok(())
            }
            Kind::UserTaskEnd => {
                let (_, by) = self.running(event.thread)?;
                let ended = Some((self.now, by));
                match self.tasks.remove(&first) {
                    Some(task) => self.trace.tasks[task].ended = ended,
                    None => self.trace.tasks.push(UserTask {
                        id: first,
                        parent: 0,
                        name: Arc::default(),
                        began: None,
                        by,
                        ended,
                    }),
                }
                Ok(())
            }
            Kind::UserRegionBegin => {
                let (id, goroutine) = self.running(event.thread)?;
                let regions = self.trace.regions.len();
                let it = self.alive.get_mut(&id).ok_or("no goroutine")?;
                self.trace.regions.push(Region {
                    goroutine,
                    task: first,
                    name: event.text(1),
                    from: self.now,
                    to: None,
                    depth: it.regions.len(),
                });
                it.regions.push(regions);
                Ok(())
            }
            Kind::UserRegionEnd => {
                let (id, _) = self.running(event.thread)?;
                let name = event.text(1);
                let it = self.alive.get_mut(&id).ok_or("no goroutine")?;
                // Go's reader takes one that ends none; nothing here has a reason to.
                let region = *it
                    .regions
                    .last()
                    .ok_or_else(|| format!("ends region {name:?}, but none is open"))?;
                let region = &mut self.trace.regions[region];
                if (region.task, &region.name) != (first, &name) {
                    return Err(format!(
                        "ends region {name:?} of {first}, but {region:?} is open"
                    ));
                }
                region.to = Some(self.now);
                it.regions.pop();
                Ok(())
            }
            Kind::UserLog => {
                let (_, goroutine) = self.running(event.thread)?;
                self.trace.logs.push(Log {
                    goroutine,
                    task: first,
                    at: self.now,
                    category: event.text(1),
                    message: event.text(2),
                });
                Ok(())
            }
        }
    }

    fn proc_status(&mut self, thread: u64, id: u64, status: u64) -> Result<(), String> {
        let status = match status {
            1 => ProcStatus::Running,
            2 => ProcStatus::Idle,
            3 => ProcStatus::Syscall,
            other => return Err(format!("status {other}")),
        };
        match self.procs.get(&id) {
            Some(proc) if proc.status != status => {
                return Err(format!("a status that it hasn't: it is {:?}", proc.status));
            }
            // Go's reader doesn't see this.
            Some(proc) if status != ProcStatus::Idle && proc.thread != Some(thread) => {
                return Err(format!("it is on thread {:?}", proc.thread));
            }
            Some(proc) if proc.seq.is_some() => return Err("its status was told before".to_owned()),
            _ => (),
        }
        if status != ProcStatus::Idle {
            let it = self.threads.entry(thread).or_default();
            if it.proc.is_some_and(|proc| proc != id) {
                return Err(format!("the thread has processor {:?}", it.proc));
            }
            it.proc = Some(id);
        }
        let thread = (status != ProcStatus::Idle).then_some(thread);
        let seq = Some(0);
        self.procs.insert(
            id,
            Proc {
                status,
                seq,
                thread,
            },
        );
        Ok(())
    }

    fn go_status(&mut self, thread: u64, id: u64, on: u64, status: u64) -> Result<(), String> {
        let state = match status {
            1 => State::Runnable,
            2 => State::Running,
            3 => State::Syscall,
            4 => State::Waiting,
            other => return Err(format!("status {other}")),
        };
        let is_on = matches!(state, State::Running | State::Syscall);
        if is_on && on != thread || !is_on && on != NONE {
            return Err("the wrong thread".to_owned());
        }
        if let Some(it) = self.alive.get_mut(&id) {
            if it.seq.is_some() {
                return Err("its status was told before".to_owned());
            }
            if it.state != state || is_on && it.thread != Some(thread) {
                return Err(format!(
                    "a status that it hasn't: it is {:?} on {:?}",
                    it.state, it.thread
                ));
            }
            it.seq = Some(0);
            return Ok(());
        }
        if !self.is_first {
            return Err("it is new, and has no status before".to_owned());
        }
        if is_on {
            self.proc_of(thread)?;
            let it = self.threads.entry(thread).or_default();
            if it.goroutine.is_some() {
                return Err(format!("goroutine {:?} is there", it.goroutine));
            }
            it.goroutine = Some(id);
        }
        self.add(id, None, state, is_on.then_some(thread));
        Ok(())
    }

    fn go_create(&mut self, event: &Event<'_>) -> Result<(), String> {
        let [id, ..] = event.arguments;
        self.proc_of(event.thread)?;
        if self.thread(event.thread).goroutine.is_some() {
            self.running(event.thread)?;
        }
        if id == 0 || self.alive.contains_key(&id) {
            return Err("it is there already".to_owned());
        }
        let wake = self.wake(event, 2);
        self.add(id, Some(wake), State::Runnable, None);
        self.name(id, &event.stack(1));
        Ok(())
    }

    fn add(&mut self, id: u64, created: Option<Wake>, state: State, thread: Option<u64>) {
        let index = self.trace.goroutines.len();
        // What was there when the trace began, was so from then on.
        let from = if created.is_some() {
            self.now
        } else {
            self.trace.begins
        };
        self.trace.goroutines.push(Goroutine {
            id,
            name: Arc::default(),
            created,
            slices: vec![slice(state, from, thread, None)],
            labels: Vec::new(),
            ended: None,
        });
        self.alive.insert(
            id,
            Alive {
                index,
                state,
                seq: Some(0),
                thread,
                regions: Vec::new(),
            },
        );
    }

    /// Ends what the goroutine did, and begins something else.
    fn change(&mut self, id: u64, state: State, event: &Event<'_>, why: Option<(Arc<str>, Stack)>) {
        let is_on = matches!(state, State::Running | State::Syscall);
        let thread = is_on.then_some(event.thread);
        let Some(it) = self.alive.get_mut(&id) else {
            return;
        };
        it.state = state;
        it.thread = thread;
        let slices = &mut self.trace.goroutines[it.index].slices;
        if let Some(last) = slices.last_mut() {
            (last.to, last.is_over) = (self.now, true);
        }
        slices.push(slice(state, self.now, thread, why));
    }

    /// A goroutine has the name of its first stack.
    fn name(&mut self, id: u64, stack: &Stack) {
        if let (Some(it), Some(root)) = (self.alive.get(&id), stack.last()) {
            let name = &mut self.trace.goroutines[it.index].name;
            if name.is_empty() {
                *name = Arc::clone(&root.function);
            }
        }
    }

    fn wake(&self, event: &Event<'_>, stack: usize) -> Wake {
        let by = self.thread(event.thread).goroutine;
        Wake {
            at: self.now,
            by: by.and_then(|by| self.alive.get(&by)).map(|it| it.index),
            thread: event.thread,
            stack: event.stack(stack),
        }
    }

    fn thread(&self, thread: u64) -> Thread {
        self.threads.get(&thread).copied().unwrap_or_default()
    }

    fn proc_of(&self, thread: u64) -> Result<u64, String> {
        let proc = self.thread(thread).proc;
        proc.ok_or_else(|| "the thread has no processor".to_owned())
    }

    /// The number of the goroutine that runs on a thread, and its place.
    fn running(&self, thread: u64) -> Result<(u64, usize), String> {
        self.proc_of(thread)?;
        let id = self.thread(thread).goroutine;
        let id = id.ok_or("the thread has no goroutine")?;
        let it = &self.alive[&id];
        if it.state != State::Running {
            return Err(format!("goroutine {id} is {:?}", it.state));
        }
        Ok((id, it.index))
    }
}

fn slice(state: State, from: u64, thread: Option<u64>, why: Option<(Arc<str>, Stack)>) -> Slice {
    let (reason, stack) = why.unwrap_or_default();
    Slice {
        state,
        from,
        to: from,
        is_over: false,
        thread,
        reason,
        stack,
        woken: None,
    }
}

/// Takes the next number of a row.
fn next(seq: &mut Option<u64>, number: u64) -> Result<(), String> {
    match seq {
        Some(last) if *last + 1 == number => {
            *last = number;
            Ok(())
        }
        Some(last) => Err(format!("number {number} after {last}")),
        None => Err("the generation has not told its status".to_owned()),
    }
}
