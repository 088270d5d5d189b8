//! The CPU profile of a machine without an operating system: what its timer's interrupt does.
//!
//! `picoprof-std` has samplers of its own.

#![forbid(unsafe_code)]

use super::buckets::Rows;
use crate::exclusive::Exclusive;
use crate::interrupt::is_waiting;
use crate::stack::capture::{Registers, StackBounds, walk_frame_pointers};
use crate::stack::{Memo, StackId, Stacks};
use crate::sync::{AtomicU8, Ordering, const_fn};

const STOPPED: u8 = 0;
const RUNNING: u8 = 1;

/// What samples a core from its timer's interrupt: walks frames, up to `DEPTH` of them, and counts. One for each core, in a
/// static; four words a frame.
///
/// ```
/// use picoprof::profile::buckets::Buckets;
/// use picoprof::profile::cpu::Sampler;
/// use picoprof::stack::StackTable;
/// use picoprof::stack::capture::{Registers, StackBounds};
///
/// static STACKS: StackTable<256, 1024> = StackTable::new();
/// static CPU: Buckets<64, 1> = Buckets::new();
/// static SAMPLER: Sampler<16> = Sampler::new();
///
/// /// The timer's handler; see [`cortex_m_tick!`](picoprof::cortex_m_tick) for how it comes to the registers.
/// fn on_tick(interrupted: Registers) {
///     let main_stack = StackBounds::EMPTY; // The linker knows it.
///     SAMPLER.tick(interrupted, main_stack, STACKS.view(), CPU.view(), 0);
/// }
///
/// // In `Target::start_cpu`:
/// assert!(SAMPLER.start());
/// # on_tick(Registers { pc: 0x0800_1234, sp: 0, fp: 0 });
/// # assert_eq!(CPU.view().len(), 1);
/// // In `Target::stop_cpu`:
/// SAMPLER.stop();
/// ```
#[derive(Debug)]
pub struct Sampler<const DEPTH: usize> {
    state: AtomicU8,
    walk: Exclusive<Walk<DEPTH>>,
}

#[derive(Debug)]
struct Walk<const DEPTH: usize> {
    pcs: [usize; DEPTH],
    memo: Memo<DEPTH>,
}

impl<const DEPTH: usize> Sampler<DEPTH> {
    const_fn! {
        /// One that does not run yet.
        #[must_use]
        pub fn new() -> Self {
            Self {
                state: AtomicU8::new(STOPPED),
                walk: Exclusive::new(Walk {
                    pcs: [0; DEPTH],
                    memo: Memo::new(),
                }),
            }
        }
    }

    /// Lets it run; false if it did already.
    pub fn start(&self) -> bool {
        self.state.swap(RUNNING, Ordering::Relaxed) == STOPPED
    }

    /// Lets it run no more.
    pub fn stop(&self) {
        self.state.store(STOPPED, Ordering::Relaxed);
    }

    /// Whether it runs.
    #[must_use]
    #[inline]
    pub fn is_running(&self) -> bool {
        self.state.load(Ordering::Relaxed) == RUNNING
    }

    /// While it runs: counts a sample of the interrupted code in `rows`, by its stack and `tag` (the bits of a
    /// [`LabelSetId`](super::labels::LabelSetId)). A core that [waits](crate::interrupt::wait_for_interrupt) counts as
    /// [`StackId::IDLE`].
    ///
    /// Of a stack deeper than `DEPTH` the outer frames are missing: [`Marker::TooDeep`](crate::stack::Marker::TooDeep) stands for them. A sample in the
    /// middle of another sample of this core is counted as lost.
    ///
    /// Answers the stack, for a [trace](crate::trace::Event::sample); `None` if it doesn't run.
    ///
    /// For an interrupt: no lock, and it reads nothing outside `bounds`, which must hold the interrupted code's stack. Some
    /// hundred instructions, and some forty a frame that was not in the last sample.
    #[inline]
    #[allow(
        clippy::must_use_candidate,
        reason = "who wants no trace needs no stack"
    )]
    pub fn tick(
        &self,
        registers: Registers,
        bounds: StackBounds,
        stacks: Stacks<'_>,
        rows: Rows<'_>,
        tag: u32,
    ) -> Option<StackId> {
        self.is_running().then(|| {
            let stack = self.stack(registers, bounds, stacks);
            rows.add(stack, tag, &[1]);
            stack
        })
    }

    fn stack(&self, registers: Registers, bounds: StackBounds, stacks: Stacks<'_>) -> StackId {
        if is_waiting(registers.pc) {
            return StackId::IDLE;
        }
        let stack = self.walk.try_with(|walk| {
            let (len, end) = walk_frame_pointers(registers, bounds, &mut walk.pcs);
            let pcs = walk.pcs.get(..len).unwrap_or_default();
            stacks.intern_with_memo(pcs, end.marker(), &mut walk.memo)
        });
        stack.unwrap_or(StackId::LOST)
    }
}

impl<const DEPTH: usize> Default for Sampler<DEPTH> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::interrupt::a_waiting_pc;
    use crate::profile::buckets::{Buckets, RowId};
    use crate::stack::{Frame, Marker, StackTable};

    #[test]
    fn samples_only_while_it_runs() {
        let table = StackTable::<16, 16>::new();
        let buckets = Buckets::<8, 1>::new();
        let sampler = Sampler::<2>::new();
        let tick = |pc| {
            let registers = Registers { pc, sp: 0, fp: 0 };
            sampler.tick(
                registers,
                StackBounds::EMPTY,
                table.view(),
                buckets.view(),
                3,
            );
        };
        tick(0x10);
        assert!(buckets.view().is_empty());
        assert!(sampler.start());
        assert!(!sampler.start());
        tick(0x10);
        tick(0x10);
        sampler.stop();
        tick(0x10);
        let rows = buckets.view();
        let row = rows.rows().next().unwrap();
        let (stack, tag) = rows.key(row).unwrap();
        assert_eq!((rows.len(), rows.values(row)[0], tag), (1, 2, 3));
        let leaf = table.view().frames(stack).next().unwrap();
        assert_eq!(table.view().location(leaf), Frame::Pc(0x10));
    }

    #[test]
    fn waiting_is_idle() {
        let table = StackTable::<8, 8>::new();
        let buckets = Buckets::<8, 1>::new();
        let sampler = Sampler::<2>::new();
        sampler.start();
        let registers = Registers {
            pc: a_waiting_pc(),
            sp: 0,
            fp: 0,
        };
        sampler.tick(
            registers,
            StackBounds::EMPTY,
            table.view(),
            buckets.view(),
            0,
        );
        let rows = buckets.view();
        let keys: Vec<_> = rows.rows().map(|row| rows.key(row)).collect();
        assert_eq!(keys, [Some((StackId::IDLE, 0))]);
        let frames: Vec<_> = table.view().frames(StackId::IDLE).collect();
        assert_eq!(frames, [Marker::Idle.location()]);
    }

    #[test]
    fn a_sample_within_a_sample_is_lost() {
        let table = StackTable::<8, 8>::new();
        let buckets = Buckets::<8, 1>::new();
        let sampler = Sampler::<2>::new();
        sampler.start();
        let registers = Registers {
            pc: 0x10,
            sp: 0,
            fp: 0,
        };
        sampler.walk.try_with(|_| {
            sampler.tick(
                registers,
                StackBounds::EMPTY,
                table.view(),
                buckets.view(),
                0,
            );
        });
        assert_eq!(buckets.view().values(RowId::LOST)[0], 1);
    }
}
