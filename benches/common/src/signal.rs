//! Driving a signal handler: SIGPROF sent by a thread to itself, at a known place of a known stack.

use core::hint::black_box;
use core::ptr;

/// Calls of [`below`] such that picoprof records 32 frames of a thread of a Linux program with glibc.
pub const DEPTH: usize = 23;

/// Calls `f` below so many frames.
#[inline(never)]
pub fn below(frames: usize, f: &mut dyn FnMut()) {
    if frames == 0 {
        f();
    } else {
        below(frames - 1, f);
    }
    // So that the call above is not the last thing done, and stays a call.
    black_box(frames);
}

/// The kernel's id of the calling thread.
#[must_use]
pub fn this_thread() -> i32 {
    // SAFETY: it has no conditions.
    unsafe { libc::gettid() }
}

/// Sends SIGPROF to this thread. It is delivered before this returns, in this function's own code as most samples are.
#[inline(never)]
pub fn raise() {
    // SAFETY: it has no conditions.
    let process = unsafe { libc::getpid() };
    let arguments = [
        process as usize,
        this_thread() as usize,
        libc::SIGPROF as usize,
        0,
    ];
    // SAFETY: three integers; the thread and its process are this one.
    unsafe { call(libc::SYS_tgkill, arguments) };
    settle();
}

/// Lets valgrind deliver what was sent: it looks for signals at calls that may block. The kernel has done so already.
#[inline(always)]
pub fn settle() {
    // SAFETY: it has no conditions.
    unsafe { call(libc::SYS_sched_yield, [0; 4]) };
}

/// A system call without libc's function around it.
///
/// # Safety
///
/// That of the call.
#[inline(always)]
pub unsafe fn call(number: libc::c_long, [a, b, c, d]: [usize; 4]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the registers of the ABI (syscall(2)), and those that the kernel changes; the rest is the caller's.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => _,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("svc 0", in("x8") number, inlateout("x0") a => _, in("x1") b, in("x2") c, in("x3") d);
    }
}

/// Installs a handler that does nothing: what sending, delivery and return cost by themselves.
pub fn handle_with_nothing() {
    extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    // SAFETY: all zeros is a value of the type.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for; the pointer is to a local.
    unsafe { libc::sigaction(libc::SIGPROF, &raw const action, ptr::null_mut()) };
}
