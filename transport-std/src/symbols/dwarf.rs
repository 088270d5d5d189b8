//! Inline chains, files and lines out of DWARF 2 to 5, for a sorted list of addresses.
//!
//! A general reader keeps every function and every row of the units that it touches, which is
//! tens of megabytes for a mid-sized service. Here all addresses are known beforehand, so each
//! unit is read once, walked once, and only what covers an address is kept: the memory in use
//! is one unit's bytes and the answers.
//!
//! Sections follow DWARF 5: units 7.5, range lists 7.25 and 2.17, line programs 6.2.

use core::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use gimli::{
    Abbreviation, Abbreviations, AttributeValue, DebugAbbrev, DebugAbbrevOffset, DebugAddr,
    DebugAddrBase, DebugAddrIndex, DebugLine, DebugLineOffset, DebugRanges, DebugRngLists,
    DebugRngListsBase, DebugStrOffsets, DebugStrOffsetsBase, DwAt, Encoding, EndianSlice,
    EntriesRaw, Format, LittleEndian, RangeLists, RangeListsOffset, UnitOffset,
};

use super::elf::{Elf, Section, into_text, u16_at, u32_at, u64_at};
use super::modules::Modules;

/// One function at an address: the innermost inlined one first, the real one last.
#[derive(Debug)]
pub(super) struct Frame {
    /// Key into [`Answers::functions`]; `None` when only a line is known.
    pub(super) function: Option<u64>,
    pub(super) file: Option<Rc<str>>,
    pub(super) line: u32,
}

/// What the entry of a function says about it.
#[derive(Debug, Default)]
pub(super) struct Function {
    /// `DW_AT_name`: in Rust the last part of the path alone.
    pub(super) name: Option<Rc<str>>,
    /// `DW_AT_linkage_name`, which line tables alone don't have.
    pub(super) linkage_name: Option<Rc<str>>,
    pub(super) start_line: u32,
    pub(super) rust: bool,
}

/// Frames for each address asked for, in the same order, and what they refer to.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) frames: Vec<Vec<Frame>>,
    pub(super) functions: HashMap<u64, Function>,
    pub(super) modules: Modules,
}

/// Looks up `addresses`, which are sorted and are the object's own.
pub(super) fn look_up(elf: &Elf, addresses: &[u64]) -> Answers {
    let sections = Sections::open(elf);
    let mut probes: Vec<Probe> = addresses.iter().copied().map(Probe::new).collect();
    let mut modules = Modules::default();
    let (units, claims) = sections.index(&probes, &mut modules);

    let mut buffer = Vec::new();
    for claim in claims.chunk_by(|a, b| a.unit == b.unit) {
        let mut members: Vec<usize> = claim
            .iter()
            .map(|claim| claim.probe)
            .filter(|&probe| probes.get(probe).is_some_and(|probe| !probe.complete))
            .collect();
        members.dedup();
        if let Some(first) = claim.first() {
            // A unit that cannot be read leaves its addresses to the symbol table.
            let _ = sections.look_in(first.unit, &members, &mut probes, &mut buffer);
        }
    }
    drop(buffer);

    let functions = sections.describe(
        &units,
        probes
            .iter()
            .flat_map(|probe| probe.frames.iter())
            .filter_map(|frame| frame.function)
            .collect(),
    );
    Answers {
        frames: probes.into_iter().map(|probe| probe.frames).collect(),
        functions,
        modules,
    }
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Value<'a> = AttributeValue<Slice<'a>>;

/// How many bytes of an entry are read at first; nearly all are shorter.
const ENTRY: u64 = 512;
/// And at most, when that was not enough.
const LONGEST_ENTRY: u64 = 64 << 10;
/// How many references are followed from a function to its name.
const LONGEST_TRAIL: usize = 16;
/// Entries and range lists are read this many bytes at a time, or more.
const WINDOW: u64 = 4 << 10;
/// How much of a range list is looked at first.
const SHORT_LIST: u64 = 256;

/// An address on its way to its frames.
#[derive(Debug)]
struct Probe {
    address: u64,
    /// The real function, and the calls that were inlined into it, outermost first.
    function: Option<u64>,
    calls: Vec<Call>,
    /// File index and line of the address itself.
    row: Option<(u64, u32)>,
    frames: Vec<Frame>,
    complete: bool,
}

#[derive(Debug)]
struct Call {
    function: u64,
    file: Option<u64>,
    line: u32,
}

impl Probe {
    fn new(address: u64) -> Self {
        Self {
            address,
            function: None,
            calls: Vec::new(),
            row: None,
            frames: Vec::new(),
            complete: false,
        }
    }
}

/// The unit at this offset says that it covers the probe.
#[derive(Debug)]
struct Claim {
    unit: u64,
    probe: usize,
}

/// A text that an attribute names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Text {
    Str(u64),
    LineStr(u64),
    Inline(Vec<u8>),
}

