//! The calling thread's own stack: for allocations, new threads and waits.

#![allow(unsafe_code)]

use core::cell::Cell;
use core::sync::atomic::{AtomicUsize, Ordering};

use picoprof::stack::capture::{Registers, registers_here};
use picoprof::stack::{Memo, StackId};

use crate::stack_bounds::Stack;
use crate::tables::MAX_DEPTH;
use crate::unwind::{Begin, Trail, Trails};
use crate::{tables, unwind};
use picoprof::Exclusive;

/// What stacks are taken with; each thread has its place, and some share one.
static PLACES: [Exclusive<Place>; 64] = [const { Exclusive::new(Place::new()) }; 64];

struct Place {
    work: Work,
    known: Known,
}

/// Stacks that were taken before. Two threads that share a place know what is theirs by their stack pointers.
struct Known {
    /// Of waits and wakes, which come in turns.
    contentions: Trails<4>,
    /// Of allocations, new threads and tasks.
    others: Trails<4>,
}

/// What the stack is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Contention,
    Task,
    Other,
}

struct Work {
    pcs: [usize; MAX_DEPTH + 1],
    memo: Memo<MAX_DEPTH>,
    /// Of stacks that end where a task is polled, which have no outer frames in common with the others.
    task_memo: Memo<MAX_DEPTH>,
}

impl Work {
    const fn new() -> Self {
        Self {
            pcs: [0; MAX_DEPTH + 1],
            memo: Memo::new(),
            task_memo: Memo::new(),
        }
    }
}

impl Place {
    const fn new() -> Self {
        Self {
            work: Work::new(),
            known: Known {
                contentions: Trails::new(),
                others: Trails::new(),
            },
        }
    }
}

/// The stack of the function that calls this, without that function's own frame.
///
/// Makes the unwind tables if there are none yet. It may be inside an allocator: what it allocates itself, the caller must
/// know to leave alone.
#[inline(always)]
pub(crate) fn intern_here() -> StackId {
    // SAFETY: as this is always inlined, the registers are the calling function's.
    unsafe { intern(registers_here()) }
}

/// The same where nothing may be asked for that is not at hand, as in a signal handler: `None` if there are no unwind tables.
/// Of a stack whose place in memory isn't known, it is the first frame.
#[inline(always)]
pub(crate) fn intern_here_if_ready() -> Option<StackId> {
    // SAFETY: as this is always inlined, the registers are the calling function's.
    unsafe { intern_if_ready(registers_here()) }
}

/// # Safety
///
/// The registers are those of the function that calls this.
#[inline(never)]
unsafe fn intern_if_ready(registers: Registers) -> Option<StackId> {
    if !unwind::is_ready() {
        return None;
    }
    let stack = Stack::of_this_thread_if_known(registers.sp);
    // SAFETY: the registers are the caller's.
    Some(unsafe { intern_on(stack, registers, usize::MAX, Use::Contention) })
}

/// # Safety
///
/// The registers are those of the function that calls this.
#[inline(never)]
unsafe fn intern(registers: Registers) -> StackId {
    let stack = stack_at(registers);
    // SAFETY: the registers are the caller's.
    unsafe { intern_on(stack, registers, usize::MAX, Use::Other) }
}

/// The stack of who called the function with these registers, as far as the frame with the stack pointer `base`, and
/// without that. Otherwise as [`intern_here`].
///
/// # Safety
///
/// The registers are those of a function of the calling thread which is still running.
#[inline(never)]
pub(crate) unsafe fn intern_up_to(base: usize, registers: Registers) -> StackId {
    let stack = stack_at(registers);
    // SAFETY: the registers are as the caller says.
    unsafe { intern_on(stack, registers, base, Use::Task) }
}

/// Where the calling thread's stack is, with these registers. Makes the unwind tables.
fn stack_at(registers: Registers) -> Stack {
    if !unwind::is_ready() {
        // Whoever comes while another thread makes them gets the walk without tables instead of waiting: this
        // thread may hold the loader's lock, which the making needs.
        unwind::refresh();
    }
    Stack::of_this_thread(registers.sp)
}

/// The stack from these registers as far as the frame with the stack pointer `base`.
///
/// # Safety
///
/// The registers are those of a function of the calling thread which is still running.
#[inline(always)]
unsafe fn intern_on(stack: Stack, registers: Registers, base: usize, used: Use) -> StackId {
    // SAFETY: the stack pointer is that of a function which is still running.
    let bounds = unsafe { stack.above(registers.sp) };
    intern_walk(&Begin::of(registers, bounds, base), used)
}

/// The stack that the walk which begins so finds. If that is not known yet, it is afterwards.
#[inline(always)]
fn intern_walk(begin: &Begin, used: Use) -> StackId {
    let place = PLACES.get(place());
    let taken = place.and_then(|place| {
        place.try_with(|Place { work, known }| {
            let trails = match used {
                Use::Contention => &mut known.contentions,
                Use::Task | Use::Other => &mut known.others,
            };
            match trails.find(begin) {
                Some(stack) => stack,
                None => take(begin, used, work, trails.oldest()),
            }
        })
    });
    taken.unwrap_or_else(|| take_apart(begin, used))
}

/// Where another thread has the place, or the code that a handler on this one interrupted, there's one on the stack.
#[cold]
#[inline(never)]
fn take_apart(begin: &Begin, used: Use) -> StackId {
    take(begin, used, &mut Work::new(), None)
}

