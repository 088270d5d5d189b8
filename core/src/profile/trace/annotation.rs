//! What a program says of itself in a trace: tasks, regions and logs, as Go's `runtime/trace` has them.

#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use heapless::String;
use portable_atomic::{AtomicU32, Ordering};

use super::event::Event;
use super::{is_on, record, record_with};

/// The longest message of a [`log`], in bytes, before what a buffer holds cuts it further.
const MAX_MESSAGE: usize = 256;

/// What a program does for one request, say: across threads and tasks, for as long as this lives.
///
/// It is one of those that `go tool trace` lists under "User-defined tasks", with all its regions and logs. One that begins
/// while nothing is recorded is no part of any trace.
///
/// ```
/// let request = picoprof::trace::task("request");
/// request.region("parse", || {
///     // …
/// });
/// request.log("http", format_args!("GET {}", "/index"));
/// ```
#[derive(Debug)]
#[must_use = "a task lasts for as long as this lives"]
pub struct Task {
    /// 0 if nothing was recorded when it began.
    id: u32,
}

/// Begins a [`Task`] with this name.
pub fn task(name: &'static str) -> Task {
    Task::begin(name, 0)
}

impl Task {
    fn begin(name: &'static str, parent: u32) -> Self {
        if !is_on() {
            return Self { id: 0 };
        }
        let id = next_id();
        record_with(Event::user_task_began(id, parent), name, "");
        Self { id }
    }

    /// Begins a task that is a part of this one.
    pub fn task(&self, name: &'static str) -> Self {
        Self::begin(name, self.id)
    }

    /// Runs `f` as a [region] of this task.
    #[inline]
    pub fn region<R>(&self, name: &'static str, f: impl FnOnce() -> R) -> R {
        let _region = self.begin_region(name);
        f()
    }

    /// Begins a region of this task: for code that is no closure, such as what awaits.
    #[inline]
    pub fn begin_region(&self, name: &'static str) -> Region {
        Region::begin(name, self.id)
    }

    /// Logs a message of this task.
    pub fn log(&self, category: &'static str, message: impl fmt::Display) {
        log_of(self.id, category, &message);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.id != 0 {
            record(|| Event::user_task_ended(self.id));
        }
    }
}

/// A part of what a task or thread does, from when it is made until it is dropped.
///
/// It belongs to whoever begins it. Regions that end in another order than they should, or elsewhere, do no harm: in the trace
/// one that contains others ends with the last of them.
#[derive(Debug)]
#[must_use = "a region lasts for as long as this lives"]
pub struct Region {
    /// 0 if nothing was recorded when it began.
    id: u32,
}

/// Runs `f` as a region of what the calling task or thread does.
///
/// ```
/// let sum = picoprof::trace::region("sum", || (1..100).sum::<u32>());
/// assert_eq!(sum, 4950);
/// ```
#[inline]
pub fn region<R>(name: &'static str, f: impl FnOnce() -> R) -> R {
    let _region = Region::new(name);
    f()
}

impl Region {
    /// Begins one outside of any [`Task`]: for code that is no closure, such as what awaits.
    #[inline]
    pub fn new(name: &'static str) -> Self {
        Self::begin(name, 0)
    }

    #[inline]
    fn begin(name: &'static str, task: u32) -> Self {
        let id = if is_on() {
            let id = next_id();
            record_with(Event::region_began(id, task), name, "");
            id
        } else {
            0
        };
        Self { id }
    }
}

impl Drop for Region {
    #[inline]
    fn drop(&mut self) {
        if self.id != 0 {
            record(|| Event::region_ended(self.id));
        }
    }
}

/// Logs a message of what the calling task or thread does; up to 256 bytes of it, as far as a buffer has room.
///
/// ```
/// picoprof::trace::log("cache", format_args!("{} entries dropped", 5));
/// ```
pub fn log(category: &'static str, message: impl fmt::Display) {
    log_of(0, category, &message);
}

fn log_of(task: u32, category: &'static str, message: &dyn fmt::Display) {
    if !is_on() {
        return;
    }
    let mut text = Message(String::new());
    // What doesn't fit is cut off.
    let _ = write!(text, "{message}");
    record_with(Event::log(task), category, &text.0);
}

struct Message(String<MAX_MESSAGE>);

impl Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.0.capacity() - self.0.len();
        let fits = super::name::clipped(text, room);
        // It fits.
        let _ = self.0.push_str(fits);
        if fits.len() < text.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

/// A number that no other region or task has, for as long as anybody looks at it; never 0.
fn next_id() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    loop {
        let id = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if id != 0 {
            return id;
        }
    }
}
