//! Call stacks of ordinary programs, taken where nothing but memory may be touched.
//!
//! `cargo build --release` keeps no frame pointers in user code (the standard library does, the C library does
//! not), so a walk needs each function's call frame information. [`refresh`] reads it for every loaded object
//! and makes compact tables of it, before any signal handler runs; [`walk`] only looks rules up. Where the
//! tables prove that every caller in a stretch of code keeps a frame record, the walk follows those instead
//! and looks nothing up.
//!
//! ```text
//! objects ─ the dynamic linker's list ─► modules ─► build (gimli) ─► table of rules
//!                                           │
//!                                        publish ─► walk, over words of the stack
//! ```
//!
//! `arch` is all that differs between x86-64 and AArch64.

#![deny(unsafe_code)]

mod arch;
mod build;
mod modules;
mod objects;
mod publish;
mod rule;
mod table;
#[cfg(all(test, target_env = "gnu"))]
mod tests;
mod trail;
mod walk;
mod words;

use core::ops::ControlFlow;

use picoprof::stack::capture::{End, Registers, StackBounds, call_site};

pub(crate) use arch::RED_ZONE;
use modules::Modules;
use publish::{Published, Update};
use trail::Notes;
pub(crate) use trail::{Begin, Trail, Trails};
use words::Words;

static MODULES: Published<Modules> = Published::new();

/// Builds the tables, or renews them if an object was loaded or unloaded since; returns whether they changed. A
/// caller that comes while another one is at work returns at once.
///
/// In ordinary context only: it allocates, and takes the dynamic linker's lock. Objects that were there before
/// keep their tables.
pub(crate) fn refresh() -> bool {
    MODULES.update(modules::load) == Update::Replaced
}

/// Whether [`walk`] has tables.
pub(crate) fn is_ready() -> bool {
    MODULES.is_some()
}

/// Walks the stack from `registers`, leaf first, into `pcs`; returns how many frames were written and why it
/// ended. The first is the pc itself, as is that of any frame that a signal interrupted; the others are call
/// sites (return address - 1). Without tables there is the first frame alone. `link` is the link register, which an
/// interrupted function's return address may still be in (AArch64: x30 of the signal's context; x86-64 has none).
///
/// May run in a signal handler: no lock, no allocation, no system call, and no read outside `bounds`.
// One for all that note nothing.
#[inline(never)]
pub(crate) fn walk_with_link(
    registers: Registers,
    link: Option<usize>,
    bounds: StackBounds,
    pcs: &mut [usize],
) -> (usize, End) {
    walk_words(
        registers,
        link,
        walk::words(registers, bounds),
        pcs,
        &mut (),
    )
}

impl Begin {
    /// Of a walk from `registers` that comes to its end at the frame with the stack pointer `base`, or at its root if that is
    /// [`usize::MAX`].
    ///
    /// May run in a signal handler.
    #[inline]
    pub(crate) fn of(registers: Registers, bounds: StackBounds, base: usize) -> Self {
        Self {
            version: MODULES.version(),
            registers,
            bounds: bounds.below(base),
            base,
        }
    }

    /// As [`walk_with_link`]: the walk that begins so. The frame at its base is not written. What it depends on is noted in
    /// `trail`, if there is one.
    ///
    /// May run in a signal handler.
    pub(crate) fn walk(&self, pcs: &mut [usize], trail: Option<&mut Trail>) -> (usize, End) {
        let Self {
            registers, bounds, ..
        } = *self;
        match trail {
            Some(trail) => {
                trail.restart();
                let stack = walk::words(registers, bounds);
                let walked = walk_words(registers, None, stack, pcs, trail);
                self.up_to_base(walked, pcs, trail)
            }
            None => {
                let walked = walk_with_link(registers, None, bounds, pcs);
                self.up_to_base(walked, pcs, &mut ())
            }
        }
    }

    #[inline]
    fn up_to_base(
        &self,
        (len, end): (usize, End),
        pcs: &[usize],
        notes: &mut impl Notes,
    ) -> (usize, End) {
        let stack = walk::words(self.registers, self.bounds);
        let last = len
            .checked_sub(1)
            .and_then(|last| Some((last, *pcs.get(last)?)));
        match last {
            // What the frame at the base needs to go on lies beyond.
            Some((last, pc)) if end == End::Broken && has_called(pc, self.base, stack, notes) => {
                (last, End::Outermost)
            }
            _ => (len, end),
        }
    }
}

#[inline(always)]
fn walk_words(
    registers: Registers,
    link: Option<usize>,
    stack: Words,
    pcs: &mut [usize],
    notes: &mut impl Notes,
) -> (usize, End) {
    MODULES.read(|modules| {
        if let Some(modules) = modules {
            return walk::walk(modules, registers, link, stack, pcs, notes);
        }
        match pcs.first_mut() {
            Some(pc) => {
                *pc = registers.pc;
                (1, End::Broken)
            }
            None => (0, End::TooDeep),
        }
    })
}

/// Whether the function with the stack pointer `base` makes its call at `pc`: what it called keeps the return address
/// among the first words below. On x86-64 it's the first one; on AArch64 it may be below other saved registers.
fn has_called(pc: usize, base: usize, stack: Words, notes: &mut impl Notes) -> bool {
    /// Twelve general registers and eight others, an even number (AAPCS64 6.1).
    const MOST_SAVED: usize = if cfg!(target_arch = "x86_64") { 1 } else { 20 };
    (1..=MOST_SAVED)
        .filter_map(|word| {
            let index = stack.index(base.wrapping_sub(word * size_of::<usize>()));
            let value = stack.get(index)?;
            notes.word(index, value);
            Some(value)
        })
        .any(|word| call_site(arch::strip(word)) == pc)
}

/// Whether `address` is in the code of the program itself, not in a library's.
///
/// In ordinary context only: it takes the dynamic linker's lock.
pub(crate) fn is_in_main_program(address: usize) -> bool {
    let mut is_in = false;
    objects::visit(|program| {
        is_in = program.text().contains(&address);
        // It is the first of all (dl_iterate_phdr(3)).
        ControlFlow::Break(())
    });
    is_in
}

/// What the tables are, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Loaded objects that have a table.
    pub(crate) modules: usize,
    /// Loaded objects with code but without call frame information.
    pub(crate) bare_modules: usize,
    /// The memory that the tables take.
    pub(crate) table_bytes: usize,
    /// The tables' rows.
    pub(crate) rows: usize,
    /// Functions whose call frame information could not be read.
    pub(crate) skipped_functions: usize,
    /// Of the code that makes calls, the share that keeps frame records, in percent.
    pub(crate) frame_pointer_share: u8,
}

/// What the tables are, for people.
pub(crate) fn summary() -> Summary {
    MODULES.read(|modules| modules.map(Summary::of).unwrap_or_default())
}

impl Summary {
    fn of(modules: &Modules) -> Self {
        let mut summary = Self {
            bare_modules: modules.bare(),
            ..Self::default()
        };
        let mut code = [0; 2];
        for table in modules.iter().map(modules::Module::table) {
            summary.modules += 1;
            summary.table_bytes += table.bytes();
            summary.rows += table.rows();
            summary.skipped_functions += table.skipped() as usize;
            code = [code[0] + table.code()[0], code[1] + table.code()[1]];
        }
        let all = code[0] + code[1];
        summary.frame_pointer_share = u8::try_from(100 * code[0] / all.max(1)).unwrap_or(100);
        summary
    }
}
