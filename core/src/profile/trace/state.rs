//! Whether anybody wants events: the one thing that is looked at where nothing is recorded.

#![forbid(unsafe_code)]

// To load core's takes no section on any machine, as it does with portable-atomic's where there's no compare-and-swap.
#[cfg(not(loom))]
use core::sync::atomic::AtomicU8;

#[cfg(loom)]
use crate::sync::AtomicU8;
use crate::sync::{AtomicU32, Ordering, const_fn};

#[cfg(not(loom))]
static SWITCH: Switch = Switch::new();

/// Who wants events: a trace that is being taken, and the flight recorder.
#[derive(Debug)]
struct Switch {
    /// A bit for each that there is: what `users` says.
    on: AtomicU8,
    users: AtomicU32,
}

const SESSION: u32 = 1;
const FLIGHT: u32 = 2;

impl Switch {
    const_fn! {
        fn new() -> Self {
            Self {
                on: AtomicU8::new(0),
                users: AtomicU32::new(0),
            }
        }
    }

    /// True if there was no such user.
    fn begin(&self, user: u32) -> bool {
        let is_first = self.users.fetch_or(user, Ordering::AcqRel) & user == 0;
        if is_first {
            self.update();
        }
        is_first
    }

    fn end(&self, user: u32) {
        self.users.fetch_and(!user, Ordering::AcqRel);
        self.update();
    }

    /// Whoever writes `on` last has seen all changes of `users`: they are read by read-modify-writes, which come in an order
    /// with the changes.
    fn update(&self) {
        let mut users = self.users();
        loop {
            self.on.store(users as u8, Ordering::Relaxed);
            match self.users() {
                now if now == users => return,
                now => users = now,
            }
        }
    }

    fn users(&self) -> u32 {
        self.users.fetch_add(0, Ordering::AcqRel)
    }
}

/// Whether events are being recorded: a load, to be asked before an [`Event`](super::Event) is made.
#[inline]
#[must_use]
pub fn is_on() -> bool {
    // Models have no traces.
    #[cfg(loom)]
    return false;
    #[cfg(not(loom))]
    return SWITCH.on.load(Ordering::Relaxed) != 0;
}

/// A trace that is being taken, for as long as this lives: one at a time.
#[derive(Debug)]
pub(crate) struct Session {
    /// What ends it: a pointer, so that a program that begins none is without this code.
    end: fn(),
}

/// Records all the time, for as long as this lives, so that `trace?flight=1` has what happened last: as much as the
/// [buffers](super::TraceBuffers) hold.
#[derive(Debug)]
#[must_use = "it records for as long as it lives"]
pub struct FlightRecorder(());

#[cfg(loom)]
static SWITCH: NoSwitch = NoSwitch;

/// Models have no traces.
#[cfg(loom)]
struct NoSwitch;

#[cfg(loom)]
impl NoSwitch {
    fn begin(&self, _: u32) -> bool {
        false
    }

    fn end(&self, _: u32) {}

    fn users(&self) -> u32 {
        0
    }
}

impl Session {
    /// `None` if one is being taken already.
    pub(crate) fn begin() -> Option<Self> {
        // Not made where it isn't the first, as its end would be that of the other.
        SWITCH.begin(SESSION).then(|| Self {
            end: || SWITCH.end(SESSION),
        })
    }

    /// Whether there's one.
    pub(crate) fn is_on() -> bool {
        SWITCH.users() & SESSION != 0
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        (self.end)();
    }
}

impl FlightRecorder {
    /// Begins to record; `None` if there's one already.
    pub fn begin() -> Option<Self> {
        SWITCH.begin(FLIGHT).then(|| Self(()))
    }

    /// Whether there's one.
    #[must_use]
    pub fn is_on() -> bool {
        SWITCH.users() & FLIGHT != 0
    }
}

impl Drop for FlightRecorder {
    fn drop(&mut self) {
        SWITCH.end(FLIGHT);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_ends_nothing() {
        let switch = Switch::new();
        assert!(switch.begin(FLIGHT));
        assert!(!switch.begin(FLIGHT));
        assert_eq!(switch.users(), FLIGHT);
        let first = FlightRecorder::begin().unwrap();
        assert!(FlightRecorder::begin().is_none());
        assert!(FlightRecorder::is_on() && is_on());
        drop(first);
        assert!(!FlightRecorder::is_on());
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn loom_it_is_on_while_somebody_wants_it() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let switch = Arc::new(Switch::new());
            let other = thread::spawn({
                let switch = switch.clone();
                move || {
                    assert!(switch.begin(FLIGHT));
                    assert!(!switch.begin(FLIGHT));
                }
            });
            assert!(switch.begin(SESSION));
            assert_ne!(switch.on.load(Ordering::Relaxed), 0);
            switch.end(SESSION);
            other.join().unwrap();
            assert_eq!(switch.on.load(Ordering::Relaxed), FLIGHT as u8);
        });
    }
}
