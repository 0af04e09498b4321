//! OTLP protobuf to [`Record`]s, by the project's own published messages (`opentelemetry-proto`).

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::LogRecord,
    metrics::v1::{Metric, metric, number_data_point},
    resource::v1::Resource,
    trace::v1::Span,
};
use prost::Message;
use serde_json::{Value, json};

use crate::record::{Attributes, Record, Signal};

/// Decodes the plain body of a request to a signal's path.
pub(crate) fn records(signal: Signal, request: u64, plain: &[u8]) -> Result<Vec<Record>, prost::DecodeError> {
    match signal {
        Signal::Logs => logs(request, plain),
        Signal::Metrics => metrics(request, plain),
        Signal::Traces => traces(request, plain),
    }
}

/// What every record of one resource and scope has in common.
struct Origin {
    signal: Signal,
    request: u64,
    resource: Arc<Attributes>,
    scope: Arc<str>,
}

impl Origin {
    fn new(signal: Signal, request: u64, resource: Option<Resource>) -> Self {
        let resource = resource.map(|resource| attributes(resource.attributes)).unwrap_or_default();
        Self { signal, request, resource: Arc::new(resource), scope: Arc::default() }
    }

    fn scoped(&self, scope: Option<InstrumentationScope>) -> Self {
        let scope = scope.map(|scope| scope.name.into()).unwrap_or_default();
        Self { signal: self.signal, request: self.request, resource: Arc::clone(&self.resource), scope }
    }

    fn record(&self, text: String, body: Value, attributes: Attributes) -> Record {
        let uid = attributes.get(Record::UID).and_then(Value::as_str).map(str::to_owned);
        Record {
            signal: self.signal,
            request: self.request,
            text,
            body,
            attributes,
            resource: Arc::clone(&self.resource),
            scope: Arc::clone(&self.scope),
            time_unix_nano: 0,
            other_time_unix_nano: 0,
            severity_number: 0,
            severity_text: String::new(),
            trace_id: String::new(),
            span_id: String::new(),
            event_name: String::new(),
            uid,
        }
    }
}

fn logs(request: u64, plain: &[u8]) -> Result<Vec<Record>, prost::DecodeError> {
    let mut records = Vec::new();
    for by_resource in ExportLogsServiceRequest::decode(plain)?.resource_logs {
        let origin = Origin::new(Signal::Logs, request, by_resource.resource);
        for by_scope in by_resource.scope_logs {
            let origin = origin.scoped(by_scope.scope);
            records.extend(by_scope.log_records.into_iter().map(|log| log_record(&origin, log)));
        }
    }
    Ok(records)
}

