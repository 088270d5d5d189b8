//! Walks of real stacks, against the C library's own unwinder.

#![allow(unsafe_code)]

use core::ffi::{CStr, c_int, c_void};
use core::hint::black_box;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use picoprof::stack::StackId;
use picoprof::stack::capture::registers_here;

use super::*;

const DEPTH: usize = 256;

/// Objects come and go in one test: the others' walks need all that are loaded to have tables.
static LOADED: Mutex<()> = Mutex::new(());

fn loaded() -> MutexGuard<'static, ()> {
    let guard = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    // Loads the C library's unwinder.
    reference();
    while MODULES.update(modules::load) == Update::Busy {
        thread::yield_now();
    }
    guard
}

/// The calling thread's stack.
fn bounds() -> StackBounds {
    // SAFETY: plain data, for which zeros are valid; filled in by the next call.
    let mut attributes: libc::pthread_attr_t = unsafe { core::mem::zeroed() };
    // SAFETY: names the calling thread.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: initialises the attributes of this very thread.
    let got = unsafe { libc::pthread_getattr_np(this, &raw mut attributes) };
    assert_eq!(got, 0);
    let (mut low, mut len) = (null_mut(), 0);
    // SAFETY: the attributes were initialised above.
    assert_eq!(0, unsafe {
        libc::pthread_attr_getstack(&raw const attributes, &raw mut low, &raw mut len)
    });
    // SAFETY: as above, and this is their last use.
    unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
    let low = low.expose_provenance();
    // SAFETY: the thread's stack, which lives as long as the tests use the bounds: on that thread.
    unsafe { StackBounds::new(low, low + len) }
}

/// The C library's walk: return addresses, and exact pcs of interrupted frames. Inlined, so that it starts with the
/// calling function.
#[inline(always)]
fn reference() -> Vec<usize> {
    let mut frames = [null_mut(); DEPTH];
    // SAFETY: writes at most DEPTH pointers.
    let len = unsafe { libc::backtrace(frames.as_mut_ptr(), DEPTH as c_int) };
    frames[..usize::try_from(len).unwrap()]
        .iter()
        .map(|frame| frame.addr())
        .collect()
}

/// As [`walk_with_link`], of code that was not interrupted.
fn walk(registers: Registers, bounds: StackBounds, pcs: &mut [usize]) -> (usize, End) {
    walk_with_link(registers, None, bounds, pcs)
}

/// Our walk and the C library's.
#[derive(Debug)]
struct Walks {
    pcs: Vec<usize>,
    end: End,
    reference: Vec<usize>,
}

impl Walks {
    /// Of the calling function.
    #[inline(always)]
    fn here() -> Self {
        let mut pcs = [0; DEPTH];
        let (len, end) = walk(registers_here(), bounds(), &mut pcs);
        Self {
            pcs: pcs[..len].to_vec(),
            end,
            reference: reference(),
        }
    }

    /// Checks all frames but the first, whose pc is where each walk was started.
    #[track_caller]
    fn assert_same(&self, interrupted: usize) {
        assert_eq!(self.end, End::Outermost, "{self:x?}");
        assert_eq!(self.pcs.len(), self.reference.len(), "{self:x?}");
        let callers = || self.pcs.iter().zip(&self.reference).skip(1);
        let exact = callers().filter(|(ours, theirs)| ours == theirs).count();
        let sites = callers()
            .filter(|&(&ours, &theirs)| ours == theirs - 1)
            .count();
        let expected = (interrupted, self.pcs.len() - 1 - interrupted);
        assert_eq!((exact, sites), expected, "{self:x?}");
    }
}

#[inline(never)]
fn recurse(depth: usize, leaf: &mut dyn FnMut()) -> usize {
    let frame = black_box([depth; 9]);
    if depth == 0 {
        leaf();
        return frame[1];
    }
    if depth.is_multiple_of(3) {
        let heap = black_box(vec![depth; 3]);
        return recurse(depth - 1, leaf) + heap[2];
    }
    recurse(depth - 1, leaf) ^ frame[8]
}

