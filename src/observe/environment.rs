//! What the environment tells of itself: initialisation and restore, and which invocation they were for.
//!
//! Events come late and in any order. A step that began before an invocation which is known already was for that one, and
//! not for the next; a step of which only the report came began as long before as it took.

use super::instrument as i;
use super::invocation::Invocation;
use super::observer::{Observer, lasted};
use super::span::Span;
use super::startup::{INITIALIZATION_TYPE, STEPS_MAX, Startup, Step, is_ahead_of_demand};
use super::told::Told;
use super::{Around, Seen};
use crate::record::{Field, Value};

impl Observer {
    pub(super) fn init_begins(&mut self, time: u64, told: &Told<'_>, _: &Around<'_>, seen: &mut Seen) {
        self.step_begins(Startup::begun(Step::Init, time, told), told, time, seen);
    }

    pub(super) fn restore_begins(&mut self, time: u64, told: &Told<'_>, _: &Around<'_>, seen: &mut Seen) {
        self.step_begins(Startup::begun(Step::Restore, time, told), told, time, seen);
    }

    pub(super) fn init_done(&mut self, time: u64, told: &Told<'_>, _: &Around<'_>, _: &mut Seen) {
        self.step_told(Step::Init, time, told, false);
    }

    pub(super) fn restore_done(&mut self, time: u64, told: &Told<'_>, _: &Around<'_>, _: &mut Seen) {
        self.step_told(Step::Restore, time, told, false);
    }

    pub(super) fn restore_reported(&mut self, time: u64, told: &Told<'_>, _: &Around<'_>, _: &mut Seen) {
        self.step_told(Step::Restore, time, told, true);
    }

    pub(super) fn init_reported(&mut self, time: u64, told: &Told<'_>, _: &Around<'_>, seen: &mut Seen) {
        let kind = told.initialization_type.as_deref();
        if time > self.init_in_report {
            let label = kind.map(|kind| (INITIALIZATION_TYPE.into(), Value::Str(kind.to_owned().into())));
            let labels: Vec<Field<'static>> = label.into_iter().collect();
            seen.measure(&i::INIT_DURATION, time, told.measured.duration_s, &labels);
            self.init_measured |= told.measured.duration_s.is_some();
        }
        if !self.step_told(Step::Init, time, told, true) && told.measured.duration_s.is_some() {
            let start = time.saturating_sub(lasted(told));
            let guessed = Startup { guessed: true, ..Startup::begun(Step::Init, start, told) };
            self.step_begins(guessed, told, time, seen);
            self.step_told(Step::Init, time, told, true);
        }
        if is_ahead_of_demand(kind) && told.phase.as_deref() != Some("invoke") {
            self.release_startup(None, time, seen);
        }
    }

    /// A step of which was heard for the first time at `time`.
    fn step_begins(&mut self, startup: Startup, told: &Told<'_>, time: u64, seen: &mut Seen) {
        let start = startup.start_unix_nanos;
        if !startup.guessed {
            let is_same = |known: &&mut Startup| {
                known.guessed && known.step == startup.step && known.end_unix_nanos >= Some(start)
            };
            if let Some(known) = self.startup.iter_mut().rev().find(is_same) {
                (known.start_unix_nanos, known.guessed) = (start, false);
                known.instance_id = known.instance_id.take().or(startup.instance_id);
                self.cold_from = self.cold_from.min(start);
                return;
            }
        }
        let again = told.phase.as_deref() == Some("invoke");
        let for_demand = again || !is_ahead_of_demand(startup.kind.as_deref());
        let is_late = self.started >= start;
        self.stepped = self.stepped.max(start);
        if is_late && for_demand && self.cold_at >= start {
            // Its invocation was known to be a cold start.
            return;
        }
        // What was measured before belongs to the interval before, unless it is written.
        if seen.points.is_empty() {
            self.since = self.since.max(start);
        }
        for open in
            self.open.iter_mut().filter(|open| open.start_unix_nanos.is_none_or(|began| began < start))
        {
            open.reset = true;
        }
        if is_late {
            self.was_cold(start, time, for_demand, seen);
        } else {
            (self.is_cold, self.cold_from) = (for_demand, start);
        }
        if self.startup.len() >= STEPS_MAX {
            let oldest = self.startup.remove(0);
            seen.spans.extend(self.stray(&oldest, start));
        }
        self.startup.push(startup);
    }

    /// A step that began at `start` was for an invocation that is known already: the first since then.
    fn was_cold(&mut self, start: u64, time: u64, for_demand: bool, seen: &mut Seen) {
        if !for_demand {
            return;
        }
        let first = self
            .open
            .iter()
            .enumerate()
            .filter_map(|(at, open)| Some((open.start_unix_nanos.filter(|began| *began >= start)?, at)))
            .min();
        match first.and_then(|(began, at)| Some((began, at, self.open.get(at)?.clone()))) {
            Some((began, at, mut invocation)) => {
                self.cold(&mut invocation, began, time, seen);
                if let Some(open) = self.open.get_mut(at) {
                    *open = invocation;
                }
            }
            // It is over.
            None => self.cold(&mut Invocation::new(""), self.started, time, seen),
        }
    }

    /// Whether the step is known.
    fn step_told(&mut self, step: Step, time: u64, told: &Told<'_>, ended: bool) -> bool {
        let known = self.startup.iter_mut().rev().find(|startup| startup.step == step);
        let known = known.filter(|startup| startup.start_unix_nanos <= time);
        known.map(|startup| startup.tell(time, told, ended)).is_some()
    }

    /// What the report of `invocation`, which began at `start`, says of how its environment came to be. That counts where
    /// the environment itself was not heard.
    pub(super) fn started_in_report(
        &mut self,
        invocation: &mut Invocation,
        start: u64,
        time: u64,
        told: &Told<'_>,
        was_closed: bool,
        seen: &mut Seen,
    ) {
        let measured = &told.measured;
        if measured.init_s.is_none() && measured.restore_s.is_none() {
            return;
        }
        let unheard = self.stepped == 0 || self.stepped > start;
        if unheard && !invocation.cold && !was_closed {
            self.cold(invocation, start, time, seen);
        }
        if measured.init_s.is_some() && !std::mem::take(&mut self.init_measured) {
            seen.measure(&i::INIT_DURATION, time, measured.init_s, &[]);
            self.init_in_report = time;
        }
    }

    /// Makes spans of what the environment did so far: parts of `root` if they belong to it.
    pub(super) fn release_startup(&mut self, root: Option<&Span>, time: u64, seen: &mut Seen) {
        let start = root.map_or(time, |root| root.start_unix_nanos);
        let mut steps = std::mem::take(&mut self.startup);
        // They follow one another: one without an end ended when the next began, and what is part of the invocation came
        // without a long pause before the next.
        let mut next = start;
        let mut near = 0;
        let mut is_near = true;
        for step in steps.iter_mut().rev() {
            let until = std::mem::replace(&mut next, step.start_unix_nanos);
            is_near &= step.is_part_of_invocation(until);
            near += usize::from(is_near);
            step.end_unix_nanos = step.end_unix_nanos.or(Some(until.max(step.start_unix_nanos)));
        }
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
}
