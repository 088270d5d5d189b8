//! Who there is: tasks, threads and interrupts, which are all goroutines to Go's tools.

#![forbid(unsafe_code)]

use super::world::RECORDER;
use crate::profile::trace::host::GOROUTINE_WORDS;

type Slot = [u64; GOROUTINE_WORDS];

/// What recorded events call a goroutine; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u64);

impl Key {
    const TASK: u64 = 1 << 32;
    const THREAD: u64 = 2 << 32;
    /// A thread that was created, and has not begun.
    const TICKET: u64 = 3 << 32;

    pub(super) const fn task(id: u32) -> Self {
        Self(Self::TASK | id as u64)
    }

    /// A thread or an interrupt, by its stream's number.
    pub(super) const fn thread(id: u32) -> Self {
        Self(Self::THREAD | id as u64)
    }

    pub(super) const fn ticket(ticket: u32) -> Self {
        Self(Self::TICKET | ticket as u64)
    }

    pub(super) const fn is_thread(self) -> bool {
        self.0 >> 32 == Self::THREAD >> 32
    }

    /// The stream of a thread or an interrupt.
    pub(super) const fn stream(self) -> Option<u32> {
        if self.is_thread() {
            Some(self.0 as u32)
        } else {
            None
        }
    }

    /// The task's number, or the thread's, or the ticket.
    pub(super) const fn number(self) -> u32 {
        self.0 as u32
    }

    pub(super) const fn to_bits(this: Option<Self>) -> u64 {
        match this {
            Some(key) => key.0,
            None => 0,
        }
    }

    pub(super) const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }
}

/// A goroutine's state, as Go numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Runnable = 1,
    Running = 2,
    Waiting = 4,
}

/// A goroutine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goroutine {
    pub(super) key: Key,
    /// What it is called in the trace.
    pub(super) id: u32,
    pub(super) status: Status,
    /// The generation that its status was said in, its lowest bits.
    pub(super) generation: u16,
    /// The number of its last start or unblocking in that generation.
    pub(super) sequence: u32,
    /// Its labels.
    pub(super) labels: u32,
    /// Whether its labels are to be said.
    pub(super) is_relabelled: bool,
    /// Its name: a [`Text`](super::text::Text)'s bits.
    pub(super) name: u64,
    /// One more than the innermost of its open regions; 0 if it has none.
    pub(super) region: u32,
}

const RELABELLED: u64 = 1 << 40;

impl Goroutine {
    fn to_slot(self) -> Slot {
        let relabelled = if self.is_relabelled { RELABELLED } else { 0 };
        [
            self.key.0,
            u64::from(self.id)
                | (self.status as u64) << 32
                | relabelled
                | u64::from(self.generation) << 48,
            u64::from(self.sequence) | u64::from(self.labels) << 32,
            self.name,
            u64::from(self.region),
        ]
    }

    fn of_slot(slot: &Slot) -> Option<Self> {
        let [key, about, numbers, name, region] = *slot;
        Some(Self {
            key: Key::from_bits(key)?,
            id: about as u32,
            status: match about >> 32 & 0xff {
                1 => Status::Runnable,
                2 => Status::Running,
                _ => Status::Waiting,
            },
            is_relabelled: about & RELABELLED != 0,
            generation: (about >> 48) as u16,
            sequence: numbers as u32,
            labels: (numbers >> 32) as u32,
            name,
            region: region as u32,
        })
    }
}

/// All goroutines that are alive: an open-addressing hash table.
#[derive(Debug)]
pub(super) struct Goroutines<'m> {
    slots: &'m mut [Slot],
    len: &'m mut usize,
}

impl<'m> Goroutines<'m> {
    /// In this memory, whose length in slots is a power of two, with so many in it.
    pub(super) fn new(words: &'m mut [u64], len: &'m mut usize) -> Self {
        let (slots, _) = words.as_chunks_mut();
        Self { slots, len }
    }

    pub(super) fn get(&self, key: Key) -> Option<Goroutine> {
        let index = self.find(key)?;
        Goroutine::of_slot(self.slots.get(index)?)
    }

