//! Metrics and spans of deliveries that are cut short, repeated or turned away, over a real queue directory.

use super::super::intake::Intake;
use super::super::*;
use crate::PerSignal;
use crate::drain::policy::Portion;
use crate::encode::Otlp;
use crate::queue::Encoding;
use crate::queue::Overflow;
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point::Value};
use prost::Message;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

const NOW: u64 = 1_900_000_000_000_000_000;
const REQUEST: &str = "79b5e81f-9cdd-4145-b1f6-7c50ef8a2a36";

fn open(dir: &Path) -> Intake {
    let (queue, _) = Queue::open(Box::new(RealDisk), dir, Limits::new(64 << 20, Overflow::DropOldest), 1);
    Intake::new(queue, Box::new(Otlp), About::default(), Making::default())
}

fn event(kind: &str, record: &str) -> String {
    format!(r#"{{"time":"2026-10-08T07:30:27.768Z","type":"{kind}","record":{record}}}"#)
}

fn started() -> String {
    event("platform.start", &format!(r#"{{"requestId":"{REQUEST}"}}"#))
}

fn done() -> String {
    let told = format!(r#"{{"requestId":"{REQUEST}","status":"success","metrics":{{"durationMs":5}}}}"#);
    event("platform.runtimeDone", &told)
}

fn body(events: impl IntoIterator<Item = String>) -> Vec<u8> {
    format!("[{}]", events.into_iter().collect::<Vec<_>>().join(",")).into_bytes()
}

/// Delivers everything of `signal` and returns the bodies.
fn drain(intake: &mut Intake, signal: Signal) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let run = Portion::Run { max_blocks: 100, max_bytes: 1 << 20 };
    while let Some(request) = intake.assemble(ReaderId::FIRST, signal, run, Encoding::Gzip) {
        let mut plain = Vec::new();
        GzDecoder::new(&request.body[..]).read_to_end(&mut plain).unwrap();
        bodies.push(plain);
        let records = u64::from(request.records);
        intake.land(
            ReaderId::FIRST,
            signal,
            Fate::Delivered { to: request.to, records, reports: 0, rejected: 0 },
        );
    }
    bodies
}

/// What arrives: counters by name, spans by name, log records.
#[derive(Debug, Default, PartialEq)]
struct Arrived {
    counters: BTreeMap<String, i64>,
    spans: BTreeMap<String, usize>,
    logs: u64,
}

fn arrived(intake: &mut Intake) -> Arrived {
    while intake.queue.count_one() {}
    let mut arrived = Arrived { logs: intake.queue.waiting(Signal::Logs).records, ..Arrived::default() };
    for body in drain(intake, Signal::Metrics) {
        let request = ExportMetricsServiceRequest::decode(&body[..]).unwrap();
        let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        for metric in scopes.flat_map(|scope| scope.metrics) {
            if let Some(metric::Data::Sum(sum)) = metric.data
                && let Some(Value::AsInt(value)) = sum.data_points[0].value
            {
                *arrived.counters.entry(metric.name).or_default() += value;
            }
        }
    }
    for body in drain(intake, Signal::Traces) {
        let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        for span in scopes.flat_map(|scope| scope.spans) {
            *arrived.spans.entry(span.name).or_default() += 1;
        }
    }
    arrived
}

#[test]
fn a_delivery_that_was_cut_short_anywhere_is_told_once() {
    let mut random = fastrand::Rng::with_seed(5);
    let line = |random: &mut fastrand::Rng| {
        let noise: String = (0..900).map(|_| random.alphanumeric()).collect();
        event("function", &format!("\"{noise}\""))
    };
    let init = |kind: &str, more: &str| {
        event(kind, &format!(r#"{{"initializationType":"on-demand","phase":"init","instanceId":"i"{more}}}"#))
    };
    let mut events = vec![
        init("platform.initStart", ""),
        init("platform.initReport", r#","metrics":{"durationMs":7}"#),
        started(),
    ];
    events.extend((0..600).map(|_| line(&mut random)));
    events.push(done());
    let delivery = body(events);

    let whole = tempfile::tempdir().unwrap();
    let mut intake = open(whole.path());
    assert_eq!(intake.take(&delivery, NOW).receipt, Receipt::Kept);
    let expected = arrived(&mut intake);
    assert_eq!(expected.logs, 604);
    assert_eq!(expected.counters["faas.invocations"], 1);
    assert_eq!(expected.counters["faas.coldstarts"], 1);
    assert_eq!(expected.spans, BTreeMap::from([("init".into(), 1), ("invocation".into(), 1)]));

    let pristine = tempfile::tempdir().unwrap();
    assert_eq!(open(pristine.path()).take(&delivery, NOW).receipt, Receipt::Kept);
    let bytes = std::fs::read(pristine.path().join("0000000001.seg")).unwrap();
    // Behind each of the frames, and within some: three of logs, one of metrics, one of spans, the carry.
    let mut ends = Vec::new();
    let mut at = 2048;
    while at + 96 <= bytes.len() {
        at += 96 + u32::from_le_bytes(bytes[at + 48..at + 52].try_into().unwrap()) as usize;
        ends.push(at);
    }
    assert_eq!(ends.len(), 6);
    for cut in ends.iter().flat_map(|end| [end - 50, *end]) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("0000000001.seg"), &bytes[..cut]).unwrap();
        let mut intake = open(dir.path());
        let receipt = intake.take(&delivery, NOW).receipt;
        let was_whole = cut == bytes.len();
        assert_eq!(receipt, if was_whole { Receipt::Repeated } else { Receipt::Kept }, "{cut}");
        assert_eq!(arrived(&mut intake), expected, "{cut}");
        // And what is remembered is the same.
        let mut next = open(dir.path());
        let report =
            format!(r#"{{"requestId":"{REQUEST}","status":"success","metrics":{{"durationMs":5}}}}"#);
        assert_eq!(next.take(&body([event("platform.report", &report)]), NOW).receipt, Receipt::Kept);
        assert!(!arrived(&mut next).counters.contains_key("faas.invocations"), "{cut}");
    }
}

#[test]
fn what_could_not_be_kept_is_as_if_it_had_never_come() {
    let dir = tempfile::tempdir().unwrap();
    // A file in place of the directory: memory stands in, and has no room.
    let path = dir.path().join("queue");
    std::fs::write(&path, "").unwrap();
    let limits = Limits { memory_max_bytes: 1 << 10, ..Limits::new(64 << 20, Overflow::DropOldest) };
    let (mut queue, opened) = Queue::open(Box::new(RealDisk), &path, limits, 1);
    assert!(opened.problem.is_some());
    queue.stand_in();
    let mut intake = Intake::new(queue, Box::new(Otlp), About::default(), Making::default());
    let delivery = body([started(), done()]);
    for _ in 0..3 {
        assert_eq!(intake.take(&delivery, NOW).receipt, Receipt::Full);
    }
    std::fs::remove_file(&path).unwrap();
    assert!(intake.queue.try_disk());
    assert_eq!(intake.take(&delivery, NOW).receipt, Receipt::Kept);
    let told = arrived(&mut intake);
    assert_eq!((told.counters["faas.invocations"], told.spans["invocation"]), (1, 1));
}

#[test]
fn an_invocation_in_two_deliveries_is_remembered_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(open(dir.path()).take(&body([started()]), NOW).receipt, Receipt::Kept);
    let mut intake = open(dir.path());
    assert!(intake.pipeline.awaits_an_end());
    assert_eq!(intake.take(&body([done()]), NOW).receipt, Receipt::Kept);
    assert!(!intake.pipeline.awaits_an_end());
    let told = arrived(&mut intake);
    assert_eq!((told.counters["faas.invocations"], told.spans["invocation"]), (1, 1));
}

#[test]
fn nothing_is_remembered_where_nothing_is_made_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) =
        Queue::open(Box::new(RealDisk), dir.path(), Limits::new(64 << 20, Overflow::DropOldest), 1);
    let signals = PerSignal::from_fn(|signal| signal == Signal::Logs);
    let making = Making { signals, ..Making::default() };
    let mut intake = Intake::new(queue, Box::new(Otlp), About::default(), making);
    assert_eq!(intake.take(&body([started()]), NOW).receipt, Receipt::Kept);
    assert_eq!(intake.queue.carry(), None);
    assert_eq!(arrived(&mut intake), Arrived { logs: 1, ..Arrived::default() });
}

#[test]
fn a_cut_record_of_which_nothing_is_made_waits_for_nothing() {
    // Alone, and beside something that is remembered: its frame does not say which record came.
    for beside in [String::new(), format!(",{}", started())] {
        let dir = tempfile::tempdir().unwrap();
        let (queue, _) =
            Queue::open(Box::new(RealDisk), dir.path(), Limits::new(64 << 20, Overflow::DropOldest), 1);
        let signals = PerSignal::from_fn(|signal| signal == Signal::Metrics);
        let making = Making { signals, ..Making::default() };
        let mut intake = Intake::new(queue, Box::new(Otlp), About::default(), making);
        let head = br#"[{"time":"2026-09-03T14:29:52.929Z","type":"function","record":{"message":"AAAA}]"#;
        let tail =
            format!(r#"[{{"time":"2026-09-03T14:29:52.929Z","type":"function","record":BBBB"}}}}{beside}]"#);
        assert_eq!(intake.take(head, NOW).receipt, Receipt::Kept);
        assert!(intake.queue.fragment().is_some());
        assert_eq!(intake.take(tail.as_bytes(), NOW).receipt, Receipt::Kept);
        assert!(intake.queue.fragment().is_none(), "{beside}");
        assert_eq!(intake.queue.carry().is_some(), !beside.is_empty());
    }
}
