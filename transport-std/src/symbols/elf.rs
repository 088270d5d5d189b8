//! ELF files, read piece by piece (System V gABI, "Object Files").
//!
//! Nothing is mapped and nothing is held: a section is read when it is asked for. That keeps the
//! peak small next to the tens of megabytes of a program with line tables, and needs no unsafe
//! code. The source is a file, or an image in this process through `/proc/self/mem`: the one way
//! to the vdso, and to the build id of a library whose file has been replaced.

use core::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;
const NT_GNU_BUILD_ID: u32 = 3;
const SHT_NOBITS: u32 = 8;
const SHF_COMPRESSED: u64 = 1 << 11;
const ELFCOMPRESS_ZLIB: u32 = 1;
pub(super) const SHT_SYMTAB: u32 = 2;
pub(super) const SHT_DYNSYM: u32 = 11;

/// Bounds on what a header may claim; real files stay far below.
const MOST_SEGMENTS: u16 = 1024;
const MOST_SECTIONS: u16 = 0xff00;
const LONGEST_NOTE: u64 = 64 << 10;
const LARGEST_INFLATED: u64 = 512 << 20;
/// An image in memory is small: the vdso has a few pages.
const LARGEST_IN_MEMORY: u64 = 1 << 20;

/// Where the bytes of an object come from.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
    /// Added to every offset: 0 for a file, the load address for memory.
    base: u64,
    /// Offsets below this can be read.
    size: u64,
    memory: bool,
}

impl Image {
    /// The file at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            file,
            base: 0,
            size,
            memory: false,
        })
    }

    /// The image whose first byte lies at address `base` of this process.
    pub(crate) fn memory(base: u64) -> io::Result<Self> {
        Ok(Self {
            file: File::open("/proc/self/mem")?,
            base,
            size: LARGEST_IN_MEMORY,
            memory: true,
        })
    }

    /// The GNU build id in lower hex.
    pub(crate) fn build_id(&self) -> Option<String> {
        let header = Header::read(self)?;
        let segments = header.segments(self)?;
        // In memory a note lies at its address, in a file at its offset.
        let first = segments
            .iter()
            .find(|segment| segment.kind == PT_LOAD)
            .map_or(0, |segment| segment.address.wrapping_sub(segment.offset));
        for segment in segments.iter().filter(|segment| segment.kind == PT_NOTE) {
            let at = if self.memory {
                segment.address.wrapping_sub(first)
            } else {
                segment.offset
            };
            let mut notes = Vec::new();
            let size = segment.file_size.min(LONGEST_NOTE);
            if self.read_outside(at, size, &mut notes).is_some()
                && let Some(id) = find_build_id(&notes, segment.align)
            {
                return Some(id);
            }
        }
        None
    }

    /// Reads `size` bytes at `offset`; `None` when they are not all there.
    fn read(&self, offset: u64, size: u64, out: &mut Vec<u8>) -> Option<()> {
        if offset.checked_add(size)? > self.size {
            return None;
        }
        self.read_outside(offset, size, out)
    }

    /// As [`read`](Self::read), but the size of the image is no bound.
    fn read_outside(&self, offset: u64, size: u64, out: &mut Vec<u8>) -> Option<()> {
        out.clear();
        out.resize(usize::try_from(size).ok()?, 0);
        self.file
            .read_exact_at(out, self.base.checked_add(offset)?)
            .ok()
    }
}

/// The parts of an object that looking up an address takes.
#[derive(Debug)]
pub(super) struct Elf {
    image: Image,
    segments: Vec<Segment>,
    sections: Vec<SectionHeader>,
    names: Vec<u8>,
}

impl Elf {
    /// Reads the headers; `None` when this is no 64-bit little-endian ELF object.
    pub(super) fn new(image: Image) -> Option<Self> {
        let header = Header::read(&image)?;
        let segments = header.segments(&image)?;
        let sections = header.sections(&image).unwrap_or_default();
        let mut names = Vec::new();
        if let Some(section) = sections.get(usize::from(header.section_names)) {
            image.read(section.offset, section.size, &mut names)?;
        }
        Some(Self {
            image,
            segments,
            sections,
            names,
        })
    }

