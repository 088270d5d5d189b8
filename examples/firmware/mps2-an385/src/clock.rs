//! The time: a timer that counts on whatever the program does, and one that wakes tasks.

#![forbid(unsafe_code)]

use core::cell::RefCell;
use core::task::Waker;

use core::sync::atomic::{AtomicU32, Ordering};
use critical_section::Mutex;
use embassy_time_driver::Driver;
use embassy_time_queue_utils::Queue;
use picoprof::Instant;

use crate::registers::Register;

/// The clock of the core, and of all timers.
pub const CORE_HZ: u32 = 25_000_000;

const CYCLES_PER_MICRO: u64 = CORE_HZ as u64 / 1_000_000;
const NANOS_PER_CYCLE: u64 = 1_000_000_000 / CORE_HZ as u64;

/// How often the counter went past half of its range.
static HALVES: AtomicU32 = AtomicU32::new(0);

/// Begins to count.
pub fn start() {
    Register::DualTimerLoad.write(u32::MAX);
    // Enabled, free-running, 32 bits, each cycle counts, no interrupt.
    Register::DualTimerControl.write(0x82);
}

/// Extends the counter: to be called by one interrupt, oftener than the counter takes for half of its range, which is
/// 85 seconds.
pub fn on_tick() {
    let halves = HALVES.load(Ordering::Relaxed);
    if counter() >> 31 != halves & 1 {
        HALVES.store(halves.wrapping_add(1), Ordering::Release);
    }
}

/// Cycles since [`start`]. May be called in any interrupt: no lock.
pub fn cycles() -> u64 {
    // Before the counter: that may go past half a range between the two, and then the lowest bit tells.
    let halves = HALVES.load(Ordering::Acquire);
    let beyond = counter() ^ ((halves & 1) << 31);
    (u64::from(halves) << 31) + u64::from(beyond)
}

/// The time as profiles and connections know it.
pub fn now() -> Instant {
    Instant::from_nanos(cycles() * NANOS_PER_CYCLE)
}

/// Microseconds since [`start`].
pub fn micros() -> u64 {
    cycles() / CYCLES_PER_MICRO
}

fn counter() -> u32 {
    // It counts down.
    !Register::DualTimerValue.read()
}

/// `embassy-time` by these timers.
struct Alarms {
    queue: Mutex<RefCell<Queue>>,
}

embassy_time_driver::time_driver_impl!(static ALARMS: Alarms = Alarms {
    queue: Mutex::new(RefCell::new(Queue::new())),
});

impl Driver for Alarms {
    fn now(&self) -> u64 {
        micros()
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|cs| {
            let mut queue = self.queue.borrow_ref_mut(cs);
            if queue.schedule_wake(at, waker) {
                set_alarm(&mut queue);
            }
        });
    }
}

/// Wakes those whose time has come.
pub fn on_alarm() {
    Register::Timer0Interrupt.write(1);
    critical_section::with(|cs| set_alarm(&mut ALARMS.queue.borrow_ref_mut(cs)));
}

/// Wakes those whose time has come, and sets the timer for who is next.
fn set_alarm(queue: &mut Queue) {
    Register::Timer0Control.write(0);
    let now = micros();
    let next = queue.next_expiration(now);
    if next == u64::MAX {
        return;
    }
    // One that is far off is looked for again on the way.
    let cycles = next.saturating_sub(now).saturating_mul(CYCLES_PER_MICRO);
    let cycles = u32::try_from(cycles).unwrap_or(u32::MAX).max(1);
    Register::Timer0Reload.write(cycles);
    Register::Timer0Value.write(cycles);
    // Enabled, with its interrupt.
    Register::Timer0Control.write(0b1001);
}
