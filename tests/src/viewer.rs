//! The pages of `go tool trace`.

use core::net::SocketAddr;
use core::time::Duration;
use std::ffi::OsStr;
use std::process::Command;

use crate::go::Go;
use crate::http;
use crate::process::Server;

/// The trace viewer, which tells on its standard error output where it serves.
#[derive(Debug)]
pub struct Viewer {
    host: String,
    _process: Server,
}

impl Viewer {
    /// Of a file, whose path may begin in the folder that the tools run in.
    ///
    /// # Panics
    ///
    /// If it does not begin.
    #[must_use]
    #[track_caller]
    pub fn start(go: &Go, trace: impl AsRef<OsStr>) -> Self {
        let tool = go.command("trace");
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec \"$0\" \"$@\" 2>&1"])
            .arg(tool.get_program())
            .args(tool.get_args());
        command
            .arg("-http=127.0.0.1:0")
            .arg(trace)
            .env_clear()
            .current_dir(go.home());
        for (name, value) in tool.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        // It would open one.
        command.env("BROWSER", "true");
        let mut process = Server::start(command, "", Duration::from_mins(1));
        let line = loop {
            let line = process.wait_for_line("", Duration::from_mins(1));
            if line.contains("listening on") {
                break line;
            }
        };
        let (_, host) = line.split_once("http://").expect("it says where it serves");
        Self {
            host: host.trim_end_matches('/').to_owned(),
            _process: process,
        }
    }

    /// A page.
    ///
    /// # Panics
    ///
    /// If it is not there.
    #[must_use]
    #[track_caller]
    pub fn page(&self, path: &str) -> String {
        let address: SocketAddr = self.host.parse().expect("it is an address");
        let response = http::get(address, path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let text = String::from_utf8_lossy(&response.body).into_owned();
        assert_eq!(response.status, 200, "{path}: {text}");
        text
    }
}
