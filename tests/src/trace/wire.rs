//! The bytes of a trace: generations, batches, events, tables. What each means is `replay`'s to say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Frame, Stack};

/// The first bytes of every trace that is written here.
pub(super) const HEADER: &[u8] = b"go 1.22 trace\0\0\0";
const MAX_BATCH: u64 = 64 << 10;
const MAX_STRING: u64 = 1024;
const MAX_FRAMES: u64 = 128;

/// A kind of event, with its number: `tracev2.Ev…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ProcsChange,
    ProcStart,
    ProcStop,
    ProcStatus,
    GoCreate,
    GoStart,
    GoDestroy,
    GoStop,
    GoBlock,
    GoUnblock,
    GoSyscallBegin,
    GoSyscallEnd,
    GoStatus,
    HeapAlloc,
    HeapGoal,
    GoLabel,
    UserTaskBegin,
    UserTaskEnd,
    UserRegionBegin,
    UserRegionEnd,
    UserLog,
}

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Argument {
    Number,
    Text,
    Stack,
}

impl Kind {
    /// Those that are written here. Go has more: system calls that block, collections of garbage, coroutines.
    fn of(number: u8) -> Option<(Self, &'static [Argument])> {
        use Argument::{Number as N, Stack as K, Text as T};
        Some(match number {
            9 => (Self::ProcsChange, &[N, K]),
            10 => (Self::ProcStart, &[N, N]),
            11 => (Self::ProcStop, &[]),
            13 => (Self::ProcStatus, &[N, N]),
            14 => (Self::GoCreate, &[N, K, K]),
            16 => (Self::GoStart, &[N, N]),
            17 => (Self::GoDestroy, &[]),
            19 => (Self::GoStop, &[T, K]),
            20 => (Self::GoBlock, &[T, K]),
            21 => (Self::GoUnblock, &[N, N, K]),
            22 => (Self::GoSyscallBegin, &[N, K]),
            23 => (Self::GoSyscallEnd, &[]),
            25 => (Self::GoStatus, &[N, N, N]),
            37 => (Self::HeapAlloc, &[N]),
            38 => (Self::HeapGoal, &[N]),
            39 => (Self::GoLabel, &[T]),
            40 => (Self::UserTaskBegin, &[N, N, T, K]),
            41 => (Self::UserTaskEnd, &[N, K]),
            42 => (Self::UserRegionBegin, &[N, T, K]),
            43 => (Self::UserRegionEnd, &[N, T, K]),
            44 => (Self::UserLog, &[N, T, T, K]),
            _ => return None,
        })
    }
}

/// An event of a thread's, as it stands.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) kind: Kind,
    /// In the trace's units.
    pub(super) time: u64,
    pub(super) arguments: [u64; 4],
}

/// A sample of a CPU profile, as it stands.
#[derive(Clone, Debug)]
pub(super) struct RawSample {
    pub(super) time: u64,
    pub(super) thread: u64,
    pub(super) goroutine: u64,
    pub(super) stack: u64,
}

/// A part of a trace that has tables of its own.
#[derive(Debug, Default)]
pub(super) struct Generation {
    pub(super) number: u64,
    /// Units a second.
    pub(super) frequency: u64,
    /// The least of the times that batches begin with.
    pub(super) begins: u64,
    pub(super) threads: BTreeMap<u64, Vec<Raw>>,
    pub(super) strings: Strings,
    pub(super) stacks: HashMap<u64, Stack>,
    pub(super) samples: Vec<RawSample>,
}

/// All generations of a trace.
pub(super) fn generations(bytes: &[u8]) -> Result<Vec<Generation>, String> {
    let mut all: Vec<Generation> = Vec::new();
    let mut current: Vec<Batch<'_>> = Vec::new();
    for batch in batches(bytes)? {
        let last = current.last().map_or(0, |last| last.generation);
        if batch.generation != last {
            if !current.is_empty() {
                all.push(
                    generation(&current).map_err(|error| format!("generation {last}: {error}"))?,
                );
                current.clear();
            }
            if batch.generation != last.max(all.len() as u64) + 1 {
                return Err(format!("generation {} after {last}", batch.generation));
            }
        }
        current.push(batch);
    }
    let last = current.last().ok_or("there is no generation")?.generation;
    all.push(generation(&current).map_err(|error| format!("generation {last}: {error}"))?);
    Ok(all)
}

