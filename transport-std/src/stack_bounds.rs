//! Where each thread's stack is: what a walk may read.
//!
//! A thread's stack is the readable and writable mapping that contains its stack pointer, up to its control block: glibc
//! and musl put that at the top of the stacks that they make, and what lies above may be another's mapping that
//! the kernel merged with this one. The main thread's is the one that the kernel put the program's arguments in. Of other
//! stacks (a fiber's, an alternative signal stack) nobody knows where they end, so nothing of them is read. Below
//! the stack pointer nothing is read but the red zone.

#![allow(unsafe_code)]

use core::cell::Cell;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, compiler_fence, fence};

use std::sync::Mutex;

use picoprof::stack::capture::StackBounds;

use crate::unwind::RED_ZONE;
use crate::{maps, sys};

/// Mappings that are remembered; a process with more has threads whose stacks are not found, and counted.
const MAX_REGIONS: usize = 8192;

/// The writable mappings when they were last read, for signal handlers.
static REGIONS: Regions = Regions::new();

// Constant at first and without a destructor, so that an access is an instruction or two and works at any time of a
// thread's life.
thread_local! {
    /// The thread's stack, once it is known.
    static KNOWN: Cell<Stack> = const { Cell::new(Stack::NONE) };
    /// A mapping that the thread was on and that is none of its stacks: it need not be asked for again.
    static OTHER: Cell<Stack> = const { Cell::new(Stack::NONE) };
}

/// Reads the process's mappings again, for [`Stack::of_handler`]. Ordinary context.
pub(crate) fn refresh() {
    static WRITER: Mutex<()> = Mutex::new(());
    // If another thread is at it, that will do.
    if let Ok(_writer) = WRITER.try_lock() {
        REGIONS.refresh();
    }
}

/// A stack's place in memory: from where it may grow down to, up to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stack {
    low: usize,
    /// Bytes; so that one comparison tells whether an address is on it.
    size: usize,
}

impl Stack {
    /// None.
    pub(crate) const NONE: Self = Self { low: 0, size: 0 };

    /// The stack that `sp`, of the calling thread, is on, as far as [`refresh`] knew it.
    ///
    /// May run in a signal handler: a binary search in memory that nobody frees, and no system call.
    pub(crate) fn of_handler(sp: usize) -> Self {
        REGIONS.find(sp).map_or(Self::NONE, |(range, is_main)| {
            Self::in_mapping(sp, range, is_main)
        })
    }

    /// The stack that `sp`, of the calling thread, is on. Ordinary context; it may be inside an allocator: it
    /// reads `/proc/self/maps` without allocating, the first time that a thread asks.
    pub(crate) fn of_this_thread(sp: usize) -> Self {
        if KNOWN.get().contains(sp) {
            return KNOWN.get();
        }
        if OTHER.get().contains(sp) {
            return Self::NONE;
        }
        let Some(mapping) = sys::without_cancellation(|| maps::stack_region(sp)) else {
            return Self::NONE;
        };
        let is_main = mapping.contains(&main_stack_address());
        let stack = Self::in_mapping(sp, mapping.clone(), is_main);
        if stack == Self::NONE {
            OTHER.set(Self {
                low: mapping.start,
                size: mapping.len(),
            });
        } else {
            stack.keep();
        }
        stack
    }

    /// The stack that `sp`, of the calling thread, is on, as far as it is known without asking the kernel.
    ///
    /// May run in a signal handler.
    #[inline]
    pub(crate) fn of_this_thread_if_known(sp: usize) -> Self {
        if KNOWN.get().contains(sp) {
            return KNOWN.get();
        }
        // Not kept: the code that a handler interrupted may be about to keep what it found.
        Self::of_handler(sp)
    }

    /// Notes the stack of the calling thread, which libc has just made: for later, when nobody may be asked. Ordinary
    /// context.
    pub(crate) fn note_that_of_new_thread() {
        let stack = of_new_thread().unwrap_or(Self::NONE);
        if stack != Self::NONE {
            stack.keep();
        }
    }

    /// Sets what is known. Two words: a handler that comes between them finds an empty stack, or one at 0, and never the
    /// start of one with the size of another.
    fn keep(self) {
        KNOWN.set(Self::NONE);
        compiler_fence(Ordering::SeqCst);
        KNOWN.set(self);
    }

    /// Whether `sp` is on it.
    pub(crate) const fn contains(self, sp: usize) -> bool {
        sp.wrapping_sub(self.low) < self.size
    }

    /// What a walk from `sp` may read: the stack from the red zone up.
    ///
    /// # Safety
    ///
    /// `sp` is the stack pointer of the calling thread, or of the code that it is the handler of a signal in.
    pub(crate) const unsafe fn above(self, sp: usize) -> StackBounds {
        if !self.contains(sp) {
            return StackBounds::EMPTY;
        }
        let red_zone = sp.saturating_sub(RED_ZONE);
        let low = if red_zone > self.low {
            red_zone
        } else {
            self.low
        };
        // SAFETY: the thread runs on this stack, which libc or the kernel made for it and keeps for as long as the thread
        // is here: mapped from the stack pointer up to its end. So is the red zone: a signal's frame, or that of the
        // caller's callee, lies beyond or in it.
        unsafe { StackBounds::new(low, self.low + self.size) }
    }

