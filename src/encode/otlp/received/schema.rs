//! The messages of OTLP as far as requests reach: names in JSON, field numbers, types.
//!
//! From opentelemetry-proto 1.x (`common.proto`, `resource.proto`, `trace.proto`, `metrics.proto`, `logs.proto`, and
//! the three `*_service.proto`). A field that is not here is ignored, as the OTLP specification has it ("JSON Protobuf
//! Encoding").

use crate::Signal;

/// How a value is written, in JSON and in protobuf.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// `string`
    Text,
    /// `bytes`, base64 in JSON.
    Bytes,
    /// `bytes` of a trace or span id, hexadecimal in JSON.
    Id,
    /// `bool`
    Bool,
    /// `double`
    Double,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `uint32`, `uint64`
    Uint,
    /// An enum, a number in JSON as well.
    Enum,
    /// `sint32`
    Sint,
    /// `fixed32`
    Fixed32,
    /// `fixed64`
    Fixed64,
    /// `sfixed64`
    Sfixed64,
    /// Another message.
    Message(&'static [Field]),
}

/// One field of a message.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
}

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { name, number, kind, repeated: false }
}

const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { name, number, kind, repeated: true }
}

use Kind::{
    Bool, Bytes, Double, Enum, Fixed32, Fixed64, Id, Int32, Int64, Message, Sfixed64, Sint, Text, Uint,
};

/// The fields of a request for `signal`.
pub(super) fn request(signal: Signal) -> &'static [Field] {
    match signal {
        Signal::Logs => &LOGS_REQUEST,
        Signal::Metrics => &METRICS_REQUEST,
        Signal::Traces => &TRACE_REQUEST,
    }
}

// === common.proto, resource.proto ===
// `static`, not `const`, and arrays, not slices of them: an `AnyValue` holds others.

static ANY_VALUE: [Field; 8] = [
    one(1, "stringValue", Text),
    one(2, "boolValue", Bool),
    one(3, "intValue", Int64),
    one(4, "doubleValue", Double),
    one(5, "arrayValue", Message(&ARRAY_VALUE)),
    one(6, "kvlistValue", Message(&KEY_VALUE_LIST)),
    one(7, "bytesValue", Bytes),
    // For profiles, as `keyStrindex` is; elsewhere the backend judges what it means.
    one(8, "stringValueStrindex", Int32),
];
static ARRAY_VALUE: [Field; 1] = [many(1, "values", Message(&ANY_VALUE))];
static KEY_VALUE_LIST: [Field; 1] = [many(1, "values", Message(&KEY_VALUE))];
static KEY_VALUE: [Field; 3] =
    [one(1, "key", Text), one(2, "value", Message(&ANY_VALUE)), one(3, "keyStrindex", Int32)];
static SCOPE: [Field; 4] = [
    one(1, "name", Text),
    one(2, "version", Text),
    many(3, "attributes", Message(&KEY_VALUE)),
    one(4, "droppedAttributesCount", Uint),
];
static ENTITY_REF: [Field; 4] = [
    one(1, "schemaUrl", Text),
    one(2, "type", Text),
    many(3, "idKeys", Text),
    many(4, "descriptionKeys", Text),
];
static RESOURCE: [Field; 3] = [
    many(1, "attributes", Message(&KEY_VALUE)),
    one(2, "droppedAttributesCount", Uint),
    many(3, "entityRefs", Message(&ENTITY_REF)),
];

// === logs.proto ===

static LOGS_REQUEST: [Field; 1] = [many(1, "resourceLogs", Message(&RESOURCE_LOGS))];
static RESOURCE_LOGS: [Field; 3] = [
    one(1, "resource", Message(&RESOURCE)),
    many(2, "scopeLogs", Message(&SCOPE_LOGS)),
    one(3, "schemaUrl", Text),
];
static SCOPE_LOGS: [Field; 3] = [
    one(1, "scope", Message(&SCOPE)),
    many(2, "logRecords", Message(&LOG_RECORD)),
    one(3, "schemaUrl", Text),
];
static LOG_RECORD: [Field; 11] = [
    one(1, "timeUnixNano", Fixed64),
    one(2, "severityNumber", Enum),
    one(3, "severityText", Text),
    one(5, "body", Message(&ANY_VALUE)),
    many(6, "attributes", Message(&KEY_VALUE)),
    one(7, "droppedAttributesCount", Uint),
    one(8, "flags", Fixed32),
    one(9, "traceId", Id),
    one(10, "spanId", Id),
    one(11, "observedTimeUnixNano", Fixed64),
    one(12, "eventName", Text),
];

// === trace.proto ===

static TRACE_REQUEST: [Field; 1] = [many(1, "resourceSpans", Message(&RESOURCE_SPANS))];
static RESOURCE_SPANS: [Field; 3] = [
    one(1, "resource", Message(&RESOURCE)),
    many(2, "scopeSpans", Message(&SCOPE_SPANS)),
    one(3, "schemaUrl", Text),
];
static SCOPE_SPANS: [Field; 3] =
    [one(1, "scope", Message(&SCOPE)), many(2, "spans", Message(&SPAN)), one(3, "schemaUrl", Text)];
