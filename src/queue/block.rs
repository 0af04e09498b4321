//! Blocks: deflated once when they are made, joined into gzip requests without being touched again.
//!
//! A block's payload is raw deflate (RFC 1951) ended by a sync flush: it ends on a byte and has no final
//! block, so payloads follow one another in one deflate stream. A request is one gzip member (RFC 1952):
//! header, blocks with the framing's bytes between them as stored deflate blocks, an empty final block, the
//! CRC-32 combined from the blocks' own, and the total length.

use crc32fast::Hasher;
use flate2::{Compress, CompressError, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::hint::black_box;
use thiserror::Error;

/// RFC 1952: magic, deflate, no flags, no time, no hint, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty final block with fixed codes (RFC 1951, 3.2.6), padded to a byte.
const FINAL_BLOCK: [u8; 2] = [0x03, 0x00];
/// A stored deflate block carries at most this many bytes (RFC 1951, 3.2.4).
const STORED_MAX_BYTES: usize = 65_535;
/// What a sync flush ends with: an empty stored block (RFC 1951, 3.2.4).
const SYNC_MARKER: [u8; 4] = [0, 0, 0xff, 0xff];
/// Room for small blocks: the marker, the header of a block, and more than enough.
const ROOM_MIN_BYTES: usize = 1 << 10;
/// Room that is kept for the next block: that of the largest ordinary one (256 KiB plain). Only what is written to
/// takes memory.
const ROOM_KEPT_MAX_BYTES: usize = 320 << 10;
/// Deflate level. 1 is 9 times faster than 6 for a ratio of 4.3 instead of 5.6 (measured on log text), and
/// the CPU is the function's.
const LEVEL: u32 = 1;

type CompressInto = fn(&mut Compress, &[u8], &mut [u8], FlushCompress) -> Result<Status, CompressError>;

/// The compressor's entry. Called by its address, which is hidden from the optimiser: inlined here it would be built for
/// size, as our own code is.
const COMPRESS: CompressInto = Compress::compress;

/// Deflate makes at most so many bytes out of one: a match of 258 bytes takes two bits at least (RFC 1951, 3.2.5 and
/// 3.2.7).
const INFLATED_MAX_TIMES: usize = 1032;

/// Why a payload could not be inflated or deflated.
#[derive(Debug, Error)]
pub enum BlockError {
    /// The deflate stream is damaged, or not as long as its header says.
    #[error("the stored block does not inflate to what its header says")]
    Inflate,
    /// The compressor refused its input.
    #[error("the compressor failed")]
    Deflate,
}

/// Deflates blocks; its tables (about 300 KB) are allocated once.
#[derive(Debug)]
pub struct Deflater {
    compress: Compress,
    /// What the compressor writes to, larger than any payload. Cleared once, when it is made: what grows it, or
    /// `compress_vec`, would clear all of it for each small block, and have it in memory.
    room: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Self {
        Self { compress: Compress::new(Compression::new(LEVEL), false), room: Vec::new() }
    }
}

impl Deflater {
    /// Deflates `plain` into a payload that others may follow.
    ///
    /// # Errors
    /// [`BlockError::Deflate`] if the compressor does not take it all, which it never should.
    pub fn deflate(&mut self, plain: &[u8]) -> Result<Vec<u8>, BlockError> {
        self.compress.reset();
        // In one call, never in several: unlike zlib, miniz_oxide may leave room in its output while it still holds
        // input back, so after a call that filled the room nobody can tell when the flush is complete.
        let room_len = room_for(plain.len());
        if self.room.len() < room_len {
            self.room = vec![0; room_len];
        }
        black_box(COMPRESS)(&mut self.compress, plain, &mut self.room, FlushCompress::Sync)
            .map_err(|_| BlockError::Deflate)?;
        let written = usize::try_from(self.compress.total_out()).unwrap_or(usize::MAX);
        let payload = self.room.get(..written).filter(|payload| {
            self.compress.total_in() == plain.len() as u64
                && payload.len() < self.room.len()
                && payload.ends_with(&SYNC_MARKER)
        });
        let payload = payload.map(<[u8]>::to_vec).ok_or(BlockError::Deflate);
        if self.room.len() > ROOM_KEPT_MAX_BYTES {
            self.room = Vec::new();
        }
        payload
    }
}

/// More than a payload of `plain` bytes can take. What does not shrink is stored, at 5 bytes for each of the
/// compressor's blocks (31 KiB and more), or coded with fixed codes, at 9 bits for a byte (RFC 1951, 3.2.6).
fn room_for(plain: usize) -> usize {
    plain.saturating_add(plain / 8).saturating_add(ROOM_MIN_BYTES)
}

/// Inflates a payload that must yield exactly `plain_len` bytes with CRC-32 `plain_crc`.
///
/// # Errors
/// [`BlockError::Inflate`] if it does not.
pub fn inflate(payload: &[u8], plain_len: u32, plain_crc: u32) -> Result<Vec<u8>, BlockError> {
    let plain_len = plain_len as usize;
    // Room is made for what was promised, so a promise that cannot be kept must not be believed.
    if plain_len > payload.len().saturating_mul(INFLATED_MAX_TIMES) {
        return Err(BlockError::Inflate);
    }
    // One byte more than promised, so that a payload which yields too much is noticed.
    let mut plain = Vec::with_capacity(plain_len + 1);
    let mut state = Decompress::new(false);
    loop {
        let taken = usize::try_from(state.total_in()).map_err(|_| BlockError::Inflate)?;
        let rest = payload.get(taken..).ok_or(BlockError::Inflate)?;
        let before = (taken, plain.len());
        let status =
            state.decompress_vec(rest, &mut plain, FlushDecompress::Sync).map_err(|_| BlockError::Inflate)?;
        let now = (usize::try_from(state.total_in()).unwrap_or(usize::MAX), plain.len());
        if plain.len() > plain_len || status == Status::StreamEnd {
            return Err(BlockError::Inflate);
        }
        if now == before || now.0 == payload.len() && plain.len() == plain_len {
            break;
        }
    }
    if plain.len() == plain_len && crc32fast::hash(&plain) == plain_crc {
        Ok(plain)
    } else {
        Err(BlockError::Inflate)
    }
}

/// Joins payloads into one gzip member.
#[derive(Debug)]
pub struct GzipAssembler {
    out: Vec<u8>,
    crc: Hasher,
    plain_len: u64,
}

impl GzipAssembler {
    /// Starts a member; `expected` bytes of payload are to come.
    pub fn new(expected: usize) -> Self {
        let mut out = Vec::with_capacity(GZIP_HEADER.len() + expected + 64);
        out.extend_from_slice(&GZIP_HEADER);
        Self { out, crc: Hasher::new(), plain_len: 0 }
    }

    /// Appends bytes as they are (a framing's prefix, separator or suffix).
    pub fn stored(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(STORED_MAX_BYTES) {
            let len = chunk.len() as u16;
            self.out.push(0);
            self.out.extend_from_slice(&len.to_le_bytes());
            self.out.extend_from_slice(&(!len).to_le_bytes());
            self.out.extend_from_slice(chunk);
        }
        self.crc.update(bytes);
        self.plain_len += bytes.len() as u64;
    }

    /// Appends a payload that `fill` writes to the end of the buffer it is given. If `fill` fails the
    /// member is as it was before.
    ///
    /// # Errors
    /// Whatever `fill` returns.
    pub fn payload<E>(
        &mut self,
        plain_len: u32,
        plain_crc: u32,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.out.len();
        if let Err(error) = fill(&mut self.out) {
            self.out.truncate(before);
            return Err(error);
        }
        self.crc.combine(&Hasher::new_with_initial_len(plain_crc, u64::from(plain_len)));
        self.plain_len += u64::from(plain_len);
        Ok(())
    }

    /// Appends `separator` and behind it a payload, as [`GzipAssembler::payload`] does. If `fill` fails neither is there.
    ///
    /// # Errors
    /// Whatever `fill` returns.
    pub fn payload_behind<E>(
        &mut self,
        separator: &[u8],
        plain_len: u32,
        plain_crc: u32,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = (self.out.len(), self.crc.clone(), self.plain_len);
        self.stored(separator);
        self.payload(plain_len, plain_crc, fill).inspect_err(|_| {
            self.out.truncate(before.0);
            (self.crc, self.plain_len) = (before.1, before.2);
        })
    }

    /// Ends the member.
    pub fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(&FINAL_BLOCK);
        self.out.extend_from_slice(&self.crc.finalize().to_le_bytes());
        // RFC 1952: the length modulo 2^32.
        self.out.extend_from_slice(&(self.plain_len as u32).to_le_bytes());
        self.out
    }
}

