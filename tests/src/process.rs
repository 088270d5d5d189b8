//! Programs under test: [`run`] one to its end, or keep one as a [`Server`] that dies with the test.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// What became of a program that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error output.
    pub stderr: String,
}

impl Finished {
    /// The standard output as text.
    ///
    /// # Panics
    ///
    /// If it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        str::from_utf8(&self.stdout).expect("the output is text")
    }

    /// Panics, with what the program had to say, unless it succeeded.
    #[must_use]
    #[track_caller]
    pub fn succeeded(self) -> Self {
        let stdout = String::from_utf8_lossy(&self.stdout);
        assert!(
            self.status.success(),
            "{}\n{stdout}\n{}",
            self.status,
            self.stderr
        );
        self
    }
}

/// Runs `command` to its end, with no input; one that takes longer than `limit` is killed, with all that
/// it started.
///
/// # Errors
///
/// If it can't be started, or is killed: then the kind is [`io::ErrorKind::TimedOut`].
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Finished> {
    let mut group = Group::start(command, Stdio::piped(), Stdio::piped())?;
    let stdout = read_all(group.child.stdout.take());
    let stderr = read_all(group.child.stderr.take());
    let status = group.wait(limit)?;
    if status.is_none() {
        group.kill();
    }
    // The pipes end when everything that holds them has ended.
    let stdout = stdout.join().expect("reading does not panic");
    let stderr = stderr.join().expect("reading does not panic");
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    match status {
        Some(status) => Ok(Finished {
            status,
            stdout,
            stderr,
        }),
        None => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{command:?} took longer than {limit:?}; it said: {stderr}"),
        )),
    }
}

/// A program that runs until the test ends it: dropping this kills it and all that it started.
#[derive(Debug)]
pub struct Server {
    group: Group,
    ready: String,
    lines: Receiver<String>,
}

impl Server {
    /// Starts `command` and waits for a line that begins with `ready` on its standard output.
    /// Its standard error output is the test's.
    ///
    /// # Panics
    ///
    /// If it can't be started, or ends, or `limit` passes before that line.
    #[track_caller]
    pub fn start(mut command: Command, ready: &str, limit: Duration) -> Self {
        let mut group = Group::start(&mut command, Stdio::piped(), Stdio::inherit())
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = group.child.stdout.take().expect("it is a pipe");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            // The program must not block on a full pipe: reads on when nobody listens any more.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut server = Self {
            group,
            ready: String::new(),
            lines,
        };
        server.ready = server.wait_for_line(ready, limit);
        server
    }

    /// The line that [`Server::start`] waited for: it may name an address.
    #[must_use]
    pub fn ready_line(&self) -> &str {
        &self.ready
    }

    /// The next line of its standard output that begins with `prefix`; what comes before is dropped.
    ///
    /// # Panics
    ///
    /// If it ends, or `limit` passes before that line.
    #[track_caller]
    pub fn wait_for_line(&mut self, prefix: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        let mut others = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.starts_with(prefix) => return line,
                Ok(line) => others.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no line {prefix:?} in {limit:?}, only {others:?}")
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.wait(Duration::from_secs(1));
                    panic!("it ended ({status:?}) before a line {prefix:?}, with {others:?}")
                }
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.group.child.id()
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        // Fails only if it has ended already.
        let _ = kill_process(Pid::from_child(&self.group.child), Signal::TERM);
    }

    /// How it ended; `None` if `limit` passes first.
    ///
    /// # Panics
    ///
    /// If the kernel does not know the process.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.group.wait(limit).expect("a child can be waited for")
    }
}

/// A TCP port of 127.0.0.1 that was free a moment ago. A program that can bind to port 0 and say what it got
/// is better off: no other test can take its port.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

/// How [`example`] is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// As `cargo build` does.
    Debug,
    /// As `cargo build --release` does.
    Release,
}

/// The program of the example `name`, built now if it is not up to date.
///
/// # Panics
///
/// If it does not build.
#[must_use]
#[track_caller]
pub fn example(name: &str, build: Build) -> PathBuf {
    // The test is target/debug/deps/TEST.
    let test = std::env::current_exe().expect("the system knows");
    let target = test.ancestors().nth(3).expect("cargo's layout");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "build",
            "--quiet",
            "--package",
            "picoprof-examples",
            "--example",
            name,
        ])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let folder = match build {
        Build::Debug => "debug",
        Build::Release => {
            cargo.arg("--release");
            "release"
        }
    };
    let built = run(&mut cargo, Duration::from_mins(10)).expect("cargo runs");
    assert!(built.status.success(), "example {name}: {}", built.stderr);
    target.join(folder).join("examples").join(name)
}

/// `program` with `args`: shorter than a chain of calls.
#[must_use]
pub fn command<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// A child in a process group of its own, so that its children can be killed with it.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
}

impl Group {
    /// Input is empty.
    pub(crate) fn start(command: &mut Command, stdout: Stdio, stderr: Stdio) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        command.process_group(0);
        let child = command.spawn()?;
        Ok(Self { child })
    }

    /// How it ended; `None` if `limit` passes first.
    pub(crate) fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn kill(&mut self) {
        // Its id is the group's. Fails only if the whole group has ended.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error counts.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        command("sh", ["-c", script])
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_program_runs_to_its_end() {
        let finished = run(&mut shell("echo out; echo err >&2; exit 3"), SOON).unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(
            (finished.text(), finished.stderr.as_str()),
            ("out\n", "err\n")
        );
    }

    #[test]
    fn more_output_than_a_pipe_holds_is_read() {
        let finished = run(
            &mut shell("head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"),
            SOON,
        );
        let finished = finished.unwrap().succeeded();
        assert_eq!(
            (finished.stdout.len(), finished.stderr.len()),
            (300_000, 300_000)
        );
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let begun = Instant::now();
        let error = run(
            &mut shell("sleep 60 & sleep 60"),
            Duration::from_millis(100),
        )
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < SOON);
    }

    #[test]
    fn a_server_is_ready_at_its_line_and_dies_with_its_owner() {
        let script = "echo starting; echo listening on 7; echo next; sleep 60";
        let mut server = Server::start(shell(script), "listening", SOON);
        assert_eq!(server.ready_line(), "listening on 7");
        assert_eq!(server.wait_for_line("next", SOON), "next");
        assert_eq!(server.wait(Duration::ZERO), None);
        let process = PathBuf::from(format!("/proc/{}", server.id()));
        assert!(process.exists());
        drop(server);
        assert!(!process.exists());
    }

    #[test]
    fn a_server_can_be_asked_to_end() {
        let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done";
        let mut server = Server::start(shell(script), "ready", SOON);
        server.terminate();
        assert_eq!(server.wait(SOON).and_then(|status| status.code()), Some(5));
    }

    #[test]
    #[should_panic(expected = "before a line \"ready\", with [\"sorry\"]")]
    fn a_server_that_ends_at_once_fails_the_test() {
        Server::start(shell("echo sorry; exit 1"), "ready", SOON);
    }

    #[test]
    fn ports_are_free() {
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).is_ok());
    }
}
