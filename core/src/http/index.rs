//! The index page: what there is, in the words of this project.

#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use heapless::String;

use super::entry::Entry;
use crate::encode::Body;
use crate::encode::losses::Losses;
use crate::encode::records::{self, Cursor, Records};
use crate::encode::wire::Window;
use crate::profile::Kind;
use crate::profile::task::Tasks;
use crate::target::Target;

/// Room for what the target says of its sampler.
const DESCRIPTION: usize = if usize::BITS == 64 { 960 } else { 192 };

/// The page; its numbers are those of the moment when it begins, or when a row is reached.
#[derive(Debug)]
pub(super) struct IndexPage<'t, T> {
    target: &'t T,
    cursor: Cursor,
    section: Section,
    /// The number in the row.
    count: u64,
    /// What is to be said of the row's profile: the target's, or "".
    note: &'static str,
    /// What it lacks.
    losses: Losses,
    /// Stack table: locations and calls, used and room, and how many stacks were lost.
    stacks: [u64; 5],
    /// Words of the labels' text and sets, used and room, and how many times labels were lost.
    labels: Option<[u64; 5]>,
    /// Tasks: how many there are, how many there is room for, and how many found none.
    tasks: Option<[u64; 3]>,
    description: String<DESCRIPTION>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Head,
    Rows,
    Tail,
    Done,
}

impl Entry {
    /// What the link asks for: text where there is one.
    const fn query(self) -> &'static str {
        match self {
            Self::CommandLine | Self::Symbol | Self::Trace | Self::Profile(Kind::Cpu) => "",
            Self::Profile(_) => "?debug=1",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Profile(kind) => kind.description(),
            Self::CommandLine => "The command line of the program, its arguments separated by NUL.",
            Self::Symbol => {
                "The names of functions, for addresses in the query (GET) or in the body (POST), \
                 separated by +."
            }
            Self::Trace => {
                "What every task and thread does, from now on for some seconds (1, if seconds does not say), for go tool \
                 trace; with flight=1 what the flight recorder has."
            }
        }
    }
}

impl<'t, T: Target> IndexPage<'t, T> {
    pub(super) fn new(target: &'t T) -> Self {
        let mut description = String::new();
        // What doesn't fit is cut off.
        let _ = target.describe(&mut Cut(&mut description));
        let profiles = target.profiles();
        let used_and_lost = |[(used, room), (other_used, other_room)]: [(usize, usize); 2],
                             lost| {
            [
                used as u64,
                room as u64,
                other_used as u64,
                other_room as u64,
                lost,
            ]
        };
        Self {
            target,
            cursor: Cursor::default(),
            section: Section::Head,
            count: 0,
            note: "",
            losses: Losses::none(Kind::Cpu),
            stacks: used_and_lost(profiles.stacks.usage(), profiles.stacks.lost()),
            labels: profiles.labels.map(|labels| {
                let unlabeled = profiles.heap.map_or(0, |heap| heap.unlabeled());
                used_and_lost(labels.usage(), labels.lost() + unlabeled)
            }),
            tasks: (profiles.tasks)
                .map(|tasks| [tasks.len() as u64, tasks.capacity() as u64, tasks.lost()]),
            description,
        }
    }

    fn find_row(&mut self) -> bool {
        let Some(entry) = Entry::of(self.target).nth(self.cursor.index) else {
            return false;
        };
        let profiles = self.target.profiles();
        (self.note, self.losses) = match entry {
            Entry::Profile(kind) => (
                self.target.note(kind),
                Losses::of(&profiles, kind, profiles.lost(kind), false),
            ),
            Entry::CommandLine | Entry::Symbol | Entry::Trace => ("", Losses::none(Kind::Cpu)),
        };
        self.count = match entry {
            // As in Go, of what is taken anew each time there is nothing to count.
            Entry::CommandLine | Entry::Symbol | Entry::Trace | Entry::Profile(Kind::Cpu) => 0,
            Entry::Profile(Kind::ThreadCreate) => profiles.threads.map_or(0, |rows| {
                let all = (0..=rows.capacity()).map(|index| rows.row_at(index));
                all.map(|row| rows.values(row)[0]).sum()
            }),
            Entry::Profile(Kind::Goroutine) => {
                let tasks = profiles.tasks.map_or(0, |tasks| tasks.len());
                (self.target.thread_count() + tasks) as u64
            }
            Entry::Profile(Kind::GoroutineLeak) => profiles.tasks.map_or(0, leaked),
            Entry::Profile(kind) => profiles.rows(kind).map_or(0, |rows| rows.len() as u64),
        };
        true
    }

