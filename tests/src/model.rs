//! A program that is profiled, made up: a [`Target`] of fixed tables, with code that follows a rule, so that a
//! test knows all that a profile must say. And [`Talk`], a client of it without a socket and a clock.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::time::Duration;
use std::collections::HashMap;
use std::rc::Rc;

use picoprof::encode::Body;
use picoprof::http::{Connection, Transmit};
use picoprof::profile::buckets::{Buckets, RowId};
use picoprof::profile::heap::{Heap, HeapProfile};
use picoprof::profile::labels::{LabelSetId, LabelTable};
use picoprof::profile::{Kind, Profiles, Role, Wait};
use picoprof::stack::{Marker, StackTable};
use picoprof::trace::{Limits, Trace, TraceBuffers, TraceHost};
use picoprof::{Function, Instant, Line, LocationId, Mapping, StartError, Symbols, Target, Thread};

use crate::tasks::ModelTasks;

/// Rows of each kind's table.
pub const ROWS: usize = 64;

/// The program. Its counters can be counted up at any time.
#[derive(Debug)]
pub struct Model {
    /// The stacks.
    pub stacks: StackTable<256, 1024>,
    /// The labels.
    pub labels: LabelTable<64, 32>,
    /// `profile`.
    pub cpu: Buckets<ROWS, 1>,
    /// `heap` and `allocs`.
    pub heap: HeapProfile<ROWS, 64>,
    /// `threadcreate`.
    pub threads: Buckets<ROWS, 1>,
    /// `block`.
    pub block: Buckets<ROWS, 2>,
    /// `mutex`.
    pub mutex: Buckets<ROWS, 2>,
    /// The threads there are.
    pub threads_now: RefCell<Vec<Thread>>,
    /// The tasks there are.
    pub tasks: ModelTasks,
    /// The time of tasks, and of traces.
    pub now: Cell<Instant>,
    /// [`Target::role_of`] functions, by name; the others are the program's own.
    pub roles: RefCell<HashMap<String, Role>>,
    /// Whether functions have names.
    pub has_names: Cell<bool>,
    /// Whether `threadcreate` is kept.
    pub has_threads: Cell<bool>,
    /// Whether there's a heap.
    pub has_heap: Cell<bool>,
    /// What is recorded for traces, if something is.
    pub trace: Cell<Option<Trace<'static>>>,
    /// Whether there is memory for a response.
    pub has_memory: Cell<bool>,
    /// Words of memory that responses have.
    pub lent: Rc<Cell<usize>>,
    /// The most that they had at a time.
    pub most_lent: Cell<usize>,
    /// Whether CPU time can be sampled.
    pub has_cpu_timer: Cell<bool>,
    /// The time, in nanoseconds since 1970.
    pub unix_nanos: Cell<u64>,
    /// The `Date` header.
    pub date: Cell<Option<[u8; 29]>>,
    /// [`Target::note`] of every kind.
    pub note: Cell<&'static str>,
    /// [`Target::drop_frames`] of every kind.
    pub drop_frames: Cell<&'static str>,
    /// What the CPU sampler was started with, in order.
    pub started: RefCell<Vec<u32>>,
    /// How many times it was stopped.
    pub stopped: Cell<u32>,
    /// How many times garbage was collected.
    pub collected: Cell<u32>,
    /// Whether [`Symbols`] are asked for too much: a location twice, a pc of 0.
    pub is_asked_wrongly: Cell<bool>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            stacks: StackTable::new(),
            labels: LabelTable::new(),
            cpu: Buckets::new(),
            heap: HeapProfile::new(1),
            threads: Buckets::new(),
            block: Buckets::new(),
            mutex: Buckets::new(),
            threads_now: RefCell::default(),
            tasks: ModelTasks::default(),
            now: Cell::new(Instant::from_millis(1000)),
            roles: RefCell::default(),
            has_names: Cell::new(true),
            has_threads: Cell::new(true),
            has_heap: Cell::new(true),
            trace: Cell::default(),
            has_memory: Cell::new(true),
            lent: Rc::default(),
            most_lent: Cell::default(),
            has_cpu_timer: Cell::new(true),
            unix_nanos: Cell::new(1_700_000_000_000_000_000),
            date: Cell::default(),
            note: Cell::default(),
            drop_frames: Cell::default(),
            started: RefCell::default(),
            stopped: Cell::default(),
            collected: Cell::default(),
            is_asked_wrongly: Cell::default(),
        }
    }
}

/// The period of the CPU sampler: 100 Hz.
pub const CPU_PERIOD: u64 = 10_000_000;

