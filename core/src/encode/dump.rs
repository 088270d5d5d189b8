//! `goroutine?debug=2`: every thread and task by itself, in the format that Go prints when a program panics.
//!
//! For people, and for the tools that read such dumps. They are strict, so that every stack has a frame, and
//! every frame a file and a line. A function is shown as Go shows an inlined one, without arguments and
//! without an offset. The names of threads and tasks have no place in the format, so the outermost frame says
//! them; a task's has in place of arguments how often it was polled, and when.

#![forbid(unsafe_code)]

use super::Body;
use super::goroutines::{Goroutine, Goroutines, id_of_task};
use super::plain::divided;
use super::reasons::Reasons;
use super::records::{self, Cursor, Records};
use super::source;
use super::used::Used;
use super::wire::Window;
use crate::profile::label_text::Place;
use crate::profile::labels::Labels;
use crate::profile::task::{State, Task};
use crate::profile::{Kind, Profiles, Role, Wait};
use crate::stack::{Frame, Frames, LocationId, StackId, Stacks};
use crate::target::{Target, Thread};
use crate::time::{Instant, saturating_nanos};

/// Encodes all threads and tasks, the calling thread first.
///
/// A thread's number is the system's, a task's begins at 1,000,000,001. What can't run any more is marked as
/// leaked.
#[derive(Debug)]
pub struct DumpEncoder<'t, T: Target> {
    target: &'t T,
    stacks: Stacks<'t>,
    labels: Option<Labels<'t>>,
    goroutines: Goroutines<'t, T>,
    /// The locations that `symbols` and `reasons` know of.
    used: Used<T::Scratch>,
    symbols: T::Symbols,
    reasons: Option<Reasons<T::Scratch>>,
    now: Instant,
    cursor: Cursor,
    /// The number of the first goroutine that was not begun; what follows is about the one before.
    next: usize,
    goroutine: Option<Goroutine>,
    part: Part,
    /// Of the goroutine's stack: the frames to come.
    frames: Frames<'t>,
    location: LocationId,
    /// Of who created it: which function of those at the location.
    function: usize,
}

/// What a record shows of a goroutine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Header,
    Frame,
    Name,
    Creator,
}

impl<'t, T: Target> DumpEncoder<'t, T> {
    const HAS_THREADS: bool = Goroutines::<'t, T>::HAS_THREADS;

    /// Takes all threads, and looks at all tasks for the names of the functions that they are at; a task that is
    /// elsewhere when its turn comes has those asked for then. `now` is of the clock that the tasks' times are of.
    pub fn new(target: &'t T, now: Instant) -> Self {
        let profiles: Profiles<'t> = target.profiles();
        let stacks = profiles.stacks;
        let goroutines = Goroutines::of(target, Kind::Goroutine);
        let mut used = Used::marked(&stacks, |words| target.scratch(words));
        for goroutine in goroutines.iter() {
            goroutine.insert_into(&mut used, &stacks);
        }
        let symbols = source::symbols(target, &stacks, &used);
        Self {
            reasons: Reasons::new(target, &stacks, &used, &symbols),
            symbols,
            target,
            stacks,
            labels: profiles.labels,
            goroutines,
            used,
            now,
            cursor: Cursor::default(),
            next: 0,
            goroutine: None,
            part: Part::Creator,
            frames: Frames::EMPTY,
            location: LocationId::new(0),
            function: 0,
        }
    }

