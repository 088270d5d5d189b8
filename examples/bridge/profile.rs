//! A profile of addresses becomes one of functions.
//!
//! What `go tool pprof` wants of it: a Function for each name, Lines for each Location with the function that
//! was inlined innermost first, all four `has_*` flags on the Mapping, or it replaces good lines by what
//! it finds itself, and functions numbered without gaps, as it numbers its own from their count.

#![forbid(unsafe_code)]

use core::fmt;
use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use prost::Message as _;

use crate::MOST_BYTES;
use crate::names::{self, Code, Frame};
use crate::proto::{self, Profile};

/// Far more than a device has; what is written for each takes memory here.
const MOST_LOCATIONS: usize = 1 << 20;

/// Why a profile gets no names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is none, or breaks the rules of profile.proto.
    Broken(String),
    /// It is of another program: the build id that it says.
    WrongElf(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => write!(f, "the device's answer is not a sound profile: {why}"),
            Self::WrongElf(id) => write!(f, "the device runs another program: build id {id}"),
        }
    }
}

/// Whether this can be nothing but a profile in gzip.
pub(crate) fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// The build id of the program that a profile is of: of the first mapping, or "".
pub(crate) fn build_id(bytes: &[u8]) -> Result<String, Refusal> {
    let profile = decode(bytes)?;
    Ok((profile.mapping.first()).map_or(String::new(), |main| {
        string(&profile, main.build_id).to_owned()
    }))
}

/// The same profile with the names, files and lines of `code`, in gzip; and the build id of the program that it is of,
/// or "".
///
/// Only what has no lines yet gets some: so the marked frames of the device stay, and a profile of a server
/// that knows its names is as it was. What kind of profile it is says the `name` of its endpoint.
pub(crate) fn add_names(
    bytes: &[u8],
    name: &str,
    code: &mut Code,
) -> Result<(String, Vec<u8>), Refusal> {
    let mut profile = decode(bytes)?;
    let (of, ours) = mappings_of(&profile, code)?;
    let mut writer = Writer::new(&profile);
    let mut locations = core::mem::take(&mut profile.location);
    for location in &mut locations {
        let mapping = ours.get(&location.mapping_id);
        if let Some(mapping) = mapping.filter(|_| location.line.is_empty()) {
            let address = file_address(mapping, location.address, code);
            let frames = address.map(|address| code.frames(address));
            let frames = frames.as_deref().unwrap_or_default();
            let frames = if name == "mutex" {
                holders(frames)
            } else {
                frames
            };
            for frame in frames {
                location.line.push(writer.line(&mut profile, frame));
            }
        }
    }
    profile.location = locations;
    // In brackets, so that readers don't open it. They have all names from here; Go's own, when it finds the file,
    // makes its page with the source of what little it can read there, and shows none.
    let filename = writer.string(&mut profile, &format!("[{}]", code.file_name()));
    let build_id = writer.string(&mut profile, code.build_id());
    for mapping in &mut profile.mapping {
        if ours.contains_key(&mapping.id) {
            mapping.filename = filename;
            if build_id != 0 {
                mapping.build_id = build_id;
            }
            mapping.has_functions = true;
            mapping.has_filenames = code.has_lines();
            mapping.has_line_numbers = code.has_lines();
            mapping.has_inline_frames = code.has_lines();
        }
    }
    if !ours.is_empty() && profile.drop_frames == 0 {
        profile.drop_frames = writer.string(&mut profile, drop_frames(name));
    }
    Ok((of, encode(&profile)?))
}

/// What `Profile.drop_frames` is where the device has none: frames between the one that is looked for and the place
/// where it was counted. They match whole names; pprof drops what these call with them.
fn drop_frames(name: &str) -> &'static str {
    match name {
        // How a task waits: the leaf is what it waits for.
        "block" | "goroutine" => concat!(
            r"<?core::task::wake::Waker as core::clone::Clone>::clone|core::task::wake::.*clone|",
            r"picoprof::profile::task::.*::pend",
        ),
        _ => "",
    }
}

