//! Who waits, and where: addresses that threads wait at in the kernel, each with the time that is not charged to anybody yet.
//!
//! A hash table of fixed size, in groups of one cache line. Who finds its group full goes on to the next one, and
//! leaves a count behind that tells those who look for it to go on, too; so looking for an address that nobody waits at reads
//! one line. A place is claimed by one compare-and-swap and left by another, so all of it may happen in a signal handler that
//! interrupted any of it. Time is taken out of a place by a compare-and-swap, too: it is charged once.

#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// So many, with their count, fill a cache line.
const GROUP: usize = 3;
/// Groups that are looked at for a free place: the most that may wait at one address is three times that.
const PROBES: usize = 256;
/// What a place holds while it is being filled in; not the address of a word.
const CLAIMED: usize = 1;

/// See the module. `GROUPS` must be a power of two.
#[derive(Debug)]
pub(super) struct Waiters<const GROUPS: usize> {
    groups: [Group; GROUPS],
}

#[derive(Debug)]
#[repr(align(64))]
struct Group {
    places: [Place; GROUP],
    /// How many that belong here, or passed here, are in a later group.
    beyond: AtomicU32,
}

#[derive(Debug)]
struct Place {
    /// Zero if it is free.
    address: AtomicUsize,
    /// From when on the time is not charged: nanoseconds of the crate's clock.
    since: AtomicU64,
}

/// One who waits. It must be handed back.
#[derive(Debug)]
#[must_use]
pub(super) struct Waiter {
    address: usize,
    group: usize,
    place: usize,
}

impl<const GROUPS: usize> Waiters<GROUPS> {
    pub(super) const fn new() -> Self {
        const { assert!(GROUPS.is_power_of_two()) };
        Self {
            groups: [const { Group::new() }; GROUPS],
        }
    }

    /// Notes one that is about to wait at this address; `None` if there is no room.
    #[inline]
    pub(super) fn enter(&self, address: usize, now: u64) -> Option<Waiter> {
        for group in Self::probes(address) {
            let places = &self.groups.get(group)?.places;
            for (number, place) in places.iter().enumerate() {
                if !place.claim() {
                    continue;
                }
                for passed in Self::probes(address).take_while(|&passed| passed != group) {
                    self.groups
                        .get(passed)?
                        .beyond
                        .fetch_add(1, Ordering::AcqRel);
                }
                place.since.store(now, Ordering::Release);
                place.address.store(address, Ordering::Release);
                return Some(Waiter {
                    address,
                    group,
                    place: number,
                });
            }
        }
        None
    }

