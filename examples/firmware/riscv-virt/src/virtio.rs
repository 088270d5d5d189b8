//! The network card: virtio-net's queues, and who owns which buffer.

#![allow(unsafe_code)]

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::{NonNull, with_exposed_provenance_mut};

use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::mmio::MmioTransport;
use virtio_drivers::transport::{DeviceType, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Frames that wait to be received, and as many to be sent.
const QUEUE: usize = 32;

/// An Ethernet frame and virtio's header before it.
const BUFFER: usize = 1536;

/// Where virtio devices may be, and the interrupt of the first one (QEMU's hw/riscv/virt.c).
const SLOTS: Range<usize> = 0x1000_1000..0x1000_9000;
const SLOT: usize = 0x1000;
const FIRST_INTERRUPT: u32 = 1;

/// Memory for a frame, which stays where it is while the device has it.
type Buffer = Box<[u8; BUFFER]>;

/// A buffer with what was received in it.
pub(crate) struct Frame {
    buffer: Buffer,
    content: Range<usize>,
}

impl Frame {
    /// From the Ethernet header on.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.content.clone()]
    }
}

/// A buffer for a frame to be sent.
pub(crate) struct Outgoing {
    buffer: Buffer,
    header: usize,
}

impl Outgoing {
    /// Where the frame goes, from the Ethernet header on.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.buffer[self.header..]
    }
}

/// The card.
pub(crate) struct Card {
    queues: VirtIONetRaw<Memory, MmioTransport<'static>, QUEUE>,
    /// The buffers that the device has, each at the number of its descriptor.
    receiving: [Option<Buffer>; QUEUE],
    sending: [Option<(Buffer, usize)>; QUEUE],
    /// For sending.
    idle: Vec<Buffer>,
}

// SAFETY: its pointers are to memory and registers that are the card's alone, and that any hart can reach.
unsafe impl Send for Card {}

impl Card {
    /// The first card that there is, and its interrupt. To be called once.
    pub(crate) fn find() -> Option<(Self, u32)> {
        for (slot, interrupt) in SLOTS.step_by(SLOT).zip(FIRST_INTERRUPT..) {
            let header = NonNull::new(with_exposed_provenance_mut(slot))?;
            // SAFETY: QEMU has a virtio transport at each of these addresses, and none is used twice.
            let Ok(transport) = (unsafe { MmioTransport::new(header, SLOT) }) else {
                continue;
            };
            if transport.device_type() == DeviceType::Network {
                return Some((Self::new(transport)?, interrupt));
            }
        }
        None
    }

    fn new(transport: MmioTransport<'static>) -> Option<Self> {
        let mut card = Self {
            queues: VirtIONetRaw::new(transport).ok()?,
            receiving: [const { None }; QUEUE],
            sending: [const { None }; QUEUE],
            idle: (0..QUEUE).map(|_| Box::new([0; BUFFER])).collect(),
        };
        for _ in 0..QUEUE {
            card.offer(Box::new([0; BUFFER]));
        }
        Some(card)
    }

    /// Ends the interrupt; the next one comes when something is received or sent after this.
    pub(crate) fn end_interrupt(&mut self) {
        self.queues.ack_interrupt();
    }

    /// The next frame that was received.
    pub(crate) fn receive(&mut self) -> Option<Frame> {
        let token = self.queues.poll_receive()?;
        let mut buffer = self.receiving.get_mut(usize::from(token))?.take()?;
        // SAFETY: `offer` put the buffer in under the token that it got for it.
        let lengths = unsafe { self.queues.receive_complete(token, &mut buffer[..]) };
        let Ok((header, len)) = lengths else {
            self.offer(buffer);
            return None;
        };
        let content = header..(header + len).min(BUFFER);
        Some(Frame { buffer, content })
    }

    /// Takes a frame's buffer back, to receive the next one in.
    pub(crate) fn recycle(&mut self, frame: Frame) {
        self.offer(frame.buffer);
    }

    fn offer(&mut self, mut buffer: Buffer) {
        // SAFETY: the buffer is put into `receiving`, where nobody touches it until it is complete. Its memory stays where
        // it is, as it is boxed; and the card is in a static for good.
        let Ok(token) = (unsafe { self.queues.receive_begin(&mut buffer[..]) }) else {
            // There's a descriptor for each buffer.
            return;
        };
        self.receiving[usize::from(token)] = Some(buffer);
    }

    /// A buffer for a frame to be sent; `None` if as many are on their way as may be.
    pub(crate) fn outgoing(&mut self) -> Option<Outgoing> {
        self.reclaim();
        let mut buffer = self.idle.pop()?;
        // The buffer is longer than any header.
        let header = self.queues.fill_buffer_header(&mut buffer[..]).unwrap_or(0);
        Some(Outgoing { buffer, header })
    }

    /// Takes a buffer back that nothing is to be sent of.
    pub(crate) fn discard(&mut self, frame: Outgoing) {
        self.idle.push(frame.buffer);
    }

    /// Sends the first `len` bytes of a frame.
    pub(crate) fn send(&mut self, frame: Outgoing, len: usize) {
        let Outgoing { buffer, header } = frame;
        let end = (header + len).min(BUFFER);
        // SAFETY: as in `offer`, with `sending`.
        match unsafe { self.queues.transmit_begin(&buffer[..end]) } {
            Ok(token) => self.sending[usize::from(token)] = Some((buffer, end)),
            // There's a descriptor for each buffer; were there none, the frame would be lost, as on any wire.
            Err(_) => self.idle.push(buffer),
        }
    }

    /// Takes back the buffers of what is sent.
    fn reclaim(&mut self) {
        while let Some(token) = self.queues.poll_transmit() {
            let Some((buffer, end)) = self.sending[usize::from(token)].take() else {
                return;
            };
            // SAFETY: it is the buffer that got this token, as long as it was then.
            let _ = unsafe { self.queues.transmit_complete(token, &buffer[..end]) };
            self.idle.push(buffer);
        }
    }
}

/// Memory that devices reach: all of it, at the addresses that the program uses.
struct Memory;

// SAFETY: pages come from the allocator, aligned and zeroed, and are the caller's alone until they go back. Addresses are
// the same to devices, as nothing translates them.
unsafe impl Hal for Memory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let Some(layout) = layout(pages) else {
            return (0, NonNull::dangling());
        };
        // SAFETY: the layout isn't empty: no queue is.
        let memory = unsafe { alloc_zeroed(layout) };
        match NonNull::new(memory) {
            Some(memory) => (memory.expose_provenance().get() as PhysAddr, memory),
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(_: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        let Some(layout) = layout(pages) else {
            return -1;
        };
        // SAFETY: the caller says that it is of `dma_alloc`, with as many pages.
        unsafe { dealloc(memory.as_ptr(), layout) };
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        // Only for PCI, which is not used; the address is the same.
        NonNull::new(with_exposed_provenance_mut(address as usize)).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().expose_provenance().get() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

fn layout(pages: usize) -> Option<Layout> {
    Layout::from_size_align(pages.checked_mul(PAGE_SIZE)?, PAGE_SIZE).ok()
}
