//! The program's own `pthread_create` and `syscall`: what [`interpose!`](crate::interpose) puts in front of libc's.
//!
//! A program that defines them itself comes before libc in the linker's order, for its own code, for the standard library
//! and for every library that it loads.

#![allow(unsafe_code)]

mod syscall;
mod threads;

pub use syscall::syscall;
pub use threads::{Start, pthread_create};
pub(crate) use threads::{be_unseen, is_unseen, is_used, unseen, while_unseen};

/// Puts the program's own `pthread_create` and `syscall` in front of libc's, so that new threads are seen, and where threads
/// wait for each other.
///
/// Write it once, in `main.rs`. A library must not use it: a program can have it only once. It is opt-in, for Linux on
/// x86-64 and AArch64, with glibc or musl (a static program with musl only). It defines two C functions in the program:
///
/// * `pthread_create` notes who calls it, for `threadcreate`, and calls libc's. CPU profiles then see a thread from its first
///   instruction on; without it new threads are found within 100 ms.
/// * `syscall` makes the system call that it is asked for, as libc's does, in a handful of instructions. futex(2) is how the
///   locks, channels and parked threads of std and parking_lot wait and wake: who waited is noted for `block`, and who
///   ended others' waiting for `mutex`. What needs not wait makes no such call, and costs nothing. See
///   [`set_block_rate`](crate::set_block_rate) and [`set_mutex_fraction`](crate::set_mutex_fraction).
///
/// Code that makes its futex calls without the C function `syscall` is not seen: libc's own (`pthread_mutex_lock`,
/// `pthread_join`, and so [`JoinHandle::join`](std::thread::JoinHandle::join)), and crates that make system calls by
/// themselves, as rustix does.
///
/// ```
/// picoprof_std::interpose!();
///
/// fn main() {
///     std::thread::spawn(|| ()).join().unwrap();
/// }
/// ```
#[macro_export]
macro_rules! interpose {
    () => {
        #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
        compile_error!(
            "glibc's pthread_create can't be reached behind another one in a static program"
        );

        const _: () = {
            #[unsafe(no_mangle)]
            unsafe extern "C" fn pthread_create(
                thread: *mut $crate::__private::pthread_t,
                attributes: *const $crate::__private::pthread_attr_t,
                start: $crate::__private::Start,
                argument: *mut ::core::ffi::c_void,
            ) -> ::core::ffi::c_int {
                // SAFETY: the caller keeps to pthread_create's conditions.
                unsafe { $crate::__private::pthread_create(thread, attributes, start, argument) }
            }

            // It takes any number of arguments, which a jump leaves where they are.
            #[cfg(target_arch = "x86_64")]
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            unsafe extern "C" fn syscall(number: ::core::ffi::c_long) -> ::core::ffi::c_long {
                ::core::arch::naked_asm!(
                    ".cfi_startproc",
                    "jmp {}",
                    ".cfi_endproc",
                    sym $crate::__private::syscall,
                )
            }

            #[cfg(target_arch = "aarch64")]
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            unsafe extern "C" fn syscall(number: ::core::ffi::c_long) -> ::core::ffi::c_long {
                ::core::arch::naked_asm!(
                    ".cfi_startproc",
                    "b {}",
                    ".cfi_endproc",
                    sym $crate::__private::syscall,
                )
            }
        };
    };
}
