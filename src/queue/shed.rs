//! `shed`: when the queue is full, the least severe records go, the oldest of them first.
//!
//! A block is the least that is given up, and counts as what its gravest record is, which its frame says. The least severe
//! blocks of one segment go together: the segment is written anew beside itself, with a bare header in place of each of
//! them, and takes its own name over. So nothing that is done or given up comes again, though marks know a prefix only,
//! and what stays keeps its place in the order.
//!
//! The count of what goes is noted before ([`Shedding`]) as a plan, which the length of the segment decides upon: after a
//! crash between the two files the records are there and not counted, or counted and gone.

use super::frame::{Header, Kind, Seq};
use super::lane::Item;
use super::ledger::{Ledger, Reason, Tally};
use super::scan::{Position, Step, follows, step};
use super::segments::StoreError;
use super::state::{FRAMES_START, Shedding};
use super::store::{Queue, headers_of};
use super::types::{AppendError, Batch};
use crate::{PerSignal, Signal};
use std::collections::BTreeMap;

/// Nothing that could be shed.
const NOTHING: u8 = u8::MAX;
/// Numbers in one of OpenTelemetry's ranges of severity: TRACE, DEBUG, INFO, WARN, ERROR, FATAL.
const NUMBERS_PER_CLASS: u8 = 4;
/// What is not known to be less or more is INFO, as are data points and spans.
const UNKNOWN_IS: u8 = 9;

/// The class of a severity number (OpenTelemetry, "Field: `SeverityNumber`"), 0 for TRACE to 5 for FATAL. Records of a
/// class are shed alike.
pub fn severity_class(number: u8) -> u8 {
    let number = if number == 0 { UNKNOWN_IS } else { number };
    (number - 1) / NUMBERS_PER_CLASS
}

/// What becomes of a batch when the queue is full.
pub(super) enum Room {
    /// There is room for all of it.
    Whole,
    /// There is room for this part of it. So many records of the rest were counted as given up.
    Part(Batch, PerSignal<u64>),
    /// There is no room for any record in it.
    Nothing,
}

