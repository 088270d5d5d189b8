// A profiler with the interface of pprof-rs; included by the programs that call theirs `pprof`.

use bench::{meter, print, signal, stacks, unknown_mode};
use core::sync::atomic::{AtomicBool, Ordering};
use pprof::protos::Message;

/// Whether the timer is real.
static HAS_TIMER: AtomicBool = AtomicBool::new(false);

/// In front of libc's: the counts are of the signals that we send, so the profiler's own timer does not run.
#[unsafe(no_mangle)]
extern "C" fn setitimer(which: i32, new: *const libc::itimerval, old: *mut libc::itimerval) -> i32 {
    if HAS_TIMER.load(Ordering::Relaxed) {
        // SAFETY: the caller's arguments, to what libc's function of this name does.
        return unsafe { libc::syscall(libc::SYS_setitimer, which, new, old) } as i32;
    }
    0
}

fn guard(hz: i32) -> pprof::ProfilerGuard<'static> {
    pprof::ProfilerGuardBuilder::default()
        .frequency(hz)
        .build()
        .expect("the first one")
}

fn cpu(mode: &str, n: usize) {
    match mode {
        "sample" => {
            let guard = guard(1);
            signal::below(signal::DEPTH, &mut || (0..n).for_each(|_| signal::raise()));
            core::mem::forget(guard);
        }
        "sample-check" => {
            let guard = guard(1);
            signal::below(signal::DEPTH, &mut || {
                (0..core::hint::black_box(100)).for_each(|_| signal::raise())
            });
            let report = guard.report().build_unresolved().expect("a report");
            let (frames, samples) = report.data.iter().next().expect("a sample");
            print("stacks", report.data.len() as f64);
            print("samples", *samples as f64);
            print("frames", frames.frames.len() as f64);
        }
        "stacks" => {
            let guard = guard(1);
            (0..n).for_each(|_| stacks::each(&mut signal::raise));
            core::mem::forget(guard);
        }
        "endpoint" => endpoint(),
        "memory" => {
            let before = meter::resident_mb();
            let _guard = guard(100);
            let after = meter::resident_mb();
            print("started_mb", after.0 - before.0);
            print("started_anonymous_mb", after.1 - before.1);
        }
        "rate" => {
            HAS_TIMER.store(true, Ordering::Relaxed);
            let guard = guard(n as i32);
            let real = meter::spin(2000.0);
            let report = guard.report().build().expect("a report");
            let samples: isize = report.data.values().sum();
            print("ratio", samples as f64 / n as f64 / (real / 1e3));
        }
        _ => unknown_mode(),
    }
}

/// Ten thousand stacks to profile.proto, with symbols.
fn endpoint() {
    let guard = guard(1);
    stacks::each(&mut signal::raise);
    meter::reset_peak();
    let (resident, _) = meter::resident_mb();
    let begin = meter::thread_cpu_ms();
    let encode = || {
        let report = guard.report().build().expect("a report");
        report.pprof().expect("a profile").encode_to_vec()
    };
    let raw = encode();
    print("cold_ms", meter::thread_cpu_ms() - begin);
    print("peak_mb", meter::status_mb("VmHWM") - resident);
    print("raw_bytes", raw.len() as f64);
    let begin = meter::thread_cpu_ms();
    encode();
    print("warm_ms", meter::thread_cpu_ms() - begin);
}
