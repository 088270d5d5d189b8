//! Labels, in a program that uses `interpose!` and the allocator: this one. With `go tool pprof`.

#![forbid(unsafe_code)]

mod go_process;

use core::future::{self, Future};
use core::hint::black_box;
use core::net::SocketAddr;
use core::pin::pin;
use core::task::{Context, Waker};
use core::time::Duration;
use std::fs;
use std::sync::{Mutex, mpsc};
use std::thread;

use go_process::{burn, comments, get, profile, profile_while, serve, sound};
use picoprof_std::{Allocator, Running, set_heap_rate, with_labels};
use picoprof_tests::go::Go;
use picoprof_tests::profile::{LabelValue, Stack};
use picoprof_tests::profile_proto::Profile;

picoprof_std::interpose!();

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::system();

#[test]
fn cpu_time_is_that_of_the_labels_it_was_used_with() {
    let (_server, address) = serve_when_ready();
    let (bytes, (mut used, unlabeled)) = profile_while(address, 1000, || {
        let threads = [("small", 100), ("large", 300)].map(|(tenant, millis)| {
            // The thread has its creator's labels, and adds its own.
            let work =
                move || with_labels([("route", "/burn")], || burn(Duration::from_millis(millis)));
            (
                tenant,
                with_labels([("tenant", tenant)], || thread::spawn(work)),
            )
        });
        let unlabeled = thread::spawn(|| burn(Duration::from_millis(100)));
        let unlabeled = unlabeled.join().expect("it does not panic");
        let used =
            threads.map(|(tenant, thread)| (tenant, thread.join().expect("it does not panic")));
        (used, unlabeled)
    });
    let cpu = sound(&bytes);
    for (tenant, used) in used {
        let labels = [("route", "/burn"), ("tenant", tenant)];
        let seen = total(&cpu, "cpu", "go_process::burn", &labels) as f64;
        let seen = seen / used.as_nanos() as f64;
        assert!((0.8..1.2).contains(&seen), "{seen} of {used:?}");
    }
    let seen = total(&cpu, "cpu", "go_process::burn", &[]) as f64 / unlabeled.as_nanos() as f64;
    assert!((0.8..1.2).contains(&seen), "{seen} of {unlabeled:?}");

    let go = Go::new();
    fs::write(go.home().join("cpu.pb.gz"), &bytes).expect("it can be written");
    let tags = go.pprof(["-tags", "cpu.pb.gz"]).succeeded();
    used.sort_by_key(|&(_, used)| used);
    let [small, large] = used.map(|(tenant, _)| share_of(tags.text(), tenant));
    assert!((2.2..4.0).contains(&(large / small)), "{}", tags.text());
    let focused = |tenant: &str| {
        let focus = format!("-tagfocus=tenant={tenant}");
        let raw = go.pprof(["-raw", &focus, "cpu.pb.gz"]).succeeded();
        raw.text().to_owned()
    };
    let raw = focused("small");
    assert!(
        raw.contains("tenant:[small]") && !raw.contains("tenant:[large]"),
        "{raw}"
    );
}

#[test]
fn allocations_are_those_of_the_labels_they_were_made_with() {
    let (_server, address) = serve_when_ready();
    set_heap_rate(1_000);
    // So many that more than 12,000 of each are sampled: a standard deviation of less than one percent.
    const SIZE: usize = 1_000;
    let kept = [("few", 20_000), ("many", 40_000)].map(|(tenant, count)| {
        // A thread of its own, as the next sample of this one was drawn at another rate.
        let keep = move || with_labels([("tenant", tenant)], || keeps_blocks(SIZE, count));
        let blocks = thread::spawn(keep).join().expect("it does not panic");
        (tenant, count, blocks)
    });
    let check = |what: &str, heap: &Profile, value: &str, expected: [usize; 2]| {
        for ((tenant, ..), expected) in kept.iter().zip(expected) {
            let seen = total(heap, value, "keeps_blocks", &[("tenant", tenant)]);
            let ratio = seen as f64 / expected as f64;
            println!("{what}: {value} of {tenant}: {ratio:.4}");
            assert!(
                (0.95..1.05).contains(&ratio),
                "{what} {tenant}: {seen} of {expected}"
            );
        }
    };
    let counts = [kept[0].1, kept[1].1];
    let heap = profile(address, "heap");
    check(
        "heap",
        &heap,
        "inuse_space",
        counts.map(|count| SIZE * count),
    );
    check("heap", &heap, "inuse_objects", counts);
    // Of so many some may find no room to be watched.
    let mut comments = comments(&heap);
    comments.retain(|comment| !comment.contains("can't watch all samples"));
    assert!(comments.is_empty(), "{comments:?}");
    // The size is a label as it always was.
    let sizes = heap
        .stacks()
        .into_iter()
        .filter(|s| s.has_frame("keeps_blocks"));
    assert!(sizes.into_iter().all(|s| s.label("bytes").is_some()));
    let text = get(address, "heap?debug=1");
    assert!(
        text.text()
            .contains("\n# labels: {\"tenant\":\"many\"}\n#\t0x")
    );
    drop(kept);
}

