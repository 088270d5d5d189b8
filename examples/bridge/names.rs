//! An ELF file: from addresses to functions, files and lines, inlined functions too.
//!
//! Functions, files and lines are those of the debug information, which addr2line reads. What it knows nothing of,
//! assembly or a library without any, has the name of the symbol table.

#![forbid(unsafe_code)]

use core::fmt;
use core::ops::Range;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use addr2line::gimli::{
    self, AttributeValue, DebugInfoOffset, Dwarf, EndianSlice, RelocateReader, RunTimeEndian,
    Section as _, SectionId, Unit, UnitHeader, UnitOffset,
};
use object::elf::{EM_ARM, SHF_ALLOC, SHF_EXECINSTR};
use object::{
    Object, ObjectSection, ObjectSegment, ObjectSymbol, SectionFlags, SymbolKind, SymbolScope,
};

/// Addresses whose frames are kept; beyond them the cache starts afresh.
const MOST_ADDRESSES: usize = 64 << 10;

/// How many references are followed from a function to its line.
const LONGEST_TRAIL: usize = 16;

type Slice = EndianSlice<'static, RunTimeEndian>;
type Reader = RelocateReader<Slice, &'static Dropped>;

/// A function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Function {
    /// For people.
    pub(crate) name: Arc<str>,
    /// As mangled by the compiler.
    pub(crate) system_name: Arc<str>,
    /// The source file, or "".
    pub(crate) file: Arc<str>,
    /// The line it begins at, or 0.
    pub(crate) start_line: u32,
}

impl Function {
    /// Equal names are demangled by `go tool pprof` once more, and of what looks like C++ it cuts off the arguments
    /// of generics. It leaves a name alone that is another than the mangled one, were that none.
    pub(crate) fn system_name_for_readers(&self) -> &str {
        let is_cut = self.name.contains(['<', '[', ':', '{']);
        if self.name == self.system_name && is_cut {
            ""
        } else {
            &self.system_name
        }
    }
}

/// A function at a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) function: Function,
    /// The line that is executed, or where the next inner function is called; 0 if it is not known.
    pub(crate) line: u32,
}

/// The code of a program, as its ELF file has it.
pub(crate) struct Code {
    path: String,
    build_id: String,
    sections: Vec<Range<u64>>,
    /// Each part of the file that is loaded: where in the file, and to which address.
    segments: Vec<(Range<u64>, u64)>,
    symbols: Symbols,
    debug: Option<Debug>,
    known: HashMap<u64, Arc<[Frame]>>,
    texts: HashSet<Arc<str>>,
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({}, build id {:?})", self.path, self.build_id)
    }
}

