//! The device's answers, with names.

use core::time::Duration;
use std::thread;

use picoprof_tests::dump;
use picoprof_tests::go::Go;
use picoprof_tests::http::Response;
use picoprof_tests::process::{Build, Server, command, example, run};
use picoprof_tests::profile_proto::{Location, Profile};
use tempfile::TempDir;

use crate::device::{Device, NOWHERE};
use crate::program::{
    Code, address_in, bridge_for, build_id_note, elf, hex_id, line, strip, strip_of,
};
use picoprof_tests::bridge::{Bridge, sound};

fn start() -> Bridge {
    bridge_for(Device::new())
}

/// A function at a line: its name, the file's, the line it begins at, and the line.
type Line<'p> = (&'p str, &'p str, i64, i64);

fn lines<'p>(profile: &'p Profile, location: &Location) -> Vec<Line<'p>> {
    let lines = location.line.iter().map(|line| {
        let mut functions = profile.function.iter();
        let function = functions.find(|function| function.id == line.function_id);
        let function = function.expect("the profile is sound");
        let file = profile.string(function.filename);
        let file = file.rsplit('/').next().unwrap_or_default();
        (
            profile.string(function.name),
            file,
            function.start_line,
            line.line,
        )
    });
    lines.collect()
}

fn at(profile: &Profile, address: usize) -> Vec<Line<'_>> {
    let mut locations = profile.location.iter();
    let location = locations.find(|location| location.address == address as u64);
    lines(profile, location.expect("it is in the profile"))
}

const HERE: &str = "picoprof::stack::capture::registers_here";
const CHECKSUM: &str = "bridge::program::checksum";
const PARSE_READING: &str = "bridge::program::parse_reading";
const APPLY: &str = "<bridge::program::Filter<T> as bridge::program::Stage>::apply";

