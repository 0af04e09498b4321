//! One delivery on its way through the pipeline: what its events become, signal by signal.
//!
//! Metrics and spans are made by an observer of the delivery's own. It takes the place of the pipeline's once the blocks
//! are kept; if they are not, Lambda sends the delivery again, and it is as if it had never come.

use super::blocks::{Blocks, CLASS_CUTS_MAX, Encoded};
use super::pipeline::{About, Made, Making, Noted, Origin, Pipeline, Remembered, Running, token};
use super::{inputs, tmp};
use crate::deliver::fallback::is_echo;
use crate::encode::{WireFormat, json_text};
use crate::observe::{Around, Embedded, Emf, Ending, Link, Observer, Seen, Space, TENANT_ID};
use crate::queue::BlockError;
use crate::record::log::INVOCATION_ID;
use crate::record::stack::LINES;
use crate::record::{
    Context, Event, Fact, Joined, JsonLines, Kind, LogRecord, Piece, Platform, Reading, Resource, Value,
    join_lines, json_line, object_in_line, severity,
};
use crate::rules::{RuleSet, Tally};
use crate::{Signal, clock};
use std::time::Duration;

pub(super) struct Delivery<'p> {
    origin: &'p Origin,
    making: &'p Making,
    pub(super) about: &'p mut About,
    resource: &'p mut Resource,
    running: &'p mut Option<Running>,
    nonce: &'p mut u64,
    blocks: Blocks<'p>,
    /// As of the last delivery that was kept.
    before: &'p Observer,
    observer: Observer,
    seen: Seen,
    /// The last event, by its place from 1.
    event: u32,
    uid: String,
    encoded: Vec<u8>,
    measured: Measured,
    tmp: Option<Space>,
    rule_set: Option<&'p mut RuleSet>,
    tally: Tally,
    /// Invocations that failed, as far as this delivery says so.
    failed: Vec<String>,
    /// What Lambda says it dropped: records and bytes.
    lost: (u64, u64),
}

/// Data points that one event brought, encoded. They are held back until it is clear that it brings no more, for what
/// one event brings must stay in one block.
#[derive(Default)]
struct Measured {
    encoded: Vec<u8>,
    count: u32,
    times: (u64, u64),
    /// The event, by its place from 1.
    event: u32,
}

impl<'p> Delivery<'p> {
    pub(super) fn of(pipeline: &'p mut Pipeline, origin: &'p Origin) -> Self {
        let Pipeline { packer, about, resource, making, observer, running, nonce, rule_set, .. } = pipeline;
        Self {
            origin,
            making,
            about,
            resource,
            running,
            nonce,
            blocks: Blocks::new(packer, origin.kind, if making.sorts { CLASS_CUTS_MAX } else { 0 }),
            observer: observer.clone(),
            before: observer,
            seen: Seen::default(),
            event: 0,
            uid: format!("{:032x}", origin.uid_seed),
            encoded: Vec::new(),
            measured: Measured::default(),
            tmp: None,
            rule_set: rule_set.as_mut(),
            tally: Tally::default(),
            failed: Vec::new(),
            lost: (0, 0),
        }
    }

    /// Looks for what rules need to know before it comes: how invocations end.
    pub(super) fn look_ahead(&mut self, pieces: &[Piece<'_>]) {
        if self.rule_set.as_ref().is_none_or(|rules| !rules.samples()) {
            return;
        }
        for piece in pieces {
            let Piece::Whole(raw) = piece else { continue };
            if let Some(
                Fact::RuntimeDone { request_id: Some(id), status: Some(status), .. }
                | Fact::Report { request_id: Some(id), status: Some(status) },
            ) = Event::parse(raw).fact()
                && status.is_failure()
            {
                self.failed.push(id.into_owned());
            }
        }
    }

    fn makes(&self, signal: Signal) -> bool {
        *self.making.signals.get(signal)
    }

    fn observes(&self) -> bool {
        self.makes(Signal::Metrics) || self.makes(Signal::Traces)
    }

    /// Nothing more comes: what is open is closed.
    pub(super) fn end(&mut self, ending: Ending) -> Result<(), BlockError> {
        self.event = 1;
        self.observe(|observer, around, seen| observer.end(ending, around, seen));
        self.spans(1)
    }

    fn observe(&mut self, observe: impl FnOnce(&mut Observer, &Around<'_>, &mut Seen)) {
        let (mut observer, mut seen) = (std::mem::take(&mut self.observer), std::mem::take(&mut self.seen));
        observe(&mut observer, &self.around(), &mut seen);
        (self.observer, self.seen) = (observer, seen);
    }

    /// What is known beside the events.
    fn around(&self) -> Around<'_> {
        Around {
            received: self.origin.received,
            function_name: self.about.function_name.as_deref(),
            invoked_arn: self.about.invoked_function_arn.as_deref(),
            tmp: self.tmp,
        }
    }

    /// The lines of `after` that go on with the line of `event`, if they are wanted in one record. Where several
    /// invocations run at once, lines next to one another need not be of the same.
    pub(super) fn join(&self, event: &Event<'_>, after: &[Piece<'_>]) -> Option<Joined> {
        let joins = self.making.joins_lines && self.makes(Signal::Logs) && !self.making.rules.concurrent;
        if joins { join_lines(event, after) } else { None }
    }

