//! What goes to the fallback, and when: records that are about to be given up, the oldest telemetry when the queue is
//! nearly full, and at SHUTDOWN what the backend did not take.

use super::outcome::DENIED_FLOOR;
use super::{Backlog, Faith, Flight, Lane, Outcome, Policy, Portion, Sent, Shutdown, Standby, Target};
use crate::Signal;
use crate::clock::Time;
use crate::drain::retry::Bounds;
use std::time::Duration;

/// A lane that failed so often in a row is failing, even if the backend takes other signals: as many as open the
/// breaker.
const FAILURES_TO_GIVE_WAY: u32 = 3;

/// A backend whose breaker is open when SHUTDOWN comes gets this long for an attempt: it may be back, but probably is
/// not. Several round trips and a TLS handshake, and a fourth of the shortest usual budget.
pub(super) const QUICK_TRY: Duration = Duration::from_millis(300);

impl Policy {
    /// When the lane sends next, and where to; `None` if that depends on an event.
    pub(super) fn due(&self, lane: &Lane, now: Time) -> Option<(Time, Target)> {
        if lane.appealed().is_some() {
            return self.appeal_at(lane, now).map(|at| (at, Target::Fallback));
        }
        let primary = self.ready_at(lane, now);
        let Some(shutdown) = self.shutdown else {
            let fallback = self.overflow_at(lane, now);
            if self.brimming && fallback.is_some_and(|at| at <= now) {
                return fallback.map(|at| (at, Target::Fallback));
            }
            return earliest(primary, fallback);
        };
        let fallback = match self.hand_over(lane, now, &shutdown) {
            HandOver::Never => return primary.map(|at| (at, Target::Primary)),
            HandOver::Later => None,
            HandOver::At(at) => Some(at),
        };
        if lane.faith == Faith::Kept && now < self.patience_until(&shutdown) && primary.is_some() {
            return primary.map(|at| (at, Target::Primary));
        }
        // A fallback that is no better off is no reason not to try the backend again.
        let failing = self.standby.as_ref().is_some_and(Standby::is_failing);
        earliest(primary.filter(|_| failing && lane.faith != Faith::Lost), fallback)
    }

    /// Until when SHUTDOWN waits for the backend before the rest goes to the fallback.
    pub(super) fn patience_until(&self, shutdown: &Shutdown) -> Time {
        if self.destination.is_open() { shutdown.quick_until.min(shutdown.half) } else { shutdown.half }
    }

    /// When a request to the backend is cut short at SHUTDOWN because the fallback is to have the rest.
    pub(super) fn cut_at(&self, flight: &Flight) -> Option<Time> {
        let standby = self.standby.as_ref()?;
        let shutdown = self.shutdown.filter(|_| flight.target == Target::Primary)?;
        let able = !standby.is_failing() && !standby.is_exhausted();
        // What the fallback cannot take in time either is no reason to give up on the backend.
        let worth_it = able && standby.fits(standby.ready_at().max(self.seen), shutdown.end);
        worth_it.then(|| self.patience_until(&shutdown))
    }

    /// Notes how much room the queue has. Once it is about to overflow, the fallback helps until there is room again: a
    /// single request to a slow backend may take as long as the last eighth takes to fill.
    pub(super) fn note_room(&mut self, level: &Backlog) {
        self.crowded = level.crowded;
        self.brimming = level.crowded && (level.brimming || self.brimming);
    }

    /// The queue is nearly full, and the backend is away or not to get more now; or it is about to overflow, whatever the
    /// backend does: when the oldest run of blocks can go.
    fn overflow_at(&self, lane: &Lane, now: Time) -> Option<Time> {
        let standby = self.standby.as_ref().filter(|_| self.crowded)?;
        let throttled = self.throttle.as_ref().is_some_and(|throttle| throttle.ready_at() > now);
        let pressed = throttled || self.brimming || self.destination.is_open();
        let failing = |lane: &Lane| pressed || lane.failures >= FAILURES_TO_GIVE_WAY;
        let head = |lane: &Lane| lane.level.head_sequence();
        // The oldest first, across signals: that is what would be dropped next.
        let ready = self.lanes.iter().filter(|lane| lane.is_ready() && failing(lane));
        let oldest = ready.filter_map(head).min()?;
        if !lane.is_ready() || !failing(lane) || head(lane) != Some(oldest) || self.fallback_is_taken() {
            return None;
        }
        Some(standby.ready_at().max(now))
    }

    fn appeal_at(&self, lane: &Lane, now: Time) -> Option<Time> {
        let standby = self.standby.as_ref().filter(|standby| !standby.is_exhausted())?;
        if lane.flight.is_some() {
            return None;
        }
        let at = standby.appeal_at(now)?.max(now);
        Some(at).filter(|at| self.shutdown.is_none_or(|shutdown| standby.fits(*at, shutdown.end)))
    }

