//! What becomes of requests, of the records in them, and of segments that are needed no longer.

use super::frame::{Kind, Seq};
use super::lane::Item;
use super::ledger::{Reason, Tally};
use super::notes::Entry;
use super::scan::{Position, Step, step};
use super::segments::StoreError;
use super::state::{Mark, Outstanding};
use super::store::Queue;
use super::totals::Totals;
use crate::{PerSignal, Signal};

/// Once everything is done, a newest segment larger than this is replaced by an empty one.
const DRAINED_SEGMENT_MAX_BYTES: u64 = 128 << 10;

impl Queue {
    /// The request up to `to` was taken.
    pub fn done(&mut self, signal: Signal, to: Mark) {
        if self.is_of_this_queue(signal, to) {
            self.land(signal);
            self.advance(signal, to);
        }
    }

    /// Whether `to` is known to mean the frames that the request was made of. After a panic the queue was opened anew since
    /// the request began, and numbers that stood for frames in memory may stand for others.
    fn is_of_this_queue(&self, signal: Signal, to: Mark) -> bool {
        match &self.lanes.get(signal).flight {
            Some(flight) => flight.to.seq == to.seq,
            None => {
                to.records == 0 && to.seq.segment() < self.first_own
                    || self.lanes.get(signal).left == Some(to)
            }
        }
    }

    /// The request up to `to` was taken, but `rejected` of its records were not (OTLP partial success).
    pub fn done_but(&mut self, signal: Signal, to: Mark, rejected: u64) {
        if self.is_of_this_queue(signal, to) {
            self.state.ledger.drop(Tally { signal, reason: Reason::Rejected, records: rejected });
            self.done(signal, to);
        }
    }

    /// The request up to `to` was taken by the backend: `records` of the user's; `rejected` more of them were not.
    pub fn delivered(&mut self, signal: Signal, to: Mark, records: u64, rejected: u64) {
        if self.is_of_this_queue(signal, to) {
            self.state.ledger.deliver(signal, records);
            self.done_but(signal, to, rejected);
        }
    }

    /// The request up to `to` was taken by the fallback: `records` of the user's; `rejected` more of them were not.
    pub fn handed_over(&mut self, signal: Signal, to: Mark, records: u64, rejected: u64) {
        if self.is_of_this_queue(signal, to) {
            self.state.ledger.hand_over(signal, records);
            self.done_but(signal, to, rejected);
        }
    }

    /// The request up to `to` will never be taken: its records are given up and counted.
    pub fn refuse(&mut self, signal: Signal, to: Mark, reason: Reason) {
        // What was dropped from the queue meanwhile was counted then.
        self.keep(signal);
        let records = self.user_records_until(signal, to);
        self.state.ledger.drop(Tally { signal, reason, records });
        self.unreport_until(signal, to);
        self.advance(signal, to);
    }

    /// The request in flight was not taken, or nobody knows: its records stay.
    pub fn keep(&mut self, signal: Signal) {
        let lane = self.lanes.get_mut(signal);
        lane.asked_for = Seq::default();
        if let Some(flight) = lane.flight.take() {
            self.report_again(flight.reports);
        }
    }

    /// Ends the flight; what was dropped meanwhile has arrived after all.
    fn land(&mut self, signal: Signal) {
        let lane = self.lanes.get_mut(signal);
        lane.asked_for = Seq::default();
        lane.left = None;
        if let Some(flight) = lane.flight.take() {
            flight.arrive(signal, &mut self.state.ledger);
        }
    }

    /// Moves the mark of `signal` to `to`, saves it, and removes what is needed no longer.
    pub(super) fn advance(&mut self, signal: Signal, to: Mark) {
        let mark = *self.state.marks.get(signal);
        if to <= mark {
            drop(self.save_state());
            return;
        }
        let lane = self.lanes.get_mut(signal);
        while let Some(item) = lane.pop_through(to) {
            if let Some(remaining) = self.remaining.get_mut(&item.header.seq.segment()) {
                remaining.get_mut(signal).take(&item.header);
            }
        }
        *self.state.marks.get_mut(signal) = to;
        self.fill(signal, 0);
        self.count_lost(signal);
        drop(self.save_state());
        self.retire();
    }

