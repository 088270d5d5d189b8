//! `symbol`, which answers for whoever has addresses only.

use std::collections::HashMap;
use std::fs;

use picoprof_tests::go::Go;
use picoprof_tests::profile_proto::Profile;
use prost::Message;

use crate::server::{Captured, Example, expect_shares, sound};

/// Some addresses, with the mangled names of the functions that their code belongs to.
fn functions(profile: &Profile) -> Vec<(u64, &str)> {
    let functions: HashMap<u64, &str> = profile
        .function
        .iter()
        .map(|function| (function.id, profile.string(function.system_name)))
        .collect();
    let own = profile.mapping[0].id;
    let locations = profile
        .location
        .iter()
        .filter(|location| location.mapping_id == own);
    locations
        .filter_map(|location| {
            // The last line is the function itself; the others are inlined.
            let function = location.line.last()?.function_id;
            Some((location.address, functions[&function]))
        })
        .filter(|(_, name)| name.starts_with("_ZN") || name.starts_with("_R"))
        .collect()
}

#[test]
fn get_and_post_answer_mangled_names() {
    let example = Example::shared();
    let profile = example.profile("heap");
    let known = functions(&profile);
    assert!(known.len() > 10, "{known:?}");
    let words: Vec<String> = known
        .iter()
        .map(|(address, _)| format!("{address:#x}"))
        .collect();
    let expected: Vec<String> = known
        .iter()
        .map(|(address, name)| format!("{address:#x} {name}"))
        .collect();
    for (method, words) in [("POST", &words[..]), ("GET", &words[..10])] {
        let query = words.join("+");
        let answer = match method {
            "POST" => example.ask("POST", "symbol", &query),
            _ => example.ask("GET", &format!("symbol?{query}"), ""),
        };
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        let mut lines = answer.text().lines();
        let count = lines
            .next()
            .and_then(|line| line.strip_prefix("num_symbols: "));
        assert_ne!(count, Some("0"));
        assert!(
            count.is_some_and(|count| count.parse::<u32>().is_ok()),
            "{count:?}"
        );
        assert!(lines.eq(&expected[..words.len()]), "{}", answer.text());
    }
    // What is no address, or no code, has no line.
    for words in ["0x1", "xyzzy", "0", ""] {
        let answer = example.ask("POST", "symbol", words);
        assert_eq!(
            (answer.status, answer.text().lines().count()),
            (200, 1),
            "{words}"
        );
    }
}

/// Someone else's reader with the program at hand: Go's finds the free functions in its debug information.
#[test]
fn a_profile_without_names_is_named_from_its_binary() {
    let go = Go::new();
    let mut profile = sound("cpu", &Captured::get().cpu);
    profile.function.clear();
    for location in &mut profile.location {
        location.line.clear();
    }
    for mapping in &mut profile.mapping {
        mapping.has_functions = false;
        mapping.has_filenames = false;
        mapping.has_line_numbers = false;
        mapping.has_inline_frames = false;
    }
    fs::write(go.home().join("bare.pb"), profile.encode_to_vec()).expect("the folder is there");
    let top = go
        .pprof([
            "-top",
            "-cum",
            "-nodecount=1000",
            "-nodefraction=0",
            "bare.pb",
        ])
        .succeeded();
    expect_shares(top.text(), &[("work", 30.0), ("use_service", 5.0)]);
}
