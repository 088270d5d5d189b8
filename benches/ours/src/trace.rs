//! The execution trace: what an event costs, and how many bytes it takes.

use core::hint::black_box;
use core::pin::pin;
use core::task::{Context, Waker};
use std::time::{Duration, Instant};

use bench::{meter, print, route, tasks};
use picoprof_std::FlightRecorder;
use picoprof_std::trace::Region;
use picoprof_tests::http;
use picoprof_tests::trace::{State, Trace};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{sample, tasks as ours};

/// Pairs of rounds, of which the middle one counts.
const PAIRS: usize = 41;

route! { |future| future }

fn start() -> FlightRecorder {
    FlightRecorder::start().expect("nobody else records")
}

/// Does the work with the flight recorder on.
pub(crate) fn recorded(work: impl FnOnce()) {
    let _recorder = start();
    work();
}

/// A region, so many times: two events, of which the first has a name.
pub(crate) fn regions(n: usize) {
    for i in 0..n {
        let region = Region::new("region");
        black_box(i);
        drop(region);
    }
}

/// The loop of it alone.
pub(crate) fn no_regions(n: usize) {
    for i in 0..n {
        black_box(i);
    }
}

/// Shows that each event is recorded: of so many polls, the waits.
pub(crate) fn check(n: usize) {
    let _recorder = start();
    ours::poll("poll", n);
    regions(n);
    let trace = read_all();
    let tasks = trace.named("polled");
    let slices = tasks.flat_map(|task| &task.slices);
    let waits = slices.filter(|slice| slice.state == State::Waiting);
    print("waits", waits.count() as f64);
    print("regions", trace.regions.len() as f64);
}

fn read_all() -> Trace {
    let mut bytes = Vec::new();
    FlightRecorder::write_to(&mut bytes).expect("there is memory");
    Trace::read(&bytes).expect("a trace")
}

/// Nanoseconds of CPU time that an event takes: polls with a recorder and without, in turn.
pub(crate) fn nanoseconds(n: usize) {
    let (_server, address) = sample::serve();
    http::get(address, "/debug/pprof/cmdline").expect("a response");
    drop(start());
    let mut task = pin!(picoprof_std::task("polled", serve::<0>(tasks::never())));
    let mut context = Context::from_waker(Waker::noop());
    let polls = (n / PAIRS).max(1);
    let mut round = || {
        let begin = meter::thread_cpu_ms();
        for _ in 0..polls {
            assert!(task.as_mut().poll(&mut context).is_pending());
        }
        (meter::thread_cpu_ms() - begin) * 1e6 / polls as f64
    };
    let differences = (0..PAIRS).map(|_| {
        let off = round();
        let recorder = start();
        let on = round();
        drop(recorder);
        (on - off) / 2.0
    });
    print("event_ns", middle(differences));
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Two tasks that send each other a number so many times, each of which waits for the other's.
fn ping_pong(runtime: &Runtime, times: usize, is_seen: bool) {
    let (to_ping, ping) = channel(1);
    let (to_pong, pong) = channel(1);
    runtime.block_on(async {
        to_ping.send(0).await.expect("it waits");
        let both = [(ping, to_pong), (pong, to_ping)].map(|(from, to)| {
            let player = play(from, to, times);
            if is_seen {
                tokio::spawn(picoprof_std::task("player", player))
            } else {
                tokio::spawn(player)
            }
        });
        for player in both {
            player.await.expect("it does not panic");
        }
    });
}

async fn play(mut from: Receiver<u64>, to: Sender<u64>, times: usize) {
    for _ in 0..times {
        let Some(number) = from.recv().await else {
            return;
        };
        // The last one is for nobody.
        let _ = to.send(number + 1).await;
    }
}

fn runtime(threads: usize) -> Runtime {
    if threads == 0 {
        return Builder::new_current_thread().build().expect("a runtime");
    }
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).build().expect("a runtime")
}

/// How often the time of ping-pong it takes if it is recorded: than the same tasks take while nothing is, and than tasks
/// that picoprof does not know of.
pub(crate) fn slower(n: usize, threads: usize) {
    let (_server, address) = sample::serve();
    http::get(address, "/debug/pprof/cmdline").expect("a response");
    drop(start());
    let runtime = runtime(threads);
    let times = (n / PAIRS).max(1);
    // Of one thread CPU time, as others may want the processor too.
    let round = |is_seen| {
        let (begin, cpu) = (Instant::now(), meter::thread_cpu_ms());
        ping_pong(&runtime, times, is_seen);
        if threads == 0 {
            meter::thread_cpu_ms() - cpu
        } else {
            begin.elapsed().as_secs_f64() * 1e3
        }
    };
    let (mut of_seen, mut of_plain, mut ns) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let plain = round(false);
        let off = round(true);
        let recorder = start();
        let on = round(true);
        drop(recorder);
        of_seen.push(on / off);
        of_plain.push(on / plain);
        ns.push(on * 1e6 / times as f64);
    }
    print("than_off", middle(of_seen.into_iter()));
    print("than_plain", middle(of_plain.into_iter()));
    print("round_trip_ns", middle(ns.into_iter()));
}

/// Games whose trace is weighed, and for how long it is taken.
const GAMES: usize = 100;
const TRACED: Duration = Duration::from_secs(3);

/// Bytes of a trace for each event of it, where two tasks after two others play.
pub(crate) fn size(threads: usize) {
    let (_server, address) = sample::serve();
    let runtime = runtime(threads);
    let trace = std::thread::spawn(move || {
        http::get(address, "/debug/pprof/trace?seconds=3")
            .expect("a response")
            .body
    });
    // As many on any machine, as the numbers of tasks grow with each game; but no longer than the trace.
    let begin = Instant::now();
    for _ in 0..GAMES {
        ping_pong(&runtime, 10_000, true);
        if begin.elapsed() >= TRACED {
            break;
        }
    }
    let bytes = trace.join().expect("it does not panic");
    let trace = Trace::read(&bytes).expect("a trace");
    print("bytes", bytes.len() as f64);
    print("events", trace.events as f64);
    print("generations", trace.generations as f64);
    print("bytes_per_event", bytes.len() as f64 / trace.events as f64);
}
