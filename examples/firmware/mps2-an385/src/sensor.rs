//! A sensor, whose interrupt does some work of its own: it smooths what was measured, and hands it on.

#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering};
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::channel::Channel;

use crate::clock::CORE_HZ;
use crate::registers::Register;

/// Measurements in a second.
const HZ: u32 = 200;

/// Values that a measurement is made of.
const WINDOW: u32 = 256;

/// What was measured, for who keeps it.
pub static MEASURED: Channel<CriticalSectionRawMutex, Measurement, 32> = Channel::new();

/// Measurements that nobody took in time.
static LOST: AtomicU32 = AtomicU32::new(0);

/// How many there were.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// What the sensor says at a moment.
#[derive(Clone, Copy)]
pub struct Measurement {
    pub number: u32,
    pub value: i32,
}

/// Switches it on.
pub fn start() {
    Register::Timer1Reload.write(CORE_HZ / HZ);
    Register::Timer1Value.write(CORE_HZ / HZ);
    // Enabled, with its interrupt.
    Register::Timer1Control.write(0b1001);
}

/// It has measured.
pub fn on_interrupt() {
    Register::Timer1Interrupt.write(1);
    let number = COUNT.load(Ordering::Relaxed).wrapping_add(1);
    // Nobody else writes it.
    COUNT.store(number, Ordering::Relaxed);
    let value = smooth(number);
    if MEASURED.try_send(Measurement { number, value }).is_err() {
        LOST.store(
            LOST.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
    }
}

/// Measurements, and those that nobody took in time.
pub fn counts() -> (u32, u32) {
    (COUNT.load(Ordering::Relaxed), LOST.load(Ordering::Relaxed))
}

/// A sine as the converter sees it, without its noise: the middle of the values around this moment, weighted.
#[inline(never)]
fn smooth(number: u32) -> i32 {
    let sum: i32 = (0..WINDOW)
        .map(|i| convert(number.wrapping_mul(WINDOW).wrapping_add(i)) * window(i))
        .sum();
    sum / (WINDOW * WINDOW / 4) as i32
}

/// What the converter reads: a slow triangle, and noise.
fn convert(at: u32) -> i32 {
    let phase = (at >> 6 & 0x3ff) as i32;
    let triangle = if phase < 512 { phase } else { 1023 - phase };
    let noise = (at.wrapping_mul(0x9e37_79b1) >> 27) as i32 - 16;
    triangle + noise
}

/// A triangle's weight: the middle counts most.
fn window(i: u32) -> i32 {
    i.min(WINDOW - i) as i32
}