/// One gzip member around `plain`, for bodies that are not assembled from stored blocks.
///
/// # Errors
/// [`BlockError::Deflate`] as [`Deflater::deflate`].
pub fn gzip(plain: &[u8]) -> Result<Vec<u8>, BlockError> {
    let payload = Deflater::default().deflate(plain)?;
    let mut member = GzipAssembler::new(payload.len());
    let plain_len = u32::try_from(plain.len()).map_err(|_| BlockError::Deflate)?;
    member.payload(plain_len, crc32fast::hash(plain), |out| {
        out.extend_from_slice(&payload);
        Ok(())
    })?;
    Ok(member.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::bufread::GzDecoder;
    use proptest::prelude::*;
    use std::io::Read;

    /// A strict receiver: exactly one member, nothing behind it.
    fn gunzip(bytes: &[u8]) -> Vec<u8> {
        let mut decoder = GzDecoder::new(bytes);
        let mut plain = Vec::new();
        decoder.read_to_end(&mut plain).unwrap();
        assert!(decoder.into_inner().is_empty(), "bytes behind the member");
        plain
    }

    #[test]
    fn a_length_that_no_payload_can_have_is_refused_before_room_is_made() {
        let plain = vec![b'a'; 1 << 20];
        let payload = Deflater::default().deflate(&plain).unwrap();
        let crc = crc32fast::hash(&plain);
        assert!(inflate(&payload, plain.len() as u32, crc).is_ok_and(|came| came == plain));
        // Room for 4 GiB would be more than a function has.
        for payload in [&payload[..], &[]] {
            assert!(inflate(payload, u32::MAX, crc).is_err());
        }
    }

    #[test]
    fn text_that_hardly_shrinks_comes_back_whole() {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut random = fastrand::Rng::with_seed(7);
        let mut deflater = Deflater::default();
        for line in [100, 500, 2000] {
            for len in (50_000..100_000).step_by(500) {
                let mut plain = Vec::with_capacity(len + line);
                while plain.len() < len {
                    plain.extend_from_slice(b"log.record.uid 4b142fc3-17b8-4cdb-a46b-a8dbe7918715 ");
                    plain.extend((0..line).map(|_| ALPHABET[random.usize(..64)]));
                }
                let payload = deflater.deflate(&plain).unwrap();
                let came = inflate(&payload, plain.len() as u32, crc32fast::hash(&plain));
                assert!(came.is_ok_and(|came| came == plain), "{line} {len}");
            }
        }
    }

    #[test]
    fn noise_of_any_length_has_room() {
        let mut random = fastrand::Rng::with_seed(8);
        let mut deflater = Deflater::default();
        let noise: Vec<u8> = (0..2 << 20).map(|_| random.u8(..)).collect();
        for len in (0..64).chain((64..300_000).step_by(7_919)).chain([1 << 20, 2 << 20]) {
            let payload = deflater.deflate(&noise[..len]).unwrap();
            assert_eq!(inflate(&payload, len as u32, crc32fast::hash(&noise[..len])).unwrap(), &noise[..len]);
        }
        assert!(deflater.room.capacity() <= ROOM_KEPT_MAX_BYTES, "a large block's room is given back");
    }

    proptest! {
        #[test]
        fn assembled_requests_are_ordinary_gzip(
            blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..8),
            prefix in proptest::collection::vec(any::<u8>(), 0..40),
            separator in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let mut deflater = Deflater::default();
            let mut member = GzipAssembler::new(0);
            member.stored(&prefix);
            let mut expected = prefix.clone();
            for (index, plain) in blocks.iter().enumerate() {
                if index > 0 {
                    member.stored(&separator);
                    expected.extend_from_slice(&separator);
                }
                let payload = deflater.deflate(plain).unwrap();
                let crc = crc32fast::hash(plain);
                prop_assert_eq!(&inflate(&payload, plain.len() as u32, crc).unwrap(), plain);
                member.payload(plain.len() as u32, crc, |out| { out.extend_from_slice(&payload); Ok::<(), ()>(()) }).unwrap();
                expected.extend_from_slice(plain);
            }
            prop_assert_eq!(gunzip(&member.finish()), expected);
        }

        #[test]
        fn inflating_anything_never_panics_and_never_yields_what_was_not_promised(
            bytes in proptest::collection::vec(any::<u8>(), 0..400), len in 0u32..2000, crc: u32,
        ) {
            if let Ok(plain) = inflate(&bytes, len, crc) {
                prop_assert_eq!(plain.len(), len as usize);
                prop_assert_eq!(crc32fast::hash(&plain), crc);
            }
        }
    }

    #[test]
    fn a_large_incompressible_block_survives() {
        let mut rng = fastrand::Rng::with_seed(1);
        let plain: Vec<u8> = (0..700_000).map(|_| rng.u8(..)).collect();
        let payload = Deflater::default().deflate(&plain).unwrap();
        assert_eq!(inflate(&payload, plain.len() as u32, crc32fast::hash(&plain)).unwrap(), plain);
        assert_eq!(gunzip(&gzip(&plain).unwrap()), plain);
    }

    #[test]
    fn a_framing_longer_than_a_stored_block_is_split() {
        let plain = vec![b'x'; STORED_MAX_BYTES * 2 + 5];
        let mut member = GzipAssembler::new(0);
        member.stored(&plain);
        assert_eq!(gunzip(&member.finish()), plain);
    }

    #[test]
    fn a_payload_of_another_length_or_content_is_refused() {
        let payload = Deflater::default().deflate(b"hello hello hello").unwrap();
        let crc = crc32fast::hash(b"hello hello hello");
        assert!(inflate(&payload, 16, crc).is_err());
        assert!(inflate(&payload, 18, crc).is_err());
        assert!(inflate(&payload, 17, crc ^ 1).is_err());
    }
}
