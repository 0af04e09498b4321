//! The protocols this backend speaks beside OTLP in protobuf: what a request must look like, what its body holds, and how a
//! success is told. Written from the destinations' documents, as `decode` is from the published messages.
//!
//! Records of all of them become [`Record`]s of the same kind, so that a test compares what arrived without knowing how.

#![allow(clippy::indexing_slicing, reason = "what a JSON value does not have reads as null")]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::{
    decode,
    record::{Attributes, Record, Signal},
    script::Answer,
};

/// A protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// OTLP/HTTP, protobuf.
    #[default]
    Otlp,
    /// OTLP/HTTP, JSON.
    OtlpJson,
    /// Lines of JSON to `/`.
    Ndjson,
    /// An array of JSON objects to `/`.
    Json,
    /// The bulk API of Elasticsearch, to any index.
    Elasticsearch,
    /// The push API of Loki.
    Loki,
    /// The HTTP Event Collector of Splunk.
    SplunkHec,
    /// The same, of a token that acknowledges what is indexed.
    SplunkHecAck,
    /// The logs intake of Datadog, and its API for metrics.
    Datadog,
    /// The Log API and the Metric API of New Relic.
    NewRelic,
}

impl Dialect {
    /// All of them, each once.
    pub const ALL: [Self; 9] = [
        Self::Otlp,
        Self::OtlpJson,
        Self::Ndjson,
        Self::Json,
        Self::Elasticsearch,
        Self::Loki,
        Self::SplunkHec,
        Self::Datadog,
        Self::NewRelic,
    ];

