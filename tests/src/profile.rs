//! Reading profiles: [`decode`] the bytes, [`validate`] the result, ask for [`Stack`]s by name.

use core::fmt;
use std::collections::HashMap;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use prost::Message;

use crate::profile_proto::{Function, Label, Location, Mapping, Profile, Sample, ValueType};

/// The profile in `bytes`, a gzip file or the message itself, as `go tool pprof` accepts both.
///
/// # Errors
///
/// If the bytes are neither, or cut short.
pub fn decode(bytes: &[u8]) -> Result<Profile, String> {
    let unpacked;
    let message = if bytes.starts_with(&GZIP_MAGIC) {
        unpacked = gunzip(bytes)?;
        &unpacked
    } else {
        bytes
    };
    Profile::decode(message).map_err(|error| format!("not a profile: {error}"))
}

/// The content of the gzip file `bytes`.
///
/// # Errors
///
/// If it is damaged or cut short.
pub fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    match MultiGzDecoder::new(bytes).read_to_end(&mut content) {
        Ok(_) => Ok(content),
        Err(error) => Err(format!("not a gzip file: {error}")),
    }
}

/// RFC 1952, section 2.3.1.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Checks a profile for everything that pprof's own readers reject, and for what they
/// would take but show wrongly or leave out.
///
/// # Errors
///
/// What is wrong with it: the first thing found.
pub fn validate(profile: &Profile) -> Result<(), String> {
    check_strings(profile)?;
    check_header(profile)?;
    let mappings = check_mappings(profile)?;
    let functions = check_functions(profile)?;
    let locations = check_locations(profile, &mappings, &functions)?;
    check_samples(profile, &locations)
}

/// One sample, with names for numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The function names, leaf first, inlined calls included. A location without a function is
    /// its address, as `0x1234`.
    pub frames: Vec<String>,
    /// The values, in the order of [`Profile::sample_types`].
    pub values: Vec<i64>,
    /// Keys and values, in the profile's order.
    pub labels: Vec<(String, LabelValue)>,
}

impl Stack {
    /// Whether some frame's name contains `part`.
    #[must_use]
    pub fn has_frame(&self, part: &str) -> bool {
        self.frames.iter().any(|frame| frame.contains(part))
    }

    /// The first label with that key.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&LabelValue> {
        let found = self.labels.iter().find(|(name, _)| name == key)?;
        Some(&found.1)
    }
}

/// What a label says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelValue {
    /// A text.
    Text(String),
    /// A number and its unit, which may be empty.
    Number(i64, String),
}

impl fmt::Display for LabelValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number, unit) => write!(f, "{number}{unit}"),
        }
    }
}

/// Questions to a profile. They panic where [`validate`] would have refused it.
impl Profile {
    /// The string with that index.
    #[must_use]
    pub fn string(&self, index: i64) -> &str {
        &self.string_table[usize::try_from(index).expect("a string index is not negative")]
    }

    /// Type and unit of the values, as `("cpu", "nanoseconds")`.
    #[must_use]
    pub fn sample_types(&self) -> Vec<(&str, &str)> {
        let types = self.sample_type.iter();
        types
            .map(|value_type| self.value_type(value_type))
            .collect()
    }

    /// Type and unit of the period.
    #[must_use]
    pub fn period_type(&self) -> Option<(&str, &str)> {
        let period_type = self.period_type.as_ref()?;
        Some(self.value_type(period_type))
    }

    /// Which of the values is the one named `sample_type`.
    #[must_use]
    pub fn value_index(&self, sample_type: &str) -> usize {
        let types = self.sample_types();
        let found = types.iter().position(|(name, _)| *name == sample_type);
        found.unwrap_or_else(|| panic!("no sample type {sample_type} among {types:?}"))
    }

    /// The samples, with names.
    #[must_use]
    pub fn stacks(&self) -> Vec<Stack> {
        let locations = self.location.iter().map(|location| (location.id, location));
        let locations: HashMap<u64, &Location> = locations.collect();
        let functions = self.function.iter();
        let names: HashMap<u64, &str> = functions
            .map(|function| (function.id, self.string(function.name)))
            .collect();
        let stack_of = |sample: &Sample| {
            let mut frames = Vec::new();
            for id in &sample.location_id {
                let location = locations[id];
                if location.line.is_empty() {
                    frames.push(format!("{:#x}", location.address));
                }
                let lines = location.line.iter();
                frames.extend(lines.map(|line| names[&line.function_id].to_owned()));
            }
            Stack {
                frames,
                values: sample.value.clone(),
                labels: sample.label.iter().map(|label| self.label(label)).collect(),
            }
        };
        self.sample.iter().map(stack_of).collect()
    }