    /// Moves on to the next record; false at the end.
    fn advance(&mut self) -> bool {
        loop {
            self.part = match self.part {
                Part::Creator => {
                    let extent = self.goroutines.extent();
                    let mut rest = (self.next..extent)
                        .filter_map(|index| Some((index, self.goroutines.get(index)?)));
                    let Some((index, goroutine)) = rest.next() else {
                        self.next = extent;
                        return false;
                    };
                    self.next = index + 1;
                    self.learn(&goroutine);
                    self.frames = self.frames_of(&goroutine);
                    self.goroutine = Some(goroutine);
                    Part::Header
                }
                Part::Header | Part::Frame => match self.frames.next() {
                    Some(location) => {
                        self.location = location;
                        Part::Frame
                    }
                    None => Part::Name,
                },
                Part::Name => match self.creator() {
                    Some((location, function)) => {
                        (self.location, self.function) = (location, function);
                        Part::Creator
                    }
                    None => {
                        self.part = Part::Creator;
                        continue;
                    }
                },
            };
            return true;
        }
    }

    /// Its stack, without the profiler's own functions that a thread waits in.
    fn frames_of(&self, goroutine: &Goroutine) -> Frames<'t> {
        let mut frames = self.stacks.frames(goroutine.stack());
        if !Self::HAS_THREADS || matches!(goroutine, Goroutine::Task(_)) {
            return frames;
        }
        loop {
            let mut rest = frames.clone();
            let outermost = rest
                .next()
                .and_then(|location| source::functions::<T>(&self.symbols, location).last());
            match outermost {
                Some((name, ..)) if self.target.role_of(name) == Role::Profiler => frames = rest,
                _ => return frames,
            }
        }
    }

    /// Asks for names again if a task has moved to where none was before.
    fn learn(&mut self, goroutine: &Goroutine) {
        if goroutine.insert_into(&mut self.used, &self.stacks) {
            // Its memory may be what the next one needs.
            self.reasons = None;
            self.symbols = source::symbols(self.target, &self.stacks, &self.used);
            self.reasons = Reasons::new(self.target, &self.stacks, &self.used, &self.symbols);
        }
    }

    /// Where a task was spawned: the innermost location with a function of the program's own, and which of the
    /// functions there that is; else the innermost of all.
    fn creator(&self) -> Option<(LocationId, usize)> {
        let frames = self.stacks.frames(self.goroutine?.spawned_at()?);
        let own = frames.clone().find_map(|location| {
            let mut functions = source::functions::<T>(&self.symbols, location);
            let own = functions.position(|(name, ..)| self.target.role_of(name) == Role::Program);
            Some((location, own?))
        });
        own.or_else(|| Some((frames.clone().next()?, 0)))
    }

    fn render_header(&self, out: &mut Window<'_>, goroutine: &Goroutine) {
        // An empty line between any two.
        if self.cursor.index > 0 {
            out.byte(b'\n');
        }
        let wait = self.wait_of(goroutine);
        out.numbers("goroutine $ [", &[goroutine.id()]);
        out.text(wait.name());
        if goroutine.is_leaked() {
            out.text(" (leaked)");
        }
        let minutes = minutes(self.waiting(goroutine));
        if minutes > 0 && !matches!(wait, Wait::Running | Wait::Runnable) {
            out.numbers(", $ minutes", &[minutes]);
        }
        out.byte(b']');
        if let Some(table) = self.labels {
            table.write(goroutine.labels(), Place::Header, out);
        }
        out.text(":\n");
    }

    fn wait_of(&self, goroutine: &Goroutine) -> Wait {
        let by_stack = || {
            let reasons = self.reasons.as_ref()?;
            reasons.wait_of(self.stacks.frames(goroutine.stack()))
        };
        match goroutine {
            // Who asks.
            Goroutine::Thread(_) if self.next == 1 || !Self::HAS_THREADS => Wait::Running,
            Goroutine::Thread(Thread { wait, .. }) => match wait {
                Wait::Running | Wait::Runnable => *wait,
                _ => match by_stack() {
                    Some(found) if !found.is_generic() || wait.is_generic() => found,
                    _ => *wait,
                },
            },
            Goroutine::Task(task) => match task.state {
                State::New | State::Woken => Wait::Runnable,
                State::Running => Wait::Running,
                // It shows where it was spawned: what that waits for is another's wait.
                State::Pending if task.awaits_at == StackId::EMPTY => Wait::Unknown,
                State::Pending => by_stack().unwrap_or(Wait::Unknown),
            },
        }
    }

    /// Nanoseconds.
    fn waiting(&self, goroutine: &Goroutine) -> u64 {
        match goroutine {
            Goroutine::Thread(_) if !Self::HAS_THREADS => 0,
            Goroutine::Thread(thread) => saturating_nanos(thread.waiting),
            Goroutine::Task(task) => self.now.nanos_since(task.since),
        }
    }

    fn render_frame(&self, out: &mut Window<'_>) {
        let mut is_known = false;
        for (name, file, line) in source::functions::<T>(&self.symbols, self.location) {
            render_callee(out, name);
            out.text("(...)\n");
            render_line(out, file, line);
            is_known = true;
        }
        if !is_known {
            self.render_unknown(out);
            out.text("(...)\n");
            render_line(out, "", 0);
        }
    }

    /// In place of a function's name.
    fn render_unknown(&self, out: &mut Window<'_>) {
        match self.stacks.location(self.location) {
            Frame::Pc(pc) => out.hex(pc),
            Frame::Marker(marker) => out.text(marker.name()),
        }
    }

    fn render_name(&self, out: &mut Window<'_>, goroutine: &Goroutine) {
        match goroutine {
            Goroutine::Thread(_) if !Self::HAS_THREADS => {}
            Goroutine::Thread(thread) => {
                out.text("picoprof.thread[");
                render_plain(out, thread_name(thread));
                out.text("](...)\n");
            }
            Goroutine::Task(task) => self.render_task_name(out, task),
        }
        // As Go has it for functions that are in no file.
        render_line(out, "<autogenerated>", 1);
    }

    fn render_task_name(&self, out: &mut Window<'_>, task: &Task) {
        out.text("picoprof.task[");
        render_plain(out, task.name);
        out.numbers("](polls: $, spawned: ", &[task.polls]);
        out.duration(self.now.nanos_since(task.spawned));
        if let Some(woken) = task.woken {
            out.text(" ago, woken: ");
            out.duration(self.now.nanos_since(woken));
        }
        out.text(" ago)\n");
    }

    fn render_creator(&self, out: &mut Window<'_>, goroutine: &Goroutine) {
        let function = source::functions::<T>(&self.symbols, self.location).nth(self.function);
        out.text("created by ");
        match function {
            Some((name, ..)) => render_callee(out, name),
            None => self.render_unknown(out),
        }
        if let Goroutine::Task(task) = goroutine
            && task.parent != 0
        {
            out.numbers(" in goroutine $", &[id_of_task(task.parent)]);
        }
        out.byte(b'\n');
        let (_, file, line) = function.unwrap_or_default();
        render_line(out, file, line);
    }
}

