//! What the encoder of a trace asks this process.

#![forbid(unsafe_code)]

use core::fmt;
use std::fs;

use picoprof::trace::{Limits, Stream, Trace, TraceHost};

use super::{TRACE, clock, names, reclaim};
use crate::{current, stack_bounds, unwind};

/// 11 MB if all of it is used.
const LIMITS: Limits = Limits {
    goroutines: 1 << 16,
    // Twice as many as there are buffers, and so threads in what the flight recorder has.
    streams: 1 << 12,
    stacks: 1 << 14,
    names: 1 << 12,
    regions: 1 << 14,
    pieces: 256,
    piece_bytes: 1 << 14,
};

/// This process, as far as it is traced.
#[derive(Debug)]
pub(crate) struct ThisProcess;

impl TraceHost for ThisProcess {
    fn buffers(&self) -> Trace<'static> {
        TRACE
    }

    fn ticks(&self) -> u64 {
        clock::ticks()
    }

    fn ticks_per_second(&self) -> u64 {
        clock::ticks_per_second()
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn stream_name(&self, stream: u32, name: &mut dyn fmt::Write) -> fmt::Result {
        let thread = stream & !Stream::SAMPLES;
        if thread == std::process::id() {
            // As Rust calls it; the kernel has the program's name for it.
            return name.write_str("main");
        }
        match fs::read(format!("/proc/self/task/{thread}/comm")) {
            Ok(comm) => {
                let text = comm.strip_suffix(b"\n").unwrap_or(&comm);
                let mut valid = text.utf8_chunks().map(|chunk| chunk.valid());
                valid.try_for_each(|part| name.write_str(part))
            }
            Err(_) => names::write(thread, name),
        }
    }

    fn refresh(&self) {
        prepare();
        reclaim::refresh();
    }
}

/// Sees to it that what events are recorded with is there, and as new as what they are about. Ordinary context.
pub(super) fn prepare() {
    current::look_where_it_is();
    // Without the tables an event has no stack, and without the list one of a thread that nobody saw begin has one frame.
    unwind::refresh();
    stack_bounds::refresh();
    clock::ticks_per_second();
}
