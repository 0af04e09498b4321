//! One event to one log record: nothing that it says is lost.
//!
//! Input that begins with `{` or a space is the text of an event. Any other is a recipe for a plausible one: envelope, type,
//! record and fields are chosen by it, out of those that mean something and out of arbitrary ones.

use std::fmt::Write;

use arbitrary::{Result, Unstructured};
use outlast::Signal;
use outlast::encode::{Otlp, WireFormat};
use outlast::observe::Embedded;
use outlast::record::{
    Context, Event, JsonLines, Kind, LogRecord, Reading, Resource, ResourceInputs, json_line,
};

use crate::{json, mapped, otlp};

/// When the event is said to arrive: 2027-01-15, in nanoseconds.
const OBSERVED_UNIX_NANOS: u64 = 1_800_000_000_000_000_000;
/// An invocation.
const REQUEST_ID: &str = "7b317588-2cdc-4bef-ac04-92e83cc8f418";

/// Event types: those of the schema reference, and others.
const TYPES: [&str; 18] = [
    "function",
    "function",
    "function",
    "extension",
    "platform.initStart",
    "platform.initRuntimeDone",
    "platform.initReport",
    "platform.start",
    "platform.runtimeDone",
    "platform.report",
    "platform.restoreStart",
    "platform.extension",
    "platform.telemetrySubscription",
    "platform.logsDropped",
    "platform.fault",
    "platform.end",
    "platform.novel",
    "",
];
/// Names that mean something in a record or an envelope.
const NAMES: [&str; 48] = [
    "message",
    "msg",
    "timestamp",
    "time",
    "level",
    "severity",
    "requestId",
    "AWSRequestId",
    "traceId",
    "trace_id",
    "spanId",
    "span_id",
    "traceFlags",
    "trace_flags",
    "status",
    "errorType",
    "metrics",
    "durationMs",
    "tracing",
    "value",
    "pid",
    "hostname",
    "instanceId",
    "instanceMaxMemory",
    "functionVersion",
    "record",
    "type",
    "a",
    "a.2",
    "log.record.uid",
    "@timestamp",
    "ts",
    "log.level",
    "Level",
    "function_request_id",
    "xray_trace_id",
    "traceparent",
    "fields",
    "event",
    "err",
    "error",
    "exception",
    "exception_name",
    "stack",
    "stack_trace",
    "stackTrace",
    "errorMessage",
    "_aws",
];
/// Values, as they stand, that mean something.
const VALUES: [&str; 42] = [
    "\"2026-10-08T07:30:27.768Z\"",
    "\"2016-12-31T23:59:60Z\"",
    "\"2026-10-08 07:30:27,768+0200\"",
    "\"12:01:23:521Z\"",
    "1791444627768",
    "1791444627.768",
    "1791444627768000000",
    "\"INFO\"",
    "\"warning\"",
    "30",
    "\"7b317588-2cdc-4bef-ac04-92e83cc8f418\"",
    "\"RequestId: 7b317588-2cdc-4bef-ac04-92e83cc8f418\"",
    "\"START RequestId: 7b317588-2cdc-4bef-ac04-92e83cc8f418 Version: $LATEST\\n\"",
    "\"2022-06-23T18:14:44.993Z\\tb5051b53-a6df-4bb7-aba7-874520d1ec77\\tINFO\\ttext\\n\"",
    "\"[ERROR]\\t2022-06-23T18:14:44.993Z\\tb5051b53-a6df-4bb7-aba7-874520d1ec77\\ttext\"",
    "\"I, [2022-06-23T18:14:44.993 #7]  INFO b5051b53-a6df-4bb7-aba7-874520d1ec77 -- : text\"",
    "\"time=2022-06-23T18:14:44.993Z level=WARN msg=x\"",
    "\"1-6352a70e-1e2c502e358361800241fd45\"",
    "\"6352a70e1e2c502e358361800241fd45\"",
    "\"24cd7d670fa455f0\"",
    "\"Root=1-6352a70e-1e2c502e358361800241fd45;Parent=35465b3a9e2f7c6a;Sampled=1\"",
    "\"01\"",
    "\"timeout\"",
    "268435456",
    "9223372036854775808",
    "-0",
    "0.1e-400",
    "1e400",
    "5e-324",
    "null",
    "true",
    "\"line\\r\\n\"",
    "\"\\ud83d\\ude00 \\u00e9\\\\ \\\"\"",
    "{}",
    "\"00-6352a70e1e2c502e358361800241fd45-35465b3a9e2f7c6a-01\"",
    "1791444627.7681234",
    "\"Error: x\\n    at y\"",
    "[\"at x\",\"at y\"]",
    "{\"name\":\"E\",\"message\":\"m\",\"stack\":\"s\",\"code\":7}",
    "{\"message\":\"m\",\"a\":1}",
    "{\"Timestamp\":1791444627700,\"CloudWatchMetrics\":[{\"Namespace\":\"n\",\"Dimensions\":[[\"a\"],[]],\"Metrics\":[{\"Name\":\"value\",\"Unit\":\"Count\"},{\"Name\":\"durationMs\"}]}]}",
    "[1,2.5,1]",
];

