//! What a download of a profile is compared with: plain bytes through the same stack, and as large a profile.

#![forbid(unsafe_code)]

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};

use crate::profiler::{BLOCK, STACKS};

/// Where plain bytes are.
const PORT: u16 = 9;

/// How many.
const LEN: usize = 4 * 1024 * 1024;

/// Sends so many bytes to each who connects, and closes.
pub struct Download {
    socket: SocketHandle,
    sent: usize,
}

impl Download {
    pub const fn new(socket: SocketHandle) -> Self {
        Self { socket, sent: 0 }
    }

    /// Sends what there's room for. Never blocks.
    pub fn poll(&mut self, sockets: &mut SocketSet<'_>) {
        let socket = sockets.get_mut::<Socket<'_>>(self.socket);
        match socket.state() {
            State::Closed | State::TimeWait => {
                self.sent = 0;
                socket.abort();
                // It can't fail: the port is not 0, and the socket is closed.
                let _ = socket.listen(PORT);
            }
            _ if socket.can_send() => self.send(socket),
            _ => {}
        }
    }

    fn send(&mut self, socket: &mut Socket<'_>) {
        // It can't fail, as the socket can send.
        let _ = socket.send(|room| {
            let len = room.len().min(LEN - self.sent);
            room[..len].fill(b'x');
            self.sent += len;
            (len, ())
        });
        if self.sent == LEN {
            socket.close();
        }
    }
}

/// Callers of the leaves; and leaves of each of them. Together as many as three quarters of the stack table.
const CALLERS: usize = 192;
const LEAVES: usize = 128;

/// Different ways to get to a caller, and frames of each.
const WAYS: usize = 16;
const WAY: usize = 22;

/// Addresses where there's no code.
const NOWHERE: usize = 0x1000_0000;

/// Puts `count` different stacks of 24 frames into the tables, and each of them into the `block` profile: they are there to
/// be sent, 52 bytes each. At most 24,576.
pub fn grow(count: usize) {
    let (leaves, callers, ways) = (NOWHERE, NOWHERE + 0x1_0000, NOWHERE + 0x2_0000);
    let mut pcs = [0; 2 + WAY];
    for i in 0..count.min(LEAVES * CALLERS) {
        let caller = i / LEAVES;
        pcs[0] = leaves + 4 * (i % LEAVES);
        pcs[1] = callers + 4 * caller;
        for (frame, pc) in pcs[2..].iter_mut().enumerate() {
            *pc = ways + 4 * (caller % WAYS * WAY + frame);
        }
        let stack = STACKS.view().intern(&pcs, None);
        let nanos = 1_000_000 + 1_000 * i as u64;
        BLOCK.view().add(stack, 0, &[1, nanos]);
    }
}
