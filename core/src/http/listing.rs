//! The index page of a program without texts: links, and what is lost.

#![forbid(unsafe_code)]

use super::entry::Entry;
use crate::encode::Body;
use crate::encode::losses::Losses;
use crate::encode::records::{self, Cursor, Records};
use crate::encode::wire::Window;
use crate::profile::Kind;
use crate::target::Target;

/// The page, a record for each endpoint.
#[derive(Debug)]
pub(super) struct Listing<'t, T> {
    target: &'t T,
    cursor: Cursor,
    /// The record.
    entry: Entry,
    /// What its profile lacks.
    losses: Losses,
}

impl<'t, T: Target> Listing<'t, T> {
    pub(super) fn new(target: &'t T) -> Self {
        Self {
            target,
            cursor: Cursor::default(),
            entry: Entry::CommandLine,
            losses: Losses::none(Kind::Cpu),
        }
    }
}

impl<T: Target> Records for Listing<'_, T> {
    fn cursor(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    fn find(&mut self) -> bool {
        let Some(entry) = Entry::of(self.target).nth(self.cursor.index) else {
            return false;
        };
        self.entry = entry;
        self.losses = Losses::none(Kind::Cpu);
        if let Entry::Profile(kind) = entry {
            let profiles = self.target.profiles();
            self.losses = Losses::of(&profiles, kind, profiles.lost(kind), false);
        }
        true
    }

    fn render(&self, window: &mut Window<'_>) {
        let name = self.entry.name();
        for text in ["<p><a href=\"", name, "\">", name, "</a>\n"] {
            window.text(text);
        }
        for line in 0..self.losses.count() {
            window.text("<br>");
            self.losses.render_line(line, window);
            window.text("\n");
        }
    }
}

impl<T: Target> Body for Listing<'_, T> {
    fn fill(&mut self, out: &mut [u8]) -> usize {
        records::fill::<dyn Records>(self, out)
    }
}
