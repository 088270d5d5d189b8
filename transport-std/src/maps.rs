//! What is mapped in this process, read from `/proc/self/maps` (proc(5)).
//!
//! Two readers share one parser. [`for_each`], [`stack_region`] and [`writable`] work in a
//! buffer on the stack and never call the allocator, so an allocator wrapper may use them.
//! [`executable`] lists the mappings that a profile names.
//!
//! All of it opens a file: ordinary context only, never a signal handler.

#![forbid(unsafe_code)]

use core::ops::Range;
use std::fs::File;
use std::io::{self, Read};

use crate::symbols::elf::Image;

/// One line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// First address.
    pub(crate) start: usize,
    /// One past the last address.
    pub(crate) end: usize,
    /// May be read.
    pub(crate) read: bool,
    /// May be written.
    pub(crate) write: bool,
    /// May be executed.
    pub(crate) execute: bool,
    /// Where in the file `start` lies.
    pub(crate) offset: u64,
    /// Inode of the file, 0 when there is none.
    pub(crate) inode: u64,
    /// The path, a name in brackets, or nothing; cut short when the line outgrew the buffer.
    pub(crate) path: &'a [u8],
}

/// Calls `f` for every mapping, in order of address. Does not allocate.
pub(crate) fn for_each(f: impl FnMut(Entry<'_>)) -> io::Result<()> {
    // std copies so short a path to its own stack, not to the heap.
    read_entries(File::open("/proc/self/maps")?, f)
}

/// The readable and writable mapping that contains `address`. Does not allocate.
pub(crate) fn stack_region(address: usize) -> Option<Range<usize>> {
    let mut found = None;
    for_each(|entry| {
        if entry.read && entry.write && (entry.start..entry.end).contains(&address) {
            found = Some(entry.start..entry.end);
        }
    })
    .ok()?;
    found
}

/// An executable mapping, as a profile describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// First address.
    pub(crate) start: usize,
    /// One past the last address.
    pub(crate) limit: usize,
    /// Where in the file `start` lies.
    pub(crate) offset: u64,
    /// The path without " (deleted)", a name in brackets, or nothing.
    pub(crate) file: String,
    /// GNU build id in lower hex, empty when there is none. [`identify`] fills it.
    pub(crate) build_id: String,
    /// Inode of the file: another file under the same path is another object.
    pub(crate) inode: u64,
    /// Where the start of the file is mapped, when it is.
    pub(crate) base: Option<usize>,
    /// The file is no longer there under that path.
    pub(crate) deleted: bool,
    /// Part of the running program itself, not of a library.
    pub(crate) main: bool,
}

/// Every executable mapping: those of the main program first, then in order of address.
///
/// The build ids are still empty.
pub(crate) fn executable() -> io::Result<Vec<Mapping>> {
    // The kernel prints this link and the lines of maps with the same routine, so both carry
    // " (deleted)", or neither does.
    let program = std::fs::read_link("/proc/self/exe").ok();
    let program = program
        .as_ref()
        .map(|path| path.as_os_str().as_encoded_bytes());
    list(File::open("/proc/self/maps")?, program)
}

/// Fills in the build ids, from the loaded images as far as they can be read.
pub(crate) fn identify(mappings: &mut [Mapping]) {
    for mapping in mappings {
        mapping.build_id = build_id(mapping).unwrap_or_default();
    }
}

fn build_id(mapping: &Mapping) -> Option<String> {
    let loaded = mapping
        .base
        .and_then(|base| Image::memory(base as u64).ok())
        .and_then(|image| image.build_id());
    if loaded.is_some() {
        return loaded;
    }
    // Memory may be out of reach (a hardened kernel); the file then stands in for it.
    if mapping.main {
        Image::open("/proc/self/exe".as_ref()).ok()?.build_id()
    } else if mapping.file.starts_with('/') && !mapping.deleted {
        Image::open(mapping.file.as_ref()).ok()?.build_id()
    } else {
        None
    }
}

fn list(source: impl Read, program: Option<&[u8]>) -> io::Result<Vec<Mapping>> {
    let mut mappings = Vec::new();
    let mut base: Option<(usize, Vec<u8>)> = None;
    read_entries(source, |entry| {
        if entry.offset == 0 && !entry.path.is_empty() {
            // A second mapping of the first page does not move the image.
            if base.as_ref().is_none_or(|(_, path)| path != entry.path) {
                base = Some((entry.start, entry.path.to_vec()));
            }
        }
        if !entry.execute {
            return;
        }
        let (path, deleted) = match entry.path.strip_suffix(b" (deleted)") {
            Some(path) => (path, true),
            None => (entry.path, false),
        };
        mappings.push(Mapping {
            start: entry.start,
            limit: entry.end,
            offset: entry.offset,
            file: String::from_utf8_lossy(path).into_owned(),
            build_id: String::new(),
            inode: entry.inode,
            base: base
                .as_ref()
                .and_then(|(start, path)| (path == entry.path).then_some(*start)),
            deleted,
            main: program == Some(entry.path),
        });
    })?;
    // Stable: false sorts first, order of address stays within each group.
    mappings.sort_by_key(|mapping| !mapping.main);
    Ok(mappings)
}

