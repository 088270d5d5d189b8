//! The board's registers that this program uses.
//!
//! Arm's application note AN385; the Cortex-M System Design Kit's reference manual (DDI 0479) for timers and UARTs;
//! Microchip's data sheet of the LAN9118, whose names are written out here.

#![allow(unsafe_code)]

/// A device's register, by its address.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Register {
    // The timer that wakes tasks: it counts down at the clock of the core, and begins again.
    Timer0Control = 0x4000_0000,
    Timer0Value = 0x4000_0004,
    Timer0Reload = 0x4000_0008,
    Timer0Interrupt = 0x4000_000c,

    // The sensor's timer.
    Timer1Control = 0x4000_1000,
    Timer1Value = 0x4000_1004,
    Timer1Reload = 0x4000_1008,
    Timer1Interrupt = 0x4000_100c,

    // The first half of the dual timer, which is the clock.
    DualTimerLoad = 0x4000_2000,
    DualTimerValue = 0x4000_2004,
    DualTimerControl = 0x4000_2008,

    // The UART that profiles are served on.
    Uart0Data = 0x4000_4000,
    Uart0State = 0x4000_4004,
    Uart0Control = 0x4000_4008,
    Uart0Interrupts = 0x4000_400c,
    Uart0BaudDivider = 0x4000_4010,

    // The console.
    Uart1Data = 0x4000_5000,
    Uart1State = 0x4000_5004,
    Uart1Control = 0x4000_5008,
    Uart1BaudDivider = 0x4000_5010,

    // The Ethernet controller.
    EthernetReceiveData = 0x4020_0000,
    EthernetTransmitData = 0x4020_0020,
    EthernetReceiveStatus = 0x4020_0040,
    EthernetTransmitStatus = 0x4020_0048,
    EthernetInterruptConfig = 0x4020_0054,
    EthernetInterruptStatus = 0x4020_0058,
    EthernetInterruptEnable = 0x4020_005c,
    EthernetByteTest = 0x4020_0064,
    EthernetFifoInterrupts = 0x4020_0068,
    EthernetTransmitConfig = 0x4020_0070,
    EthernetHardwareConfig = 0x4020_0074,
    EthernetReceiveFifo = 0x4020_007c,
    EthernetTransmitFifo = 0x4020_0080,
    EthernetMacCommand = 0x4020_00a4,
    EthernetMacData = 0x4020_00a8,
}

impl Register {
    /// Its value; reading may take something out of the device.
    #[inline]
    pub fn read(self) -> u32 {
        let address = core::ptr::with_exposed_provenance::<u32>(self as usize);
        // SAFETY: a device register that is always there; none of these devices reads or writes memory.
        unsafe { address.read_volatile() }
    }

    /// Writes it.
    #[inline]
    pub fn write(self, value: u32) {
        let address = core::ptr::with_exposed_provenance_mut::<u32>(self as usize);
        // SAFETY: as for `read`.
        unsafe { address.write_volatile(value) }
    }
}
