//! The example `bridge`, between a device and Go's tools.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use crate::http::{Client, Response};
use crate::process::{Build, Server, command, example, run};
use crate::profile::{decode, validate};
use crate::profile_proto::Profile;

/// Why the bridge does not start with this file.
pub fn refusal(elf: &Path) -> String {
    let elf = elf.to_str().expect("a plain path");
    let args = [
        "--elf",
        elf,
        "--device",
        "http://127.0.0.1:1",
        "--listen",
        "127.0.0.1:0",
    ];
    let ended = run(&mut command(&*PROGRAM, args), STARTS).expect("it ends");
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    ended.stderr
}

static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| example("bridge", Build::Debug));

/// The bridge at work.
#[derive(Debug)]
pub struct Bridge {
    /// The lock lets several threads share it.
    process: Mutex<Server>,
    host: String,
}

impl Bridge {
    /// For a device that is given as on the command line.
    pub fn start(elf: &Path, device: [&str; 2]) -> Self {
        let elf = elf.to_str().expect("a plain path");
        let [flag, device] = device;
        let args = ["--elf", elf, flag, device, "--listen", "127.0.0.1:0"];
        let process = Server::start(command(&*PROGRAM, args), "serving http://", STARTS);
        let (_, rest) = process
            .ready_line()
            .split_once("http://")
            .expect("it is there");
        let (host, rest) = rest
            .split_once("/debug/pprof/ with")
            .expect("it says where");
        assert!(rest.ends_with(elf), "{rest}");
        Self {
            host: host.to_owned(),
            process: Mutex::new(process),
        }
    }

    /// What it says of the device.
    pub fn introduction(&self) -> String {
        let mut process = self.process.lock().expect("no test fails with it");
        process.wait_for_line("bridge: ", STARTS)
    }

    /// Where it listens.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The URL of an endpoint.
    #[must_use]
    pub fn url(&self, target: &str) -> String {
        format!("http://{}/debug/pprof/{target}", self.host)
    }

    /// A client that has asked.
    pub fn asking(&self, method: &str, target: &str, body: &str) -> Client {
        let (host, length) = (&self.host, body.len());
        let request = format!(
            "{method} /debug/pprof/{target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let mut client = Client::connect(host).expect("it listens");
        client.set_limit(Duration::from_mins(1));
        client.send(request.as_bytes()).expect("it listens");
        client
    }

    /// The answer to a request, whatever it is.
    pub fn ask(&self, method: &str, target: &str, body: &str) -> Response {
        let answer = self.asking(method, target, body).read_answer_to(method);
        answer.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// The text of a good answer.
    pub fn text(&self, target: &str) -> String {
        let response = self.ask("GET", target, "");
        assert_eq!(
            response.status,
            200,
            "{target}: {:?}",
            String::from_utf8_lossy(&response.body)
        );
        response.text().to_owned()
    }

    /// A sound profile, in gzip.
    pub fn profile(&self, target: &str) -> Profile {
        let response = self.ask("GET", target, "");
        sound(target, &response)
    }
}

/// The profile in an answer.
#[track_caller]
pub fn sound(target: &str, response: &Response) -> Profile {
    let body = &response.body;
    assert_eq!(
        response.status,
        200,
        "{target}: {:?}",
        String::from_utf8_lossy(body)
    );
    assert!(body.starts_with(&[0x1f, 0x8b]), "{target} is not in gzip");
    let profile = decode(body).unwrap_or_else(|error| panic!("{target}: {error}"));
    if let Err(error) = validate(&profile) {
        panic!("{target}: {error}");
    }
    profile
}

const STARTS: Duration = Duration::from_mins(1);
