//! Where the program lies: a position-independent executable, mapped anywhere.

use core::time::Duration;
use std::fs;
use std::path::Path;

use picoprof_tests::process::{command, run};

use crate::server::{Example, ordinary};

/// The build id, as binutils read it.
fn build_id(file: &Path) -> String {
    let mut readelf = command("readelf", ["-n".as_ref(), file.as_os_str()]);
    let notes = run(&mut readelf, Duration::from_mins(1));
    let notes = notes.expect("readelf runs (Debian: binutils)").succeeded();
    let id = notes
        .text()
        .lines()
        .find_map(|line| line.trim().strip_prefix("Build ID: "));
    id.unwrap_or_else(|| panic!("{notes:?}")).to_owned()
}

#[test]
fn mappings_are_the_kernels() {
    let example = Example::shared();
    let profile = example.profile("heap");
    let maps = fs::read_to_string(format!("/proc/{}/maps", example.id())).expect("it lives");
    let executable: Vec<[&str; 4]> = maps
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [range, access, offset, _, _, file] = fields[..] else {
                return None;
            };
            let (start, limit) = range.split_once('-')?;
            access.contains('x').then_some([start, limit, offset, file])
        })
        .collect();
    let mut found = 0;
    for mapping in &profile.mapping {
        let file = profile.string(mapping.filename);
        let [start, limit, offset] = [
            mapping.memory_start,
            mapping.memory_limit,
            mapping.file_offset,
        ];
        let same = executable
            .iter()
            .find(|[other_start, other_limit, other_offset, other]| {
                let is = |text: &str, number| u64::from_str_radix(text, 16) == Ok(number);
                is(other_start, start)
                    && is(other_limit, limit)
                    && is(other_offset, offset)
                    && file == *other
            });
        assert!(
            same.is_some(),
            "{start:x}-{limit:x} {offset:x} {file}, but:\n{maps}"
        );
        found += 1;
        let id = profile.string(mapping.build_id);
        if Path::new(file).is_absolute() {
            assert_eq!(id, build_id(Path::new(file)), "{file}");
        }
    }
    assert_eq!(found, executable.len(), "{maps}");
    let main = &profile.mapping[0];
    assert_eq!(Path::new(profile.string(main.filename)), ordinary());
}

/// That each address lies in its mapping is a rule that all profiles are held to; here, that none is without.
#[test]
fn every_address_has_a_mapping() {
    let example = Example::shared();
    let _lock = example.lock_cpu();
    for target in ["heap", "threadcreate", "profile?seconds=1&hz=500"] {
        let profile = example.profile(target);
        for location in &profile.location {
            let has_code = location.address != 0;
            assert_eq!(location.mapping_id != 0, has_code, "{target}: {location:?}");
        }
        let main = &profile.mapping[0];
        let own = profile
            .location
            .iter()
            .filter(|location| location.mapping_id == main.id);
        let (with_lines, all) = own.fold((0, 0), |(with_lines, all), location| {
            (with_lines + usize::from(!location.line.is_empty()), all + 1)
        });
        assert_eq!(
            with_lines, all,
            "{target}: the program's own code has names"
        );
        assert!(all > 10, "{target}: {all}");
    }
}
