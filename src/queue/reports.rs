//! Drop reports in the queue. Whoever adds up what reports say must come to what was dropped, so a report that may have
//! arrived is never made anew: where its segment goes, the report itself moves on, and comes again with the same
//! `log.record.uid` if at all.

use super::frame::Kind;
use super::lane::{Flight, Item, Stored};
use super::ledger::{Ledger, Reason, Tally};
use super::store::Queue;
use crate::Signal;

/// Reports of one segment that move on when it goes, some 500 bytes each. Any others are given up with it, and what they
/// said is reported anew.
const REPORTS_MOVED_MAX: usize = 64;

impl Queue {
    /// What was given up and is to be reported now. Not what may still turn out to have arrived: records and reports whose
    /// segment went while they were under way.
    pub fn unreported(&self) -> Vec<Tally> {
        let mut ledger = self.state.ledger;
        for (signal, lane) in self.lanes.iter() {
            if let Some(flight) = &lane.flight {
                flight.arrive(signal, &mut ledger);
            }
        }
        ledger.unreported()
    }

    /// Takes out the reports among `waiting`.
    pub(super) fn reports_among(&mut self, waiting: &[Item]) -> Vec<Stored> {
        let mut reports = Vec::new();
        for item in waiting.iter().filter(|item| item.is_report()).take(REPORTS_MOVED_MAX) {
            let mut payload = Vec::new();
            if self.read_payload(item, &mut payload).is_ok() {
                reports.push((item.header, payload));
            }
        }
        reports
    }

    /// Queues reports once more that were taken out. What the ledger has on disk is that they are gone: one that finds no
    /// room is made anew.
    pub(super) fn report_again(&mut self, reports: Vec<Stored>) {
        for (mut header, payload) in reports {
            let Kind::Report(tally) = header.kind else { continue };
            let before = header.seq;
            if self.put(&mut header, &payload).is_err() {
                return;
            }
            self.state.ledger.report(tally);
            self.state.reported = header.seq;
            if self.state.told == before {
                self.state.told = header.seq;
            }
        }
    }
}

impl Flight {
    /// Notes in `ledger` that the request has arrived, and with it what was dropped meanwhile.
    pub(super) fn arrive(&self, signal: Signal, ledger: &mut Ledger) {
        ledger.undrop(Tally { signal, reason: Reason::Overflow, records: self.orphaned });
        for (header, _) in &self.reports {
            if let Kind::Report(tally) = header.kind {
                ledger.report(tally);
            }
        }
    }
}
