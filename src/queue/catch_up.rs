//! Catching up with an index that knows more than the segments do: where these took no state, it may be all that has it.

use super::frame::Seq;
use super::lane::Lane;
use super::ledger::{Ledger, Tally};
use super::scan::Position;
use super::state::{Mark, State};
use super::store::Queue;

/// What the segments said when they were opened, for the comparison with an index that opens later.
#[derive(Default)]
pub(super) struct AtOpen {
    generation: u64,
    ledger: Ledger,
    /// Reports that the ledger did not know of, at most those of two segments.
    pub(super) reports: Vec<(Seq, Tally)>,
}

impl AtOpen {
    pub(super) fn new(state: &State) -> Self {
        Self { generation: state.generation, ledger: state.ledger, reports: Vec::new() }
    }
}

impl Queue {
    /// The index may have seen what could not be written into a segment: what is done, and with it what was counted by
    /// that, for the one without the other would be a loss that nobody hears of.
    pub(super) fn catch_up_with(&mut self, ahead: &State) {
        if ahead.generation <= self.found.generation {
            return;
        }
        let mut known = self.found.ledger;
        for (seq, tally) in &self.found.reports {
            // What the other knows of as well was counted there.
            if *seq <= ahead.reported {
                known.report(*tally);
            }
        }
        // Reports in memory went with it: what they said is said again.
        let reports_found = ahead.reported.segment() < self.first_own;
        let told_found = ahead.told.segment() < self.first_own;
        self.state.ledger.catch_up(&ahead.ledger, &known, reports_found, told_found);
        self.state.generation = self.state.generation.max(ahead.generation);
        // It may speak of segments that were in memory only, whose numbers were given out again since.
        let all_found = Mark { seq: Seq::new(self.first_own.saturating_sub(1), u32::MAX), records: 0 };
        for (signal, mark) in ahead.marks.iter() {
            let to = (*mark).min(all_found);
            // What is under way goes on: better sent and counted than neither.
            if to > *self.state.marks.get(signal) && !self.in_flight(signal) {
                *self.state.marks.get_mut(signal) = to;
                *self.lanes.get_mut(signal) = Lane::new(signal, Position::start_of(0));
                // Counted when the mark was elsewhere.
                let first_own = self.first_own;
                self.remaining.retain(|number, _| *number >= first_own);
                self.unverified.clear();
                self.own.expected = None;
            }
        }
        drop(self.save_state());
    }
}
