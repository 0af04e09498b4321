//! The end of the process: what only memory holds does not outlive it.

use super::frame::{Kind, Seq};
use super::lane::Flight;
use super::ledger::{Reason, Tally};
use super::scan::walk;
use super::state::Mark;
use super::store::{Queue, Remaining};
use crate::Signal;

impl Queue {
    /// The process ends now. What is in memory goes to disk; if the disk still takes nothing, it is counted as given up,
    /// in place at the head of a segment file if there is one, which takes no room: the next process reports it. From
    /// here on nothing is kept in memory any more. Returns the records given up.
    pub fn close(&mut self) -> u64 {
        self.tell_overflow();
        for reader in self.readers() {
            let mut queue = self.at(reader);
            for signal in Signal::ALL {
                // Hardly anybody will learn what becomes of a request now. If it is told all the same, and its blocks are
                // where they were, it is noted.
                let flight = queue.lanes.get(signal).flight.as_ref();
                let is_whole = |flight: &&Flight| flight.orphaned == 0 && flight.reports.is_empty();
                let left = flight.filter(is_whole).map(|flight| flight.to);
                queue.keep(signal);
                let lane = queue.lanes.get_mut(signal);
                lane.left = left.or(lane.left);
            }
        }
        // What memory holds needs it until then.
        let is_on_disk = !self.degraded || self.try_disk();
        self.store.keep_nothing_in_memory();
        if is_on_disk {
            self.save_for_the_next();
            return 0;
        }
        let Some(number) = self.store.active() else { return 0 };
        let mut lost = 0;
        for reader in self.readers() {
            lost = self.at(reader).lose_memory(number).max(lost);
        }
        if self.state.fragment.segment() == number && self.state.fragment != Seq::default() {
            self.state.ledger.drop(Tally { signal: Signal::Logs, reason: Reason::Unsaved, records: 1 });
            self.state.fragment = Seq::default();
            lost += 1;
        }
        if self.state.carry.segment() == number {
            self.state.carry = Seq::default();
        }
        if lost > 0 {
            log::error!(
                "queue: the disk takes nothing to the end: {lost} records that only memory holds are dropped"
            );
        }
        // If there is no file to note it in, the line above is all there is.
        drop(self.save_all());
        lost
    }

    /// Counts what segment `number`, which is in memory, holds for the reader at the desk as given up.
    fn lose_memory(&mut self, number: u32) -> u64 {
        let marks = self.state.marks;
        let mut reports = Vec::new();
        walk(&mut self.store, number, |header, _| match header.kind {
            Kind::Report(tally) if *marks.get(header.signal) < (Mark { seq: header.seq, records: 0 }) => {
                reports.push(tally);
            }
            _ => {}
        });
        if self.is_first() {
            for tally in reports {
                self.state.ledger.unreport(tally);
            }
        }
        for signal in Signal::ALL {
            self.lanes.get_mut(signal).left.take_if(|left| left.seq.segment() >= number);
        }
        // Counted, and nothing waits in it any more: not to be counted again.
        let held = self.remaining.insert(number, Remaining::default()).unwrap_or_default();
        let mut lost = 0;
        for (signal, held) in held.iter() {
            // Segments that are not counted yet may hold it.
            let elsewhere = self.remaining.values().any(|remaining| remaining.get(signal).blocks > 0)
                || self.store.all().any(|(other, _)| other != number && !self.remaining.contains_key(&other));
            // Of the oldest block, some records may be done.
            let done = if elsewhere { 0 } else { u64::from(marks.get(signal).records) };
            let records = held.records.saturating_sub(done);
            self.state.ledger.drop(Tally { signal, reason: Reason::Unsaved, records });
            lost += records;
        }
        lost
    }
}