static SPAN: [Field; 16] = [
    one(1, "traceId", Id),
    one(2, "spanId", Id),
    one(3, "traceState", Text),
    one(4, "parentSpanId", Id),
    one(5, "name", Text),
    one(6, "kind", Enum),
    one(7, "startTimeUnixNano", Fixed64),
    one(8, "endTimeUnixNano", Fixed64),
    many(9, "attributes", Message(&KEY_VALUE)),
    one(10, "droppedAttributesCount", Uint),
    many(11, "events", Message(&SPAN_EVENT)),
    one(12, "droppedEventsCount", Uint),
    many(13, "links", Message(&SPAN_LINK)),
    one(14, "droppedLinksCount", Uint),
    one(15, "status", Message(&SPAN_STATUS)),
    one(16, "flags", Fixed32),
];
static SPAN_EVENT: [Field; 4] = [
    one(1, "timeUnixNano", Fixed64),
    one(2, "name", Text),
    many(3, "attributes", Message(&KEY_VALUE)),
    one(4, "droppedAttributesCount", Uint),
];
static SPAN_LINK: [Field; 6] = [
    one(1, "traceId", Id),
    one(2, "spanId", Id),
    one(3, "traceState", Text),
    many(4, "attributes", Message(&KEY_VALUE)),
    one(5, "droppedAttributesCount", Uint),
    one(6, "flags", Fixed32),
];
static SPAN_STATUS: [Field; 2] = [one(2, "message", Text), one(3, "code", Enum)];

// === metrics.proto ===

static METRICS_REQUEST: [Field; 1] = [many(1, "resourceMetrics", Message(&RESOURCE_METRICS))];
static RESOURCE_METRICS: [Field; 3] = [
    one(1, "resource", Message(&RESOURCE)),
    many(2, "scopeMetrics", Message(&SCOPE_METRICS)),
    one(3, "schemaUrl", Text),
];
static SCOPE_METRICS: [Field; 3] =
    [one(1, "scope", Message(&SCOPE)), many(2, "metrics", Message(&METRIC)), one(3, "schemaUrl", Text)];
static METRIC: [Field; 9] = [
    one(1, "name", Text),
    one(2, "description", Text),
    one(3, "unit", Text),
    one(5, "gauge", Message(&GAUGE)),
    one(7, "sum", Message(&SUM)),
    one(9, "histogram", Message(&HISTOGRAM)),
    one(10, "exponentialHistogram", Message(&EXPONENTIAL_HISTOGRAM)),
    one(11, "summary", Message(&SUMMARY)),
    many(12, "metadata", Message(&KEY_VALUE)),
];
static GAUGE: [Field; 1] = [many(1, "dataPoints", Message(&NUMBER_POINT))];
static SUM: [Field; 3] = [
    many(1, "dataPoints", Message(&NUMBER_POINT)),
    one(2, "aggregationTemporality", Enum),
    one(3, "isMonotonic", Bool),
];
static HISTOGRAM: [Field; 2] =
    [many(1, "dataPoints", Message(&HISTOGRAM_POINT)), one(2, "aggregationTemporality", Enum)];
static EXPONENTIAL_HISTOGRAM: [Field; 2] =
    [many(1, "dataPoints", Message(&EXPONENTIAL_POINT)), one(2, "aggregationTemporality", Enum)];
static SUMMARY: [Field; 1] = [many(1, "dataPoints", Message(&SUMMARY_POINT))];
static NUMBER_POINT: [Field; 7] = [
    one(2, "startTimeUnixNano", Fixed64),
    one(3, "timeUnixNano", Fixed64),
    one(4, "asDouble", Double),
    many(5, "exemplars", Message(&EXEMPLAR)),
    one(6, "asInt", Sfixed64),
    many(7, "attributes", Message(&KEY_VALUE)),
    one(8, "flags", Uint),
];
static HISTOGRAM_POINT: [Field; 11] = [
    one(2, "startTimeUnixNano", Fixed64),
    one(3, "timeUnixNano", Fixed64),
    one(4, "count", Fixed64),
    one(5, "sum", Double),
    many(6, "bucketCounts", Fixed64),
    many(7, "explicitBounds", Double),
    many(8, "exemplars", Message(&EXEMPLAR)),
    many(9, "attributes", Message(&KEY_VALUE)),
    one(10, "flags", Uint),
    one(11, "min", Double),
    one(12, "max", Double),
];
static EXPONENTIAL_POINT: [Field; 14] = [
    many(1, "attributes", Message(&KEY_VALUE)),
    one(2, "startTimeUnixNano", Fixed64),
    one(3, "timeUnixNano", Fixed64),
    one(4, "count", Fixed64),
    one(5, "sum", Double),
    one(6, "scale", Sint),
    one(7, "zeroCount", Fixed64),
    one(8, "positive", Message(&BUCKETS)),
    one(9, "negative", Message(&BUCKETS)),
    one(10, "flags", Uint),
    many(11, "exemplars", Message(&EXEMPLAR)),
    one(12, "min", Double),
    one(13, "max", Double),
    one(14, "zeroThreshold", Double),
];
static BUCKETS: [Field; 2] = [one(1, "offset", Sint), many(2, "bucketCounts", Uint)];
static SUMMARY_POINT: [Field; 7] = [
    one(2, "startTimeUnixNano", Fixed64),
    one(3, "timeUnixNano", Fixed64),
    one(4, "count", Fixed64),
    one(5, "sum", Double),
    many(6, "quantileValues", Message(&QUANTILE)),
    many(7, "attributes", Message(&KEY_VALUE)),
    one(8, "flags", Uint),
];
static QUANTILE: [Field; 2] = [one(1, "quantile", Double), one(2, "value", Double)];
static EXEMPLAR: [Field; 6] = [
    one(2, "timeUnixNano", Fixed64),
    one(3, "asDouble", Double),
    one(4, "spanId", Id),
    one(5, "traceId", Id),
    one(6, "asInt", Sfixed64),
    many(7, "filteredAttributes", Message(&KEY_VALUE)),
];
