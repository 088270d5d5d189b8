//! The encoders of the core, decoded by prost and compared with what went in.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use picoprof::encode::Body;
use picoprof::encode::profile::ProfileEncoder;
use picoprof::encode::source::Source;
use picoprof::encode::text::TextEncoder;
use picoprof::profile::buckets::RowId;
use picoprof::profile::labels::LabelSetId;
use picoprof::profile::{Kind, Wait};
use picoprof::scratch::words_for;
use picoprof::stack::{Marker, StackId};
use picoprof_tests::http::parse_answers;
use picoprof_tests::model::{self, CPU_PERIOD, Code, MAPPINGS, Model, Talk, code_at, drain, talk};
use picoprof_tests::profile::{LabelValue, decode, validate};
use picoprof_tests::profile_proto::{Location, Profile};
use proptest::prelude::*;

const TIME: i64 = 1_700_000_000_000_000_000;

fn source(model: &Model, kind: Kind) -> Source<'_, Model> {
    Source::new(model, kind, CPU_PERIOD).expect("the model keeps all kinds")
}

fn encoder(model: &Model, kind: Kind) -> ProfileEncoder<'_, Model> {
    ProfileEncoder::new(source(model, kind))
}

fn text_encoder(model: &Model, kind: Kind) -> TextEncoder<'_, Model> {
    TextEncoder::new(source(model, kind))
}

fn sound(bytes: &[u8]) -> Profile {
    let profile = decode(bytes).expect("prost reads it");
    assert_eq!(validate(&profile), Ok(()));
    // pprof's local symbolizer numbers the functions that it adds from their count on.
    let ids = profile.function.iter().map(|function| function.id);
    assert!(ids.eq(1..=profile.function.len() as u64));
    profile
}

fn encoded(model: &Model, kind: Kind) -> Profile {
    let bytes = drain(&mut encoder(model, kind), 4096, || {});
    assert!(!model.is_asked_wrongly.get());
    sound(&bytes)
}

fn text(model: &Model, kind: Kind) -> String {
    let bytes = drain(&mut text_encoder(model, kind), 4096, || {});
    String::from_utf8(bytes).expect("text is UTF-8")
}

/// A location of a sample, as far as pprof can tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Address, file of the mapping, and the functions there.
    Code(u64, Option<&'static str>, Vec<Code>),
    Marker(&'static str),
}

fn place(pc: usize) -> Place {
    let binary = MAPPINGS
        .iter()
        .find(|binary| (binary.start..binary.limit).contains(&pc));
    Place::Code(pc as u64, binary.map(|binary| binary.file), code_at(pc))
}

fn places(pcs: &[usize], outermost: Option<Marker>) -> Vec<Place> {
    let code = pcs.iter().map(|&pc| place(pc));
    code.chain(outermost.map(|marker| Place::Marker(marker.name())))
        .collect()
}

fn lost() -> Vec<Place> {
    vec![Place::Marker("picoprof._LostSample")]
}

/// What a decoded location says; all of it must be one of the two.
fn place_of(profile: &Profile, location: &Location) -> Place {
    let functions = location.line.iter().map(|line| {
        let function = profile.function.iter().find(|f| f.id == line.function_id);
        let function = function.expect("validated");
        Code {
            name: profile.string(function.name).to_owned(),
            system_name: profile.string(function.system_name).to_owned(),
            file: profile.string(function.filename).to_owned(),
            line: u32::try_from(line.line).unwrap(),
            start_line: u32::try_from(function.start_line).unwrap(),
        }
    });
    let functions: Vec<_> = functions.collect();
    if location.address == 0 {
        let [marker] = &functions[..] else {
            panic!("{location:?} is neither code nor a marker");
        };
        let known = Marker::ALL
            .into_iter()
            .find(|known| known.name() == marker.name);
        let name = known
            .unwrap_or_else(|| panic!("no marker: {marker:?}"))
            .name();
        assert_eq!(
            (location.mapping_id, marker.line, marker.file.as_str()),
            (0, 0, "")
        );
        assert_eq!(marker.system_name, name);
        return Place::Marker(name);
    }
    let mapping = profile.mapping.iter().find(|m| m.id == location.mapping_id);
    let binary = mapping.map(|mapping| {
        let file = profile.string(mapping.filename);
        MAPPINGS
            .iter()
            .find(|binary| binary.file == file)
            .unwrap()
            .file
    });
    Place::Code(location.address, binary, functions)
}

/// Samples by stack and label `bytes`, each with its values.
type Samples = BTreeMap<(Vec<Place>, Option<i64>), Vec<i64>>;

fn samples_of(profile: &Profile) -> Samples {
    let locations: BTreeMap<u64, Place> = profile
        .location
        .iter()
        .map(|location| (location.id, place_of(profile, location)))
        .collect();
    let mut samples = Samples::new();
    for (sample, stack) in profile.sample.iter().zip(profile.stacks()) {
        let places = sample.location_id.iter().map(|id| locations[id].clone());
        let bytes = match stack.labels.as_slice() {
            [] => None,
            [(key, LabelValue::Number(bytes, unit))] if key == "bytes" && unit.is_empty() => {
                Some(*bytes)
            }
            other => panic!("labels {other:?}"),
        };
        let key = (places.collect(), bytes);
        match samples.get_mut(&key) {
            // Without memory each goroutine is a sample of its own.
            Some(values) if profile.sample_types()[0].0.starts_with("goroutine") => {
                values[0] += sample.value[0];
            }
            Some(_) => panic!("a sample is there twice: {key:?}"),
            None => {
                samples.insert(key, sample.value.clone());
            }
        }
    }
    samples
}

/// Only what samples name is in the profile, and all of the program's mappings.
fn check_thrift(profile: &Profile) {
    for location in &profile.location {
        let used = profile
            .sample
            .iter()
            .any(|sample| sample.location_id.contains(&location.id));
        assert!(used, "nobody needs {location:?}");
    }
    for function in &profile.function {
        let mut lines = profile.location.iter().flat_map(|location| &location.line);
        let used = lines.any(|line| line.function_id == function.id);
        assert!(used, "nobody needs {function:?}");
    }
}

/// A program that has done something of everything.
fn busy() -> Box<Model> {
    let model = Box::<Model>::default();
    model.sample_cpu(&[0x1001, 0x2003, 0x3004], None, 3);
    model.sample_cpu(&[0x1002, 0x2003, 0x3004], None, 4);
    model.sample_cpu(&[0x1002, 0x2003], Some(Marker::TooDeep), 5);
    model.sample_cpu(&[0x8003, 0x1004], Some(Marker::Broken), 1);
    model.sample_cpu(&[0xf000, 0x1005], None, 200);
    model.allocate(&[0x4001, 0x2003, 0x3004], 0x10_0000, 100);
    model.allocate(&[0x4001, 0x2003, 0x3004], 0x10_1000, 100);
    model.allocate(&[0x4001, 0x2003, 0x3004], 0x10_2000, 5000);
    model.allocate(&[0x4002, 0x3004], 0x10_3000, 40);
    model.free(0x10_1000);
    model.free(0x10_3000);
    model.create_thread(&[0x5001, 0x3004]);
    model.create_thread(&[0x5001, 0x3004]);
    model.create_thread(&[0x5002, 0x3004]);
    model.wait(&[0x1001, 0x2003, 0x3004], 30);
    model.wait(&[0x1001, 0x2003, 0x3004], 20);
    model.wait(&[0x1002, 0x3004], 5_000_000_000_000);
    model.release(&[0x1006, 0x3004], 25);
    model.release(&[0x1006, 0x3004], 40);
    model.start_thread(4001, "main", &[0x1001, 0x2003, 0x3004], Wait::Running);
    model.start_thread(4002, "worker", &[0x1007, 0x3004], Wait::Syscall);
    model.start_thread(4003, "worker", &[0x1007, 0x3004], Wait::Syscall);
    model.start_thread(4004, "silent", &[], Wait::Unknown);
    model.spawn("new", &[0x1007, 0x3004]);
    for has_waker in [true, true, false, false] {
        let task = model.spawn("waits", &[0x5001, 0x3004]).unwrap();
        model.poll(task, &[0x4001, 0x2003], has_waker);
    }
    let task = model.spawn("leaks", &[0x5001, 0x3004]).unwrap();
    model.poll(task, &[0x4002], false);
    model
}

#[test]
fn metadata_is_gos() {
    let model = busy();
    let heap_types = [
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
        ("inuse_objects", "count"),
        ("inuse_space", "bytes"),
    ];
    let contention = [("contentions", "count"), ("delay", "nanoseconds")];
    type Row<'a> = (
        Kind,
        &'a [(&'a str, &'a str)],
        &'a str,
        (&'a str, &'a str),
        i64,
    );
    let rows: [Row<'_>; 8] = [
        (Kind::Heap, &heap_types, "", ("space", "bytes"), 1),
        (
            Kind::Allocs,
            &heap_types,
            "alloc_space",
            ("space", "bytes"),
            1,
        ),
        (
            Kind::ThreadCreate,
            &[("threadcreate", "count")],
            "",
            ("threadcreate", "count"),
            1,
        ),
        (
            Kind::Cpu,
            &[("samples", "count"), ("cpu", "nanoseconds")],
            "",
            ("cpu", "nanoseconds"),
            10_000_000,
        ),
        (Kind::Block, &contention, "", ("contentions", "count"), 1),
        (Kind::Mutex, &contention, "", ("contentions", "count"), 1),
        (
            Kind::Goroutine,
            &[("goroutine", "count")],
            "",
            ("goroutine", "count"),
            1,
        ),
        (
            Kind::GoroutineLeak,
            &[("goroutineleak", "count")],
            "",
            ("goroutineleak", "count"),
            1,
        ),
    ];
    for (kind, types, default, period_type, period) in rows {
        let profile = encoded(&model, kind);
        assert_eq!(profile.sample_types(), types);
        assert_eq!(profile.string(profile.default_sample_type), default);
        assert_eq!(profile.period_type(), Some(period_type));
        assert_eq!(profile.period, period);
        assert_eq!((profile.time_nanos, profile.duration_nanos), (TIME, 0));
        // One of its stacks is cut off.
        assert_eq!(profile.comment.len(), usize::from(kind == Kind::Cpu));
        let unset = [profile.drop_frames, profile.keep_frames, profile.doc_url];
        assert_eq!(unset, [0; 3]);
    }
    model.heap.view().set_rate(512 * 1024);
    assert_eq!(encoded(&model, Kind::Heap).period, 512 * 1024);
    // As good as never.
    model.heap.view().set_rate(usize::MAX);
    assert_eq!(encoded(&model, Kind::Heap).period, i64::MAX);
}

