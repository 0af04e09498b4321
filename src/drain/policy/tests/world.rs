//! A queue, a backend and a clock for the policy to live in. Every step checks what must always hold: no two flights
//! per lane, `Next` once per event, a wake that lies ahead, nothing after `Exit`, FIFO bookkeeping.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Signal;
use crate::clock::Time;
use crate::drain::policy::{
    Action, Backlog, Event, FallbackSettings, Head, Outcome, Policy, Portion, Sent, Settings, Target,
};

pub(super) use crate::drain::testing::{ms, settings};

/// More actions than this without time passing is a busy loop.
const ACTIONS_PER_MOMENT_MAX: usize = 64;

/// The same with a fallback that takes everything it is given.
pub(super) fn with_fallback() -> Settings {
    let fallback = FallbackSettings { batch_max_bytes: 1 << 20, gzip: true, meter: None };
    Settings { fallback: Some(fallback), ..settings() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: u64,
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Block {
    sequence: u64,
    records: VecDeque<Record>,
    at: Option<Time>,
}

#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) now: Time,
    pub(super) signal: Signal,
    pub(super) records: &'a [Record],
    pub(super) gzip: bool,
    pub(super) target: Target,
}

impl Request<'_> {
    pub(super) fn has(&self, id: u64) -> bool {
        self.records.iter().any(|record| record.id == id)
    }
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) after: Duration,
    pub(super) outcome: Outcome,
}

pub(super) fn reply(after: Duration, outcome: Outcome) -> Reply {
    Reply { after, outcome }
}

pub(super) fn hang() -> Reply {
    Reply { after: Duration::MAX, outcome: Outcome::Delivered }
}

pub(super) const UNAVAILABLE: Outcome = Outcome::Retry { after: None, fate_unknown: false };

