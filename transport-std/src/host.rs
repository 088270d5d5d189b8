//! A program with an operating system, as the endpoints see it.

#![forbid(unsafe_code)]

use core::fmt;
use core::net::IpAddr;
use std::panic::catch_unwind;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use std::{env, fs};

use picoprof::encode::Body;
use picoprof::profile::{Kind, Profiles, Role};
use picoprof::trace::TraceHost;
use picoprof::{LocationId, StartError, Target, Thread};

use crate::gzip::Gzip;
use crate::symbols::{Code, Symbolizer};
use crate::{contention, cpu, interposed, recording, roles, tables, threads, unwind};

/// The names that were looked up so far; of the whole process, as they are the same for every server.
static SYMBOLIZER: Mutex<Option<Symbolizer>> = Mutex::new(None);

/// What one server shows of this process, and to whom.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) options: Options,
    command_line: Vec<u8>,
}

/// What a server's owner can choose.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Whether only known names are served; a Unix socket needs no such check.
    pub(crate) checks_host: bool,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) shows_arguments: bool,
    pub(crate) collect: fn(),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            checks_host: true,
            allowed_hosts: Vec::new(),
            shows_arguments: true,
            collect: release_free_memory,
        }
    }
}

impl Host {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            command_line: command_line(options.shows_arguments),
            options,
        }
    }
}

impl Target for Host {
    type Scratch = Vec<u64>;
    type Symbols = Code;
    type Encoded<B: Body> = Gzip<B>;
    type Threads = Vec<Thread>;

    fn profiles(&self) -> Profiles<'_> {
        tables::all()
    }

    fn scratch(&self, words: usize) -> Option<Vec<u64>> {
        // Zeroed memory from the kernel, of which only the touched pages count.
        Some(vec![0; words])
    }

    fn symbols(&self, locations: &mut dyn Iterator<Item = (LocationId, usize)>) -> Code {
        let locations = locations.map(|(location, pc)| (location.index(), pc));
        symbolizer().get_or_insert_default().resolve(locations)
    }

    fn encode<B: Body>(&self, profile: B) -> Gzip<B> {
        Gzip::new(profile)
    }

    fn prepare_function_names(&self, pcs: &[usize]) {
        symbolizer()
            .get_or_insert_default()
            .prepare(pcs.iter().copied());
    }

    fn function_name(&self, pc: usize, name: &mut dyn fmt::Write) -> Result<bool, fmt::Error> {
        match symbolizer().get_or_insert_default().name(pc) {
            Some(mangled) => name.write_str(&mangled).map(|()| true),
            None => Ok(false),
        }
    }

    fn unix_nanos(&self) -> u64 {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since_1970.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(0))
    }

    fn date(&self) -> Option<[u8; 29]> {
        let date = httpdate::fmt_http_date(SystemTime::now());
        date.into_bytes().try_into().ok()
    }

    fn command_line(&self) -> &[u8] {
        &self.command_line
    }

    fn threads(&self) -> Vec<Thread> {
        threads::take()
    }

    fn thread_count(&self) -> usize {
        threads::count()
    }

    fn role_of(&self, function: &str) -> Role {
        roles::of(function)
    }

    fn trace(&self) -> Option<&dyn TraceHost> {
        Some(&recording::ThisProcess)
    }

    fn start_cpu(&self, hz: u32) -> Result<u64, StartError> {
        cpu::start(hz)
    }

    fn stop_cpu(&self) {
        cpu::stop();
    }

    fn collect(&self) {
        // What a panic in there says was printed; the server goes on.
        let _ = catch_unwind(self.options.collect);
    }

    fn is_host_allowed(&self, host: &[u8]) -> bool {
        let Ok(host) = core::str::from_utf8(host) else {
            return false;
        };
        !self.options.checks_host || self.is_known_name(without_port(host))
    }

    fn note(&self, kind: Kind) -> &'static str {
        match kind {
            Kind::ThreadCreate if !interposed::is_used() => {
                "empty, as the program does not see its threads' creation: write picoprof_std::interpose!(); in main.rs"
            }
            Kind::Block | Kind::Mutex if !interposed::is_used() => {
                "empty, as the program does not see its threads' waiting: write picoprof_std::interpose!(); in main.rs"
            }
            Kind::Heap | Kind::Allocs if tables::heap().rows().is_empty() => {
                "empty: nothing was sampled yet, or the program's #[global_allocator] is not a picoprof_std::Allocator"
            }
            _ => "",
        }
    }

    fn drop_frames(&self, kind: Kind) -> &'static str {
        match kind {
            // The shims between an allocation and this crate, and how a container asks for memory: the leaf is the
            // container, as Go's heap profiles end before the runtime. pprof drops what these call with them.
            Kind::Heap | Kind::Allocs => {
                concat!(
                    r".*picoprof_std::allocator::.*|.*picoprof::profile::heap::allocator::.*|",
                    r".*__rust_alloc|.*__rust_alloc_zeroed|.*__rust_realloc|",
                    r".*__rg_alloc|.*__rg_alloc_zeroed|.*__rg_realloc|",
                    r"<?alloc::(alloc|raw_vec)::.*",
                )
            }
            // How locks and channels wait and wake: the leaf is the lock or the channel, as in Go it is sync.(*Mutex).Lock.
            // None of these calls a program's function, but for what a waker does.
            Kind::Block | Kind::Mutex | Kind::Goroutine | Kind::GoroutineLeak => {
                concat!(
                    r"picoprof_std::(interposed::syscall|contention)::.*|picoprof::profile::task::.*::pend|",
                    r"<?std::sys::pal::unix::futex::.*|<?std::sys::sync::(mutex|rwlock|condvar|thread_parking)::.*|",
                    r"<?core::task::wake::.*(clone|wake|wake_by_ref)|",
                    r"<?tokio::sync::(batch_semaphore|task::atomic_waker)::.*|<?tokio::util::wake_list::.*",
                )
            }
            _ => "",
        }
    }

    fn describe(&self, page: &mut dyn fmt::Write) -> fmt::Result {
        let unwind = unwind::summary();
        if unwind.modules == 0 {
            writeln!(
                page,
                "<li>Unwinder: no tables; stacks have their first frame only.</li>"
            )?;
        } else {
            writeln!(
                page,
                "<li>Unwinder: tables of {} objects ({} KiB), and frame pointers in the {} % of the code that has them.</li>",
                unwind.modules,
                unwind.table_bytes / 1024,
                unwind.frame_pointer_share,
            )?;
        }
        let (signals, threads) = cpu::lost();
        let heap = tables::heap();
        writeln!(
            page,
            "<li>CPU: {} samples without a table row, {signals} signals, {threads} threads lost; {} stacks unreadable.</li>",
            tables::all().lost(Kind::Cpu),
            cpu::stacks_unknown(),
        )?;
        writeln!(
            page,
            "<li>Heap: one sample in {} bytes; {} samples without a table row; {} not watched until freed.</li>",
            heap.rate(),
            tables::all().lost(Kind::Heap),
            heap.untracked(),
        )?;
        writeln!(
            page,
            "<li>Goroutine: {} times a thread did not tell its stack in time.</li>",
            threads::silent(),
        )?;
        contention::describe(page)
    }
}

