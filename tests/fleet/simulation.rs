//! Time: a heap of what is going to happen, and the fleet that it happens to.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use outlast::drain::policy::{Outcome, Settings};

use crate::backend::{Answer, Away, Backend, Micros, SECOND};
use crate::environment::{Environment, What, World};
use crate::measure::{Fairness, Figures, Series};

/// Environments come to be in the first so many seconds.
const ARRIVAL: Micros = 30 * SECOND;
/// The load of usual times is measured from here to the outage.
const STEADY_FROM: Micros = 60 * SECOND;
pub(crate) const OUTAGE_FROM: Micros = 180 * SECOND;
/// The least and the most that is looked at after the recovery.
const AFTER_MIN: Micros = 300 * SECOND;
const AFTER_MAX: Micros = 5_400 * SECOND;
/// The backlog counts as drained when so much of what waited at the recovery was taken.
const DRAINED: f64 = 0.99;

/// How much more often a busy function is invoked.
const BUSY: u32 = 20;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) away: Away,
    /// `Retry-After` of those that are turned away after the recovery.
    pub(crate) shed_after: Option<Duration>,
    /// What the backend can take, as a multiple of the load of usual times.
    pub(crate) headroom: f64,
    /// Whether its functions are seldom at rest. Such an environment costs as much to simulate as many others.
    pub(crate) busy: bool,
}

/// The outages that are tried.
pub(crate) const SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "refused",
        what: "no connection; afterwards it can take 1.5 times the usual load and turns the rest away with 503",
        away: Away::Refused,
        shed_after: None,
        headroom: 1.5,
        busy: false,
    },
    Scenario {
        name: "unavailable",
        what: "503 without Retry-After; afterwards as above",
        away: Away::Unavailable(None),
        shed_after: None,
        headroom: 1.5,
        busy: false,
    },
    Scenario {
        name: "retry-after",
        what: "503 with Retry-After: 30; afterwards it turns the rest away with Retry-After: 5",
        away: Away::Unavailable(Some(Duration::from_secs(30))),
        shed_after: Some(Duration::from_secs(5)),
        headroom: 1.5,
        busy: false,
    },
    Scenario {
        name: "hung",
        what: "requests are never answered; afterwards as the first",
        away: Away::Hung,
        shed_after: None,
        headroom: 1.5,
        busy: false,
    },
    Scenario {
        name: "overloaded",
        what: "503; afterwards it can take only 1.15 times the usual load and turns the rest away",
        away: Away::Unavailable(None),
        shed_after: None,
        headroom: 1.15,
        busy: false,
    },
    Scenario {
        name: "overloaded-retry-after",
        what: "503 with Retry-After: 30; afterwards it can take only 1.15 times the usual load and turns the rest away \
               with Retry-After: 5",
        away: Away::Unavailable(Some(Duration::from_secs(30))),
        shed_after: Some(Duration::from_secs(5)),
        headroom: 1.15,
        busy: false,
    },
    Scenario {
        name: "busy-retry-after",
        what: "a fleet that is invoked twenty times as often, of a twentieth of the size; 503 with Retry-After: 30, \
               afterwards it can take 1.5 times the usual load and turns the rest away with Retry-After: 5",
        away: Away::Unavailable(Some(Duration::from_secs(30))),
        shed_after: Some(Duration::from_secs(5)),
        headroom: 1.5,
        busy: true,
    },
];

/// Everything but the environments.
struct Outside {
    now: Micros,
    /// Whose turn it is.
    who: u32,
    agenda: BinaryHeap<Reverse<(Micros, u32, What)>>,
    backend: Backend,
    series: Series,
}

impl World for Outside {
    fn at(&mut self, at: Micros, what: What) {
        self.agenda.push(Reverse((at, self.who, what)));
    }

    fn request(&mut self, now: Micros, bytes: u64) -> Answer {
        let answer = self.backend.take(now, bytes);
        let taken = matches!(answer, Answer::At(_, Outcome::Delivered));
        self.series.request(now, bytes, self.backend.work(bytes), taken);
        answer
    }

    fn dropped(&mut self, bytes: u64) {
        self.series.dropped += bytes;
    }

    fn delivered(&mut self, bytes: u64, again: bool) {
        self.series.delivered(bytes, again);
    }
}

struct Simulation {
    fleet: Vec<Environment>,
    outside: Outside,
}

