//! OTLP in JSON (OTLP specification, "JSON Protobuf Encoding": <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>):
//! names in lower camel case, ids in hexadecimal, 64-bit integers as text, enums as numbers.
//!
//! ```text
//! {"resourceLogs":[ {"resource":{…},"scopeLogs":[{"scope":{…},"logRecords":[␊ {…},␊ … ]}]} , … ]}
//!  └─── prefix ───┘ └─────────────────── head ──────────────────────────────┘ └ records ┘└ separator, suffix
//! ```

use std::ops::Range;

use super::lines::{COMMA, Lines};
use super::otlp::{SCOPE_NAME, SCOPE_VERSION};
use super::{Framing, Parts, SplitError, WireFormat, json};
use crate::Signal;
use crate::observe::{Data, Link, Metric, Number, Span, SpanStatus};
use crate::record::{Field, LogRecord, Resource, Value};

const OTLP_JSON_ID: u8 = 2;

/// `AGGREGATION_TEMPORALITY_DELTA`
const DELTA: u64 = 1;
/// `STATUS_CODE_ERROR`
const ERROR: u64 = 2;
/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK` and `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// OTLP/HTTP in JSON.
#[derive(Clone, Copy, Debug, Default)]
pub struct OtlpJson;

impl WireFormat for OtlpJson {
    fn id(&self) -> u8 {
        OTLP_JSON_ID
    }

    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn path(&self, signal: Signal, given: &str) -> String {
        super::Otlp.path(signal, given)
    }

    fn framing(&self, signal: Signal) -> Framing {
        let prefix: &[u8] = match signal {
            Signal::Logs => b"{\"resourceLogs\":[",
            Signal::Metrics => b"{\"resourceMetrics\":[",
            Signal::Traces => b"{\"resourceSpans\":[",
        };
        Framing { prefix, separator: b"]}]},", suffix: b"]}]}]}" }
    }

    fn separator(&self) -> &'static [u8] {
        COMMA
    }

    fn block_head(&self, signal: Signal, resource: &Resource, _: usize, out: &mut Vec<u8>) {
        let (scopes, records) = match signal {
            Signal::Logs => ("scopeLogs", "logRecords"),
            Signal::Metrics => ("scopeMetrics", "metrics"),
            Signal::Traces => ("scopeSpans", "spans"),
        };
        out.extend_from_slice(b"{\"resource\":");
        json::object(out, |object| attributes(object, &resource.attributes));
        out.push(b',');
        json::string(scopes, out);
        out.extend_from_slice(b":[{\"scope\":");
        json::object(out, |scope| {
            scope.text("name", SCOPE_NAME);
            scope.text("version", SCOPE_VERSION);
        });
        out.push(b',');
        json::string(records, out);
        out.extend_from_slice(b":[\n");
    }

    fn takes(&self, _: Signal) -> bool {
        true
    }

    fn log(&self, _: &Resource, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        json::object(out, |log| {
            nanos(log, "timeUnixNano", record.time_unix_nanos);
            nanos(log, "observedTimeUnixNano", record.observed_unix_nanos);
            if record.severity.number != 0 {
                log.number("severityNumber", record.severity.number.into());
            }
            log.some_text("severityText", &record.severity.text);
            if record.body != Value::Empty {
                log.member("body", |out| any_value(&record.body, out));
            }
            attributes(log, &record.attributes);
            flags(log, record.trace_flags);
            log.id("traceId", record.trace_id.as_ref().map(AsRef::as_ref));
            log.id("spanId", record.span_id.as_ref().map(AsRef::as_ref));
            log.some_text("eventName", record.event_name.as_deref().unwrap_or_default());
        });
    }

    fn metric(&self, _: &Resource, metric: &Metric<'_>, out: &mut Vec<u8>) {
        json::object(out, |object| {
            object.some_text("name", &metric.name);
            object.some_text("description", &metric.description);
            object.some_text("unit", &metric.unit);
            let name = match metric.data {
                Data::Gauge(_) => "gauge",
                Data::Delta(_) => "sum",
                Data::Histogram(_) => "histogram",
            };
            object.object(name, |data| {
                data.member("dataPoints", |out| json::array([metric], out, |metric, out| point(metric, out)));
                if !matches!(metric.data, Data::Gauge(_)) {
                    data.number("aggregationTemporality", DELTA);
                }
                if matches!(metric.data, Data::Delta(_)) {
                    data.value("isMonotonic", &Value::Bool(true));
                }
            });
        });
    }

    fn span(&self, span: &Span, out: &mut Vec<u8>) {
        json::object(out, |object| {
            object.id("traceId", Some(&span.trace_id));
            object.id("spanId", Some(&span.span_id));
            object.id("parentSpanId", span.parent.as_ref().map(|parent| parent.span_id.as_ref()));
            let remote = match span.parent {
                None => 0,
                Some(parent) if parent.is_remote => HAS_IS_REMOTE | IS_REMOTE,
                Some(_) => HAS_IS_REMOTE,
            };
            flags(object, span.trace_flags | remote);
            object.some_text("name", &span.name);
            object.number("kind", span.kind as u64);
            nanos(object, "startTimeUnixNano", span.start_unix_nanos);
            nanos(object, "endTimeUnixNano", span.end_unix_nanos);
            attributes(object, &span.attributes);
            if let Some(other) = &span.link {
                object.member("links", |out| json::array([other], out, link));
            }
            if let SpanStatus::Error(text) = &span.status {
                object.object("status", |status| {
                    status.some_text("message", text);
                    status.number("code", ERROR);
                });
            }
        });
    }

    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError> {
        Lines::HEADED_LIST.parts(plain)
    }

    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8> {
        Lines::HEADED_LIST.subset(plain, parts, records)
    }
}