    /// Takes in the event whose place is `index`, and those that are `joined` with it.
    pub(super) fn take(
        &mut self,
        event: &Event<'_>,
        index: u32,
        joined: Option<&Joined>,
    ) -> Result<(), BlockError> {
        self.event = index + joined.map_or(0, |joined| joined.lines - 1);
        self.blocks.reach(self.event);
        if self.observes() && matches!(event.kind, Kind::Platform(_)) {
            if matches!(event.kind, Kind::Platform(Platform::RuntimeDone | Platform::Report)) {
                self.tmp = self.tmp.or_else(tmp::space);
            }
            self.observe(|observer, around, seen| observer.see(event, around, seen));
            self.spans(index)?;
        }
        self.log(event, index, joined)
    }

    fn log(&mut self, event: &Event<'_>, index: u32, joined: Option<&Joined>) -> Result<(), BlockError> {
        let from_function = event.kind == Kind::Function;
        if event.kind == Kind::Extension && is_echo(event.record) {
            return Ok(());
        }
        let wanted = self.makes(Signal::Logs) && self.event > *self.origin.skip.get(Signal::Logs);
        let embeds = self.making.emf != Emf::Off && self.makes(Signal::Metrics) && event.kind.is_logged();
        // A line of the function's may tell its invocation's trace.
        let correlates = from_function && self.makes(Signal::Traces);
        if !wanted && !embeds && !correlates {
            return Ok(());
        }
        let line = if embeds || self.making.json_lines != JsonLines::Off { json_line(event) } else { None };
        let tail = if embeds && line.is_none() && joined.is_none() { object_in_line(event) } else { None };
        let rest;
        let mut reading = match joined {
            Some(joined) => Reading::text(&joined.text),
            None => Reading::of(event, line.as_deref()),
        };
        if let Some((before, object)) = &tail {
            let mut within = Reading::of(event, Some(object));
            if self.embeds(&mut within, event, index)? == Some(false) {
                return Ok(());
            }
            if let Some(left) = within.changed() {
                rest = [before.as_str(), &json_text(left)].concat();
                reading = Reading::text(&rest);
            }
        } else if embeds && self.embeds(&mut reading, event, index)? == Some(false) {
            return Ok(());
        }
        if !wanted && !correlates {
            return Ok(());
        }
        reading = reading.with(self.making.json_lines);
        let concurrent = self.making.rules.concurrent;
        let running = self.running.as_ref().filter(|_| !concurrent);
        let context = Context { request_id: running.map(|running| running.request_id.as_str()) };
        let uid = numbered(&self.uid, index);
        let mut record = LogRecord::from_reading(event, reading, &context, self.origin.received, &uid);
        if let Some(joined) = joined {
            record.attributes.push((LINES.into(), Value::Int(joined.lines.into())));
        }
        if correlates {
            correlate(&mut record, &mut self.observer);
        }
        if let Some(tenant) = &self.about.tenant
            && !record.attributes.iter().any(|(name, _)| name == TENANT_ID)
        {
            record.attributes.push((TENANT_ID.into(), Value::Str(tenant.clone().into())));
        }
        if !wanted || self.is_silenced(event, &record) {
            return Ok(());
        }
        if let Some(rules) = self.rule_set.as_deref_mut() {
            let failed =
                invocation_of(&record).is_some_and(|id| self.failed.iter().any(|failed| failed == id));
            if !rules.apply(&mut record, failed, &mut self.tally) {
                return Ok(());
            }
        }
        self.encoded.clear();
        self.blocks.wire().log(self.resource, &record, &mut self.encoded);
        let time = record.time_unix_nanos;
        let (events, severity) = ((index, self.event), record.severity.number);
        let encoded = Encoded { bytes: &self.encoded, count: 1, times: (time, time), severity, events };
        self.blocks.push(Signal::Logs, self.resource, &encoded)
    }

