//! The work that is measured of locks: `std::sync::Mutex`, contended and not.

use core::mem;
use std::sync::{Barrier, Mutex};
use std::thread;

use crate::{meter, print};

/// Runs the work of a mode.
///
/// * `lock-free`: nobody else wants it.
/// * `lock`: each has to wait for it.
pub fn run(mode: &str, times: usize) {
    const ROUNDS: usize = 20;
    if mode == "lock-free" {
        return uncontended(times);
    }
    share_one_cpu();
    let rounds = (0..ROUNDS).map(|_| contended(times / ROUNDS));
    print("ns", rounds.fold(f64::INFINITY, f64::min));
}

static LOCKS: [Mutex<u64>; 3] = [const { Mutex::new(0) }; 3];

/// Takes a free lock, so many times.
fn uncontended(times: usize) {
    for _ in 0..times {
        *LOCKS[0].lock().expect("nobody panics") += 1;
    }
}

/// Nanoseconds of CPU time for each wait and its wake, of so many.
///
/// Two threads on one CPU chase each other around three locks. Each holds one and wants the next, which is the one that
/// the other holds, or has just been waiting for: so each lock is waited for, and each unlock wakes.
fn contended(times: usize) -> f64 {
    let start = Barrier::new(2);
    let chase = |first: usize| {
        let mut held = LOCKS[first].lock().expect("nobody panics");
        start.wait();
        for step in first..first + times / 2 {
            *held += 1;
            // What was held is freed when the next one is there.
            held = LOCKS[(step + 1) % 3].lock().expect("nobody panics");
        }
    };
    let begin = (meter::process_cpu_ms(), meter::waits());
    thread::scope(|scope| {
        scope.spawn(|| chase(1));
        chase(0);
    });
    let waits = meter::waits() - begin.1;
    assert!(waits * 2 > times as i64, "{waits} of {times}");
    (meter::process_cpu_ms() - begin.0) * 1e6 / waits as f64
}

/// Binds this thread, and those that it creates, to one CPU, where a thread that is woken waits for the one that runs.
fn share_one_cpu() {
    // SAFETY: all zeros is a value of the type.
    let mut cpus: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: it has no conditions.
    let cpu = unsafe { libc::sched_getcpu() };
    // SAFETY: the number is that of a CPU, so in the set.
    unsafe { libc::CPU_SET(cpu.max(0) as usize, &mut cpus) };
    // SAFETY: the pointer is to a local of that size.
    unsafe { libc::sched_setaffinity(0, size_of_val(&cpus), &raw const cpus) };
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a local.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
}