impl Model {
    /// Counts `n` CPU samples; answers their row.
    pub fn sample_cpu(&self, pcs: &[usize], outermost: Option<Marker>, n: u64) -> RowId {
        let stack = self.stacks.view().intern(pcs, outermost);
        self.cpu.view().add(stack, 0, &[n])
    }

    /// Counts a thread; answers its row.
    pub fn create_thread(&self, pcs: &[usize]) -> RowId {
        let stack = self.stacks.view().intern(pcs, None);
        self.threads.view().add(stack, 0, &[1])
    }

    /// Counts an allocation.
    pub fn allocate(&self, pcs: &[usize], address: usize, size: usize) {
        let stack = self.stacks.view().intern(pcs, None);
        self.heap
            .view()
            .record_alloc(stack, LabelSetId::EMPTY, address, size);
    }

    /// Counts what was allocated at `address` as freed.
    pub fn free(&self, address: usize) {
        self.heap.view().record_free(address);
    }

    /// Counts a wait of so many nanoseconds; answers its row.
    pub fn wait(&self, pcs: &[usize], nanos: u64) -> RowId {
        let stack = self.stacks.view().intern(pcs, None);
        self.block.view().add(stack, 0, &[1, nanos])
    }

    /// Counts a release of what somebody waited for so many nanoseconds for; answers its row.
    pub fn release(&self, pcs: &[usize], nanos: u64) -> RowId {
        let stack = self.stacks.view().intern(pcs, None);
        self.mutex.view().add(stack, 0, &[1, nanos])
    }

    /// From now on there's a thread of this number, which is at a stack and waits.
    pub fn start_thread(&self, id: u64, name: &str, pcs: &[usize], wait: Wait) {
        let mut bytes = [0; 16];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        self.threads_now.borrow_mut().push(Thread {
            id,
            name: bytes,
            stack: self.stacks.view().intern(pcs, None),
            labels: LabelSetId::EMPTY,
            wait,
            waiting: Duration::ZERO,
        });
    }

    /// From now on there's a task that was spawned at a stack; answers its number, if there was room to see it.
    pub fn spawn(&self, name: &'static str, pcs: &[usize]) -> Option<usize> {
        let stack = self.stacks.view().intern(pcs, None);
        self.tasks.spawn(name, stack, self.now.get())
    }

    /// The same, by another task.
    pub fn spawn_by(&self, parent: usize, name: &'static str, pcs: &[usize]) -> Option<usize> {
        let stack = self.stacks.view().intern(pcs, None);
        self.tasks.spawn_by(parent, name, stack, self.now.get())
    }

    /// Polls a task: it gets as far as the await at this stack. Somebody has a waker of it, or not.
    pub fn poll(&self, task: usize, pcs: &[usize], has_waker: bool) {
        let stack = self.stacks.view().intern(pcs, None);
        self.tasks.poll(task, stack, has_waker, self.now.get());
    }

    /// Wakes a task, if somebody can.
    pub fn wake(&self, task: usize) {
        self.tasks.wake(task, self.now.get());
    }

    /// Gives the functions at an address, the innermost first, these roles.
    pub fn set_roles(&self, pc: usize, roles: &[Role]) {
        let code = code_at(pc);
        assert_eq!(code.len(), roles.len(), "{pc:#x}");
        let names = code.into_iter().map(|code| code.name);
        let roles = roles.iter().copied();
        self.roles.borrow_mut().extend(names.zip(roles));
    }

    /// From now on there are traces: answers where their events go, which is never freed.
    pub fn keep_trace(&self) -> Trace<'static> {
        let trace = Box::leak(Box::new(TraceBuffers::<16, 64>::new())).view();
        self.trace.set(Some(trace));
        trace
    }

    /// How many times the CPU sampler was started.
    #[must_use]
    pub fn starts(&self) -> usize {
        self.started.borrow().len()
    }

    /// Whether the CPU sampler runs.
    #[must_use]
    pub fn is_sampling(&self) -> bool {
        self.starts() != self.stopped.get() as usize
    }
}

impl Target for Model {
    type Scratch = Words;
    type Symbols = ModelSymbols;
    type Encoded<B: Body> = B;
    type Threads = Vec<Thread>;

