//! Embassy's executor in a loop of our own, whose sleep samplers recognise.

#![allow(unsafe_code)]

use core::sync::atomic::{AtomicBool, Ordering};

use embassy_executor::Spawner;
use embassy_executor::raw::Executor;
use picoprof::interrupt::wait_for_interrupt_masked;

use crate::trace;

/// Whether a task was woken since the executor last looked.
static IS_WOKEN: AtomicBool = AtomicBool::new(false);

/// What embassy calls when a task is woken, be it in an interrupt.
// SAFETY: this is the name and the type that embassy has for it.
#[unsafe(export_name = "__pender")]
fn on_wake(_context: *mut ()) {
    IS_WOKEN.store(true, Ordering::Release);
}

/// Runs tasks for ever.
pub fn run(executor: &'static Executor, spawn: impl FnOnce(Spawner)) -> ! {
    spawn(executor.spawner());
    loop {
        // SAFETY: this is the only place that polls it, and nothing that is polled comes here: it has one caller, `main`.
        unsafe { executor.poll() };
        cortex_m::interrupt::disable();
        if IS_WOKEN.load(Ordering::Acquire) {
            IS_WOKEN.store(false, Ordering::Relaxed);
            // SAFETY: they were on before, and this is no critical section.
            unsafe { cortex_m::interrupt::enable() };
        } else {
            trace::idle(|| {
                // SAFETY: as above.
                unsafe { wait_for_interrupt_masked() };
            });
        }
    }
}