/// Times are 64-bit integers, and 0 is the default.
fn nanos(object: &mut json::Object<'_>, name: &str, unix_nanos: u64) {
    if unix_nanos != 0 {
        object.text(name, &unix_nanos.to_string());
    }
}

fn flags(object: &mut json::Object<'_>, flags: u32) {
    if flags != 0 {
        object.number("flags", flags.into());
    }
}

fn point(metric: &Metric<'_>, out: &mut Vec<u8>) {
    json::object(out, |point| {
        attributes(point, &metric.attributes);
        nanos(point, "startTimeUnixNano", metric.start_unix_nanos);
        nanos(point, "timeUnixNano", metric.time_unix_nanos);
        match &metric.data {
            Data::Gauge(Number::Int(value)) | Data::Delta(Number::Int(value)) => {
                point.text("asInt", &value.to_string());
            }
            Data::Gauge(Number::Double(value)) | Data::Delta(Number::Double(value)) => {
                point.value("asDouble", &Value::Double(*value));
            }
            Data::Histogram(spread) => {
                point.text("count", &spread.count.to_string());
                for (name, value) in [("sum", spread.sum), ("min", spread.min), ("max", spread.max)] {
                    point.value(name, &Value::Double(value));
                }
                point.member("bucketCounts", |out| {
                    json::array(&spread.buckets, out, |count, out| json::string(&count.to_string(), out));
                });
                point.member("explicitBounds", |out| {
                    json::array(spread.bounds, out, |bound, out| json::double(*bound, out));
                });
            }
        }
    });
}

fn link(link: &Link, out: &mut Vec<u8>) {
    json::object(out, |object| {
        object.id("traceId", Some(&link.trace_id));
        object.id("spanId", Some(&link.span_id));
        flags(object, link.trace_flags);
    });
}

/// The member `attributes`, a list of `KeyValue`; left out if there are none.
fn attributes(object: &mut json::Object<'_>, fields: &[Field<'_>]) {
    if !fields.is_empty() {
        object.member("attributes", |out| json::array(fields, out, key_value));
    }
}

fn key_value((name, value): &Field<'_>, out: &mut Vec<u8>) {
    json::object(out, |pair| {
        pair.text("key", name);
        pair.member("value", |out| any_value(value, out));
    });
}

/// An `AnyValue`; none of its members is null.
fn any_value(value: &Value<'_>, out: &mut Vec<u8>) {
    json::object(out, |object| match value {
        Value::Empty => {}
        Value::Bool(_) => object.value("boolValue", value),
        Value::Int(number) => object.text("intValue", &number.to_string()),
        Value::Double(_) => object.value("doubleValue", value),
        Value::Str(text) => object.text("stringValue", text),
        Value::Array(items) => object
            .object("arrayValue", |list| list.member("values", |out| json::array(items, out, any_value))),
        Value::Map(fields) => object
            .object("kvlistValue", |list| list.member("values", |out| json::array(fields, out, key_value))),
    });
}
