//! A quiet program with a server, for the test `hostile`.
//!
//! Its arguments say what listens: `loopback`, `unix PATH` or `public ADDRESS`; then `redact` may follow, and
//! `panics`, for a hook of `gc=1` that does, and whose panic panics when it is dropped.
//!
//! * `collected`: how often `gc=1` was asked for.
//! * `stop`: drops the server's guard; how many milliseconds that took.
//! * `again`: binds the same port anew and serves.
//! * `idle`: nothing.

use core::net::{Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicU64, Ordering};
use std::env;
use std::io;
use std::panic::panic_any;
use std::time::Instant;

use picoprof_std::{Allocator, Server, interpose, set_heap_rate};
use picoprof_tests::subject::obey;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::system();
interpose!();

static COLLECTED: AtomicU64 = AtomicU64::new(0);

fn main() -> io::Result<()> {
    set_heap_rate(16 * 1024);
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = match words[0] {
        "loopback" => Server::bind(0)?,
        "unix" => Server::bind_unix(words[1])?,
        "public" => Server::bind_public(words[1])?,
        other => panic!("{other}"),
    };
    let server = if words.contains(&"redact") {
        server.redact_command_line()
    } else {
        server
    };
    let collect = if words.contains(&"panics") {
        panic_twice
    } else {
        count
    };
    let pprof = server.allow_host("test").on_collect(collect).spawn()?;
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let address = pprof.local_addr().unwrap_or(nowhere);
    let mut pprof = Some(pprof);
    obey(address, |line| match line {
        "collected" => COLLECTED.load(Ordering::SeqCst).to_string(),
        "stop" => {
            let begun = Instant::now();
            drop(pprof.take());
            begun.elapsed().as_millis().to_string()
        }
        "again" => {
            let server = Server::bind(address.port()).map(|server| server.allow_host("test"));
            match server.and_then(Server::spawn) {
                Ok(running) => {
                    pprof = Some(running);
                    "bound".to_owned()
                }
                Err(error) => error.to_string(),
            }
        }
        "idle" => String::new(),
        other => panic!("{other}"),
    })
}

fn count() {
    COLLECTED.fetch_add(1, Ordering::SeqCst);
}

fn panic_twice() {
    struct Again;

    impl Drop for Again {
        fn drop(&mut self) {
            panic!("again");
        }
    }

    panic_any(Again);
}
