//! What is told of records and of what became of them: reports of drops, what an alert says, the counts of the end. Each
//! destination that is served from the queue has its own.

use super::intake::{Intake, Lost};
use super::{Fared, Standing, Summary, report};
use crate::logging::Pace;
use crate::queue::{Appended, Batch, Kind, Queue, ReaderId, Tally};
use crate::rules::RuleSet;
use crate::{PerSignal, Signal, clock};
use std::time::Duration;

/// Drops are reported to the backend at most this often, so that a report which is itself rejected does not
/// beget another at once.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// A destination that is served from the queue.
pub(super) struct Patron {
    /// `None`: the main one.
    name: Option<String>,
    /// It took the last request, or none was made yet.
    pub(super) takes: bool,
    /// When its drops may be reported again.
    report_from: Duration,
    pub(super) delivered: u64,
    /// Records that were given up before [`Intake::standing`] was asked last, or this process began.
    dropped_before: u64,
}

impl Patron {
    /// The one at the desk of `queue`.
    pub(super) fn of(queue: &Queue) -> Self {
        Self {
            name: queue.reader_name().map(str::to_owned),
            takes: true,
            report_from: Duration::ZERO,
            delivered: 0,
            dropped_before: dropped(queue),
        }
    }
}

/// What is to be told on stderr, of which there may be more with every delivery.
#[derive(Default)]
pub(super) struct Untold {
    pace: Pace,
    /// Bodies that are no telemetry, and their bytes.
    pub(super) unreadable: (u64, u64),
    /// What Lambda says it dropped: records and bytes.
    pub(super) lost: (u64, u64),
}

impl Intake {
    /// Says on stderr what was given up and not told yet, if the last lines are not fresh.
    pub(super) fn tell_losses(&mut self) {
        let now = self.clock.now();
        let Untold { unreadable, lost, pace } = &mut self.untold;
        let is_told = !self.queue.owes_overflow() && [*unreadable, *lost] == [(0, 0); 2];
        if !is_told && pace.allows(now) {
            self.tell_losses_now();
        }
    }

    /// Says so, whenever the last lines were.
    pub(super) fn tell_losses_now(&mut self) {
        self.queue.tell_overflow();
        let (bodies, bytes) = std::mem::take(&mut self.untold.unreadable);
        if bodies == 1 {
            log::warn!("a delivery of {bytes} bytes is not telemetry; counted and left");
        } else if bodies > 0 {
            log::warn!("{bodies} deliveries of {bytes} bytes are not telemetry; counted and left");
        }
        let (records, bytes) = std::mem::take(&mut self.untold.lost);
        if (records, bytes) != (0, 0) {
            log::warn!("Lambda dropped {records} records ({bytes} bytes) before we got them");
        }
    }

    /// Queues reports of what was dropped, if the destination that did not get it takes anything and the last ones are
    /// not fresh.
    pub(super) fn report_drops(&mut self) {
        self.tell_losses();
        let (now, at_end) = (self.clock.now(), self.last_reports > 0);
        for reader in self.queue.readers() {
            let is_due = |patron: &Patron| patron.takes && (at_end || now >= patron.report_from);
            if self.patrons.get(reader.place()).is_some_and(is_due) {
                self.report_drops_of(reader);
            }
        }
    }

    /// Whether there are drops to report to a destination that takes anything.
    pub(super) fn owes_reports(&mut self) -> bool {
        let takers = self.queue.readers().zip(&self.patrons).filter(|(_, patron)| patron.takes);
        let mut takers = takers.map(|(reader, _)| reader);
        self.pipeline.makes(Signal::Logs)
            && takers.any(|reader| !self.queue.at(reader).unreported().is_empty())
    }

    /// Queues reports of what was dropped.
    pub(super) fn report_drops_now(&mut self) {
        for reader in self.queue.readers() {
            self.report_drops_of(reader);
        }
    }