#[test]
fn a_deep_recursion_is_walked_as_the_c_library_does() {
    let _loaded = loaded();
    for depth in [0, 1, 2, 31, 100] {
        let mut walks = None;
        recurse(depth, &mut || walks = Some(Walks::here()));
        let walks = walks.unwrap();
        walks.assert_same(0);
        assert!(walks.pcs.len() > depth + 3);
    }
}

#[test]
fn a_full_buffer_is_told_from_the_end() {
    let _loaded = loaded();
    let bounds = bounds();
    recurse(20, &mut || {
        let registers = registers_here();
        let mut all = [0; DEPTH];
        let (len, end) = walk(registers, bounds, &mut all);
        assert_eq!(end, End::Outermost);
        for room in 0..len + 2 {
            let mut pcs = vec![0; room];
            let (got, end) = walk(registers, bounds, &mut pcs);
            assert_eq!(&pcs[..got], &all[..got]);
            let expected = if room < len {
                (room, End::TooDeep)
            } else {
                (len, End::Outermost)
            };
            assert_eq!((got, end), expected, "{room} of {len}");
        }
    });
}

static FROM_QSORT: Mutex<Option<Walks>> = Mutex::new(None);

extern "C" fn compare(_: *const c_void, _: *const c_void) -> c_int {
    *FROM_QSORT.lock().unwrap() = Some(Walks::here());
    0
}

#[test]
fn frames_of_the_c_library_are_walked_through() {
    let _loaded = loaded();
    let mut numbers = [3_u32, 1, 2];
    // SAFETY: an array of 3 numbers of 4 bytes, and a comparator that reads nothing.
    unsafe { libc::qsort(numbers.as_mut_ptr().cast(), 3, 4, Some(compare)) };
    let walks = FROM_QSORT.lock().unwrap().take().unwrap();
    walks.assert_same(0);
}

#[test]
fn a_thread_that_the_c_library_starts_ends_at_its_outermost_frame() {
    static WALKS: Mutex<Option<Walks>> = Mutex::new(None);
    extern "C" fn start(_: *mut c_void) -> *mut c_void {
        *WALKS.lock().unwrap() = Some(Walks::here());
        null_mut()
    }
    let _loaded = loaded();
    let mut thread = 0;
    // SAFETY: starts a thread that needs nothing of this one.
    let started = unsafe { libc::pthread_create(&raw mut thread, null(), start, null_mut()) };
    assert_eq!(started, 0);
    // SAFETY: the thread was started above and is joined once.
    unsafe { libc::pthread_join(thread, null_mut()) };
    let walks = WALKS.lock().unwrap().take().unwrap();
    walks.assert_same(0);
    // Itself, start_thread, clone.
    assert!(walks.pcs.len() >= 3);
}

fn handle(
    signal: c_int,
    handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void),
    flags: c_int,
) {
    // SAFETY: plain data, for which zeros are valid.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | flags;
    // SAFETY: a handler of the type that SA_SIGINFO asks for.
    assert_eq!(0, unsafe {
        libc::sigaction(signal, &raw const action, null_mut())
    });
}

/// The interrupted registers, and the link register where there is one.
fn context_registers(context: *mut c_void) -> (Registers, Option<usize>) {
    // SAFETY: what the kernel passed to a handler with SA_SIGINFO.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let context = &context.uc_mcontext;
    #[cfg(target_arch = "x86_64")]
    {
        let register = |number: c_int| context.gregs[number as usize] as usize;
        let registers = Registers {
            pc: register(libc::REG_RIP),
            sp: register(libc::REG_RSP),
            fp: register(libc::REG_RBP),
        };
        (registers, None)
    }
    #[cfg(target_arch = "aarch64")]
    {
        let registers = Registers {
            pc: context.pc as usize,
            sp: context.sp as usize,
            fp: context.regs[29] as usize,
        };
        (registers, Some(context.regs[30] as usize))
    }
}

