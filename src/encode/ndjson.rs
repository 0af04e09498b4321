//! Lines of JSON (`application/x-ndjson`), for any HTTP intake: Vector, Fluent Bit, Logstash, Axiom, Better Stack and the
//! like. One object per line, each ended by a line feed (<https://github.com/ndjson/ndjson-spec>).
//!
//! The object is the OpenTelemetry log data model under names that such intakes look for: `timestamp`, `level` and
//! `message`. A body that is no text keeps its shape in `body`, so that no field is text here and an object there.

use std::ops::Range;

use super::lines::Lines;
use super::{Framing, Parts, SplitError, WireFormat, json};
use crate::Signal;
use crate::record::{LogRecord, Resource, Value};

const NDJSON_ID: u8 = 3;

/// Lines of JSON.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ndjson;

impl WireFormat for Ndjson {
    fn id(&self) -> u8 {
        NDJSON_ID
    }

    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn path(&self, _: Signal, given: &str) -> String {
        given.to_owned()
    }

    fn framing(&self, _: Signal) -> Framing {
        Framing { prefix: b"", separator: b"", suffix: b"" }
    }

    fn block_head(&self, _: Signal, _: &Resource, _: usize, _: &mut Vec<u8>) {}

    fn log(&self, resource: &Resource, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        object(resource, record, out);
        out.push(b'\n');
    }

    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError> {
        Lines::STREAM.parts(plain)
    }

    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8> {
        Lines::STREAM.subset(plain, parts, records)
    }
}

/// Appends a record as an object.
pub(super) fn object(resource: &Resource, record: &LogRecord<'_>, out: &mut Vec<u8>) {
    json::object(out, |object| {
        object.member("timestamp", |out| json::rfc3339(record.time_unix_nanos, out));
        object.some_text("level", &record.severity.text);
        if record.severity.number != 0 {
            object.number("severity_number", record.severity.number.into());
        }
        match &record.body {
            Value::Str(text) => object.text("message", text),
            Value::Empty => {}
            other => object.value("body", other),
        }
        object.some_text("event_name", record.event_name.as_deref().unwrap_or_default());
        object.id("trace_id", record.trace_id.as_ref().map(AsRef::as_ref));
        object.id("span_id", record.span_id.as_ref().map(AsRef::as_ref));
        if record.trace_flags != 0 {
            object.number("trace_flags", record.trace_flags.into());
        }
        object.member("observed_timestamp", |out| json::rfc3339(record.observed_unix_nanos, out));
        object.fields("attributes", &record.attributes);
        object.fields("resource", &resource.attributes);
    });
}
