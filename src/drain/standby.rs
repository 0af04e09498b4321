//! The health of the fallback, and what may still go there.
//!
//! It has a breaker and delays of its own, so that a fallback which is away is not hammered either, and one request at
//! a time finds out that it is back. A fallback whose bytes cost money is metered: after each request it rests for as
//! long as its rate says, and a SHUTDOWN has a sum.

use std::time::Duration;

use super::average::Average;
use super::destination::Destination;
use super::event::{FallbackSettings, Meter, Sent, Settings};
use super::retry::{Bounds, Retry};
use crate::clock::Time;

/// A fallback that finds requests too large gets smaller ones, but none below this: a block goes whole in any case.
const LIMIT_MIN_BYTES: u64 = 4 << 10;

/// What is known of the fallback.
#[derive(Debug)]
pub(super) struct Standby {
    pub(super) destination: Destination,
    pub(super) latency: Average,
    retry: Retry,
    /// No request before this, after a failure.
    not_before: Time,
    /// No request before this, because of what went there already.
    rests_until: Time,
    meter: Option<Meter>,
    /// Bytes that this SHUTDOWN may still hand over.
    allowance: Option<u64>,
    max_bytes: u64,
    /// The last request failed.
    failing: bool,
    /// A request was made since SHUTDOWN.
    tried: bool,
    /// Requests lost to a freeze since one was taken.
    freeze_losses: u32,
}

impl Standby {
    pub(super) fn new(settings: &Settings, fallback: &FallbackSettings) -> Self {
        Self {
            destination: Destination::new(&Settings { gzip: fallback.gzip, ..settings.clone() }),
            latency: Average::default(),
            retry: Retry::new(settings.retry_initial, settings.retry_max),
            not_before: Time::ZERO,
            rests_until: Time::ZERO,
            meter: fallback.meter,
            allowance: None,
            max_bytes: fallback.batch_max_bytes,
            failing: false,
            tried: false,
            freeze_losses: 0,
        }
    }

    /// Whether requests go there one after another: to find out whether it is back, or to keep to a bound.
    pub(super) fn is_single(&self) -> bool {
        self.failing || self.meter.is_some()
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing
    }

    /// When the next request may go.
    pub(super) fn ready_at(&self) -> Time {
        self.not_before.max(self.rests_until)
    }

    /// As [`Standby::ready_at`] for records that are given up otherwise: those wait for a rest, not for a recovery.
    pub(super) fn appeal_at(&self, now: Time) -> Option<Time> {
        (self.not_before <= now).then_some(self.rests_until)
    }

    /// Whether SHUTDOWN has handed over all it may.
    pub(super) fn is_exhausted(&self) -> bool {
        self.allowance == Some(0)
    }

    /// Whether a request at `at` can be answered before `end`; the first one is tried in any case.
    pub(super) fn fits(&self, at: Time, end: Time) -> bool {
        let latency = self.latency.get().unwrap_or_default();
        at < end && (!self.tried || at.saturating_add(latency) < end)
    }

    /// Plain bytes per request.
    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// A request goes out.
    pub(super) fn sends(&mut self, now: Time) {
        self.tried = true;
        self.destination.used(now);
    }

    /// SHUTDOWN: no waits; what goes there is counted from now on.
    pub(super) fn hurry(&mut self, now: Time) {
        self.destination.hurry(now);
        self.retry.reset();
        self.not_before = now;
        self.rests_until = now;
        self.failing = false;
        self.tried = false;
        self.allowance = self.meter.map(|meter| meter.shutdown_max_bytes);
    }

    /// A request was taken.
    pub(super) fn took(&mut self, now: Time, sent: &Sent) {
        self.destination.answered(0);
        self.retry.reset();
        self.not_before = now;
        self.failing = false;
        self.freeze_losses = 0;
        if let Some(allowance) = &mut self.allowance {
            *allowance = allowance.saturating_sub(sent.wire_bytes);
        } else if let Some(meter) = &self.meter {
            let millis = sent.wire_bytes.saturating_mul(1_000) / meter.bytes_per_second.max(1);
            self.rests_until = now.saturating_add(Duration::from_millis(millis));
        }
    }

    /// A request that started at `started` failed.
    pub(super) fn failed(&mut self, now: Time, started: Time, bounds: Bounds, random: f64) {
        self.failing = true;
        let breaker = self.destination.failed(now, started);
        let own = self.retry.next_ceiling();
        self.not_before = now.saturating_add(self.retry.draw(breaker.unwrap_or(own), bounds, random));
    }

    /// A request was lost to a freeze: nobody's fault the first time. True if it counts as a failure.
    pub(super) fn lost_to_freeze(&mut self) -> bool {
        self.destination.presume_dead();
        self.freeze_losses = self.freeze_losses.saturating_add(1);
        self.freeze_losses > 1
    }

    /// No request could be made: ask again a little later.
    pub(super) fn not_sent(&mut self, now: Time, random: f64) {
        let ceiling = self.retry.next_ceiling();
        self.not_before = now.saturating_add(self.retry.draw(ceiling, Bounds::default(), random));
    }

    /// A request of so many blocks was too large. False if it cannot be made smaller.
    pub(super) fn too_large(&mut self, sent: &Sent) -> bool {
        self.max_bytes = self.max_bytes.min(sent.plain_bytes / 2).max(LIMIT_MIN_BYTES);
        sent.blocks > 1
    }
}

#[cfg(test)]
mod tests;
