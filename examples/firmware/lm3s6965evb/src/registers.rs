//! The device registers that this program uses (LM3S6965 data sheet).

#![allow(unsafe_code)]

/// A register, by its address.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum Register {
    /// RCGC1: which timers have a clock (chapter 5).
    ClockGating1 = 0x400f_e104,
    /// RCGC2: which ports have a clock; Ethernet is one of them.
    ClockGating2 = 0x400f_e108,

    /// GPTMCFG of timer 0 (chapter 10).
    TimerConfiguration = 0x4003_0000,
    /// GPTMTAMR.
    TimerMode = 0x4003_0004,
    /// GPTMCTL.
    TimerControl = 0x4003_000c,
    /// GPTMIMR.
    TimerInterruptMask = 0x4003_0018,
    /// GPTMICR.
    TimerInterruptClear = 0x4003_0024,
    /// GPTMTAILR.
    TimerInterval = 0x4003_0028,

    /// The same of timer 1, which makes the ticks.
    TickConfiguration = 0x4003_1000,
    /// GPTMTAMR.
    TickMode = 0x4003_1004,
    /// GPTMCTL.
    TickControl = 0x4003_100c,
    /// GPTMIMR.
    TickInterruptMask = 0x4003_1018,
    /// GPTMICR.
    TickInterruptClear = 0x4003_1024,
    /// GPTMTAILR.
    TickInterval = 0x4003_1028,

    /// MACRIS when read, MACIACK when written (chapter 16).
    EthernetInterrupts = 0x4004_8000,
    /// MACIM.
    EthernetInterruptMask = 0x4004_8004,
    /// MACRCTL.
    EthernetReceive = 0x4004_8008,
    /// MACTCTL.
    EthernetTransmit = 0x4004_800c,
    /// MACDATA: the next word of the received frame when read, of the one to send when written.
    EthernetData = 0x4004_8010,
    /// MACIA0: the first four bytes of the address.
    EthernetAddress0 = 0x4004_8014,
    /// MACIA1: the other two.
    EthernetAddress1 = 0x4004_8018,
    /// MACNP: how many frames have been received.
    EthernetFrames = 0x4004_8034,
    /// MACTR: sends, and says whether it is still at it.
    EthernetRequest = 0x4004_8038,
}

impl Register {
    pub(crate) fn read(self) -> u32 {
        let address = core::ptr::with_exposed_provenance::<u32>(self as usize);
        // SAFETY: a device register that is always there; none of them has to do with memory.
        unsafe { address.read_volatile() }
    }

    pub(crate) fn write(self, value: u32) {
        let address = core::ptr::with_exposed_provenance_mut::<u32>(self as usize);
        // SAFETY: a device register that is always there; none of them has to do with memory.
        unsafe { address.write_volatile(value) }
    }
}
