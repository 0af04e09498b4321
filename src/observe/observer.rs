//! The state machine: what it holds, and what each kind of event does to it.

use std::collections::VecDeque;

use super::instrument as i;
use super::instrument::Instrument;
use super::invocation::{EXTENSION_OVERHEAD, Ended, Invocation, Verdict, token};
use super::span::{Link, Span, SpanStatus};
use super::startup::{ERROR_TYPE, Startup};
use super::told::{Part, Told, nanos};
use super::{Around, Ending, Metric, Price, Rules, Seen, Space};
use crate::record::event::{Event, Kind, Platform};
use crate::record::{Field, Value};

/// Invocations that may run at once in an environment of Managed Instances (Lambda API reference,
/// "`LambdaManagedInstancesCapacityProviderConfig`"). If more reports are awaited, reports have been lost.
pub(super) const CONCURRENT_MAX: usize = 1_600;
/// Invocations whose report is awaited where they come one after another: the one that runs, the one before, and those whose
/// end or report was lost.
pub(super) const OPEN_MAX: usize = 16;
/// An invocation is over by then, whatever came: none is longer than 15 minutes (Lambda quotas), and its report comes
/// with the next event of the environment.
const OPEN_MAX_NANOS: u64 = 16 * 60 * 1_000_000_000;
/// Invocations that are over and still recognised, so that what comes late or twice is not taken for a new one: a quarter
/// of a second at a thousand a second. Where many run at once, as many.
pub(super) const OVER_MAX: usize = 256;
/// The shortest interval before the first data points, where nothing says when what they measure began.
const FIRST_MIN_NANOS: u64 = 1_000_000;

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
    /// The next invocation that begins after `cold_from` is a cold start.
    pub(super) is_cold: bool,
    pub(super) cold_from: u64,
    /// When the latest step of the environment began that was heard of, and when the latest invocation and the latest cold
    /// start did; 0 if none was heard of. By these, what comes late is told from what is new.
    pub(super) stepped: u64,
    pub(super) started: u64,
    pub(super) cold_at: u64,
    /// How long the initialisation took is measured, and its invocation's report, which may say it again, is awaited.
    pub(super) init_measured: bool,
    /// When a report said it instead; 0 if none did.
    pub(super) init_in_report: u64,
    /// In the order in which they were first heard of.
    pub(super) open: Vec<Invocation>,
    /// The latest invocations that are over.
    pub(super) over: VecDeque<Over>,
}