/// The header of a unit, and what its root entry says.
#[derive(Debug)]
struct Unit {
    offset: u64,
    /// Offset of the next unit.
    end: u64,
    /// Bytes before the root entry.
    header: u64,
    encoding: Encoding,
    abbreviations: Rc<Abbreviations>,
    pcs: Pcs,
    base: u64,
    lines: Option<u64>,
    name: Option<Text>,
    directory: Option<Text>,
    rust: bool,
    bases: Bases,
}

#[derive(Clone, Copy, Debug)]
struct Bases {
    addresses: DebugAddrBase<usize>,
    strings: DebugStrOffsetsBase<usize>,
    ranges: DebugRngListsBase<usize>,
}

/// The attributes that say which addresses an entry covers.
#[derive(Clone, Copy, Debug, Default)]
struct Pcs {
    low: Option<u64>,
    high: Option<u64>,
    size: Option<u64>,
    list: Option<u64>,
}

struct Sections<'a> {
    info: Section<'a>,
    lines: Section<'a>,
    strings: Section<'a>,
    line_strings: Section<'a>,
    ranges: Section<'a>,
    range_lists: Section<'a>,
    // Small, and read at random: kept.
    abbreviations: Vec<u8>,
    addresses: Vec<u8>,
    string_offsets: Vec<u8>,
    // Units and entries are visited in order, several to a read.
    window: RefCell<Window>,
}

impl<'a> Sections<'a> {
    fn open(elf: &'a Elf) -> Self {
        Self {
            info: elf.section(".debug_info"),
            lines: elf.section(".debug_line"),
            strings: elf.section(".debug_str"),
            line_strings: elf.section(".debug_line_str"),
            ranges: elf.section(".debug_ranges"),
            range_lists: elf.section(".debug_rnglists"),
            abbreviations: elf.section(".debug_abbrev").read_all(),
            addresses: elf.section(".debug_addr").read_all(),
            string_offsets: elf.section(".debug_str_offsets").read_all(),
            window: RefCell::default(),
        }
    }

    /// Walks all units: where they end, which of them cover which probes, and which crates they
    /// are from.
    fn index(&self, probes: &[Probe], modules: &mut Modules) -> (Vec<u64>, Vec<Claim>) {
        let mut ends = Vec::new();
        let mut claims = Vec::new();
        let mut ranges = Window::default();
        let mut abbreviations = None;
        let mut directory: (Option<Text>, String) = (None, String::new());
        let mut offset = 0;
        while offset < self.info.size() {
            let Some(end) = self.unit_end(offset) else {
                break;
            };
            if let Some(unit) = self.unit(offset, &mut abbreviations) {
                let start = claims.len();
                self.for_each_range(&unit, unit.pcs, &mut ranges, |low, high| {
                    let first = probes.partition_point(|probe| probe.address < low);
                    let covered = probes
                        .iter()
                        .enumerate()
                        .skip(first)
                        .take_while(|(_, probe)| probe.address < high);
                    claims.extend(covered.map(|(probe, _)| Claim {
                        unit: offset,
                        probe,
                    }));
                });
                if let Some(new) = claims.get_mut(start..) {
                    new.sort_unstable_by_key(|claim| claim.probe);
                }
                if unit.rust
                    && let Some(name) = unit.name.as_ref().and_then(|name| self.text(name))
                {
                    if directory.0 != unit.directory {
                        let text = unit.directory.as_ref().and_then(|text| self.text(text));
                        directory = (unit.directory, text.unwrap_or_default());
                    }
                    modules.add_unit(&name, &directory.1);
                }
            }
            ends.push(end);
            offset = end;
        }
        (ends, claims)
    }

