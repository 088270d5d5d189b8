//! The commands that the README and the example itself tell people to try, word for word.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use picoprof_tests::go::Go;
use picoprof_tests::process::{Finished, Server, command, free_port, run};
use picoprof_tests::viewer::Viewer;

use crate::reports::pdf_text;
use crate::server::{Example, ask, expect_shares, ordinary};

/// What this project is for.
const SEED: &str = "go tool pprof -seconds 5 -pdf http://localhost:9990/debug/pprof/allocs";
const WEB: &str = "go tool pprof -http=: 'http://localhost:9990/debug/pprof/profile?seconds=10'";
const HEAP: &str = "go tool pprof -top http://localhost:9990/debug/pprof/heap";
const BLOCK: &str = "go tool pprof -top http://localhost:9990/debug/pprof/block";
const DUMP: &str = "curl 'http://localhost:9990/debug/pprof/goroutine?debug=2'";
const THREADS: &str = "curl 'http://localhost:9990/debug/pprof/threadcreate?debug=1'";
const TRACE: &str = "curl -o trace.out 'http://localhost:9990/debug/pprof/trace?seconds=2'";
const VIEW: &str = "go tool trace trace.out";

/// Those that [`the_commands_work`] runs: what is told to people must be here.
const COMMANDS: &[&str] = &[SEED, WEB, HEAP, BLOCK, DUMP, THREADS, TRACE, VIEW];

#[test]
fn the_commands_work() {
    for port in [9990, 9991] {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        assert!(
            bound.is_ok(),
            "port {port} of this machine is taken by another program, but it is one of the two that the \
             example has by default, and that the command which this test is about names. End that program."
        );
    }
    let example = Example::start(ordinary(), &[]);
    assert_eq!(example.suggestions, COMMANDS);
    let go = Go::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let pdf = run_command(&go, SEED).stdout;
            let text = pdf_text(&pdf);
            assert!(text.contains("Type: alloc_space"), "{text}");
            for name in ["server", "put_document", "pack"] {
                assert!(
                    text.lines().any(|line| line.trim() == name),
                    "{name} in:\n{text}"
                );
            }
        });
        scope.spawn(|| {
            let top = run_command(&go, HEAP);
            assert!(top.text().contains("Type: inuse_space"), "{}", top.text());
            expect_shares(top.text(), &[("server::store::Store::put", 10.0)]);
        });
        scope.spawn(|| {
            let top = run_command(&go, BLOCK);
            assert!(top.text().contains("Type: delay"), "{}", top.text());
            expect_shares(
                top.text(),
                &[("server::notary::Line::register::{{closure}}", 1.0)],
            );
        });
        scope.spawn(|| {
            let dump = run_command(&go, DUMP);
            for name in ["[leaked on purpose]", "[worker-0]"] {
                assert!(dump.text().contains(name), "{}", dump.text());
            }
        });
        scope.spawn(|| {
            let threads = run_command(&go, THREADS);
            assert!(
                threads.text().starts_with("threadcreate profile: total "),
                "{threads:?}"
            );
            assert!(
                threads
                    .text()
                    .contains("\tserver::service::Service::spawn\t"),
                "{threads:?}"
            );
        });
        scope.spawn(|| {
            run_command(&go, TRACE);
            let trace = VIEW.split(' ').next_back().expect("it names a file");
            let page = Viewer::start(&go, trace).page("/goroutines");
            for name in ["connection", "request", "registration", "thread worker-0"] {
                assert!(page.contains(name), "{name} in:\n{page}");
            }
        });
        web_ui_has_the_names(&go);
    });
}

/// The command opens a browser; here it is told not to, and where to serve.
fn web_ui_has_the_names(go: &Go) {
    let host = format!("localhost:{}", free_port());
    let quiet = WEB.replace("-http=:", &format!("-http={host} -no_browser"));
    let _ui = Server::start(
        with_stderr_as_stdout(&as_go_runs_it(go, &quiet)),
        "Serving web UI on ",
        Duration::from_mins(1),
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(&host).is_err() {
        assert!(Instant::now() < deadline, "the web UI does not begin");
        thread::sleep(Duration::from_millis(20));
    }
    for page in ["/ui/top", "/ui/flamegraph"] {
        let response = ask(&host, "GET", page, "");
        assert_eq!(response.status, 200, "{page}");
        for name in ["server::service::work", "server::document::pack"] {
            assert!(response.text().contains(name), "{name} is not on {page}");
        }
    }
}

/// Runs a command as it stands, found in the path and in the folder of Go's tools.
fn run_command(go: &Go, line: &str) -> Finished {
    let mut command = as_go_runs_it(go, line);
    let finished = run(&mut command, Duration::from_mins(1));
    finished
        .unwrap_or_else(|error| panic!("{line}: {error}"))
        .succeeded()
}

fn as_go_runs_it(go: &Go, line: &str) -> Command {
    // A question mark stands for any letter in some shells, so it is in quotes.
    let mut words = line.split(' ').map(|word| word.trim_matches('\''));
    if line.starts_with("go tool pprof ") {
        let mut command = go.command("pprof");
        command.args(words.skip(3));
        return command;
    }
    let mut command = command(words.next().expect("there is a word"), words);
    command.current_dir(go.home());
    command
}

/// The tool says on its standard error output where it serves.
fn with_stderr_as_stdout(inner: &Command) -> Command {
    let mut outer = command("sh", ["-c", "exec \"$0\" \"$@\" 2>&1"]);
    outer
        .arg(inner.get_program())
        .args(inner.get_args())
        .env_clear();
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            outer.env(name, value);
        }
    }
    if let Some(folder) = inner.get_current_dir() {
        outer.current_dir(folder);
    }
    outer
}

/// The README tells people to try nothing that isn't tried here.
#[test]
fn the_readme_has_commands_that_work() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme =
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let told = commands_in(&readme);
    assert!(told.contains(&SEED), "the README does not have: {SEED}");
    for line in told {
        assert!(
            COMMANDS.contains(&line),
            "the README has a command that no test runs: {line}"
        );
    }
}

/// The lines of a page's `sh` blocks that begin with a command for profiles.
fn commands_in(page: &str) -> Vec<&str> {
    let mut in_block = false;
    let mut commands = Vec::new();
    for line in page.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            in_block = !in_block && language.trim() == "sh";
            continue;
        }
        let line = line.trim();
        let line = line.strip_prefix("$ ").unwrap_or(line);
        // What follows a command on its line may be a remark.
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        if in_block && (line.starts_with("go tool ") || line.starts_with("curl ")) {
            commands.push(line);
        }
    }
    commands
}

#[test]
fn commands_are_found_in_a_page() {
    let page = "curl a\n```sh\ncargo run\ncurl b # a remark\n```\ncurl c\n```rust\ncurl d\n```\n\
                ```sh\n$ go tool pprof e\n```\n";
    assert_eq!(commands_in(page), ["curl b", "go tool pprof e"]);
}
