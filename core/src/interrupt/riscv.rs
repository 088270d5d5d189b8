//! RISC-V in machine mode: the trap entry.

#![forbid(unsafe_code)]

/// Defines the function that `mtvec` points to, which calls a function of the program's for each trap.
///
/// `picoprof::riscv_trap!(trap_entry => on_trap)` makes a naked function `trap_entry`, for direct mode. It saves what a call may
/// change, the floating-point registers too where the target has some, and calls
///
/// ```ignore
/// fn on_trap(cause: usize, registers: picoprof::stack::capture::Registers);
/// ```
///
/// with `mcause` and the registers of the code that was interrupted: what a sampler wants. Then it restores everything
/// and goes on there. On the stack it leaves a frame record whose return address is the interrupted instruction, so that a
/// walk from within `on_trap`, or from a trap in it, goes on through the interrupted code: interrupt handlers are
/// seen under what they interrupted.
///
/// `mepc` and `mstatus` are saved too: `on_trap` may set `mstatus.MIE`, to let interrupts in that are more urgent (such
/// as the tick that samples). After an exception the same instruction is run again; a handler that wants
/// something else doesn't return.
///
/// It is run on the stack of the code that it interrupts, and takes 160 bytes of it on riscv64imac, 336 on riscv64gc, 80 on
/// riscv32imac. Targets with sixteen registers (`e`) are not served, and vector registers are not saved.
///
/// To use it, write its address to `mtvec`; it is a multiple of 4, as direct mode wants it. With `riscv-rt`, which has an
/// entry of its own, define this one as `_start_trap` in place of it:
///
/// ```ignore
/// picoprof::riscv_trap!(#[unsafe(no_mangle)] _start_trap => on_trap);
/// ```
///
/// Of interrupts that are pending together the timer's is taken last. So a handler that lets the timer in should look
/// first whether it is due (`mip`), and sample with the registers that it was given itself: else that
/// sample is the handler's.
///
/// The whole program must be compiled with `-Cforce-frame-pointers=yes`. A tick that samples:
///
/// ```ignore
/// use picoprof::stack::capture::Registers;
///
/// picoprof::riscv_trap!(trap_entry => on_trap);
///
/// fn on_trap(cause: usize, interrupted: Registers) {
///     if timer::is_pending() {
///         timer::set_next_tick();
///         SAMPLER.tick(interrupted, stack_bounds(), STACKS.view(), CPU.view(), 0);
///     }
///     match cause {
///         MACHINE_TIMER => {}
///         MACHINE_EXTERNAL => on_device(),
///         _ => panic!("trap {cause:#x} at {:#x}", interrupted.pc),
///     }
/// }
/// ```
#[macro_export]
macro_rules! riscv_trap {
    ($(#[$meta:meta])* $entry:ident => $on_trap:path) => {
        /// Where the machine goes on a trap; for `mtvec`.
        $(#[$meta])*
        #[unsafe(naked)]
        pub extern "C" fn $entry() {
            extern "C" fn picoprof_trap(cause: usize, pc: usize, sp: usize, fp: usize) {
                $on_trap(cause, $crate::stack::capture::Registers { pc, sp, fp });
            }

            core::arch::naked_asm!(
                // The alignment of the section of this function, and so of the function.
                ".p2align 2",
                "addi sp, sp, -{size}",
                $crate::__riscv_integers!(store),
                $crate::__riscv_floats!(store),
                // The arguments: the cause, and what was interrupted.
                "csrr a0, mcause",
                "csrr a1, mepc",
                "addi a2, sp, {size}",
                "mv a3, s0",
                "csrr t0, mstatus",
                $crate::__riscv_word!(store "a1, ", "16*{word}(sp)"),
                $crate::__riscv_word!(store "t0, ", "17*{word}(sp)"),
                // The frame record. To a walk a return address is behind a call, which it looks for one byte before.
                "addi t1, a1, 1",
                $crate::__riscv_word!(store "t1, ", "{size}-{word}(sp)"),
                $crate::__riscv_word!(store "s0, ", "{size}-2*{word}(sp)"),
                "mv s0, a2",
                "call {on_trap}",
                // This masks interrupts, if the handler didn't; the next one would overwrite mepc.
                $crate::__riscv_word!(load "t0, ", "17*{word}(sp)"),
                "csrw mstatus, t0",
                $crate::__riscv_word!(load "t0, ", "16*{word}(sp)"),
                "csrw mepc, t0",
                $crate::__riscv_word!(load "s0, ", "{size}-2*{word}(sp)"),
                $crate::__riscv_floats!(load),
                $crate::__riscv_integers!(load),
                "addi sp, sp, {size}",
                "mret",
                size = const $crate::interrupt::RISCV_TRAP_FRAME,
                word = const size_of::<usize>(),
                on_trap = sym picoprof_trap,
            )
        }
    };
}

/// The stack that a trap entry takes, in bytes.
#[doc(hidden)]
pub const RISCV_TRAP_FRAME: usize = {
    let word = size_of::<usize>();
    let floats = if cfg!(target_feature = "d") {
        20 * 8 + word
    } else if cfg!(target_feature = "f") {
        20 * 4 + word
    } else {
        0
    };
    (20 * word + floats).next_multiple_of(16)
};

/// Stores or loads a word.
#[cfg(target_arch = "riscv64")]
#[doc(hidden)]
#[macro_export]
macro_rules! __riscv_word {
    (store $($operands:literal),*) => { concat!("sd ", $($operands),*) };
    (load $($operands:literal),*) => { concat!("ld ", $($operands),*) };
}

/// Stores or loads a word.
#[cfg(target_arch = "riscv32")]
#[doc(hidden)]
#[macro_export]
macro_rules! __riscv_word {
    (store $($operands:literal),*) => { concat!("sw ", $($operands),*) };
    (load $($operands:literal),*) => { concat!("lw ", $($operands),*) };
}

/// Stores or loads the registers that a call may change: the first 16 words of the frame.
#[doc(hidden)]
#[macro_export]
macro_rules! __riscv_integers {
    ($do:ident) => {
        $crate::__riscv_integers!($do "ra" 0, "t0" 1, "t1" 2, "t2" 3, "t3" 4, "t4" 5, "t5" 6, "t6" 7,
            "a0" 8, "a1" 9, "a2" 10, "a3" 11, "a4" 12, "a5" 13, "a6" 14, "a7" 15)
    };
    ($do:ident $($register:literal $word:literal),*) => {
        concat!($($crate::__riscv_word!($do $register, ", ", $word, "*{word}(sp)\n")),*)
    };
}

/// Stores or loads the floating-point registers that a call may change, and fcsr behind them: from word 18 of the frame.
#[cfg(target_feature = "f")]
#[doc(hidden)]
#[macro_export]
macro_rules! __riscv_floats {
    (store) => {
        concat!($crate::__riscv_floats!(each store), "frcsr t0\n", $crate::__riscv_floats!(fcsr store))
    };
    (load) => {
        concat!($crate::__riscv_floats!(fcsr load), "fscsr t0\n", $crate::__riscv_floats!(each load))
    };
    (each $do:ident) => {
        $crate::__riscv_floats!($do "ft0" 0, "ft1" 1, "ft2" 2, "ft3" 3, "ft4" 4, "ft5" 5, "ft6" 6, "ft7" 7,
            "ft8" 8, "ft9" 9, "ft10" 10, "ft11" 11, "fa0" 12, "fa1" 13, "fa2" 14, "fa3" 15, "fa4" 16, "fa5" 17,
            "fa6" 18, "fa7" 19)
    };
    (fcsr $do:ident) => {
        $crate::__riscv_float!(fcsr $do)
    };
    ($do:ident $($register:literal $index:literal),*) => {
        concat!($($crate::__riscv_float!($do $register $index)),*)
    };
}

/// There are none.
#[cfg(not(target_feature = "f"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __riscv_floats {
    ($do:ident) => {
        ""
    };
}

/// Stores or loads a floating-point register of eight bytes.
#[cfg(target_feature = "d")]
#[doc(hidden)]
#[macro_export]
macro_rules! __riscv_float {
    (fcsr $do:ident) => { $crate::__riscv_word!($do "t0, ", "18*{word}+160(sp)\n") };
    (store $register:literal $index:literal) => { concat!("fsd ", $register, ", 18*{word}+8*", $index, "(sp)\n") };
    (load $register:literal $index:literal) => { concat!("fld ", $register, ", 18*{word}+8*", $index, "(sp)\n") };
}

/// Stores or loads a floating-point register of four bytes.
#[cfg(all(target_feature = "f", not(target_feature = "d")))]
#[doc(hidden)]
#[macro_export]
macro_rules! __riscv_float {
    (fcsr $do:ident) => { $crate::__riscv_word!($do "t0, ", "18*{word}+80(sp)\n") };
    (store $register:literal $index:literal) => { concat!("fsw ", $register, ", 18*{word}+4*", $index, "(sp)\n") };
    (load $register:literal $index:literal) => { concat!("flw ", $register, ", 18*{word}+4*", $index, "(sp)\n") };
}
