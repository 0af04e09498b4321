//! What becomes of requests, of the records in them, and of segments that are needed no longer.

use super::frame::Seq;
use super::index::Entry;
use super::lane::Item;
use super::ledger::{Reason, Tally};
use super::scan::{Position, Step, step};
use super::state::Mark;
use super::store::{Queue, Remaining};
use crate::Signal;

/// Once everything is done, a newest segment larger than this is replaced by an empty one.
const DRAINED_SEGMENT_MAX_BYTES: u64 = 128 << 10;

impl Queue {
    /// The request up to `to` was taken.
    pub fn done(&mut self, signal: Signal, to: Mark) {
        self.land(signal);
        self.advance(signal, to);
    }

    /// The request up to `to` was taken, but `rejected` of its records were not (OTLP partial success).
    pub fn done_but(&mut self, signal: Signal, to: Mark, rejected: u64) {
        self.state.ledger.drop(Tally { signal, reason: Reason::Rejected, records: rejected });
        self.done(signal, to);
    }

    /// The request up to `to` will never be taken: its records are given up and counted.
    pub fn refuse(&mut self, signal: Signal, to: Mark, reason: Reason) {
        // What was dropped from the queue meanwhile was counted then.
        self.keep(signal);
        let records = self.user_records_until(signal, to);
        self.state.ledger.drop(Tally { signal, reason, records });
        self.advance(signal, to);
    }

    /// The request in flight was not taken, or nobody knows: its records stay.
    pub fn keep(&mut self, signal: Signal) {
        self.lanes.get_mut(signal).flight = None;
    }

    /// Ends the flight; what was dropped meanwhile has arrived after all.
    fn land(&mut self, signal: Signal) {
        if let Some(flight) = self.lanes.get_mut(signal).flight.take()
            && flight.orphaned > 0
        {
            self.state.ledger.undrop(Tally { signal, reason: Reason::Overflow, records: flight.orphaned });
        }
    }

    /// Moves the mark of `signal` to `to`, saves it, and removes what is needed no longer.
    pub(super) fn advance(&mut self, signal: Signal, to: Mark) {
        let mark = *self.state.marks.get(signal);
        if to <= mark {
            self.save_state();
            return;
        }
        let lane = self.lanes.get_mut(signal);
        while let Some(item) = lane.pop_through(to) {
            if item.lost_before > 0 {
                let records = u64::from(item.lost_before);
                self.state.ledger.drop(Tally { signal, reason: Reason::Damaged, records });
            }
            if let Some(waiting) =
                self.remaining.get_mut(&item.header.seq.segment()).map(|r| r.get_mut(signal))
            {
                waiting.blocks = waiting.blocks.saturating_sub(1);
                waiting.records = waiting.records.saturating_sub(item.header.user_records());
                waiting.plain_bytes = waiting.plain_bytes.saturating_sub(u64::from(item.header.plain_len));
            }
        }
        *self.state.marks.get_mut(signal) = to;
        self.save_state();
        self.retire();
    }

    /// Removes segments that have nothing waiting.
    pub(super) fn retire(&mut self) {
        let fragment = self.state.fragment;
        let keeps_fragment = move |number: u32| fragment != Seq::default() && fragment.segment() == number;
        let drained = |remaining: &Remaining| remaining.iter().all(|(_, waiting)| waiting.blocks == 0);
        if let Some(active) = self.store.active()
            && self.store.len(active).is_some_and(|len| len > DRAINED_SEGMENT_MAX_BYTES)
            && self.remaining.get(&active).is_some_and(drained)
            && !keeps_fragment(active)
        {
            // If no new one can be begun, the old one stays.
            drop(self.begin_segment());
        }
        let active = self.store.active();
        let newest = self.store.all().next_back().map(|(number, _)| number);
        let done: Vec<u32> = self
            .remaining
            .iter()
            .filter(|(number, remaining)| {
                // The newest one carries the state.
                Some(**number) != active
                    && Some(**number) != newest
                    && !keeps_fragment(**number)
                    && drained(remaining)
            })
            .map(|(number, _)| *number)
            .collect();
        for number in done {
            // A count from the index is no evidence: its frames are.
            if self.unverified.contains(&number) {
                self.count(number);
                if !self.remaining.get(&number).is_some_and(drained) {
                    continue;
                }
            }
            self.forget(number);
        }
    }

    pub(super) fn forget(&mut self, number: u32) {
        self.store.remove(number);
        self.remaining.remove(&number);
        self.unverified.remove(&number);
        self.note(Entry::Removed(number));
    }

    /// Puts the state on disk. If that fails, what was done since is repeated after a crash.
    pub(super) fn save_state(&mut self) {
        self.state.generation += 1;
        self.note(Entry::State(Box::new(self.state)));
        if self.store.active().is_none() && self.begin_segment().is_ok() {
            return;
        }
        if let Err(error) = self.store.write_state(&self.state) {
            log::warn!("queue: cannot save the state: {error}");
        }
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
                Step::Frame(header, payload_offset) if header.seq == seq => {
                    let item = Item { header, payload_offset, lost_before: 0 };
                    if let Ok(body) = self.plain(&item) {
                        return Some((seq, header.received, body));
                    }
                    break;
                }
                Step::Frame(..) | Step::Damage(_) => {}
                Step::End => break,
            }
        }
        self.state.ledger.drop(Tally { signal: Signal::Logs, reason: Reason::Damaged, records: 1 });
        self.state.fragment = Seq::default();
        self.save_state();
        None
    }

    /// Counts records that never became part of the queue.
    pub fn count_drop(&mut self, tally: Tally) {
        self.state.ledger.drop(tally);
        self.save_state();
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
        for item in self.fill(signal).items() {
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

    /// Gives up the first `refused` records of `signal` that are not done, and notes that the `delivered` ones
    /// after those have arrived, in one step.
    pub fn settle(&mut self, signal: Signal, refused: u64, delivered: u64) {
        let refused_to = self.mark_after(signal, refused);
        let to = self.mark_after(signal, refused.saturating_add(delivered));
        let records = self.user_records_until(signal, refused_to);
        self.state.ledger.drop(Tally { signal, reason: Reason::Refused, records });
        self.keep(signal);
        self.advance(signal, to);
    }

    /// Records of the user's between the mark of `signal` and `to`.
    fn user_records_until(&mut self, signal: Signal, to: Mark) -> u64 {
        let mark = *self.state.marks.get(signal);
        let items: Vec<Item> = self.fill(signal).items().copied().collect();
        let whole: u64 =
            items.iter().take_while(|i| i.header.seq <= to.seq).map(|i| i.header.user_records()).sum();
        let in_part = items
            .iter()
            .find(|i| i.header.seq > to.seq)
            .map_or(0, |item| u64::from(to.records).min(item.header.user_records()));
        (whole + in_part).saturating_sub(u64::from(mark.records))
    }
}