    /// The object's own address of the code at `offset` in its file.
    pub(super) fn address_of(&self, offset: u64) -> Option<u64> {
        self.segments
            .iter()
            .filter(|segment| segment.kind == PT_LOAD && segment.flags & PF_X != 0)
            .find_map(|segment| {
                let within = offset.checked_sub(segment.offset)?;
                (within < segment.file_size).then(|| segment.address.checked_add(within))?
            })
    }

    pub(super) fn build_id(&self) -> Option<String> {
        self.image.build_id()
    }

    /// The section of that name; an empty one when there is none.
    pub(super) fn section(&self, name: &str) -> Section<'_> {
        self.sections
            .iter()
            .find(|section| self.name_of(section) == Some(name.as_bytes()))
            .map_or_else(|| Section::empty(&self.image), |header| self.open(header))
    }

    /// The symbol table of that type, and its strings.
    pub(super) fn symbols(&self, kind: u32) -> Option<(Section<'_>, Section<'_>)> {
        let table = self.sections.iter().find(|section| section.kind == kind)?;
        let strings = self.sections.get(usize::try_from(table.link).ok()?)?;
        Some((self.open(table), self.open(strings)))
    }

    fn name_of(&self, section: &SectionHeader) -> Option<&[u8]> {
        let name = self.names.get(usize::try_from(section.name).ok()?..)?;
        name.split(|&byte| byte == 0).next()
    }

    fn open(&self, header: &SectionHeader) -> Section<'_> {
        self.try_open(header)
            .unwrap_or_else(|| Section::empty(&self.image))
    }

    fn try_open(&self, header: &SectionHeader) -> Option<Section<'_>> {
        if header.kind == SHT_NOBITS || header.offset.checked_add(header.size)? > self.image.size {
            return None;
        }
        if header.flags & SHF_COMPRESSED == 0 {
            return Some(Section {
                image: &self.image,
                offset: header.offset,
                size: header.size,
                inflated: None,
            });
        }
        let mut bytes = Vec::new();
        self.image.read(header.offset, header.size, &mut bytes)?;
        let inflated = inflate(&bytes)?;
        Some(Section {
            image: &self.image,
            offset: 0,
            size: inflated.len() as u64,
            inflated: Some(inflated),
        })
    }
}

/// One section: bytes still in the object, or unpacked ones.
#[derive(Debug)]
pub(super) struct Section<'a> {
    image: &'a Image,
    offset: u64,
    size: u64,
    inflated: Option<Vec<u8>>,
}

impl<'a> Section<'a> {
    fn empty(image: &'a Image) -> Self {
        Self {
            image,
            offset: 0,
            size: 0,
            inflated: None,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Replaces `out` by `size` bytes from `offset`; `None` when they are not all there.
    pub(super) fn read(&self, offset: u64, size: u64, out: &mut Vec<u8>) -> Option<()> {
        let end = offset.checked_add(size)?;
        if end > self.size {
            return None;
        }
        match &self.inflated {
            None => self.image.read(self.offset.checked_add(offset)?, size, out),
            Some(bytes) => {
                let range = usize::try_from(offset).ok()?..usize::try_from(end).ok()?;
                out.clear();
                out.extend_from_slice(bytes.get(range)?);
                Some(())
            }
        }
    }

    /// As [`read`](Self::read), or fewer bytes at the end of the section.
    pub(super) fn read_up_to(&self, offset: u64, size: u64, out: &mut Vec<u8>) -> Option<()> {
        let size = size.min(self.size.checked_sub(offset)?);
        self.read(offset, size, out)
    }

    /// The whole section; empty when it cannot be read.
    pub(super) fn read_all(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.read(0, self.size, &mut out).is_none() {
            out.clear();
        }
        out
    }

    /// The text at `offset`, up to its NUL.
    pub(super) fn string(&self, offset: u64) -> Option<String> {
        let mut bytes = Vec::new();
        let mut size = 256;
        loop {
            self.read_up_to(offset, size, &mut bytes)?;
            if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
                bytes.truncate(end);
                return Some(into_text(bytes));
            }
            if (bytes.len() as u64) < size {
                return None;
            }
            size *= 8;
        }
    }
}

/// UTF-8 as it is, with marks in place of anything else.
pub(super) fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[derive(Debug)]
struct Header {
    segments_at: u64,
    segment_size: u16,
    segment_count: u16,
    sections_at: u64,
    section_size: u16,
    section_count: u16,
    section_names: u16,
}

impl Header {
    fn read(image: &Image) -> Option<Self> {
        let mut bytes = Vec::new();
        image.read(0, 64, &mut bytes)?;
        // Magic, ELFCLASS64, ELFDATA2LSB.
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        Some(Self {
            segments_at: u64_at(&bytes, 32)?,
            segment_size: u16_at(&bytes, 54)?,
            segment_count: u16_at(&bytes, 56)?,
            sections_at: u64_at(&bytes, 40)?,
            section_size: u16_at(&bytes, 58)?,
            section_count: u16_at(&bytes, 60)?,
            section_names: u16_at(&bytes, 62)?,
        })
    }

