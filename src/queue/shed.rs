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

use super::frame::{Header, Kind};
use super::ledger::{Ledger, Reason, Tally};
use super::rewritten::{Going, Lowest, NOTHING, Rewritten};
use super::segments::StoreError;
use super::state::Shedding;
use super::store::{Queue, headers_of};
use super::thin::Thinning;
use super::types::{AppendError, Batch};
use crate::{PerSignal, Signal};
use std::collections::BTreeMap;

/// What becomes of a batch when the queue is full.
pub(super) enum Room {
    /// There is room for all of it.
    Whole,
    /// There is room for this part of it. So many records of the rest were counted as given up.
    Part(Batch, PerSignal<u64>),
    /// There is no room for any record in it.
    Nothing,
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
            let of_records = thinning.is_allowed();
            let (oldest, number) = self.least_severe(&passed_over, of_records);
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
                        // What was not found there is not looked for again, whatever it was.
                        passed_over.insert(number, lowest.above(oldest, of_records));
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
        // What is done in it may be enough, with nothing given up.
        let enough = thinning.is_enough(len_before.saturating_sub(len));
        if len >= len_before || made.gone.is_empty() && made.thinned.is_empty() && !enough {
            // What was known of it was done meanwhile, or is being sent.
            self.lowest.insert(number, made.lowest);
            return Ok(Some(made.lowest_to_go));
        }
        if made.stays && !self.fits_aside(len) {
            return Err(StoreError::OverBudget);
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
}

impl Shedding {
    /// Counts what it gave up.
    pub(super) fn count_in(&self, ledger: &mut Ledger) {
        let reason = if self.oldest { Reason::Overflow } else { Reason::Shed };
        count_shed(&self.records, |tally| ledger.drop(Tally { reason, ..tally }));
    }
}

/// What `records` come to, signal by signal.
pub(super) fn count_shed(records: &PerSignal<u64>, mut count: impl FnMut(Tally)) {
    for (signal, records) in records.iter() {
        count(Tally { signal, reason: Reason::Shed, records: *records });
    }
}

#[cfg(test)]
mod tests;
