//! gzip around a profile: profile.proto files are gzip streams.

#![forbid(unsafe_code)]

use core::fmt;
use std::io::{self, Read};

use flate2::Compression;
use flate2::read::GzEncoder;
use picoprof::encode::Body;

/// A body that is the gzip stream (RFC 1952) of another.
pub(crate) struct Gzip<B: Body> {
    encoder: GzEncoder<Reader<B>>,
}

impl<B: Body> Gzip<B> {
    pub(crate) fn new(body: B) -> Self {
        Self {
            encoder: GzEncoder::new(Reader(body), Compression::default()),
        }
    }
}

impl<B: Body> Body for Gzip<B> {
    fn fill(&mut self, out: &mut [u8]) -> usize {
        // Neither a body nor memory can fail to be read.
        self.encoder.read(out).unwrap_or(0)
    }
}

impl<B: Body> fmt::Debug for Gzip<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gzip").finish_non_exhaustive()
    }
}

struct Reader<B>(B);

impl<B: Body> Read for Reader<B> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        Ok(if out.is_empty() { 0 } else { self.0.fill(out) })
    }
}
