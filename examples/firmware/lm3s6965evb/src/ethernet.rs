//! The Ethernet controller of the Stellaris family (LM3S6965 data sheet, chapter 16) as smoltcp's device.
//!
//! Frames go word by word through a register. The interrupt only ends a wait.

#![forbid(unsafe_code)]

use lm3s6965::interrupt;
use smoltcp::phy::{Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::registers::Register;
use crate::trace::{Handler, Source};

/// The longest frame without its checksum.
const FRAME: usize = 1514;

/// The controller counts a length of its own (two bytes) and the checksum (four) to a received frame.
const RECEIVE_OVERHEAD: usize = 6;

/// MACDATA's first word has the length without the Ethernet header.
const HEADER: usize = 14;

/// MACRCTL: on, and no frames with a wrong checksum.
const RECEIVE_ON: u32 = 1 << 0 | 1 << 3;

/// MACTCTL: on, short frames padded, checksums made, both directions at once.
const TRANSMIT_ON: u32 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 4;

/// MACRIS: a frame was received.
const RECEIVED: u32 = 1 << 0;

/// MACTR: send, or sending.
const NEW_TRANSMISSION: u32 = 1 << 0;

/// The controller. It keeps no frames: they are on the stack for as long as smoltcp looks at them.
pub(crate) struct Ethernet(());

impl Ethernet {
    /// Switches it on. There's one.
    pub(crate) fn new(address: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = address;
        Register::ClockGating2.write(Register::ClockGating2.read() | 1 << 30 | 1 << 28);
        Register::EthernetInterruptMask.write(0);
        Register::EthernetAddress0.write(u32::from_le_bytes([a, b, c, d]));
        Register::EthernetAddress1.write(u32::from_le_bytes([e, f, 0, 0]));
        Register::EthernetTransmit.write(TRANSMIT_ON);
        Register::EthernetReceive.write(RECEIVE_ON);
        Self(())
    }

    /// Whether there's a frame to receive. The next one ends the processor's sleep.
    pub(crate) fn has_frame(&self) -> bool {
        Register::EthernetInterrupts.write(RECEIVED);
        Register::EthernetInterruptMask.write(RECEIVED);
        self.holds_frame()
    }

    /// The same, and does no more.
    pub(crate) fn holds_frame(&self) -> bool {
        Register::EthernetFrames.read() != 0
    }
}

/// It has ended the sleep; the loop takes the frame.
#[interrupt]
fn ETHERNET() {
    let _handler = Handler::enter(Source::Ethernet);
    Register::EthernetInterruptMask.write(0);
}

impl Device for Ethernet {
    type RxToken<'a> = RxToken;
    type TxToken<'a> = TxToken;

    fn receive(&mut self, _: Instant) -> Option<(RxToken, TxToken)> {
        (Register::EthernetFrames.read() != 0).then_some((RxToken(()), TxToken(())))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken> {
        let is_sending = Register::EthernetRequest.read() & NEW_TRANSMISSION != 0;
        (!is_sending).then_some(TxToken(()))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}

/// The next frame that was received. It stays in the controller until it is consumed.
pub(crate) struct RxToken(());

impl smoltcp::phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let mut frame = [0; FRAME];
        let len = read_frame(&mut frame);
        f(&frame[..len])
    }
}

/// A frame to be sent.
pub(crate) struct TxToken(());

impl smoltcp::phy::TxToken for TxToken {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = [0; FRAME];
        let frame = &mut frame[..len];
        let result = f(frame);
        send_frame(frame);
        result
    }
}

/// Takes the next frame out of the controller; 0 bytes if it is longer than a frame can be.
#[inline(never)]
fn read_frame(frame: &mut [u8; FRAME]) -> usize {
    let first = Register::EthernetData.read();
    let total = first as usize & 0xffff;
    let len = total.saturating_sub(RECEIVE_OVERHEAD);
    // The first word has the first two bytes behind the length.
    frame[..2].copy_from_slice(&first.to_le_bytes()[2..]);
    for at in (2..total.saturating_sub(2)).step_by(4) {
        let word = Register::EthernetData.read().to_le_bytes();
        let room = frame.get_mut(at..).unwrap_or_default();
        room.iter_mut().zip(word).for_each(|(to, byte)| *to = byte);
    }
    if len > FRAME { 0 } else { len }
}

#[inline(never)]
fn send_frame(frame: &[u8]) {
    let len = frame.len().saturating_sub(HEADER) as u32;
    while Register::EthernetRequest.read() & NEW_TRANSMISSION != 0 {}
    let (first, rest) = frame.split_at(frame.len().min(2));
    Register::EthernetData.write(len | word(first) << 16);
    for part in rest.chunks(4) {
        Register::EthernetData.write(word(part));
    }
    Register::EthernetRequest.write(NEW_TRANSMISSION);
}

/// Up to four bytes, the first the lowest.
#[inline]
fn word(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u32::from(byte))
}
