//! profile.proto (github.com/google/pprof, proto/profile.proto), a record at a time.

#![forbid(unsafe_code)]

use super::Body;
use super::labels::LabelStrings;
use super::losses::Losses;
use super::records::{self, Cursor, Records};
use super::source::{Record, Source};
use super::used::{self, Used};
use super::wire::{Message, Window, bytes, int, integers, length_prefix, message, string, varint};
use crate::profile::labels::{LabelSetId, Text, TextId};
use crate::profile::{Kind, Scaled, ValueType};
use crate::stack::{Frame, Frames, LocationId, Marker, StackId};
use crate::target::{self, Symbols, Target};

/// The field numbers of profile.proto.
mod tag {
    pub(super) const PROFILE_SAMPLE_TYPE: u32 = 1; // repeated ValueType
    pub(super) const PROFILE_SAMPLE: u32 = 2; // repeated Sample
    pub(super) const PROFILE_MAPPING: u32 = 3; // repeated Mapping
    pub(super) const PROFILE_LOCATION: u32 = 4; // repeated Location
    pub(super) const PROFILE_FUNCTION: u32 = 5; // repeated Function
    pub(super) const PROFILE_STRING_TABLE: u32 = 6; // repeated string
    pub(super) const PROFILE_DROP_FRAMES: u32 = 7; // int64, a string
    pub(super) const PROFILE_TIME_NANOS: u32 = 9; // int64
    pub(super) const PROFILE_DURATION_NANOS: u32 = 10; // int64
    pub(super) const PROFILE_PERIOD_TYPE: u32 = 11; // ValueType
    pub(super) const PROFILE_PERIOD: u32 = 12; // int64
    pub(super) const PROFILE_COMMENT: u32 = 13; // repeated int64, strings
    pub(super) const PROFILE_DEFAULT_SAMPLE_TYPE: u32 = 14; // int64, a string

    pub(super) const SAMPLE_LOCATION_ID: u32 = 1; // repeated uint64, leaf first
    pub(super) const SAMPLE_VALUE: u32 = 2; // repeated int64
    pub(super) const SAMPLE_LABEL: u32 = 3; // repeated Label

    // Of the other messages all fields that are set are integers, from 1 up:
    // ValueType: type, unit (strings).
    // Label: key, str (strings), num.
    // Mapping: id, memory_start, memory_limit, file_offset, filename, build_id (strings), has_functions,
    //     has_filenames, has_line_numbers, has_inline_frames.
    // Line: function_id, line.
    // Function: id, name, system_name, filename (strings), start_line.

    pub(super) const LOCATION_ID: u32 = 1; // uint64
    pub(super) const LOCATION_MAPPING_ID: u32 = 2; // uint64
    pub(super) const LOCATION_ADDRESS: u32 = 3; // uint64
    pub(super) const LOCATION_LINE: u32 = 4; // repeated Line, innermost first
}

/// Bytes of ids that are kept: those of 32 frames, or of 64 that are among the most used.
const IDS: usize = 64;

/// Encodes a profile as profile.proto, without gzip.
///
/// Samples come first, as they show which locations the profile uses; then mappings, locations, functions,
/// comments on what is lost, and strings. Counters that move while this goes on are read once, when their record begins.
#[derive(Debug)]
pub struct ProfileEncoder<'t, T: Target> {
    source: Source<'t, T>,
    section: Section,
    cursor: Cursor,
    /// The record, where it is a sample.
    sample: Sample<'t>,
    /// The ids of its locations as they are sent, if there's room for all of them: so most stacks are walked once.
    ids: [u8; IDS],
    /// How many samples have no stack, so far.
    lost: u64,
    /// Whether a sample so far has a stack that is cut off.
    is_cut: bool,
    /// Known when the samples are out.
    losses: Losses,
    used: Used<T::Scratch>,
    label_strings: LabelStrings<'t, T::Scratch>,
    /// The record, where it is a string of a label.
    label_string: TextId,
    /// The record, where it is a location.
    location: LocationId,
    /// From the end of the samples on.
    symbols: Option<T::Symbols>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Header,
    Samples,
    Mappings,
    Locations,
    Functions,
    Comments,
    OwnStrings,
    LabelStrings,
    CommentStrings,
    Strings,
    Done,
}