#[inline(never)]
fn take(begin: &Begin, used: Use, work: &mut Work, mut trail: Option<&mut Trail>) -> StackId {
    let Work {
        pcs,
        memo,
        task_memo,
    } = work;
    let memo = if used == Use::Task { task_memo } else { memo };
    let (len, end) = begin.walk(pcs, trail.as_deref_mut());
    // The first is the caller's own pc.
    let callers = pcs.get(1..len).unwrap_or_default();
    let stack = tables::stacks().intern_with_memo(callers, end.marker(), memo);
    if let Some(trail) = trail {
        trail.leads_to(*begin, stack);
    }
    stack
}

/// The calling thread's place in [`PLACES`].
fn place() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        /// One more than the place, or 0.
        static PLACE: Cell<usize> = const { Cell::new(0) };
    }
    if PLACE.get() == 0 {
        PLACE.set(THREADS.fetch_add(1, Ordering::Relaxed) % PLACES.len() + 1);
    }
    PLACE.get() - 1
}

#[cfg(test)]
mod tests {
    use core::hint::black_box;
    use std::thread;

    use super::*;

    /// Checks the stack of the calling function, from its root and from the frame with the stack pointer `base`, against
    /// walks that nothing is remembered of.
    #[inline(always)]
    fn check(base: usize) {
        let registers = registers_here();
        // SAFETY: as this is always inlined, the registers are the calling function's.
        let bounds = unsafe { Stack::of_this_thread(registers.sp).above(registers.sp) };
        let plain = |base, used| take_apart(&Begin::of(registers, bounds, base), used);
        // SAFETY: as above.
        let stack = unsafe { intern(registers) };
        assert_eq!(stack, plain(usize::MAX, Use::Other));
        // SAFETY: as above.
        let stack = unsafe { intern_if_ready(registers) };
        assert_eq!(stack, Some(plain(usize::MAX, Use::Contention)));
        // SAFETY: as above.
        let stack = unsafe { intern_up_to(base, registers) };
        assert_eq!(stack, plain(base, Use::Task));
    }

    #[inline(never)]
    fn leaf(base: usize) -> usize {
        check(base);
        black_box(base)
    }

    #[inline(never)]
    fn other_leaf(base: usize) -> usize {
        check(base);
        black_box(base) + 1
    }

    /// Calls the leaves from several places, so deep.
    #[inline(never)]
    fn deep(depth: usize, turn: usize, base: usize) -> usize {
        let frame = black_box([turn; 5]);
        let called = match (depth, turn % 4) {
            (0, 0) => leaf(base),
            (0, 1) => leaf(base) + 1,
            (0, 2) => other_leaf(base),
            (0, _) => leaf(base) + leaf(base),
            (_, 0) => deep(depth - 1, turn / 4, base),
            (_, _) => deep(depth - 1, turn / 4, base) + 2,
        };
        called.wrapping_add(frame[turn % 5])
    }

    #[test]
    fn stacks_that_are_known_are_those_that_walks_find() {
        while !unwind::is_ready() {
            unwind::refresh();
        }
        // More than one thread for each place.
        thread::scope(|scope| {
            for thread in 0..PLACES.len() + 2 {
                scope.spawn(move || {
                    let base = registers_here().sp;
                    let mut random = 1 + thread;
                    for _ in 0..300 {
                        random = random.wrapping_mul(6_364_136_223_846_793_005);
                        random = random.wrapping_add(1_442_695_040_888_963_407);
                        for _ in 0..2 {
                            deep(random >> 62, random >> 40, base);
                        }
                        deep(random >> 59, random >> 32, base);
                    }
                });
            }
        });
    }

    /// A handler may be on a stack of its own, of which the kernel takes the most (MINSIGSTKSZ).
    #[cfg(not(debug_assertions))]
    #[test]
    fn little_is_used_of_the_stack() {
        use core::ffi::c_void;
        use core::mem::MaybeUninit;
        use core::ptr;

        extern "C" fn work(_: *mut c_void) -> *mut c_void {
            let stack = intern_here_if_ready();
            let is_there = stack.is_some_and(|stack| tables::stacks().frames(stack).count() > 1);
            ptr::without_provenance_mut(if is_there { registers_here().sp } else { 0 })
        }

        const WORDS: usize = 1 << 13;
        crate::unwind::refresh();
        let memory = vec![0_u64; WORDS].leak();
        let start = memory.as_mut_ptr();
        crate::stack_bounds::refresh();
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the pointer is to a local.
        unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) };
        // SAFETY: it was initialized just now, and nobody else has the memory.
        let set = unsafe {
            libc::pthread_attr_setstack(attributes.as_mut_ptr(), start.cast(), 8 * WORDS)
        };
        assert_eq!(set, 0);
        // A number with glibc, a pointer with musl.
        // SAFETY: all zeros is a value of either.
        let mut thread: libc::pthread_t = unsafe { core::mem::zeroed() };
        // SAFETY: the pointers are to locals or null, and the function takes any argument.
        let created = unsafe {
            libc::pthread_create(&raw mut thread, attributes.as_ptr(), work, ptr::null_mut())
        };
        assert_eq!(created, 0);
        let mut value = ptr::null_mut();
        // SAFETY: the thread was created joinable, and is joined once.
        let joined = unsafe { libc::pthread_join(thread, &raw mut value) };
        assert!(joined == 0 && !value.is_null());
        // SAFETY: the word is in the memory, and the thread that wrote it has ended.
        let read = |word: usize| unsafe { start.add(word).read_volatile() };
        let unused = (0..WORDS).take_while(|&word| read(word) == 0).count();
        let used = value.addr() - (start.addr() + 8 * unused);
        assert!(used < 2048, "{used} bytes");
    }
}
