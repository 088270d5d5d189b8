//! profile.proto (github.com/google/pprof, proto/profile.proto), a record at a time.

#![forbid(unsafe_code)]

use super::Body;
use super::labels::LabelStrings;
use super::losses::Losses;
use super::records::{self, Cursor, Records};
use super::source::{Record, Source};
use super::used::{self, Used};
use super::wire::{
    Message, Window, bytes, int, length_prefix, message, string, varint, varint_len,
};
use crate::profile::labels::{LabelSetId, Text, TextId};
use crate::profile::{Kind, SampleValues, ValueType};
use crate::stack::{Frame, Frames, Marker, StackId};
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

    pub(super) const VALUE_TYPE_TYPE: u32 = 1; // int64, a string
    pub(super) const VALUE_TYPE_UNIT: u32 = 2; // int64, a string

    pub(super) const SAMPLE_LOCATION_ID: u32 = 1; // repeated uint64, leaf first
    pub(super) const SAMPLE_VALUE: u32 = 2; // repeated int64
    pub(super) const SAMPLE_LABEL: u32 = 3; // repeated Label

    pub(super) const LABEL_KEY: u32 = 1; // int64, a string
    pub(super) const LABEL_STR: u32 = 2; // int64, a string
    pub(super) const LABEL_NUM: u32 = 3; // int64

    pub(super) const MAPPING_ID: u32 = 1; // uint64
    pub(super) const MAPPING_MEMORY_START: u32 = 2; // uint64
    pub(super) const MAPPING_MEMORY_LIMIT: u32 = 3; // uint64
    pub(super) const MAPPING_FILE_OFFSET: u32 = 4; // uint64
    pub(super) const MAPPING_FILENAME: u32 = 5; // int64, a string
    pub(super) const MAPPING_BUILD_ID: u32 = 6; // int64, a string
    pub(super) const MAPPING_HAS: [u32; 4] = [7, 8, 9, 10]; // functions, filenames, line_numbers, inline_frames

    pub(super) const LOCATION_ID: u32 = 1; // uint64
    pub(super) const LOCATION_MAPPING_ID: u32 = 2; // uint64
    pub(super) const LOCATION_ADDRESS: u32 = 3; // uint64
    pub(super) const LOCATION_LINE: u32 = 4; // repeated Line, innermost first

    pub(super) const LINE_FUNCTION_ID: u32 = 1; // uint64
    pub(super) const LINE_LINE: u32 = 2; // int64

    pub(super) const FUNCTION_ID: u32 = 1; // uint64
    pub(super) const FUNCTION_NAME: u32 = 2; // int64, a string
    pub(super) const FUNCTION_SYSTEM_NAME: u32 = 3; // int64, a string
    pub(super) const FUNCTION_FILENAME: u32 = 4; // int64, a string
    pub(super) const FUNCTION_START_LINE: u32 = 5; // int64
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
    /// Whether a sample so far has a stack that is cut off.
    is_cut: bool,
    /// Known when the samples are out.
    losses: Losses,
    used: Used<T::Scratch>,
    label_strings: LabelStrings<'t, T::Scratch>,
    /// The record, where it is a string of a label.
    label_string: TextId,
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
            is_cut: false,
            losses: Losses::none(source.kind),
            ids: [0; IDS],
            used: Used::numbered(&source.stacks, |words| source.target.scratch(words)),
            label_strings: LabelStrings::new(source.labels, |words| source.target.scratch(words)),
            label_string: TextId::EMPTY,
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
                self.label_strings.insert(record.labels);
                self.sample = Sample::new(&self.source, frames, locations_len, record);
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
            if self.location().is_some() {
                return true;
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
        let number = self.cursor.index as u64 + 1;
        self.label_string = self.label_strings.text(number);
        number <= self.label_strings.count()
    }

    fn mapping(&self) -> Option<target::Mapping> {
        self.symbols.as_ref()?.mapping(self.cursor.index)
    }

    fn location(&self) -> Option<Location<'_, T::Symbols>> {
        let location = used::location_at(self.cursor.index)?;
        let id = Some(u64::from(self.used.id(location))).filter(|&id| id != 0)?;
        let (address, lines) = match self.source.stacks.location(location) {
            Frame::Marker(marker) => {
                let function_id = self.markers_used(marker as usize) + 1;
                (0, Lines::Marker { function_id })
            }
            // A slot that no pc is in: it is here only where there was no memory for the set of used ones.
            Frame::Pc(0) => return None,
            Frame::Pc(pc) => {
                let lines = self.symbols.as_ref()?.lines(location);
                let first_function_id = self.markers_used(Marker::ALL.len()) + 1;
                let code = Lines::Code {
                    lines,
                    first_function_id,
                };
                (pc, code)
            }
        };
        Some(Location {
            id,
            address,
            lines,
            symbols: self.symbols.as_ref()?,
        })
    }

    /// How many of the first `count` markers the profile uses.
    ///
    /// Functions are numbered without gaps: readers that add their own number them from the count of those
    /// that are there (google/pprof's local symbolizer), and would take an id twice.
    fn markers_used(&self, count: usize) -> u64 {
        (0..count)
            .filter(|&marker| self.uses_marker(marker))
            .count() as u64
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
    fn first_comment_string(&self) -> u64 {
        OwnStrings::count(self.source.kind) as u64 + self.label_strings.count()
    }

    /// The number of the symbols' first string.
    fn first_symbol_string(&self) -> u64 {
        self.first_comment_string() + self.losses.count() as u64
    }

    fn symbol_string(&self) -> Option<&str> {
        self.symbols
            .as_ref()?
            .string(u32::try_from(self.cursor.index).ok()?)
    }

    fn render_header(&self, sink: &mut Window<'_>) {
        let kind = self.source.kind;
        for number in 0..kind.sample_types().len() {
            let value_type = StringPair(OwnStrings::sample_type(number));
            message(sink, tag::PROFILE_SAMPLE_TYPE, &value_type);
        }
        let period_type = StringPair(OwnStrings::period_type(kind));
        message(sink, tag::PROFILE_PERIOD_TYPE, &period_type);
        for (field, value) in [
            (tag::PROFILE_PERIOD, self.source.scale.period()),
            (tag::PROFILE_TIME_NANOS, self.source.time_nanos),
            (tag::PROFILE_DURATION_NANOS, self.source.duration_nanos),
        ] {
            // They are signed in profile.proto.
            int(sink, field, value.min(i64::MAX as u64));
        }
        if let Some(number) =
            (kind.sample_types().iter()).position(|t| Some(t.name) == kind.default_sample_type())
        {
            let (name, _) = OwnStrings::sample_type(number);
            int(sink, tag::PROFILE_DEFAULT_SAMPLE_TYPE, name);
        }
        if !self.source.drop_frames.is_empty() {
            int(
                sink,
                tag::PROFILE_DROP_FRAMES,
                OwnStrings::drop_frames(kind),
            );
        }
        if !self.source.note.is_empty() {
            int(sink, tag::PROFILE_COMMENT, OwnStrings::note(kind));
        }
    }

    fn render_sample(&self, sink: &mut Window<'_>) {
        let sample = &self.sample;
        let values_len = sample.values().map(varint_len).sum();
        let mut labels = Window::counting();
        self.render_labels(&mut labels);
        let packed = |len: usize| 1 + varint_len(len as u64) + len;
        let len = packed(sample.locations_len) + packed(values_len) + labels.count();
        length_prefix(sink, tag::PROFILE_SAMPLE, len);
        length_prefix(sink, tag::SAMPLE_LOCATION_ID, sample.locations_len);
        match self.ids.get(..sample.locations_len) {
            Some(ids) => sink.bytes(ids),
            None => self.render_ids(sink, &sample.frames),
        }
        length_prefix(sink, tag::SAMPLE_VALUE, values_len);
        for value in sample.values() {
            varint(sink, value);
        }
        self.render_labels(sink);
    }

    fn render_labels(&self, sink: &mut Window<'_>) {
        let first = OwnStrings::count(self.source.kind) as u64;
        let string = |number: u64| match number.checked_sub(1) {
            Some(index) => first + index,
            None => OwnStrings::LABEL_EMPTY,
        };
        (self.label_strings).for_each_pair(self.sample.labels, |key, value| {
            let label = TextLabel {
                key: string(key),
                text: string(value),
            };
            message(sink, tag::SAMPLE_LABEL, &label);
        });
        if let Some(size) = self.sample.object_size {
            message(sink, tag::SAMPLE_LABEL, &BytesLabel { size });
        }
    }

    fn render_own_string(&self, sink: &mut Window<'_>) {
        let kind = self.source.kind;
        let index = self.cursor.index as u64;
        if index == OwnStrings::note(kind) {
            string(sink, tag::PROFILE_STRING_TABLE, self.source.note);
        } else if index == OwnStrings::drop_frames(kind) {
            string(sink, tag::PROFILE_STRING_TABLE, self.source.drop_frames);
        } else {
            string(
                sink,
                tag::PROFILE_STRING_TABLE,
                OwnStrings::fixed(kind, index),
            );
        }
    }

    fn render_comment_string(&self, sink: &mut Window<'_>) {
        if let Some(line) = self.losses.line(self.cursor.index) {
            let mut counting = Window::counting();
            line.render(&mut counting);
            length_prefix(sink, tag::PROFILE_STRING_TABLE, counting.count());
            line.render(sink);
        }
    }

    fn function(&self) -> Function {
        let kind = self.source.kind;
        if let Some(&marker) = Marker::ALL.get(self.cursor.index) {
            let name = OwnStrings::marker(kind, marker);
            return Function {
                id: self.markers_used(self.cursor.index) + 1,
                name,
                system_name: name,
                filename: 0,
                start_line: 0,
            };
        }
        let base = self.first_symbol_string();
        let index = self.cursor.index - Marker::ALL.len();
        let id = self.markers_used(Marker::ALL.len()) + index as u64 + 1;
        self.symbol_function()
            .map_or(Function::default(), |f| Function {
                id,
                name: base + u64::from(f.name),
                system_name: base + u64::from(f.system_name),
                filename: base + u64::from(f.filename),
                start_line: u64::from(f.start_line),
            })
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
                Section::OwnStrings => self.cursor.index < OwnStrings::count(self.source.kind),
                Section::LabelStrings => self.find_label_string(),
                Section::Strings => self.symbol_string().is_some(),
                Section::Done => false,
            };
            if found {
                return true;
            }
            if self.section == Section::Samples {
                self.losses = self.source.losses(self.is_cut);
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
                    let mapping = Mapping {
                        id: self.cursor.index as u64 + 1,
                        mapping,
                        strings: self.first_symbol_string(),
                    };
                    message(sink, tag::PROFILE_MAPPING, &mapping);
                }
            }
            Section::Locations => {
                if let Some(location) = self.location() {
                    message(sink, tag::PROFILE_LOCATION, &location);
                }
            }
            Section::Functions => message(sink, tag::PROFILE_FUNCTION, &self.function()),
            Section::Comments => {
                let string = self.first_comment_string() + self.cursor.index as u64;
                int(sink, tag::PROFILE_COMMENT, string);
            }
            Section::OwnStrings => self.render_own_string(sink),
            Section::LabelStrings => {
                let text = (self.source.labels).map(|labels| labels.text(self.label_string));
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
struct OwnStrings;

impl OwnStrings {
    const LABEL_BYTES: u64 = 1;
    /// A label's text that is empty: to readers a text of number 0 is no text at all.
    const LABEL_EMPTY: u64 = 2;
    const TYPES: usize = 3;

    fn count(kind: Kind) -> usize {
        Self::drop_frames(kind) as usize + 1
    }

    fn sample_type(number: usize) -> (u64, u64) {
        let name = (Self::TYPES + 2 * number) as u64;
        (name, name + 1)
    }

    fn period_type(kind: Kind) -> (u64, u64) {
        Self::sample_type(kind.sample_types().len())
    }

    fn marker(kind: Kind, marker: Marker) -> u64 {
        Self::period_type(kind).1 + 1 + marker as u64
    }

    fn note(kind: Kind) -> u64 {
        Self::period_type(kind).1 + 1 + Marker::ALL.len() as u64
    }

    fn drop_frames(kind: Kind) -> u64 {
        Self::note(kind) + 1
    }

    /// The text of those that never change.
    fn fixed(kind: Kind, index: u64) -> &'static str {
        if index == Self::LABEL_BYTES {
            return "bytes";
        }
        let Some(index) = (index as usize).checked_sub(Self::TYPES) else {
            return "";
        };
        let types = kind.sample_types();
        let of_type = |t: ValueType| if index % 2 == 0 { t.name } else { t.unit };
        match types.get(index / 2) {
            Some(&value_type) => of_type(value_type),
            None if index / 2 == types.len() => of_type(kind.period_type()),
            None => {
                let marker = Marker::ALL.get(index - 2 * types.len() - 2);
                marker.map_or("", |marker| marker.name())
            }
        }
    }
}

