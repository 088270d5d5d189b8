//! A generation's stacks and strings, as they are written.

#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::wire::{
    EVENT_BATCH, MOST_FRAMES, MOST_STRING, STACK, STACKS, STRING, STRINGS, push_number,
};
use super::{Generation, Names, Stack};
use crate::names::Frame;

/// Of a batch that is written here: there is room for one more stack or string.
const FULL_PAYLOAD: usize = 48 << 10;
/// Where numbers of frames begin that no device has as an address.
const FIRST_NUMBER: u64 = 1 << 60;

/// Stacks and strings as they are written.
pub(super) struct Writer {
    /// Numbers of frames that the device has used.
    taken: HashSet<u64>,
    /// Of a function at an address: by the address and how many others are inlined to it there.
    numbers: HashMap<(u64, usize), u64>,
    last_number: u64,
    strings: HashMap<Arc<str>, u64>,
    last_string: u64,
    /// The stacks', and the strings'.
    batches: [Output; 2],
    /// Of each batch: generation, thread, time.
    head: [u64; 3],
}

impl Writer {
    pub(super) fn new(generation: &Generation, stacks: &[Stack]) -> Self {
        let all = stacks.iter().flat_map(|stack| &stack.frames);
        Self {
            taken: all.map(|frame| frame[0]).collect(),
            numbers: HashMap::new(),
            last_number: FIRST_NUMBER,
            strings: HashMap::new(),
            last_string: generation.last_string,
            batches: [Output::new(STACKS), Output::new(STRINGS)],
            head: [generation.number, u64::MAX, generation.time],
        }
    }

    /// Bytes of what is written so far.
    pub(super) fn len(&self) -> usize {
        self.batches.iter().map(|output| output.whole.len()).sum()
    }

    /// Writes a stack, with the functions at its addresses; `None` if there are too many numbers.
    pub(super) fn stack(
        &mut self,
        generation: &Generation,
        stack: &Stack,
        names: Names<'_>,
    ) -> Option<()> {
        let mut frames: Vec<[u64; 4]> = Vec::new();
        for &frame in &stack.frames {
            let address = generation.address_of(frame);
            let named = address.map(&mut *names).unwrap_or_default();
            if named.is_empty() {
                frames.push(frame);
            }
            for (depth, named) in named.iter().enumerate() {
                if frames.is_empty() && is_waiters_own(named) {
                    continue;
                }
                frames.push([
                    self.number(frame[0], depth)?,
                    self.string(&named.function.name)?,
                    self.string(&named.function.file)?,
                    u64::from(named.line),
                ]);
            }
        }
        // The outermost says whose the stack is.
        if frames.len() > MOST_FRAMES {
            frames.drain(MOST_FRAMES - 1..frames.len() - 1);
        }
        let [stacks, _] = &mut self.batches;
        stacks.payload.push(STACK);
        push_number(&mut stacks.payload, stack.id);
        push_number(&mut stacks.payload, frames.len() as u64);
        for number in frames.into_iter().flatten() {
            push_number(&mut stacks.payload, number);
        }
        stacks.end_record(self.head);
        Some(())
    }

    /// Readers know a frame by its number: the innermost function has the address.
    fn number(&mut self, address: u64, depth: usize) -> Option<u64> {
        if depth == 0 {
            return Some(address);
        }
        if let Some(&known) = self.numbers.get(&(address, depth)) {
            return Some(known);
        }
        loop {
            self.last_number = self.last_number.checked_add(1)?;
            if !self.taken.contains(&self.last_number) {
                self.numbers.insert((address, depth), self.last_number);
                return Some(self.last_number);
            }
        }
    }

    fn string(&mut self, text: &Arc<str>) -> Option<u64> {
        if text.is_empty() {
            return Some(0);
        }
        if let Some(&known) = self.strings.get(text) {
            return Some(known);
        }
        self.last_string = self.last_string.checked_add(1)?;
        self.strings.insert(Arc::clone(text), self.last_string);
        let clipped = text.get(..text.floor_char_boundary(MOST_STRING));
        let clipped = clipped.unwrap_or_default();
        let [_, strings] = &mut self.batches;
        strings.payload.push(STRING);
        push_number(&mut strings.payload, self.last_string);
        push_number(&mut strings.payload, clipped.len() as u64);
        strings.payload.extend_from_slice(clipped.as_bytes());
        strings.end_record(self.head);
        Some(self.last_string)
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let head = self.head;
        let all = self.batches.iter_mut().flat_map(|output| {
            output.end_batch(head);
            core::mem::take(&mut output.whole)
        });
        all.collect()
    }
}

/// Batches of one kind.
struct Output {
    kind: u8,
    whole: Vec<u8>,
    payload: Vec<u8>,
}

impl Output {
    fn new(kind: u8) -> Self {
        Self {
            kind,
            whole: Vec::new(),
            payload: vec![kind],
        }
    }

    fn end_record(&mut self, head: [u64; 3]) {
        if self.payload.len() > FULL_PAYLOAD {
            self.end_batch(head);
        }
    }

    fn end_batch(&mut self, head: [u64; 3]) {
        if self.payload.len() > 1 {
            self.whole.push(EVENT_BATCH);
            for number in head.into_iter().chain([self.payload.len() as u64]) {
                push_number(&mut self.whole, number);
            }
            self.whole.append(&mut self.payload);
            self.payload.push(self.kind);
        }
    }
}

/// Whether a function is about how a task waits: what it waits for is what that was called by.
fn is_waiters_own(frame: &Frame) -> bool {
    let name = &*frame.function.name;
    name == "<core::task::wake::Waker as core::clone::Clone>::clone"
        || name.starts_with("core::task::wake::") && name.ends_with("clone")
        || name.starts_with("picoprof::profile::task::") && name.ends_with("::pend")
}
