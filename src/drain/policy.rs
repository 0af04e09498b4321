//! What to do next: send, wait, give up, hold the invocation, leave.
//!
//! A state machine without I/O, clock or randomness of its own. Whoever runs it calls
//!
//! 1. [`Policy::on`] with everything that happens,
//! 2. then [`Policy::next`] until it returns `None`, carrying out each [`Action`],
//! 3. then waits for something to happen or for [`Policy::wake_at`], and in the latter case goes on at 2.
//!
//! Every rule and its reason is in `docs/architecture.md`, "Decisions". In short:
//!
//! - *Next* is asked for as soon as an event arrived: the function pays nothing, and requests go out while it runs. Only
//!   an invocation whose telemetry would otherwise be late is held (`hold.rs`).
//! - One request per signal is in flight, which keeps the order. What is new lingers a little to fill it (`lane.rs`).
//! - After a failure the lane waits with growing, random delays (`retry.rs`); after several the breaker
//!   lets one small probe through per delay, and recovery is gradual (`destination.rs`).
//! - Content that is refused is narrowed down to the record at fault (`isolate.rs`).
//! - Between invocations everything may be frozen, which no signal announces. While a request is in flight the
//!   policy asks to be woken often enough to notice. After a freeze of a second or more, connections are
//!   presumed dead, and the request gets a short grace for an answer that is already there.
//! - SHUTDOWN cuts every wait once and ends by itself before its deadline.
//! - Where there is a fallback (`standby.rs`), it gets what would be given up, what a queue that is nearly full has no
//!   room for, and at SHUTDOWN what the backend did not take (`policy/handing.rs`).

use std::time::Duration;

use super::average::Average;
use super::destination::Destination;
pub use super::event::{
    Action, Backlog, Event, FallbackSettings, Head, Meter, Outcome, Portion, Sent, Settings, Target,
};
use super::hold::Invocations;
use super::lane::{Faith, Flight, Lane, Standing};
use super::standby::Standby;
use super::throttle::Throttle;
use crate::Signal;
use crate::clock::Time;

/// What is new waits at most so long for more, or a tenth of the tolerated delay if that is shorter. A busy
/// function then makes two requests a second instead of one per delivery (40 at 25 ms), and its telemetry is a
/// twentieth of the default tolerance late.
const LINGER_MAX: Duration = Duration::from_millis(500);
const LINGER_PER_DELAY: u32 = 10;

/// How often the policy wakes while a request is in flight that a freeze could catch.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// Woken so much later than asked for, we were frozen (or starved of CPU: then not counting the time is right too).
const FREEZE_MIN: Duration = Duration::from_millis(200);

/// From here on a freeze has cost the connection, or so it is presumed. Below, neither end has noticed.
const LONG_FREEZE: Duration = Duration::from_secs(1);

/// After a long freeze an answer that is already in the socket is read within this.
const GRACE: Duration = Duration::from_millis(300);

/// SHUTDOWN: the last report comes a few milliseconds after it, 100 ms at most as far as is known, and lies in the Telemetry
/// API's buffer for another 25 ms. As much again, because CPU is scarce then; it is waited for only if it is due.
const LAST_BATCH_WAIT: Duration = Duration::from_millis(200);

/// SHUTDOWN with no report outstanding: what the function said last, on SIGTERM or while it failed to start, lies in the
/// Telemetry API's buffer for 25 ms. Twice that, for the way here.
const LAST_LINES_WAIT: Duration = Duration::from_millis(50);

/// Where we stand with Lambda.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Before the start and after SHUTDOWN.
    None,
    /// An event was received, the next one not asked for yet.
    Owed,
    /// Asked for: Lambda may freeze us.
    Pending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Running,
    Exited,
}

#[derive(Clone, Copy, Debug)]
struct Shutdown {
    /// Everything must be over by then.
    end: Time,
    /// When it came.
    begun: Time,
    /// Nothing more is taken in.
    closed: bool,
    /// Half of the budget is gone.
    half: Time,
    /// What a backend gets that was away before.
    quick_until: Time,
}

