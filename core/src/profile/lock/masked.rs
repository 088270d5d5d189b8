//! Who keeps interrupts masked: an implementation of the critical section around another.

#![allow(unsafe_code)]
// The state is what the program chooses, and `()` if it chooses nothing.
#![allow(clippy::let_unit_value)]

use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;

use critical_section::{Impl, RawRestoreState};

use super::hold::{Hold, Missed};
use crate::profile::labels::LabelSetId;
use crate::profile::task::{Tracer, tracer};
use crate::stack::StackId;
use crate::stack::capture::registers_here;

/// The program's one critical section.
static HOLD: Hold = Hold::new(Duration::from_micros(10));

/// So many are counted after a recording; if there are more, these have their time. Without compare-and-swap, counting
/// takes sections itself: if they were longer than the threshold, it would else never end.
const MOST_MISSED: u32 = 8;

/// Holds of the critical section count from this length on: 10 µs until it is set. At most about 4.29 s.
pub fn set_masked_threshold(threshold: Duration) {
    HOLD.set_threshold(threshold);
}

/// The critical section of `I`, which tells `mutex` who held it for long, and so kept interrupts waiting.
///
/// ```ignore
/// critical_section::set_impl!(CriticalSection<SingleCore>);
/// ```
///
/// Of nested sections the outermost is timed, by the clock of the program's [tracer](crate::set_tracer). If it took longer than
/// the [threshold](set_masked_threshold), then, when interrupts are unmasked again, the stack of whoever held it is
/// recorded ([`Tracer::record_mutex`]), under the labels of what it was at.
///
/// # Reading it
///
/// A row's innermost frames are the release: `critical_section::release` and `critical_section::with`, inlined into
/// whoever held it or called by it. So `go tool pprof -focus=critical_section` shows these rows alone, and `-ignore` those of
/// other locks; `-hide=critical_section` leaves the holders for the leaves.
///
/// A function that does nothing more after its section may have left its frame to the release (a tail call). Then its caller
/// is shown, at the line that calls it.
///
/// # What the clock must be able to do
///
/// [`Tracer::now`] is called with interrupts masked. A clock that counts a timer's interrupts has to add what the timer has counted
/// since the last one, and a period if one is pending; with a Cortex-M's SysTick: the counter, and PENDSTSET of ICSR read
/// after it. Only one can be pending: a hold that is longer than a period seems shorter than it was, by
/// whole periods. It may itself use critical sections.
///
/// # What it costs
///
/// On a Cortex-M0 (`opt-level = "z"`) an outermost section takes some 25 instructions more without a tracer, and some 60 and two calls of
/// its clock with one; nearly all with interrupts masked. A bare compare-and-swap under
/// `SingleCore` masks them for 9. So the clock should be short: no division, and no atomics that are sections themselves, as
/// portable-atomic's loads are without compare-and-swap (core's are not). A hold that is recorded also takes the walk
/// and two look-ups, with interrupts unmasked again.
///
/// # What it can't see
///
/// Interrupts that are masked otherwise: by hand (PRIMASK, BASEPRI, mstatus), or by a handler that runs for long, which keeps
/// waiting what hasn't a higher priority. Sections within such time count for themselves.
///
/// One hold is recorded at a time. Another that ends meanwhile, in an interrupt or on another core, counts for nobody
/// in particular: in the row of [`StackId::LOST`], from the end of this recording or the next. On a machine without
/// compare-and-swap a recording has sections of its own; they are lost in this way, too, if the threshold is shorter than them.
pub struct CriticalSection<I> {
    inner: PhantomData<fn() -> I>,
}

// SAFETY: each `acquire` is one of `I`, each `release` one of `I` with the state that it gave. Between them, and
// before and after, nothing is done that breaks the section: sections of the tracer's are nested properly, or outside.
unsafe impl<I: Impl> Impl for CriticalSection<I> {
    #[inline]
    unsafe fn acquire() -> RawRestoreState {
        // SAFETY: the caller will release it.
        let state = unsafe { I::acquire() };
        HOLD.begin(tracer);
        state
    }

    #[inline]
    unsafe fn release(state: RawRestoreState) {
        let held = HOLD.end(tracer);
        // SAFETY: the caller acquired it, and this state is from there.
        unsafe { I::release(state) };
        if let Some(held) = held {
            record::<I>(held);
        }
    }
}

impl<I> fmt::Debug for CriticalSection<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CriticalSection")
    }
}

/// Records a hold of the caller's, and what was missed.
///
/// It has a frame of its own, as its caller is the one whose stack counts.
#[cold]
#[inline(never)]
fn record<I: Impl>(held: u64) {
    if let Some(tracer) = tracer() {
        let holder = tracer.current();
        let stack = tracer.stack(registers_here(), holder.base());
        tracer.record_mutex(stack, holder.labels(), Duration::from_nanos(held));
        record_missed(tracer, take_missed::<I>());
    }
    HOLD.finish();
}

fn take_missed<I: Impl>() -> Missed {
    // SAFETY: released below.
    let state = unsafe { I::acquire() };
    let missed = HOLD.take_missed();
    // SAFETY: acquired above, with this state, and nothing in between.
    unsafe { I::release(state) };
    missed
}

/// A row counts one at a time, so each gets its share of the time. What falls in here waits for the next recording.
fn record_missed(tracer: &dyn Tracer, missed: Missed) {
    let count = missed.count.min(MOST_MISSED);
    if count == 0 {
        return;
    }
    let share = missed.held / u64::from(count);
    let first = missed.held - share * u64::from(count - 1);
    for nth in 0..count {
        let held = if nth == 0 { first } else { share };
        let held = Duration::from_nanos(held);
        tracer.record_mutex(StackId::LOST, LabelSetId::EMPTY, held);
    }
}
