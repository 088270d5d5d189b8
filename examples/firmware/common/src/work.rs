//! The work: text in; a checksum, and how small it has become, out. In slices, so that others get their turn.

#![forbid(unsafe_code)]

use core::future::poll_fn;
use core::task::Poll;

use crc::{CRC_32_ISO_HDLC, Crc, Digest, Table};
use heapless::{String, Vec};

use crate::compress::{BLOCK, Compressor};
use crate::readings::{filter, measure, parse_reading};

/// The checksum of Ethernet, gzip and PNG.
static CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

/// Readings in a round of work.
const READINGS: usize = 48;

/// What was made of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Result {
    /// Their CRC-32.
    pub hash: u32,
    /// How long they are in LZ4's block format, [`BLOCK`] bytes a block.
    pub compressed: usize,
}

/// What works, and its memory: about 2 KB.
#[derive(Debug)]
pub struct Worker {
    text: String<BLOCK>,
    values: Vec<i32, READINGS>,
    compressor: Compressor,
    readings: u32,
}

impl Worker {
    /// One that has nothing to do.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            text: String::new(),
            values: Vec::new(),
            compressor: Compressor::new(),
            readings: 0,
        }
    }

    /// Works `rounds` rounds on readings that it makes itself, and answers a hash of all that came of it. The same rounds
    /// have the same hash.
    pub async fn work(&mut self, rounds: u32) -> u32 {
        let mut hash = 0;
        for round in 0..rounds {
            hash = self.work_round(round, hash);
            yield_now().await;
        }
        hash
    }

    /// Works on what somebody sent: lines with readings, or anything else.
    pub async fn put(&mut self, bytes: &[u8]) -> Result {
        let mut digest = CRC.digest();
        let mut compressed = 0;
        for block in bytes.chunks(BLOCK) {
            checksum(&mut digest, block);
            let parsed = parse_block(block, &mut self.values);
            self.readings = self.readings.wrapping_add(parsed);
            filter(&mut self.values);
            self.compressor
                .compress_block(block, &mut |part| compressed += part.len());
            yield_now().await;
        }
        Result {
            hash: digest.finalize(),
            compressed,
        }
    }

    /// How many readings were parsed so far.
    #[must_use]
    pub const fn readings(&self) -> u32 {
        self.readings
    }

    /// One round: some hundred microseconds to some milliseconds.
    #[inline(never)]
    fn work_round(&mut self, round: u32, hash: u32) -> u32 {
        self.text.clear();
        let first = round.wrapping_mul(READINGS as u32);
        measure(first, READINGS as u32, &mut self.text);
        let parsed = parse_block(self.text.as_bytes(), &mut self.values);
        self.readings = self.readings.wrapping_add(parsed);
        filter(&mut self.values);
        let mut digest = CRC.digest();
        checksum(&mut digest, &hash.to_le_bytes());
        for value in &self.values {
            checksum(&mut digest, &value.to_le_bytes());
        }
        self.compressor
            .compress_block(self.text.as_bytes(), &mut |part| {
                checksum(&mut digest, part)
            });
        digest.finalize()
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self::new()
    }
}

/// Lets everybody else have a turn.
pub async fn yield_now() {
    let mut is_back = false;
    poll_fn(|context| {
        if is_back {
            return Poll::Ready(());
        }
        is_back = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Takes the readings out of some text, and answers how many there are. Values that there's no room for are left out.
#[inline(never)]
fn parse_block(text: &[u8], values: &mut Vec<i32, READINGS>) -> u32 {
    values.clear();
    let lines = text.split(|&byte| byte == b'\n');
    let mut parsed = 0;
    for reading in lines.filter_map(parse_reading) {
        parsed += 1;
        let _ = values.push(reading.value);
    }
    parsed
}

#[inline(never)]
fn checksum(digest: &mut Digest<'_, u32, Table<1>>, bytes: &[u8]) {
    digest.update(bytes);
}

#[cfg(test)]
mod tests {
    use core::future::Future;
    use core::pin::pin;
    use core::task::{Context, Waker};

    use super::*;

    /// Polls to the end; answers how often that took, too.
    fn run<T>(future: impl Future<Output = T>) -> (T, usize) {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        for polls in 1.. {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return (value, polls);
            }
        }
        unreachable!()
    }

    #[test]
    fn work_is_deterministic_and_in_slices() {
        let (first, polls) = run(Worker::new().work(20));
        assert_eq!(polls, 21);
        let mut worker = Worker::new();
        assert_eq!(run(worker.work(20)).0, first);
        assert_eq!(run(worker.work(20)).0, first);
        assert_ne!(run(worker.work(19)).0, first);
        assert_eq!(worker.readings(), 59 * READINGS as u32);
        assert_eq!(run(worker.work(0)).0, 0);
    }

    #[test]
    fn a_round_has_room() {
        let mut worker = Worker::new();
        worker.work_round(u32::MAX / READINGS as u32 - 1, 0);
        assert_eq!(worker.readings(), READINGS as u32);
    }

    #[test]
    fn the_hash_of_what_is_put_is_its_crc() {
        let mut worker = Worker::new();
        let (result, _) = run(worker.put(b"123456789"));
        // The check value of CRC-32/ISO-HDLC; nine literals and a token.
        assert_eq!((result.hash, result.compressed), (0xcbf4_3926, 10));
        let (result, polls) = run(worker.put(&[b'1'; 3 * BLOCK]));
        assert_eq!(polls, 4);
        assert!(result.compressed < 60);
        run(worker.put(b"1 ch1 1\nnothing\n2 ch1 2"));
        assert_eq!(worker.readings(), 2);
    }
}
