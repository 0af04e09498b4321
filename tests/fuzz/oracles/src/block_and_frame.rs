//! What is read back from disk: frame headers, states, payloads, the records in a block. Arbitrary bytes are refused or
//! read, never a panic and never an allocation out of proportion; what is valid comes back the same; a flipped bit is
//! noticed.

use std::io::Read;

use arbitrary::{Result, Unstructured};
use flate2::read::DeflateDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use outlast::encode::{Otlp, WireFormat};
use outlast::queue::fuzzing::FrameHeader;
use outlast::queue::{Deflater, HEADER_BYTES, State, inflate};
use prost::Message;

/// Length of a slot.
const SLOT_BYTES: usize = 1024;
/// An empty final deflate block (RFC 1951, 3.2.6), which ends what a payload leaves open.
const FINAL_BLOCK: [u8; 2] = [3, 0];

/// Checks one input. Its first byte says what the rest is.
pub fn check(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // The end of the input is no finding.
    let checked = match input.arbitrary::<u8>().unwrap_or_default() % 6 {
        0 => header(&mut input),
        1 => state(&mut input),
        2 => payload(&mut input),
        3 => deflated(&mut input),
        4 => records(&mut input),
        _ => {
            stored_message(crate::rest(&mut input));
            Ok(())
        }
    };
    checked.unwrap_or_default();
}

/// Ends `bytes` in the CRC-32 of what is before.
fn seal(bytes: &mut [u8]) {
    let at = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..at]);
    bytes[at..].copy_from_slice(&crc.to_le_bytes());
}

fn header(input: &mut Unstructured<'_>) -> Result<()> {
    let sealed = input.arbitrary()?;
    let flip = usize::from(input.arbitrary::<u16>()?) % (HEADER_BYTES * 8);
    let mut bytes = [0; HEADER_BYTES];
    input.fill_buffer(&mut bytes)?;
    if sealed {
        bytes[..4].copy_from_slice(b"oLf1");
        seal(&mut bytes);
    }
    let Some(header) = FrameHeader::decode(&bytes) else { return Ok(()) };
    let stored_len = u32::from_le_bytes(bytes[48..52].try_into().expect("four bytes"));
    assert_eq!(header.frame_len(), HEADER_BYTES as u64 + u64::from(stored_len));
    let encoded = header.encode();
    assert_eq!(FrameHeader::decode(&encoded), Some(header));
    // The byte that has no meaning, and the word that not every kind has, may differ; so may the CRC over them.
    assert_eq!(encoded[..7], bytes[..7]);
    assert_eq!(encoded[8..84], bytes[8..84]);
    let mut damaged = bytes;
    damaged[flip / 8] ^= 1 << (flip % 8);
    assert_eq!(FrameHeader::decode(&damaged), None, "bit {flip} was not missed");
    Ok(())
}

fn state(input: &mut Unstructured<'_>) -> Result<()> {
    let (sealed, segment, flip): (bool, u32, u16) = input.arbitrary()?;
    let flip = usize::from(flip) % (SLOT_BYTES * 8);
    let rest = crate::rest(input);
    // A slot that is cut off.
    let _ = State::decode(rest, segment);
    let mut slot = [0; SLOT_BYTES];
    let len = rest.len().min(SLOT_BYTES);
    slot[..len].copy_from_slice(&rest[..len]);
    if sealed {
        slot[..8].copy_from_slice(b"outlast1");
        slot[8..12].copy_from_slice(&segment.to_le_bytes());
        seal(&mut slot);
    }
    let Some(state) = State::decode(&slot, segment) else { return Ok(()) };
    assert_eq!(State::decode(&state.encode(segment), segment), Some(state));
    assert_eq!(state.encode(segment).len(), SLOT_BYTES);
    assert_eq!(State::decode(&state.encode(segment), !segment), None, "a state of another segment");
    slot[flip / 8] ^= 1 << (flip % 8);
    assert_eq!(State::decode(&slot, segment), None, "bit {flip} was not missed");
    Ok(())
}