    /// Makes data points of the metrics that are embedded in what was read of event `index`, and takes them out of it if that
    /// is wanted. Whether anything is left to be logged; `None` if there are none.
    fn embeds(
        &mut self,
        reading: &mut Reading<'_>,
        event: &Event<'_>,
        index: u32,
    ) -> Result<Option<bool>, BlockError> {
        let Some(mut embedded) = Embedded::read(reading.members()) else { return Ok(None) };
        if let Some(rules) = self.rule_set.as_deref_mut() {
            embedded.texts(|fields| rules.redact(fields));
        }
        let logged = event.time_unix_nanos.unwrap_or(self.origin.received);
        self.embedded(&embedded, logged, index)?;
        reading.dated(embedded.time_unix_nanos);
        let is_left = self.making.emf == Emf::Keep || embedded.take_from(reading) || !event.extra.is_empty();
        Ok(Some(is_left))
    }

    /// Encodes the data points that are embedded in what event `index` logged at `logged`, Unix nanoseconds.
    fn embedded(&mut self, embedded: &Embedded<'_>, logged: u64, index: u32) -> Result<(), BlockError> {
        if index <= *self.origin.skip.get(Signal::Metrics) {
            return Ok(());
        }
        self.push_measured()?;
        let (wire, resource, measured) = (self.blocks.wire(), &*self.resource, &mut self.measured);
        let (count, time) = embedded.write(logged, index, |metric| {
            separate(wire, &mut measured.encoded);
            wire.metric(resource, metric, &mut measured.encoded);
        });
        (measured.count, measured.times, measured.event) = (count, (time, time), index);
        Ok(())
    }

    /// Hands over the data points that were held back.
    fn push_measured(&mut self) -> Result<(), BlockError> {
        let Measured { encoded, count, times, event } = &mut self.measured;
        if *count > 0 {
            let events = (*event, *event);
            let encoded = Encoded { bytes: encoded, count: *count, times: *times, severity: 0, events };
            self.blocks.push(Signal::Metrics, self.resource, &encoded)?;
        }
        encoded.clear();
        *count = 0;
        Ok(())
    }

    fn is_silenced(&self, event: &Event<'_>, record: &LogRecord<'_>) -> bool {
        let silenced = &self.making.silenced;
        !silenced.is_empty()
            && matches!(event.kind, Kind::Platform(_))
            && record.severity.number < severity::WARN
            && event.kind.name().is_some_and(|name| silenced.iter().any(|silenced| *silenced == name))
    }

    /// Encodes the spans that event `index` completed.
    fn spans(&mut self, index: u32) -> Result<(), BlockError> {
        let spans = std::mem::take(&mut self.seen.spans);
        if spans.is_empty() || !self.makes(Signal::Traces) || index <= *self.origin.skip.get(Signal::Traces) {
            return Ok(());
        }
        self.encoded.clear();
        let wire = self.blocks.wire();
        for span in &spans {
            separate(wire, &mut self.encoded);
            wire.span(span, &mut self.encoded);
        }
        let first = spans.iter().map(|span| span.start_unix_nanos).min().unwrap_or_default();
        let last = spans.iter().map(|span| span.end_unix_nanos).max().unwrap_or_default();
        let count = u32::try_from(spans.len()).unwrap_or(u32::MAX);
        let (times, events) = ((first, last), (index, index));
        let encoded = Encoded { bytes: &self.encoded, count, times, severity: 0, events };
        self.blocks.push(Signal::Traces, self.resource, &encoded)
    }

    /// Encodes what was measured so far.
    fn points(&mut self) -> Result<(), BlockError> {
        if self.measured.event != self.event {
            self.push_measured()?;
        }
        if !self.seen.points.is_empty() {
            let wanted = self.makes(Signal::Metrics) && self.event > *self.origin.skip.get(Signal::Metrics);
            let (wire, resource, measured) = (self.blocks.wire(), &*self.resource, &mut self.measured);
            let before = measured.count;
            let time = self.observer.write_points(&mut self.seen, |metric| {
                if wanted {
                    separate(wire, &mut measured.encoded);
                    wire.metric(resource, metric, &mut measured.encoded);
                    measured.count += 1;
                }
            });
            let (first, last) = if before == 0 { (time, time) } else { measured.times };
            (measured.times, measured.event) = ((first.min(time), last.max(time)), self.event);
        }
        self.push_measured()
    }

    /// What comes from here on is about something else.
    pub(super) fn close(&mut self) -> Result<(), BlockError> {
        self.points()?;
        for signal in Signal::ALL {
            self.blocks.close(signal, self.resource)?;
        }
        Ok(())
    }