/// The decisions of the drain; see the module's head.
#[derive(Debug)]
pub struct Policy {
    settings: Settings,
    rng: fastrand::Rng,
    lanes: [Lane; 3],
    destination: Destination,
    standby: Option<Standby>,
    throttle: Option<Throttle>,
    /// The queue is nearly full.
    crowded: bool,
    /// It was so full that something may have to be dropped, and is still nearly full.
    brimming: bool,
    invocations: Invocations,
    latency: Average,
    /// The lane that goes first next time.
    turn: usize,
    attempts: u64,
    next: Next,
    stage: Stage,
    shutdown: Option<Shutdown>,
    /// The last time any method was called.
    seen: Time,
    /// What [`Policy::wake_at`] would have said then.
    promised: Option<Time>,
}

impl Policy {
    /// A policy before [`Event::Started`]. `rng_seed` decides all jitter: give every environment its own.
    pub fn new(settings: Settings, rng_seed: u64) -> Self {
        Self {
            lanes: Signal::ALL.map(|signal| Lane::new(signal, &settings)),
            destination: Destination::new(&settings),
            standby: settings.fallback.map(|fallback| Standby::new(&settings, &fallback)),
            throttle: settings.bytes_per_second.map(Throttle::new),
            crowded: false,
            brimming: false,
            rng: fastrand::Rng::with_seed(rng_seed),
            invocations: Invocations::default(),
            latency: Average::default(),
            turn: 0,
            attempts: 0,
            next: Next::None,
            stage: Stage::New,
            shutdown: None,
            seen: Time::ZERO,
            promised: None,
            settings,
        }
    }

    /// Takes note of `event`. Call as soon as something happens, then [`Policy::next`] until it returns `None`.
    pub fn on(&mut self, now: Time, event: Event) {
        let now = self.observe(now);
        match event {
            Event::Started => self.start(),
            Event::Invoke { request, deadline } => {
                self.received();
                let allowed = self.may_hold(now);
                self.invocations.invoke(now, request, deadline, allowed, &self.settings);
            }
            Event::FunctionStarted { request } => self.invocations.started(request),
            Event::FunctionDone { request, ran } => self.invocations.done(now, request, ran, &self.settings),
            Event::Reported { request } => self.invocations.reported(request),
            Event::Backlog { signal, level } => {
                // What an earlier process left may become known only after the start.
                let inherited = level.blocks > 0 && level.oldest.is_none();
                if inherited && self.attempts == 0 {
                    self.destination.start_ramped_down();
                }
                self.note_room(&level);
                self.lane(signal).level_changed(level);
            }
            Event::Answer { signal, attempt, sent, outcome, left } => {
                let current = self.lane(signal).flight.filter(|flight| flight.attempt == attempt);
                if let Some(flight) = current {
                    self.note_room(&left);
                    self.lane(signal).flight = None;
                    match flight.target {
                        Target::Primary => self.answer(now, signal, &flight, &sent, outcome, left),
                        Target::Fallback => {
                            self.fallback_answered(now, signal, &flight, &sent, outcome, left);
                        }
                    }
                }
            }
            Event::Settled { signal, left } => {
                self.note_room(&left);
                self.lane(signal).settled(left);
            }
            Event::Spent { wire_bytes } => {
                if let Some(throttle) = &mut self.throttle {
                    throttle.sent(now, wire_bytes);
                }
            }
            Event::Shutdown { deadline } => self.shut_down(now, deadline),
            Event::Closed => self.closed(),
        }
        self.promised = self.wake_at();
    }

    /// The next thing to do at `now`. Call until it returns `None`, after every [`Policy::on`] and at
    /// [`Policy::wake_at`].
    pub fn next(&mut self, now: Time) -> Option<Action> {
        let now = self.observe(now);
        let action = self.decide(now);
        self.promised = self.wake_at();
        action
    }

