//! Between a device that knows no names and Go's tools: a pprof server that has them from the ELF file.
//!
//! `cargo run --release --example bridge -- --elf FIRMWARE --device http://127.0.0.1:8080` listens on this machine
//! only, and prints what to try. Each request goes on to the device; in its answer, addresses become functions, files
//! and lines, inlined functions too. So a device needs no symbols in its flash, and its profiles look like a server's.
//!
//! `server` is what Go's tools talk to; `device` talks to the device, over a socket, or over a `serial` line. `names`
//! reads the ELF file, `profile`, `trace` and `text` put its names into what the device sends, and `proto` has the messages
//! that profiles are made of.

#![forbid(unsafe_code)]

mod device;
mod names;
mod profile;
mod proto;
mod serial;
mod server;
mod text;
mod trace;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use device::Device;
use names::Code;
use serial::{Line, Place};
use server::Bridge;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

/// Of an answer, and of a profile that was in gzip: far more than a device has to say, and little enough to have some
/// of them in memory.
const MOST_BYTES: usize = 16 << 20;

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("bridge: {error} (--help lists the flags)");
            return ExitCode::from(2);
        }
    };
    let outcome = match options {
        Options::Help => print(HELP),
        Options::Run(run) => run.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bridge: {error}");
            ExitCode::FAILURE
        }
    }
}

const HELP: &str = "\
A pprof server for a device that knows no names: it has them from the ELF file.

Usage: bridge --elf FIRMWARE (--device http://HOST:PORT | --serial PATH[,BAUD]) [--listen 127.0.0.1:PORT]

  --elf FIRMWARE       the file that the device runs, with its debug information
  --device URL         where the device is
  --serial PATH[,BAUD] the line that the device is at (115200 baud); tcp:HOST:PORT for one that is
                       behind a socket
  --listen ADDRESS     serve here (127.0.0.1:6060; port 0: any that is free)
  --help               print this

Files are where the compiler saw them. To -list a program that was built elsewhere, tell go tool pprof where
they are: -trim_path=/its/folder -source_path=/your/folder. Rust's own are under /rustc/HASH: with the
component rust-src, -trim_path=/rustc/HASH -source_path=$(rustc --print sysroot)/lib/rustlib/src/rust.

A line is slow: give go tool pprof a -timeout that is long enough. A device that was asked over a line
for what happens in the next N seconds waits for them even if who asked has left.
";

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
enum Options {
    Help,
    Run(Run),
}

#[derive(Debug, PartialEq, Eq)]
struct Run {
    elf: PathBuf,
    device: Where,
    listen: SocketAddr,
}

#[derive(Debug, PartialEq, Eq)]
enum Where {
    Http(String),
    Serial(Place),
}

impl Run {
    fn run(self) -> io::Result<()> {
        let code = Code::open(&self.elf).map_err(io::Error::other)?;
        let device = match &self.device {
            Where::Http(url) => Device::http(url).map_err(io::Error::other)?,
            Where::Serial(place) => Device::Serial(Arc::new(Mutex::new(Line::new(place.clone())))),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind(self.listen).await.map_err(|error| {
                let text = format!("cannot listen on {}: {error}", self.listen);
                io::Error::new(error.kind(), text)
            })?;
            print(&greeting(listener.local_addr()?, &code))?;
            let bridge = Arc::new(Bridge::new(device, code));
            let asking = Arc::clone(&bridge);
            tokio::spawn(async move {
                // That nobody reads it is no error.
                let _ = print(&format!("bridge: {}\n", asking.introduce().await));
            });
            bridge.serve(listener).await
        })
    }
}

fn greeting(address: SocketAddr, code: &Code) -> String {
    let path = code.path();
    let lines = if code.has_lines() {
        ""
    } else {
        "it has no debug information, so there are functions' names only, no files and lines\n"
    };
    format!(
        "serving http://{address}/debug/pprof/ with the names of {path}
{lines}try:
    go tool pprof -top 'http://{address}/debug/pprof/profile?seconds=5'
    go tool pprof -http=: 'http://{address}/debug/pprof/profile?seconds=10'
    go tool pprof -top http://{address}/debug/pprof/mutex
    curl 'http://{address}/debug/pprof/goroutine?debug=2'
    curl -o trace.out 'http://{address}/debug/pprof/trace?seconds=5' && go tool trace trace.out
"
    )
}

/// Prints all of a text at once. That nobody reads it is no error.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

impl Options {
    fn parse(mut arguments: lexopt::Parser) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let mut elf = None;
        let mut device = None;
        let mut listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 6060));
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("elf") => elf = Some(PathBuf::from(arguments.value()?)),
                Long("device") if device.is_none() => {
                    device = Some(Where::Http(arguments.value()?.string()?));
                }
                Long("serial") if device.is_none() => {
                    let place = arguments.value()?.parse_with(Place::parse)?;
                    device = Some(Where::Serial(place));
                }
                Long("device" | "serial") => return Err("there is one device".into()),
                Long("listen") => listen = arguments.value()?.parse_with(loopback)?,
                Short('h') | Long("help") => return Ok(Self::Help),
                other => return Err(other.unexpected()),
            }
        }
        match (elf, device) {
            (Some(elf), Some(device)) => Ok(Self::Run(Run {
                elf,
                device,
                listen,
            })),
            (None, _) => Err("say which --elf file the device runs".into()),
            (_, None) => Err("say where the device is: --device or --serial".into()),
        }
    }
}

/// An address of this machine that no other can reach: who may profile a device is not asked here.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| format!("{text}: write ADDRESS:PORT"))?;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Ok(address),
        IpAddr::V6(ip) if ip.is_loopback() => Ok(address),
        _ => Err(format!(
            "{text}: only this machine itself is served, as 127.0.0.1"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, lexopt::Error> {
        Options::parse(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn flags_are_read() {
        let run = parse(&["--elf", "a.elf", "--device=http://b", "--listen", "[::1]:7"]);
        let expected = Run {
            elf: "a.elf".into(),
            device: Where::Http("http://b".to_owned()),
            listen: "[::1]:7".parse().unwrap(),
        };
        assert_eq!(run.unwrap(), Options::Run(expected));
        let Ok(Options::Run(run)) = parse(&["--serial", "/dev/ttyS0,9600", "--elf=a"]) else {
            panic!("it is complete");
        };
        assert_eq!(
            run.device,
            Where::Serial(Place::Tty("/dev/ttyS0".into(), 9600))
        );
        assert_eq!(run.listen.to_string(), "127.0.0.1:6060");
        assert_eq!(parse(&["--help"]).unwrap(), Options::Help);
    }

    #[test]
    fn wrong_flags_are_refused() {
        for arguments in [
            &[][..],
            &["--elf", "a"],
            &["--device", "http://b"],
            &[
                "--elf",
                "a",
                "--device",
                "http://b",
                "--serial",
                "/dev/ttyS0",
            ],
            &[
                "--elf",
                "a",
                "--device",
                "http://b",
                "--listen",
                "0.0.0.0:80",
            ],
            &["--elf", "a", "--device", "http://b", "--listen", "6060"],
            &["--elf", "a", "--serial", "/dev/ttyS0,"],
            &["a"],
        ] {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }
}