/// What another inflater makes of a payload, up to a length or to where it makes no sense.
fn inflated(payload: &[u8], len: u64) -> Vec<u8> {
    let whole = [payload, &FINAL_BLOCK].concat();
    let mut plain = Vec::new();
    // What came before an error is kept.
    drop(DeflateDecoder::new(&whole[..]).take(len + 1).read_to_end(&mut plain));
    plain
}

/// Arbitrary payloads under arbitrary claims.
fn payload(input: &mut Unstructured<'_>) -> Result<()> {
    let claim: u32 = input.arbitrary()?;
    let payload = crate::rest(input);
    let plain = inflated(payload, 1 << 20);
    for len in [claim, plain.len() as u32] {
        let crc = crc32fast::hash(plain.get(..len as usize).unwrap_or(&plain));
        if let Ok(found) = inflate(payload, len, crc) {
            assert_eq!(found.len(), len as usize);
            assert_eq!(crc32fast::hash(&found), crc);
            assert!(plain.starts_with(&found));
        }
    }
    Ok(())
}

/// What was deflated comes back; damaged, it is refused or no different.
fn deflated(input: &mut Unstructured<'_>) -> Result<()> {
    let (flip, often): (u16, u8) = input.arbitrary()?;
    let plain = crate::rest(input).repeat(usize::from(often) + 1);
    let mut payload = Deflater::default().deflate(&plain).expect("deflated");
    let (len, crc) = (plain.len() as u32, crc32fast::hash(&plain));
    assert!(inflate(&payload, len, crc).expect("our own") == plain);
    assert!(inflated(&payload, plain.len() as u64) == plain);
    assert!(inflate(&payload, len + 1, crc).is_err());
    assert!(inflate(&payload, len.wrapping_sub(1), crc).is_err());
    assert!(inflate(&payload, len, !crc).is_err());
    let flip = usize::from(flip) % (payload.len() * 8);
    payload[flip / 8] ^= 1 << (flip % 8);
    assert!(
        inflate(&payload, len, crc).is_ok_and(|found| found == plain) || inflate(&payload, len, crc).is_err()
    );
    Ok(())
}

/// The records of an arbitrary block: they tile it, and each can go alone.
fn records(input: &mut Unstructured<'_>) -> Result<()> {
    let (from, to): (u8, u8) = input.arbitrary()?;
    let block = crate::rest(input);
    let Ok(parts) = Otlp.parts(block) else { return Ok(()) };
    let mut at = parts.head.end;
    assert_eq!(parts.head.start, 0);
    for record in &parts.records {
        assert_eq!(record.start, at);
        at = record.end;
    }
    assert_eq!(at, block.len());
    let count = parts.records.len();
    if let Ok(decoded) = ExportLogsServiceRequest::decode(block) {
        assert_eq!(crate::otlp::log_records(block).len(), count, "{decoded:?}");
        let range = usize::from(from) % (count + 1)..usize::from(to);
        let subset = Otlp.subset(block, &parts, range.clone());
        let expected = range.end.min(count).saturating_sub(range.start);
        assert_eq!(crate::otlp::log_records(&subset).len(), expected);
        assert_eq!(Otlp.parts(&subset).expect("valid on its own").records.len(), expected);
    }
    Ok(())
}

/// A block as another's encoder writes it, if the bytes are a message at all.
fn stored_message(message: &[u8]) {
    let Ok(mut request) = ExportLogsServiceRequest::decode(message) else { return };
    request.resource_logs.truncate(1);
    for logs in &mut request.resource_logs {
        logs.resource.get_or_insert_default();
        logs.schema_url.clear();
        logs.scope_logs.truncate(1);
        for scope in &mut logs.scope_logs {
            scope.scope.get_or_insert_default();
            scope.schema_url.clear();
        }
    }
    let count =
        request.resource_logs.iter().flat_map(|logs| &logs.scope_logs).map(|s| s.log_records.len()).sum();
    let whole = request.resource_logs.first().is_some_and(|logs| !logs.scope_logs.is_empty());
    if whole {
        let block = request.encode_to_vec();
        assert_eq!(Otlp.parts(&block).map(|parts| parts.records.len()), Ok(count));
    }
}
