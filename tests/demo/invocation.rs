//! One invocation as the backend has it: its log records, the data points it went into, its trace.
//!
//! The backend decodes with the protocol's own schema (`opentelemetry-proto`), of which the extension uses nothing. The records
//! may as well be what a collector printed.

use std::collections::BTreeSet;

use outlast_backend::{Record, Signal};
use serde::Serialize;
use serde_json::Value;

/// The attribute that names the invocation in log records and spans.
const INVOCATION_ID: &str = "faas.invocation_id";
/// What log records say of where they come from.
const TELEMETRY_TYPE: &str = "aws.lambda.telemetry.type";
/// Metrics about the extension, which belong to no invocation.
const OWN: &str = "outlast.";
/// So many records of each signal are shown.
const SHOWN_MAX: usize = 40;
const NANOS_PER_US: u64 = 1_000;

/// What the page shows. Times are microseconds after the start of the invocation; what came before it is negative.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Shown {
    pub(crate) request_id: String,
    pub(crate) trace_id: String,
    pub(crate) phase: String,
    pub(crate) logs: Vec<Log>,
    pub(crate) points: Vec<Point>,
    pub(crate) spans: Vec<Span>,
    /// Records of it that are not shown.
    pub(crate) more: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Log {
    pub(crate) at_us: i64,
    pub(crate) kind: String,
    pub(crate) text: String,
    /// It carries the trace and the span of the invocation.
    pub(crate) linked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Point {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) unit: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) from_us: i64,
    pub(crate) took_us: u64,
    /// The invocation itself; all others are parts of it.
    pub(crate) root: bool,
    pub(crate) failed: bool,
}

impl Shown {
    /// Whether `other` tells the same: of one moment, log records may come in any order, for they may come in several
    /// requests.
    pub(crate) fn is_the_same_as(&self, other: &Self) -> bool {
        let sorted = |shown: &Self| {
            let mut shown = shown.clone();
            shown.logs.sort();
            shown
        };
        sorted(self) == sorted(other)
    }
}

/// The records of one invocation.
pub(crate) struct Invocation<'r> {
    root: &'r Record,
    /// The span of the invocation after it, which bounds what data points it may be in.
    next: Option<&'r Record>,
    logs: Vec<&'r Record>,
    spans: Vec<&'r Record>,
    /// The last of each metric.
    points: Vec<&'r Record>,
}

/// All that `records` have of `request_id`; `None` if its span is not among them.
pub(crate) fn find<'r>(records: &'r [Record], request_id: &str) -> Option<Invocation<'r>> {
    let root = roots(records).find(|span| is_of(span, request_id))?;
    let start = |span: &&Record| span.other_time_unix_nano;
    let next = roots(records).filter(|span| start(span) > start(&root)).min_by_key(start);
    let of = |signal: Signal| records.iter().filter(move |record| record.signal == signal);
    let logs = of(Signal::Logs).filter(|record| is_of(record, request_id)).collect();
    let spans = of(Signal::Traces)
        .filter(|record| record.trace_id == root.trace_id)
        .filter(|span| span.span_id == root.span_id || text(span.body.get("parent_span_id")) == root.span_id)
        .collect();
    Some(Invocation { root, next, logs, spans, points: points(records, root, next) })
}

impl<'r> Invocation<'r> {
    /// The numbers of the requests that brought it.
    pub(crate) fn requests(&self) -> BTreeSet<u64> {
        self.shown_records().chain(self.next).map(|record| record.request).collect()
    }

    /// Its records.
    pub(crate) fn shown_records(&self) -> impl Iterator<Item = &'r Record> {
        self.logs.iter().chain(&self.points).chain(&self.spans).copied()
    }

    /// As the page has it, with what it is called and where in the story it was.
    pub(crate) fn shown(&self, request_id: &str, phase: &str) -> Shown {
        let Self { root, .. } = *self;
        let start = root.other_time_unix_nano;
        let at_us = |nanos: u64| {
            let us = |nanos: u64| i64::try_from(nanos / NANOS_PER_US).unwrap_or(i64::MAX);
            us(nanos.saturating_sub(start)) - us(start.saturating_sub(nanos))
        };
        let mut more = 0;
        let mut logs: Vec<Log> = self
            .logs
            .iter()
            .map(|record| Log {
                at_us: at_us(record.time_unix_nano),
                kind: text(record.attributes.get(TELEMETRY_TYPE)),
                text: record.text.trim_end().to_owned(),
                linked: record.trace_id == root.trace_id && record.span_id == root.span_id,
            })
            .collect();
        more += cut(&mut logs);
        let mut spans: Vec<Span> = self
            .spans
            .iter()
            .map(|span| Span {
                name: span.text.clone(),
                from_us: at_us(span.other_time_unix_nano),
                took_us: span.time_unix_nano.saturating_sub(span.other_time_unix_nano) / NANOS_PER_US,
                root: span.span_id == root.span_id,
                failed: span.body.pointer("/status/code").is_some_and(|code| *code == 2),
            })
            .collect();
        // A request whose fate was unknown brings them again.
        spans.sort_by(|a, b| (!a.root, a.from_us, &a.name).cmp(&(!b.root, b.from_us, &b.name)));
        spans.dedup();
        more += cut(&mut spans);
        let points = self.points.iter().map(|record| Point {
            name: record.text.clone(),
            value: value(&record.body),
            unit: text(record.body.get("unit")),
        });
        let mut points: Vec<Point> = points.collect();
        points.sort_by(|a, b| a.name.cmp(&b.name));
        more += cut(&mut points);
        let (request_id, trace_id) = (request_id.to_owned(), root.trace_id.clone());
        Shown { request_id, trace_id, phase: phase.to_owned(), logs, points, spans, more }
    }
}

