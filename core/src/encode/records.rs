//! Records one after the other through buffers of any size: what every encoder here is.

#![forbid(unsafe_code)]

use super::wire::Window;

/// Where an encoder is.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    /// The record within its section.
    pub(crate) index: usize,
    /// How many bytes of it are out, once it is found.
    sent: Option<usize>,
}

/// Bytes that come in records, each small enough to be rendered again for every buffer it is cut by.
pub(crate) trait Records {
    fn cursor(&mut self) -> &mut Cursor;

    /// Moves the cursor to the first record from where it stands that exists, and loads what moves in it;
    /// false at the end, or where there are no more yet. Called once for each record.
    fn find(&mut self) -> bool;

    /// Renders the record that was found: the same bytes until the next is.
    fn render(&self, window: &mut Window<'_>);
}

/// [`Body::fill`](super::Body::fill) of records.
///
/// Of a `dyn Records` it is the same code for all encoders: some machines have little memory for code. That of profiles,
/// which may be long and be all that a program has, has its own.
pub(crate) fn fill<R: Records + ?Sized>(records: &mut R, out: &mut [u8]) -> usize {
    let mut window = Window::new(out);
    loop {
        let sent = records.cursor().sent;
        if sent.is_none() && !records.find() {
            break;
        }
        let sent = sent.unwrap_or(0);
        let sent = window.record(sent, |window| records.render(window));
        records.cursor().sent = sent;
        if sent.is_some() {
            break;
        }
        records.cursor().index += 1;
    }
    window.filled()
}
