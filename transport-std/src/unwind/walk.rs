//! The walk: from a thread's registers to its call stack.
//!
//! All of this may run in a signal handler: no lock, no allocation, no system call, no read outside the
//! stack's bounds.

#![forbid(unsafe_code)]

use picoprof::stack::capture::{End, Registers, StackBounds, call_site};

use super::arch::{self, SIGNAL_FRAME};
use super::modules::{Modules, Stretch};
use super::rule::{Cfa, Kind, Rule, Slot};
use super::trail::Notes;
use super::words::Words;

/// A frame. All but the first and those that a signal interrupted made a call.
#[derive(Clone, Copy, Debug)]
struct Caller {
    /// The pc or call site: the address whose rule leads to the next caller, and what the profile gets.
    at: usize,
    sp: usize,
    fp: usize,
}

/// What a frame did last.
#[derive(Clone, Copy, Debug)]
enum Last {
    Called,
    /// With the link register, where there is one: it may still hold the return address.
    Interrupted(Option<usize>),
}

/// What a frame's rule leads to.
#[derive(Debug)]
enum Step {
    Caller(Caller),
    /// A frame that a signal interrupted: its pc is exact, and its return address may still be in the link
    /// register.
    Interrupted(Registers, Option<usize>),
    End(End),
}

/// What a walk from these registers may read.
#[inline]
pub(super) fn words(registers: Registers, bounds: StackBounds) -> Words {
    Words::of(bounds.above(registers.sp.saturating_sub(arch::RED_ZONE)))
}

/// Walks the stack, leaf first, into `pcs`; returns how many frames were written and why it ended. `notes` hears of each
/// word of `stack` that it goes by.
#[inline(always)]
pub(super) fn walk(
    modules: &Modules,
    registers: Registers,
    mut link: Option<usize>,
    stack: Words,
    pcs: &mut [usize],
    notes: &mut impl Notes,
) -> (usize, End) {
    let Registers { pc, sp, fp } = registers;
    let mut caller = Caller { at: pc, sp, fp };
    // Where the caller's call returns to; 0, which is in no code, if it was interrupted instead.
    let mut returns_to = 0;
    let mut module = modules.program();
    let mut len = 0;
    loop {
        let Caller { at, sp, fp } = caller;
        match pcs.get_mut(len) {
            Some(pc) => *pc = at,
            None => return (len, End::TooDeep),
        }
        len += 1;
        if !module.contains(at) {
            module = modules.at(at);
        }
        if module.records().contains(returns_to) {
            let rest = pcs.get_mut(len..).unwrap_or_default();
            let (written, next) = follow_records(caller, module.records(), stack, rest, notes);
            len += written;
            match next {
                Ok(next) => caller = next,
                Err(end) => return (len, end),
            }
            returns_to = caller.at.wrapping_add(1);
            continue;
        }
        let rule = modules.rule(module, at);
        let next = if rule.is_record {
            record_step(rule, caller, stack, notes)
        } else if rule.kind == Kind::Plain {
            plain_step(rule, caller, stack, notes)
        } else if rule.kind == Kind::Outermost {
            return (len, End::Outermost);
        } else {
            let last = match returns_to {
                0 => Last::Interrupted(link),
                _ => Last::Called,
            };
            notes.give_up();
            match rare_step(rule, Caller { at, sp, fp }, last, stack, modules) {
                Some(Step::Caller(next)) => Ok(next),
                Some(Step::Interrupted(Registers { pc, sp, fp }, next_link)) => {
                    caller = Caller { at: pc, sp, fp };
                    link = next_link;
                    returns_to = 0;
                    continue;
                }
                Some(Step::End(end)) => Err(end),
                None => Err(End::Broken),
            }
        };
        match next {
            Ok(next) => caller = next,
            Err(end) => return (len, end),
        }
        returns_to = caller.at.wrapping_add(1);
    }
}

