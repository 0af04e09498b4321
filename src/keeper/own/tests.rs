//! What a reader of the metrics makes of the sets, over a real queue directory.

use super::super::intake::Intake;
use super::super::{Fate, Making};
use super::*;
use crate::drain::policy::{Outcome, Portion};
use crate::encode::Otlp;
use crate::keeper::About;
use crate::listen::Receipt;
use crate::queue::{Encoding, Limits, Overflow, Queue, ReaderId, RealDisk, Request};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data, number_data_point::Value};
use prost::Message;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

const ALWAYS: Duration = Duration::from_nanos(1);

fn open_with(dir: &Path, every: Option<Duration>, max_bytes: u64) -> Intake {
    let limits = Limits::new(max_bytes, Overflow::DropOldest);
    let (queue, opened) = Queue::open(Box::new(RealDisk), dir, limits, 1);
    assert!(opened.problem.is_none());
    let making = Making { own_every: every, ..Making::default() };
    let mut intake = Intake::new(queue, Box::new(Otlp), About::default(), making);
    while intake.queue.count_one() {}
    intake
}

fn open(dir: &Path) -> Intake {
    open_with(dir, Some(ALWAYS), 64 << 20)
}

/// A delivery of an invocation, of `lines` lines and the two events around them; with data points if it `ends`.
fn invocation(number: usize, lines: usize, ends: bool) -> Vec<u8> {
    let event = |kind: &str, record: String| {
        format!(r#"{{"time":"2026-10-08T07:30:27.768Z","type":"{kind}","record":{record}}}"#)
    };
    let mut events = vec![event("platform.fault", format!("\"{number}\""))];
    events.extend((0..lines).map(|line| event("function", format!("\"{number} {line}\""))));
    if ends {
        let done = format!(r#"{{"requestId":"{number}","status":"success","metrics":{{"durationMs":5}}}}"#);
        events.push(event("platform.runtimeDone", done));
    }
    format!("[{}]", events.join(",")).into_bytes()
}

fn take(intake: &mut Intake, number: usize, lines: usize) {
    assert_eq!(intake.take(&invocation(number, lines, true), clock::unix_now_nanos()).receipt, Receipt::Kept);
}

fn assemble(intake: &mut Intake, signal: Signal) -> Option<Request> {
    intake.assemble(
        ReaderId::FIRST,
        signal,
        Portion::Run { max_blocks: 100, max_bytes: 1 << 20 },
        Encoding::Gzip,
    )
}

fn points_of(request: &Request) -> Vec<Metric> {
    let mut plain = Vec::new();
    GzDecoder::new(&request.body[..]).read_to_end(&mut plain).unwrap();
    let decoded = ExportMetricsServiceRequest::decode(&plain[..]).unwrap();
    let scopes = decoded.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
    scopes.flat_map(|scope| scope.metrics).collect()
}

/// What a backend has of our own points: sums by name and labels, the latest of gauges, and the intervals of sums.
#[derive(Debug, Default)]
struct Backend {
    sums: BTreeMap<String, i64>,
    gauges: BTreeMap<String, f64>,
    intervals: Vec<(u64, u64)>,
    histograms: BTreeMap<String, u64>,
    requests: usize,
}

impl Backend {
    /// Takes everything that waits.
    fn drain(&mut self, intake: &mut Intake) {
        for signal in Signal::ALL {
            while let Some(request) = assemble(intake, signal) {
                if signal == Signal::Metrics {
                    self.requests += 1;
                    for metric in points_of(&request) {
                        self.read(metric);
                    }
                }
                let (records, reports) = (u64::from(request.records), u64::from(request.reports));
                intake.land(
                    ReaderId::FIRST,
                    signal,
                    Fate::Delivered { to: request.to, records, reports, rejected: 0 },
                );
            }
        }
    }

    fn read(&mut self, metric: Metric) {
        if !metric.name.starts_with("outlast.") {
            return;
        }
        let labelled = |attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]| {
            let labels = attributes.iter().map(|pair| format!("{:?}", pair.value));
            let text = labels.collect::<String>();
            let words = text.split('"').skip(1).step_by(2).collect::<Vec<_>>().join(" ");
            format!("{} {words}", metric.name).trim_end().to_owned()
        };
        match metric.data.unwrap() {
            Data::Sum(sum) => {
                let point = &sum.data_points[0];
                let Some(Value::AsInt(value)) = point.value else { panic!("{point:?}") };
                *self.sums.entry(labelled(&point.attributes)).or_default() += value;
                self.intervals.push((point.start_time_unix_nano, point.time_unix_nano));
            }
            Data::Gauge(gauge) => {
                let point = &gauge.data_points[0];
                let value = match point.value {
                    Some(Value::AsInt(value)) => f64::from(u32::try_from(value).unwrap()),
                    Some(Value::AsDouble(value)) => value,
                    None => panic!("{point:?}"),
                };
                self.gauges.insert(labelled(&point.attributes), value);
            }
            Data::Histogram(histogram) => {
                let point = &histogram.data_points[0];
                *self.histograms.entry(labelled(&point.attributes)).or_default() += point.count;
            }
            other => panic!("{other:?}"),
        }
    }

    fn sum(&self, name: &str) -> i64 {
        self.sums.get(name).copied().unwrap_or_default()
    }
}

#[test]
fn a_set_goes_in_the_request_of_the_functions_points_and_its_sums_are_right() {
    let dir = tempfile::tempdir().unwrap();
    let (mut intake, mut backend) = (open(dir.path()), Backend::default());
    for number in 0..4 {
        take(&mut intake, number, 10);
        backend.drain(&mut intake);
    }
    assert_eq!(backend.requests, 4, "none of its own");
    // Each set tells of what was before it, and none tells of itself.
    assert_eq!(backend.sum("outlast.received logs"), 3 * 12);
    assert_eq!(backend.sum("outlast.delivered logs"), 3 * 12);
    let of_function = backend.sum("outlast.received metrics");
    assert_eq!(of_function % 3, 0, "the same for each invocation");
    take(&mut intake, 4, 10);
    intake.tell_own_at_end();
    backend.drain(&mut intake);
    assert_eq!(
        backend.sum("outlast.received metrics"),
        of_function / 3 * 4,
        "one set waits, that of the delivery"
    );
    assert_eq!(intake.queue.ledger().delivered(Signal::Logs), 5 * 12);
    for none in ["outlast.queue.records logs", "outlast.degraded", "outlast.breaker_open"] {
        assert!(backend.gauges[none].abs() < f64::EPSILON, "{none}");
    }
    assert!(backend.gauges["outlast.queue.bytes"] > 2048.0);
    assert!(backend.histograms["outlast.flush_duration logs"] >= 3);
    assert_eq!(intake.summary().main.waiting, PerSignal::default());
}

#[test]
fn intervals_follow_one_another_and_sums_are_right_across_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut backend = Backend::default();
    let mut received: usize = 0;
    for round in 0..6 {
        // The process before was killed.
        let mut intake = open(dir.path());
        for number in 0..3 {
            let lines = round * 3 + number;
            take(&mut intake, round * 100 + number, lines);
            received += lines + 2;
            if number == round % 3 {
                backend.drain(&mut intake);
            }
        }
    }
    let mut intake = open(dir.path());
    backend.drain(&mut intake);
    intake.tell_own_at_end();
    backend.drain(&mut intake);
    let received = i64::try_from(received).unwrap();
    assert_eq!(backend.sum("outlast.received logs"), received);
    assert_eq!(backend.sum("outlast.delivered logs"), received);
    let mut intervals = backend.intervals.clone();
    intervals.sort_unstable();
    intervals.dedup();
    assert!(intervals.len() >= 6, "{intervals:?}");
    assert!(intervals.iter().all(|(start, end)| 0 < *start && start < end), "{intervals:?}");
    assert!(intervals.windows(2).all(|pair| pair[0].1 == pair[1].0), "{intervals:?}");
}

