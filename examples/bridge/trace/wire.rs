//! What a trace is made of: a header, and batches; in each batch numbers in LEB128 (Go's src/internal/trace/event/go122).

#![forbid(unsafe_code)]

pub(super) const EVENT_BATCH: u8 = 1;
pub(super) const STACKS: u8 = 2;
pub(super) const STACK: u8 = 3;
pub(super) const STRINGS: u8 = 4;
pub(super) const STRING: u8 = 5;

/// Of a batch: longer ones are refused by readers.
pub(super) const MOST_PAYLOAD: usize = 64 << 10;
/// Of a stack and of a string: readers refuse more.
pub(super) const MOST_FRAMES: usize = 128;
pub(super) const MOST_STRING: usize = 1024;

/// Why it can't be read: for more bytes, or at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Incomplete,
    Broken,
}

pub(super) fn byte(rest: &mut &[u8]) -> Result<u8, Stop> {
    let (&first, after) = rest.split_first().ok_or(Stop::Incomplete)?;
    *rest = after;
    Ok(first)
}

pub(super) fn numbers<const N: usize>(rest: &mut &[u8]) -> Result<[u64; N], Stop> {
    let mut all = [0; N];
    for number in &mut all {
        *number = self::number(rest)?;
    }
    Ok(all)
}

/// A number in LEB128.
pub(super) fn number(rest: &mut &[u8]) -> Result<u64, Stop> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let next = byte(rest)?;
        let bits = u64::from(next & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        number |= bits << shift;
        if next < 0x80 {
            return Ok(number);
        }
    }
    Err(Stop::Broken)
}

pub(super) fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
