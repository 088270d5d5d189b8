//! The protocol of port 7, without sockets and without the work: lines in, lines out.
//!
//! | asked | answered |
//! |---|---|
//! | `work ROUNDS` | `work HASH` |
//! | `put LEN`, and LEN bytes | `put LEN HASH COMPRESSED_LEN` |
//! | `stats` | `stats NAME=NUMBER …` |
//! | `corrupt` | `corrupt ok` |
//! | `grow COUNT` | `grow COUNT`, where there's a benchmark |
//! | `exit` | nothing: the machine ends |
//!
//! One answer for each question, in order; what can't be understood is answered `error …`. [`serve`] answers.

#![forbid(unsafe_code)]

use core::cell::RefCell;
use core::fmt::{self, Write};

use heapless::{String, Vec};

use crate::mailbox::Mailbox;
use crate::work::Worker;

/// The longest question.
const LINE: usize = 32;

/// The longest answer.
const ANSWER: usize = 256;

/// What is asked for.
#[derive(Debug)]
pub enum Command<'b> {
    /// So many rounds of work.
    Work(u32),
    /// Work on these bytes.
    Put(Body<'b>),
    /// What the program has counted.
    Stats,
    /// A stack that is broken, for a while.
    Corrupt,
    /// So many samples for the benchmark.
    Grow(u32),
    /// The end.
    Exit,
}

/// What a client sent, in the memory that [`Protocol::new`] was given.
#[derive(Debug)]
pub struct Body<'b> {
    memory: &'b mut [u8],
    len: usize,
}

impl Body<'_> {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

/// What the program does itself.
pub trait Board {
    /// Writes what it has counted: ` name=number`, as often as it likes.
    ///
    /// # Errors
    ///
    /// Those of `answer`.
    fn stats(&self, worker: &Worker, answer: &mut dyn Write) -> fmt::Result;

    /// Breaks its own stack for some 300 ms, and mends it.
    fn corrupt(&self);

    /// Makes so many different samples, for who measures how fast they are sent; false if it doesn't.
    fn grow(&self, count: u32) -> bool {
        let _ = count;
        false
    }

    /// Ends the machine.
    fn exit(&self) -> !;
}

/// Does what is asked for, for ever: the body of a task.
pub async fn serve<'b, B: Board>(
    protocol: &RefCell<Protocol<'b>>,
    commands: &Mailbox<Command<'b>>,
    worker: &mut Worker,
    board: &B,
) {
    loop {
        match commands.receive().await {
            Command::Work(rounds) => {
                let hash = worker.work(rounds).await;
                protocol
                    .borrow_mut()
                    .answer(|answer| write!(answer, "work {hash:08x}"));
            }
            Command::Put(body) => {
                let (len, result) = (body.len, worker.put(body.bytes()).await);
                let (hash, compressed) = (result.hash, result.compressed);
                let mut protocol = protocol.borrow_mut();
                protocol.give_back(body);
                protocol.answer(|answer| write!(answer, "put {len} {hash:08x} {compressed}"));
            }
            Command::Stats => protocol.borrow_mut().answer(|answer| {
                answer.write_str("stats")?;
                board.stats(worker, answer)
            }),
            Command::Corrupt => {
                board.corrupt();
                protocol
                    .borrow_mut()
                    .answer(|answer| answer.write_str("corrupt ok"));
            }
            Command::Grow(count) => {
                let is_done = board.grow(count);
                protocol.borrow_mut().answer(|answer| {
                    if is_done {
                        write!(answer, "grow {count}")
                    } else {
                        answer.write_str("error no benchmark")
                    }
                });
            }
            Command::Exit => board.exit(),
        }
    }
}

/// What has come from one client, and what goes back to it.
#[derive(Debug)]
pub struct Protocol<'b> {
    state: State<'b>,
    line: Vec<u8, LINE>,
    /// Empty while a command has it.
    body: &'b mut [u8],
    answer: String<ANSWER>,
    sent: usize,
    /// Whether who asked has gone, and somebody else is to get the next answer.
    is_abandoned: bool,
}

#[derive(Debug)]
enum State<'b> {
    /// A line is coming.
    Line,
    /// So many bytes are still to come.
    Body { len: usize, missing: usize },
    /// The rest of what is too long is thrown away.
    Skipping { missing: usize },
    /// The rest of a line that is too long is thrown away.
    SkippingLine,
    /// It has come.
    Asked(Command<'b>),
    /// It is being done.
    Busy,
    /// The answer is on its way.
    Answering,
}

