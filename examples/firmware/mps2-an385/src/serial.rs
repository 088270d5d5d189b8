//! Profiles over the UART.

#![forbid(unsafe_code)]

use core::future::Future;

use embassy_time::{Duration, Timer};
use picoprof::Instant;
use picoprof::http::Connection;
use picoprof::transport::{AsyncClock, serve_async};

use crate::clock;
use crate::profiler::PROFILER;
use crate::uart::{Gone, Uart};

/// Serves one connection after another, for ever: the body of a task.
pub async fn serve(mut uart: Uart) {
    loop {
        let mut connection = Connection::<_, 1024>::new(&PROFILER).without_keep_alive();
        let served = serve_async(&mut connection, &mut uart, &mut Clock, &mut [0; 256]).await;
        if let Err(Gone) = served {
            defmt::info!("a client on the serial line has gone");
            uart.reset();
        }
    }
}

/// The clock, by `embassy-time`.
struct Clock;

impl AsyncClock for Clock {
    fn now(&mut self) -> Instant {
        clock::now()
    }

    fn wait_until(&mut self, time: Instant) -> impl Future<Output = ()> {
        let nanos = time.since(clock::now()).as_nanos();
        // Up, so that it's not too early.
        let micros = u64::try_from(nanos.div_ceil(1_000)).unwrap_or(u64::MAX);
        Timer::after(Duration::from_micros(micros))
    }
}
