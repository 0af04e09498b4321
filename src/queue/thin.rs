//! Taking the least severe records out of a block: the one place besides refusals where what is stored is inflated and
//! deflated again.

use super::block::{Deflater, inflate};
use super::bytes::crc32;
use super::classes;
use super::frame::{Header, Kind};
use super::scan::{Position, Step, step};
use super::segments::Segments;
use super::store::headers_of;
use super::types::{Batch, NewBlock};
use crate::encode::Protocol;

/// Plain bytes that may be inflated to make room for a delivery, at the least: a busy machine takes some 100 ms for them, a
/// small function's environment a second or two. So much is needed if the lowest class is a fiftieth of all.
const FOR_A_DELIVERY_BYTES: u64 = 8 << 20;
/// The same for each byte of a delivery that is stored.
const FOR_A_STORED_BYTE: u64 = 16;
/// The same while a segment is written anew once, and the part of it that is to be freed by that, if there is so much: to
/// write a segment takes its time as well.
const FOR_A_SEGMENT_BYTES: u64 = 2 << 20;
const FREED_PARTS: u64 = 8;

/// How much is thinned while room is made for one delivery.
pub(super) struct Thinning {
    /// Plain bytes that may still be inflated in all, and for the segment at hand.
    left: u64,
    left_here: u64,
    /// Bytes that are needed, and that are to be freed in the segment at hand.
    needed: u64,
    enough: u64,
    /// Its tables are allocated once it is needed.
    deflater: Option<Deflater>,
}

impl Thinning {
    /// To make room for so many bytes.
    pub(super) fn for_room_of(needed: u64) -> Self {
        let left = FOR_A_DELIVERY_BYTES.max(needed.saturating_mul(FOR_A_STORED_BYTE));
        Self { left, left_here: 0, needed, enough: 0, deflater: None }
    }

    /// None at all.
    pub(super) fn never() -> Self {
        Self { left: 0, left_here: 0, needed: 0, enough: 0, deflater: None }
    }

    /// Whether blocks of several classes are more than their gravest record now.
    pub(super) fn is_allowed(&self) -> bool {
        self.left > 0
    }

    /// A segment of `len` bytes is next.
    pub(super) fn begin(&mut self, len: u64) {
        self.left_here = FOR_A_SEGMENT_BYTES.min(self.left);
        self.enough = self.needed.max(len / FREED_PARTS);
    }

    /// Whether one more block of it may be thinned, after `freed` bytes are free.
    pub(super) fn goes_on(&self, freed: u64) -> bool {
        self.left_here > 0 && !self.is_enough(freed)
    }

    /// Whether the segment at hand gives what it is to give, if `freed` bytes of it are free.
    pub(super) fn is_enough(&self, freed: u64) -> bool {
        freed >= self.enough
    }

    /// The block of `header` without its records of `class` and below. `None` if that cannot be, or is no gain: then it is
    /// one, as severe as its gravest record.
    pub(super) fn thin(
        &mut self,
        header: &Header,
        payload: &[u8],
        classes: &[u8],
        class: u8,
    ) -> Option<Thinned> {
        self.left = self.left.saturating_sub(u64::from(header.plain_len));
        self.left_here = self.left_here.saturating_sub(u64::from(header.plain_len));
        thinned(header, payload, classes, class, self.deflater.get_or_insert_default())
    }

    /// Divides `batch` into what goes of `class`, for the count, and what is left. A block that cannot be thinned counts as its
    /// gravest record from then on.
    pub(super) fn part(&mut self, batch: &Batch, class: u8) -> (Vec<NewBlock>, Vec<NewBlock>) {
        let (mut goes, mut stays) = (Vec::new(), Vec::new());
        let mut blocks = batch.blocks.iter().zip(headers_of(batch, 0, 0)).peekable();
        while let Some((block, header)) = blocks.next() {
            let behind = blocks.next_if(|(behind, _)| behind.kind == Kind::Classes).map(|(behind, _)| behind);
            let is_block = matches!(block.kind, Kind::Block { .. });
            if !is_block || classes::lowest(block.severity) != class {
                stays.push(block.clone());
                stays.extend(behind.cloned());
            } else if classes::gravest(block.severity) == class {
                goes.push(block.clone());
            } else {
                let known = behind.and_then(|behind| classes::decode(&behind.payload, block.records));
                let thin = known.and_then(|known| self.thin(&header, &block.payload, &known, class));
                let severity = classes::number_of(block.severity);
                let Some(Thinned { header: is, payload, classes }) = thin else {
                    stays.push(NewBlock { severity, ..block.clone() });
                    continue;
                };
                // What it joins is joined by what is left.
                let kind = Kind::Block { joins: None };
                let records = block.records.saturating_sub(is.records);
                goes.push(NewBlock { kind, records, payload: Vec::new(), ..*block });
                let Header { records, plain_len, plain_crc, .. } = is;
                let mut thin = NewBlock { severity, records, plain_len, plain_crc, payload, ..*block };
                let behind = thin.classify(&classes);
                stays.push(thin);
                stays.extend(behind);
            }
        }
        (goes, stays)
    }
}

