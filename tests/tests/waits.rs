//! Which waits `block` and `mutex` show, through the endpoints: told by the functions on the stack.

#![forbid(unsafe_code)]

use core::time::Duration;
use std::collections::BTreeSet;

use picoprof::Instant;
use picoprof::http::{Connection, Transmit};
use picoprof::profile::{Role, Wait};
use picoprof::stack::StackId;
use picoprof_tests::http::parse_answers;
use picoprof_tests::model::{Model, code_at, drain_connection};
use picoprof_tests::profile::{decode, validate};

/// A function of its own, that nothing is inlined to: 0x40 bytes each.
fn function(number: usize) -> usize {
    let mut pcs = 0x1000 + number * 0x40..;
    pcs.find(|pc| code_at(*pc).len() == 1).unwrap()
}

/// A function that two others are inlined to.
fn with_inlined(number: usize) -> usize {
    let mut pcs = 0x1000 + number * 0x40..;
    pcs.find(|pc| code_at(*pc).len() == 3).unwrap()
}

/// A program that has waited for everything once, at a leaf of its own; its functions by what they do.
struct Program {
    model: Box<Model>,
}

const FUTEX: usize = 0;
const LIBRARY: usize = 1;
const LOCK: usize = 2;
const PARK: usize = 3;
const SLEEP: usize = 4;
const WORKER: usize = 5;
const CONDITION: usize = 6;
const APP: usize = 7;
const MAIN: usize = 8;
/// A condition variable inlined to a library's function that is inlined to a channel.
const CHANNEL: usize = 9;
/// No function.
const NOWHERE: usize = 0xf000;

impl Program {
    fn new() -> Self {
        let model = Box::<Model>::default();
        for (number, role) in [
            (FUTEX, Role::Waits(Wait::Syscall)),
            (LIBRARY, Role::Library),
            (LOCK, Role::Waits(Wait::Mutex)),
            (PARK, Role::Waits(Wait::Park)),
            (SLEEP, Role::Waits(Wait::Sleep)),
            (WORKER, Role::Waits(Wait::Idle)),
            (CONDITION, Role::Waits(Wait::Condition)),
        ] {
            model.set_roles(function(number), &[role]);
        }
        let channel = [
            Role::Waits(Wait::Condition),
            Role::Library,
            Role::Waits(Wait::Receive),
        ];
        model.set_roles(with_inlined(CHANNEL), &channel);
        Self { model }
    }

    /// A stack, and a place in its outermost frame by which it is known again.
    fn stack(&self, numbers: &[usize], mark: usize) -> Vec<usize> {
        let inner = numbers.iter().map(|&number| match number {
            CHANNEL => with_inlined(number),
            NOWHERE => NOWHERE,
            number => function(number),
        });
        inner.chain([0x7000 + mark]).collect()
    }

    fn wait(&self, numbers: &[usize], mark: usize) {
        self.model.wait(&self.stack(numbers, mark), 7);
    }

    fn release(&self, numbers: &[usize], mark: usize) {
        self.model.release(&self.stack(numbers, mark), 7);
    }

    fn happen(&self) {
        for (mark, numbers) in STACKS.iter().enumerate() {
            self.wait(numbers, mark);
            self.release(numbers, mark);
        }
    }

    /// The marks that a profile shows.
    fn shown(&self, target: &str) -> BTreeSet<usize> {
        let mut connection = Connection::<_, 256>::new(&*self.model);
        let request = format!("GET /debug/pprof/{target} HTTP/1.0\r\n\r\n");
        connection.receive(request.as_bytes());
        let mut now = Instant::from_millis(0);
        let mut sent = drain_connection(&mut connection, now);
        if let Transmit::WaitUntil(time) = connection.transmit(now, &mut [0; 8]) {
            // In a difference only what happens now is to be seen.
            self.happen();
            now = time + Duration::from_millis(1);
            sent = drain_connection(&mut connection, now);
        }
        let answers = parse_answers(&sent, &[]).unwrap();
        assert_eq!(answers[0].status, 200, "{target}");
        let body = &answers[0].body;
        let marks = if target.contains("debug=1") {
            let text = String::from_utf8(body.clone()).unwrap();
            let records = text.lines().filter_map(|line| line.split_once(" @ "));
            let outermost = records.map(|(_, pcs)| pcs.rsplit_once("0x").unwrap().1.to_owned());
            outermost
                .map(|pc| usize::from_str_radix(&pc, 16).unwrap() - 1)
                .collect::<Vec<_>>()
        } else {
            let profile = decode(body).unwrap();
            assert_eq!(validate(&profile), Ok(()));
            let of_id = |id| {
                profile
                    .location
                    .iter()
                    .find(|l| l.id == id)
                    .unwrap()
                    .address
            };
            let samples = profile.sample.iter();
            samples
                .map(|sample| of_id(*sample.location_id.last().unwrap()) as usize)
                .collect()
        };
        marks
            .into_iter()
            .map(|pc| pc.wrapping_sub(0x7000))
            .collect()
    }
}