impl Section {
    const fn next(self) -> Self {
        match self {
            Self::Header => Self::Samples,
            Self::Samples => Self::Mappings,
            Self::Mappings => Self::Locations,
            Self::Locations => Self::Functions,
            Self::Functions => Self::Comments,
            Self::Comments => Self::OwnStrings,
            Self::OwnStrings => Self::LabelStrings,
            Self::LabelStrings => Self::CommentStrings,
            Self::CommentStrings => Self::Strings,
            Self::Strings | Self::Done => Self::Done,
        }
    }
}

impl<'t, T: Target> ProfileEncoder<'t, T> {
    /// Begins with the first byte.
    pub fn new(source: Source<'t, T>) -> Self {
        Self {
            section: Section::Header,
            cursor: Cursor::default(),
            sample: Sample::EMPTY,
            lost: 0,
            is_cut: false,
            losses: Losses::none(source.kind),
            ids: [0; IDS],
            used: Used::numbered(&source.stacks, |words| source.target.scratch(words)),
            label_strings: LabelStrings::new(
                source.labels.filter(|_| source.may_have_labels()),
                |words| source.target.scratch(words),
            ),
            label_string: TextId::EMPTY,
            location: LocationId::new(0),
            symbols: None,
            source,
        }
    }

    fn find_sample(&mut self) -> bool {
        while self.cursor.index < self.source.extent() {
            if let Some(record) = self.source.record(self.cursor.index) {
                let frames = self.source.stacks.frames(record.stack);
                let mut outermost = None;
                let mut ids = Window::new(&mut self.ids);
                let sent = ids.record(0, |ids| {
                    for location in frames.clone() {
                        varint(ids, self.used.insert(location).into());
                        outermost = Some(location);
                    }
                });
                let locations_len = match sent {
                    None => ids.filled(),
                    Some(_) => self.ids_len(&frames),
                };
                self.is_cut |= outermost == Some(Marker::TooDeep.location());
                if record.stack == StackId::LOST {
                    self.lost += record.counted[0];
                }
                if self.source.may_have_labels() {
                    self.label_strings.insert(record.labels);
                }
                (self.sample).load(&self.source, frames, locations_len, &record);
                return true;
            }
            self.cursor.index += 1;
        }
        false
    }

    /// How long the ids of locations are, which are in.
    #[cold]
    fn ids_len(&self, frames: &Frames<'_>) -> usize {
        let mut counting = Window::counting();
        self.render_ids(&mut counting, frames);
        counting.count()
    }

    fn render_ids(&self, sink: &mut Window<'_>, frames: &Frames<'_>) {
        for location in frames.clone() {
            varint(sink, self.used.id(location).into());
        }
    }

    fn find_location(&mut self) -> bool {
        while self.cursor.index < used::places(&self.source.stacks) {
            let location = used::location_at(self.cursor.index);
            if let Some(location) = location.filter(|&location| self.used.contains(location)) {
                self.location = location;
                // A slot that no pc is in is used only where there was no memory for the set of used ones.
                if self.source.stacks.location(location) != Frame::Pc(0) {
                    return true;
                }
            }
            self.cursor.index += 1;
        }
        false
    }

    fn find_function(&mut self) -> bool {
        while self.cursor.index < Marker::ALL.len() {
            if self.uses_marker(self.cursor.index) {
                return true;
            }
            self.cursor.index += 1;
        }
        self.symbol_function().is_some()
    }

    fn find_label_string(&mut self) -> bool {
        if !self.source.may_have_labels() {
            return false;
        }
        let number = self.cursor.index as u32 + 1;
        self.label_string = self.label_strings.text(number);
        number <= self.label_strings.count()
    }

    fn mapping(&self) -> Option<target::Mapping> {
        self.symbols.as_ref()?.mapping(self.cursor.index)
    }

    /// How many of the first `count` markers the profile uses.
    ///
    /// Functions are numbered without gaps: readers that add their own number them from the count of those
    /// that are there (google/pprof's local symbolizer), and would take an id twice.
    fn markers_used(&self, count: usize) -> u32 {
        (0..count)
            .filter(|&marker| self.uses_marker(marker))
            .count() as u32
    }

    fn uses_marker(&self, number: usize) -> bool {
        let marker = Marker::ALL.get(number);
        marker.is_some_and(|marker| self.used.contains(marker.location()))
    }

