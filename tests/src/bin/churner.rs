//! Allocates and says how much, for the test `heap_truth`. The allocator inside the one under test keeps the books.
//!
//! * `rate BYTES`: the mean distance of samples, also of those that were drawn before.
//! * `class SIZE COUNT`: so many blocks of that size (one of `CLASSES`), which are kept.
//! * `release SIZE PERCENT`: frees so many of these, oldest first, in another thread.
//! * `mixed THREADS COUNT SEED`: so many blocks in each thread, of 16 bytes to 1 MiB, some of which grow; each takes the
//!   place of another thread's, which is freed.
//! * `fail SIZE COUNT`: asks so often for more memory than there is, and gets so many blocks of that size.
//! * `clear`: frees what `mixed` left.
//! * `truth`: objects and bytes allocated and freed, by the functions that `mixed` and `class` count for.
//!
//! Each but `truth` answers nothing.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use std::alloc::System;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;

use picoprof_std::{Allocator, Server, set_heap_rate};
use picoprof_tests::subject::obey;

#[global_allocator]
static ALLOCATOR: Allocator<Counting> = Allocator::new(Counting);

fn main() -> io::Result<()> {
    let pprof = Server::bind(0)?.allow_host("test").spawn()?;
    let address = pprof.local_addr().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut kept = BTreeMap::new();
    obey(address, |line| {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<usize>().expect("a number");
        match words[0] {
            "rate" => {
                set_heap_rate(number(1));
                // This thread's next sample was drawn for the rate before. The first one makes the unwinder's tables, which
                // are to be in nobody's books.
                for _ in 0..1_000 {
                    black_box(Vec::<u8>::with_capacity(1 << 16));
                }
            }
            "class" => {
                let (_, allocate) = CLASSES
                    .iter()
                    .find(|(size, _)| *size == number(1))
                    .expect("a class");
                let blocks = kept.entry(number(1)).or_insert_with(Vec::new);
                blocks.reserve(number(2));
                counted(|| allocate(number(2), blocks));
            }
            "fail" => {
                let size = number(1);
                counted(|| (0..number(2)).for_each(|_| fails_then_gets(size)));
            }
            "release" => {
                let blocks = kept.get_mut(&number(1)).expect("some are kept");
                let count = blocks.len() * number(2) / 100;
                thread::scope(|scope| {
                    scope.spawn(|| counted(|| release(blocks.drain(..count))));
                });
            }
            "mixed" => {
                let seed = number(3) as u64;
                thread::scope(|scope| {
                    for thread in 0..number(1) as u64 {
                        scope.spawn(move || mixed(number(2), seed + thread));
                    }
                });
            }
            "clear" => counted(|| {
                for place in &SHELF {
                    drop(place.lock().unwrap_or_else(PoisonError::into_inner).take());
                }
            }),
            "truth" => {
                let truth = [
                    &ALLOCATED_OBJECTS,
                    &ALLOCATED_BYTES,
                    &FREED_OBJECTS,
                    &FREED_BYTES,
                ];
                let numbers = truth.map(|counter| counter.load(Ordering::SeqCst).to_string());
                return numbers.join(" ");
            }
            other => panic!("{other}"),
        }
        String::new()
    })
}

/// A function of its own for each size, so that each is a stack of its own.
type Class = (usize, fn(usize, &mut Vec<Vec<u8>>));

macro_rules! classes {
    ($($name:ident $size:literal)+) => {
        const CLASSES: &[Class] = &[$(($size, $name)),+];
        $(
            #[inline(never)]
            fn $name(count: usize, blocks: &mut Vec<Vec<u8>>) {
                for _ in 0..count {
                    blocks.push(black_box(Vec::with_capacity($size)));
                }
            }
        )+
    };
}

classes! {
    class_1 1
    class_16 16
    class_64 64
    class_200 200
    class_1024 1024
    class_5000 5000
    class_65536 65536
    class_1048576 1_048_576
}

#[inline(never)]
fn fails_then_gets(size: usize) {
    // More than an address space holds.
    let none = Vec::<u8>::new().try_reserve_exact(1 << 60);
    assert!(black_box(none).is_err());
    black_box(Vec::<u8>::with_capacity(size));
}

#[inline(never)]
fn release(blocks: impl Iterator<Item = Vec<u8>>) {
    blocks.for_each(drop);
}

/// Blocks of any thread, to be replaced by any other.
static SHELF: [Mutex<Option<Vec<u8>>>; 4096] = [const { Mutex::new(None) }; 4096];

#[inline(never)]
fn mixed(count: usize, seed: u64) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    // Its first sample was drawn for the rate that holds; but what a thread starts with is not counted.
    counted(|| {
        for _ in 0..count {
            let octave = 4 + next() % 16;
            let size = (1 << octave) + (next() % (1 << octave)) as usize;
            let mut block: Vec<u8> = Vec::with_capacity(size);
            block.push(1);
            if next() % 4 == 0 {
                block.reserve_exact(size + size / 2);
            }
            let place = &SHELF[(next() % 4096) as usize];
            let before = place
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .replace(block);
            drop(before);
        }
    });
}

static ALLOCATED_OBJECTS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);
static FREED_OBJECTS: AtomicU64 = AtomicU64::new(0);
static FREED_BYTES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, whose allocations and frees are counted. The sampler under test allocates nothing there, but for the tables
/// of its first sample, long before.
fn counted(f: impl FnOnce()) {
    IS_COUNTED.set(true);
    f();
    IS_COUNTED.set(false);
}

/// The system's allocator, with books.
struct Counting;

impl Counting {
    fn allocated(size: usize) {
        if IS_COUNTED.get() && size < 1 << 60 {
            ALLOCATED_OBJECTS.fetch_add(1, Ordering::Relaxed);
            ALLOCATED_BYTES.fetch_add(size as u64, Ordering::Relaxed);
        }
    }

    fn freed(size: usize) {
        if IS_COUNTED.get() {
            FREED_OBJECTS.fetch_add(1, Ordering::Relaxed);
            FREED_BYTES.fetch_add(size as u64, Ordering::Relaxed);
        }
    }
}

// SAFETY: every call goes to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::allocated(layout.size());
        // SAFETY: the caller's promises are the system's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        Self::freed(layout.size());
        // SAFETY: as for `alloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        Self::freed(layout.size());
        Self::allocated(new_size);
        // SAFETY: as for `alloc`.
        unsafe { System.realloc(block, layout, new_size) }
    }
}
