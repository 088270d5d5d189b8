//! With what samples, counts and encodes.

#![no_std]
#![no_main]

use bench_firmware::sampled::{self, CPU, SAMPLER, SCRATCH, STACKS};
use bench_firmware::uart::{put, take};
use cortex_m_rt::entry;
use picoprof::encode::Body;
use picoprof::encode::profile::ProfileEncoder;
use picoprof::encode::source::Source;
use picoprof::profile::{Kind, Profiles};
use picoprof::scratch::Lent;
use picoprof::{BuildId, LocationId, NoSymbols, StartError, Target, Thread};

picoprof::cortex_m_tick!(SysTick => sampled::on_tick);

#[derive(Debug)]
struct Firmware;

impl Target for Firmware {
    type Scratch = Lent<'static>;
    type Symbols = NoSymbols;
    type Encoded<B: Body> = B;
    type Threads = [Thread; 0];

    fn profiles(&self) -> Profiles<'_> {
        Profiles {
            cpu: Some(CPU.view()),
            ..Profiles::of(STACKS.view())
        }
    }

    fn scratch(&self, words: usize) -> Option<Lent<'static>> {
        SCRATCH.lend(words)
    }

    fn symbols(&self, _: &mut dyn Iterator<Item = (LocationId, usize)>) -> NoSymbols {
        NoSymbols {
            file: "[firmware]",
            build_id: BuildId::NONE,
        }
    }

    fn encode<B: Body>(&self, profile: B) -> B {
        profile
    }

    fn threads(&self) -> [Thread; 0] {
        []
    }

    fn start_cpu(&self, _hz: u32) -> Result<u64, StartError> {
        if SAMPLER.start() {
            Ok(1_000_000)
        } else {
            Err(StartError::AlreadyRunning)
        }
    }

    fn stop_cpu(&self) {
        SAMPLER.stop();
    }
}

/// Samples until there's a line, and sends the profile.
#[entry]
fn main() -> ! {
    sampled::start_timer();
    loop {
        let Ok(period) = Firmware.start_cpu(0) else {
            continue;
        };
        while take() != b'\n' {}
        Firmware.stop_cpu();
        let Some(source) = Source::new(&Firmware, Kind::Cpu, period) else {
            continue;
        };
        let mut profile = ProfileEncoder::new(source);
        let mut buffer = [0; 64];
        loop {
            let n = profile.fill(&mut buffer);
            if n == 0 {
                break;
            }
            buffer.iter().take(n).for_each(|&byte| put(byte));
        }
    }
}