#[test]
fn a_signal_handler_walks_what_it_interrupted_and_itself() {
    static FROM_CONTEXT: Mutex<Option<(Vec<usize>, End)>> = Mutex::new(None);
    static FROM_HANDLER: Mutex<Option<Walks>> = Mutex::new(None);
    // The signal is raised by the thread itself, outside of every lock and allocation.
    extern "C" fn handler(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
        let (registers, link) = context_registers(context);
        let mut pcs = [0; DEPTH];
        let (len, end) = walk_with_link(registers, link, bounds(), &mut pcs);
        *FROM_CONTEXT.lock().unwrap() = Some((pcs[..len].to_vec(), end));
        *FROM_HANDLER.lock().unwrap() = Some(Walks::here());
    }
    let _loaded = loaded();
    handle(libc::SIGUSR1, handler, 0);
    recurse(10, &mut || {
        // SAFETY: the handler was installed above.
        unsafe { libc::raise(libc::SIGUSR1) };
    });
    let from_handler = FROM_HANDLER.lock().unwrap().take().unwrap();
    from_handler.assert_same(1);
    let (pcs, end) = FROM_CONTEXT.lock().unwrap().take().unwrap();
    assert_eq!(end, End::Outermost);
    assert!(pcs.len() > 13);
    assert!(
        from_handler.pcs.ends_with(&pcs),
        "{pcs:x?} {from_handler:x?}"
    );
}

/// The x86 processor stops after each instruction while the trap flag is set.
#[cfg(target_arch = "x86_64")]
mod single_step {
    use super::*;

    static LOW: AtomicUsize = AtomicUsize::new(0);
    static HIGH: AtomicUsize = AtomicUsize::new(0);
    static STEPPING: AtomicBool = AtomicBool::new(false);
    static STEPS: AtomicUsize = AtomicUsize::new(0);
    static WRONG: AtomicUsize = AtomicUsize::new(0);
    static BARE: AtomicUsize = AtomicUsize::new(0);
    /// The callers of the test itself.
    static OUTER: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    static LONGEST: AtomicUsize = AtomicUsize::new(0);
    static FIRST_WRONG: Mutex<Option<Walks>> = Mutex::new(None);