impl Goroutine {
    fn spawned_at(&self) -> Option<StackId> {
        match self {
            Self::Thread(_) => None,
            Self::Task(task) => Some(task.spawned_at),
        }
    }

    /// Puts the locations that are shown of it into a set; true if any was not in it.
    fn insert_into<S>(&self, used: &mut Used<S>, stacks: &Stacks<'_>) -> bool
    where
        S: AsRef<[u64]> + AsMut<[u64]>,
    {
        let mut is_any_new = false;
        for stack in [Some(self.stack()), self.spawned_at()] {
            let frames = stack.map_or(Frames::EMPTY, |stack| stacks.frames(stack));
            for location in frames {
                is_any_new |= !used.contains(location);
                used.insert(location);
            }
        }
        is_any_new
    }

    fn is_leaked(&self) -> bool {
        matches!(self, Self::Task(task) if task.is_leaked())
    }
}

impl<T: Target> Records for DumpEncoder<'_, T> {
    fn cursor(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    fn find(&mut self) -> bool {
        self.advance()
    }

    fn render(&self, window: &mut Window<'_>) {
        let Some(goroutine) = &self.goroutine else {
            return;
        };
        match self.part {
            Part::Header => self.render_header(window, goroutine),
            Part::Frame => self.render_frame(window),
            Part::Name => self.render_name(window, goroutine),
            Part::Creator => self.render_creator(window, goroutine),
        }
    }
}

impl<T: Target> Body for DumpEncoder<'_, T> {
    fn fill(&mut self, out: &mut [u8]) -> usize {
        records::fill::<dyn Records>(self, out)
    }
}

