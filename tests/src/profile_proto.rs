//! The messages of profile.proto (<https://github.com/google/pprof/blob/main/proto/profile.proto>).
//!
//! Written by hand, so that building the tests takes no `protoc`. Field numbers and types were compared
//! one by one with that file and with the decoder that Go 1.27 carries. Strings are indices into
//! [`Profile::string_table`]; ids are references between the messages, and 0 is none.

use prost::Message;

/// A whole profile.
#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    /// What each entry of [`Sample::value`] means.
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    /// The samples.
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    /// The binaries in memory, the main one first.
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    /// The places that samples name.
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    /// The functions that locations name.
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// Every string; the first is empty.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    /// A regular expression: matching frames are dropped, with what they call.
    #[prost(int64, tag = "7")]
    pub drop_frames: i64,
    /// A regular expression: matching frames are kept all the same.
    #[prost(int64, tag = "8")]
    pub keep_frames: i64,
    /// When the collection began, in nanoseconds since 1970 (UTC).
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// How long it took.
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    /// What was counted between two samples.
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    /// How many of these there were between two samples.
    #[prost(int64, tag = "12")]
    pub period: i64,
    /// Free text.
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
    /// The type of the value to show first; the last one if unset.
    #[prost(int64, tag = "14")]
    pub default_sample_type: i64,
    /// Where the profile is explained.
    #[prost(int64, tag = "15")]
    pub doc_url: i64,
}

/// The meaning and the unit of a value.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ValueType {
    /// As `cpu`, `inuse_space`.
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// As `nanoseconds`, `count`.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// Values at one stack with one set of labels.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Sample {
    /// The stack, leaf first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// One for each of [`Profile::sample_type`].
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    /// What else is known.
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// A key with a text or a number.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Label {
    /// The key.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// The text, or 0.
    #[prost(int64, tag = "2")]
    pub str: i64,
    /// The number, where there is no text.
    #[prost(int64, tag = "3")]
    pub num: i64,
    /// The number's unit.
    #[prost(int64, tag = "4")]
    pub num_unit: i64,
}

/// A binary in memory.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Mapping {
    /// Unique, not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The first address.
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    /// The first address beyond.
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    /// Where in the file the first address comes from.
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    /// The file, or a name in brackets.
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// The GNU build id, in hex.
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    /// Function names have been looked up.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    /// File names have been looked up.
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    /// Line numbers have been looked up.
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    /// Inlined calls have been looked up.
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// A place in the program.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Location {
    /// Unique, not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The mapping that it is in, or 0.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// The instruction's address.
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// The source lines: several where calls were inlined, the innermost first.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
    /// Other functions have the same code.
    #[prost(bool, tag = "5")]
    pub is_folded: bool,
}

/// A line of a function's source.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Line {
    /// The function.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// The line, or 0.
    #[prost(int64, tag = "2")]
    pub line: i64,
    /// The column, or 0.
    #[prost(int64, tag = "3")]
    pub column: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Function {
    /// Unique, not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The name to show.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// The name in the symbol table: mangled.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    /// The source file.
    #[prost(int64, tag = "4")]
    pub filename: i64,
    /// The line it begins on.
    #[prost(int64, tag = "5")]
    pub start_line: i64,
}
