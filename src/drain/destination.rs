//! The health of the destination that all lanes share: circuit breaker, recovery, connections.
//!
//! ```text
//!            3 failures in a row                       any answer but a failure
//!   CLOSED ───────────────────────> OPEN ──────────────────────────────────────> CLOSED, ramping up
//!                                    │ one probe of one block per backoff step
//!                                    └──────────────┐ failure: the step grows
//! ```
//! Requests of different lanes that were under way together and fail together are one failure here: three hung
//! signals say no more about the backend than one does.
//!
//! *Ramping up*: after an outage a whole fleet has a backlog. Requests start at one block and double with each
//! success; between them a pause is drawn from zero to a bound that starts at the initial retry delay and halves. The
//! same begins with every request that is turned away (`docs/fleet.md` has what that is worth).

use std::time::Duration;

use super::event::Settings;
use super::retry::Retry;
use crate::clock::Time;

/// Failures in a row that open the breaker. Two can be one lost connection and its retry.
const FAILURES_TO_OPEN: u32 = 3;

/// A success after so many failures of its lane in a row counts as a recovery even if the breaker was closed.
const FAILURES_TO_RAMP: u32 = 2;

/// A pause shorter than this spreads nobody: it is left out.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// Where the growth of a ramp ends: at 256 bytes a block, the smallest in practice, this is the default batch.
const RAMP_BLOCKS_MAX: u64 = 4096;

/// An idle connection older than this may have been closed at the other end: common servers keep one for 5 s.
const IDLE_MAX: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug)]
struct Ramp {
    blocks: u64,
    pause: Duration,
}

/// What is expected of the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// That it is answered.
    Usual,
    /// Nothing is known of the backend yet, and what an earlier process left suggests that it is away.
    Doubted,
    /// That it fails: the breaker is open.
    Open,
}

/// What is known of the backend.
#[derive(Debug)]
pub(super) struct Destination {
    failures: u32,
    last_failure: Option<Time>,
    trust: Trust,
    retry: Retry,
    probe_at: Time,
    ramp: Option<Ramp>,
    pause_until: Time,
    pause_initial: Duration,
    gzip: bool,
    last_used: Option<Time>,
    stale: bool,
}

impl Destination {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            failures: 0,
            last_failure: None,
            trust: Trust::Usual,
            retry: Retry::new(settings.retry_initial, settings.retry_max),
            probe_at: Time::ZERO,
            ramp: None,
            pause_until: Time::ZERO,
            pause_initial: settings.retry_initial,
            gzip: settings.gzip,
            last_used: None,
            stale: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.trust == Trust::Open
    }

    /// When the next probe may go out, while open.
    pub(super) fn probe_at(&self) -> Time {
        self.probe_at
    }

    /// No request before this: the pause of a recovery.
    pub(super) fn pause_until(&self) -> Time {
        self.pause_until
    }

    /// Blocks per request, at most.
    pub(super) fn blocks_max(&self) -> u64 {
        if self.is_open() { 1 } else { self.ramp.map_or(u64::MAX, |ramp| ramp.blocks) }
    }

    /// Whether an earlier process may have met an outage that goes on.
    pub(super) fn is_doubted(&self) -> bool {
        self.trust == Trust::Doubted
    }

    pub(super) fn gzip(&self) -> bool {
        self.gzip
    }

    pub(super) fn refuse_gzip(&mut self) {
        self.gzip = false;
    }

    /// Starts slowly without having failed: a backlog was inherited, perhaps from an outage that goes on.
    pub(super) fn start_ramped_down(&mut self) {
        self.trust = Trust::Doubted;
        self.ramp = Some(Ramp { blocks: 1, pause: Duration::ZERO });
    }

    /// SHUTDOWN: there is no time for pauses, nor for waits that grew over hours.
    pub(super) fn hurry(&mut self, now: Time) {
        self.ramp = None;
        self.pause_until = now;
        self.probe_at = now;
        self.retry.reset();
    }

    /// A request that started at `started` failed. Gives the ceiling of the delay if the breaker is open
    /// now; else the lane's own applies.
    pub(super) fn failed(&mut self, now: Time, started: Time) -> Option<Duration> {
        // Under way together with one that has failed since: the same failure.
        let known = self.last_failure.is_some_and(|at| started < at);
        if !known {
            self.failures = self.failures.saturating_add(1);
            self.last_failure = Some(now);
        }
        if self.failures >= FAILURES_TO_OPEN {
            self.trust = Trust::Open;
        }
        let ceiling = if known { None } else { Some(self.retry.next_ceiling()) };
        ceiling.filter(|_| self.is_open())
    }

    /// A request was turned away, by a backend that may have too much to do: what follows goes in small pieces at first, the
    /// same telemetry included. Were it sent again whole, again and again, the backend would mostly read what it refuses.
    pub(super) fn turned_away(&mut self) {
        self.ramp = Some(Ramp { blocks: 1, pause: self.pause_initial });
    }

    /// Puts the next probe off until `at`.
    pub(super) fn probe_after(&mut self, at: Time) {
        self.probe_at = at;
    }

    /// The backend answered, and not with a failure. True if that closed the breaker.
    pub(super) fn answered(&mut self, lane_failures: u32) -> bool {
        let was_open = self.is_open();
        if was_open || lane_failures >= FAILURES_TO_RAMP {
            self.ramp = Some(Ramp { blocks: 1, pause: self.pause_initial });
        }
        self.trust = Trust::Usual;
        self.failures = 0;
        self.last_failure = None;
        self.retry.reset();
        was_open
    }

    /// A request of `blocks` blocks was accepted: the ramp goes up a step. `random` is in [0, 1).
    pub(super) fn delivered(&mut self, now: Time, blocks: u64, random: f64) {
        let Some(ramp) = &mut self.ramp else { return };
        // Something else than the ramp was the limit: the bytes of a batch, or the end of the backlog.
        let reached = blocks < ramp.blocks || ramp.blocks >= RAMP_BLOCKS_MAX;
        if !reached {
            ramp.blocks = ramp.blocks.saturating_mul(2);
        }
        if ramp.pause >= PAUSE_MIN {
            self.pause_until = now.saturating_add(ramp.pause.mul_f64(random));
            ramp.pause /= 2;
        } else if reached {
            self.ramp = None;
        }
    }

    /// Notes traffic, for the age of idle connections.
    pub(super) fn used(&mut self, now: Time) {
        self.last_used = Some(now);
    }

    /// Connections opened so far must not be used again.
    pub(super) fn presume_dead(&mut self) {
        self.stale = self.last_used.is_some();
    }

    /// Whether pooled connections have to be closed before the next request; asking answers for it.
    pub(super) fn take_stale(&mut self, now: Time) -> bool {
        let idle = self.last_used.is_some_and(|at| now.saturating_sub(at) > IDLE_MAX);
        let stale = self.stale || idle;
        self.stale = false;
        if stale {
            self.last_used = None;
        }
        stale
    }
}

#[cfg(test)]
mod tests;
