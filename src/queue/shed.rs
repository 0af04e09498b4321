//! `shed`: when the queue is full, the least severe records go, the oldest of them first.
//!
//! What goes is records of one class, the oldest segment first that has any. A block of that class goes as a whole; one that
//! holds graver records as well, which its frame says, is *thinned*: inflated, and deflated without them (`thin.rs`). The
//! segment is written anew beside itself, with a bare header in place of each block that is gone, and takes its own name
//! over. So nothing that is done or given up comes again, though marks know a prefix only, and what stays keeps its place
//! in the order.
//!
//! Thinning costs time, so there is a bound for each delivery ([`Thinning`]). Beyond it a block counts as what its gravest
//! record is. The oldest block of a signal is not thinned at all: who searches it for a record at fault goes by places.
//!
//! The count of what goes is noted before ([`Shedding`]) as a plan, which the length of the segment decides upon: after a
//! crash between the two files the records are there and not counted, or counted and gone.

use super::classes;
use super::frame::{Header, Kind, Seq};
use super::lane::Item;
use super::ledger::{Ledger, Reason, Tally};
use super::scan::{Position, Step, follows, step};
use super::segments::StoreError;
use super::state::{FRAMES_START, Shedding};
use super::store::{Queue, headers_of};
use super::thin::{Said, Thinning, classes_behind, classes_of};
use super::types::{AppendError, Batch};
use crate::{PerSignal, Signal};
use std::collections::BTreeMap;

/// Nothing that could be shed.
const NOTHING: u8 = u8::MAX;

/// What becomes of a batch when the queue is full.
pub(super) enum Room {
    /// There is room for all of it.
    Whole,
    /// There is room for this part of it. So many records of the rest were counted as given up.
    Part(Batch, PerSignal<u64>),
    /// There is no room for any record in it.
    Nothing,
}

/// The lowest classes there are in a segment, or of those blocks in it that can go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lowest {
    /// Of any record.
    record: u8,
    /// Of any block, each counted as its gravest record.
    block: u8,
}

impl Lowest {
    const NOTHING: Self = Self { record: NOTHING, block: NOTHING };

    /// That of one frame. Reports are about what is gone already, and never go.
    fn of(header: &Header) -> Self {
        match header.kind {
            Kind::Block { .. } => {
                Self { record: classes::lowest(header.severity), block: classes::gravest(header.severity) }
            }
            _ => Self::NOTHING,
        }
    }

    fn least(self, other: Self) -> Self {
        Self { record: self.record.min(other.record), block: self.block.min(other.block) }
    }
}

/// Which records of a segment are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Going {
    /// Those of one class: blocks of it, and as far as may be its records among graver ones.
    Class(u8),
    /// All of them, but for reports, as the oldest there are.
    Everything,
}

/// What a segment comes to without the records that are given up.
struct Rewritten {
    bytes: Vec<u8>,
    /// Whether there is anything in it that is still needed.
    stays: bool,
    /// Frames that wait, with their new place.
    waiting: Vec<Item>,
    gone: Vec<Header>,
    /// Blocks without some of their records: what they were, and what they are.
    thinned: Vec<(Header, Header)>,
    /// The lowest class of what stays.
    lowest: Lowest,
    /// The same without what is being sent.
    lowest_to_go: Lowest,
}

