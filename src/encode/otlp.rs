//! OTLP in protobuf (opentelemetry-proto 1.x, `ExportLogsServiceRequest` and its two sisters).
//!
//! A block is one `resource_logs` field of the request, complete with tag and length. A repeated field may be
//! written in any number of pieces, so blocks put one after another are a request, and framing is empty.
//! ```text
//! resource_logs = 1 ─┬ resource = 1
//!                    └ scope_logs = 2 ─┬ scope = 1
//!                                      └ log_records = 2, log_records = 2, …
//! ```
//! Everything before the first log record is the head. Metrics and spans lie in fields of the same numbers under other
//! names (`resource_metrics`, `scope_metrics`, `metrics`; `resource_spans`, `scope_spans`, `spans`), so head, parts and
//! subsets are one code for the three.

use std::ops::Range;

use super::protobuf::{Wire, bytes, fixed32, fixed64, message, read_varint, tag, varint, varint_len};
use super::{Framing, Parts, SplitError, WireFormat};
use crate::Signal;
use crate::observe::{Metric, Span};
use crate::record::{Field, LogRecord, Resource, Value};

mod metric;
mod span;

/// The number of this format in stored blocks.
const OTLP_ID: u8 = 1;
/// The instrumentation scope: who made these records.
pub(super) const SCOPE_NAME: &str = "outlast";
pub(super) const SCOPE_VERSION: &str = env!("CARGO_PKG_VERSION");

// Tags of the fields a block's structure is made of, the same for each signal; all are shorter than 128.
const RESOURCE_LOGS: u8 = 0x0a;
const RESOURCE: u8 = 0x0a;
const SCOPE_LOGS: u8 = 0x12;
const SCOPE: u8 = 0x0a;
const RECORD: u8 = 0x12;
/// The field number in [`RECORD`].
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

    fn metric(&self, metric: &Metric<'_>, out: &mut Vec<u8>) {
        message(RECORD_FIELD, out, |out| metric::metric(metric, out));
    }

    fn span(&self, span: &Span, out: &mut Vec<u8>) {
        message(RECORD_FIELD, out, |out| span::span(span, out));
    }

    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError> {
        let layout = Layout::read(plain)?;
        let mut records = Vec::new();
        let mut at = layout.head_end;
        while at < plain.len() {
            let end = field_end(plain, at, RECORD)?.1;
            records.push(at..end);
            at = end;
        }
        Ok(Parts { head: 0..layout.head_end, records })
    }

    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8> {
        let start = parts.records.get(records.start).map_or(plain.len(), |first| first.start);
        let last = records.end.min(parts.records.len()).checked_sub(1);
        let end = last.and_then(|last| parts.records.get(last)).map_or(start, |last| last.end);
        let chosen = plain.get(start..end).unwrap_or_default();
        let mut out = Vec::with_capacity(parts.head.len() + chosen.len());
        if let Ok(layout) = Layout::read(plain) {
            let field = |range: Range<usize>| plain.get(range).unwrap_or_default();
            head(field(layout.resource), field(layout.scope), chosen.len(), &mut out);
            out.extend_from_slice(chosen);
        }
        out
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

/// Where the fields of a block's head are.
struct Layout {
    resource: Range<usize>,
    scope: Range<usize>,
    head_end: usize,
}

impl Layout {
    fn read(plain: &[u8]) -> Result<Self, SplitError> {
        // The two outer messages both go on to the end of the block.
        let whole =
            |(start, end)| if end == plain.len() { Ok(start) } else { Err(SplitError::Unexpected(end)) };
        let resource = whole(field_end(plain, 0, RESOURCE_LOGS)?)?;
        let scope_logs = field_end(plain, resource, RESOURCE)?.1;
        let scope = whole(field_end(plain, scope_logs, SCOPE_LOGS)?)?;
        let head_end = field_end(plain, scope, SCOPE)?.1;
        Ok(Self { resource: resource..scope_logs, scope: scope..head_end, head_end })
    }
}

/// Where the content of the length-delimited field at `at` begins and ends, if its tag is `expected`.
fn field_end(plain: &[u8], at: usize, expected: u8) -> Result<(usize, usize), SplitError> {
    match plain.get(at) {
        None => return Err(SplitError::Truncated(at)),
        Some(&found) if found != expected => return Err(SplitError::Unexpected(at)),
        Some(_) => {}
    }
    let (length, start) = read_varint(plain, at + 1).ok_or(SplitError::Truncated(at))?;
    let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
    end.filter(|end| *end <= plain.len()).map(|end| (start, end)).ok_or(SplitError::Truncated(at))
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
        Value::Str(text) => {
            // Long texts are common, and their length is known: nothing is moved.
            tag(field, Wire::Len, out);
            varint((1 + varint_len(text.len() as u64) + text.len()) as u64, out);
            bytes(1, text.as_bytes(), out);
        }
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
mod other_signals;
#[cfg(test)]
mod tests;