    fn profiles(&self) -> Profiles<'_> {
        Profiles {
            labels: Some(self.labels.view()),
            cpu: Some(self.cpu.view()),
            heap: Some(if self.has_heap.get() {
                self.heap.view()
            } else {
                Heap::none()
            }),
            threads: self.has_threads.get().then(|| self.threads.view()),
            block: Some(self.block.view()),
            mutex: Some(self.mutex.view()),
            tasks: Some(self.tasks.view()),
            ..Profiles::of(self.stacks.view())
        }
    }

    fn scratch(&self, words: usize) -> Option<Words> {
        self.has_memory.get().then(|| {
            let lent = self.lent.clone();
            lent.set(lent.get() + words);
            self.most_lent.set(self.most_lent.get().max(lent.get()));
            Words {
                words: vec![0; words],
                lent,
            }
        })
    }

    fn symbols(&self, locations: &mut dyn Iterator<Item = (LocationId, usize)>) -> ModelSymbols {
        let mut symbols = ModelSymbols::default();
        for mapping in &MAPPINGS {
            symbols.intern(mapping.file);
            symbols.intern(mapping.build_id);
        }
        for (location, pc) in locations {
            let is_double = symbols.lines.contains_key(&location.index());
            if is_double || pc == 0 || location.marker().is_some() {
                self.is_asked_wrongly.set(true);
            }
            let code = code_at(pc);
            let known = code.iter().filter(|_| self.has_names.get());
            let lines = known.map(|code| symbols.line(code)).collect();
            symbols.lines.insert(location.index(), lines);
        }
        symbols
    }

    fn encode<B: Body>(&self, profile: B) -> B {
        profile
    }

    fn function_name(&self, pc: usize, name: &mut dyn fmt::Write) -> Result<bool, fmt::Error> {
        let code = code_at(pc);
        let Some(outermost) = code.last() else {
            return Ok(false);
        };
        name.write_str(&outermost.system_name)?;
        Ok(true)
    }

    fn unix_nanos(&self) -> u64 {
        self.unix_nanos.get()
    }

    fn date(&self) -> Option<[u8; 29]> {
        self.date.get()
    }

    fn command_line(&self) -> &[u8] {
        b"app\0-v\0file"
    }

    fn threads(&self) -> Vec<Thread> {
        self.threads_now.borrow().clone()
    }

    fn thread_count(&self) -> usize {
        self.threads_now.borrow().len()
    }

    fn role_of(&self, function: &str) -> Role {
        let roles = self.roles.borrow();
        roles.get(function).copied().unwrap_or(Role::Program)
    }

    fn trace(&self) -> Option<&dyn TraceHost> {
        self.trace.get().is_some().then_some(self)
    }

    fn start_cpu(&self, hz: u32) -> Result<u64, StartError> {
        if !self.has_cpu_timer.get() {
            return Err(StartError::Unavailable);
        }
        if self.is_sampling() {
            return Err(StartError::AlreadyRunning);
        }
        self.started.borrow_mut().push(hz);
        Ok(CPU_PERIOD)
    }

    fn stop_cpu(&self) {
        self.stopped.set(self.stopped.get() + 1);
    }

    fn collect(&self) {
        self.collected.set(self.collected.get() + 1);
    }

    fn is_host_allowed(&self, host: &[u8]) -> bool {
        host != b"evil.example"
    }

    fn note(&self, _kind: Kind) -> &'static str {
        self.note.get()
    }

    fn drop_frames(&self, _kind: Kind) -> &'static str {
        self.drop_frames.get()
    }

    fn describe(&self, page: &mut dyn fmt::Write) -> fmt::Result {
        page.write_str("<li>A model.</li>\n")
    }
}

/// A model as a program without texts for people, and without names of functions for `symbol`.
#[derive(Debug)]
pub struct WithoutTexts<'m>(pub &'m Model);

impl Target for WithoutTexts<'_> {
    type Scratch = Words;
    type Symbols = ModelSymbols;
    type Encoded<B: Body> = B;
    type Threads = Vec<Thread>;

    const TEXTS: bool = false;
    const FUNCTION_NAMES: bool = false;

    fn profiles(&self) -> Profiles<'_> {
        self.0.profiles()
    }

    fn scratch(&self, words: usize) -> Option<Words> {
        self.0.scratch(words)
    }

    fn symbols(&self, locations: &mut dyn Iterator<Item = (LocationId, usize)>) -> ModelSymbols {
        self.0.symbols(locations)
    }

    fn encode<B: Body>(&self, profile: B) -> B {
        profile
    }

    fn unix_nanos(&self) -> u64 {
        self.0.unix_nanos()
    }

    fn command_line(&self) -> &[u8] {
        self.0.command_line()
    }

    fn threads(&self) -> Vec<Thread> {
        self.0.threads()
    }

    fn role_of(&self, function: &str) -> Role {
        self.0.role_of(function)
    }

    fn trace(&self) -> Option<&dyn TraceHost> {
        self.0.trace()
    }

    fn start_cpu(&self, hz: u32) -> Result<u64, StartError> {
        self.0.start_cpu(hz)
    }

    fn stop_cpu(&self) {
        self.0.stop_cpu();
    }

    fn collect(&self) {
        self.0.collect();
    }

    fn is_host_allowed(&self, host: &[u8]) -> bool {
        self.0.is_host_allowed(host)
    }

    fn note(&self, kind: Kind) -> &'static str {
        self.0.note(kind)
    }

    fn drop_frames(&self, kind: Kind) -> &'static str {
        self.0.drop_frames(kind)
    }

    fn describe(&self, _: &mut dyn fmt::Write) -> fmt::Result {
        panic!("nobody reads it");
    }
}