    extern "C" fn stepped(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
        const TRAP_FLAG: i64 = 0x100;
        // SAFETY: what the kernel passed to a handler with SA_SIGINFO, and will restore the registers from.
        let flags = unsafe {
            &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_EFL as usize]
        };
        if !STEPPING.load(Relaxed) {
            *flags &= !TRAP_FLAG;
            return;
        }
        *flags |= TRAP_FLAG;
        let (registers, _) = context_registers(context);
        // SAFETY: the stack of the interrupted thread, which waits.
        let bounds = unsafe { StackBounds::new(LOW.load(Relaxed), HIGH.load(Relaxed)) };
        let mut pcs = [0; DEPTH];
        let (len, end) = walk(registers, bounds, &mut pcs);
        let pcs = &pcs[..len];
        let mut frames = [null_mut(); DEPTH];
        // SAFETY: writes at most DEPTH pointers; it was called before, so it allocates no more.
        let count = unsafe { libc::backtrace(frames.as_mut_ptr(), DEPTH as c_int) };
        let reference = &frames.map(|frame| frame.addr())[..count as usize];
        // The handler's own frames come first.
        let skip = reference
            .iter()
            .position(|&pc| pc == registers.pc)
            .unwrap_or(count as usize);
        let theirs = &reference[skip..];
        let same = end == End::Outermost
            && match theirs.len() {
                // Some linkers write procedure linkage tables without call frame information, where the C library's
                // walk ends.
                1 => {
                    BARE.fetch_add(1, Relaxed);
                    pcs.len() > 5 && pcs.ends_with(&OUTER.lock().unwrap())
                }
                len => {
                    len == pcs.len()
                        && pcs
                            .iter()
                            .zip(theirs)
                            .skip(1)
                            .all(|(&ours, &theirs)| ours == theirs - 1)
                }
            };
        STEPS.fetch_add(1, Relaxed);
        LONGEST.fetch_max(len, Relaxed);
        if !same && WRONG.fetch_add(1, Relaxed) == 0 {
            // The allocator may be what was interrupted; the test fails in any case.
            *FIRST_WRONG.lock().unwrap() = Some(Walks {
                pcs: pcs.to_vec(),
                end,
                reference: reference.to_vec(),
            });
        }
    }

    #[inline(never)]
    fn work() -> usize {
        let mut numbers = [5_u32, 3, 9, 1];
        extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
            // SAFETY: qsort passes pointers to two numbers of the array.
            let a = unsafe { *a.cast::<u32>() };
            // SAFETY: as above.
            let b = unsafe { *b.cast::<u32>() };
            recurse(3, &mut || {});
            a.cmp(&b) as c_int
        }
        // SAFETY: an array of 4 numbers of 4 bytes, and a comparator for them.
        unsafe { libc::qsort(numbers.as_mut_ptr().cast(), 4, 4, Some(compare)) };
        let mut text = format!(
            "{:?} {:.3} {:>8}",
            numbers,
            black_box(1.0 / 3.0),
            black_box(77)
        );
        text.push_str(&std::env::var("HOME").unwrap_or_default());
        let elapsed = std::time::Instant::now().elapsed();
        let mut map = std::collections::BTreeMap::new();
        for i in 0..20_usize {
            map.insert(black_box(i * 7919 % 31), text.len());
        }
        let caught = std::panic::catch_unwind(|| recurse(2, &mut || {})).is_ok();
        let large = usize::from(black_box([1_u8; 9000])[7]);
        map.values().sum::<usize>() + usize::from(caught) + large + elapsed.as_secs() as usize
    }

    #[test]
    fn every_instruction_can_be_walked_from() {
        let _loaded = loaded();
        let bounds = bounds();
        LOW.store(bounds.low(), Relaxed);
        HIGH.store(bounds.high(), Relaxed);
        *OUTER.lock().unwrap() = Walks::here().pcs.split_off(1);
        // A stack of its own for the handler: both unwinders must find the interrupted one.
        let mut stack = vec![0_u8; 256 << 10];
        let alternate = libc::stack_t {
            ss_sp: stack.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: stack.len(),
        };
        let mut previous = libc::stack_t {
            ss_sp: null_mut(),
            ss_flags: 0,
            ss_size: 0,
        };
        // SAFETY: memory that outlives its use: the previous stack is put back below.
        assert_eq!(0, unsafe {
            libc::sigaltstack(&raw const alternate, &raw mut previous)
        });
        handle(libc::SIGTRAP, stepped, libc::SA_ONSTACK);
        work();
        STEPPING.store(true, Relaxed);
        // SAFETY: the handler was installed above. It sets the flag.
        unsafe { libc::raise(libc::SIGTRAP) };
        work();
        STEPPING.store(false, Relaxed);
        // SAFETY: as above, and it clears the flag if the last step did not.
        unsafe { libc::raise(libc::SIGTRAP) };
        // SAFETY: as it was before.
        assert_eq!(0, unsafe {
            libc::sigaltstack(&raw const previous, null_mut())
        });
        let wrong = FIRST_WRONG.lock().unwrap().take();
        let steps = STEPS.load(Relaxed);
        assert!(
            wrong.is_none(),
            "{} of {steps}, first {wrong:x?}",
            WRONG.load(Relaxed)
        );
        assert!(steps > 5_000, "{steps}");
        assert!(BARE.load(Relaxed) < steps / 10);
        assert!(LONGEST.load(Relaxed) > 10);
    }
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize
    }
}

/// A deep stack, copied, so that its words may be changed.
struct Copied {
    /// Atomic, as a walk reads them by their address while they are borrowed.
    words: Vec<AtomicUsize>,
    sound: Vec<usize>,
    registers: Registers,
    /// Of the walk.
    pcs: Vec<usize>,
}

