//! A device without symbols: core's own endpoints, over a socket or a serial line.

use core::fmt;
use core::net::{Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time;

use picoprof::encode::Body;
use picoprof::http::{Connection, Transmit};
use picoprof::profile::buckets::Buckets;
use picoprof::profile::labels::LabelSetId;
use picoprof::profile::task::TaskPool;
use picoprof::profile::{Profiles, Wait};
use picoprof::stack::{Marker, StackTable};
use picoprof::trace::{Event, Limits, Stream, Trace, TraceBuffers, TraceHost, is_on};
use picoprof::{BuildId, Instant, LocationId, NoSymbols, StartError, Target, Thread};

use crate::program::{Code, build_id_note};

/// No code: in the headers of the file.
pub(crate) const NOWHERE: usize = 0x11;

/// A program that has counted some stacks, and samples one while it is being watched.
#[derive(Debug)]
pub(crate) struct Device {
    stacks: StackTable<256, 1024>,
    cpu: Buckets<64, 1>,
    block: Buckets<64, 2>,
    threads: Buckets<64, 1>,
    tasks: TaskPool<1>,
    build_id: Mutex<BuildId>,
    trace: Recorder,
    pub(crate) is_sampling: AtomicBool,
    /// How many clients have come.
    pub(crate) clients: AtomicUsize,
}

impl Device {
    /// It runs this executable.
    pub(crate) fn new() -> &'static Self {
        let code = Code::get();
        let device = Self::counting_at(&[NOWHERE, code.plain]);
        let stacks = device.stacks.view();
        let deep = stacks.intern(&[code.inlined, code.method], Some(Marker::TooDeep));
        device.block.view().add(deep, 0, &[3, 3_000_000]);
        let nowhere = stacks.intern(&[NOWHERE, code.plain], None);
        device.block.view().add(nowhere, 0, &[1, 1_000_000]);
        device
    }

    /// It has counted two threads at this stack.
    pub(crate) fn counting_at(pcs: &[usize]) -> &'static Self {
        let device: &Self = Box::leak(Box::new(Self {
            stacks: StackTable::new(),
            cpu: Buckets::new(),
            block: Buckets::new(),
            threads: Buckets::new(),
            tasks: TaskPool::new(),
            build_id: Mutex::new(BuildId::from_note(&build_id_note())),
            trace: Recorder::new(),
            is_sampling: AtomicBool::new(false),
            clients: AtomicUsize::new(0),
        }));
        let stack = device.stacks.view().intern(pcs, None);
        device.threads.view().add(stack, 0, &[2]);
        device
    }

    /// And it has waited there.
    pub(crate) fn waited_at(&self, pcs: &[usize]) {
        let stack = self.stacks.view().intern(pcs, None);
        self.block.view().add(stack, 0, &[1, 1_000_000]);
    }

    /// From now on it runs the program with this note.
    pub(crate) fn flash(&self, note: &[u8]) {
        *self.build_id.lock().unwrap_or_else(PoisonError::into_inner) = BuildId::from_note(note);
    }

    /// The address of its socket.
    pub(crate) fn listen(&'static self) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                self.clients.fetch_add(1, Ordering::Relaxed);
                let from = stream.try_clone().expect("there are descriptors");
                thread::spawn(move || self.converse(&read_from(from), stream));
            }
        });
        address
    }

    /// Serves one client to its end.
    pub(crate) fn converse(&self, received: &Receiver<Vec<u8>>, mut to: impl Write) {
        let begun = time::Instant::now();
        let mut connection = Connection::<_, 256>::new(self);
        let mut pending: Vec<u8> = Vec::new();
        // Few bytes at a time: pieces of all sorts.
        let mut buffer = [0; 64];
        loop {
            let taken = connection.receive(&pending);
            pending.drain(..taken);
            let now = Instant::from_nanos(begun.elapsed().as_nanos() as u64);
            match connection.transmit(now, &mut buffer) {
                Transmit::Wrote(len) => {
                    if to.write_all(&buffer[..len]).is_err() {
                        return;
                    }
                }
                Transmit::WaitUntil(_) | Transmit::WantRead(_) => {
                    self.tick();
                    match received.recv_timeout(Duration::from_millis(5)) {
                        Ok(bytes) => pending.extend(bytes),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
                Transmit::Close => return,
            }
        }
    }

    /// As its timer's interrupt.
    fn tick(&self) {
        if is_on() {
            let code = Code::get();
            let stack = (self.stacks.view()).intern(&[code.inlined, code.method, NOWHERE], None);
            self.trace.record(Event::waits(1, stack));
            self.trace.record(Event::resumed());
        }
        if self.is_sampling.load(Ordering::Relaxed) {
            let code = Code::get();
            let stack = self
                .stacks
                .view()
                .intern(&[code.inlined, code.method], None);
            self.cpu.view().add(stack, 0, &[1]);
        }
    }
}

/// What a trace is made of. Its clock begins with it.
#[derive(Debug)]
pub(crate) struct Recorder {
    buffers: &'static TraceBuffers<32, 64>,
    /// One thread uses it at a time.
    stream: Mutex<Stream>,
    begun: time::Instant,
}

impl Recorder {
    fn new() -> Self {
        Self {
            buffers: Box::leak(Box::default()),
            stream: Mutex::new(Stream::new(7)),
            begun: time::Instant::now(),
        }
    }

    fn record(&self, event: Event) {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        self.buffers.view().record(&stream, self.ticks(), event);
    }
}

impl TraceHost for Recorder {
    fn buffers(&self) -> Trace<'static> {
        self.buffers.view()
    }

    fn ticks(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    fn limits(&self) -> Limits {
        Limits::SMALL
    }

    fn stream_name(&self, _: u32, name: &mut dyn fmt::Write) -> fmt::Result {
        name.write_str("main")
    }
}

/// What comes, until there is no more.
pub(crate) fn read_from(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        loop {
            match from.read(&mut buffer) {
                Ok(len) if len > 0 && sender.send(buffer[..len].to_vec()).is_ok() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    });
    received
}

impl Target for Device {
    type Scratch = Vec<u64>;
    type Symbols = NoSymbols;
    type Encoded<B: Body> = B;
    type Threads = [Thread; 1];

    fn profiles(&self) -> Profiles<'_> {
        Profiles {
            cpu: Some(self.cpu.view()),
            threads: Some(self.threads.view()),
            block: Some(self.block.view()),
            tasks: Some(self.tasks.view()),
            ..Profiles::of(self.stacks.view())
        }
    }

    fn scratch(&self, words: usize) -> Option<Vec<u64>> {
        Some(vec![0; words])
    }

    fn symbols(&self, _: &mut dyn Iterator<Item = (LocationId, usize)>) -> NoSymbols {
        NoSymbols {
            file: "[firmware]",
            build_id: self
                .build_id
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }

    fn encode<B: Body>(&self, profile: B) -> B {
        profile
    }

    fn command_line(&self) -> &[u8] {
        b"firmware\0#\t0x12"
    }

    fn threads(&self) -> [Thread; 1] {
        let code = Code::get();
        let mut name = [0; 16];
        name[..4].copy_from_slice(b"main");
        [Thread {
            id: 1,
            name,
            stack: self.stacks.view().intern(&[code.inlined, NOWHERE], None),
            labels: LabelSetId::EMPTY,
            wait: Wait::Running,
            waiting: Duration::ZERO,
        }]
    }

    fn trace(&self) -> Option<&dyn TraceHost> {
        Some(&self.trace)
    }

    fn start_cpu(&self, _hz: u32) -> Result<u64, StartError> {
        if self.is_sampling.swap(true, Ordering::Relaxed) {
            return Err(StartError::AlreadyRunning);
        }
        Ok(10_000_000)
    }

    fn stop_cpu(&self) {
        self.is_sampling.store(false, Ordering::Relaxed);
    }
}