/// How much of a line is kept. Everything before the path takes less than 100 bytes.
const BUFFER: usize = 4096;

fn read_entries(mut source: impl Read, mut f: impl FnMut(Entry<'_>)) -> io::Result<()> {
    let mut buffer = [0_u8; BUFFER];
    let mut held = 0;
    // Within a line whose beginning was already reported.
    let mut skipping = false;
    loop {
        let read = match source.read(&mut buffer[held..]) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = held + read;
        let mut begin = 0;
        while let Some(length) = buffer[begin..end].iter().position(|&byte| byte == b'\n') {
            if !core::mem::take(&mut skipping)
                && let Some(entry) = parse(&buffer[begin..begin + length])
            {
                f(entry);
            }
            begin += length + 1;
        }
        held = end - begin;
        if read == 0 || held == BUFFER {
            // The last line without its newline, or one that fills the buffer alone.
            if !core::mem::replace(&mut skipping, true)
                && let Some(entry) = parse(&buffer[begin..end])
            {
                f(entry);
            }
            if read == 0 {
                return Ok(());
            }
            held = 0;
        } else {
            buffer.copy_within(begin..end, 0);
        }
    }
}

/// `start-end perms offset dev inode   path`
fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let (range, rest) = field(line)?;
    let (perms, rest) = field(rest)?;
    let (offset, rest) = field(rest)?;
    let (_device, rest) = field(rest)?;
    let (inode, rest) = field(rest).unwrap_or((rest, &[]));
    let dash = range.iter().position(|&byte| byte == b'-')?;
    let start = usize::try_from(number(&range[..dash], 16)?).ok()?;
    let end = usize::try_from(number(&range[dash + 1..], 16)?).ok()?;
    let &[read, write, execute, _] = perms else {
        return None;
    };
    (start < end).then_some(Entry {
        start,
        end,
        read: read == b'r',
        write: write == b'w',
        execute: execute == b'x',
        offset: number(offset, 16)?,
        inode: number(inode, 10)?,
        path: rest.trim_ascii_start(),
    })
}

