//! The same without texts for people.

#![no_std]
#![no_main]

use bench_firmware::served;
use cortex_m_rt::entry;

picoprof::cortex_m_tick!(SysTick => served::on_tick);

#[entry]
fn main() -> ! {
    served::run::<false>()
}
