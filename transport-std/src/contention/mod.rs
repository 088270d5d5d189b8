//! Threads that wait for each other in the kernel: `block` and `mutex`.
//!
//! Who waits is noted with its address while it does ([`waiters`]), and its stack when it is over. Who wakes those at an
//! address is charged with the time that all of them have waited and nobody was charged with yet, as in Go, so that
//! a lock held for 5 ms with three waiters costs 15. All of it is recorded, as names tell only later what was waited
//! for.
//!
//! This runs wherever the C function `syscall` may be called, be it in a signal handler or before `main`: it takes no
//! lock, allocates nothing, and makes no system call but the one that it is about.

#![forbid(unsafe_code)]

mod waiters;

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use picoprof::profile::buckets::Rows;
use picoprof::profile::labels::LabelSetId;
use picoprof::stack::StackId;

use crate::{clock, current, interposed, recording, stack, tables};
use waiters::Waiters;

/// 6,144 waiting threads in 128 KiB, of which only what is used counts.
static WAITERS: Waiters<2048> = Waiters::new();

/// Nanoseconds; see [`set_block_rate`].
static BLOCK_RATE: AtomicU64 = AtomicU64::new(1);
/// See [`set_mutex_fraction`].
static MUTEX_FRACTION: AtomicU64 = AtomicU64::new(1);

/// Waits that found no place in [`WAITERS`]: nobody is charged with their time.
static NOT_CHARGED: AtomicU64 = AtomicU64::new(0);
/// Waits and wakes from before there were tables to unwind with.
static TOO_EARLY: AtomicU64 = AtomicU64::new(0);

/// Sets how much waiting there is to one sample of `block`, in nanoseconds: 1 at first, which records all, and 0
/// records none.
///
/// This is Go's `runtime.SetBlockProfileRate`, but for what holds at first. A wait that takes as long or longer is always
/// recorded; of shorter ones some, each for as many as make up the rate. Waiting is only seen with
/// [`interpose!`](crate::interpose).
///
/// ```
/// // One sample for each 10 µs of waiting.
/// picoprof_std::set_block_rate(10_000);
/// ```
pub fn set_block_rate(nanoseconds: u64) {
    BLOCK_RATE.store(nanoseconds, Ordering::Relaxed);
}

/// Sets which fraction of its events `mutex` records, one in `n`: 1 at first, which records all, and 0 records none.
///
/// This is Go's `runtime.SetMutexProfileFraction`, but for what holds at first. An event is that a thread wakes others;
/// one that is recorded counts for `n`. Waking is only seen with [`interpose!`](crate::interpose).
///
/// ```
/// picoprof_std::set_mutex_fraction(10);
/// ```
pub fn set_mutex_fraction(n: u64) {
    MUTEX_FRACTION.store(n, Ordering::Relaxed);
}

/// `call` waits at this address; answers what it answers, which is a negative error number or not.
///
/// May run in a signal handler.
// Always inlined, so that stacks begin with who called the caller.
#[inline(always)]
pub(crate) fn wait(address: usize, call: impl FnOnce() -> isize) -> isize {
    let rate = BLOCK_RATE.load(Ordering::Relaxed);
    let is_charged = MUTEX_FRACTION.load(Ordering::Relaxed) != 0;
    let is_seen = rate != 0 || is_charged || recording::is_on();
    if !is_seen || !may_be_futex(address) || interposed::is_unseen() {
        return call();
    }
    // A trace shows the wait from its begin on. Where there is none, the stack is taken when it is over.
    let mut stack = None;
    if recording::is_on() {
        stack = stack::intern_here_if_ready();
        recording::waits(address, stack.unwrap_or(StackId::EMPTY));
    }
    let start = clock::now().as_nanos();
    let waiter = if is_charged {
        let waiter = WAITERS.enter(address, start);
        if waiter.is_none() {
            count(&NOT_CHARGED);
        }
        waiter
    } else {
        None
    };
    let result = current::while_waiting(start, call);
    if let Some(waiter) = waiter {
        WAITERS.leave(waiter);
    }
    // Also if it began before the trace did: then the trace knows that it waited until now.
    recording::resumed();
    if rate != 0 && has_waited(result) {
        let waited = clock::now().as_nanos().saturating_sub(start);
        if let Some(time) = sample_of_wait(waited, rate, random(start)) {
            // Who was interrupted waits again, and that is the same wait.
            let waits = if result == -(libc::EINTR as isize) {
                0
            } else {
                time.events
            };
            let stack = match stack {
                None => stack::intern_here_if_ready(),
                known => known,
            };
            record(tables::block(), stack, [waits, time.nanos]);
        }
    }
    result
}

