//! The SIGPROF handler.
//!
//! It interrupts anything, at any instruction: an allocator, a lock's holder, another library's handler. So it takes no
//! lock, allocates nothing, makes no system call (but once for a thread that is in a trace, to ask for its number) and reads
//! only memory that is known to be there.

#![allow(unsafe_code)]

use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::io;
use std::sync::Once;

use picoprof::stack::capture::Registers;

use super::slots::{self, Slot, Work};
use crate::stack_bounds::Stack;
use crate::sys::FAULTS;
use crate::tables::MAX_DEPTH;
use crate::threads::Answer;
use crate::{current, recording, tables, threads, unwind};

/// Signals whose slot was busy.
static SIGNALS_LOST: AtomicU64 = AtomicU64::new(0);
/// Samples whose stack was in no known mapping: they have their first frame only.
static STACKS_UNKNOWN: AtomicU64 = AtomicU64::new(0);
/// The handler that was there before, for signals that are not ours: SIG_DFL, SIG_IGN or a function's address.
static PREVIOUS: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
/// Whether that function takes what SA_SIGINFO says.
static PREVIOUS_TAKES_INFO: AtomicBool = AtomicBool::new(false);

pub(super) fn signals_lost() -> u64 {
    SIGNALS_LOST.load(Ordering::Relaxed)
}

pub(super) fn stacks_unknown() -> u64 {
    STACKS_UNKNOWN.load(Ordering::Relaxed)
}