/// A sample whose locations' length is known, so that it takes two walks of its stack and no more.
#[derive(Debug)]
struct Sample<'t> {
    frames: Frames<'t>,
    values: SampleValues,
    width: usize,
    labels: LabelSetId,
    object_size: Option<u64>,
    locations_len: usize,
}

impl<'t> Sample<'t> {
    const EMPTY: Self = Self {
        frames: Frames::EMPTY,
        values: [0; 4],
        width: 0,
        labels: LabelSetId::EMPTY,
        object_size: None,
        locations_len: 0,
    };

    fn new<T: Target>(
        source: &Source<'t, T>,
        frames: Frames<'t>,
        locations_len: usize,
        record: Record,
    ) -> Self {
        let object_size = source.scale.object_size(&record.counted);
        Self {
            locations_len,
            frames,
            values: source.values(&record.counted),
            width: source.kind.sample_types().len(),
            labels: record.labels,
            // The lost samples have no one size.
            object_size: object_size.filter(|_| record.stack != StackId::LOST),
        }
    }

    fn values(&self) -> impl Iterator<Item = u64> {
        self.values
            .iter()
            .take(self.width)
            .map(|&value| value as u64)
    }
}

/// A label of the program's.
struct TextLabel {
    key: u64,
    text: u64,
}

