//! A segment as it is to be without the records that `shed` gives up.

use super::classes;
use super::frame::{Header, Kind, Seq};
use super::lane::Item;
use super::scan::{Position, Step, follows, step};
use super::segments::StoreError;
use super::state::FRAMES_START;
use super::store::Queue;
use super::thin::{Said, Thinning, classes_behind, classes_of};
use crate::{PerSignal, Signal};

/// Nothing that could be shed.
pub(super) const NOTHING: u8 = u8::MAX;

/// The lowest classes there are in a segment, or of those blocks in it that can go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lowest {
    /// Of any record.
    pub(super) record: u8,
    /// Of any block, each counted as its gravest record.
    pub(super) block: u8,
}

impl Lowest {
    pub(super) const NOTHING: Self = Self { record: NOTHING, block: NOTHING };

    /// That of one frame. Reports are about what is gone already, and never go.
    pub(super) fn of(header: &Header) -> Self {
        match header.kind {
            Kind::Block { .. } => {
                Self { record: classes::lowest(header.severity), block: classes::gravest(header.severity) }
            }
            _ => Self::NOTHING,
        }
    }

    /// The same, but that of records, or else of blocks, is above `class`.
    pub(super) fn above(self, class: u8, of_records: bool) -> Self {
        let above = class.saturating_add(1);
        if of_records {
            Self { record: self.record.max(above), ..self }
        } else {
            Self { block: self.block.max(above), ..self }
        }
    }

    pub(super) fn least(self, other: Self) -> Self {
        Self { record: self.record.min(other.record), block: self.block.min(other.block) }
    }
}

/// Which records of a segment are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    /// Those of one class: blocks of it, and as far as may be its records among graver ones.
    Class(u8),
    /// All of them, but for reports, as the oldest there are.
    Everything,
}

/// What a segment comes to without the records that are given up.
pub(super) struct Rewritten {
    pub(super) bytes: Vec<u8>,
    /// Whether there is anything in it that is still needed.
    pub(super) stays: bool,
    /// Frames that wait, with their new place.
    pub(super) waiting: Vec<Item>,
    pub(super) gone: Vec<Header>,
    /// Blocks without some of their records: what they were, and what they are.
    pub(super) thinned: Vec<(Header, Header)>,
    /// The lowest class of what stays.
    pub(super) lowest: Lowest,
    /// The same without what is being sent.
    pub(super) lowest_to_go: Lowest,
}

impl Rewritten {
    /// Of a segment no frame was looked at yet; `head` is what stands before them.
    pub(super) fn begin(head: Vec<u8>) -> Self {
        Self {
            bytes: head,
            stays: false,
            waiting: Vec::new(),
            gone: Vec::new(),
            thinned: Vec::new(),
            lowest: Lowest::NOTHING,
            lowest_to_go: Lowest::NOTHING,
        }
    }

    /// Appends a frame without its payload, for the sake of the delivery that it says.
    pub(super) fn bare(&mut self, header: &Header) {
        let bare =
            Header { kind: Kind::Shed, plain_len: 0, stored_len: 0, plain_crc: 0, stored_crc: 0, ..*header };
        self.bytes.extend_from_slice(&bare.encode());
    }

    /// Appends a frame, and gives the place of its payload.
    fn frame(&mut self, header: &Header, payload: &[u8]) -> u64 {
        self.bytes.extend_from_slice(&header.encode());
        let payload_offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(payload);
        payload_offset
    }

    /// Records that are given up by it, of the frames that `counts`.
    pub(super) fn records(&self, counts: impl Fn(&Header) -> bool) -> PerSignal<u64> {
        let mut records = PerSignal::<u64>::default();
        for header in self.gone.iter().filter(|header| counts(header)) {
            *records.get_mut(header.signal) += header.user_records();
        }
        for (was, is) in self.thinned.iter().filter(|(was, _)| counts(was)) {
            *records.get_mut(was.signal) += was.user_records().saturating_sub(is.user_records());
        }
        records
    }
}

impl Going {
    fn takes(self, header: &Header) -> bool {
        let class = Lowest::of(header).block;
        match self {
            Self::Class(going) => class == going,
            Self::Everything => class != NOTHING,
        }
    }

    /// The class of records that are to be taken out of a block, if it has graver ones as well.
    pub(super) fn thins(self, header: &Header) -> Option<u8> {
        let Lowest { record, block } = Lowest::of(header);
        match self {
            Self::Class(class) => (record <= class && class < block).then_some(class),
            Self::Everything => None,
        }
    }
}

