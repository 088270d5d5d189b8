//! An execution trace of addresses becomes one of functions, while it comes.
//!
//! Only what is in a generation's tables changes: the stacks get other frames, and there are more strings. All else goes
//! through as it is, at once. A generation's stacks are kept until it ends, when its strings are known; what is not
//! understood, or is more than a device has to say, goes through without names: a trace is never damaged here.
//!
//! `wire` is what a trace is made of; `tables` writes a generation's stacks and strings anew.

#![forbid(unsafe_code)]

mod tables;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use self::tables::Writer;
use self::wire::{
    EVENT_BATCH, MOST_FRAMES, MOST_PAYLOAD, STACK, STACKS, STRING, STRINGS, Stop, byte, numbers,
};
use crate::names::Frame;

/// The one version that devices send.
const HEADER: &[u8] = b"go 1.22 trace\0\0\0";

/// Bytes of a generation's stacks that get names, and of what becomes of them.
const MOST_STACKS: usize = 1 << 20;
const MOST_NAMED: usize = 8 << 20;
/// Strings of a generation that are addresses.
const MOST_ADDRESSES: usize = 64 << 10;

/// The functions at an address, the innermost first.
pub(crate) type Names<'a> = &'a mut dyn FnMut(u64) -> Arc<[Frame]>;

/// What is known of a trace so far.
#[derive(Debug, Default)]
pub(crate) struct Namer {
    /// What has come of a batch that is not complete yet.
    pending: Vec<u8>,
    has_header: bool,
    /// The rest goes through as it is.
    is_over: bool,
    generation: Generation,
}

/// What is known of a generation's tables.
#[derive(Debug, Default)]
struct Generation {
    number: u64,
    /// Batches with stacks, as they came.
    stacks: Vec<u8>,
    /// Strings that are addresses.
    addresses: HashMap<u64, u64>,
    last_string: u64,
    /// Of the first batch with stacks.
    time: u64,
    /// Its stacks stay as they are.
    is_given_up: bool,
}

impl Namer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes what comes next, and appends what goes out for it.
    pub(crate) fn push(&mut self, bytes: &[u8], names: Names<'_>, out: &mut Vec<u8>) {
        if self.is_over {
            out.extend_from_slice(bytes);
            return;
        }
        self.pending.extend_from_slice(bytes);
        let mut done = 0;
        loop {
            let rest = self.pending.get(done..).unwrap_or_default();
            match self.step(rest) {
                Ok(Step { len, generation }) => {
                    let bytes = self.pending.get(done..done + len).unwrap_or_default();
                    if let Some(generation) = generation {
                        core::mem::replace(&mut self.generation, generation).end(names, out);
                    }
                    if self.has_header {
                        self.generation.take(bytes, out);
                    } else {
                        self.has_header = true;
                        out.extend_from_slice(bytes);
                    }
                    done += len;
                }
                Err(Stop::Incomplete) => break,
                Err(Stop::Broken) => {
                    core::mem::take(&mut self.generation).end(names, out);
                    out.extend_from_slice(self.pending.get(done..).unwrap_or_default());
                    self.pending = Vec::new();
                    self.is_over = true;
                    return;
                }
            }
        }
        self.pending.drain(..done);
    }

    /// There's no more to come.
    pub(crate) fn finish(&mut self, names: Names<'_>, out: &mut Vec<u8>) {
        core::mem::take(&mut self.generation).end(names, out);
        out.append(&mut self.pending);
    }

    /// What `rest` begins with.
    fn step(&self, rest: &[u8]) -> Result<Step, Stop> {
        if !self.has_header {
            let known = rest.len().min(HEADER.len());
            return match rest.get(..known) == HEADER.get(..known) {
                false => Err(Stop::Broken),
                true if known < HEADER.len() => Err(Stop::Incomplete),
                true => Ok(Step {
                    len: known,
                    generation: None,
                }),
            };
        }
        let batch = Batch::read(rest)?;
        let generation = (batch.generation != self.generation.number).then(|| Generation {
            number: batch.generation,
            ..Generation::default()
        });
        Ok(Step {
            len: batch.len,
            generation,
        })
    }
}

