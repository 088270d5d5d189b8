//! Uses CPU time and says how much, for the test `cpu_time`.
//!
//! * `burn THREADS MILLIS`: so many threads, which were there before, compute for so long.
//! * `brief THREADS MICROS`: so many threads, two at a time, each made for so much CPU time.

use core::hint::black_box;
use core::time::Duration;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Instant;

use picoprof_std::{Server, interpose};
use picoprof_tests::subject::obey;

interpose!();

fn main() -> io::Result<()> {
    let pprof = Server::bind(0)?.allow_host("test").spawn()?;
    let address = pprof.local_addr().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let (done, used) = mpsc::channel();
    let workers: Vec<Sender<Duration>> = (0..8).map(|_| worker(done.clone())).collect();
    obey(address, |line| {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        let nanos: u64 = match words[0] {
            "burn" => {
                let asked = &workers[..number(1) as usize];
                for worker in asked {
                    let time = Duration::from_millis(number(2));
                    worker.send(time).expect("it waits for more");
                }
                used.iter().take(asked.len()).sum()
            }
            "brief" => {
                let each = number(1) / 2;
                let two = [(); 2].map(|()| {
                    let time = Duration::from_micros(number(2));
                    thread::spawn(move || (0..each).map(|_| brief(time)).sum::<u64>())
                });
                let joined = two.map(|thread| thread.join().expect("it does not panic"));
                joined.iter().sum()
            }
            other => panic!("{other}"),
        };
        nanos.to_string()
    })
}

fn worker(done: Sender<u64>) -> Sender<Duration> {
    let (sender, asked): (_, Receiver<Duration>) = mpsc::channel();
    thread::spawn(move || {
        for time in asked {
            let end = Instant::now() + time;
            done.send(burn(|_| Instant::now() < end))
                .expect("the program waits for it");
        }
    });
    sender
}

fn brief(time: Duration) -> u64 {
    let thread = thread::spawn(move || burn(|used| used < time));
    thread.join().expect("it does not panic")
}

/// Computes while `goes_on`, which is told the CPU time so far; answers the nanoseconds of CPU time that it took.
#[inline(never)]
fn burn(goes_on: impl Fn(Duration) -> bool) -> u64 {
    let begun = cpu_time();
    let mut value = 1_u64;
    while goes_on(cpu_time() - begun) {
        for _ in 0..2_000 {
            value = black_box(value.wrapping_mul(6_364_136_223_846_793_005) + 1);
        }
    }
    black_box(value);
    (cpu_time() - begun).as_nanos() as u64
}

/// The CPU time of the calling thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a local.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