#[inline(never)]
fn keeps_blocks(size: usize, count: usize) -> Vec<Vec<u8>> {
    let mut blocks = Vec::with_capacity(count);
    for _ in 0..count {
        blocks.push(black_box(Vec::with_capacity(size)));
    }
    blocks
}

#[test]
fn who_waits_has_its_labels() {
    let (_server, address) = serve_when_ready();
    let lock = Mutex::new(());
    let (send, receive) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let held = lock.lock().expect("nobody panics");
        let lock = &lock;
        let waits = move || {
            drop(lock.lock());
            receive.recv()
        };
        let labels = [("tenant", "waits"), ("what", "a \"lock\"")];
        let waiting = with_labels(labels, || scope.spawn(waits));
        thread::sleep(Duration::from_millis(100));
        let text = get(address, "goroutine?debug=1");
        let line = "\n# labels: {\"tenant\":\"waits\", \"what\":\"a \\\"lock\\\"\"}\n";
        assert!(text.text().contains(line), "{}", text.text());
        let dump = get(address, "goroutine?debug=2");
        let header = "] {tenant: waits, what: \"a \\\"lock\\\"\"}:\n";
        assert!(dump.text().contains(header), "{}", dump.text());
        let goroutines = profile(address, "goroutine");
        assert_eq!(total(&goroutines, "goroutine", "", &labels), 1);
        drop(held);
        thread::sleep(Duration::from_millis(100));
        let block = profile(address, "block");
        let delay = total(&block, "delay", "", &labels);
        assert!(delay > 50_000_000, "{delay}");
        drop(send);
        assert!(waiting.join().expect("it does not panic").is_err());
    });
}

#[test]
fn a_task_has_its_labels() {
    let (_server, address) = serve_when_ready();
    // Those that it is made in, and its own.
    let task = with_labels([("tenant", "task")], || {
        picoprof_std::task("labeled", future::pending::<()>())
    });
    let mut task = pin!(task.labels([("route", "/task")]));
    let labels = [("route", "/task"), ("tenant", "task")];
    let waits = || total(&profile(address, "goroutine"), "goroutine", "", &labels);
    assert_eq!(waits(), 1);
    let polled = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    assert_eq!(waits(), 1);
    let dump = get(address, "goroutine?debug=2");
    let header = "] {route: /task, tenant: task}:\n";
    assert!(dump.text().contains(header), "{}", dump.text());
}

#[test]
fn what_finds_no_room_is_on_the_index_page() {
    let (_server, address) = serve_when_ready();
    let lost = || {
        let page = get(address, "");
        let (_, rest) =
            (page.text().split_once("labels lost for want of room ")).expect("the page tells it");
        let times = rest.split(' ').next().and_then(|times| times.parse().ok());
        times.expect("it is a number")
    };
    let before: u64 = lost();
    let long = "x".repeat(1_000);
    with_labels([("tenant", long.as_str())], || ());
    assert_eq!(lost(), before + 1);
}

/// Serves, and waits until the server has read the call frame information of the program: stacks of before are cut
/// short.
fn serve_when_ready() -> (Running, SocketAddr) {
    let (server, address) = serve();
    while get(address, "").text().contains("Unwinder: no tables") {
        thread::sleep(Duration::from_millis(20));
    }
    (server, address)
}

/// The sum over the stacks that have these labels, and no other text, and a frame whose name contains `part`.
fn total(profile: &Profile, sample_type: &str, part: &str, labels: &[(&str, &str)]) -> i64 {
    let index = profile.value_index(sample_type);
    let has_them = |stack: &Stack| {
        let texts = stack.labels.iter().filter(|(key, _)| key != "bytes");
        texts.clone().count() == labels.len()
            && labels.iter().all(|&(key, value)| {
                let text = LabelValue::Text(value.to_owned());
                stack.label(key) == Some(&text)
            })
    };
    let stacks = profile.stacks().into_iter();
    stacks
        .filter(|stack| has_them(stack) && (part.is_empty() || stack.has_frame(part)))
        .map(|stack| stack.values[index])
        .sum()
}

/// What `-tags` says of a value, in percent: `  900ms (75.00%): large`.
#[track_caller]
fn share_of(tags: &str, value: &str) -> f64 {
    let end = format!("%): {value}");
    let line = tags.lines().find_map(|line| line.strip_suffix(&end));
    let share = line.and_then(|line| line.split('(').next_back()?.trim().parse().ok());
    share.unwrap_or_else(|| panic!("{value} in:\n{tags}"))
}
