//! What the end of a request means for its lane, the destination and the invocation.

use std::time::Duration;

use super::{Backlog, Faith, Flight, Outcome, Policy, Sent, Target};
use crate::Signal;
use crate::clock::Time;
use crate::drain::lane::Standing;
use crate::drain::retry::Bounds;

/// Denied: someone has to change a key or a policy. Probing every few hundred milliseconds would only fill their logs and
/// may lock the account; five seconds still notices the repair within an invocation or two.
pub(super) const DENIED_FLOOR: Duration = Duration::from_secs(5);

impl Policy {
    pub(super) fn answer(
        &mut self,
        now: Time,
        signal: Signal,
        flight: &Flight,
        sent: &Sent,
        outcome: Outcome,
        left: Backlog,
    ) {
        let random = self.rng.f64();
        let alibi = flight.is_alibi();
        // An alibi stays where it is.
        self.lane(signal).ended(left, outcome == Outcome::Delivered && !alibi);
        if outcome != Outcome::NotSent {
            self.destination.used(now);
            if let Some(throttle) = &mut self.throttle {
                throttle.sent(now, sent.wire_bytes);
            }
        }
        match outcome {
            Outcome::Delivered => {
                if flight.frozen.is_zero() {
                    self.latency.add(flight.age(now));
                }
                self.answered(now, signal);
                self.lane(signal).delivered(sent, left, alibi);
                if self.shutdown.is_none() {
                    self.destination.delivered(now, sent.blocks, random);
                }
            }
            Outcome::TooLarge => {
                self.answered(now, signal);
                self.lane(signal).too_large(now, sent, alibi, random);
            }
            // The case against a single record goes on, however it is named.
            Outcome::FirstRefused { records } if !alibi && sent.records > 1 => {
                self.answered(now, signal);
                self.lane(signal).first_refused(now, sent, records, random);
            }
            Outcome::Refused | Outcome::FirstRefused { .. } => {
                self.answered(now, signal);
                self.lane(signal).refused(now, sent, alibi, random);
            }
            Outcome::GzipRefused if flight.gzip => {
                self.answered(now, signal);
                self.destination.refuse_gzip();
                self.lane(signal).resend();
            }
            // Not even as identity: nothing that repetition or the content could mend.
            Outcome::GzipRefused | Outcome::Denied => {
                self.lane(signal).unavailable();
                let floor = DENIED_FLOOR.min(self.settings.retry_max);
                self.denied(now, signal, flight.started, Bounds { floor, after: None }, random);
            }
            Outcome::ServerError { after } => {
                if self.lane(signal).server_error(sent, alibi) {
                    self.answered(now, signal);
                } else {
                    self.failed(now, signal, flight.started, Bounds { after, ..Bounds::default() }, random);
                }
            }
            Outcome::Retry { after: None, fate_unknown: true } if flight.grace_until.is_some() => {
                self.lost_to_freeze(now, signal, flight.started, random);
            }
            Outcome::Retry { after, fate_unknown } => {
                self.lane(signal).unavailable();
                // What may have arrived goes again as it was, so that a repeat can be told by its key.
                if !fate_unknown {
                    self.destination.turned_away();
                }
                self.failed(now, signal, flight.started, Bounds { after, ..Bounds::default() }, random);
            }
            Outcome::NotSent => self.lane(signal).not_sent(now, random),
        }
        self.appeal(signal);
    }

    /// The backend works, whatever it said.
    fn answered(&mut self, now: Time, signal: Signal) {
        let failures = self.lane(signal).failures;
        self.lane(signal).faith = Faith::Kept;
        let recovered = self.destination.answered(failures);
        if self.shutdown.is_some() {
            self.destination.hurry(now);
        }
        self.lane(signal).failures = 0;
        if recovered {
            for lane in &mut self.lanes {
                lane.cut_wait(now);
            }
        }
    }

    fn failed(&mut self, now: Time, signal: Signal, started: Time, bounds: Bounds, random: f64) {
        self.invocations.release();
        let ceiling = self.destination.failed(now, started);
        let lane = self.lane(signal);
        lane.faith = Faith::Shaken;
        lane.failed(now, ceiling, bounds, random);
        let at = lane.not_before;
        if ceiling.is_some() {
            self.destination.probe_after(at);
        }
    }

    /// The configuration is wrong, for this signal or for all of them. Where another signal is taken it is for this one:
    /// that says nothing about the backend, and nobody else waits for it to be mended.
    fn denied(&mut self, now: Time, signal: Signal, started: Time, bounds: Bounds, random: f64) {
        if !self.lanes.iter().any(|lane| lane.signal != signal && lane.standing == Standing::Works) {
            return self.failed(now, signal, started, bounds, random);
        }
        let lane = self.lane(signal);
        lane.faith = Faith::Shaken;
        lane.failed(now, None, bounds, random);
        lane.standing = Standing::SetAside;
    }

    /// A freeze broke the request: the backend is not to blame the first time. Again and again without a
    /// delivery, the difference does not matter.
    fn lost_to_freeze(&mut self, now: Time, signal: Signal, started: Time, random: f64) {
        self.destination.presume_dead();
        let lane = self.lane(signal);
        lane.freeze_losses = lane.freeze_losses.saturating_add(1);
        if lane.freeze_losses == 1 {
            lane.resend();
        } else {
            lane.unavailable();
            self.failed(now, signal, started, Bounds::default(), random);
        }
    }

    /// Ends a flight whose time is up and says whose it was, and where it was going.
    pub(super) fn give_up_flight(&mut self, now: Time) -> Option<(Signal, Target)> {
        let over = self.shutdown.is_some_and(|shutdown| now >= shutdown.end);
        let timeout = self.settings.request_timeout;
        let cut = |flight: &Flight| self.cut_at(flight).is_some_and(|at| now >= at);
        let ends = |flight: &Flight| over || now >= flight.ends_at(timeout) || cut(flight);
        let signal = self.lanes.iter().find(|lane| lane.flight.as_ref().is_some_and(ends))?.signal;
        let flight = self.lane(signal).flight.take()?;
        self.lane(signal).gave_up();
        let given_up = Some((signal, flight.target));
        if over {
            return given_up;
        }
        if flight.target == Target::Fallback {
            self.fallback_timed_out(now, signal, &flight);
            return given_up;
        }
        if now < flight.ends_at(timeout) {
            // Its time is not up, but the backend's is.
            self.destination.presume_dead();
            self.lane(signal).faith = Faith::Lost;
            return given_up;
        }
        let random = self.rng.f64();
        if flight.grace_until.is_some() {
            self.lost_to_freeze(now, signal, flight.started, random);
        } else {
            self.destination.presume_dead();
            self.lane(signal).unavailable();
            self.failed(now, signal, flight.started, Bounds::default(), random);
        }
        given_up
    }
}
