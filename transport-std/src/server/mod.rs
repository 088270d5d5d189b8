//! The server: one thread that serves every connection, so that a program pays for one.

#![forbid(unsafe_code)]

mod client;
mod listener;

use core::mem;
use core::net::SocketAddr;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::io;
use std::net::ToSocketAddrs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::catch_unwind;
use std::path::Path;
use std::{process, thread};

use self::client::Client;
use self::listener::Listener;
use picoprof::Instant;

use crate::host::{Host, Options};
use crate::sys::{self, Interest};
use crate::{clock, interposed, stack_bounds, tracer, unwind};

/// Connections at once. When there are more, the one that has been idle for longest is closed.
const MAX_CLIENTS: usize = 128;
/// How long to leave the listeners alone when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A server of `/debug/pprof/`, not running yet.
///
/// ```no_run
/// fn main() -> std::io::Result<()> {
///     let _pprof = picoprof_std::Server::bind(9990)?.spawn()?;
///     // … the program …
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    options: Options,
}

impl Server {
    /// Listens on the loopback addresses of this machine, 127.0.0.1 and, where there is one, ::1. Port 0 takes
    /// a free one.
    ///
    /// # Errors
    ///
    /// Those of binding a socket, such as a port in use.
    pub fn bind(port: u16) -> io::Result<Self> {
        Ok(Self::new(listener::loopback(port)?, true))
    }

    /// Listens on any address, also one that other machines can reach. Whoever reaches it can read the command
    /// line, function names and memory use, and slow the program down by sampling it: only do this behind
    /// something that keeps strangers out.
    ///
    /// Requests must name an IP address or a name given to [`allow_host`](Self::allow_host) as their `Host`.
    ///
    /// # Errors
    ///
    /// Those of resolving the address and of binding a socket.
    pub fn bind_public(address: impl ToSocketAddrs) -> io::Result<Self> {
        Ok(Self::new(listener::any(address)?, true))
    }

    /// Listens on a Unix socket, which only this user may connect to (mode 0600). A socket that a program
    /// which ended has left there is replaced.
    ///
    /// ```text
    /// curl --unix-socket /run/service/pprof http://localhost/debug/pprof/heap > heap.pb.gz
    /// ```
    ///
    /// # Errors
    ///
    /// `AddrInUse` if a program listens there, `AlreadyExists` if there is something else, and those of the file
    /// system.
    pub fn bind_unix(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::new(vec![listener::unix(path.as_ref())?], false))
    }

    fn new(listeners: Vec<Listener>, checks_host: bool) -> Self {
        Self {
            listeners,
            options: Options {
                checks_host,
                ..Options::default()
            },
        }
    }

    /// Serves requests whose `Host` is this name, besides `localhost` and IP addresses. Other names are
    /// refused, as a foreign web site could make its own point here (DNS rebinding).
    #[must_use]
    pub fn allow_host(mut self, name: &str) -> Self {
        self.options.allowed_hosts.push(name.into());
        self
    }

    /// Lets `cmdline` show the program's name alone, where arguments may be secrets.
    #[must_use]
    pub fn redact_command_line(mut self) -> Self {
        self.options.shows_arguments = false;
        self
    }

    /// What `heap?gc=1` does before it looks. The default lets glibc's allocator give free memory back to the
    /// system.
    #[must_use]
    pub fn on_collect(mut self, collect: fn()) -> Self {
        self.options.collect = collect;
        self
    }

    /// The address it listens on; the first, where there are several, and `None` for a Unix socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listeners.iter().find_map(Listener::local_addr)
    }

    /// Serves in a thread of its own, until the guard is dropped.
    ///
    /// # Errors
    ///
    /// If there can't be a thread.
    pub fn spawn(self) -> io::Result<Running> {
        // Here, and not when the first sample wants them: a thread that comes while they are made has to do without.
        unwind::refresh();
        tracer::see_tasks();
        // For threads that nobody saw begin, such as the main one.
        stack_bounds::refresh();
        let local_addr = self.local_addr();
        let (waker, wakes) = UnixStream::pair()?;
        let builder = thread::Builder::new().name("picoprof".into());
        let thread = interposed::unseen(|| {
            builder.spawn(move || {
                interposed::be_unseen();
                let host = Host::new(self.options);
                Loop {
                    host: &host,
                    listeners: &self.listeners,
                    wakes: &wakes,
                    clients: Vec::new(),
                    accepts_again: None,
                }
                .run();
            })
        })?;
        Ok(Running {
            process: process::id(),
            waker,
            thread: Some(thread),
            local_addr,
        })
    }
}

