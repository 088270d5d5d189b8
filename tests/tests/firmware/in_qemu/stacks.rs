//! Whose the time was: the work by name, handlers under what they interrupted, waiting apart from work, and stacks that
//! can't be walked.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::thread;
use std::time::Instant;

use picoprof_tests::elf;
use picoprof_tests::guest::{Guest, Machine};
use picoprof_tests::hostile::bad_requests;
use picoprof_tests::profile::Stack;

on_each_machine! {
    work_has_names, handlers_are_under_what_they_interrupted, waiting_is_no_work, broken_stacks_do_no_harm
}

on_machines! {
    v6m: Mps2An385V6m [work_has_names, broken_stacks_do_no_harm],
    lm3s6965evb_room: Lm3s6965evb [the_stack_has_room],
}

const IDLE: &str = "picoprof._Idle";
const BROKEN: &str = "picoprof._StackBroken";

/// A profile taken while the guest does what it is told, again and again.
fn profile_while(guest: &Guest, seconds: u32, does: impl Fn(&Guest) + Sync) -> Vec<Stack> {
    let is_over = AtomicBool::new(false);
    let profile = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                does(guest);
            }
        });
        let profile = scope.spawn(|| guest.profile(&format!("profile?seconds={seconds}")));
        let profile = profile.join();
        is_over.store(true, Ordering::Relaxed);
        profile.expect("it is sound")
    });
    elf::named(&guest.machine().image(), &profile)
}

fn samples(stacks: &[Stack], has: impl Fn(&Stack) -> bool) -> i64 {
    stacks
        .iter()
        .filter(|stack| has(stack))
        .map(|stack| stack.values[0])
        .sum()
}

fn position(stack: &Stack, function: &str) -> Option<usize> {
    stack
        .frames
        .iter()
        .position(|frame| frame.contains(function))
}

fn work_has_names(machine: Machine) {
    let guest = Guest::start(machine);
    let stacks = profile_while(&guest, 3, |guest| {
        guest.work(20);
    });
    let shown = elf::show(&stacks);
    for function in ["parse_reading", "compress_block", "filter"] {
        let found = samples(&stacks, |stack| stack.has_frame(function));
        assert!(found > 0, "no {function} in\n{shown}");
        // A stack that is whole goes from it to who started the program.
        let whole = samples(&stacks, |stack| {
            let roots = ["main", "riscv_virt::second"];
            let inner = position(stack, function);
            let is_under = |root| inner.is_some() && inner < position(stack, root);
            roots.into_iter().any(is_under)
        });
        assert!(
            2 * whole > found,
            "{function}: {whole} of {found} stacks are whole, in\n{shown}"
        );
    }
    guest.end();
}

/// From the handler's work, through the handler, to what it interrupted, to `main`.
fn handlers_are_under_what_they_interrupted(machine: Machine) {
    let (work, handler) = match machine {
        Machine::Lm3s6965evb => ("take_sample", "TIMER_0A"),
        Machine::RiscvVirt => ("check_code", "run_if_due"),
        _ => ("smooth", "handle_sensor_interrupt"),
    };
    let guest = Guest::start(machine);
    let interrupted = ["parse_reading", "compress_block", "filter", "measure"];
    // How often the tick comes in a handler is a matter of chance.
    let mut shown = String::new();
    let was_seen = (0..10).any(|_| {
        let stacks = profile_while(&guest, 4, |guest| {
            guest.work(20);
        });
        let found = |outer: &[&str]| {
            samples(&stacks, |stack| {
                let functions = [work, handler].into_iter().chain(outer.iter().copied());
                let mut places = functions.map(|function| position(stack, function));
                let mut last = None;
                places.all(|place| {
                    let is_next = place.is_some() && place >= last;
                    last = place;
                    is_next
                })
            })
        };
        shown = elf::show(&stacks);
        found(&["main"]) > 0
            && interrupted
                .iter()
                .any(|function| found(&[function, "main"]) > 0)
    });
    assert!(
        was_seen,
        "no {handler} above {interrupted:?} and main, in\n{shown}"
    );
    guest.end();
}

/// A machine that waits has more samples of waiting, and fewer of work, than one that works.
fn waiting_is_no_work(machine: Machine) {
    let guest = Guest::start(machine);
    let share = |stacks: &[Stack]| {
        let [idle, all] = [IDLE, ""].map(|name| samples(stacks, |stack| stack.has_frame(name)));
        idle as f64 / all as f64
    };
    let waits = elf::named(&machine.image(), &guest.profile("profile?seconds=2"));
    let works = profile_while(&guest, 2, |guest| {
        guest.work(20);
    });
    let shown = format!("{}\n{}", elf::show(&waits), elf::show(&works));
    assert!(
        share(&waits) > 0.3,
        "{} of the time idle, in\n{shown}",
        share(&waits)
    );
    assert!(share(&works) < share(&waits), "{shown}");
    guest.end();
}

/// Whatever is asked, all at once, while it works.
fn the_stack_has_room(machine: Machine) {
    let guest = Guest::start(machine);
    for (_, bytes) in bad_requests() {
        let mut client = guest.connect();
        // It may be answered before it is sent.
        let _ = client.send(&bytes);
        client.read_response().expect("it is answered");
    }
    let taken = ["profile?seconds=2", "trace?seconds=2"];
    let mut taken = taken.map(|target| guest.connect_and_ask(target));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        guest.work(20);
        for target in [
            "",
            "goroutine",
            "goroutine?debug=1",
            "goroutine?debug=2",
            "block?debug=1",
            "mutex",
            "symbol?0x100+0x200",
        ] {
            assert_eq!(guest.get(target).status, 200, "{target}");
        }
    }
    for client in &mut taken {
        let answer = client.read_response().expect("it is taken");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let unused = guest.unused_stack();
    println!("{unused} bytes of the stack unused");
    assert!(unused >= 1024, "{unused} bytes");
    guest.end();
}

fn broken_stacks_do_no_harm(machine: Machine) {
    let guest = Guest::start(machine);
    let stacks = profile_while(&guest, 2, Guest::corrupt);
    let broken = samples(&stacks, |stack| stack.has_frame(BROKEN));
    assert!(broken > 10, "{broken} broken, in\n{}", elf::show(&stacks));
    // It lives, and its stack is whole again.
    let stacks = profile_while(&guest, 1, |guest| {
        guest.work(5);
    });
    let broken = samples(&stacks, |stack| stack.has_frame(BROKEN));
    assert_eq!(broken, 0, "{}", elf::show(&stacks));
    guest.end();
}