    fn hand_over(&self, lane: &Lane, now: Time, shutdown: &Shutdown) -> HandOver {
        let Some(standby) = self.standby.as_ref().filter(|standby| !standby.is_exhausted()) else {
            return HandOver::Never;
        };
        let at = standby.ready_at().max(now);
        match lane.is_ready() && standby.fits(at, shutdown.end) {
            false => HandOver::Never,
            true if self.fallback_is_taken() => HandOver::Later,
            true => HandOver::At(at),
        }
    }

    /// Whether a request to the fallback has to end before the next one.
    fn fallback_is_taken(&self) -> bool {
        let single = self.standby.as_ref().is_some_and(Standby::is_single);
        let mut flights = self.lanes.iter().filter_map(|lane| lane.flight.as_ref());
        single && flights.any(|flight| flight.target == Target::Fallback)
    }

    /// Records that are about to be given up: the fallback is asked first.
    pub(super) fn appeal(&mut self, signal: Signal) {
        if self.standby.is_some() {
            self.lane(signal).appeal();
        }
    }

    /// Appeals that cannot be heard are lost: their records are given up as without a fallback.
    pub(super) fn drop_vain_appeals(&mut self, now: Time) {
        for signal in Signal::ALL {
            let lane = self.lane(signal);
            if lane.appealed().is_none() || lane.flight.is_some() {
                continue;
            }
            let heard =
                self.lanes.get(signal.index()).is_some_and(|lane| self.appeal_at(lane, now).is_some());
            if !heard {
                self.lane(signal).lose_appeal();
            }
        }
    }

    /// What a request to the fallback carries, and whether it is compressed.
    pub(super) fn parcel(&self, signal: Signal) -> Option<(Portion, bool)> {
        let standby = self.standby.as_ref()?;
        let lane = self.lanes.get(signal.index())?;
        Some((lane.portion_for_fallback(standby.max_bytes()), standby.destination.gzip()))
    }

    /// A request to the fallback ended.
    pub(super) fn fallback_answered(
        &mut self,
        now: Time,
        signal: Signal,
        flight: &Flight,
        sent: &Sent,
        outcome: Outcome,
        left: Backlog,
    ) {
        let random = self.rng.f64();
        self.lane(signal).ended(left, outcome == Outcome::Delivered);
        let Some(standby) = &mut self.standby else { return };
        if outcome != Outcome::NotSent {
            standby.destination.used(now);
        }
        let denied = Bounds { floor: DENIED_FLOOR.min(self.settings.retry_max), after: None };
        let failure = match outcome {
            Outcome::Delivered => {
                if flight.frozen.is_zero() {
                    standby.latency.add(flight.age(now));
                }
                standby.took(now, sent);
                self.lane(signal).handed_over(sent, left);
                return;
            }
            Outcome::GzipRefused if flight.gzip => {
                standby.destination.refuse_gzip();
                None
            }
            Outcome::TooLarge if standby.too_large(sent) => None,
            Outcome::Retry { after: None, fate_unknown: true } if flight.grace_until.is_some() => {
                standby.lost_to_freeze().then_some(Bounds::default())
            }
            Outcome::Retry { after, .. } | Outcome::ServerError { after } => {
                Some(Bounds { after, ..Bounds::default() })
            }
            Outcome::NotSent => {
                standby.not_sent(now, random);
                None
            }
            // What it refuses now it refuses again.
            Outcome::TooLarge
            | Outcome::Denied
            | Outcome::Refused
            | Outcome::FirstRefused { .. }
            | Outcome::GzipRefused => Some(denied),
        };
        if let Some(bounds) = failure {
            standby.failed(now, flight.started, bounds, random);
            self.lane(signal).lose_appeal();
        }
    }

    /// A request to the fallback was given up.
    pub(super) fn fallback_timed_out(&mut self, now: Time, signal: Signal, flight: &Flight) {
        let random = self.rng.f64();
        let Some(standby) = &mut self.standby else { return };
        standby.destination.presume_dead();
        if flight.grace_until.is_some() && !standby.lost_to_freeze() {
            return;
        }
        standby.failed(now, flight.started, Bounds::default(), random);
        self.lane(signal).lose_appeal();
    }
}

/// When SHUTDOWN can hand over what a lane has.
enum HandOver {
    /// There is no fallback, or not enough of it, or of the time.
    Never,
    /// Once another request to it has ended.
    Later,
    At(Time),
}

/// The earlier of the two; the backend if they are equal.
fn earliest(primary: Option<Time>, fallback: Option<Time>) -> Option<(Time, Target)> {
    match (primary, fallback) {
        (Some(primary), Some(fallback)) if fallback < primary => Some((fallback, Target::Fallback)),
        (Some(primary), _) => Some((primary, Target::Primary)),
        (None, fallback) => fallback.map(|at| (at, Target::Fallback)),
    }
}
