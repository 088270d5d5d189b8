//! The flight recorder: what happened last, at once, from inside the program.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use picoprof::encode::trace::{Filled, Span, TraceEncoder, TraceError};
use picoprof::trace;

use super::host;
use crate::host::{Host, Options};
use crate::{interposed, tracer};

/// Records all the time what a trace shows, in memory of fixed size, for as long as this lives.
///
/// `trace?flight=1` answers what happened last, as much as 8 MB hold: of a busy server a second or so, of one that waits
/// minutes. [`save`](Self::save) writes it to a file, from where it is known that something went wrong.
///
/// ```
/// use picoprof_std::FlightRecorder;
///
/// # let path = std::env::temp_dir().join(format!("picoprof-doc-{}.trace", std::process::id()));
/// # let file = path.clone();
/// let _recorder = FlightRecorder::start();
/// let others = std::panic::take_hook();
/// std::panic::set_hook(Box::new(move |panic| {
///     let _ = FlightRecorder::save(&path);
///     others(panic);
/// }));
/// # let _ = std::thread::spawn(|| panic!("as an example")).join();
/// # assert!(std::fs::read(&file).unwrap().starts_with(b"go 1.22 trace"));
/// # std::fs::remove_file(file).unwrap();
/// ```
#[derive(Debug)]
#[must_use = "it records for as long as it lives"]
pub struct FlightRecorder {
    _on: trace::FlightRecorder,
}

impl FlightRecorder {
    /// Starts to record; `None` if that goes on already.
    ///
    /// Takes some 10 ms the first time, as the clock is measured.
    pub fn start() -> Option<Self> {
        tracer::see_tasks();
        host::prepare();
        trace::FlightRecorder::begin().map(|on| Self { _on: on })
    }

    /// Whether it records.
    #[must_use]
    pub fn is_on() -> bool {
        trace::FlightRecorder::is_on()
    }

    /// Writes what is recorded, as `go tool trace` reads it. Recording goes on.
    ///
    /// It is for ordinary code, be it a panic's hook: it allocates, and looks up the names of functions. What the calling
    /// thread itself waits for meanwhile is no part of any trace.
    ///
    /// # Errors
    ///
    /// `NotConnected` if it doesn't record; `WouldBlock` on a thread that is at it already, or on one of this crate's own, as in the hook of a
    /// panic there; and those of `out`.
    pub fn write_to(out: &mut impl Write) -> io::Result<()> {
        if interposed::is_unseen() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        interposed::while_unseen(|| write_all(out))
    }

    /// The same into a file with this path, which is made anew.
    ///
    /// # Errors
    ///
    /// Those of [`write_to`](Self::write_to), and of making the file.
    pub fn save(path: impl AsRef<Path>) -> io::Result<()> {
        if !Self::is_on() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Self::write_to(&mut File::create(path)?)
    }
}

fn write_all(out: &mut impl Write) -> io::Result<()> {
    let host = Host::new(Options::default());
    let mut encoder = TraceEncoder::new(&host, Span::Flight).map_err(|error| match error {
        TraceError::Unavailable | TraceError::NotRecording => io::ErrorKind::NotConnected,
        TraceError::AlreadyEnabled => io::ErrorKind::ResourceBusy,
        TraceError::NoMemory => io::ErrorKind::OutOfMemory,
    })?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match encoder.fill(&mut buffer, true) {
            Filled::Wrote(n) => out.write_all(buffer.get(..n).unwrap_or_default())?,
            // All of it is over.
            Filled::Nothing | Filled::Done => return out.flush(),
        }
    }
}
