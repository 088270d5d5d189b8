//! What the kernel says of a thread: proc(5).

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Read};

use picoprof::profile::Wait;

/// The threads of this process, as the kernel lists them.
pub(crate) fn ids() -> io::Result<Vec<i32>> {
    let entries = fs::read_dir("/proc/self/task")?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// A thread, as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// In UTF-8, and zeros behind it.
    pub(super) name: [u8; 16],
    pub(super) wait: Wait,
    /// Whether SIGPROF does not reach it now.
    pub(super) blocks_signal: bool,
}

/// `None` if there is no such thread, or it has ended.
pub(super) fn look(thread: i32) -> Option<Seen> {
    let mut seen = parse_stat(&read(thread, "stat").ok()?)?;
    if seen.wait != Wait::Running {
        // Not every kernel lets it be read.
        let call = read(thread, "syscall").unwrap_or_default();
        if let Some(wait) = parse_call(&call).map(wait_in) {
            seen.wait = wait;
        }
    }
    Some(seen)
}

/// The start of a thread's file: more than any field that is looked at is away.
fn read(thread: i32, file: &str) -> io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(512);
    let file = File::open(format!("/proc/self/task/{thread}/{file}"))?;
    file.take(512).read_to_end(&mut content)?;
    Ok(content)
}

/// `tid (name) state …`; `None` for a thread that has ended.
fn parse_stat(stat: &[u8]) -> Option<Seen> {
    /// The 32nd is the mask of blocked signals; the state is the third.
    const BLOCKED: usize = 32 - 3 - 1;
    let start = stat.iter().position(|&byte| byte == b'(')? + 1;
    // A name may have parentheses.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = core::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let wait = match fields.next()? {
        "R" => Wait::Running,
        // Uninterruptible, which is a disk or a network's file system most often.
        "D" => Wait::Io,
        "Z" | "X" | "x" => return None,
        _ => Wait::Unknown,
    };
    let blocked: u64 = fields.nth(BLOCKED)?.parse().ok()?;
    Some(Seen {
        name: name(stat.get(start..end)?),
        wait,
        blocks_signal: blocked & 1 << (libc::SIGPROF - 1) != 0,
    })
}

/// What of it is UTF-8: the kernel may have cut it within a character.
fn name(bytes: &[u8]) -> [u8; 16] {
    let mut name = [0; 16];
    let valid = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let cut = valid.floor_char_boundary(name.len());
    for (to, from) in name
        .iter_mut()
        .zip(valid.get(..cut).unwrap_or_default().bytes())
    {
        *to = from;
    }
    name
}

/// The number of the system call that a thread is in, if it is in one.
fn parse_call(text: &[u8]) -> Option<libc::c_long> {
    let text = core::str::from_utf8(text).ok()?;
    let number = text.split_ascii_whitespace().next()?.parse().ok()?;
    (number >= 0).then_some(number)
}

/// What a thread waits for in a system call. Of a futex its stack knows more.
fn wait_in(call: libc::c_long) -> Wait {
    if SLEEPS.contains(&call) {
        Wait::Sleep
    } else if IO.contains(&call) || OLD_IO.contains(&call) {
        Wait::Io
    } else if [libc::SYS_futex, libc::SYS_futex_waitv].contains(&call) {
        Wait::Unknown
    } else {
        Wait::Syscall
    }
}

const SLEEPS: [libc::c_long; 2] = [libc::SYS_nanosleep, libc::SYS_clock_nanosleep];

const IO: [libc::c_long; 31] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_copy_file_range,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_openat,
    libc::SYS_flock,
    libc::SYS_io_uring_enter,
];

/// Calls that only older architectures have.
#[cfg(target_arch = "x86_64")]
const OLD_IO: [libc::c_long; 4] = [
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_open,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_IO: [libc::c_long; 0] = [];

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(name: &str, state: &str, blocked: u64) -> String {
        format!(
            "4242 ({name}) {state} 1 4242 4242 0 -1 4194368 97 0 0 0 0 0 0 0 20 0 2 0 1 5 6 7 8 9 0 0 0 1 {blocked} 4096 17474 0"
        )
    }

    /// The fields of a line, counted as proc(5) does.
    #[test]
    fn the_mask_is_where_it_should_be() {
        let line = stat("x", "S", 77);
        assert_eq!(line.split(' ').nth(31), Some("77"));
    }

    #[test]
    fn a_thread_is_read() {
        let seen = parse_stat(stat("worker", "S", 0).as_bytes()).unwrap();
        assert_eq!(seen.name, *b"worker\0\0\0\0\0\0\0\0\0\0");
        assert_eq!((seen.wait, seen.blocks_signal), (Wait::Unknown, false));
        let seen = parse_stat(stat("a) R (b", "R", 1 << 26).as_bytes()).unwrap();
        assert_eq!(seen.name, *b"a) R (b\0\0\0\0\0\0\0\0\0");
        assert_eq!((seen.wait, seen.blocks_signal), (Wait::Running, true));
        assert_eq!(parse_stat(stat("x", "Z", 0).as_bytes()), None);
        for broken in ["", "4242", "4242 (x)", "4242 (x) S 1", ") S ("] {
            assert_eq!(parse_stat(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn a_name_stays_utf_8() {
        assert_eq!(
            name("käse-käse-käse-k".as_bytes())[..15],
            *"käse-käse-kä".as_bytes().first_chunk::<15>().unwrap()
        );
        assert_eq!(name(b"ab\xc3"), *b"ab\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn calls_are_told_apart() {
        assert_eq!(parse_call(b"running\n"), None);
        assert_eq!(parse_call(b"-1 0x7ffd 0x7f10\n"), None);
        assert_eq!(parse_call(b"0 0x3 0x55 0x10\n"), Some(0));
        assert_eq!(wait_in(libc::SYS_clock_nanosleep), Wait::Sleep);
        assert_eq!(wait_in(libc::SYS_accept4), Wait::Io);
        assert_eq!(wait_in(libc::SYS_futex), Wait::Unknown);
        assert_eq!(wait_in(libc::SYS_wait4), Wait::Syscall);
    }

    #[test]
    fn the_kernel_knows_this_thread() {
        let this = crate::cpu::this_thread();
        assert!(ids().unwrap().contains(&this));
        let seen = look(this).unwrap();
        assert_eq!((seen.wait, seen.blocks_signal), (Wait::Running, false));
    }
}
