//! Go's own tools, as they are: `go tool pprof` and `go tool trace`.

use core::time::Duration;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

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
        for tool in ["go", "pprof", "trace"] {
            assert!(
                bin.join(tool).is_file(),
                "{} is missing. Run tests/run once, which fetches Go and builds its tools, or set \
                 PICOPROF_GO_BIN to a folder with Go's go, pprof and trace.",
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

/// More than `-seconds 60` takes, on a busy machine.
const LIMIT: Duration = Duration::from_mins(3);

fn default_bin() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin")
}
