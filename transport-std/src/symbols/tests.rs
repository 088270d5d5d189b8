use core::hint::black_box;
use std::collections::HashSet;

use super::elf::{SHT_DYNSYM, SHT_SYMTAB, u32_at, u64_at};
use super::*;

const FILE: &str = "symbols/tests.rs";

const INNER: u32 = line!() + 4;
const MIDDLE: u32 = line!() + 8;
#[inline(always)]
fn inner(value: u64) -> u64 {
    black_box(black_box(value) ^ 0x5bd1_e995)
}

#[inline(always)]
fn middle(value: u64) -> u64 {
    inner(value)
}

const OUTER: u32 = line!() + 3;
#[inline(never)]
fn outer(value: u64) -> u64 {
    middle(value)
}

struct Holder<T>(T);

const GENERIC: u32 = line!() + 4;
impl<T: Copy> Holder<T> {
    #[inline(never)]
    fn generic_method(&self) -> T {
        black_box(self.0)
    }
}

trait Area {
    fn area_of_shape(&self) -> u64;
}

const IMPL: u32 = line!() + 4;
impl Area for Holder<u64> {
    #[inline(never)]
    fn area_of_shape(&self) -> u64 {
        black_box(self.0 + 1)
    }
}

const CLOSURE: u32 = line!() + 3;
#[inline(never)]
fn closure_host(value: u64) -> u64 {
    call(&|more| black_box(value ^ more))
}

#[inline(never)]
fn call(f: &dyn Fn(u64) -> u64) -> u64 {
    black_box(f)(black_box(1))
}

