//! CPU time and memory, as the kernel accounts for them.

use std::fs;

/// CPU time of the calling thread in milliseconds.
#[must_use]
pub fn thread_cpu_ms() -> f64 {
    clock_ms(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// The least CPU time of so many calls of `f`, in milliseconds.
pub fn best_ms(rounds: usize, mut f: impl FnMut()) -> f64 {
    let times = (0..rounds).map(|_| {
        let begin = thread_cpu_ms();
        f();
        thread_cpu_ms() - begin
    });
    times.fold(f64::INFINITY, f64::min)
}

/// Calls `f` so many times; prints how many nanoseconds of CPU time each took in the best of some rounds.
pub fn measure_ns(times: usize, mut f: impl FnMut()) {
    const ROUNDS: usize = 20;
    let times = times / ROUNDS;
    let ms = best_ms(ROUNDS, || (0..times).for_each(|_| f()));
    crate::print("ns", ms * 1e6 / times as f64);
}

/// CPU time of this process in milliseconds.
#[must_use]
pub fn process_cpu_ms() -> f64 {
    clock_ms(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// How often threads of this process have waited.
#[must_use]
pub fn waits() -> i64 {
    // SAFETY: all zeros is a value of the type.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: the pointer is to a local of the right type.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    usage.ru_nvcsw
}

/// CPU time of a thread of this process in milliseconds.
#[must_use]
pub fn cpu_ms_of(thread: i32) -> f64 {
    // The clock id of Linux's include/linux/posix-timers.h: CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED.
    clock_ms((!thread) << 3 | 6)
}

fn clock_ms(clock: libc::clockid_t) -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a local of the right type.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// The thread of this process with that name.
#[must_use]
pub fn thread_named(name: &str) -> Option<i32> {
    let mut tasks = fs::read_dir("/proc/self/task").ok()?;
    tasks.find_map(|task| {
        let task = task.ok()?;
        let found = fs::read_to_string(task.path().join("comm")).ok()?;
        (found.trim_end() == name).then(|| task.file_name().to_str()?.parse().ok())?
    })
}

/// A field of `/proc/self/status` in MB (of 10^6 bytes), such as `VmRSS`.
///
/// The kernel keeps a part of these counts for each thread and adds them up late, so `VmRSS` itself may be off by some
/// hundred KB; `resident` is exact.
#[must_use]
pub fn status_mb(field: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) * 1024.0 / 1e6
}

/// Memory of this process that is resident, by a walk through its page tables: all of it, and what no file backs.
#[must_use]
pub fn resident_mb() -> (f64, f64) {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let field = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or(f64::NAN) * 1024.0 / 1e6
    };
    (field("Rss:"), field("Anonymous:"))
}

/// Lets `VmHWM`, the peak of the resident memory, begin anew at what is resident now (proc(5), `clear_refs`).
pub fn reset_peak() {
    // Where this is not allowed, the peak includes what was before: too much, never too little.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Uses so much CPU time of this thread; answers how much it really was, in milliseconds.
pub fn spin(ms: f64) -> f64 {
    let begin = thread_cpu_ms();
    let mut number = 1u64;
    loop {
        for _ in 0..100_000 {
            number = core::hint::black_box(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 1);
        }
        let used = thread_cpu_ms() - begin;
        if used >= ms {
            return used;
        }
    }
}