/// How many bytes the generations take that another follows: as much of a file as can be read, wherever it was cut
/// off after that.
pub(super) fn whole_generations(bytes: &[u8]) -> Option<usize> {
    let mut bytes_of = Bytes::after_header(bytes).ok()?;
    let (mut last, mut end) = (None, None);
    loop {
        let place = bytes.len() - bytes_of.0.len();
        let Ok(batch) = Batch::read(&mut bytes_of) else {
            return end;
        };
        if last.is_some_and(|last| last != batch.generation) {
            end = Some(place);
        }
        last = Some(batch.generation);
    }
}

struct Batch<'a> {
    generation: u64,
    thread: u64,
    time: u64,
    payload: &'a [u8],
}

impl<'a> Batch<'a> {
    fn read(bytes: &mut Bytes<'a>) -> Result<Self, String> {
        let first = bytes.byte()?;
        if first != 1 {
            return Err(format!("a batch begins with {first}"));
        }
        let [generation, thread, time, len] = bytes.numbers()?;
        if len > MAX_BATCH {
            return Err(format!("a batch of {len} bytes"));
        }
        if len == 0 {
            return Err("a batch without bytes".to_owned());
        }
        Ok(Self {
            generation,
            thread,
            time,
            payload: bytes.take(len)?,
        })
    }
}

fn batches(bytes: &[u8]) -> Result<Vec<Batch<'_>>, String> {
    let mut rest = Bytes::after_header(bytes)?;
    let mut all = Vec::new();
    while !rest.0.is_empty() {
        let place = bytes.len() - rest.0.len();
        let batch = Batch::read(&mut rest).map_err(|error| format!("at byte {place}: {error}"))?;
        all.push(batch);
    }
    Ok(all)
}

