//! Firmware on machines in QEMU: every endpoint, as its users get at it.
//!
//! Machines are slow and shared, so counts have least values, and are compared with what the guest counted.

#![forbid(unsafe_code)]

/// A test on each machine.
macro_rules! on_each_machine {
    ($($test:ident),* $(,)?) => { on_machines! {
        lm3s6965evb: Lm3s6965evb [$($test),*],
        mps2_an385: Mps2An385 [$($test),*],
        riscv_virt: RiscvVirt [$($test),*],
    } };
}

/// Tests on some machines.
macro_rules! on_machines {
    ($($name:ident: $machine:ident $tests:tt),* $(,)?) => { $(
        mod $name {
            on_machines! { @ $machine $tests }
        }
    )* };
    (@ $machine:ident [$($test:ident),*]) => { $(
        #[test]
        fn $test() {
            super::$test(picoprof_tests::guest::Machine::$machine);
        }
    )* };
}

mod in_qemu;