    /// Counts blocks that were waiting in a segment and are not there any more.
    fn count_lost(&mut self, signal: Signal) {
        let seen_before = self.lanes.get(signal).seen_before();
        let mut records = 0;
        for (_, remaining) in self.remaining.range_mut(..seen_before) {
            let waiting = remaining.get_mut(signal);
            if waiting.blocks > 0 {
                records += std::mem::take(waiting).records;
            }
        }
        if records > 0 {
            if self.damage.counted(records) > 0 {
                log::warn!(
                    "queue: {records} records of {signal} are damaged or were removed by somebody else{}",
                    self.own.for_whom()
                );
            }
            self.state.ledger.drop(Tally { signal, reason: Reason::Damaged, records });
        }
    }

    /// Removes segments that have nothing waiting.
    pub(super) fn retire(&mut self) {
        if !self.is_first() {
            // Once the first is back at the desk, whose state goes with the segments.
            self.retire_owed = true;
            return;
        }
        // What is counted must be on disk before what was counted goes.
        if !self.are_saved() {
            return;
        }
        let fragment = self.state.fragment;
        let keeps_fragment = move |number: u32| fragment != Seq::default() && fragment.segment() == number;
        if let Some(active) = self.store.active()
            && self.store.len(active).is_some_and(|len| len > DRAINED_SEGMENT_MAX_BYTES)
            && self.is_drained(active)
            && !keeps_fragment(active)
        {
            // If no new one can be begun, the old one stays.
            drop(self.begin_segment());
        }
        let active = self.store.active();
        let done: Vec<u32> = self
            .remaining
            .keys()
            .copied()
            .filter(|number| {
                Some(*number) != active
                    && !self.store.carries_state(*number)
                    && !keeps_fragment(*number)
                    && self.is_drained(*number)
            })
            .collect();
        for number in done {
            // A count from the index is no evidence: its frames are.
            if self.unverified.contains(&number) && !(self.count(number) && self.is_drained(number)) {
                continue;
            }
            if self.state.carry.segment() == number && !self.move_carry() {
                continue;
            }
            self.forget(number);
        }
    }

    /// Copies the carry frame to the newest segment, because the one it lies in is to go. Returns whether that may go
    /// now.
    fn move_carry(&mut self) -> bool {
        let found = self.find(self.state.carry).filter(|item| item.header.kind == Kind::Carry);
        let Some(item) = found else { return true };
        let mut payload = Vec::new();
        match self.read_payload(&item, &mut payload) {
            Ok(()) => {}
            Err(error) => return error.is_lasting(),
        }
        let mut header = item.header;
        let moved = self.put(&mut header, &payload).is_ok();
        if moved {
            self.state.carry = header.seq;
        }
        moved
    }

    /// What the newest carry frame holds. `None` if there is none, or if it cannot be read.
    pub fn carry(&mut self) -> Option<Vec<u8>> {
        let item = self.find(self.state.carry).filter(|item| item.header.kind == Kind::Carry)?;
        let mut payload = Vec::new();
        self.read_payload(&item, &mut payload).ok()?;
        Some(payload)
    }

    /// The frame `seq`, if it is there and can be read now.
    fn find(&mut self, seq: Seq) -> Option<Item> {
        if seq == Seq::default() {
            return None;
        }
        let mut position = Position::start_of(seq.segment());
        loop {
            match step(&mut self.store, &mut position) {
                Step::Frame(header, payload_offset) if header.seq == seq => {
                    return Some(Item { header, payload_offset });
                }
                Step::Frame(..) | Step::Damage(_) => {}
                Step::Unreadable | Step::End => return None,
            }
        }
    }

    pub(super) fn forget(&mut self, number: u32) {
        self.store.remove(number);
        self.remaining.remove(&number);
        self.unverified.remove(&number);
        self.lowest.remove(&number);
        for reader in &mut self.others {
            reader.remaining.remove(&number);
        }
        self.note(Entry::Removed(number));
    }