#[test]
fn no_set_is_made_without_points_of_the_functions_nor_too_often_nor_if_nobody_wants_any() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    let quiet = invocation(1, 10, false);
    assert_eq!(intake.take(&quiet, 1).receipt, Receipt::Kept);
    assert_eq!(intake.queue.waiting(Signal::Metrics).blocks, 0);
    take(&mut intake, 2, 1);
    assert_eq!(intake.queue.waiting(Signal::Metrics).blocks, 2, "the set and the function's");
    for number in 3..9 {
        take(&mut intake, number, 1);
        assert_eq!(intake.queue.waiting(Signal::Metrics).blocks, number as u64, "one set at most waits");
    }

    for every in [None, Some(Duration::from_secs(3600))] {
        let dir = tempfile::tempdir().unwrap();
        let (mut intake, mut backend) = (open_with(dir.path(), every, 64 << 20), Backend::default());
        for number in 0..3 {
            take(&mut intake, number, 1);
            backend.drain(&mut intake);
        }
        assert_eq!(backend.sums.len(), 0);
        intake.tell_own_at_end();
        intake.tell_own_at_end();
        backend.drain(&mut intake);
        assert_eq!(backend.sum("outlast.received logs"), if every.is_some() { 9 } else { 0 });
        // What became of the function's telemetry was told; that the set was delivered is no news.
        intake.tell_own_at_end();
        assert_eq!(intake.queue.waiting(Signal::Metrics).blocks, 0);
    }
}

