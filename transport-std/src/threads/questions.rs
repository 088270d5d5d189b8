//! Questions to threads: each has a place, in memory that is never freed, until it is answered or given up.
//!
//! A question's ticket is the value of the signal that asks it. No two questions have the same, so a signal that comes late
//! finds that the place is another's and does nothing. Who asks and who answers agree with one compare-and-swap each:
//!
//! ```text
//! free ─ new ─► asked ─ the handler begins ─► answering ─ it is done ─► answered ─ drop ─► free
//!                 │                               │
//!                 └─ drop ─► free                 └─ drop ─► abandoned ─ the handler is done ─► free
//! ```

#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use picoprof::profile::labels::LabelSetId;
use picoprof::stack::StackId;

use crate::tables::MAX_DEPTH;
use picoprof::Exclusive;

/// Questions at once, a kilobyte each once they were used; those beyond are not asked.
const PLACES: usize = 1 << PLACE_BITS;
const PLACE_BITS: u32 = 10;

/// Set in every ticket: no pointer has these bits, and no small number, so that others' signals are told from ours.
const MARK: u64 = 0x7069_0000_0000_0000;
const MARK_MASK: u64 = 0xffff_0000_0000_0000;

/// How far a question is: the lowest two bits of a state, which are zero in a ticket.
const PHASES: u64 = 0b11;
const ASKED: u64 = 0;
const ANSWERING: u64 = 1;
const ANSWERED: u64 = 2;
const ABANDONED: u64 = 3;
const PHASE_BITS: u32 = 2;

/// The state of a place without a question.
const FREE: u64 = 0;

/// A ticket with the phase added, or [`FREE`].
static STATES: [AtomicU64; PLACES] = [const { AtomicU64::new(FREE) }; PLACES];
static ANSWERS: [Written; PLACES] = [const { Written::new() }; PLACES];
/// What the handler walks with.
static PCS: [Exclusive<[usize; MAX_DEPTH]>; PLACES] =
    [const { Exclusive::new([0; MAX_DEPTH]) }; PLACES];

/// What a thread says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) stack: StackId,
    pub(crate) labels: LabelSetId,
    /// Since when it waits for others, in nanoseconds; 0 if that's not known.
    pub(crate) waits_since: u64,
    /// It was on no stack that is known, so that only the first frame is there.
    pub(crate) is_cut: bool,
}

/// An answer, left for another thread.
struct Written {
    stack: AtomicU32,
    labels: AtomicU32,
    waits_since: AtomicU64,
    is_cut: AtomicBool,
}

impl Written {
    const fn new() -> Self {
        Self {
            stack: AtomicU32::new(0),
            labels: AtomicU32::new(0),
            waits_since: AtomicU64::new(0),
            is_cut: AtomicBool::new(false),
        }
    }

    fn store(&self, answer: Answer) {
        self.stack.store(answer.stack.to_bits(), Ordering::Relaxed);
        self.labels
            .store(answer.labels.to_bits(), Ordering::Relaxed);
        self.waits_since
            .store(answer.waits_since, Ordering::Relaxed);
        self.is_cut.store(answer.is_cut, Ordering::Relaxed);
    }

    fn load(&self) -> Answer {
        Answer {
            stack: StackId::from_bits(self.stack.load(Ordering::Relaxed)),
            labels: LabelSetId::from_bits(self.labels.load(Ordering::Relaxed)),
            waits_since: self.waits_since.load(Ordering::Relaxed),
            is_cut: self.is_cut.load(Ordering::Relaxed),
        }
    }
}

/// A question that was asked, until it is dropped.
#[derive(Debug)]
pub(super) struct Question {
    ticket: u64,
}

impl Question {
    /// One for a thread; `None` if there are too many.
    pub(super) fn new() -> Option<Self> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        // Where the last one was not, as its place is likely to be taken.
        (0..PLACES as u64).find_map(|at| {
            let place = (number + at) % PLACES as u64;
            let count = number << (PLACE_BITS + PHASE_BITS) & !MARK_MASK;
            let ticket = MARK | count | place << PHASE_BITS;
            let taken = STATES.get(place as usize)?.compare_exchange(
                FREE,
                ticket + ASKED,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            taken.is_ok().then_some(Self { ticket })
        })
    }
}

impl Question {
    /// What the signal has to carry.
    pub(super) const fn value(&self) -> usize {
        self.ticket as usize
    }