impl Queue {
    /// Segment `number` without its records that are `going`; `None` if it cannot be read now.
    pub(super) fn without(
        &mut self,
        number: u32,
        going: Going,
        thinning: &mut Thinning,
    ) -> Result<Option<Rewritten>, StoreError> {
        let (spared, heads) = self.spared_by_all();
        let marks = self.least_marks();
        let mut head = vec![0; FRAMES_START as usize];
        if self.store.read(number, &mut head, 0).is_err() {
            return Ok(None);
        }
        let mut made = Rewritten::begin(head);
        let mut position = Position::start_of(number);
        let mut last = None;
        // What is to be said of the records of the block before.
        let mut said = Said::Nothing;
        loop {
            let before = position.offset;
            let (mut header, offset) = match step(&mut self.store, &mut position) {
                Step::Frame(header, offset) if follows(header.seq, last) => (header, offset),
                Step::Frame(..) | Step::Damage(_) => continue,
                Step::Unreadable => return Ok(None),
                Step::End => return Ok(Some(made)),
            };
            last = Some(header.seq);
            let is_done = header.seq <= marks.get(header.signal).seq;
            let waits = header.kind.is_sent() && !is_done;
            let is_spared = header.seq <= *spared.get(header.signal);
            let goes = waits && going.takes(&header) && !is_spared;
            let behind = std::mem::replace(&mut said, Said::Nothing);
            let needed = match header.kind {
                Kind::Classes => behind != Said::Nothing,
                _ => header.seq == self.state.fragment || header.seq == self.state.carry,
            };
            if goes {
                made.gone.push(header);
            }
            if goes || !waits && !needed {
                made.bare(&header);
                continue;
            }
            made.stays = true;
            if let (Kind::Classes, Said::Anew(block, payload)) = (header.kind, behind) {
                made.frame(&classes_of(&block, &header, &payload), &payload);
                continue;
            }
            let mut payload = vec![0; header.stored_len as usize];
            if self.store.read(number, &mut payload, offset).is_err() {
                return Ok(None);
            }
            let is_head = header.seq <= *heads.get(header.signal);
            let freed = before.saturating_sub(made.bytes.len() as u64);
            if let Some(class) = going.thins(&header)
                && waits
                && !is_spared
                && !is_head
                && thinning.goes_on(freed)
            {
                let known = classes_behind(&mut self.store, &header, position);
                match known.and_then(|known| thinning.thin(&header, &payload, &known, class)) {
                    Some(thin) => {
                        made.thinned.push((header, thin.header));
                        said = Said::of(&thin);
                        (header, payload) = (thin.header, thin.payload);
                    }
                    None => header.severity = classes::number_of(header.severity),
                }
            } else if waits {
                said = Said::AsItWas;
            }
            let payload_offset = made.frame(&header, &payload);
            if waits {
                made.waiting.push(Item { header, payload_offset });
                let lowest = Lowest::of(&header);
                made.lowest = made.lowest.least(lowest);
                if !is_spared {
                    let record = if is_head { lowest.block } else { lowest.record };
                    made.lowest_to_go = made.lowest_to_go.least(Lowest { record, ..lowest });
                }
            }
        }
    }

    /// By signal, for all readers: the last block that is spared, and the oldest that waits.
    fn spared_by_all(&mut self) -> (PerSignal<Seq>, PerSignal<Seq>) {
        let (mut spared, mut heads) = (PerSignal::<Seq>::default(), PerSignal::<Seq>::default());
        for reader in self.readers() {
            let mut queue = self.at(reader);
            for signal in Signal::ALL {
                let here = queue.spared(signal);
                let (spared, head) = (spared.get_mut(signal), heads.get_mut(signal));
                *spared = here.max(*spared);
                let oldest = queue.lanes.get(signal).head().map(|item| item.header.seq);
                *head = oldest.map_or(*head, |oldest| oldest.max(*head));
            }
        }
        (spared, heads)
    }

    /// The last block of `signal` that is being sent, in part or as a whole, or was as an alibi: what becomes of it is open.
    fn spared(&mut self, signal: Signal) -> Seq {
        let lane = self.lanes.get(signal);
        let mut spared = lane.asked_for.max(lane.alibi.map_or(Seq::default(), |(seq, _)| seq));
        if self.wants(signal) && self.state.marks.get(signal).records > 0 {
            self.fill(signal, u32::MAX);
            spared = spared.max(self.lanes.get(signal).head().map_or(Seq(u64::MAX), |item| item.header.seq));
        }
        spared
    }
}
