//! Keeping to the byte budget: what gives way when the queue is full.

use super::frame::{Header, Kind, Seq};
use super::lane::{Item, Stored};
use super::ledger::{Ledger, Reason, Tally};
use super::reader::ReaderId;
use super::scan::walk;
use super::shed::Room;
use super::state::{FRAMES_START, Mark, State};
use super::store::{Queue, headers_of};
use super::types::{AppendError, Batch, Overflow};
use crate::{PerSignal, Signal};

impl Queue {
    /// Makes room for `batch`. What is given up for it is counted, in the queue or of the batch.
    ///
    /// # Errors
    /// [`AppendError::NoRoom`] if what is turned away cannot be counted.
    pub(super) fn make_room(&mut self, batch: &Batch) -> Result<Room, AppendError> {
        let size = batch.size();
        let mut fits = size + FRAMES_START <= self.limits.max_bytes;
        if self.has_unknown() && !self.has_room_for(size) {
            // What is given up has to be counted for all.
            self.load_unknown(0);
        }
        if fits && self.limits.overflow == Overflow::Shed {
            return self.shed_for(batch);
        }
        let begun_since = self.store.next_number();
        while fits && !self.has_room_for(size) {
            if self.limits.overflow == Overflow::DropNewest && !self.holds_some_up(batch) {
                fits = false;
            } else if !self.drop_oldest(begun_since) {
                // Nothing of ours is left to give up, the rest belongs to the index; or it cannot be counted now.
                break;
            }
        }
        if fits {
            return Ok(Room::Whole);
        }
        self.turn_away(batch, Reason::OverflowNewest, true)?;
        Ok(Room::Nothing)
    }

    /// Whether `size` more bytes fit. What is in memory counts as well: it goes to the disk as soon as that takes it.
    pub(super) fn has_room_for(&self, size: u64) -> bool {
        self.spoken_for(size) + self.store.memory_bytes() + size + FRAMES_START <= self.limits.max_bytes
    }

    /// Bytes of the budget that are used on disk or kept free, with `size` more to come.
    pub(super) fn spoken_for(&self, size: u64) -> u64 {
        self.disk_bytes() + self.kept_free_for(size)
    }

    /// Bytes of the budget that are kept free, with `size` more to come, so that any segment can be written anew beside
    /// itself ([`fits_aside`](Self::fits_aside)): a delivery is in one segment, however long that is.
    fn kept_free_for(&self, size: u64) -> u64 {
        if self.limits.overflow != Overflow::Shed {
            return 0;
        }
        let longest = self.store.all().map(|(_, len)| len).max().unwrap_or_default();
        let beyond = longest.max(size + FRAMES_START).saturating_sub(self.limits.segment_bytes);
        // What would fit into an empty queue does.
        let left = self.limits.max_bytes.saturating_sub(size + FRAMES_START);
        beyond.min(self.limits.kept_free_max_bytes()).min(left)
    }

    /// Whether a file of `len` bytes may stand beside what there is for the moment in which it replaces a segment.
    pub(super) fn fits_aside(&self, len: u64) -> bool {
        self.disk_bytes() + len <= self.limits.max_bytes + self.limits.segment_bytes
    }

    /// Whether what is in memory, with `size` more to come, will fit on the disk beside `staying` bytes there, once that takes it:
    /// within the budget and a segment, however long the file is that stays, and with the segment that is begun to make room then.
    pub(super) fn fits_on_return(&self, staying: u64, size: u64) -> bool {
        let bytes = staying + self.store.memory_bytes() + size + FRAMES_START;
        bytes <= self.limits.max_bytes + self.limits.segment_bytes
    }

    /// Bytes on a disk that takes nothing which cannot be given up: all but the segments other than the one with the state.
    pub(super) fn staying_bytes(&self) -> u64 {
        let carrier = self.store.carrier.and_then(|number| self.store.len(number)).unwrap_or_default();
        (self.disk_bytes() - self.store.disk_bytes()).saturating_add(carrier)
    }

