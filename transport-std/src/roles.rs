//! What functions' names say of the stacks that they are on: which wait, and for what.
//!
//! A thread that waits for a lock and one that waits for a message make the same system call; the functions on the stack
//! tell them apart. A function is told by its path, from which types' arguments and closures are left out: names come in
//! full (`<tokio::sync::mutex::MutexGuard<T> as core::ops::drop::Drop>::drop`), or from little debug information, where
//! inlined functions have their module only (`tokio::sync::mutex::drop`). So what is listed here are modules and the names
//! of functions anywhere below them.
//!
//! Those who wait for something and those who end others' waiting are listed alike. What several things are made
//! of (a condition variable, parking) is overruled by its callers, see [`Wait::is_generic`].

#![forbid(unsafe_code)]

use std::sync::{PoisonError, RwLock};

use picoprof::profile::{Role, Wait};

/// Those of the program itself.
static ADDED: RwLock<Vec<(&'static str, Wait)>> = RwLock::new(Vec::new());

/// Says what functions of the program or of a library wait for, or end others' waiting for, so that `block`, `mutex` and
/// `goroutine` know: a lock of one's own, say.
///
/// `functions` is a path whose last part is the function's name or the begin of one and `*`; what lies between
/// may be left out. What is added last is looked at first, and before what is known already: std, parking_lot, crossbeam,
/// flume, async-channel, tokio, futures and the like.
///
/// ```
/// use picoprof_std::{Wait, add_wait};
///
/// // Such as my_db::pool::Pool::acquire, my_db::pool::{impl Drop for Connection}::drop, …
/// add_wait("my_db::pool::*", Wait::Semaphore);
/// add_wait("my_db::lock_row*", Wait::Mutex);
/// ```
pub fn add_wait(functions: &'static str, wait: Wait) {
    let mut added = ADDED.write().unwrap_or_else(PoisonError::into_inner);
    added.push((functions, wait));
}

/// What a function's name says.
pub(crate) fn of(function: &str) -> Role {
    let path = Path::of(function);
    match of_path(path) {
        Role::Library if matches!(path.name, "drop_in_place" | "drop") => of_guard(function),
        role => role,
    }
}

fn of_path(path: Path<'_>) -> Role {
    let added = ADDED.read().unwrap_or_else(PoisonError::into_inner);
    let mut added = added.iter().rev();
    if let Some(&(_, wait)) = added.find(|(pattern, _)| path.is_one_of(pattern)) {
        return Role::Waits(wait);
    }
    let (library, rest) = path.split();
    let profiler = ["interposed::syscall::*", "contention::*"];
    if library == "picoprof_std" && profiler.iter().any(|it| rest.is_one_of(it)) {
        return Role::Profiler;
    }
    if let Some((_, patterns)) = LIBRARIES.iter().find(|(name, _)| *name == library) {
        let known = patterns.iter().find(|(pattern, _)| rest.is_one_of(pattern));
        return known.map_or(Role::Library, |&(_, wait)| Role::Waits(wait));
    }
    if path.module.is_empty() {
        return of_c(path.name);
    }
    Role::Program
}

/// `core::ptr::drop_in_place<core::option::Option<a::MutexGuard<()>>>`: what unlocks may be part of that, and its own name be
/// lost.
fn of_guard(function: &str) -> Role {
    let types = function.split(['<', '>', ',', ' ', '(', ')', '&']);
    let guards = types.filter(|it| it.ends_with("Guard") || it.ends_with("Permit"));
    let mut roles = guards.map(|module| {
        of_path(Path {
            module,
            name: "drop",
        })
    });
    roles
        .find(|role| matches!(role, Role::Waits(_)))
        .unwrap_or(Role::Library)
}

/// C's functions, of any library.
fn of_c(name: &str) -> Role {
    let known = C.iter().find(|(names, _)| names.contains(&name));
    known.map_or(Role::Program, |&(_, wait)| Role::Waits(wait))
}

/// A function's place, and its name; of a closure, that of the function or the module that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Path<'a> {
    module: &'a str,
    name: &'a str,
}