impl Message for TextLabel {
    fn render(&self, sink: &mut Window<'_>) {
        int(sink, tag::LABEL_KEY, self.key);
        int(sink, tag::LABEL_STR, self.text);
    }
}

/// The numeric label `bytes`: the size of the objects that a heap sample counts. As in Go it has no unit.
struct BytesLabel {
    size: u64,
}

impl Message for BytesLabel {
    fn render(&self, sink: &mut Window<'_>) {
        int(sink, tag::LABEL_KEY, OwnStrings::LABEL_BYTES);
        int(sink, tag::LABEL_NUM, self.size);
    }
}

/// A `ValueType`.
struct StringPair((u64, u64));

impl Message for StringPair {
    fn render(&self, sink: &mut Window<'_>) {
        int(sink, tag::VALUE_TYPE_TYPE, self.0.0);
        int(sink, tag::VALUE_TYPE_UNIT, self.0.1);
    }
}

struct Mapping {
    id: u64,
    mapping: target::Mapping,
    /// The number of the symbols' first string.
    strings: u64,
}

impl Message for Mapping {
    fn render(&self, sink: &mut Window<'_>) {
        let mapping = &self.mapping;
        int(sink, tag::MAPPING_ID, self.id);
        int(sink, tag::MAPPING_MEMORY_START, mapping.start);
        int(sink, tag::MAPPING_MEMORY_LIMIT, mapping.limit);
        int(sink, tag::MAPPING_FILE_OFFSET, mapping.offset);
        int(
            sink,
            tag::MAPPING_FILENAME,
            self.strings + u64::from(mapping.filename),
        );
        int(
            sink,
            tag::MAPPING_BUILD_ID,
            self.strings + u64::from(mapping.build_id),
        );
        for field in tag::MAPPING_HAS {
            int(sink, field, u64::from(mapping.is_symbolized));
        }
    }
}

