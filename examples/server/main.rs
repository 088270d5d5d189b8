//! A small document service with picoprof in it, and clients to keep it busy.
//!
//! `cargo run --release --example server` starts it and prints what to try. What a program needs
//! for its profiles stands beside the comments that begin with "picoprof": in this file what each
//! needs, in `service` what makes tasks and labels show; the rest is a service like any other.
//! Each other file is one part of it: `service` answers requests, which `http` reads and writes;
//! `document` is what they are about, `store` keeps it, `notary` puts it on record, `report` sums
//! it up; `load` is the clients, and `bell` a mistake for the profiles to find.

#![forbid(unsafe_code)]

mod bell;
mod document;
mod http;
mod load;
mod notary;
mod report;
mod service;
mod store;

use core::net::Ipv4Addr;
use core::time::Duration;
use std::io::{self, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::thread;

use load::Load;
use service::Service;

// picoprof, 1: the heap profiles. It hands every request on to the system's allocator.
#[global_allocator]
static ALLOCATOR: picoprof_std::Allocator = picoprof_std::Allocator::system();

// picoprof, 2: sees every thread from its creation on.
picoprof_std::interpose!();

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("server: {error} (--help lists the flags)");
            return ExitCode::from(2);
        }
    };
    let outcome = if options.help {
        print(HELP)
    } else {
        run(&options)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    // picoprof, 3: the profiles are at this address until the value is dropped.
    let pprof = picoprof_std::Server::bind(options.admin)
        .map_err(explain("profiles", options.admin))?
        .spawn()?;
    let admin = pprof.local_addr().map_or(0, |address| address.port());

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))
        .map_err(explain("documents", options.port))?;
    let service = Service::spawn(listener)?;
    let load = if options.load {
        Some(Load::spawn(service.address())?)
    } else {
        None
    };

    let address = service.address();
    print(&format!(
        "serving documents on http://{address}, profiles on http://localhost:{admin}/debug/pprof/
try:
    go tool pprof -seconds 5 -pdf http://localhost:{admin}/debug/pprof/allocs
    go tool pprof -http=: 'http://localhost:{admin}/debug/pprof/profile?seconds=10'
    go tool pprof -top http://localhost:{admin}/debug/pprof/heap
    go tool pprof -top http://localhost:{admin}/debug/pprof/block
    curl 'http://localhost:{admin}/debug/pprof/goroutine?debug=2'
    curl 'http://localhost:{admin}/debug/pprof/threadcreate?debug=1'
    curl -o trace.out 'http://localhost:{admin}/debug/pprof/trace?seconds=2'
    go tool trace trace.out
"
    ))?;

    if options.seconds == 0 {
        service.join();
        return Ok(());
    }
    thread::sleep(Duration::from_secs(options.seconds));
    let failed = load.map_or(0, Load::stop);
    let served = service.stop();
    print(&format!("{served} requests served, {failed} failed\n"))
}

/// Says which port an error is about.
fn explain(what: &'static str, port: u16) -> impl FnOnce(io::Error) -> io::Error {
    move |error| {
        io::Error::new(
            error.kind(),
            format!("cannot serve {what} on port {port}: {error}"),
        )
    }
}

/// Prints all of a text at once. That nobody reads it is no error.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(io::Error::new(
            error.kind(),
            format!("cannot print: {error}"),
        )),
        _ => Ok(()),
    }
}

const HELP: &str = "\
A small document service under load, with its profiles at /debug/pprof/.

Usage: server [--port PORT] [--admin PORT] [--no-load] [--seconds N]

  --port PORT    serve documents here (9991; 0: any that is free)
  --admin PORT   serve profiles here (9990; 0: any that is free)
  --no-load      start no clients
  --seconds N    stop after so long (0: run until killed)
  --help         print this
";

#[derive(Debug, PartialEq, Eq)]
struct Options {
    port: u16,
    admin: u16,
    load: bool,
    seconds: u64,
    help: bool,
}

impl Options {
    fn parse(mut arguments: lexopt::Parser) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let mut options = Self {
            port: 9991,
            admin: 9990,
            load: true,
            seconds: 0,
            help: false,
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("port") => options.port = arguments.value()?.parse()?,
                Long("admin") => options.admin = arguments.value()?.parse()?,
                Long("no-load") => options.load = false,
                Long("seconds") => options.seconds = arguments.value()?.parse()?,
                Short('h') | Long("help") => options.help = true,
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
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
        let options = parse(&["--port=1", "--admin", "2", "--no-load", "--seconds", "3"]);
        assert_eq!(
            options.unwrap(),
            Options {
                port: 1,
                admin: 2,
                load: false,
                seconds: 3,
                help: false
            }
        );
        assert!(parse(&[]).unwrap().load);
        assert!(parse(&["--help"]).unwrap().help);
    }

    #[test]
    fn wrong_flags_are_refused() {
        for arguments in [
            &["--prot", "1"][..],
            &["--port"],
            &["--port", "65536"],
            &["--seconds", "-1"],
            &["--no-load=yes"],
            &["1"],
        ] {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }
}