#[test]
fn every_value_comes_back() {
    let model = busy();
    let cpu = [
        (places(&[0x1001, 0x2003, 0x3004], None), 3),
        (places(&[0x1002, 0x2003, 0x3004], None), 4),
        (places(&[0x1002, 0x2003], Some(Marker::TooDeep)), 5),
        (places(&[0x8003, 0x1004], Some(Marker::Broken)), 1),
        (places(&[0xf000, 0x1005], None), 200),
    ];
    let cpu = cpu.map(|(stack, n)| ((stack, None), vec![n, n * 10_000_000]));
    let profile = encoded(&model, Kind::Cpu);
    assert_eq!(samples_of(&profile), Samples::from(cpu));
    check_thrift(&profile);

    let deep = places(&[0x4001, 0x2003, 0x3004], None);
    let heap = Samples::from([
        ((deep.clone(), Some(100)), vec![2, 200, 1, 100]),
        ((deep, Some(5000)), vec![1, 5000, 1, 5000]),
        // All freed, and still part of a whole profile.
        (
            (places(&[0x4002, 0x3004], None), Some(40)),
            vec![1, 40, 0, 0],
        ),
    ]);
    for kind in [Kind::Heap, Kind::Allocs] {
        let profile = encoded(&model, kind);
        assert_eq!(samples_of(&profile), heap);
        check_thrift(&profile);
    }

    let threads = Samples::from([
        ((places(&[0x5001, 0x3004], None), None), vec![2]),
        ((places(&[0x5002, 0x3004], None), None), vec![1]),
    ]);
    let profile = encoded(&model, Kind::ThreadCreate);
    assert_eq!(samples_of(&profile), threads);
    check_thrift(&profile);

    let block = [
        (places(&[0x1001, 0x2003, 0x3004], None), vec![2, 50]),
        (places(&[0x1002, 0x3004], None), vec![1, 5_000_000_000_000]),
    ];
    let mutex = [(places(&[0x1006, 0x3004], None), vec![2, 65])];
    let goroutine = [
        (places(&[0x1001, 0x2003, 0x3004], None), vec![1]),
        (places(&[0x1007, 0x3004], None), vec![3]),
        (places(&[], Some(Marker::Unavailable)), vec![1]),
        (places(&[0x4001, 0x2003], None), vec![4]),
        (places(&[0x4002], None), vec![1]),
    ];
    let leaked = [
        (places(&[0x4001, 0x2003], None), vec![2]),
        (places(&[0x4002], None), vec![1]),
    ];
    let kinds = [
        (Kind::Block, &block[..]),
        (Kind::Mutex, &mutex),
        (Kind::Goroutine, &goroutine),
        (Kind::GoroutineLeak, &leaked),
    ];
    for (kind, expected) in kinds {
        let expected = expected.iter().cloned();
        let expected: Samples = expected
            .map(|(stack, values)| ((stack, None), values))
            .collect();
        let profile = encoded(&model, kind);
        assert_eq!(samples_of(&profile), expected, "{kind:?}");
        check_thrift(&profile);
    }
}

