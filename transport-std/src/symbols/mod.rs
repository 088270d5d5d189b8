//! Names, files and lines for code addresses of this process.
//!
//! [`Symbolizer`] lives as long as the server and keeps results; [`Code`] is what one response
//! needs of them, numbered densely. Objects are opened to look up addresses that are new, all of
//! them at once, and closed again: no symbol table or line table stays in memory, and a second
//! profile of the same program opens no object at all.
//!
//! Names follow what `go tool pprof` makes of them: a Rust function has its demangled name in
//! `name` and something else in `system_name`, because equal names are demangled once more, by
//! rules made for C++.
//!
//! Ordinary context only, never a signal handler.

#![forbid(unsafe_code)]

mod dwarf;
pub(crate) mod elf;
mod modules;
mod symtab;
#[cfg(test)]
mod tests;

use core::fmt::Write as _;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use self::dwarf::Answers;
use self::elf::{Elf, Image};
use self::modules::Modules;
use crate::maps;
use picoprof::{Function, Line, LocationId, Mapping, Symbols};

/// Addresses whose results are kept; beyond them the cache starts afresh.
const MOST_ADDRESSES: usize = 64 << 10;
/// Frames that they may have together.
const MOST_FRAMES: usize = 16 * MOST_ADDRESSES;

/// Resolves addresses, and remembers the answers.
#[derive(Debug, Default)]
pub(crate) struct Symbolizer {
    mappings: Vec<maps::Mapping>,
    known: HashMap<usize, Span>,
    frames: Vec<Line>,
    names: Names,
}

/// Part of [`Symbolizer::frames`].
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    len: usize,
}

impl Symbolizer {
    /// Resolves all call sites of one profile, each given with the id of its location.
    pub(crate) fn resolve(&mut self, pcs: impl Iterator<Item = (u32, usize)>) -> Code {
        let locations: Vec<(u32, usize)> = pcs.collect();
        self.prepare(locations.iter().map(|&(_, pc)| pc));
        Code::new(self, &locations)
    }

    /// Looks up the addresses that are new, so that [`name`](Self::name) finds them known.
    ///
    /// One call for many addresses costs little more than one for a single address.
    pub(crate) fn prepare(&mut self, pcs: impl Iterator<Item = usize>) {
        self.refresh();
        let mut all: Vec<usize> = pcs.collect();
        all.sort_unstable();
        all.dedup();
        let mut new = all.clone();
        new.retain(|pc| !self.known.contains_key(pc));
        let full = self.known.len() + new.len() > MOST_ADDRESSES || self.frames.len() > MOST_FRAMES;
        if full && !new.is_empty() {
            self.clear();
            new = all;
        }
        self.look_up(&new);
    }

    /// The function whose code contains `pc`, mangled: the real one, not one inlined into it.
    ///
    /// `go tool pprof` asks for one name an address when it has a stack of addresses; with real
    /// functions that stack reads as it was called.
    pub(crate) fn name(&mut self, pc: usize) -> Option<Arc<str>> {
        if !self.known.contains_key(&pc) {
            self.prepare(core::iter::once(pc));
        }
        let outermost = self.frames_of(pc).last()?;
        let function = self.names.functions.get(outermost.function as usize)?;
        let system_name = self.names.string(function.system_name);
        if system_name.is_empty() {
            // The reader would take the arguments of a generic function for C++'s.
            let name = self.names.string(function.name);
            let plain = name.split(['<', '(']).next().unwrap_or_default();
            return (!plain.is_empty()).then(|| Arc::from(plain));
        }
        Some(system_name)
    }

    fn frames_of(&self, pc: usize) -> &[Line] {
        self.known
            .get(&pc)
            .and_then(|span| self.frames.get(span.start..span.start + span.len))
            .unwrap_or_default()
    }

    /// Reads the mappings anew, and forgets the addresses of those that are gone.
    fn refresh(&mut self) {
        let mut mappings = maps::executable().unwrap_or_default();
        let mut last = core::mem::take(&mut self.mappings);
        for mapping in &mut mappings {
            // All but the build id is the same: so is the object.
            if let Some(at) = last.iter().position(|old| same(old, mapping)) {
                mapping.build_id = last.swap_remove(at).build_id;
            } else {
                maps::identify(core::slice::from_mut(mapping));
            }
        }
        for gone in last {
            self.known
                .retain(|pc, _| !(gone.start..gone.limit).contains(pc));
        }
        self.mappings = mappings;
    }

    fn clear(&mut self) {
        self.known.clear();
        self.frames.clear();
        self.names = Names::default();
    }

