//! The shim of a Cortex-M's exception handler.

#![forbid(unsafe_code)]

/// Defines the handler of a Cortex-M exception, which calls a `fn(Registers)` with the [registers] that the interrupted
/// code had: `picoprof::cortex_m_tick!(SysTick => on_tick);`
///
/// The name is the exception's or the interrupt's in the vector table, as `cortex-m-rt` has it. It is for all of Armv6-M to
/// Armv8-M, for code on either stack. The walk from these registers has the interrupted function as its first entry; a walk from
/// within the handler passes through it ([`walk_frame_pointers`]).
///
/// Some ten instructions beside what the processor does. The whole program must be compiled with
/// `-Cforce-frame-pointers=yes`.
///
/// [registers]: crate::stack::capture::Registers
/// [`walk_frame_pointers`]: crate::stack::capture::walk_frame_pointers
///
/// ```ignore
/// static SAMPLER: Sampler<16> = Sampler::new();
///
/// picoprof::cortex_m_tick!(SysTick => on_tick);
///
/// fn on_tick(interrupted: Registers) {
///     SAMPLER.tick(interrupted, main_stack(), STACKS.view(), CPU.view(), 0);
/// }
/// ```
#[macro_export]
macro_rules! cortex_m_tick {
    ($exception:ident => $handler:path) => {
        const _: () = {
            // SAFETY: the vector table has this name for the handler of an exception, and it is one: it keeps the registers
            // that a procedure must keep, and returns to where lr says. A second one of this name is an error at link time.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            extern "C" fn $exception() {
                // At the top of the stack that bit 2 of lr tells: r0 to r3, r12, lr, pc, xPSR of what was interrupted
                // (Armv7-M manual B1.5.6 and B1.5.8). The frame record {r7, lr} leads a walk there.
                ::core::arch::naked_asm!(
                    "mrs r3, msp",
                    "mov r2, lr",
                    "lsls r2, r2, #29",
                    "bpl 2f",
                    "mrs r3, psp",
                    "2:",
                    "ldr r0, [r3, #24]",
                    "adds r3, #32",
                    "mov r1, r3",
                    "mov r2, r7",
                    "push {{r7, lr}}",
                    "add r7, sp, #0",
                    "bl {handler}",
                    "pop {{r7, pc}}",
                    handler = sym handler,
                )
            }

            extern "C" fn handler(pc: usize, sp: usize, fp: usize) {
                let handler: fn($crate::stack::capture::Registers) = $handler;
                handler($crate::stack::capture::Registers { pc, sp, fp });
            }
        };
    };
}