/// An invocation that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) token: u64,
    /// Its report came.
    pub(super) reported: bool,
    /// The id of its trace was made of the request id, so that it is still known.
    pub(super) own_trace: bool,
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
        let see = match platform {
            Platform::InitStart => Self::init_begins,
            Platform::RestoreStart => Self::restore_begins,
            Platform::InitRuntimeDone => Self::init_done,
            Platform::RestoreRuntimeDone => Self::restore_done,
            Platform::InitReport => Self::init_reported,
            Platform::RestoreReport => Self::restore_reported,
            Platform::Start => Self::started,
            Platform::RuntimeDone => Self::done,
            Platform::Report => Self::reported,
            _ => return,
        };
        let record = Value::parse(event.record).unwrap_or_default();
        let told = Told::read(&record);
        let begins = matches!(platform, Platform::InitStart | Platform::RestoreStart);
        if self.since == 0 && !begins {
            // What was measured so far was measured since it began.
            self.since = time.saturating_sub(lasted(&told).max(FIRST_MIN_NANOS));
        }
        see(self, time, &told, around, seen);
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

    /// The same. If nothing said what trace it belongs to, it is from here on in one of its own, so that all lines that ask
    /// are in the trace of the span.
    pub fn settled_trace_of(&mut self, request_id: &str) -> Option<Link> {
        let invocation = self.open.iter_mut().find(|open| open.request_id == request_id)?;
        Some(invocation.settle_trace())
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
        // One after another: the others were over before, and their ends were lost.
        let latest = open.len().saturating_sub(1);
        for (at, invocation) in open.into_iter().enumerate() {
            let is_meant = self.rules.concurrent || at == latest;
            let verdict = match ending {
                Ending::Timeout if is_meant => Verdict::Timeout,
                Ending::Failure if is_meant => Verdict::Failure,
                _ if invocation.reset => Verdict::Failure,
                _ => Verdict::Unknown,
            };
            self.close(invocation, verdict, time, around, seen);
        }
        self.release_startup(None, time, seen);
    }

    /// Writes the data points of `seen`, and forgets them there. Returns their time, Unix nanoseconds.
    pub fn write_points(&mut self, seen: &mut Seen, write: impl FnMut(&Metric<'_>)) -> u64 {
        seen.points.write(&mut self.since, write)
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
        self.begins(&mut invocation, time, time, seen);
        self.open.push(invocation);
        self.bound(time, around, seen);
    }

    /// `invocation`, of which is heard for the first time, at `time`, began at `start`.
    fn begins(&mut self, invocation: &mut Invocation, start: u64, time: u64, seen: &mut Seen) {
        self.started = self.started.max(start);
        if self.is_cold && start >= self.cold_from {
            self.is_cold = false;
            self.cold(invocation, start, time, seen);
        }
    }

    /// The environment was started for `invocation`, which began at `start`.
    pub(super) fn cold(&mut self, invocation: &mut Invocation, start: u64, time: u64, seen: &mut Seen) {
        invocation.cold = true;
        self.cold_at = self.cold_at.max(start);
        seen.count(&i::COLDSTARTS, time, &invocation.labels());
    }

    fn open_max(&self) -> usize {
        if self.rules.concurrent { CONCURRENT_MAX } else { OPEN_MAX }
    }

    pub(super) fn over_max(&self) -> usize {
        if self.rules.concurrent { CONCURRENT_MAX } else { OVER_MAX }
    }

    /// Closes what has been open for too long.
    fn bound(&mut self, time: u64, around: &Around<'_>, seen: &mut Seen) {
        let is_old = |open: &Invocation| {
            open.start_unix_nanos.is_some_and(|start| time.saturating_sub(start) > OPEN_MAX_NANOS)
        };
        while self.open.len() > self.open_max() || self.open.first().is_some_and(is_old) {
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
        let Some(mut invocation) = self.open.get(at).cloned() else { return };
        if invocation.verdict.is_some() && !invocation.reported {
            return;
        }
        invocation.tell(told);
        if known.is_none() {
            self.begins(&mut invocation, time.saturating_sub(lasted(told)), time, seen);
        }
        if invocation.reported {
            self.completed(&invocation, time, told, around, seen);
            self.open.remove(at);
            self.remember(&invocation, true);
        } else {
            self.ended(&mut invocation, time, told, around, seen);
            if let Some(open) = self.open.get_mut(at) {
                *open = invocation.clone();
            }
        }
        let labels = invocation.labels();
        seen.measure(&i::PRODUCED_BYTES, time, told.measured.produced_bytes, &labels);
        self.close_before(at, time, around, seen);
        self.bound(time, around, seen);
    }

    /// One after another: those that were heard of before the one at `at` are over, whether a report came or not. The one
    /// right before may have an end that comes late, unless it was cut off.
    fn close_before(&mut self, at: usize, time: u64, around: &Around<'_>, seen: &mut Seen) {
        if self.rules.concurrent {
            return;
        }
        let waits = |open: &Invocation| !open.reset || open.verdict.is_some();
        let last = at.saturating_sub(1);
        let until = if self.open.get(last).is_some_and(waits) { last } else { at };
        let earlier: Vec<Invocation> = self.open.drain(..until.min(self.open.len())).collect();
        for invocation in earlier {
            let verdict = if invocation.reset { Verdict::Failure } else { Verdict::Unknown };
            self.close(invocation, verdict, time, around, seen);
        }
    }

    /// The end of an invocation came after its report had stood in for it: it adds what the report did not say.
    fn completed(
        &self,
        invocation: &Invocation,
        time: u64,
        told: &Told<'_>,
        around: &Around<'_>,
        seen: &mut Seen,
    ) {
        measure_parts(told, time, &invocation.labels(), seen);
        let ended = Ended {
            start_unix_nanos: invocation.start_unix_nanos.unwrap_or(time),
            end_unix_nanos: time,
            verdict: Verdict::of(told),
            error_type: None,
            guessed: false,
        };
        let Some(root) = invocation.root(self.rules.sampler, around, &ended) else { return };
        let parts = told.parts.iter().filter(|part| part.name != EXTENSION_OVERHEAD);
        seen.spans.extend(parts.map(|part| part.span(&root)));
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
        measure_parts(told, time, &labels, seen);
        if let Some(Space { used, free }) = around.tmp {
            #[expect(clippy::cast_precision_loss, reason = "no disk has 2^53 bytes")]
            for (instrument, bytes) in [(&i::TMP_USED, used), (&i::TMP_FREE, free)] {
                seen.measure(instrument, time, Some(bytes as f64), &[]);
            }
        }
        let start = invocation.start_unix_nanos.unwrap_or(time.saturating_sub(lasted(told)));
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
        let over = self.was_over(token(request_id));
        let at = self.open.iter().position(|open| open.request_id == request_id);
        let is_reported = |open: &Invocation| open.reported;
        if over.is_some_and(|over| over.reported)
            || at.and_then(|at| self.open.get(at)).is_some_and(is_reported)
        {
            return;
        }
        let known = at.map(|at| self.open.remove(at));
        let is_new = known.is_none() && over.is_none();
        let mut invocation = known.unwrap_or_else(|| Invocation::new(request_id));
        invocation.tell(told);
        let start = invocation.start_unix_nanos.unwrap_or(time.saturating_sub(lasted(told)));
        if is_new {
            self.begins(&mut invocation, start, time, seen);
        }
        self.started_in_report(&mut invocation, start, time, told, over.is_some(), seen);
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
        if function.is_some()
            && invocation.cold
            && self.startup.last().is_some_and(|last| last.start_unix_nanos <= start)
        {
            // What the environment did came after the end of the function.
            let ended = Ended {
                start_unix_nanos: start,
                end_unix_nanos: time,
                verdict: Verdict::of(told),
                error_type: None,
                guessed: false,
            };
            let root = invocation.root(self.rules.sampler, around, &ended);
            self.release_startup(root.as_ref(), time, seen);
        }
        // Of one that was closed in a trace that a line named, the trace is not known any more.
        let of_trace = over.is_none_or(|over| over.own_trace) || invocation.trace().is_some();
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
        if function.is_none() && over.is_none() && !self.rules.concurrent {
            // Its end may come yet, and says more.
            invocation.reported = true;
            let at = at.unwrap_or(self.open.len());
            self.open.insert(at, invocation);
            self.close_before(at, time, around, seen);
            self.bound(time, around, seen);
        } else {
            self.remember(&invocation, true);
        }
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
        self.remember(&invocation, invocation.reported);
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

    /// The invocation, if it is over.
    fn was_over(&self, token: u64) -> Option<Over> {
        self.over.iter().rev().find(|over| over.token == token).copied()
    }

    fn remember(&mut self, invocation: &Invocation, reported: bool) {
        while self.over.len() >= self.over_max() {
            self.over.pop_front();
        }
        let own_trace = invocation.has_own_trace();
        self.over.push_back(Over { token: token(&invocation.request_id), reported, own_trace });
    }
}

/// How long what is told of took, in nanoseconds.
pub(super) fn lasted(told: &Told<'_>) -> u64 {
    told.measured.duration_s.and_then(|seconds| nanos(seconds * 1e3)).unwrap_or_default()
}

fn measure_parts(told: &Told<'_>, time: u64, labels: &[Field<'static>], seen: &mut Seen) {
    for (name, instrument) in [
        ("responseLatency", &i::RESPONSE_LATENCY),
        ("responseDuration", &i::RESPONSE_DURATION),
        ("runtimeOverhead", &i::RUNTIME_OVERHEAD),
    ] {
        seen.measure(instrument, time, told.part(name).map(Part::seconds), labels);
    }
}

impl Seen {
    pub(super) fn count(&mut self, instrument: &'static Instrument, time: u64, labels: &[Field<'static>]) {
        self.points.add(instrument, time, 1.0, labels);
    }

    pub(super) fn measure(
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