impl TraceHost for Model {
    fn buffers(&self) -> Trace<'static> {
        self.trace.get().expect("it was asked")
    }

    fn ticks(&self) -> u64 {
        self.now.get().as_nanos()
    }

    fn limits(&self) -> Limits {
        Limits::SMALL
    }
}

/// Memory for a response, which is counted while it is there.
#[derive(Debug)]
pub struct Words {
    words: Vec<u64>,
    lent: Rc<Cell<usize>>,
}

impl AsRef<[u64]> for Words {
    fn as_ref(&self) -> &[u64] {
        &self.words
    }
}

impl AsMut<[u64]> for Words {
    fn as_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        self.lent.set(self.lent.get() - self.words.len());
    }
}

/// A binary of the program.
#[derive(Clone, Copy, Debug)]
pub struct Binary {
    /// The first address.
    pub start: usize,
    /// The first address beyond.
    pub limit: usize,
    /// Where in the file it begins.
    pub offset: u64,
    /// The file.
    pub file: &'static str,
    /// The build id.
    pub build_id: &'static str,
    /// Whether its functions are known.
    pub is_symbolized: bool,
}

/// The binaries: one with names, one without; there is code outside of them too.
pub const MAPPINGS: [Binary; 2] = [
    Binary {
        start: 0x1000,
        limit: 0x8000,
        offset: 0x400,
        file: "/bin/app",
        build_id: "c0ffee",
        is_symbolized: true,
    },
    Binary {
        start: 0x8000,
        limit: 0x9000,
        offset: 0,
        file: "/lib/other.so",
        build_id: "",
        is_symbolized: false,
    },
];

/// A function at a place in the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code {
    /// For people.
    pub name: String,
    /// Mangled.
    pub system_name: String,
    /// The source file.
    pub file: String,
    /// The line that is executed.
    pub line: u32,
    /// The line that the function begins at.
    pub start_line: u32,
}

/// The code at `pc`, the innermost of the inlined functions first: none in 1 of 5 places, and up to three
/// where there is some. Each function has sixteen addresses.
#[must_use]
pub fn code_at(pc: usize) -> Vec<Code> {
    if !(MAPPINGS[0].start..MAPPINGS[0].limit).contains(&pc) || pc.is_multiple_of(5) {
        return Vec::new();
    }
    let inlined = (0..pc % 3).rev().map(|depth| (depth + 1, pc / 64));
    inlined
        .chain([(0, pc / 16)])
        .map(|(depth, number)| Code {
            name: format!("app::<f{number}>::inlined{depth}"),
            system_name: format!("_ZN3app{number}f{depth}E"),
            file: format!("src/{}.rs", number % 7),
            line: (pc % 1000 + depth) as u32,
            start_line: (number % 500) as u32,
        })
        .collect()
}

/// What the model knows of some locations.
#[derive(Debug, Default)]
pub struct ModelSymbols {
    strings: Vec<String>,
    numbers: HashMap<String, u32>,
    functions: Vec<Function>,
    lines: HashMap<u32, Vec<Line>>,
}

impl ModelSymbols {
    fn intern(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.strings.len() as u32;
        self.strings.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    fn line(&mut self, code: &Code) -> Line {
        let function = Function {
            name: self.intern(&code.name),
            system_name: self.intern(&code.system_name),
            filename: self.intern(&code.file),
            start_line: code.start_line,
        };
        let known = self.functions.iter().position(|known| *known == function);
        let number = known.unwrap_or_else(|| {
            self.functions.push(function);
            self.functions.len() - 1
        });
        Line {
            function: number as u32,
            line: code.line,
        }
    }
}

impl Symbols for ModelSymbols {
    fn mapping(&self, index: usize) -> Option<Mapping> {
        let binary = MAPPINGS.get(index)?;
        Some(Mapping {
            start: binary.start as u64,
            limit: binary.limit as u64,
            offset: binary.offset,
            filename: self.numbers[binary.file],
            build_id: self.numbers[binary.build_id],
            is_symbolized: binary.is_symbolized,
        })
    }