    /// Looks up sorted addresses, object by object.
    fn look_up(&mut self, pcs: &[usize]) {
        // The mappings of one object lie apart when it has several segments with code.
        let mut done: Vec<bool> = vec![false; self.mappings.len()];
        for first in 0..self.mappings.len() {
            if done.get(first).is_some_and(|done| *done) {
                continue;
            }
            let Some(object) = self.mappings.get(first) else {
                return;
            };
            let mut wanted: Vec<(usize, u64)> = Vec::new();
            for (mapping, done) in self.mappings.iter().zip(&mut done) {
                if mapping.base == object.base
                    && mapping.file == object.file
                    && mapping.inode == object.inode
                {
                    *done = true;
                    let from = pcs.partition_point(|&pc| pc < mapping.start);
                    let here = pcs
                        .iter()
                        .skip(from)
                        .take_while(|&&pc| pc < mapping.limit)
                        .map(|&pc| (pc, (pc - mapping.start) as u64 + mapping.offset));
                    wanted.extend(here);
                }
            }
            if wanted.is_empty() {
                continue;
            }
            let elf = open(object);
            self.look_up_in(elf.as_ref(), &wanted);
        }
    }

    /// Looks up addresses in one object, given with their offsets in its file.
    fn look_up_in(&mut self, elf: Option<&Elf>, wanted: &[(usize, u64)]) {
        let mut addresses = Vec::with_capacity(wanted.len());
        for &(pc, offset) in wanted {
            match elf.and_then(|elf| elf.address_of(offset)) {
                Some(address) => addresses.push((address, pc)),
                None => self.keep(pc, &[]),
            }
        }
        let Some(elf) = elf else {
            return;
        };
        addresses.sort_unstable();
        let probes: Vec<u64> = addresses.iter().map(|&(address, _)| address).collect();
        let mut symbols = symtab::names(elf, &probes);
        let mut answers = dwarf::look_up(elf, &probes);
        if answers.frames.iter().all(Vec::is_empty)
            && let Some(debug) = debug_file(elf)
        {
            symbols = symtab::names(&debug, &probes)
                .into_iter()
                .zip(symbols)
                .map(|(better, name)| better.or(name))
                .collect();
            answers = dwarf::look_up(&debug, &probes);
        }
        let mut namer = Namer::new(&mut self.names, &answers);
        let mut lines = Vec::new();
        let mut found: Vec<(usize, Span)> = Vec::with_capacity(addresses.len());
        for (at, &(_, pc)) in addresses.iter().enumerate() {
            let frames = answers.frames.get(at).map_or(&[][..], Vec::as_slice);
            let symbol = symbols.get(at).and_then(|symbol| symbol.as_deref());
            let start = lines.len();
            namer.lines(frames, symbol, &mut lines);
            let len = lines.len() - start;
            found.push((pc, Span { start, len }));
        }
        for (pc, span) in found {
            let lines = lines.get(span.start..span.start + span.len);
            self.keep(pc, lines.unwrap_or_default());
        }
    }

    fn keep(&mut self, pc: usize, lines: &[Line]) {
        let span = Span {
            start: self.frames.len(),
            len: lines.len(),
        };
        self.frames.extend_from_slice(lines);
        self.known.insert(pc, span);
    }
}

fn same(old: &maps::Mapping, new: &maps::Mapping) -> bool {
    (old.start, old.limit, old.offset, old.inode, old.base)
        == (new.start, new.limit, new.offset, new.inode, new.base)
        && old.file == new.file
        && old.deleted == new.deleted
}

/// The object behind a mapping, as it was loaded.
fn open(mapping: &maps::Mapping) -> Option<Elf> {
    if mapping.main {
        // Still the running program after an upgrade in place.
        return Elf::new(Image::open("/proc/self/exe".as_ref()).ok()?);
    }
    if mapping.file == "[vdso]" {
        return Elf::new(Image::memory(mapping.base? as u64).ok()?);
    }
    if mapping.deleted || !mapping.file.starts_with('/') {
        return None;
    }
    let elf = Elf::new(Image::open(mapping.file.as_ref()).ok()?)?;
    // Another file may have taken the path since. The id at hand was read from memory.
    let same = mapping.build_id.is_empty() || elf.build_id().as_ref() == Some(&mapping.build_id);
    same.then_some(elf)
}

/// The separate debug file of a stripped object, where distributions put it.
fn debug_file(elf: &Elf) -> Option<Elf> {
    let id = elf.build_id()?;
    let (directory, name) = id.split_at_checked(2)?;
    let path = format!("/usr/lib/debug/.build-id/{directory}/{name}.debug");
    Elf::new(Image::open(Path::new(&path)).ok()?)
}