    /// The sum of the values named `sample_type` over the stacks that have a frame whose name contains
    /// `part`; an empty `part` sums up all.
    #[must_use]
    pub fn total(&self, sample_type: &str, part: &str) -> i64 {
        let index = self.value_index(sample_type);
        let stacks = self.stacks().into_iter();
        stacks
            .filter(|stack| part.is_empty() || stack.has_frame(part))
            .map(|stack| stack.values[index])
            .sum()
    }

    fn value_type(&self, value_type: &ValueType) -> (&str, &str) {
        (self.string(value_type.r#type), self.string(value_type.unit))
    }

    fn label(&self, label: &Label) -> (String, LabelValue) {
        let value = if label.str != 0 {
            LabelValue::Text(self.string(label.str).to_owned())
        } else {
            LabelValue::Number(label.num, self.string(label.num_unit).to_owned())
        };
        (self.string(label.key).to_owned(), value)
    }
}

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

/// Every index in the profile names a string.
fn check_strings(profile: &Profile) -> Result<(), String> {
    let strings = &profile.string_table;
    ensure!(
        strings.first().is_some_and(String::is_empty),
        "the first string is not empty"
    );
    let check = |what: &str, index: i64| {
        let known = usize::try_from(index).is_ok_and(|index| index < strings.len());
        ensure!(known, "{what}: no string {index}");
        Ok(())
    };
    for value_type in profile.sample_type.iter().chain(&profile.period_type) {
        check("value type", value_type.r#type)?;
        check("value unit", value_type.unit)?;
    }
    for label in profile.sample.iter().flat_map(|sample| &sample.label) {
        check("label key", label.key)?;
        check("label text", label.str)?;
        check("label unit", label.num_unit)?;
    }
    for mapping in &profile.mapping {
        check("mapping file", mapping.filename)?;
        check("mapping build id", mapping.build_id)?;
    }
    for function in &profile.function {
        check("function name", function.name)?;
        check("function system name", function.system_name)?;
        check("function file", function.filename)?;
    }
    for comment in &profile.comment {
        check("comment", *comment)?;
    }
    check("drop_frames", profile.drop_frames)?;
    check("keep_frames", profile.keep_frames)?;
    check("default_sample_type", profile.default_sample_type)?;
    check("doc_url", profile.doc_url)
}

/// From here on, every string index is known to be good.
fn check_header(profile: &Profile) -> Result<(), String> {
    ensure!(!profile.sample_type.is_empty(), "no sample type");
    let types = profile.sample_types();
    for (index, (name, unit)) in types.iter().enumerate() {
        ensure!(
            !name.is_empty() && !unit.is_empty(),
            "sample type {index} has no name or unit"
        );
        let first = types.iter().position(|(other, _)| other == name);
        ensure!(first == Some(index), "sample type {name} twice");
    }
    let default = profile.string(profile.default_sample_type);
    ensure!(
        default.is_empty() || types.iter().any(|(name, _)| *name == default),
        "the default sample type {default} is not a sample type"
    );
    ensure!(profile.time_nanos >= 0, "time {}", profile.time_nanos);
    ensure!(
        profile.duration_nanos >= 0,
        "duration {}",
        profile.duration_nanos
    );
    ensure!(profile.period >= 0, "period {}", profile.period);
    Ok(())
}

fn check_mappings(profile: &Profile) -> Result<HashMap<u64, &Mapping>, String> {
    let mappings = by_id("mapping", &profile.mapping, |mapping| mapping.id)?;
    let mut ranges = Vec::new();
    for mapping in &profile.mapping {
        let (start, limit) = (mapping.memory_start, mapping.memory_limit);
        ensure!(
            start < limit,
            "mapping {}: {start:#x} to {limit:#x}",
            mapping.id
        );
        ranges.push((start, limit));
    }
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        ensure!(
            pair[0].1 <= pair[1].0,
            "mappings overlap at {:#x}",
            pair[1].0
        );
    }
    Ok(mappings)
}

fn check_functions(profile: &Profile) -> Result<HashMap<u64, &Function>, String> {
    for function in &profile.function {
        let id = function.id;
        ensure!(
            function.name != 0 || function.system_name != 0,
            "function {id} has no name"
        );
        ensure!(
            function.start_line >= 0,
            "function {id} begins on line {}",
            function.start_line
        );
    }
    by_id("function", &profile.function, |function| function.id)
}

fn check_locations<'a>(
    profile: &'a Profile,
    mappings: &HashMap<u64, &Mapping>,
    functions: &HashMap<u64, &Function>,
) -> Result<HashMap<u64, &'a Location>, String> {
    for location in &profile.location {
        let (id, mapping_id, address) = (location.id, location.mapping_id, location.address);
        if mapping_id != 0 {
            let Some(mapping) = mappings.get(&mapping_id) else {
                return Err(format!("location {id}: no mapping {mapping_id}"));
            };
            ensure!(
                (mapping.memory_start..mapping.memory_limit).contains(&address),
                "location {id}: {address:#x} is outside of mapping {mapping_id}"
            );
        }
        for line in &location.line {
            let function = line.function_id;
            ensure!(
                functions.contains_key(&function),
                "location {id}: no function {function}"
            );
            ensure!(
                line.line >= 0 && line.column >= 0,
                "location {id}: line {}",
                line.line
            );
        }
    }
    by_id("location", &profile.location, |location| location.id)
}