/// Which records of a segment are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    /// Those of one class.
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
    /// The lowest class of what stays.
    lowest: u8,
    /// The same without what is being sent.
    lowest_to_go: u8,
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
        loop {
            let new = rest.as_ref().unwrap_or(batch);
            if self.has_room_for(new.size()) {
                break;
            }
            let newest = headers_of(new, 0, 0).iter().map(class_of).min().unwrap_or(NOTHING);
            let (oldest, number) = self.least_severe(&passed_over);
            // The newest segment is not closed for what is no better.
            let stays = oldest != NOTHING
                && (oldest < newest || oldest == newest && Some(number) != self.store.active());
            if !stays && newest != NOTHING && self.holds_some_up(new) {
                if !self.drop_oldest(begun_since) {
                    break;
                }
            } else if !stays && newest != NOTHING {
                let (goes, stays): (Vec<_>, _) =
                    new.blocks.iter().cloned().partition(|block| block.class() == newest);
                for block in &goes {
                    *turned_away.get_mut(block.signal) += u64::from(block.records);
                }
                // What is to be remembered is no use without what it came with.
                let all = stays.iter().all(|block| block.kind == Kind::Carry);
                self.turn_away(&Batch { blocks: goes, ..*new }, Reason::Shed, all)?;
                let part = Batch { blocks: stays, ..*new };
                if all {
                    return Ok(Room::Nothing);
                }
                rest = Some(part);
            } else if stays && !self.degraded {
                match self.shed_segment(number, Going::Class(oldest)) {
                    Ok(None) => {}
                    Ok(Some(lowest)) => {
                        passed_over.insert(number, lowest);
                    }
                    Err(error) => {
                        self.own.overflowed.not_rewritten += 1;
                        self.own.overflowed.why_not = error.to_string();
                        passed_over.insert(number, NOTHING);
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

    /// The lowest class there is and the oldest segment that holds any of it.
    fn least_severe(&mut self, passed_over: &BTreeMap<u32, u8>) -> (u8, u32) {
        let unknown: Vec<u32> =
            self.store.all().map(|(n, _)| n).filter(|n| !self.lowest.contains_key(n)).collect();
        for number in unknown {
            let lowest = self.lowest_in(number);
            self.lowest.insert(number, lowest);
        }
        let found = self.lowest.iter().map(|(number, class)| {
            (passed_over.get(number).map_or(*class, |least| (*class).max(*least)), *number)
        });
        found.min().unwrap_or((NOTHING, 0))
    }

    /// The lowest class in segment `number`. If that cannot be read, nothing in it is known to be less severe than others.
    fn lowest_in(&mut self, number: u32) -> u8 {
        let mut lowest = NOTHING;
        let marks = self.least_marks();
        let whole = super::scan::walk(&mut self.store, number, |header, _| {
            if header.seq > marks.get(header.signal).seq {
                lowest = lowest.min(class_of(header));
            }
        });
        if whole { lowest } else { NOTHING }
    }

    /// What was appended may be less severe than all there was.
    pub(super) fn note_severity(&mut self, header: &Header) {
        if let Some(lowest) = self.lowest.get_mut(&header.seq.segment()) {
            *lowest = class_of(header).min(*lowest);
        }
    }

    /// Gives up the records in segment `number` that are `going`. If there are none that could be given up now, returns the lowest
    /// class of those that could.
    ///
    /// # Errors
    /// If the disk does not take the segment in its new form; nothing has changed then.
    pub(super) fn shed_segment(&mut self, number: u32, going: Going) -> Result<Option<u8>, StoreError> {
        if self.store.active() == Some(number) || self.store.carries_state(number) {
            self.begin_segment()?;
        }
        if !self.readers().all(|reader| self.at(reader).is_counted(number)) {
            return Ok(Some(NOTHING));
        }
        let Some(made) = self.without(number, going)? else { return Ok(Some(NOTHING)) };
        if made.gone.is_empty() {
            // What was known of it was done meanwhile, or is being sent.
            self.lowest.insert(number, made.lowest);
            return Ok(Some(made.lowest_to_go));
        }
        let len = if made.stays { made.bytes.len() as u64 } else { 0 };
        for reader in self.readers() {
            let mut queue = self.at(reader);
            let mut records = PerSignal::<u64>::default();
            for header in made.gone.iter().filter(|header| queue.waits_here(header)) {
                *records.get_mut(header.signal) += header.user_records();
            }
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
        if let Some(remaining) = self.remaining.get_mut(&number) {
            for header in gone {
                remaining.get_mut(header.signal).take(header);
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
    fn without(&mut self, number: u32, going: Going) -> Result<Option<Rewritten>, StoreError> {
        let mut spared = PerSignal::<Seq>::default();
        for reader in self.readers() {
            let mut queue = self.at(reader);
            for signal in Signal::ALL {
                let here = queue.spared(signal);
                let spared = spared.get_mut(signal);
                *spared = here.max(*spared);
            }
        }
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
            lowest: NOTHING,
            lowest_to_go: NOTHING,
        };
        let mut position = Position::start_of(number);
        let mut last = None;
        loop {
            let (header, offset) = match step(&mut self.store, &mut position) {
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
            let needed = header.seq == self.state.fragment || header.seq == self.state.carry;
            if goes {
                made.gone.push(header);
            }
            if goes || !waits && !needed {
                let bare = Header {
                    kind: Kind::Shed,
                    plain_len: 0,
                    stored_len: 0,
                    plain_crc: 0,
                    stored_crc: 0,
                    ..header
                };
                made.bytes.extend_from_slice(&bare.encode());
                continue;
            }
            made.stays = true;
            made.bytes.extend_from_slice(&header.encode());
            let payload_offset = made.bytes.len();
            if waits {
                made.waiting.push(Item { header, payload_offset: payload_offset as u64 });
                made.lowest = made.lowest.min(class_of(&header));
                if !is_spared {
                    made.lowest_to_go = made.lowest_to_go.min(class_of(&header));
                }
            }
            made.bytes.resize(payload_offset + header.stored_len as usize, 0);
            let payload = made.bytes.get_mut(payload_offset..).ok_or(StoreError::Missing(number))?;
            if self.store.read(number, payload, offset).is_err() {
                return Ok(None);
            }
        }
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
        match self {
            Self::Class(class) => class_of(header) == class,
            Self::Everything => class_of(header) != NOTHING,
        }
    }
}

/// What `records` come to, signal by signal.
pub(super) fn count_shed(records: &PerSignal<u64>, mut count: impl FnMut(Tally)) {
    for (signal, records) in records.iter() {
        count(Tally { signal, reason: Reason::Shed, records: *records });
    }
}

/// The class a frame may be shed with. Reports are about what is gone already, and never go.
fn class_of(header: &Header) -> u8 {
    match header.kind {
        Kind::Block { .. } => severity_class(header.severity),
        _ => NOTHING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_the_ranges_of_opentelemetry_and_the_unknown_is_ordinary() {
        let classes: Vec<u8> = (0..=24).map(severity_class).collect();
        assert_eq!(classes, [2, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5],);
        assert!(severity_class(u8::MAX) < NOTHING);
    }
}