/// Steps by frame records from `caller`, which is in `records`, while its callers are, and writes them into `pcs`.
/// Returns how many they are, and the first one elsewhere, which is not written.
#[inline(never)]
fn follow_records(
    caller: Caller,
    records: Stretch,
    stack: Words,
    pcs: &mut [usize],
    notes: &mut impl Notes,
) -> (usize, Result<Caller, End>) {
    notes.uses_frame_pointer();
    if caller.fp < caller.sp {
        return (0, Err(End::Broken));
    }
    let mut rising = stack.rising();
    let mut record = caller.fp;
    // One caller; None if it was written.
    let mut follow = |pc: Option<&mut usize>| {
        let Some((fp, return_address)) = rising.pair(record) else {
            return Some(Err(End::Broken));
        };
        let index = stack.index(record);
        notes.word(index + 1, return_address);
        notes.frame_pointer(index, fp);
        let return_address = arch::strip(return_address);
        let at = call_site(return_address);
        if !records.contains(return_address) {
            let sp = record.wrapping_add(16);
            return Some(match return_address {
                0 => Err(End::Outermost),
                _ => Ok(Caller { at, sp, fp }),
            });
        }
        match pc {
            Some(pc) => *pc = at,
            None => return Some(Err(End::TooDeep)),
        }
        record = fp;
        notes.uses_frame_pointer();
        None
    };
    // By sixteen: the room is looked at less often.
    let (chunks, rest) = pcs.as_chunks_mut::<16>();
    let mut written = 0;
    for chunk in chunks {
        for (number, pc) in chunk.iter_mut().enumerate() {
            if let Some(next) = follow(Some(pc)) {
                return (written + number, next);
            }
        }
        written += chunk.len();
    }
    for pc in rest {
        if let Some(next) = follow(Some(pc)) {
            return (written, next);
        }
        written += 1;
    }
    (written, follow(None).unwrap_or(Err(End::TooDeep)))
}

/// Applies a rule that saves a frame record.
#[inline(always)]
fn record_step(
    rule: &Rule,
    frame: Caller,
    stack: Words,
    notes: &mut impl Notes,
) -> Result<Caller, End> {
    let cfa = cfa(rule, frame, notes);
    let index = stack.index(cfa.wrapping_sub(16));
    let Some((fp, return_address)) = stack.pair(index) else {
        return Err(End::Broken);
    };
    notes.word(index + 1, return_address);
    notes.frame_pointer(index, fp);
    if cfa <= frame.sp {
        return Err(End::Broken);
    }
    called_from(return_address, cfa, fp)
}

/// Applies a rule of the common kind.
#[inline(always)]
fn plain_step(
    rule: &Rule,
    frame: Caller,
    stack: Words,
    notes: &mut impl Notes,
) -> Result<Caller, End> {
    let cfa = cfa(rule, frame, notes);
    let index = stack.index(rule.ra.address(cfa));
    let Some(return_address) = stack.get(index) else {
        return Err(End::Broken);
    };
    notes.word(index, return_address);
    if cfa <= frame.sp {
        return Err(End::Broken);
    }
    let fp = match rule.fp {
        Slot::SAME => frame.fp,
        saved => {
            let index = stack.index(saved.address(cfa));
            match stack.get(index) {
                Some(fp) => {
                    notes.frame_pointer(index, fp);
                    fp
                }
                // Nobody called the outermost frame, whatever its rule says.
                None if arch::strip(return_address) == 0 => 0,
                None => return Err(End::Broken),
            }
        }
    };
    called_from(return_address, cfa, fp)
}

/// The canonical frame address by a rule of these kinds.
#[inline(always)]
fn cfa(rule: &Rule, frame: Caller, notes: &mut impl Notes) -> usize {
    let base = if rule.cfa == Cfa::Sp {
        frame.sp
    } else {
        notes.uses_frame_pointer();
        frame.fp
    };
    base.wrapping_add_signed(rule.offset as isize)
}

#[inline(always)]
fn called_from(return_address: usize, sp: usize, fp: usize) -> Result<Caller, End> {
    match arch::strip(return_address) {
        0 => Err(End::Outermost),
        return_address => Ok(Caller {
            at: call_site(return_address),
            sp,
            fp,
        }),
    }
}

/// Applies any rule to a frame; None if it leads nowhere.
#[inline(never)]
fn rare_step(
    rule: &Rule,
    frame: Caller,
    last: Last,
    stack: Words,
    modules: &Modules,
) -> Option<Step> {
    let Caller { at, sp, fp } = frame;
    let offset = rule.offset as isize;
    let dereferenced = |base: usize| {
        let word = stack.read(base.wrapping_add_signed(offset))?;
        Some(word.wrapping_add_signed(8 * isize::from(rule.add)))
    };
    let cfa = match rule.cfa {
        Cfa::Sp => sp.wrapping_add_signed(offset),
        Cfa::Fp => fp.wrapping_add_signed(offset),
        Cfa::DerefSp => dereferenced(sp)?,
        Cfa::DerefFp => dereferenced(fp)?,
        Cfa::Plt => sp.wrapping_add(if (at & 15) as isize >= offset { 16 } else { 8 }),
        Cfa::Signal => return interrupted(sp, stack),
        Cfa::Outermost => return Some(Step::End(End::Outermost)),
        Cfa::Unknown => return guess(frame, last, stack, modules),
    };
    let in_link = rule.ra == Slot::SAME;
    let return_address = match last {
        Last::Interrupted(link) if in_link => link?,
        Last::Called if in_link => return None,
        _ => stack.read(rule.ra.address(cfa))?,
    };
    let return_address = arch::strip(return_address);
    if return_address == 0 {
        return Some(Step::End(End::Outermost));
    }
    // A frame whose return address is still in the link register may be empty. Only an interrupted frame has
    // that, so no two such frames follow each other.
    if cfa < sp || cfa == sp && !in_link {
        return None;
    }
    let fp = match rule.fp {
        Slot::SAME => fp,
        Slot::AT_FP => stack.read(fp)?,
        // Zero is in no stack: the walk ends if a caller needs it.
        Slot::LOST => 0,
        saved => stack.read(saved.address(cfa))?,
    };
    let at = call_site(return_address);
    Some(Step::Caller(Caller { at, sp: cfa, fp }))
}