    fn segments(&self, image: &Image) -> Option<Vec<Segment>> {
        if self.segment_size != 56 || self.segment_count > MOST_SEGMENTS {
            return None;
        }
        let mut bytes = Vec::new();
        let size = u64::from(self.segment_count) * 56;
        image.read(self.segments_at, size, &mut bytes)?;
        bytes.chunks_exact(56).map(Segment::parse).collect()
    }

    fn sections(&self, image: &Image) -> Option<Vec<SectionHeader>> {
        if self.section_size != 64 || self.section_count > MOST_SECTIONS {
            return None;
        }
        let mut bytes = Vec::new();
        let size = u64::from(self.section_count) * 64;
        image.read(self.sections_at, size, &mut bytes)?;
        bytes.chunks_exact(64).map(SectionHeader::parse).collect()
    }
}

#[derive(Debug)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    align: u64,
}

impl Segment {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32_at(bytes, 0)?,
            flags: u32_at(bytes, 4)?,
            offset: u64_at(bytes, 8)?,
            address: u64_at(bytes, 16)?,
            file_size: u64_at(bytes, 32)?,
            align: u64_at(bytes, 48)?,
        })
    }
}

#[derive(Debug)]
struct SectionHeader {
    name: u32,
    kind: u32,
    flags: u64,
    offset: u64,
    size: u64,
    link: u32,
}

impl SectionHeader {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            name: u32_at(bytes, 0)?,
            kind: u32_at(bytes, 4)?,
            flags: u64_at(bytes, 8)?,
            offset: u64_at(bytes, 24)?,
            size: u64_at(bytes, 32)?,
            link: u32_at(bytes, 40)?,
        })
    }
}

/// A note: sizes of name and contents, type, then both, each padded to the alignment.
fn find_build_id(mut notes: &[u8], align: u64) -> Option<String> {
    let align = if align == 8 { 8 } else { 4 };
    loop {
        let name_size = usize::try_from(u32_at(notes, 0)?).ok()?;
        let size = usize::try_from(u32_at(notes, 4)?).ok()?;
        let kind = u32_at(notes, 8)?;
        let contents_at = name_size.checked_add(12)?.checked_next_multiple_of(align)?;
        let end = contents_at.checked_add(size)?;
        let name = notes.get(12..12 + name_size)?;
        let contents = notes.get(contents_at..end)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            let mut hex = String::with_capacity(2 * size);
            for byte in contents {
                // Writing to a String does not fail.
                let _ = write!(hex, "{byte:02x}");
            }
            return Some(hex);
        }
        notes = notes.get(end.checked_next_multiple_of(align)?..)?;
    }
}

/// Unpacks a section behind its `Elf64_Chdr`. Only zlib: `zstd` sections count as absent.
fn inflate(bytes: &[u8]) -> Option<Vec<u8>> {
    let size = u64_at(bytes, 8)?;
    if u32_at(bytes, 0)? != ELFCOMPRESS_ZLIB || size > LARGEST_INFLATED {
        return None;
    }
    let mut out = Vec::with_capacity(usize::try_from(size).ok()?);
    flate2::read::ZlibDecoder::new(bytes.get(24..)?)
        .take(size)
        .read_to_end(&mut out)
        .ok()?;
    (out.len() as u64 == size).then_some(out)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}