impl Code {
    /// Reads the file. It is kept in memory to the program's end.
    ///
    /// # Errors
    ///
    /// If it can't be read, is no ELF file, or has no names at all.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let explain = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
        let bytes = fs::read(path).map_err(|error| explain(&error))?;
        let path_text = fs::canonicalize(path).map_err(|error| explain(&error))?;
        Self::parse(path_text.to_string_lossy().into_owned(), bytes.leak())
            .map_err(|error| explain(&error))
    }

    fn parse(path: String, bytes: &'static [u8]) -> Result<Self, String> {
        let object = object::File::parse(bytes).map_err(|error| error.to_string())?;
        if object.format() != object::BinaryFormat::Elf {
            return Err("this is no ELF file".to_owned());
        }
        let is_code = |flags| {
            let wanted = SHF_ALLOC | SHF_EXECINSTR;
            matches!(flags, SectionFlags::Elf { sh_flags, .. } if sh_flags & wanted == wanted)
        };
        let code_sections = object.sections().filter(|section| is_code(section.flags()));
        let ranges = code_sections.map(|section| {
            let start = section.address();
            start..start.saturating_add(section.size())
        });
        let sections: Vec<Range<u64>> = ranges.filter(|range| !range.is_empty()).collect();
        let segments = object.segments().map(|segment| {
            let (offset, size) = segment.file_range();
            (offset..offset.saturating_add(size), segment.address())
        });
        let build_id = object.build_id().ok().flatten().unwrap_or_default();
        let debug = Debug::read(&object, &sections).map_err(|error| error.to_string())?;
        let symbols = Symbols::read(&object, &sections);
        if debug.is_none() && symbols.is_empty() {
            return Err(
                "it is stripped of all names: give the file that the linker wrote".to_owned(),
            );
        }
        Ok(Self {
            path,
            build_id: build_id.iter().map(|byte| format!("{byte:02x}")).collect(),
            segments: segments.collect(),
            sections,
            symbols,
            debug,
            known: HashMap::new(),
            texts: HashSet::new(),
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The last part of that.
    pub(crate) fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Its GNU build id in hexadecimal, or "".
    pub(crate) fn build_id(&self) -> &str {
        &self.build_id
    }

    /// Whether it has files, lines and inlined functions, and not just names.
    pub(crate) fn has_lines(&self) -> bool {
        self.debug.is_some()
    }

    /// The address that a place of the file is linked to.
    pub(crate) fn address_of(&self, offset: u64) -> Option<u64> {
        let mut segments = self.segments.iter();
        let (range, address) = segments.find(|(range, _)| range.contains(&offset))?;
        address.checked_add(offset - range.start)
    }

    /// The functions at an address: who is inlined innermost first, the real one last. None if there's no code.
    ///
    /// Where a stack goes on, the address is that of the call: the return address less one, as all profiles have it.
    pub(crate) fn frames(&mut self, address: u64) -> Arc<[Frame]> {
        if let Some(known) = self.known.get(&address) {
            return Arc::clone(known);
        }
        if self.known.len() >= MOST_ADDRESSES {
            self.known.clear();
            self.texts.clear();
        }
        let frames: Arc<[Frame]> = self.look_up(address).into();
        self.known.insert(address, Arc::clone(&frames));
        frames
    }

    /// The real function at an address, as mangled by the compiler.
    pub(crate) fn symbol(&mut self, address: u64) -> Option<Arc<str>> {
        let frames = self.frames(address);
        let function = &frames.last()?.function;
        // The reader would take the arguments of a generic function for C++'s.
        let plain = function.system_name.split(['<', '(']).next()?;
        (!plain.is_empty()).then(|| Arc::from(plain))
    }

    fn look_up(&mut self, address: u64) -> Vec<Frame> {
        if !self.sections.iter().any(|range| range.contains(&address)) {
            return Vec::new();
        }
        let symbol = self.symbols.name(address);
        let mut found = self
            .debug
            .as_mut()
            .map_or(Vec::new(), |debug| debug.frames(address));
        if let Some(real) = found.last_mut() {
            // A name that is not mangled may be a part of one only; the symbol table has the whole.
            let is_whole = real.name.as_deref().is_some_and(is_mangled);
            if let Some(symbol) = symbol.filter(|_| !is_whole) {
                real.name = Some(symbol.to_owned());
            }
        } else if let Some(symbol) = symbol {
            found.push(Found {
                name: Some(symbol.to_owned()),
                ..Found::default()
            });
        }
        let named = found.into_iter().filter_map(|found| {
            let system_name = found.name?;
            let name = match rustc_demangle::try_demangle(&system_name) {
                // Without the hash.
                Ok(demangled) => format!("{demangled:#}"),
                Err(_) => system_name.clone(),
            };
            Some(Frame {
                function: Function {
                    name: self.text(&name),
                    system_name: self.text(&system_name),
                    file: self.text(&found.file),
                    start_line: found.start_line,
                },
                line: found.line,
            })
        });
        named.collect()
    }
}

impl Code {
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(text);
        self.texts.insert(Arc::clone(&new));
        new
    }
}

fn is_mangled(name: &str) -> bool {
    name.starts_with("_Z") || rustc_demangle::try_demangle(name).is_ok()
}

/// What the debug information says of one function at an address.
#[derive(Debug, Default)]
struct Found {
    name: Option<String>,
    file: String,
    line: u32,
    start_line: u32,
}

/// DWARF.
struct Debug {
    context: addr2line::Context<Reader>,
    dwarf: Arc<Dwarf<Reader>>,
    /// By where they begin.
    units: Vec<(DebugInfoOffset, UnitHeader<Reader>)>,
    /// Lines of functions, by where their entries are.
    start_lines: HashMap<usize, u32>,
}

impl Debug {
    /// `None` if the file has none.
    fn read(
        object: &object::File<'static>,
        code: &[Range<u64>],
    ) -> Result<Option<Self>, gimli::Error> {
        let endian = if object.is_little_endian() {
            RunTimeEndian::Little
        } else {
            RunTimeEndian::Big
        };
        let section = |id: SectionId| -> Result<Slice, gimli::Error> {
            let section = object.section_by_name(id.name());
            let data = section.and_then(|section| section.data().ok());
            Ok(EndianSlice::new(data.unwrap_or_default(), endian))
        };
        let plain = Dwarf::load(section)?;
        if plain.debug_info.reader().is_empty() || plain.debug_line.reader().is_empty() {
            return Ok(None);
        }
        let lowest = code.iter().map(|range| range.start).min().unwrap_or(0);
        let nothing: &Dropped = Box::leak(Box::default());
        let everywhere: &Dropped = Box::leak(Box::new(Dropped {
            lowest,
            kept: Vec::new(),
        }));
        let functions: &Dropped = Box::leak(Box::new(Dropped {
            lowest,
            kept: roots(&plain),
        }));
        let mut dwarf = Dwarf::load(|id| {
            let dropped = match id {
                SectionId::DebugInfo => functions,
                SectionId::DebugAddr | SectionId::DebugLine | SectionId::DebugRngLists => {
                    everywhere
                }
                _ => nothing,
            };
            Ok::<_, gimli::Error>(RelocateReader::new(section(id)?, dropped))
        })?;
        dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
        let mut units = Vec::new();
        let mut headers = dwarf.units();
        while let Ok(Some(header)) = headers.next() {
            units.extend(header.debug_info_offset().map(|offset| (offset, header)));
        }
        let dwarf = Arc::new(dwarf);
        Ok(Some(Self {
            context: addr2line::Context::from_arc_dwarf(Arc::clone(&dwarf))?,
            dwarf,
            units,
            start_lines: HashMap::new(),
        }))
    }

    /// The functions at an address, the innermost first. Where it is damaged: as many as there are.
    fn frames(&mut self, address: u64) -> Vec<Found> {
        let mut all = Vec::new();
        let Ok(mut frames) = self.context.find_frames(address).skip_all_loads() else {
            return all;
        };
        let unit = self.context.find_dwarf_and_unit(address).skip_all_loads();
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.as_ref().map(|function| function.raw_name());
            let start_line = match (&unit, frame.dw_die_offset) {
                (Some(unit), Some(offset)) => {
                    let place = unit.header.debug_info_offset().map_or(0, |at| at.0) + offset.0;
                    let find = || start_line(&self.dwarf, &self.units, unit, offset);
                    *(self.start_lines.entry(place)).or_insert_with(|| find().unwrap_or(0))
                }
                _ => 0,
            };
            let place = frame.location.as_ref();
            all.push(Found {
                name: name.and_then(Result::ok).map(|name| name.into_owned()),
                file: place
                    .and_then(|place| place.file)
                    .unwrap_or_default()
                    .to_owned(),
                line: place.and_then(|place| place.line).unwrap_or(0),
                start_line,
            });
        }
        all
    }
}

