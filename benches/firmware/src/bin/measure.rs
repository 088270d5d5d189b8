//! What is measured by running it, in QEMU with a clock that counts instructions: `NAME VALUE` lines.

#![no_std]
#![no_main]

use core::hint::black_box;

use bench_firmware::sampled::{
    self, BLOCKS, CALLS, CPU, DEPTH, LOCATIONS, ROWS, SAMPLER, STACKS, WORDS,
};
use bench_firmware::served::{Firmware, TASKS_AT_ONCE};
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{SCB, SYST};
use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};
use picoprof::http::Connection;
use picoprof::profile::buckets::{Buckets, RowId};
use picoprof::profile::task::TaskPool;
use picoprof::stack::{StackId, StackTable};

picoprof::cortex_m_tick!(SysTick => sampled::on_tick);

/// Samples of each measurement.
const SAMPLES: u32 = 10_000;

/// Instructions in a tick of the timer: QEMU counts one a nanosecond, and the timer goes at 12.5 MHz.
const INSTRUCTIONS: u32 = 80;

/// The frames of a sample.
const FRAMES: usize = 8;

/// Bytes of a request's head that a connection keeps.
const HEAD: usize = 256;

#[entry]
fn main() -> ! {
    if let Some(cortex) = cortex_m::Peripherals::take() {
        let mut timer = cortex.SYST;
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(0x00ff_ffff);
        timer.clear_current();
        timer.enable_counter();
        SAMPLER.start();
        hprintln!("same_instructions {}", one_sample([descend_here; 2]));
        hprintln!(
            "half_instructions {}",
            one_sample([descend_here, descend_there])
        );
        memory();
        stacks();
    }
    debug::exit(debug::EXIT_SUCCESS);
    loop {
        cortex_m::asm::wfi();
    }
}

/// The instructions of a sample, from the handler's first to its last: half of the samples are of one stack, half of the
/// other.
#[inline(never)]
fn one_sample(stacks: [fn(u32, bool); 2]) -> u32 {
    CPU.view().clear();
    let without = run(stacks, false);
    let with = run(stacks, true);
    let mut counted = 0;
    for row in CPU.view().rows() {
        let stack = CPU.view().key(row).map(|(stack, _)| stack);
        expect(
            "frames",
            FRAMES,
            stack.map_or(0, |stack| STACKS.view().frames(stack).count()),
        );
        counted += CPU.view().values(row)[0] as usize;
    }
    expect("samples", SAMPLES as usize, counted);
    (with - without) * INSTRUCTIONS / SAMPLES
}

/// Timer ticks that it takes, with the samples or without.
#[inline(never)]
fn run(stacks: [fn(u32, bool); 2], samples: bool) -> u32 {
    let start = SYST::get_current();
    for _ in 0..SAMPLES / 2 {
        for descend in stacks {
            descend(2, samples);
        }
    }
    // It counts down.
    start.wrapping_sub(SYST::get_current()) & 0x00ff_ffff
}

/// A sample, so many frames further down, or the same without one.
#[inline(never)]
fn descend_here(frames: u32, samples: bool) {
    if frames > 0 {
        descend_here(frames - 1, samples);
    } else {
        interrupt(samples);
    }
    // Not the last thing, or there would be no frame.
    black_box("here");
}

/// Another place to be at.
#[inline(never)]
fn descend_there(frames: u32, samples: bool) {
    if frames > 0 {
        descend_there(frames - 1, samples);
    } else {
        interrupt(samples);
    }
    black_box("there");
}

#[inline(always)]
fn interrupt(samples: bool) {
    /// The timer's exception becomes pending.
    const PENDSTSET: u32 = 1 << 26;
    // SAFETY: the register is there on every Cortex-M, and each of its bits can be written at any time.
    let register = unsafe { &(*SCB::PTR).icsr };
    // SAFETY: zeros do nothing, and this bit does what the timer's end would.
    unsafe { register.write(if samples { PENDSTSET } else { 0 }) };
    cortex_m::asm::isb();
}

/// What picoprof's own RAM is: `user_bytes` of the statics are tables, whose sizes are the program's to say.
fn memory() {
    let tables = [
        4 * LOCATIONS,
        4 * CALLS,
        // A key each, and eight bytes for each counter; the four kinds have six.
        4 * 4 * ROWS + 6 * 8 * ROWS,
        size_of::<TaskPool<{ 2 * TASKS_AT_ONCE }>>() - size_of::<TaskPool<TASKS_AT_ONCE>>(),
        16 * DEPTH,
        8 * BLOCKS * WORDS,
    ];
    hprintln!("user_bytes {}", tables.iter().sum::<usize>());
    hprintln!(
        "connection_bytes {}",
        size_of::<Connection<'_, Firmware<true>, HEAD>>() - HEAD
    );
}

/// Counts stacks of eight frames until one finds no room. The outer half is that of fifteen others.
fn stacks() {
    static STACKS: StackTable<1024, 1024> = StackTable::new();
    static ROWS: Buckets<256, 1> = Buckets::new();
    let bytes = size_of_val(&STACKS) + size_of_val(&ROWS);
    for number in 0.. {
        let mut pcs = [0; FRAMES];
        let (own, shared) = pcs.split_at_mut(FRAMES / 2);
        for (depth, pc) in shared.iter_mut().enumerate() {
            *pc = 0x2_0000 + (number / 16 * 4 + depth) * 20;
        }
        for (depth, pc) in own.iter_mut().enumerate() {
            *pc = 0x1_0000 + (number * 4 + depth) * 14;
        }
        let stack = STACKS.view().intern(&pcs, None);
        if stack == StackId::LOST || ROWS.view().add(stack, 0, &[1]) == RowId::LOST {
            let [(locations, _), (calls, _)] = STACKS.view().usage();
            // A row is a key and a counter.
            let used = 4 * (locations + calls) + 12 * ROWS.view().len();
            hprintln!("stacks {}", number);
            hprintln!("used_bytes {}", used);
            hprintln!("table_bytes {}", bytes);
            break;
        }
    }
}

fn expect(what: &str, expected: usize, found: usize) {
    if expected != found {
        hprintln!("{} {}, not {}", found, what, expected);
        debug::exit(debug::EXIT_FAILURE);
    }
}