/// Strings and functions, each once.
#[derive(Debug)]
struct Names {
    strings: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
    functions: Vec<Function>,
    function_numbers: HashMap<Function, u32>,
}

impl Default for Names {
    /// String 0 is empty, as in profile.proto.
    fn default() -> Self {
        let mut names = Self {
            strings: Vec::new(),
            numbers: HashMap::new(),
            functions: Vec::new(),
            function_numbers: HashMap::new(),
        };
        names.number("");
        names
    }
}

impl Names {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        self.add(Arc::from(text))
    }

    /// As [`number`](Self::number), sharing the text.
    fn share(&mut self, text: &Arc<str>) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        self.add(Arc::clone(text))
    }

    fn add(&mut self, text: Arc<str>) -> u32 {
        let number = index(self.strings.len());
        self.strings.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        number
    }

    fn function(&mut self, function: Function) -> u32 {
        *self.function_numbers.entry(function).or_insert_with(|| {
            self.functions.push(function);
            index(self.functions.len() - 1)
        })
    }

    fn string(&self, number: u32) -> Arc<str> {
        self.strings
            .get(number as usize)
            .map_or_else(|| Arc::from(""), Arc::clone)
    }
}

/// Four thousand million strings don't fit in memory, so the number does fit.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(0)
}

/// Turns what an object says about addresses into named lines.
struct Namer<'a> {
    names: &'a mut Names,
    answers: &'a Answers,
    /// Modules by file, which many functions share.
    modules: HashMap<u32, Option<String>>,
    /// Functions already named: by entry and file.
    done: HashMap<(u64, u32), u32>,
}

impl<'a> Namer<'a> {
    fn new(names: &'a mut Names, answers: &'a Answers) -> Self {
        Self {
            names,
            answers,
            modules: HashMap::new(),
            done: HashMap::new(),
        }
    }

    /// Appends the lines of one address. `symbol` is the real function's name.
    fn lines(&mut self, frames: &[dwarf::Frame], symbol: Option<&str>, out: &mut Vec<Line>) {
        for (at, frame) in frames.iter().enumerate() {
            let filename = frame
                .file
                .as_deref()
                .map_or(0, |file| self.names.number(file));
            let real = at + 1 == frames.len();
            let symbol = if real { symbol } else { None };
            if let Some(function) = self.function(frame.function, symbol, filename) {
                out.push(Line {
                    function,
                    line: frame.line,
                });
            }
        }
        if frames.is_empty()
            && let Some(function) = self.function(None, symbol, 0)
        {
            out.push(Line { function, line: 0 });
        }
    }

    fn function(&mut self, entry: Option<u64>, symbol: Option<&str>, filename: u32) -> Option<u32> {
        let key = entry.map(|entry| (entry, filename));
        if let Some(key) = key
            && let Some(&done) = self.done.get(&key)
        {
            return Some(done);
        }
        let described = entry.and_then(|entry| self.answers.functions.get(&entry));
        let rust = described.is_some_and(|function| function.rust);
        let linkage_name = described.and_then(|function| function.linkage_name.as_deref());
        // A C library's own names are `__GI___libc_write` and the like; it exports `write`.
        let linkage_name = if rust {
            linkage_name.or(symbol)
        } else {
            symbol.or(linkage_name)
        };
        let (name, system_name) = if let Some(mangled) = linkage_name {
            match rustc_demangle::try_demangle(mangled) {
                Ok(demangled) => {
                    let mut name = String::new();
                    // Without the hash. It only fails when the String does, which it doesn't.
                    let _ = write!(name, "{demangled:#}");
                    (name, mangled)
                }
                Err(_) => (String::from(mangled), mangled),
            }
        } else {
            let bare = described.and_then(|function| function.name.as_deref())?;
            match self.module(filename).filter(|_| rust) {
                Some(module) => (format!("{module}::{bare}"), bare),
                None => (String::from(bare), bare),
            }
        };
        let same = name == system_name;
        let function = Function {
            name: self.names.number(&name),
            system_name: if rust && same {
                0
            } else {
                self.names.number(system_name)
            },
            filename,
            start_line: described.map_or(0, |function| function.start_line),
        };
        let number = self.names.function(function);
        if let Some(key) = key {
            self.done.insert(key, number);
        }
        Some(number)
    }

    fn module(&mut self, filename: u32) -> Option<&str> {
        let modules: &Modules = &self.answers.modules;
        let names = &self.names;
        self.modules
            .entry(filename)
            .or_insert_with(|| modules.of_file(&names.string(filename)))
            .as_deref()
    }
}

