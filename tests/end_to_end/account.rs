//! The account of invocations: what Lambda said of each against what was counted and traced.

use crate::support::{left_of, summary};
use outlast_backend::{Backend, Record, Signal};
use outlast_simulator::Sandbox;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// How invocations went, by request, as the first event said that tells of an end.
fn told(lambdas: &[&Sandbox]) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    for event in lambdas.iter().flat_map(|lambda| lambda.acknowledged()) {
        if !matches!(&*event.kind, "platform.runtimeDone" | "platform.report") {
            continue;
        }
        let record = event.value();
        if let (Some(request), Some(status)) = (record["requestId"].as_str(), record["status"].as_str()) {
            told.entry(request.to_owned()).or_insert_with(|| status.to_owned());
        }
    }
    told
}

/// What a record is known by if it comes again: its uid, its span id, or its series, start and time.
pub(crate) fn identity(record: &Record) -> String {
    match record.signal {
        Signal::Logs => record.uid.clone().expect("every log record has a uid"),
        Signal::Traces => record.span_id.clone(),
        Signal::Metrics => {
            let labels = serde_json::to_string(&record.attributes).unwrap();
            let instance = record.resource.get("faas.instance").map(Value::to_string);
            let (start, time) = (record.other_time_unix_nano, record.time_unix_nano);
            format!("{} {labels} {instance:?} {start} {time}", record.text)
        }
    }
}

/// Data points, each once.
pub(crate) fn points(backend: &Backend) -> Vec<Record> {
    let mut seen = HashSet::new();
    let records = backend.records().into_iter().filter(|record| record.signal == Signal::Metrics);
    records.filter(|record| seen.insert(identity(record))).collect()
}

/// Spans, each once. A span that comes again is the same.
pub(crate) fn spans(backend: &Backend) -> Vec<Record> {
    let mut seen: HashMap<String, Record> = HashMap::new();
    let mut spans = Vec::new();
    for record in backend.records().into_iter().filter(|record| record.signal == Signal::Traces) {
        if let Some(first) = seen.get(&record.span_id) {
            let what = |span: &Record| (span.text.clone(), span.body.clone(), span.attributes.clone());
            assert_eq!(what(first), what(&record), "a span that comes again is the same");
            continue;
        }
        seen.insert(record.span_id.clone(), record.clone());
        spans.push(record);
    }
    spans
}

/// The span of each invocation, by request.
pub(crate) fn roots(backend: &Backend) -> BTreeMap<String, Record> {
    let spans = spans(backend).into_iter();
    let roots = spans.filter_map(|span| {
        let request = span.attributes.get("faas.invocation_id")?.as_str()?.to_owned();
        Some((request, span))
    });
    let mut by_request = BTreeMap::new();
    for (request, span) in roots {
        assert!(by_request.insert(request.clone(), span).is_none(), "{request} has two spans");
    }
    by_request
}

/// What the points of a counter add up to.
pub(crate) fn total(backend: &Backend, name: &str) -> f64 {
    let points = points(backend);
    let of_name = points.iter().filter(|point| point.text == name);
    of_name.map(|point| point.body["value"].as_f64().or(point.body["value"]["sum"].as_f64()).unwrap()).sum()
}

/// What the points of a counter of whole things add up to.
#[allow(clippy::cast_sign_loss)] // it counts
pub(crate) fn counted(backend: &Backend, name: &str) -> u64 {
    total(backend, name).round() as u64
}

/// Each invocation that Lambda told the end of is counted once, as it went, and has one span.
///
/// Only where nothing was dropped or left, and all signals were made.
pub(crate) fn of_invocations(lambdas: &[&Sandbox], backend: &Backend) {
    let Some(last) = lambdas.last() else { return };
    let told = told(lambdas);
    let made = |signal| backend.received(|received| received.count(signal)) > 0;
    if made(Signal::Metrics) && left_of(last, Signal::Metrics) == 0 {
        for (counter, statuses) in [
            ("faas.invocations", &["success"][..]),
            ("faas.errors", &["error", "failure"]),
            ("faas.timeouts", &["timeout"]),
        ] {
            let expected = told.values().filter(|status| statuses.contains(&status.as_str())).count() as u64;
            let counted = counted(backend, counter);
            // Of those whose end never came, more may be known than Lambda told.
            let enough =
                if counter == "faas.invocations" { counted == expected } else { counted >= expected };
            assert!(enough, "{counter}: {expected} told, {counted} counted; {}", summary(backend));
        }
    }
    if made(Signal::Traces) && left_of(last, Signal::Traces) == 0 {
        let roots = roots(backend);
        for request in told.keys() {
            assert!(roots.contains_key(request), "no span of {request}; {}", summary(backend));
        }
    }
}
