//! A slow dependency: a notary, who puts the digests of documents on record, one at a time.
//!
//! It stands for a disk, a database or another service. There is one line to it, so who wants it waits for the line, and
//! then for the answer.

#![forbid(unsafe_code)]

use core::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, mpsc, oneshot};

/// How long the notary takes.
const DELAY: Duration = Duration::from_millis(2);

/// The line to the notary.
#[derive(Debug)]
pub(crate) struct Line {
    /// Locked until the answer is there.
    notary: Mutex<mpsc::Sender<Entry>>,
}

/// What goes on record, and where its receipt goes.
#[derive(Debug)]
pub(crate) struct Entry {
    digest: [u8; 32],
    receipt: oneshot::Sender<[u8; 32]>,
}

impl Line {
    /// A line, and the notary's end of it, for [`keep_records`].
    pub(crate) fn new() -> (Self, mpsc::Receiver<Entry>) {
        let (sender, receiver) = mpsc::channel(1);
        let notary = Mutex::new(sender);
        (Self { notary }, receiver)
    }

    /// Has a digest put on record: the receipt. None if the notary is gone.
    pub(crate) async fn register(&self, digest: [u8; 32]) -> Option<[u8; 32]> {
        let (receipt, answer) = oneshot::channel();
        let notary = self.notary.lock().await;
        notary.send(Entry { digest, receipt }).await.ok()?;
        answer.await.ok()
    }
}

/// The notary, until nobody has a line to it any more. A receipt stands for all that is on record so far.
pub(crate) async fn keep_records(mut line: mpsc::Receiver<Entry>) {
    let mut records = Sha256::new();
    while let Some(entry) = line.recv().await {
        tokio::time::sleep(DELAY).await;
        records.update(entry.digest);
        // Who asked may be gone.
        let _ = entry.receipt.send(records.clone().finalize().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_stands_for_all_there_was() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (line, end) = Line::new();
            let notary = tokio::spawn(keep_records(end));
            let first = line.register([1; 32]).await.unwrap();
            assert_eq!(first[..], Sha256::digest([1; 32])[..]);
            let second = line.register([2; 32]).await.unwrap();
            assert_eq!(second[..], Sha256::digest([[1; 32], [2; 32]].concat())[..]);
            drop(line);
            notary.await.unwrap();
        });
    }
}
