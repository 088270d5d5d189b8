//! Programs under test that do as they are told: each word of the test's is a line on a socket of its own,
//! beside the server under test.
//!
//! The program calls [`obey`]; the test starts it as a [`Subject`]. What ends it early fails the test, with the name of
//! the signal.

use core::fmt;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::http::{self, Client, Response, request};
use crate::process::Server;
use crate::profile::{decode, validate};
use crate::profile_proto::Profile;

/// Tells the test where the program under test is served, then answers each of the test's lines with what `answer` makes
/// of it, until the test leaves.
///
/// # Errors
///
/// If there is no port to listen on, or the test does not come.
pub fn obey(served: SocketAddr, mut answer: impl FnMut(&str) -> String) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("ready {served} {}", listener.local_addr()?);
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let answer = answer(&line?);
        stream.write_all(format!("{answer}\n").as_bytes())?;
    }
    Ok(())
}

/// A program that calls [`obey`].
#[derive(Debug)]
pub struct Subject {
    server: Server,
    address: SocketAddr,
    control: BufReader<TcpStream>,
}

impl Subject {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// If it does not come up.
    #[must_use]
    #[track_caller]
    pub fn start(command: Command) -> Self {
        let server = Server::start(command, "ready", LIMIT);
        let mut addresses = server.ready_line().split(' ').skip(1);
        let mut address = || -> SocketAddr {
            let address = addresses.next().and_then(|address| address.parse().ok());
            address.expect("it says where it is")
        };
        let (address, control) = (address(), address());
        let control = TcpStream::connect(control).expect("it listens");
        control.set_nodelay(true).expect("it is connected");
        control
            .set_read_timeout(Some(LIMIT))
            .expect("it is connected");
        Self {
            server,
            address,
            control: BufReader::new(control),
        }
    }

    /// Where `/debug/pprof/` is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// Its answer to a line.
    ///
    /// # Panics
    ///
    /// If it ends or hangs instead.
    #[track_caller]
    pub fn ask(&mut self, line: impl fmt::Display) -> String {
        let mut answer = String::new();
        let sent = self
            .control
            .get_mut()
            .write_all(format!("{line}\n").as_bytes());
        let read = sent.and_then(|()| self.control.read_line(&mut answer));
        match read {
            Ok(n) if n > 0 => answer.trim_end().to_owned(),
            other => panic!("{line}: {other:?}; {}", self.fate()),
        }
    }

    /// As [`ask`](Self::ask), for numbers.
    ///
    /// # Panics
    ///
    /// If it answers with something else.
    #[track_caller]
    pub fn numbers<const N: usize>(&mut self, line: impl fmt::Display) -> [u64; N] {
        let answer = self.ask(&line);
        let numbers: Result<Vec<u64>, _> = answer.split(' ').map(str::parse).collect();
        let numbers = numbers.ok().and_then(|numbers| numbers.try_into().ok());
        numbers.unwrap_or_else(|| panic!("{line}: {answer}"))
    }

    /// Its server's answer to a GET below `/debug/pprof/`.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        match http::get(self.address, &format!("/debug/pprof/{target}")) {
            Ok(response) => response,
            Err(error) => panic!("{target}: {error}; {}", self.fate()),
        }
    }

    /// A sound profile of its own.
    ///
    /// # Panics
    ///
    /// If it is not sound.
    #[track_caller]
    pub fn profile(&mut self, target: &str) -> Profile {
        let response = self.get(target);
        profile_in(target, &response)
    }

    /// Begins a CPU profile: from here on it is being taken. [`finish`] waits for it.
    ///
    /// # Panics
    ///
    /// If the server does not take the request.
    #[track_caller]
    pub fn begin_profile(&mut self, target: &str) -> Client {
        let mut client = Client::connect(self.address).expect("it listens");
        client.set_limit(LIMIT);
        let bytes = request("GET", &format!("/debug/pprof/{target}"), &[], b"");
        client.send(&bytes).expect("it listens");
        // One who comes later is served later.
        assert_eq!(self.get("cmdline").status, 200);
        client
    }

    /// Waits until the server has read the call frame information of the program: stacks of before are cut short.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[track_caller]
    pub fn wait_for_unwinder(&mut self) {
        let begun = Instant::now();
        while self.get("").text().contains("Unwinder: no tables") {
            assert!(begun.elapsed() < LIMIT, "there are no tables");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it, and sees that it ends well.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[track_caller]
    pub fn end(mut self) {
        let left = self.control.get_mut().shutdown(std::net::Shutdown::Both);
        let status = self.server.wait(LIMIT);
        assert!(
            left.is_ok() && status.is_some_and(|status| status.success()),
            "it ended with {status:?}"
        );
    }

    /// What has become of it.
    pub fn fate(&mut self) -> String {
        match self.server.wait(Duration::from_secs(1)) {
            Some(status) => format!("it ended with {status}"),
            None => "it is still running".to_owned(),
        }
    }
}

/// The profile that [`Subject::begin_profile`] began, when its time is over.
///
/// # Panics
///
/// If it does not come, or is not sound.
#[must_use]
#[track_caller]
pub fn finish(mut client: Client) -> Profile {
    let response = client.read_response().expect("it answers");
    profile_in("profile", &response)
}

/// The profile in an answer.
///
/// # Panics
///
/// If the answer is another one, or the profile is not sound.
#[track_caller]
pub fn profile_in(target: &str, response: &Response) -> Profile {
    let text = String::from_utf8_lossy(&response.body);
    assert_eq!(response.status, 200, "{target}: {text}");
    let profile = decode(&response.body).unwrap_or_else(|error| panic!("{target}: {error}"));
    if let Err(error) = validate(&profile) {
        panic!("{target}: {error}");
    }
    profile
}

/// More than any step takes, on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);