#[test]
fn a_queue_that_is_nearly_full_has_no_room_for_sets() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open_with(dir.path(), Some(Duration::from_secs(3600)), 1 << 20);
    let mut random = fastrand::Rng::with_seed(3);
    while !intake.queue.is_nearly_full() {
        let noise: String = (0..50_000).map(|_| random.alphanumeric()).collect();
        let body = format!(r#"[{{"time":"2026-10-08T07:30:27.768Z","type":"function","record":"{noise}"}}]"#);
        assert_eq!(intake.take(body.as_bytes(), 1).receipt, Receipt::Kept);
    }
    intake.tell_own_at_end();
    assert_eq!(intake.queue.waiting(Signal::Metrics).blocks, 0);
    assert_ne!(intake.queue.untold(), PerSignal::default(), "it is told later");
}

#[test]
fn a_set_moves_on_when_the_full_queue_drops_its_segment_and_stays_the_only_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut intake, mut backend) = (open_with(dir.path(), Some(ALWAYS), 1 << 20), Backend::default());
    take(&mut intake, 1, 1);
    take(&mut intake, 2, 1);
    assert!(intake.queue.is_telling());
    let mut random = fastrand::Rng::with_seed(3);
    for number in 3..40 {
        let noise: String = (0..50_000).map(|_| random.alphanumeric()).collect();
        let body = format!(r#"[{{"time":"2026-10-08T07:30:27.768Z","type":"function","record":"{noise}"}}]"#);
        assert_eq!(intake.take(body.as_bytes(), 1).receipt, Receipt::Kept);
        take(&mut intake, number, 0);
    }
    assert!(intake.queue.ledger().dropped(Signal::Metrics) > 0);
    assert!(intake.queue.is_telling());
    backend.drain(&mut intake);
    assert_eq!(backend.sum("outlast.received logs"), 3, "the first set, of the first invocation");
    assert_eq!(
        backend.intervals.iter().map(|(start, _)| start).min(),
        backend.intervals.iter().map(|(start, _)| start).max()
    );
}

#[test]
fn a_set_that_is_refused_is_no_drop_of_the_users() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    take(&mut intake, 1, 3);
    take(&mut intake, 2, 3);
    let request = assemble(&mut intake, Signal::Metrics).unwrap();
    let of_function = intake.queue.waiting(Signal::Metrics).records;
    let (first, rest) = (u64::from(request.records - request.reports), u64::from(request.reports));
    assert!(first == of_function && rest > 5);
    intake.land(ReaderId::FIRST, Signal::Metrics, Fate::Kept);
    // The points of the first delivery arrive, a part of the set, then the rest of it is given up.
    let before = assemble(&mut intake, Signal::Metrics).unwrap();
    intake.land(ReaderId::FIRST, Signal::Metrics, Fate::Kept);
    let head = |intake: &mut Intake| intake.queue.oldest(Signal::Metrics).unwrap().seq.0;
    let first_block = u64::from(intake.queue.oldest(Signal::Metrics).unwrap().records);
    let taken = Fate::Taken { head: head(&mut intake), records: first_block + 3 };
    intake.land(ReaderId::FIRST, Signal::Metrics, taken);
    assert_eq!(intake.queue.waiting(Signal::Metrics).records, of_function - first_block);
    let settled = Fate::Settled { head: head(&mut intake), refused: rest - 3, delivered: 0 };
    intake.land(ReaderId::FIRST, Signal::Metrics, settled);
    let taken = Fate::Taken { head: head(&mut intake), records: 1 };
    intake.land(ReaderId::FIRST, Signal::Metrics, taken);
    assert_eq!(intake.queue.waiting(Signal::Metrics).records, of_function - first_block - 1);
    assert_eq!(intake.queue.ledger().dropped(Signal::Metrics), 0);
    assert_eq!(intake.queue.ledger().delivered(Signal::Metrics), first_block + 1);
    assert!(before.records > 0 && intake.queue.ledger().unreported().is_empty());
}