    fn symbol_function(&self) -> Option<target::Function> {
        let index = self.cursor.index.checked_sub(Marker::ALL.len())?;
        self.symbols.as_ref()?.function(u32::try_from(index).ok()?)
    }

    /// The number of the first comment's string.
    fn first_comment_string(&self) -> u32 {
        let labels = if self.source.may_have_labels() {
            self.label_strings.count()
        } else {
            0
        };
        self.strings().count() + labels
    }

    /// The number of the symbols' first string.
    fn first_symbol_string(&self) -> u32 {
        self.first_comment_string() + self.losses.count() as u32
    }

    fn strings(&self) -> OwnStrings {
        OwnStrings {
            types: self.source.kind.types(),
        }
    }

    fn symbol_string(&self) -> Option<&str> {
        self.symbols
            .as_ref()?
            .string(u32::try_from(self.cursor.index).ok()?)
    }

    fn render_header(&self, sink: &mut Window<'_>) {
        let strings = self.strings();
        for number in 0..strings.types.len() as u32 {
            let is_period = number + 1 == strings.types.len() as u32;
            let field = if is_period {
                tag::PROFILE_PERIOD_TYPE
            } else {
                tag::PROFILE_SAMPLE_TYPE
            };
            let name = OwnStrings::type_name(number);
            integers(sink, field, &[name.into(), (name + 1).into()]);
        }
        // They are signed in profile.proto.
        let mut signed = |field, value: u64| int(sink, field, value.min(i64::MAX as u64));
        signed(tag::PROFILE_PERIOD, self.source.scale.period());
        signed(tag::PROFILE_TIME_NANOS, self.source.time_nanos);
        signed(tag::PROFILE_DURATION_NANOS, self.source.duration_nanos);
        if self.source.kind == Kind::Allocs {
            let name = OwnStrings::type_name(Kind::ALLOC_SPACE as u32);
            int(sink, tag::PROFILE_DEFAULT_SAMPLE_TYPE, name.into());
        }
        if !self.source.drop_frames.is_empty() {
            int(sink, tag::PROFILE_DROP_FRAMES, strings.drop_frames().into());
        }
        if !self.source.note.is_empty() {
            int(sink, tag::PROFILE_COMMENT, strings.note().into());
        }
    }

    fn render_sample(&self, sink: &mut Window<'_>) {
        let sample = &self.sample;
        let mut others = Window::counting();
        length_prefix(&mut others, tag::SAMPLE_LOCATION_ID, sample.locations_len);
        length_prefix(&mut others, tag::SAMPLE_VALUE, sample.values_len);
        self.render_labels(&mut others);
        let len = sample.locations_len + sample.values_len + others.count();
        length_prefix(sink, tag::PROFILE_SAMPLE, len);
        length_prefix(sink, tag::SAMPLE_LOCATION_ID, sample.locations_len);
        match self.ids.get(..sample.locations_len) {
            Some(ids) => sink.bytes(ids),
            None => self.render_ids(sink, &sample.frames),
        }
        length_prefix(sink, tag::SAMPLE_VALUE, sample.values_len);
        sample.render_values(sink);
        self.render_labels(sink);
    }

    fn render_labels(&self, sink: &mut Window<'_>) {
        let first = self.strings().count();
        let string = |number: u32| match number.checked_sub(1) {
            Some(index) => first + index,
            None => OwnStrings::LABEL_EMPTY,
        };
        if self.source.may_have_labels() {
            (self.label_strings).for_each_pair(self.sample.labels, &mut |key, value| {
                let label = [string(key).into(), string(value).into()];
                integers(sink, tag::SAMPLE_LABEL, &label);
            });
        }
        if let Some(size) = self.sample.scaled.object_size {
            // As in Go the number has no unit.
            let label = [OwnStrings::LABEL_BYTES.into(), 0, size];
            integers(sink, tag::SAMPLE_LABEL, &label);
        }
    }

    fn render_mapping(&self, sink: &mut Window<'_>, mapping: &target::Mapping) {
        let strings = self.first_symbol_string();
        let has = u64::from(mapping.is_symbolized);
        let values = [
            self.cursor.index as u64 + 1,
            mapping.start,
            mapping.limit,
            mapping.offset,
            (strings + mapping.filename).into(),
            (strings + mapping.build_id).into(),
            has,
            has,
            has,
            has,
        ];
        integers(sink, tag::PROFILE_MAPPING, &values);
    }

