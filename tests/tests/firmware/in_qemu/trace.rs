//! Execution traces: who did what when, on each machine; as Go's reader takes them, and a stricter one.

use core::net::SocketAddr;
use core::time::Duration;
use std::thread;
use std::time::Instant;

use picoprof_tests::bridge::Bridge;
use picoprof_tests::go::Go;
use picoprof_tests::guest::{Guest, Machine};
use picoprof_tests::http;
use picoprof_tests::trace::{State, Trace, has_function};

on_each_machine! {
    tasks_and_interrupts_are_seen, samples_are_in_it, one_at_a_time, a_client_that_leaves_ends_it, names_come_from_the_file,
}

on_machines! {
    riscv_virt_harts: RiscvVirt [one_hart_wakes_the_other],
    v6m: Mps2An385V6m [tasks_and_interrupts_are_seen],
    mps2_an385_line: Mps2An385 [over_a_uart],
}

/// What is to be seen on a machine.
struct Expected {
    tasks: &'static [&'static str],
    /// Handlers of interrupts, and what else is no task.
    threads: &'static [&'static str],
    /// A task, and who wakes it.
    woken: [&'static str; 2],
    /// Where that one waits: a function.
    at: &'static str,
    regions: &'static [&'static str],
    /// A log's category.
    log: &'static str,
}

impl Expected {
    fn of(machine: Machine) -> Self {
        match machine {
            Machine::Lm3s6965evb => Self {
                tasks: &["application", "sensor"],
                threads: &["thread main", "thread TIMER_0A", "thread ETHERNET"],
                woken: ["sensor", "thread TIMER_0A"],
                at: "receive",
                regions: &["network", "sort"],
                log: "sensor",
            },
            Machine::Mps2An385 | Machine::Mps2An385V6m => Self {
                tasks: &["application", "archive", "network"],
                threads: &["thread alarm", "thread sensor", "thread Ethernet"],
                woken: ["archive", "thread sensor"],
                at: "keep_measurements",
                regions: &["compress"],
                log: "archive",
            },
            Machine::RiscvVirt => Self {
                tasks: &["application", "measure", "audit", "network"],
                threads: &["thread hart 1", "thread hart 0, card"],
                woken: ["measure", "thread hart 1"],
                at: "measure_always",
                regions: &["compress", "work"],
                log: "application",
            },
            Machine::RiscvUart => unreachable!("it is fetched from over a network"),
        }
    }
}

/// A trace of a machine at work, got by `get`, that Go accepts.
fn traced(guest: &Guest, get: impl Fn(&str) -> Vec<u8> + Sync) -> Trace {
    let bytes = thread::scope(|scope| {
        let trace = scope.spawn(|| get("trace?seconds=2"));
        while !trace.is_finished() {
            guest.work(20);
            guest.put(b"1042 ch3 -217\n");
        }
        trace.join().expect("there's a trace")
    });
    Go::new().accepts_trace(&bytes);
    Trace::of(&bytes)
}

#[track_caller]
fn get(guest: &Guest, target: &str) -> Vec<u8> {
    let response = guest.get(target);
    assert_eq!(response.status, 200, "{}", response.text());
    response.body
}

/// The same, with all that is expected of it. A machine with 2 KB for events keeps those that are fetched in time, and a busy
/// emulator's client may come late: then it's asked again.
fn checked(guest: &Guest, expected: &Expected, get: impl Fn(&str) -> Vec<u8> + Sync) -> Trace {
    for rest in (0..5).rev() {
        let trace = traced(guest, &get);
        match missing(&trace, expected) {
            None => return trace,
            Some(what) => assert!(rest > 0, "{what}, of {:?}", names(&trace)),
        }
    }
    unreachable!("the last one has all or panics")
}

/// What of the expected is not there.
fn missing(trace: &Trace, expected: &Expected) -> Option<String> {
    for name in expected.tasks.iter().chain(expected.threads) {
        let ran = |it: &_| {
            let it: &picoprof_tests::trace::Goroutine = it;
            it.nanos(State::Running) > 0
        };
        if !trace.named(name).any(ran) {
            return Some(format!("{name} does not run"));
        }
    }
    let [task, waker] = expected.woken;
    let slices = trace.named(task).flat_map(|it| &it.slices);
    let waits: Vec<_> = slices.filter(|it| it.state == State::Waiting).collect();
    let wakes = waits.iter().filter_map(|it| it.woken.as_ref());
    let by_waker = wakes.filter(|&wake| trace.waker(wake) == waker).count();
    if by_waker <= 2 {
        return Some(format!(
            "{task} is woken {by_waker} times by {waker}, in {} waits",
            waits.len()
        ));
    }
    for name in expected.regions {
        if !trace.regions.iter().any(|it| &*it.name == *name) {
            return Some(format!("no region {name}"));
        }
    }
    let is_logged = trace.logs.iter().any(|it| &*it.category == expected.log);
    (!is_logged).then(|| format!("no log of {}", expected.log))
}

