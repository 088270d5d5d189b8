//! What the devices run: functions of this executable, and what is to be said of them.

use core::hint::black_box;
use core::task::Waker;
use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use object::{Object, ObjectSection, ObjectSymbol};
use picoprof::stack::capture::registers_here;
use picoprof_tests::bridge::Bridge;
use picoprof_tests::process::{command, run};
use tempfile::TempDir;

use crate::device::Device;

/// Places in the code below, by their addresses in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code {
    /// In [`checksum`], which is inlined into [`parse_reading`].
    pub(crate) inlined: usize,
    /// In [`parse_reading`] itself.
    pub(crate) plain: usize,
    /// In [`Filter::apply`]: of a generic type, and of a trait.
    pub(crate) method: usize,
    /// In [`Waker::clone`].
    pub(crate) clone: usize,
}

/// Lines of the functions, and of what is at the addresses.
pub(crate) mod line {
    pub(crate) const CHECKSUM: u32 = super::CHECKSUM_BEGINS;
    pub(crate) const IN_CHECKSUM: u32 = super::CHECKSUM_BEGINS + 1;
    pub(crate) const PARSE_READING: u32 = super::PARSE_READING_BEGINS;
    pub(crate) const IN_PARSE_READING: u32 = super::PARSE_READING_BEGINS + 1;
    pub(crate) const CALLS_CHECKSUM: u32 = super::PARSE_READING_BEGINS + 2;
    pub(crate) const APPLY: u32 = super::APPLY_BEGINS;
    pub(crate) const IN_APPLY: u32 = super::APPLY_BEGINS + 1;
}

const CHECKSUM_BEGINS: u32 = line!() + 2;
#[inline(always)]
fn checksum() -> usize {
    black_box(registers_here().pc)
}

const PARSE_READING_BEGINS: u32 = line!() + 2;
#[inline(never)]
fn parse_reading() -> [usize; 2] {
    let plain = registers_here().pc;
    let inlined = checksum();
    black_box([plain, inlined])
}

trait Stage {
    fn apply(&self) -> usize;
}

struct Filter<T>(T);

impl<T: Copy> Stage for Filter<T> {
    #[inline(never)]
    fn apply(&self) -> usize {
        let here = registers_here().pc;
        black_box(self.0);
        here
    }
}
const APPLY_BEGINS: u32 = line!() - 6;

impl Code {
    pub(crate) fn get() -> Self {
        static CODE: LazyLock<Code> = LazyLock::new(|| {
            let base = load_base();
            let [plain, inlined] = parse_reading();
            Code {
                inlined: inlined - base,
                plain: plain - base,
                method: Filter((1u8, 2u64)).apply() - base,
                clone: black_box(<Waker as Clone>::clone as fn(&Waker) -> Waker) as usize - base,
            }
        });
        *CODE
    }
}

/// This executable.
pub(crate) fn elf() -> PathBuf {
    std::env::current_exe().expect("the system knows")
}

/// What was added to the addresses in the file: its first part is linked to 0 in all that can be put anywhere.
fn load_base() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("the system knows");
    let elf = elf();
    let first = maps
        .lines()
        .find(|line| line.ends_with(elf.to_str().expect("a plain path")));
    let start = first
        .and_then(|line| line.split('-').next())
        .unwrap_or_default();
    let base = usize::from_str_radix(start, 16).expect("it is loaded");
    // What else is linked to addresses is where they say.
    if is_position_independent() { base } else { 0 }
}

fn is_position_independent() -> bool {
    let bytes = fs::read(elf()).expect("it is there");
    let object = object::File::parse(&*bytes).expect("it is an ELF file");
    object.kind() == object::ObjectKind::Dynamic
}

/// Where a function of a file is.
pub(crate) fn address_in(elf: &Path, function: &str) -> usize {
    let bytes = fs::read(elf).expect("it is there");
    let object = object::File::parse(&*bytes).expect("it is an ELF file");
    let symbol = object.symbol_by_name(function).expect("it is in the file");
    usize::try_from(symbol.address()).expect("it is an address")
}

/// The note section of this executable, as a firmware has it in its flash.
pub(crate) fn build_id_note() -> Vec<u8> {
    let bytes = fs::read(elf()).expect("it is there");
    let object = object::File::parse(&*bytes).expect("it is an ELF file");
    let note = object.section_by_name(".note.gnu.build-id");
    let note = note.expect("Linux's linkers are told to write one");
    note.data().expect("it is in the file").to_vec()
}

/// The id in a note: behind three words and the name.
pub(crate) fn hex_id(note: &[u8]) -> String {
    note[16..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A copy of this executable with another build id, or with none.
pub(crate) fn copy_with_note(folder: &TempDir, name: &str, note: &[u8]) -> PathBuf {
    let ours = build_id_note();
    assert_eq!(note.len(), ours.len());
    let mut bytes = fs::read(elf()).expect("it is there");
    let at = bytes.windows(ours.len()).position(|part| part == ours);
    let at = at.expect("it is in the file");
    bytes[at..at + note.len()].copy_from_slice(note);
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("there is room");
    path
}

/// A copy without names.
pub(crate) fn strip(from: &Path, to: &Path) {
    strip_of("--strip-all", from, to);
}

/// A copy without some of what is in it, as a flag of `strip` says.
pub(crate) fn strip_of(flag: &str, from: &Path, to: &Path) {
    let args = [
        flag.as_ref(),
        "-o".as_ref(),
        to.as_os_str(),
        from.as_os_str(),
    ];
    let mut strip = command("strip", args);
    let done = run(&mut strip, STARTS).expect("strip runs (Debian: binutils)");
    let _ = done.succeeded();
}

/// The bridge for a device that runs this executable.
pub(crate) fn bridge_for(device: &'static Device) -> Bridge {
    Bridge::start(&elf(), ["--device", &format!("http://{}", device.listen())])
}

const STARTS: Duration = Duration::from_mins(1);
