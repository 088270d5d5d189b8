//! The smallest: a machine with a UART and nothing else, whose work is done in an interrupt.

use picoprof_tests::bridge::Bridge;
use picoprof_tests::elf;
use picoprof_tests::go::Go;
use picoprof_tests::guest::Station;
use picoprof_tests::http::{self, Response};
use picoprof_tests::subject::profile_in;
use picoprof_tests::trace::{State, Trace};

#[track_caller]
fn get(station: &Station, target: &str) -> Response {
    let answer = http::get(station.address(), &format!("/debug/pprof/{target}"));
    answer.unwrap_or_else(|error| panic!("{target}: {error}"))
}

fn bridge_to(station: &Station) -> Bridge {
    let line = format!("tcp:{}", station.address());
    Bridge::start(&Station::image(), ["--serial", &line])
}

/// Who works, and who is interrupted and mostly waits.
#[track_caller]
fn check(bytes: &[u8]) -> Trace {
    Go::new().accepts_trace(bytes);
    let trace = Trace::of(bytes);
    let worker = trace.only("thread software interrupt");
    let main = trace.only("thread main");
    let runs = worker.slices.iter().filter(|it| it.state == State::Running);
    assert!(runs.count() > 5, "{:?}", worker.slices);
    assert!(main.nanos(State::Waiting) > 0 && main.nanos(State::Running) > 0);
    let of_worker = |goroutine: usize| trace.goroutines[goroutine].name == worker.name;
    assert!(trace.regions.iter().any(|it| of_worker(it.goroutine)));
    trace
}

#[test]
fn traces_come_over_its_line() {
    let station = Station::start();
    // One after the other, and none is in the way of the next.
    for _ in 0..2 {
        let answer = get(&station, "trace?seconds=1");
        assert_eq!(answer.status, 200, "{}", answer.text());
        check(&answer.body);
    }
    assert_eq!(get(&station, "cmdline").text(), "riscv-uart");
}

#[test]
fn profiles_come_over_its_line() {
    let station = Station::start();
    let profile = profile_in("profile", &get(&station, "profile?seconds=1"));
    let stacks = elf::named(&Station::image(), &profile);
    let works = |function: &str| stacks.iter().any(|stack| stack.has_frame(function));
    for function in ["work_on_block", "on_trap", "main"] {
        assert!(works(function), "no {function} in\n{}", elf::show(&stacks));
    }
    let go = Go::new();
    for target in ["heap", "goroutine", "mutex"] {
        let url = format!("http://{}/debug/pprof/{target}", station.address());
        let _ = go.pprof(["-raw", &url]).succeeded();
    }
}

#[test]
fn a_bridge_to_its_line_has_names() {
    let station = Station::start();
    let bridge = bridge_to(&station);
    let _ = bridge.introduction();
    let answer = bridge.ask("GET", "trace?seconds=1", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    check(&answer.body);
    let stacks = bridge.profile("profile?seconds=1").stacks();
    assert!(
        stacks
            .iter()
            .any(|stack| stack.has_frame("riscv_uart::station::work_on_block")),
        "{}",
        elf::show(&stacks)
    );
}
