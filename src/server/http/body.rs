//! The bytes of a response, compressed while they are written, so that the uncompressed body never exists in full.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Below this, compression saves no packet.
const WORTHWHILE: usize = 1024;

/// Bytes that are compressed at a time.
const CHUNK: usize = 64 * 1024;

/// Collects a body.
pub(super) struct Body {
    /// What is not compressed, or not yet.
    plain: Vec<u8>,
    gzip: bool,
    packed: Option<GzEncoder<Vec<u8>>>,
}

impl Body {
    /// An empty body, to be compressed if the client can take it and it is worthwhile.
    pub(super) fn new(gzip: bool) -> Body {
        Body { plain: Vec::new(), gzip, packed: None }
    }

    /// The bytes, and whether they are compressed.
    ///
    /// # Errors
    /// Those of the compressor.
    pub(super) fn finish(mut self) -> io::Result<(Vec<u8>, bool)> {
        if self.packed.is_some() || self.plain.len() > WORTHWHILE {
            self.pack()?;
        }
        match self.packed {
            Some(encoder) => Ok((encoder.finish()?, true)),
            None => Ok((self.plain, false)),
        }
    }

    fn pack(&mut self) -> io::Result<()> {
        if self.gzip {
            // The fastest level: metrics repeat themselves so much that others gain little.
            let encoder = self.packed.get_or_insert_with(|| GzEncoder::new(Vec::new(), Compression::fast()));
            encoder.write_all(&self.plain)?;
            self.plain.clear();
        }
        Ok(())
    }
}

impl Write for Body {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.plain.extend_from_slice(bytes);
        if self.plain.len() >= CHUNK {
            self.pack()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn through(gzip: bool, text: &[u8]) -> (Vec<u8>, bool) {
        let mut body = Body::new(gzip);
        text.chunks(1000).for_each(|piece| body.write_all(piece).unwrap());
        body.finish().unwrap()
    }

    #[test]
    fn only_large_bodies_are_compressed_and_only_on_demand() {
        assert_eq!(through(true, &[b'x'; WORTHWHILE]), (vec![b'x'; WORTHWHILE], false));
        assert_eq!(through(false, &[b'x'; 3 * CHUNK]), (vec![b'x'; 3 * CHUNK], false));
        for size in [WORTHWHILE + 1, CHUNK, 3 * CHUNK + 17] {
            let text: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let (packed, compressed) = through(true, &text);
            let mut unpacked = Vec::new();
            GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
            assert!(compressed && packed.len() < size && unpacked == text, "{size}");
        }
    }
}
