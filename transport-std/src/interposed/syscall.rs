//! The C function `syscall`: the call itself, and a look at those that wait for and wake threads.
//!
//! std, parking_lot and others that are built like them wait in the kernel by `libc::syscall(SYS_futex, …)`. It takes as many
//! arguments as the system call has, which stable Rust can't define a function for: so its begin is in assembly. A
//! system call is made with six arguments whatever it takes, as libc's own function does; those that the caller
//! did not give are whatever is in their place, and the kernel doesn't look at them.

#![allow(unsafe_code)]

use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_long};

use crate::contention;

/// Makes the system call `number` with the arguments that follow, as libc's `syscall` does; futex(2) with
/// a look at who waits and who wakes.
///
/// # Safety
///
/// As for `syscall`.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub unsafe extern "C" fn syscall(number: c_long) -> c_long {
    naked_asm!(
        // Without it, nobody finds the caller of what was interrupted here.
        ".cfi_startproc",
        "cmp rdi, {futex_number}",
        // All arguments are where it looks for them.
        "je {futex}",
        "mov rax, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "mov r10, r8",
        "mov r8, r9",
        "mov r9, [rsp + 8]",
        "syscall",
        "cmp rax, {first_error}",
        "jae 2f",
        "ret",
        "2:",
        "mov rdi, rax",
        "jmp {failed}",
        ".cfi_endproc",
        futex_number = const libc::SYS_futex,
        first_error = const FIRST_ERROR,
        futex = sym futex,
        failed = sym failed,
    )
}

/// Makes the system call `number` with the arguments that follow, as libc's `syscall` does; futex(2) with
/// a look at who waits and who wakes.
///
/// # Safety
///
/// As for `syscall`.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub unsafe extern "C" fn syscall(number: c_long) -> c_long {
    naked_asm!(
        // Without it, nobody finds the caller of what was interrupted here.
        ".cfi_startproc",
        "cmp x0, #{futex_number}",
        "b.ne 2f",
        // All arguments are where it looks for them.
        "b {futex}",
        "2:",
        "mov x8, x0",
        "mov x0, x1",
        "mov x1, x2",
        "mov x2, x3",
        "mov x3, x4",
        "mov x4, x5",
        "mov x5, x6",
        "svc #0",
        "cmn x0, #{last_error}",
        "b.hs 3f",
        "ret",
        "3:",
        "b {failed}",
        ".cfi_endproc",
        futex_number = const libc::SYS_futex,
        last_error = const -FIRST_ERROR,
        futex = sym futex,
        failed = sym failed,
    )
}

/// Results from here on, as unsigned numbers, are negated error numbers: syscall(2).
const FIRST_ERROR: isize = -4095;

/// futex(2), by the arguments of `syscall`, of which there may be fewer.
///
/// It may be called anywhere that `syscall` may: in a signal handler, before `main`, in a forked child. So it takes no
/// lock, allocates nothing and reads only memory that is known to be there.
///
/// # Safety
///
/// As for `syscall`.
unsafe extern "C" fn futex(
    number: usize,
    address: usize,
    operation: usize,
    value: usize,
    timeout: usize,
    address2: usize,
    value3: usize,
) -> c_long {
    let arguments = [address, operation, value, timeout, address2, value3];
    // SAFETY: the caller's arguments.
    let call = || unsafe { system_call(number, arguments) };
    // The high half of the register is not the operation's.
    let result = match operation as c_int & libc::FUTEX_CMD_MASK {
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => contention::wait(address, call),
        libc::FUTEX_WAKE
        | libc::FUTEX_WAKE_BITSET
        | libc::FUTEX_REQUEUE
        | libc::FUTEX_CMP_REQUEUE => contention::wake(address, call),
        _ => call(),
    };
    if result as usize >= FIRST_ERROR as usize {
        failed(result)
    } else {
        result as c_long
    }
}

/// What `syscall` answers to an error, with errno set; without one, errno is as it was.
extern "C" fn failed(result: isize) -> c_long {
    // SAFETY: it has no conditions, and what it answers is the calling thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the pointer is to the calling thread's errno.
    unsafe { *errno = result.wrapping_neg() as c_int };
    -1
}

/// # Safety
///
/// As for the system call.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn system_call(number: usize, arguments: [usize; 6]) -> isize {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let result;
    // SAFETY: the registers are the kernel's for calls (syscall(2)), which changes two more; the rest is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r9") sixth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// # Safety
