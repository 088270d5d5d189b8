//! Ten thousand stacks of 30 frames through the encoder of the core, without symbols, in pieces of 4 KiB.

use core::hint::black_box;

use bench::{meter, print};
use picoprof::encode::Body;
use picoprof::encode::profile::ProfileEncoder;
use picoprof::encode::source::Source;
use picoprof::profile::buckets::Buckets;
use picoprof::profile::{Kind, Profiles};
use picoprof::stack::StackTable;
use picoprof::{LocationId, NoSymbols, StartError, Target, Thread};

const STACKS: usize = 10_000;
const FRAMES: usize = 30;

static TABLE: StackTable<{ 1 << 15 }, { 1 << 19 }> = StackTable::new();
static CPU: Buckets<{ 1 << 15 }, 1> = Buckets::new();

struct Bare;

impl Target for Bare {
    type Scratch = Vec<u64>;
    type Symbols = NoSymbols;
    type Encoded<B: Body> = B;
    type Threads = [Thread; 0];

    fn profiles(&self) -> Profiles<'_> {
        Profiles {
            cpu: Some(CPU.view()),
            ..Profiles::of(TABLE.view())
        }
    }

    fn scratch(&self, words: usize) -> Option<Vec<u64>> {
        Some(vec![0; words])
    }

    fn symbols(&self, _: &mut dyn Iterator<Item = (LocationId, usize)>) -> NoSymbols {
        NoSymbols {
            file: "[bench]",
            build_id: "",
        }
    }

    fn encode<B: Body>(&self, profile: B) -> B {
        profile
    }

    fn threads(&self) -> [Thread; 0] {
        []
    }

    fn start_cpu(&self, _: u32) -> Result<u64, StartError> {
        Err(StartError::Unavailable)
    }

    fn stop_cpu(&self) {}
}

/// Milliseconds and bytes.
pub(crate) fn measure() {
    fill();
    let mut out = [0; 4096];
    let mut best = f64::INFINITY;
    let mut total = 0;
    for _ in 0..20 {
        let begin = meter::thread_cpu_ms();
        let source = Source::new(&Bare, Kind::Cpu, 10_000_000).expect("it is kept");
        let mut encoder = ProfileEncoder::new(source);
        total = 0;
        loop {
            match encoder.fill(&mut out) {
                0 => break,
                len => total += black_box(&out[..len]).len(),
            }
        }
        best = best.min(meter::thread_cpu_ms() - begin);
    }
    print("addresses_ms", best);
    print("addresses_bytes", total as f64);
    print("buffer_bytes", size_of_val(&out) as f64);
}

/// Stacks in the form of `bench::stacks`: four decimal digits choose the way.
fn fill() {
    let mut pcs = [0; FRAMES];
    for stack in 0..STACKS {
        for (level, pc) in pcs.iter_mut().rev().enumerate() {
            let chosen = match level {
                0..8 => 0,
                8..14 => stack / 1000,
                14..20 => stack / 100,
                20..29 => stack / 10,
                _ => stack,
            };
            *pc = 0x5555_5555_0000 + (level * 20 + chosen % 20) * 64 + stack / 1000 % 3 * 8;
        }
        let id = TABLE.view().intern(&pcs, None);
        CPU.view().add(id, 0, &[1]);
    }
    assert_eq!(CPU.view().len(), STACKS);
}