/// `call` wakes those who wait at this address; answers what it answers, which is a negative error number or how many it
/// woke.
///
/// May run in a signal handler.
#[inline(always)]
pub(crate) fn wake(address: usize, call: impl FnOnce() -> isize) -> isize {
    let fraction = MUTEX_FRACTION.load(Ordering::Relaxed);
    let is_seen = fraction != 0 || recording::is_on();
    if !is_seen || !may_be_futex(address) || interposed::is_unseen() {
        return call();
    }
    // Both before the call: those who are woken leave, and go on at once.
    let waited = if fraction == 0 {
        None
    } else {
        WAITERS.charge(address, || clock::now().as_nanos())
    };
    let ticks = recording::is_on().then(recording::ticks);
    let result = call();
    // If it woke nobody, then those who are there don't wait yet, or any more.
    let Ok(woken @ 1..) = u64::try_from(result) else {
        return result;
    };
    let sampled = waited
        .filter(|waited| fraction == 1 || random(waited ^ address as u64).is_multiple_of(fraction));
    if ticks.is_none() && sampled.is_none() {
        return result;
    }
    let stack = stack::intern_here_if_ready();
    if let Some(ticks) = ticks {
        recording::wakes(ticks, address, woken, stack.unwrap_or(StackId::EMPTY));
    }
    if let Some(waited) = sampled {
        let values = [woken, waited].map(|value| value.saturating_mul(fraction));
        record(tables::mutex(), stack, values);
    }
    result
}

/// A task waited so long, at the await `stack`.
///
/// May run in a signal handler.
pub(crate) fn task_waited(stack: StackId, labels: LabelSetId, waited: Duration) {
    let rate = BLOCK_RATE.load(Ordering::Relaxed);
    if rate == 0 {
        return;
    }
    let nanos = nanos(waited);
    let seed = nanos ^ u64::from(stack.to_bits()) << 32;
    if let Some(sample) = sample_of_wait(nanos, rate, random(seed)) {
        let values = [sample.events, sample.nanos];
        tables::block().add(stack, labels.to_bits(), &values);
    }
}