struct Location<'a, S> {
    id: u64,
    address: usize,
    lines: Lines<'a>,
    symbols: &'a S,
}

enum Lines<'a> {
    Marker {
        function_id: u64,
    },
    Code {
        lines: &'a [target::Line],
        first_function_id: u64,
    },
}

impl<S: Symbols> Message for Location<'_, S> {
    fn render(&self, sink: &mut Window<'_>) {
        int(sink, tag::LOCATION_ID, self.id);
        match &self.lines {
            Lines::Marker { function_id } => {
                let line = Line {
                    function_id: *function_id,
                    line: 0,
                };
                message(sink, tag::LOCATION_LINE, &line);
            }
            Lines::Code {
                lines,
                first_function_id,
            } => {
                if let Some(index) = self.symbols.mapping_of(self.address) {
                    int(sink, tag::LOCATION_MAPPING_ID, index as u64 + 1);
                }
                int(sink, tag::LOCATION_ADDRESS, self.address as u64);
                for line in *lines {
                    let line = Line {
                        function_id: u64::from(line.function) + first_function_id,
                        line: u64::from(line.line),
                    };
                    message(sink, tag::LOCATION_LINE, &line);
                }
            }
        }
    }
}

struct Line {
    function_id: u64,
    line: u64,
}

impl Message for Line {
    fn render(&self, sink: &mut Window<'_>) {
        int(sink, tag::LINE_FUNCTION_ID, self.function_id);
        int(sink, tag::LINE_LINE, self.line);
    }
}

#[derive(Default)]
struct Function {
    id: u64,
    name: u64,
    system_name: u64,
    filename: u64,
    start_line: u64,
}

impl Message for Function {
    fn render(&self, sink: &mut Window<'_>) {
        int(sink, tag::FUNCTION_ID, self.id);
        int(sink, tag::FUNCTION_NAME, self.name);
        int(sink, tag::FUNCTION_SYSTEM_NAME, self.system_name);
        int(sink, tag::FUNCTION_FILENAME, self.filename);
        int(sink, tag::FUNCTION_START_LINE, self.start_line);
    }
}