    /// Queues reports of what was dropped for `reader`. All destinations of the queue get them.
    fn report_drops_of(&mut self, reader: ReaderId) {
        let tallies = self.queue.at(reader).unreported();
        // A report is a log record.
        if tallies.is_empty() || !self.pipeline.makes(Signal::Logs) {
            return;
        }
        let Some(patron) = self.patrons.get_mut(reader.place()) else { return };
        patron.report_from = self.clock.now().saturating_add(REPORT_INTERVAL);
        let name = patron.name.clone();
        for tally in tallies {
            self.reports += 1;
            self.last_reports = self.last_reports.saturating_sub(1);
            let received = clock::unix_now_nanos();
            let delivery =
                self.pipeline.uid_seed(&[received.to_le_bytes(), self.reports.to_le_bytes()].concat());
            let uid = format!("{delivery:032x}-0");
            let record = report::record(tally, name.as_deref(), received, &uid);
            // The frame says what the first reader is told of; what is told of another is noted with that.
            let said = if name.is_none() { tally } else { Tally { records: 0, ..tally } };
            let queued =
                self.pipeline.own_record(&record, Kind::Report(said)).map_err(Lost::from).and_then(
                    |blocks| self.append(&Batch { delivery, received, parts_before: 0, blocks }, 0),
                );
            // What finds no room is told another time.
            if matches!(queued, Err(_) | Ok(Appended::Dropped)) {
                return;
            }
            if name.is_some() {
                self.queue.at(reader).note_reported(tally);
            }
        }
    }

    pub(super) fn standing(&mut self, reader: ReaderId) -> Standing {
        let now = clock::unix_now_nanos();
        let mut queue = self.queue.at(reader);
        let dropped = dropped(&queue);
        let before = self.patrons.get_mut(reader.place()).map(|patron| &mut patron.dropped_before);
        let dropped_before = before.map_or(dropped, |before| std::mem::replace(before, dropped));
        Standing {
            function: self.pipeline.about.function_name.clone().unwrap_or_default(),
            records: Signal::ALL.iter().map(|signal| queue.waiting(*signal).records).sum(),
            bytes: queue.disk_bytes(),
            oldest_age: Signal::ALL
                .map(|signal| oldest_age(&mut queue, signal, now))
                .into_iter()
                .max()
                .unwrap_or_default(),
            dropped: dropped.saturating_sub(dropped_before),
        }
    }

    pub(super) fn summary(&mut self) -> Summary {
        let mut fared = Vec::with_capacity(self.patrons.len());
        for (reader, patron) in self.queue.readers().zip(&self.patrons) {
            let queue = self.queue.at(reader);
            let outcome = Fared {
                delivered: patron.delivered,
                handed: Signal::ALL.iter().map(|signal| queue.ledger().handed(*signal)).sum(),
                dropped: PerSignal::from_fn(|signal| queue.ledger().dropped(signal)),
                waiting: PerSignal::from_fn(|signal| queue.waiting(signal)),
            };
            fared.push((patron.name.clone().unwrap_or_default(), outcome));
        }
        let further = fared.split_off(1.min(fared.len()));
        Summary {
            received: self.received,
            main: fared.pop().map(|(_, outcome)| outcome).unwrap_or_default(),
            further,
            rules: self.pipeline.rule_set.iter().flat_map(RuleSet::counts).collect(),
        }
    }
}

/// How long the oldest of `signal` has waited at `now` (Unix nanoseconds); zero if nothing waits.
pub(super) fn oldest_age(queue: &mut Queue, signal: Signal, now: u64) -> Duration {
    let received = queue.oldest(signal).map_or(now, |oldest| oldest.received);
    Duration::from_nanos(now.saturating_sub(received))
}

/// Records given up since `queue` was made.
fn dropped(queue: &Queue) -> u64 {
    Signal::ALL.iter().map(|signal| queue.ledger().dropped(*signal)).sum()
}
