//! Embedded metrics and joined lines of deliveries that are cut short and repeated, over a real queue directory.

use super::super::intake::Intake;
use super::super::*;
use super::{SECOND_NANOS, attribute, body, drain, text};
use crate::PerSignal;
use crate::drain::policy::Portion;
use crate::encode::{Ndjson, Otlp, WireFormat};
use crate::observe::Emf;
use crate::queue::Encoding;
use crate::queue::Overflow;
use crate::record::JsonLines;
use crate::rules::RuleSet;
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, metric};
use prost::Message;
use serde_json::json;
use std::io::Read;
use std::path::Path;

const NOW: u64 = 1_900_000_000 * SECOND_NANOS;
const REQUEST: &str = "79b5e81f-9cdd-4145-b1f6-7c50ef8a2a36";

fn open(dir: &Path, making: Making) -> Intake {
    open_for(dir, making, Box::new(Otlp))
}

fn open_for(dir: &Path, making: Making, wire: Box<dyn WireFormat>) -> Intake {
    let (queue, _) = Queue::open(Box::new(RealDisk), dir, Limits::new(64 << 20, Overflow::DropOldest), 1);
    Intake::new(queue, wire, About::default(), making)
}

fn event(kind: &str, record: &serde_json::Value) -> String {
    json!({"time": "2026-10-08T07:30:27.768Z", "type": kind, "record": record}).to_string()
}

/// A line with one metric and these members.
fn emf(name: &str, value: i64, members: serde_json::Value) -> serde_json::Value {
    let mut line = members;
    line["_aws"] = json!({"Timestamp": 1_791_444_627_700_i64, "CloudWatchMetrics": [
        {"Namespace": "shop", "Dimensions": [[]], "Metrics": [{"Name": name, "Unit": "Count"}]}]});
    line[name] = value.into();
    line
}

/// The histograms that wait, by name.
fn histograms(intake: &mut Intake) -> Vec<(String, HistogramDataPoint)> {
    while intake.queue.count_one() {}
    let mut points = Vec::new();
    let run = Portion::Run { max_blocks: 100, max_bytes: 1 << 20 };
    while let Some(request) = intake.assemble(ReaderId::FIRST, Signal::Metrics, run, Encoding::Gzip) {
        let mut plain = Vec::new();
        GzDecoder::new(&request.body[..]).read_to_end(&mut plain).unwrap();
        let decoded = ExportMetricsServiceRequest::decode(&plain[..]).unwrap();
        let scopes = decoded.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        for metric in scopes.flat_map(|scope| scope.metrics) {
            if let Some(metric::Data::Histogram(histogram)) = metric.data {
                points.extend(histogram.data_points.into_iter().map(|point| (metric.name.clone(), point)));
            }
        }
        let records = u64::from(request.records);
        intake.land(
            ReaderId::FIRST,
            Signal::Metrics,
            Fate::Delivered { to: request.to, records, reports: 0, rejected: 0 },
        );
    }
    points
}

fn names(intake: &mut Intake) -> Vec<String> {
    histograms(intake).into_iter().map(|(name, _)| name).collect()
}

fn take(intake: &mut Intake, delivery: &[u8]) -> Receipt {
    intake.take(delivery, NOW).receipt
}

#[test]
fn an_embedded_metric_becomes_a_point_and_the_rest_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path(), Making::default());
    let object = emf("a", 3, json!({"message": "paid", "order": 7, "level": "WARN"}));
    let alone = format!("{}\n", emf("b", 4, json!({})));
    let line = format!("{}\n", emf("c", 5, json!({"order": 8})));
    let records = [object, alone.into(), line.into(), "plain\n".into()];
    assert_eq!(
        take(&mut intake, &body(records.iter().map(|record| event("function", record)))),
        Receipt::Kept
    );
    let records = drain(&mut intake);
    assert_eq!(records.len(), 3, "nothing is left of the second");
    assert_eq!((text(&records[0]).as_str(), records[0].severity_number), ("paid", 13));
    assert_eq!(attribute(&records[0], "order"), Some(&Value::IntValue(7)));
    assert_eq!((attribute(&records[0], "_aws"), attribute(&records[0], "a")), (None, None));
    assert!(text(&records[1]).contains("order") && !text(&records[1]).contains("_aws"), "{records:?}");
    assert_eq!(text(&records[2]), "plain");
    let points = histograms(&mut intake);
    let told: Vec<_> = points.iter().map(|(name, point)| (name.as_str(), point.count, point.sum)).collect();
    assert_eq!(told, [("a", 1, Some(3.0)), ("b", 1, Some(4.0)), ("c", 1, Some(5.0))]);
    let times: Vec<_> =
        points.iter().map(|(_, point)| point.time_unix_nano - 1_791_444_627_700_000_000).collect();
    assert_eq!(times, [1, 2, 3], "lines of one millisecond are told apart");
}

