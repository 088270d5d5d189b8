//! Traces made by hand, for the tests of the reader.

use super::wire::HEADER;

/// Puts a trace together from what is in it.
pub(super) struct Maker {
    bytes: Vec<u8>,
    generation: u64,
    strings: Vec<u8>,
    stacks: Vec<u8>,
    samples: Vec<u8>,
}

impl Maker {
    pub(super) fn new() -> Self {
        let mut it = Self {
            bytes: HEADER.to_vec(),
            generation: 0,
            strings: Vec::new(),
            stacks: Vec::new(),
            samples: Vec::new(),
        };
        it.begin();
        it
    }

    pub(super) fn next_generation(&mut self) {
        self.end();
        self.begin();
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.end();
        self.bytes
    }

    /// A batch of a thread's: events, all at one time, as their numbers and arguments.
    pub(super) fn thread(&mut self, thread: u64, time: u64, events: &[(u8, &[u64])]) {
        let events: Vec<_> = events
            .iter()
            .map(|&(kind, arguments)| (time, kind, arguments))
            .collect();
        self.events(thread, &events);
    }

    /// The same with times.
    pub(super) fn events(&mut self, thread: u64, events: &[(u64, u8, &[u64])]) {
        let mut payload = Vec::new();
        let begins = events[0].0;
        let mut last = begins;
        for &(time, kind, arguments) in events {
            payload.push(kind);
            number(&mut payload, time - last);
            numbers(&mut payload, arguments);
            last = time;
        }
        self.batch(thread, begins, &payload);
    }

    pub(super) fn string(&mut self, id: u64, text: &str) {
        self.strings.push(5);
        numbers(&mut self.strings, &[id, text.len() as u64]);
        self.strings.extend(text.as_bytes());
    }

    pub(super) fn stack(&mut self, id: u64, frames: &[[u64; 4]]) {
        self.stacks.push(3);
        numbers(&mut self.stacks, &[id, frames.len() as u64]);
        numbers(&mut self.stacks, frames.as_flattened());
    }

    pub(super) fn sample(&mut self, sample: [u64; 5]) {
        self.samples.push(7);
        numbers(&mut self.samples, &sample);
    }

    fn begin(&mut self) {
        self.generation += 1;
        let mut frequency = vec![8];
        number(&mut frequency, 1_000_000_000);
        self.batch(u64::MAX, 100, &frequency);
    }

    fn end(&mut self) {
        for (kind, table) in [
            (2, &mut self.stacks),
            (4, &mut self.strings),
            (6, &mut self.samples),
        ] {
            if !table.is_empty() {
                let payload = [vec![kind], core::mem::take(table)].concat();
                batch(&mut self.bytes, self.generation, u64::MAX, 100, &payload);
            }
        }
    }

    fn batch(&mut self, thread: u64, time: u64, payload: &[u8]) {
        batch(&mut self.bytes, self.generation, thread, time, payload);
    }
}

fn batch(to: &mut Vec<u8>, generation: u64, thread: u64, time: u64, payload: &[u8]) {
    to.push(1);
    numbers(to, &[generation, thread, time, payload.len() as u64]);
    to.extend(payload);
}

fn numbers(to: &mut Vec<u8>, all: &[u64]) {
    for &it in all {
        number(to, it);
    }
}

fn number(to: &mut Vec<u8>, mut it: u64) {
    while it >= 0x80 {
        to.push(it as u8 | 0x80);
        it >>= 7;
    }
    to.push(it as u8);
}

const STRINGS: [&str; 13] = [
    "app::main",
    "/src/main.rs",
    "app::worker::run",
    "/src/worker.rs",
    "app::chan::Receiver::recv",
    "/src/chan.rs",
    "app::listener_thread",
    "app::spin",
    "handle_request",
    "decode",
    "http",
    "GET /index",
    "chan receive",
];
/// Frames: their places, functions, files and lines.
const MAIN: [u64; 4] = [0x10000, 1, 2, 10];
const WORK: [u64; 4] = [0x10010, 3, 4, 20];
const RECEIVE: [u64; 4] = [0x10020, 5, 6, 77];
const LISTEN: [u64; 4] = [0x10030, 7, 4, 5];
const SPIN: [u64; 4] = [0x10040, 8, 4, 44];

/// Two threads, two processors, three goroutines: what a trace by another writer showed that Go's tools take, over so
/// many generations.
pub(super) fn example(generations: usize) -> Vec<u8> {
    let ms = 1_000_000;
    let mut it = Maker::new();
    for generation in 0..generations as u64 {
        if generation > 0 {
            it.next_generation();
        }
        for (id, text) in (1..).zip(STRINGS) {
            it.string(id, text);
        }
        for (id, frames) in (1..).zip([
            &[MAIN][..],
            &[WORK],
            &[RECEIVE, MAIN],
            &[RECEIVE, LISTEN],
            &[SPIN, LISTEN],
        ]) {
            it.stack(id, frames);
        }
        let at = |millis: u64, nanos: u64| 1_000_000_000 + (generation * 20 + millis) * ms + nanos;
        let new = 3 + generation;
        it.events(
            100,
            &[
                (at(0, 1000), 13, &[0, 1]),
                (at(0, 1100), 25, &[1, 100, 2]),
                (at(0, 1200), 25, &[2, u64::MAX, 4]),
                (at(0, 1300), 9, &[2, 1]),
                (at(1, 0), 40, &[7, 0, 9, 1]),
                (at(2, 0), 42, &[7, 10, 1]),
                (at(3, 0), 44, &[7, 11, 12, 1]),
                (at(4, 0), 14, &[new, 2, 1]),
                (at(5, 0), 43, &[7, 10, 1]),
                (at(6, 0), 20, &[13, 3]),
                (at(9, 500), 16, &[1, 2]),
                (at(16, 0), 41, &[7, 1]),
            ],
        );
        it.events(
            101,
            &[
                (at(0, 1000), 13, &[1, 2]),
                (at(4, 1000), 10, &[1, 1]),
                (at(4, 2000), 16, &[new, 1]),
                (at(7, 0), 22, &[2, 2]),
                (at(8, 0), 23, &[]),
                (at(9, 0), 21, &[1, 1, 2]),
                (at(10, 0), 21, &[2, 1, 2]),
                (at(11, 0), 17, &[]),
                (at(11, 500), 16, &[2, 2]),
                (at(14, 0), 20, &[0, 4]),
                (at(15, 0), 11, &[]),
            ],
        );
        for millis in [13, 12] {
            it.sample([at(millis, 0), 101, 1, 2, 5]);
        }
    }
    it.finish()
}