/// Plays `scenario` with so many environments for an outage of `outage`.
pub(crate) fn play(
    scenario: &Scenario,
    environments: u32,
    outage: Duration,
    settings: &Settings,
    seed: u64,
) -> Figures {
    let mut seeds = fastrand::Rng::with_seed(seed);
    let environments = if scenario.busy { environments.div_ceil(BUSY) } else { environments };
    let often = if scenario.busy { f64::from(BUSY) } else { 1.0 };
    let fleet = (0..environments).map(|_| Environment::new(settings, often, seeds.u64(..))).collect();
    let outside = Outside {
        now: 0,
        who: 0,
        agenda: BinaryHeap::new(),
        backend: Backend::new(scenario.shed_after),
        series: Series::default(),
    };
    let mut simulation = Simulation { fleet, outside };
    simulation.begin(&mut seeds);
    let back_at = OUTAGE_FROM + outage.as_micros() as Micros;

    simulation.run_until(OUTAGE_FROM);
    let steady = simulation.outside.series.rate(STEADY_FROM, OUTAGE_FROM);
    let capacity = scenario.headroom * steady.requests;
    simulation.outside.backend.limit(capacity, scenario.headroom * steady.bytes);
    simulation.outside.backend.goes_away(scenario.away);

    simulation.run_until(back_at);
    simulation.outside.backend.comes_back(back_at);
    for environment in &mut simulation.fleet {
        environment.backend_is_back();
    }
    let (drained, fairness) = simulation.recover(back_at);
    simulation.outside.series.figures(steady, capacity, back_at, drained, fairness)
}

impl Simulation {
    fn begin(&mut self, seeds: &mut fastrand::Rng) {
        let mut born: Vec<Micros> = self.fleet.iter().map(|_| seeds.u64(..ARRIVAL)).collect();
        born.sort_unstable();
        for (who, (environment, at)) in self.fleet.iter_mut().zip(born).enumerate() {
            self.outside.who = who as u32;
            environment.start(at, &mut self.outside);
        }
    }

    /// Runs to the second `end`, taking a look at the fleet each second.
    fn run_until(&mut self, end: Micros) {
        while self.outside.now < end {
            let second = self.outside.now + SECOND;
            while let Some(Reverse((at, who, what))) = self.outside.agenda.peek().copied() {
                if at >= second {
                    break;
                }
                self.outside.agenda.pop();
                self.outside.now = self.outside.now.max(at);
                self.outside.who = who;
                self.fleet[who as usize].happens(at, what, &mut self.outside);
            }
            self.outside.now = second;
            self.look();
        }
    }

    fn look(&mut self) {
        let waiting = self.fleet.iter().map(Environment::waiting).sum();
        let oldest = self.fleet.iter().filter_map(Environment::oldest).min();
        let now = self.outside.now;
        self.outside.series.look(now, waiting, oldest.map_or(0, |oldest| now.saturating_sub(oldest)));
    }

    /// Runs until the fleet has caught up, noting when each environment had, and when nearly all was taken.
    fn recover(&mut self, back_at: Micros) -> (Option<Micros>, Fairness) {
        let (mut drained, mut shares) = (None, Vec::new());
        let owed: u64 = self.fleet.iter().map(|environment| environment.owed).sum();
        loop {
            let since = self.outside.now - back_at;
            let behind = self.fleet.iter().any(|environment| environment.caught_up.is_none());
            if since >= AFTER_MAX || (!behind && since >= AFTER_MIN) {
                break;
            }
            self.run_until(self.outside.now + SECOND);
            let since = self.outside.now - back_at;
            let mut left = 0;
            for environment in self.fleet.iter_mut().filter(|environment| environment.caught_up.is_none()) {
                let owing = environment.owing();
                left += owing;
                environment.caught_up = (owing == 0).then_some(since);
            }
            if drained.is_none() && left as f64 <= (1.0 - DRAINED) * owed as f64 {
                drained = Some(since);
            }
            if shares.is_empty() && left * 2 <= owed {
                let share =
                    |environment: &Environment| 1.0 - environment.owing() as f64 / environment.owed as f64;
                shares = self.fleet.iter().filter(|environment| environment.owed > 0).map(share).collect();
            }
        }
        let end = self.outside.now - back_at;
        let who = self.fleet.iter().filter(|environment| environment.owed > 0);
        let caught_up = who
            .map(|environment| (environment.habits.bytes_per_second(), environment.caught_up.unwrap_or(end)));
        (drained, Fairness::of(caught_up.collect(), &shares))
    }
}
