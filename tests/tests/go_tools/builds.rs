//! Builds of the example: ordinary, with frame pointers, stripped.

use core::time::Duration;
use std::path::Path;

use picoprof_tests::go::Go;
use picoprof_tests::process::{command, run};
use picoprof_tests::profile_proto::Profile;
use tempfile::TempDir;

use crate::server::{
    Captured, Example, cum_share, expect_shares, ordinary, sound, with_frame_pointers,
};

/// Where stacks begin: the main thread, and the others; glibc's names, and musl's.
const ROOTS: &[&str] = &[
    "_start",
    "_start_c",
    "main",
    "__libc_start_main",
    "__libc_start_call_main",
    "clone",
    "clone3",
    "__clone",
    "__clone3",
    "start",
    "start_thread",
    "thread_start",
];

/// The share of the CPU time whose stacks are whole.
fn share_with_root(profile: &Profile) -> f64 {
    let cpu = profile.value_index("cpu");
    let (mut whole, mut all) = (0, 0);
    for stack in profile.stacks() {
        let root = stack.frames.last().map_or("", String::as_str);
        // Versions of glibc's symbols.
        let root = root.split('@').next().unwrap_or_default();
        all += stack.values[cpu];
        if ROOTS.contains(&root) {
            whole += stack.values[cpu];
        } else {
            println!("cut short: {:?}", stack.frames);
        }
    }
    assert!(all > 0, "the load is at work");
    let share = whole as f64 / all as f64;
    println!("{share:.4} of the CPU time has whole stacks");
    share
}

/// The percentage that the index page gives for frame pointers.
fn frame_pointer_share(example: &Example) -> f64 {
    let page = String::from_utf8(example.get("")).expect("it is text");
    let line = page.lines().find(|line| line.contains("frame pointer"));
    let line = line.unwrap_or_else(|| panic!("no word of frame pointers in:\n{page}"));
    let before = line.split('%').next().unwrap_or_default().trim_end();
    let number = before.rsplit(' ').next().unwrap_or_default();
    number.parse().unwrap_or_else(|_| panic!("{line}"))
}

#[test]
fn stacks_are_whole_in_an_ordinary_build() {
    let share = share_with_root(&sound("cpu", &Captured::get().cpu));
    assert!(share >= 0.99, "{share}");
}

#[test]
fn stacks_are_whole_with_frame_pointers() {
    let ordinary = Example::shared();
    let framed = Example::start(&with_frame_pointers(), &["--port", "0", "--admin", "0"]);
    let share = share_with_root(&framed.profile("profile?seconds=3&hz=500"));
    assert!(share >= 0.99, "{share}");
    {
        // The page speaks of the code that was looked at for stacks: the first profile does that.
        let _lock = ordinary.lock_cpu();
        ordinary.profile("profile?seconds=1");
    }
    let shares = [&ordinary, &framed].map(frame_pointer_share);
    println!("{shares:?} % of the code has frame pointers");
    assert!(shares[1] >= shares[0] * 1.5, "{shares:?} %");
}

#[test]
fn a_stripped_binary_sends_addresses() {
    let folder = TempDir::new().expect("a folder can be made");
    let stripped = folder.path().join("server");
    strip(ordinary(), &stripped);
    // Tables are zeros, which take no room in a file: what is in it is code.
    let size = std::fs::metadata(&stripped).expect("it was written").len();
    assert!(size < 4 << 20, "{size} bytes");
    let example = Example::start(&stripped, &["--port", "0", "--admin", "0"]);
    let profile = example.profile("profile?seconds=2&hz=500");
    assert!(share_is_known(&profile));

    let main = &profile.mapping[0];
    assert_eq!(Path::new(profile.string(main.filename)), stripped);
    assert!(
        !main.has_functions
            && !main.has_filenames
            && !main.has_line_numbers
            && !main.has_inline_frames
    );
    let own: Vec<_> = profile
        .location
        .iter()
        .filter(|location| location.mapping_id == main.id)
        .collect();
    assert!(own.len() > 10);
    // What it exports has a name all the same.
    let exported = |id: u64| {
        let function = profile.function.iter().find(|function| function.id == id);
        function.is_some_and(|it| ["pthread_create", "syscall"].contains(&profile.string(it.name)))
    };
    let mut lines = own.iter().flat_map(|location| &location.line);
    assert!(lines.all(|line| exported(line.function_id)));

    // The reader has the binary with its debug information. Go's can name its free functions, no other.
    let go = Go::new();
    let unstripped = ordinary().to_str().expect("a plain path");
    let named = go
        .pprof([
            "-top",
            "-cum",
            "-nodecount=1000",
            "-nodefraction=0",
            unstripped,
            &example.url("profile?seconds=2&hz=500"),
        ])
        .succeeded();
    expect_shares(named.text(), &[("work", 30.0), ("use_service", 5.0)]);
    assert_eq!(cum_share(named.text(), "server::service::work"), None);
    // Without it, the tool asks the server: an answer without names is not an error.
    let unnamed = go
        .pprof(["-top", "-cum", &example.url("profile?seconds=1")])
        .succeeded();
    expect_shares(unnamed.text(), &[("[server]", 30.0)]);
}

/// Stacks need no names: unwind tables are part of what is loaded, and stay.
fn share_is_known(profile: &Profile) -> bool {
    let cpu = profile.value_index("cpu");
    let deep = |stack: &&picoprof_tests::profile::Stack| stack.frames.len() >= 5;
    let stacks = profile.stacks();
    let known: i64 = stacks
        .iter()
        .filter(deep)
        .map(|stack| stack.values[cpu])
        .sum();
    known as f64 >= 0.9 * profile.total("cpu", "") as f64
}

fn strip(from: &Path, to: &Path) {
    let mut strip = command("strip", ["-o".as_ref(), to.as_os_str(), from.as_os_str()]);
    let done = run(&mut strip, Duration::from_mins(1));
    let _ = done.expect("strip runs (Debian: binutils)").succeeded();
}