    fn unit_end(&self, offset: u64) -> Option<u64> {
        let mut window = self.window.borrow_mut();
        let (length, _, size) = initial_length(window.bytes(&self.info, offset, ENTRY)?)?;
        offset.checked_add(length)?.checked_add(size)
    }

    /// Reads the header and the root entry of the unit at `offset`.
    ///
    /// `last` keeps the abbreviations of the unit before: neighbours often share them.
    fn unit(&self, offset: u64, last: &mut Option<(usize, Rc<Abbreviations>)>) -> Option<Unit> {
        let mut window = self.window.borrow_mut();
        let bytes = window.bytes(&self.info, offset, ENTRY)?;
        let (length, format, mut at) = initial_length(bytes)?;
        let end = offset.checked_add(length)?.checked_add(at)?;
        let word = u64::from(format.word_size());
        let version = u16_at(bytes, usize::try_from(at).ok()?)?;
        at += 2;
        let offset_at = |at: u64| -> Option<u64> {
            let at = usize::try_from(at).ok()?;
            match format {
                Format::Dwarf32 => u32_at(bytes, at).map(u64::from),
                Format::Dwarf64 => u64_at(bytes, at),
            }
        };
        let byte_at = |at: u64| bytes.get(usize::try_from(at).ok()?).copied();
        let (address_size, abbreviations) = match version {
            2..=4 => (byte_at(at + word)?, offset_at(at)?),
            5 => (byte_at(at + 1)?, offset_at(at + 2)?),
            _ => return None,
        };
        at += word + 1;
        if version == 5 {
            // Compile and partial units end here, skeletons have an id more. The other types
            // hold no code.
            at += match byte_at(at - word - 1)? {
                0x01 | 0x03 => 1,
                0x04 => 1 + 8,
                _ => return None,
            };
        }
        drop(window);
        let encoding = Encoding {
            format,
            version,
            address_size,
        };
        let abbreviations_at = usize::try_from(abbreviations).ok()?;
        let abbreviations = match last {
            Some((offset, abbreviations)) if *offset == abbreviations_at => {
                Rc::clone(abbreviations)
            }
            _ => {
                let parsed = DebugAbbrev::new(&self.abbreviations, LittleEndian)
                    .abbreviations(DebugAbbrevOffset(abbreviations_at))
                    .ok()?;
                let parsed = Rc::new(parsed);
                *last = Some((abbreviations_at, Rc::clone(&parsed)));
                parsed
            }
        };
        let mut unit = Unit {
            offset,
            end,
            header: at,
            encoding,
            abbreviations,
            pcs: Pcs::default(),
            base: 0,
            lines: None,
            name: None,
            directory: None,
            rust: false,
            bases: Bases {
                addresses: DebugAddrBase(0),
                strings: DebugStrOffsetsBase::default_for_encoding_and_file(
                    encoding,
                    gimli::DwarfFileType::Main,
                ),
                ranges: DebugRngListsBase::default_for_encoding_and_file(
                    encoding,
                    gimli::DwarfFileType::Main,
                ),
            },
        };
        self.entry(
            &Rc::clone(&unit.abbreviations),
            &unit.place(),
            at,
            |_, values| {
                self.read_root(&mut unit, values);
            },
        )?;
        Some(unit)
    }