fn names(trace: &Trace) -> Vec<&str> {
    trace.goroutines.iter().map(|it| &*it.name).collect()
}

fn tasks_and_interrupts_are_seen(machine: Machine) {
    let guest = Guest::start(machine);
    let expected = Expected::of(machine);
    let trace = checked(&guest, &expected, |target| get(&guest, target));
    let seconds = Duration::from_nanos(trace.ends - trace.begins).as_secs_f64();
    // What it is asked for, and however long a machine beside others takes to see that this is over.
    assert!((1.8..10.0).contains(&seconds), "{seconds}");
    guest.end();
}

/// Who has something to compress wakes the hart that does that, from where it waits for it then.
fn one_hart_wakes_the_other(machine: Machine) {
    let guest = Guest::start(machine);
    let device = format!("http://{}", guest.address());
    let bridge = Bridge::start(&machine.image(), ["--device", &device]);
    let trace = traced(&guest, |target| bridge.ask("GET", target, "").body);
    let slices = trace.named("thread hart 1").flat_map(|it| &it.slices);
    let wakes: Vec<_> = slices.filter_map(|it| it.woken.as_ref()).collect();
    for task in ["measure", "application"] {
        let by_task = wakes.iter().filter(|&wake| trace.waker(wake) == task);
        let by_task = by_task.filter(|wake| has_function(&wake.stack, "compress"));
        assert!(by_task.count() > 2, "{task}: of {}", wakes.len());
    }
    guest.end();
}

/// Of a CPU profile that is taken meanwhile.
fn samples_are_in_it(machine: Machine) {
    let guest = Guest::start(machine);
    let trace = thread::scope(|scope| {
        let profile = scope.spawn(|| guest.profile("profile?seconds=2"));
        let trace = traced(&guest, |target| get(&guest, target));
        profile.join().expect("it is sound");
        trace
    });
    let whole = trace
        .samples
        .iter()
        .filter(|it| it.thread.is_some() && it.stack.len() > 1);
    assert!(whole.count() > 20, "{}", trace.samples.len());
    let ids: Vec<u64> = trace.named("application").map(|it| it.id).collect();
    let of_work = trace
        .samples
        .iter()
        .filter(|it| ids.contains(&it.goroutine));
    assert!(of_work.count() > 10);
    guest.end();
}

fn one_at_a_time(machine: Machine) {
    let guest = Guest::start(machine);
    let mut first = guest.connect_and_ask("trace?seconds=2");
    thread::sleep(Duration::from_millis(300));
    let second = guest.get("trace?seconds=1");
    assert_eq!(second.status, 500, "{}", second.text());
    assert!(
        second.text().contains("already enabled"),
        "{}",
        second.text()
    );
    let first = first.read_response().expect("it is sent");
    Go::new().accepts_trace(&first.body);
    guest.end();
}

fn a_client_that_leaves_ends_it(machine: Machine) {
    let guest = Guest::start(machine);
    drop({
        let client = guest.connect_and_ask("trace?seconds=600");
        thread::sleep(Duration::from_millis(500));
        client
    });
    let left = Instant::now();
    let next = loop {
        let next = guest.get("trace?seconds=0.2");
        if next.status == 200 {
            break next;
        }
        assert!(left.elapsed() < Duration::from_secs(5), "{}", next.text());
        thread::sleep(Duration::from_millis(100));
    };
    Go::new().accepts_trace(&next.body);
    guest.end();
}

/// Functions, files and lines, by the bridge.
fn names_come_from_the_file(machine: Machine) {
    let guest = Guest::start(machine);
    let expected = Expected::of(machine);
    let device = format!("http://{}", guest.address());
    let bridge = Bridge::start(&machine.image(), ["--device", &device]);
    let trace = checked(&guest, &expected, |target| {
        let response = bridge.ask("GET", target, "");
        assert_eq!(response.status, 200, "{}", response.text());
        response.body
    });
    let [task, _] = expected.woken;
    let waits: Vec<_> = trace
        .named(task)
        .flat_map(|it| it.waits_at(expected.at))
        .collect();
    assert!(waits.len() > 2, "{:?}", trace.named(task).next());
    for wait in waits {
        let (last, frames) = wait.stack.split_last().expect("it has one");
        assert_eq!(&*last.function, task);
        for frame in frames {
            assert!(!frame.function.starts_with("0x"), "{:?}", wait.stack);
        }
        assert!(
            frames
                .iter()
                .any(|it| it.file.ends_with(".rs") && it.line > 0)
        );
    }
    guest.end();
}

fn over_a_uart(machine: Machine) {
    let guest = Guest::start(machine);
    let serial: SocketAddr = guest.serial().parse().expect("it's a port");
    checked(&guest, &Expected::of(machine), |target| {
        let response = http::get(serial, &format!("/debug/pprof/{target}"));
        let response = response.expect("it answers");
        assert_eq!(response.status, 200, "{}", response.text());
        response.body
    });
    guest.end();
}