/// What one response says about code: mappings, functions, lines and strings.
#[derive(Debug)]
pub(crate) struct Code {
    mappings: Vec<Mapping>,
    /// Starts of the mappings in order, with their indices.
    by_start: Vec<(u64, u32)>,
    strings: Vec<Arc<str>>,
    functions: Vec<Function>,
    lines: Vec<Line>,
    /// Location ids in order, each with its part of `lines`.
    locations: Vec<(u32, Span)>,
}

impl Code {
    fn new(symbolizer: &Symbolizer, locations: &[(u32, usize)]) -> Self {
        let mut strings = Names::default();
        let mut string_of: HashMap<u32, u32> = HashMap::new();
        let mut function_of: HashMap<u32, u32> = HashMap::new();
        let mut functions = Vec::new();
        let mappings = symbolizer
            .mappings
            .iter()
            .map(|mapping| Mapping {
                start: mapping.start as u64,
                limit: mapping.limit as u64,
                offset: mapping.offset,
                filename: strings.number(&mapping.file),
                build_id: strings.number(&mapping.build_id),
                is_symbolized: false,
            })
            .collect();
        let mut code = Self {
            mappings,
            by_start: Vec::new(),
            strings: Vec::new(),
            functions: Vec::new(),
            lines: Vec::new(),
            locations: Vec::with_capacity(locations.len()),
        };
        code.by_start = code
            .mappings
            .iter()
            .enumerate()
            .map(|(at, mapping)| (mapping.start, index(at)))
            .collect();
        code.by_start.sort_unstable();

        // Of each mapping's locations, how many have names, and how many have not.
        let mut named = vec![[0_usize; 2]; code.mappings.len()];
        for &(id, pc) in locations {
            let start = code.lines.len();
            for line in symbolizer.frames_of(pc) {
                let function = *function_of.entry(line.function).or_insert_with(|| {
                    let known = symbolizer.names.functions.get(line.function as usize);
                    let mut translate = |number: u32| {
                        *string_of
                            .entry(number)
                            .or_insert_with(|| strings.share(&symbolizer.names.string(number)))
                    };
                    if let Some(known) = known {
                        functions.push(Function {
                            name: translate(known.name),
                            system_name: translate(known.system_name),
                            filename: translate(known.filename),
                            start_line: known.start_line,
                        });
                    }
                    index(functions.len().saturating_sub(1))
                });
                code.lines.push(Line {
                    function,
                    line: line.line,
                });
            }
            let len = code.lines.len() - start;
            let counts = code.mapping_index_of(pc).and_then(|at| named.get_mut(at));
            if let Some([with, without]) = counts {
                *(if len > 0 { with } else { without }) += 1;
            }
            code.locations.push((id, Span { start, len }));
        }
        for (mapping, [with, without]) in code.mappings.iter_mut().zip(named) {
            // Readers look for names of their own where a mapping has none yet. A stripped program names what it
            // exports, be it one function: that must not keep them from it. Nor must a stub without a name let them
            // replace lines and inlined functions by less.
            mapping.is_symbolized = with > without;
        }
        code.locations.sort_by_key(|&(id, _)| id);
        code.strings = strings.strings;
        code.functions = functions;
        code
    }

    /// The mapping that contains `pc`.
    pub(crate) fn mapping_index_of(&self, pc: usize) -> Option<usize> {
        let pc = pc as u64;
        let after = self.by_start.partition_point(|&(start, _)| start <= pc);
        let &(_, index) = self.by_start.get(after.checked_sub(1)?)?;
        let mapping = self.mappings.get(index as usize)?;
        (pc < mapping.limit).then_some(index as usize)
    }
}

impl Symbols for Code {
    fn mapping(&self, index: usize) -> Option<Mapping> {
        self.mappings.get(index).copied()
    }

    fn mapping_of(&self, pc: usize) -> Option<usize> {
        self.mapping_index_of(pc)
    }

    fn lines(&self, location: LocationId) -> &[Line] {
        self.locations
            .binary_search_by_key(&location.index(), |&(id, _)| id)
            .ok()
            .and_then(|at| self.locations.get(at))
            .and_then(|(_, span)| self.lines.get(span.start..span.start + span.len))
            .unwrap_or_default()
    }

    fn function(&self, index: u32) -> Option<Function> {
        self.functions.get(index as usize).copied()
    }

    fn string(&self, index: u32) -> Option<&str> {
        self.strings.get(index as usize).map(|text| &**text)
    }
}