#[test]
fn requests_and_holds_are_told_by_how_they_went() {
    let dir = tempfile::tempdir().unwrap();
    let (mut intake, mut backend) = (open(dir.path()), Backend::default());
    take(&mut intake, 1, 1);
    let unavailable = Outcome::Retry { after: None, fate_unknown: false };
    for (outcome, breaker_open) in
        [(unavailable, false), (unavailable, false), (unavailable, true), (Outcome::Delivered, false)]
    {
        intake.own.note(Vital::Request {
            signal: Signal::Logs,
            target: Target::Primary,
            result: outcome.name(),
            took: (outcome == Outcome::Delivered).then_some(Duration::from_millis(3)),
            breaker_open,
        });
    }
    intake.own.note(Vital::Held(Duration::from_millis(20)));
    intake.own.lost((7, 700));
    intake.tell_own_at_end();
    backend.drain(&mut intake);
    assert_eq!(backend.sum("outlast.requests logs backend unavailable"), 3);
    assert_eq!(backend.sum("outlast.requests logs backend delivered"), 1);
    assert_eq!(backend.sum("outlast.retries logs"), 3);
    assert_eq!(
        (backend.sum("outlast.lambda.dropped_records"), backend.sum("outlast.lambda.dropped_bytes")),
        (7, 700)
    );
    assert_eq!(backend.histograms["outlast.send_duration backend"], 1);
    assert_eq!(backend.histograms["outlast.hold_duration"], 1);
    // Told once.
    take(&mut intake, 2, 1);
    backend.drain(&mut intake);
    assert_eq!(backend.sum("outlast.retries logs"), 3);
}

#[test]
fn what_lambda_dropped_and_what_the_queue_dropped_is_told_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (mut intake, mut backend) = (open(dir.path()), Backend::default());
    let dropped = br#"[{"time":"2026-10-08T07:30:27.768Z","type":"platform.logsDropped","record":{"droppedBytes":12345,"droppedRecords":123,"reason":"slow"}}]"#;
    assert_eq!(intake.take(dropped, 1).receipt, Receipt::Kept);
    assert_eq!(intake.take(b"no telemetry at all", 1).receipt, Receipt::Unreadable);
    let request = assemble(&mut intake, Signal::Logs).unwrap();
    let fate = Fate::HandedOver { to: request.to, records: 1, reports: 0, rejected: 0 };
    intake.land(ReaderId::FIRST, Signal::Logs, fate);
    take(&mut intake, 1, 0);
    backend.drain(&mut intake);
    assert_eq!(backend.sum("outlast.lambda.dropped_records"), 123);
    assert_eq!(backend.sum("outlast.dropped logs unreadable"), 1);
    assert_eq!(backend.sum("outlast.handed_over logs"), 1);
    assert_eq!((backend.sum("outlast.received logs"), backend.sum("outlast.delivered logs")), (2, 0));
}

#[test]
fn an_environment_restored_from_a_snapshot_tells_nothing_of_the_time_before() {
    let dir = tempfile::tempdir().unwrap();
    let (mut intake, mut backend) = (open(dir.path()), Backend::default());
    take(&mut intake, 1, 0);
    backend.drain(&mut intake);
    let published = clock::unix_now_nanos();
    let restore = br#"[{"time":"2026-10-08T07:30:27.768Z","type":"platform.restoreStart","record":{"functionName":"f","instanceId":"copy"}}]"#;
    assert_eq!(intake.take(restore, 1).receipt, Receipt::Kept);
    backend = Backend::default();
    take(&mut intake, 2, 0);
    backend.drain(&mut intake);
    assert!(!backend.intervals.is_empty());
    assert!(backend.intervals.iter().all(|(start, _)| *start >= published), "{:?}", backend.intervals);
}
