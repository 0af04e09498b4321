//! From an event to an OpenTelemetry log record.
//!
//! | event | body | attributes |
//! |---|---|---|
//! | function or extension, a string | the text without its trailing newline | none of its own |
//! | function or extension, an object with `message` or `msg` | that message | every field that found no place of its own |
//! | function or extension, any other value | the value | none of its own |
//! | platform and unknown types | the record as it came | none of its own; the type is the event name |
//! | a record that is no JSON, no event at all, or half of one | the raw text | [`UNPARSED`] or [`CUT`] |
//!
//! A string that is the text of an object stays the body, unless [`JsonLines::Fields`](super::JsonLines) is wanted; what it tells has its places too.
//!
//! Of an object with a message, `timestamp` or `time`, `level` or `severity`, `requestId`, `traceId`,
//! `spanId` and `traceFlags`, or `traceparent`, have places of their own in a log record; each goes there only if it can be read
//! as what the place holds, a time only if it is near that of the event, and otherwise stays an attribute, as does whatever the envelope has beside time,
//! type and record. Of an object without a message the same are read, and the body keeps the whole of it.

use std::borrow::Cow;

use super::event::{Event, Kind, Platform, Status, is_request_id, request_id};
use super::exception::Exceptions;
use super::fields::{self, Fields, Message};
use super::line::Line;
use super::reading::{Reading, without_newline};
use super::severity::{self, Severity};
use super::time;
use super::trace_context::TraceParent;
use super::value::{Field, Value, make_names_unique};

/// Attribute: what identifies this record wherever it arrives twice (OpenTelemetry semantic conventions,
/// "General logs attributes").
pub const UID: &str = "log.record.uid";
/// Attribute: the request id of the invocation (OpenTelemetry semantic conventions, "`FaaS` spans").
pub const INVOCATION_ID: &str = "faas.invocation_id";
/// Attribute: the Telemetry API type, as Lambda spells it (`function`, `platform.report`).
///
/// The conventions have no name for it. The collector's Lambda receiver calls it `type`, which is
/// what many applications call a field of theirs.
pub const TELEMETRY_TYPE: &str = "aws.lambda.telemetry.type";
/// Attribute, `true`: the body is the raw text of something that could not be read.
pub const UNPARSED: &str = "outlast.unparsed";
/// Attribute, `true`: the body is the raw text of a record that Lambda cut and whose other part never came.
pub const CUT: &str = "outlast.cut";

/// A log record (opentelemetry-proto, `logs.v1.LogRecord`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogRecord<'a> {
    /// When it happened, in nanoseconds since the Unix epoch.
    pub time_unix_nanos: u64,
    /// When it was received, likewise.
    pub observed_unix_nanos: u64,
    /// How grave it is.
    pub severity: Severity<'a>,
    /// Names the kind of event that the body describes.
    pub event_name: Option<Cow<'a, str>>,
    /// What was logged.
    pub body: Value<'a>,
    /// Everything else. Names are unique.
    pub attributes: Vec<Field<'a>>,
    /// The trace it belongs to.
    pub trace_id: Option<[u8; 16]>,
    /// The span it belongs to.
    pub span_id: Option<[u8; 8]>,
    /// W3C trace flags in the lowest eight bits.
    pub trace_flags: u32,
}

/// What is known when an event arrives, beyond the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context<'a> {
    /// The invocation that is running, by `platform.start` in the order of the stream. `None` between
    /// invocations and always on Managed Instances, where several run at once.
    pub request_id: Option<&'a str>,
}

impl<'a> LogRecord<'a> {
    /// The log record an event becomes. `uid` identifies it; `observed_unix_nanos` also stands in for a time
    /// that is missing or malformed.
    pub fn from_event(
        event: &Event<'a>,
        context: &Context<'a>,
        observed_unix_nanos: u64,
        uid: &'a str,
    ) -> Self {
        Self::from_reading(event, Reading::of(event, None), context, observed_unix_nanos, uid)
    }

    /// The same, of what the event's record was read as.
    pub fn from_reading(
        event: &Event<'a>,
        reading: Reading<'a>,
        context: &Context<'a>,
        observed_unix_nanos: u64,
        uid: &'a str,
    ) -> Self {
        let near = event.time_unix_nanos.unwrap_or(observed_unix_nanos);
        let dated = reading.time_unix_nanos.filter(|time| time::is_near(*time, near));
        let mut record = match (reading.value, &event.kind) {
            (None, _) => Content::raw(event.record),
            (Some(value), kind) if kind.is_logged() => {
                Content::logged(value, reading.line, reading.stays_line, near)
            }
            (Some(value), kind) => Content::platform(value, kind),
        };
        // Only what was logged in the course of an invocation may be taken to belong to the one that runs.
        let running = context
            .request_id
            .filter(|_| event.kind.is_logged() || matches!(event.kind, Kind::Odd | Kind::Cut));
        let invocation = record.request_id.take().or(running.map(Cow::Borrowed));

        let kind = event.kind.name();
        let mut attributes = Vec::with_capacity(record.attributes.len() + event.extra.len() + 4);
        attributes.push((UID.into(), Value::Str(uid.into())));
        attributes.extend(invocation.map(|id| (INVOCATION_ID.into(), Value::Str(id))));
        attributes.extend(kind.clone().map(|kind| (TELEMETRY_TYPE.into(), Value::Str(kind))));
        if event.kind == Kind::Cut {
            attributes.push((CUT.into(), Value::Bool(true)));
        } else if record.unparsed {
            attributes.push((UNPARSED.into(), Value::Bool(true)));
        }
        let own = attributes.len();
        attributes.append(&mut record.attributes);
        if event.kind != Kind::Odd && event.kind != Kind::Cut {
            attributes.extend(event.extra.iter().map(|(name, raw)| (name.clone(), extra_value(raw))));
        }
        if attributes.len() > own {
            make_names_unique(&mut attributes);
        }
        Self {
            time_unix_nanos: record.time_unix_nanos.or(dated).unwrap_or(near),
            observed_unix_nanos,
            severity: record.severity,
            event_name: kind.filter(|_| !event.kind.is_logged()),
            body: record.body,
            attributes,
            trace_id: record.trace_id,
            span_id: record.span_id,
            trace_flags: record.trace_flags,
        }
    }
}