#[test]
fn inlined_calls_come_innermost_first() {
    let model = Model::default();
    // Three functions at one address.
    let pc = 0x1000
        + (0..60)
            .find(|n| (0x1000 + n) % 3 == 2 && (0x1000 + n) % 5 != 0)
            .unwrap();
    model.sample_cpu(&[pc], None, 1);
    let profile = encoded(&model, Kind::Cpu);
    assert_eq!(profile.location[0].line.len(), 3);
    let names: Vec<_> = code_at(pc).into_iter().map(|code| code.name).collect();
    assert_eq!(profile.stacks()[0].frames, names);
    assert!(names[0].ends_with("inlined2") && names[2].ends_with("inlined0"));
}

#[test]
fn mappings_say_what_is_known() {
    let profile = encoded(&busy(), Kind::Cpu);
    assert_eq!(profile.mapping.len(), MAPPINGS.len());
    for (mapping, binary) in profile.mapping.iter().zip(MAPPINGS) {
        assert_eq!(mapping.memory_start, binary.start as u64);
        assert_eq!(mapping.memory_limit, binary.limit as u64);
        assert_eq!(mapping.file_offset, binary.offset);
        assert_eq!(profile.string(mapping.filename), binary.file);
        assert_eq!(profile.string(mapping.build_id), binary.build_id);
        let has = [
            mapping.has_functions,
            mapping.has_filenames,
            mapping.has_line_numbers,
            mapping.has_inline_frames,
        ];
        assert_eq!(has, [binary.is_symbolized; 4]);
    }
}

#[test]
fn heap_values_are_estimates_of_all_there_was() {
    let model = Model::default();
    let rate = 512 * 1024;
    model.heap.view().set_rate(rate);
    for (i, size) in [16usize, 1000, 100_000, 1 << 20, 1 << 30]
        .into_iter()
        .enumerate()
    {
        for n in 0..=i {
            model.allocate(&[0x1001 + i], (i * 8 + n + 1) << 12, size);
        }
        model.free((i * 8 + 1) << 12);
    }
    let profile = encoded(&model, Kind::Heap);
    for (stack, bytes) in samples_of(&profile).keys() {
        let values = &samples_of(&profile)[&(stack.clone(), *bytes)];
        let size = bytes.unwrap() as f64;
        let scale = 1.0 / -(-size / rate as f64).exp_m1();
        let i = (1..6)
            .find(|i| places(&[0x1000 + i], None) == *stack)
            .unwrap() as f64;
        let expected = [i, i * size, i - 1.0, (i - 1.0) * size].map(|n| n * scale);
        for (&value, expected) in values.iter().zip(expected) {
            let error = (value as f64 - expected).abs();
            assert!(error <= 3.0 + expected * 1e-5, "{values:?} for {expected}");
        }
    }
}

#[test]
fn what_is_lost_has_a_frame_and_a_comment() {
    let model = Model::default();
    let stored = (0..10 * model::ROWS)
        .filter(|i| model.sample_cpu(&[0x1001 + i % 200, 0x2000 + i], None, 2) != RowId::LOST)
        .count();
    let all_lost = 10 * model::ROWS - stored;
    assert!((model::ROWS * 9 / 10..=model::ROWS).contains(&stored));
    let profile = encoded(&model, Kind::Cpu);
    let samples = samples_of(&profile);
    assert_eq!(samples.len(), stored + 1);
    let n = 2 * all_lost as i64;
    assert_eq!(samples[&(lost(), None)], [n, n * 10_000_000]);
    assert_eq!(profile.total("samples", ""), 20 * model::ROWS as i64);
    let expected = format!("picoprof: {n} of profile's samples were lost, as a table was full");
    assert_eq!(comments(&profile)[0], expected);

    // Nothing of that in the others, not even the words.
    let profile = encoded(&model, Kind::Heap);
    assert!(profile.comment.is_empty() && profile.sample.is_empty());
    assert!(
        !profile
            .string_table
            .iter()
            .any(|text| text.contains("were lost"))
    );
}

fn comments(profile: &Profile) -> Vec<&str> {
    let comments = profile.comment.iter();
    comments.map(|&comment| profile.string(comment)).collect()
}

/// What a profile says of its losses after "picoprof: ", and without the numbers that come first; its text and the
/// index page say the same, but that the page doesn't look at stacks.
fn losses(model: &Model, kind: Kind) -> Vec<String> {
    let bytes = drain(&mut encoder(model, kind), 4096, || {});
    let profile = sound(&bytes);
    for size in 1..200 {
        assert_eq!(drain(&mut encoder(model, kind), size, || {}), bytes);
    }
    let mut lines = comments(&profile);
    let text = text(model, kind);
    let in_text = text.lines().filter_map(|line| line.strip_prefix("# "));
    let in_text: Vec<_> = in_text
        .filter(|line| line.starts_with("picoprof: "))
        .collect();
    assert_eq!(in_text, lines);
    let page = answer(model, "");
    let name = kind.name();
    let (_, row) = page.split_once(&format!(">{name}</a>")).unwrap();
    let (row, _) = row.split_once("</tr>").unwrap();
    let on_page = row
        .split("<em>")
        .skip(1)
        .map(|part| part.split("</em>").next().unwrap());
    let is_of_tables = |line: &&str| !line.contains("DEPTH");
    let of_tables: Vec<_> = lines.iter().copied().filter(is_of_tables).collect();
    if !matches!(kind, Kind::Goroutine | Kind::GoroutineLeak) {
        assert_eq!(on_page.collect::<Vec<_>>(), of_tables);
    }
    lines.retain(|line| !line.contains("samples were lost"));
    lines
        .iter()
        .map(|line| line.strip_prefix("picoprof: ").unwrap().to_owned())
        .collect()
}

fn answer(model: &Model, target: &str) -> String {
    let request = format!("GET /debug/pprof/{target} HTTP/1.0\r\n\r\n");
    let Talk { sent, .. } = talk::<512>(model, &[request.as_bytes()], 512);
    String::from_utf8_lossy(&sent).into_owned()
}

#[test]
fn each_full_table_is_named_with_what_to_raise() {
    let model = Model::default();
    assert_eq!(losses(&model, Kind::Cpu), [""; 0]);
    for i in 0..300 {
        model.sample_cpu(&[0x1001 + i], None, 1);
    }
    let both = [
        "StackTable is full: raise LOCATIONS",
        "Buckets are full: raise ROWS",
    ];
    assert_eq!(losses(&model, Kind::Cpu), both);
    // Not the others' losses, although they share the stack table.
    model.create_thread(&[0x1001]);
    assert_eq!(losses(&model, Kind::ThreadCreate), [""; 0]);
    model.create_thread(&[0x7001]);
    assert_eq!(losses(&model, Kind::ThreadCreate), both[..1]);

    let model = Model::default();
    for i in 0..2000 {
        let (caller, leaf) = (0x1001 + i % 40, 0x2001 + i / 40);
        let stack = model.stacks.view().intern(&[leaf, caller], None);
        // Always in one row, unless the stack is lost.
        if stack == StackId::LOST {
            model.block.view().add(stack, 0, &[1, 1]);
        }
    }
    assert_eq!(
        losses(&model, Kind::Block),
        ["StackTable is full: raise CALLS"]
    );

    let model = Model::default();
    for i in 0..2 * model::ROWS {
        model.allocate(&[0x1001 + i], (i + 1) << 12, 64);
    }
    let heap = [
        "HeapProfile is full: raise ROWS",
        "HeapProfile can't watch all samples until they are freed: raise LIVE",
    ];
    assert_eq!(losses(&model, Kind::Heap), heap);
    assert_eq!(losses(&model, Kind::Allocs), heap);

    let model = Model::default();
    let spawned = core::iter::from_fn(|| model.spawn("task", &[0x1001]));
    assert!(spawned.count() > 1);
    let task = ["TaskPool is full, and some tasks run unseen: raise N"];
    assert_eq!(losses(&model, Kind::Goroutine), task);
    assert_eq!(losses(&model, Kind::Cpu), [""; 0]);
}