    /// Puts one in, or in place of what it was before; false if there's no room.
    pub(super) fn put(&mut self, goroutine: Goroutine) -> bool {
        if let Some(index) = self.find(goroutine.key) {
            return self.write(index, goroutine);
        }
        // A quarter stays empty, so that a search ends soon. And one is kept for who says what is to be said of the trace.
        let kept = usize::from(goroutine.key != Key::thread(RECORDER));
        if *self.len + kept >= self.slots.len() / 4 * 3 {
            return false;
        }
        let Some(index) = self.place(goroutine.key, |slot| slot[0] == 0) else {
            return false;
        };
        *self.len += 1;
        self.write(index, goroutine)
    }

    pub(super) fn remove(&mut self, key: Key) {
        let Some(mut gap) = self.find(key) else {
            return;
        };
        *self.len -= 1;
        let mask = self.slots.len() - 1;
        let mut next = gap;
        // Whoever was put further along for want of this place moves up: Knuth, volume 3, 6.4, algorithm R.
        loop {
            next = (next + 1) & mask;
            let Some(&slot) = self.slots.get(next).filter(|slot| slot[0] != 0) else {
                break;
            };
            let home = self.home(slot[0]);
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(gap) & mask {
                if let Some(place) = self.slots.get_mut(gap) {
                    *place = slot;
                }
                gap = next;
            }
        }
        if let Some(place) = self.slots.get_mut(gap) {
            *place = [0; GOROUTINE_WORDS];
        }
    }

    fn write(&mut self, index: usize, goroutine: Goroutine) -> bool {
        match self.slots.get_mut(index) {
            Some(slot) => {
                *slot = goroutine.to_slot();
                true
            }
            None => false,
        }
    }

    fn find(&self, key: Key) -> Option<usize> {
        let index = self.place(key, |slot| slot[0] == key.0 || slot[0] == 0)?;
        self.slots.get(index).filter(|slot| slot[0] == key.0)?;
        Some(index)
    }

    /// The first slot for a key that `is_it`.
    fn place(&self, key: Key, is_it: impl Fn(&Slot) -> bool) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let home = self.home(key.0);
        let mut places = (0..=mask).map(|step| (home + step) & mask);
        places.find(|&index| self.slots.get(index).is_some_and(&is_it))
    }

    fn home(&self, key: u64) -> usize {
        super::ids::hash(key) & self.slots.len().wrapping_sub(1)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn goroutine(key: Key, id: u32) -> Goroutine {
        Goroutine {
            key,
            id,
            status: Status::Waiting,
            generation: 7,
            sequence: 3,
            labels: 9,
            is_relabelled: true,
            name: 5,
            region: 2,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec((0u32..40, any::<bool>()), 1..200)) {
            let mut memory = [0; 16 * GOROUTINE_WORDS];
            let mut len = 0;
            let mut all = Goroutines::new(&mut memory, &mut len);
            let mut map = HashMap::new();
            for (step, (id, removes)) in steps.into_iter().enumerate() {
                let key = Key::task(id);
                if removes {
                    all.remove(key);
                    map.remove(&id);
                } else {
                    let has_room = map.len() < 11 || map.contains_key(&id);
                    prop_assert_eq!(all.put(goroutine(key, step as u32)), has_room);
                    if has_room {
                        map.insert(id, step as u32);
                    }
                }
                for id in 0..40 {
                    let found = all.get(Key::task(id)).map(|it| it.id);
                    prop_assert_eq!(found, map.get(&id).copied());
                }
            }
        }
    }

    #[test]
    fn what_is_put_in_comes_back() {
        let mut memory = [0; 2 * GOROUTINE_WORDS];
        let mut len = 0;
        let mut all = Goroutines::new(&mut memory, &mut len);
        let ours = goroutine(Key::ticket(u32::MAX), u32::MAX);
        assert!(!all.put(ours), "a quarter of two is less than one");
        let mut memory = [0; 4 * GOROUTINE_WORDS];
        let mut all = Goroutines::new(&mut memory, &mut len);
        assert!(all.put(ours));
        assert_eq!(
            std::format!("{:?}", all.get(ours.key)),
            std::format!("{:?}", Some(ours))
        );
    }
}