/// `DW_AT_decl_line` of an entry, or of the entry that it is an instance of: that one may be in another unit.
fn start_line(
    dwarf: &Dwarf<Reader>,
    units: &[(DebugInfoOffset, UnitHeader<Reader>)],
    unit: &Unit<Reader>,
    mut offset: UnitOffset,
) -> Option<u32> {
    let mut other;
    let mut unit = unit;
    for _ in 0..LONGEST_TRAIL {
        let entry = unit.entry(offset).ok()?;
        if let Some(line) = entry.attr_value(gimli::DW_AT_decl_line) {
            return u32::try_from(line.udata_value()?).ok();
        }
        let origin = entry.attr_value(gimli::DW_AT_abstract_origin);
        match origin.or_else(|| entry.attr_value(gimli::DW_AT_specification))? {
            AttributeValue::UnitRef(next) => offset = next,
            AttributeValue::DebugInfoRef(next) => {
                let after = units.partition_point(|(begin, _)| begin.0 <= next.0);
                let (begin, header) = units.get(after.checked_sub(1)?)?;
                offset = UnitOffset(next.0 - begin.0);
                other = dwarf.unit(header.clone()).ok()?;
                unit = &other;
            }
            _ => return None,
        }
    }
    None
}

/// Where linkers leave functions that nobody calls: at 0, which on many machines is where the code of those begins
/// that somebody does. No function is below the first code, so all that is there is moved out of the way.
#[derive(Debug, Default)]
struct Dropped {
    lowest: u64,
    /// Parts of the section that are read as they are.
    kept: Vec<Range<usize>>,
}