    fn read_root(&self, unit: &mut Unit, values: &[(DwAt, Value<'_>)]) {
        // The bases first: other attributes may be indices that need them.
        for (_, value) in values {
            match *value {
                AttributeValue::DebugAddrBase(base) => unit.bases.addresses = base,
                AttributeValue::DebugStrOffsetsBase(base) => unit.bases.strings = base,
                AttributeValue::DebugRngListsBase(base) => unit.bases.ranges = base,
                _ => {}
            }
        }
        for &(name, value) in values {
            match name {
                gimli::DW_AT_name => unit.name = self.text_of(unit, value),
                gimli::DW_AT_comp_dir => unit.directory = self.text_of(unit, value),
                gimli::DW_AT_stmt_list => {
                    if let AttributeValue::DebugLineRef(offset) = value {
                        unit.lines = Some(offset.0 as u64);
                    }
                }
                gimli::DW_AT_language => {
                    unit.rust = value == AttributeValue::Language(gimli::DW_LANG_Rust);
                }
                _ => {
                    let mut pcs = unit.pcs;
                    self.read_pcs(unit, name, value, &mut pcs);
                    unit.pcs = pcs;
                }
            }
        }
        unit.base = unit.pcs.low.unwrap_or(0);
    }

    /// Reads the attributes of the entry at `at` in the unit.
    fn entry(
        &self,
        abbreviations: &Abbreviations,
        place: &Place,
        at: u64,
        mut f: impl FnMut(&Abbreviation, &[(DwAt, Value<'_>)]),
    ) -> Option<()> {
        let offset = place.offset.checked_add(at)?;
        let left = place.end.checked_sub(offset)?;
        let mut window = self.window.borrow_mut();
        let mut size = ENTRY;
        loop {
            let bytes = window.bytes(&self.info, offset, size.min(left))?;
            let mut entries = EntriesRaw::new(
                EndianSlice::new(bytes, LittleEndian),
                place.encoding,
                abbreviations,
                UnitOffset(usize::try_from(at).ok()?),
            );
            if let Some((abbreviation, values)) = read_values(&mut entries) {
                f(abbreviation, &values);
                return Some(());
            }
            if size >= left || size >= LONGEST_ENTRY {
                return None;
            }
            size = LONGEST_ENTRY;
        }
    }

    fn text_of(&self, unit: &Unit, value: Value<'_>) -> Option<Text> {
        match value {
            AttributeValue::String(text) => Some(Text::Inline(text.slice().to_vec())),
            AttributeValue::DebugStrRef(offset) => Some(Text::Str(offset.0 as u64)),
            AttributeValue::DebugLineStrRef(offset) => Some(Text::LineStr(offset.0 as u64)),
            AttributeValue::DebugStrOffsetsIndex(index) => {
                let offsets = EndianSlice::new(&self.string_offsets, LittleEndian);
                let offset = DebugStrOffsets::from(offsets)
                    .get_str_offset(unit.encoding.format, unit.bases.strings, index)
                    .ok()?;
                Some(Text::Str(offset.0 as u64))
            }
            _ => None,
        }
    }

    fn text(&self, text: &Text) -> Option<String> {
        match text {
            Text::Str(offset) => self.strings.string(*offset),
            Text::LineStr(offset) => self.line_strings.string(*offset),
            Text::Inline(bytes) => Some(into_text(bytes.clone())),
        }
    }

    fn address(&self, unit: &Unit, index: DebugAddrIndex<usize>) -> Option<u64> {
        DebugAddr::from(EndianSlice::new(&self.addresses, LittleEndian))
            .get_address(unit.encoding.address_size, unit.bases.addresses, index)
            .ok()
    }

    fn read_pcs(&self, unit: &Unit, name: DwAt, value: Value<'_>, pcs: &mut Pcs) {
        match (name, value) {
            (gimli::DW_AT_low_pc, AttributeValue::Addr(address)) => pcs.low = Some(address),
            (gimli::DW_AT_low_pc, AttributeValue::DebugAddrIndex(index)) => {
                pcs.low = self.address(unit, index);
            }
            (gimli::DW_AT_high_pc, AttributeValue::Addr(address)) => pcs.high = Some(address),
            (gimli::DW_AT_high_pc, AttributeValue::DebugAddrIndex(index)) => {
                pcs.high = self.address(unit, index);
            }
            (gimli::DW_AT_high_pc, value) => pcs.size = value.udata_value(),
            (gimli::DW_AT_ranges, AttributeValue::RangeListsRef(offset)) => {
                pcs.list = Some(offset.0 as u64);
            }
            (gimli::DW_AT_ranges, AttributeValue::DebugRngListsIndex(index)) => {
                pcs.list = self.list_offset(unit, index.0 as u64);
            }
            _ => {}
        }
    }

    /// The offset of a range list given by index (DWARF 5, 7.28).
    fn list_offset(&self, unit: &Unit, index: u64) -> Option<u64> {
        let word = u64::from(unit.encoding.format.word_size());
        let base = unit.bases.ranges.0 as u64;
        let at = base.checked_add(index.checked_mul(word)?)?;
        let mut bytes = Vec::with_capacity(8);
        self.range_lists.read(at, word, &mut bytes)?;
        let offset = match unit.encoding.format {
            Format::Dwarf32 => u64::from(u32_at(&bytes, 0)?),
            Format::Dwarf64 => u64_at(&bytes, 0)?,
        };
        base.checked_add(offset)
    }

    /// Calls `f` with the begin and the end of every range that the attributes give.
    fn for_each_range(
        &self,
        unit: &Unit,
        pcs: Pcs,
        window: &mut Window,
        mut f: impl FnMut(u64, u64),
    ) {
        // Linkers leave the entries of dropped functions at 0, 1 or the highest addresses.
        let mut report = |low: u64, high: u64| {
            if low > 1 && low < high {
                f(low, high);
            }
        };
        if let Some(list) = pcs.list {
            // A list that cannot be read to its end covers nothing.
            for (low, high) in self.range_list(unit, list, window).unwrap_or_default() {
                report(low, high);
            }
        } else if let (Some(low), Some(high)) = (pcs.low, pcs.high) {
            report(low, high);
        } else if let (Some(low), Some(size)) = (pcs.low, pcs.size) {
            report(low, low.wrapping_add(size));
        }
    }

    fn range_list(&self, unit: &Unit, list: u64, window: &mut Window) -> Option<Vec<(u64, u64)>> {
        let (section, old) = if unit.encoding.version <= 4 {
            (&self.ranges, true)
        } else {
            (&self.range_lists, false)
        };
        let pair = 2 * usize::from(unit.encoding.address_size.max(1));
        let mut want = SHORT_LIST;
        let mut bytes = Vec::new();
        loop {
            let piece = window.bytes(section, list, want)?;
            let piece = piece.get(..usize::try_from(want).ok()?).unwrap_or(piece);
            bytes.clear();
            bytes.extend_from_slice(piece);
            let whole = list + piece.len() as u64 >= section.size();
            if !whole {
                // gimli takes the end of its input for the end of a list. An entry without its
                // operands makes it say that it wants more.
                if old {
                    bytes.truncate(bytes.len() / pair * pair);
                }
                bytes.push(gimli::DW_RLE_start_length.0);
            }
            let slice = EndianSlice::new(&bytes, LittleEndian);
            let none = EndianSlice::new(&[], LittleEndian);
            let (ranges, lists) = if old { (slice, none) } else { (none, slice) };
            let parsed = RangeLists::new(DebugRanges::from(ranges), DebugRngLists::from(lists))
                .ranges(
                    RangeListsOffset(0),
                    unit.encoding,
                    unit.base,
                    &DebugAddr::from(EndianSlice::new(&self.addresses, LittleEndian)),
                    unit.bases.addresses,
                )
                .and_then(|mut ranges| {
                    let mut found = Vec::new();
                    while let Some(range) = ranges.next()? {
                        found.push((range.begin, range.end));
                    }
                    Ok(found)
                });
            match parsed {
                Ok(found) => return Some(found),
                Err(gimli::Error::UnexpectedEof(_)) if !whole => want = want.saturating_mul(8),
                Err(_) => return None,
            }
        }
    }

    /// Finds functions, inlined calls and lines of `members` in one unit.
    fn look_in(
        &self,
        offset: u64,
        members: &[usize],
        probes: &mut [Probe],
        buffer: &mut Vec<u8>,
    ) -> Option<()> {
        if members.is_empty() {
            return None;
        }
        let unit = self.unit(offset, &mut None)?;
        let start = unit.offset.checked_add(unit.header)?;
        self.info
            .read(start, unit.end.checked_sub(start)?, buffer)?;
        for &member in members {
            if let Some(probe) = probes.get_mut(member) {
                probe.row = None;
            }
        }
        // What was found before an entry that cannot be read stays good.
        let _ = self.find_functions(&unit, buffer, members, probes);
        if self.find_lines(&unit, members, probes, buffer).is_none() {
            for &member in members {
                if let Some(probe) = probes.get_mut(member) {
                    probe.finish(|_| None);
                }
            }
        }
        Some(())
    }

    /// Walks the entries of a unit once.
    fn find_functions(
        &self,
        unit: &Unit,
        bytes: &[u8],
        members: &[usize],
        probes: &mut [Probe],
    ) -> Option<()> {
        /// A function that is still open, and which members it covers.
        struct Open {
            depth: isize,
            covered: Vec<usize>,
        }
        let mut entries = EntriesRaw::new(
            EndianSlice::new(bytes, LittleEndian),
            unit.encoding,
            &unit.abbreviations,
            UnitOffset(usize::try_from(unit.header).ok()?),
        );
        let mut window = Window::default();
        let mut open: Vec<Open> = Vec::new();
        while !entries.is_empty() {
            let depth = entries.next_depth();
            let offset = unit.offset.checked_add(entries.next_offset().0 as u64)?;
            let Some(abbreviation) = entries.read_abbreviation().ok()? else {
                continue;
            };
            while open.last().is_some_and(|function| function.depth >= depth) {
                open.pop();
            }
            let inlined = match abbreviation.tag() {
                gimli::DW_TAG_subprogram => false,
                gimli::DW_TAG_inlined_subroutine
                    if open.last().is_some_and(|f| !f.covered.is_empty()) =>
                {
                    true
                }
                _ => {
                    entries.skip_attributes(abbreviation.attributes()).ok()?;
                    continue;
                }
            };
            let mut pcs = Pcs::default();
            let mut origin = None;
            let mut call = (None, 0);
            for spec in abbreviation.attributes() {
                let attribute = entries.read_attribute(*spec).ok()?;
                let value = attribute.value();
                match attribute.name() {
                    gimli::DW_AT_abstract_origin => origin = unit.target(value),
                    gimli::DW_AT_call_file => {
                        if let AttributeValue::FileIndex(index) = value {
                            call.0 = Some(index);
                        }
                    }
                    gimli::DW_AT_call_line => call.1 = line_number(value.udata_value()),
                    name => self.read_pcs(unit, name, value, &mut pcs),
                }
            }
            let candidates = match open.last() {
                Some(caller) if inlined => caller.covered.as_slice(),
                _ => members,
            };
            let mut covered: Vec<usize> = Vec::new();
            self.for_each_range(unit, pcs, &mut window, |low, high| {
                let address = |&member: &usize| probes.get(member).map_or(0, |probe| probe.address);
                let first = candidates.partition_point(|member| address(member) < low);
                covered.extend(
                    candidates
                        .iter()
                        .skip(first)
                        .take_while(|member| address(member) < high),
                );
            });
            covered.sort_unstable();
            covered.dedup();
            covered.retain(|&member| {
                let Some(probe) = probes.get_mut(member) else {
                    return false;
                };
                if inlined {
                    probe.calls.push(Call {
                        function: origin.unwrap_or(offset),
                        file: call.0,
                        line: call.1,
                    });
                    return true;
                }
                // Identical functions may share their code: the first one stands.
                let first = probe.function.is_none();
                if first {
                    probe.function = Some(offset);
                }
                first
            });
            if abbreviation.has_children() {
                open.push(Open { depth, covered });
            }
        }
        Some(())
    }

    /// Runs the unit's line program, and turns what is known into frames.
    fn find_lines(
        &self,
        unit: &Unit,
        members: &[usize],
        probes: &mut [Probe],
        buffer: &mut Vec<u8>,
    ) -> Option<()> {
        let offset = unit.lines?;
        self.lines.read_up_to(offset, 12, buffer)?;
        let (length, _, size) = initial_length(buffer)?;
        self.lines.read(offset, length.checked_add(size)?, buffer)?;
        let program = DebugLine::new(buffer, LittleEndian)
            .program(DebugLineOffset(0), unit.encoding.address_size, None, None)
            .ok()?;

        let address = |probes: &[Probe], at: usize| {
            let member = *members.get(at)?;
            probes.get(member).map(|probe| probe.address)
        };
        let mut rows = program.rows();
        // The row that holds until the next one, and the first member at or after it.
        let mut last: Option<(u64, u64, u32)> = None;
        let mut next = 0;
        while let Ok(Some((_, row))) = rows.next_row() {
            if let Some((begin, file, line)) = last {
                while let Some(at) = address(probes, next)
                    && at < row.address()
                {
                    if begin > 1
                        && let Some(probe) =
                            members.get(next).and_then(|&member| probes.get_mut(member))
                    {
                        probe.row.get_or_insert((file, line));
                    }
                    next += 1;
                }
            } else if !row.end_sequence() {
                next = members.partition_point(|&member| {
                    probes
                        .get(member)
                        .is_some_and(|probe| probe.address < row.address())
                });
            }
            last = (!row.end_sequence()).then(|| {
                let line = line_number(row.line().map(core::num::NonZero::get));
                (row.address(), row.file_index(), line)
            });
        }

        let directory = unit.directory.as_ref().and_then(|text| self.text(text));
        let mut names: HashMap<u64, Option<Rc<str>>> = HashMap::new();
        for &member in members {
            if let Some(probe) = probes.get_mut(member) {
                probe.finish(|index| {
                    names
                        .entry(index)
                        .or_insert_with(|| {
                            let path = self.path(unit, rows.header(), index, directory.as_deref());
                            path.map(Rc::from)
                        })
                        .clone()
                });
            }
        }
        Some(())
    }

    /// The path of a file in a line program's table.
    fn path(
        &self,
        unit: &Unit,
        header: &gimli::LineProgramHeader<Slice<'_>>,
        index: u64,
        compiled_in: Option<&str>,
    ) -> Option<String> {
        let file = header.file(index)?;
        let name = self.text(&self.text_of(unit, file.path_name())?)?;
        let mut path = String::from(compiled_in.unwrap_or_default());
        // Directory 0 is where the compiler ran: in the table since version 5, with the root
        // entry before.
        if let Some(directory) = header.directory(file.directory_index())
            && let Some(directory) = self.text_of(unit, directory)
            && let Some(directory) = self.text(&directory)
        {
            join(&mut path, &directory);
        }
        join(&mut path, &name);
        Some(path)
    }

    /// Reads the names of functions, following the references between entries.
    fn describe(&self, units: &[u64], mut wanted: Vec<u64>) -> HashMap<u64, Function> {
        wanted.sort_unstable();
        wanted.dedup();
        let functions = wanted.clone();
        let mut entries: HashMap<u64, (Function, Option<u64>)> = HashMap::new();
        let mut texts: HashMap<Text, Option<Rc<str>>> = HashMap::new();
        for _ in 0..LONGEST_TRAIL {
            let mut next = Vec::new();
            self.read_entries(units, &wanted, &mut texts, |offset, function, target| {
                if let Some(target) = target
                    && function.linkage_name.is_none()
                {
                    next.push(target);
                }
                entries.insert(offset, (function, target));
            });
            next.sort_unstable();
            next.dedup();
            next.retain(|offset| !entries.contains_key(offset));
            if next.is_empty() {
                break;
            }
            wanted = next;
        }
        functions
            .into_iter()
            .map(|offset| (offset, follow(&entries, offset)))
            .collect()
    }

    /// Reads the entries at the sorted `offsets`, each unit's together.
    fn read_entries(
        &self,
        units: &[u64],
        offsets: &[u64],
        texts: &mut HashMap<Text, Option<Rc<str>>>,
        mut f: impl FnMut(u64, Function, Option<u64>),
    ) {
        let mut abbreviations = None;
        let mut left = offsets;
        while let Some(&first) = left.first() {
            let at = units.partition_point(|&end| end <= first);
            let Some(&end) = units.get(at) else {
                return;
            };
            let start = at.checked_sub(1).and_then(|before| units.get(before));
            let (here, later) = left.split_at(left.partition_point(|&offset| offset < end));
            if let Some(unit) = self.unit(start.copied().unwrap_or(0), &mut abbreviations) {
                for &offset in here {
                    if let Some((function, target)) = self.read_function(&unit, offset, texts) {
                        f(offset, function, target);
                    }
                }
            }
            left = later;
        }
    }

    fn read_function(
        &self,
        unit: &Unit,
        offset: u64,
        texts: &mut HashMap<Text, Option<Rc<str>>>,
    ) -> Option<(Function, Option<u64>)> {
        // Units name the same inlined functions over and over, by the same string.
        let mut text = |value: Value<'_>| -> Option<Rc<str>> {
            let text = self.text_of(unit, value)?;
            if let Some(known) = texts.get(&text) {
                return known.clone();
            }
            let read = self.text(&text).map(Rc::from);
            texts.insert(text, read.clone());
            read
        };
        let mut function = Function {
            rust: unit.rust,
            ..Function::default()
        };
        let mut target = None;
        let at = offset.checked_sub(unit.offset)?;
        let place = unit.place();
        self.entry(&unit.abbreviations, &place, at, |_, values| {
            for &(name, value) in values {
                match name {
                    gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => {
                        function.linkage_name = text(value);
                    }
                    gimli::DW_AT_name => {
                        function.name = text(value);
                    }
                    gimli::DW_AT_decl_line => {
                        function.start_line = line_number(value.udata_value());
                    }
                    gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => {
                        target = unit.target(value);
                    }
                    _ => {}
                }
            }
        })?;
        Some((function, target))
    }
}

impl Probe {
    /// Turns chain and row into frames; `path` names a file of the unit at hand.
    fn finish(&mut self, mut path: impl FnMut(u64) -> Option<Rc<str>>) {
        if self.function.is_none() && (self.row.is_none() || !self.frames.is_empty()) {
            return;
        }
        self.frames.clear();
        let (mut file, mut line) = self.row.unzip();
        for call in self.calls.drain(..).rev() {
            self.frames.push(Frame {
                function: Some(call.function),
                file: file.and_then(&mut path),
                line: line.unwrap_or(0),
            });
            (file, line) = (call.file, Some(call.line));
        }
        self.frames.push(Frame {
            function: self.function,
            file: file.and_then(&mut path),
            line: line.unwrap_or(0),
        });
        self.complete = self.function.is_some();
    }
}

impl Unit {
    fn place(&self) -> Place {
        Place {
            offset: self.offset,
            end: self.end,
            encoding: self.encoding,
        }
    }

    /// The entry in `.debug_info` that a reference means.
    fn target(&self, value: Value<'_>) -> Option<u64> {
        match value {
            AttributeValue::UnitRef(offset) => self.offset.checked_add(offset.0 as u64),
            AttributeValue::DebugInfoRef(offset) => Some(offset.0 as u64),
            _ => None,
        }
    }
}

/// Where a unit lies and how its entries are written.
struct Place {
    offset: u64,
    end: u64,
    encoding: Encoding,
}

/// A piece of a section, kept while the next offset lies in it.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The bytes from `offset`: `want` of them, unless the section ends.
    fn bytes(&mut self, section: &Section<'_>, offset: u64, want: u64) -> Option<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        let wanted = offset.checked_add(want)?.min(section.size());
        if offset < self.start || wanted > end {
            self.start = offset;
            section.read_up_to(offset, want.max(WINDOW), &mut self.bytes)?;
        }
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..)
    }
}

type Values<'a> = Vec<(DwAt, Value<'a>)>;

fn read_values<'abbrev, 'a>(
    entries: &mut EntriesRaw<'abbrev, Slice<'a>>,
) -> Option<(&'abbrev Abbreviation, Values<'a>)> {
    let abbreviation = entries.read_abbreviation().ok()??;
    let mut values = Vec::with_capacity(abbreviation.attributes().len());
    for spec in abbreviation.attributes() {
        let attribute = entries.read_attribute(*spec).ok()?;
        values.push((attribute.name(), attribute.value()));
    }
    Some((abbreviation, values))
}

/// The length of what follows, the format, and the size of the length itself.
fn initial_length(bytes: &[u8]) -> Option<(u64, Format, u64)> {
    match u32_at(bytes, 0)? {
        u32::MAX => Some((u64_at(bytes, 4)?, Format::Dwarf64, 12)),
        length if length < 0xffff_fff0 => Some((u64::from(length), Format::Dwarf32, 4)),
        _ => None,
    }
}

fn follow(entries: &HashMap<u64, (Function, Option<u64>)>, offset: u64) -> Function {
    let mut found = Function::default();
    let mut at = Some(offset);
    for _ in 0..=LONGEST_TRAIL {
        let Some((function, next)) = at.and_then(|at| entries.get(&at)) else {
            break;
        };
        if found.name.is_none() {
            found.name.clone_from(&function.name);
        }
        if found.start_line == 0 {
            found.start_line = function.start_line;
        }
        found.linkage_name.clone_from(&function.linkage_name);
        found.rust = function.rust;
        if found.linkage_name.is_some() {
            break;
        }
        at = *next;
    }
    found
}

/// Appends `part` to `path`, or replaces it when `part` is absolute.
fn join(path: &mut String, part: &str) {
    if part.starts_with('/') {
        path.clear();
    } else if !path.is_empty() && !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(part);
}

fn line_number(line: Option<u64>) -> u32 {
    u32::try_from(line.unwrap_or(0)).unwrap_or(0)
}
