//! The objects that the dynamic linker has loaded, each with its table.

#![forbid(unsafe_code)]

use core::ops::{ControlFlow, Range};
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use gimli::{BaseAddresses, EhFrameHdr, NativeEndian};

use super::objects::{self, Changes, Object};
use super::rule::Rule;
use super::table::Table;
use super::{arch, build};

/// A stretch of code.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stretch {
    /// The start, negated: x86-64 keeps the address where it adds, not where it subtracts.
    minus_start: usize,
    len: usize,
}

impl Stretch {
    /// Where the calls in the table's stretch of frame records return to: one byte on, as the call itself is before.
    fn of_returns(text: usize, table: &Table) -> Self {
        let records = table.records();
        let start = text + records.start as usize + 1;
        Self {
            minus_start: start.wrapping_neg(),
            len: records.len(),
        }
    }

    #[inline]
    pub(super) fn contains(self, address: usize) -> bool {
        address.wrapping_add(self.minus_start) < self.len
    }
}

/// One object's code.
#[derive(Clone, Debug, Default)]
pub(super) struct Module {
    start: usize,
    len: usize,
    records: Stretch,
    table: Arc<Table>,
    /// Of the object's index of functions: tells it from another one that was loaded in its place.
    fingerprint: u64,
}

impl Module {
    /// Whether the code contains `address`.
    #[inline]
    pub(super) fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.start) < self.len
    }

    /// The number of the rule for the instruction at `address`.
    fn find(&self, address: usize) -> Option<u16> {
        // No module has more code than an offset can tell: `module` leaves such a one out.
        self.table.find(address.wrapping_sub(self.start) as u32)
    }

    /// The same, for the next time.
    #[cold]
    #[inline(never)]
    fn look_up(&self, address: usize, site: &AtomicU64) -> u16 {
        let number = self.find(address).unwrap_or_default();
        let known = (address as u64) << 16 | u64::from(number);
        site.store(known, Ordering::Relaxed);
        number
    }

    /// Where calls return to in the code in which every caller keeps a frame record.
    #[inline]
    pub(super) fn records(&self) -> Stretch {
        self.records
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

/// All objects' code, in address order.
#[derive(Debug)]
pub(super) struct Modules {
    modules: Box<[Module]>,
    /// The program itself, which most frames are in.
    program: Module,
    /// The C library, which each thread begins in.
    libc: Module,
    /// A module without code, for addresses that are in none.
    nowhere: Module,
    changes: Changes,
    /// Objects without a table: no call frame information, or too large.
    bare: usize,
    /// Rules that were looked up: the instruction's address above, the rule's number in the lower 16 bits. Stacks have
    /// most call sites in common. A word tells whose it is, so nothing but time is lost when two walks write the
    /// same one.
    sites: Box<[AtomicU64; 1 << SITE_BITS]>,
}

const SITE_BITS: u32 = 12;

impl Modules {
    /// The module whose code contains `address`. May run in a signal handler.
    #[inline]
    pub(super) fn find(&self, address: usize) -> Option<&Module> {
        if self.program.contains(address) {
            return Some(&self.program);
        }
        if self.libc.contains(address) {
            return Some(&self.libc);
        }
        self.search(address)
    }

    /// As `find`, or else the module without code.
    #[inline(never)]
    pub(super) fn at(&self, address: usize) -> &Module {
        self.find(address).unwrap_or(&self.nowhere)
    }

    /// The program itself.
    #[inline]
    pub(super) fn program(&self) -> &Module {
        &self.program
    }

    #[cold]
    #[inline(never)]
    fn search(&self, address: usize) -> Option<&Module> {
        let after = self
            .modules
            .partition_point(|module| module.start <= address);
        let module = self.modules.get(after.checked_sub(1)?)?;
        module.contains(address).then_some(module)
    }

    /// The rule for the instruction at `address` in `module`. May run in a signal handler: about 15 instructions if it
    /// was looked up before.
    #[inline]
    pub(super) fn rule<'a>(&self, module: &'a Module, address: usize) -> &'a Rule {
        // Fibonacci hashing: the upper bits of the product depend on all bits of the address.
        let hash = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SITE_BITS);
        let site = &self.sites[hash as usize];
        let known = site.load(Ordering::Relaxed);
        let number = if known >> 16 == address as u64 {
            known as u16
        } else {
            module.look_up(address, site)
        };
        module.table.rule(number).unwrap_or(&Rule::UNKNOWN)
    }

    pub(super) fn iter(&self) -> core::slice::Iter<'_, Module> {
        self.modules.iter()
    }

    pub(super) fn bare(&self) -> usize {
        self.bare
    }
}

/// Made on the heap: it is more than the stack of a small thread should have to hold.
fn empty_sites() -> Box<[AtomicU64; 1 << SITE_BITS]> {
    let sites: Box<[AtomicU64]> = (0..1 << SITE_BITS).map(|_| AtomicU64::new(0)).collect();
    sites.try_into().expect("so many were made")
}

/// The objects that are loaded now; None if they are those of `current`.
pub(super) fn load(current: Option<&Modules>) -> Option<Modules> {
    load_unless(current, current.map(|current| current.changes))
}

/// As [`load`], as if something had changed.
#[cfg(test)]
pub(super) fn load_changed(current: &Modules) -> Modules {
    load_unless(Some(current), None).expect("the program itself is loaded")
}

