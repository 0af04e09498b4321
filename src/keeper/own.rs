//! What the extension tells of itself: now and then a set of `outlast.*` data points, in a block of its own.
//!
//! A set is made when a delivery brings data points of the user's, and goes before them: it shares their request, so it
//! wakes nobody, holds no invocation and begets no set. At SHUTDOWN there is one more. At most one waits at a time, and
//! none is made while the queue is nearly full, so sets displace nothing. On disk a set is a report that reports no
//! drop: its points count neither as received nor as delivered nor, should they go, as dropped.
//!
//! Records are not counted as they pass. What became of them is in the queue's ledger, which survives a crash; a set
//! says what was added since the last one. Only what is not about records (requests, durations) is kept in memory.

use super::intake::Intake;
use super::telling::oldest_age;
use crate::clock::{self, Time};
use crate::drain::policy::Target;
use crate::observe::{Points, own};
use crate::queue::{Appended, Batch, Kind, NewBlock, Reason, Tally, Totals};
use crate::{PerSignal, Signal};
use std::time::Duration;

/// What a set reports as dropped, for it is a report.
const NOTHING: Tally = Tally { signal: Signal::Metrics, reason: Reason::Overflow, records: 0 };

/// Something about the extension that only the lifecycle sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Vital {
    /// A request for the main destination ended.
    Request {
        /// The signal.
        signal: Signal,
        /// Where it went.
        target: Target,
        /// How it ended, in a word.
        result: &'static str,
        /// How long it took, freezes not counted, if it was answered.
        took: Option<Duration>,
        /// Whether the breaker is open now.
        breaker_open: bool,
    },
    /// An invocation was held for so long after its function was done.
    Held(Duration),
}

/// What is to be told.
pub(super) struct Own {
    /// How often; `None`: never.
    every: Option<Duration>,
    due: Time,
    points: Points,
    /// The last request failed.
    failed: PerSignal<bool>,
    breaker_open: bool,
    /// When this process began, Unix nanoseconds.
    began: u64,
    /// When the environment was restored from a snapshot, likewise; 0 if it was not.
    restored: u64,
    /// The pipeline's, which changes with a restore.
    nonce: u64,
}

impl Own {
    /// What a process tells every so often, that began when its clock stood at zero.
    pub(super) fn every(every: Option<Duration>, nonce: u64) -> Self {
        Self {
            every,
            due: every.unwrap_or_default(),
            points: Points::default(),
            failed: PerSignal::default(),
            breaker_open: false,
            began: clock::unix_now_nanos(),
            restored: 0,
            nonce,
        }
    }

    /// Takes note of `vital`.
    pub(super) fn note(&mut self, vital: Vital) {
        if self.every.is_none() {
            return;
        }
        let now = clock::unix_now_nanos();
        match vital {
            Vital::Request { signal, target, result, took, breaker_open } => {
                let labels =
                    [(own::SIGNAL, signal.name()), (own::TARGET, target.name()), (own::RESULT, result)];
                self.points.measure_own(&own::REQUESTS, now, 1.0, &labels);
                let [signal_label, target_label, _] = labels;
                if let Some(took) = took {
                    let labels = [target_label];
                    self.points.measure_own(&own::SEND_DURATION, now, took.as_secs_f64(), &labels);
                }
                let delivered = result == DELIVERED;
                if std::mem::replace(self.failed.get_mut(signal), !delivered) {
                    self.points.measure_own(&own::RETRIES, now, 1.0, &[signal_label]);
                }
                self.breaker_open = breaker_open;
            }
            Vital::Held(held) => {
                self.points.measure_own(&own::HOLD_DURATION, now, held.as_secs_f64(), &[]);
            }
        }
    }

    /// The backend has a request whose first record was received then (Unix nanoseconds).
    pub(super) fn flushed(&mut self, signal: Signal, received: u64) {
        if self.every.is_some() {
            let now = clock::unix_now_nanos();
            let took = Duration::from_nanos(now.saturating_sub(received));
            let labels = [(own::SIGNAL, signal.name())];
            self.points.measure_own(&own::FLUSH_DURATION, now, took.as_secs_f64(), &labels);
        }
    }

    /// Lambda says that it dropped so many records and bytes.
    pub(super) fn lost(&mut self, (records, bytes): (u64, u64)) {
        if self.every.is_some() && (records, bytes) != (0, 0) {
            let now = clock::unix_now_nanos();
            self.points.measure_own(&own::LOST_RECORDS, now, float(records), &[]);
            self.points.measure_own(&own::LOST_BYTES, now, float(bytes), &[]);
        }
    }

    /// The environment goes on from a snapshot, which others may do as well: what was before is not told here.
    fn notice_restore(&mut self, nonce: u64, now: u64) {
        if self.nonce != nonce {
            self.nonce = nonce;
            self.restored = now;
            self.points = Points::default();
        }
    }

