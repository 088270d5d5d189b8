//! Buffers of threads that ended without a word: in `pthread_exit`, or in a program that does not use the macro.

#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering};
use std::process;

use super::TRACE;
use crate::cpu;

/// The process whose threads' numbers the streams have: the one that first recorded. 0 if none did.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// A thread of this process is about to record for the first time.
///
/// May run in a signal handler.
pub(super) fn note_process() {
    if PROCESS.load(Ordering::Relaxed) == 0 {
        // The second of two has the same.
        PROCESS.store(process::id(), Ordering::Relaxed);
    }
}

/// Takes their buffers from threads that are gone.
pub(super) fn refresh() {
    // In a child that was forked while it recorded, the thread that forked has a number that is none of this process's.
    if PROCESS.load(Ordering::Relaxed) != process::id() {
        return;
    }
    let is_gone = |thread| i32::try_from(thread).is_ok_and(|thread| !cpu::is_alive(thread));
    // SAFETY: a stream's number is its thread's, of this process, and only that thread records with it. So there's nobody
    // left who does once the process has no thread with that number.
    unsafe { TRACE.reclaim(is_gone) };
}
