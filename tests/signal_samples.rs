//! Recorded deliveries, and what is made of each: log records, data points, spans, as reviewed snapshots.
//!
//! `INSTA_UPDATE=always cargo test --test signal_samples` rewrites `tests/snapshots/`; the difference is to be read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use outlast::observe::{
    Around, Data, Embedded, Ending, Link, Metric, Number, Observer, Price, Rules, Seen, Space, Span,
    SpanStatus,
};
use outlast::record::log::INVOCATION_ID;
use outlast::record::{
    Context, Event, Fact, Field, JsonLines, LogRecord, Reading, Split, Value, json_line, split,
};
use serde_json::{Map, Value as Json, json};
use std::fmt::Write;

/// When the deliveries are said to arrive.
const RECEIVED: u64 = 1_900_000_000_000_000_000;

fn value(value: &Value<'_>) -> Json {
    match value {
        Value::Empty => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Double(value) => (*value).into(),
        Value::Str(text) => text.as_ref().into(),
        Value::Array(items) => items.iter().map(self::value).collect(),
        Value::Map(fields) => attributes(fields),
    }
}

fn attributes(fields: &[Field<'_>]) -> Json {
    Json::Object(fields.iter().map(|(name, field)| (name.to_string(), value(field))).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Nanoseconds as a date to the microsecond, which is finer than the platform tells.
fn date(nanos: u64) -> String {
    let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos)).unwrap();
    let text = moment.format(&time::format_description::well_known::Rfc3339).unwrap();
    if nanos == RECEIVED { "(received)".to_owned() } else { text }
}

fn link(link: Option<Link>) -> String {
    link.map(|link| format!(" {}/{}/{:02x}", hex(&link.trace_id), hex(&link.span_id), link.trace_flags))
        .unwrap_or_default()
}

fn log_line(record: &LogRecord<'_>) -> String {
    let mut own = record.attributes.clone();
    own.retain(|(name, _)| name != "log.record.uid");
    let ids = match (record.trace_id, record.span_id) {
        (None, None) => String::new(),
        (trace, span) => {
            let hex_or_dash = |id: Option<&[u8]>| id.map_or("-".to_owned(), hex);
            format!(
                " {}/{}/{:02x}",
                hex_or_dash(trace.as_ref().map(<[u8; 16]>::as_slice)),
                hex_or_dash(span.as_ref().map(<[u8; 8]>::as_slice)),
                record.trace_flags
            )
        }
    };
    format!(
        "{} {:>2} {} {}{ids}\n    {}\n    {}",
        date(record.time_unix_nanos),
        record.severity.number,
        if record.severity.text.is_empty() { "-" } else { &record.severity.text },
        record.event_name.as_deref().unwrap_or("-"),
        value(&record.body),
        attributes(&own),
    )
}

fn metric_line(metric: &Metric<'_>) -> String {
    let number = |number: &Number| match number {
        Number::Int(value) => value.to_string(),
        Number::Double(value) => value.to_string(),
    };
    let told = match &metric.data {
        Data::Gauge(value) => format!("= {}", number(value)),
        Data::Delta(value) => format!("+ {}", number(value)),
        Data::Histogram(spread) => {
            let filled: Map<String, Json> = spread
                .buckets
                .iter()
                .enumerate()
                .filter(|(_, count)| **count > 0)
                .map(|(at, count)| {
                    let bound =
                        spread.bounds.get(at).map_or("more".to_owned(), |bound| format!("<= {bound}"));
                    (bound, json!(count))
                })
                .collect();
            format!(
                "~ {} of sum {} ({} to {}) in {}",
                spread.count,
                spread.sum,
                spread.min,
                spread.max,
                Json::Object(filled)
            )
        }
    };
    let from = if metric.start_unix_nanos == 0 { "-".to_owned() } else { date(metric.start_unix_nanos) };
    format!(
        "{} [{}] {told}\n    {from} to {} {}",
        metric.name,
        metric.unit,
        date(metric.time_unix_nanos),
        attributes(&metric.attributes)
    )
}

fn span_line(span: &Span) -> String {
    let parent = span.parent.map_or("-".to_owned(), |parent| {
        format!("{}{}", hex(&parent.span_id), if parent.is_remote { " (remote)" } else { "" })
    });
    let status = match &span.status {
        SpanStatus::Unset => String::new(),
        SpanStatus::Error(text) => format!(" ERROR {text}"),
    };
    format!(
        "{:?} {}{status}\n    {} to {}\n    trace {} span {} parent {parent} flags {:02x}\n    {}{}",
        span.kind,
        span.name,
        date(span.start_unix_nanos),
        date(span.end_unix_nanos),
        hex(&span.trace_id),
        hex(&span.span_id),
        span.trace_flags,
        attributes(&span.attributes),
        if span.link.is_some() { format!("\n    link{}", link(span.link)) } else { String::new() },
    )
}

/// What is made of one delivery, followed by the end of the environment.
fn told(body: &[u8], concurrent: bool) -> String {
    let price = Price { gb_second: 0.000_016_666_7, request: 0.000_000_2 };
    let rules = Rules { price: Some(price), concurrent, ..Rules::default() };
    let mut observer = Observer::new(rules);
    let around = Around {
        received: RECEIVED,
        function_name: Some("function"),
        invoked_arn: Some("arn:of:invoke"),
        tmp: Some(Space { used: 1_000, free: 2_000 }),
    };
    let (mut logs, mut metrics, mut seen) = (String::new(), String::new(), Seen::default());
    let Split::Events(events) = split(body) else { panic!("not a delivery") };
    let mut running: Option<String> = None;
    for (raw, place) in events.into_iter().zip(1..) {
        let event = Event::parse(raw);
        match event.fact() {
            Some(Fact::Start { request_id: Some(id) }) if !concurrent => running = Some(id.into_owned()),
            Some(Fact::Report { request_id: Some(id), .. }) => {
                drop(running.take_if(|running| *running == *id));
            }
            Some(Fact::InitStart(_) | Fact::RestoreStart(_)) => running = None,
            _ => {}
        }
        observer.see(&event, &around, &mut seen);
        let context = Context { request_id: running.as_deref() };
        let line = json_line(&event);
        let mut reading = Reading::of(&event, line.as_deref());
        let embedded = Embedded::read(reading.members()).filter(|_| event.kind.is_logged());
        if let Some(embedded) = embedded {
            let logged = event.time_unix_nanos.unwrap_or(RECEIVED);
            embedded.write(logged, place, |metric| writeln!(metrics, "{}", metric_line(metric)).unwrap());
            reading.dated(embedded.time_unix_nanos);
            if !embedded.take_from(&mut reading) {
                continue;
            }
        }
        let reading = reading.with(JsonLines::default());
        let mut record = LogRecord::from_reading(&event, reading, &context, RECEIVED, "uid");
        let request = record.attributes.iter().find(|(name, _)| name == INVOCATION_ID);
        if let (Some((_, Value::Str(request))), Some(trace_id), Some(span_id)) =
            (request, record.trace_id, record.span_id)
            && record.event_name.is_none()
        {
            observer.logged(request, Link { trace_id, span_id, trace_flags: record.trace_flags });
        } else if let (Some((_, Value::Str(request))), None, None) =
            (request, record.trace_id, record.span_id)
            && record.event_name.is_none()
            && let Some(own) = observer.settled_trace_of(request)
        {
            (record.trace_id, record.span_id) = (Some(own.trace_id), Some(own.span_id));
            record.trace_flags = own.trace_flags;
        }
        writeln!(logs, "{}", log_line(&record)).unwrap();
    }
    observer.end(Ending::Other, &around, &mut seen);
    let spans: String = seen.spans.iter().fold(String::new(), |text, span| text + &span_line(span) + "\n");
    observer.write_points(&mut seen, |metric| writeln!(metrics, "{}", metric_line(metric)).unwrap());
    format!("=== logs\n{logs}\n=== metrics\n{metrics}\n=== spans\n{spans}")
}

macro_rules! sample {
    ($test:ident, $name:literal, $concurrent:literal) => {
        #[test]
        fn $test() {
            let body = include_bytes!(concat!("telemetry/", $name, ".json"));
            insta::assert_snapshot!($name, told(body, $concurrent));
        }
    };
}

sample!(a_cold_start, "01-cold-start-success-node18-2024", false);
sample!(a_traced_invocation, "03-fixtures-2022-traced-invoke", false);
sample!(restores_drops_and_errors, "04-shapes-restore-dropped-error", false);
sample!(an_init_that_timed_out, "06-init-timeout-and-warm-2024", false);
sample!(a_cold_and_a_warm_invocation, "07-cold-warm-new-fields-node22-2026", false);
sample!(managed_instances, "08-managed-instances", true);
sample!(the_older_logs_api, "10-logs-api-legacy-batch-2022", false);
sample!(records_that_are_lines, "11-legacy-string-records", false);
sample!(forms_of_function_records, "12-function-record-forms", false);
sample!(a_record_that_was_cut, "15-split-payload-joined", false);
