//! The sampler and its tables, and the timer whose interrupt samples.

use core::ptr::addr_of;

use cortex_m::peripheral::syst::SystClkSource;
use picoprof::profile::buckets::Buckets;
use picoprof::profile::cpu::Sampler;
use picoprof::scratch::{ScratchPool, words_for};
use picoprof::stack::StackTable;
use picoprof::stack::capture::{Registers, StackBounds};

/// Code addresses in the stack table.
pub const LOCATIONS: usize = 256;
/// Calls in it.
pub const CALLS: usize = 512;
/// Frames of a sample at the most.
pub const DEPTH: usize = 16;
/// Rows of each table of counters.
pub const ROWS: usize = 64;
/// Words of a block of memory for responses.
pub const WORDS: usize = 32;
/// For one client at a time.
pub const BLOCKS: usize = words_for(LOCATIONS, ROWS, 2).div_ceil(WORDS) + 3;

pub static STACKS: StackTable<LOCATIONS, CALLS> = StackTable::new();
pub static CPU: Buckets<ROWS, 1> = Buckets::new();
pub static SAMPLER: Sampler<DEPTH> = Sampler::new();
pub static SCRATCH: ScratchPool<BLOCKS, WORDS> = ScratchPool::new();

/// Starts the timer: 1 kHz.
pub fn start_timer() {
    // SAFETY: nobody else uses the timer. `take` would mask interrupts, which is what is looked for.
    let mut timer = unsafe { cortex_m::Peripherals::steal() }.SYST;
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(12_500 - 1);
    timer.enable_counter();
    timer.enable_interrupt();
}

/// What the timer's handler does.
pub fn on_tick(interrupted: Registers) {
    SAMPLER.tick(interrupted, main_stack(), STACKS.view(), CPU.view(), 0);
}

fn main_stack() -> StackBounds {
    unsafe extern "C" {
        static __sheap: u8;
        static _stack_start: u8;
    }
    let (low, high) = (addr_of!(__sheap) as usize, addr_of!(_stack_start) as usize);
    // SAFETY: with cortex-m-rt that is the RAM behind the statics, up to its end.
    unsafe { StackBounds::new(low, high) }
}
