//! Each kind of report of `go tool pprof`: the names, files and lines in it are the example's own.

use std::fs;

use picoprof_tests::process::{command, run};

use crate::server::{Captured, expect_shares, sound};

/// What the service spends its time on, as its source has it: the workers, and the clients of the load.
const HOT: &[(&str, f64)] = &[
    ("server::service::work", 30.0),
    ("server::service::answer", 30.0),
    ("server::document::pack", 10.0),
    ("server::document::compress", 5.0),
    ("server::load::use_service", 5.0),
];

const CACHE: &[(&str, f64)] = &[
    ("server::service::work", 50.0),
    ("server::store::Store::put", 20.0),
];

const GARBAGE: &[(&str, f64)] = &[
    ("server::service::work", 30.0),
    ("server::document::pack", 10.0),
    ("server::load::use_service", 1.0),
];

/// All nodes, callers of the hot ones included.
const ALL: [&str; 3] = ["-cum", "-nodecount=1000", "-nodefraction=0"];

fn report(args: &[&str]) -> String {
    let go = Captured::with_go();
    go.pprof(args).succeeded().text().to_owned()
}

fn all(flag: &str, file: &str) -> String {
    report(&[&[flag], &ALL[..], &[file]].concat())
}

#[test]
fn top_finds_the_hot_functions() {
    for (file, shares) in [
        ("cpu.pb.gz", HOT),
        ("heap.pb.gz", CACHE),
        ("allocs.pb.gz", GARBAGE),
    ] {
        // What answering these tests takes is no part of the shares.
        let others = ["-ignore=picoprof_std::server", "-relative_percentages"];
        let top = report(&[&["-top"], &others[..], &ALL[..], &[file]].concat());
        expect_shares(&top, shares);
    }
    let threads = all("-top", "threadcreate.pb.gz");
    expect_shares(&threads, &[("<std::sys::thread::unix::Thread>::new", 99.0)]);
}

/// What a CPU profile says without any sorting: compression, hashing and their like are the leaves.
#[test]
fn top_has_leaves_in_the_crates_that_do_the_work() {
    let top = report(&["-top", "-nodecount=40", "cpu.pb.gz"]);
    assert!(top.contains("zlib_rs::deflate::"), "{top}");
}

/// The allocator's own functions say nothing about who allocates.
#[test]
fn heap_profiles_end_where_the_program_allocates() {
    for file in ["heap.pb.gz", "allocs.pb.gz"] {
        let top = all("-top", file);
        for own in [
            "__rust_alloc",
            "__rust_realloc",
            "HeapSampler",
            "picoprof_std::allocator",
            "%  alloc::alloc::",
            "%  alloc::raw_vec::",
        ] {
            assert!(!top.contains(own), "{own} in:\n{top}");
        }
    }
}

/// `fold_word` is a part of each of its callers: it has no code of its own.
#[test]
fn peek_shows_inlined_callees() {
    let peek = report(&["-peek", ".", "cpu.pb.gz"]);
    let callee = peek.lines().find(|line| {
        line.contains("% |   ") && line.ends_with("server::document::fold_word (inline)")
    });
    assert!(callee.is_some(), "{peek}");
    let itself = report(&["-peek", r"server::document::fold_word$", "cpu.pb.gz"]);
    assert!(
        itself.contains("| server::document::fold_word\n"),
        "{itself}"
    );
}

#[test]
fn list_shows_the_source() {
    let list = report(&["-list", r"server::document::fold_word$", "cpu.pb.gz"]);
    let routine = list.lines().find(|line| line.starts_with("ROUTINE"));
    assert!(
        routine.is_some_and(|line| line.ends_with("/examples/server/document.rs")),
        "{list}"
    );
    // The loop takes the time: a line of it has some, and the one that only declares has none.
    let time_of = |code: &str| {
        let line = list.lines().find(|line| line.ends_with(code));
        let line = line.unwrap_or_else(|| panic!("no line {code} in:\n{list}"));
        line.split_whitespace().nth(1).map(str::to_owned)
    };
    assert_ne!(
        time_of("for lower in letter.to_lowercase() {").as_deref(),
        Some(".")
    );
    assert_eq!(
        time_of("fn fold_word(spelled: &str) -> Word {").as_deref(),
        Some(".")
    );
}

#[test]
fn pdf_has_the_names() {
    let go = Captured::with_go();
    for (file, names) in [
        ("cpu.pb.gz", ["put_document", "pack"]),
        ("allocs.pb.gz", ["put_document", "pack"]),
    ] {
        let pdf = go.pprof(["-pdf", file]).succeeded().stdout;
        let text = pdf_text(&pdf);
        for name in names {
            assert!(
                text.lines().any(|line| line.trim() == name),
                "{name} in:\n{text}"
            );
        }
    }
}