/// Checks one event.
pub fn check(data: &[u8]) {
    let event = match data.first() {
        Some(b'{' | b' ') | None => data.to_vec(),
        Some(_) => recipe(&mut Unstructured::new(data)).unwrap_or_default().into_bytes(),
    };
    one(&event, None);
    one(&event, Some(REQUEST_ID));
    let cut = otlp_of(&Event::cut(&event), None);
    mapped::sound(&cut);
    assert_eq!(otlp::text(cut.body.as_ref()), Some(&*String::from_utf8_lossy(&event)));
}

fn one(raw: &[u8], running: Option<&str>) {
    let event = Event::parse(raw);
    // What the lifecycle is told must not depend on the record being well-formed.
    let _ = event.fact();
    mapped::check(raw, &otlp_of(&event, running), running);
    opened(raw, &event, running);
    embedded(&event);
    if event.kind == Kind::Function && event.record.starts_with(b"{") {
        // The same record, as it comes in the log format `Text`.
        let line = serde_json::json!({"type": "function", "record": String::from_utf8_lossy(event.record)});
        let line = line.to_string();
        opened(line.as_bytes(), &Event::parse(line.as_bytes()), running);
    }
}

/// A line that is an object is read as one.
fn opened(raw: &[u8], event: &Event<'_>, running: Option<&str>) {
    let line = json_line(event);
    let reading = Reading::of(event, line.as_deref());
    let context = Context { request_id: running };
    let record = LogRecord::from_reading(event, reading.clone(), &context, OBSERVED_UNIX_NANOS, "uid");
    mapped::check(raw, &encoded(&record), running);
    let plain = LogRecord::from_event(event, &context, OBSERVED_UNIX_NANOS, "uid");
    for wanted in [JsonLines::Text, JsonLines::Off] {
        let reading = reading.clone().with(wanted);
        let record = LogRecord::from_reading(event, reading, &context, OBSERVED_UNIX_NANOS, "uid");
        assert_eq!(record.body, plain.body, "a line stays a line");
        if wanted == JsonLines::Off {
            assert_eq!(record.attributes, plain.attributes);
        }
    }
}

