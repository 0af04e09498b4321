//! A frame: one block in a segment file, with a header that says all there is to know about it.
//!
//! ```text
//!  offset  bytes  field
//!       0      4  magic "oLf1"
//!       4      1  kind: 1 block, 2 fragment, 3 report, 4 carry, 5 shed or classes
//!       5      1  signal
//!       6      1  wire format of the payload
//!       7      1  severity of the gravest record (OpenTelemetry's number); 0 if unknown. In the upper three bits the
//!                 lowest class of severity plus one, where there are several (`classes.rs`)
//!       8      8  sequence number: segment number << 32 | ordinal in the segment
//!      16     16  hash of the delivery the records came in
//!      32      2  this frame's place among the frames of its delivery
//!      34      2  how many frames the delivery has
//!      36      4  events of the delivery that this signal's frames cover up to and with this one
//!      40      4  records
//!      44      4  plain length
//!      48      4  stored length
//!      52      4  CRC-32 of the plain bytes (gzip needs it, and it is combined, never computed again)
//!      56      4  CRC-32 of the stored bytes
//!      60      8  earliest record time, Unix ns
//!      68      8  latest record time, Unix ns
//!      76      8  time of receipt, Unix ns
//!      84      8  fragment: 0; block: sequence number of the fragment that its delivery completes, or 0;
//!                 report: signal, reason, and how many records it speaks of; shed: 0; classes: 1
//!      92      4  CRC-32 of the 92 bytes before
//! ```
//! All numbers are little-endian. The payload follows: deflate without a final block, ended on a byte. That of a
//! carry, which is never sent, is stored as it is. A frame that was shed, or was done when its neighbours were, is a
//! header without a payload.

use super::bytes::{Fields, crc32};
use super::ledger::Tally;
use crate::Signal;

/// Length of a frame's header in bytes.
pub const HEADER_BYTES: usize = 96;
const CRC_OFFSET_BYTES: usize = HEADER_BYTES - 4;
/// The first bytes of every frame. The last one is the version of the frame format.
pub(super) const MAGIC: [u8; 4] = *b"oLf1";

/// The word for the kind that tells classes from what was shed: an earlier version takes them for that, and steps over them.
const CLASSES: u64 = 1;

/// Whether `bytes` begin a frame of a later version of the format.
pub(super) fn is_newer(bytes: &[u8]) -> bool {
    let (name, version) = MAGIC.split_at(MAGIC.len() - 1);
    bytes
        .strip_prefix(name)
        .and_then(<[u8]>::first)
        .is_some_and(|found| found > version.first().unwrap_or(found))
}

/// A frame's place in the queue: grows with every frame, across restarts.
///
/// The upper half is the number of the segment, the lower half the ordinal in it, so that the next number
/// is known at start without reading what is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The sequence number of frame `ordinal` of segment `segment`.
    pub fn new(segment: u32, ordinal: u32) -> Self {
        Self(u64::from(segment) << 32 | u64::from(ordinal))
    }

    /// The number of the segment that holds the frame.
    pub fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The frame's place in its segment, from 0.
    pub fn ordinal(self) -> u32 {
        self.0 as u32
    }
}

/// What a frame's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Records of one signal. `joins` names the fragment that its delivery completed.
    Block {
        /// The fragment that becomes needless once this delivery is whole.
        joins: Option<Seq>,
    },
    /// The first part of a record that Lambda cut (a request body that is not JSON yet).
    Fragment,
    /// A log record of ours that tells how many records were dropped.
    Report(Tally),
    /// What the maker of the records has to remember, as of the end of its delivery. Only the newest one counts; it is
    /// never sent. See [`Queue::carry`](super::Queue::carry).
    Carry,
    /// What is left of a frame of a segment that was written anew by `shed`: it says which delivery it came in.
    Shed,
    /// Of which class of severity each record of the block before it is. It is never sent.
    Classes,
}

impl Kind {
    /// Whether it waits to be sent.
    pub(super) fn is_sent(self) -> bool {
        matches!(self, Self::Block { .. } | Self::Report(_))
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// What the payload is.
    pub kind: Kind,
    /// The signal whose order the frame keeps.
    pub signal: Signal,
    /// The wire format of the payload (`WireFormat::id`).
    pub format: u8,
    /// Severity of the gravest record, 0 if unknown, and the lowest class of all.
    pub severity: u8,
    /// Place in the queue.
    pub seq: Seq,
    /// Hash of the request body that brought the records.
    pub delivery: u128,
    /// This frame's place among its delivery's frames, from 0.
    pub part: u16,
    /// How many frames the delivery has.
    pub parts: u16,
    /// How many of the delivery's events this signal's frames cover, up to and with this one.
    pub events_end: u32,
    /// Records in the payload.
    pub records: u32,
    /// Length of the payload once inflated, in bytes.
    pub plain_len: u32,
    /// Length of the payload as stored, in bytes.
    pub stored_len: u32,
    /// CRC-32 of the inflated payload.
    pub plain_crc: u32,
    /// CRC-32 of the stored payload.
    pub stored_crc: u32,
    /// Earliest and latest record time, Unix nanoseconds.
    pub times: (u64, u64),
    /// When the delivery came, Unix nanoseconds.
    pub received: u64,
}

impl Header {
    /// The header's bytes, ending in their CRC.
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let (kind, extra) = match self.kind {
            Kind::Block { joins } => (1u8, joins.map_or(0, |seq| seq.0)),
            Kind::Fragment => (2, 0),
            Kind::Report(tally) => (3, tally.pack()),
            Kind::Carry => (4, 0),
            Kind::Shed => (5, 0),
            Kind::Classes => (5, CLASSES),
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[kind, self.signal.index() as u8, self.format, self.severity]);
        bytes.extend_from_slice(&self.seq.0.to_le_bytes());
        bytes.extend_from_slice(&self.delivery.to_le_bytes());
        bytes.extend_from_slice(&self.part.to_le_bytes());
        bytes.extend_from_slice(&self.parts.to_le_bytes());
        for word in
            [self.events_end, self.records, self.plain_len, self.stored_len, self.plain_crc, self.stored_crc]
        {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.times.0, self.times.1, self.received, extra] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let crc = crc32(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let mut header = [0; HEADER_BYTES];
        for (to, from) in header.iter_mut().zip(bytes) {
            *to = from;
        }
        header
    }

