//! Who keeps interrupts masked, on a machine that the test plays: its clock, its interrupts, and a tracer that writes down
//! what it is told.
#![cfg(feature = "critical-section")]

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use critical_section::{Impl, RawRestoreState};
use picoprof::profile::labels::LabelSetId;
use picoprof::profile::lock::{CriticalSection, set_masked_threshold};
use picoprof::profile::task::{Context, TaskPool, Tasks};
use picoprof::stack::StackId;
use picoprof::stack::capture::Registers;
use picoprof::{Instant, Tracer, set_tracer};
use proptest::prelude::*;

/// The only stack there is.
const STACK: StackId = StackId::from_bits(7);
const LABELS: LabelSetId = LabelSetId::from_bits(3);

type Section = CriticalSection<Machine>;
type Interrupt = Box<dyn FnOnce()>;

/// A row of `mutex`, and nanoseconds.
type Record = (StackId, LabelSetId, u64);

static POOL: TaskPool<1> = TaskPool::new();
static TRACER: &dyn Tracer = &Machine;

// Each test's thread is a machine.
thread_local! {
    static NOW: Cell<u64> = const { Cell::new(1_000) };
    static IS_MASKED: Cell<bool> = const { Cell::new(false) };
    static PENDING: RefCell<VecDeque<Interrupt>> = const { RefCell::new(VecDeque::new()) };
    static RECORDS: RefCell<Vec<Record>> = const { RefCell::new(Vec::new()) };
    /// What happens while a stack is walked.
    static WHILE_RECORDING: RefCell<VecDeque<Interrupt>> = const { RefCell::new(VecDeque::new()) };
    static CLOCK_USES_SECTIONS: Cell<bool> = const { Cell::new(false) };
}

struct Machine;

// SAFETY: a machine is one thread, and its interrupts are taken when it is not masked.
unsafe impl Impl for Machine {
    unsafe fn acquire() -> RawRestoreState {
        !IS_MASKED.replace(true)
    }

    unsafe fn release(was_unmasked: RawRestoreState) {
        assert!(IS_MASKED.get());
        if was_unmasked {
            IS_MASKED.set(false);
            take_interrupts();
        }
    }
}

impl Tracer for Machine {
    fn tasks(&self) -> Tasks<'static> {
        POOL.view()
    }
    fn now(&self) -> Instant {
        if CLOCK_USES_SECTIONS.get() {
            critical_section(|| ());
        }
        Instant::from_nanos(NOW.get())
    }
    fn stack(&self, _: Registers, base: usize) -> StackId {
        assert!(!IS_MASKED.get(), "a walk takes too long for that");
        assert_eq!(base, 0);
        // As a table without compare-and-swap does.
        critical_section(|| pass(5));
        let event = WHILE_RECORDING.with_borrow_mut(VecDeque::pop_front);
        if let Some(event) = event {
            event();
        }
        STACK
    }
    fn current(&self) -> Context {
        Context::EMPTY.with_labels(LABELS)
    }
    fn swap_current(&self, context: Context) -> Context {
        context
    }
    fn record_block(&self, _: StackId, _: LabelSetId, _: Duration) {
        panic!("nobody blocks");
    }
    fn record_mutex(&self, stack: StackId, labels: LabelSetId, held: Duration) {
        assert!(!IS_MASKED.get());
        critical_section(|| pass(5));
        let nanos = held.as_nanos() as u64;
        RECORDS.with_borrow_mut(|records| records.push((stack, labels, nanos)));
    }
}

fn pass(nanos: u64) {
    NOW.set(NOW.get() + nanos);
}

/// As `critical_section::with`.
fn critical_section(inside: impl FnOnce()) {
    // SAFETY: released below.
    let state = unsafe { Section::acquire() };
    inside();
    // SAFETY: acquired above.
    unsafe { Section::release(state) };
}

fn interrupt(handler: impl FnOnce() + 'static) {
    PENDING.with_borrow_mut(|pending| pending.push_back(Box::new(handler)));
    if !IS_MASKED.get() {
        take_interrupts();
    }
}

fn take_interrupts() {
    while let Some(handler) = PENDING.with_borrow_mut(VecDeque::pop_front) {
        handler();
    }
}

fn while_recording(event: impl FnOnce() + 'static) {
    WHILE_RECORDING.with_borrow_mut(|events| events.push_back(Box::new(event)));
}

fn records() -> Vec<Record> {
    RECORDS.take()
}

/// The program has one section, so one test at a time.
fn program(threshold: u64) -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    static ONCE: Once = Once::new();
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    ONCE.call_once(|| {
        let early = || critical_section(|| pass(50_000));
        early();
        // Installed within a section, whose beginning is not known.
        critical_section(|| {
            pass(50_000);
            assert!(set_tracer(&TRACER));
            critical_section(|| pass(50_000));
        });
        assert_eq!(records(), []);
        // Without being asked, from 10 µs on.
        critical_section(|| pass(9_999));
        critical_section(|| pass(10_000));
        assert_eq!(records(), [(STACK, LABELS, 10_000)]);
    });
    set_masked_threshold(Duration::from_nanos(threshold));
    one
}