/// The text up to the next space, and what follows that space.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = line.iter().position(|&byte| byte == b' ')?;
    Some((&line[..space], &line[space + 1..]))
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let digits = core::str::from_utf8(digits).ok()?;
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a kernel writes it, for a program that was replaced while running.
    const SAVED: &str = "\
55d0c8a00000-55d0c8a40000 r--p 00000000 fd:01 1234                       /opt/my app/server (deleted)
55d0c8a40000-55d0c8b00000 r-xp 00040000 fd:01 1234                       /opt/my app/server (deleted)
55d0c8b00000-55d0c8b10000 rw-p 00100000 fd:01 1234                       /opt/my app/server (deleted)
55d0c9000000-55d0c9021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000021000 rw-p 00000000 00:00 0 
7f1000000000-7f1000028000 r--p 00000000 fd:01 99                         /usr/lib/libc.so.6
7f1000028000-7f10001bd000 r-xp 00028000 fd:01 99                         /usr/lib/libc.so.6
7f1000300000-7f1000301000 rwxp 00000000 00:00 0 
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
7ffc00100000-7ffc00102000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    /// Hands out at most so many bytes a read.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let some = self.1.min(self.0.len());
            let read = (&self.0[..some]).read(buffer)?;
            self.0 = &self.0[read..];
            Ok(read)
        }
    }

    fn entries(text: &[u8], step: usize) -> Vec<(usize, usize, bool, Vec<u8>)> {
        let mut found = Vec::new();
        read_entries(Trickle(text, step), |entry| {
            found.push((entry.start, entry.end, entry.write, entry.path.to_vec()));
        })
        .unwrap();
        found
    }

    #[test]
    fn saved_text() {
        let program = b"/opt/my app/server (deleted)";
        let mappings = list(SAVED.as_bytes(), Some(program)).unwrap();
        let files: Vec<&str> = mappings.iter().map(|m| m.file.as_str()).collect();
        assert_eq!(
            files,
            [
                "/opt/my app/server",
                "/usr/lib/libc.so.6",
                "",
                "[vdso]",
                "[vsyscall]"
            ]
        );
        let server = &mappings[0];
        assert!(server.main && server.deleted);
        assert_eq!(server.start, 0x55d0_c8a4_0000);
        assert_eq!(server.limit, 0x55d0_c8b0_0000);
        assert_eq!(server.offset, 0x4_0000);
        assert_eq!(server.base, Some(0x55d0_c8a0_0000));
        let libc = &mappings[1];
        assert!(!libc.main && !libc.deleted);
        assert_eq!((libc.inode, libc.base), (99, Some(0x7f10_0000_0000)));
        assert_eq!(mappings[2].base, None);
        assert_eq!(mappings[3].base, Some(0x7ffc_0010_0000));
    }

    #[test]
    fn the_main_program_comes_first() {
        let mappings = list(SAVED.as_bytes(), Some(b"/usr/lib/libc.so.6")).unwrap();
        assert_eq!(mappings[0].file, "/usr/lib/libc.so.6");
        assert_eq!(mappings[1].file, "/opt/my app/server");
    }

    #[test]
    fn reads_of_any_size_give_the_same() {
        let whole = entries(SAVED.as_bytes(), usize::MAX);
        assert_eq!(whole.len(), 11);
        for step in [1, 2, 3, 7, 64, 100, 4095, 4096] {
            assert_eq!(entries(SAVED.as_bytes(), step), whole, "{step}");
        }
    }

    #[test]
    fn long_paths_are_cut_but_ranges_stay_right() {
        for length in [
            3900,
            BUFFER - 73,
            BUFFER,
            BUFFER + 1,
            3 * BUFFER,
            10 * BUFFER + 5,
        ] {
            let mut text = String::from("1000-2000 r-xp 00000000 fd:01 7 /");
            // A path may look like a line, except for its newline.
            while text.len() < length {
                text.push_str("5000-6000 rw-p 0 0:0 0 ");
            }
            text.push_str("\n3000-4000 rw-p 00000000 00:00 0 [stack]\n");
            for step in [1, 1000, 4096, usize::MAX] {
                let found = entries(text.as_bytes(), step);
                assert_eq!(found.len(), 2, "{length} {step}");
                assert_eq!((found[0].0, found[0].1), (0x1000, 0x2000));
                assert!(found[0].3.len() <= BUFFER && found[0].3.starts_with(b"/5000"));
                assert_eq!(found[1], (0x3000, 0x4000, true, b"[stack]".to_vec()));
            }
        }
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let letters = b"0123456789abcdef-- rwxp\n\n:/\0\xff";
        for round in 0..2000 {
            let length = (random() % 9000) as usize;
            let mut bytes: Vec<u8> = (0..length)
                .map(|_| letters[(random() % letters.len() as u64) as usize])
                .collect();
            if round % 2 == 0 {
                // Real text with a few bytes overwritten.
                bytes = SAVED.as_bytes().to_vec();
                for _ in 0..8 {
                    let at = (random() % bytes.len() as u64) as usize;
                    bytes[at] = random() as u8;
                }
            }
            let step = 1 + (random() % 5000) as usize;
            let mappings = list(Trickle(&bytes, step), Some(b"/x")).unwrap();
            assert!(mappings.iter().all(|m| m.start < m.limit));
            entries(&bytes, step);
        }
    }

    #[test]
    fn this_process() {
        let local = 0_u8;
        let address = core::ptr::from_ref(&local).addr();
        let region = stack_region(address).unwrap();
        assert!(region.contains(&address));
        assert_eq!(stack_region(0), None);
        assert_eq!(stack_region(this_process as fn() as usize), None);

        let mut mappings = executable().unwrap();
        identify(&mut mappings);
        assert!(mappings[0].main);
        assert!((mappings[0].start..mappings[0].limit).contains(&(this_process as fn() as usize)));
    }

    #[test]
    fn build_ids_are_what_readelf_shows() {
        let mut mappings = executable().unwrap();
        identify(&mut mappings);
        let mut compared = 0;
        for mapping in mappings.iter().filter(|m| m.file.starts_with('/')) {
            // Where there is no readelf there is nothing to compare with.
            let Ok(output) = std::process::Command::new("readelf")
                .args(["-n", &mapping.file])
                .output()
            else {
                return;
            };
            let text = String::from_utf8_lossy(&output.stdout);
            let shown = text
                .lines()
                .find_map(|line| line.trim().strip_prefix("Build ID: "));
            assert_eq!(
                mapping.build_id,
                shown.unwrap_or_default(),
                "{}",
                mapping.file
            );
            compared += usize::from(shown.is_some());
        }
        assert!(compared > 0);
    }
}