    pub(super) fn answer(&self) -> Option<Answer> {
        let place = place_of(self.ticket);
        // Acquire: the answer was written before.
        let state = STATES.get(place)?.load(Ordering::Acquire);
        (state == self.ticket + ANSWERED).then(|| ANSWERS.get(place).map(Written::load))?
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let Some(state) = STATES.get(place_of(self.ticket)) else {
            return;
        };
        let change = |from: u64, to: u64| {
            state
                .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        let is_over = change(self.ticket + ASKED, FREE)
            || change(self.ticket + ANSWERING, self.ticket + ABANDONED);
        if !is_over {
            // It is answered: nobody else comes here any more. Or it is that of the process which forked this one.
            change(self.ticket + ANSWERED, FREE);
        }
    }
}

/// Whether a signal's value is a ticket.
///
/// May run in a signal handler.
pub(crate) const fn is_ours(value: usize) -> bool {
    value as u64 & MARK_MASK == MARK && value as u64 & PHASES == 0
}

/// Answers the question with this ticket with what `tell` says, if it still stands; `tell` may use the memory.
///
/// May run in a signal handler, if `tell` may: some atomic operations.
pub(crate) fn answer(value: usize, tell: impl FnOnce(&mut [usize; MAX_DEPTH]) -> Answer) {
    let ticket = value as u64;
    let place = place_of(ticket);
    let (Some(state), Some(written), Some(pcs)) =
        (STATES.get(place), ANSWERS.get(place), PCS.get(place))
    else {
        return;
    };
    let change = |from: u64, to: u64| {
        state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    };
    if !change(ticket + ASKED, ticket + ANSWERING) {
        return;
    }
    // Nobody else uses the memory now, but in a forked child that was forked from under an answering thread.
    let told = pcs.try_with(tell).unwrap_or(Answer {
        stack: StackId::EMPTY,
        labels: LabelSetId::EMPTY,
        waits_since: 0,
        is_cut: false,
    });
    written.store(told);
    if !change(ticket + ANSWERING, ticket + ANSWERED) {
        // It was abandoned meanwhile.
        change(ticket + ABANDONED, FREE);
    }
}

/// A forked child has neither those who asked nor those who would answer.
///
/// Does what a signal handler may.
pub(crate) fn forget_after_fork() {
    for state in &STATES {
        state.store(FREE, Ordering::Relaxed);
    }
}

const fn place_of(ticket: u64) -> usize {
    (ticket >> PHASE_BITS) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: Answer = Answer {
        stack: StackId::from_bits(7),
        labels: LabelSetId::from_bits(9),
        waits_since: 11,
        is_cut: true,
    };

    fn state(question: &Question) -> u64 {
        STATES[place_of(question.ticket)].load(Ordering::Relaxed)
    }

    #[test]
    fn an_answer_comes_once() {
        let question = Question::new().unwrap();
        assert!(is_ours(question.value()));
        assert_eq!(question.answer(), None);
        answer(question.value(), |_| TOLD);
        assert_eq!(question.answer(), Some(TOLD));
        answer(question.value(), |_| panic!("it is answered"));
        assert_eq!(question.answer(), Some(TOLD));
    }

    #[test]
    fn a_late_answer_goes_nowhere() {
        let (value, place) = {
            let question = Question::new().unwrap();
            (question.value(), place_of(question.ticket))
        };
        assert_eq!(STATES[place].load(Ordering::Relaxed), FREE);
        answer(value, |_| panic!("nobody asks"));
        // The same place, for another.
        let next = loop {
            let question = Question::new().unwrap();
            if place_of(question.ticket) == place {
                break question;
            }
        };
        assert_ne!(next.value(), value);
        answer(value, |_| panic!("somebody else is asked"));
        assert_eq!(next.answer(), None);
    }

    #[test]
    fn who_gives_up_meanwhile_leaves_the_place_to_who_answers() {
        let question = Question::new().unwrap();
        let (value, place) = (question.value(), place_of(question.ticket));
        answer(value, |_| {
            let ticket = question.ticket;
            drop(question);
            let state = STATES[place].load(Ordering::Relaxed);
            assert_eq!(state, ticket + ABANDONED);
            TOLD
        });
        assert_eq!(STATES[place].load(Ordering::Relaxed), FREE);
    }

    #[test]
    fn others_values_are_not_ours() {
        let local = 0_u64;
        for value in [0, 1, usize::MAX, (&raw const local).addr(), 0x7069, 1 << 48] {
            assert!(!is_ours(value), "{value:#x}");
        }
        let question = Question::new().unwrap();
        assert!(!is_ours(question.value() + 1));
        assert_eq!(state(&question), question.ticket + ASKED);
    }
}