impl Host {
    /// A DNS name that an attacker controls can be made to point here; a literal address or `localhost` can't.
    fn is_known_name(&self, name: &str) -> bool {
        let literal = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        literal.unwrap_or(name).parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self
                .options
                .allowed_hosts
                .iter()
                .any(|allowed| name.eq_ignore_ascii_case(allowed))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

fn symbolizer() -> MutexGuard<'static, Option<Symbolizer>> {
    // A panic may have left it half done, so it is begun anew.
    SYMBOLIZER.lock().unwrap_or_else(|poisoned| {
        let mut guard = PoisonError::into_inner(poisoned);
        *guard = None;
        guard
    })
}

/// As in Go: arguments with NUL between them, and none at the end.
fn command_line(shows_arguments: bool) -> Vec<u8> {
    let mut bytes = fs::read("/proc/self/cmdline").unwrap_or_else(|_| {
        let arguments: Vec<_> = env::args_os().map(|a| a.into_encoded_bytes()).collect();
        arguments.join(&0)
    });
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    if !shows_arguments {
        let program = bytes.split(|&b| b == 0).next().unwrap_or_default().len();
        bytes.truncate(program);
    }
    bytes
}

/// What `gc=1` does where nobody chose: the allocator of glibc gives free memory back to the system.
fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    crate::sys::malloc_trim();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(allowed: &[&str]) -> Host {
        Host::new(Options {
            allowed_hosts: allowed.iter().map(|&name| name.into()).collect(),
            ..Options::default()
        })
    }

    #[test]
    fn names_that_cannot_be_rebound_are_served() {
        let host = host(&["profiles.example"]);
        for good in [
            "localhost",
            "localhost:9990",
            "LOCALHOST",
            "127.0.0.1",
            "127.0.0.1:9990",
            "[::1]",
            "[::1]:9990",
            "10.1.2.3:80",
            "profiles.example:1",
            "Profiles.Example",
        ] {
            assert!(host.is_host_allowed(good.as_bytes()), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9990",
            "",
            ":80",
            "[localhost]",
            "a b",
            "profiles.example.evil",
            "\u{fe}",
        ] {
            assert!(!host.is_host_allowed(bad.as_bytes()), "{bad}");
        }
        assert!(!host.is_host_allowed(b"\xff\xfe"));
    }

    #[test]
    fn the_command_line_can_be_cut_to_the_program() {
        let whole = command_line(true);
        let program = command_line(false);
        assert!(whole.starts_with(&program));
        assert!(!program.is_empty() && !program.contains(&0));
        assert_ne!(whole.last(), Some(&0));
    }
}