/// Where `registers_here` is inlined comes first.
fn expect_chain(found: &[Line<'_>], chain: &[(&str, u32, u32)]) {
    let ((name, file, ..), callers) = found.split_first().expect("there are frames");
    assert_eq!((*name, *file), (HERE, "capture.rs"));
    let expected: Vec<_> = chain
        .iter()
        .map(|&(name, start, line)| (name, "program.rs", i64::from(start), i64::from(line)))
        .collect();
    assert_eq!(callers, expected);
}

#[test]
fn a_profile_has_functions_files_and_lines_and_who_is_inlined() {
    let bridge = start();
    let profile = bridge.profile("block");
    let code = Code::get();
    expect_chain(
        &at(&profile, code.inlined),
        &[
            (CHECKSUM, line::CHECKSUM, line::IN_CHECKSUM),
            (PARSE_READING, line::PARSE_READING, line::CALLS_CHECKSUM),
        ],
    );
    let plain = (PARSE_READING, line::PARSE_READING, line::IN_PARSE_READING);
    expect_chain(&at(&profile, code.plain), &[plain]);
    expect_chain(
        &at(&profile, code.method),
        &[(APPLY, line::APPLY, line::IN_APPLY)],
    );
    // Where there's no code there's no name, and what the device has marked stays.
    assert_eq!(at(&profile, NOWHERE), []);
    assert_eq!(at(&profile, 0), [("picoprof._StackTooDeep", "", 0, 0)]);

    let stacks = profile.stacks();
    let deep = stacks.iter().find(|stack| stack.values == [3, 3_000_000]);
    let deep = deep.expect("what was counted stays");
    let frames = [
        HERE,
        CHECKSUM,
        PARSE_READING,
        HERE,
        APPLY,
        "picoprof._StackTooDeep",
    ];
    assert_eq!(deep.frames, frames);
}

#[test]
fn a_profile_is_as_gos_tools_want_it() {
    let bridge = start();
    let profile = bridge.profile("block");
    let [mapping] = profile.mapping[..] else {
        panic!("{:?}", profile.mapping);
    };
    let file = format!("[{}]", elf().file_name().unwrap().to_str().unwrap());
    assert_eq!(profile.string(mapping.filename), file);
    assert_eq!(profile.string(mapping.build_id), hex_id(&build_id_note()));
    assert_eq!(
        (
            mapping.memory_start,
            mapping.memory_limit,
            mapping.file_offset
        ),
        (0, u64::MAX, 0)
    );
    assert!(mapping.has_functions && mapping.has_filenames);
    assert!(mapping.has_line_numbers && mapping.has_inline_frames);
    // Without gaps, and each once.
    let ids: Vec<u64> = profile
        .function
        .iter()
        .map(|function| function.id)
        .collect();
    assert_eq!(ids, Vec::from_iter(1..=ids.len() as u64));
    let names = profile.function.iter().map(|it| profile.string(it.name));
    assert_eq!(names.clone().filter(|name| *name == HERE).count(), 1);
    // Equal names would be demangled once more.
    for function in &profile.function {
        let [name, mangled] = [function.name, function.system_name].map(|s| profile.string(s));
        assert!(
            mangled.starts_with("_R")
                || mangled.starts_with("_ZN")
                || name.starts_with("picoprof._"),
            "{mangled}"
        );
    }
}

#[test]
fn headers_are_gos() {
    let bridge = start();
    let header = |response: &Response, name| response.header(name).map(str::to_owned);
    for target in ["block", "profile?seconds=1", "threadcreate?seconds=1"] {
        let response = bridge.ask("GET", target, "");
        sound(target, &response);
        let name = target.replace(
            "?seconds=1",
            if target.starts_with("profile") {
                ""
            } else {
                "-delta"
            },
        );
        let disposition = format!("attachment; filename=\"{name}\"");
        assert_eq!(header(&response, "content-disposition"), Some(disposition));
        let octets = Some("application/octet-stream".to_owned());
        assert_eq!(header(&response, "content-type"), octets);
        assert_eq!(
            header(&response, "x-content-type-options"),
            Some("nosniff".to_owned())
        );
        assert_eq!(
            header(&response, "content-length"),
            Some(response.body.len().to_string())
        );
        assert_eq!(header(&response, "content-encoding"), None);
    }
    let head = bridge.ask("HEAD", "block", "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let octets = Some("application/octet-stream".to_owned());
    assert_eq!(header(&head, "content-type"), octets);
}

#[test]
fn what_the_device_refuses_stays_refused() {
    let bridge = start();
    let unknown = bridge.ask("GET", "nosuch", "");
    assert_eq!((unknown.status, unknown.text()), (404, "Unknown profile\n"));
    assert_eq!(unknown.header("x-go-pprof"), Some("1"));
    let posted = bridge.ask("POST", "block", "x=y");
    assert_eq!(
        (posted.status, posted.header("allow")),
        (405, Some("GET, HEAD"))
    );
    let deleted = bridge.ask("DELETE", "block", "");
    assert_eq!(
        (deleted.status, deleted.header("allow")),
        (405, Some("GET, HEAD, POST"))
    );
    let bad = bridge.ask("GET", "threadcreate?seconds=x&debug=1", "");
    assert_eq!(bad.status, 400);
    let moved = bridge.ask("GET", "../pprof/block?debug=1", "");
    assert_eq!(
        (moved.status, moved.header("location")),
        (307, Some("/debug/pprof/block?debug=1"))
    );
}

#[test]
fn text_has_names_where_a_server_has_them() {
    let bridge = start();
    let code = Code::get();
    let text = bridge.text("threadcreate?debug=1");
    let begin = format!(
        "threadcreate profile: total 2\n2 @ {:#x} {:#x}\n#\t{NOWHERE:#x}\n#\t{:#x}\t{HERE}\t/",
        NOWHERE + 1,
        code.plain + 1,
        code.plain
    );
    assert!(text.starts_with(&begin), "{text}");
    let end = format!("/program.rs:{}\n\n", line::IN_PARSE_READING);
    assert!(text.ends_with(&end), "{text}");
    let named = format!("\n#\t{:#x}\t{PARSE_READING}\t/", code.plain);
    assert_eq!(text.matches(&named).count(), 1, "{text}");
    // Marked frames as the device writes them.
    let text = bridge.text("block?debug=1");
    assert!(
        text.contains("\n#\t0x0\tpicoprof._StackTooDeep\n"),
        "{text}"
    );
    // A command line is no list of addresses.
    assert_eq!(bridge.text("cmdline"), "firmware\0#\t0x12");
}

#[test]
fn dumps_have_names_where_a_server_has_them() {
    let bridge = start();
    let text = bridge.text("goroutine?debug=2");
    let goroutines = dump::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let [main] = &goroutines[..] else {
        panic!("{goroutines:?}");
    };
    let nowhere = format!("{NOWHERE:#x}");
    let functions = [
        HERE,
        CHECKSUM,
        PARSE_READING,
        &nowhere,
        "picoprof.thread[main]",
    ];
    assert_eq!(main.functions(), functions);
    let caller = &main.frames[2];
    assert!(caller.file.ends_with("/program.rs"), "{caller:?}");
    assert_eq!(
        (caller.line, caller.arguments.as_str()),
        (line::CALLS_CHECKSUM, "...")
    );
    assert_eq!(
        (main.frames[3].file.as_str(), main.frames[3].line),
        ("??", 0)
    );
}

#[test]
fn symbol_is_answered_from_the_file() {
    let bridge = start();
    let code = Code::get();
    let words = format!("{:#x}+{:#x}+x++{}+0", code.inlined, NOWHERE, code.method);
    for (method, target, body) in [
        ("GET", format!("symbol?{words}"), ""),
        ("POST", "symbol".to_owned(), words.as_str()),
    ] {
        let response = bridge.ask(method, &target, body);
        assert_eq!(response.status, 200);
        assert_eq!(
            response.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        let lines: Vec<&str> = response.text().lines().collect();
        let ["num_symbols: 1", first, second] = lines[..] else {
            panic!("{lines:?}");
        };
        // The real function, mangled.
        for (line, address, name) in [
            (first, code.inlined, "parse_reading"),
            (second, code.method, "apply"),
        ] {
            let mangled = line
                .strip_prefix(&format!("{address:#x} _"))
                .unwrap_or_default();
            assert!(mangled.contains(name), "{line}");
        }
        assert!(response.text().ends_with('\n'));
    }
    assert_eq!(bridge.text("symbol"), "num_symbols: 1\n");
}

#[test]
fn the_index_page_says_where_names_come_from() {
    let bridge = start();
    let page = bridge.text("");
    assert!(page.contains("<a href=\"threadcreate?debug=1\">"), "{page}");
    assert!(page.contains(elf().to_str().unwrap()), "{page}");
    assert!(page.contains(&hex_id(&build_id_note())), "{page}");
    assert!(page.ends_with("</html>\n"), "{page}");
}

#[test]
fn several_are_served_at_once() {
    let bridge = start();
    let profiles = thread::scope(|scope| {
        let waiting = scope.spawn(|| bridge.profile("block?seconds=1"));
        let others: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| bridge.profile("threadcreate")))
            .collect();
        let others = others
            .into_iter()
            .map(|other| other.join().expect("it is answered"));
        let total: i64 = others
            .map(|profile| profile.total("threadcreate", PARSE_READING))
            .sum();
        assert_eq!(total, 8);
        assert!(!waiting.is_finished(), "a second takes longer than that");
        waiting.join().expect("it is answered")
    });
    // Of what happened meanwhile, which was nothing.
    assert_eq!(profiles.sample, []);
}

/// A task's stack ends in how it waits: Go's tools show what it waits for.
#[test]
fn how_tasks_wait_is_not_shown() {
    const CLONE: &str = "<core::task::wake::Waker as core::clone::Clone>::clone";
    let (device, code) = (Device::counting_at(&[Code::get().plain]), Code::get());
    device.waited_at(&[code.clone, code.method]);
    let bridge = bridge_for(device);
    let stacks = bridge.profile("block").stacks();
    assert_eq!(stacks[0].frames[0], CLONE);
    let shown = Go::new()
        .pprof(["-traces", &bridge.url("block")])
        .succeeded();
    let shown = shown.text();
    assert!(shown.contains(APPLY) && !shown.contains("Waker"), "{shown}");
    // Others have all.
    assert_eq!(bridge.profile("threadcreate").drop_frames, 0);
}

#[test]
fn without_debug_information_there_are_names_only() {
    let folder = TempDir::new().expect("a folder can be made");
    let file = folder.path().join("file");
    strip_of("--strip-debug", &elf(), &file);
    let device = format!("http://{}", Device::new().listen());
    let bridge = Bridge::start(&file, ["--device", &device]);
    let profile = bridge.profile("block");
    let code = Code::get();
    for (address, name) in [
        (code.inlined, PARSE_READING),
        (code.plain, PARSE_READING),
        (code.method, APPLY),
    ] {
        assert_eq!(at(&profile, address), [(name, "", 0, 0)]);
    }
    let main = &profile.mapping[0];
    assert!(main.has_functions && !main.has_filenames);
    assert!(!main.has_line_numbers && !main.has_inline_frames);
    let text = bridge.text("threadcreate?debug=1");
    assert!(
        text.ends_with(&format!("\t{PARSE_READING}\t:0\n\n")),
        "{text}"
    );
    let top = Go::new()
        .pprof(["-top", "-cum", &bridge.url("block")])
        .succeeded();
    assert!(top.text().contains(APPLY), "{}", top.text());
}

/// Linkers leave the debug information of functions that they drop at address 0, where the code of many machines begins.
#[test]
fn functions_that_the_linker_dropped_name_nothing() {
    const SOURCE: &str = r#"
volatile int sink;
#define TEN sink = 1; sink = 2; sink = 3; sink = 4; sink = 5; sink = 6; sink = 7; sink = 8; sink = 9; sink = 0;
void dropped(void) { TEN TEN TEN }
void kept(void) {
    for (;;) sink = 1;
}
__asm__(".pushsection .text.start, \"ax\"\n.globl start\n.type start, %function\n"
        "start: nop\n nop\n nop\n nop\n.size start, . - start\n.popsection");
"#;
    let folder = TempDir::new().expect("a folder can be made");
    let [source, file] = ["main.c", "firmware"].map(|name| folder.path().join(name));
    std::fs::write(&source, SOURCE).expect("there is room");
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let flags = [
            "-O1",
            version,
            "-static",
            "-no-pie",
            "-nostdlib",
            "-ffreestanding",
            "-ffunction-sections",
            "-Wl,--gc-sections,--entry=start,--undefined=kept,-Ttext=0x40,--build-id=none",
        ];
        let mut cc = command("cc", flags);
        cc.arg("-o").args([&file, &source]);
        let linked = run(&mut cc, Duration::from_mins(1)).expect("cc runs (Debian: gcc)");
        let _ = linked.succeeded();
        let [start, kept] = ["start", "kept"].map(|name| address_in(&file, name));
        let device = Device::counting_at(&[start, kept]);
        let bridge = Bridge::start(&file, ["--device", &format!("http://{}", device.listen())]);
        let profile = bridge.profile("threadcreate");
        // Of assembly nothing is known but its name: a dropped function would be in its place.
        assert_eq!(at(&profile, start), [("start", "", 0, 0)], "{version}");
        let [(name, file, begins, _)] = at(&profile, kept)[..] else {
            panic!("{version}: {:?}", at(&profile, kept));
        };
        assert_eq!((name, file, begins), ("kept", "main.c", 5), "{version}");
    }
}