/// A header or a batch.
struct Step {
    len: usize,
    /// A generation that begins with it.
    generation: Option<Generation>,
}

/// A batch as it lies in a trace.
struct Batch<'b> {
    generation: u64,
    time: u64,
    payload: &'b [u8],
    /// With its head.
    len: usize,
}

impl<'b> Batch<'b> {
    fn read(bytes: &'b [u8]) -> Result<Self, Stop> {
        let mut rest = bytes;
        if byte(&mut rest)? != EVENT_BATCH {
            return Err(Stop::Broken);
        }
        let [generation, _, time, len] = numbers(&mut rest)?;
        let len = usize::try_from(len).ok().filter(|&len| len <= MOST_PAYLOAD);
        let len = len.ok_or(Stop::Broken)?;
        let payload = rest.get(..len).ok_or(Stop::Incomplete)?;
        Ok(Self {
            generation,
            time,
            payload,
            len: bytes.len() - rest.len() + len,
        })
    }
}

impl Generation {
    /// Takes a batch: what is no stacks goes out.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        // It was read before.
        let Ok(batch) = Batch::read(bytes) else {
            return out.extend_from_slice(bytes);
        };
        match batch.payload.split_first() {
            Some((&STACKS, _)) if !self.is_given_up => {
                if self.stacks.is_empty() {
                    self.time = batch.time;
                }
                self.stacks.extend_from_slice(bytes);
                if self.stacks.len() > MOST_STACKS {
                    self.give_up(out);
                }
            }
            Some((&STRINGS, strings)) => {
                out.extend_from_slice(bytes);
                if self.note_strings(strings).is_err() {
                    self.give_up(out);
                }
            }
            _ => out.extend_from_slice(bytes),
        }
    }

    fn give_up(&mut self, out: &mut Vec<u8>) {
        self.is_given_up = true;
        out.append(&mut self.stacks);
        self.addresses = HashMap::new();
    }

    fn note_strings(&mut self, mut rest: &[u8]) -> Result<(), Stop> {
        while !rest.is_empty() {
            if byte(&mut rest)? != STRING {
                return Err(Stop::Broken);
            }
            let [id, len] = numbers(&mut rest)?;
            let len = usize::try_from(len).map_err(|_| Stop::Broken)?;
            let (text, after) = rest.split_at_checked(len).ok_or(Stop::Incomplete)?;
            rest = after;
            self.last_string = self.last_string.max(id);
            if let Some(address) = address(text)
                && !self.is_given_up
            {
                self.addresses.insert(id, address);
                if self.addresses.len() > MOST_ADDRESSES {
                    return Err(Stop::Broken);
                }
            }
        }
        Ok(())
    }

    /// The generation has ended: its stacks go out.
    fn end(self, names: Names<'_>, out: &mut Vec<u8>) {
        match self.named(names) {
            Some(named) => out.extend_from_slice(&named),
            None => out.extend_from_slice(&self.stacks),
        }
    }

    /// The stacks with names, and the strings for that; `None` if they stay as they are.
    fn named(&self, names: Names<'_>) -> Option<Vec<u8>> {
        if self.addresses.is_empty() || self.stacks.is_empty() {
            return None;
        }
        let stacks = self.read_stacks().ok()?;
        let mut writer = Writer::new(self, &stacks);
        for stack in &stacks {
            writer.stack(self, stack, names)?;
            if writer.len() > MOST_NAMED {
                return None;
            }
        }
        Some(writer.finish())
    }

    fn read_stacks(&self) -> Result<Vec<Stack>, Stop> {
        let mut stacks = Vec::new();
        let mut batches = self.stacks.as_slice();
        while !batches.is_empty() {
            let batch = Batch::read(batches)?;
            batches = batches.get(batch.len..).unwrap_or_default();
            let mut rest = batch.payload.get(1..).unwrap_or_default();
            while !rest.is_empty() {
                if byte(&mut rest)? != STACK {
                    return Err(Stop::Broken);
                }
                let [id, count] = numbers(&mut rest)?;
                let count = usize::try_from(count).ok();
                let count = count.filter(|&count| count <= MOST_FRAMES);
                let frames = (0..count.ok_or(Stop::Broken)?).map(|_| numbers(&mut rest));
                let frames = frames.collect::<Result<_, _>>()?;
                stacks.push(Stack { id, frames });
            }
        }
        Ok(stacks)
    }

    /// The address of a frame that has no name.
    fn address_of(&self, [pc, function, file, line]: [u64; 4]) -> Option<u64> {
        let is_nameless = self.addresses.get(&function) == Some(&pc) && (file, line) == (0, 0);
        is_nameless.then_some(pc)
    }
}

