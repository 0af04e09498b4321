//! What is known of invocations, and how long one may be held.
//!
//! Asking Lambda for the next event at once costs the function nothing, but the environment freezes when the
//! function ends, and what it said last waits for the next invocation. Holding (not asking yet) costs billed time
//! and keeps the environment busy. So an invocation is held only if the wait would be long.

use std::collections::VecDeque;
use std::time::Duration;

use super::average::Average;
use super::event::Settings;
use crate::clock::Time;

/// `platform.start` arrives within the 25 ms of the Telemetry API's buffer, or a little later on a starved CPU. If
/// it has not come by now, telemetry is lost or late and the end would not be seen either.
const STARTED_WITHIN: Duration = Duration::from_millis(300);

/// Lambda freezes an environment some milliseconds after its last extension has asked for the next event.
const FROZEN_WITHIN: Duration = Duration::from_millis(100);

/// A function is waited for at least this long, however short its last runs were.
const RUN_ALLOWANCE_MIN: Duration = Duration::from_secs(1);

/// Runs remembered, to know the longest of them.
const RUNS_KEPT: usize = 8;

/// Left of the function's time-out when it is let go: the time-out spans extensions, and one caused by us would
/// fail the invocation.
const DEADLINE_MARGIN: Duration = Duration::from_millis(100);

/// A gap counts as at most this many times the tolerated delay. With a weight of a fourth in the average, one quiet
/// night alone then does not make a busy function pay in the morning; a second long gap does.
const GAP_MAX_DELAYS: u32 = 3;

#[derive(Clone, Copy, Debug)]
struct Invocation {
    request: u64,
    at: Time,
    deadline: Option<Time>,
    started: bool,
    /// When its end was taken in.
    done: Option<Time>,
    /// When it ended, as far as is known: what holding and gaps count from.
    ended: Option<Time>,
    reported: bool,
}

/// What was told of an invocation whose INVOKE has not been read: its telemetry comes another way, and may be faster.
#[derive(Clone, Copy, Debug)]
struct Early {
    request: u64,
    done: bool,
    reported: bool,
}

/// A gap whose beginning is not known yet: the end of a function that was not held is read after the thaw.
#[derive(Clone, Copy, Debug)]
struct OpenGap {
    request: u64,
    at: Time,
    next_at: Time,
}

/// The function as seen through its events.
#[derive(Debug, Default)]
pub(super) struct Invocations {
    current: Option<Invocation>,
    early: Option<Early>,
    open_gap: Option<OpenGap>,
    gap: Average,
    run: Average,
    runs: VecDeque<Duration>,
    /// The last hold ended without the end of the function having been seen.
    blind: bool,
    held: bool,
}

impl Invocations {
    /// An INVOKE arrived. `allowed`: nothing else speaks against holding.
    pub(super) fn invoke(
        &mut self,
        now: Time,
        request: u64,
        deadline: Option<Time>,
        allowed: bool,
        settings: &Settings,
    ) {
        self.settle_open_gap(None, settings);
        if let Some(last) = self.current {
            self.open_gap = Some(OpenGap { request: last.request, at: last.at, next_at: now });
            if let Some(ended) = last.ended {
                self.settle_open_gap(Some(ended), settings);
            }
        }
        let early = self.early.take().filter(|early| early.request == request);
        let done = early.filter(|early| early.done).map(|_| now);
        self.current = Some(Invocation {
            request,
            at: now,
            deadline,
            started: early.is_some(),
            done,
            ended: done,
            reported: early.is_some_and(|early| early.reported),
        });
        // One gap is enough to go by: a busy function shows that it is one with its second invocation.
        let late = settings.max_delay.is_zero() || self.gap.get().is_none_or(|gap| gap > settings.max_delay);
        self.held = allowed && late && !self.blind;
    }

    /// Turns the open gap into a sample. Without a known end, by the usual run time.
    fn settle_open_gap(&mut self, ended: Option<Time>, settings: &Settings) {
        let Some(open) = self.open_gap.take() else { return };
        let ended = ended.unwrap_or_else(|| open.at.saturating_add(self.run.get().unwrap_or_default()));
        let gap = open.next_at.saturating_sub(ended);
        self.gap.add(gap.min(settings.max_delay.saturating_mul(GAP_MAX_DELAYS)));
    }

