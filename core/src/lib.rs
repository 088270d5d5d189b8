//! Go's `/debug/pprof` for Rust, wherever Rust runs: the profiles, their encoders and the HTTP endpoints,
//! without std, a heap, threads or sockets.
//!
//! `go tool pprof`, and whatever else reads Go's profiles, reads these. A program with an operating system
//! takes `picoprof-std`, which supplies all that is asked for here. Firmware and unikernels use this crate
//! itself:
//!
//! 1. It keeps the tables in statics: a [`StackTable`](stack::StackTable), and one table for each profile
//!    that it wants. Their sizes are up to it. What finds no room is counted as lost, and shown.
//! 2. Its timer interrupt, its allocator and so on read the call stack ([`stack::capture`]), put it into the
//!    stack table, which gives it a number, and count under that number ([`profile`]). That takes no lock
//!    and no memory, so it may be done anywhere.
//! 3. It implements [`Target`]: where the tables are, how sampling is started, what is known of the code.
//! 4. For each client it makes a [`Connection`](http::Connection), and lets a driver from [`transport`] move
//!    the bytes: over any `embedded_io` or `embedded_io_async` stream, or polled. Over smoltcp, `picoprof-smoltcp`
//!    does that.
//!
//! ```
//! use picoprof::encode::Body;
//! use picoprof::http::{Connection, Transmit};
//! use picoprof::profile::{Profiles, buckets::Buckets};
//! use picoprof::stack::StackTable;
//! use picoprof::scratch::{Lent, ScratchPool, words_for};
//! use picoprof::{BuildId, Instant, LocationId, NoSymbols, StartError, Target, Thread};
//!
//! static STACKS: StackTable<256, 1024> = StackTable::new();
//! static THREADS: Buckets<64, 1> = Buckets::new();
//! static SCRATCH: ScratchPool<{ words_for(256, 64, 1).div_ceil(32) + 3 }, 32> = ScratchPool::new();
//!
//! struct Firmware;
//!
//! impl Target for Firmware {
//!     type Scratch = Lent<'static>;
//!     type Symbols = NoSymbols;
//!     type Encoded<B: Body> = B;
//!     type Threads = [Thread; 0];
//!
//!     fn profiles(&self) -> Profiles<'_> {
//!         Profiles { threads: Some(THREADS.view()), ..Profiles::of(STACKS.view()) }
//!     }
//!     fn scratch(&self, words: usize) -> Option<Lent<'static>> {
//!         SCRATCH.lend(words)
//!     }
//!     fn symbols(&self, _: &mut dyn Iterator<Item = (LocationId, usize)>) -> NoSymbols {
//!         NoSymbols { file: "[firmware]", build_id: BuildId::NONE }
//!     }
//!     fn encode<B: Body>(&self, profile: B) -> B {
//!         profile
//!     }
//!     fn threads(&self) -> [Thread; 0] {
//!         []
//!     }
//!     fn start_cpu(&self, _hz: u32) -> Result<u64, StartError> {
//!         Err(StartError::Unavailable)
//!     }
//!     fn stop_cpu(&self) {}
//! }
//!
//! // A task begins: who began it?
//! let stack = STACKS.view().intern(&[0x0800_1234, 0x0800_0420], None);
//! THREADS.view().add(stack, 0, &[1]);
//!
//! // Somebody asks.
//! let mut connection = Connection::<_, 512>::new(&Firmware);
//! connection.receive(b"GET /debug/pprof/threadcreate?debug=1 HTTP/1.0\r\n\r\n");
//! let mut answer = [0; 512];
//! let Transmit::Wrote(len) = connection.transmit(Instant::from_millis(0), &mut answer) else { panic!() };
//! assert!(answer[..len].ends_with(
//!     b"threadcreate profile: total 1\n1 @ 0x8001235 0x8000421\n#\t0x8001234\n#\t0x8000420\n\n"
//! ));
//! ```
//!
//! # Tasks
//!
//! [`task`] gives a future a name, and a place in `goroutine`: what it awaits and since when, who spawned it, who woke
//! it. It runs on any executor. What the host has to supply is a [`Tracer`]:
//!
//! ```
//! use core::cell::Cell;
//! use core::future::{Future, pending};
//! use core::pin::pin;
//! use core::time::Duration;
//!
//! use critical_section::Mutex;
//! use picoprof::profile::buckets::Buckets;
//! use picoprof::profile::labels::LabelSetId;
//! use picoprof::profile::task::{Context, State, TaskPool, Tasks};
//! use picoprof::stack::capture::{Registers, StackBounds};
//! use picoprof::stack::{StackId, StackTable};
//! use picoprof::{Instant, Tracer};
//!
//! static STACKS: StackTable<256, 1024> = StackTable::new();
//! static BLOCK: Buckets<64, 2> = Buckets::new();
//! static MUTEX: Buckets<64, 2> = Buckets::new();
//! static TASKS: TaskPool<16> = TaskPool::new();
//! // One core: there's one thing that is being done.
//! static CURRENT: Mutex<Cell<Context>> = Mutex::new(Cell::new(Context::EMPTY));
//!
//! struct Firmware;
//!
//! impl Tracer for Firmware {
//!     fn tasks(&self) -> Tasks<'static> {
//!         TASKS.view()
//!     }
//!     fn now(&self) -> Instant {
//!         Instant::from_millis(1) // The timer's.
//!     }
//!     fn stack(&self, registers: Registers, base: usize) -> StackId {
//!         let bounds = StackBounds::EMPTY; // The linker knows it.
//!         STACKS.view().intern_callers::<32>(registers, base, bounds)
//!     }
//!     fn current(&self) -> Context {
//!         critical_section::with(|cs| CURRENT.borrow(cs).get())
//!     }
//!     fn swap_current(&self, context: Context) -> Context {
//!         critical_section::with(|cs| CURRENT.borrow(cs).replace(context))
//!     }
//!     fn record_block(&self, stack: StackId, labels: LabelSetId, waited: Duration) {
//!         BLOCK.view().add_wait(stack, labels, waited);
//!     }
//!     fn record_mutex(&self, stack: StackId, labels: LabelSetId, waited: Duration) {
//!         MUTEX.view().add_wait(stack, labels, waited);
//!     }
//! }
//!
//! static TRACER: &dyn Tracer = &Firmware;
//! picoprof::set_tracer(&TRACER);
//!
//! let blinks = picoprof::task("blink", async {
//!     pending::<()>().await // Forgets who waits for it.
//! });
//! // Somewhere in an executor:
//! let mut blinks = pin!(blinks);
//! let waker = core::task::Waker::noop();
//! let _ = blinks.as_mut().poll(&mut core::task::Context::from_waker(waker));
//!
//! let task = TASKS.view().get(0).unwrap();
//! assert_eq!((task.name, task.state, task.polls), ("blink", State::Pending, 1));
//! assert!(task.is_leaked());
//! ```
//!
//! Where there's no tracer, or no room in its pool, a task runs as the future that it is.
//!
//! # How it is built
//!
//! Each module uses only those below it: [`transport`], [`http`], [`encode`], [`profile`], [`interrupt`], [`stack`]. Nothing
//! blocks, and nothing reads a clock: the time is an argument. Bytes are made when there is room for them, a
//! record at a time and as often as it takes, so no profile is ever in memory as a whole.
//!
//! # Features
//!
//! * `critical-section`, `single-core`, `lock_api`: the module `profile::lock`, who keeps interrupts masked, and who waits for locks.
//! * `defmt`: the public types are [`defmt::Format`](https://docs.rs/defmt); lost samples and refused requests
//!   are logged.
//!
//! Machines without compare-and-swap need a `critical-section` implementation and the feature of that name of
//! `portable-atomic`, which is for the program to choose.

#![no_std]
#![deny(unsafe_code)]

mod build_id;
pub mod encode;
mod exclusive;
pub mod http;
pub mod interrupt;
pub mod profile;
pub mod scratch;
pub mod stack;
mod sync;
mod target;
mod time;
pub mod transport;

pub use build_id::BuildId;
pub use exclusive::Exclusive;
pub use profile::task::{Tracer, set_tracer, task};
pub use profile::trace;
pub use scratch::ScratchPool;
pub use stack::LocationId;
pub use target::{Function, Line, Mapping, NoSymbols, StartError, Symbols, Target, Thread};
pub use time::Instant;