    /// When to call [`Policy::next`] even if nothing happens. Always later than the last call, once that returned
    /// `None`. `None`: only an event can change anything.
    pub fn wake_at(&self) -> Option<Time> {
        if self.stage != Stage::Running {
            return None;
        }
        let mut wake = Wake { now: self.seen, at: None };
        if let Some(shutdown) = self.shutdown {
            wake.by(shutdown.end);
            wake.by_if_later(self.last_batch_until(&shutdown));
            if self.standby.is_some() {
                wake.by_if_later(self.patience_until(&shutdown));
            }
        }
        if let Some(until) = self.invocations.hold_until(&self.settings) {
            wake.by(until);
        }
        for lane in &self.lanes {
            if let Some(flight) = &lane.flight {
                wake.by(flight.ends_at(self.settings.request_timeout));
                if self.can_freeze() {
                    wake.by(self.seen.saturating_add(HEARTBEAT));
                }
                if self.invocations.is_held() {
                    wake.by(self.too_old_to_hold_at(flight));
                }
            }
            if let Some((at, _)) = self.due(lane, self.seen) {
                wake.by(at);
            }
        }
        wake.at
    }

    // === What is told of it

    /// How long the request of `signal` has been under way, freezes not counted.
    pub fn under_way(&mut self, now: Time, signal: Signal) -> Option<Duration> {
        let now = self.observe(now);
        self.lane(signal).flight.map(|flight| flight.age(now))
    }

    /// Whether the breaker is open: the backend gets single probes only.
    pub fn is_open(&self) -> bool {
        self.destination.is_open()
    }

    /// How long ago the function of the present invocation was done, if its end was seen: when the next event is asked for,
    /// what it was held for.
    pub fn since_done(&self, now: Time) -> Option<Duration> {
        self.invocations.ended_at().map(|ended| now.saturating_sub(ended))
    }

    fn decide(&mut self, now: Time) -> Option<Action> {
        if self.stage != Stage::Running {
            return None;
        }
        // First, because the function may be waiting for it.
        if self.next == Next::Owed && !self.is_holding(now) {
            self.next = Next::Pending;
            return Some(Action::Next);
        }
        if let Some((signal, target)) = self.give_up_flight(now) {
            return Some(Action::Abort { signal, target });
        }
        // Giving up a flight counts as a failure, which ends a hold.
        if self.next == Next::Owed && !self.invocations.is_held() {
            self.next = Next::Pending;
            return Some(Action::Next);
        }
        if self.shutdown_is_over(now) {
            self.stage = Stage::Exited;
            return Some(Action::Exit);
        }
        self.drop_vain_appeals(now);
        if let Some(action) = self.settle() {
            return Some(action);
        }
        self.send(now)
    }

    // === Time

    /// Notes the time and what it says about a freeze. Time that went back stands still.
    fn observe(&mut self, now: Time) -> Time {
        let now = now.max(self.seen);
        if self.can_freeze() {
            let expected = self.promised.unwrap_or(Time::MAX).max(self.seen);
            let frozen = now.saturating_sub(expected);
            if frozen > FREEZE_MIN {
                self.thaw(now, frozen);
            }
        }
        self.seen = now;
        now
    }

    /// Lambda freezes an environment only when every extension has asked for the next event.
    fn can_freeze(&self) -> bool {
        self.next == Next::Pending && !self.settings.continuous
    }

    fn thaw(&mut self, now: Time, frozen: Duration) {
        let long = frozen >= LONG_FREEZE;
        if long {
            self.destination.presume_dead();
            if let Some(standby) = &mut self.standby {
                standby.destination.presume_dead();
            }
        }
        for flight in self.lanes.iter_mut().filter_map(|lane| lane.flight.as_mut()) {
            flight.frozen = flight.frozen.saturating_add(frozen);
            // A second freeze within the grace: the run in between was its chance.
            let second = flight.grace_until.is_some();
            if second {
                flight.grace_until = Some(now);
            } else if long {
                flight.grace_until = Some(now.saturating_add(GRACE));
            }
        }
    }

    // === Lifecycle

    fn start(&mut self) {
        if self.stage != Stage::New {
            return;
        }
        self.stage = Stage::Running;
        self.next = Next::Owed;
        if self.lanes.iter().any(|lane| lane.level.blocks > 0) {
            self.destination.start_ramped_down();
        }
    }

    fn received(&mut self) {
        self.next = if self.shutdown.is_none() { Next::Owed } else { Next::None };
    }