impl<'a> Path<'a> {
    /// `<a::B<T> as c::D>::e::<F>::{closure#0}` is e in a::B.
    fn of(function: &'a str) -> Self {
        let start = type_in(function);
        let inside = type_in(function.split_once(" as ").map_or("", |(_, it)| it));
        // Of a trait's own function, for any type, the trait tells where it is.
        let path = if start.len() < function.len() && !path_in(start).contains("::") {
            path_in(inside)
        } else {
            path_in(start)
        };
        let name = last_name(function);
        // Without a type, the name is the path's end. Of a closure it may be the module that is, so it stays there.
        let is_closure = function
            .get(path.len()..)
            .is_some_and(|rest| rest.starts_with("::{"));
        let module = match path.strip_suffix(name) {
            Some(module) if !is_closure => module.strip_suffix("::").unwrap_or(module),
            _ => path,
        };
        Self { module, name }
    }

    /// The crate, and the rest of it.
    fn split(self) -> (&'a str, Self) {
        let (library, module) = self.module.split_once("::").unwrap_or((self.module, ""));
        let name = self.name;
        (library, Self { module, name })
    }

    fn is_one_of(self, pattern: &str) -> bool {
        let (module, name) = pattern.rsplit_once("::").unwrap_or(("", pattern));
        let is_below = match self.module.strip_prefix(module) {
            Some(rest) => module.is_empty() || rest.is_empty() || rest.starts_with("::"),
            None => false,
        };
        let is_named = match name.strip_suffix('*') {
            Some(start) => self.name.starts_with(start),
            None => self.name == name,
        };
        is_below && is_named
    }
}

/// What is in the angle brackets that a name begins with, without `&dyn` and the like.
fn type_in(mut name: &str) -> &str {
    loop {
        let before = name;
        for start in [
            "<", "&", "*const ", "*mut ", "mut ", "dyn ", "impl ", "(", "[",
        ] {
            name = name.strip_prefix(start).unwrap_or(name);
        }
        if name == before {
            return name;
        }
    }
}

/// The path that a type or a function's name begins with.
fn path_in(name: &str) -> &str {
    let end = name
        .find(['<', '>', '{', ' ', ',', ')', ']', ';'])
        .unwrap_or(name.len());
    let path = name.get(..end).unwrap_or_default();
    path.strip_suffix("::").unwrap_or(path)
}

/// The last part of a name that is no closure and no argument of a type: "" if there is none.
fn last_name(function: &str) -> &str {
    let (mut start, mut depth, mut last) = (0, 0_usize, "");
    let mut take = |end: usize, start: usize| {
        let part = function.get(start..end).unwrap_or_default();
        let part = part.split('<').next().unwrap_or_default();
        let is_name = |it: char| it == '_' || it.is_alphanumeric();
        if !part.is_empty() && part.chars().all(is_name) {
            last = part;
        }
    };
    let bytes = function.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'<' | b'{' | b'(' | b'[' => depth += 1,
            // Of an arrow.
            b'>' if at > 0 && bytes.get(at - 1) == Some(&b'-') => {}
            b'>' | b'}' | b')' | b']' => depth = depth.saturating_sub(1),
            b':' if depth == 0 && bytes.get(at + 1) == Some(&b':') => take(at, start),
            _ => {}
        }
        if byte == b':' && depth == 0 {
            start = at + 1;
        }
    }
    take(function.len(), start);
    last
}

/// Patterns below a crate, and what they say; the first that fits counts.
type Patterns = &'static [(&'static str, Wait)];