impl gimli::read::Relocate<usize> for &'static Dropped {
    fn relocate_address(&self, offset: usize, value: u64) -> gimli::Result<u64> {
        let after = self.kept.partition_point(|range| range.start <= offset);
        let before = after.checked_sub(1).and_then(|at| self.kept.get(at));
        let is_kept = before.is_some_and(|range| range.contains(&offset));
        Ok(if value < self.lowest && !is_kept {
            u64::MAX
        } else {
            value
        })
    }

    fn relocate_offset(&self, _offset: usize, value: usize) -> gimli::Result<usize> {
        Ok(value)
    }
}

/// The entries of the units themselves: a 0 there is what the addresses of their range lists are added to.
fn roots(dwarf: &Dwarf<Slice>) -> Vec<Range<usize>> {
    let mut roots = Vec::new();
    let mut headers = dwarf.units();
    while let Ok(Some(header)) = headers.next() {
        let end = dwarf.unit(header).ok().and_then(|unit| {
            let mut entries = unit.entries_raw(None).ok()?;
            let abbreviation = entries.read_abbreviation().ok()??;
            entries.skip_attributes(abbreviation.attributes()).ok()?;
            Some(entries.next_offset().0)
        });
        if let (Some(DebugInfoOffset(start)), Some(end)) = (header.debug_info_offset(), end) {
            roots.push(start..start + end);
        }
    }
    roots
}

/// The symbol table's functions.
#[derive(Debug)]
struct Symbols {
    /// By address; those of a size first.
    sized: Vec<Symbol>,
    /// Labels, of assembly: a function's code goes to the next one.
    labels: Vec<Symbol>,
}

#[derive(Debug)]
struct Symbol {
    address: u64,
    end: u64,
    is_local: bool,
    name: &'static str,
}

impl Symbols {
    fn read(object: &object::File<'static>, code: &[Range<u64>]) -> Self {
        let is_arm = matches!(object, object::File::Elf32(elf) if {
            elf.elf_header().e_machine.get(elf.endian()) == EM_ARM
        });
        let mut symbols = Self {
            sized: Vec::new(),
            labels: Vec::new(),
        };
        for symbol in object.symbols().chain(object.dynamic_symbols()) {
            let is_function = symbol.kind() == SymbolKind::Text;
            if !symbol.is_definition() || !(is_function || symbol.kind() == SymbolKind::Unknown) {
                continue;
            }
            let Ok(name) = symbol.name() else { continue };
            // `$t`, `$d`, `$x`: where code is code, and of which kind (AAELF32 5.5.5, RISC-V psABI); `.L`: the compiler's.
            if name.is_empty() || name.starts_with('$') || name.starts_with(".L") {
                continue;
            }
            // In functions' addresses bit 0 says that they are Thumb (AAELF32 5.5.3).
            let thumb = u64::from(is_arm && is_function);
            let address = symbol.address() & !thumb;
            let Some(section) = code.iter().find(|range| range.contains(&address)) else {
                continue;
            };
            let size = symbol.size();
            let list = if size == 0 {
                &mut symbols.labels
            } else {
                &mut symbols.sized
            };
            list.push(Symbol {
                address,
                end: if size == 0 {
                    section.end
                } else {
                    address.saturating_add(size)
                },
                is_local: symbol.scope() == SymbolScope::Compilation,
                name,
            });
        }
        for list in [&mut symbols.sized, &mut symbols.labels] {
            // Of several names for one place, what others see, and the first of these.
            list.sort_by_key(|symbol| (symbol.address, symbol.is_local, symbol.name));
            list.dedup_by_key(|symbol| symbol.address);
        }
        symbols
    }

    fn is_empty(&self) -> bool {
        self.sized.is_empty() && self.labels.is_empty()
    }