///
/// As for the system call.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn system_call(number: usize, arguments: [usize; 6]) -> isize {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let result;
    // SAFETY: the registers are the kernel's for calls (syscall(2)); the rest is the caller's promise.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") first => result,
            in("x1") second,
            in("x2") third,
            in("x3") fourth,
            in("x4") fifth,
            in("x5") sixth,
            options(nostack),
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use core::ffi::c_void;
    use core::ptr::null;

    use super::*;

    type Syscall = unsafe extern "C" fn(c_long, ...) -> c_long;

    /// Ours, as C sees it.
    fn ours() -> Syscall {
        // SAFETY: it takes its arguments where a function with any number of them does.
        unsafe { core::mem::transmute::<unsafe extern "C" fn(c_long) -> c_long, Syscall>(syscall) }
    }

    fn errno() -> c_int {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    }

    fn set_errno(number: c_int) {
        // SAFETY: it has no conditions.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: the pointer is to the calling thread's errno.
        unsafe { *errno = number };
    }

    #[test]
    fn other_system_calls_are_made_as_libc_makes_them() {
        let ours = ours();
        set_errno(77);
        // SAFETY: it has no conditions.
        let process = unsafe { ours(libc::SYS_getpid) };
        assert_eq!(process, i64::from(std::process::id()));
        // SAFETY: no such file descriptor.
        assert_eq!(unsafe { ours(libc::SYS_close, -1) }, -1);
        assert_eq!(errno(), libc::EBADF);
        // SAFETY: there is no such call.
        assert_eq!(unsafe { ours(9_999) }, -1);
        assert_eq!(errno(), libc::ENOSYS);
    }

    /// A thread is interrupted in a system call most often; who looks at it then goes on from here.
    #[test]
    fn unwinders_know_it() {
        unsafe extern "C" {
            /// Where the function begins that there is call frame information of.
            fn _Unwind_FindEnclosingFunction(pc: *mut c_void) -> *mut c_void;
        }
        let start = syscall as *mut c_void;
        // It is meant for return addresses, so what is asked for is the byte before.
        for offset in [1, 12, 40] {
            // SAFETY: it takes any address, and reads what the program was loaded with.
            let found = unsafe { _Unwind_FindEnclosingFunction(start.wrapping_byte_add(offset)) };
            assert_eq!(found, start, "{offset}");
        }
    }

    /// mmap(2) takes six arguments, and answers with large numbers.
    #[test]
    fn all_six_arguments_arrive() {
        let ours = ours();
        set_errno(77);
        // SAFETY: a new mapping, which overlaps no other.
        let page = unsafe {
            ours(
                libc::SYS_mmap,
                null::<u8>(),
                4096_usize,
                c_long::from(libc::PROT_READ),
                c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
                -1_isize,
                0_isize,
            )
        };
        assert!(page > 0 && page % 4096 == 0, "{page:#x}");
        // SAFETY: the mapping is the one from above, which nobody uses.
        assert_eq!(unsafe { ours(libc::SYS_munmap, page, 4096_usize) }, 0);
        // SAFETY: it is not there, so nothing is mapped from it.
        let result = unsafe {
            ours(
                libc::SYS_mmap,
                null::<u8>(),
                4096_usize,
                c_long::from(libc::PROT_READ),
                c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
                -1_isize,
                // Not a multiple of a page.
                1_isize,
            )
        };
        assert_eq!((result, errno()), (-1, libc::EINVAL));
    }

    #[test]
    fn errno_is_set_by_errors_only() {
        let ours = ours();
        let word = 5_u32;
        let timeout = libc::timespec {
            tv_sec: 0,
            tv_nsec: 2_000_000,
        };
        let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        set_errno(77);
        // SAFETY: the word is a local.
        let woken = unsafe { ours(libc::SYS_futex, &raw const word, wake, 1) };
        assert_eq!((woken, errno()), (0, 77));
        // SAFETY: the word and the time are locals.
        let changed = unsafe {
            ours(
                libc::SYS_futex,
                &raw const word,
                wait,
                6,
                null::<libc::timespec>(),
            )
        };
        assert_eq!((changed, errno()), (-1, libc::EAGAIN));
        // SAFETY: as above.
        let late = unsafe {
            ours(
                libc::SYS_futex,
                &raw const word,
                wait,
                5,
                &raw const timeout,
            )
        };
        assert_eq!((late, errno()), (-1, libc::ETIMEDOUT));
        // The kernel looks for another bit of the sixth argument.
        let wait = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: as above, and the second address is not used.
        let late = unsafe {
            ours(
                libc::SYS_futex,
                &raw const word,
                wait,
                5,
                &raw const timeout,
                null::<u32>(),
                -1,
            )
        };
        assert_eq!((late, errno()), (-1, libc::ETIMEDOUT));
        // SAFETY: as above.
        let no_bits = unsafe {
            ours(
                libc::SYS_futex,
                &raw const word,
                wait,
                5,
                &raw const timeout,
                null::<u32>(),
                0,
            )
        };
        assert_eq!((no_bits, errno()), (-1, libc::EINVAL));
    }
}
