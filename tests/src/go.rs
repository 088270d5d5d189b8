//! Go's own tools, as they are: `go tool pprof` and `go tool trace`; and the readers of traces that are in the latter.

use core::time::Duration;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use crate::process::{self, Finished};

/// The tools, with a home of their own that goes when this does. They see none of the user's
/// settings, and of the network only what a test names.
#[derive(Debug)]
pub struct Go {
    bin: PathBuf,
    home: TempDir,
}

impl Go {
    /// The tools in the folder that `PICOPROF_GO_BIN` names, else where `tests/run` puts them.
    ///
    /// # Panics
    ///
    /// If they are not there: a test that needs them is never skipped.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        let bin = std::env::var_os("PICOPROF_GO_BIN").map_or_else(default_bin, PathBuf::from);
        for tool in ["go", "pprof", "trace", OLD_TRACE, TRACECHECK] {
            assert!(
                bin.join(tool).is_file(),
                "{} is missing. Run tests/run once, which fetches Go and builds its tools, or set \
                 PICOPROF_GO_BIN to a folder with what that puts into target/tools/bin.",
                bin.join(tool).display()
            );
        }
        let home = TempDir::new().expect("a folder can be made");
        Self { bin, home }
    }

    /// The folder that the tools run in; `go tool pprof` writes there.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// `go tool pprof ARGS`.
    ///
    /// # Panics
    ///
    /// If it can't be started, or has not ended after three minutes.
    #[track_caller]
    pub fn pprof<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Finished {
        self.tool("pprof", args)
    }

    /// `go tool trace ARGS`.
    ///
    /// # Panics
    ///
    /// If it can't be started, or has not ended after three minutes.
    #[track_caller]
    pub fn trace<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Finished {
        self.tool("trace", args)
    }

    /// `go tool trace ARGS` of the oldest Go that reads what is written here, 1.22.
    ///
    /// # Panics
    ///
    /// If it can't be started, or has not ended after three minutes.
    #[track_caller]
    pub fn old_trace<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Finished {
        let mut command = process::command(self.bin.join(OLD_TRACE), args);
        command.current_dir(self.home()).env_clear();
        let finished = process::run(&mut command, LIMIT);
        finished.unwrap_or_else(|error| panic!("{OLD_TRACE}: {error}"))
    }

    /// The file of a trace that both versions of `go tool trace` can read to its end.
    ///
    /// # Panics
    ///
    /// If one can't: then the file is kept, and the message says where.
    #[track_caller]
    pub fn accepts_trace(&self, trace: &[u8]) -> PathBuf {
        let path = self.home().join("trace.out");
        fs::write(&path, trace).expect("the folder is there");
        let path_word = path.as_os_str();
        let new = self.trace([OsStr::new("-d=parsed"), path_word]);
        let old = self.old_trace([OsStr::new("-d=1"), path_word]);
        for (version, finished) in [("1.27", new), ("1.22", old)] {
            assert!(
                finished.status.success(),
                "go {version}: {}\n{}\nthe trace is in {}",
                finished.status,
                finished.stderr,
                keep_trace(trace).display()
            );
        }
        path
    }

    /// Go's readers of traces, in a process that is there for as long as this.
    ///
    /// # Panics
    ///
    /// If it can't be started.
    #[must_use]
    #[track_caller]
    pub fn trace_readers(&self) -> TraceReaders {
        let mut command = Command::new(self.bin.join(TRACECHECK));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("tracecheck can be started");
        let to = child.stdin.take().expect("it is a pipe");
        let from = BufReader::new(child.stdout.take().expect("it is a pipe"));
        TraceReaders {
            child,
            pipes: Some((to, from)),
        }
    }

    /// `go tool NAME`, for [`process::Server::start`] and the like.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = process::command(self.bin.join("go"), ["tool", name]);
        // Graphviz is found in the path.
        let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
        command
            .current_dir(self.home())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home())
            .env("TMPDIR", self.home())
            .env("PPROF_TMPDIR", self.home().join("pprof"))
            .env("GOENV", "off")
            .env("GOPROXY", "off")
            .env("GOTELEMETRY", "off")
            .env("GOTOOLCHAIN", "local");
        command
    }

    #[track_caller]
    fn tool<S: AsRef<OsStr>>(&self, name: &str, args: impl IntoIterator<Item = S>) -> Finished {
        let finished = process::run(self.command(name).args(args), LIMIT);
        finished.unwrap_or_else(|error| panic!("go tool {name}: {error}"))
    }
}

impl Default for Go {
    fn default() -> Self {
        Self::new()
    }
}

/// The readers of Go 1.27 and 1.22, for thousands of traces: to start a tool for each would take too long.
#[derive(Debug)]
pub struct TraceReaders {
    child: Child,
    /// Until it is dropped.
    pipes: Option<(ChildStdin, BufReader<ChildStdout>)>,
}

impl TraceReaders {
    /// How many events there are in a trace.
    ///
    /// # Errors
    ///
    /// What the reader said that can't read it.
    ///
    /// # Panics
    ///
    /// If the process has ended.
    pub fn read(&mut self, trace: &[u8]) -> Result<u64, String> {
        let (to, from) = self.pipes.as_mut().expect("it is there until the end");
        let sent = writeln!(to, "{}", trace.len()).and_then(|()| to.write_all(trace));
        let mut answer = String::new();
        let read = sent.and_then(|()| from.read_line(&mut answer));
        let answer = answer.trim_end();
        match answer.split_once(' ') {
            Some(("ok", events)) => Ok(events.parse().expect("it is a number")),
            Some(("error", text)) => Err(text.to_owned()),
            _ => panic!("tracecheck: {read:?}, {answer:?}"),
        }
    }
}

impl Drop for TraceReaders {
    fn drop(&mut self) {
        // It ends when its input does.
        self.pipes = None;
        let _ = self.child.wait();
    }
}

/// Keeps a trace that is broken, for whoever wants to know why; answers where.
///
/// # Panics
///
/// If it can't be written.
#[must_use]
pub fn keep_trace(trace: &[u8]) -> PathBuf {
    let file = tempfile::Builder::new()
        .prefix("broken-")
        .suffix(".trace")
        .tempfile();
    let (mut file, path) = (file.and_then(|file| Ok(file.keep()?))).expect("there is room");
    file.write_all(trace).expect("there is room");
    path
}

const OLD_TRACE: &str = "trace-1.22";
const TRACECHECK: &str = "tracecheck";

/// More than `-seconds 60` takes, on a busy machine.
const LIMIT: Duration = Duration::from_mins(3);

fn default_bin() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin")
}
