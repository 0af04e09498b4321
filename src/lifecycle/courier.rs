//! One destination and all that concerns it alone: what to do for it, requests under way, how it fares.
//!
//! Couriers know nothing of each other. Each has a policy of its own, and with it its own breaker, delays and holds: one
//! whose destination is away holds nothing up, for its policy has let go of the invocation.

use super::{Whose, settings};
use crate::clock::{self, Clock, Time};
use crate::config::Config;
use crate::deliver::{Client, Vault};
use crate::drain::executor::{Executor, Landed};
use crate::drain::policy::{Action, Event, Outcome, Policy, Settings, Target};
use crate::health::Health;
use crate::keeper::{Fate, Job, Keeper, Level, Levels, Vital, land};
use crate::logging::Pace;
use crate::outage::{self, Alert, Voice};
use crate::queue::ReaderId;
use crate::{Signal, fallback};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How a request ended that was given up, in metrics.
const TIMED_OUT: &str = "timed_out";

/// What a signal has waiting once a settlement was noted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settlement {
    /// The courier that settled.
    pub(super) courier: usize,
    pub(super) signal: Signal,
    pub(super) level: Level,
}

/// Where what couriers did comes out.
#[derive(Clone)]
pub(super) struct Outlets {
    pub(super) landed: mpsc::UnboundedSender<Landed>,
    pub(super) settled: mpsc::UnboundedSender<Settlement>,
}

/// What brings one destination its telemetry.
pub(super) struct Courier {
    whose: Whose,
    /// `None`: the main destination.
    name: Option<String>,
    policy: Policy,
    executor: Executor,
    client: Arc<Client>,
    settled: mpsc::UnboundedSender<Settlement>,
    levels: Levels,
    health: Health,
    fallback_health: Health,
    has_fallback: bool,
    handing_over: HandingOver,
    alert: Alert,
    voice: Voice,
    stage: Stage,
}

/// Whether it is to be told that the fallback gets something.
#[derive(Default)]
pub(super) struct HandingOver {
    /// It was, and nothing was delivered since.
    pub(super) is_told: bool,
    /// A backend that takes some and refuses some would have it told again and again.
    pace: Pace,
}

impl HandingOver {
    /// It gets something at `now`; asking is telling.
    pub(super) fn is_to_be_told(&mut self, now: Time) -> bool {
        let tells = !self.is_told && self.pace.allows(now);
        self.is_told |= tells;
        tells
    }
}

/// What a courier still needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The present invocation.
    Holds,
    /// That no longer.
    HasReleased,
    /// Nothing in this process.
    IsDone,
}

impl Courier {
    /// A courier to where `config` says; `None` if that is nowhere.
    pub(super) fn new(
        whose: Whose,
        name: Option<&str>,
        config: &Config,
        keeper: &Keeper,
        outlets: &Outlets,
        (continuous, subscribed): (bool, bool),
    ) -> Option<Self> {
        let urls: Vec<_> = Signal::ALL.into_iter().filter_map(|signal| config.signal_url(signal)).collect();
        if urls.is_empty() {
            return None;
        }
        let client = Arc::new(
            Client::new(&urls, config.timeout)
                .trusting(config.ca_file.clone())
                .showing(config.client_cert_file.clone(), config.client_key_file.clone()),
        );
        let vault =
            Arc::new(Vault::new(config.timeout, config.ca_file.clone(), |name| std::env::var(name).ok()));
        let (fallback, bounds) = fallback::open(config, &vault).unzip();
        let settings = Settings { fallback: bounds, ..settings(config, continuous, subscribed) };
        let fallback_name = config.fallback.as_ref().map(|place| format!("fallback {place}"));
        let executor = Executor::new(
            (whose.courier, whose.reader),
            config,
            (Arc::clone(&client), vault, fallback.map(Arc::new)),
            config.protocol.wire().as_ref(),
            keeper.asker(),
            outlets.landed.clone(),
        );
        Some(Self {
            whose,
            name: name.map(str::to_owned),
            has_fallback: settings.fallback.is_some(),
            policy: Policy::new(settings, fastrand::u64(..)),
            executor,
            client,
            settled: outlets.settled.clone(),
            levels: Levels::default(),
            health: name.map_or_else(Health::default, Health::of_destination),
            fallback_health: Health::of(fallback_name.unwrap_or_default()),
            handing_over: HandingOver::default(),
            alert: Alert::after(config.outage_alert_after),
            voice: Voice::default(),
            stage: Stage::Holds,
        })
    }

    /// Whether it delivers what `reader` of `keeper` has waiting.
    pub(super) fn serves(&self, keeper: usize, reader: ReaderId) -> bool {
        (self.whose.keeper, self.whose.reader) == (keeper, reader)
    }

    /// Which keeper has what it delivers.
    pub(super) fn keeper(&self) -> usize {
        self.whose.keeper
    }

    /// Its connections, before there are any.
    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    /// Whether it needs the present invocation no longer.
    pub(super) fn has_released(&self) -> bool {
        self.stage == Stage::HasReleased
    }

    /// The next event was asked for, or has come: there is another invocation to hold.
    pub(super) fn begin_anew(&mut self) {
        if self.stage == Stage::HasReleased {
            self.stage = Stage::Holds;
        }
    }

    /// Nothing more is taken in: what was since it seemed to be done is its to deliver.
    pub(super) fn intake_closed(&mut self, now: Time) {
        // There is no further event that it could let come.
        self.stage = Stage::Holds;
        self.policy.on(now, Event::Closed);
    }

