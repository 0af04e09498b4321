//! The Log API of New Relic ("Introduction to the Log API": <https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/>),
//! in its detailed JSON. Metrics go to an API of their own (`newrelic/metric.rs`).
//!
//! ```text
//! [ {"common":{"attributes":{resource}},"logs":[␊ {"timestamp":…,"message":…,"attributes":{…}},␊ … ]} , … ]
//! ```
//! What the records of a block have in common is said once. Values of attributes are text, numbers or booleans; what is
//! more is JSON text.

use std::ops::Range;

use super::lines::{COMMA, Lines};
use super::{Framing, Limits, Parts, SplitError, WireFormat, json};
use crate::Signal;
use crate::observe::Metric;
use crate::record::{Field, LogRecord, Resource, Value};

mod metric;

const NEWRELIC_ID: u8 = 9;
const LOG: &str = "/log/v1";
/// Hosts of the Log API, which the Metric API has a counterpart to.
const HOSTS: [&str; 3] = ["log-api.newrelic.com", "log-api.eu.newrelic.com", "gov-log-api.newrelic.com"];

/// "Payload total size: 1MB (10^6 bytes) maximum per POST" (both APIs), less the framing. Whether that is meant before or after
/// compression is not said, so it is kept to before it.
const BODY_MAX_BYTES: usize = 980_000;
/// A single record must fit into a request as well, so this counts what is escaped. New Relic itself keeps the first 128,000 of a message's characters.
const MESSAGE_MAX_BYTES: usize = 700_000;

/// "Number of attributes per event: 255 maximum", "Length of attribute name: 255 characters": what has more is not kept.
const ATTRIBUTES_MAX: usize = 255;
const NAME_MAX_CHARS: usize = 255;
/// Of these, the resource's at most.
const COMMON_MAX: usize = 100;
/// … and those that are ours: time, message, the five of [`is_ours`], and what says that something is left out (bytes, attributes).
const OURS: usize = 2 + 5 + 2;

/// Whether the attribute `name` of `record` is ours: only if there is something to say is it said.
fn is_ours(record: &LogRecord<'_>, name: &str) -> bool {
    match name {
        "level" => !record.severity.text.is_empty(),
        "severity.number" => record.severity.number != 0,
        "event.name" => record.event_name.as_deref().is_some_and(|name| !name.is_empty()),
        "trace.id" => record.trace_id.is_some(),
        "span.id" => record.span_id.is_some(),
        _ => false,
    }
}

/// The Log API and the Metric API.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRelic;

impl WireFormat for NewRelic {
    fn id(&self) -> u8 {
        NEWRELIC_ID
    }

    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn path(&self, signal: Signal, given: &str) -> String {
        match (signal, given) {
            (Signal::Metrics, _) => format!("{}{}", given.strip_suffix(LOG).unwrap_or(given), metric::PATH),
            (_, "") => LOG.to_owned(),
            _ => given.to_owned(),
        }
    }

    fn host(&self, signal: Signal, given: &str) -> Option<String> {
        (signal == Signal::Metrics && HOSTS.contains(&given))
            .then(|| given.replacen("log-api", "metric-api", 1))
    }

    fn limits(&self, _: Signal) -> Limits {
        Limits { body_bytes: BODY_MAX_BYTES, ..Limits::NONE }
    }

    fn framing(&self, _: Signal) -> Framing {
        Framing { prefix: b"[", separator: b"]},", suffix: b"]}]" }
    }

    fn separator(&self) -> &'static [u8] {
        COMMA
    }

    fn block_head(&self, signal: Signal, resource: &Resource, _: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"common\":");
        json::object(out, |common| {
            common.object("attributes", |object| {
                let mut attributes = Attributes::of(object, COMMON_MAX);
                resource.attributes.iter().for_each(|field| attributes.add(field));
                attributes.finish();
            });
        });
        out.extend_from_slice(if signal == Signal::Metrics { b",\"metrics\":[\n" } else { b",\"logs\":[\n" });
    }

    fn takes(&self, signal: Signal) -> bool {
        signal != Signal::Traces
    }

    fn metric(&self, resource: &Resource, metric: &Metric<'_>, out: &mut Vec<u8>) {
        metric::metric(resource, metric, out);
    }

    fn log(&self, resource: &Resource, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        let text = json::body_text(record);
        let (message, left_out_bytes) = json::cut_escaped(&text, MESSAGE_MAX_BYTES);
        json::object(out, |log| {
            log.number("timestamp", json::millis(record.time_unix_nanos));
            log.text("message", message);
            log.object("attributes", |object| {
                object.some_text("level", &record.severity.text);
                if record.severity.number != 0 {
                    object.number("severity.number", record.severity.number.into());
                }
                object.some_text("event.name", record.event_name.as_deref().unwrap_or_default());
                object.id("trace.id", record.trace_id.as_ref().map(AsRef::as_ref));
                object.id("span.id", record.span_id.as_ref().map(AsRef::as_ref));
                if left_out_bytes > 0 {
                    object.number("outlast.bytes_left_out", left_out_bytes as u64);
                }
                let mut attributes = Attributes::of(object, ATTRIBUTES_MAX - OURS - common(resource));
                let own = record.attributes.iter().filter(|(name, _)| !is_ours(record, name));
                own.for_each(|field| attributes.add(field));
                attributes.finish();
            });
        });
    }

    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError> {
        Lines::HEADED_LIST.parts(plain)
    }

    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8> {
        Lines::HEADED_LIST.subset(plain, parts, records)
    }
}

/// How many attributes the records of a block have in common.
fn common(resource: &Resource) -> usize {
    // What says that some are left out is one more.
    resource.attributes.len().min(COMMON_MAX + 1)
}

/// Attributes within New Relic's limits.
struct Attributes<'m, 'o> {
    object: &'m mut json::Object<'o>,
    room: usize,
    left_out: u64,
}

impl<'m, 'o> Attributes<'m, 'o> {
    fn of(object: &'m mut json::Object<'o>, room: usize) -> Self {
        Self { object, room, left_out: 0 }
    }

    fn add(&mut self, (name, value): &Field<'_>) {
        if *value == Value::Empty {
            return;
        }
        if self.room == 0 || name.chars().count() > NAME_MAX_CHARS {
            self.left_out += 1;
            return;
        }
        self.room -= 1;
        match value {
            Value::Array(_) | Value::Map(_) => self.object.text(name, &json::plain_text(value)),
            value => self.object.value(name, value),
        }
    }

    /// Says what is missing.
    fn finish(self) {
        if self.left_out > 0 {
            self.object.number("outlast.attributes_left_out", self.left_out);
        }
    }
}
