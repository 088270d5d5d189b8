//! Sockets: TCP and Unix ones alike.

#![forbid(unsafe_code)]

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::{fs, process};

/// A socket that clients connect to.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    /// The file goes first: while it is there, so is who listens.
    Unix(
        #[expect(dead_code, reason = "for its drop")] SocketFile,
        UnixListener,
    ),
}

/// A client's socket.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The loopback addresses: both, as clients may take `localhost` for either.
pub(super) fn loopback(port: u16) -> io::Result<Vec<Listener>> {
    let first = tcp((Ipv4Addr::LOCALHOST, port).into())?;
    let port = first.local_addr().map_or(port, |address| address.port());
    let mut listeners = vec![first];
    match tcp((Ipv6Addr::LOCALHOST, port).into()) {
        Ok(second) => listeners.push(second),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
        // A machine without IPv6.
        Err(_) => {}
    }
    Ok(listeners)
}

/// All addresses that a name resolves to.
pub(super) fn any(address: impl ToSocketAddrs) -> io::Result<Vec<Listener>> {
    let listeners: Vec<_> = address
        .to_socket_addrs()?
        .map(tcp)
        .collect::<io::Result<_>>()?;
    if listeners.is_empty() {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    Ok(listeners)
}

/// A Unix socket that only this user may connect to.
///
/// It is made in a directory that nobody else may enter, and moved when its mode is right: at no time can a
/// stranger connect.
pub(super) fn unix(path: &Path) -> io::Result<Listener> {
    match fs::symlink_metadata(path) {
        Err(_) => {}
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
        // Somebody's who has ended; the move replaces it.
        Ok(_) => {}
    }
    let private = private_folder(path.parent().unwrap_or(Path::new(".")))?;
    let made = make_unix(&private.join("s"), path);
    // Empty by now, or not ours to mend.
    let _ = fs::remove_dir_all(&private);
    made
}

/// A folder in this one that only this user may enter.
fn private_folder(folder: &Path) -> io::Result<PathBuf> {
    let mut number = 0;
    loop {
        // Short, as a socket's path has room for about 100 bytes.
        let private = folder.join(format!(".p{:x}.{number:x}", process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&private) {
            // Another thread's at this moment, or left behind: in containers, each process may have the same number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 64 => {
                number += 1
            }
            made => return made.map(|()| private),
        }
    }
}

fn make_unix(made: &Path, path: &Path) -> io::Result<Listener> {
    let listener = UnixListener::bind(made)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(made, fs::Permissions::from_mode(0o600))?;
    fs::rename(made, path)?;
    let file = SocketFile {
        path: path.into(),
        process: process::id(),
    };
    Ok(Listener::Unix(file, listener))
}

fn tcp(address: SocketAddr) -> io::Result<Listener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Tcp(listener))
}

/// Goes with its listener, but not with a forked child's copy of it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    process: u32,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.process == process::id() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// The next client, whose socket never blocks.
    pub(super) fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                // Answers are written in large pieces; the last one is not to wait for an acknowledgement.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(_, listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Stream::Unix(stream))
            }
        }
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(_, listener) => listener.as_fd(),
        }
    }
}

impl Stream {
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }

    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
