//! The dynamic linker's list of loaded objects, as bytes and addresses.

#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::marker::PhantomData;
use core::ops::{ControlFlow, Range};

/// How many objects were ever loaded and unloaded. While both stay, so do the objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    adds: u64,
    subs: u64,
}

/// One loaded object, for the time of a visit: the dynamic linker unloads none meanwhile.
#[derive(Debug)]
pub(super) struct Object<'visit> {
    base: usize,
    segments: &'visit [libc::Elf64_Phdr],
    changes: Changes,
    visit: PhantomData<&'visit [u8]>,
}

impl<'visit> Object<'visit> {
    pub(super) fn changes(&self) -> Changes {
        self.changes
    }

    /// From the first executable address to the last.
    pub(super) fn text(&self) -> Range<usize> {
        let executable = || self.loaded().filter(|(flags, _)| flags & libc::PF_X != 0);
        let start = executable().map(|(_, range)| range.start).min();
        let end = executable().map(|(_, range)| range.end).max();
        start.unwrap_or(0)..end.unwrap_or(0)
    }

    /// The address and bytes of `.eh_frame_hdr`.
    pub(super) fn eh_frame_hdr(&self) -> Option<(usize, &'visit [u8])> {
        let header = self
            .segments
            .iter()
            .find(|segment| segment.p_type == libc::PT_GNU_EH_FRAME)?;
        let address = self.address(header.p_vaddr);
        let bytes = self.bytes(address)?;
        let len = usize::try_from(header.p_memsz).ok()?;
        Some((address, bytes.get(..len)?))
    }

    /// What is mapped from `address` to the end of its segment, if that can be read and not be written.
    pub(super) fn bytes(&self, address: usize) -> Option<&'visit [u8]> {
        let readable = libc::PF_R;
        let (_, segment) = self.loaded().find(|(flags, range)| {
            flags & (readable | libc::PF_W) == readable && range.contains(&address)
        })?;
        let start = core::ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: the range is inside one segment that the dynamic linker mapped readable and not writable, so
        // the bytes are initialised and nobody changes them, and the visit's lock keeps them mapped for
        // 'visit.
        Some(unsafe { core::slice::from_raw_parts(start, segment.end - address) })
    }

    /// Whether this is the code that the kernel maps into every process.
    pub(super) fn is_vdso(&self) -> bool {
        // SAFETY: reads the auxiliary vector, which never changes.
        let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
        self.loaded()
            .any(|(_, range)| usize::try_from(vdso).is_ok_and(|vdso| range.contains(&vdso)))
    }

    /// The loaded segments: flags and addresses.
    fn loaded(&self) -> impl Iterator<Item = (u32, Range<usize>)> {
        self.segments
            .iter()
            .filter(|segment| segment.p_type == libc::PT_LOAD)
            .filter_map(|segment| {
                let start = self.address(segment.p_vaddr);
                let len = usize::try_from(segment.p_memsz).ok()?;
                Some((segment.p_flags, start..start.checked_add(len)?))
            })
    }

    /// Where something linked at `address` was loaded.
    fn address(&self, address: u64) -> usize {
        self.base.wrapping_add(address as usize)
    }
}

/// Calls `see` for each loaded object, until it breaks.
///
/// Takes the dynamic linker's lock for the time of the visit, which a thread that has it may take again.
pub(super) fn visit<F: FnMut(&Object<'_>) -> ControlFlow<()>>(mut see: F) {
    let data: *mut F = &raw mut see;
    // SAFETY: `each::<F>` is a callback of the type that is asked for, and gets back `data`, which points to an `F`
    // that outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(each::<F>), data.cast()) };
}

/// # Safety
///
/// For `dl_iterate_phdr` only, with a pointer to an `F` that nothing else uses as `data`.
unsafe extern "C" fn each<F: FnMut(&Object<'_>) -> ControlFlow<()>>(
    info: *mut libc::dl_phdr_info,
    size: usize,
    data: *mut c_void,
) -> c_int {
    if size < size_of::<libc::dl_phdr_info>() || info.is_null() {
        // A C library that counts no changes: older than any that Rust supports.
        return 1;
    }
    // SAFETY: dl_iterate_phdr(3): `info` points to a structure of `size` bytes for the time of this call.
    let info = unsafe { &*info };
    let segments = if info.dlpi_phdr.is_null() {
        &[]
    } else {
        // SAFETY: dl_iterate_phdr(3): an array of that many program headers, which lives as long as the object.
        unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) }
    };
    let object = Object {
        base: info.dlpi_addr as usize,
        segments,
        changes: Changes {
            adds: info.dlpi_adds,
            subs: info.dlpi_subs,
        },
        visit: PhantomData,
    };
    // SAFETY: the caller passes a pointer to an `F` that nothing else uses during the call.
    let see = unsafe { &mut *data.cast::<F>() };
    see(&object).is_break().into()
}