/// What is embedded in an object and what is left of it are all of it.
fn embedded(event: &Event<'_>) {
    let mut reading = Reading::of(event, None);
    let before = reading.clone();
    let Some(embedded) = Embedded::read(reading.members()) else { return };
    let mut told = Vec::new();
    let (count, time) = embedded.write(OBSERVED_UNIX_NANOS, 1, |metric| {
        assert!(metric.start_unix_nanos < metric.time_unix_nanos);
        told.push(metric.name.to_string());
        told.extend(metric.attributes.iter().map(|(name, _)| name.to_string()));
    });
    assert!(count > 0 && time > 0);
    let is_left = embedded.take_from(&mut reading);
    for (name, value) in before.members() {
        let rest = reading.members().iter().find(|(left, _)| left == name);
        let is_there = is_left && rest.is_some_and(|(_, left)| left == value || name == "_aws");
        assert!(is_there || name == "_aws" || told.iter().any(|told| told == name), "{name} is lost");
    }
    if let Some(json::Kind::Object(members)) = json::read(event.record).map(|json| json.kind) {
        assert_eq!(members.len(), before.members().len());
    }
}

fn otlp_of(event: &Event<'_>, running: Option<&str>) -> opentelemetry_proto::tonic::logs::v1::LogRecord {
    let context = Context { request_id: running };
    encoded(&LogRecord::from_event(event, &context, OBSERVED_UNIX_NANOS, "uid"))
}

fn encoded(record: &LogRecord<'_>) -> opentelemetry_proto::tonic::logs::v1::LogRecord {
    let resource = Resource::build(&ResourceInputs::default());
    let mut encoded = Vec::new();
    Otlp.log(&resource, record, &mut encoded);
    let mut block = Vec::new();
    Otlp.block_head(Signal::Logs, &resource, encoded.len(), &mut block);
    block.extend_from_slice(&encoded);
    assert_eq!(Otlp.parts(&block).expect("our own").records.len(), 1);
    let mut records = otlp::log_records(&block);
    assert_eq!(records.len(), 1);
    records.remove(0)
}

fn recipe(input: &mut Unstructured<'_>) -> Result<String> {
    let mut event = String::from("{");
    for place in 0..input.int_in_range(2..=5)? {
        if place > 0 {
            event.push(',');
        }
        match (place, input.int_in_range(0..=7)?) {
            (_, 0) => member(input, &mut event, 0)?,
            (0, _) => {
                let at = input.choose_index(VALUES.len())?;
                write!(event, r#""time":{}"#, VALUES[at]).expect("a string");
            }
            (1, _) => write!(event, r#""type":"{}""#, input.choose(&TYPES)?).expect("a string"),
            (2, _) => {
                event.push_str(r#""record":"#);
                value(input, &mut event, 0)?;
            }
            _ => member(input, &mut event, 0)?,
        }
    }
    event.push('}');
    Ok(event)
}

fn member(input: &mut Unstructured<'_>, out: &mut String, depth: usize) -> Result<()> {
    if input.ratio(1_u8, 4)? {
        out.push_str(&serde_json::to_string(input.arbitrary::<&str>()?).expect("text"));
    } else {
        write!(out, "\"{}\"", input.choose(&NAMES)?).expect("a string");
    }
    out.push(':');
    value(input, out, depth)
}

fn value(input: &mut Unstructured<'_>, out: &mut String, depth: usize) -> Result<()> {
    match input.int_in_range(0..=9)? {
        0..=3 => out.push_str(input.choose(&VALUES)?),
        4 => write!(out, "{}", input.arbitrary::<i64>()?).expect("a string"),
        5 => {
            let number = input.arbitrary::<f64>()?;
            out.push_str(&serde_json::to_string(&number).expect("a number or null"));
        }
        6 => out.push_str(&serde_json::to_string(input.arbitrary::<&str>()?).expect("text")),
        7 if depth < 40 => {
            out.push('[');
            for place in 0..input.int_in_range(0..=4)? {
                if place > 0 {
                    out.push(',');
                }
                value(input, out, depth + 1)?;
            }
            out.push(']');
        }
        _ if depth < 40 => {
            out.push('{');
            for place in 0..input.int_in_range(0..=6)? {
                if place > 0 {
                    out.push(',');
                }
                member(input, out, depth + 1)?;
            }
            out.push('}');
        }
        _ => out.push_str("null"),
    }
    Ok(())
}