#[test]
fn stacks_that_are_cut_off_have_a_comment() {
    let depth =
        ["stacks are cut off where they are deeper than the sampler's buffer: raise its DEPTH"];
    for has_memory in [true, false] {
        let model = Model::default();
        model.has_memory.set(has_memory);
        model.sample_cpu(&[0x1001, 0x1002], Some(Marker::Broken), 1);
        assert_eq!(losses(&model, Kind::Cpu), [""; 0]);
        model.sample_cpu(&[0x1001, 0x1002], Some(Marker::TooDeep), 1);
        assert_eq!(losses(&model, Kind::Cpu), depth);
        assert_eq!(losses(&model, Kind::Heap), [""; 0]);
    }
}

/// What is lost while the samples are sent is in the comment, and no comment is without its loss.
#[test]
fn a_loss_while_a_profile_is_sent_has_its_comment() {
    let mut with_comment = 0;
    for size in 1..300 {
        let model = busy();
        let mut pieces = 0;
        let bytes = drain(&mut encoder(&model, Kind::Cpu), size, || {
            pieces += 1;
            if pieces == 2 {
                let lost = StackId::LOST;
                model.cpu.view().add(lost, 0, &[3]);
            }
        });
        let profile = sound(&bytes);
        let lost = samples_of(&profile).contains_key(&(lost(), None));
        let expected = ["picoprof: 3 of profile's samples were lost"];
        let of_lost: Vec<_> = comments(&profile)
            .into_iter()
            .filter(|comment| !comment.contains("DEPTH"))
            .collect();
        // Nothing is full: who counts for `LOST` knows why.
        assert_eq!(of_lost, &expected[..usize::from(lost)]);
        with_comment += u32::from(lost);
    }
    assert!(with_comment > 10);
}

/// No request takes more memory than the documentation says.
#[test]
fn responses_take_the_memory_that_they_are_said_to() {
    let model = busy();
    for i in 0..model::ROWS {
        model.wait(&[0x1001 + i, 0x3004], 5);
        model.release(&[0x1001 + i, 0x3004], 5);
        model.create_thread(&[0x1001 + i]);
        model.sample_cpu(&[0x1001 + i], None, 1);
        model.allocate(&[0x1001 + i], (i + 1) << 12, 64);
    }
    let tasks = model.tasks.view().len() + model.threads_now.borrow().len();
    let labels = 64;
    for kind in Kind::ALL {
        let (rows, width) = match kind {
            Kind::Goroutine | Kind::GoroutineLeak => (5 * tasks + 8, 2),
            Kind::Heap | Kind::Allocs => (model::ROWS, 4),
            Kind::Block | Kind::Mutex => (model::ROWS, 2),
            Kind::Cpu | Kind::ThreadCreate => (model::ROWS, 1),
        };
        let words = words_for(256, rows, width) + labels;
        let mut most = 0;
        for query in ["", "?debug=1", "?debug=2", "?seconds=1", "?seconds=1&all=1"] {
            model.most_lent.set(0);
            assert!(answer(&model, &format!("{}{query}", kind.name())).contains(" 200 OK\r\n"));
            assert_eq!(model.lent.get(), 0);
            most = most.max(model.most_lent.get());
        }
        assert!(most <= words, "{kind:?}: {most} of {words}");
        // It is not far from the truth, where all rows are in use; tasks all have the same stacks here.
        let is_rows = !matches!(kind, Kind::Goroutine | Kind::GoroutineLeak);
        assert!(
            !is_rows || most >= words * 2 / 3,
            "{kind:?}: {most} of {words}"
        );
    }
}

/// A program without a heap has the endpoints all the same, and they say why there's nothing.
#[test]
fn without_a_heap_its_profiles_are_empty_and_say_why() {
    let model = Model::default();
    model.has_heap.set(false);
    model.note.set("empty: no heap");
    for kind in [Kind::Heap, Kind::Allocs] {
        let profile = encoded(&model, kind);
        assert!(profile.sample.is_empty());
        assert_eq!(comments(&profile), ["empty: no heap"]);
        assert_eq!(profile.sample_type.len(), 4);
        assert_eq!(profile.period, 512 * 1024);
        let expected = "heap profile: 0: 0 [0: 1] @ heap/1048576\n# empty: no heap\n";
        assert!(text(&model, kind).starts_with(expected));
        for target in ["?seconds=1", "?debug=1", "?gc=1"] {
            let answer = answer(&model, &format!("{}{target}", kind.name()));
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{target}");
        }
    }
    assert!(answer(&model, "").contains("<br><em>empty: no heap</em></td>"));
}

/// A program whose every kind has the same stack with these labels, and once without any.
fn labeled(labels: &[(&str, &str)]) -> Box<Model> {
    let model = Box::<Model>::default();
    let stack = model.stacks.view().intern(&[0x1001, 0x2003], None);
    // One that nobody has.
    let _ = model
        .labels
        .view()
        .extend(LabelSetId::EMPTY, &[("unused", "label")]);
    let set = model.labels.view().extend(LabelSetId::EMPTY, labels);
    for (labels, address) in [(LabelSetId::EMPTY, 0x1000), (set, 0x2000)] {
        let tag = labels.to_bits();
        model.cpu.view().add(stack, tag, &[1]);
        model.threads.view().add(stack, tag, &[1]);
        model.block.view().add(stack, tag, &[1, 10]);
        model.mutex.view().add(stack, tag, &[1, 10]);
        model.heap.view().record_alloc(stack, labels, address, 100);
        model.start_thread(4001, "worker", &[0x1001, 0x2003], Wait::Syscall);
        if let Some(thread) = model.threads_now.borrow_mut().last_mut() {
            thread.labels = labels;
        }
    }
    model
}