impl Copied {
    fn new() -> Self {
        let bounds = bounds();
        let mut copy = Vec::new();
        let mut pcs = [0; DEPTH];
        let mut walked = None;
        recurse(30, &mut || {
            let registers = registers_here();
            let low = (registers.sp - 128) & !7;
            copy = (low..bounds.high())
                .step_by(8)
                .map(|address| bounds.read(address).unwrap())
                .collect();
            walked = Some((registers, low, walk(registers, bounds, &mut pcs).0));
        });
        let (registers, low, len) = walked.unwrap();
        let words: Vec<AtomicUsize> = copy.iter().map(|_| AtomicUsize::new(0)).collect();
        let base = words.as_ptr().expose_provenance();
        // What points into the stack points into the copy.
        let moved = |word: usize| match (low..bounds.high()).contains(&word) {
            true => word - low + base,
            false => word,
        };
        let copied = Self {
            sound: copy.into_iter().map(moved).collect(),
            words,
            registers: Registers {
                sp: moved(registers.sp),
                fp: moved(registers.fp),
                ..registers
            },
            pcs: pcs[..len].to_vec(),
        };
        copied.restore();
        copied
    }

    fn restore(&self) {
        for (word, &sound) in self.words.iter().zip(&self.sound) {
            word.store(sound, Relaxed);
        }
    }

    fn bounds(&self) -> StackBounds {
        let base = self.words.as_ptr().expose_provenance();
        // SAFETY: the words outlive the bounds, which each test uses as long as it has this.
        unsafe { StackBounds::new(base, base + size_of_val(&*self.words)) }
    }

    /// A word that may lead somewhere, or not.
    fn random_word(&self, random: &mut Random) -> usize {
        let len = self.words.len();
        match random.next() % 6 {
            0 => random.next(),
            1 => self.bounds().low() + random.next() % (2 * size_of_val(&*self.words)),
            2 => self.pcs[random.next() % self.pcs.len()] + 1,
            3 => usize::MAX - random.next() % 64,
            4 => random.next() % 64,
            _ => self.sound[random.next() % len],
        }
    }

    fn change(&self, random: &mut Random) {
        let word = self.random_word(random);
        self.words[random.next() % self.words.len()].store(word, Relaxed);
    }
}

#[test]
fn corrupt_words_lead_nowhere_bad() {
    let _loaded = loaded();
    let copied = Copied::new();
    let (registers, bounds) = (copied.registers, copied.bounds());
    let mut again = [0; DEPTH];
    let (len, end) = walk(registers, bounds, &mut again);
    assert_eq!((&again[..len], end), (&*copied.pcs, End::Outermost));
    let mut random = Random(0x5eed);
    let mut ends = [0; 3];
    for _ in 0..20_000 {
        for _ in 0..1 + random.next() % (copied.words.len() / 8) {
            copied.change(&mut random);
        }
        let (len, end) = walk(registers, bounds, &mut again);
        assert!((1..=DEPTH).contains(&len));
        ends[end as usize] += 1;
        copied.restore();
    }
    assert!(ends[End::Broken as usize] > 1_000, "{ends:?}");
    assert!(ends[End::Outermost as usize] > 1_000, "{ends:?}");
}

/// Walks that are remembered, each with a number instead of its stack.
struct Remembered<const N: usize> {
    trails: Trails<N>,
    walks: Vec<(Vec<usize>, End)>,
    found: usize,
}

impl<const N: usize> Remembered<N> {
    const NONE: Self = Self {
        trails: Trails::new(),
        walks: Vec::new(),
        found: 0,
    };

    /// Checks what is remembered of this walk against the walk, and remembers it. Whether it was.
    #[track_caller]
    fn check(&mut self, begin: &Begin) -> bool {
        let mut pcs = [0; DEPTH];
        let (len, end) = begin.walk(&mut pcs, None);
        if let Some(stack) = self.trails.find(begin) {
            let walk = &self.walks[stack.to_bits() as usize];
            assert_eq!((&*walk.0, walk.1), (&pcs[..len], end));
            self.found += 1;
            return true;
        }
        let trail = self.trails.oldest().unwrap();
        let mut noted = [0; DEPTH];
        let walk = begin.walk(&mut noted, Some(trail));
        assert_eq!((noted, walk), (pcs, (len, end)));
        let number = u32::try_from(self.walks.len()).unwrap();
        trail.leads_to(*begin, StackId::from_bits(number));
        self.walks.push((pcs[..len].to_vec(), end));
        false
    }
}