    fn render_function(&self, sink: &mut Window<'_>) {
        let id = self.markers_used(self.cursor.index) + 1;
        let values = match (Marker::ALL.get(self.cursor.index), self.symbol_function()) {
            (Some(&marker), _) => {
                let name = self.strings().marker(marker);
                [id, name, name, 0, 0]
            }
            (None, Some(function)) => {
                let index = self.cursor.index - Marker::ALL.len();
                let strings = self.first_symbol_string();
                [
                    id + index as u32,
                    strings + function.name,
                    strings + function.system_name,
                    strings + function.filename,
                    function.start_line,
                ]
            }
            (None, None) => return,
        };
        integers(sink, tag::PROFILE_FUNCTION, &values.map(u64::from));
    }

    fn render_own_string(&self, sink: &mut Window<'_>) {
        let strings = self.strings();
        let index = self.cursor.index as u32;
        let text = if index == strings.note() {
            self.source.note
        } else if index == strings.drop_frames() {
            self.source.drop_frames
        } else {
            strings.fixed(index)
        };
        string(sink, tag::PROFILE_STRING_TABLE, text);
    }

    fn render_comment_string(&self, sink: &mut Window<'_>) {
        let mut counting = Window::counting();
        self.losses.render_line(self.cursor.index, &mut counting);
        length_prefix(sink, tag::PROFILE_STRING_TABLE, counting.count());
        self.losses.render_line(self.cursor.index, sink);
    }
}

impl<T: Target> Records for ProfileEncoder<'_, T> {
    fn cursor(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    fn find(&mut self) -> bool {
        while self.section != Section::Done {
            let found = match self.section {
                Section::Header => self.cursor.index == 0,
                Section::Samples => self.find_sample(),
                Section::Mappings => self.mapping().is_some(),
                Section::Locations => self.find_location(),
                Section::Functions => self.find_function(),
                Section::Comments | Section::CommentStrings => {
                    self.cursor.index < self.losses.count()
                }
                Section::OwnStrings => self.cursor.index < self.strings().count() as usize,
                Section::LabelStrings => self.find_label_string(),
                Section::Strings => self.symbol_string().is_some(),
                Section::Done => false,
            };
            if found {
                return true;
            }
            if self.section == Section::Samples {
                self.losses = self.source.losses(self.lost, self.is_cut);
                #[cfg(feature = "defmt")]
                if self.losses.samples() != 0 {
                    defmt::warn!(
                        "picoprof: {} samples of {} lost",
                        self.losses.samples(),
                        self.source.kind
                    );
                }
                self.symbols = Some(self.source.symbols(&self.used));
            }
            self.section = self.section.next();
            self.cursor.index = 0;
        }
        false
    }

    fn render(&self, sink: &mut Window<'_>) {
        match self.section {
            Section::Header => self.render_header(sink),
            Section::Samples => self.render_sample(sink),
            Section::Mappings => {
                if let Some(mapping) = self.mapping() {
                    self.render_mapping(sink, &mapping);
                }
            }
            Section::Locations => message(sink, tag::PROFILE_LOCATION, &LocationOf(self)),
            Section::Functions => self.render_function(sink),
            Section::Comments => {
                let string = self.first_comment_string() + self.cursor.index as u32;
                int(sink, tag::PROFILE_COMMENT, string.into());
            }
            Section::OwnStrings => self.render_own_string(sink),
            Section::LabelStrings => {
                let labels = self.source.labels.filter(|_| self.source.may_have_labels());
                let text = labels.map(|labels| labels.text(self.label_string));
                let text = text.as_ref().map_or(&b""[..], Text::as_bytes);
                bytes(sink, tag::PROFILE_STRING_TABLE, text);
            }
            Section::CommentStrings => self.render_comment_string(sink),
            Section::Strings => {
                string(
                    sink,
                    tag::PROFILE_STRING_TABLE,
                    self.symbol_string().unwrap_or(""),
                );
            }
            Section::Done => {}
        }
    }
}

impl<T: Target> Body for ProfileEncoder<'_, T> {
    fn fill(&mut self, out: &mut [u8]) -> usize {
        records::fill(self, out)
    }
}

