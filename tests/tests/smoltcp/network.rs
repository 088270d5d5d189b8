//! A link between two machines that loses, doubles, delays and reorders frames, as a seed says. Time is an argument.

use core::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::{Duration, Instant};

/// How bad the link is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) seed: u64,
    /// Frames of a thousand that are lost. A client's next few frames, there and back, are not then: what is sent again
    /// comes through, and so does its acknowledgement, before anybody is given up.
    pub(crate) lost: u64,
    /// Frames of a thousand that come twice.
    pub(crate) doubled: u64,
    /// How long a frame takes, at least and at most: what differs comes out of order.
    pub(crate) delay: (u64, u64),
    pub(crate) mtu: usize,
    pub(crate) medium: Medium,
}

impl Faults {
    /// A wire.
    pub(crate) const NONE: Self = Self {
        seed: 1,
        lost: 0,
        doubled: 0,
        delay: (100, 100),
        mtu: 1500,
        medium: Medium::Ip,
    };
}

struct Frame {
    to: usize,
    arrives: Instant,
    bytes: Vec<u8>,
}

pub(crate) struct Link {
    faults: Faults,
    random: u64,
    under_way: Vec<Frame>,
    /// How many frames of a connection, by its ports, are not lost.
    spared: HashMap<u32, u32>,
    /// Whether anything arrives there.
    pub(crate) is_cut: [bool; 2],
}

impl Link {
    pub(crate) fn new(faults: Faults) -> (Rc<RefCell<Self>>, [End; 2]) {
        let link = Rc::new(RefCell::new(Self {
            faults,
            random: faults.seed | 1,
            under_way: Vec::new(),
            spared: HashMap::new(),
            is_cut: [false; 2],
        }));
        let ends = [0, 1].map(|side| End {
            link: link.clone(),
            side,
        });
        (link, ends)
    }

    /// When the next frame arrives at this side.
    pub(crate) fn arrival(&self, side: usize) -> Option<Instant> {
        let frames = self.under_way.iter().filter(|frame| frame.to == side);
        frames.map(|frame| frame.arrives).min()
    }

    fn random(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % limit
    }

    fn send(&mut self, to: usize, now: Instant, bytes: Vec<u8>) {
        if self.is_cut[to] {
            return;
        }
        let is_lost = self.random(1000) < self.faults.lost;
        let spared = self.spared.entry(self.connection(&bytes)).or_default();
        if is_lost && *spared == 0 {
            *spared = 3;
            return;
        }
        *spared = spared.saturating_sub(1);
        let copies = 1 + u64::from(self.random(1000) < self.faults.doubled);
        for _ in 0..copies {
            let (least, most) = self.faults.delay;
            let delay = least + self.random(most - least + 1);
            self.under_way.push(Frame {
                to,
                arrives: now + Duration::from_micros(delay),
                bytes: bytes.clone(),
            });
        }
    }

    /// Puts a frame on its way that nobody sent.
    pub(crate) fn forge(&mut self, to: usize, now: Instant, bytes: Vec<u8>) {
        self.under_way.push(Frame {
            to,
            arrives: now,
            bytes,
        });
    }

    /// The same number both ways.
    fn connection(&self, frame: &[u8]) -> u32 {
        let ip = match self.faults.medium {
            Medium::Ethernet => 14,
            _ => 0,
        };
        let port = |at: usize| match frame.get(ip + at..ip + at + 2) {
            Some(bytes) => u32::from(bytes[0]) << 8 | u32::from(bytes[1]),
            None => 0,
        };
        port(20) + port(22)
    }

    fn receive(&mut self, side: usize, now: Instant) -> Option<Vec<u8>> {
        let arrived = self.under_way.iter().enumerate();
        let arrived = arrived.filter(|(_, frame)| frame.to == side && frame.arrives <= now);
        let (first, _) = arrived.min_by_key(|(_, frame)| frame.arrives)?;
        Some(self.under_way.remove(first).bytes)
    }
}

/// A machine's end of the link.
pub(crate) struct End {
    link: Rc<RefCell<Link>>,
    side: usize,
}

impl Device for End {
    type RxToken<'a> = Received;
    type TxToken<'a> = ToSend<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let faults = self.link.borrow().faults;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.max_transmission_unit = faults.mtu;
        capabilities.medium = faults.medium;
        capabilities
    }

    fn receive(&mut self, now: Instant) -> Option<(Received, ToSend<'_>)> {
        let bytes = self.link.borrow_mut().receive(self.side, now)?;
        Some((Received(bytes), ToSend { end: self, now }))
    }

    fn transmit(&mut self, now: Instant) -> Option<ToSend<'_>> {
        Some(ToSend { end: self, now })
    }
}

pub(crate) struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub(crate) struct ToSend<'a> {
    end: &'a mut End,
    now: Instant,
}

impl phy::TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        let mut link = self.end.link.borrow_mut();
        link.send(1 - self.end.side, self.now, bytes);
        result
    }
}
