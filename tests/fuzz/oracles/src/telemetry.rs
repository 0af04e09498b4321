//! Deliveries through all that the keeper does to them: split, join, parse, encode, deflate, append, assemble.
//!
//! The input is the body of a delivery. `0xfe` in it, which is in no JSON, ends one body and begins the next; what
//! follows the last `0xff` says where the first body is cut, as Lambda cuts records that are too large.

use std::collections::HashSet;

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use outlast::Signal;
use outlast::keeper::fuzzing::Keeping;
use outlast::listen::Receipt;
use outlast::queue::{Encoding, Limits, Overflow, Queue, Reason};
use outlast::record::log::{CUT, UID};
use outlast::record::{Piece, Split, salvage, split};
use serde_json::value::RawValue;

use crate::memory::{MemoryDisk, directory};
use crate::{json, mapped, otlp};

/// What stands between events and around them, and is no part of any: white space, and the array's own.
const FRAMING: &[u8] = b" \t\n\r\x0c,[]\xef\xbb\xbf";
/// When every delivery comes: 2027-01-15, in nanoseconds. The wait for the rest of a record is then never over.
const RECEIVED_UNIX_NANOS: u64 = 1_800_000_000_000_000_000;
/// A body is cut into at most so many parts more.
const CUTS_MAX: usize = 3;

/// Checks one input.
pub fn check(data: &[u8]) {
    let (bodies, cuts) = match data.iter().rposition(|byte| *byte == 0xff) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    let bodies: Vec<&[u8]> = bodies.split(|byte| *byte == 0xfe).collect();
    for body in &bodies {
        nothing_is_left_out(body);
        alone(body);
    }
    in_parts(bodies[0], cuts);
    if bodies.len() > 1 {
        one_after_another(&bodies);
    }
}

struct Keeper(Keeping);

impl Keeper {
    fn new() -> Self {
        // The nonce of identities is all that is random.
        fastrand::seed(7);
        let limits = Limits::new(64 << 20, Overflow::DropOldest);
        let (queue, opened) = Queue::open(Box::new(MemoryDisk::default()), directory(), limits, 1);
        assert!(opened.problem.is_none());
        Self(Keeping::new(queue))
    }

    fn take(&mut self, body: &[u8]) -> Receipt {
        self.0.take(body, RECEIVED_UNIX_NANOS)
    }

    /// Everything that waits, as a backend reads it.
    fn drain(&mut self) -> Vec<LogRecord> {
        let mut records = Vec::new();
        while let Some(request) =
            self.0.queue().assemble(Signal::Logs, &outlast::encode::Otlp, Encoding::Gzip, 1 << 20, 64)
        {
            let arrived = otlp::log_records(&otlp::plain(&request));
            assert_eq!(arrived.len(), request.records as usize);
            records.extend(arrived);
            self.0.delivered(Signal::Logs, &request);
        }
        let mut uids = HashSet::new();
        for record in &records {
            mapped::sound(record);
            assert!(uids.insert(format!("{:?}", record.attributes[0].value)), "an identity twice");
        }
        records
    }

    fn finish(&mut self) -> Vec<LogRecord> {
        self.0.finish();
        self.drain()
    }

    fn unreadable(&mut self) -> u64 {
        self.0.queue().ledger().dropped_for(Signal::Logs, Reason::Unreadable)
    }
}

/// The pieces of a body hold all of its text, each byte once and in order. Where it is JSON they are its elements.
fn nothing_is_left_out(body: &[u8]) {
    let found = split(body);
    if let Some(elements) = json::elements(body) {
        let expected: Vec<&[u8]> = elements.iter().map(|raw| raw.get().as_bytes()).collect();
        assert_eq!(found, Split::Events(expected));
    }
    let (pieces, open) = match found {
        Split::Events(events) => (events.into_iter().map(Piece::Whole).collect(), false),
        Split::Cut(cut) => (cut.pieces, cut.open),
        Split::Unreadable => return,
    };
    let mut at = 0;
    let mut gaps = Vec::new();
    for piece in &pieces {
        let (Piece::Whole(text) | Piece::Fragment(text) | Piece::Opaque(text)) = piece;
        let start = text.as_ptr() as usize - body.as_ptr() as usize;
        assert!(start >= at, "out of order, or twice");
        gaps.extend_from_slice(&body[at..start]);
        at = start + text.len();
    }
    let end = body[at..].trim_ascii_end();
    gaps.extend_from_slice(if open {
        end.strip_suffix(b"}]").expect("the framing of a cut record")
    } else {
        end
    });
    assert!(gaps.iter().all(|byte| FRAMING.contains(byte)), "left out: {:?}", String::from_utf8_lossy(&gaps));
}

