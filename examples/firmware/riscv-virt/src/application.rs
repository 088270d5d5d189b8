//! What the machine is for: it works on what clients of port 7 send, and on what it measures itself.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use core::cell::RefCell;
use core::fmt::{self, Write};
use core::time::Duration;

use firmware_common::compress::BLOCK;
use firmware_common::mailbox::Mailbox;
use firmware_common::protocol::{Command, Protocol};
use firmware_common::readings::measure;
use firmware_common::work::Worker;
use picoprof::trace;

use crate::executor::sleep_until;
use crate::{compressor, corrupt, ledger, network, profiler, self_check, traffic};

/// The most bytes of a `put`.
const MAX_PUT: usize = 64 * 1024;

/// How often the machine measures something by itself.
const MEASURE_EVERY: Duration = Duration::from_millis(50);

/// How often it looks whether all is well.
const AUDIT_EVERY: Duration = Duration::from_millis(10);

/// What a client of port 7 says, and what is answered: shared by the network's task and the one that does the work.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) protocol: Rc<RefCell<Protocol<'static>>>,
    pub(crate) commands: Rc<Mailbox<Command<'static>>>,
}

impl Client {
    /// Nobody yet.
    pub(crate) fn new() -> Self {
        let body = Box::leak(vec![0; MAX_PUT].into_boxed_slice());
        Self {
            protocol: Rc::new(RefCell::new(Protocol::new(body))),
            commands: Rc::new(Mailbox::new()),
        }
    }

    /// The task: does what this client asks for, for ever.
    pub(crate) async fn serve(self) {
        let mut worker = Worker::new();
        loop {
            self.answer(&mut worker).await;
            network::ATTENTION.put(());
        }
    }

    /// Answers one question.
    async fn answer(&self, worker: &mut Worker) {
        match self.commands.receive().await {
            Command::Work(rounds) => {
                archive(rounds).await;
                let hash = worker.work(rounds).await;
                self.say(|answer| write!(answer, "work {hash:08x}"));
            }
            Command::Put(body) => {
                let bytes = body.bytes();
                let put = trace::task("put");
                put.log("application", format_args!("{} bytes", bytes.len()));
                let region = put.begin_region("work");
                let (len, result) = (bytes.len(), worker.put(bytes).await);
                drop(region);
                let region = put.begin_region("compress");
                let compressed = compress(bytes).await;
                drop(region);
                debug_assert_eq!(compressed, result.compressed);
                let hash = result.hash;
                self.protocol.borrow_mut().give_back(body);
                self.say(|answer| write!(answer, "put {len} {hash:08x} {compressed}"));
            }
            Command::Stats => self.say(stats),
            Command::Corrupt => {
                corrupt::run();
                self.say(|answer| answer.write_str("corrupt ok"));
            }
            Command::Grow(_) => self.say(|answer| answer.write_str("error no benchmark")),
            Command::Exit => riscv_machine::exit(0),
        }
    }

    fn say(&self, write: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        self.protocol.borrow_mut().answer(write);
    }
}

/// The task: measures, compresses what was measured, and keeps it, for ever.
pub(crate) async fn measure_always() {
    let mut time = profiler::now();
    loop {
        time = time + MEASURE_EVERY;
        sleep_until(time).await;
        archive(1).await;
    }
}

/// The task: checks what is kept, for ever.
pub(crate) async fn audit_always() {
    for round in 0_u32.. {
        sleep_until(profiler::now() + AUDIT_EVERY).await;
        assert!(ledger::audit_ledger(), "the ledger is damaged");
        if round.is_multiple_of(10) {
            traffic::hold_interrupts_masked();
        }
    }
}

/// Measures some blocks, and has them compressed and kept.
async fn archive(blocks: u32) {
    for block in 0..blocks {
        let mut text = String::new();
        measure(block.wrapping_mul(64), 64, &mut text);
        text.truncate(BLOCK);
        compressor::compress(text.into_bytes().into_boxed_slice()).await;
    }
}

/// Compresses what somebody sent, and keeps it; answers how long it is then.
async fn compress(bytes: &[u8]) -> usize {
    let mut sum = 0;
    for block in bytes.chunks(BLOCK) {
        sum += compressor::compress(block.into()).await;
    }
    sum
}

/// What the program counted itself.
fn stats(answer: &mut dyn Write) -> fmt::Result {
    let (masked, masked_nanos) = traffic::masked();
    let (blocked, blocked_nanos) = ledger::waits();
    let (stored, freed, live) = ledger::blocks();
    let counted = profiler::counted();
    write!(
        answer,
        "stats ticks={} samples={} idle={} tasks={} lost={} masked={masked} masked_us={} blocked={blocked} \
        blocked_us={} allocs={stored} frees={freed} live={live} checks={}",
        counted.ticks,
        counted.samples,
        counted.idle,
        counted.tasks,
        counted.lost,
        masked_nanos / 1000,
        blocked_nanos / 1000,
        self_check::runs(),
    )
}
