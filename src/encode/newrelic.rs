//! The Log API of New Relic ("Introduction to the Log API": <https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/>),
//! in its detailed JSON.
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
use crate::record::{Field, LogRecord, Resource, Value};

const NEWRELIC_ID: u8 = 9;
const LOG: &str = "/log/v1";

/// "Payload total size: 1MB (10^6 bytes) maximum per POST", less the framing. Whether that is meant before or after
/// compression is not said, so it is kept to before it.
const BODY_MAX_BYTES: usize = 980_000;
/// A single record must fit into a request as well. New Relic itself keeps the first 128,000 of a message's characters.
const MESSAGE_MAX_BYTES: usize = 700_000;

/// Names that are ours in what becomes of `record`: only if there is something to say is it said.
fn taken(record: &LogRecord<'_>) -> Vec<&'static str> {
    let said = [
        ("level", !record.severity.text.is_empty()),
        ("severity.number", record.severity.number != 0),
        ("event.name", record.event_name.as_deref().is_some_and(|name| !name.is_empty())),
        ("trace.id", record.trace_id.is_some()),
        ("span.id", record.span_id.is_some()),
    ];
    said.into_iter().filter(|(_, is_said)| *is_said).map(|(name, _)| name).collect()
}

/// The Log API.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRelic;

impl WireFormat for NewRelic {
    fn id(&self) -> u8 {
        NEWRELIC_ID
    }

    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn path(&self, _: Signal, given: &str) -> String {
        if given.is_empty() { LOG.to_owned() } else { given.to_owned() }
    }

    fn limits(&self) -> Limits {
        Limits { body_bytes: BODY_MAX_BYTES, ..Limits::NONE }
    }

    fn framing(&self, _: Signal) -> Framing {
        Framing { prefix: b"[", separator: b"]},", suffix: b"]}]" }
    }

    fn separator(&self) -> &'static [u8] {
        COMMA
    }

    fn block_head(&self, _: Signal, resource: &Resource, _: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"common\":");
        json::object(out, |common| {
            common.object("attributes", |attributes| {
                resource.attributes.iter().for_each(|field| attribute(attributes, field));
            });
        });
        out.extend_from_slice(b",\"logs\":[\n");
    }

    fn log(&self, _: &Resource, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        let text = json::body_text(record);
        let (message, left_out_bytes) = json::cut(&text, MESSAGE_MAX_BYTES);
        json::object(out, |log| {
            log.number("timestamp", json::millis(record.time_unix_nanos));
            log.text("message", message);
            log.object("attributes", |attributes| {
                attributes.some_text("level", &record.severity.text);
                if record.severity.number != 0 {
                    attributes.number("severity.number", record.severity.number.into());
                }
                attributes.some_text("event.name", record.event_name.as_deref().unwrap_or_default());
                attributes.id("trace.id", record.trace_id.as_ref().map(AsRef::as_ref));
                attributes.id("span.id", record.span_id.as_ref().map(AsRef::as_ref));
                if left_out_bytes > 0 {
                    attributes.number("outlast.bytes_left_out", left_out_bytes as u64);
                }
                let taken = taken(record);
                let own = record.attributes.iter().filter(|(name, _)| !taken.contains(&name.as_ref()));
                own.for_each(|field| attribute(attributes, field));
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

fn attribute(object: &mut json::Object<'_>, (name, value): &Field<'_>) {
    match value {
        Value::Array(_) | Value::Map(_) => object.text(name, &json::plain_text(value)),
        Value::Empty => {}
        value => object.value(name, value),
    }
}
