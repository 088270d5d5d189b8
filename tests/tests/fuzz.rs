//! Whatever comes in whatever order: nothing panics, nothing stands still, and what comes out is sound.
//!
//! `PROPTEST_CASES=1000000 cargo test --release -p picoprof-tests --test fuzz` goes on for longer. What fails
//! is kept beside this file, and tried first from then on.

#![forbid(unsafe_code)]

use core::time::Duration;
use std::io::ErrorKind;

use picoprof::Instant;
use picoprof::encode::Body;
use picoprof::encode::profile::ProfileEncoder;
use picoprof::encode::source::Source;
use picoprof::encode::text::TextEncoder;
use picoprof::http::{Connection, Transmit};
use picoprof::profile::Kind;
use picoprof::stack::Marker;
use picoprof_tests::http::parse_answers;
use picoprof_tests::model::{CPU_PERIOD, Model};
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
    b"?",
    b"&",
    b"=",
    b"+",
    b"%",
    b"seconds=1",
    b"seconds=9223372036854775807",
    b"debug=1",
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
    prop_oneof![
        4 => (stack(), marker, count).prop_map(|(pcs, marker, n)| Event::Cpu(pcs, marker, n)),
        4 => (stack(), address(), size).prop_map(|(pcs, at, size)| Event::Alloc(pcs, at, size)),
        4 => address().prop_map(Event::Free),
        2 => stack().prop_map(Event::Thread),
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
        for step in &steps {
            match step {
                Step::Receive(bytes, size) => {
                    for mut piece in bytes.chunks(*size) {
                        while !piece.is_empty() {
                            let room = watched.connection.room();
                            let taken = watched.connection.receive(piece);
                            assert!(watched.is_closed || taken == room.min(piece.len()));
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
                Step::End => watched.connection.receive_end(),
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
    ) {
        let model = Model::default();
        before.iter().for_each(|event| event.happen(&model));
        let source = || Source::new(&model, kind, CPU_PERIOD).unwrap();
        let mut profile = ProfileEncoder::new(source());
        let mut text = TextEncoder::new(source());
        let mut bytes = [Vec::new(), Vec::new()];
        let bodies: [&mut dyn Body; 2] = [&mut profile, &mut text];
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
        let [profile, text] = bytes;
        let profile = decode(&profile);
        prop_assert!(profile.is_ok(), "{profile:?}");
        let profile = profile.unwrap();
        prop_assert_eq!(validate(&profile), Ok(()));
        prop_assert!(!model.is_asked_wrongly.get());
        let text = String::from_utf8(text);
        prop_assert!(text.is_ok_and(|text| text.contains("profile: ") && text.ends_with('\n')));
    }
}