fn cut<T>(items: &mut Vec<T>) -> usize {
    let more = items.len().saturating_sub(SHOWN_MAX);
    items.truncate(SHOWN_MAX);
    more
}

fn roots(records: &[Record]) -> impl Iterator<Item = &Record> {
    records
        .iter()
        .filter(|record| record.signal == Signal::Traces && record.attributes.contains_key(INVOCATION_ID))
}

fn is_of(record: &Record, request_id: &str) -> bool {
    record.attributes.get(INVOCATION_ID).and_then(Value::as_str) == Some(request_id)
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The last point of each metric among those that the invocation may be in: its interval reaches into the time from the
/// start of the invocation to the start of the next, when its report has come.
fn points<'r>(records: &'r [Record], root: &Record, next: Option<&Record>) -> Vec<&'r Record> {
    let start = root.other_time_unix_nano;
    let next = next.map_or(u64::MAX, |next| next.other_time_unix_nano);
    let in_time = |point: &&Record| {
        let (from, to) = (point.other_time_unix_nano, point.time_unix_nano);
        to >= start && if from == 0 { to <= next } else { from < next }
    };
    let of_function =
        records.iter().filter(|record| record.signal == Signal::Metrics && !record.text.starts_with(OWN));
    let mut points: Vec<&Record> = Vec::new();
    for record in of_function.filter(in_time) {
        match points.iter_mut().find(|known| known.text == record.text) {
            Some(known) if known.time_unix_nano <= record.time_unix_nano => *known = record,
            Some(_) => {}
            None => points.push(record),
        }
    }
    points
}

/// The number, or for a histogram what its values add up to and how many they are.
fn value(body: &Value) -> String {
    let Some(value) = body.get("value") else { return String::new() };
    match (value.get("sum"), value.get("count")) {
        (Some(sum), Some(count)) if *count == 1 => number(sum),
        (Some(sum), Some(count)) => format!("{} ({count} values)", number(sum)),
        _ => number(value),
    }
}