    pub(super) fn started(&mut self, request: u64) {
        match self.current.as_mut().filter(|current| current.request == request) {
            Some(current) => current.started = true,
            None => self.early = Some(Early { request, done: false, reported: false }),
        }
    }

    pub(super) fn done(&mut self, now: Time, request: u64, ran: Option<Duration>, settings: &Settings) {
        self.blind = false;
        let mut ran = ran;
        if let Some(current) = self.current.as_mut().filter(|current| current.request == request) {
            if current.done.is_some() {
                return;
            }
            let run = ran.unwrap_or(now.saturating_sub(current.at));
            current.started = true;
            current.done = Some(now);
            current.ended = Some(current.at.saturating_add(run).min(now));
            ran = Some(run);
        } else if let Some(open) = self.open_gap.filter(|open| open.request == request) {
            let ended = ran.map(|ran| open.at.saturating_add(ran));
            self.settle_open_gap(ended, settings);
        } else {
            self.early = Some(Early { request, done: true, reported: false });
        }
        if let Some(ran) = ran {
            self.run.add(ran);
            self.runs.push_back(ran);
            if self.runs.len() > RUNS_KEPT {
                self.runs.pop_front();
            }
        }
    }

    pub(super) fn reported(&mut self, request: u64) {
        if let Some(current) = self.current.as_mut().filter(|current| current.request == request) {
            current.reported = true;
        } else if let Some(early) = self.early.as_mut().filter(|early| early.request == request) {
            early.reported = true;
        }
    }

    /// The report of the last invocation, which comes after it, has not been taken in.
    pub(super) fn report_is_outstanding(&self) -> bool {
        self.current.is_some_and(|current| !current.reported)
    }

    /// The gap to expect between the end of a function and the next INVOKE.
    pub(super) fn expected_gap(&self) -> Option<Duration> {
        self.gap.get()
    }

    pub(super) fn expected_run(&self) -> Option<Duration> {
        self.run.get()
    }

    /// How much longer the function can be expected to run; zero if it is done or over its time.
    pub(super) fn expected_rest(&self, now: Time) -> Duration {
        match (self.current, self.run.get()) {
            (Some(current), Some(run)) if current.done.is_none() => {
                current.at.saturating_add(run).saturating_sub(now)
            }
            _ => Duration::ZERO,
        }
    }

    /// When a function that is over its usual time will have been so for `time`, and can be expected to go on for as long
    /// again: a long run after many short ones is not one long wait. Or when the environment is awake for so long after the
    /// end of the function that nobody seems to freeze it.
    pub(super) fn outstays_by(&self, time: Duration) -> Option<Time> {
        let current = self.current?;
        let usual = match current.done {
            Some(done) => done.saturating_add(FROZEN_WITHIN),
            None => current.at.saturating_add(self.run.get()?),
        };
        Some(usual.saturating_add(time))
    }

    /// When the function of the present invocation ended, if that is known.
    pub(super) fn ended_at(&self) -> Option<Time> {
        self.current.and_then(|current| current.ended)
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Held, and the end of the function was seen: only the delivery of what it said is waited for.
    pub(super) fn is_held_after_done(&self) -> bool {
        self.held && self.current.is_some_and(|current| current.done.is_some())
    }

    /// The last moment of the hold, as things stand.
    pub(super) fn hold_until(&self, settings: &Settings) -> Option<Time> {
        let current = self.current.filter(|_| self.held)?;
        let end = match current.ended {
            // The promise is made to whoever pays for the time, and the end is seen 25 ms late.
            Some(ended) => ended.saturating_add(settings.hold_max),
            None if !current.started => current.at.saturating_add(STARTED_WITHIN),
            None => {
                let longest = self.runs.iter().max().copied().unwrap_or_default();
                let allowance = longest.saturating_mul(2).max(RUN_ALLOWANCE_MIN);
                current.at.saturating_add(allowance).saturating_add(settings.hold_max)
            }
        };
        let limit = current.deadline.map_or(Time::MAX, |deadline| deadline.saturating_sub(DEADLINE_MARGIN));
        Some(end.min(limit))
    }

    /// Ends the hold.
    pub(super) fn release(&mut self) {
        self.held = false;
    }

    /// Ends the hold because its time is up. If the end of the function was not seen by then, no other invocation
    /// is held until one is.
    pub(super) fn release_expired(&mut self) {
        self.blind = self.current.is_some_and(|current| current.done.is_none());
        self.held = false;
    }
}

#[cfg(test)]
mod tests;