    /// Puts the state on disk.
    ///
    /// # Errors
    /// If that fails, what was done since is repeated after a crash, and nothing is removed until it works.
    pub(super) fn save_state(&mut self) -> Result<(), StoreError> {
        if !self.is_first() {
            return self.save_reader();
        }
        self.state.generation += 1;
        if self.store.active().is_none() && self.begin_segment().is_ok() {
            self.note_state();
            return Ok(());
        }
        let next = self.next_seq();
        self.state.outstanding =
            if next == Seq::default() { Outstanding::default() } else { self.outstanding(next) };
        self.state.unread = self.unread();
        let written = self.store.write_state(&self.state);
        if written.is_ok() {
            self.appended_since_saved = 0;
        }
        if let (Err(error), false) = (&written, self.unsaved) {
            log::warn!("queue: cannot save the state: {error}");
        }
        self.unsaved = written.is_err();
        // After the segment, so that a process that dies in between leaves the segments ahead. Where these refuse it, the
        // index may be all that knows.
        self.note_state();
        written
    }

    /// Tells the index of a state that no segment on disk has, and once more when one has it again: it must not be left
    /// with an older one, or with that of an earlier process. Otherwise the segments say it all, and a row, a thread that
    /// wakes and a flush for each request would be for nothing.
    fn note_state(&mut self) {
        let is_alone = self.unsaved || self.degraded;
        if is_alone || self.index_is_behind {
            self.note(Entry::State(Box::new(self.state)));
        }
        self.index_is_behind = is_alone;
    }

    /// The body of the first part of a cut record that waits for the rest, and when it came (Unix ns).
    pub fn fragment(&mut self) -> Option<(Seq, u64, Vec<u8>)> {
        let seq = self.state.fragment;
        if seq == Seq::default() {
            return None;
        }
        let mut position = Position::start_of(seq.segment());
        loop {
            match step(&mut self.store, &mut position) {
                // Another frame in its place is none of it.
                Step::Frame(header, _) if header.seq == seq && header.kind != Kind::Fragment => break,
                Step::Frame(header, payload_offset) if header.seq == seq => {
                    match self.plain(&Item { header, payload_offset }) {
                        Ok(body) => return Some((seq, header.received, body)),
                        Err(error) if error.is_lasting() => break,
                        Err(_) => return None,
                    }
                }
                Step::Frame(..) | Step::Damage(_) => {}
                Step::Unreadable => return None,
                Step::End => break,
            }
        }
        self.state.ledger.drop(Tally { signal: Signal::Logs, reason: Reason::Damaged, records: 1 });
        self.state.settle_fragment();
        drop(self.save_state());
        None
    }

    /// The fragment `seq` was completed, and nothing came of it.
    pub fn forget_fragment(&mut self, seq: Seq) {
        if self.state.fragment == seq {
            self.state.settle_fragment();
            drop(self.save_state());
        }
    }

    /// Counts records that never became part of the queue.
    pub fn count_drop(&mut self, tally: Tally) {
        self.state.ledger.drop(tally);
        drop(self.save_state());
    }

    /// Notes that a delivery was dealt with without leaving anything in the queue.
    pub fn note_whole(&mut self, delivery: u128) {
        self.deliveries.note_whole(delivery);
    }

    // === Records rather than blocks ===

    /// The mark that says `records` more of `signal` are done than now. It may lie in a later block; it never
    /// lies behind the last one in sight.
    pub fn mark_after(&mut self, signal: Signal, records: u64) -> Mark {
        let mut mark = *self.state.marks.get(signal);
        let mut left = records;
        self.fill(signal, u32::MAX);
        for item in self.lanes.get(signal).items() {
            let of_block = u64::from(item.header.records.saturating_sub(mark.records));
            if left < of_block {
                mark.records = mark.records.saturating_add(left as u32);
                return mark;
            }
            left -= of_block;
            mark = Mark { seq: item.header.seq, records: 0 };
            if left == 0 {
                break;
            }
        }
        mark
    }

    /// The first `records` of `signal` that are not done were taken, of a request that held more. Gives the number of the
    /// user's among these.
    pub fn took(&mut self, signal: Signal, records: u64) -> u64 {
        self.keep(signal);
        if !self.is_judged(signal) {
            return 0;
        }
        let to = self.mark_after(signal, records);
        let arrived = self.user_records_until(signal, to);
        self.state.ledger.deliver(signal, arrived);
        self.advance(signal, to);
        arrived
    }

