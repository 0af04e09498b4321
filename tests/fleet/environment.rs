//! One environment: the real policy, a queue of three signals, and a function that is invoked, runs, and freezes.

use std::time::Duration;

use outlast::Signal;
use outlast::clock::Time;
use outlast::config::Config;
use outlast::drain::policy::{Action, Event, Outcome, Policy, Portion, Sent, Settings};

use crate::backend::{Answer, Micros, SECOND};
use crate::habits::Habits;
use crate::queue::Queue;

/// From an event to its arrival: the least that the Telemetry API can be told to gather for.
const GATHERING: Micros = 25_000;
/// After a thaw, what is under way already arrives so soon: telemetry, and answers in the socket.
const THAW: Micros = 2_000;
/// The other end repeats an answer that nobody acknowledges for longer than this; the way there forgets the connection (Amazon
/// VPC user guide, "NAT gateways": idle for 350 s).
const CONNECTION_OUTLIVES: Micros = 350 * SECOND;
/// While a function runs, its logs come once a second.
const LOGS_EVERY: Micros = SECOND;
/// What the platform's report of an invocation becomes.
const METRICS_BYTES: u32 = 900;
const TRACES_BYTES: u32 = 1_200;

/// More actions than this without time passing is a busy loop.
const ACTIONS_MAX: usize = 64;

pub(crate) fn time(at: Micros) -> Time {
    Duration::from_micros(at)
}

/// The settings a user has who sets an endpoint.
pub(crate) fn settings(config: &Config) -> Settings {
    Settings {
        batch_max_bytes: config.batch_max_bytes as u64,
        gzip: config.gzip,
        max_delay: config.max_delay,
        hold_max: config.hold_max,
        retry_initial: config.retry_initial,
        retry_max: config.retry_max,
        request_timeout: config.timeout,
        shutdown_reserve: config.shutdown_reserve,
        continuous: false,
        can_hold: true,
        bytes_per_second: None,
        fallback: None,
    }
}

/// What comes to an environment at a time that was fixed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Invoke,
    /// Telemetry that was gathered while the environment lay frozen.
    Late,
    /// Telemetry of the running function.
    Logs,
    /// The function ends.
    End,
    /// Telemetry of a function that has ended, if the environment is held.
    Done,
    /// An answer to the attempt of this number.
    Answer(Signal, u64),
    /// The policy asked to be woken.
    Wake,
}

/// What an environment asks of the world while it acts.
pub(crate) trait World {
    fn at(&mut self, at: Micros, what: What);
    fn request(&mut self, now: Micros, bytes: u64) -> Answer;
    fn dropped(&mut self, bytes: u64);
    /// So many bytes were taken; `again`: as they had been before.
    fn delivered(&mut self, bytes: u64, again: bool);
}

#[derive(Debug)]
struct Flight {
    attempt: u64,
    sent: Sent,
    outcome: Outcome,
    /// When the answer came while nobody could read it.
    parked: Option<Micros>,
}

/// What the Telemetry API holds until the thaw.
#[derive(Clone, Copy, Debug, Default)]
struct Gathered {
    logs: u32,
    started: bool,
    /// How long the function ran.
    done: Option<Micros>,
    reported: bool,
}

#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) habits: Habits,
    random: fastrand::Rng,
    policy: Policy,
    queues: [Queue; 3],
    flights: [Option<Flight>; 3],
    /// The front of the queue up to this block was taken, but nobody heard of it.
    taken_unheard: [u64; 3],
    awake: bool,
    running: bool,
    next_asked: bool,
    invocation: u64,
    began: Micros,
    run: Micros,
    /// Of this invocation, not said yet.
    unsaid: u32,
    gathered: Gathered,
    /// When the wake that counts was asked for.
    wake: Option<Micros>,
    /// Bytes waiting when the backend came back, and when the last of them was taken.
    pub(crate) owed: u64,
    pub(crate) caught_up: Option<Micros>,
}