/// The backend and the fallback, each as told.
pub(super) fn two(
    mut primary: impl FnMut(&Request<'_>) -> Reply + 'static,
    mut fallback: impl FnMut(&Request<'_>) -> Reply + 'static,
) -> impl FnMut(&Request<'_>) -> Reply {
    move |request| match request.target {
        Target::Primary => primary(request),
        Target::Fallback => fallback(request),
    }
}

pub(super) fn away(_: &Request<'_>) -> Reply {
    reply(ms(5), UNAVAILABLE)
}

pub(super) fn takes(_: &Request<'_>) -> Reply {
    reply(ms(20), Outcome::Delivered)
}

#[derive(Debug)]
struct Flight {
    attempt: u64,
    signal: Signal,
    target: Target,
    portion: Portion,
    records: Vec<Record>,
    sent: Sent,
    ends: Time,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Append { signal: Signal, records: u64, bytes: u64 },
    Tell(Event),
}

pub(super) type Backend = Box<dyn FnMut(&Request<'_>) -> Reply>;

#[expect(clippy::struct_excessive_bools, reason = "each is a state of its own")]
pub(super) struct World {
    pub(super) policy: Policy,
    pub(super) now: Time,
    pub(super) actions: Vec<(Time, Action)>,
    /// Records the backend accepted, in order.
    pub(super) delivered: Vec<(Signal, u64)>,
    /// Records the fallback accepted, in order.
    pub(super) handed: Vec<(Signal, u64)>,
    /// Records given up, in order.
    pub(super) refused: Vec<(Signal, u64)>,
    /// What the policy is told of the queue as a whole.
    pub(super) crowded: bool,
    pub(super) brimming: bool,
    /// Word of what waits comes before the answer that it is due to.
    pub(super) answers_are_overtaken: bool,
    pub(super) appended: Vec<(Signal, u64)>,
    pub(super) next_pending: bool,
    pub(super) exited: Option<Time>,
    events_received: usize,
    nexts: usize,
    lanes: [VecDeque<Block>; 3],
    bytes: [u64; 3],
    flights: Vec<Flight>,
    /// The lane whose request has been noted and its answer not been told.
    landing: Option<Signal>,
    /// The record that was sent last as an alibi, of each signal.
    alibis: [Option<u64>; 3],
    agenda: Vec<(Time, What)>,
    backend: Backend,
    sequence: u64,
    ids: u64,
    invocations: u64,
}

impl World {
    /// Before `Started`.
    pub(super) fn new(settings: Settings, backend: impl FnMut(&Request<'_>) -> Reply + 'static) -> Self {
        Self {
            policy: Policy::new(settings, 7),
            now: Time::ZERO,
            actions: Vec::new(),
            delivered: Vec::new(),
            handed: Vec::new(),
            refused: Vec::new(),
            crowded: false,
            brimming: false,
            answers_are_overtaken: false,
            appended: Vec::new(),
            next_pending: false,
            exited: None,
            events_received: 0,
            nexts: 0,
            lanes: Default::default(),
            bytes: [0; 3],
            flights: Vec::new(),
            landing: None,
            alibis: [None; 3],
            agenda: Vec::new(),
            backend: Box::new(backend),
            sequence: 0,
            ids: 0,
            invocations: 0,
        }
    }

    /// Started, and `Next` asked for.
    pub(super) fn started(settings: Settings, backend: impl FnMut(&Request<'_>) -> Reply + 'static) -> Self {
        let mut world = Self::new(settings, backend);
        world.tell(Event::Started);
        assert!(world.next_pending);
        world
    }

    /// A backend that accepts everything after `latency`.
    pub(super) fn healthy(settings: Settings, latency: Duration) -> Self {
        Self::started(settings, move |_| reply(latency, Outcome::Delivered))
    }

    pub(super) fn seeded(mut self, settings: Settings, seed: u64) -> Self {
        assert!(self.actions.is_empty(), "too late for another seed");
        self.policy = Policy::new(settings, seed);
        self
    }

    // === What happens

    pub(super) fn tell(&mut self, event: Event) {
        if matches!(event, Event::Started | Event::Invoke { .. } | Event::Shutdown { .. }) {
            self.events_received += 1;
            self.next_pending = false;
        }
        self.policy.on(self.now, event);
        self.act();
    }

    /// Nothing more is taken in, from after what `came` on. Only once it seems to be over.
    pub(super) fn intake_closes_after(&mut self, came: impl FnOnce(&mut Self)) {
        assert!(self.exited.take().is_some(), "it was not over");
        came(self);
        self.tell(Event::Closed);
    }

    pub(super) fn append(&mut self, signal: Signal, records: u64, bytes: u64) {
        self.append_sizes(signal, &vec![bytes; records as usize]);
    }

    /// One block of records of these sizes.
    pub(super) fn append_sizes(&mut self, signal: Signal, sizes: &[u64]) {
        let at = Some(self.now);
        self.append_at(signal, sizes, at);
        let level = self.level(signal);
        self.tell(Event::Backlog { signal, level });
    }

    /// Left by an earlier process.
    pub(super) fn inherit(&mut self, signal: Signal, blocks: u64, records: u64, bytes: u64) {
        for _ in 0..blocks {
            self.append_at(signal, &vec![bytes; records as usize], None);
        }
        let level = self.level(signal);
        self.tell(Event::Backlog { signal, level });
    }

    fn append_at(&mut self, signal: Signal, sizes: &[u64], at: Option<Time>) {
        self.sequence += 1;
        let mut block = Block { sequence: self.sequence, records: VecDeque::new(), at };
        for bytes in sizes {
            self.ids += 1;
            block.records.push_back(Record { id: self.ids, bytes: *bytes });
            self.appended.push((signal, self.ids));
        }
        self.bytes[signal.index()] += sizes.iter().sum::<u64>();
        self.lanes[signal.index()].push_back(block);
    }

    pub(super) fn drop_oldest(&mut self, signal: Signal) {
        if let Some(block) = self.lanes[signal.index()].pop_front() {
            for record in block.records {
                self.bytes[signal.index()] -= record.bytes;
                self.appended.retain(|known| *known != (signal, record.id));
            }
        }
        let level = self.level(signal);
        self.tell(Event::Backlog { signal, level });
    }

    pub(super) fn at(&mut self, at: Time, what: What) {
        self.agenda.push((at, what));
        self.agenda.sort_by_key(|(at, _)| *at);
    }

    /// Lets time pass, everything awake.
    pub(super) fn run_until(&mut self, end: Time) {
        self.act();
        while self.step(end) {}
        self.now = self.now.max(end);
        self.act();
    }

    pub(super) fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    /// Lets time pass until every lane is empty; `steps` bounds the patience.
    pub(super) fn run_until_empty(&mut self, steps: usize) {
        self.act();
        for _ in 0..steps {
            if self.is_empty() {
                return;
            }
            assert!(self.step(Time::MAX), "stuck: nothing will ever happen, yet {:?} waits", self.lanes);
        }
        panic!("not empty after {steps} steps: {:?} {:?}", self.lanes, self.policy);
    }

    /// The environment lies still: no timer fires, no answer is read.
    pub(super) fn freeze(&mut self, duration: Duration) {
        assert!(self.next_pending, "Lambda does not freeze an environment that owes it a `next`");
        self.now += duration;
    }

    /// One invocation of a function that runs for `run` and says something at both ends, then `idle` until the next one
    /// may come. Returns how long the function was held.
    pub(super) fn invocation(&mut self, run: Duration, idle: Duration) -> Duration {
        assert!(self.next_pending, "INVOKE can only arrive while `next` is asked for");
        self.invocations += 1;
        let request = self.invocations;
        let telemetry = ms(25);
        let end = self.now + run;
        let logs = What::Append { signal: Signal::Logs, records: 3, bytes: 200 };
        self.at(self.now + telemetry, logs);
        self.at(self.now + telemetry, What::Tell(Event::FunctionStarted { request }));
        self.at(end + telemetry, logs);
        self.at(end + telemetry, What::Tell(Event::FunctionDone { request, ran: Some(run) }));
        let deadline = Some(self.now + run + ms(3_000));
        self.tell(Event::Invoke { request, deadline });
        self.run_until(end);
        while !self.next_pending {
            assert!(self.step(end + ms(60_000)), "never released");
        }
        let held = self.now - end;
        self.at(self.now + idle + ms(5), What::Tell(Event::Reported { request }));
        if idle > Duration::ZERO {
            self.freeze(idle);
        }
        held
    }

    // === What can be asked

    /// When requests to `target` went out, and of which signal.
    pub(super) fn sends_to(&self, target: Target) -> Vec<(Duration, Signal)> {
        let send = |(at, action): &(Duration, Action)| match action {
            Action::Send { signal, target: to, .. } if *to == target => Some((*at, *signal)),
            _ => None,
        };
        self.actions.iter().filter_map(send).collect()
    }

    pub(super) fn level(&self, signal: Signal) -> Backlog {
        let lane = &self.lanes[signal.index()];
        let sum = |block: &Block| block.records.iter().map(|record| record.bytes).sum::<u64>();
        Backlog {
            blocks: lane.len() as u64,
            bytes: self.bytes[signal.index()],
            oldest: lane.front().and_then(|block| block.at),
            head: lane.front().map(|block| Head {
                sequence: block.sequence,
                records: block.records.len() as u64,
                bytes: sum(block),
            }),
            crowded: self.crowded,
            brimming: self.brimming,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// Records that are still in the queue.
    pub(super) fn left(&self) -> Vec<(Signal, u64)> {
        let of = |signal: Signal| {
            let blocks = self.lanes[signal.index()].iter();
            blocks.flat_map(|block| &block.records).map(move |record| (signal, record.id))
        };
        Signal::ALL.into_iter().flat_map(of).collect()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn sends(&self) -> Vec<(Time, Signal, Portion)> {
        let send = |(at, action): &(Time, Action)| match action {
            Action::Send { signal, portion, .. } => Some((*at, *signal, *portion)),
            _ => None,
        };
        self.actions.iter().filter_map(send).collect()
    }

    pub(super) fn count(&self, wanted: impl Fn(&Action) -> bool) -> usize {
        self.actions.iter().filter(|(_, action)| wanted(action)).count()
    }

    // === The machinery

    fn step(&mut self, end: Time) -> bool {
        let wake = self.policy.wake_at();
        if let Some(wake) = wake {
            assert!(wake > self.now, "wakes at {wake:?}, but it is {:?}", self.now);
        }
        let answer = self.flights.iter().map(|flight| flight.ends).min();
        let agenda = self.agenda.first().map(|(at, _)| *at);
        let Some(next) = [wake, answer, agenda].into_iter().flatten().min().filter(|next| *next < end) else {
            return false;
        };
        self.now = self.now.max(next);
        if let Some(index) = self.flights.iter().position(|flight| flight.ends <= self.now) {
            let flight = self.flights.remove(index);
            self.finish(&flight);
        } else if agenda.is_some_and(|at| at <= self.now) {
            match self.agenda.remove(0).1 {
                What::Append { signal, records, bytes } => self.append(signal, records, bytes),
                What::Tell(event) => self.tell(event),
            }
        }
        self.act();
        true
    }

    fn finish(&mut self, flight: &Flight) {
        let signal = flight.signal;
        if flight.outcome == Outcome::Delivered {
            let ends = match flight.target {
                Target::Primary => &mut self.delivered,
                Target::Fallback => &mut self.handed,
            };
            ends.extend(flight.records.iter().map(|record| (signal, record.id)));
            if flight.portion != Portion::Alibi {
                for record in &flight.records {
                    // Others were dropped meanwhile.
                    if self.first(signal) == Some(record.id) {
                        self.pop(signal);
                    }
                }
            }
        }
        if self.answers_are_overtaken {
            self.landing = Some(signal);
            let level = self.level(signal);
            self.tell(Event::Backlog { signal, level });
            self.landing = None;
        }
        self.tell(Event::Answer {
            signal,
            attempt: flight.attempt,
            sent: flight.sent,
            outcome: flight.outcome,
            left: self.level(signal),
        });
    }

    fn first(&self, signal: Signal) -> Option<u64> {
        self.lanes[signal.index()].front()?.records.front().map(|record| record.id)
    }

    fn pop(&mut self, signal: Signal) -> Option<Record> {
        let lane = &mut self.lanes[signal.index()];
        let block = lane.front_mut()?;
        let record = block.records.pop_front();
        self.bytes[signal.index()] -= record.map_or(0, |record| record.bytes);
        if block.records.is_empty() {
            lane.pop_front();
        }
        record
    }

    fn act(&mut self) {
        for _ in 0..ACTIONS_PER_MOMENT_MAX {
            let Some(action) = self.policy.next(self.now) else {
                if let Some(wake) = self.policy.wake_at() {
                    assert!(wake > self.now, "wakes at {wake:?}, but it is {:?}", self.now);
                }
                return;
            };
            self.actions.push((self.now, action));
            self.apply(action);
        }
        panic!("a busy loop at {:?}: {:?}", self.now, &self.actions[self.actions.len() - 8..]);
    }

    fn apply(&mut self, action: Action) {
        assert_eq!(self.exited, None, "{action:?} after Exit");
        match action {
            Action::Next => {
                assert!(!self.next_pending, "Next while one is pending");
                self.next_pending = true;
                self.nexts += 1;
                assert!(self.nexts <= self.events_received, "more Nexts than events");
            }
            Action::Send { signal, attempt, portion, gzip, target } => {
                assert!(self.flights.iter().all(|flight| flight.signal != signal), "two flights of {signal}");
                self.send(signal, attempt, portion, gzip, target);
            }
            Action::Abort { signal, target } => {
                let before = self.flights.len();
                self.flights.retain(|flight| (flight.signal, flight.target) != (signal, target));
                let known = self.flights.len() < before || self.landing == Some(signal);
                assert!(known, "aborted what was not in flight");
            }
            Action::RenewConnections(_) => {}
            Action::Settle { signal, head, refused, delivered } => {
                if self.level(signal).head_sequence() == Some(head) {
                    for _ in 0..refused {
                        let record = self.pop(signal).expect("a record to give up");
                        self.refused.push((signal, record.id));
                    }
                }
                let alibi = self.alibis[signal.index()].take();
                // As the queue does: no other is marked in its place.
                if delivered > 0 && alibi.is_some() && self.first(signal) == alibi {
                    let record = self.pop(signal).expect("a record to mark");
                    assert!(self.delivered.contains(&(signal, record.id)), "marked unsent {record:?}");
                }
                let left = self.level(signal);
                self.policy.on(self.now, Event::Settled { signal, left });
            }
            Action::Exit => {
                assert!(self.flights.is_empty(), "left with requests in flight");
                self.exited = Some(self.now);
            }
        }
    }

    fn send(&mut self, signal: Signal, attempt: u64, portion: Portion, gzip: bool, target: Target) {
        let lane = &self.lanes[signal.index()];
        let head = lane.front().expect("something to send");
        let mut sent = Sent { head: head.sequence, ..Sent::default() };
        let mut records = Vec::new();
        match portion {
            Portion::Run { max_blocks, max_bytes } => {
                assert!(max_blocks > 0);
                for block in lane.iter().take(usize::try_from(max_blocks).unwrap_or(usize::MAX)) {
                    let bytes = block.records.iter().map(|record| record.bytes).sum::<u64>();
                    if sent.blocks > 0 && sent.plain_bytes + bytes > max_bytes {
                        break;
                    }
                    sent.blocks += 1;
                    sent.plain_bytes += bytes;
                    records.extend(block.records.iter().copied());
                }
            }
            Portion::Records { count } => {
                assert!(count > 0 && count <= head.records.len() as u64, "{count} records of {head:?}");
                records.extend(head.records.iter().take(count as usize).copied());
                sent.blocks = 1;
            }
            Portion::Alibi => {
                records.extend(lane.iter().flat_map(|block| block.records.iter()).nth(1).copied());
                assert_eq!(records.len(), 1, "an alibi without a neighbour");
                self.alibis[signal.index()] = Some(records[0].id);
                sent.blocks = 1;
            }
        }
        sent.records = records.len() as u64;
        sent.plain_bytes = records.iter().map(|record| record.bytes).sum();
        sent.wire_bytes = sent.plain_bytes;
        let request = Request { now: self.now, signal, records: &records, gzip, target };
        let Reply { after, outcome } = (self.backend)(&request);
        let ends = self.now.saturating_add(after);
        self.flights.push(Flight { attempt, signal, target, portion, records, sent, ends, outcome });
    }
}