    /// Gives up the first `refused` records of `signal` that are not done, and notes that the `delivered` one after those
    /// has arrived, in one step: the alibi that was sent last, and no other in its place. Gives the number of the user's
    /// records that arrived.
    pub fn settle(&mut self, signal: Signal, refused: u64, delivered: u64) -> u64 {
        self.keep(signal);
        if !self.is_judged(signal) {
            return 0;
        }
        let refused_to = self.mark_after(signal, refused);
        let alibi = self.lanes.get_mut(signal).alibi.take();
        let is_next = alibi.is_some_and(|alibi| self.follows(signal, refused_to, alibi));
        let to = self.mark_after(signal, refused.saturating_add(if is_next { delivered } else { 0 }));
        let records = self.user_records_until(signal, refused_to);
        let arrived = self.user_records_until(signal, to).saturating_sub(records);
        self.state.ledger.drop(Tally { signal, reason: Reason::Refused, records });
        self.state.ledger.deliver(signal, arrived);
        self.unreport_until(signal, refused_to);
        self.advance(signal, to);
        arrived
    }

    /// Whether the oldest block of `signal` may have been judged. As with what a request was made of: only what this queue
    /// has sent, or an earlier process kept, was.
    fn is_judged(&mut self, signal: Signal) -> bool {
        self.fill(signal, u32::MAX);
        let lane = self.lanes.get(signal);
        lane.head()
            .is_some_and(|head| head.header.seq <= lane.sent_to || head.header.seq.segment() < self.first_own)
    }

    /// Whether the first record of `signal` after `mark` is record `place` of block `seq`.
    fn follows(&self, signal: Signal, mark: Mark, (seq, place): (Seq, u32)) -> bool {
        let next = self.lanes.get(signal).items().find(|item| item.header.seq > mark.seq);
        place == mark.records && next.is_some_and(|item| item.header.seq == seq)
    }

    // === Telling ===

    /// What became of records and was not told yet.
    pub fn untold(&self) -> PerSignal<Totals> {
        PerSignal::from_fn(|signal| self.state.ledger.untold(signal, self.waiting(signal).records))
    }

    /// Whether what was told last still waits to be sent.
    pub fn is_telling(&self) -> bool {
        let mark = if self.wants(Signal::Metrics) { self.state.marks } else { self.least_marks() };
        self.state.told > mark.get(Signal::Metrics).seq
    }

    /// The report that was appended last tells `totals`, up to `now` (Unix nanoseconds).
    pub fn told(&mut self, totals: &PerSignal<Totals>, now: u64) {
        for (signal, totals) in totals.iter() {
            self.state.ledger.tell(signal, totals);
        }
        self.state.told = self.state.reported;
        self.state.told_at = now;
        drop(self.save_state());
    }

    /// What reports up to `to` said is to be said again: they are given up.
    fn unreport_until(&mut self, signal: Signal, to: Mark) {
        if !self.is_first() {
            return;
        }
        self.fill(signal, u32::MAX);
        for item in self.lanes.get(signal).items().take_while(|item| item.header.seq <= to.seq) {
            if let Kind::Report(tally) = item.header.kind {
                self.state.ledger.unreport(tally);
            }
        }
    }

    /// Records of the user's between the mark of `signal` and `to`.
    fn user_records_until(&mut self, signal: Signal, to: Mark) -> u64 {
        let mark = *self.state.marks.get(signal);
        self.fill(signal, u32::MAX);
        let items: Vec<Item> = self.lanes.get(signal).items().copied().collect();
        let whole: u64 =
            items.iter().take_while(|i| i.header.seq <= to.seq).map(|i| i.header.user_records()).sum();
        let in_part = items
            .iter()
            .find(|i| i.header.seq > to.seq)
            .map_or(0, |item| u64::from(to.records).min(item.header.user_records()));
        // A report has records of ours alone.
        let done = items.first().map_or(0, |item| u64::from(mark.records).min(item.header.user_records()));
        (whole + in_part).saturating_sub(done)
    }
}

