//! Whatever comes in whatever order: nothing panics, nothing stands still, and what comes out is sound.
//!
//! `PROPTEST_CASES=1000000 cargo test --release -p picoprof-tests --test fuzz` goes on for longer. What fails
//! is kept beside this file, and tried first from then on.

#![forbid(unsafe_code)]

use core::time::Duration;
use std::io::ErrorKind;

use picoprof::Instant;
use picoprof::encode::Body;
use picoprof::encode::dump::DumpEncoder;
use picoprof::encode::profile::ProfileEncoder;
use picoprof::encode::source::{Source, Waits};
use picoprof::encode::text::TextEncoder;
use picoprof::http::{Connection, Transmit};
use picoprof::profile::{Kind, Role, Wait};
use picoprof::stack::Marker;
use picoprof_tests::dump::parse;
use picoprof_tests::http::parse_answers;
use picoprof_tests::model::{CPU_PERIOD, Model, code_at};
use picoprof_tests::profile::{decode, validate};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// What requests are made of. No HEAD: that its answers have no body would be hard to tell.
const TOKENS: &[&[u8]] = &[
    b"GET ",
    b"POST ",
    b"PUT ",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b" HTTP/2.0\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"Host: a\r\n",
    b"Connection: close\r\n",
    b"Content-Length: 9\r\n",
    b"Content-Length: 70000\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 18446744073709551616\r\n",
    b"X:",
    b": ",
    b"/debug/pprof/",
    b"/debug/pprof",
    b"heap",
    b"allocs",
    b"profile",
    b"symbol",
    b"cmdline",
    b"threadcreate",
    b"block",
    b"mutex",
    b"goroutine",
    b"goroutineleak",
    b"?",
    b"&",
    b"=",
    b"+",
    b"%",
    b"seconds=1",
    b"seconds=9223372036854775807",
    b"debug=1",
    b"debug=2",
    b"all=1",
    b"idle=1",
    b"gc=1",
    b"hz=4294967296",
    b"0x1001",
    b"4097",
    b"07777777777777777777777",
    b"/../",
    b"//",
    b"http://",
    b"GET /debug/pprof/heap HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /debug/pprof/heap?debug=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /debug/pprof/threadcreate?seconds=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /debug/pprof/block?seconds=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /debug/pprof/mutex?debug=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /debug/pprof/goroutine HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /debug/pprof/goroutine?debug=2 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /debug/pprof/goroutine?seconds=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /debug/pprof/symbol?0x1001+0x1002 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /debug/pprof/symbol HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n0x1001+",
    b"GET /debug/pprof/ HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// What can happen to a program.
#[derive(Clone, Debug)]
enum Event {
    Cpu(Vec<usize>, Option<Marker>, u64),
    Alloc(Vec<usize>, usize, usize),
    Free(usize),
    Thread(Vec<usize>),
    Wait(Vec<usize>, u64),
    Release(Vec<usize>, u64),
    Start(u64, Vec<usize>, Wait),
    Spawn(Vec<usize>),
    /// A task, its await, and whether it can be woken.
    Poll(usize, Vec<usize>, bool),
    Wake(usize),
    End(usize),
    /// So many seconds.
    Pass(u64),
    Role(usize, Role),
    Names(bool),
    Memory(bool),
}

impl Event {
    fn happen(&self, model: &Model) {
        match self {
            Self::Cpu(pcs, marker, n) => {
                model.sample_cpu(pcs, *marker, *n);
            }
            // One allocation at an address, as allocators have it.
            Self::Alloc(pcs, address, size) if !model.heap.view().may_be_sampled(*address) => {
                model.allocate(pcs, *address, *size);
            }
            Self::Alloc(..) => {}
            Self::Free(address) => model.free(*address),
            Self::Thread(pcs) => {
                model.create_thread(pcs);
            }
            Self::Wait(pcs, nanos) => {
                model.wait(pcs, *nanos);
            }
            Self::Release(pcs, nanos) => {
                model.release(pcs, *nanos);
            }
            Self::Start(id, pcs, wait) => model.start_thread(*id, "thread", pcs, *wait),
            Self::Spawn(pcs) => {
                model.spawn("task", pcs);
            }
            Self::Poll(task, pcs, has_waker) => model.poll(*task, pcs, *has_waker),
            Self::Wake(task) => model.wake(*task),
            Self::End(task) => model.tasks.end(*task),
            Self::Pass(seconds) => {
                let now = model.now.get() + Duration::from_secs(*seconds);
                model.now.set(now);
            }
            Self::Role(pc, role) => model.set_roles(*pc, &vec![*role; code_at(*pc).len()]),
            Self::Names(are_known) => model.has_names.set(*are_known),
            Self::Memory(is_there) => model.has_memory.set(*is_there),
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let pc = prop_oneof![8 => 0x1000usize..0x1080, 2 => 0x7ff0usize..0x9008, 1 => any::<usize>()];
    // The last address of all is in no mapping, as a limit is the first beyond.
    let pc = pc.prop_map(|pc| pc.min(usize::MAX - 1));
    let stack = || prop::collection::vec(pc.clone(), 0..8);
    let marker = prop::option::weighted(0.3, prop::sample::select(Marker::ALL.to_vec()));
    let count = prop_oneof![
        Just(1u64),
        Just(1u64 << 40),
        any::<u64>().prop_map(|n| n >> 8)
    ];
    let size = prop_oneof![0usize..200, any::<usize>().prop_map(|n| n >> 8)];
    let address = || (1usize..100).prop_map(|n| n << 12);
    let nanos = || any::<u64>().prop_map(|n| n >> 8);
    let wait = || prop::sample::select(Wait::ALL.to_vec());
    let role = prop_oneof![
        3 => wait().prop_map(Role::Waits),
        1 => Just(Role::Library),
        1 => Just(Role::Program),
    ];
    // Tasks are numbered by when they were spawned.
    let task = || 0usize..20;
    prop_oneof![
        4 => (stack(), marker, count).prop_map(|(pcs, marker, n)| Event::Cpu(pcs, marker, n)),
        4 => (stack(), address(), size).prop_map(|(pcs, at, size)| Event::Alloc(pcs, at, size)),
        4 => address().prop_map(Event::Free),
        2 => stack().prop_map(Event::Thread),
        4 => (stack(), nanos()).prop_map(|(pcs, nanos)| Event::Wait(pcs, nanos)),
        4 => (stack(), nanos()).prop_map(|(pcs, nanos)| Event::Release(pcs, nanos)),
        2 => (any::<u64>(), stack(), wait()).prop_map(|(id, pcs, wait)| Event::Start(id, pcs, wait)),
        4 => stack().prop_map(Event::Spawn),
        4 => (task(), stack(), any::<bool>()).prop_map(|(task, pcs, has)| Event::Poll(task, pcs, has)),
        2 => task().prop_map(Event::Wake),
        1 => task().prop_map(Event::End),
        1 => (0u64..10_000).prop_map(Event::Pass),
        4 => (0x1000usize..0x1080, role).prop_map(|(pc, role)| Event::Role(pc, role)),
        1 => any::<bool>().prop_map(Event::Names),
        1 => any::<bool>().prop_map(Event::Memory),
    ]
}

/// What can happen to a connection.
#[derive(Clone, Debug)]
enum Step {
    /// Bytes come; so many of them at a time.
    Receive(Vec<u8>, usize),
    /// There is room for so many.
    Transmit(usize),
    /// So many milliseconds pass.
    Pass(u64),
    /// The other side ends.
    End,
    Program(Event),
}

fn step() -> impl Strategy<Value = Step> {
    let token = prop::sample::select(TOKENS).prop_map(<[u8]>::to_vec);
    let noise = prop::collection::vec(any::<u8>(), 0..4);
    let bytes = prop_oneof![20 => token, 1 => noise];
    prop_oneof![
        8 => (bytes, 1usize..60).prop_map(|(bytes, size)| Step::Receive(bytes, size)),
        8 => (0usize..200).prop_map(Step::Transmit),
        2 => (0u64..15_000).prop_map(Step::Pass),
        1 => Just(Step::End),
        2 => event().prop_map(Step::Program),
    ]
}

/// A connection that must keep the rules that its documentation states.
struct Watched<'m> {
    connection: Connection<'m, Model, 256>,
    now: Instant,
    sent: Vec<u8>,
    is_closed: bool,
}

impl Watched<'_> {
    /// Whether it says that there's nothing to do now.
    fn transmit(&mut self, size: usize) -> bool {
        let mut out = vec![0; size];
        match self.connection.transmit(self.now, &mut out) {
            Transmit::Wrote(len) => {
                assert!(len <= size && (len > 0 || size == 0) && !self.is_closed);
                self.sent.extend_from_slice(&out[..len]);
                len == 0
            }
            Transmit::WaitUntil(time) => {
                assert!(time > self.now && !self.is_closed);
                true
            }
            Transmit::WantRead(time) => {
                assert!(time > self.now && !self.is_closed);
                assert!(
                    self.connection.room() > 0,
                    "it wants what it has no room for"
                );
                true
            }
            Transmit::Close => {
                self.is_closed = true;
                true
            }
        }
    }

    fn run(&mut self) {
        while !self.transmit(64) {
            assert!(self.sent.len() < 4 << 20, "it does not end");
        }
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("seeds"))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn connections(steps in prop::collection::vec(step(), 0..80)) {
        let model = Model::default();
        let mut watched = Watched {
            connection: Connection::new(&model),
            now: Instant::from_millis(0),
            sent: Vec::new(),
            is_closed: false,
        };
        let mut is_ended = false;
        for step in &steps {
            match step {
                Step::Receive(bytes, size) => {
                    for mut piece in bytes.chunks(*size) {
                        while !piece.is_empty() {
                            let room = watched.connection.room();
                            let taken = watched.connection.receive(piece);
                            // An end may have closed it: then it takes, and forgets, all that comes.
                            let is_all = taken == piece.len();
                            assert!(is_all && (watched.is_closed || is_ended) || taken == room.min(piece.len()));
                            piece = &piece[taken..];
                            if taken == 0 {
                                // A profile is being taken, and the client is kept waiting.
                                watched.run();
                                if watched.connection.room() == 0 {
                                    watched.now = watched.now + Duration::from_secs(100);
                                }
                            }
                        }
                    }
                }
                Step::Transmit(size) => {
                    watched.transmit(*size);
                }
                Step::Pass(millis) => watched.now = watched.now + Duration::from_millis(*millis),
                Step::End => {
                    is_ended = true;
                    watched.connection.receive_end();
                }
                Step::Program(event) => event.happen(&model),
            }
        }
        // It ends when the other side does, at once.
        watched.connection.receive_end();
        watched.run();
        prop_assert!(watched.is_closed);
        prop_assert!(!model.is_sampling());
        if let Err(error) = parse_answers(&watched.sent, &[]) {
            // Where the request's body ended before its time.
            prop_assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{}", error);
        }
    }

    #[test]
    fn encoders(
        before in prop::collection::vec(event(), 0..100),
        during in prop::collection::vec((1usize..100, event()), 1..50),
        kind in prop::sample::select(Kind::ALL.to_vec()),
        waits in prop::sample::select(vec![Waits::Synchronization, Waits::AndIdle, Waits::All]),
    ) {
        let model = Model::default();
        before.iter().for_each(|event| event.happen(&model));
        let source = || Source::new(&model, kind, CPU_PERIOD).unwrap().showing(waits);
        let mut profile = ProfileEncoder::new(source());
        let mut text = TextEncoder::new(source());
        let mut dump = DumpEncoder::new(&model, model.now.get());
        let mut bytes = [const { Vec::new() }; 3];
        let bodies: [&mut dyn Body; 3] = [&mut profile, &mut text, &mut dump];
        for (body, bytes) in bodies.into_iter().zip(&mut bytes) {
            let mut out = [0; 100];
            for (size, event) in during.iter().cycle() {
                let len = body.fill(&mut out[..*size]);
                if len == 0 {
                    break;
                }
                bytes.extend_from_slice(&out[..len]);
                prop_assert!(bytes.len() < 1 << 20);
                event.happen(&model);
            }
        }
        let [profile, text, dump] = bytes;
        let profile = decode(&profile);
        prop_assert!(profile.is_ok(), "{profile:?}");
        let profile = profile.unwrap();
        prop_assert_eq!(validate(&profile), Ok(()));
        prop_assert!(!model.is_asked_wrongly.get());
        let text = String::from_utf8(text);
        let is_text = |text: &str| text.contains("profile: ") || text.starts_with("--- ");
        prop_assert!(text.is_ok_and(|text| is_text(&text) && text.ends_with('\n')));
        let dump = String::from_utf8(dump).unwrap();
        let goroutines = parse(&dump);
        prop_assert!(goroutines.is_ok() || dump.is_empty(), "{goroutines:?} in {dump}");
    }
}
