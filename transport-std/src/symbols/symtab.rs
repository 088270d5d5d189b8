//! Function names from ELF symbol tables, for a sorted list of addresses.
//!
//! `.symtab` first, then `.dynsym`, which is all that a stripped library keeps. A symbol that
//! states its size names only that much: in a stripped library the code between exported
//! functions belongs to others, and stays without a name.

use super::elf::{Elf, SHT_DYNSYM, SHT_SYMTAB, Section, u16_at, u32_at, u64_at};

const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;
const STB_GLOBAL: u8 = 1;
const SYMBOL: usize = 24;
/// Symbols read at a time.
const BATCH: u64 = 4096;
/// Aliases weighed against each other: more at one address is no use.
const MOST_ALIASES: usize = 8;

/// The name of the function at each of the sorted `addresses`.
pub(super) fn names(elf: &Elf, addresses: &[u64]) -> Vec<Option<String>> {
    let mut names: Vec<Option<String>> = vec![None; addresses.len()];
    for kind in [SHT_SYMTAB, SHT_DYNSYM] {
        if names.iter().all(Option::is_some) {
            break;
        }
        let Some((table, strings)) = elf.symbols(kind) else {
            continue;
        };
        for (name, nearest) in names.iter_mut().zip(nearest(&table, addresses)) {
            if name.is_none() {
                *name = nearest.and_then(|nearest| nearest.name(&strings));
            }
        }
    }
    names
}

/// The highest symbol at or below an address, with its aliases.
#[derive(Clone, Debug, Default)]
struct Nearest {
    address: u64,
    end: u64,
    /// Offsets of names, and whether each is global.
    aliases: Vec<(u32, bool)>,
}

impl Nearest {
    /// The alias that people know: `write` rather than `__write`.
    fn name(&self, strings: &Section<'_>) -> Option<String> {
        self.aliases
            .iter()
            .filter_map(|&(offset, global)| {
                let name = strings.string(u64::from(offset))?;
                (!name.is_empty()).then_some((name, global))
            })
            .min_by_key(|(name, global)| {
                let underscores = name.len() - name.trim_start_matches('_').len();
                (underscores, !global, name.clone())
            })
            .map(|(name, _)| name)
    }
}

/// For each address the symbol that covers it.
///
/// A symbol is first noted at the lowest address at or above its own, where only the highest
/// such symbol stays. Those notes then carry upwards to the addresses without one.
fn nearest(table: &Section<'_>, addresses: &[u64]) -> Vec<Option<Nearest>> {
    // Labels in assembly often have no size: they count where no sized symbol covers.
    let mut sized: Vec<Nearest> = vec![Nearest::default(); addresses.len()];
    let mut unsized_: Vec<Nearest> = sized.clone();
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < table.size() {
        if table
            .read_up_to(at, BATCH * SYMBOL as u64, &mut bytes)
            .is_none()
        {
            break;
        }
        at += bytes.len() as u64;
        for symbol in bytes.chunks_exact(SYMBOL).filter_map(Symbol::parse) {
            let first = addresses.partition_point(|&address| address < symbol.address);
            let notes = if symbol.size == 0 {
                &mut unsized_
            } else {
                &mut sized
            };
            if let Some(note) = notes.get_mut(first) {
                symbol.note(note);
            }
        }
    }
    carry(&mut sized);
    carry(&mut unsized_);
    addresses
        .iter()
        .zip(sized.into_iter().zip(unsized_))
        .map(|(&address, (sized, unsized_))| {
            if !sized.aliases.is_empty() && address < sized.end {
                Some(sized)
            } else {
                // A label in the midst of a sized function does not name what follows it.
                let own = !unsized_.aliases.is_empty() && unsized_.address >= sized.end;
                own.then_some(unsized_)
            }
        })
        .collect()
}

fn carry(notes: &mut [Nearest]) {
    let mut last: Option<Nearest> = None;
    for note in notes {
        if note.aliases.is_empty() {
            if let Some(last) = &last {
                note.clone_from(last);
            }
        } else {
            last = Some(note.clone());
        }
    }
}

#[derive(Debug)]
struct Symbol {
    name: u32,
    global: bool,
    address: u64,
    size: u64,
}

impl Symbol {
    /// A defined function or a label in assembly; `None` for anything else.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let info = *bytes.get(4)?;
        let section = u16_at(bytes, 6)?;
        let size = u64_at(bytes, 16)?;
        let code = match info & 0xf {
            STT_FUNC | STT_GNU_IFUNC => true,
            // Local labels without a type are the assembler's own, `$x` on AArch64 among them.
            STT_NOTYPE => info >> 4 == STB_GLOBAL,
            _ => false,
        };
        let address = u64_at(bytes, 8)?;
        // 0xfff1 and above are absolute values and the like; address 0 is no code.
        (code && section != 0 && section < 0xfff0 && address != 0).then_some(Self {
            name: u32_at(bytes, 0)?,
            global: info >> 4 == STB_GLOBAL,
            address,
            size,
        })
    }

    fn note(&self, note: &mut Nearest) {
        if note.aliases.is_empty() || note.address < self.address {
            note.aliases.clear();
            note.address = self.address;
            note.end = self.address.saturating_add(self.size);
        }
        if note.address == self.address && note.aliases.len() < MOST_ALIASES {
            note.aliases.push((self.name, self.global));
            note.end = note.end.max(self.address.saturating_add(self.size));
        }
    }
}