/// A server that is running. Dropping it stops it and closes its connections; a CPU profile that is being taken ends.
#[derive(Debug)]
#[must_use = "the server stops when this is dropped"]
pub struct Running {
    /// The process whose server it is: a forked child has a copy of this and no server.
    process: u32,
    waker: UnixStream,
    thread: Option<thread::JoinHandle<()>>,
    local_addr: Option<SocketAddr>,
}

impl Running {
    /// The address it listens on; the first, where there are several, and `None` for a Unix socket.
    #[must_use]
    pub const fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.process != process::id() {
            // The child has no such thread, and the handle may be that of one of its own.
            mem::forget(self.thread.take());
            return;
        }
        // The thread sees it as the end of the stream.
        let _ = self.waker.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // It does not panic, and there's nothing to do if it did.
            let _ = thread.join();
        }
    }
}

/// The server's thread.
struct Loop<'h> {
    host: &'h Host,
    listeners: &'h [Listener],
    /// Is readable when the guard was dropped.
    wakes: &'h UnixStream,
    clients: Vec<Client<'h>>,
    accepts_again: Option<Instant>,
}

impl Loop<'_> {
    fn run(mut self) {
        loop {
            for client in &mut self.clients {
                // Read for each: making a profile for one takes its time.
                let now = clock::now();
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| client.serve(now))) {
                    // What it says was printed. It costs this client its answer, and the program none of its profiles.
                    // What was thrown is left alone: dropping it may panic again.
                    mem::forget(panic);
                    client.give_up();
                }
            }
            self.clients.retain(|client| !client.is_closed());
            match self.wait() {
                Ok(ready) if ready.wakes => return,
                Ok(ready) => self.accept(&ready.listeners),
                // The kernel has no memory for it now.
                Err(_) => thread::sleep(ACCEPT_PAUSE),
            }
        }
    }

    /// Waits for something to do.
    fn wait(&mut self) -> io::Result<Ready> {
        let now = clock::now();
        if self.accepts_again.is_some_and(|time| time <= now) {
            self.accepts_again = None;
        }
        let mut interests = vec![Interest {
            fd: self.wakes.as_fd(),
            events: libc::POLLIN,
        }];
        let accepting = if self.accepts_again.is_none() {
            self.listeners
        } else {
            &[]
        };
        interests.extend(accepting.iter().map(|listener| Interest {
            fd: listener.as_fd(),
            events: libc::POLLIN,
        }));
        interests.extend(self.clients.iter().map(Client::interest));
        let deadlines = self.clients.iter().filter_map(Client::deadline);
        let deadline = deadlines.chain(self.accepts_again).min();
        // Read again: making a profile takes its time.
        let now = clock::now();
        let came = sys::poll(&interests, deadline.map(|deadline| deadline.since(now)))?;
        let (wakes, rest) = came.split_first().unwrap_or((&0, &[]));
        let (listeners, clients) = rest.split_at_checked(accepting.len()).unwrap_or_default();
        for (client, &events) in self.clients.iter_mut().zip(clients) {
            client.note(events);
        }
        Ok(Ready {
            wakes: *wakes != 0,
            listeners: listeners.iter().map(|&events| events != 0).collect(),
        })
    }

    fn accept(&mut self, ready: &[bool]) {
        for (listener, _) in self
            .listeners
            .iter()
            .zip(ready)
            .filter(|(_, ready)| **ready)
        {
            match listener.accept() {
                Ok(stream) => {
                    if self.clients.len() >= MAX_CLIENTS {
                        self.make_room();
                    }
                    if self.clients.len() < MAX_CLIENTS {
                        let now = clock::now();
                        self.clients.push(Client::new(stream, self.host, now));
                    } else {
                        client::refuse(stream);
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::Interrupted => {}
                    // Most likely the process has too many files open.
                    _ => self.accepts_again = Some(clock::now() + ACCEPT_PAUSE),
                },
            }
        }
    }

    fn make_room(&mut self) {
        let idle = self
            .clients
            .iter()
            .enumerate()
            .filter(|(_, client)| client.is_idle());
        if let Some((longest, _)) = idle.min_by_key(|(_, client)| client.last_active()) {
            self.clients.remove(longest);
        }
    }
}

/// What came.
struct Ready {
    wakes: bool,
    listeners: Vec<bool>,
}