    fn name(&self, address: u64) -> Option<&'static str> {
        let mut lists = [&self.sized, &self.labels].into_iter();
        lists.find_map(|list| {
            let after = list.partition_point(|symbol| symbol.address <= address);
            let symbol = list.get(after.checked_sub(1)?)?;
            (address < symbol.end).then_some(symbol.name)
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use object::write::{Object, Symbol, SymbolSection};
    use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags};

    use super::*;

    /// A file with sixteen bytes of code at 0, and these names: where and how long they are, and of what kind.
    pub(crate) fn file_with(
        architecture: Architecture,
        names: &[(&str, u64, u64, SymbolKind, SymbolScope)],
    ) -> Code {
        let mut object = Object::new(BinaryFormat::Elf, architecture, Endianness::Little);
        let code = object.add_section(Vec::new(), b".text".to_vec(), SectionKind::Text);
        object.append_section_data(code, &[0; 16], 4);
        for &(name, value, size, kind, scope) in names {
            object.add_symbol(Symbol {
                name: name.into(),
                value,
                size,
                kind,
                scope,
                weak: false,
                section: SymbolSection::Section(code),
                flags: SymbolFlags::None,
            });
        }
        let bytes = object.write().expect("there is room");
        Code::parse("file".to_owned(), bytes.leak()).expect("it has names")
    }

    const FUNCTION: SymbolKind = SymbolKind::Text;
    const LABEL: SymbolKind = SymbolKind::Label;
    const LOCAL: SymbolScope = SymbolScope::Compilation;
    const GLOBAL: SymbolScope = SymbolScope::Linkage;

    fn name_at(code: &mut Code, address: u64) -> Option<String> {
        let frames = code.frames(address);
        assert!(frames.len() < 2 && frames.iter().all(|frame| frame.line == 0));
        frames.first().map(|frame| frame.function.name.to_string())
    }

    #[test]
    fn bit_0_of_a_thumb_function_is_no_part_of_its_address() {
        let names = [
            ("$t", 0, 0, LABEL, LOCAL),
            ("first", 1, 4, FUNCTION, GLOBAL),
            ("second", 5, 4, FUNCTION, GLOBAL),
            ("$d", 8, 0, LABEL, LOCAL),
            ("label", 10, 0, LABEL, LOCAL),
        ];
        let mut code = file_with(Architecture::Arm, &names);
        assert!(!code.has_lines());
        for (address, name) in [
            (0, Some("first")),
            (3, Some("first")),
            (4, Some("second")),
            (7, Some("second")),
            (8, None),
            (10, Some("label")),
            (15, Some("label")),
            (16, None),
            (u64::MAX, None),
        ] {
            assert_eq!(name_at(&mut code, address).as_deref(), name, "{address}");
        }
    }

    #[test]
    fn of_several_names_others_see_one() {
        let names = [
            ("alias", 0, 4, FUNCTION, LOCAL),
            ("label", 0, 0, LABEL, GLOBAL),
            ("exported", 0, 4, FUNCTION, GLOBAL),
            (
                "_ZN4core3fmt5write17h0123456789abcdefE",
                5,
                3,
                FUNCTION,
                LOCAL,
            ),
        ];
        let mut code = file_with(Architecture::X86_64, &names);
        assert_eq!(name_at(&mut code, 1).as_deref(), Some("exported"));
        assert_eq!(name_at(&mut code, 4).as_deref(), Some("label"));
        assert_eq!(name_at(&mut code, 5).as_deref(), Some("core::fmt::write"));
        assert_eq!(code.symbol(7).as_deref(), Some(names[3].0));
        assert_eq!(code.symbol(16), None);
    }

    #[test]
    fn names_that_look_like_c_plus_plus_are_protected() {
        for (name, system_name, for_readers) in [
            ("main", "main", "main"),
            (
                "a::b",
                "_ZN1a1b17h0123456789abcdefE",
                "_ZN1a1b17h0123456789abcdefE",
            ),
            ("next<u8>", "next<u8>", ""),
            ("{async_fn#0}", "{async_fn#0}", ""),
        ] {
            let function = Function {
                name: name.into(),
                system_name: system_name.into(),
                file: "".into(),
                start_line: 0,
            };
            assert_eq!(function.system_name_for_readers(), for_readers);
        }
    }

    #[test]
    fn what_is_no_elf_file_is_refused() {
        for bytes in [&b""[..], b"\x7fELF", b"text", &[0x7f; 100]] {
            assert!(Code::parse(String::new(), bytes.to_vec().leak()).is_err());
        }
        let mut cut = std::fs::read("/proc/self/exe").expect("the system knows");
        cut.truncate(cut.len() / 3);
        // Its sections are at its end.
        assert!(Code::parse(String::new(), cut.leak()).is_err());
    }
}