/// A number that is whole has no fraction, whatever it came as.
fn number(value: &Value) -> String {
    match (value.as_i64(), value.as_f64()) {
        (None, Some(number)) => number.to_string(),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn record(signal: Signal, text: &str, times: (u64, u64), attributes: &Value, body: Value) -> Record {
        let attributes = attributes.as_object().unwrap().clone().into_iter().collect();
        Record {
            signal,
            request: 1,
            text: text.to_owned(),
            body,
            attributes,
            resource: Arc::default(),
            scope: "".into(),
            time_unix_nano: times.1,
            other_time_unix_nano: times.0,
            severity_number: 0,
            severity_text: String::new(),
            trace_id: String::new(),
            span_id: String::new(),
            event_name: String::new(),
            uid: None,
        }
    }

    const SECOND: u64 = 1_000_000_000;

    fn span(name: &str, ids: (&str, &str, &str), times: (u64, u64), request: Option<&str>) -> Record {
        let attributes = request.map_or(json!({}), |request| json!({"faas.invocation_id": request}));
        let body = json!({"parent_span_id": ids.2, "status": {"code": 0}});
        let span = record(Signal::Traces, name, times, &attributes, body);
        Record { trace_id: ids.0.to_owned(), span_id: ids.1.to_owned(), ..span }
    }

    fn point(name: &str, times: (u64, u64), value: &Value) -> Record {
        record(Signal::Metrics, name, times, &json!({}), json!({"kind": "sum", "unit": "s", "value": value}))
    }

    fn line(text: &str, at: u64, request: &str, ids: (&str, &str)) -> Record {
        let attributes = json!({"faas.invocation_id": request, "aws.lambda.telemetry.type": "function"});
        let line = record(Signal::Logs, text, (at, at), &attributes, json!(text));
        Record { trace_id: ids.0.to_owned(), span_id: ids.1.to_owned(), ..line }
    }

    fn of(records: &[Record], request_id: &str, phase: &str) -> Option<Shown> {
        find(records, request_id).map(|found| found.shown(request_id, phase))
    }

    fn records() -> Vec<Record> {
        let s = |tenths: u64| tenths * SECOND / 10;
        vec![
            span("f", ("t1", "s1", ""), (s(10), s(20)), Some("one")),
            span("f", ("t2", "s2", ""), (s(30), s(40)), Some("two")),
            span("init", ("t2", "s3", "s2"), (s(25), s(29)), None),
            span("responseLatency", ("t2", "s4", "s2"), (s(39), s(40)), None),
            span("responseLatency", ("t1", "s5", "s1"), (s(19), s(20)), None),
            span("f", ("t3", "s6", ""), (s(50), s(60)), Some("three")),
            line("of one", s(11), "one", ("t1", "s1")),
            line("of two\n", s(31), "two", ("t2", "s2")),
            line("unlinked", s(32), "two", ("", "")),
            point("faas.invocations", (s(5), s(20)), &json!(1)),
            point("faas.invocations", (s(20), s(41)), &json!(2)),
            point("faas.mem_usage", (s(41), s(51)), &json!({"sum": 64.0, "count": 1})),
            point("faas.errors", (s(51), s(61)), &json!(1)),
            point("outlast.received", (s(5), s(41)), &json!(9)),
            point("gauge", (0, s(41)), &json!(7)),
            point("gauge", (0, s(51)), &json!(8)),
        ]
    }

    #[test]
    fn an_invocation_gets_its_own_and_nothing_of_its_neighbours() {
        let shown = of(&records(), "two", "503").unwrap();
        assert_eq!((shown.trace_id.as_str(), shown.phase.as_str(), shown.more), ("t2", "503", 0));
        let logs: Vec<_> = shown.logs.iter().map(|log| (log.at_us, log.text.as_str(), log.linked)).collect();
        assert_eq!(logs, [(100_000, "of two", true), (200_000, "unlinked", false)]);
        let spans: Vec<_> = shown
            .spans
            .iter()
            .map(|span| (span.name.as_str(), span.from_us, span.took_us, span.root))
            .collect();
        let expected = [
            ("f", 0, 1_000_000, true),
            ("init", -500_000, 400_000, false),
            ("responseLatency", 900_000, 100_000, false),
        ];
        assert_eq!(spans, expected);
        let points: Vec<_> =
            shown.points.iter().map(|point| (point.name.as_str(), point.value.as_str())).collect();
        assert_eq!(points, [("faas.invocations", "2"), ("faas.mem_usage", "64"), ("gauge", "7")]);
    }

    #[test]
    fn an_invocation_whose_span_did_not_come_is_not_shown() {
        assert!(of(&records(), "four", "503").is_none());
    }

    #[test]
    fn what_came_twice_is_shown_once_and_no_page_grows_without_bound() {
        let mut records = records();
        records.push(records[0].clone());
        records.extend((0..50).map(|n| line("again", SECOND + n, "one", ("t1", "s1"))));
        let shown = of(&records, "one", "healthy").unwrap();
        assert_eq!((shown.spans.len(), shown.logs.len(), shown.more), (2, SHOWN_MAX, 11));
    }

    #[test]
    fn the_requests_of_an_invocation_are_those_of_its_records_and_of_the_next_span() {
        let mut records = records();
        for (record, request) in records.iter_mut().zip(100..) {
            record.request = request;
        }
        let requests: Vec<u64> = find(&records, "two").unwrap().requests().into_iter().collect();
        assert_eq!(requests, [101, 102, 103, 105, 107, 108, 110, 111, 114]);
    }

    #[test]
    fn the_order_of_log_records_is_all_that_two_receivers_may_differ_in() {
        let shown = of(&records(), "two", "503").unwrap();
        let mut other = shown.clone();
        other.logs.reverse();
        assert!(shown.is_the_same_as(&other));
        other.logs[0].text.push('!');
        assert!(!shown.is_the_same_as(&other));
    }

    #[test]
    fn a_histogram_of_several_says_so() {
        assert_eq!(value(&json!({"value": {"sum": 1.5, "count": 3}})), "1.5 (3 values)");
        assert_eq!(value(&json!({"value": 4})), "4");
    }
}
