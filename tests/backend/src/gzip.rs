//! gzip (RFC 1952), read strictly: exactly one member, its deflate stream ended by a block flagged as
//! final, CRC-32 and length right, and not one byte after the trailer.
//!
//! Lenient readers forgive all of that, and so hide what a stricter receiver would refuse: Go's reader,
//! for instance, goes on to a second member, others stop at the first and drop the rest unnoticed.

use flate2::{Crc, Decompress, FlushDecompress, Status};

const MAGIC: [u8; 2] = [0x1f, 0x8b];
const METHOD_DEFLATE: u8 = 8;
const FLAG_HEADER_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;
const FLAGS_RESERVED: u8 = 0b1110_0000;
/// Room added to the output whenever it is full: large enough that a body of a few MiB needs few rounds.
const OUTPUT_STEP_BYTES: usize = 256 * 1024;
/// What one body may inflate to. A test sends at most some hundred MiB; more than this is a bomb or a bug.
const PLAIN_MAX_BYTES: usize = 1024 * 1024 * 1024;

/// Why a body is not one good gzip member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GzipError {
    /// The body ends inside the header.
    #[error("gzip header cut short")]
    HeaderCut,
    /// The first two bytes are not 1f 8b.
    #[error("not gzip: starts with {0:02x?}")]
    Magic([u8; 2]),
    /// The compression method is not 8.
    #[error("gzip method {0} is not deflate")]
    Method(u8),
    /// A reserved flag bit is set; RFC 1952 says a reader must then give up.
    #[error("reserved gzip flags set: {0:#010b}")]
    Flags(u8),
    /// The header's own checksum is wrong.
    #[error("gzip header checksum is {found:#06x}, computed {computed:#06x}")]
    HeaderCrc {
        /// As the header says.
        found: u16,
        /// As the header's bytes give.
        computed: u16,
    },
    /// The deflate stream is damaged.
    #[error("damaged deflate stream at byte {at} of it: {reason}")]
    Deflate {
        /// Compressed bytes read before the damage was seen.
        at: u64,
        /// What the inflater says.
        reason: String,
    },
    /// The body ended before a block flagged as final.
    #[error("the deflate stream has no final block")]
    NoFinalBlock,
    /// Fewer than eight bytes follow the deflate stream.
    #[error("gzip trailer cut short: {0} of 8 bytes")]
    TrailerCut(usize),
    /// The plain bytes have another CRC-32.
    #[error("gzip CRC-32 is {found:#010x}, computed {computed:#010x}")]
    Crc {
        /// As the trailer says.
        found: u32,
        /// As the plain bytes give.
        computed: u32,
    },
    /// The plain bytes have another length (modulo 2^32).
    #[error("gzip length is {found}, inflated {computed} bytes")]
    Length {
        /// As the trailer says.
        found: u32,
        /// As inflated.
        computed: u32,
    },
    /// A second member follows the first.
    #[error("a second gzip member follows the first ({0} bytes)")]
    SecondMember(usize),
    /// Something follows the trailer.
    #[error("{0} bytes follow the gzip trailer")]
    Trailing(usize),
    /// More plain bytes than this receiver takes.
    #[error("inflates to more than {PLAIN_MAX_BYTES} bytes")]
    TooLong,
}

/// Inflates a body that must be exactly one gzip member.
///
/// # Errors
/// The first departure from RFC 1952, as [`GzipError`].
pub fn decode(body: &[u8]) -> Result<Vec<u8>, GzipError> {
    let deflated = skip_header(body)?;
    let (plain, rest) = inflate(deflated)?;
    let cut = || GzipError::TrailerCut(rest.len());
    let (found_crc, after) = rest.split_first_chunk().ok_or_else(cut)?;
    let (found_length, after) = after.split_first_chunk().ok_or_else(cut)?;
    let (found_crc, found_length) = (u32::from_le_bytes(*found_crc), u32::from_le_bytes(*found_length));
    let mut crc = Crc::new();
    crc.update(&plain);
    if crc.sum() != found_crc {
        return Err(GzipError::Crc { found: found_crc, computed: crc.sum() });
    }
    let computed = plain.len() as u32; // ISIZE is the length modulo 2^32 by definition
    if computed != found_length {
        return Err(GzipError::Length { found: found_length, computed });
    }
    match after {
        [] => Ok(plain),
        [first, second, ..] if [*first, *second] == MAGIC => Err(GzipError::SecondMember(after.len())),
        _ => Err(GzipError::Trailing(after.len())),
    }
}

/// The bytes after the header, RFC 1952 2.3.
fn skip_header(body: &[u8]) -> Result<&[u8], GzipError> {
    let (fixed, mut rest) = body.split_at_checked(10).ok_or(GzipError::HeaderCut)?;
    let &[id1, id2, method, flags, ..] = fixed else { return Err(GzipError::HeaderCut) };
    if [id1, id2] != MAGIC {
        return Err(GzipError::Magic([id1, id2]));
    }
    if method != METHOD_DEFLATE {
        return Err(GzipError::Method(method));
    }
    if flags & FLAGS_RESERVED != 0 {
        return Err(GzipError::Flags(flags));
    }
    if flags & FLAG_EXTRA != 0 {
        let (length, after) = split_u16(rest)?;
        rest = after.get(usize::from(length)..).ok_or(GzipError::HeaderCut)?;
    }
    for flag in [FLAG_NAME, FLAG_COMMENT] {
        if flags & flag != 0 {
            let end = rest.iter().position(|byte| *byte == 0).ok_or(GzipError::HeaderCut)?;
            rest = rest.get(end + 1..).ok_or(GzipError::HeaderCut)?;
        }
    }
    if flags & FLAG_HEADER_CRC != 0 {
        let mut crc = Crc::new();
        crc.update(body.get(..body.len() - rest.len()).unwrap_or_default());
        let computed = (crc.sum() & 0xffff) as u16;
        let (found, after) = split_u16(rest)?;
        if found != computed {
            return Err(GzipError::HeaderCrc { found, computed });
        }
        rest = after;
    }
    Ok(rest)
}

