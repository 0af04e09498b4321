//! The state machine: what it holds, and what each kind of event does to it.

use std::collections::VecDeque;

use super::instrument as i;
use super::instrument::Instrument;
use super::invocation::{EXTENSION_OVERHEAD, Ended, Invocation, Verdict, token};
use super::span::{Link, Span, SpanStatus};
use super::startup::{ERROR_TYPE, INITIALIZATION_TYPE, STEPS_MAX, Startup, Step, is_ahead_of_demand};
use super::told::{Part, Told, nanos};
use super::{Around, Ending, Metric, Price, Rules, Seen, Space};
use crate::record::event::{Event, Kind, Platform};
use crate::record::{Field, Value};

/// Invocations whose report is awaited: Managed Instances run several at once, at most 64 for each vCPU. If there are
/// more, reports have been lost.
pub(super) const OPEN_MAX: usize = 256;
/// An invocation is over by then, whatever came: none is longer than 15 minutes (Lambda quotas), and its report comes
/// with the next event of the environment.
const OPEN_MAX_NANOS: u64 = 16 * 60 * 1_000_000_000;
/// Invocations that are over and still recognised, so that what comes late or twice is not taken for a new one.
pub(super) const OVER_MAX: usize = 16;

/// The gigabyte that Lambda's price is for.
const GIGABYTE_BYTES: f64 = 1_073_741_824.0;

/// The state machine. Cloning it is cheap: an event may be tried, and forgotten if its delivery could not be kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observer {
    pub(super) rules: Rules,
    /// Where the interval of the next data points begins; 0 if nothing was seen.
    pub(super) since: u64,
    /// What the environment did so far for its first invocation.
    pub(super) startup: Vec<Startup>,
    /// The next invocation is a cold start.
    pub(super) is_cold: bool,
    /// In the order in which they were first heard of.
    pub(super) open: Vec<Invocation>,
    /// The latest invocations that are over, and whether their report came.
    pub(super) over: VecDeque<(u64, bool)>,
}

impl Observer {
    /// An observer that has seen nothing.
    pub fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Takes in the next event of the stream.
    pub fn see(&mut self, event: &Event<'_>, around: &Around<'_>, seen: &mut Seen) {
        let Kind::Platform(platform) = &event.kind else { return };
        let time = event.time_unix_nanos.filter(|time| *time <= around.received).unwrap_or(around.received);
        let record = || Value::parse(event.record).unwrap_or_default();
        if self.since == 0 {
            self.since = time;
        }
        match platform {
            Platform::InitStart => self.step_begins(Step::Init, time, &Told::read(&record()), seen),
            Platform::RestoreStart => self.step_begins(Step::Restore, time, &Told::read(&record()), seen),
            Platform::InitRuntimeDone => self.step_told(Step::Init, time, &Told::read(&record()), false),
            Platform::RestoreRuntimeDone => {
                self.step_told(Step::Restore, time, &Told::read(&record()), false);
            }
            Platform::InitReport => self.init_reported(time, &Told::read(&record()), seen),
            Platform::RestoreReport => self.step_told(Step::Restore, time, &Told::read(&record()), true),
            Platform::Start => self.started(time, &Told::read(&record()), around, seen),
            Platform::RuntimeDone => self.done(time, &Told::read(&record()), around, seen),
            Platform::Report => self.reported(time, &Told::read(&record()), around, seen),
            _ => {}
        }
    }

    /// Takes note of a span that the function wrote about while it served `request_id`.
    pub fn logged(&mut self, request_id: &str, link: Link) {
        let invocation = self.open.iter_mut().find(|open| open.request_id == request_id);
        if let Some(invocation) = invocation
            && invocation.logged.is_none()
            // What carries our own ids says nothing new.
            && invocation.trace().is_none_or(|own| own.trace_id != link.trace_id)
        {
            invocation.logged = Some(link);
        }
    }

    /// The span of the invocation `request_id`, as far as its trace is known.
    pub fn trace_of(&self, request_id: &str) -> Option<Link> {
        self.open.iter().find(|open| open.request_id == request_id)?.trace()
    }

    /// Whether an invocation runs whose end may still be told, so that [`Observer::end`] had better wait.
    pub fn awaits_an_end(&self) -> bool {
        self.open.iter().any(|open| open.verdict.is_none() && !open.reset)
    }

    /// Whether [`Observer::end`] would bring anything out.
    pub fn has_loose_ends(&self) -> bool {
        !self.startup.is_empty() || self.open.iter().any(|open| open.verdict.is_none())
    }