#[test]
fn the_outermost_section_counts() {
    let _one = program(100);
    critical_section(|| {
        pass(40);
        critical_section(|| {
            pass(40);
            critical_section(|| pass(10));
        });
        critical_section(|| pass(9));
    });
    assert_eq!(records(), []);
    critical_section(|| {
        pass(40);
        critical_section(|| pass(60));
        assert_eq!(records(), [], "not within");
    });
    assert_eq!(records(), [(STACK, LABELS, 100)]);
}

#[test]
fn the_threshold_has_a_maximum() {
    let _one = program(0);
    set_masked_threshold(Duration::from_secs(3600));
    critical_section(|| pass(u32::MAX.into()));
    critical_section(|| pass(u64::from(u32::MAX) - 1));
    // More than 32 bits.
    critical_section(|| pass(1 << 40));
    let held = [u32::MAX.into(), 1 << 40];
    assert_eq!(records(), held.map(|nanos| (STACK, LABELS, nanos)));
}

#[test]
fn the_clock_may_use_sections() {
    let _one = program(100);
    CLOCK_USES_SECTIONS.set(true);
    critical_section(|| pass(99));
    critical_section(|| {
        pass(99);
        critical_section(|| pass(1));
    });
    assert_eq!(records(), [(STACK, LABELS, 100)]);
}

#[test]
fn a_recording_is_not_recorded() {
    // Each of its own sections is long enough: one in `stack`, one for each row.
    let _one = program(5);
    critical_section(|| pass(100));
    let lost = (StackId::LOST, LabelSetId::EMPTY, 5);
    assert_eq!(
        records(),
        [
            (STACK, LABELS, 100),
            (lost.0, lost.1, 5),
            (lost.0, lost.1, 5)
        ]
    );
    // There is an end to it, and what was lost is not forgotten.
    let mut waiting = 2;
    for _ in 0..10 {
        critical_section(|| pass(100));
        let records = records();
        assert_eq!(records[0], (STACK, LABELS, 100));
        assert_eq!(records.len() as u64, 1 + 8.min(waiting + 2));
        let counted: u64 = records[1..].iter().map(|record| record.2).sum();
        assert_eq!(counted, 5 * (waiting + 2));
        waiting = records.len() as u64 - 1;
    }
    set_masked_threshold(Duration::from_nanos(100));
    critical_section(|| pass(100));
    assert_eq!(records().len(), 1 + 8);
}

#[test]
fn what_falls_into_a_recording_is_lost_and_shown() {
    let _one = program(100);
    while_recording(|| interrupt(|| critical_section(|| pass(300))));
    critical_section(|| pass(200));
    assert_eq!(
        records(),
        [
            (STACK, LABELS, 200),
            (StackId::LOST, LabelSetId::EMPTY, 300)
        ]
    );
    // Several, of which one is too short, and the share of each is even but for the first.
    while_recording(|| {
        for nanos in [100, 99, 201, 300] {
            interrupt(move || critical_section(|| pass(nanos)));
        }
    });
    critical_section(|| pass(200));
    let lost = [201, 200, 200].map(|nanos| (StackId::LOST, LabelSetId::EMPTY, nanos));
    assert_eq!(records(), [&[(STACK, LABELS, 200)][..], &lost].concat());
    // And then others are recorded again.
    critical_section(|| pass(400));
    assert_eq!(records(), [(STACK, LABELS, 400)]);
}

#[test]
fn an_interrupt_counts_for_itself() {
    let _one = program(100);
    // Pending while masked: its own section ends before that which it waited for is recorded.
    critical_section(|| {
        interrupt(|| {
            pass(1_000);
            critical_section(|| pass(50));
        });
        pass(150);
    });
    assert_eq!(records(), [(STACK, LABELS, 150)]);
    interrupt(|| critical_section(|| pass(170)));
    assert_eq!(records(), [(STACK, LABELS, 170)]);
}

/// What a program does: time passes, a section, an interrupt.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Section(Vec<Self>),
    Interrupt(Vec<Self>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..120u64).prop_map(Step::Pass);
    let step = step.prop_recursive(4, 24, 4, |step| {
        let steps = prop::collection::vec(step, 0..4);
        prop_oneof![
            2 => steps.clone().prop_map(Step::Section),
            1 => steps.prop_map(Step::Interrupt),
        ]
    });
    prop::collection::vec(step, 0..6)
}

thread_local! {
    /// As the test sees it.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static LONG: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn run(steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Pass(nanos) => pass(nanos),
            Step::Section(steps) => critical_section(move || {
                let began = NOW.get();
                DEPTH.set(DEPTH.get() + 1);
                run(steps);
                DEPTH.set(DEPTH.get() - 1);
                let held = NOW.get() - began;
                if DEPTH.get() == 0 && held >= 100 {
                    LONG.with_borrow_mut(|long| long.push(held));
                }
            }),
            Step::Interrupt(steps) => interrupt(move || run(steps)),
        }
    }
}

proptest! {
    /// Every long hold is in a row, or lost and counted, with its time.
    #[test]
    fn all_is_counted(steps in steps()) {
        let _one = program(100);
        run(steps);
        let (long, records) = (LONG.take(), records());
        let held = records.iter().map(|record| record.2);
        prop_assert_eq!(records.len(), long.len());
        prop_assert_eq!(held.sum::<u64>(), long.iter().sum::<u64>());
        let mut named = records.iter().filter(|record| record.0 == STACK);
        prop_assert!(named.all(|record| record.1 == LABELS && long.contains(&record.2)));
        prop_assert!(!IS_MASKED.get());
    }
}