    fn render_row(&self, out: &mut Window<'_>) {
        let Some(entry) = Entry::of(self.target).nth(self.cursor.index) else {
            return;
        };
        out.numbers("<tr><td>$</td><td><a href=\"", &[self.count]);
        out.text(entry.name());
        out.text(entry.query());
        out.text("\">");
        out.text(entry.name());
        out.text("</a></td><td>");
        out.text(entry.description());
        if !self.note.is_empty() {
            out.text(NOTE_START);
            out.text(self.note);
            out.text(NOTE_END);
        }
        for line in 0..self.losses.count() {
            out.text(NOTE_START);
            self.losses.render_line(line, out);
            out.text(NOTE_END);
        }
        out.text("</td></tr>\n");
    }

    fn render_tail(&self, out: &mut Window<'_>) {
        out.text("</table>\n");
        if self.tasks.is_some() {
            out.text("<p><a href=\"goroutine?debug=2\">full goroutine stack dump</a></p>\n");
        }
        out.text("<h2>Sampling</h2>\n<ul>\n");
        out.text(&self.description);
        out.numbers(
            "<li>Stack table: $ of $ locations, $ of $ calls in use; $ stacks lost for want of room.</li>\n",
            &self.stacks,
        );
        if let Some(labels) = &self.labels {
            out.numbers(
                "<li>Labels: $ of $ words of text, $ of $ words of sets in use; labels lost for want of room \
                 $ times.</li>\n",
                labels,
            );
        }
        if let Some(tasks) = &self.tasks {
            out.numbers(
                "<li>Tasks: $ now, room for $; $ ran unseen for want of it.</li>\n",
                tasks,
            );
        }
        out.text("</ul>\n</body>\n</html>\n");
    }
}

impl<T: Target> Records for IndexPage<'_, T> {
    fn cursor(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    fn find(&mut self) -> bool {
        while self.section != Section::Done {
            let (found, next) = match self.section {
                Section::Head => (self.cursor.index == 0, Section::Rows),
                Section::Rows => (self.find_row(), Section::Tail),
                Section::Tail | Section::Done => (self.cursor.index == 0, Section::Done),
            };
            if found {
                return true;
            }
            self.section = next;
            self.cursor.index = 0;
        }
        false
    }

    fn render(&self, window: &mut Window<'_>) {
        match self.section {
            Section::Head => window.text(HEAD),
            Section::Rows => self.render_row(window),
            Section::Tail => self.render_tail(window),
            Section::Done => {}
        }
    }
}

impl<T: Target> Body for IndexPage<'_, T> {
    fn fill(&mut self, out: &mut [u8]) -> usize {
        records::fill::<dyn Records>(self, out)
    }
}

const NOTE_START: &str = "<br><em>";
const NOTE_END: &str = "</em>";

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
    <title>/debug/pprof/</title>\n<style>\nbody { font-family: sans-serif; max-width: 56em }\n\
    td, th { text-align: left; vertical-align: top; padding: 0.2em 0.8em 0.2em 0 }\n</style>\n</head>\n\
    <body>\n<h1>/debug/pprof/</h1>\n<p>Profiles of this program. Add <code>?debug=1</code> to read one as \
    text, <code>?seconds=N</code> for what happens in the next N seconds, or give its address to \
    <code>go tool pprof</code>.</p>\n<table>\n<tr><th>Count</th><th>Profile</th><th></th></tr>\n";

/// Looks at all tasks.
fn leaked(tasks: Tasks<'_>) -> u64 {
    let all = (0..tasks.capacity()).filter_map(|slot| tasks.get(slot));
    all.filter(|task| task.is_leaked()).count() as u64
}

/// Keeps of a text what fits.
struct Cut<'a>(&'a mut String<DESCRIPTION>);

impl Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.0.push(character).map_err(|_| fmt::Error)?;
        }
        Ok(())
    }
}