/// Without the inlined functions that unmask interrupts at the end of a critical section: the leaf is who kept them
/// masked.
///
/// Not by `drop_frames`: what is pending interrupts just these functions, and pprof would drop the handlers that are then
/// above them.
fn holders(frames: &[Frame]) -> &[Frame] {
    let is_release = |frame: &Frame| {
        let name = &*frame.function.name;
        ["critical_section::release", "_critical_section_1_0_release"].contains(&name)
            || name.ends_with(" as critical_section::Impl>::release")
            || name.starts_with("<critical_section::with::Guard")
            || name.starts_with("core::ptr::drop_in_place")
                && name.ends_with("<critical_section::with::Guard>")
    };
    let holder = frames.iter().position(|frame| !is_release(frame));
    holder.and_then(|at| frames.get(at..)).unwrap_or(frames)
}

fn decode(bytes: &[u8]) -> Result<Profile, Refusal> {
    let broken = |why: String| Refusal::Broken(why);
    let mut plain = Vec::new();
    let bytes = if is_gzip(bytes) {
        let limited = MultiGzDecoder::new(bytes).take(MOST_BYTES as u64 + 1);
        let read = { limited }.read_to_end(&mut plain);
        read.map_err(|error| broken(format!("gzip: {error}")))?;
        if plain.len() > MOST_BYTES {
            return Err(broken(format!("it has more than {MOST_BYTES} bytes")));
        }
        &plain
    } else {
        bytes
    };
    let profile = Profile::decode(bytes).map_err(|error| broken(error.to_string()))?;
    check(&profile).map_err(|why| broken(why.to_owned()))?;
    Ok(profile)
}

fn encode(profile: &Profile) -> Result<Vec<u8>, Refusal> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let written = gzip.write_all(&profile.encode_to_vec());
    let finished = written.and_then(|()| gzip.finish());
    finished.map_err(|error| Refusal::Broken(error.to_string()))
}

