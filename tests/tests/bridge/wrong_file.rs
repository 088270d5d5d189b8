//! A file that is not of the program that the device runs.

use std::fs;

use picoprof_tests::go::Go;
use tempfile::TempDir;

use crate::device::Device;
use crate::program::{Code, build_id_note, copy_with_note, elf, hex_id, strip};
use picoprof_tests::bridge::{Bridge, refusal};

/// A note with another id.
fn other_note() -> Vec<u8> {
    let mut note = build_id_note();
    let last = note.last_mut().expect("it is not empty");
    *last ^= 1;
    note
}

#[test]
fn a_wrong_file_is_refused_until_the_device_runs_it() {
    let device = Device::new();
    device.flash(&other_note());
    let bridge = Bridge::start(&elf(), ["--device", &format!("http://{}", device.listen())]);
    let [ours, theirs] = [build_id_note(), other_note()].map(|note| hex_id(&note));
    let is_refusal = |text: &str| {
        let parts = ["wrong ELF file", &ours, &theirs, elf().to_str().unwrap()].map(str::to_owned);
        parts.iter().all(|part| text.contains(part))
    };
    let introduction = bridge.introduction();
    assert!(is_refusal(&introduction), "{introduction}");

    let symbol = format!("symbol?{:#x}", Code::get().plain);
    let targets = [
        "block",
        "profile?seconds=1",
        "threadcreate?debug=1",
        "goroutine?debug=2",
        &symbol,
    ];
    for target in targets {
        let refused = bridge.ask("GET", target, "");
        assert_eq!(refused.status, 409, "{target}");
        assert!(is_refusal(refused.text()), "{target}: {}", refused.text());
        assert_eq!(refused.header("x-go-pprof"), Some("1"), "{target}");
        assert_eq!(
            refused.header("content-type"),
            Some("text/plain; charset=utf-8"),
            "{target}"
        );
    }
    let page = bridge.text("");
    assert!(is_refusal(&page), "{page}");
    let shown = Go::new().pprof(["-top", &bridge.url("block")]);
    assert!(!shown.status.success());
    assert!(is_refusal(&shown.stderr), "{}", shown.stderr);

    device.flash(&build_id_note());
    for target in targets {
        assert_eq!(bridge.ask("GET", target, "").status, 200, "{target}");
    }
    // And the other way round: text and symbols are of the program that runs now.
    device.flash(&other_note());
    assert_eq!(bridge.ask("GET", "threadcreate?debug=1", "").status, 409);
    assert_eq!(bridge.ask("GET", &symbol, "").status, 409);
}

#[test]
fn without_build_ids_it_goes_on_and_says_so() {
    let folder = TempDir::new().expect("a folder can be made");
    // A note of another sort: NT_GNU_GOLD_VERSION.
    let mut no_id = build_id_note();
    no_id[8] = 4;
    let anonymous = copy_with_note(&folder, "anonymous", &no_id);
    let silent = Device::new();
    silent.flash(&[]);
    for (file, device) in [
        (&elf(), silent),
        (&anonymous, Device::new()),
        (&anonymous, silent),
    ] {
        let bridge = Bridge::start(file, ["--device", &format!("http://{}", device.listen())]);
        let introduction = bridge.introduction();
        assert!(
            introduction.contains("it can't be told whether"),
            "{introduction}"
        );
        let total = bridge
            .profile("block")
            .total("contentions", "bridge::program::checksum");
        assert_eq!(total, 3);
        assert!(
            bridge
                .text("threadcreate?debug=1")
                .contains("parse_reading")
        );
    }
}

#[test]
fn a_file_without_names_is_refused_at_once() {
    let folder = TempDir::new().expect("a folder can be made");
    let nothing = folder.path().join("nothing");
    fs::write(&nothing, "no ELF file").expect("there is room");
    let missing = folder.path().join("missing");
    let stripped = folder.path().join("stripped");
    strip(&elf(), &stripped);
    for (file, why) in [
        (&nothing, "magic"),
        (&missing, "No such file"),
        (&stripped, "stripped"),
    ] {
        let said = refusal(file);
        assert!(
            said.contains(why) && said.contains(file.to_str().unwrap()),
            "{said}"
        );
    }
}