/// Keeps all of them in the program.
fn use_all() {
    black_box(outer(1));
    black_box(Holder(1_u64).generic_method());
    black_box(Holder(1_u64).area_of_shape());
    black_box(closure_host(1));
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Named {
    name: String,
    system_name: String,
    file: String,
    line: u32,
}

/// As `Code::lines`, for the bare number of a location.
fn lines(code: &Code, id: u32) -> &[Line] {
    let location = code.locations.iter().find(|&&(known, _)| known == id);
    location.map_or(&[], |(_, span)| {
        &code.lines[span.start..span.start + span.len]
    })
}

fn chain(code: &Code, id: u32) -> Vec<Named> {
    lines(code, id)
        .iter()
        .map(|line| {
            let function = code.function(line.function).unwrap();
            let text = |number: u32| code.string(number).unwrap().to_owned();
            Named {
                name: text(function.name),
                system_name: text(function.system_name),
                file: text(function.filename),
                line: line.line,
            }
        })
        .collect()
}

/// All functions of a symbol table: name, address in this process, size.
fn functions_of(mapping: &maps::Mapping, kind: u32) -> Vec<(String, usize, usize)> {
    let elf = open(mapping).unwrap();
    let (table, strings) = elf.symbols(kind).unwrap();
    // The first page may begin with the end of the segment before.
    let within = (mapping.limit - mapping.start) as u64 / 2;
    let bias = mapping.start as u64 + within - elf.address_of(mapping.offset + within).unwrap();
    table
        .read_all()
        .chunks_exact(24)
        .filter(|symbol| symbol[4] & 0xf == 2 && u64_at(symbol, 8) != Some(0))
        .map(|symbol| {
            (
                strings.string(u32_at(symbol, 0).unwrap().into()).unwrap(),
                (u64_at(symbol, 8).unwrap() + bias) as usize,
                u64_at(symbol, 16).unwrap() as usize,
            )
        })
        .collect()
}

fn mappings() -> Vec<maps::Mapping> {
    let mut mappings = maps::executable().unwrap();
    maps::identify(&mut mappings);
    mappings
}

/// The chains at all addresses of the first function of this program that is named so.
fn chains(wanted: impl Fn(&str) -> bool) -> HashSet<Vec<Named>> {
    use_all();
    let (_, start, size) = functions_of(&mappings()[0], SHT_SYMTAB)
        .into_iter()
        .find(|(name, ..)| wanted(&format!("{:#}", rustc_demangle::demangle(name))))
        .unwrap();
    let pcs = (start..start + size).enumerate();
    let code = Symbolizer::default().resolve(pcs.map(|(id, pc)| (id as u32, pc)));
    assert!(code.mapping(0).unwrap().is_symbolized);
    (0..size).map(|id| chain(&code, id as u32)).collect()
}

fn check_names(chain: &[Named]) {
    for named in chain {
        assert_ne!(named.name, named.system_name);
        assert!(!named.name.contains("17h"), "{named:?}");
    }
}

#[test]
fn an_inline_chain_is_complete() {
    let chains = chains(|name| name.ends_with("tests::outer"));
    let chain = chains
        .iter()
        .find(|chain| {
            let lines: Vec<u32> = chain.iter().rev().map(|named| named.line).take(3).collect();
            lines == [OUTER, MIDDLE, INNER]
        })
        .unwrap_or_else(|| panic!("{chains:?}"));
    check_names(chain);
    let [.., inner, middle, outer] = chain.as_slice() else {
        panic!("{chain:?}");
    };
    for (named, name) in [(inner, "inner"), (middle, "middle"), (outer, "outer")] {
        assert!(named.name.ends_with(name), "{named:?}");
        assert!(named.file.ends_with(FILE), "{named:?}");
    }
    assert!(outer.system_name.starts_with("_"));
    assert!(outer.name.ends_with("symbols::tests::outer"));
}

#[test]
fn methods_and_closures_have_full_names() {
    let cases: [(&str, u32); 3] = [
        ("generic_method", GENERIC),
        ("area_of_shape", IMPL),
        ("closure_host::{", CLOSURE),
    ];
    for (part, line) in cases {
        let chains = chains(|name| name.contains(part));
        let chain = chains
            .iter()
            .find(|chain| {
                let real = chain.last();
                real.is_some_and(|named| named.line == line && named.file.ends_with(FILE))
            })
            .unwrap_or_else(|| panic!("{part}: {chains:?}"));
        check_names(chain);
        let name = &chain.last().unwrap().name;
        assert!(
            name.contains(part) && name.contains("symbols::tests::"),
            "{name}"
        );
    }
    let chains = chains(|name| name.contains("area_of_shape"));
    let named = chains.iter().flatten().find(|n| n.name.contains("area_of"));
    let name = &named.unwrap().name;
    assert!(name.starts_with('<') && name.contains(" as "), "{name}");
}

#[test]
fn libraries_have_their_dynamic_symbols() {
    let mappings = mappings();
    let Some(libc) = mappings.iter().find(|m| m.file.contains("/libc.so")) else {
        // Linked statically.
        return;
    };
    let functions = functions_of(libc, SHT_DYNSYM);
    let mut symbolizer = Symbolizer::default();
    for wanted in ["write", "puts", "getenv"] {
        let &(_, start, size) = functions.iter().find(|(name, ..)| name == wanted).unwrap();
        let code = symbolizer.resolve([(7, start), (3, start + size - 1)].into_iter());
        for id in [3, 7] {
            let chain = chain(&code, id);
            assert_eq!(chain.last().unwrap().name, wanted);
            assert_eq!(chain.last().unwrap().system_name, wanted);
        }
        assert_eq!(symbolizer.name(start).as_deref(), Some(wanted));
        let mapping = code.mapping(code.mapping_of(start).unwrap()).unwrap();
        assert!(mapping.is_symbolized);
        assert_eq!(code.string(mapping.filename), Some(&*libc.file));
        assert_eq!(code.string(mapping.build_id), Some(&*libc.build_id));
        assert!(!code.mapping(0).unwrap().is_symbolized);
    }
}

/// As a stripped program that exports a function or two.
#[test]
fn a_mapping_is_symbolized_when_most_of_it_has_names() {
    let start = a_mapping_is_symbolized_when_most_of_it_has_names as *const () as usize;
    let mapping = mappings().into_iter().find(|m| m.main).unwrap();
    // Before the first function there is no name.
    let unnamed = [mapping.limit - 1, mapping.limit - 2];
    for (pcs, expected) in [
        (vec![start], true),
        (vec![start, unnamed[0]], false),
        (vec![start, unnamed[0], unnamed[1]], false),
        (vec![start, start + 1, unnamed[0]], true),
    ] {
        let code = Symbolizer::default().resolve((0..).zip(pcs.iter().copied()));
        let mapping = code.mapping(code.mapping_of(start).unwrap()).unwrap();
        assert_eq!(mapping.is_symbolized, expected, "{pcs:x?}");
    }
}

#[test]
fn the_vdso_is_read_from_memory() {
    let mappings = mappings();
    let Some(vdso) = mappings.iter().find(|m| m.file == "[vdso]") else {
        return;
    };
    let functions = functions_of(vdso, SHT_DYNSYM);
    let (name, start, _) = functions
        .iter()
        .find(|(name, ..)| name.contains("clock_gettime"))
        .unwrap();
    let name_given = Symbolizer::default().name(*start).unwrap();
    assert_eq!(
        name_given.trim_start_matches("__vdso_"),
        name.trim_start_matches("__vdso_")
    );
}

#[test]
fn what_is_unknown_has_no_lines() {
    let local = 0_u8;
    let stack = core::ptr::from_ref(&local).addr();
    let mut symbolizer = Symbolizer::default();
    let code = symbolizer.resolve([(0, 0), (1, 1), (2, stack), (3, usize::MAX)].into_iter());
    for id in 0..5 {
        assert!(lines(&code, id).is_empty());
    }
    for pc in [0, 1, stack] {
        assert_eq!(code.mapping_of(pc), None);
        assert_eq!(symbolizer.name(pc), None);
    }
    assert_eq!(code.functions.len(), 0);
    assert!(code.mappings.iter().all(|mapping| !mapping.is_symbolized));
    assert!(code.function(0).is_none() && code.string(u32::MAX).is_none());
    assert!(code.mapping(usize::MAX).is_none());
}

#[test]
fn numbers_are_dense_and_unique() {
    let start = use_all as fn() as usize;
    let mut symbolizer = Symbolizer::default();
    // What other responses asked for takes no number in this one.
    symbolizer.prepare(start + 4096..start + 8192);
    let code = symbolizer.resolve(
        (start..start + 64)
            .enumerate()
            .map(|(i, pc)| (i as u32, pc)),
    );
    assert_eq!(code.string(0), Some(""));
    let strings: HashSet<&str> = code.strings.iter().map(|text| &**text).collect();
    assert_eq!(strings.len(), code.strings.len());
    let used: HashSet<u32> = (0..64)
        .flat_map(|id| lines(&code, id))
        .map(|line| line.function)
        .collect();
    assert_eq!(used.len(), code.functions.len());
    let functions: HashSet<&Function> = code.functions.iter().collect();
    assert_eq!(functions.len(), code.functions.len());
    let mut referred: HashSet<u32> = functions
        .iter()
        .flat_map(|f| [f.name, f.system_name, f.filename])
        .collect();
    for mapping in &code.mappings {
        referred.extend([mapping.filename, mapping.build_id]);
    }
    referred.insert(0);
    assert_eq!(referred.len(), code.strings.len());
}

#[test]
fn results_are_kept_within_bounds() {
    let start = use_all as fn() as usize;
    let pcs = || {
        (start..start + 32)
            .enumerate()
            .map(|(i, pc)| (i as u32, pc))
    };
    let mut symbolizer = Symbolizer::default();
    let first = symbolizer.resolve(pcs());
    let frames = symbolizer.frames.len();
    let second = symbolizer.resolve(pcs());
    // Nothing was looked up again.
    assert_eq!(symbolizer.frames.len(), frames);
    for id in 0..32 {
        assert_eq!(chain(&first, id), chain(&second, id));
    }

    for pc in 1..MOST_ADDRESSES {
        symbolizer.keep(pc, &[]);
    }
    let third = symbolizer.resolve(pcs());
    assert_eq!(symbolizer.known.len(), MOST_ADDRESSES + 31);
    symbolizer.prepare(core::iter::once(start + 40));
    assert_eq!(symbolizer.known.len(), 1);
    assert_eq!(chain(&first, 5), chain(&third, 5));
    assert_eq!(chain(&symbolizer.resolve(pcs()), 5), chain(&first, 5));
}

#[test]
fn addresses_of_vanished_objects_are_forgotten() {
    let start = use_all as fn() as usize;
    let mut symbolizer = Symbolizer::default();
    symbolizer.prepare(start..start + 4);
    assert_eq!(symbolizer.known.len(), 4);
    symbolizer.refresh();
    assert_eq!(symbolizer.known.len(), 4);
    let gone = maps::Mapping {
        start: 0x1000,
        limit: 0x2000,
        file: "/lib/unloaded.so".to_owned(),
        main: false,
        ..symbolizer.mappings[0].clone()
    };
    symbolizer.mappings.push(gone);
    symbolizer.keep(0x1234, &[]);
    symbolizer.refresh();
    assert_eq!(symbolizer.known.len(), 4);
    assert!(symbolizer.mappings.iter().all(|m| m.start != 0x1000));
}

/// Rounds of [`damaged_objects_are_survived`].
const ROUNDS: u64 = 30;

#[test]
fn damaged_objects_are_survived() {
    let whole = std::fs::read("/proc/self/exe").unwrap();
    let path = std::env::temp_dir().join(format!("picoprof-damaged-{}", std::process::id()));
    let (_, start, size) = functions_of(&mappings()[0], SHT_SYMTAB)
        .into_iter()
        .find(|(name, ..)| name.contains("closure_host"))
        .unwrap();
    let mapping = &mappings()[0];
    let offset = (start - mapping.start) as u64 + mapping.offset;
    let wanted: Vec<(usize, u64)> = (0..size as u64)
        .map(|at| (start + at as usize, offset + at))
        .collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for round in 0..ROUNDS {
        let mut bytes = whole.clone();
        match round % 3 {
            0 => {
                // Headers, at both ends of the file.
                for _ in 0..4 {
                    let at = random(1024);
                    bytes[at] = random(256) as u8;
                    let at = bytes.len() - 1 - random(4096);
                    bytes[at] = random(256) as u8;
                }
            }
            1 => {
                for _ in 0..bytes.len() / (500 << random(8)) {
                    let at = 4096 + random(bytes.len() - 8192);
                    bytes[at] = random(256) as u8;
                }
            }
            _ => bytes.truncate(random(whole.len())),
        }
        std::fs::write(&path, &bytes).unwrap();
        let mut symbolizer = Symbolizer::default();
        if let Some(elf) = Image::open(&path).ok().and_then(Elf::new) {
            symbolizer.look_up_in(Some(&elf), &wanted);
            assert_eq!(symbolizer.known.len(), size);
        }
    }
    std::fs::remove_file(&path).unwrap();
}