fn log_record(origin: &Origin, log: LogRecord) -> Record {
    let body = log.body.map_or(Value::Null, any_value);
    let text = match &body {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Record {
        time_unix_nano: log.time_unix_nano,
        other_time_unix_nano: log.observed_time_unix_nano,
        severity_number: log.severity_number,
        severity_text: log.severity_text,
        trace_id: hex(&log.trace_id),
        span_id: hex(&log.span_id),
        event_name: log.event_name,
        ..origin.record(text, body, attributes(log.attributes))
    }
}

fn metrics(request: u64, plain: &[u8]) -> Result<Vec<Record>, prost::DecodeError> {
    let mut records = Vec::new();
    for by_resource in ExportMetricsServiceRequest::decode(plain)?.resource_metrics {
        let origin = Origin::new(Signal::Metrics, request, by_resource.resource);
        for by_scope in by_resource.scope_metrics {
            let origin = origin.scoped(by_scope.scope);
            for metric in by_scope.metrics {
                data_points(&origin, metric, &mut records);
            }
        }
    }
    Ok(records)
}

/// One record per data point; a metric without any is not a record.
fn data_points(origin: &Origin, metric: Metric, records: &mut Vec<Record>) {
    let Metric { name, unit, data, .. } = metric;
    let mut add = |kind: &str, value: Value, labels: Vec<KeyValue>, time: u64, start: u64| {
        let body = json!({"kind": kind, "value": value, "unit": unit});
        let point = origin.record(name.clone(), body, attributes(labels));
        records.push(Record { time_unix_nano: time, other_time_unix_nano: start, ..point });
    };
    match data {
        Some(metric::Data::Gauge(gauge)) => {
            for point in gauge.data_points {
                let value = number(point.value.as_ref());
                add("gauge", value, point.attributes, point.time_unix_nano, point.start_time_unix_nano);
            }
        }
        Some(metric::Data::Sum(sum)) => {
            for point in sum.data_points {
                let value = number(point.value.as_ref());
                add("sum", value, point.attributes, point.time_unix_nano, point.start_time_unix_nano);
            }
        }
        Some(metric::Data::Histogram(histogram)) => {
            for point in histogram.data_points {
                let value = json!({
                    "count": point.count, "sum": point.sum, "min": point.min, "max": point.max,
                    "buckets": point.bucket_counts, "bounds": point.explicit_bounds,
                });
                add("histogram", value, point.attributes, point.time_unix_nano, point.start_time_unix_nano);
            }
        }
        Some(metric::Data::ExponentialHistogram(histogram)) => {
            for point in histogram.data_points {
                let value = json!({
                    "count": point.count, "sum": point.sum, "min": point.min, "max": point.max,
                    "scale": point.scale, "zero_count": point.zero_count,
                });
                let (time, start) = (point.time_unix_nano, point.start_time_unix_nano);
                add("exponential_histogram", value, point.attributes, time, start);
            }
        }
        Some(metric::Data::Summary(summary)) => {
            for point in summary.data_points {
                let quantiles: Vec<_> =
                    point.quantile_values.iter().map(|at| json!([at.quantile, at.value])).collect();
                let value = json!({"count": point.count, "sum": point.sum, "quantiles": quantiles});
                add("summary", value, point.attributes, point.time_unix_nano, point.start_time_unix_nano);
            }
        }
        None => {}
    }
}

fn number(value: Option<&number_data_point::Value>) -> Value {
    match value {
        Some(number_data_point::Value::AsInt(int)) => json!(int),
        Some(number_data_point::Value::AsDouble(double)) => float(*double),
        None => Value::Null,
    }
}

fn traces(request: u64, plain: &[u8]) -> Result<Vec<Record>, prost::DecodeError> {
    let mut records = Vec::new();
    for by_resource in ExportTraceServiceRequest::decode(plain)?.resource_spans {
        let origin = Origin::new(Signal::Traces, request, by_resource.resource);
        for by_scope in by_resource.scope_spans {
            let origin = origin.scoped(by_scope.scope);
            records.extend(by_scope.spans.into_iter().map(|span| span_record(&origin, span)));
        }
    }
    Ok(records)
}

fn span_record(origin: &Origin, span: Span) -> Record {
    let events: Vec<_> = span
        .events
        .into_iter()
        .map(|event| json!({"name": event.name, "attributes": attributes(event.attributes)}))
        .collect();
    let links: Vec<_> = span
        .links
        .into_iter()
        .map(|link| json!({"trace_id": hex(&link.trace_id), "span_id": hex(&link.span_id)}))
        .collect();
    let status = span.status.map(|status| json!({"code": status.code, "message": status.message}));
    let body = json!({
        "kind": span.kind, "parent_span_id": hex(&span.parent_span_id), "status": status,
        "events": events, "links": links,
    });
    Record {
        time_unix_nano: span.end_time_unix_nano,
        other_time_unix_nano: span.start_time_unix_nano,
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        ..origin.record(span.name, body, attributes(span.attributes))
    }
}

fn attributes(pairs: Vec<KeyValue>) -> Attributes {
    pairs.into_iter().map(|pair| (pair.key, pair.value.map_or(Value::Null, any_value))).collect()
}

fn any_value(value: AnyValue) -> Value {
    match value.value {
        Some(any_value::Value::StringValue(text)) => Value::String(text),
        Some(any_value::Value::BoolValue(bool)) => Value::Bool(bool),
        Some(any_value::Value::IntValue(int)) => json!(int),
        Some(any_value::Value::DoubleValue(double)) => float(double),
        Some(any_value::Value::ArrayValue(array)) => array.values.into_iter().map(any_value).collect(),
        Some(any_value::Value::KvlistValue(list)) => Value::Object(attributes(list.values)),
        Some(any_value::Value::BytesValue(bytes)) => Value::String(hex(&bytes)),
        // The index form belongs to the profiling signal; the specification has it read as empty here.
        Some(any_value::Value::StringValueStrindex(_)) | None => Value::Null,
    }
}

/// JSON has no NaN and no infinities; they become their names.
fn float(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).flatten().collect()
}
