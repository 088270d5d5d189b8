//! What a thread or an interrupt records with.

#![forbid(unsafe_code)]

use core::cell::Cell;
use core::fmt;

use super::buffers::{self, HEADER, Trace, Turn, publish};
use super::event::{self, Event, Kind, MAX_DELTA, MAX_WORDS};
use super::name::clipped;
use crate::sync::{AtomicU32, Ordering, compiler_fence, const_fn};

/// What a thread or an interrupt records with: which buffer it has, and how far that is written.
///
/// One for each thread, in a thread-local variable; or one for each interrupt that records, and one for all that is none. It
/// is of the [`Trace`] that it was last used with: used with another, it gives the buffer that it has back.
///
/// # Sharing one
///
/// It is not `Sync`. On one core, those who interrupt each other may share one by a wrapper with an `unsafe impl Sync`, if
/// whoever interrupts has returned before what it interrupted goes on: interrupts and signal handlers, but not threads that
/// take turns, and not a handler that switches to another thread. Who interrupts the recording of an event then loses its own,
/// which is counted.
pub struct Stream {
    id: AtomicU32,
    /// An event is being recorded. Who finds it set, having interrupted that, touches nothing of what follows.
    is_busy: AtomicU32,
    /// The words of the buffer that it has, and the turn that it took that in; none if it has none.
    buffer: Cell<&'static [AtomicU32]>,
    turn: Cell<Option<Turn<'static>>>,
    /// What was [published](publish): how far it is written.
    published: Cell<u32>,
    /// Events so far.
    events: Cell<u32>,
    /// When the last was.
    last: Cell<u64>,
}

impl Stream {
    /// Added to a thread's number, for the stream of its CPU samples.
    pub const SAMPLES: u32 = 1 << 31;

    const_fn! {
        /// A stream with a number below [`SAMPLES`](Self::SAMPLES): the thread's, or the interrupt's. No other has the same
        /// at a time.
        #[must_use]
        pub fn new(id: u32) -> Self {
            Self {
                id: AtomicU32::new(id),
                is_busy: AtomicU32::new(0),
                buffer: Cell::new(&[]),
                turn: Cell::new(None),
                published: Cell::new(0),
                events: Cell::new(0),
                last: Cell::new(0),
            }
        }
    }

    /// Its number; 0 if it has none yet.
    #[inline]
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id.load(Ordering::Relaxed)
    }

    /// Sets the number, before the first event is recorded.
    pub fn set_id(&self, id: u32) {
        self.id.store(id, Ordering::Relaxed);
    }

    /// Runs `f`; `None` if it runs already, beneath this.
    #[inline(always)]
    fn alone<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        // Loads and stores are enough: who interrupts this is done before it goes on. The fences keep what is between them
        // there, for the compiler; a processor sees its own accesses in order.
        if self.is_busy.load(Ordering::Relaxed) != 0 {
            return None;
        }
        self.is_busy.store(1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let result = f();
        compiler_fence(Ordering::SeqCst);
        self.is_busy.store(0, Ordering::Relaxed);
        Some(result)
    }

    /// Records an event, which happened at `ticks`, in the buffer that the stream has, of whatever trace, if there's room and
    /// nothing else to do. If not, false, and [`Trace::record`] does it. A stream that never recorded has no buffer.
    ///
    /// May run in a signal handler or an interrupt, as that may.
    // Always inlined: with what a host does around it, it makes one function that calls no other.
    #[inline(always)]
    #[must_use]
    pub fn try_record(&self, ticks: u64, event: Event) -> bool {
        let recorded = self.alone(|| self.record_plain(ticks, event));
        recorded.unwrap_or(false)
    }

    /// Records a plain event, if there's room for one and it comes soon after the one before.
    #[inline(always)]
    fn record_plain(&self, ticks: u64, event: Event) -> bool {
        let (buffer, published) = (self.buffer.get(), self.published.get());
        let place = buffers::len_of(published);
        let delta = ticks.wrapping_sub(self.last.get());
        // Room for the words of any event: those that are too many are written again by the next.
        if delta <= MAX_DELTA
            && let Some(room) = buffer.get(place..place + MAX_WORDS)
            && let Some(first) = buffer.first()
        {
            for (to, word) in room.iter().zip(event.words(delta as u32)) {
                to.store(word, Ordering::Relaxed);
            }
            self.finish(first, published + event.len() as u32, ticks);
            true
        } else {
            false
        }
    }

    /// Lets readers see an event that is written.
    #[inline(always)]
    fn finish(&self, first: &AtomicU32, published: u32, ticks: u64) {
        publish(first, published);
        self.published.set(published);
        self.events.set(self.events.get().wrapping_add(1));
        self.last.set(ticks);
    }

    /// Gives the buffer back that it has.
    fn let_go(&self) {
        self.turn.take().into_iter().for_each(Turn::close);
        self.buffer.set(&[]);
        self.published.set(0);
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Stream");
        debug.field("id", &self.id()).finish_non_exhaustive()
    }
}

