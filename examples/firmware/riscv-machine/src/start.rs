//! From reset to the program.

#![allow(unsafe_code)]

use core::arch::naked_asm;

use crate::interrupts;
use crate::memory::STACK_LEN;

/// Says where the program begins: `entry!(main)`, or `entry!(main, second)` for one that two harts run. Both are
/// `fn() -> !`, and begin with interrupts masked. The second hart begins when [`start_second_hart`] is called.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        $crate::entry!($main, $crate::start::sleep);
    };
    ($main:path, $second:path) => {
        const _: () = {
            #[unsafe(no_mangle)]
            extern "C" fn riscv_machine_main() -> ! {
                $main()
            }

            #[unsafe(no_mangle)]
            extern "C" fn riscv_machine_second() -> ! {
                $crate::interrupts::receive();
                $second()
            }
        };
    };
}

/// Lets the second hart begin, if there is one.
pub fn start_second_hart() {
    interrupts::send(1);
}

/// For a hart that has nothing to do.
pub fn sleep() -> ! {
    loop {
        riscv::asm::wfi();
    }
}

/// All harts begin here, at the same time.
///
/// The outermost frame of a stack has no frame pointer; `s0` is zero here, and so a walk ends.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".init")]
extern "C" fn _start() -> ! {
    naked_asm!(
        "csrw mie, zero",
        "csrw mstatus, zero",
        // mstatus.FS: floating point is on, where there is some.
        "li t0, 1 << 13",
        "csrs mstatus, t0",
        "csrr t0, mhartid",
        "li t1, 2",
        "bgeu t0, t1, 5f",
        "la sp, _stacks_end",
        "slli t1, t0, {stack_bits}",
        "sub sp, sp, t1",
        "li s0, 0",
        "li ra, 0",
        "bnez t0, 4f",
        // The first one.
        "la t0, _bss_start",
        "la t1, _bss_end",
        "2: bgeu t0, t1, 3f",
        "sw zero, 0(t0)",
        "addi t0, t0, 4",
        "j 2b",
        "3: call riscv_machine_main",
        // The second one waits for the first one's interrupt, without taking it.
        "4: csrwi mie, 1 << 3",
        "wfi",
        "csrr t0, mip",
        "andi t0, t0, 1 << 3",
        "beqz t0, 4b",
        "fence",
        "call riscv_machine_second",
        // There are stacks for two.
        "5: wfi",
        "j 5b",
        stack_bits = const STACK_LEN.ilog2(),
    )
}