#[test]
fn where_no_points_are_made_the_line_stays_whole() {
    let line = emf("a", 3, json!({})).to_string();
    let delivery = body([event("function", &line.clone().into())]);
    let logs = PerSignal::from_fn(|signal| signal == Signal::Logs);
    let off = |emf| Making { emf, json_lines: JsonLines::Off, ..Making::default() };
    for (making, wire, points) in [
        (off(Emf::Off), Box::new(Otlp) as Box<dyn WireFormat>, 0),
        (off(Emf::Keep), Box::new(Otlp), 1),
        (Making { signals: logs, ..off(Emf::Metrics) }, Box::new(Otlp), 0),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut intake = open_for(dir.path(), making, wire);
        assert_eq!(take(&mut intake, &delivery), Receipt::Kept);
        assert_eq!(super::texts(&drain(&mut intake)), [line.as_str()]);
        assert_eq!(histograms(&mut intake).len(), points);
    }
    // A destination that takes logs alone.
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open_for(dir.path(), Making::default(), Box::new(Ndjson));
    assert_eq!(take(&mut intake, &delivery), Receipt::Kept);
    assert_eq!(intake.queue.waiting(Signal::Logs).records, 1);
}

#[test]
fn metrics_are_made_where_no_logs_are() {
    let dir = tempfile::tempdir().unwrap();
    let signals = PerSignal::from_fn(|signal| signal == Signal::Metrics);
    let mut intake = open(dir.path(), Making { signals, ..Making::default() });
    let delivery = body([event("function", &emf("a", 3, json!({"message": "m"})))]);
    assert_eq!(take(&mut intake, &delivery), Receipt::Kept);
    assert_eq!((names(&mut intake), drain(&mut intake).len()), (vec!["a".to_owned()], 0));
}

#[test]
fn a_joined_record_is_told_by_its_first_line() {
    let dir = tempfile::tempdir().unwrap();
    let making = Making { joins_lines: true, ..Making::default() };
    let mut intake = open(dir.path(), making);
    let lines = ["[ERROR] lost\n", "  at f (a.js:1)\n", "  at g (a.js:2)\n", "after\n"];
    let started = event("platform.start", &json!({"requestId": REQUEST}));
    let events = [started].into_iter().chain(lines.iter().map(|line| event("function", &(*line).into())));
    assert_eq!(take(&mut intake, &body(events)), Receipt::Kept);
    let records = drain(&mut intake);
    let texts: Vec<_> = records.iter().skip(1).map(text).collect();
    assert_eq!(texts, ["[ERROR] lost\n  at f (a.js:1)\n  at g (a.js:2)", "after"]);
    assert_eq!(records[1].severity_number, 17);
    assert_eq!(attribute(&records[1], "outlast.lines"), Some(&Value::IntValue(3)));
    let uid = |at: usize| match attribute(&records[at], crate::record::log::UID) {
        Some(Value::StringValue(uid)) => uid.rsplit_once('-').unwrap().1.to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!((uid(1), uid(2)), ("2".to_owned(), "5".to_owned()), "the places of the first lines");
    // Where several invocations run at once, lines that are neighbours need not belong together.
    let dir = tempfile::tempdir().unwrap();
    let rules = crate::observe::Rules { concurrent: true, ..Default::default() };
    let mut intake = open(dir.path(), Making { joins_lines: true, rules, ..Making::default() });
    assert_eq!(
        take(&mut intake, &body(lines.iter().map(|line| event("function", &(*line).into())))),
        Receipt::Kept
    );
    assert_eq!(drain(&mut intake).len(), 4);
}

#[test]
fn a_delivery_that_was_cut_short_anywhere_counts_once_and_keeps_every_line() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut noise = |len: usize| -> String { (0..len).map(|_| random.alphanumeric()).collect() };
    let mut events = vec![event("platform.start", &json!({"requestId": REQUEST}))];
    let (mut metrics, mut lines) = (Vec::new(), Vec::new());
    for round in 0..90 {
        let name = format!("m{round} {}", noise(900));
        let line = emf(&name, round, json!({}));
        metrics.extend([format!("m{round}"), format!("m{round}")]);
        // Twice: a point for each dimension set, in one block.
        let mut line = line;
        line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] = json!([[], ["d"]]);
        line["d"] = noise(900).into();
        events.push(event("function", &line));
        let trace =
            [format!("Error: {round}"), format!("  at {}", noise(3_000)), format!("  at {}", noise(3_000))];
        events.extend(trace.iter().map(|line| event("function", &line.as_str().into())));
        lines.push(trace.join("\n"));
    }
    let done = json!({"requestId": REQUEST, "status": "success", "metrics": {"durationMs": 5}});
    events.push(event("platform.runtimeDone", &done));
    let delivery = body(events);
    let making = || Making { joins_lines: true, ..Making::default() };

    let pristine = tempfile::tempdir().unwrap();
    assert_eq!(take(&mut open(pristine.path(), making()), &delivery), Receipt::Kept);
    let bytes = std::fs::read(pristine.path().join("0000000001.seg")).unwrap();
    let mut ends = Vec::new();
    let mut at = 2048;
    while at + 96 <= bytes.len() {
        at += 96 + u32::from_le_bytes(bytes[at + 48..at + 52].try_into().unwrap()) as usize;
        ends.push(at);
    }
    assert!(ends.len() >= 7, "several blocks of logs and of metrics: {}", ends.len());
    for cut in ends.iter().flat_map(|end| [end - 50, *end]) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("0000000001.seg"), &bytes[..cut]).unwrap();
        let mut intake = open(dir.path(), making());
        take(&mut intake, &delivery);
        let arrived: Vec<_> = histograms(&mut intake);
        let short = |name: &String| name.split(' ').next().map(str::to_owned);
        let embedded =
            arrived.iter().filter_map(|(name, _)| short(name)).filter(|name| name.starts_with('m'));
        assert_eq!(embedded.collect::<Vec<_>>(), metrics, "{cut}");
        assert_eq!(arrived.iter().filter(|(name, _)| name == "faas.invoke_duration").count(), 1, "{cut}");
        let texts: Vec<String> = drain(&mut intake).iter().map(text).collect();
        let texts: Vec<&String> = texts.iter().filter(|text| text.starts_with("Error")).collect();
        assert!(texts.iter().copied().eq(&lines), "{cut}: {} of {}", texts.len(), lines.len());
    }
}

