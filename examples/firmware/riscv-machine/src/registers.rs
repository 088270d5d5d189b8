//! Devices' registers in memory. They can be reached by this crate alone, and none of them makes a device touch memory.

#![allow(unsafe_code)]

use core::ops::Range;
use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

/// Where they are (QEMU's hw/riscv/virt.c, `virt_memmap`): test device, clock, CLINT, PLIC, UART.
const DEVICES: [Range<usize>; 5] = [
    0x10_0000..0x10_1000,
    0x10_1000..0x10_2000,
    0x200_0000..0x201_0000,
    0xc00_0000..0xc60_0000,
    0x1000_0000..0x1000_0100,
];

const fn is_register(address: usize) -> bool {
    let mut i = 0;
    while i < DEVICES.len() {
        if address >= DEVICES[i].start && address < DEVICES[i].end {
            return true;
        }
        i += 1;
    }
    false
}

/// A register of 32 bits.
#[derive(Clone, Copy)]
pub(crate) struct Register32(usize);

impl Register32 {
    pub(crate) const fn at(address: usize) -> Self {
        assert!(is_register(address) && address.is_multiple_of(4));
        Self(address)
    }

    #[inline]
    pub(crate) fn read(self) -> u32 {
        // SAFETY: the address is aligned and a device's register (checked when this was made), which is no Rust object.
        unsafe { with_exposed_provenance::<u32>(self.0).read_volatile() }
    }

    #[inline]
    pub(crate) fn write(self, value: u32) {
        // SAFETY: as for `read`; and none of these devices writes to memory.
        unsafe { with_exposed_provenance_mut::<u32>(self.0).write_volatile(value) }
    }
}

/// A register of 8 bits.
#[derive(Clone, Copy)]
pub(crate) struct Register8(usize);

impl Register8 {
    pub(crate) const fn at(address: usize) -> Self {
        assert!(is_register(address));
        Self(address)
    }

    #[inline]
    pub(crate) fn read(self) -> u8 {
        // SAFETY: the address is a device's register (checked when this was made), which is no Rust object.
        unsafe { with_exposed_provenance::<u8>(self.0).read_volatile() }
    }

    #[inline]
    pub(crate) fn write(self, value: u8) {
        // SAFETY: as for `read`; and none of these devices writes to memory.
        unsafe { with_exposed_provenance_mut::<u8>(self.0).write_volatile(value) }
    }
}