    /// The name the extension's setting has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Otlp => "otlp",
            Self::OtlpJson => "otlp-json",
            Self::Ndjson => "ndjson",
            Self::Json => "json",
            Self::Elasticsearch => "elasticsearch",
            Self::Loki => "loki",
            Self::SplunkHec | Self::SplunkHecAck => "splunk-hec",
            Self::Datadog => "datadog",
            Self::NewRelic => "newrelic",
        }
    }

    /// The signal a request path names; a query string is ignored.
    pub(crate) fn signal_of(self, path: &str) -> Option<Signal> {
        let path = path.split('?').next().unwrap_or_default();
        let is_logs = match self {
            Self::Otlp | Self::OtlpJson => return Signal::of_path(path),
            Self::Ndjson | Self::Json => true,
            Self::Elasticsearch => path.ends_with("/_bulk"),
            Self::Loki => path == "/loki/api/v1/push",
            Self::SplunkHec | Self::SplunkHecAck => path == "/services/collector/event",
            Self::Datadog if path == "/api/v2/series" => return Some(Signal::Metrics),
            Self::NewRelic if path == "/metric/v1" => return Some(Signal::Metrics),
            Self::Datadog => path == "/api/v2/logs",
            Self::NewRelic => path == "/log/v1",
        };
        is_logs.then_some(Signal::Logs)
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Otlp => "application/x-protobuf",
            Self::Ndjson | Self::Elasticsearch => "application/x-ndjson",
            _ => "application/json",
        }
    }

    /// Another name for the same content type, which the vendor's own clients use.
    pub(crate) fn vendor_type(self) -> Option<&'static str> {
        (self == Self::Elasticsearch).then_some("application/vnd.elasticsearch+x-ndjson")
    }

    /// Whether a request may have this method. The bulk API takes two, of which Elastic's clients use PUT.
    pub(crate) fn takes_method(self, method: &str) -> bool {
        method == "POST" || self == Self::Elasticsearch && method == "PUT"
    }

    /// The header with which the destination tells its users apart, and how its value begins.
    pub fn credentials(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Otlp | Self::OtlpJson | Self::Ndjson | Self::Json => None,
            Self::Elasticsearch => Some(("authorization", "ApiKey ")),
            Self::Loki => Some(("authorization", "Basic ")),
            Self::SplunkHec | Self::SplunkHecAck => Some(("authorization", "Splunk ")),
            Self::Datadog => Some(("dd-api-key", "")),
            Self::NewRelic => Some(("api-key", "")),
        }
    }

    /// The headers that the extension is to send, as its setting has them.
    pub fn headers(self) -> Option<String> {
        let (name, scheme) = self.credentials()?;
        let channel =
            if self == Self::SplunkHecAck { ",x-splunk-request-channel=b9cb0b7c-1d3a-4a1e" } else { "" };
        Some(format!("{name}={scheme}key{channel}"))
    }

    /// Whether a request to `path` asks what is indexed.
    pub(crate) fn is_about_acks(self, path: &str) -> bool {
        self == Self::SplunkHecAck && path.starts_with("/services/collector/ack?channel=")
    }

    /// The answer that says that events have come, and how to ask whether they are indexed.
    pub(crate) fn acknowledged(id: u64) -> Answer {
        let body = json!({"text": "Success", "code": 0, "ackId": id});
        Answer::new(200).body("application/json", body.to_string())
    }

    /// By what a repeat is told: Loki looks at time and line.
    pub(crate) fn identity(self, record: &Record) -> String {
        match self {
            Self::Loki => format!("{} {}", record.time_unix_nano, record.text),
            _ => record.uid.clone().unwrap_or_default(),
        }
    }

    /// The answer that says what was taken.
    pub(crate) fn success(self, records: &[Record], fates: &[u16]) -> Answer {
        let answer = |status: u16, body: Value| {
            Answer::new(status)
                .body("application/json", if body.is_null() { String::new() } else { body.to_string() })
        };
        match self {
            Self::Otlp => Answer::new(200).body(self.content_type(), ""),
            Self::OtlpJson => answer(200, json!({})),
            Self::Ndjson | Self::Json => answer(200, Value::Null),
            Self::Loki => {
                let ignored = fates.iter().filter(|status| !matches!(status, 201 | 409)).count();
                let told = format!(
                    "entry with timestamp 2026-10-08 07:30:27 +0000 UTC ignored, reason: 'entry too far behind',\nuser 'fake', total ignored: {ignored} out of {} for stream: {{}}",
                    fates.len()
                );
                if ignored > 0 { Answer::new(400).body("text/plain", told) } else { answer(204, Value::Null) }
            }
            Self::SplunkHec | Self::SplunkHecAck => answer(200, json!({"text": "Success", "code": 0})),
            Self::Datadog => answer(202, json!({})),
            Self::NewRelic => answer(202, json!({"requestId": "f0e7bfff-001a-b000-0000-01682bcf4565"})),
            Self::Elasticsearch => {
                let items = records.iter().zip(fates).map(|(record, status)| item(record, *status));
                let failed = fates.iter().any(|status| *status >= 300);
                let told = json!({"errors": failed, "took": 1, "items": items.collect::<Value>()});
                // Without it Elastic's clients do not believe that it is Elasticsearch.
                answer(200, told).header("x-elastic-product", "Elasticsearch")
            }
        }
    }

    /// Decodes the plain body of a request.
    pub(crate) fn records(self, signal: Signal, request: u64, plain: &[u8]) -> Result<Vec<Record>, String> {
        let told = |error: serde_json::Error| format!("not a request of {}: {error}", self.name());
        if self == Self::Otlp {
            return decode::records(signal, request, plain)
                .map_err(|error| format!("not an OTLP {signal} request: {error}"));
        }
        let stream = || -> Result<Vec<Value>, String> {
            let Some(lines) = plain.strip_suffix(b"\n") else {
                return Err("the last line has no end".to_owned());
            };
            lines
                .split(|byte| *byte == b'\n')
                .map(|line| serde_json::from_slice(line).map_err(told))
                .collect()
        };
        let whole = || serde_json::from_slice::<Value>(plain).map_err(told);
        let list = |value: &Value| value.as_array().cloned().ok_or_else(|| format!("no list: {value}"));
        let mut records = Vec::new();
        match self {
            Self::Otlp => {}
            Self::OtlpJson => {
                let (resources, scopes, items) = match signal {
                    Signal::Logs => ("resourceLogs", "scopeLogs", "logRecords"),
                    Signal::Metrics => ("resourceMetrics", "scopeMetrics", "metrics"),
                    Signal::Traces => ("resourceSpans", "scopeSpans", "spans"),
                };
                for part in list(&whole()?[resources])? {
                    let resource = key_values(&part["resource"]["attributes"]);
                    for scope in list(&part[scopes])? {
                        for item in list(&scope[items])? {
                            records.push(otlp(signal, request, &item, resource.clone()));
                        }
                    }
                }
            }
            Self::Ndjson => records.extend(stream()?.iter().map(|object| plain_object(request, object))),
            Self::Json => {
                records.extend(list(&whole()?)?.iter().map(|object| plain_object(request, object)));
            }
            Self::Elasticsearch => {
                for pair in stream()?.chunks(2) {
                    let [action, document] = pair else {
                        return Err("an action without a document".to_owned());
                    };
                    let Some(id) = action["create"]["_id"].as_str() else { return Err(format!("{action}")) };
                    records.push(document_of(request, id, document));
                }
            }
            Self::Loki => {
                for stream in list(&whole()?["streams"])? {
                    let labels = object(&stream["stream"]);
                    if labels.is_empty() {
                        return Err("a stream without a label".to_owned());
                    }
                    for entry in list(&stream["values"])? {
                        records.push(entry_of(request, &labels, &entry)?);
                    }
                }
            }
            Self::SplunkHec | Self::SplunkHecAck => {
                for event in stream()? {
                    records.push(event_of(request, &event)?);
                }
            }
            Self::Datadog if signal == Signal::Metrics => {
                if plain.len() > 5_242_880 {
                    return Err(format!("{} bytes", plain.len()));
                }
                for series in list(&whole()?["series"])? {
                    records.push(series_of(request, &series)?);
                }
            }
            Self::NewRelic if signal == Signal::Metrics => {
                for part in list(&whole()?)? {
                    let common = object(&part["common"]["attributes"]);
                    for metric in list(&part["metrics"])? {
                        records.push(metric_of(request, &metric, common.clone())?);
                    }
                }
            }
            Self::Datadog => {
                let logs = list(&whole()?)?;
                if logs.len() > 1000 {
                    return Err(format!("{} entries", logs.len()));
                }
                records.extend(logs.iter().map(|log| log_of(request, log)));
            }
            Self::NewRelic => {
                for part in list(&whole()?)? {
                    let common = object(&part["common"]["attributes"]);
                    for log in list(&part["logs"])? {
                        let attributes = object(&log["attributes"]);
                        let millis = log["timestamp"].as_u64().unwrap_or_default();
                        let text = log["message"].as_str().unwrap_or_default().to_owned();
                        records.push(record(request, text, &attributes, common.clone(), millis * 1_000_000));
                    }
                }
            }
        }
        if records.is_empty() { Err("no records".to_owned()) } else { Ok(records) }
    }
}