#[test]
fn what_the_last_event_brings_of_both_kinds_stays_in_one_block() {
    // The last event of the environment's delivery is an embedded metric, and the platform's own points are of the same
    // place: a block that ends between them would have one of them repeated or lost.
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path(), Making::default());
    let mut events = vec![
        event("platform.initStart", &json!({"initializationType": "on-demand", "phase": "init"})),
        event("platform.start", &json!({"requestId": REQUEST})),
    ];
    let wide: String = "w".repeat(1_000);
    let mut line = emf(&wide, 1, json!({}));
    // More than a block holds, alone.
    line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] = json!(vec![Vec::<String>::new(); 300]);
    events.push(event("function", &line));
    assert_eq!(take(&mut intake, &body(events)), Receipt::Kept);
    while intake.queue.count_one() {}
    let waiting = intake.queue.waiting(Signal::Metrics);
    assert_eq!((waiting.records, waiting.blocks), (301, 1), "300 embedded, and the cold start");
}

#[test]
fn what_rules_redact_is_in_no_dimension_of_an_embedded_metric() {
    let dir = tempfile::tempdir().unwrap();
    let (rules, problems) = RuleSet::parse("[[rule]]\nredact = { detect = [\"email\"] }\n");
    assert_eq!(problems, []);
    let mut intake = open(dir.path(), Making { rule_set: Some(rules), ..Making::default() });
    let line = json!({"customer": "ana@example.com", "visits": 3, "_aws": {"Timestamp": 1_791_444_627_700_i64,
        "CloudWatchMetrics": [{"Namespace": "shop", "Dimensions": [["customer"]],
            "Metrics": [{"Name": "visits", "Unit": "Count"}]}]}});
    intake.take(&body([event("function", &line)]), NOW);
    let points = histograms(&mut intake);
    let [(name, point)] = &points[..] else { panic!("one point is expected: {points:?}") };
    assert_eq!((name.as_str(), point.count), ("visits", 1));
    let customer = point.attributes.iter().find(|attribute| attribute.key == "customer").unwrap();
    let Some(Value::StringValue(customer)) = &customer.value.as_ref().unwrap().value else {
        panic!("a text")
    };
    assert!(!customer.contains("ana@"), "{customer}");
}