/// By mark.
const STACKS: [&[usize]; 12] = [
    &[FUTEX, LIBRARY, LOCK, APP, MAIN],
    &[FUTEX, LIBRARY, PARK, LIBRARY, APP, MAIN],
    &[FUTEX, SLEEP, APP, MAIN],
    // A park that a worker without work is in, behind its library.
    &[FUTEX, PARK, LIBRARY, WORKER, APP, MAIN],
    // Whoever parks with a lock's function further out is the program's own: not the lock.
    &[FUTEX, PARK, APP, LOCK, MAIN],
    // The program's own innermost: goes on until something is found.
    &[APP, LOCK, MAIN],
    &[APP, MAIN],
    &[NOWHERE, MAIN],
    &[FUTEX, CHANNEL, APP],
    // A condition variable made into a lock.
    &[NOWHERE, CONDITION, NOWHERE, LOCK],
    &[FUTEX],
    &[],
];

const ALL: [usize; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
/// Neither asleep nor idle, nor in the kernel for who knows what.
const SYNCHRONIZATION: [usize; 9] = [0, 1, 4, 5, 6, 7, 8, 9, 11];
const LOCKS: [usize; 3] = [0, 5, 9];

#[test]
fn profiles_show_what_they_are_about() {
    let with_idle = [&SYNCHRONIZATION[..], &[3]].concat();
    let program = Program::new();
    program.happen();
    for (kind, query, expected) in [
        ("block", "", &SYNCHRONIZATION[..]),
        ("block", "all=0&idle=x", &SYNCHRONIZATION),
        ("block", "idle=1", &with_idle),
        ("block", "all=1", &ALL),
        ("block", "all=1&idle=1", &ALL),
        ("mutex", "", &LOCKS),
        ("mutex", "idle=1", &LOCKS),
        ("mutex", "all=1", &ALL),
    ] {
        let expected: BTreeSet<_> = expected.iter().copied().collect();
        for form in ["debug=0", "debug=1", "seconds=1"] {
            let target = format!("{kind}?{query}&{form}");
            assert_eq!(program.shown(&target), expected, "{target}");
        }
    }
    assert!(!program.model.is_asked_wrongly.get());
}

#[test]
fn without_names_or_memory_nothing_is_left_out() {
    let program = Program::new();
    program.happen();
    program.model.has_names.set(false);
    let all: BTreeSet<_> = ALL.into_iter().collect();
    for target in ["block", "mutex", "mutex?debug=1", "block?seconds=1"] {
        assert_eq!(program.shown(target), all, "{target}");
    }
    program.model.has_names.set(true);
    program.model.has_memory.set(false);
    for target in ["block", "mutex", "mutex?debug=1"] {
        assert_eq!(program.shown(target), all, "{target}");
    }
}

/// Nobody knows what it was, so it may have been a lock.
#[test]
fn what_is_lost_is_shown() {
    let program = Program::new();
    program.happen();
    let rows = program.model.mutex.view();
    rows.add(StackId::LOST, 0, &[2, 9]);
    let talk = picoprof_tests::model::talk::<256>(
        &program.model,
        &[b"GET /debug/pprof/mutex HTTP/1.0\r\n\r\n"],
        512,
    );
    let answers = parse_answers(&talk.sent, &[]).unwrap();
    let profile = decode(&answers[0].body).unwrap();
    assert_eq!(profile.total("contentions", "picoprof._LostSample"), 2);
    assert_eq!(profile.total("delay", ""), 9 + 7 * LOCKS.len() as i64);
}