impl<'b> Protocol<'b> {
    /// For a `put` of up to as many bytes as `body` has.
    #[must_use]
    pub const fn new(body: &'b mut [u8]) -> Self {
        Self {
            state: State::Line,
            line: Vec::new(),
            body,
            answer: String::new(),
            sent: 0,
            is_abandoned: false,
        }
    }

    /// Takes what it can of what was received, and answers how much that is. It takes nothing while a question is
    /// not answered.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            let n = self.take(rest);
            if n == 0 {
                break;
            }
            rest = &rest[n..];
        }
        bytes.len() - rest.len()
    }

    /// What is asked for; each question once.
    pub fn command(&mut self) -> Option<Command<'b>> {
        if !matches!(self.state, State::Asked(_)) {
            return None;
        }
        match core::mem::replace(&mut self.state, State::Busy) {
            State::Asked(command) => Some(command),
            _ => None,
        }
    }

    /// Answers the question. What there's no room for is cut off.
    pub fn answer(&mut self, write: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        self.answer.clear();
        self.sent = 0;
        if core::mem::take(&mut self.is_abandoned) {
            self.state = State::Line;
            return;
        }
        // An answer that is cut off says so by having no end.
        if write(&mut self.answer).is_ok() {
            let _ = self.answer.push('\n');
        }
        self.state = State::Answering;
    }

    /// Gives back the memory of a [`Command::Put`].
    pub fn give_back(&mut self, body: Body<'b>) {
        self.body = body.memory;
    }

    /// Writes what is to be sent to the front of `out`, and answers how much that is.
    pub fn transmit(&mut self, out: &mut [u8]) -> usize {
        let rest = &self.answer.as_bytes()[self.sent..];
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        self.sent += n;
        if self.sent == self.answer.len() && matches!(self.state, State::Answering) {
            self.state = State::Line;
        }
        n
    }

    /// Whether it has nothing to do and nothing to say.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        !matches!(self.state, State::Asked(_) | State::Busy | State::Answering)
    }

    /// The client has gone, and another may come. What is being done for it goes on, and nobody gets the answer.
    pub fn reset(&mut self) {
        self.line.clear();
        self.answer.clear();
        self.sent = 0;
        match core::mem::replace(&mut self.state, State::Line) {
            State::Asked(Command::Put(body)) => self.give_back(body),
            State::Busy => {
                self.is_abandoned = true;
                self.state = State::Busy;
            }
            _ => {}
        }
    }

    /// One step; answers how many bytes it took.
    fn take(&mut self, bytes: &[u8]) -> usize {
        match &mut self.state {
            State::Line => self.take_line(bytes),
            State::Body { len, missing } => {
                let (len, n) = (*len, bytes.len().min(*missing));
                let begin = len - *missing;
                self.body[begin..begin + n].copy_from_slice(&bytes[..n]);
                *missing -= n;
                if *missing == 0 {
                    self.ask_put(len);
                }
                n
            }
            State::Skipping { missing } => {
                let n = bytes.len().min(*missing);
                *missing -= n;
                if *missing == 0 {
                    self.refuse("too large");
                }
                n
            }
            State::SkippingLine => match bytes.iter().position(|&byte| byte == b'\n') {
                None => bytes.len(),
                Some(end) => {
                    self.refuse("line too long");
                    end + 1
                }
            },
            State::Asked(_) | State::Busy | State::Answering => 0,
        }
    }

    fn take_line(&mut self, bytes: &[u8]) -> usize {
        let (part, end) = match bytes.iter().position(|&byte| byte == b'\n') {
            None => (bytes, None),
            Some(end) => (&bytes[..end], Some(end + 1)),
        };
        if self.line.extend_from_slice(part).is_err() {
            self.line.clear();
            self.state = State::SkippingLine;
            return part.len();
        }
        if end.is_some() {
            self.understand();
            self.line.clear();
        }
        end.unwrap_or(bytes.len())
    }

    fn understand(&mut self) {
        let line = core::str::from_utf8(&self.line)
            .unwrap_or_default()
            .trim_end();
        let (name, number) = match line.split_once(' ') {
            None => (line, None),
            Some((name, number)) => match number.parse() {
                Ok(number) => (name, Some(number)),
                Err(_) => return self.refuse("not a number"),
            },
        };
        let command = match (name, number) {
            ("work", Some(rounds)) => Command::Work(rounds),
            ("put", Some(len)) => return self.expect(len as usize),
            ("grow", Some(count)) => Command::Grow(count),
            ("stats", None) => Command::Stats,
            ("corrupt", None) => Command::Corrupt,
            ("exit", None) => Command::Exit,
            _ => return self.refuse("not understood"),
        };
        self.state = State::Asked(command);
    }

    fn expect(&mut self, len: usize) {
        if len == 0 {
            self.ask_put(0);
        } else if len > self.body.len() {
            self.state = State::Skipping { missing: len };
        } else {
            self.state = State::Body { len, missing: len };
        }
    }

    fn ask_put(&mut self, len: usize) {
        let memory = core::mem::take(&mut self.body);
        self.state = State::Asked(Command::Put(Body { memory, len }));
    }

    fn refuse(&mut self, why: &str) {
        self.answer(|answer| write!(answer, "error {why}"));
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::future::Future;
    use core::pin::pin;
    use core::task::{Context, Waker};
    use std::format;
    use std::string::String as StdString;

    use proptest::prelude::*;

    use super::*;

    struct Host;

    impl Board for Host {
        fn stats(&self, worker: &Worker, answer: &mut dyn Write) -> fmt::Result {
            write!(answer, " readings={}", worker.readings())
        }

        fn corrupt(&self) {}

        fn exit(&self) -> ! {
            panic!("exit")
        }
    }

    /// What is answered to `asked`, which comes in parts of `size` bytes and is answered in parts of that size.
    fn answers(asked: &[u8], size: usize) -> StdString {
        let mut memory = [0; 100];
        let protocol = RefCell::new(Protocol::new(&mut memory));
        let commands = Mailbox::new();
        let mut worker = Worker::new();
        let mut serve = pin!(serve(&protocol, &commands, &mut worker, &Host));
        let mut context = Context::from_waker(Waker::noop());
        let (mut rest, mut answers) = (asked, StdString::new());
        loop {
            let taken = protocol.borrow_mut().receive(&rest[..rest.len().min(size)]);
            rest = &rest[taken..];
            if let Some(command) = protocol.borrow_mut().command() {
                assert!(commands.put(command).is_none());
            }
            let _ = serve.as_mut().poll(&mut context);
            let mut out = std::vec![0; size];
            let n = protocol.borrow_mut().transmit(&mut out);
            answers += core::str::from_utf8(&out[..n]).unwrap();
            if rest.is_empty() && n == 0 && protocol.borrow().is_idle() {
                return answers;
            }
        }
    }

    #[test]
    fn questions_are_answered_in_order() {
        let asked = b"put 9\n123456789work 0\r\nput 0\nstats\nput 7\n1 ch1 1corrupt\nstats\n";
        for size in 1..asked.len() {
            assert_eq!(
                answers(asked, size),
                "put 9 cbf43926 10\nwork 00000000\nput 0 00000000 0\nstats readings=0\n\
                put 7 55270de0 8\ncorrupt ok\nstats readings=1\n",
            );
        }
    }

    #[test]
    fn what_is_not_understood_does_no_harm() {
        let long = "x".repeat(LINE + 1);
        let large = "y".repeat(101);
        let asked = format!(
            "\nwork\nwork -1\nput 4294967296\n{long}\nput 101\n{large}exit now\nexit 1\nwork 0\n"
        );
        for size in [1, 2, 3, 40, 1000] {
            assert_eq!(
                answers(asked.as_bytes(), size),
                "error not understood\nerror not understood\nerror not a number\nerror not a number\n\
                error line too long\nerror too large\nerror not a number\nerror not understood\n\
                work 00000000\n",
                "{size}"
            );
        }
    }

    #[test]
    fn who_has_gone_gets_no_answer() {
        let mut memory = [0; 8];
        let mut protocol = Protocol::new(&mut memory);
        assert_eq!(protocol.receive(b"put 3\nabcwork"), 9);
        let Some(Command::Put(body)) = protocol.command() else {
            panic!()
        };
        assert_eq!(body.bytes(), b"abc");
        protocol.reset();
        assert_eq!(protocol.receive(b"stats\n"), 0);
        protocol.give_back(body);
        protocol.answer(|answer| answer.write_str("put"));
        assert_eq!(protocol.transmit(&mut [0; 8]), 0);
        assert_eq!(protocol.receive(b"put 8\n12345678"), 14);
        protocol.reset();
        assert_eq!(protocol.receive(b"put 8\n12345678"), 14);
        assert!(matches!(protocol.command(), Some(Command::Put(_))));
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(asked in "((put|work|stats|corrupt)( [0-9]{1,2})?\n|.{0,40})*") {
            // Rounds of work take long.
            let asked = asked.replace("work", "wrk").replace("exit", "");
            answers(asked.as_bytes(), 16);
        }
    }
}