/// The text of a PDF; each part of a path is a line of its own.
pub(crate) fn pdf_text(pdf: &[u8]) -> String {
    assert!(pdf.starts_with(b"%PDF-"));
    let folder = tempfile::TempDir::new().expect("a folder can be made");
    let file = folder.path().join("report.pdf");
    fs::write(&file, pdf).expect("the folder is there");
    let mut pdftotext = command("pdftotext", [file.as_os_str(), "-".as_ref()]);
    let text = run(&mut pdftotext, core::time::Duration::from_mins(1));
    let text = text.expect("pdftotext runs (Debian: poppler-utils)");
    text.succeeded().text().to_owned()
}

#[test]
fn pictures_are_drawn() {
    let go = Captured::with_go();
    let png = go.pprof(["-png", "heap.pb.gz"]).succeeded().stdout;
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    let svg = report(&["-svg", "cpu.pb.gz"]);
    assert!(
        svg.contains("<svg ") && svg.contains("server::document::pack"),
        "{svg}"
    );
}

#[test]
fn dot_has_nodes_and_edges() {
    let dot = report(&["-dot", "cpu.pb.gz"]);
    assert!(dot.starts_with("digraph "), "{dot}");
    // pprof breaks the paths at their colons.
    assert!(dot.contains(r"server\ndocument\npack\n"), "{dot}");
    assert!(
        dot.contains("server::service::put_document -> server::document::pack ("),
        "{dot}"
    );
}

#[test]
fn traces_are_whole_stacks() {
    let traces = report(&["-traces", "cpu.pb.gz"]);
    let stacks: Vec<Vec<&str>> = traces
        .split("-----------+-------------------------------------------------------\n")
        .skip(1)
        .map(|stack| {
            stack
                .lines()
                .map(|line| line.trim_end_matches(" (inline)"))
                .collect()
        })
        .collect();
    let position = |stack: &[&str], name: &str| stack.iter().position(|line| line.ends_with(name));
    // From the inlined function, through those it is inlined to, to the thread.
    let order = [
        " server::document::fold_word",
        " server::service::answer",
        " server::service::work",
        " clone3",
    ];
    let whole = stacks.iter().any(|stack| {
        let found = order.map(|name| position(stack, name));
        found.iter().all(Option::is_some) && found.is_sorted()
    });
    assert!(whole, "{traces}");
}

#[test]
fn tree_has_the_callers() {
    let tree = all("-tree", "cpu.pb.gz");
    assert!(tree.contains("| server::document::pack\n"), "{tree}");
    assert!(
        tree.contains("server::service::put_document (inline)\n"),
        "{tree}"
    );
}

/// The difference of a profile and itself is nothing; that of two is what came and what went.
#[test]
fn differences_are_taken() {
    let same = report(&["-top", "-diff_base=heap.pb.gz", "heap.pb.gz"]);
    assert!(
        same.contains("Showing nodes accounting for 0, 0%"),
        "{same}"
    );
    let changed = report(&["-top", "-cum", "-diff_base=heap.pb.gz", "later_heap.pb.gz"]);
    assert!(changed.contains("server::store::"), "{changed}");
    let base = report(&["-top", "-cum", "-base=heap.pb.gz", "later_heap.pb.gz"]);
    assert!(base.contains("server::store::"), "{base}");
}

#[test]
fn every_sample_type_can_be_chosen() {
    let go = Captured::with_go();
    for (file, types) in [
        ("cpu.pb.gz", &["samples", "cpu"][..]),
        (
            "heap.pb.gz",
            &[
                "alloc_objects",
                "alloc_space",
                "inuse_objects",
                "inuse_space",
            ],
        ),
        (
            "allocs.pb.gz",
            &[
                "alloc_objects",
                "alloc_space",
                "inuse_objects",
                "inuse_space",
            ],
        ),
        ("threadcreate.pb.gz", &["threadcreate"]),
    ] {
        for ty in types {
            let top = go
                .pprof(["-top", &format!("-sample_index={ty}"), file])
                .succeeded();
            assert!(
                top.text().contains(&format!("Type: {ty}\n")),
                "{file}: {}",
                top.text()
            );
        }
    }
    // And when nobody chooses:
    for (file, ty) in [
        ("cpu.pb.gz", "cpu"),
        ("heap.pb.gz", "inuse_space"),
        ("allocs.pb.gz", "alloc_space"),
    ] {
        let top = go.pprof(["-top", file]).succeeded();
        assert!(
            top.text().contains(&format!("Type: {ty}\n")),
            "{file}: {}",
            top.text()
        );
    }
}

/// Objects are labelled with their size.
#[test]
fn tags_have_the_object_sizes() {
    let tags = report(&["-tags", "-sample_index=alloc_space", "allocs.pb.gz"]);
    assert!(tags.contains(" bytes: Total "), "{tags}");
}

#[test]
fn captured_profiles_are_sound() {
    let captured = Captured::get();
    for bytes in [
        &captured.cpu,
        &captured.heap,
        &captured.later_heap,
        &captured.allocs,
        &captured.threadcreate,
    ] {
        assert!(!sound("captured", bytes).sample.is_empty());
    }
}