fn check_samples(profile: &Profile, locations: &HashMap<u64, &Location>) -> Result<(), String> {
    let types = profile.sample_type.len();
    for (index, sample) in profile.sample.iter().enumerate() {
        let values = sample.value.len();
        ensure!(
            values == types,
            "sample {index} has {values} values for {types} types"
        );
        for id in &sample.location_id {
            ensure!(
                locations.contains_key(id),
                "sample {index}: no location {id}"
            );
        }
        for label in &sample.label {
            ensure!(label.key != 0, "sample {index}: a label without a key");
            ensure!(
                label.str == 0 || (label.num == 0 && label.num_unit == 0),
                "sample {index}: label {} is both text and number",
                profile.string(label.key)
            );
        }
    }
    Ok(())
}

/// The messages by their ids: not 0, and unique.
fn by_id<'a, T>(
    what: &str,
    messages: &'a [T],
    id_of: impl Fn(&T) -> u64,
) -> Result<HashMap<u64, &'a T>, String> {
    let mut all = HashMap::with_capacity(messages.len());
    for message in messages {
        let id = id_of(message);
        ensure!(id != 0, "a {what} has the id 0");
        ensure!(
            all.insert(id, message).is_none(),
            "two {what}s have the id {id}"
        );
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::profile_proto::Line;

    /// `leaf` inlined into `middle`, called from `0x2000`, which has no name.
    fn sound() -> Profile {
        let strings = [
            "",
            "cpu",
            "nanoseconds",
            "leaf",
            "middle",
            "_ZN6middleE",
            "m.rs",
            "app",
            "worker",
            "a",
            "size",
            "bytes",
        ];
        Profile {
            sample_type: vec![ValueType { r#type: 1, unit: 2 }],
            sample: vec![Sample {
                location_id: vec![7, 8],
                value: vec![30],
                label: vec![
                    Label {
                        key: 8,
                        str: 9,
                        ..Label::default()
                    },
                    Label {
                        key: 10,
                        num: 64,
                        num_unit: 11,
                        ..Label::default()
                    },
                ],
            }],
            mapping: vec![
                Mapping {
                    id: 1,
                    memory_start: 0x1000,
                    memory_limit: 0x3000,
                    filename: 7,
                    ..Mapping::default()
                },
                Mapping {
                    id: 2,
                    memory_start: 0x3000,
                    memory_limit: u64::MAX,
                    ..Mapping::default()
                },
            ],
            location: vec![
                Location {
                    id: 7,
                    mapping_id: 1,
                    address: 0x1010,
                    line: vec![
                        Line {
                            function_id: 1,
                            line: 3,
                            column: 5,
                        },
                        Line {
                            function_id: 2,
                            line: 9,
                            column: 0,
                        },
                    ],
                    ..Location::default()
                },
                Location {
                    id: 8,
                    mapping_id: 1,
                    address: 0x2000,
                    ..Location::default()
                },
            ],
            function: vec![
                Function {
                    id: 1,
                    name: 3,
                    ..Function::default()
                },
                Function {
                    id: 2,
                    name: 4,
                    system_name: 5,
                    filename: 6,
                    start_line: 8,
                },
            ],
            string_table: strings.map(str::to_owned).to_vec(),
            period_type: Some(ValueType { r#type: 1, unit: 2 }),
            period: 10,
            default_sample_type: 1,
            time_nanos: 1,
            duration_nanos: 1,
            ..Profile::default()
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_profile_survives_the_wire_plain_and_packed() {
        let plain = sound().encode_to_vec();
        assert_eq!(decode(&plain), Ok(sound()));
        assert_eq!(decode(&gzip(&plain)), Ok(sound()));
        assert_eq!(decode(&gzip(&plain)[..20]).map_err(|_| ()), Err(()));
        assert_eq!(decode(&plain[..20]).map_err(|_| ()), Err(()));
    }

    #[test]
    fn the_field_numbers_are_those_of_the_proto() {
        // Written out by hand: field number << 3 | wire type, then the value (2: its length first).
        let bytes = [
            b"\x0a\x04\x08\x01\x10\x02".as_slice(), // sample_type: type 1, unit 2
            b"\x12\x10\x0a\x01\x05\x12\x01\x07\x1a\x08\x08\x01\x10\x02\x18\x03\x20\x04", // sample
            b"\x1a\x14\x08\x01\x10\x02\x18\x03\x20\x04\x28\x05\x30\x06\x38\x01\x40\x01\x48\x01\x50\x01",
            b"\x22\x10\x08\x01\x10\x02\x18\x03\x22\x06\x08\x01\x10\x02\x18\x03\x28\x01", // location
            b"\x2a\x0a\x08\x01\x10\x02\x18\x03\x20\x04\x28\x05", // function
            b"\x32\x00\x32\x01a", // string_table
            b"\x38\x07\x40\x08\x48\x09\x50\x0a", // drop_frames to duration_nanos
            b"\x5a\x04\x08\x03\x10\x04\x60\x0c\x6a\x01\x0d\x70\x0e\x78\x0f", // period_type to doc_url
        ]
        .concat();
        let expected = Profile {
            sample_type: vec![ValueType { r#type: 1, unit: 2 }],
            sample: vec![Sample {
                location_id: vec![5],
                value: vec![7],
                label: vec![Label {
                    key: 1,
                    str: 2,
                    num: 3,
                    num_unit: 4,
                }],
            }],
            mapping: vec![Mapping {
                id: 1,
                memory_start: 2,
                memory_limit: 3,
                file_offset: 4,
                filename: 5,
                build_id: 6,
                has_functions: true,
                has_filenames: true,
                has_line_numbers: true,
                has_inline_frames: true,
            }],
            location: vec![Location {
                id: 1,
                mapping_id: 2,
                address: 3,
                line: vec![Line {
                    function_id: 1,
                    line: 2,
                    column: 3,
                }],
                is_folded: true,
            }],
            function: vec![Function {
                id: 1,
                name: 2,
                system_name: 3,
                filename: 4,
                start_line: 5,
            }],
            string_table: vec![String::new(), "a".to_owned()],
            drop_frames: 7,
            keep_frames: 8,
            time_nanos: 9,
            duration_nanos: 10,
            period_type: Some(ValueType { r#type: 3, unit: 4 }),
            period: 12,
            comment: vec![13],
            default_sample_type: 14,
            doc_url: 15,
        };
        assert_eq!(decode(&bytes), Ok(expected.clone()));
        assert_eq!(expected.encode_to_vec(), bytes);
    }

    #[test]
    fn stacks_have_names_values_and_labels() {
        let profile = sound();
        assert_eq!(validate(&profile), Ok(()));
        assert_eq!(profile.sample_types(), [("cpu", "nanoseconds")]);
        assert_eq!(profile.period_type(), Some(("cpu", "nanoseconds")));
        let stacks = profile.stacks();
        assert_eq!(stacks[0].frames, ["leaf", "middle", "0x2000"]);
        assert_eq!(stacks[0].values, [30]);
        assert_eq!(
            stacks[0].label("worker"),
            Some(&LabelValue::Text("a".to_owned()))
        );
        assert_eq!(
            stacks[0].label("size"),
            Some(&LabelValue::Number(64, "bytes".to_owned()))
        );
        assert_eq!(
            (profile.total("cpu", "midd"), profile.total("cpu", "none")),
            (30, 0)
        );
        assert_eq!(profile.total("cpu", ""), 30);
    }

    /// A way to break a profile.
    type Break = fn(&mut Profile);

    #[test]
    fn each_kind_of_broken_profile_is_refused() {
        let breaks: &[(&str, Break)] = &[
            ("first string", |p| p.string_table[0].push('x')),
            ("first string", |p| p.string_table.clear()),
            ("value type: no string 99", |p| p.sample_type[0].r#type = 99),
            ("value unit: no string -1", |p| p.sample_type[0].unit = -1),
            ("value type: no string 12", |p| {
                p.period_type.as_mut().unwrap().r#type = 12
            }),
            ("label key: no string", |p| p.sample[0].label[0].key = 99),
            ("label text: no string", |p| p.sample[0].label[0].str = 99),
            ("label unit: no string", |p| {
                p.sample[0].label[1].num_unit = 99
            }),
            ("mapping file: no string", |p| p.mapping[0].filename = 99),
            ("mapping build id: no string", |p| {
                p.mapping[0].build_id = 99
            }),
            ("function name: no string", |p| p.function[0].name = 99),
            ("function system name: no string", |p| {
                p.function[0].system_name = 99
            }),
            ("function file: no string", |p| p.function[0].filename = 99),
            ("comment: no string", |p| p.comment.push(99)),
            ("drop_frames: no string", |p| p.drop_frames = 99),
            ("keep_frames: no string", |p| p.keep_frames = 99),
            ("default_sample_type: no string", |p| {
                p.default_sample_type = 99
            }),
            ("doc_url: no string", |p| p.doc_url = 99),
            ("no sample type", |p| p.sample_type.clear()),
            ("has no name or unit", |p| p.sample_type[0].r#type = 0),
            ("has no name or unit", |p| p.sample_type[0].unit = 0),
            ("cpu twice", |p| p.sample_type.push(p.sample_type[0])),
            ("is not a sample type", |p| p.default_sample_type = 2),
            ("time -1", |p| p.time_nanos = -1),
            ("duration -1", |p| p.duration_nanos = -1),
            ("period -1", |p| p.period = -1),
            ("a mapping has the id 0", |p| p.mapping[0].id = 0),
            ("two mappings have the id 2", |p| p.mapping[0].id = 2),
            ("mapping 1: 0x3000 to 0x3000", |p| {
                p.mapping[0].memory_start = 0x3000
            }),
            ("mappings overlap at 0x2fff", |p| {
                p.mapping[1].memory_start = 0x2fff
            }),
            ("a function has the id 0", |p| p.function[0].id = 0),
            ("two functions have the id 2", |p| p.function[0].id = 2),
            ("function 1 has no name", |p| p.function[0].name = 0),
            ("function 2 begins on line -1", |p| {
                p.function[1].start_line = -1
            }),
            ("a location has the id 0", |p| p.location[0].id = 0),
            ("two locations have the id 8", |p| p.location[0].id = 8),
            ("location 7: no mapping 3", |p| p.location[0].mapping_id = 3),
            ("0x3000 is outside of mapping 1", |p| {
                p.location[1].address = 0x3000
            }),
            ("location 7: no function 3", |p| {
                p.location[0].line[0].function_id = 3
            }),
            ("location 7: no function 0", |p| {
                p.location[0].line[0].function_id = 0
            }),
            ("location 7: line -1", |p| p.location[0].line[0].line = -1),
            ("0 values for 1 types", |p| p.sample[0].value.clear()),
            ("2 values for 1 types", |p| p.sample[0].value.push(1)),
            ("sample 0: no location 9", |p| {
                p.sample[0].location_id[0] = 9
            }),
            ("sample 0: no location 0", |p| {
                p.sample[0].location_id[0] = 0
            }),
            ("a label without a key", |p| p.sample[0].label[0].key = 0),
            ("worker is both text and number", |p| {
                p.sample[0].label[0].num = 1
            }),
        ];
        for (complaint, break_it) in breaks {
            let mut profile = sound();
            break_it(&mut profile);
            let error = validate(&profile).expect_err(complaint);
            assert!(error.contains(complaint), "{complaint}: {error}");
        }
    }
}