fn item(record: &Record, status: u16) -> Value {
    let kind = match status {
        409 => "version_conflict_engine_exception",
        429 => "es_rejected_execution_exception",
        _ => "document_parsing_exception",
    };
    let error = json!({"type": kind, "reason": "a record is not acceptable"});
    let mut result = json!({"_index": "i", "_id": record.uid, "status": status});
    if status >= 300 {
        result["error"] = error;
    }
    json!({"create": result})
}

/// What becomes of each record where repeats are dropped: 201, or 409 for what is there already.
pub(crate) fn created(
    dialect: Dialect,
    ids: &HashSet<String>,
    records: &[Record],
    refusal: impl Fn(&Record) -> Option<u16>,
) -> Vec<u16> {
    let mut now = HashSet::new();
    records
        .iter()
        .map(|record| {
            let id = dialect.identity(record);
            let known = ids.contains(&id) || !now.insert(id);
            refusal(record).unwrap_or(if known { 409 } else { 201 })
        })
        .collect()
}

fn object(value: &Value) -> Attributes {
    value.as_object().cloned().unwrap_or_default()
}

/// A record with its body as far as `text` tells it: what the platform says is JSON.
fn record(request: u64, text: String, attributes: &Attributes, resource: Attributes, nanos: u64) -> Record {
    let find = |name: &str| {
        let bent = name.replace('.', "_");
        attributes.get(name).or_else(|| attributes.get(&bent)).and_then(Value::as_str).map(str::to_owned)
    };
    let kind = find("aws.lambda.telemetry.type").unwrap_or_default();
    let body = match serde_json::from_str(&text) {
        Ok(body) if kind.starts_with("platform.") => body,
        _ => Value::String(text.clone()),
    };
    let event_name = find("event.name").or_else(|| find("event_name")).unwrap_or_default();
    let severity_text =
        find("level").or_else(|| find("severity_text")).or_else(|| find("severity")).unwrap_or_default();
    let uid = find(Record::UID);
    // Names with dots again, and counts as numbers.
    let restored = |(name, value): (&String, &Value)| {
        let dotted =
            DOTTED.iter().find(|known| known.replace('.', "_") == *name).map_or(&**name, |known| known);
        let number = value
            .as_str()
            .filter(|_| dotted == "outlast.dropped.records")
            .and_then(|text| text.parse::<u64>().ok());
        (dotted.to_owned(), number.map_or_else(|| value.clone(), Value::from))
    };
    let attributes = attributes.iter().map(restored).collect();
    Record {
        signal: Signal::Logs,
        request,
        text,
        body,
        attributes,
        resource: Arc::new(resource),
        scope: Arc::default(),
        time_unix_nano: nanos,
        other_time_unix_nano: 0,
        severity_number: 0,
        severity_text,
        trace_id: String::new(),
        span_id: String::new(),
        event_name,
        uid,
    }
}

