//! What a stack waits for, told by the names of the functions on it.
//!
//! From the leaf to the root, and from the innermost inlined function outwards: the first function that waits for
//! something says what, and if that is what other things are made of ([`Wait::is_generic`]), those that call it
//! may know better, up to the first that is the program's own.

#![forbid(unsafe_code)]

use super::halves;
use super::source;
use super::used::{self, Used};
use crate::profile::{Role, Wait};
use crate::stack::{LocationId, Stacks};
use crate::target::{Symbols, Target};

/// Locations in a word.
const PER_WORD: usize = 8;

/// What each location of a set says of the stacks that it is on.
#[derive(Debug)]
pub(crate) struct Reasons<S> {
    /// A [`Class`] for each place.
    classes: S,
}

impl<S: AsRef<[u64]> + AsMut<[u64]>> Reasons<S> {
    /// Asks the target for the role of each function at the locations of a set. `None` without memory for a
    /// byte for each location, and where no function has a name.
    pub(crate) fn new<T: Target<Scratch = S>>(
        target: &T,
        stacks: &Stacks<'_>,
        used: &Used<S>,
        symbols: &T::Symbols,
    ) -> Option<Self> {
        let mut classes = target.scratch(used::places(stacks).div_ceil(PER_WORD))?;
        let mut has_names = false;
        for place in 0..used::places(stacks) {
            let location = used::location_at(place).filter(|&location| used.contains(location));
            let Some(location) = location.filter(|location| location.marker().is_none()) else {
                continue;
            };
            has_names |= !symbols.lines(location).is_empty();
            let functions = source::functions::<T>(symbols, location);
            let class = Class::of(functions.map(|(name, ..)| target.role_of(name)));
            class.put(classes.as_mut(), place);
        }
        has_names.then_some(Self { classes })
    }

    /// What a stack waits for; `None` if no function on it tells.
    pub(crate) fn wait_of(&self, frames: impl Iterator<Item = LocationId>) -> Option<Wait> {
        let mut found = None;
        for class in frames.map(|location| self.class(location)) {
            if found.is_some() && class.has(Class::PROGRAM_FIRST) {
                break;
            }
            if let Some(wait) = class.wait() {
                found = Some(wait);
                if class.has(Class::LAST) {
                    break;
                }
            }
        }
        found
    }

    fn class(&self, location: LocationId) -> Class {
        Class::at(self.classes.as_ref(), used::place_of(location))
    }
}

/// What the functions at one location say together: what they wait for, and whether the walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Class(u8);

impl Class {
    /// The wait's place in [`Wait::ALL`], from 1 up; 0 for none.
    const WAIT: u8 = 0x1f;
    /// A function of the program's own comes before any that waits: it ends a walk that has found something.
    const PROGRAM_FIRST: u8 = 0x20;
    /// After the wait there's nothing more to learn.
    const LAST: u8 = 0x40;

    /// Of the roles of the functions, the innermost first.
    fn of(roles: impl Iterator<Item = Role>) -> Self {
        let mut class = 0;
        for role in roles {
            match role {
                Role::Library | Role::Profiler => {}
                Role::Program if class & Self::WAIT == 0 => class |= Self::PROGRAM_FIRST,
                Role::Program => {
                    class |= Self::LAST;
                    break;
                }
                Role::Waits(wait) => {
                    class = class & !Self::WAIT | (wait as u8 + 1);
                    if !wait.is_generic() {
                        class |= Self::LAST;
                        break;
                    }
                }
            }
        }
        Self(class)
    }

    /// That of a place.
    fn at(classes: &[u64], place: usize) -> Self {
        let four = halves::at(classes, place / 4);
        Self((four >> (place % 4 * 8)) as u8)
    }

    /// Puts it at a place that has none.
    fn put(self, classes: &mut [u64], place: usize) {
        let bits = u32::from(self.0) << (place % 4 * 8);
        halves::set(classes, place / 4, bits);
    }

    fn wait(self) -> Option<Wait> {
        let index = usize::from(self.0 & Self::WAIT).checked_sub(1)?;
        Wait::ALL.get(index).copied()
    }

    const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::stack::Marker;

    const _: () = assert!(Wait::ALL.len() <= Class::WAIT as usize);

    /// The rule, on functions one by one.
    fn wait_by_the_rule(roles: impl Iterator<Item = Role>) -> Option<Wait> {
        let mut found: Option<Wait> = None;
        for role in roles {
            match role {
                Role::Waits(wait) if wait.is_generic() => found = Some(wait),
                Role::Waits(wait) => return Some(wait),
                Role::Program if found.is_some() => return found,
                Role::Library | Role::Profiler | Role::Program => {}
            }
        }
        found
    }

    fn reasons(stack: &[Vec<Role>]) -> Reasons<Vec<u64>> {
        let mut classes = vec![0; 8];
        for (i, roles) in stack.iter().enumerate() {
            let place = used::place_of(LocationId::new(i as u32));
            Class::of(roles.iter().copied()).put(&mut classes, place);
        }
        Reasons { classes }
    }

    #[test]
    fn every_wait_comes_back() {
        for wait in Wait::ALL {
            assert_eq!(Wait::ALL[wait as usize], wait);
            let class = Class::of([Role::Waits(wait)].into_iter());
            assert_eq!(
                (class.wait(), class.has(Class::LAST)),
                (Some(wait), !wait.is_generic())
            );
        }
    }

    fn role() -> impl Strategy<Value = Role> {
        prop_oneof![
            prop::sample::select(Wait::ALL.to_vec()).prop_map(Role::Waits),
            Just(Role::Waits(Wait::Park)),
            Just(Role::Library),
            Just(Role::Program),
        ]
    }

    proptest! {
        #[test]
        fn classes_of_locations_say_what_the_functions_would(
            stack in prop::collection::vec(prop::collection::vec(role(), 0..4), 0..10)
        ) {
            let reasons = reasons(&stack);
            let locations = (0..stack.len() as u32).map(LocationId::new);
            let frames = locations.chain([Marker::TooDeep.location()]);
            let expected = wait_by_the_rule(stack.iter().flatten().copied());
            prop_assert_eq!(reasons.wait_of(frames), expected);
        }
    }
}