    /// Takes it out again.
    #[inline]
    pub(super) fn leave(&self, waiter: Waiter) {
        let Waiter {
            address,
            group,
            place,
        } = waiter;
        let place = self.groups.get(group).and_then(|it| it.places.get(place));
        // Unless it was forgotten meanwhile; then the place may be another's.
        if place.is_none_or(|place| !place.leave(address)) {
            return;
        }
        for passed in Self::probes(address).take_while(|&passed| passed != group) {
            if let Some(passed) = self.groups.get(passed) {
                passed.beyond.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// The time that all who wait at this address have waited and that was not charged before: nanoseconds. `None` if
    /// nobody waits.
    ///
    /// `now` is called if somebody does.
    #[inline]
    pub(super) fn charge(&self, address: usize, now: impl Fn() -> u64) -> Option<u64> {
        let mut time = None;
        let mut charged = None;
        for group in Self::probes(address) {
            let group = self.groups.get(group)?;
            for place in &group.places {
                if place.address.load(Ordering::Relaxed) == address {
                    let now = *time.get_or_insert_with(&now);
                    if let Some(waited) = place.charge(address, now) {
                        charged = Some(charged.unwrap_or(0) + waited);
                    }
                }
            }
            if group.beyond.load(Ordering::Acquire) == 0 {
                break;
            }
        }
        charged
    }

    /// Forgets all of them: they are in another process.
    pub(super) fn forget(&self) {
        for group in &self.groups {
            for place in &group.places {
                // Only what is not zero, so that memory which was never touched stays so.
                if place.address.load(Ordering::Relaxed) != 0 {
                    place.address.store(0, Ordering::Relaxed);
                }
            }
            if group.beyond.load(Ordering::Relaxed) != 0 {
                group.beyond.store(0, Ordering::Relaxed);
            }
        }
    }

    /// The groups that an address may be in, in order.
    fn probes(address: usize) -> impl Iterator<Item = usize> {
        // Fibonacci hashing (Knuth, TAOCP vol. 3, 6.4).
        let first = address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (0..PROBES.min(GROUPS)).map(move |probe| (first + probe) & (GROUPS - 1))
    }
}

impl Group {
    const fn new() -> Self {
        Self {
            places: [const {
                Place {
                    address: AtomicUsize::new(0),
                    since: AtomicU64::new(0),
                }
            }; GROUP],
            beyond: AtomicU32::new(0),
        }
    }
}

impl Place {
    #[inline]
    fn claim(&self) -> bool {
        self.address.load(Ordering::Relaxed) == 0
            && (self.address)
                .compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    /// False, and nothing changes, if no waiter of this address is here.
    #[inline]
    fn leave(&self, address: usize) -> bool {
        (self.address)
            .compare_exchange(address, 0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// What `address`'s waiter here has waited since it was last charged; `None` if it isn't here.
    #[inline]
    fn charge(&self, address: usize, now: u64) -> Option<u64> {
        let since = self.since.load(Ordering::Acquire);
        // In this order: the time is this address's, or not what it was any more.
        if self.address.load(Ordering::Acquire) != address {
            return None;
        }
        let taken = (self.since)
            .compare_exchange(since, now.max(since), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        // If not, another one charged it just now.
        Some(if taken { now.saturating_sub(since) } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn every_nanosecond_is_charged_once() {
        let waiters = Waiters::<4>::new();
        assert_eq!(waiters.charge(0x1000, || unreachable!()), None);
        let first = waiters.enter(0x1000, 100).unwrap();
        let second = waiters.enter(0x1000, 130).unwrap();
        let other = waiters.enter(0x2000, 0).unwrap();
        assert_eq!(waiters.charge(0x1000, || 150), Some(50 + 20));
        assert_eq!(waiters.charge(0x1000, || 150), Some(0));
        assert_eq!(waiters.charge(0x1000, || 160), Some(2 * 10));
        waiters.leave(first);
        assert_eq!(waiters.charge(0x1000, || 170), Some(10));
        waiters.leave(second);
        assert_eq!(waiters.charge(0x1000, || unreachable!()), None);
        assert_eq!(waiters.charge(0x2000, || 7), Some(7));
        waiters.leave(other);
    }

    #[test]
    fn what_does_not_fit_in_a_group_is_found_in_the_next() {
        let waiters = Waiters::<4>::new();
        let all: Vec<_> = (0..12)
            .map(|_| waiters.enter(0x1000, 0).expect("there is room"))
            .collect();
        assert!(waiters.enter(0x1000, 0).is_none());
        assert!(waiters.enter(0x5000, 0).is_none());
        assert_eq!(waiters.charge(0x1000, || 5), Some(12 * 5));
        // From the front, so that the last ones are behind free places.
        for (left, waiter) in (0..12).rev().zip(all) {
            waiters.leave(waiter);
            let charged = waiters.charge(0x1000, || 5 + 12 - left);
            assert_eq!(charged, (left > 0).then_some(left), "{left}");
        }
        let counts = waiters.groups.iter();
        assert!(
            counts
                .map(|it| it.beyond.load(Ordering::Relaxed))
                .all(|n| n == 0)
        );
    }

    #[test]
    fn those_who_were_forgotten_may_leave() {
        let waiters = Waiters::<4>::new();
        let all: Vec<_> = (0..7).filter_map(|_| waiters.enter(0x1000, 0)).collect();
        waiters.forget();
        assert_eq!(waiters.charge(0x1000, || unreachable!()), None);
        for waiter in all {
            waiters.leave(waiter);
        }
        let again = waiters.enter(0x1000, 3).unwrap();
        assert_eq!(waiters.charge(0x1000, || 4), Some(1));
        waiters.leave(again);
    }

    /// A child that was forked in a handler has the interrupted wait on its stack.
    #[test]
    fn who_was_forgotten_does_not_take_another_s_place() {
        let waiters = Waiters::<4>::new();
        let before = waiters.enter(0x1000, 0).unwrap();
        waiters.forget();
        let (address, _) = (0x2000..0x3000)
            .step_by(4)
            .map(|address| (address, Waiters::<4>::probes(address).next()))
            .find(|&(_, group)| group == Some(before.group))
            .unwrap();
        let other = waiters.enter(address, 3).unwrap();
        assert_eq!((other.group, other.place), (before.group, before.place));
        waiters.leave(before);
        assert_eq!(waiters.charge(address, || 5), Some(2));
        waiters.leave(other);
        assert_eq!(waiters.charge(address, || unreachable!()), None);
    }

    /// Nobody is charged for more time than passed, however many do it at once.
    #[test]
    fn threads_at_once_charge_no_more_than_there_was() {
        let waiters = Waiters::<8>::new();
        let (clock, is_over) = (AtomicU64::new(1), AtomicBool::new(false));
        let tick = || clock.fetch_add(1, Ordering::SeqCst);
        let (mut waited, mut charged) = (0, 0);
        thread::scope(|scope| {
            let charging: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut sum = 0;
                        while !is_over.load(Ordering::SeqCst) {
                            for address in [0x1000, 0x2000] {
                                sum += waiters.charge(address, tick).unwrap_or(0);
                            }
                        }
                        sum
                    })
                })
                .collect();
            let waiting: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut sum = 0;
                        for turn in 0..20_000 {
                            let start = tick();
                            let waiter = waiters.enter(0x1000 << (turn % 2), start).unwrap();
                            thread::yield_now();
                            waiters.leave(waiter);
                            sum += tick() - start;
                        }
                        sum
                    })
                })
                .collect();
            waited += waiting
                .into_iter()
                .map(|it| it.join().unwrap())
                .sum::<u64>();
            is_over.store(true, Ordering::SeqCst);
            charged += charging
                .into_iter()
                .map(|it| it.join().unwrap())
                .sum::<u64>();
        });
        assert!(charged > 0 && charged <= waited, "{charged} of {waited}");
    }
}
