//! Interrupts of the hart that runs this, and between harts.

#![allow(unsafe_code)]

use picoprof::interrupt::wait_for_interrupt_masked;
use riscv::register::{mhartid, mie, mip, mstatus, mtvec};

use crate::registers::Register32;

/// `mcause` of an interrupt.
const INTERRUPT: usize = 1 << (usize::BITS - 1);
/// From another hart, or itself: [`send`].
pub const SOFTWARE: usize = INTERRUPT | 3;
/// The [`timer`](crate::timer)'s.
pub const TIMER: usize = INTERRUPT | 7;
/// A device's: [`claim`].
pub const EXTERNAL: usize = INTERRUPT | 11;

/// The number of the hart that runs this.
#[must_use]
#[inline]
pub fn hart() -> usize {
    mhartid::read()
}

/// Where this hart goes on a trap.
///
/// # Safety
///
/// The function must be a trap entry: it keeps all registers and ends with `mret`.
///
/// # Panics
///
/// If its address is no multiple of 4.
pub unsafe fn set_trap_entry(entry: unsafe extern "C" fn()) {
    let entry = entry as *const () as usize;
    assert!(entry.is_multiple_of(4));
    // SAFETY: the caller says that it is a trap entry; the address is aligned as direct mode wants it.
    unsafe { mtvec::write(mtvec::Mtvec::new(entry, mtvec::TrapMode::Direct)) }
}

/// Which interrupts this hart takes while they are not masked.
#[derive(Clone, Copy, Debug)]
pub struct Enabled {
    /// Those of devices.
    pub external: bool,
    /// Those of other harts.
    pub software: bool,
    /// The timer's.
    pub timer: bool,
}

/// Sets which interrupts this hart takes; answers which it took.
pub fn set_enabled(enabled: Enabled) -> Enabled {
    let mut mie = mie::read();
    let was = Enabled {
        external: mie.mext(),
        software: mie.msoft(),
        timer: mie.mtimer(),
    };
    mie.set_mext(enabled.external);
    mie.set_msoft(enabled.software);
    mie.set_mtimer(enabled.timer);
    // SAFETY: which of them are let in is no matter of soundness as long as the trap entry stands; critical sections
    // mask all of them, in mstatus.
    unsafe { mie::write(mie) };
    was
}

/// Whether the timer's interrupt is due on this hart.
#[must_use]
pub fn is_timer_pending() -> bool {
    mip::read().mtimer()
}

/// Masks all interrupts of this hart; answers whether they were let in.
#[inline]
pub fn mask() -> bool {
    let was_unmasked = mstatus::read().mie();
    riscv::interrupt::disable();
    was_unmasked
}

/// Lets interrupts in on this hart.
///
/// # Safety
///
/// A trap entry must be set, and the caller must be in nothing that needs them masked.
#[inline]
pub unsafe fn unmask() {
    // SAFETY: the caller's promise.
    unsafe { riscv::interrupt::enable() }
}

/// Runs `f` with the interrupts of this hart masked.
#[inline]
pub fn with_masked<R>(f: impl FnOnce() -> R) -> R {
    let was_unmasked = mask();
    let result = f();
    if was_unmasked {
        // SAFETY: they were let in before.
        unsafe { unmask() };
    }
    result
}

/// Waits for an interrupt and lets it in, unless there is something to do already; for a hart's outermost loop. What an
/// interrupt leaves to be done is seen by `is_busy`, or ends the wait.
pub fn sleep_unless(is_busy: impl FnOnce() -> bool) {
    mask();
    if is_busy() {
        // SAFETY: the outermost loop is in nothing that needs them masked; without a trap entry none is enabled.
        unsafe { unmask() };
    } else {
        // SAFETY: the same.
        unsafe { wait_for_interrupt_masked() };
    }
}

/// Lets interrupts in while an interrupt handler runs, of these kinds only.
pub fn nest<R>(enabled: Enabled, handler: impl FnOnce() -> R) -> R {
    let was = set_enabled(enabled);
    // SAFETY: a handler runs, so there's a trap entry, which saves all that a nested trap changes; and a handler begins
    // outside of critical sections, as these mask it.
    unsafe { unmask() };
    let result = handler();
    mask();
    set_enabled(was);
    result
}

/// Interrupts a hart, if it lets software's interrupts in.
pub fn send(hart: usize) {
    msip(hart).write(1);
}

/// Ends the software's interrupt of this hart.
pub fn receive() {
    msip(hart()).write(0);
}

fn msip(hart: usize) -> Register32 {
    Register32::at(0x200_0000 + 4 * hart)
}

const PLIC: usize = 0xc00_0000;

/// Sends the interrupts of a device to a hart.
pub fn route(source: u32, hart: usize) {
    Register32::at(PLIC + 4 * source as usize).write(1);
    let (word, bit) = (source as usize / 32, source % 32);
    // Each hart has two contexts: machine mode's, and supervisor mode's.
    let enable = Register32::at(PLIC + 0x2000 + 0x80 * 2 * hart + 4 * word);
    enable.write(enable.read() | 1 << bit);
    Register32::at(PLIC + 0x20_0000 + 0x1000 * 2 * hart).write(0);
}

/// The device that interrupted this hart. It doesn't again until [`complete`].
#[must_use]
pub fn claim() -> Option<u32> {
    let source = claim_register().read();
    (source != 0).then_some(source)
}

/// Ends the interrupt of a device.
pub fn complete(source: u32) {
    claim_register().write(source);
}

fn claim_register() -> Register32 {
    Register32::at(PLIC + 0x20_0004 + 0x1000 * 2 * hart())
}