    /// Counts blocks of a batch as given up. `all`: nothing else of the delivery is kept, so that a repeat of it is known for
    /// one, also to the next process.
    ///
    /// # Errors
    /// [`AppendError::NoRoom`] if the count cannot be kept either.
    pub(super) fn turn_away(&mut self, batch: &Batch, reason: Reason, all: bool) -> Result<(), AppendError> {
        let State { fragment, fragment_done, turned_away, .. } = self.state;
        let mut dropped = 0;
        let mut records = PerSignal::<u64>::default();
        for header in headers_of(batch, 0, 0) {
            dropped += header.user_records();
            *records.get_mut(header.signal) += header.user_records();
            // Counted with what was to join it.
            if header.kind == (Kind::Block { joins: Some(self.state.fragment) }) {
                self.state.settle_fragment();
            }
        }
        self.for_all(&records, reason, Ledger::drop);
        // Reports of ours are not what Lambda repeats.
        if all && dropped > 0 {
            self.state.turned_away = batch.delivery;
        }
        if self.save_all().is_err() {
            self.for_all(&records, reason, Ledger::undrop);
            self.state = State { fragment, turned_away, fragment_done, ..self.state };
            // Some place may have taken the count: it is to forget it.
            drop(self.save_all());
            return Err(AppendError::NoRoom);
        }
        self.own.overflowed.new += dropped;
        Ok(())
    }

    /// Whether the oldest segment has nothing waiting for some reader of what is in `batch`: were that turned away for want of its
    /// room, a destination that is away would cost those that are not.
    pub(super) fn holds_some_up(&mut self, batch: &Batch) -> bool {
        let Some(oldest) = self.store.first_from(0).filter(|number| Some(*number) != self.store.active())
        else {
            return false;
        };
        !self.others.is_empty()
            && self.readers().any(|reader| {
                let mut queue = self.at(reader);
                let gets_some =
                    batch.blocks.iter().any(|block| block.kind.is_sent() && queue.wants(block.signal));
                let is_counted = gets_some && queue.is_counted(oldest);
                let held = queue.remaining.get(&oldest);
                is_counted && held.is_some_and(|held| held.iter().all(|(_, waiting)| waiting.blocks == 0))
            })
    }

    /// Changes the ledger of every reader by what of `records` is for it.
    fn for_all(&mut self, records: &PerSignal<u64>, reason: Reason, change: fn(&mut Ledger, Tally)) {
        for reader in self.readers() {
            let mut queue = self.at(reader);
            for (signal, records) in queue.wanted_of(records).iter() {
                change(&mut queue.state.ledger, Tally { signal, reason, records: *records });
            }
        }
    }

    /// Gives up the oldest segment, but for the reports in it. Returns whether there was one to give up. Of segments from
    /// `begun_since` on, which hold what was brought there from others just now, the reports go as well.
    pub(super) fn drop_oldest(&mut self, begun_since: u32) -> bool {
        let Some(number) = self.store.first_from(0) else { return false };
        if self.degraded && (self.store.active() == Some(number) || self.store.carries_state(number)) {
            // The last file of a disk that takes no other: the state would be in memory only.
            return false;
        }
        if self.store.active() == Some(number) {
            let empty = self.store.len(number).is_none_or(|len| len <= FRAMES_START);
            if empty || self.begin_segment().is_err() {
                return false;
            }
        }
        if !self.readers().all(|reader| self.at(reader).is_counted(number)) {
            // How much it holds is not known, so it cannot be counted as given up.
            return !self.degraded && self.drop_behind(number);
        }
        let moves_reports = number < begun_since;
        let (mut total, reports) = self.drop_here(number, moves_reports);
        let others: Vec<(ReaderId, u64)> = self
            .readers()
            .skip(1)
            .map(|reader| (reader, self.at(reader).drop_here(number, false).0))
            .collect();
        if self.state.fragment.segment() == number && self.state.fragment != Seq::default() {
            let reason = Reason::Overflow;
            self.state.ledger.drop(Tally { signal: Signal::Logs, reason, records: 1 });
            self.state.settle_fragment();
            total += 1;
        }
        if self.state.carry.segment() == number {
            // The next delivery brings one.
            self.state.carry = Seq::default();
        }
        let saved = self.save_all();
        match &saved {
            Ok(()) => self.forget(number),
            // It stays until the count of what it held is on disk.
            Err(error) => self.degrade(error),
        }
        self.report_again(reports);
        if saved.is_ok() {
            for (reader, records) in std::iter::once((ReaderId::FIRST, total)).chain(others) {
                self.at(reader).own.overflowed.oldest += records;
            }
        }
        saved.is_ok()
    }