    /// Reads a header; `None` if its magic, its CRC or one of its fields is wrong.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        if fields.array()? != MAGIC {
            return None;
        }
        let (body, crc) = bytes.split_at_checked(CRC_OFFSET_BYTES)?;
        if Fields::new(crc).u32()? != crc32(body) {
            return None;
        }
        let (kind, signal, format, severity) = (fields.u8()?, fields.u8()?, fields.u8()?, fields.u8()?);
        let seq = Seq(fields.u64()?);
        let delivery = fields.u128()?;
        let (part, parts) = (fields.u16()?, fields.u16()?);
        let events_end = fields.u32()?;
        let records = fields.u32()?;
        let (plain_len, stored_len) = (fields.u32()?, fields.u32()?);
        let (plain_crc, stored_crc) = (fields.u32()?, fields.u32()?);
        let times = (fields.u64()?, fields.u64()?);
        let received = fields.u64()?;
        let extra = fields.u64()?;
        let kind = match kind {
            1 => Kind::Block { joins: (extra != 0).then_some(Seq(extra)) },
            2 => Kind::Fragment,
            3 => Kind::Report(Tally::unpack(extra)?),
            4 => Kind::Carry,
            5 if extra == CLASSES => Kind::Classes,
            5 => Kind::Shed,
            _ => return None,
        };
        Some(Self {
            kind,
            signal: Signal::from_byte(signal)?,
            format,
            severity,
            seq,
            delivery,
            part,
            parts,
            events_end,
            records,
            plain_len,
            stored_len,
            plain_crc,
            stored_crc,
            times,
            received,
        })
    }

    /// Length of the whole frame, header and payload, in bytes.
    pub(super) fn frame_len(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.stored_len)
    }

    /// Records of the user's that are lost if this frame is: a report of ours is not one of them.
    pub(super) fn user_records(&self) -> u64 {
        match self.kind {
            Kind::Block { .. } => u64::from(self.records),
            Kind::Fragment => 1,
            Kind::Report(_) | Kind::Carry | Kind::Shed | Kind::Classes => 0,
        }
    }
}

/// Used by tests of several modules.
#[cfg(test)]
pub(super) fn sample(seq: Seq) -> Header {
    Header {
        kind: Kind::Block { joins: None },
        signal: Signal::Logs,
        format: 1,
        severity: 9,
        seq,
        delivery: 7,
        part: 0,
        parts: 1,
        events_end: 3,
        records: 3,
        plain_len: 100,
        stored_len: 40,
        plain_crc: 1,
        stored_crc: 2,
        times: (10, 20),
        received: 30,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Reason;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_survives_the_disk(seq: u64, delivery: u128, part: u16, words: [u32; 6], longs: [u64; 3],
                                      kind in 0u8..6, signal in 0u8..3, count in 0u64..1 << 40) {
            let kind = match kind {
                0 => Kind::Block { joins: (longs[0] != 0).then_some(Seq(longs[0])) },
                1 => Kind::Fragment,
                2 => Kind::Carry,
                3 => Kind::Shed,
                4 => Kind::Classes,
                _ => Kind::Report(Tally { signal: Signal::Traces, reason: Reason::Overflow, records: count }),
            };
            let header = Header {
                kind, signal: Signal::from_byte(signal).unwrap(), format: 9, severity: part as u8, seq: Seq(seq), delivery, part, parts: part,
                events_end: words[0], records: words[1], plain_len: words[2], stored_len: words[3],
                plain_crc: words[4], stored_crc: words[5], times: (longs[0], longs[1]), received: longs[2],
            };
            prop_assert_eq!(Header::decode(&header.encode()), Some(header));
        }

        #[test]
        fn any_flipped_bit_is_noticed(byte in 0usize..HEADER_BYTES, bit in 0u8..8) {
            let mut bytes = sample(Seq::new(3, 4)).encode();
            bytes[byte] ^= 1 << bit;
            prop_assert_eq!(Header::decode(&bytes), None);
        }
    }

    #[test]
    fn sequence_numbers_order_by_segment_then_place() {
        assert!(Seq::new(1, u32::MAX) < Seq::new(2, 0));
        assert_eq!((Seq::new(7, 9).segment(), Seq::new(7, 9).ordinal()), (7, 9));
    }
}