/// A block without some of its records.
pub(super) struct Thinned {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    /// The classes of the records that are left.
    pub(super) classes: Vec<u8>,
}

fn thinned(
    header: &Header,
    payload: &[u8],
    classes: &[u8],
    class: u8,
    deflater: &mut Deflater,
) -> Option<Thinned> {
    let left: Vec<u8> = classes.iter().copied().filter(|of_record| *of_record > class).collect();
    let lowest = left.iter().min().copied()?;
    if left.len() == classes.len() || classes.len() != header.records as usize {
        return None;
    }
    let wire = Protocol::of_id(header.format)?.wire();
    let plain = inflate(payload, header.plain_len, header.plain_crc).ok()?;
    let parts = wire.parts(&plain).ok()?;
    if parts.records.len() != classes.len() {
        return None;
    }
    let stays = |place: usize| classes.get(place).is_some_and(|of_record| *of_record > class);
    let plain = wire.pick(&plain, &parts, &stays);
    let is_whole = wire.parts(&plain).is_ok_and(|parts| parts.records.len() == left.len());
    let payload =
        deflater.deflate(&plain).ok().filter(|shorter| is_whole && shorter.len() < payload.len())?;
    let header = Header {
        severity: classes::with_lowest(classes::number_of(header.severity), lowest),
        records: left.len() as u32,
        plain_len: u32::try_from(plain.len()).ok()?,
        plain_crc: crc32(&plain),
        stored_len: payload.len() as u32,
        stored_crc: crc32(&payload),
        ..*header
    };
    Some(Thinned { header, payload, classes: left })
}

/// What the frame behind a block is to say of the classes of its records, where a segment is written anew.
#[derive(PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing: they are of one class, or the block is not there.
    Nothing,
    /// What it said.
    AsItWas,
    /// These, of the block with this header.
    Anew(Header, Vec<u8>),
}

impl Said {
    /// Of a block that was thinned.
    pub(super) fn of(thin: &Thinned) -> Self {
        let severity = thin.header.severity;
        if classes::lowest(severity) == classes::gravest(severity) {
            return Self::Nothing;
        }
        Self::Anew(thin.header, classes::encode(&thin.classes))
    }
}

/// The frame of classes that says `payload` of `block`, in the place of `was`.
pub(super) fn classes_of(block: &Header, was: &Header, payload: &[u8]) -> Header {
    let Header { records, plain_crc, .. } = *block;
    let (stored_len, stored_crc) = (payload.len() as u32, crc32(payload));
    Header { records, plain_crc, plain_len: stored_len, stored_len, stored_crc, ..*was }
}