/// The crates that wait, and those that others are made of. What isn't listed of them says nothing itself.
const LIBRARIES: &[(&str, Patterns)] = &[
    ("alloc", &[]),
    ("core", &[]),
    // A task that polls another one waits for it: its waker was kept there.
    ("picoprof", &[("profile::task::state::*", Wait::Join)]),
    ("picoprof_std", &[]),
    (
        "std",
        &[
            ("sys::pal::unix::futex::futex_wa*", Wait::Unknown),
            ("sys::sync::mutex::*", Wait::Mutex),
            ("sync::poison::mutex::*", Wait::Mutex),
            ("sync::nonpoison::mutex::*", Wait::Mutex),
            ("sync::reentrant_lock::*", Wait::Mutex),
            ("sys::sync::rwlock::read*", Wait::ReadLock),
            ("sys::sync::rwlock::write*", Wait::WriteLock),
            ("sys::sync::rwlock::downgrade", Wait::WriteLock),
            ("sync::poison::rwlock::RwLockReadGuard::*", Wait::ReadLock),
            ("sync::poison::rwlock::RwLockWriteGuard::*", Wait::WriteLock),
            ("sync::poison::rwlock::read", Wait::ReadLock),
            ("sync::poison::rwlock::write", Wait::WriteLock),
            ("sync::nonpoison::rwlock::read", Wait::ReadLock),
            ("sync::nonpoison::rwlock::write", Wait::WriteLock),
            ("sys::sync::condvar::*", Wait::Condition),
            ("sync::poison::condvar::*", Wait::Condition),
            ("sync::nonpoison::condvar::*", Wait::Condition),
            ("sys::sync::once::*", Wait::Once),
            ("sync::once::*", Wait::Once),
            ("sync::poison::once::*", Wait::Once),
            ("sync::once_lock::*", Wait::Once),
            ("sync::lazy_lock::*", Wait::Once),
            ("sync::barrier::*", Wait::Barrier),
            ("sync::mpmc::recv*", Wait::Receive),
            ("sync::mpmc::read", Wait::Receive),
            ("sync::mpmc::send*", Wait::Send),
            ("sync::mpmc::write", Wait::Send),
            ("sync::mpsc::recv*", Wait::Receive),
            ("sync::mpsc::next", Wait::Receive),
            ("sync::mpsc::send*", Wait::Send),
            ("sync::oneshot::*", Wait::Receive),
            ("thread::scoped::scope", Wait::Join),
            ("thread::scoped::decrement_num_running_threads", Wait::Join),
            ("sys::sync::thread_parking::*", Wait::Park),
            ("thread::park*", Wait::Park),
            ("thread::unpark", Wait::Park),
            ("thread::join", Wait::Join),
            ("sys::thread::join", Wait::Join),
            ("thread::sleep*", Wait::Sleep),
            ("sys::thread::sleep*", Wait::Sleep),
            ("sys::thread::nanosleep*", Wait::Sleep),
            ("net::*", Wait::Io),
            ("os::unix::net::*", Wait::Io),
            ("sys::net::*", Wait::Io),
            ("sys::fd::*", Wait::Io),
            ("sys::fs::*", Wait::Io),
            ("sys::stdio::*", Wait::Io),
        ],
    ),
    (
        "parking_lot",
        &[
            ("raw_mutex::*", Wait::Mutex),
            ("raw_fair_mutex::*", Wait::Mutex),
            ("raw_rwlock::lock_shared*", Wait::ReadLock),
            ("raw_rwlock::unlock_shared*", Wait::ReadLock),
            ("raw_rwlock::try_lock_shared*", Wait::ReadLock),
            ("raw_rwlock::lock_*", Wait::WriteLock),
            ("raw_rwlock::unlock_*", Wait::WriteLock),
            ("raw_rwlock::upgrade*", Wait::WriteLock),
            ("raw_rwlock::downgrade*", Wait::WriteLock),
            ("raw_rwlock::bump_*", Wait::WriteLock),
            ("condvar::*", Wait::Condition),
            ("once::*", Wait::Once),
        ],
    ),
    (
        "parking_lot_core",
        &[
            ("parking_lot::park", Wait::Park),
            ("parking_lot::unpark*", Wait::Park),
            ("thread_parker::*", Wait::Unknown),
        ],
    ),
    (
        "lock_api",
        &[
            ("mutex::*", Wait::Mutex),
            ("remutex::*", Wait::Mutex),
            ("rwlock::RwLockReadGuard::*", Wait::ReadLock),
            ("rwlock::read*", Wait::ReadLock),
            ("rwlock::*", Wait::WriteLock),
        ],
    ),
    (
        "dashmap",
        &[
            ("lock::lock_shared*", Wait::ReadLock),
            ("lock::unlock_shared*", Wait::ReadLock),
            ("lock::lock_exclusive*", Wait::WriteLock),
            ("lock::unlock_exclusive*", Wait::WriteLock),
        ],
    ),
    ("once_cell", &[("imp::*", Wait::Once)]),
    (
        "crossbeam_channel",
        &[
            ("recv*", Wait::Receive),
            ("read", Wait::Receive),
            ("send*", Wait::Send),
            ("write", Wait::Send),
            ("select::*", Wait::Receive),
        ],
    ),
    (
        "crossbeam_utils",
        &[
            ("sync::parker::*", Wait::Park),
            ("sync::wait_group::*", Wait::Join),
            ("sync::sharded_lock::read", Wait::ReadLock),
            ("sync::sharded_lock::*", Wait::WriteLock),
        ],
    ),
    (
        "flume",
        &[
            ("async::RecvFut::*", Wait::Receive),
            ("async::RecvStream::*", Wait::Receive),
            ("async::SendFut::*", Wait::Send),
            ("async::SendSink::*", Wait::Send),
            ("recv*", Wait::Receive),
            ("wait_recv", Wait::Receive),
            ("wait_deadline_recv", Wait::Receive),
            ("send*", Wait::Send),
            ("wait_send", Wait::Send),
            ("wait_deadline_send", Wait::Send),
        ],
    ),
    (
        "async_channel",
        &[
            ("Recv::*", Wait::Receive),
            ("RecvInner::*", Wait::Receive),
            ("Receiver::*", Wait::Receive),
            ("recv*", Wait::Receive),
            ("try_recv", Wait::Receive),
            ("Send::*", Wait::Send),
            ("SendInner::*", Wait::Send),
            ("Sender::*", Wait::Send),
            ("send*", Wait::Send),
            ("try_send", Wait::Send),
        ],
    ),
    ("event_listener", &[("*", Wait::Notify)]),
    ("event_listener_strategy", &[]),
    ("parking", &[("*", Wait::Park)]),
    (
        "async_lock",
        &[
            ("mutex::*", Wait::Mutex),
            ("rwlock::read*", Wait::ReadLock),
            ("rwlock::RwLockReadGuard::*", Wait::ReadLock),
            ("rwlock::*", Wait::WriteLock),
            ("semaphore::*", Wait::Semaphore),
            ("barrier::*", Wait::Barrier),
            ("once_cell::*", Wait::Once),
        ],
    ),
    (
        "tokio",
        &[
            ("sync::mutex::*", Wait::Mutex),
            ("sync::rwlock::read*", Wait::ReadLock),
            ("sync::rwlock::RwLock::read*", Wait::ReadLock),
            ("sync::rwlock::read_guard::*", Wait::ReadLock),
            ("sync::rwlock::owned_read_guard::*", Wait::ReadLock),
            ("sync::rwlock::*", Wait::WriteLock),
            ("sync::batch_semaphore::*", Wait::Semaphore),
            ("sync::semaphore::*", Wait::Semaphore),
            ("sync::mpsc::recv*", Wait::Receive),
            ("sync::mpsc::poll_recv*", Wait::Receive),
            ("sync::mpsc::blocking_recv*", Wait::Receive),
            ("sync::mpsc::bounded::*", Wait::Send),
            ("sync::mpsc::send*", Wait::Send),
            ("sync::mpsc::unbounded::*", Wait::Receive),
            ("sync::oneshot::*", Wait::Receive),
            ("sync::broadcast::*", Wait::Receive),
            ("sync::watch::*", Wait::Receive),
            ("sync::notify::*", Wait::Notify),
            ("sync::barrier::*", Wait::Barrier),
            ("sync::once_cell::*", Wait::Once),
            ("sync::set_once::*", Wait::Once),
            ("time::sleep::*", Wait::Sleep),
            ("time::interval::*", Wait::Sleep),
            ("runtime::time::*", Wait::Sleep),
            ("net::*", Wait::Io),
            ("fs::*", Wait::Io),
            ("process::*", Wait::Io),
            ("signal::*", Wait::Io),
            ("runtime::io::driver::*", Wait::Idle),
            ("runtime::io::*", Wait::Io),
            ("io::util::mem::*", Wait::Receive),
            ("runtime::task::join::*", Wait::Join),
            ("task::join_set::*", Wait::Join),
            ("runtime::blocking::shutdown::*", Wait::Join),
            ("runtime::blocking::pool::run*", Wait::Idle),
            ("runtime::blocking::pool::spawn_task", Wait::Idle),
            ("runtime::scheduler::multi_thread::park::*", Wait::Idle),
            (
                "runtime::scheduler::multi_thread::worker::park*",
                Wait::Idle,
            ),
            ("runtime::scheduler::current_thread::park*", Wait::Idle),
            ("runtime::scheduler::block_on", Wait::Idle),
            ("runtime::runtime::block_on*", Wait::Idle),
            ("runtime::handle::block_on*", Wait::Idle),
            ("runtime::park::*", Wait::Park),
        ],
    ),
    (
        "mio",
        &[
            ("poll::*", Wait::Idle),
            ("sys::unix::selector::*", Wait::Idle),
        ],
    ),
    (
        "futures_channel",
        &[
            ("oneshot::*", Wait::Receive),
            ("mpsc::poll_ready*", Wait::Send),
            ("mpsc::Sender::*", Wait::Send),
            ("mpsc::*", Wait::Receive),
        ],
    ),
    ("futures_core", &[]),
    (
        "futures_executor",
        &[
            ("thread_pool::*", Wait::Idle),
            ("local_pool::*", Wait::Park),
        ],
    ),
    (
        "futures_util",
        &[
            ("lock::mutex::*", Wait::Mutex),
            ("lock::bilock::*", Wait::Mutex),
        ],
    ),
    (
        "futures_intrusive",
        &[
            ("sync::mutex::*", Wait::Mutex),
            ("sync::semaphore::*", Wait::Semaphore),
        ],
    ),
    ("futures_timer", &[("*", Wait::Sleep)]),
    (
        "async_io",
        &[
            ("driver::*", Wait::Idle),
            ("Timer::*", Wait::Sleep),
            ("*", Wait::Io),
        ],
    ),
    ("async_executor", &[]),
    (
        "blocking",
        &[("main_loop", Wait::Idle), ("schedule", Wait::Idle)],
    ),
    ("polling", &[("wait*", Wait::Idle)]),
    ("rayon", &[]),
    (
        "rayon_core",
        &[
            ("sleep::*", Wait::Idle),
            ("latch::LockLatch::*", Wait::Join),
            ("latch::wait*", Wait::Join),
        ],
    ),
    (
        "embassy_sync",
        &[
            ("mutex::*", Wait::Mutex),
            ("rwlock::read*", Wait::ReadLock),
            ("rwlock::*", Wait::WriteLock),
            ("semaphore::*", Wait::Semaphore),
            ("signal::*", Wait::Notify),
            ("channel::receive*", Wait::Receive),
            ("channel::ReceiveFuture::*", Wait::Receive),
            ("channel::send*", Wait::Send),
            ("channel::SendFuture::*", Wait::Send),
            ("once_lock::*", Wait::Once),
        ],
    ),
    ("embassy_time", &[("timer::*", Wait::Sleep)]),
    ("embassy_executor", &[("arch::*", Wait::Idle)]),
    ("picoprof", &[]),
    ("picoprof_std", &[]),
];