/// A stack, leaf first. Of each frame: its number, which tells it from others; its function and file, which are strings;
/// its line.
#[derive(Debug)]
struct Stack {
    id: u64,
    frames: Vec<[u64; 4]>,
}

/// The address that a string is.
fn address(text: &[u8]) -> Option<u64> {
    let digits = core::str::from_utf8(text.strip_prefix(b"0x")?).ok()?;
    let is_plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::wire::push_number;
    use super::*;
    use crate::names::Function;

    /// A batch of generation `number` with this payload.
    fn batch(number: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![EVENT_BATCH];
        for number in [number, 7, 1000, payload.len() as u64] {
            push_number(&mut bytes, number);
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    fn strings(all: &[(u64, &str)]) -> Vec<u8> {
        let mut payload = vec![STRINGS];
        for (id, text) in all {
            payload.push(STRING);
            push_number(&mut payload, *id);
            push_number(&mut payload, text.len() as u64);
            payload.extend_from_slice(text.as_bytes());
        }
        payload
    }

    fn stacks(all: &[(u64, &[[u64; 4]])]) -> Vec<u8> {
        let mut payload = vec![STACKS];
        for (id, frames) in all {
            payload.push(STACK);
            push_number(&mut payload, *id);
            push_number(&mut payload, frames.len() as u64);
            for number in frames.iter().flatten() {
                push_number(&mut payload, *number);
            }
        }
        payload
    }

    fn frame(name: &str, line: u32) -> Frame {
        Frame {
            function: Function {
                name: name.into(),
                system_name: name.into(),
                file: "main.rs".into(),
                start_line: 1,
            },
            line,
        }
    }

    /// Of the code: a function that is inlined at 0x1000, nothing elsewhere above 0x2000.
    fn look_up(address: u64) -> Arc<[Frame]> {
        match address {
            0x1000 => [frame("inner", 3), frame("outer", 9)].into(),
            0x1100 => [frame("picoprof::profile::task::pend", 1), frame("outer", 5)].into(),
            ..0x2000 => [frame("outer", 7)].into(),
            _ => [].into(),
        }
    }

    /// What goes out for what comes in pieces of this size.
    fn named(bytes: &[u8], size: usize) -> Vec<u8> {
        let (mut namer, mut out) = (Namer::new(), Vec::new());
        for piece in bytes.chunks(size) {
            namer.push(piece, &mut look_up, &mut out);
        }
        namer.finish(&mut look_up, &mut out);
        out
    }

    fn trace(batches: &[Vec<u8>]) -> Vec<u8> {
        [HEADER.to_vec(), batches.concat()].concat()
    }

    /// Of a generation that has ended: its strings and stacks, and the rest as it is.
    #[allow(
        clippy::type_complexity,
        reason = "strings, stacks and the rest, for this test alone"
    )]
    fn read(bytes: &[u8]) -> (HashMap<u64, String>, Vec<(u64, Vec<[u64; 4]>)>, Vec<u8>) {
        let (mut known, mut found, mut others) = (HashMap::new(), Vec::new(), Vec::new());
        let mut rest = bytes.strip_prefix(HEADER).unwrap();
        while !rest.is_empty() {
            let batch = Batch::read(rest).unwrap();
            let (whole, after) = rest.split_at(batch.len);
            rest = after;
            let (&kind, mut payload) = batch.payload.split_first().unwrap();
            if kind == STACKS {
                let generation = Generation {
                    stacks: whole.to_vec(),
                    ..Generation::default()
                };
                let stacks = generation.read_stacks().unwrap();
                found.extend(stacks.into_iter().map(|it| (it.id, it.frames)));
                continue;
            }
            if kind != STRINGS {
                others.extend_from_slice(whole);
            }
            while kind == STRINGS && !payload.is_empty() {
                assert_eq!(byte(&mut payload), Ok(STRING));
                let [id, len] = numbers(&mut payload).unwrap();
                let (text, after) = payload.split_at(len as usize);
                let text = String::from_utf8(text.to_vec()).unwrap();
                assert_eq!(known.insert(id, text), None);
                payload = after;
            }
        }
        (known, found, others)
    }

    fn texts(known: &HashMap<u64, String>, frames: &[[u64; 4]]) -> Vec<String> {
        let text = |id: u64| known.get(&id).map_or("", String::as_str);
        let one = |it: &[u64; 4]| format!("{} {}:{}", text(it[1]), text(it[2]), it[3]);
        frames.iter().map(one).collect()
    }

    #[test]
    fn addresses_become_functions_and_the_inlined_ones() {
        let events = [9, 0, 1, 0];
        let device = trace(&[
            batch(1, &events),
            batch(
                1,
                &stacks(&[
                    (1, &[[0x1000, 2, 0, 0], [0x1234, 3, 0, 0], [5, 1, 0, 0]]),
                    (
                        2,
                        &[
                            [0x1100, 5, 0, 0],
                            [0x1234, 3, 0, 0],
                            [0x3000, 4, 0, 0],
                            [5, 1, 0, 0],
                        ],
                    ),
                ]),
            ),
            batch(
                1,
                &strings(&[
                    (1, "task"),
                    (2, "0x1000"),
                    (3, "0x1234"),
                    (4, "0x3000"),
                    (5, "0x1100"),
                ]),
            ),
        ]);
        let out = named(&device, 5);
        let (known, found, others) = read(&out);
        assert_eq!(others, batch(1, &events));
        let all: Vec<_> = found
            .iter()
            .map(|(id, frames)| (*id, texts(&known, frames)))
            .collect();
        let first = [
            "inner main.rs:3",
            "outer main.rs:9",
            "outer main.rs:7",
            "task :0",
        ];
        let second = ["outer main.rs:5", "outer main.rs:7", "0x3000 :0", "task :0"];
        assert_eq!(all[0], (1, first.map(str::to_owned).to_vec()));
        assert_eq!(all[1], (2, second.map(str::to_owned).to_vec()));
        let numbers = found.iter().flat_map(|(_, frames)| frames);
        let numbers: HashSet<u64> = numbers.map(|frame| frame[0]).collect();
        // 0x1234's and the task's are in both.
        assert_eq!(numbers.len(), 6);
    }

    #[test]
    fn a_generation_keeps_to_itself() {
        let table = strings(&[(1, "0x10"), (9, "0x20")]);
        let stack = |pc, string| stacks(&[(1, &[[pc, string, 0, 0]])]);
        let device = trace(&[
            batch(1, &stack(0x10, 1)),
            batch(1, &table),
            // Of the other generation the string is another.
            batch(2, &strings(&[(1, "x")])),
            batch(2, &stack(0x10, 1)),
        ]);
        let mut namer = Namer::new();
        let mut out = Vec::new();
        namer.push(&device, &mut look_up, &mut out);
        let begun = out.len();
        namer.finish(&mut look_up, &mut out);
        assert_eq!(out[begun..], batch(2, &stack(0x10, 1)));
        let first = &out[..begun - batch(2, &strings(&[(1, "x")])).len()];
        let (known, found, _) = read(first);
        assert_eq!(texts(&known, &found[0].1), ["outer main.rs:7"]);
    }

    #[test]
    fn what_is_not_understood_goes_through() {
        let good = strings(&[(1, "0x10")]);
        let stack = stacks(&[(1, &[[0x10, 1, 0, 0]])]);
        for other in [
            b"go 1.26 trace\0\0\0 and more".to_vec(),
            b"HTTP".to_vec(),
            b"go 1.22".to_vec(),
            Vec::new(),
            trace(&[b"\x02".to_vec()]),
            trace(&[batch(1, &good), batch(1, &[STACKS, STACK, 1, 200])]),
            trace(&[batch(1, &[STRINGS, 9]), batch(1, &stack)]),
            trace(&[batch(1, &strings(&[(1, "0x")])), batch(1, &stack)]),
            trace(&[batch(1, &strings(&[(1, "0x10")])), batch(1, &[])]),
        ] {
            assert_eq!(named(&other, 3), other);
        }
    }

    #[test]
    fn much_is_sent_in_many_batches() {
        let mut table = Vec::new();
        for id in 1..=2000u64 {
            let frames: Vec<_> = (0..40).map(|_| [0x1000, 1, 0, 0]).collect();
            table.push(batch(1, &stacks(&[(id, &frames[..])])));
        }
        table.push(batch(1, &strings(&[(1, "0x1000")])));
        let device = trace(&table);
        assert!(device.len() < MOST_STACKS);
        let (known, found, _) = read(&named(&device, 1 << 14));
        assert_eq!(found.len(), 2000);
        assert!(found.iter().all(|(_, frames)| frames.len() == 80));
        assert_eq!(texts(&known, &found[7].1)[1], "outer main.rs:9");
        // More than a device has to say.
        let device = trace(&[table.clone(), table.clone(), table.clone(), table].concat());
        let kept = named(&device, 1 << 14);
        assert_eq!(kept.len(), device.len());
    }

    #[test]
    fn the_outermost_frame_stays() {
        let mut frames = vec![[0x1000, 1, 0, 0]; 127];
        frames.push([5, 2, 0, 0]);
        let device = trace(&[
            batch(1, &stacks(&[(1, &frames)])),
            batch(1, &strings(&[(1, "0x1000"), (2, "main")])),
        ]);
        let (known, found, _) = read(&named(&device, 100));
        let texts = texts(&known, &found[0].1);
        assert_eq!(texts.len(), MOST_FRAMES);
        assert_eq!(texts[127], "main :0");
    }

    proptest! {
        /// Whatever comes, in whatever pieces: the same goes out, and no byte that isn't a stack's is lost.
        #[test]
        fn pieces_dont_matter(
            kinds in prop::collection::vec((0u64..3, 0u8..10, prop::collection::vec(any::<u8>(), 0..40)), 0..12),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            end in any::<prop::sample::Index>(),
            size in 1usize..50,
        ) {
            let batches = kinds.iter().map(|(number, kind, bytes)| match kind {
                0..3 => batch(*number, &stacks(&[(1, &[[0x1000, 1, 0, 0], [1 << 60 | 1, 2, 3, 4]])])),
                3..6 => batch(*number, &strings(&[(1, "0x1000"), (2, "main")])),
                6 => batch(*number, &[&[STACKS], &bytes[..]].concat()),
                7 => batch(*number, &[&[STRINGS], &bytes[..]].concat()),
                8 => batch(*number, bytes),
                _ => bytes.clone(),
            });
            let mut device = trace(&batches.collect::<Vec<_>>());
            for (index, value) in flips {
                let at = index.index(device.len());
                device[at] = value;
            }
            device.truncate(end.index(device.len() + 1));
            let whole = named(&device, device.len().max(1));
            prop_assert_eq!(&named(&device, size), &whole);
            prop_assert_eq!(&named(&device, 1), &whole);
            prop_assert!(whole.len() + 40 * kinds.len() >= device.len());
        }
    }
}