fn split_u16(bytes: &[u8]) -> Result<(u16, &[u8]), GzipError> {
    let (value, rest) = bytes.split_first_chunk().ok_or(GzipError::HeaderCut)?;
    Ok((u16::from_le_bytes(*value), rest))
}

/// Inflates up to the end of the final block; gives the plain bytes and what follows that block.
fn inflate(deflated: &[u8]) -> Result<(Vec<u8>, &[u8]), GzipError> {
    let mut inflater = Decompress::new(false);
    let mut plain = Vec::with_capacity(OUTPUT_STEP_BYTES.min(deflated.len().saturating_mul(8)));
    loop {
        let read = inflater.total_in();
        let input = usize::try_from(read).ok().and_then(|read| deflated.get(read..)).unwrap_or_default();
        if plain.len() == plain.capacity() {
            plain.reserve(OUTPUT_STEP_BYTES.max(plain.len()));
        }
        let written = inflater.total_out();
        let status = inflater
            .decompress_vec(input, &mut plain, FlushDecompress::None)
            .map_err(|error| GzipError::Deflate { at: inflater.total_in(), reason: error.to_string() })?;
        if status == Status::StreamEnd {
            let end = usize::try_from(inflater.total_in()).unwrap_or(usize::MAX);
            return Ok((plain, deflated.get(end..).unwrap_or_default()));
        }
        if plain.len() > PLAIN_MAX_BYTES {
            return Err(GzipError::TooLong);
        }
        // Room was left and nothing moved: the input is used up, and no block said it was the last.
        let stuck = inflater.total_in() == read && inflater.total_out() == written;
        if stuck && plain.len() < plain.capacity() {
            return Err(GzipError::NoFinalBlock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compress, Compression, FlushCompress, GzBuilder, write::GzEncoder};
    use std::io::Write;

    fn member(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn one_member_of_any_size_is_read_back() {
        for size in [0, 1, 1000, OUTPUT_STEP_BYTES, 3 * OUTPUT_STEP_BYTES + 7] {
            let plain: Vec<u8> = (0..size).map(|i| (i * i % 251) as u8).collect();
            assert_eq!(decode(&member(&plain)).unwrap(), plain, "{size} bytes");
        }
    }

    #[test]
    fn optional_header_fields_are_skipped() {
        let mut encoder = GzBuilder::new()
            .extra(vec![1, 2, 3])
            .filename("name")
            .comment("note")
            .write(Vec::new(), Compression::fast());
        encoder.write_all(b"text").unwrap();
        assert_eq!(decode(&encoder.finish().unwrap()).unwrap(), b"text");
    }

    #[test]
    fn a_member_of_stored_and_sync_flushed_blocks_is_one_member() {
        let mut body = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
        body.extend([0, 2, 0, !2, 0xff, b'a', b'b']); // a stored block, not the last
        let mut deflater = Compress::new(Compression::fast(), false);
        let mut part = Vec::with_capacity(100);
        deflater.compress_vec(b"cd", &mut part, FlushCompress::Sync).unwrap();
        body.extend(&part);
        body.extend([3, 0]); // an empty final block
        let mut crc = Crc::new();
        crc.update(b"abcd");
        body.extend(crc.sum().to_le_bytes());
        body.extend(4_u32.to_le_bytes());
        assert_eq!(decode(&body).unwrap(), b"abcd");
    }

    #[test]
    fn a_second_member_is_refused() {
        let mut body = member(b"one");
        body.extend(member(b"two"));
        assert!(matches!(decode(&body), Err(GzipError::SecondMember(_))));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut body = member(b"one");
        body.push(0);
        assert_eq!(decode(&body), Err(GzipError::Trailing(1)));
    }

    #[test]
    fn a_wrong_checksum_and_a_wrong_length_are_told_apart() {
        let good = member(b"some text");
        let mut bad = good.clone();
        let crc_at = bad.len() - 8;
        bad[crc_at] ^= 1;
        assert!(matches!(decode(&bad), Err(GzipError::Crc { .. })));
        let mut bad = good;
        let length_at = bad.len() - 4;
        bad[length_at] ^= 1;
        assert_eq!(decode(&bad), Err(GzipError::Length { found: 8, computed: 9 }));
    }

    #[test]
    fn a_stream_without_a_final_block_is_refused() {
        let mut body = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
        let mut deflater = Compress::new(Compression::fast(), false);
        let mut part = Vec::with_capacity(100);
        deflater.compress_vec(b"text", &mut part, FlushCompress::Sync).unwrap();
        body.extend(&part);
        assert_eq!(decode(&body), Err(GzipError::NoFinalBlock));
    }

    #[test]
    fn every_cut_of_a_member_is_refused() {
        let body = member(b"some text that is long enough to matter");
        for end in 0..body.len() {
            assert!(decode(&body[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn what_is_not_gzip_says_so() {
        assert_eq!(decode(b"plain text here"), Err(GzipError::Magic(*b"pl")));
        assert_eq!(decode(&[0x1f, 0x8b, 7, 0, 0, 0, 0, 0, 0, 0]), Err(GzipError::Method(7)));
        assert!(matches!(decode(&[0x1f, 0x8b, 8, 0x80, 0, 0, 0, 0, 0, 0]), Err(GzipError::Flags(_))));
        let mut bad = member(b"text");
        bad[10] = 0b111; // a block of the reserved type
        assert!(matches!(decode(&bad), Err(GzipError::Deflate { .. })));
    }
}