/// Puts the handler in place, if it is not there. It stays: a signal that is still on its way when sampling ends
/// would otherwise end the process. It is looked for at each start, as somebody may have taken it away.
///
/// `after_fork` is called in each forked child, where it may only do what a signal handler may.
pub(super) fn install(after_fork: extern "C" fn()) -> io::Result<()> {
    static ONCE: Once = Once::new();
    let ours = on_sigprof as *const () as usize;
    let mut previous = default_action();
    // SAFETY: the new action is none, and the other pointer is to a local.
    if unsafe { libc::sigaction(libc::SIGPROF, ptr::null(), &raw mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if previous.sa_sigaction != ours {
        let takes_info = previous.sa_flags & libc::SA_SIGINFO != 0;
        PREVIOUS_TAKES_INFO.store(takes_info, Ordering::Release);
        PREVIOUS.store(previous.sa_sigaction, Ordering::Release);
        let action = our_action(ours);
        // SAFETY: the handler has the signature that SA_SIGINFO asks for and does what a handler may; the pointer is
        // to a local, and the old action is not asked for.
        if unsafe { libc::sigaction(libc::SIGPROF, &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    ONCE.call_once(|| {
        stay_out_of_fault_handlers();
        // SAFETY: the function may run in a forked child, as the caller says.
        unsafe { libc::pthread_atfork(None, None, Some(after_fork)) };
    });
    Ok(())
}

fn our_action(handler: usize) -> libc::sigaction {
    let mut action = default_action();
    action.sa_sigaction = handler;
    // No other handler on top of this one: two frames of a processor with large registers may be more than an
    // alternative stack holds. But a fault in here is still to find the handler that reports it.
    // SAFETY: the pointer is to a local.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    for fault in FAULTS.into_iter().chain([libc::SIGABRT]) {
        // SAFETY: the pointer is to a local, and it's a signal.
        unsafe { libc::sigdelset(&raw mut action.sa_mask, fault) };
    }
    // On the alternative stack, where there is one: a thread may be near the end of its own. That of Rust's threads has
    // 8 KiB, of which the kernel takes up to 3.4 for itself; code that was not optimized takes more than the rest, so a
    // debug build stays on the thread's own.
    let on_stack = if cfg!(debug_assertions) {
        0
    } else {
        libc::SA_ONSTACK
    };
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | on_stack;
    action
}

/// Keeps SIGPROF out of the handlers of faults that run on alternative stacks: the one that says "stack overflow", or a
/// crash reporter's. Such a stack is small (8 KiB in Rust's threads), and has no room for two signals' frames where one
/// takes 3 KiB of vector registers.
///
/// Nothing else about those handlers changes. Once in a process's life: who installs one at that very moment would
/// find the one before in its place.
fn stay_out_of_fault_handlers() {
    for fault in FAULTS {
        let mut action = default_action();
        // SAFETY: the new action is none, and the other pointer is to a local.
        if unsafe { libc::sigaction(fault, ptr::null(), &raw mut action) } != 0 {
            continue;
        }
        let is_handled = ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction);
        // SAFETY: the pointer is to a local, which the kernel filled in.
        let is_out = unsafe { libc::sigismember(&raw const action.sa_mask, libc::SIGPROF) } == 1;
        if is_handled && !is_out && action.sa_flags & libc::SA_ONSTACK != 0 {
            // SAFETY: the pointer is to a local.
            unsafe { libc::sigaddset(&raw mut action.sa_mask, libc::SIGPROF) };
            // SAFETY: it is the action that holds, with one more signal in its mask; the old one is not asked for.
            unsafe { libc::sigaction(fault, &raw const action, ptr::null_mut()) };
        }
    }
}

fn default_action() -> libc::sigaction {
    // SAFETY: all zeros is a value of the type: the default action, no flags, an empty mask.
    unsafe { mem::zeroed() }
}

/// The start of Linux's `siginfo_t` for a timer's or a queued signal (signal(7), include/uapi/asm-generic/siginfo.h).
#[repr(C)]
struct Info {
    signo: c_int,
    errno: c_int,
    code: c_int,
    padding: c_int,
    /// The timer, or the process that sent it.
    sender: c_int,
    /// The timer's, or the user that sent it.
    overrun: c_int,
    value: usize,
}

/// What a signal of ours wants.
enum Wanted {
    /// A sample, with this thread's memory, and how many it stands for.
    Sample(&'static Slot, u64),
    /// An answer, to the question with this ticket.
    Answer(usize),
}

impl Wanted {
    fn of(info: &Info) -> Option<Self> {
        match info.code {
            libc::SI_TIMER => {
                let weight = 1 + u64::try_from(info.overrun).unwrap_or(0);
                slots::at(info.value).map(|slot| Self::Sample(slot, weight))
            }
            libc::SI_QUEUE if threads::is_ours(info.value) => Some(Self::Answer(info.value)),
            _ => None,
        }
    }
}

/// Looks at the thread that it interrupts.
extern "C" fn on_sigprof(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a valid `siginfo_t`, whose start has this form on 64-bit Linux; it is longer, and
    // initialized as a whole.
    let ours = unsafe { ptr::read(info.cast::<Info>()) };
    let Some(wanted) = Wanted::of(&ours) else {
        return forward(signal, info, context);
    };
    // SAFETY: the kernel gives a valid `ucontext_t`, which nobody else reads or writes now.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    match wanted {
        Wanted::Sample(slot, weight) => {
            // SAFETY: it is the signal's context.
            let sample = |work: &mut Work| unsafe { record(work, context, weight) };
            if slot.with_work(sample).is_none() {
                SIGNALS_LOST.fetch_add(weight, Ordering::Relaxed);
            }
        }
        Wanted::Answer(ticket) => {
            // SAFETY: it is the signal's context.
            threads::answer(ticket, |pcs| unsafe { tell(pcs, context) });
        }
    }
}

/// # Safety
///
/// The context is that of the code that the calling handler interrupted.
unsafe fn record(work: &mut Work, context: &libc::ucontext_t, weight: u64) {
    let (registers, link) = registers(context);
    if !work.stack.contains(registers.sp) {
        work.stack = Stack::of_handler(registers.sp);
        if work.stack == Stack::NONE {
            STACKS_UNKNOWN.fetch_add(weight, Ordering::Relaxed);
        }
    }
    // SAFETY: the interrupted code's stack pointer, as the caller says.
    let bounds = unsafe { work.stack.above(registers.sp) };
    let (len, end) = unwind::walk_with_link(registers, link, bounds, &mut work.pcs);
    let pcs = work.pcs.get(..len).unwrap_or_default();
    let stack = tables::stacks().intern_with_memo(pcs, end.marker(), &mut work.memo);
    let labels = current::labels_in_handler();
    tables::cpu().add(stack, labels.to_bits(), &[weight]);
    recording::sample_in_handler(stack);
    work.counted += weight;
    work.last = Some((stack, labels));
}

/// # Safety
///
/// As for [`record`].
unsafe fn tell(pcs: &mut [usize; MAX_DEPTH], context: &libc::ucontext_t) -> Answer {
    let (registers, link) = registers(context);
    let stack = Stack::of_handler(registers.sp);
    // SAFETY: the interrupted code's stack pointer, as the caller says.
    let bounds = unsafe { stack.above(registers.sp) };
    let (len, end) = unwind::walk_with_link(registers, link, bounds, pcs);
    let pcs = pcs.get(..len).unwrap_or_default();
    Answer {
        stack: tables::stacks().intern(pcs, end.marker()),
        labels: current::labels_in_handler(),
        waits_since: current::waits_since_in_handler(),
        is_cut: stack == Stack::NONE,
    }
}

#[cfg(target_arch = "x86_64")]
fn registers(context: &libc::ucontext_t) -> (Registers, Option<usize>) {
    let register = |number: c_int| {
        let value = context.uc_mcontext.gregs.get(number as usize);
        value.map_or(0, |&value| value as usize)
    };
    let registers = Registers {
        pc: register(libc::REG_RIP),
        sp: register(libc::REG_RSP),
        fp: register(libc::REG_RBP),
    };
    (registers, None)
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &libc::ucontext_t) -> (Registers, Option<usize>) {
    let machine = &context.uc_mcontext;
    let registers = Registers {
        pc: machine.pc as usize,
        sp: machine.sp as usize,
        fp: machine.regs[29] as usize,
    };
    (registers, Some(machine.regs[30] as usize))
}

/// Hands on a signal that is not ours.
#[cold]
#[inline(never)]
fn forward(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    thread_local! {
        /// Constant at first and without a destructor.
        static IS_FORWARDING: Cell<bool> = const { Cell::new(false) };
    }
    let previous = PREVIOUS.load(Ordering::Acquire);
    if previous == libc::SIG_DFL || previous == libc::SIG_IGN {
        return;
    }
    // A handler that took ours away for a time may hand on to what was there before it, which is this one.
    // Where a handler can't tell, that program has to see to it.
    let can_tell = current::is_static();
    if can_tell && IS_FORWARDING.replace(true) {
        return;
    }
    if PREVIOUS_TAKES_INFO.load(Ordering::Acquire) {
        // SAFETY: it was installed with SA_SIGINFO, so it has this signature.
        let previous: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
            unsafe { mem::transmute(previous) };
        previous(signal, info, context);
    } else {
        // SAFETY: it was installed without SA_SIGINFO, so it has this signature.
        let previous: extern "C" fn(c_int) = unsafe { mem::transmute(previous) };
        previous(signal);
    }
    if can_tell {
        IS_FORWARDING.set(false);
    }
}