    /// Whether it has nothing left to do in this process.
    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::IsDone
    }

    /// Whether what it does not deliver may go elsewhere.
    pub(super) fn has_fallback(&self) -> bool {
        self.has_fallback
    }

    /// Bytes of the bodies of all its requests so far.
    pub(super) fn egress_bytes(&self) -> u64 {
        self.executor.egress_bytes()
    }

    /// How long ago the function of the present invocation was done.
    pub(super) fn since_done(&self, now: Time) -> Option<Duration> {
        self.policy.since_done(now)
    }

    /// When there is something to do even if nothing happens.
    pub(super) fn wake_at(&self) -> Option<Time> {
        self.policy.wake_at().filter(|_| !self.is_done())
    }

    /// Tells its policy of `event`.
    pub(super) fn tell(&mut self, now: Time, event: Event) {
        self.policy.on(now, event);
    }

    /// The keeper says what `signal` has waiting.
    pub(super) fn heard(&mut self, now: Time, signal: Signal, level: Level) {
        let level = self.levels.newest(signal, level);
        // What an earlier process left for an address that is not set any more waits, and holds nobody up.
        if self.executor.can_send(signal) {
            self.policy.on(now, Event::Backlog { signal, level });
        }
    }

    /// A settlement was noted.
    pub(super) fn settled(&mut self, now: Time, settlement: Settlement) {
        let Settlement { signal, level, .. } = settlement;
        let left = self.levels.newest(signal, level);
        self.policy.on(now, Event::Settled { signal, left });
    }

    /// A request of its own has ended.
    pub(super) fn landed(&mut self, now: Time, landed: Landed, keeper: &Keeper) {
        let Landed { signal, attempt, target, sent, outcome, verdict, left, .. } = landed;
        let left = self.levels.newest(signal, left);
        let took = self.policy.under_way(now, signal);
        if let Some(verdict) = verdict {
            self.health_of(target).note(now, &verdict, left.blocks);
        }
        match (target, outcome) {
            (Target::Primary, Outcome::Delivered) => self.handing_over.is_told = false,
            (Target::Fallback, Outcome::Delivered) => {
                // What the backend refused is there now: the search for it is over.
                self.health.found_the_fault();
                if self.handing_over.is_to_be_told(now) {
                    log::warn!("the fallback gets what the backend does not take");
                }
            }
            _ => {}
        }
        self.policy.on(now, Event::Answer { signal, attempt, sent, outcome, left });
        if outcome != Outcome::NotSent {
            self.ended(now, (signal, target), outcome.name(), took, keeper);
        }
    }

    /// A request ended: metrics and alerts may want to know.
    fn ended(
        &mut self,
        now: Time,
        (signal, target): (Signal, Target),
        result: &'static str,
        took: Option<Duration>,
        keeper: &Keeper,
    ) {
        let breaker_open = self.policy.is_open();
        // Metrics tell of the main destination.
        if self.name.is_none() {
            keeper.ask(Job::Vital(Vital::Request { signal, target, result, took, breaker_open }));
        }
        let Some(said) = self.alert.ended(now, self.health.outage(now)) else { return };
        let (reply, standing) = oneshot::channel();
        keeper.ask(Job::Standing(self.whose.reader, reply));
        let (name, voice) = (self.name.clone(), self.voice.clone());
        tokio::spawn(async move {
            if let Ok(standing) = standing.await {
                voice.say(outage::line(said, name.as_deref(), &standing, clock::unix_now()));
            }
        });
    }

    /// Does all that is to be done now.
    pub(super) fn act(&mut self, clock: &mut Clock, keeper: &Keeper) {
        while let Some(action) = self.policy.next(clock.now()) {
            match action {
                Action::Next => self.stage = Stage::HasReleased,
                Action::Send { signal, attempt, portion, gzip, target } => {
                    self.executor.send(signal, attempt, portion, gzip, target);
                }
                Action::Abort { signal, target } => {
                    let wire_bytes = self.executor.abort(signal);
                    let now = clock.now();
                    if target == Target::Primary {
                        self.policy.on(now, Event::Spent { wire_bytes });
                    }
                    self.health_of(target).timed_out(now);
                    self.ended(now, (signal, target), TIMED_OUT, None, keeper);
                }
                Action::RenewConnections(target) => self.executor.renew_connections(target),
                Action::Settle { signal, head, refused, delivered } => {
                    if refused > 0 {
                        self.health.gave_up(clock.now(), signal, refused);
                    }
                    self.settle(signal, Fate::Settled { head, refused, delivered }, keeper);
                }
                Action::Exit => self.stage = Stage::IsDone,
            }
        }
    }

    fn health_of(&mut self, target: Target) -> &mut Health {
        match target {
            Target::Primary => &mut self.health,
            Target::Fallback => &mut self.fallback_health,
        }
    }

    fn settle(&self, signal: Signal, fate: Fate, keeper: &Keeper) {
        let level = land(&keeper.asker(), self.whose.reader, signal, fate);
        let settled = self.settled.clone();
        let courier = self.whose.courier;
        tokio::spawn(async move {
            if let Some(level) = level.await {
                // Nobody listens any more once it is over.
                let _unheard = settled.send(Settlement { courier, signal, level }).err();
            }
        });
    }

    /// Tells what is untold of its destination, at the end.
    pub(super) fn end(&mut self) {
        self.health.end();
    }
}
