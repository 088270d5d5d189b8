//! With HTTP and all routes.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use bench_firmware::sampled::{self, STACKS};
use bench_firmware::served::{BLOCK, Firmware, MUTEX, THREADS};
use bench_firmware::uart::{Uart, take};
use cortex_m_rt::entry;
use picoprof::Instant;
use picoprof::http::Connection;
use picoprof::stack::capture::Registers;
use picoprof::transport::{Clock, serve_blocking};

/// Milliseconds since the start.
static MILLIS: AtomicU32 = AtomicU32::new(0);

picoprof::cortex_m_tick!(SysTick => on_tick);

fn on_tick(interrupted: Registers) {
    // The only one that writes it.
    let now = MILLIS.load(Ordering::Relaxed);
    MILLIS.store(now.wrapping_add(1), Ordering::Relaxed);
    sampled::on_tick(interrupted);
}

/// Ticks.
struct Millis;

impl Clock for Millis {
    fn now(&mut self) -> Instant {
        Instant::from_millis(MILLIS.load(Ordering::Relaxed).into())
    }

    fn wait_until(&mut self, time: Instant) {
        while self.now() < time {
            picoprof::interrupt::wait_for_interrupt();
        }
    }
}

#[entry]
fn main() -> ! {
    sampled::start_timer();
    // What happens in the program, so that the compiler can't tell what the tables hold.
    let stack = STACKS.view().intern(&[usize::from(take()), 1], None);
    for rows in [THREADS.view(), BLOCK.view(), MUTEX.view()] {
        rows.add(stack, 0, &[1, u64::from(take())]);
    }
    loop {
        let mut connection = Connection::<_, 256>::new(&Firmware);
        let Ok(()) = serve_blocking(&mut connection, &mut Uart, &mut Millis, &mut [0; 64]);
    }
}