/// The strings that every profile of a kind has, before those of its symbols: "", the names and units of the
/// types, the markers' names, the target's note and frames to drop.
struct OwnStrings {
    types: &'static [ValueType],
}

impl OwnStrings {
    const LABEL_BYTES: u32 = 1;
    /// A label's text that is empty: to readers a text of number 0 is no text at all.
    const LABEL_EMPTY: u32 = 2;
    const TYPES: u32 = 3;

    /// The name of a type; its unit comes next.
    const fn type_name(number: u32) -> u32 {
        Self::TYPES + 2 * number
    }

    const fn first_marker(&self) -> u32 {
        Self::type_name(self.types.len() as u32)
    }

    const fn marker(&self, marker: Marker) -> u32 {
        self.first_marker() + marker as u32
    }

    const fn note(&self) -> u32 {
        self.first_marker() + Marker::ALL.len() as u32
    }

    const fn drop_frames(&self) -> u32 {
        self.note() + 1
    }

    const fn count(&self) -> u32 {
        self.drop_frames() + 1
    }

    /// The text of those that never change.
    fn fixed(&self, index: u32) -> &'static str {
        if index == Self::LABEL_BYTES {
            return "bytes";
        }
        let Some(index) = index.checked_sub(Self::TYPES) else {
            return "";
        };
        match self.types.get(index as usize / 2) {
            Some(value_type) if index % 2 == 0 => value_type.name,
            Some(value_type) => value_type.unit,
            None => {
                let marker = Marker::ALL.get(index as usize - 2 * self.types.len());
                marker.map_or("", |marker| marker.name())
            }
        }
    }
}

/// A sample whose locations' length is known, so that it takes two walks of its stack and no more.
#[derive(Debug)]
struct Sample<'t> {
    frames: Frames<'t>,
    scaled: Scaled,
    width: usize,
    labels: LabelSetId,
    locations_len: usize,
    values_len: usize,
}

impl<'t> Sample<'t> {
    const EMPTY: Self = Self {
        frames: Frames::EMPTY,
        scaled: Scaled::EMPTY,
        width: 0,
        labels: LabelSetId::EMPTY,
        locations_len: 0,
        values_len: 0,
    };

    /// Where it is: what is copied of it is large on some machines.
    fn load<T: Target>(
        &mut self,
        source: &Source<'t, T>,
        frames: Frames<'t>,
        locations_len: usize,
        record: &Record,
    ) {
        self.frames = frames;
        self.scaled = source.scale.scaled(&record.counted);
        self.width = source.kind.sample_types().len();
        self.labels = record.labels;
        if record.stack == StackId::LOST {
            // The lost samples have no one size.
            self.scaled.object_size = None;
        }
        self.locations_len = locations_len;
        let mut counting = Window::counting();
        self.render_values(&mut counting);
        self.values_len = counting.count();
    }

    fn render_values(&self, sink: &mut Window<'_>) {
        for &value in self.scaled.values.iter().take(self.width) {
            varint(sink, value as u64);
        }
    }
}

/// The location that was found.
struct LocationOf<'a, 't, T: Target>(&'a ProfileEncoder<'t, T>);

impl<T: Target> Message for LocationOf<'_, '_, T> {
    fn render(&self, sink: &mut Window<'_>) {
        let Self(encoder) = self;
        let line = |sink: &mut Window<'_>, function_id: u32, line: u32| {
            integers(sink, tag::LOCATION_LINE, &[function_id.into(), line.into()]);
        };
        int(
            sink,
            tag::LOCATION_ID,
            encoder.used.id(encoder.location).into(),
        );
        match (
            encoder.source.stacks.location(encoder.location),
            &encoder.symbols,
        ) {
            (Frame::Marker(marker), _) => {
                line(sink, encoder.markers_used(marker as usize) + 1, 0);
            }
            (Frame::Pc(pc), Some(symbols)) => {
                if let Some(index) = symbols.mapping_of(pc) {
                    int(sink, tag::LOCATION_MAPPING_ID, index as u64 + 1);
                }
                int(sink, tag::LOCATION_ADDRESS, pc as u64);
                let first_function_id = encoder.markers_used(Marker::ALL.len()) + 1;
                // Innermost first.
                for code in symbols.lines(encoder.location) {
                    line(sink, first_function_id + code.function, code.line);
                }
            }
            (Frame::Pc(_), None) => {}
        }
    }
}