    /// The delivery is complete.
    pub(super) fn finish(mut self, noted: Vec<Noted>) -> Result<Made, BlockError> {
        self.close()?;
        if self.observes() && self.observer != *self.before {
            self.blocks.carry(self.observer.carry(), self.origin.received)?;
        }
        let (blocks, records) = self.blocks.finish();
        let remembered = Remembered { observer: self.observer, tally: self.tally };
        Ok(Made { blocks, noted, records, lost: self.lost, remembered })
    }

    pub(super) fn learn_tenant(&mut self, event: &Event<'_>) {
        if let Some(tenant) = event.tenant() {
            self.about.tenant = Some(tenant);
        }
    }

    pub(super) fn learn(&mut self, fact: Fact<'_>, time: Option<u64>, noted: &mut Vec<Noted>) {
        let time = time.unwrap_or(self.origin.received);
        match fact {
            Fact::Start { request_id: Some(id) } => {
                noted.push(Noted::Started(token(&id)));
                *self.running = Some(Running { request_id: id.into_owned(), since: time });
            }
            Fact::RuntimeDone { request_id: Some(id), duration_ms, .. } => {
                // A duration that is no duration is not known.
                let ran = duration_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok());
                noted.push(Noted::Done(token(&id), ran));
            }
            Fact::Report { request_id, .. } => {
                noted.extend(request_id.as_deref().map(|id| Noted::Reported(token(id))));
                // It may come when the next one runs.
                self.running.take_if(|running| request_id.as_deref() == Some(&running.request_id));
            }
            Fact::InitStart(instance) => {
                // It may come late: what began since then runs in this very environment.
                self.running.take_if(|running| running.since < time);
                self.about.become_instance(&instance);
                *self.resource = Resource::build(&inputs(self.about));
            }
            Fact::RestoreStart(instance) => {
                self.about.tenant = None;
                // Another environment may go on from the same snapshot, in which the generator's state is.
                let id = token(instance.id.as_deref().unwrap_or_default());
                fastrand::seed(fastrand::u64(..) ^ clock::unix_now_nanos() ^ id);
                *self.nonce = fastrand::u64(..);
                self.running.take_if(|running| running.since < time);
                self.about.become_instance(&instance);
                *self.resource = Resource::build(&inputs(self.about));
            }
            Fact::LogsDropped { records, bytes } => {
                let (records, bytes) = (records.unwrap_or_default(), bytes.unwrap_or_default());
                self.lost = (self.lost.0.saturating_add(records), self.lost.1.saturating_add(bytes));
            }
            _ => {}
        }
    }
}

/// `seed-index`, the index in hexadecimal, as `format!` would write it: once for each record.
fn numbered(seed: &str, index: u32) -> String {
    let mut uid = String::with_capacity(seed.len() + 9);
    uid.push_str(seed);
    uid.push('-');
    let digits = index.checked_ilog2().unwrap_or_default() / 4;
    uid.extend((0..=digits).rev().filter_map(|digit| char::from_digit((index >> (4 * digit)) & 0xf, 16)));
    uid
}

/// Sets what is appended to records apart from them.
pub(super) fn separate(wire: &dyn WireFormat, encoded: &mut Vec<u8>) {
    if !encoded.is_empty() {
        encoded.extend_from_slice(wire.separator());
    }
}

/// The invocation that a record belongs to.
fn invocation_of<'r>(record: &'r LogRecord<'_>) -> Option<&'r str> {
    record.attributes.iter().find(|(name, _)| name == INVOCATION_ID)?.1.as_str()
}

/// Puts a line of the function's and the span of its invocation together: each tells the other's trace, if it has none.
fn correlate(record: &mut LogRecord<'_>, observer: &mut Observer) {
    let Some(request_id) = invocation_of(record) else { return };
    match (record.trace_id, record.span_id) {
        (Some(trace_id), Some(span_id)) => {
            observer.logged(request_id, Link { trace_id, span_id, trace_flags: record.trace_flags });
        }
        (None, None) => {
            if let Some(own) = observer.settled_trace_of(request_id) {
                record.trace_id = Some(own.trace_id);
                record.span_id = Some(own.span_id);
                record.trace_flags = own.trace_flags;
            }
        }
        // Loggers know the trace, and not the span that we make.
        (Some(trace_id), None) => {
            if let Some(own) = observer.trace_of(request_id).filter(|own| own.trace_id == trace_id) {
                record.span_id = Some(own.span_id);
                record.trace_flags = own.trace_flags;
            }
        }
        (None, Some(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn a_uid_ends_with_the_place_in_hexadecimal() {
        for index in [0, 1, 9, 10, 15, 16, 255, 256, 0xabc_def0, u32::MAX] {
            assert_eq!(numbered("5eed", index), format!("5eed-{index:x}"));
        }
    }
}