#[test]
fn labels_come_back() {
    let labels = [
        ("tenant", "a"),
        ("", "key"),
        ("value", ""),
        ("tenant2", "tenant"),
        ("q", "\"\n\u{7f}é"),
    ];
    let model = labeled(&labels);
    let line =
        r#"# labels: {"":"key", "q":"\"\n\x7fé", "tenant":"a", "tenant2":"tenant", "value":""}"#;
    let mut expected = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    expected.sort();
    for has_memory in [true, false] {
        model.has_memory.set(has_memory);
        for kind in Kind::ALL
            .into_iter()
            .filter(|&kind| kind != Kind::GoroutineLeak)
        {
            let bytes = drain(&mut encoder(&model, kind), 1 << 16, || {});
            let profile = sound(&bytes);
            let [plain, labeled] = &profile.stacks()[..] else {
                panic!("{kind:?}: {:?}", profile.stacks());
            };
            assert_eq!(plain.frames, labeled.frames);
            let (texts, numbers): (Vec<_>, Vec<_>) = [plain, labeled]
                .into_iter()
                .flat_map(|stack| stack.labels.clone())
                .partition(|(_, value)| matches!(value, LabelValue::Text(_)));
            let mut texts: Vec<_> = texts.into_iter().map(|(k, v)| (k, v.to_string())).collect();
            texts.sort();
            assert_eq!(texts, expected, "{kind:?}");
            let sizes = if matches!(kind, Kind::Heap | Kind::Allocs) {
                2
            } else {
                0
            };
            assert!(numbers.len() == sizes && numbers.iter().all(|(key, _)| key == "bytes"));
            let strings = &profile.string_table;
            assert_eq!(strings.iter().any(|text| text == "unused"), !has_memory);
            let text = text(&model, kind);
            let lines = text.lines().filter(|line| line.starts_with("# labels"));
            assert_eq!(lines.collect::<Vec<_>>(), [line], "{kind:?}");
            for size in 1..=100 {
                assert_eq!(drain(&mut encoder(&model, kind), size, || {}), bytes);
            }
            for size in 1..=100 {
                let pieces = drain(&mut text_encoder(&model, kind), size, || {});
                assert_eq!(String::from_utf8(pieces).unwrap(), text);
            }
        }
    }
}

/// Rows that come, with labels that are new, while a profile is being sent.
#[test]
fn labels_that_appear_meanwhile_break_no_profile() {
    for (size, has_memory) in [(1, true), (1, false), (17, true), (17, false)] {
        let model = labeled(&[("tenant", "a")]);
        model.has_memory.set(has_memory);
        let mut step = 0;
        let bytes = drain(&mut encoder(&model, Kind::Cpu), size, || {
            step += 1;
            let value = format!("value {step}");
            let labels = model.labels.view();
            let set = labels.extend(LabelSetId::EMPTY, &[("tenant", &value)]);
            let stack = model.stacks.view().intern(&[0x1001, 0x2003], None);
            model.cpu.view().add(stack, set.to_bits(), &[1]);
        });
        let profile = sound(&bytes);
        assert!(step > 20);
        for stack in profile.stacks() {
            for (key, value) in stack.labels {
                let value = value.to_string();
                assert!(
                    key == "tenant" && (value == "a" || value.starts_with("value ")),
                    "{key}={value}"
                );
            }
        }
    }
}

#[test]
fn lost_allocations_have_no_size() {
    let model = Model::default();
    for i in 0..2 * model::ROWS {
        model.allocate(&[0x1001 + i], (i + 1) << 12, 64);
    }
    let samples = samples_of(&encoded(&model, Kind::Heap));
    let [objects, bytes, ..] = samples[&(lost(), None)][..] else {
        panic!("four values");
    };
    assert!(objects >= model::ROWS as i64 && bytes == 64 * objects);
}

#[test]
fn the_targets_note_and_frames_to_drop_are_told() {
    let model = busy();
    model.note.set("sampled by hand");
    model.drop_frames.set("alloc::.*");
    let profile = encoded(&model, Kind::Heap);
    assert_eq!(comments(&profile), ["sampled by hand"]);
    assert_eq!(profile.string(profile.drop_frames), "alloc::.*");
    let text = text(&model, Kind::Heap);
    assert_eq!(text.lines().nth(1), Some("# sampled by hand"));
}

#[test]
fn an_empty_program_has_empty_profiles() {
    for has_memory in [true, false] {
        let model = Model::default();
        model.has_memory.set(has_memory);
        for kind in Kind::ALL {
            let profile = encoded(&model, kind);
            assert!(profile.sample.is_empty());
            assert!(!text(&model, kind).is_empty());
        }
    }
}

/// All locations are in it then, and the samples are the same.
#[test]
fn without_memory_a_profile_is_larger_and_no_worse() {
    let model = busy();
    let with: Vec<_> = Kind::ALL
        .map(|kind| samples_of(&encoded(&model, kind)))
        .into();
    model.has_memory.set(false);
    for (kind, expected) in Kind::ALL.into_iter().zip(with) {
        let profile = encoded(&model, kind);
        assert_eq!(samples_of(&profile), expected);
        let [(used, _), _] = model.stacks.view().usage();
        assert_eq!(profile.location.len(), used + Marker::ALL.len());
    }
    model.has_memory.set(true);
    let mut sorted: Vec<_> = text(&model, Kind::ThreadCreate)
        .lines()
        .map(str::to_owned)
        .collect();
    model.has_memory.set(false);
    let mut unsorted: Vec<_> = text(&model, Kind::ThreadCreate)
        .lines()
        .map(str::to_owned)
        .collect();
    sorted.sort();
    unsorted.sort();
    assert_eq!(sorted, unsorted);
}

/// The lines of code, as text shows them.
fn frame_lines(pcs: &[usize]) -> String {
    let mut lines = String::new();
    for &pc in pcs {
        let code = code_at(pc);
        if code.is_empty() {
            lines.push_str(&format!("#\t{pc:#x}\n"));
        }
        for Code {
            name, file, line, ..
        } in code
        {
            lines.push_str(&format!("#\t{pc:#x}\t{name}\t{file}:{line}\n"));
        }
    }
    lines
}

#[test]
fn threadcreate_text_is_gos() {
    let model = busy();
    let expected = format!(
        "threadcreate profile: total 3\n\
         2 @ 0x5002 0x3005\n{}\n\
         1 @ 0x5003 0x3005\n{}\n",
        frame_lines(&[0x5001, 0x3004]),
        frame_lines(&[0x5002, 0x3004]),
    );
    assert_eq!(text(&model, Kind::ThreadCreate), expected);
}

#[test]
fn contention_text_is_gos() {
    let model = busy();
    // The longest first, however long.
    let expected = format!(
        "--- contention:\ncycles/second=1000000000\n\
         5000000000000 1 @ 0x1003 0x3005\n{}\n\
         50 2 @ 0x1002 0x2004 0x3005\n{}\n",
        frame_lines(&[0x1002, 0x3004]),
        frame_lines(&[0x1001, 0x2003, 0x3004]),
    );
    assert_eq!(text(&model, Kind::Block), expected);
    let expected = format!(
        "--- mutex:\ncycles/second=1000000000\nsampling period=1\n65 2 @ 0x1007 0x3005\n{}\n",
        frame_lines(&[0x1006, 0x3004]),
    );
    assert_eq!(text(&model, Kind::Mutex), expected);
}

