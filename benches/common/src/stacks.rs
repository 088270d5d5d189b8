//! Ten thousand distinct call stacks of real functions, as those of a service are: a tree whose outer frames are shared.

use core::hint::black_box;

/// How many stacks.
pub const COUNT: usize = 10_000;
/// Calls below [`each`]. With the frames around them a stack has 30.
pub const LEVELS: usize = 20;

/// Calls `f` on each of the stacks in turn.
#[inline(never)]
pub fn each(f: &mut dyn FnMut()) {
    for stack in 0..COUNT {
        crate::signal::below(0, &mut || descend(stack, 0, f));
    }
}

type Level = fn(usize, usize, &mut dyn FnMut());

/// One step down the stack with this number.
///
/// Each of its four decimal digits chooses one way of ten, at every fifth level; in between, the digits chosen last
/// decide who is called.
#[inline(always)]
fn descend(stack: usize, level: usize, f: &mut dyn FnMut()) {
    if level == LEVELS {
        return f();
    }
    let chosen = match level {
        0..=4 => 0,
        5..=9 => stack / 1000,
        10..=14 => stack / 100,
        15..=18 => stack / 10,
        _ => stack,
    };
    // One of twenty for each level; as many as there are functions.
    LEVEL[level * 20 + chosen % 20](stack, level, f);
}

/// Functions that call on from one of three places each.
macro_rules! levels {
    ($($module:ident: $($name:ident)*;)*) => {
        $(mod $module {
            $(
                #[inline(never)]
                pub(super) fn $name(stack: usize, level: usize, f: &mut dyn FnMut()) {
                    // No two functions are the same, lest the compiler make them one.
                    let own = concat!(stringify!($module), stringify!($name));
                    match stack / 1000 % 3 {
                        0 => super::descend(stack, level + 1, f),
                        1 => {
                            super::descend(stack, level + 1, f);
                            super::black_box(stack);
                        }
                        _ => {
                            super::black_box(level);
                            super::descend(stack, level + 1, f);
                        }
                    }
                    super::black_box(own);
                }
            )*
        })*
        static LEVEL: &[Level] = &[$($($module::$name,)*)*];
    };
}

levels! {
        parse: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        route: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        render: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        index: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        merge: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        query: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        store: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        cache: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        encode: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        verify: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        commit: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        replay: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        schema: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        balance: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        session: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        archive: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        compact: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        publish: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        resolve: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
        collect: begin advance accept finish inspect convert dispatch distribute evaluate normalize
        prepare reduce refresh release reserve retry scan select update validate;
}