fn load_unless(current: Option<&Modules>, unchanged: Option<Changes>) -> Option<Modules> {
    let mut modules = Vec::new();
    let mut bare = 0;
    let mut changes = None;
    objects::visit(|object| {
        if unchanged == Some(object.changes()) {
            return ControlFlow::Break(());
        }
        changes = Some(object.changes());
        match module(object, current) {
            Some(module) => modules.push(module),
            None if object.text().is_empty() => {}
            None => bare += 1,
        }
        ControlFlow::Continue(())
    });
    let changes = changes?;
    // The dynamic linker lists the program first.
    let program = modules.first().cloned().unwrap_or_default();
    modules.sort_unstable_by_key(|module: &Module| module.start);
    let exit = libc::exit as *const () as usize;
    let libc = modules.iter().find(|module| module.contains(exit));
    Some(Modules {
        libc: libc.cloned().unwrap_or_default(),
        modules: modules.into_boxed_slice(),
        program,
        nowhere: Module::default(),
        changes,
        bare,
        sites: empty_sites(),
    })
}

/// The object with the table that `current` has for it, or else a new one.
fn module(object: &Object<'_>, current: Option<&Modules>) -> Option<Module> {
    let text = object.text();
    let (header_address, header) = object.eh_frame_hdr()?;
    let fingerprint = fingerprint(header);
    let known = current
        .and_then(|current| current.find(text.start))
        .filter(|known| {
            (known.start, known.len, known.fingerprint) == (text.start, text.len(), fingerprint)
        });
    if let Some(known) = known {
        return Some(known.clone());
    }
    let bases = BaseAddresses::default().set_eh_frame_hdr(header_address as u64);
    let pointer = EhFrameHdr::new(header, NativeEndian)
        .parse(&bases, 8)
        .and_then(|header| header.eh_frame_ptr().direct())
        .ok()?;
    let eh_frame_address = usize::try_from(pointer).ok()?;
    let eh_frame = object.bytes(eh_frame_address)?;
    if u32::try_from(text.len()).is_err() {
        return None;
    }
    let table = build::table(
        eh_frame,
        eh_frame_address,
        text.clone(),
        trampoline(object, &text),
    );
    Some(Module {
        start: text.start,
        len: text.len(),
        records: Stretch::of_returns(text.start, &table),
        table: Arc::new(table),
        fingerprint,
    })
}

/// The address of the kernel's signal trampoline, if this is the vDSO and the architecture has one there.
fn trampoline(object: &Object<'_>, text: &Range<usize>) -> Option<usize> {
    let code = arch::VDSO_TRAMPOLINE?;
    if !object.is_vdso() {
        return None;
    }
    let bytes = object.bytes(text.start)?;
    Some(
        text.start
            + bytes
                .windows(code.len())
                .position(|window| *window == code)?,
    )
}

/// FNV-1a, by words, of `.eh_frame_hdr`: the object's sorted list of functions.
fn fingerprint(header: &[u8]) -> u64 {
    let (words, rest) = header.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_ne_bytes(*word));
    let rest = rest.iter().map(|&byte| u64::from(byte));
    words.chain(rest).fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        (hash ^ word).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
impl Modules {
    /// One module, for tests.
    pub(super) fn of(start: usize, len: usize, table: Table) -> Self {
        let module = Module {
            start,
            len,
            records: Stretch::of_returns(start, &table),
            table: Arc::new(table),
            fingerprint: 0,
        };
        Self {
            modules: Box::new([module]),
            program: Module::default(),
            libc: Module::default(),
            nowhere: Module::default(),
            changes: Changes::default(),
            bare: 0,
            sites: empty_sites(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::{Cfa, Slot};
    use super::super::table::{Builder, Frames};
    use super::*;

    #[test]
    fn a_rule_that_was_looked_up_before_is_the_same() {
        const STEP: u32 = 64;
        const LEN: u32 = 16 << 20;
        let rule = |offset: u32| {
            let number = (offset / STEP % 1009) as i32;
            Rule::new(Cfa::Sp, 8 * number, 0, Slot::SAME, Slot::saved_at(-8))
        };
        let mut builder = Builder::default();
        for offset in (0..LEN).step_by(STEP as usize) {
            builder.row(offset, rule(offset));
        }
        builder.function(0..LEN, Frames::Other);
        let modules = Modules::of(0x40_0000, LEN as usize, builder.finish(LEN));
        let mut offset = 1_u32;
        for _ in 0..200_000 {
            offset = offset.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let offset = (offset >> 8) % LEN / STEP * STEP;
            let address = 0x40_0000 + offset as usize;
            let module = modules.find(address).unwrap();
            for _ in 0..2 {
                assert_eq!(*modules.rule(module, address), rule(offset));
            }
        }
        assert!(modules.find(0x40_0000 - 1).is_none());
        assert!(modules.find(0x40_0000 + LEN as usize).is_none());
    }

    #[test]
    fn a_fingerprint_depends_on_every_byte() {
        let header = [7_u8; 21];
        for at in 0..header.len() {
            let mut other = header;
            other[at] = 8;
            assert_ne!(fingerprint(&header), fingerprint(&other), "{at}");
        }
        assert_ne!(fingerprint(&header), fingerprint(&header[..20]));
    }
}