#[test]
fn goroutine_text_is_gos() {
    let model = busy();
    let text = text(&model, Kind::Goroutine);
    let (start, rest) = text.split_at(text.find("1 @ ").unwrap());
    let expected = format!(
        "goroutine profile: total 10\n\
         4 @ 0x4002 0x2004\n{}\n\
         3 @ 0x1008 0x3005\n{}\n",
        frame_lines(&[0x4001, 0x2003]),
        frame_lines(&[0x1007, 0x3004]),
    );
    assert_eq!(start, expected);
    assert_eq!(rest.matches("1 @ ").count(), 3);
    let unavailable = "1 @ 0x1\n#\t0x0\tpicoprof._StackUnavailable\n\n";
    assert!(rest.contains(unavailable), "{rest}");
}

#[test]
fn heap_text_is_gos() {
    let model = busy();
    let expected = format!(
        "heap profile: 2: 5100 [4: 5240] @ heap/2\n\
         0: 0 [1: 40] @ 0x4003 0x3005\n{}\n\
         1: 100 [2: 200] @ 0x4002 0x2004 0x3005\n{}\n\
         1: 5000 [1: 5000] @ 0x4002 0x2004 0x3005\n{}\n\
         \n\
         # runtime.MemStats (estimated from the samples)\n\
         # Alloc = 5100\n\
         # TotalAlloc = 5240\n\
         # Mallocs = 4\n\
         # Frees = 2\n\
         # HeapObjects = 2\n\
         # Samples lost = 0\n\
         # Samples not watched until freed = 0\n",
        frame_lines(&[0x4002, 0x3004]),
        frame_lines(&[0x4001, 0x2003, 0x3004]),
        frame_lines(&[0x4001, 0x2003, 0x3004]),
    );
    assert_eq!(text(&model, Kind::Heap), expected);
    // As in Go, both kinds say heap.
    assert_eq!(text(&model, Kind::Allocs), expected);
    model.heap.view().set_rate(512 * 1024);
    let text = text(&model, Kind::Heap);
    assert!(text.starts_with("heap profile: 2: 5100 [4: 5240] @ heap/1048576\n"));
    assert!(!text.contains("# TotalAlloc = 5240\n"), "it is an estimate");
}

/// Readers would else take it for a profile without the bytes allocated so far.
#[test]
fn heap_text_tells_allocated_from_in_use_before_anything_is_freed() {
    let model = Model::default();
    assert!(text(&model, Kind::Heap).starts_with("heap profile: 0: 0 [0: 1] @ heap/2\n"));
    model.allocate(&[0x1001], 0x1000, 7);
    let text = text(&model, Kind::Heap);
    assert!(text.starts_with("heap profile: 1: 7 [1: 8] @ heap/2\n1: 7 [1: 7] @ 0x1002\n"));
}

#[test]
fn markers_have_lines_in_text() {
    let model = Model::default();
    let stack = model.stacks.view().intern(&[0x1001], Some(Marker::TooDeep));
    model.threads.view().add(stack, 0, &[1]);
    model.threads.view().add(StackId::LOST, 0, &[9]);
    let expected = format!(
        "threadcreate profile: total 10\n\
         # picoprof: 9 of threadcreate's samples were lost\n\
         # picoprof: stacks are cut off where they are deeper than the sampler's buffer: raise its DEPTH\n\
         9 @ 0x1\n#\t0x0\tpicoprof._LostSample\n\n\
         1 @ 0x1002 0x1\n{}#\t0x0\tpicoprof._StackTooDeep\n\n",
        frame_lines(&[0x1001])
    );
    assert_eq!(text(&model, Kind::ThreadCreate), expected);
}

/// A buffer that no record of the tests' bodies fills.
const BEYOND: usize = 1500;

#[test]
fn the_buffers_size_changes_nothing() {
    let model = busy();
    model.note.set("a note");
    model.cpu.view().add(StackId::LOST, 0, &[3]);
    for has_memory in [true, false] {
        model.has_memory.set(has_memory);
        for kind in Kind::ALL {
            let profile = drain(&mut encoder(&model, kind), 1 << 16, || {});
            let text = drain(&mut text_encoder(&model, kind), 1 << 16, || {});
            for size in 1..=BEYOND {
                assert_eq!(drain(&mut encoder(&model, kind), size, || {}), profile);
                assert_eq!(drain(&mut text_encoder(&model, kind), size, || {}), text);
            }
        }
    }
}

fn index_page(model: &Model, size: usize) -> String {
    let talk: Talk = talk::<512>(model, &[b"GET /debug/pprof/ HTTP/1.0\r\n\r\n"], size);
    let [answer] = &parse_answers(&talk.sent, &[]).unwrap()[..] else {
        panic!("one answer");
    };
    answer.text().to_owned()
}

#[test]
fn the_index_page_is_the_same_through_any_buffer() {
    let model = busy();
    let whole = index_page(&model, 1 << 16);
    for size in 1..=BEYOND {
        assert_eq!(index_page(&model, size), whole);
    }
    // By name, with Go's counts.
    let mut from = 0;
    for (count, link) in [
        (3, "allocs?debug=1\">allocs"),
        (2, "block?debug=1\">block"),
        (0, "cmdline\">cmdline"),
        (10, "goroutine?debug=1\">goroutine"),
        (3, "goroutineleak?debug=1\">goroutineleak"),
        (3, "heap?debug=1\">heap"),
        (1, "mutex?debug=1\">mutex"),
        (0, "profile\">profile"),
        (0, "symbol\">symbol"),
        (3, "threadcreate?debug=1\">threadcreate"),
    ] {
        let row = format!("<tr><td>{count}</td><td><a href=\"{link}</a></td>");
        let at = whole[from..].find(&row);
        from += at.unwrap_or_else(|| panic!("no {row} in {whole}"));
    }
    assert!(whole.contains("<a href=\"goroutine?debug=2\">full goroutine stack dump</a>"));
    assert!(whole.contains("<li>Tasks: 6 now, room for 64; 0 ran unseen for want of it.</li>\n"));
    assert!(whole.contains("<title>/debug/pprof/</title>"));
    assert!(whole.contains("<li>A model.</li>\n<li>Stack table: "));
    model.has_threads.set(false);
    assert!(!index_page(&model, 512).contains("threadcreate"));
}

/// Everything counts up, stacks that never were appear, and tables run full.
fn bump(model: &Model, step: usize) {
    model.sample_cpu(&[0x1001, 0x2003, 0x3004], None, 1 << (step % 40));
    model.sample_cpu(&[0x6000 + step, 0x2003, 0x3004], Some(Marker::TooDeep), 1);
    model.create_thread(&[0x5001, 0x3004]);
    model.create_thread(&[0x7000 + step]);
    let size = 1 << (step % 20);
    model.allocate(&[0x4001, 0x2003, 0x3004], 0x20_0000 + (step << 8), size);
    model.allocate(&[0x6000 + step], 0x40_0000 + (step << 8), size);
    model.free(0x20_0000 + (step.saturating_sub(3) << 8));
    model.wait(&[0x1002, 0x3004], step as u64);
    model.wait(&[0x7000 + step], 1);
    model.release(&[0x1006, 0x3004], step as u64);
    if let Some(task) = model.spawn("late", &[0x7000 + step]) {
        model.poll(task, &[0x4001, 0x2003], step.is_multiple_of(2));
    }
}