/// The frame that a signal interrupted; `sp` is that of the code which its handler returns to.
#[cold]
fn interrupted(sp: usize, stack: Words) -> Option<Step> {
    let register = |offset: usize| stack.read(sp.wrapping_add(offset));
    let registers = Registers {
        pc: register(SIGNAL_FRAME.pc)?,
        sp: register(SIGNAL_FRAME.sp)?,
        fp: register(SIGNAL_FRAME.fp)?,
    };
    let link = match SIGNAL_FRAME.link {
        Some(offset) => Some(register(offset)?),
        None => None,
    };
    // A handler on a stack of its own ends the walk: nobody vouched for the interrupted stack.
    (registers.sp > sp).then_some(Step::Interrupted(registers, link))
}

/// Where no rule is known: what the frame pointer or a call left may still lead to a caller. It is believed if
/// that is known code.
///
/// Code that was interrupted is most often a leaf, such as a procedure linkage table's entry (lld writes no call
/// frame information for those): the return address is where the call left it. Otherwise the frame pointer may
/// point to a frame record: of this code, or of a caller that is near.
#[cold]
fn guess(frame: Caller, last: Last, stack: Words, modules: &Modules) -> Option<Step> {
    let Caller { sp, fp, .. } = frame;
    let known = |return_address: usize| {
        let at = call_site(arch::strip(return_address));
        let rule = modules.rule(modules.find(at)?, at);
        (rule.cfa != Cfa::Unknown).then_some(at)
    };
    if let Last::Interrupted(link) = last {
        let left = if arch::LINK_REGISTER {
            link
        } else {
            stack.read(sp)
        };
        if let Some(at) = left.and_then(known) {
            let sp = sp.wrapping_add_signed(arch::ENTRY_OFFSET as isize);
            return Some(Step::Caller(Caller { at, sp, fp }));
        }
    }
    let (caller_fp, return_address) = stack.pair(stack.index(fp)).filter(|_| fp >= sp)?;
    let at = known(return_address)?;
    Some(Step::Caller(Caller {
        at,
        sp: fp.wrapping_add(16),
        fp: caller_fp,
    }))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::super::table::{Builder, Frames};
    use super::super::words::with_bounds;
    use super::*;

    const TEXT: usize = 0x40_0000;
    /// Code that keeps frame records, and code that has each of these rules.
    const RECORD: usize = TEXT + 0x100;
    const SP_24: usize = TEXT + 0x1100;
    const FP_16: usize = TEXT + 0x2100;
    const TRAMPOLINE: usize = TEXT + 0x3100;
    const LOST: usize = TEXT + 0x4100;
    const BARE: usize = TEXT + 0x5100;

    fn modules() -> Modules {
        let ra = Slot::saved_at(-8);
        let saved = Slot::saved_at(-16);
        let mut builder = Builder::default();
        for (start, rule, frames) in [
            (0, Rule::new(Cfa::Fp, 16, 0, saved, ra), Frames::Record),
            (
                0x1000,
                Rule::new(Cfa::Sp, 24, 0, Slot::SAME, ra),
                Frames::Other,
            ),
            (0x2000, Rule::new(Cfa::Fp, 16, 0, saved, ra), Frames::Other),
            (0x3000, Rule::SIGNAL, Frames::Other),
            (
                0x4000,
                Rule::new(Cfa::Sp, 8, 0, Slot::LOST, ra),
                Frames::Other,
            ),
            (0x5000, Rule::UNKNOWN, Frames::Other),
        ] {
            builder.row(start, rule);
            builder.function(start..start + 0x1000, frames);
        }
        Modules::of(TEXT, 0x6000, builder.finish(0x6000))
    }

    /// A walk of a stack whose words `fill` makes from the address of the first. The stack pointer is at that, and the
    /// frame pointer at word `fp`.
    fn walk_of<const N: usize>(
        pc: usize,
        fp: isize,
        fill: impl Fn(usize) -> [usize; N],
    ) -> (Vec<usize>, End) {
        let words = [const { AtomicUsize::new(0) }; N];
        with_bounds(&words, |bounds| {
            let sp = bounds.low();
            for (word, value) in words.iter().zip(fill(sp)) {
                word.store(value, Relaxed);
            }
            let fp = sp.wrapping_add_signed(8 * fp);
            let mut pcs = [0; 9];
            let registers = Registers { pc, sp, fp };
            let stack = super::words(registers, bounds);
            let (len, end) = walk(&modules(), registers, None, stack, &mut pcs, &mut ());
            (pcs[..len].to_vec(), end)
        })
    }

    #[test]
    fn records_lead_to_code_without_and_on() {
        // The first frame by its rule; two by their records; one at sp + 24; one by its record.
        let walked = walk_of(FP_16, 0, |base| {
            [
                base + 8 * 2,
                RECORD + 1, // word 0
                base + 8 * 4,
                RECORD + 2, // 2
                base + 8 * 9,
                SP_24 + 1, // 4
                0,
                0,
                FP_16 + 1, // 6: sp + 24
                0,
                0, // 9
            ]
        });
        assert_eq!(
            walked,
            (
                vec![FP_16, RECORD, RECORD + 1, SP_24, FP_16],
                End::Outermost
            )
        );
    }

    #[test]
    fn frames_that_do_not_rise_end_the_walk() {
        // A record that points to itself, to the one before, and to dead words below the frame.
        for next in [2, 0] {
            let walked = walk_of(FP_16, 0, |base| {
                [base + 16, RECORD + 1, base + 8 * next, RECORD + 2, 0, 0]
            });
            assert_eq!(
                walked,
                (vec![FP_16, RECORD, RECORD + 1], End::Broken),
                "{next}"
            );
        }
        let walked = walk_of(SP_24, 0, |_| [0, RECORD + 2, RECORD + 1, 0, 0, 0]);
        assert_eq!(walked, (vec![SP_24, RECORD], End::Broken));
        // The same by rule: the canonical frame address is below the stack pointer.
        let walked = walk_of(SP_24, 0, |_| [0, FP_16 + 2, FP_16 + 1, 0, 0, 0]);
        assert_eq!(walked, (vec![SP_24, FP_16], End::Broken));
    }

    #[test]
    fn a_signal_frame_leads_upwards_only() {
        for (sp, expected) in [
            (
                8 * 30,
                (
                    vec![SP_24, TRAMPOLINE, SP_24 + 5, SP_24 + 6],
                    End::Outermost,
                ),
            ),
            (0, (vec![SP_24, TRAMPOLINE], End::Broken)),
        ] {
            let walked = walk_of(SP_24, 0, |base| {
                let mut words = [0; 40];
                words[2] = TRAMPOLINE + 1;
                // The `ucontext` is where the trampoline's stack pointer points, at word 3.
                words[3 + SIGNAL_FRAME.pc / 8] = SP_24 + 5;
                words[3 + SIGNAL_FRAME.sp / 8] = base + sp;
                words[30 + 2] = SP_24 + 7;
                words
            });
            assert_eq!(walked, expected, "{sp}");
        }
    }

    #[test]
    fn a_frame_pointer_that_is_lost_is_not_used() {
        let walked = walk_of(LOST, 2, |_| [RECORD + 1, 0, 0, RECORD + 2, 0]);
        assert_eq!(walked, (vec![LOST, RECORD], End::Broken));
    }

    #[test]
    fn code_without_rules_is_left_by_what_looks_right() {
        // A return address at the stack pointer.
        let walked = walk_of(BARE, 1, |_| [SP_24 + 1, 0, 0, 0, 0]);
        assert_eq!(walked, (vec![BARE, SP_24], End::Outermost));
        // A frame record, here and from code that nothing is known of.
        for pc in [BARE, 0x1234] {
            let walked = walk_of(pc, 1, |_| [BARE, 0, SP_24 + 1, 0, 0, 0]);
            assert_eq!(walked, (vec![pc, SP_24], End::Outermost));
        }
        // Neither.
        for word in [0, BARE, 0x1234, usize::MAX] {
            assert_eq!(
                walk_of(BARE, 1, |_| [word, 0, word]),
                (vec![BARE], End::Broken)
            );
        }
        assert_eq!(
            walk_of(BARE, -1, |_| [0, SP_24 + 1, 0]),
            (vec![BARE], End::Broken)
        );
        // A record below the frame.
        let walked = walk_of(SP_24, 0, |_| [0, SP_24 + 1, BARE + 1, 0, 0, 0, 0]);
        assert_eq!(walked, (vec![SP_24, BARE], End::Broken));
    }
}
