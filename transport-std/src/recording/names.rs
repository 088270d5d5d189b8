//! The names of threads that have ended, for as long as somebody may ask: a trace is put together after what it shows.

#![forbid(unsafe_code)]

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

use crate::sys;

/// Of so many threads, those that ended last.
const KEPT: usize = 1024;
/// Words of a name: the kernel's have 16 bytes.
const WORDS: usize = 4;

static ENDED: [Ended; KEPT] = [const { Ended::new() }; KEPT];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A thread that has ended.
struct Ended {
    /// Its number, once its name is here.
    thread: AtomicU32,
    name: [AtomicU32; WORDS],
}

impl Ended {
    const fn new() -> Self {
        Self {
            thread: AtomicU32::new(0),
            name: [const { AtomicU32::new(0) }; WORDS],
        }
    }
}

/// Keeps the name of the calling thread, whose number this is.
pub(super) fn keep(thread: u32) {
    let name = sys::thread_name();
    let (words, _) = name.as_chunks::<{ size_of::<u32>() }>();
    let place = NEXT.fetch_add(1, Ordering::Relaxed) % KEPT;
    let Some(ended) = ENDED.get(place) else {
        return;
    };
    ended.thread.store(0, Ordering::Relaxed);
    // Who reads a word of this name sees that the number is gone.
    fence(Ordering::Release);
    for (to, word) in ended.name.iter().zip(words) {
        to.store(u32::from_ne_bytes(*word), Ordering::Relaxed);
    }
    ended.thread.store(thread, Ordering::Release);
}

/// Writes the name that a thread had when it ended, if it is kept.
///
/// Two that keep theirs in one place at once, 1,024 threads apart, may leave a mix of both.
///
/// # Errors
///
/// Those of `out`.
pub(super) fn write(thread: u32, out: &mut dyn fmt::Write) -> fmt::Result {
    // The last that had the number is told from others by nothing, and any is better than none.
    let Some(ended) = ENDED
        .iter()
        .find(|ended| ended.thread.load(Ordering::Acquire) == thread)
    else {
        return Ok(());
    };
    let mut name = [0; 4 * WORDS];
    let (words, _) = name.as_chunks_mut::<{ size_of::<u32>() }>();
    for (to, word) in words.iter_mut().zip(&ended.name) {
        *to = word.load(Ordering::Relaxed).to_ne_bytes();
    }
    fence(Ordering::Acquire);
    if ended.thread.load(Ordering::Relaxed) != thread {
        return Ok(());
    }
    let text = name.split(|&byte| byte == 0).next().unwrap_or_default();
    text.utf8_chunks()
        .try_for_each(|chunk| out.write_str(chunk.valid()))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_name_outlives_its_thread() {
        // Above all numbers that the kernel gives.
        const THREAD: u32 = 1 << 30;
        let builder = thread::Builder::new().name("once was".into());
        builder.spawn(|| keep(THREAD)).unwrap().join().unwrap();
        let mut name = String::new();
        write(THREAD, &mut name).unwrap();
        assert_eq!(name, "once was");
        name.clear();
        write(THREAD + 1, &mut name).unwrap();
        assert_eq!(name, "");
    }
}