fn each_value_is_between(before: &Samples, during: &Samples, after: &Samples) {
    for ((stack, bytes), values) in during {
        // The mean size moves, so compare what only rises, by stack: the first value is never scaled here.
        let sum = |samples: &Samples| -> i64 {
            let of_stack = samples.iter().filter(|((other, _), _)| other == stack);
            of_stack.map(|(_, values)| values[0]).sum()
        };
        let (low, high) = (sum(before), sum(after));
        assert!(high > 0, "{stack:?} {bytes:?} was never counted");
        assert!(
            (low..=high).contains(&sum(during)),
            "{values:?}: {low} to {high}"
        );
    }
    for (stack, _) in before.keys() {
        let is_there = during.keys().any(|(other, _)| other == stack);
        assert!(is_there, "{stack:?} has gone");
    }
}

#[test]
fn counters_that_move_break_no_profile() {
    for has_memory in [true, false] {
        for kind in Kind::ALL {
            for size in [1, 2, 3, 7, 16, 61, 256] {
                let model = busy();
                model.has_memory.set(has_memory);
                let before = samples_of(&encoded(&model, kind));
                let mut step = 0;
                let bytes = drain(&mut encoder(&model, kind), size, || {
                    step += 1;
                    bump(&model, step);
                });
                let profile = sound(&bytes);
                let after = samples_of(&encoded(&model, kind));
                each_value_is_between(&before, &samples_of(&profile), &after);
            }
        }
    }
}

/// Text whose every line has the form that it must have.
fn check_text(text: &str, kind: Kind) {
    assert!(text.ends_with('\n'));
    let is_heap = matches!(kind, Kind::Heap | Kind::Allocs);
    let head = match kind {
        Kind::Block => "--- contention:\ncycles/second=1000000000\n",
        Kind::Mutex => "--- mutex:\ncycles/second=1000000000\nsampling period=1\n",
        _ => "",
    };
    let text = text.strip_prefix(head).expect("the kind's own lines");
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    let counts = |text: &str| {
        let text = text.replace([':', '[', ']'], "");
        let numbers = text.split(' ').filter(|part| is_number(part)).count();
        numbers
            == match kind {
                Kind::Heap | Kind::Allocs => 4,
                Kind::Block | Kind::Mutex => 2,
                _ => 1,
            }
    };
    for (i, line) in text.lines().enumerate() {
        let is_good = if i == 0 && head.is_empty() {
            let heap = line
                .strip_prefix("heap profile: ")
                .and_then(|line| line.split_once(" @ heap/"));
            let other = line.split_once(" profile: total ");
            match (heap, other) {
                (Some((totals, rate)), _) => is_heap && counts(totals) && is_number(rate),
                (_, Some((_, total))) => is_number(total),
                _ => false,
            }
        } else if let Some((_, number)) = line.strip_prefix("# ").and_then(|l| l.split_once(" = "))
        {
            is_number(number)
        } else if let Some((values, pcs)) = line.split_once(" @ ") {
            counts(values) && pcs.split(' ').all(|pc| pc.starts_with("0x"))
        } else {
            line.is_empty()
                || ["#\t0x", "# runtime.MemStats", "# picoprof: "]
                    .iter()
                    .any(|start| line.starts_with(start))
        };
        assert!(is_good, "line {line:?}");
    }
}

#[test]
fn counters_that_move_break_no_text() {
    for has_memory in [true, false] {
        for kind in Kind::ALL {
            for size in [1, 2, 3, 7, 16, 61, 256] {
                let model = busy();
                model.has_memory.set(has_memory);
                let mut step = 0;
                let bytes = drain(&mut text_encoder(&model, kind), size, || {
                    step += 1;
                    bump(&model, step);
                });
                let text = String::from_utf8(bytes).unwrap();
                check_text(&text, kind);
            }
        }
    }
}

/// The counts at the end of a page are numbers that were true at some time: cut in two by a buffer, they
/// don't change in the middle.
#[test]
fn numbers_that_buffers_cut_are_not_patched_together() {
    let lost_in = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        let (_, rest) = text.split_once("# Samples lost = ").unwrap();
        let (lost, _) = rest.split_once('\n').unwrap();
        lost.to_owned()
    };
    let lose = |model: &Model, n| {
        let rows = model.heap.view().rows();
        rows.add(StackId::LOST, 0, &[n, n]);
    };
    let model = Model::default();
    lose(&model, 99_999);
    let whole = drain(&mut text_encoder(&model, Kind::Heap), 1 << 16, || {});
    for cut in 1..whole.len() {
        let model = Model::default();
        lose(&model, 99_999);
        let mut text = text_encoder(&model, Kind::Heap);
        let mut bytes = vec![0; 2 * whole.len()];
        let first = text.fill(&mut bytes[..cut]);
        lose(&model, 1);
        let rest = text.fill(&mut bytes[first..]);
        bytes.truncate(first + rest);
        let lost = lost_in(bytes);
        assert!(["99999", "100000"].contains(&lost.as_str()), "{lost}");
    }
}

#[derive(Clone, Debug)]
enum Event {
    Cpu(Vec<usize>, Option<Marker>, u64),
    Alloc(Vec<usize>, usize),
    Free(prop::sample::Index),
    Thread(Vec<usize>),
    Wait(Vec<usize>, u64),
    Release(Vec<usize>, u64),
    Spawn(Vec<usize>),
    /// A task, where it waits, and whether it can be woken.
    Poll(prop::sample::Index, Vec<usize>, bool),
    End(prop::sample::Index),
}

fn stack() -> impl Strategy<Value = Vec<usize>> {
    let pc = prop_oneof![
        8 => 0x1000usize..0x1020,
        2 => 0x7ff0usize..0x8010,
        1 => 0x8ff8usize..0x9008,
        1 => Just(usize::MAX - 1),
        1 => Just(1usize),
    ];
    prop::collection::vec(pc, 1..10)
}

fn event() -> impl Strategy<Value = Event> {
    let marker = prop::option::weighted(0.3, prop::sample::select(Marker::ALL.to_vec()));
    let count = prop_oneof![Just(1u64), 1u64..1000, Just(1u64 << 40)];
    let size = prop_oneof![1usize..200, Just(4096usize), Just(1usize << 30)];
    prop_oneof![
        (stack(), marker, count).prop_map(|(pcs, marker, n)| Event::Cpu(pcs, marker, n)),
        (stack(), size).prop_map(|(pcs, size)| Event::Alloc(pcs, size)),
        any::<prop::sample::Index>().prop_map(Event::Free),
        stack().prop_map(Event::Thread),
        (stack(), 0u64..1 << 40).prop_map(|(pcs, nanos)| Event::Wait(pcs, nanos)),
        (stack(), 0u64..1 << 40).prop_map(|(pcs, nanos)| Event::Release(pcs, nanos)),
        stack().prop_map(Event::Spawn),
        (any::<prop::sample::Index>(), stack(), any::<bool>())
            .prop_map(|(task, pcs, has_waker)| Event::Poll(task, pcs, has_waker)),
        any::<prop::sample::Index>().prop_map(Event::End),
    ]
}