/// The C library's.
const C: &[(&[&str], Wait)] = &[
    (
        &[
            "__futex_abstimed_wait_common",
            "__futex_abstimed_wait_common64",
            "__GI___futex_abstimed_wait_cancelable64",
            "__GI___futex_abstimed_wait64",
            "__futex_abstimed_wait_cancelable64",
            "futex_wait",
            "__lll_lock_wait_private",
            "__timedwait",
            "__timedwait_cp",
            "__syscall_cp_asm",
            "__syscall_cp_c",
            "__wait",
            "syscall",
        ],
        Wait::Syscall,
    ),
    (
        &[
            "epoll_wait",
            "epoll_pwait",
            "poll",
            "ppoll",
            "select",
            "pselect",
            "__poll",
            "__ppoll",
        ],
        Wait::Syscall,
    ),
    (
        &[
            "pthread_mutex_lock",
            "pthread_mutex_timedlock",
            "pthread_mutex_unlock",
            "__lll_lock_wait",
            "___pthread_mutex_lock",
        ],
        Wait::Mutex,
    ),
    (&["pthread_rwlock_rdlock"], Wait::ReadLock),
    (&["pthread_rwlock_wrlock"], Wait::WriteLock),
    (
        &[
            "pthread_cond_wait",
            "pthread_cond_timedwait",
            "pthread_cond_clockwait",
        ],
        Wait::Condition,
    ),
    (&["sem_wait", "sem_timedwait"], Wait::Semaphore),
    (&["pthread_once"], Wait::Once),
    (&["pthread_barrier_wait"], Wait::Barrier),
    (
        &[
            "pthread_join",
            "__pthread_clockjoin_ex",
            "pthread_timedjoin_np",
            "pthread_clockjoin_np",
        ],
        Wait::Join,
    ),
    (
        &[
            "nanosleep",
            "clock_nanosleep",
            "__GI___clock_nanosleep",
            "sleep",
            "usleep",
        ],
        Wait::Sleep,
    ),
    (
        &[
            "read",
            "readv",
            "recv",
            "recvfrom",
            "recvmsg",
            "accept",
            "accept4",
            "connect",
            "write",
            "writev",
            "send",
            "sendto",
            "sendmsg",
            "__libc_read",
            "__libc_write",
            "__libc_recv",
            "__libc_send",
            "__libc_accept",
        ],
        Wait::Io,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn path(function: &str) -> (&str, &str) {
        let Path { module, name } = Path::of(function);
        (module, name)
    }

    #[test]
    fn paths_are_those_of_the_source() {
        for (function, module, name) in [
            ("std::sync::mpsc::recv<i32>", "std::sync::mpsc", "recv"),
            (
                "<std::sys::sync::mutex::futex::Mutex>::lock_contended",
                "std::sys::sync::mutex::futex::Mutex",
                "lock_contended",
            ),
            (
                "<tokio::sync::mutex::MutexGuard<T> as core::ops::drop::Drop>::drop",
                "tokio::sync::mutex::MutexGuard",
                "drop",
            ),
            (
                "crossbeam_channel::flavors::list::Channel<T>::recv::{{closure}}",
                "crossbeam_channel::flavors::list::Channel",
                "recv",
            ),
            ("<a::B>::c::<<d::E as f::G>::H, (u8, i::J)>", "a::B", "c"),
            (
                "tokio::sync::mutex::{async_fn#0}<u8>",
                "tokio::sync::mutex",
                "mutex",
            ),
            (
                "tokio::sync::mutex::Mutex<T>::lock::{{closure}}::{{closure}}",
                "tokio::sync::mutex::Mutex",
                "lock",
            ),
            (
                "a::{closure#0}<b::c::{closure_env#1}<fn(u8) -> d::E>>",
                "a",
                "a",
            ),
            ("a::{impl#2}::b<c::D>", "a", "b"),
            (
                "<&mut dyn core::fmt::Write as e::F>::g",
                "core::fmt::Write",
                "g",
            ),
            (
                "<T as core::convert::Into<U>>::into",
                "core::convert::Into",
                "into",
            ),
            ("<a::B<fn(c::D) -> e::F> as g::H>::i", "a::B", "i"),
            (
                "core::ptr::drop_in_place::<[a::B; 3]>",
                "core::ptr",
                "drop_in_place",
            ),
            ("pthread_mutex_lock", "", "pthread_mutex_lock"),
            ("main", "", "main"),
            ("", "", ""),
        ] {
            assert_eq!(path(function), (module, name), "{function}");
        }
    }

    /// As real programs have them, with little debug information and with much.
    #[test]
    fn real_names_have_their_roles() {
        for (function, role) in [
            (
                "std::sys::pal::unix::futex::futex_wait",
                Role::Waits(Wait::Unknown),
            ),
            (
                "std::sys::sync::mutex::futex::unlock",
                Role::Waits(Wait::Mutex),
            ),
            (
                "<std::sys::sync::mutex::futex::Mutex>::lock_contended",
                Role::Waits(Wait::Mutex),
            ),
            (
                "std::sync::poison::mutex::drop<()>",
                Role::Waits(Wait::Mutex),
            ),
            (
                "<std::sys::sync::rwlock::futex::RwLock>::read_contended",
                Role::Waits(Wait::ReadLock),
            ),
            (
                "std::sys::sync::rwlock::futex::write_unlock",
                Role::Waits(Wait::WriteLock),
            ),
            (
                "<std::sys::sync::rwlock::futex::RwLock>::wake_writer_or_readers",
                Role::Library,
            ),
            (
                "std::sync::poison::condvar::wait_while<bool, a::{closure#2}>",
                Role::Waits(Wait::Condition),
            ),
            (
                "<std::sync::barrier::Barrier>::wait",
                Role::Waits(Wait::Barrier),
            ),
            (
                "<std::sys::sync::once::futex::Once>::call",
                Role::Waits(Wait::Once),
            ),
            (
                "std::sync::mpmc::list::Channel<T>::recv::{{closure}}",
                Role::Waits(Wait::Receive),
            ),
            ("std::sync::mpmc::context::wait_until", Role::Library),
            ("std::sync::mpmc::list::write<i32>", Role::Waits(Wait::Send)),
            (
                "<std::thread::thread::Thread>::park",
                Role::Waits(Wait::Park),
            ),
            ("std::thread::thread::unpark", Role::Waits(Wait::Park)),
            ("std::thread::scoped::scope", Role::Waits(Wait::Join)),
            (
                "std::thread::scoped::{closure#0}<a::b::{closure_env#1}, ()>",
                Role::Library,
            ),
            ("std::thread::sleep", Role::Waits(Wait::Sleep)),
            ("picoprof_std::interposed::syscall::futex", Role::Profiler),
            ("picoprof_std::contention::wait<a::B>", Role::Profiler),
            ("picoprof_std::interposed::threads::run", Role::Library),
            (
                "picoprof::profile::task::state::State::keep_waker",
                Role::Waits(Wait::Join),
            ),
            (
                "picoprof_std::tracer::task<a::b::{async_block_env#0}>",
                Role::Library,
            ),
            ("picoprof_example::work", Role::Program),
            (
                "std::sys::backtrace::__rust_begin_short_backtrace",
                Role::Library,
            ),
            (
                "core::ptr::drop_in_place<std::sync::poison::mutex::MutexGuard<()>>",
                Role::Waits(Wait::Mutex),
            ),
            (
                "core::mem::drop<core::option::Option<lock_api::rwlock::RwLockReadGuard<a::B, ()>>>",
                Role::Waits(Wait::ReadLock),
            ),
            (
                "core::ptr::drop_in_place::<std::sys::sync::once::futex::CompletionGuard>",
                Role::Waits(Wait::Once),
            ),
            (
                "core::ptr::drop_in_place<alloc::sync::Arc<std::sync::poison::mutex::Mutex<a::Guard>>>",
                Role::Library,
            ),
            (
                "parking_lot::raw_mutex::RawMutex::lock_slow",
                Role::Waits(Wait::Mutex),
            ),
            (
                "parking_lot::raw_rwlock::RawRwLock::lock_shared_slow",
                Role::Waits(Wait::ReadLock),
            ),
            (
                "parking_lot::raw_rwlock::lock_exclusive",
                Role::Waits(Wait::WriteLock),
            ),
            (
                "parking_lot::raw_rwlock::RawRwLock::wait_for_readers",
                Role::Library,
            ),
            (
                "parking_lot_core::parking_lot::park<a::{closure#1}>",
                Role::Waits(Wait::Park),
            ),
            (
                "crossbeam_channel::select::run_select::{{closure}}",
                Role::Waits(Wait::Receive),
            ),
            (
                "crossbeam_channel::flavors::zero::Channel<T>::send",
                Role::Waits(Wait::Send),
            ),
            ("flume::wait_recv<i32>", Role::Waits(Wait::Receive)),
            ("flume::{closure#1}<i32>", Role::Library),
            (
                "async_channel::recv_blocking<i32>",
                Role::Waits(Wait::Receive),
            ),
            (
                "event_listener::InnerListener<T,B>::wait_with_parker",
                Role::Waits(Wait::Notify),
            ),
            (
                "<tokio::sync::mutex::MutexGuard<T> as core::ops::drop::Drop>::drop",
                Role::Waits(Wait::Mutex),
            ),
            (
                "tokio::sync::mutex::{async_fn#0}<u8>",
                Role::Waits(Wait::Mutex),
            ),
            (
                "tokio::sync::rwlock::RwLock<T>::read::{{closure}}",
                Role::Waits(Wait::ReadLock),
            ),
            (
                "tokio::sync::batch_semaphore::Semaphore::release",
                Role::Waits(Wait::Semaphore),
            ),
            (
                "tokio::sync::mpsc::bounded::Sender<T>::send::{{closure}}",
                Role::Waits(Wait::Send),
            ),
            (
                "tokio::sync::mpsc::bounded::Receiver<T>::recv::{{closure}}",
                Role::Waits(Wait::Receive),
            ),
            ("tokio::time::timeout::Timeout<F>::poll", Role::Library),
            ("pthread_join", Role::Waits(Wait::Join)),
            ("main", Role::Program),
            ("server::work", Role::Program),
            ("stdlike::sys::sync::mutex::futex::unlock", Role::Program),
            (
                "<server::Lock as lock_api::mutex::RawMutex>::lock",
                Role::Program,
            ),
            ("", Role::Program),
        ] {
            assert_eq!(of(function), role, "{function}");
        }
    }

    #[test]
    fn a_program_says_what_its_own_functions_wait_for() {
        let function = "roles_test::pool::Pool<T>::acquire::{{closure}}";
        assert_eq!(of(function), Role::Program);
        add_wait("roles_test::pool::*", Wait::Semaphore);
        assert_eq!(of(function), Role::Waits(Wait::Semaphore));
        assert_eq!(of("roles_test::pools::acquire"), Role::Program);
        add_wait("roles_test::acq*", Wait::Mutex);
        assert_eq!(of(function), Role::Waits(Wait::Mutex));
        assert_eq!(
            of("roles_test::pool::Pool<T>::release"),
            Role::Waits(Wait::Semaphore)
        );
        // What is known already, too.
        let one = "tokio::task::roles_test";
        assert_eq!(of(one), Role::Library);
        add_wait("tokio::task::roles_test", Wait::Io);
        assert_eq!(of(one), Role::Waits(Wait::Io));
    }
}
