//! The example server, as each test needs it.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use picoprof_tests::go::Go;
use picoprof_tests::http::{Client, Response};
use picoprof_tests::process::{self, Build, Server, command, example};
use picoprof_tests::profile::{decode, validate};
use picoprof_tests::profile_proto::Profile;

/// A service under load, with its profiles; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Example {
    /// Held for its end. The lock lets several threads share it.
    _process: Mutex<Server>,
    id: u32,
    host: String,
    pub(crate) suggestions: Vec<String>,
    /// A server takes one CPU profile at a time.
    cpu: Mutex<()>,
}

impl Example {
    /// The ordinary build, shared by the tests that run at the same time.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Example>> = Mutex::new(Weak::new());
        // A test that fails to start it leaves nothing behind.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(example) = shared.upgrade() {
            return example;
        }
        let example = Arc::new(Self::start(ordinary(), &["--port", "0", "--admin", "0"]));
        *shared = Arc::downgrade(&example);
        example
    }

    /// Starts a build of it, and waits until its cache has something in it.
    pub(crate) fn start(program: &Path, args: &[&str]) -> Self {
        let mut process = Server::start(command(program, args), "serving documents", STARTS);
        let (_, address) = process
            .ready_line()
            .rsplit_once("http://")
            .expect("it says where it serves");
        let host = address
            .strip_suffix("/debug/pprof/")
            .expect("it says where its profiles are")
            .to_owned();
        let suggestions = (0..8)
            .map(|_| process.wait_for_line("    ", STARTS).trim().to_owned())
            .collect();
        let example = Self {
            id: process.id(),
            _process: Mutex::new(process),
            host,
            suggestions,
            cpu: Mutex::new(()),
        };
        let deadline = Instant::now() + STARTS;
        while example.profile("heap").total("inuse_space", "") < CACHED {
            assert!(Instant::now() < deadline, "the load does not begin");
            thread::sleep(Duration::from_millis(100));
        }
        example
    }

    /// As `localhost:9990`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// What `go tool pprof` is given, for an endpoint and its query.
    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}/debug/pprof/{target}", self.host)
    }

    /// Holds off the other tests' CPU profiles.
    pub(crate) fn lock_cpu(&self) -> MutexGuard<'_, ()> {
        // It guards nothing that a failed test could leave half done.
        self.cpu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a request below `/debug/pprof/`, whatever it is.
    pub(crate) fn ask(&self, method: &str, target: &str, body: &str) -> Response {
        ask(&self.host, method, &format!("/debug/pprof/{target}"), body)
    }

    /// The body of a good answer.
    pub(crate) fn get(&self, target: &str) -> Vec<u8> {
        let response = self.ask("GET", target, "");
        let text = String::from_utf8_lossy(&response.body);
        assert_eq!(response.status, 200, "{target}: {text}");
        response.body
    }

    /// A sound profile.
    pub(crate) fn profile(&self, target: &str) -> Profile {
        sound(target, &self.get(target))
    }
}

/// Decodes a profile that keeps all the rules.
pub(crate) fn sound(what: &str, bytes: &[u8]) -> Profile {
    let profile = decode(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    if let Err(error) = validate(&profile) {
        panic!("{what}: {error}");
    }
    profile
}

/// One request on a connection of its own.
pub(crate) fn ask(host: &str, method: &str, target: &str, body: &str) -> Response {
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = Client::connect(host).and_then(|mut client| {
        client.set_limit(Duration::from_mins(1));
        client.send(request.as_bytes())?;
        client.read_answer_to(method)
    });
    answer.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
}

/// `cargo build --release`, and nothing else.
pub(crate) fn ordinary() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| example("server", Build::Release));
    &PROGRAM
}

/// The same with frame pointers. Flags for the compiler rebuild everything, so it has a folder of its own.
pub(crate) fn with_frame_pointers() -> PathBuf {
    let target = ordinary()
        .ancestors()
        .nth(3)
        .expect("it is TARGET/release/examples/server")
        .join("frame-pointers");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--release"])
        .args(["--package", "picoprof-examples", "--example", "server"])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", "-Cforce-frame-pointers=yes")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let built = process::run(&mut cargo, Duration::from_mins(10)).expect("cargo runs");
    assert!(built.status.success(), "{}", built.stderr);
    target.join("release/examples/server")
}

/// The profiles that reports are made of: enough samples for names that take a hundredth of the time.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) cpu: Vec<u8>,
    pub(crate) heap: Vec<u8>,
    pub(crate) later_heap: Vec<u8>,
    pub(crate) allocs: Vec<u8>,
    pub(crate) threadcreate: Vec<u8>,
}

impl Captured {
    /// Captured once.
    pub(crate) fn get() -> &'static Self {
        static CAPTURED: LazyLock<Captured> = LazyLock::new(|| {
            let example = Example::shared();
            let heap = example.get("heap");
            let cpu = {
                let _lock = example.lock_cpu();
                example.get("profile?seconds=4&hz=500")
            };
            Captured {
                cpu,
                heap,
                later_heap: example.get("heap?gc=1"),
                allocs: example.get("allocs"),
                threadcreate: example.get("threadcreate"),
            }
        });
        &CAPTURED
    }

    /// The tools, with the profiles as files in the folder that they run in.
    pub(crate) fn with_go() -> Go {
        let (go, captured) = (Go::new(), Self::get());
        for (name, bytes) in [
            ("cpu.pb.gz", &captured.cpu),
            ("heap.pb.gz", &captured.heap),
            ("later_heap.pb.gz", &captured.later_heap),
            ("allocs.pb.gz", &captured.allocs),
            ("threadcreate.pb.gz", &captured.threadcreate),
        ] {
            std::fs::write(go.home().join(name), bytes).expect("the folder is there");
        }
        go
    }
}

/// A row of `-top` or `-tree`: the share of the total that the function and its callees have, in percent.
pub(crate) fn cum_share(report: &str, function: &str) -> Option<f64> {
    report.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let share = fields.nth(4)?.strip_suffix('%')?.parse().ok()?;
        let name: Vec<&str> = fields.filter(|field| *field != "(inline)").collect();
        (name.join(" ") == function).then_some(share)
    })
}

/// Fails unless the functions are in the report, each with at least that share of the total.
#[track_caller]
pub(crate) fn expect_shares(report: &str, shares: &[(&str, f64)]) {
    for (function, least) in shares {
        let share = cum_share(report, function);
        assert!(
            share.is_some_and(|share| share >= *least),
            "{function}: {share:?} %, expected {least} % or more, in:\n{report}"
        );
    }
}

const STARTS: Duration = Duration::from_secs(30);
/// Bytes in use from which on the heap profile has enough samples to speak of shares.
const CACHED: i64 = 8 << 20;