#[cfg(test)]
mod tests {
    use crate::Signal;
    use crate::encode::Otlp;
    use crate::queue::corners::delivery;
    use crate::queue::notes::{Entry, Index};
    use crate::queue::{Encoding, Kind, Limits, Overflow, Queue, RealDisk};
    use std::path::Path;
    use std::sync::mpsc::Receiver;

    fn open(dir: &Path) -> (Queue, Receiver<Entry>) {
        let limits = Limits::new(64 << 20, Overflow::DropOldest);
        let mut queue = Queue::open(Box::new(RealDisk), dir, limits, 7).0;
        let (index, noted) = Index::tapped();
        queue.index = Some(index);
        (queue, noted)
    }

    /// Keeps a block, sends it, and has it acknowledged.
    fn cycle(queue: &mut Queue, number: u128) {
        append(queue, number);
        let request = queue.assemble(Signal::Logs, &Otlp, Encoding::Gzip, 1 << 20, 9).unwrap();
        queue.delivered(Signal::Logs, request.to, 1, 0);
    }

    fn states(noted: &Receiver<Entry>) -> usize {
        noted.try_iter().filter(|entry| matches!(entry, Entry::State(_))).count()
    }

    #[test]
    fn an_acknowledgement_that_a_segment_has_costs_the_index_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, noted) = open(dir.path());
        cycle(&mut queue, 0);
        assert_eq!(states(&noted), 1, "what an earlier process left there does not outlive this one");
        (1..20).for_each(|number| cycle(&mut queue, number));
        assert_eq!(noted.try_iter().count(), 0);
    }

    fn append(queue: &mut Queue, number: u128) {
        let mut delivery = delivery(number, Signal::Logs, Kind::Block { joins: None });
        delivery.blocks[0].records = 1;
        queue.append(&delivery).unwrap();
    }

    #[test]
    fn what_was_judged_before_the_queue_was_opened_anew_condemns_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _) = open(dir.path());
        queue.stand_in();
        append(&mut queue, 1);
        let judged = queue.assemble(Signal::Logs, &Otlp, Encoding::Gzip, 1 << 20, 9).unwrap().head;
        queue.keep(Signal::Logs);
        // As after a panic: what memory held is gone.
        let (mut queue, _) = open(dir.path());
        append(&mut queue, 2);
        assert_eq!(queue.oldest(Signal::Logs).map(|oldest| oldest.seq), Some(judged), "the same number");
        queue.settle(Signal::Logs, 1, 0);
        assert_eq!((queue.ledger().dropped(Signal::Logs), queue.waiting(Signal::Logs).records), (0, 1));
        queue.assemble(Signal::Logs, &Otlp, Encoding::Gzip, 1 << 20, 9).unwrap();
        queue.settle(Signal::Logs, 1, 0);
        assert_eq!(queue.ledger().dropped(Signal::Logs), 1);
    }

    #[test]
    fn a_delivery_that_is_told_after_the_end_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _) = open(dir.path());
        append(&mut queue, 1);
        let request = queue.assemble(Signal::Logs, &Otlp, Encoding::Gzip, 1 << 20, 9).unwrap();
        queue.close();
        // The summary may be asked for more than once.
        queue.close();
        queue.delivered(Signal::Logs, request.to, 1, 0);
        queue.delivered(Signal::Logs, request.to, 1, 0);
        drop(queue);
        let (mut queue, _) = open(dir.path());
        while queue.count_one() {}
        assert_eq!((queue.waiting(Signal::Logs).records, queue.ledger().delivered(Signal::Logs)), (0, 1));
    }

    #[test]
    fn what_no_segment_on_disk_has_is_told_to_the_index() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, noted) = open(dir.path());
        cycle(&mut queue, 0);
        states(&noted);
        queue.stand_in();
        (1..4).for_each(|number| cycle(&mut queue, number));
        assert_eq!(states(&noted), 3);
        assert!(queue.try_disk());
        cycle(&mut queue, 4);
        cycle(&mut queue, 5);
        assert_eq!(states(&noted), 1, "that the disk has it again");
    }
}