/// What readers rely on, and what is relied on here.
fn check(profile: &Profile) -> Result<(), &'static str> {
    if profile.sample_type.is_empty() {
        return Err("it says nothing of what it counts");
    }
    if profile.location.len() > MOST_LOCATIONS {
        return Err("it has too many locations");
    }
    if profile.string_table.first().is_none_or(|s| !s.is_empty()) {
        return Err("its first string is not empty");
    }
    let is_string =
        |&index: &i64| usize::try_from(index).is_ok_and(|index| index < profile.string_table.len());
    let types = profile.sample_type.iter().chain(&profile.period_type);
    let labels = profile.sample.iter().flat_map(|sample| &sample.label);
    let strings = (types.flat_map(|it| [it.r#type, it.unit]))
        .chain(labels.flat_map(|it| [it.key, it.str, it.num_unit]))
        .chain((profile.mapping.iter()).flat_map(|it| [it.filename, it.build_id]))
        .chain((profile.function.iter()).flat_map(|it| [it.name, it.system_name, it.filename]))
        .chain(profile.comment.iter().copied())
        .chain([profile.drop_frames, profile.keep_frames])
        .chain([profile.default_sample_type, profile.doc_url]);
    if !{ strings }.all(|index| is_string(&index)) {
        return Err("a string is missing");
    }
    let mappings = ids(profile.mapping.iter().map(|it| it.id))?;
    let functions = ids(profile.function.iter().map(|it| it.id))?;
    if functions.iter().any(|&id| id > u64::from(u32::MAX)) {
        return Err("its functions have too high ids");
    }
    let locations = ids(profile.location.iter().map(|it| it.id))?;
    for location in &profile.location {
        if location.mapping_id != 0 && !mappings.contains(&location.mapping_id) {
            return Err("a mapping is missing");
        }
        let mut called = location.line.iter().map(|line| line.function_id);
        if !called.all(|id| functions.contains(&id)) {
            return Err("a function is missing");
        }
    }
    for sample in &profile.sample {
        if sample.value.len() != profile.sample_type.len() {
            return Err("a sample has other values than its types");
        }
        if !sample.location_id.iter().all(|id| locations.contains(id)) {
            return Err("a location is missing");
        }
    }
    Ok(())
}

fn ids(all: impl Iterator<Item = u64>) -> Result<HashSet<u64>, &'static str> {
    let mut seen = HashSet::new();
    for id in all {
        if id == 0 || !seen.insert(id) {
            return Err("an id is 0, or taken twice");
        }
    }
    Ok(seen)
}

/// The mappings that are of this file and have no names yet, by id.
///
/// And the build id of the program. Where build ids are known on both sides they decide. Where they are not, the first mapping is the program's.
fn mappings_of(
    profile: &Profile,
    code: &Code,
) -> Result<(String, HashMap<u64, proto::Mapping>), Refusal> {
    let id_of = |mapping: &proto::Mapping| string(profile, mapping.build_id);
    let is_known = |mapping: &&proto::Mapping| !id_of(mapping).is_empty();
    let mut ours: Vec<&proto::Mapping> = profile.mapping.iter().take(1).collect();
    let mut of = ours.iter().map(|main| id_of(main)).collect::<String>();
    if let Some(known) = profile.mapping.iter().find(is_known)
        && !code.build_id().is_empty()
    {
        let is_ours = |mapping: &&proto::Mapping| id_of(mapping) == code.build_id();
        ours = profile.mapping.iter().filter(is_ours).collect();
        if ours.is_empty() {
            return Err(Refusal::WrongElf(id_of(known).to_owned()));
        }
        of = code.build_id().to_owned();
    }
    ours.retain(|mapping| !mapping.has_functions);
    Ok((of, ours.into_iter().map(|it| (it.id, *it)).collect()))
}

/// The address in the file. A mapping that begins at 0 says that addresses are the file's (firmware); others
/// say where a part of the file was loaded to.
fn file_address(mapping: &proto::Mapping, address: u64, code: &Code) -> Option<u64> {
    if mapping.memory_start == 0 {
        return Some(address);
    }
    let offset = address.checked_sub(mapping.memory_start)?;
    code.address_of(offset.checked_add(mapping.file_offset)?)
}

fn string(profile: &Profile, index: i64) -> &str {
    let index = usize::try_from(index).ok();
    index
        .and_then(|index| profile.string_table.get(index))
        .map_or("", String::as_str)
}

/// Adds to a profile what it doesn't have yet.
struct Writer {
    strings: HashMap<String, i64>,
    functions: HashMap<names::Function, u64>,
    last_function: u64,
}

impl Writer {
    fn new(profile: &Profile) -> Self {
        let strings = profile.string_table.iter().zip(0..);
        Self {
            // Of equal strings any will do.
            strings: strings.map(|(text, index)| (text.clone(), index)).collect(),
            functions: HashMap::new(),
            last_function: (profile.function.iter().map(|it| it.id)).max().unwrap_or(0),
        }
    }

    fn string(&mut self, profile: &mut Profile, text: &str) -> i64 {
        if text.is_empty() {
            return 0;
        }
        if let Some(&index) = self.strings.get(text) {
            return index;
        }
        let index = profile.string_table.len() as i64;
        profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }

    fn line(&mut self, profile: &mut Profile, frame: &names::Frame) -> proto::Line {
        proto::Line {
            function_id: self.function(profile, &frame.function),
            line: i64::from(frame.line),
            column: 0,
        }
    }

    fn function(&mut self, profile: &mut Profile, function: &names::Function) -> u64 {
        if let Some(&id) = self.functions.get(function) {
            return id;
        }
        self.last_function += 1;
        let written = proto::Function {
            id: self.last_function,
            name: self.string(profile, &function.name),
            system_name: self.string(profile, function.system_name_for_readers()),
            filename: self.string(profile, &function.file),
            start_line: i64::from(function.start_line),
        };
        profile.function.push(written);
        self.functions.insert(function.clone(), self.last_function);
        self.last_function
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(names: &[&str]) -> Vec<Frame> {
        let frames = names.iter().map(|&name| Frame {
            function: names::Function {
                name: name.into(),
                system_name: name.into(),
                file: "".into(),
                start_line: 0,
            },
            line: 1,
        });
        frames.collect()
    }

    #[test]
    fn who_keeps_interrupts_masked_is_the_leaf() {
        let all = stack(&[
            "<picoprof::profile::lock::masked::CriticalSection<I> as critical_section::Impl>::release",
            "_critical_section_1_0_release",
            "critical_section::release",
            "<critical_section::with::Guard as core::ops::drop::Drop>::drop",
            "core::ptr::drop_in_place::<critical_section::with::Guard>",
            "critical_section::with",
            "critical_section::release",
            "hold",
        ]);
        assert_eq!(holders(&all), &all[5..]);
        let (release, hold) = (&all[..5], &all[7..]);
        // One of its own is the device's: samples need it.
        assert_eq!(holders(release), release);
        assert_eq!(holders(hold), hold);
        assert_eq!(holders(&[]), []);
    }
}