    fn mapping_of(&self, pc: usize) -> Option<usize> {
        let mut binaries = MAPPINGS.iter();
        binaries.position(|binary| (binary.start..binary.limit).contains(&pc))
    }

    fn lines(&self, location: LocationId) -> &[Line] {
        self.lines.get(&location.index()).map_or(&[], Vec::as_slice)
    }

    fn function(&self, index: u32) -> Option<Function> {
        self.functions.get(index as usize).copied()
    }

    fn string(&self, index: u32) -> Option<&str> {
        self.strings.get(index as usize).map(String::as_str)
    }
}

/// All bytes of `body`, through a buffer of `size`; `between` is called after each piece.
///
/// # Panics
///
/// If it writes more than there is room for.
pub fn drain(body: &mut impl Body, size: usize, mut between: impl FnMut()) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; size];
    loop {
        let len = body.fill(&mut buffer);
        if len == 0 {
            assert_eq!(body.fill(&mut buffer), 0, "there is more after the end");
            return bytes;
        }
        bytes.extend_from_slice(&buffer[..len]);
        between();
    }
}

/// What a connection sends before it waits for something.
pub fn drain_connection<T: Target, const HEAD: usize>(
    connection: &mut Connection<'_, T, HEAD>,
    now: Instant,
) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut buffer = [0; 512];
    while let Transmit::Wrote(len) = connection.transmit(now, &mut buffer) {
        sent.extend_from_slice(&buffer[..len]);
    }
    sent
}

/// What a server said on one connection, and how it came to that.
#[derive(Debug, Default)]
pub struct Talk {
    /// All it sent.
    pub sent: Vec<u8>,
    /// The times it waited until, for a profile.
    pub waits: Vec<Instant>,
    /// When it closed the connection.
    pub closed: Instant,
}

/// More than any test makes a server say.
const LONGEST_TALK: usize = 4 << 20;

/// Gives a connection the `pieces`, one at a time whenever it wants some, and then the end; the buffer for
/// what it sends has `size` bytes, and time passes in no time.
///
/// # Panics
///
/// If it breaks the rules of [`Connection`]: too many calls for the bytes that moved, times in the past, bytes
/// it wants and doesn't take.
pub fn talk<const HEAD: usize>(model: &Model, pieces: &[&[u8]], size: usize) -> Talk {
    talk_to::<HEAD>(model, pieces, size)
}

/// The same with any target.
///
/// # Panics
///
/// As [`talk`].
pub fn talk_to<const HEAD: usize>(target: &impl Target, pieces: &[&[u8]], size: usize) -> Talk {
    let mut connection = Connection::<_, HEAD>::new(target);
    let mut pieces: Vec<&[u8]> = pieces.to_vec();
    pieces.reverse();
    let mut buffer = vec![0; size];
    let mut talk = Talk::default();
    let mut now = Instant::from_millis(1000);
    let mut is_ended = false;
    loop {
        match connection.transmit(now, &mut buffer) {
            Transmit::Wrote(len) => {
                assert!((1..=size).contains(&len), "{len} bytes in {size}");
                talk.sent.extend_from_slice(&buffer[..len]);
                assert!(talk.sent.len() < LONGEST_TALK, "it does not end");
            }
            Transmit::WaitUntil(time) => {
                assert!(time > now, "it waits for the past");
                talk.waits.push(time);
                assert!(talk.waits.len() < LONGEST_TALK / 100, "it does not end");
                now = time;
            }
            Transmit::WantRead(time) => {
                assert!(time > now, "it waits for the past");
                match pieces.pop() {
                    Some([]) => {}
                    Some(piece) => {
                        let taken = connection.receive(piece);
                        assert!(taken > 0, "it wants what it does not take");
                        if taken < piece.len() {
                            pieces.push(&piece[taken..]);
                        }
                    }
                    None => {
                        assert!(!is_ended, "it wants more after the end");
                        is_ended = true;
                        connection.receive_end();
                    }
                }
            }
            Transmit::Close => {
                assert_eq!(connection.transmit(now, &mut buffer), Transmit::Close);
                talk.closed = now;
                return talk;
            }
        }
    }
}