fn extra_value(raw: &[u8]) -> Value<'_> {
    Value::parse(raw).unwrap_or_else(|| Value::Str(String::from_utf8_lossy(raw)))
}

/// What a record gives to the log record it becomes.
#[derive(Default)]
struct Content<'a> {
    body: Value<'a>,
    attributes: Vec<Field<'a>>,
    unparsed: bool,
    time_unix_nanos: Option<u64>,
    severity: Severity<'a>,
    request_id: Option<Cow<'a, str>>,
    trace_id: Option<[u8; 16]>,
    span_id: Option<[u8; 8]>,
    trace_flags: u32,
}

impl<'a> Content<'a> {
    fn raw(text: &'a [u8]) -> Self {
        Self { body: Value::Str(String::from_utf8_lossy(text)), unparsed: true, ..Self::default() }
    }

    fn logged(record: Value<'a>, line: Option<&'a str>, stays_line: bool, near: u64) -> Self {
        match record {
            Value::Str(text) => Self::line(without_newline(text)),
            Value::Map(fields) => Self::object(fields, line, stays_line, near),
            other => Self { body: other, ..Self::default() },
        }
    }

    fn line(text: Cow<'a, str>) -> Self {
        let (request_id, severity, time_unix_nanos) = match &text {
            Cow::Borrowed(text) => {
                let line = Line::read(text);
                (line.request_id.map(Cow::Borrowed), line.level.map(Cow::Borrowed), line.time_unix_nanos)
            }
            Cow::Owned(text) => {
                let line = Line::read(text);
                let owned = |part: &str| Cow::Owned(part.to_owned());
                (line.request_id.map(owned), line.level.map(owned), line.time_unix_nanos)
            }
        };
        let severity = severity.and_then(Severity::from_word).unwrap_or_default();
        let parent = TraceParent::find(&text);
        Self {
            trace_id: parent.map(|parent| parent.trace_id),
            span_id: parent.map(|parent| parent.span_id),
            trace_flags: parent.map_or(0, |parent| parent.flags),
            body: Value::Str(text),
            request_id,
            severity,
            time_unix_nanos,
            ..Self::default()
        }
    }

    /// `line` is the text that the object was read from: without a message, or if it `stays_line`, that is the body. It was
    /// logged about at `near`.
    fn object(object: Vec<Field<'a>>, line: Option<&'a str>, stays_line: bool, near: u64) -> Self {
        let Fields { message, time, severity, request_id, trace_id, span_id, trace_flags, placed } =
            Fields::read(&object, near);
        let mut content = Self {
            time_unix_nanos: time,
            severity: severity.unwrap_or_default(),
            request_id,
            trace_id,
            span_id,
            trace_flags: trace_flags.unwrap_or_default(),
            ..Self::default()
        };
        let Some(message) = message.filter(|_| !stays_line || line.is_none()) else {
            content.body = line.map_or(Value::Map(object), |line| Value::Str(line.into()));
            return content;
        };
        let mut exceptions = Exceptions::of(&object);
        content.attributes.reserve(object.len());
        for (at, (name, value)) in object.into_iter().enumerate() {
            match (message, value) {
                (Message::At(message), value) if at == message => content.body = value,
                (Message::Within(message), Value::Map(mut members)) if at == message => {
                    if let Some(at) = members.iter().position(|(name, _)| name == "message") {
                        content.body = members.remove(at).1;
                    }
                    if !members.is_empty() {
                        content.attributes.push((name, Value::Map(members)));
                    }
                }
                (_, value) if !placed.contains(&at) => {
                    exceptions.push(name, value, &mut content.attributes);
                }
                _ => {}
            }
        }
        if let Value::Str(text) = content.body {
            content.body = Value::Str(without_newline(text));
        }
        content
    }

    fn platform(record: Value<'a>, kind: &Kind<'a>) -> Self {
        let failed = Status::of(&record).is_some_and(Status::is_failure)
            || record.get("errorType").is_some_and(|error| *error != Value::Empty)
            || *kind == Kind::Platform(Platform::Fault);
        let severity = if failed {
            Severity::of(severity::ERROR, "ERROR")
        } else if *kind == Kind::Platform(Platform::LogsDropped) {
            Severity::of(severity::WARN, "WARN")
        } else {
            Severity::of(severity::INFO, "INFO")
        };
        let request_id = request_id(&record).filter(|id| !id.is_empty());
        let mut content = Self { severity, request_id, ..Self::default() };
        if let Some(tracing) = record.get("tracing") {
            if let Some(header) = tracing.get("value").and_then(Value::as_str) {
                (content.trace_id, content.trace_flags) = fields::x_ray(header);
            }
            content.span_id = tracing.get("spanId").and_then(Value::as_str).and_then(fields::id);
        }
        content.body = match record {
            Value::Str(text) => Value::Str(without_newline(text)),
            other => other,
        };
        content
    }
}

/// Whether an object's `requestId` is Lambda's: applications have request ids of their own, in other forms.
pub(super) fn lambda_request_id<'a>(value: &Value<'a>) -> Option<Cow<'a, str>> {
    match value {
        Value::Str(text) if is_request_id(text) => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod loggers;
#[cfg(test)]
mod tests;
