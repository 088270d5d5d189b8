//! The LAN9118: frames go through its FIFOs a word at a time, and an interrupt says that there are some.

#![forbid(unsafe_code)]

use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::registers::Register;

/// A frame without its check sequence: 14 bytes of header, and 1,500.
const MTU: usize = 1_514;

/// Bytes of a word of the FIFOs.
const WORD: usize = 4;

/// `INT_STS`: there are more frames than the level.
const RECEIVED: u32 = 1 << 3;

/// The controller, of which there is one.
pub struct Lan9118(());

impl Lan9118 {
    /// Resets it and lets it receive what is for `address`. `None` if it does not answer.
    pub fn start(address: [u8; 6]) -> Option<Self> {
        if Register::EthernetByteTest.read() != 0x8765_4321 {
            return None;
        }
        Register::EthernetHardwareConfig.write(1);
        while Register::EthernetHardwareConfig.read() & 1 != 0 {}
        // 5 KB for what is sent, which leaves 10,560 bytes for what is received.
        Register::EthernetHardwareConfig.write(0x0005_0000);
        let [a, b, c, d, e, f] = address;
        write_mac(2, u32::from_le_bytes([e, f, 0, 0]));
        write_mac(3, u32::from_le_bytes([a, b, c, d]));
        // Full duplex, transmitter and receiver on.
        write_mac(1, 1 << 20 | 1 << 3 | 1 << 2);
        Register::EthernetTransmitConfig.write(1 << 1);
        // An interrupt for the first frame; nothing is said of what was sent.
        Register::EthernetFifoInterrupts.write(0x4800_0000);
        Register::EthernetInterruptStatus.write(u32::MAX);
        Register::EthernetInterruptEnable.write(RECEIVED);
        // Active high, push-pull, on.
        Register::EthernetInterruptConfig.write(1 << 8 | 1 << 4 | 1);
        Some(Self(()))
    }

    /// Makes the next frame an interrupt, and one that has come since the last interrupt too.
    pub fn expect_frame(&mut self) {
        Register::EthernetInterruptEnable.write(RECEIVED);
    }
}

/// A frame came. The next interrupt is when one is expected again.
pub fn on_interrupt() {
    Register::EthernetInterruptEnable.write(0);
    Register::EthernetInterruptStatus.write(RECEIVED);
}

fn waiting_frames() -> u32 {
    Register::EthernetReceiveFifo.read() >> 16 & 0xff
}

fn write_mac(register: u32, value: u32) {
    const BUSY: u32 = 1 << 31;
    Register::EthernetMacData.write(value);
    Register::EthernetMacCommand.write(BUSY | register);
    while Register::EthernetMacCommand.read() & BUSY != 0 {}
}

impl Device for Lan9118 {
    type RxToken<'a> = Receive;
    type TxToken<'a> = Transmit;

    fn receive(&mut self, _: Instant) -> Option<(Receive, Transmit)> {
        (waiting_frames() > 0 && has_room()).then_some((Receive, Transmit))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmit> {
        has_room().then_some(Transmit)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// Whether there's room for a frame of any length and its two command words.
fn has_room() -> bool {
    // What was sent is of no interest, but must be taken out.
    while Register::EthernetTransmitFifo.read() >> 16 & 0xff > 0 {
        Register::EthernetTransmitStatus.read();
    }
    Register::EthernetTransmitFifo.read() & 0xffff > (MTU + 3 * WORD) as u32
}

/// A frame that was received.
pub struct Receive;

impl phy::RxToken for Receive {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let mut frame = [0; MTU + 2 * WORD];
        let status = Register::EthernetReceiveStatus.read();
        // With the check sequence at the end.
        let len = (status >> 16 & 0x3fff) as usize;
        for at in (0..len).step_by(WORD) {
            let word = Register::EthernetReceiveData.read();
            if let Some(bytes) = frame.get_mut(at..at + WORD) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
        // An empty frame is one that smoltcp drops.
        f(frame.get(..len.saturating_sub(WORD)).unwrap_or_default())
    }
}

/// Room for a frame to send.
pub struct Transmit;

impl phy::TxToken for Transmit {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = [0; MTU + 2];
        let len = len.min(MTU);
        let result = f(&mut frame[..len]);
        // One buffer, which is the first and the last of its frame.
        Register::EthernetTransmitData.write(1 << 13 | 1 << 12 | len as u32);
        Register::EthernetTransmitData.write(len as u32);
        for word in frame.as_chunks::<WORD>().0.iter().take(len.div_ceil(WORD)) {
            Register::EthernetTransmitData.write(u32::from_le_bytes(*word));
        }
        result
    }
}