    /// The part of a mapping that is the calling thread's stack; `is_main` says that it is the main thread's.
    fn in_mapping(sp: usize, mapping: Range<usize>, is_main: bool) -> Self {
        // SAFETY: it reads a register. POSIX.1-2016 lists it as async-signal-safe.
        let control_block = unsafe { libc::pthread_self() } as usize;
        let high = if is_main {
            mapping.end
        } else if sp < control_block && mapping.contains(&control_block) {
            control_block
        } else {
            return Self::NONE;
        };
        Self {
            low: mapping.start,
            size: high - mapping.start,
        }
    }
}

/// What libc says of the stack that it made for the calling thread.
fn of_new_thread() -> Option<Stack> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: it has no conditions.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: the thread is the calling one, and the pointer is to a local.
    if unsafe { libc::pthread_getattr_np(this, attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut low, mut size) = (ptr::null_mut(), 0);
    // SAFETY: the attributes were filled in, and the other pointers are to locals.
    let result =
        unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut low, &raw mut size) };
    // SAFETY: as above, and they are not used any more.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    let (low, control_block) = (low.addr(), this as usize);
    // With glibc the control block is at the top of that memory, with musl above it.
    let high = low.checked_add(size)?.min(control_block);
    (result == 0 && high > low).then_some(Stack {
        low,
        size: high - low,
    })
}

/// An address at the top of the main thread's stack: of the random bytes that the kernel puts there for the program
/// (getauxval(3), `AT_RANDOM`).
fn main_stack_address() -> usize {
    // SAFETY: it reads what the kernel gave the program at its start.
    unsafe { libc::getauxval(libc::AT_RANDOM) as usize }
}

/// A sorted list of ranges that one thread writes and handlers read, without a lock: a sequence lock whose readers
/// give up instead of trying again.
struct Regions {
    /// Odd while the list is being written.
    sequence: AtomicU32,
    len: AtomicUsize,
    starts: [AtomicUsize; MAX_REGIONS],
    ends: [AtomicUsize; MAX_REGIONS],
    /// The main thread's stack: from where it may grow down to, up to its end.
    main: [AtomicUsize; 2],
}

impl Regions {
    const fn new() -> Self {
        Self {
            sequence: AtomicU32::new(0),
            len: AtomicUsize::new(0),
            starts: [const { AtomicUsize::new(0) }; MAX_REGIONS],
            ends: [const { AtomicUsize::new(0) }; MAX_REGIONS],
            main: [const { AtomicUsize::new(0) }; 2],
        }
    }

    fn refresh(&self) {
        // The caller sees to it that there is one writer.
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let main_stack = main_stack_address();
        let (mut len, mut below) = (0, 0);
        let read = maps::for_each(|entry| {
            if (entry.start..entry.end).contains(&main_stack) {
                // It grows, down to the mapping below it at the most.
                let [low, high] = &self.main;
                low.store(below, Ordering::Relaxed);
                high.store(entry.end, Ordering::Relaxed);
            } else if entry.read
                && entry.write
                && let (Some(start), Some(end)) = (self.starts.get(len), self.ends.get(len))
            {
                start.store(entry.start, Ordering::Relaxed);
                end.store(entry.end, Ordering::Relaxed);
                len += 1;
            }
            below = entry.end;
        });
        self.len
            .store(if read.is_ok() { len } else { 0 }, Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// The mapping that contains an address, and whether it is the main thread's stack.
    fn find(&self, address: usize) -> Option<(Range<usize>, bool)> {
        let sequence = self.sequence.load(Ordering::Acquire);
        let [low, high] = &self.main;
        let main = low.load(Ordering::Relaxed)..high.load(Ordering::Relaxed);
        let found = if main.contains(&address) {
            (main, true)
        } else {
            (self.find_other(address)?, false)
        };
        fence(Ordering::Acquire);
        let is_whole =
            sequence.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == sequence;
        is_whole.then_some(found)
    }

    fn find_other(&self, address: usize) -> Option<Range<usize>> {
        let starts = self.starts.get(..self.len.load(Ordering::Relaxed))?;
        // The kernel lists mappings by address.
        let next = starts.partition_point(|start| start.load(Ordering::Relaxed) <= address);
        let index = next.checked_sub(1)?;
        let start = starts.get(index)?.load(Ordering::Relaxed);
        let end = self.ends.get(index)?.load(Ordering::Relaxed);
        (start..end).contains(&address).then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> usize {
        let local = 0u8;
        core::hint::black_box(&raw const local).addr() & !7
    }

    #[test]
    fn both_ways_find_this_threads_stack() {
        std::thread::spawn(|| {
            let sp = here();
            refresh();
            let stack = Stack::of_this_thread(sp);
            assert!(stack.contains(sp));
            assert_eq!(Stack::of_handler(sp), stack);
            // SAFETY: it has no conditions.
            let control_block = unsafe { libc::pthread_self() } as usize;
            assert_eq!(stack.low + stack.size, control_block);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_is_no_stack_is_none() {
        refresh();
        assert_eq!(Stack::of_handler(0), Stack::NONE);
        assert_eq!(Stack::of_handler(usize::MAX), Stack::NONE);
        // Code is not writable.
        assert_eq!(Stack::of_handler(here as *const () as usize), Stack::NONE);
    }
}