/// A task that had waited so long was woken by who is at `stack`.
///
/// May run in a signal handler.
pub(crate) fn task_woken(stack: StackId, labels: LabelSetId, waited: Duration) {
    let fraction = MUTEX_FRACTION.load(Ordering::Relaxed);
    let nanos = nanos(waited);
    let seed = nanos ^ u64::from(stack.to_bits()) << 32;
    if fraction == 1 || fraction != 0 && random(seed).is_multiple_of(fraction) {
        let values = [1, nanos].map(|value: u64| value.saturating_mul(fraction));
        tables::mutex().add(stack, labels.to_bits(), &values);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Forgets who waits, in a forked child: there it is the only thread.
///
/// May run in a signal handler.
pub(crate) fn forget_waiters() {
    WAITERS.forget();
}

/// Writes what is sampled and what was lost as a line of the index page.
pub(crate) fn describe(page: &mut dyn fmt::Write) -> fmt::Result {
    writeln!(
        page,
        "<li>Contention: one block sample in {} ns, one mutex event in {}; {} and {} samples without a table row; \
         {} waits not charged to anybody; {} before there were unwind tables.</li>",
        BLOCK_RATE.load(Ordering::Relaxed),
        MUTEX_FRACTION.load(Ordering::Relaxed),
        tables::all().lost(picoprof::profile::Kind::Block),
        tables::all().lost(picoprof::profile::Kind::Mutex),
        NOT_CHARGED.load(Ordering::Relaxed),
        TOO_EARLY.load(Ordering::Relaxed),
    )
}

/// Whether a futex can be at an address: nobody can wait at others (futex(2), EINVAL and EFAULT), some of which are no
/// addresses to [`WAITERS`].
#[inline]
const fn may_be_futex(address: usize) -> bool {
    address != 0 && address.is_multiple_of(4)
}

/// Whether the kernel let a thread wait, by what futex(2) answered: it ended well, was interrupted, or its time was over.
fn has_waited(result: isize) -> bool {
    result >= 0 || [libc::EINTR, libc::ETIMEDOUT].contains(&(-result as i32))
}

/// What a sample counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    events: u64,
    nanos: u64,
}

/// What to record of a wait: `blocksampled` and `saveBlockEventStack` of Go's runtime/mprof.go.
///
/// A wait shorter than the rate is taken with the probability of its share of it, and then counts for as many as
/// make up the rate. Go counts them in fractions; here the rest is a matter of chance.
#[inline]
fn sample_of_wait(nanos: u64, rate: u64, random: u64) -> Option<Sample> {
    if nanos >= rate {
        return Some(Sample { events: 1, nanos });
    }
    let chance = random % rate;
    if chance >= nanos {
        return None;
    }
    // Not zero: it is more than the chance. Below it, the chance is uniform.
    let events = rate / nanos + u64::from(chance < rate % nanos);
    Some(Sample {
        events,
        nanos: rate,
    })
}

/// A number that nobody can tell from a random one. The time in nanoseconds, and where things are in memory, differ
/// enough; what remains is to spread it (the finalizer of Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014).
#[inline]
fn random(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[inline]
fn record(rows: Rows<'static>, stack: Option<StackId>, values: [u64; 2]) {
    match stack {
        Some(stack) => {
            rows.add(stack, current::labels().to_bits(), &values);
        }
        None => count(&TOO_EARLY),
    }
}

#[cold]
fn count(losses: &AtomicU64) {
    losses.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_waits_stand_for_as_many_as_make_up_the_rate() {
        let whole = |nanos| Some(Sample { events: 1, nanos });
        assert_eq!(sample_of_wait(7, 1, 3), whole(7));
        assert_eq!(sample_of_wait(1000, 1000, 999), whole(1000));
        assert_eq!(sample_of_wait(0, 1000, 0), None);
        assert_eq!(sample_of_wait(300, 1000, 300), None);
        // Waits of 300 and 7 ns, each chance of 1,000 once: as many waits, and as much time, as there were.
        for nanos in [1, 7, 300, 999] {
            let samples = (0..1000).filter_map(|chance| sample_of_wait(nanos, 1000, chance));
            let (mut events, mut time) = (0, 0);
            for sample in samples {
                events += sample.events;
                time += sample.nanos;
            }
            assert_eq!((events, time), (1000, 1000 * nanos), "{nanos}");
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_no_wait() {
        for (result, waited) in [
            (0, true),
            (-libc::ETIMEDOUT, true),
            (-libc::EINTR, true),
            (-libc::EAGAIN, false),
            (-libc::EFAULT, false),
            (-libc::EINVAL, false),
        ] {
            assert_eq!(has_waited(result as isize), waited, "{result}");
        }
    }

    #[test]
    fn waiting_and_waking_are_seen_once() {
        let waits = || total(tables::block());
        let wakes = || total(tables::mutex());
        crate::unwind::refresh();
        // Nobody else waits in these tests.
        let (before, nobody) = (waits(), wakes());
        wake(0x7000, || 0);
        wait(0x7000, || -(libc::EAGAIN as isize));
        assert_eq!((waits(), wakes()), (before, nobody));
        wait(0x7000, || {
            // Others, in the middle of it.
            std::thread::sleep(core::time::Duration::from_millis(3));
            wake(0x7000, || 2);
            wake(0x7100, || 1);
            0
        });
        let [blocked, time] = waits();
        let [woken, charged] = wakes();
        assert_eq!([blocked - before[0], woken - nobody[0]], [1, 2]);
        assert!(time - before[1] >= 3_000_000 && charged - nobody[1] >= 3_000_000);
        assert!(charged - nobody[1] <= time - before[1]);
        let now = wakes();
        wake(0x7000, || 1);
        assert_eq!(wakes(), now);
        // Where no futex can be, nobody waits.
        for address in [0, 1, 0x7001] {
            assert_eq!(wait(address, || wake(address, || 1)), 1);
        }
        assert_eq!(wakes(), now);
    }

    fn total(rows: Rows<'_>) -> [u64; 2] {
        let all = rows.rows().map(|row| rows.values(row));
        all.fold([0; 2], |sum, row| [sum[0] + row[0], sum[1] + row[1]])
    }
}
