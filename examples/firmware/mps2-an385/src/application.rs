//! What is behind port 7.

#![forbid(unsafe_code)]

use core::fmt;

use cortex_m_semihosting::debug;
use firmware_common::protocol::Board;
use firmware_common::work::Worker;

use crate::profiler::PROFILER;
use crate::{archive, benchmark, corrupt, heap, sensor};

/// This board.
pub struct Mps2;

impl Board for Mps2 {
    fn stats(&self, worker: &Worker, answer: &mut dyn fmt::Write) -> fmt::Result {
        let (tick, archive) = (PROFILER.counts(), archive::counts());
        let (measured, unheard) = sensor::counts();
        write!(
            answer,
            " ticks={} samples={} idle={} tasks={} lost={}",
            tick.ticks,
            tick.samples,
            tick.idle,
            PROFILER.tasks_alive(),
            PROFILER.lost(),
        )?;
        write!(
            answer,
            " masked={} masked_us={} blocked={} blocked_us={}",
            archive.masked, archive.masked_micros, archive.blocked, archive.blocked_micros,
        )?;
        write!(
            answer,
            " allocs={} frees={} live={} heap={} readings={} measured={measured} unheard={unheard}",
            archive.allocs,
            archive.frees,
            archive.live_bytes,
            heap::used(),
            worker.readings(),
        )
    }

    fn corrupt(&self) {
        corrupt::run();
    }

    fn grow(&self, count: u32) -> bool {
        benchmark::grow(count as usize);
        true
    }

    fn exit(&self) -> ! {
        defmt::info!("asked to exit");
        loop {
            debug::exit(debug::EXIT_SUCCESS);
        }
    }
}
