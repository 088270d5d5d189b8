//! The program's first and last instruction, and what a panic does.

use core::arch::{asm, naked_asm};
use core::panic::PanicInfo;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("the entry point and the system call are written for Linux on x86-64");

/// Where the kernel starts the program: the stack is aligned to 16 bytes, and there is no return address.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "call {main}", "ud2", main = sym main)
}

extern "C" fn main() -> ! {
    exit(crate::run())
}

fn exit(status: u8) -> ! {
    // SAFETY: exit_group (231) takes the status in rdi and does not return.
    unsafe { asm!("syscall", in("rax") 231, in("rdi") u64::from(status), options(noreturn)) }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(101)
}

/// The standard library's `core` was compiled for unwinding and its tables name this. Nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() -> ! {
    exit(102)
}
