//! OTLP in protobuf (opentelemetry-proto 1.x, `ExportLogsServiceRequest` and its two sisters).
//!
//! A block is a run of `resource_logs` fields of the request (one, where we made it), complete with tag and length. A
//! repeated field may be written in any number of pieces, so blocks put one after another are a request, and framing
//! is empty. What the function's own SDK sent ([`received`]) is made of the same fields and goes into the same requests.
//! ```text
//! resource_logs = 1 ─┬ resource = 1
//!                    └ scope_logs = 2 ─┬ scope = 1
//!                                      └ log_records = 2, log_records = 2, …
//! ```
//! Metrics and spans lie in fields of the same numbers under other
//! names (`resource_metrics`, `scope_metrics`, `metrics`; `resource_spans`, `scope_spans`, `spans`), so parts and
//! subsets are one code for the three.

use std::ops::Range;

use super::protobuf::{Wire, bytes, bytes_within, fixed32, fixed64, message, tag, varint, varint_len};
use super::{Framing, Parts, SplitError, WireFormat};
use crate::Signal;
use crate::observe::{Metric, Span};
use crate::record::{Field, LogRecord, Resource, Value};

#[cfg(feature = "tool")]
pub mod decoded;
mod metric;
pub mod received;
mod span;
mod walk;

/// The number of this format in stored blocks.
const OTLP_ID: u8 = 1;
/// The instrumentation scope: who made these records.
pub(super) const SCOPE_NAME: &str = "outlast";
pub(super) const SCOPE_VERSION: &str = env!("CARGO_PKG_VERSION");

// Tags of the two fields that go around records, the same for each signal.
const RESOURCE_LOGS: u8 = 0x0a;
const SCOPE_LOGS: u8 = 0x12;
/// The field number of a record in what is around it.
const RECORD_FIELD: u32 = 2;

/// OTLP/HTTP in protobuf.
#[derive(Clone, Copy, Debug, Default)]
pub struct Otlp;

impl WireFormat for Otlp {
    fn id(&self) -> u8 {
        OTLP_ID
    }

    fn content_type(&self) -> &'static str {
        "application/x-protobuf"
    }

    /// OpenTelemetry protocol exporter specification, "Endpoint URLs for OTLP/HTTP".
    fn path(&self, signal: Signal, given: &str) -> String {
        format!("{given}/v1/{}", signal.name())
    }

    fn framing(&self, _: Signal) -> Framing {
        Framing { prefix: b"", separator: b"", suffix: b"" }
    }

    fn block_head(&self, _: Signal, resource: &Resource, records_len: usize, out: &mut Vec<u8>) {
        let mut resource_field = Vec::new();
        message(1, &mut resource_field, |out| attributes(1, &resource.attributes, out));
        let mut scope_field = Vec::new();
        message(1, &mut scope_field, |out| {
            bytes(1, SCOPE_NAME.as_bytes(), out);
            bytes(2, SCOPE_VERSION.as_bytes(), out);
        });
        head(&resource_field, &scope_field, records_len, out);
    }

    fn takes(&self, _: Signal) -> bool {
        true
    }

    fn log(&self, _: &Resource, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        message(RECORD_FIELD, out, |out| log_record(record, out));
    }

    fn metric(&self, _: &Resource, metric: &Metric<'_>, out: &mut Vec<u8>) {
        message(RECORD_FIELD, out, |out| metric::metric(metric, out));
    }

    fn span(&self, span: &Span, out: &mut Vec<u8>) {
        message(RECORD_FIELD, out, |out| span::span(span, out));
    }

    fn takes_otlp(&self) -> bool {
        true
    }

    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError> {
        let mut records: Vec<Range<usize>> = Vec::new();
        walk::records(plain, &mut |record| records.push(record.whole.clone()))?;
        let head_end = records.first().map_or(plain.len(), |first| first.start);
        Ok(Parts { head: 0..head_end, records })
    }

    fn subset(&self, plain: &[u8], _parts: &Parts, records: Range<usize>) -> Vec<u8> {
        // What `parts` found sound is sound.
        walk::subset(plain, &|place| records.contains(&place)).unwrap_or_default()
    }

    fn pick(&self, plain: &[u8], _parts: &Parts, stays: &dyn Fn(usize) -> bool) -> Vec<u8> {
        walk::subset(plain, stays).unwrap_or_default()
    }
}

/// Appends a block's head, given its resource and scope fields.
fn head(resource_field: &[u8], scope_field: &[u8], records_len: usize, out: &mut Vec<u8>) {
    let scope_logs_len = scope_field.len() + records_len;
    let resource_logs_len = resource_field.len() + 1 + varint_len(scope_logs_len as u64) + scope_logs_len;
    out.push(RESOURCE_LOGS);
    varint(resource_logs_len as u64, out);
    out.extend_from_slice(resource_field);
    out.push(SCOPE_LOGS);
    varint(scope_logs_len as u64, out);
    out.extend_from_slice(scope_field);
}

fn log_record(record: &LogRecord<'_>, out: &mut Vec<u8>) {
    if record.time_unix_nanos != 0 {
        fixed64(1, record.time_unix_nanos, out);
    }
    if record.severity.number != 0 {
        tag(2, Wire::Varint, out);
        varint(u64::from(record.severity.number), out);
    }
    if !record.severity.text.is_empty() {
        bytes(3, record.severity.text.as_bytes(), out);
    }
    if record.body != Value::Empty {
        any_value(5, &record.body, out);
    }
    attributes(6, &record.attributes, out);
    if record.trace_flags != 0 {
        fixed32(8, record.trace_flags, out);
    }
    if let Some(id) = record.trace_id {
        bytes(9, &id, out);
    }
    if let Some(id) = record.span_id {
        bytes(10, &id, out);
    }
    if record.observed_unix_nanos != 0 {
        fixed64(11, record.observed_unix_nanos, out);
    }
    if let Some(name) = record.event_name.as_deref().filter(|name| !name.is_empty()) {
        bytes(12, name.as_bytes(), out);
    }
}

/// A repeated field of `KeyValue`.
fn attributes(field: u32, fields: &[Field<'_>], out: &mut Vec<u8>) {
    for (name, value) in fields {
        message(field, out, |out| {
            if !name.is_empty() {
                bytes(1, name.as_bytes(), out);
            }
            any_value(2, value, out);
        });
    }
}

/// An `AnyValue`: one of string 1, bool 2, int 3, double 4, array 5, list of key and value 6; none of them is
/// null.
///
/// Recursion is bounded by [`MAX_DEPTH_LEVELS`](crate::record::value::MAX_DEPTH_LEVELS) where values are
/// read.
fn any_value(field: u32, value: &Value<'_>, out: &mut Vec<u8>) {
    // Members of a oneof are written even when they hold the default.
    match value {
        Value::Str(text) => bytes_within(field, 1, text.as_bytes(), out),
        Value::Empty => message(field, out, |_| {}),
        Value::Bool(value) => message(field, out, |out| {
            tag(2, Wire::Varint, out);
            out.push(u8::from(*value));
        }),
        Value::Int(value) => message(field, out, |out| {
            tag(3, Wire::Varint, out);
            varint(value.cast_unsigned(), out);
        }),
        Value::Double(value) => message(field, out, |out| fixed64(4, value.to_bits(), out)),
        Value::Array(items) => message(field, out, |out| {
            message(5, out, |out| {
                for item in items {
                    any_value(1, item, out);
                }
            });
        }),
        Value::Map(fields) => message(field, out, |out| message(6, out, |out| attributes(1, fields, out))),
    }
}

#[cfg(test)]
mod tests;