    /// Where the interval of the next set begins, if the last one ended at `told` (0: there was none).
    fn since(&self, told: u64) -> u64 {
        if told == 0 { self.began.max(self.restored) } else { told.max(self.restored) }
    }
}

/// [`Outcome::Delivered`](crate::drain::policy::Outcome::Delivered) in a word.
const DELIVERED: &str = crate::drain::policy::Outcome::Delivered.name();

/// A set ends a millisecond after it began at least (`observe::points`), so the last one may end after now.
const AHEAD_MAX_NANOS: u64 = 1_000_000_000;

impl Intake {
    /// Tells what is to be told if it is time, before `blocks` are appended: only together with data points of the
    /// user's.
    pub(super) fn tell_own_with(&mut self, blocks: &[NewBlock]) {
        let Some(every) = self.own.every else { return };
        if !blocks
            .iter()
            .any(|block| block.signal == Signal::Metrics && matches!(block.kind, Kind::Block { .. }))
        {
            return;
        }
        self.own.notice_restore(self.pipeline.nonce, clock::unix_now_nanos());
        let now = self.clock.now();
        if now >= self.own.due && self.tell_own() {
            self.own.due = now.saturating_add(every);
        }
    }

    /// Tells what is to be told at SHUTDOWN.
    pub(super) fn tell_own_at_end(&mut self) {
        if self.own.every.is_some() {
            self.tell_own();
        }
    }

    /// Whether there is a new set.
    fn tell_own(&mut self) -> bool {
        let is_free = !self.queue.is_telling() && !self.queue.is_nearly_full();
        if !is_free || !self.pipeline.makes(Signal::Metrics) {
            return false;
        }
        let untold = self.queue.untold();
        if untold == PerSignal::default() {
            return false;
        }
        let now = clock::unix_now_nanos();
        let points = self.own_points(&untold, now);
        let since = self.own.since(self.queue.state().told_at);
        // A clock that was set back; less than that is an interval that was made longer than it was.
        let since = if since > now.saturating_add(AHEAD_MAX_NANOS) { now.saturating_sub(1) } else { since };
        let told = self.append_own(points, since, now);
        if let Some(until) = told {
            self.own.points = Points::default();
            self.queue.told(&untold, until);
        }
        told.is_some()
    }

    /// Where the interval of the set ends, if it was kept.
    fn append_own(&mut self, points: Points, mut since: u64, now: u64) -> Option<u64> {
        let delivery = self.pipeline.uid_seed(&[now.to_le_bytes(), self.own.began.to_le_bytes()].concat());
        let blocks = self.pipeline.own_points(points, &mut since, Kind::Report(NOTHING)).ok()?;
        let appended = self.queue.append(&Batch { delivery, received: now, parts_before: 0, blocks });
        // Without room nothing is told now, and all of it later.
        matches!(appended, Ok(Appended::OnDisk | Appended::InMemory)).then_some(since)
    }

    /// All that is to be told at `now`, Unix nanoseconds.
    fn own_points(&mut self, untold: &PerSignal<Totals>, now: u64) -> Points {
        let mut points = self.own.points.clone();
        for (signal, totals) in untold.iter() {
            let of_signal = [(own::SIGNAL, signal.name())];
            for (instrument, records) in [
                (&own::RECEIVED, totals.received),
                (&own::DELIVERED, totals.delivered),
                (&own::HANDED_OVER, totals.handed),
            ] {
                if records > 0 {
                    points.measure_own(instrument, now, float(records), &of_signal);
                }
            }
            for (reason, records) in Reason::ALL.into_iter().zip(totals.dropped) {
                if records > 0 {
                    let labels = [(own::SIGNAL, signal.name()), (own::REASON, reason.name())];
                    points.measure_own(&own::DROPPED, now, float(records), &labels);
                }
            }
        }
        for signal in Signal::ALL {
            if !self.pipeline.makes(signal) {
                continue;
            }
            let of_signal = [(own::SIGNAL, signal.name())];
            let records = self.queue.waiting(signal).records;
            points.measure_own(&own::QUEUE_RECORDS, now, float(records), &of_signal);
            let age = oldest_age(&mut self.queue, signal, now).as_secs_f64();
            points.measure_own(&own::QUEUE_OLDEST_AGE, now, age, &of_signal);
        }
        for (instrument, value) in [
            (&own::QUEUE_BYTES, self.queue.disk_bytes()),
            (&own::BREAKER_OPEN, u64::from(self.own.breaker_open)),
            (&own::DEGRADED, u64::from(self.queue.is_degraded())),
        ] {
            points.measure_own(instrument, now, float(value), &[]);
        }
        points
    }
}

#[expect(clippy::cast_precision_loss, reason = "no queue holds 2^53 of anything")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