/// Names that a test asks for, where a destination has underscores for dots.
const DOTTED: [&str; 6] = [
    "aws.lambda.telemetry.type",
    "faas.invocation_id",
    "log.record.uid",
    "outlast.dropped.reason",
    "outlast.dropped.records",
    "outlast.dropped.signal",
];

/// Objects of `ndjson` and `json`.
fn plain_object(request: u64, value: &Value) -> Record {
    let mut attributes = object(&value["attributes"]);
    for name in ["level", "event_name"] {
        attributes.extend(value.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    let body = value.get("message").or(value.get("body")).cloned().unwrap_or_default();
    let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
    Record { body, ..record(request, text, &attributes, object(&value["resource"]), 0) }
}

fn document_of(request: u64, id: &str, document: &Value) -> Record {
    let mut attributes = object(&document["attributes"]);
    attributes.insert(Record::UID.to_owned(), Value::from(id));
    for (from, to) in
        [("log.level", "level"), ("event.action", "event_name"), ("faas.execution", "faas.invocation_id")]
    {
        attributes.extend(document.get(from).map(|value| (to.to_owned(), value.clone())));
    }
    let text = document["message"].as_str().unwrap_or_default().to_owned();
    record(request, text, &attributes, object(document), 0)
}

fn entry_of(request: u64, labels: &Map<String, Value>, entry: &Value) -> Result<Record, String> {
    let (Some(nanos), Some(line)) = (entry[0].as_str(), entry[1].as_str()) else {
        return Err(format!("{entry}"));
    };
    let nanos = nanos.parse().map_err(|error| format!("{error}: {entry}"))?;
    let metadata = object(&entry[2]);
    if !metadata.values().all(Value::is_string) {
        return Err(format!("metadata that is not text: {entry}"));
    }
    Ok(record(request, line.to_owned(), &metadata, labels.clone(), nanos))
}

fn event_of(request: u64, event: &Value) -> Result<Record, String> {
    let body = match &event["event"] {
        Value::Null => return Err(r#"{"text":"Event field is required","code":12}"#.to_owned()),
        Value::String(text) if text.trim().is_empty() => {
            return Err(r#"{"text":"Event field cannot be blank","code":13}"#.to_owned());
        }
        body => body.clone(),
    };
    let fields = object(&event["fields"]);
    if fields.values().any(|value| value.is_object() || value.is_array()) {
        return Err(r#"{"text":"Error in handling indexed fields","code":15}"#.to_owned());
    }
    let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
    Ok(Record { body, ..record(request, text, &fields, object(event), 0) })
}

fn log_of(request: u64, log: &Value) -> Record {
    let millis = log["timestamp"].as_u64().unwrap_or_default();
    let text = log["message"].as_str().unwrap_or_default().to_owned();
    let mut attributes = object(log);
    attributes
        .insert("level".to_owned(), Value::from(log["status"].as_str().unwrap_or_default().to_uppercase()));
    record(request, text, &attributes, object(log), millis * 1_000_000)
}

/// A data point of Datadog's: its tags are attributes.
fn series_of(request: u64, series: &Value) -> Result<Record, String> {
    let tags = list_of_tags(&series["tags"]);
    let point = &series["points"][0];
    let (Some(name), Some(seconds)) = (series["metric"].as_str(), point["timestamp"].as_u64()) else {
        return Err(format!("{series}"));
    };
    let kind = match series["type"].as_u64() {
        Some(1) if series["interval"].is_u64() => "sum",
        Some(3) => "gauge",
        _ => return Err(format!("no type: {series}")),
    };
    if !point["value"].is_number() {
        return Err(format!("no value: {series}"));
    }
    let body = json!({"kind": kind, "value": point["value"], "unit": series["unit"]});
    let record = record(request, name.to_owned(), &tags, tags.clone(), seconds * 1_000_000_000);
    Ok(Record { signal: Signal::Metrics, body, ..record })
}

fn list_of_tags(tags: &Value) -> Attributes {
    let tags = tags.as_array().into_iter().flatten().filter_map(Value::as_str);
    tags.filter_map(|tag| tag.split_once(':'))
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect()
}

fn metric_of(request: u64, metric: &Value, common: Attributes) -> Result<Record, String> {
    let (Some(name), Some(millis)) = (metric["name"].as_str(), metric["timestamp"].as_u64()) else {
        return Err(format!("{metric}"));
    };
    let interval = metric["interval.ms"].as_u64();
    let kind = match metric["type"].as_str() {
        Some("count") if metric["value"].is_number() => "sum",
        Some("summary") if metric["value"]["count"].is_u64() => "histogram",
        Some("gauge") if metric["value"].is_number() => "gauge",
        _ => return Err(format!("no type, or no value of it: {metric}")),
    };
    if kind != "gauge" && interval.is_none_or(|interval| interval == 0) {
        return Err(format!("no interval: {metric}"));
    }
    let attributes = object(&metric["attributes"]);
    if attributes.len() + common.len() > 150 {
        return Err("more than 150 attributes".to_owned());
    }
    let body = json!({"kind": kind, "value": metric["value"], "unit": attributes.get("unit")});
    let end = (millis + interval.unwrap_or_default()) * 1_000_000;
    let record = record(request, name.to_owned(), &attributes, common, end);
    Ok(Record { signal: Signal::Metrics, body, other_time_unix_nano: millis * 1_000_000, ..record })
}

fn otlp(signal: Signal, request: u64, item: &Value, resource: Attributes) -> Record {
    let attributes = key_values(&item["attributes"]);
    let body = any_value(&item["body"]);
    let text = match (&body, item["name"].as_str()) {
        (_, Some(name)) => name.to_owned(),
        (Value::String(text), None) => text.clone(),
        (other, None) => other.to_string(),
    };
    let word = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
    Record {
        signal,
        body,
        severity_text: word("severityText"),
        event_name: word("eventName"),
        trace_id: word("traceId"),
        span_id: word("spanId"),
        time_unix_nano: word("timeUnixNano").parse().unwrap_or_default(),
        ..record(request, text, &attributes, resource, 0)
    }
}

fn key_values(list: &Value) -> Attributes {
    let pairs = list.as_array().map(Vec::as_slice).unwrap_or_default();
    pairs
        .iter()
        .map(|pair| (pair["key"].as_str().unwrap_or_default().to_owned(), any_value(&pair["value"])))
        .collect()
}

fn any_value(value: &Value) -> Value {
    let members: BTreeMap<&str, &Value> =
        value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value)).collect();
    match members.first_key_value() {
        Some((&"intValue", value)) => {
            value.as_str().and_then(|text| text.parse::<i64>().ok()).map_or(Value::Null, Value::from)
        }
        Some((&"arrayValue", list)) => {
            list["values"].as_array().into_iter().flatten().map(any_value).collect()
        }
        Some((&"kvlistValue", list)) => Value::Object(key_values(&list["values"])),
        Some((_, value)) => (*value).clone(),
        None => Value::Null,
    }
}