#[test]
fn what_is_remembered_is_what_a_walk_finds() {
    let _loaded = loaded();
    let copied = Copied::new();
    let mut random = Random(0x7ea1);
    let mut remembered = Remembered::<4>::NONE;
    let mut bases = vec![usize::MAX, copied.bounds().high()];
    // Where a frame may have its stack pointer: above where a call returns to.
    for (number, &word) in copied.sound.iter().enumerate() {
        if copied.pcs.contains(&word.wrapping_sub(1)) {
            bases.push(copied.bounds().low() + 8 * (number + 1));
        }
    }
    assert!(bases.len() > 20);
    for _ in 0..100_000 {
        let mut registers = copied.registers;
        match random.next() % 16 {
            0 => copied.change(&mut random),
            1 => registers.fp = copied.random_word(&mut random),
            2 => registers.sp = registers.sp.wrapping_add(8 * (random.next() % 4)),
            3 => registers.pc = copied.pcs[random.next() % copied.pcs.len()],
            4 | 5 => copied.restore(),
            _ => {}
        }
        let base = match random.next() % 4 {
            0 => bases[random.next() % bases.len()],
            _ => usize::MAX,
        };
        remembered.check(&Begin::of(registers, copied.bounds(), base));
    }
    let (found, all) = (remembered.found, remembered.walks.len());
    assert!(found > 20_000 && all > 1_000, "{found} {all}");
}

#[test]
fn each_word_that_changes_a_walk_is_noticed() {
    let _loaded = loaded();
    let copied = Copied::new();
    let begin = Begin::of(copied.registers, copied.bounds(), usize::MAX);
    let mut remembered = Remembered::<1>::NONE;
    assert!(!remembered.check(&begin));
    assert!(remembered.check(&begin));
    let mut noticed = 0;
    let mut random = Random(0xbee);
    for number in 0..copied.words.len() {
        for turn in 0..6 {
            let word = match turn {
                // Called from elsewhere in the same function.
                0 => copied.sound[number].wrapping_add(1),
                _ => copied.random_word(&mut random),
            };
            copied.words[number].store(word, Relaxed);
            if !remembered.check(&begin) {
                noticed += 1;
                // What it was is remembered again.
                copied.restore();
                assert!(!remembered.check(&begin));
            }
            copied.restore();
            assert!(remembered.check(&begin), "{number}");
        }
    }
    // All return addresses among them.
    assert!(noticed >= 5 * (copied.pcs.len() - 2), "{noticed}");
}

#[test]
fn what_is_too_much_is_not_remembered() {
    let _loaded = loaded();
    let bounds = bounds();
    for (depth, is_remembered) in [(4, true), (200, false)] {
        recurse(depth, &mut || {
            let begin = Begin::of(registers_here(), bounds, usize::MAX);
            let mut remembered = Remembered::<1>::NONE;
            remembered.check(&begin);
            assert_eq!(remembered.check(&begin), is_remembered, "{depth}");
        });
    }
    // Nor is what found no room in the table, which is counted each time; nor a walk without tables.
    let mut trails = Trails::<1>::new();
    let begin = Begin::of(registers_here(), bounds, usize::MAX);
    for (begin, stack, is_remembered) in [
        (begin, StackId::from_bits(7), true),
        (begin, StackId::LOST, false),
        (
            Begin {
                version: 0,
                ..begin
            },
            StackId::from_bits(7),
            false,
        ),
    ] {
        let trail = trails.oldest().unwrap();
        begin.walk(&mut [0; DEPTH], Some(trail));
        trail.leads_to(begin, stack);
        assert_eq!(trails.find(&begin), is_remembered.then_some(stack));
    }
}

/// Loads one of the C library's objects.
fn open(name: &CStr, flags: c_int) -> *mut c_void {
    // SAFETY: its initialisation does nothing that matters here.
    unsafe { libc::dlopen(name.as_ptr(), flags) }
}

