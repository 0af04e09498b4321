//! What is sent, and when: which lane's turn it is, how long what is new lingers, and what had better wait for the
//! next invocation.

use super::{Action, Flight, LINGER_MAX, LINGER_PER_DELAY, Lane, Policy, Target};
use crate::clock::Time;

impl Policy {
    pub(super) fn settle(&mut self) -> Option<Action> {
        let mut wanted = self.lanes.iter_mut();
        let (signal, settlement) = wanted.find_map(|lane| Some((lane.signal, lane.take_settlement()?)))?;
        Some(Action::Settle {
            signal,
            head: settlement.head,
            refused: settlement.refused,
            delivered: settlement.delivered,
        })
    }

    pub(super) fn send(&mut self, now: Time) -> Option<Action> {
        let count = self.lanes.len();
        let (signal, target) =
            (0..count).filter_map(|step| self.lanes.get((self.turn + step) % count)).find_map(|lane| {
                let (at, target) = self.due(lane, now)?;
                (at <= now).then_some((lane.signal, target))
            })?;
        let stale = match (target, &mut self.standby) {
            (Target::Fallback, Some(standby)) => standby.destination.take_stale(now),
            _ => self.destination.take_stale(now),
        };
        if stale {
            return Some(Action::RenewConnections(target));
        }
        self.turn = signal.index() + 1;
        self.attempts = self.attempts.wrapping_add(1);
        let attempt = self.attempts;
        if target == Target::Fallback {
            let (portion, gzip) = self.parcel(signal)?;
            if let Some(standby) = &mut self.standby {
                standby.sends(now);
            }
            let flight = Flight { attempt, target, started: now, portion, gzip, ..Flight::default() };
            self.lane(signal).flight = Some(flight);
            return Some(Action::Send { signal, attempt, portion, gzip, target });
        }
        self.destination.used(now);
        let gzip = self.destination.gzip();
        let blocks_max = if self.shutdown.is_some() { u64::MAX } else { self.destination.blocks_max() };
        let batch_max_bytes = self.settings.batch_max_bytes;
        let lane = self.lane(signal);
        let portion = lane.portion(batch_max_bytes, blocks_max);
        lane.last_try = false;
        lane.flight = Some(Flight { attempt, target, started: now, portion, gzip, ..Flight::default() });
        Some(Action::Send { signal, attempt, portion, gzip, target })
    }

    /// When `lane` may and should send to the backend; `None` if that depends on an event.
    pub(super) fn ready_at(&self, lane: &Lane, now: Time) -> Option<Time> {
        if !lane.is_ready() {
            return None;
        }
        if let Some(shutdown) = self.shutdown {
            // A request that cannot be answered in time would only be repeated by the next process.
            let latency = self.latency.get().unwrap_or_default();
            let at = lane.not_before.max(now);
            return Some(at).filter(|at| {
                let fits = lane.last_try || at.saturating_add(latency) < shutdown.end;
                fits && *at < shutdown.end
            });
        }
        let mut gate = lane.not_before.max(self.destination.pause_until());
        if self.destination.is_open() || self.throttle.is_some() {
            // What a request costs is known once it has gone.
            let flights = self.lanes.iter().filter_map(|lane| lane.flight.as_ref());
            if flights.into_iter().any(|flight| flight.target == Target::Primary) {
                return None;
            }
        }
        if let Some(throttle) = &self.throttle {
            gate = gate.max(throttle.ready_at());
        }
        if self.destination.is_open() {
            // A lane that has not failed itself may find out at once: its path may be fine.
            if lane.failures > 0 {
                gate = gate.max(self.destination.probe_at());
            }
        }
        let at = gate.max(self.due_at(lane));
        if at > now { Some(at) } else { Some(self.deferred_until(lane, now).unwrap_or(now)) }
    }

    pub(super) fn due_at(&self, lane: &Lane) -> Time {
        if self.invocations.is_held_after_done() {
            return Time::ZERO;
        }
        lane.due_at(LINGER_MAX.min(self.settings.max_delay / LINGER_PER_DELAY))
    }

    /// A request that would probably be frozen under way, and would fit at the beginning of the next
    /// invocation, waits for that, unless this makes its telemetry late.
    pub(super) fn deferred_until(&self, lane: &Lane, now: Time) -> Option<Time> {
        if self.settings.continuous
            || self.invocations.is_held()
            || self.destination.is_open()
            || lane.failures > 0
            || lane.is_isolating()
        {
            return None;
        }
        let latency = self.latency.get()?;
        let run = self.invocations.expected_run()?;
        let gap = self.invocations.expected_gap()?;
        if run < latency || self.invocations.expected_rest(now) >= latency {
            return None;
        }
        let until = lane.level.oldest?.saturating_add(self.settings.max_delay).saturating_sub(gap);
        let stays = self.invocations.outstays_by(latency);
        Some(stays.map_or(until, |at| at.min(until))).filter(|until| *until > now)
    }
}