impl Environment {
    /// `often`: how much more often than others its function is invoked.
    pub(crate) fn new(settings: &Settings, often: f64, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            habits: Habits::draw(often, &mut random),
            policy: Policy::new(settings.clone(), random.u64(..)),
            random,
            queues: Default::default(),
            flights: Default::default(),
            taken_unheard: [0; 3],
            awake: false,
            running: false,
            next_asked: false,
            invocation: 0,
            began: 0,
            run: 0,
            unsaid: 0,
            gathered: Gathered::default(),
            wake: None,
            owed: 0,
            caught_up: None,
        }
    }

    /// The environment comes to be, and is invoked some time later.
    pub(crate) fn start(&mut self, now: Micros, world: &mut impl World) {
        self.awake = true;
        self.tell(now, Event::Started, world);
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.queues.iter().map(Queue::bytes).sum()
    }

    /// The backend comes back: what waits now is what this environment owes.
    pub(crate) fn backend_is_back(&mut self) {
        self.queues.iter_mut().for_each(Queue::mark);
        self.owed = self.owing();
    }

    /// What it owes still.
    pub(crate) fn owing(&self) -> u64 {
        self.queues.iter().map(Queue::owed).sum()
    }

    pub(crate) fn oldest(&self) -> Option<Micros> {
        self.queues.iter().filter_map(Queue::oldest).min()
    }

    pub(crate) fn happens(&mut self, now: Micros, what: What, world: &mut impl World) {
        match what {
            What::Invoke => self.invoked(now, world),
            What::Late => self.late(now, world),
            What::Logs => self.logs(now, world),
            What::End => self.ended(now, world),
            What::Done => self.done(now, world),
            What::Answer(signal, attempt) => self.answered(now, signal, attempt, world),
            What::Wake => self.woken(now, world),
        }
    }

    // === The function

    fn invoked(&mut self, now: Micros, world: &mut impl World) {
        self.awake = true;
        self.running = true;
        self.next_asked = false;
        self.invocation += 1;
        self.began = now;
        self.run = self.habits.run(&mut self.random);
        self.unsaid = self.habits.logs(&mut self.random);
        world.at(now + self.run, What::End);
        world.at(now + THAW, What::Late);
        world.at(now + GATHERING, What::Logs);
        for signal in Signal::ALL {
            if let Some(flight) = &self.flights[signal.index()]
                && let Some(parked) = flight.parked
                && now - parked < CONNECTION_OUTLIVES
            {
                world.at(now + THAW, What::Answer(signal, flight.attempt));
            }
        }
        let request = self.invocation;
        self.tell(now, Event::Invoke { request, deadline: None }, world);
    }

    fn late(&mut self, now: Micros, world: &mut impl World) {
        if !self.awake {
            return;
        }
        let gathered = std::mem::take(&mut self.gathered);
        let request = self.invocation - 1;
        self.append(now, Signal::Logs, gathered.logs, world);
        if gathered.started {
            self.tell(now, Event::FunctionStarted { request }, world);
        }
        if gathered.reported {
            self.append(now, Signal::Metrics, METRICS_BYTES, world);
            self.append(now, Signal::Traces, TRACES_BYTES, world);
        }
        if let Some(ran) = gathered.done {
            self.tell(now, Event::FunctionDone { request, ran: Some(time(ran)) }, world);
        }
        if gathered.reported {
            self.tell(now, Event::Reported { request }, world);
        }
    }

    /// The share of the logs that belongs to the time until the next ones.
    fn logs(&mut self, now: Micros, world: &mut impl World) {
        if !self.awake || !self.running {
            return;
        }
        let first = now - self.began <= GATHERING;
        let left = (self.began + self.run).saturating_sub(now);
        let said = (u64::from(self.unsaid) / (left / LOGS_EVERY + 2)) as u32;
        self.unsaid -= said;
        self.append(now, Signal::Logs, said, world);
        if first {
            self.tell(now, Event::FunctionStarted { request: self.invocation }, world);
        }
        if left > LOGS_EVERY {
            world.at(now + LOGS_EVERY, What::Logs);
        }
    }

    fn ended(&mut self, now: Micros, world: &mut impl World) {
        self.running = false;
        self.gathered.logs += std::mem::take(&mut self.unsaid);
        self.gathered.started = self.run < GATHERING;
        self.gathered.done = Some(self.run);
        self.gathered.reported = true;
        if self.next_asked {
            self.freeze(now, world);
        } else {
            world.at(now + GATHERING, What::Done);
        }
    }

    /// The end of the function is heard of, for the environment is held.
    fn done(&mut self, now: Micros, world: &mut impl World) {
        if !self.awake || self.running {
            return;
        }
        let logs = std::mem::take(&mut self.gathered.logs);
        self.append(now, Signal::Logs, logs, world);
        let request = self.invocation;
        if std::mem::take(&mut self.gathered.started) {
            self.tell(now, Event::FunctionStarted { request }, world);
        }
        if let Some(ran) = self.gathered.done.take() {
            self.tell(now, Event::FunctionDone { request, ran: Some(time(ran)) }, world);
        }
    }

    fn freeze(&mut self, now: Micros, world: &mut impl World) {
        self.awake = false;
        self.wake = None;
        world.at(now + self.habits.gap(&mut self.random), What::Invoke);
    }

    // === The extension

    fn append(&mut self, now: Micros, signal: Signal, bytes: u32, world: &mut impl World) {
        if bytes > 0 {
            let index = signal.index();
            let dropped = self.queues[index].append(now, bytes, self.flights[index].is_some());
            world.dropped(dropped);
            let level = self.queues[index].level();
            self.tell(now, Event::Backlog { signal, level }, world);
        }
    }

    fn answered(&mut self, now: Micros, signal: Signal, attempt: u64, world: &mut impl World) {
        let index = signal.index();
        let Some(flight) = self.flights[index].as_mut().filter(|flight| flight.attempt == attempt) else {
            return;
        };
        if !self.awake {
            flight.parked = Some(now);
            return;
        }
        let Flight { sent, outcome, .. } = *flight;
        self.flights[index] = None;
        if outcome == Outcome::Delivered {
            let again = sent.head < self.taken_unheard[index];
            world.delivered(sent.plain_bytes, again);
            self.queues[index].delivered(&sent);
        }
        let left = self.queues[index].level();
        self.tell(now, Event::Answer { signal, attempt, sent, outcome, left }, world);
    }

    fn woken(&mut self, now: Micros, world: &mut impl World) {
        if !self.awake || self.wake.is_none_or(|wake| wake > now) {
            return;
        }
        self.wake = None;
        // Put off since it was asked for?
        if self.policy.wake_at().is_some_and(|at| at > time(now)) {
            self.sleep(now, world);
        } else {
            self.act(now, world);
        }
    }

    fn tell(&mut self, now: Micros, event: Event, world: &mut impl World) {
        self.policy.on(time(now), event);
        self.act(now, world);
    }

    fn act(&mut self, now: Micros, world: &mut impl World) {
        for step in 0.. {
            assert!(step < ACTIONS_MAX, "a busy loop at {now}: {:?}", self.policy);
            let Some(action) = self.policy.next(time(now)) else { break };
            match action {
                Action::Next => self.next_asked = true,
                Action::Send { signal, attempt, portion, .. } => {
                    self.send(now, signal, attempt, portion, world);
                }
                Action::Abort { signal, .. } => {
                    let index = signal.index();
                    // Taken, but the answer was never read.
                    if let Some(flight) = self.flights[index].take()
                        && flight.outcome == Outcome::Delivered
                    {
                        self.taken_unheard[index] = flight.sent.head + flight.sent.blocks;
                    }
                }
                Action::RenewConnections(_) => {}
                Action::Settle { .. } | Action::Exit => panic!("{action:?} was not to be expected"),
            }
        }
        if self.awake && self.next_asked && !self.running {
            self.freeze(now, world);
        } else if self.awake {
            self.sleep(now, world);
        }
    }

    fn send(&mut self, now: Micros, signal: Signal, attempt: u64, portion: Portion, world: &mut impl World) {
        let sent = self.queues[signal.index()].assemble(portion);
        let outcome = match world.request(now, sent.wire_bytes) {
            Answer::At(at, outcome) => {
                world.at(at, What::Answer(signal, attempt));
                outcome
            }
            Answer::Never => Outcome::Retry { after: None, fate_unknown: true },
        };
        self.flights[signal.index()] = Some(Flight { attempt, sent, outcome, parked: None });
    }

    /// Asks to be woken when the policy says, unless an earlier wake is asked for already.
    fn sleep(&mut self, now: Micros, world: &mut impl World) {
        let Some(at) = self.policy.wake_at() else { return };
        // Up, or it would be woken too early by a fraction, for ever.
        let at = (at.as_nanos().div_ceil(1_000) as Micros).max(now + 1);
        if self.wake.is_none_or(|wake| at < wake) {
            self.wake = Some(at);
            world.at(at, What::Wake);
        }
    }
}
