//! The tables of this process. They are large zeroed statics: the kernel commits a page when it is first
//! touched, so a program pays for what it samples and nothing is allocated in a handler.

#![forbid(unsafe_code)]

use picoprof::profile::Profiles;
use picoprof::profile::buckets::{Buckets, Rows};
use picoprof::profile::heap::{DEFAULT_RATE, Heap, HeapProfile};
use picoprof::profile::labels::{LabelTable, Labels};
use picoprof::profile::task::{TaskPool, Tasks};
use picoprof::stack::{StackTable, Stacks};

/// Frames that a stack is cut off at. Go has 128 since 1.23 (`profstackdepth`).
pub(crate) const MAX_DEPTH: usize = 128;

static STACKS: StackTable<{ 1 << 17 }, { 1 << 21 }> = StackTable::new();
static LABELS: LabelTable<{ 1 << 16 }, { 1 << 15 }> = LabelTable::new();
static CPU: Buckets<{ 1 << 17 }, 1> = Buckets::new();
static HEAP: HeapProfile<{ 1 << 16 }, { 1 << 16 }> = HeapProfile::new(DEFAULT_RATE);
static THREADS: Buckets<{ 1 << 12 }, 1> = Buckets::new();
static BLOCK: Buckets<{ 1 << 14 }, 2> = Buckets::new();
static MUTEX: Buckets<{ 1 << 14 }, 2> = Buckets::new();
static TASKS: TaskPool<{ 1 << 17 }> = TaskPool::new();

#[inline]
pub(crate) const fn stacks() -> Stacks<'static> {
    STACKS.view()
}

#[inline]
pub(crate) const fn labels() -> Labels<'static> {
    LABELS.view()
}

#[inline]
pub(crate) const fn cpu() -> Rows<'static> {
    CPU.view()
}

#[inline]
pub(crate) const fn heap() -> Heap<'static> {
    HEAP.view()
}

#[inline]
pub(crate) const fn threads() -> Rows<'static> {
    THREADS.view()
}

#[inline]
pub(crate) const fn block() -> Rows<'static> {
    BLOCK.view()
}

#[inline]
pub(crate) const fn mutex() -> Rows<'static> {
    MUTEX.view()
}

#[inline]
pub(crate) const fn tasks() -> Tasks<'static> {
    TASKS.view()
}

pub(crate) const fn all() -> Profiles<'static> {
    Profiles {
        labels: Some(labels()),
        cpu: Some(cpu()),
        heap: Some(heap()),
        threads: Some(threads()),
        block: Some(block()),
        mutex: Some(mutex()),
        tasks: Some(tasks()),
        ..Profiles::of(stacks())
    }
}