/// An object that is not loaded, and one of its functions.
fn not_loaded() -> (&'static CStr, &'static CStr) {
    let objects = [(c"libm.so.6", c"cos"), (c"libthread_db.so.1", c"td_init")];
    objects
        .into_iter()
        .find(|(object, _)| open(object, libc::RTLD_LAZY | libc::RTLD_NOLOAD).is_null())
        .expect("an object that is not loaded")
}

#[test]
fn walks_with_other_tables_are_not_remembered() {
    let _loaded = loaded();
    let registers = registers_here();
    let begin = || Begin::of(registers, bounds(), usize::MAX);
    let mut remembered = Remembered::<2>::NONE;
    assert!(!remembered.check(&begin()));
    assert!(remembered.check(&begin()));
    let object = open(not_loaded().0, libc::RTLD_LAZY);
    assert!(!object.is_null());
    assert!(remembered.check(&begin()));
    assert!(refresh_for_sure());
    assert!(!remembered.check(&begin()));
    assert!(remembered.check(&begin()));
    // SAFETY: it was opened above, and nothing of it is in use.
    assert_eq!(0, unsafe { libc::dlclose(object) });
    assert!(refresh_for_sure());
    assert!(!remembered.check(&begin()));
}

#[test]
fn objects_come_and_go_while_threads_walk() {
    let _loaded = loaded();
    let (object, function) = not_loaded();
    let stop = AtomicBool::new(false);
    let walks = AtomicUsize::new(0);
    let modules = summary().modules;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let bounds = bounds();
                recurse(10, &mut || {
                    while !stop.load(Relaxed) {
                        let mut pcs = [0; DEPTH];
                        let (len, end) = walk(registers_here(), bounds, &mut pcs);
                        assert_eq!(end, End::Outermost, "{:x?}", &pcs[..len]);
                        walks.fetch_add(1, Relaxed);
                        // Replaced lists go when nobody walks, which must happen now and then.
                        thread::sleep(Duration::from_micros(20));
                    }
                });
            });
        }
        for _ in 0..50 {
            let object = open(object, libc::RTLD_LAZY);
            assert!(!object.is_null());
            // SAFETY: an object that is open.
            let inside = unsafe { libc::dlsym(object, function.as_ptr()) }.addr();
            assert!(refresh_for_sure());
            assert_eq!(summary().modules, modules + 1);
            assert!(MODULES.read(|modules| modules.unwrap().find(inside).is_some()));
            // SAFETY: it was opened above, and nothing of it is in use.
            assert_eq!(0, unsafe { libc::dlclose(object) });
            assert!(refresh_for_sure());
            assert_eq!(summary().modules, modules);
            assert!(MODULES.read(|modules| modules.unwrap().find(inside).is_none()));
        }
        stop.store(true, Relaxed);
    });
    assert!(walks.load(Relaxed) > 50);
    assert!(!refresh(), "nothing changed since");
}

/// As [`refresh`], but waits for the readers of 16 replaced lists.
fn refresh_for_sure() -> bool {
    for _ in 0..1_000_000 {
        if refresh() {
            return true;
        }
        thread::yield_now();
    }
    false
}

#[test]
fn unchanged_objects_keep_their_tables() {
    let _loaded = loaded();
    let tables = |modules: &Modules| {
        modules
            .iter()
            .map(|module| core::ptr::from_ref(module.table()).addr())
            .collect()
    };
    let (before, after): (Vec<usize>, Vec<usize>) = MODULES.read(|modules| {
        let modules = modules.unwrap();
        let changed = modules::load_changed(modules);
        (tables(modules), tables(&changed))
    });
    assert!(before.len() >= 3);
    assert_eq!(before, after);
}

#[test]
fn the_summary_tells_what_is_loaded() {
    let _loaded = loaded();
    let summary = summary();
    assert!(is_ready());
    assert!(summary.modules >= 3, "{summary:?}");
    assert!(summary.rows > 10_000, "{summary:?}");
    assert!(summary.table_bytes > 4 * summary.rows, "{summary:?}");
    assert_eq!(summary.skipped_functions, 0, "{summary:?}");
    assert!(
        (1..100).contains(&summary.frame_pointer_share),
        "{summary:?}"
    );
}