/// The classes of the records of `block`, if the frame at `position` tells them.
pub(super) fn classes_behind(
    store: &mut Segments,
    block: &Header,
    mut position: Position,
) -> Option<Vec<u8>> {
    let Step::Frame(header, offset) = step(store, &mut position) else { return None };
    let is_about = header.seq.0 == block.seq.0.saturating_add(1) && header.plain_crc == block.plain_crc;
    if header.kind != Kind::Classes || !is_about {
        return None;
    }
    let mut payload = vec![0; header.stored_len as usize];
    store.read(header.seq.segment(), &mut payload, offset).ok()?;
    (crc32(&payload) == header.stored_crc).then(|| classes::decode(&payload, block.records))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Signal;
    use crate::encode::{Ndjson, WireFormat};
    use crate::queue::frame::{Seq, sample};
    use crate::queue::{RealDisk, State};

    const DEBUG: u8 = 1;
    const ERROR: u8 = 4;

    /// A delivery of one block, whose lines are of these classes, and of the frame that says so.
    fn mixed(lines: &str, classes: &[u8]) -> Batch {
        let mut block = NewBlock {
            kind: Kind::Block { joins: Some(Seq::new(1, 7)) },
            signal: Signal::Logs,
            format: Ndjson.id(),
            severity: 17,
            events_end: 1,
            records: classes.len() as u32,
            plain_len: lines.len() as u32,
            plain_crc: crc32(lines.as_bytes()),
            times: (1, 2),
            payload: Deflater::default().deflate(lines.as_bytes()).unwrap(),
        };
        let behind = block.classify(classes).unwrap();
        Batch { delivery: 1, received: 1, parts_before: 0, blocks: vec![block, behind] }
    }

    fn three_lines() -> Batch {
        mixed(
            "{\"first\":\"abcdefgh\"}\n{\"second\":\"ijklmnop\"}\n{\"third\":\"qrstuvwx\"}\n",
            &[DEBUG, ERROR, ERROR],
        )
    }

    #[test]
    fn so_much_is_thinned_as_is_needed_within_the_bounds() {
        let mut thinning = Thinning::never();
        thinning.begin(800);
        assert!(!thinning.is_allowed() && !thinning.goes_on(0));
        let mut thinning = Thinning::for_room_of(50);
        thinning.begin(800);
        assert!(thinning.is_allowed() && thinning.goes_on(99) && !thinning.goes_on(100), "an eighth of it");
        thinning.begin(80);
        assert!(thinning.goes_on(49) && !thinning.goes_on(50), "what is needed");
        thinning.left_here = 0;
        assert!(!thinning.goes_on(0), "the bound of a segment");
    }

    #[test]
    fn of_a_delivery_only_records_of_the_class_go_and_what_is_left_says_what_it_is() {
        let mut batch = three_lines();
        let carry = NewBlock { kind: Kind::Carry, severity: 5, records: 0, ..batch.blocks[0].clone() };
        batch.blocks.push(carry);
        let (goes, stays) = Thinning::for_room_of(1).part(&batch, DEBUG);
        let [gone] = &goes[..] else { panic!("{goes:?}") };
        assert_eq!((gone.kind, gone.records), (Kind::Block { joins: None }, 1));
        let [left, carry] = &stays[..] else { panic!("{stays:?}") };
        assert_eq!((left.severity, left.records), (17, 2), "of one class");
        assert_eq!(left.kind, batch.blocks[0].kind);
        assert_eq!(carry.kind, Kind::Carry);
    }

    #[test]
    fn a_block_that_cannot_be_thinned_counts_as_its_gravest_record() {
        let mut batch = three_lines();
        batch.blocks[0].payload.fill(0xff);
        let (goes, stays) = Thinning::for_room_of(1).part(&batch, DEBUG);
        assert!(goes.is_empty());
        assert_eq!(stays.iter().map(|block| block.severity).collect::<Vec<_>>(), [17]);
    }

    #[test]
    fn a_block_is_not_thinned_by_classes_of_another_number_of_records_or_for_no_gain() {
        let thin = |batch: &Batch, classes: &[u8], records: u32| {
            let header = Header { records, ..headers_of(batch, 1, 0)[0] };
            thinned(&header, &batch.blocks[0].payload, classes, DEBUG, &mut Deflater::default())
        };
        let batch = three_lines();
        assert!(thin(&batch, &[DEBUG, ERROR, ERROR], 3).is_some());
        assert!(thin(&batch, &[DEBUG, ERROR, ERROR], 4).is_none());
        assert!(thin(&batch, &[DEBUG, ERROR], 3).is_none());
        let deflated =
            |count: usize| Deflater::default().deflate("{}\n".repeat(count).as_bytes()).unwrap().len();
        let count = (100..400).find(|count| deflated(*count) == deflated(count - 1)).unwrap();
        let mut classes = vec![ERROR; count];
        classes[0] = DEBUG;
        assert!(
            thin(&mixed(&"{}\n".repeat(count), &classes), &classes, count as u32).is_none(),
            "as long as before"
        );
    }

    #[test]
    fn the_frame_behind_a_thinned_block_is_about_what_is_left_of_it() {
        let was = Header { kind: Kind::Classes, records: 3, plain_len: 9, ..sample(Seq::new(1, 1)) };
        let block = Header { records: 2, plain_crc: 77, ..sample(Seq::new(1, 0)) };
        let is = classes_of(&block, &was, &[1, 2, 3, 4]);
        assert_eq!((is.kind, is.seq, is.records, is.plain_crc), (Kind::Classes, was.seq, 2, 77));
        assert_eq!((is.plain_len, is.stored_len, is.stored_crc), (4, 4, crc32(&[1, 2, 3, 4])));
    }

    #[test]
    fn classes_are_those_of_the_block_before_and_of_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Segments::open(Box::new(RealDisk), dir.path(), 0).0;
        store.begin(&State::default()).unwrap();
        let batch = three_lines();
        let headers = headers_of(&batch, 1, 0);
        let mut bytes = headers[1].encode().to_vec();
        bytes.extend_from_slice(&batch.blocks[1].payload);
        store.append(&bytes, 1).unwrap();
        let mut behind = |block: Header| classes_behind(&mut store, &block, Position::start_of(1));
        assert_eq!(behind(headers[0]).as_deref(), Some(&[DEBUG, ERROR, ERROR][..]));
        assert_eq!(behind(Header { plain_crc: 0, ..headers[0] }), None);
        assert_eq!(behind(Header { seq: Seq::new(1, 1), ..headers[0] }), None);
    }
}