    /// The environment ends at `around.received`: no end of what runs is expected any more. Reports may still come.
    pub fn end(&mut self, ending: Ending, around: &Around<'_>, seen: &mut Seen) {
        let time = around.received;
        let (told, open) =
            std::mem::take(&mut self.open).into_iter().partition(|open| open.verdict.is_some());
        self.open = told;
        let open: Vec<Invocation> = open;
        for invocation in open {
            let verdict = match ending {
                Ending::Timeout => Verdict::Timeout,
                Ending::Failure => Verdict::Failure,
                Ending::Other if invocation.reset => Verdict::Failure,
                Ending::Other => Verdict::Unknown,
            };
            self.close(invocation, verdict, time, around, seen);
        }
        self.release_startup(None, time, seen);
    }

    /// Writes the data points of `seen`, and forgets them there. Returns their time, Unix nanoseconds.
    pub fn write_points(&mut self, seen: &mut Seen, write: impl FnMut(&Metric<'_>)) -> u64 {
        seen.points.write(&mut self.since, write)
    }

    // === The environment

    fn step_begins(&mut self, step: Step, time: u64, told: &Told<'_>, seen: &mut Seen) {
        self.since = time;
        for open in &mut self.open {
            open.reset = true;
        }
        let kind = told.initialization_type.as_deref();
        let again = told.phase.as_deref() == Some("invoke");
        self.is_cold = again || !is_ahead_of_demand(kind);
        if self.startup.len() >= STEPS_MAX {
            let oldest = self.startup.remove(0);
            seen.spans.extend(self.stray(&oldest, time));
        }
        self.startup.push(Startup::begun(step, time, told));
    }

    fn step_told(&mut self, step: Step, time: u64, told: &Told<'_>, ended: bool) {
        if let Some(startup) = self.startup.iter_mut().rev().find(|startup| startup.step == step) {
            startup.tell(time, told, ended);
        }
    }

    fn init_reported(&mut self, time: u64, told: &Told<'_>, seen: &mut Seen) {
        let kind = told.initialization_type.as_deref();
        let label = kind.map(|kind| (INITIALIZATION_TYPE.into(), Value::Str(kind.to_owned().into())));
        let labels: Vec<Field<'static>> = label.into_iter().collect();
        seen.measure(&i::INIT_DURATION, time, told.measured.duration_s, &labels);
        self.step_told(Step::Init, time, told, true);
        if is_ahead_of_demand(kind) && told.phase.as_deref() != Some("invoke") {
            self.release_startup(None, time, seen);
        }
    }

    /// Makes spans of what the environment did so far: parts of `root` if they belong to it.
    fn release_startup(&mut self, root: Option<&Span>, time: u64, seen: &mut Seen) {
        let start = root.map_or(time, |root| root.start_unix_nanos);
        let steps = std::mem::take(&mut self.startup);
        // They follow one another: what is part of it came without a long pause before the next.
        let mut next = start;
        let is_near = |step: &&Startup| {
            let until = std::mem::replace(&mut next, step.start_unix_nanos);
            step.is_part_of_invocation(until)
        };
        let near = steps.iter().rev().take_while(is_near).count();
        let apart = steps.len() - near;
        for (at, startup) in steps.into_iter().enumerate() {
            match root.filter(|_| at >= apart) {
                Some(root) => seen.spans.push(startup.span(Some(root), start)),
                None => seen.spans.extend(self.stray(&startup, start)),
            }
        }
    }

    fn stray(&self, startup: &Startup, until: u64) -> Option<Span> {
        let span = startup.span(None, until);
        self.rules.sampler.keeps(span.trace_id, None).then_some(span)
    }

    // === Invocations

    fn started(&mut self, time: u64, told: &Told<'_>, around: &Around<'_>, seen: &mut Seen) {
        let Some(request_id) = told.request_id.as_deref() else { return };
        let known = self.open.iter().any(|open| open.request_id == request_id);
        if known || self.was_over(token(request_id)).is_some() {
            return;
        }
        let mut invocation = Invocation::new(request_id);
        invocation.tell(told);
        invocation.start_unix_nanos = Some(time);
        invocation.cold = std::mem::take(&mut self.is_cold);
        if invocation.cold {
            seen.count(&i::COLDSTARTS, time, &invocation.labels());
        }
        self.open.push(invocation);
        self.bound(time, around, seen);
    }

    /// Closes what has been open for too long.
    fn bound(&mut self, time: u64, around: &Around<'_>, seen: &mut Seen) {
        let is_old = |open: &Invocation| {
            open.start_unix_nanos.is_some_and(|start| time.saturating_sub(start) > OPEN_MAX_NANOS)
        };
        while self.open.len() > OPEN_MAX || self.open.first().is_some_and(is_old) {
            let oldest = self.open.remove(0);
            let verdict = if oldest.reset { Verdict::Failure } else { Verdict::Unknown };
            self.close(oldest, verdict, time, around, seen);
        }
    }

    fn done(&mut self, time: u64, told: &Told<'_>, around: &Around<'_>, seen: &mut Seen) {
        let Some(request_id) = told.request_id.as_deref() else { return };
        if self.was_over(token(request_id)).is_some() {
            return;
        }
        let known = self.open.iter().position(|open| open.request_id == request_id);
        let at = known.unwrap_or_else(|| {
            self.open.push(Invocation::new(request_id));
            self.open.len() - 1
        });
        let Some(mut invocation) = self.open.get_mut(at).map(|open| open.clone()) else { return };
        if invocation.verdict.is_some() {
            return;
        }
        invocation.tell(told);
        self.ended(&mut invocation, time, told, around, seen);
        let labels = invocation.labels();
        seen.measure(&i::PRODUCED_BYTES, time, told.measured.produced_bytes, &labels);
        if let Some(open) = self.open.get_mut(at) {
            *open = invocation;
        }
        if !self.rules.concurrent {
            self.close_before(at, time, around, seen);
        }
        self.bound(time, around, seen);
    }

    /// One after another: those that were heard of before the one that is done are over, whether a report came or not.
    fn close_before(&mut self, at: usize, time: u64, around: &Around<'_>, seen: &mut Seen) {
        let earlier: Vec<Invocation> = self.open.drain(..at.min(self.open.len())).collect();
        for invocation in earlier {
            let verdict = if invocation.reset { Verdict::Failure } else { Verdict::Unknown };
            self.close(invocation, verdict, time, around, seen);
        }
    }

    /// The function is done: by its end, or by a report where none came.
    fn ended(
        &mut self,
        invocation: &mut Invocation,
        time: u64,
        told: &Told<'_>,
        around: &Around<'_>,
        seen: &mut Seen,
    ) {
        let labels = invocation.labels();
        let verdict = Verdict::of(told);
        invocation.verdict = Some(verdict);
        count(verdict, told.error_type.as_deref(), time, &labels, seen);
        seen.measure(&i::INVOKE_DURATION, time, told.measured.duration_s, &labels);
        for (name, instrument) in [
            ("responseLatency", &i::RESPONSE_LATENCY),
            ("responseDuration", &i::RESPONSE_DURATION),
            ("runtimeOverhead", &i::RUNTIME_OVERHEAD),
        ] {
            seen.measure(instrument, time, told.part(name).map(Part::seconds), &labels);
        }
        if let Some(Space { used, free }) = around.tmp {
            #[expect(clippy::cast_precision_loss, reason = "no disk has 2^53 bytes")]
            for (instrument, bytes) in [(&i::TMP_USED, used), (&i::TMP_FREE, free)] {
                seen.measure(instrument, time, Some(bytes as f64), &[]);
            }
        }
        let duration = told.measured.duration_s.and_then(|seconds| nanos(seconds * 1e3)).unwrap_or_default();
        let start = invocation.start_unix_nanos.unwrap_or(time.saturating_sub(duration));
        let ended = Ended {
            start_unix_nanos: start,
            end_unix_nanos: time,
            verdict,
            error_type: told.error_type.as_deref(),
            guessed: false,
        };
        let Some(root) = invocation.root(self.rules.sampler, around, &ended) else {
            if invocation.cold {
                self.startup.clear();
            }
            return;
        };
        let at = seen.spans.len();
        if invocation.cold {
            self.release_startup(Some(&root), time, seen);
        }
        let parts = told.parts.iter().filter(|part| part.name != EXTENSION_OVERHEAD);
        seen.spans.extend(parts.map(|part| part.span(&root)));
        seen.spans.insert(at, root);
    }

    fn reported(&mut self, time: u64, told: &Told<'_>, around: &Around<'_>, seen: &mut Seen) {
        let Some(request_id) = told.request_id.as_deref() else { return };
        let token = token(request_id);
        let over = self.was_over(token);
        if over == Some(true) {
            return;
        }
        let at = self.open.iter().position(|open| open.request_id == request_id);
        let known = at.map(|at| self.open.remove(at));
        let is_known = known.is_some() || over.is_some();
        let mut invocation = known.unwrap_or_else(|| Invocation::new(request_id));
        invocation.tell(told);
        let labels = invocation.labels();
        let measured = &told.measured;
        seen.measure(&i::BILLED_DURATION, time, measured.billed_s, &labels);
        seen.measure(&i::MEMORY_SIZE, time, measured.memory_size_bytes, &[]);
        seen.measure(&i::MEM_USAGE, time, measured.max_memory_used_bytes, &labels);
        seen.measure(&i::RESTORE_DURATION, time, measured.restore_s, &labels);
        seen.measure(&i::BILLED_RESTORE_DURATION, time, measured.billed_restore_s, &labels);
        seen.measure(&i::ESTIMATED_COST, time, self.cost(told), &labels);
        let overhead = told.part(EXTENSION_OVERHEAD);
        seen.measure(&i::EXTENSION_OVERHEAD, time, overhead.map(Part::seconds), &labels);
        if !is_known && (measured.init_s.is_some() || measured.restore_s.is_some()) {
            invocation.cold = true;
            seen.count(&i::COLDSTARTS, time, &labels);
        }
        let function = invocation.verdict;
        match function {
            None if over.is_none() => self.ended(&mut invocation, time, told, around, seen),
            // Extensions may run into the time-out after the function is done.
            Some(Verdict::Success) => match Verdict::of(told) {
                verdict @ (Verdict::Failure | Verdict::Timeout) => {
                    count(verdict, told.error_type.as_deref(), time, &labels, seen);
                }
                Verdict::Success | Verdict::Unknown => {}
            },
            _ => {}
        }
        // Of one that was closed without a trace of its own, the trace is not known any more.
        let of_trace = over.is_none() || invocation.trace().is_some();
        if let Some(part) = overhead.filter(|_| of_trace) {
            let ended = Ended {
                start_unix_nanos: part.start_unix_nanos,
                end_unix_nanos: part.end_unix_nanos(),
                verdict: Verdict::of(told),
                error_type: told.error_type.as_deref(),
                guessed: false,
            };
            let root = invocation.root(self.rules.sampler, around, &ended);
            seen.spans.extend(root.map(|root| {
                // If the function failed, that is not theirs.
                let theirs = function == Some(Verdict::Success);
                let status = if theirs { root.status.clone() } else { SpanStatus::Unset };
                Span { status, ..part.span(&root) }
            }));
        }
        self.remember(token, true);
    }

    fn cost(&self, told: &Told<'_>) -> Option<f64> {
        let Price { gb_second, request } = self.rules.price?;
        let billed = told.measured.billed_s? + told.measured.billed_restore_s.unwrap_or_default();
        Some(billed * told.measured.memory_size_bytes? / GIGABYTE_BYTES * gb_second + request)
    }

    /// No more is expected of `invocation`.
    fn close(
        &mut self,
        mut invocation: Invocation,
        verdict: Verdict,
        time: u64,
        around: &Around<'_>,
        seen: &mut Seen,
    ) {
        self.remember(token(&invocation.request_id), false);
        if invocation.verdict.is_some() {
            return;
        }
        invocation.verdict = Some(verdict);
        count(verdict, None, time, &invocation.labels(), seen);
        let start = invocation.start_unix_nanos.unwrap_or(time);
        let ended = Ended {
            start_unix_nanos: start,
            end_unix_nanos: time,
            verdict,
            error_type: (verdict != Verdict::Unknown).then(|| verdict_word(verdict)),
            guessed: true,
        };
        let Some(root) = invocation.root(self.rules.sampler, around, &ended) else { return };
        let at = seen.spans.len();
        if invocation.cold && self.startup.last().is_some_and(|last| last.start_unix_nanos <= start) {
            self.release_startup(Some(&root), time, seen);
        }
        seen.spans.insert(at, root);
    }

    /// Whether the invocation is over, and if so whether its report came.
    fn was_over(&self, token: u64) -> Option<bool> {
        self.over.iter().rev().find(|(known, _)| *known == token).map(|(_, reported)| *reported)
    }

    fn remember(&mut self, token: u64, reported: bool) {
        if self.over.len() >= OVER_MAX {
            self.over.pop_front();
        }
        self.over.push_back((token, reported));
    }
}

impl Seen {
    fn count(&mut self, instrument: &'static Instrument, time: u64, labels: &[Field<'static>]) {
        self.points.add(instrument, time, 1.0, labels);
    }

    fn measure(
        &mut self,
        instrument: &'static Instrument,
        time: u64,
        value: Option<f64>,
        labels: &[Field<'static>],
    ) {
        if let Some(value) = value {
            self.points.add(instrument, time, value, labels);
        }
    }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    if verdict == Verdict::Timeout { "timeout" } else { "failure" }
}

/// Counts how an invocation went. Each is counted by one of the three, so that they add up.
fn count(verdict: Verdict, error_type: Option<&str>, time: u64, labels: &[Field<'static>], seen: &mut Seen) {
    match verdict {
        Verdict::Success => seen.count(&i::INVOCATIONS, time, labels),
        Verdict::Timeout => seen.count(&i::TIMEOUTS, time, labels),
        Verdict::Failure => {
            let mut labels = labels.to_vec();
            let error = error_type.map(|error| Value::Str(error.to_owned().into()));
            labels.extend(error.map(|error| (ERROR_TYPE.into(), error)));
            seen.count(&i::ERRORS, time, &labels);
        }
        Verdict::Unknown => {}
    }
}