    /// Gives up the oldest segment behind one that cannot be read. No mark can say so, for that one waits still: the segment
    /// is taken out as one that is shed. Returns whether there was one.
    fn drop_behind(&mut self, unreadable: u32) -> bool {
        let behind: Vec<u32> =
            self.store.all().map(|(number, _)| number).filter(|number| *number > unreadable).collect();
        behind.into_iter().any(|number| {
            let holds = self.store.len(number).is_some_and(|len| len > FRAMES_START);
            holds && self.shed_all_of(number)
        })
    }

    /// Whether it is known for certain what segment `number` holds for the reader at the desk.
    pub(super) fn is_counted(&mut self, number: u32) -> bool {
        let counted = self.remaining.contains_key(&number) && !self.unverified.contains(&number);
        counted || self.count(number)
    }

    /// Gives up what waits in segment `number` for the reader at the desk. Returns how many records, and the reports that are
    /// to be queued again if `moves_reports`.
    fn drop_here(&mut self, number: u32, moves_reports: bool) -> (u64, Vec<Stored>) {
        let marks = self.state.marks;
        let wants = self.own.wants;
        let mut waiting = Vec::new();
        // If it can be read in part only, its count is known all the same.
        walk(&mut self.store, number, |header, payload_offset| {
            let is_due = *wants.get(header.signal) && header.seq > marks.get(header.signal).seq;
            if header.kind.is_sent() && is_due {
                waiting.push(Item { header: *header, payload_offset });
            }
        });
        let mut reports = if moves_reports { self.reports_among(&waiting) } else { Vec::new() };
        let dropped =
            Signal::ALL.into_iter().map(|signal| self.drop_of(signal, number, &waiting, &mut reports)).sum();
        (dropped, reports)
    }

    /// Moves `signal`'s mark past segment `number` and counts what is given up by that. `reports` were taken out of it:
    /// those under way are left to their request.
    fn drop_of(&mut self, signal: Signal, number: u32, waiting: &[Item], reports: &mut Vec<Stored>) -> u64 {
        let waiting: Vec<&Header> =
            waiting.iter().map(|item| &item.header).filter(|header| header.signal == signal).collect();
        let held = self.remaining.get_mut(&number).map(|remaining| std::mem::take(remaining.get_mut(signal)));
        let held = held.unwrap_or_default();
        if held.blocks == 0 {
            // The mark stays: it may say how much of a later block is done.
            self.lanes.get_mut(signal).leave(number);
            return 0;
        }
        // Records of a block that was being sent in parts are done already.
        let done = u64::from(self.state.marks.get(signal).records);
        let records = held.records.saturating_sub(done);
        for header in waiting.iter().filter(|_| self.own.file.is_none()) {
            if let Kind::Report(tally) = header.kind {
                self.state.ledger.unreport(tally);
            }
        }
        let lane = self.lanes.get_mut(signal);
        if let Some(flight) = &mut lane.flight {
            let whole =
                waiting.iter().filter(|h| h.seq <= flight.to.seq).map(|h| h.user_records()).sum::<u64>();
            let sent_in_part = waiting.first().is_some_and(|h| h.seq > flight.to.seq);
            // They are in this segment, and in no other.
            let in_part = if sent_in_part { std::mem::take(&mut flight.to.records) } else { 0 };
            flight.orphaned += (whole + u64::from(in_part)).saturating_sub(done);
            let to = flight.to.seq;
            let under_way = |header: &Header| header.signal == signal && header.seq <= to;
            flight.reports.extend(reports.extract_if(.., |(header, _)| under_way(header)));
        }
        lane.leave(number);
        *self.state.marks.get_mut(signal) = Mark { seq: Seq::new(number, u32::MAX), records: 0 };
        self.state.ledger.drop(Tally { signal, reason: Reason::Overflow, records });
        records
    }
}