/// Eight classes to each doubling.
fn size_class(size: usize) -> usize {
    if size < 16 {
        return size;
    }
    let doubling = size.ilog2();
    (doubling as usize) << 3 | (size >> (doubling - 3)) & 7
}

proptest! {
    #[test]
    fn random_programs_come_back(
        events in prop::collection::vec(event(), 0..150),
        size in 1usize..200,
        has_memory: bool,
    ) {
        let model = Model::default();
        model.has_memory.set(has_memory);
        let mut cpu = BTreeMap::<_, u64>::new();
        let mut threads = BTreeMap::<_, u64>::new();
        // By stack and size class: objects and bytes, allocated and freed.
        let mut heap = BTreeMap::<_, [u64; 4]>::new();
        let mut live = Vec::new();
        let mut block = BTreeMap::<_, [u64; 2]>::new();
        let mut mutex = BTreeMap::<_, [u64; 2]>::new();
        // Each with its stack, and whether it is leaked.
        let mut tasks = Vec::new();
        for (i, event) in events.iter().enumerate() {
            match event {
                Event::Cpu(pcs, marker, n) => {
                    let row = model.sample_cpu(pcs, *marker, *n);
                    let key = if row == RowId::LOST { lost() } else { places(pcs, *marker) };
                    *cpu.entry(key).or_default() += n;
                }
                Event::Thread(pcs) => {
                    let row = model.create_thread(pcs);
                    let key = if row == RowId::LOST { lost() } else { places(pcs, None) };
                    *threads.entry(key).or_default() += 1;
                }
                Event::Alloc(pcs, size) => {
                    let address = (i + 1) << 12;
                    let untracked = model.heap.view().untracked();
                    let rows = model.heap.view().rows();
                    let lost_before = rows.values(RowId::LOST)[0];
                    model.allocate(pcs, address, *size);
                    let is_lost = rows.values(RowId::LOST)[0] > lost_before;
                    let key = if is_lost { (lost(), 0) } else { (places(pcs, None), size_class(*size)) };
                    let counts = heap.entry(key.clone()).or_default();
                    counts[0] += 1;
                    counts[1] += *size as u64;
                    if model.heap.view().untracked() == untracked {
                        live.push((address, key, *size));
                    } else {
                        counts[2] += 1;
                        counts[3] += *size as u64;
                    }
                }
                Event::Free(index) if !live.is_empty() => {
                    let (address, key, size) = live.swap_remove(index.index(live.len()));
                    model.free(address);
                    let counts = heap.get_mut(&key).unwrap();
                    counts[2] += 1;
                    counts[3] += size as u64;
                }
                Event::Wait(pcs, nanos) => {
                    let row = model.wait(pcs, *nanos);
                    let key = if row == RowId::LOST { lost() } else { places(pcs, None) };
                    let values = block.entry(key).or_default();
                    *values = [values[0] + 1, values[1] + nanos];
                }
                Event::Release(pcs, nanos) => {
                    let row = model.release(pcs, *nanos);
                    let key = if row == RowId::LOST { lost() } else { places(pcs, None) };
                    let values = mutex.entry(key).or_default();
                    *values = [values[0] + 1, values[1] + nanos];
                }
                Event::Spawn(pcs) => {
                    if let Some(task) = model.spawn("some", pcs) {
                        tasks.push((task, pcs, false));
                    }
                }
                Event::Poll(task, pcs, has_waker) if !tasks.is_empty() => {
                    let number = task.index(tasks.len());
                    let (id, ..) = tasks[number];
                    model.poll(id, pcs, *has_waker);
                    tasks[number] = (id, pcs, !has_waker);
                }
                Event::End(task) if !tasks.is_empty() => {
                    let (id, ..) = tasks.swap_remove(task.index(tasks.len()));
                    model.tasks.end(id);
                }
                Event::Free(_) | Event::Poll(..) | Event::End(_) => {}
            }
        }
        let get = |kind| {
            let bytes = drain(&mut encoder(&model, kind), size, || {});
            samples_of(&sound(&bytes))
        };
        let expected = cpu.into_iter().map(|(stack, n)| {
            let n = n as i64;
            ((stack, None), vec![n, n.saturating_mul(10_000_000)])
        });
        prop_assert_eq!(get(Kind::Cpu), expected.collect::<Samples>());
        let expected = threads.into_iter().map(|(stack, n)| ((stack, None), vec![n as i64]));
        prop_assert_eq!(get(Kind::ThreadCreate), expected.collect::<Samples>());
        let expected = heap.into_iter().map(|((stack, class), [objects, bytes, freed, freed_bytes])| {
            let label = (stack != lost()).then_some((bytes / objects) as i64);
            assert!(label.is_none_or(|mean| size_class(mean as usize) == class));
            let values = [objects, bytes, objects - freed, bytes - freed_bytes];
            ((stack, label), values.map(|n| n as i64).to_vec())
        });
        let expected: Samples = expected.collect();
        prop_assert_eq!(&get(Kind::Heap), &expected);
        prop_assert_eq!(&get(Kind::Allocs), &expected);
        for (kind, expected) in [(Kind::Block, block), (Kind::Mutex, mutex)] {
            let expected = expected.into_iter().map(|(stack, values)| {
                ((stack, None), values.map(|n| n as i64).to_vec())
            });
            prop_assert_eq!(get(kind), expected.collect::<Samples>());
        }
        for (kind, leaked_only) in [(Kind::Goroutine, false), (Kind::GoroutineLeak, true)] {
            let mut expected = Samples::new();
            for (_, pcs, is_leaked) in &tasks {
                if *is_leaked || !leaked_only {
                    let values = expected.entry((places(pcs, None), None)).or_insert(vec![0]);
                    values[0] += 1;
                }
            }
            prop_assert_eq!(get(kind), expected);
        }
        for kind in Kind::ALL {
            let text = drain(&mut text_encoder(&model, kind), size, || {});
            let text = String::from_utf8(text).unwrap();
            check_text(&text, kind);
        }
        let is_cut = samples_of(&encoded(&model, Kind::Cpu)).keys().any(|(stack, _)| {
            stack.iter().any(|place| *place == Place::Marker(Marker::TooDeep.name()))
        });
        let has_comment = comments(&encoded(&model, Kind::Cpu)).iter().any(|c| c.contains("DEPTH"));
        prop_assert_eq!(is_cut, has_comment);
        prop_assert!(!model.is_asked_wrongly.get());
    }
}