// Buffers that are gone while a stream still has one of them could be another's.
impl Trace<'static> {
    /// Records an event of the calling thread or interrupt, which happened at `ticks` by the
    /// [clock](super::TraceHost::ticks) of this trace.
    ///
    /// May run in a signal handler or an interrupt: no lock, no allocation, nothing that is waited for. One that interrupts
    /// the same stream's recording is lost, and counted; so is one that finds no buffer.
    pub fn record(&self, stream: &Stream, ticks: u64, event: Event) {
        let recorded = stream.alone(|| {
            if !self.record_plain(stream, ticks, event) {
                self.record_slowly(stream, ticks, event, 0, "");
            }
        });
        if recorded.is_none() {
            self.count_lost();
        }
    }

    /// The same of an event with a name or a text of its own. Some 150 instructions with a name; with a text up to 256, and some
    /// for each byte.
    pub fn record_with(
        &self,
        stream: &Stream,
        ticks: u64,
        event: Event,
        name: &'static str,
        text: &str,
    ) {
        let recorded = stream.alone(|| {
            let name = self.number_of(name);
            let is_done =
                event.takes_name() && self.record_plain(stream, ticks, event.with_name(name));
            if !is_done {
                self.record_slowly(stream, ticks, event, name, text);
            }
        });
        if recorded.is_none() {
            self.count_lost();
        }
    }

    /// Gives the stream's buffer back: the thread ends, or will record nothing for long. If an event is just being recorded
    /// beneath this, it keeps the buffer, and that is counted as an event that was lost.
    pub fn close_stream(&self, stream: &Stream) {
        if stream.alone(|| stream.let_go()).is_none() {
            self.count_lost();
        }
    }

    /// Records in the buffer that the stream has, if it's one of these.
    #[inline]
    fn record_plain(&self, stream: &Stream, ticks: u64, event: Event) -> bool {
        self.has(stream.buffer.get()) && stream.record_plain(ticks, event)
    }

    /// An event that needs a new buffer, or has a name or a text.
    #[cold]
    #[inline(never)]
    fn record_slowly(&self, stream: &Stream, ticks: u64, event: Event, name: u32, text: &str) {
        let Some(kind) = event.kind() else {
            return;
        };
        let (has_name, has_text) = (kind.has_name(), kind.has_text());
        let plain = event.len() - usize::from(has_name) - usize::from(has_text);
        let most = self.size() - HEADER - event::TIME_WORDS as usize - event::MAX_WORDS - 1;
        let text = clipped(text, most * size_of::<u32>());
        let text_words = if has_text {
            1 + text.len().div_ceil(size_of::<u32>())
        } else {
            0
        };
        let needed = event::TIME_WORDS as usize + event::MAX_WORDS + text_words;
        let has_room = self.has(stream.buffer.get())
            && buffers::len_of(stream.published.get()) + needed <= self.size();
        if !has_room && !self.take_next(stream, ticks) {
            return self.count_lost();
        }
        let published = stream.published.get();
        let mut place = buffers::len_of(published);
        let buffer = stream.buffer.get();
        let mut write = |word| {
            if let Some(to) = buffer.get(place) {
                to.store(word, Ordering::Relaxed);
            }
            place += 1;
        };
        let mut delta = ticks.wrapping_sub(stream.last.get());
        if delta > MAX_DELTA {
            write(Kind::Time as u32);
            write(ticks as u32);
            write((ticks >> 32) as u32);
            delta = 0;
        }
        for word in event.words(delta as u32).into_iter().take(plain) {
            write(word);
        }
        if has_name {
            write(name);
        }
        if has_text {
            write(text.len() as u32);
            for bytes in text.as_bytes().chunks(size_of::<u32>()) {
                let mut word = [0; size_of::<u32>()];
                for (to, &byte) in word.iter_mut().zip(bytes) {
                    *to = byte;
                }
                write(u32::from_le_bytes(word));
            }
        }
        let len = place - buffers::len_of(published);
        if let Some(first) = buffer.first() {
            stream.finish(first, published + len as u32, ticks);
        }
    }

    /// A new buffer for the stream, in which nothing is written yet; false if there's none.
    fn take_next(&self, stream: &Stream, ticks: u64) -> bool {
        stream.let_go();
        let begin = [
            stream.id(),
            ticks as u32,
            (ticks >> 32) as u32,
            stream.events.get(),
        ];
        let Some((turn, buffer)) = self.take(begin) else {
            return false;
        };
        stream.buffer.set(buffer);
        stream.turn.set(Some(turn));
        stream.published.set(turn.published(HEADER));
        stream.last.set(ticks);
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::borrow::ToOwned;
    use std::boxed::Box;
    use std::string::String;
    use std::vec::Vec;
    use std::{format, vec};

    use proptest::prelude::*;

    use super::super::TraceBuffers;
    use super::super::buffers::{Look, TURN};
    use super::super::event::{Read, Recorded, TIME_WORDS, time_of};
    use super::*;
    use crate::profile::labels::LabelSetId;
    use crate::stack::StackId;

    const NAMES: [&str; 3] = ["", "one", "another, with ü"];

    fn buffers<const BUFFERS: usize, const WORDS: usize>() -> Trace<'static> {
        Box::leak(Box::new(TraceBuffers::<BUFFERS, WORDS, 16>::new())).view()
    }

    /// An event as it is told apart: with its name, and its text.
    #[derive(Clone, Debug, PartialEq)]
    struct Told {
        time: u64,
        event: String,
        name: &'static str,
        text: String,
    }

    /// What is in the buffers, in the order that they were taken in: the stream, the event's number, and the event.
    fn read(trace: Trace<'_>) -> Vec<(u32, u32, Told)> {
        let looks = (0..trace.len()).filter_map(|buffer| trace.look(buffer));
        let mut looks: Vec<Look> = looks.collect();
        looks.sort_by_key(|look| trace.turn().wrapping_sub(look.turn) & TURN);
        let mut told = Vec::new();
        for &look in looks.iter().rev() {
            let [stream, low, high, mut number] = trace.begin(look);
            let mut time = u64::from(low) | u64::from(high) << 32;
            let mut place = HEADER as u32;
            while place < look.len {
                let word = |ahead| trace.word(look, place + ahead);
                if time_of(word(0)).is_none() {
                    time = u64::from(word(1)) | u64::from(word(2)) << 32;
                    place += TIME_WORDS;
                    continue;
                }
                let read = Read::of(word).expect("an event");
                time = time.wrapping_add(read.delta);
                let mut text = Vec::new();
                if let Some((ahead, len)) = read.text {
                    text.extend((0..len.div_ceil(4)).flat_map(|i| word(ahead + i).to_le_bytes()));
                    text.truncate(len as usize);
                }
                let (event, name) = unnamed(read.recorded);
                let told_now = Told {
                    time,
                    event: format!("{event:?}"),
                    name: trace.name(name),
                    text: String::from_utf8(text).expect("text"),
                };
                told.push((stream, number, told_now));
                number = number.wrapping_add(1);
                place += read.words;
            }
            assert_eq!(place, look.len, "only whole events are seen");
            assert!(trace.is_still(look));
        }
        told
    }

    /// An event with a name of number 0, and the number.
    fn unnamed(mut event: Recorded) -> (Recorded, u32) {
        let name = match &mut event {
            Recorded::TaskSpawned { name, .. }
            | Recorded::RegionBegan { name, .. }
            | Recorded::UserTaskBegan { name, .. }
            | Recorded::Log { category: name, .. } => core::mem::take(name),
            _ => 0,
        };
        (event, name)
    }

    /// An event of each kind, and how it is read.
    fn example(kind: usize, a: u32, b: u32) -> (Event, Recorded) {
        let (stack, labels) = (StackId::from_bits(b), LabelSetId::from_bits(b));
        let name = 0;
        match kind {
            0 => (
                Event::task_spawned(a, stack),
                Recorded::TaskSpawned {
                    task: a,
                    stack,
                    name,
                },
            ),
            1 | 2 => {
                let is_nested = kind == 2;
                let polled = Recorded::TaskPolled { task: a, is_nested };
                (Event::task_polled(a, is_nested), polled)
            }
            3 => (
                Event::task_pending(a, stack),
                Recorded::TaskPending { task: a, stack },
            ),
            4 => (
                Event::task_woken(a, stack),
                Recorded::TaskWoken { task: a, stack },
            ),
            5 => (Event::task_ended(a), Recorded::TaskEnded { task: a }),
            6 => (
                Event::thread_created(a, stack),
                Recorded::ThreadCreated { ticket: a, stack },
            ),
            7 => (Event::thread_began(a), Recorded::ThreadBegan { ticket: a }),
            8 => (Event::thread_ended(), Recorded::ThreadEnded),
            9 => (Event::waits(a, stack), Recorded::Waits { place: a, stack }),
            10 => (Event::resumed(), Recorded::Resumed),
            11 => {
                let (place, count) = (a, !b);
                let wakes = Recorded::Wakes {
                    place,
                    count,
                    stack,
                };
                (Event::wakes(place, count, stack), wakes)
            }
            12 => (Event::sample(stack), Recorded::Sample { stack }),
            13 => (Event::labels(labels), Recorded::Labels { labels }),
            14 => {
                let (region, task) = (a, b);
                let began = Recorded::RegionBegan { region, task, name };
                (Event::region_began(region, task), began)
            }
            15 => (Event::region_ended(a), Recorded::RegionEnded { region: a }),
            16 => {
                let (task, parent) = (a, b);
                let began = Recorded::UserTaskBegan { task, parent, name };
                (Event::user_task_began(task, parent), began)
            }
            17 => (
                Event::user_task_ended(a),
                Recorded::UserTaskEnded { task: a },
            ),
            18 => {
                let category = name;
                (Event::log(a), Recorded::Log { task: a, category })
            }
            19 => (Event::handler_entered(), Recorded::HandlerEntered),
            20 => (
                Event::task_labelled(a, labels),
                Recorded::TaskLabelled { task: a, labels },
            ),
            _ => (Event::handler_left(), Recorded::HandlerLeft),
        }
    }

    const KINDS: usize = 22;

    /// What somebody does with one of some streams.
    #[derive(Clone, Debug)]
    struct Act {
        stream: usize,
        time: u64,
        kind: usize,
        arguments: (u32, u32),
        name: usize,
        text: String,
        closes: bool,
    }

    fn acts(streams: usize) -> impl Strategy<Value = Vec<Act>> {
        let pause = prop_oneof![
            6 => 0..2000u64,
            1 => MAX_DELTA - 1..MAX_DELTA + 2,
            1 => any::<u64>(),
        ];
        let argument = || prop_oneof![0..9u32, any::<u32>()];
        let text = prop_oneof![3 => "", 1 => "[aü]{0,90}"];
        let act = (
            0..streams,
            pause,
            0..KINDS,
            (argument(), argument()),
            0..NAMES.len(),
            text,
            prop::bool::weighted(0.05),
        );
        prop::collection::vec(act, 0..150).prop_map(|acts| {
            let mut time = 0u64;
            acts.into_iter()
                .map(|(stream, pause, kind, arguments, name, text, closes)| {
                    // Also backwards: two cores' clocks may differ.
                    time = time.wrapping_add(pause);
                    Act {
                        stream,
                        time,
                        kind,
                        arguments,
                        name,
                        text,
                        closes,
                    }
                })
                .collect()
        })
    }

    /// Does all that; answers what of it found a buffer, as it is to be read.
    fn record(trace: Trace<'static>, streams: usize, acts: &[Act]) -> Vec<(u32, u32, Told)> {
        let streams: Vec<_> = (1..=streams as u32).map(Stream::new).collect();
        let mut numbers = vec![0; streams.len()];
        let mut told = Vec::new();
        for act in acts {
            let stream = &streams[act.stream];
            let (event, recorded) = example(act.kind, act.arguments.0, act.arguments.1);
            let (mut name, mut text) = (NAMES[act.name], act.text.as_str());
            let lost = trace.lost();
            if name.is_empty() && text.is_empty() {
                trace.record(stream, act.time, event);
            } else {
                trace.record_with(stream, act.time, event, name, text);
            }
            let kind = event.kind().expect("it has one");
            if !kind.has_name() {
                name = "";
            }
            if !kind.has_text() {
                text = "";
            }
            if trace.lost() == lost {
                let event = Told {
                    time: act.time,
                    event: format!("{recorded:?}"),
                    name,
                    // As much as fits in a buffer that has nothing else.
                    text: clipped(text, (trace.size() - 13) * 4).to_owned(),
                };
                told.push((stream.id(), numbers[act.stream], event));
                numbers[act.stream] += 1;
            } else {
                assert_eq!(trace.lost(), lost + 1);
            }
            if act.closes {
                trace.close_stream(stream);
            }
        }
        told
    }

    fn of_stream(told: &[(u32, u32, Told)], stream: usize) -> Vec<&(u32, u32, Told)> {
        let of_it = told.iter().filter(|(of, ..)| *of == stream as u32 + 1);
        of_it.collect()
    }

    #[test]
    fn numbers_are_those_of_the_list() {
        for kind in 0..KINDS {
            let (event, _) = example(kind, 0, 0);
            let number = event.words(0)[0];
            assert_eq!(event.kind().map(|kind| kind as u32), Some(number));
        }
    }

    proptest! {
        #[test]
        fn all_comes_back(acts in acts(3)) {
            // One for each act, if its text is long.
            let trace = buffers::<200, 32>();
            let expected = record(trace, 3, &acts);
            prop_assert_eq!(trace.lost(), 0);
            prop_assert_eq!(expected.len(), acts.len());
            let told = read(trace);
            for stream in 0..3 {
                prop_assert_eq!(of_stream(&told, stream), of_stream(&expected, stream));
            }
        }

        #[test]
        fn what_was_last_is_there(acts in acts(5)) {
            let trace = buffers::<4, 33>();
            let expected = record(trace, 5, &acts);
            prop_assert_eq!(trace.lost(), (acts.len() - expected.len()) as u64);
            let told = read(trace);
            for event in &told {
                prop_assert!(expected.contains(event), "{:?}", event);
            }
            prop_assert!(expected.last().is_none_or(|last| told.contains(last)));
            for stream in 0..5 {
                let numbers = of_stream(&told, stream);
                let numbers = numbers.iter().map(|(_, number, _)| *number);
                prop_assert!(numbers.is_sorted_by(|before, after| before < after));
            }
        }
    }

    #[test]
    fn an_event_within_another_is_lost_and_counted() {
        let trace = buffers::<4, 32>();
        let stream = Stream::new(1);
        let ran = stream.alone(|| {
            trace.record(&stream, 5, Event::resumed());
            trace.record_with(&stream, 6, Event::log(0), "one", "text");
        });
        assert!(ran.is_some());
        assert_eq!((trace.lost(), read(trace).len()), (2, 0));
        trace.record(&stream, 7, Event::resumed());
        assert_eq!((trace.lost(), read(trace).len()), (2, 1));
    }

    #[test]
    fn where_all_buffers_are_written_events_are_lost_and_counted() {
        let trace = buffers::<3, 32>();
        let streams = [1, 2, 3, 4].map(Stream::new);
        for stream in &streams {
            trace.record(stream, 5, Event::resumed());
        }
        assert_eq!((trace.lost(), read(trace).len()), (1, 3));
        trace.close_stream(&streams[1]);
        trace.record(&streams[3], 6, Event::resumed());
        assert_eq!(trace.lost(), 1);
        let told: Vec<_> = read(trace).iter().map(|(stream, ..)| *stream).collect();
        assert_eq!(told, [1, 3, 4]);
    }

    #[test]
    fn a_stream_records_for_whoever_asks_it_to() {
        let traces = [buffers::<2, 32>(), buffers::<2, 32>()];
        let [one, another] = [1, 2].map(Stream::new);
        for time in 0..20 {
            let trace = traces[time as usize % 2];
            trace.record(&one, time, Event::resumed());
            trace.record_with(&one, time, Event::region_began(1, 0), NAMES[1], "");
            trace.record_with(&one, time, Event::log(0), NAMES[2], "text");
        }
        for (trace, last) in traces.into_iter().zip([18, 19]) {
            // It has a buffer of one of them.
            trace.record(&another, 20, Event::resumed());
            let told = read(trace);
            assert_eq!((told.len(), trace.lost()), (4, 0));
            assert!(
                told[..3]
                    .iter()
                    .all(|(stream, _, it)| (*stream, it.time) == (1, last))
            );
            assert_eq!((told[1].2.name, told[2].2.name), (NAMES[1], NAMES[2]));
        }
    }

    #[test]
    fn long_pauses_are_told_in_full() {
        let trace = buffers::<4, 64>();
        let stream = Stream::new(1);
        let times = [
            MAX_DELTA,
            2 * MAX_DELTA,
            3 * MAX_DELTA + 1,
            u64::MAX,
            2,
            MAX_DELTA + 2,
            1,
        ];
        for time in times {
            trace.record(&stream, time, Event::resumed());
        }
        let told: Vec<_> = read(trace).iter().map(|(.., told)| told.time).collect();
        assert_eq!(told, times);
        // Four of them take three words more; the first has its time in the buffer's head.
        let used: u32 = (0..4)
            .filter_map(|at| trace.look(at))
            .map(|look| look.len)
            .sum();
        assert_eq!(
            used as usize,
            HEADER + times.len() + 3 * TIME_WORDS as usize
        );
    }

    /// What a reader is told of a buffer says 16 bits of the turn.
    #[test]
    fn a_buffer_that_was_open_for_65536_turns_is_not_taken_for_new() {
        let trace = buffers::<2, 32>();
        let [idle, busy] = [1, 2].map(Stream::new);
        trace.record(&idle, 5, Event::resumed());
        let taken_in = trace.turn();
        while trace.turn() != taken_in + (1 << 16) - 1 {
            trace.record(&busy, 5, Event::resumed());
            trace.close_stream(&busy);
        }
        trace.close_stream(&idle);
        trace.record(&busy, 6, Event::resumed());
        // It was passed over for once.
        assert_eq!(trace.turn(), taken_in + (1 << 16) + 1);
        assert_eq!((trace.lost(), read(trace).len()), (0, 2));
    }
}