impl Rewritten {
    /// Appends a frame without its payload, for the sake of the delivery that it says.
    fn bare(&mut self, header: &Header) {
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
    fn records(&self, counts: impl Fn(&Header) -> bool) -> PerSignal<u64> {
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

impl Queue {
    /// Makes room for `batch` by giving up what is least severe, in the queue or in the batch itself.
    ///
    /// # Errors
    /// [`AppendError::NoRoom`] if the count of what is turned away cannot be kept.
    pub(super) fn shed_for(&mut self, batch: &Batch) -> Result<Room, AppendError> {
        let mut rest: Option<Batch> = None;
        // What cannot go now, by segment: classes below this one.
        let mut passed_over = BTreeMap::new();
        let mut turned_away = PerSignal::<u64>::default();
        let begun_since = self.store.next_number();
        let mut thinning = Thinning::for_room_of(batch.size());
        loop {
            let new = rest.as_ref().unwrap_or(batch);
            if self.has_room_for(new.size()) {
                break;
            }
            let newest = headers_of(new, 0, 0).iter().map(|header| Lowest::of(header).record).min();
            let newest = newest.unwrap_or(NOTHING);
            let (oldest, number) = self.least_severe(&passed_over, thinning.is_allowed());
            // The newest segment is not closed for what is no better.
            let stays = oldest != NOTHING
                && (oldest < newest || oldest == newest && Some(number) != self.store.active());
            if !stays && newest != NOTHING && self.holds_some_up(new) {
                if !self.drop_oldest(begun_since) {
                    break;
                }
            } else if !stays && newest != NOTHING {
                let (goes, stays) = thinning.part(new, newest);
                for block in &goes {
                    *turned_away.get_mut(block.signal) += u64::from(block.records);
                }
                // What is to be remembered is no use without what it came with.
                let all = stays.iter().all(|block| block.kind == Kind::Carry);
                if !goes.is_empty() {
                    self.turn_away(&Batch { blocks: goes, ..*new }, Reason::Shed, all)?;
                }
                let part = Batch { blocks: stays, ..*new };
                if all {
                    return Ok(Room::Nothing);
                }
                rest = Some(part);
            } else if stays && !self.degraded {
                match self.shed_segment(number, Going::Class(oldest), &mut thinning) {
                    Ok(None) => {}
                    Ok(Some(lowest)) => {
                        passed_over.insert(number, lowest);
                    }
                    Err(error) => {
                        self.own.overflowed.not_rewritten += 1;
                        self.own.overflowed.why_not = error.to_string();
                        passed_over.insert(number, Lowest::NOTHING);
                        if !self.drop_oldest(begun_since) {
                            break;
                        }
                    }
                }
            } else if !self.drop_oldest(begun_since) {
                break;
            }
        }
        Ok(rest.map_or(Room::Whole, |part| Room::Part(part, turned_away)))
    }

    /// The lowest class there is and the oldest segment that holds any of it. Of records, or else of blocks.
    fn least_severe(&mut self, passed_over: &BTreeMap<u32, Lowest>, of_records: bool) -> (u8, u32) {
        let unknown: Vec<u32> =
            self.store.all().map(|(n, _)| n).filter(|n| !self.lowest.contains_key(n)).collect();
        for number in unknown {
            let lowest = self.lowest_in(number);
            self.lowest.insert(number, lowest);
        }
        let class = |lowest: &Lowest| if of_records { lowest.record } else { lowest.block };
        let found = self.lowest.iter().map(|(number, lowest)| {
            let least = passed_over.get(number).map_or(0, class);
            (class(lowest).max(least), *number)
        });
        found.min().unwrap_or((NOTHING, 0))
    }

    /// The lowest class in segment `number`. If that cannot be read, nothing in it is known to be less severe than others.
    fn lowest_in(&mut self, number: u32) -> Lowest {
        let mut lowest = Lowest::NOTHING;
        let marks = self.least_marks();
        let whole = super::scan::walk(&mut self.store, number, |header, _| {
            if header.seq > marks.get(header.signal).seq {
                lowest = lowest.least(Lowest::of(header));
            }
        });
        if whole { lowest } else { Lowest::NOTHING }
    }

    /// What was appended may be less severe than all there was.
    pub(super) fn note_severity(&mut self, header: &Header) {
        if let Some(lowest) = self.lowest.get_mut(&header.seq.segment()) {
            *lowest = lowest.least(Lowest::of(header));
        }
    }

    /// Gives up the records in segment `number` that are `going`. If there are none that could be given up now, returns the lowest
    /// class of those that could.
    ///
    /// # Errors
    /// If the disk does not take the segment in its new form; nothing has changed then.
    fn shed_segment(
        &mut self,
        number: u32,
        going: Going,
        thinning: &mut Thinning,
    ) -> Result<Option<Lowest>, StoreError> {
        if self.store.active() == Some(number) || self.store.carries_state(number) {
            self.begin_segment()?;
        }
        if !self.readers().all(|reader| self.at(reader).is_counted(number)) {
            return Ok(Some(Lowest::NOTHING));
        }
        let len_before = self.store.len(number).unwrap_or_default();
        thinning.begin(len_before);
        let Some(made) = self.without(number, going, thinning)? else { return Ok(Some(Lowest::NOTHING)) };
        let len = if made.stays { made.bytes.len() as u64 } else { 0 };
        if made.gone.is_empty() && made.thinned.is_empty() || len >= len_before {
            // What was known of it was done meanwhile, or is being sent.
            self.lowest.insert(number, made.lowest);
            return Ok(Some(made.lowest_to_go));
        }
        for reader in self.readers() {
            let mut queue = self.at(reader);
            let records = made.records(|header| queue.waits_here(header));
            let oldest = going == Going::Everything;
            queue.state.shedding = Shedding { segment: number, len, records, oldest };
        }
        if let Err(error) = self.replace(number, &made, len) {
            for reader in self.readers() {
                self.at(reader).state.shedding = Shedding::default();
            }
            self.store.discard_aside(number);
            return Err(error);
        }
        for reader in self.readers() {
            self.at(reader).give_up(&made);
        }
        self.lowest.insert(number, made.lowest);
        drop(self.save_all());
        if !made.stays {
            self.forget(number);
        }
        Ok(None)
    }

    /// Gives up all records of segment `number`, as the oldest that can be read. Returns whether there were any.
    pub(super) fn shed_all_of(&mut self, number: u32) -> bool {
        let shed = self.shed_segment(number, Going::Everything, &mut Thinning::never());
        shed.is_ok_and(|kept| kept.is_none())
    }

    /// Whether a frame that is to be sent waits for the reader at the desk.
    fn waits_here(&self, header: &Header) -> bool {
        self.wants(header.signal) && header.seq > self.state.marks.get(header.signal).seq
    }

    /// Puts `made` in the place of segment `number`, the plan on disk first.
    fn replace(&mut self, number: u32, made: &Rewritten, len: u64) -> Result<(), StoreError> {
        if !made.stays {
            self.save_all()?;
            return self.store.unlink(number);
        }
        self.store.write_aside(number, &made.bytes)?;
        self.save_all()?;
        self.store.replace(number, len)
    }

    /// Notes for the reader at the desk that `made` stands in the place of a segment now.
    fn give_up(&mut self, made: &Rewritten) {
        let shedding = std::mem::take(&mut self.state.shedding);
        let number = shedding.segment;
        shedding.count_in(&mut self.state.ledger);
        let gone: Vec<&Header> = made.gone.iter().filter(|header| self.waits_here(header)).collect();
        let thinned: Vec<_> = made.thinned.iter().filter(|(was, _)| self.waits_here(was)).collect();
        if let Some(remaining) = self.remaining.get_mut(&number) {
            for header in gone {
                remaining.get_mut(header.signal).take(header);
            }
            for (was, is) in thinned {
                remaining.get_mut(was.signal).take(was);
                remaining.get_mut(is.signal).add(is);
            }
            // What was never found among the frames goes with the file.
            let damaged = if made.stays { PerSignal::default() } else { std::mem::take(remaining) };
            for (signal, held) in damaged.iter() {
                self.state.ledger.drop(Tally { signal, reason: Reason::Damaged, records: held.records });
            }
        }
        for signal in Signal::ALL {
            self.lanes.get_mut(signal).rewritten(number, &made.waiting);
        }
        let total: u64 = shedding.records.iter().map(|(_, records)| records).sum();
        let overflowed = &mut self.own.overflowed;
        *(if shedding.oldest { &mut overflowed.readable } else { &mut overflowed.least_severe }) += total;
    }

    /// Segment `number` without its records that are `going`; `None` if it cannot be read now.
    fn without(
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
        let mut made = Rewritten {
            bytes: head,
            stays: false,
            waiting: Vec::new(),
            gone: Vec::new(),
            thinned: Vec::new(),
            lowest: Lowest::NOTHING,
            lowest_to_go: Lowest::NOTHING,
        };
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

impl Shedding {
    /// Counts what it gave up.
    pub(super) fn count_in(&self, ledger: &mut Ledger) {
        let reason = if self.oldest { Reason::Overflow } else { Reason::Shed };
        count_shed(&self.records, |tally| ledger.drop(Tally { reason, ..tally }));
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
    fn thins(self, header: &Header) -> Option<u8> {
        let Lowest { record, block } = Lowest::of(header);
        match self {
            Self::Class(class) => (record <= class && class < block).then_some(class),
            Self::Everything => None,
        }
    }
}

/// What `records` come to, signal by signal.
pub(super) fn count_shed(records: &PerSignal<u64>, mut count: impl FnMut(Tally)) {
    for (signal, records) in records.iter() {
        count(Tally { signal, reason: Reason::Shed, records: *records });
    }
}
