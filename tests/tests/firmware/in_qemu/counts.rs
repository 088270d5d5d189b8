//! Profiles have what the guests counted themselves.

use std::thread;

use picoprof_tests::elf;
use picoprof_tests::guest::{Guest, Machine, Stats};
use picoprof_tests::profile::Stack;

on_each_machine! { samples_are_the_ticks, masked_interrupts_are_the_programs, tasks_are_the_programs }

on_machines! {
    v6m: Mps2An385V6m [samples_are_the_ticks, masked_interrupts_are_the_programs, heap_is_the_programs],
    mps2_an385_heap: Mps2An385 [heap_is_the_programs, waits_are_the_programs],
    riscv_virt_heap: RiscvVirt [heap_is_the_programs, waits_are_the_programs],
}

/// The sum of a value over the stacks with a function.
fn total(stacks: &[Stack], index: usize, function: &str) -> u64 {
    let with_it = stacks.iter().filter(|stack| stack.has_frame(function));
    with_it.map(|stack| stack.values[index] as u64).sum()
}

/// Fails unless `found` was reached between the two looks at the program's own count.
#[track_caller]
fn assert_between(what: &str, before: &Stats, found: u64, after: &Stats, stacks: &[Stack]) {
    let counted = before.of(what)..=after.of(what);
    assert!(
        counted.contains(&found),
        "{what}: {found} in the profile, {counted:?} counted by the program, in\n{}",
        elf::show(stacks)
    );
}

fn samples_are_the_ticks(machine: Machine) {
    let guest = Guest::start(machine);
    for _ in 0..3 {
        let before = guest.stats();
        let profile = thread::scope(|scope| {
            let profile = scope.spawn(|| guest.profile("profile?seconds=1"));
            guest.work(20);
            profile.join().expect("it is sound")
        });
        let after = guest.stats();
        let counted = |name: &str| after.of(name) - before.of(name);
        let stacks = profile.stacks();
        let samples = total(&stacks, 0, "");
        // Some ticks come between the program's count and the beginning of a profile, or its end. Where there is no memory
        // for a snapshot, the counters are cleared as it begins and go on while it is sent: more of them are not in it.
        let outside = if machine.takes_snapshots() { 15 } else { 50 };
        let is_close = |found: u64, counted: u64| (found..=found + outside).contains(&counted);
        assert!(
            is_close(samples, counted("samples"))
                && is_close(total(&stacks, 0, "picoprof._Idle"), counted("idle")),
            "{samples} samples, {before:?} {after:?}\n{}",
            elf::show(&stacks)
        );
        // The program's count has those of other kinds, too.
        assert!(total(&stacks, 0, "picoprof._LostSample") <= counted("lost"));
        // A tick is a millisecond.
        assert_eq!(total(&stacks, 1, ""), samples * 1_000_000);
        assert!(
            samples > 20 && samples <= counted("ticks"),
            "{before:?} {after:?}"
        );
    }
    guest.end();
}

/// Who kept interrupts masked, how often and for how long.
fn masked_interrupts_are_the_programs(machine: Machine) {
    let guest = Guest::start(machine);
    let holder = "hold_interrupts_masked";
    let mut before = guest.stats();
    while before.of("masked") < 3 {
        guest.work(5);
        before = guest.stats();
    }
    let profile = guest.profile("mutex");
    let after = guest.stats();
    let stacks = elf::named(&machine.image(), &profile);
    assert_between(
        "masked",
        &before,
        total(&stacks, 0, holder),
        &after,
        &stacks,
    );
    let micros = total(&stacks, 1, holder) / 1000;
    // It is measured around the program's own measurement; a machine that is busy may do something else in between.
    assert!(
        micros >= before.of("masked_us"),
        "{micros} us, {before:?} {after:?} in\n{}",
        elf::show(&stacks)
    );
    guest.end();
}

fn tasks_are_the_programs(machine: Machine) {
    let guest = Guest::start(machine);
    let dump = guest.get("goroutine?debug=2").text().to_owned();
    let tasks = guest.stats().of("tasks");
    let in_dump = dump.matches("\npicoprof.task[").count() as u64;
    assert_eq!(in_dump, tasks, "{dump}");
    // Each is in the profile, too; some machines have threads beside them.
    let stacks = guest.profile("goroutine").stacks();
    assert!(total(&stacks, 0, "") >= tasks, "{}", elf::show(&stacks));
    guest.end();
}

/// What the program stores and frees: to the byte where each allocation is a sample, else about that.
fn heap_is_the_programs(machine: Machine) {
    let keeper = "store_block";
    let guest = Guest::start(machine);
    let image = machine.image();
    for at_least in [5, 30] {
        let mut before = guest.stats();
        while before.of("allocs") < at_least {
            guest.work(5);
            before = guest.stats();
        }
        let profile = guest.profile("heap");
        let after = guest.stats();
        let stacks = elf::named(&image, &profile);
        let of = |ty: &str| total(&stacks, profile.value_index(ty), keeper);
        if profile.period > 1 {
            let (estimate, stored) = (of("alloc_objects"), before.of("allocs"));
            assert!(
                at_least < 30 || (stored / 3..3 * stored).contains(&estimate),
                "{estimate} in the profile, {stored} counted by the program, in\n{}",
                elf::show(&stacks)
            );
            continue;
        }
        assert_between("allocs", &before, of("alloc_objects"), &after, &stacks);
        let freed = of("alloc_objects") - of("inuse_objects");
        assert_between("frees", &before, freed, &after, &stacks);
        if before == after {
            assert_between("live", &before, of("inuse_space"), &after, &stacks);
        }
        assert!(of("inuse_space") > 0);
    }
    guest.end();
}

/// Who waited for a lock: at least as often as the program says, which counts but its own.
fn waits_are_the_programs(machine: Machine) {
    let guest = Guest::start(machine);
    let mut before = guest.stats();
    while before.of("blocked") == 0 {
        guest.work(5);
        before = guest.stats();
    }
    let lock = match machine {
        Machine::RiscvVirt => "lock_ledger",
        _ => "archive::lock",
    };
    // One that the program has counted already may not be over yet, on another core.
    for rest in (0..10).rev() {
        let profile = guest.profile("block");
        let stacks = elf::named(&machine.image(), &profile);
        let waits = total(&stacks, 0, lock);
        if waits >= before.of("blocked") {
            break;
        }
        assert!(
            rest > 0,
            "{waits} of {lock}, {before:?} in\n{}",
            elf::show(&stacks)
        );
    }
    guest.end();
}