    fn shut_down(&mut self, now: Time, deadline: Time) {
        self.next = Next::None;
        self.invocations.release();
        let end = deadline.saturating_sub(self.settings.shutdown_reserve);
        self.shutdown = Some(Shutdown {
            end,
            begun: now,
            closed: false,
            half: now.saturating_add(end.saturating_sub(now) / 2),
            quick_until: now.saturating_add(handing::QUICK_TRY),
        });
        self.destination.hurry(now);
        if let Some(standby) = &mut self.standby {
            standby.hurry(now);
        }
        for lane in &mut self.lanes {
            lane.hurry(now);
        }
    }

    /// Until when the last batch of telemetry is waited for.
    fn last_batch_until(&self, shutdown: &Shutdown) -> Time {
        let settings = &self.settings;
        // With several invocations at once (Managed Instances) whose report was the last cannot be known.
        let wait = if shutdown.closed || !(settings.continuous || settings.can_hold) {
            Duration::ZERO
        } else if settings.continuous || self.invocations.report_is_outstanding() {
            LAST_BATCH_WAIT
        } else {
            LAST_LINES_WAIT
        };
        shutdown.begun.saturating_add(wait)
    }

    /// Nothing more is taken in: what came since it seemed to be over is looked at once more.
    fn closed(&mut self) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.closed = true;
            self.stage = Stage::Running;
        }
    }

    fn shutdown_is_over(&self, now: Time) -> bool {
        let Some(shutdown) = self.shutdown else { return false };
        if now >= shutdown.end {
            return true;
        }
        let waiting = now < self.last_batch_until(&shutdown);
        let busy = self.lanes.iter().any(|lane| lane.is_busy() || self.due(lane, now).is_some());
        !waiting && !busy
    }

    // === Holding

    /// Whether anything but its own history speaks against holding an invocation that begins now.
    fn may_hold(&self, now: Time) -> bool {
        let settings = &self.settings;
        let healthy = !self.destination.is_open()
            && !self.destination.is_doubted()
            && self.lanes.iter().all(|lane| lane.failures == 0 || lane.standing == Standing::SetAside);
        let slow = self.latency.get().is_some_and(|latency| latency > settings.hold_max);
        let stuck = self.lanes.iter().filter_map(|lane| lane.flight.as_ref());
        let slow_or_aside =
            |flight: &Flight| flight.age(now) > settings.hold_max || flight.target == Target::Fallback;
        let stuck = stuck.into_iter().any(slow_or_aside);
        settings.can_hold && !settings.continuous && self.shutdown.is_none() && healthy && !slow && !stuck
    }

    fn too_old_to_hold_at(&self, flight: &Flight) -> Time {
        let past = self.settings.hold_max.saturating_add(Duration::from_nanos(1));
        flight.started.saturating_add(flight.frozen).saturating_add(past)
    }

    /// Whether the invocation is still held; lets it go if not.
    fn is_holding(&mut self, now: Time) -> bool {
        let Some(until) = self.invocations.hold_until(&self.settings) else { return false };
        if now >= until {
            self.invocations.release_expired();
            return false;
        }
        let mut flights = self.lanes.iter().filter_map(|lane| lane.flight.as_ref());
        if flights.any(|flight| now >= self.too_old_to_hold_at(flight)) {
            self.invocations.release();
            return false;
        }
        if self.invocations.is_held_after_done() {
            let worth_it = self.lanes.iter().any(|lane| {
                lane.is_busy_with_backend() || self.ready_at(lane, now).is_some_and(|at| at < until)
            });
            if !worth_it {
                self.invocations.release();
                return false;
            }
        }
        true
    }

    fn lane(&mut self, signal: Signal) -> &mut Lane {
        let [logs, metrics, traces] = &mut self.lanes;
        match signal {
            Signal::Logs => logs,
            Signal::Metrics => metrics,
            Signal::Traces => traces,
        }
    }
}

/// The earliest of several times.
struct Wake {
    now: Time,
    at: Option<Time>,
}

impl Wake {
    fn by(&mut self, at: Time) {
        self.at = Some(self.at.map_or(at, |earliest| earliest.min(at)));
    }

    fn by_if_later(&mut self, at: Time) {
        if at > self.now {
            self.by(at);
        }
    }
}

mod acting;
mod handing;
mod outcome;
#[cfg(test)]
mod tests;