/// A delivery that nothing comes before or after.
fn alone(body: &[u8]) {
    let mut keeper = Keeper::new();
    let receipt = keeper.take(body);
    let mut records = keeper.drain();
    let waits = matches!(split(body), Split::Cut(cut) if cut.open);
    assert!(!waits || records.is_empty(), "half a record is kept for the other half");
    assert_eq!(keeper.take(body), Receipt::Repeated);
    assert_eq!(keeper.drain(), []);
    records.extend(keeper.finish());
    if split(body) == Split::Unreadable {
        assert_eq!((receipt, keeper.unreadable(), records.len()), (Receipt::Unreadable, 1, 0));
        return;
    }
    assert_eq!((receipt, keeper.unreadable()), (Receipt::Kept, 0));
    let pieces = salvage(body);
    assert_eq!(records.len(), pieces.len());
    let mut running = None;
    for (piece, record) in pieces.iter().zip(&records) {
        match piece {
            Piece::Whole(raw) => {
                invocation(raw, &mut running);
                mapped::check(raw, record, running.as_deref());
            }
            Piece::Opaque(raw) => panic!("nothing was there to be left unread: {raw:?}"),
            Piece::Fragment(raw) => {
                assert_eq!(otlp::text(record.body.as_ref()), Some(&*String::from_utf8_lossy(raw)));
                assert!(record.attributes.iter().any(|field| field.key == CUT));
            }
        }
    }
}

/// Which invocation runs, by what the platform says.
fn invocation(event: &[u8], running: &mut Option<String>) {
    use outlast::record::{Event, Fact};
    match Event::parse(event).fact() {
        Some(Fact::Start { request_id: Some(id) }) => *running = Some(id.into_owned()),
        Some(Fact::Report { .. } | Fact::InitStart(_) | Fact::RestoreStart(_)) => *running = None,
        _ => {}
    }
}

/// A body whose record Lambda cut gives what it would have given whole.
fn in_parts(body: &[u8], cuts: &[u8]) {
    let Some(parts) = cut(body, cuts) else { return };
    let mut whole = Keeper::new();
    assert_eq!(whole.take(body), Receipt::Kept);
    let mut joined = Keeper::new();
    for part in &parts {
        assert_eq!(joined.take(part), Receipt::Kept);
    }
    let (mut expected, mut found) = (whole.drain(), joined.drain());
    for record in expected.iter_mut().chain(&mut found) {
        let uid = record.attributes.remove(0);
        assert_eq!(uid.key, UID);
    }
    assert_eq!(found, expected);
    assert_eq!(joined.finish(), [], "something was left waiting");
}

/// Cuts one record of a body, as Lambda does: each part has the envelope and the closing brackets.
fn cut(body: &[u8], cuts: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (choice, places) = cuts.split_first()?;
    let elements = json::elements(body)?;
    let candidates: Vec<(&RawValue, &RawValue)> =
        elements.iter().filter_map(|element| Some((*element, record_of(body, element)?))).collect();
    let (element, record) = candidates.get(usize::from(*choice) % candidates.len().max(1))?;
    let offset = |raw: &RawValue| raw.get().as_ptr() as usize - body.as_ptr() as usize;
    let (start, end) = (offset(record), offset(record) + record.get().len());
    let mut at: Vec<usize> = places
        .chunks_exact(2)
        .take(CUTS_MAX)
        .map(|place| start + 1 + usize::from(u16::from_le_bytes([place[0], place[1]])) % (end - start - 1))
        .collect();
    at.sort_unstable();
    at.dedup();
    let (first, last) = (*at.first()?, *at.last()?);
    let envelope = &body[offset(element)..start];
    let mut parts = vec![[&body[..first], b"}]"].concat()];
    parts.extend(at.windows(2).map(|part| [b"[", envelope, &body[part[0]..part[1]], b"}]"].concat()));
    parts.push([b"[", envelope, &body[last..]].concat());
    // Parts that are the same are taken for repeats: nobody could tell.
    let different: HashSet<&Vec<u8>> = parts.iter().collect();
    (different.len() == parts.len()).then_some(parts)
}

/// The record of an event that can be cut so that everybody can tell: half a number is a number, and the text of an
/// envelope has no room for spaces before the record.
fn record_of<'a>(body: &[u8], element: &'a RawValue) -> Option<&'a RawValue> {
    let members = json::members(element)?;
    let mut records = members.iter().filter(|(name, _)| name == "record");
    let (_, record) = records.next()?;
    let at = record.get().as_ptr() as usize - body.as_ptr() as usize;
    let before = body[..at].strip_suffix(b"\"record\":")?;
    let plain = records.next().is_none() && !before.ends_with(b"\\");
    (plain && record.get().len() > 2 && record.get().starts_with(['"', '{', '['])).then_some(record)
}

/// Several deliveries, any of which may end what another began: no more comes out than stands in them.
fn one_after_another(bodies: &[&[u8]]) {
    let mut keeper = Keeper::new();
    let mut different = HashSet::new();
    let mut pieces = 0;
    for body in bodies {
        let receipt = keeper.take(body);
        let is_new = different.insert(*body);
        assert_eq!(receipt == Receipt::Repeated, !is_new, "{receipt:?}");
        assert_ne!(receipt, Receipt::Full);
        pieces += if is_new && receipt != Receipt::Unreadable { salvage(body).len() } else { 0 };
    }
    let records = keeper.finish();
    assert!(records.len() <= pieces, "{} records out of {pieces} pieces", records.len());
}