/// A process of Linux without names, at addresses of its own: where its file was loaded to is in the profile. And with
/// names, which stay.
#[test]
fn a_server_of_linux_is_a_device_too() {
    let folder = TempDir::new().expect("a folder can be made");
    let server = example("server", Build::Debug);
    let stripped = folder.path().join("server");
    strip(&server, &stripped);
    for (program, has_names) in [(&stripped, false), (&server, true)] {
        let ready = "serving documents";
        let process = Server::start(
            command(program, ["--port", "0", "--admin", "0"]),
            ready,
            Duration::from_mins(1),
        );
        let (_, url) = process
            .ready_line()
            .rsplit_once(" http")
            .expect("it says where");
        let bridge = Bridge::start(&server, ["--device", &format!("http{url}")]);
        let introduction = bridge.introduction();
        assert!(
            introduction.contains("the device runs this file"),
            "{introduction}"
        );
        let profile = bridge.profile("profile?seconds=2");
        let all = profile.total("samples", "");
        let at_work = profile.total("samples", "server::service::work");
        assert!(at_work * 10 > all * 3, "{at_work} of {all}");
        let main = &profile.mapping[0];
        assert!(main.has_inline_frames);
        let file = profile.string(main.filename);
        assert_eq!(
            file,
            if has_names {
                program.to_str().unwrap()
            } else {
                "[server]"
            }
        );
    }
}