fn generation(batches: &[Batch<'_>]) -> Result<Generation, String> {
    let mut it = Generation {
        number: batches[0].generation,
        begins: batches.iter().map(|batch| batch.time).min().unwrap_or(0),
        ..Generation::default()
    };
    let mut raw_stacks = Vec::new();
    for batch in batches {
        let mut bytes = Bytes(batch.payload);
        match batch.payload[0] {
            2 => {
                bytes.byte()?;
                while !bytes.0.is_empty() {
                    raw_stacks.push(raw_stack(&mut bytes)?);
                }
            }
            4 => {
                bytes.byte()?;
                while !bytes.0.is_empty() {
                    let (id, text) = string(&mut bytes)?;
                    if it.strings.0.insert(id, text).is_some() {
                        return Err(format!("string {id} comes twice"));
                    }
                }
            }
            6 => {
                bytes.byte()?;
                while !bytes.0.is_empty() {
                    expect(&mut bytes, 7)?;
                    let [time, thread, _, goroutine, stack] = bytes.numbers()?;
                    it.samples.push(RawSample {
                        time,
                        thread,
                        goroutine,
                        stack,
                    });
                }
            }
            8 => {
                bytes.byte()?;
                let [frequency] = bytes.numbers()?;
                if it.frequency != 0 || frequency == 0 || !bytes.0.is_empty() {
                    return Err(format!("frequencies: {}, {frequency}", it.frequency));
                }
                it.frequency = frequency;
            }
            _ => {
                let thread = it.threads.entry(batch.thread).or_default();
                events(batch, thread)
                    .map_err(|error| format!("thread {}: {error}", batch.thread))?;
            }
        }
    }
    if it.threads.is_empty() && it.samples.is_empty() {
        return Err("nothing happens: Go 1.22 takes no such generation".to_owned());
    }
    if it.frequency == 0 {
        return Err("no frequency".to_owned());
    }
    it.stacks = stacks(raw_stacks, &it.strings)?;
    check_references(&it)?;
    Ok(it)
}

fn events(batch: &Batch<'_>, all: &mut Vec<Raw>) -> Result<(), String> {
    let mut bytes = Bytes(batch.payload);
    let mut time = batch.time;
    // Go's reader takes what goes back; nothing here has a reason to.
    if let Some(last) = all.last()
        && time < last.time
    {
        return Err(format!("a batch at {time} after an event at {}", last.time));
    }
    while !bytes.0.is_empty() {
        let number = bytes.byte()?;
        let (kind, arguments) = Kind::of(number).ok_or_else(|| format!("event {number}"))?;
        let [delta] = bytes.numbers()?;
        time = time.checked_add(delta).ok_or("a time that is too large")?;
        let mut values = [0; 4];
        for (to, _) in values.iter_mut().zip(arguments) {
            [*to] = bytes.numbers()?;
        }
        all.push(Raw {
            kind,
            time,
            arguments: values,
        });
    }
    Ok(())
}

struct RawStack {
    id: u64,
    /// The place, the function, the file and the line of each frame.
    frames: Vec<[u64; 4]>,
}

fn raw_stack(bytes: &mut Bytes<'_>) -> Result<RawStack, String> {
    expect(bytes, 3)?;
    let [id, len] = bytes.numbers()?;
    if id == 0 || len == 0 || len > MAX_FRAMES {
        return Err(format!("stack {id} of {len} frames"));
    }
    let frames = (0..len)
        .map(|_| bytes.numbers())
        .collect::<Result<_, _>>()?;
    Ok(RawStack { id, frames })
}

fn stacks(raw: Vec<RawStack>, strings: &Strings) -> Result<HashMap<u64, Stack>, String> {
    // Go keeps frames by their place, and of two frames at one place the first.
    let mut places: HashMap<u64, [u64; 3]> = HashMap::new();
    let mut all = HashMap::new();
    for RawStack { id, frames } in raw {
        let text = |id| {
            let text = strings.get(id);
            text.map_err(|error| format!("a frame's {error}"))
        };
        let mut stack = Vec::new();
        for [place, function, file, line] in frames {
            let frame = [function, file, line];
            if *places.entry(place).or_insert(frame) != frame {
                return Err(format!("stack {id}: two frames at {place:#x}"));
            }
            stack.push(Frame {
                function: text(function)?,
                file: text(file)?,
                line,
            });
        }
        if all.insert(id, stack.into()).is_some() {
            return Err(format!("stack {id} comes twice"));
        }
    }
    Ok(all)
}

fn string(bytes: &mut Bytes<'_>) -> Result<(u64, Vec<u8>), String> {
    expect(bytes, 5)?;
    let [id, len] = bytes.numbers()?;
    if id == 0 || len > MAX_STRING {
        return Err(format!("string {id} of {len} bytes"));
    }
    Ok((id, bytes.take(len)?.to_vec()))
}

/// Whether everything that is referred to is there.
fn check_references(it: &Generation) -> Result<(), String> {
    let mut stacks: Vec<u64> = it.samples.iter().map(|sample| sample.stack).collect();
    for event in it.threads.values().flatten() {
        let (_, arguments) = KINDS[event.kind as usize];
        for (argument, &value) in arguments.iter().zip(&event.arguments) {
            match argument {
                Argument::Stack => stacks.push(value),
                Argument::Text => {
                    let text = it.strings.get(value);
                    text.map_err(|error| format!("{:?}'s {error}", event.kind))?;
                }
                Argument::Number => (),
            }
        }
    }
    let is_missing = |stack: &&u64| **stack != 0 && !it.stacks.contains_key(stack);
    match stacks.iter().find(is_missing) {
        Some(stack) => Err(format!("stack {stack} is not there")),
        None => Ok(()),
    }
}

/// The table of strings.
#[derive(Debug, Default)]
pub(super) struct Strings(HashMap<u64, Vec<u8>>);

impl Strings {
    /// A string that something refers to: it must be there, and text. 0 is the empty one.
    pub(super) fn get(&self, id: u64) -> Result<Arc<str>, String> {
        if id == 0 {
            return Ok(Arc::default());
        }
        let bytes = self
            .0
            .get(&id)
            .ok_or_else(|| format!("string {id} is not there"))?;
        let text = str::from_utf8(bytes);
        text.map(Arc::from).map_err(|error| {
            let text = String::from_utf8_lossy(bytes);
            format!("string {id}, {text:?}: {error}")
        })
    }
}

/// What [`Kind::of`] says, by kind.
static KINDS: std::sync::LazyLock<Vec<(Kind, &'static [Argument])>> =
    std::sync::LazyLock::new(|| {
        // The kinds are declared in the order of their numbers.
        (0..=u8::MAX).filter_map(Kind::of).collect()
    });

fn expect(bytes: &mut Bytes<'_>, number: u8) -> Result<(), String> {
    match bytes.byte()? {
        is if is == number => Ok(()),
        other => Err(format!("{other} where a table has {number}")),
    }
}

/// What is still to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn after_header(bytes: &'a [u8]) -> Result<Self, String> {
        let rest = bytes.strip_prefix(HEADER);
        rest.map(Self).ok_or_else(|| "another header".to_owned())
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], String> {
        let (front, rest) = (self.0.split_at_checked(len as usize)).ok_or("it is cut off")?;
        self.0 = rest;
        Ok(front)
    }

    fn numbers<const N: usize>(&mut self) -> Result<[u64; N], String> {
        let mut all = [0; N];
        for to in &mut all {
            *to = self.number()?;
        }
        Ok(all)
    }

    /// In LEB128, and no longer than it must be.
    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift != 0 {
                    return Err("a number that is longer than it must be".to_owned());
                }
                return Ok(number);
            }
        }
        Err("a number that is too large".to_owned())
    }
}