/// The second line of a frame.
fn render_line(out: &mut Window<'_>, file: &str, line: u32) {
    out.byte(b'\t');
    out.text(if file.is_empty() { "??" } else { file });
    out.numbers(":$\n", &[line.into()]);
}

fn minutes(nanos: u64) -> u64 {
    // The product is the nanoseconds of a minute.
    [10_000, 10_000, 600]
        .iter()
        .fold(nanos, |rest, &factor| divided(rest, factor).0)
}

fn thread_name(thread: &Thread) -> &str {
    let bytes = thread.name.split(|&byte| byte == 0).next();
    let name = bytes.and_then(|bytes| core::str::from_utf8(bytes).ok());
    name.unwrap_or("?")
}

/// A function's name as readers can tell it from its arguments: of parentheses in parentheses they know nothing, nor
/// of such that don't close.
fn render_callee(out: &mut Window<'_>, name: &str) {
    let count = |wanted| name.bytes().filter(|&byte| byte == wanted).count();
    // Where they are no pairs, all are taken for inner ones.
    let is_paired = count(b'(') == count(b')');
    render_within(out, name, if is_paired { 0 } else { WITHIN });
}

/// The name of a thread or task: any text, but nothing that ends a name or a line.
fn render_plain(out: &mut Window<'_>, name: &str) {
    render_within(out, name, WITHIN);
}

/// Deeper than a name has parentheses.
const WITHIN: i32 = 1 << 30;

/// Parentheses that are in `depth` others are written as braces, and control characters as question marks.
fn render_within(out: &mut Window<'_>, name: &str, mut depth: i32) {
    let mut bytes = name.as_bytes();
    while let [byte, rest @ ..] = bytes {
        bytes = rest;
        out.byte(match (byte, rest) {
            (b'(', _) => {
                depth += 1;
                if depth == 1 { b'(' } else { b'{' }
            }
            (b')', _) => {
                depth -= 1;
                if depth == 0 { b')' } else { b'}' }
            }
            (0..b' ' | 0x7f, _) => b'?',
            // U+0080 to U+009F.
            (0xc2, [0x80..=0x9f, others @ ..]) => {
                bytes = others;
                b'?'
            }
            (&byte, _) => byte,
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::string::String;

    use super::*;

    fn rendered(render: fn(&mut Window<'_>, &str), name: &str) -> String {
        let mut out = [0; 100];
        let mut window = Window::new(&mut out);
        render(&mut window, name);
        let filled = window.filled();
        String::from_utf8(out[..filled].into()).unwrap()
    }

    #[test]
    fn parentheses_of_names_come_in_pairs_one_after_the_other() {
        for (name, shown) in [
            (
                "core::ptr::drop_in_place<(u8, u8)>",
                "core::ptr::drop_in_place<(u8, u8)>",
            ),
            ("f<fn((A, B)) -> (C,)>::g", "f<fn({A, B}) -> (C,)>::g"),
            ("f<((), ((), ()))>", "f<({}, {{}, {}})>"),
            (")a(", "}a{"),
            ("cut<(", "cut<{"),
            ("cut)", "cut}"),
            ("cut<(a)(", "cut<{a}{"),
            ("two\nlines", "two?lines"),
            ("é\u{80}\u{9f}\u{a0}\x7f\t", "é??\u{a0}??"),
        ] {
            assert_eq!(rendered(render_callee, name), shown);
        }
        assert_eq!(rendered(render_plain, "a (b)\0"), "a {b}?");
    }
}
