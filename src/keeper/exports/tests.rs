//! What becomes of exports, over a real queue directory, read back as a receiver would.

use super::*;
use crate::drain::policy::Portion;
use crate::encode::Otlp;
use crate::keeper::{About, Fate, Job, Keeper, Making, Setup};
use crate::listen::Receipt;
use crate::queue::{Encoding, Limits, Overflow, Queue, ReaderId, Readers, RealDisk};
use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use std::io::Write;
use std::path::Path;
use tokio::sync::oneshot;

fn open(dir: &Path) -> Intake {
    open_limited(dir, Limits::new(64 << 20, Overflow::DropOldest))
}

fn open_limited(dir: &Path, limits: Limits) -> Intake {
    let (mut queue, opened) = Queue::open(Box::new(RealDisk), dir, limits, 1);
    if opened.problem.is_some() {
        queue.stand_in();
    }
    let about = About { function_name: Some("f".into()), ..About::default() };
    Intake::new(queue, Box::new(Otlp), about, Making::default())
}

fn export(signal: Signal, media: Media, gzip: bool, body: impl Into<Bytes>) -> Export {
    let (reply, _) = oneshot::channel();
    Export { signal, media, gzip, body: body.into(), received_unix_nanos: 1, reply }
}

fn take(intake: &mut Intake, signal: Signal, body: impl Into<Bytes>) -> Outcome {
    intake.take_export(export(signal, Media::Protobuf, false, body)).0
}

/// A request of spans with these numbers, each with text of this length that does not shrink.
fn spans(ids: std::ops::Range<u64>, padding: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(ids.start);
    let span = |id: u64| Span {
        span_id: id.to_be_bytes().into(),
        name: (0..padding).map(|_| random.alphanumeric()).collect(),
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: ids.map(span).collect(), ..Default::default() }];
    let name = Some(AnyValue { value: Some(Value::StringValue("theirs".into())) });
    let attributes = vec![KeyValue { key: "service.name".into(), value: name, ..Default::default() }];
    let resource = Some(Resource { attributes, ..Default::default() });
    let resource_spans = vec![ResourceSpans { resource, scope_spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn gzip(body: &[u8], mtime: u32) -> Vec<u8> {
    let mut encoder = GzBuilder::new().mtime(mtime).write(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// Delivers what waits of `signal`, and returns the bodies.
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

fn ids(bodies: &[Vec<u8>]) -> Vec<u64> {
    let requests = bodies.iter().map(|body| ExportTraceServiceRequest::decode(&body[..]).unwrap());
    let resources = requests.flat_map(|request| request.resource_spans);
    let spans = resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
    spans.map(|span| u64::from_be_bytes(span.span_id.try_into().unwrap())).collect()
}

#[test]
fn a_request_is_sent_on_byte_for_byte_and_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    let bodies = [spans(0..3, 10), spans(3..4, 500), spans(4..9, 20)];
    for body in &bodies {
        assert_eq!(take(&mut intake, Signal::Traces, body.clone()), Outcome::Kept);
    }
    let delivered = drain(&mut intake, Signal::Traces);
    assert_eq!(delivered, [bodies.concat()], "one request of all three, as they came");
    assert_eq!(drain(&mut intake, Signal::Logs), Vec::<Vec<u8>>::new());
    assert_eq!(intake.summary().received, 9);
}

#[test]
fn a_request_in_json_goes_out_in_protobuf_together_with_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    let json = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":"0000000000000007"}]}]}]}"#;
    assert_eq!(take(&mut intake, Signal::Traces, spans(6..7, 1)), Outcome::Kept);
    assert_eq!(intake.take_export(export(Signal::Traces, Media::Json, false, json)).0, Outcome::Kept);
    assert_eq!(take(&mut intake, Signal::Traces, spans(8..9, 1)), Outcome::Kept);
    let delivered = drain(&mut intake, Signal::Traces);
    assert_eq!((delivered.len(), ids(&delivered)), (1, vec![6, 7, 8]));
}

#[test]
fn a_request_that_is_sent_again_is_kept_once_also_after_a_restart_and_compressed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    let body = spans(0..3, 10);
    let compressed = |mtime| export(Signal::Traces, Media::Protobuf, true, gzip(&body, mtime));
    assert_ne!(gzip(&body, 1), gzip(&body, 2));
    assert_eq!(take(&mut intake, Signal::Traces, body.clone()), Outcome::Kept);
    assert_eq!(intake.take_export(compressed(1)).0, Outcome::Kept);
    drop(intake);
    let mut intake = open(dir.path());
    assert_eq!(intake.take_export(compressed(2)).0, Outcome::Kept);
    assert_eq!(ids(&drain(&mut intake, Signal::Traces)), [0, 1, 2]);
    assert_eq!(intake.take_export(compressed(3)).0, Outcome::Kept);
    assert_eq!(drain(&mut intake, Signal::Traces), Vec::<Vec<u8>>::new());
}

#[test]
fn the_same_bytes_for_another_signal_are_no_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    let body = spans(0..1, 10);
    assert_eq!(take(&mut intake, Signal::Traces, body.clone()), Outcome::Kept);
    assert_eq!(take(&mut intake, Signal::Metrics, body.clone()), Outcome::Kept);
    assert_eq!(drain(&mut intake, Signal::Traces).concat(), body);
    assert_eq!(drain(&mut intake, Signal::Metrics), [body]);
}

#[test]
fn log_records_without_a_time_are_never_taken_for_repeats() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    let log = |time: &str| {
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{time}"severityText":"I"}}]}}]}}]}}"#)
    };
    for (time, records) in [("", 3), (r#""timeUnixNano":"5","#, 1)] {
        for _ in 0..3 {
            let export = export(Signal::Logs, Media::Json, false, log(time));
            assert_eq!(intake.take_export(export).0, Outcome::Kept);
        }
        let delivered = drain(&mut intake, Signal::Logs).concat();
        let request = ExportLogsServiceRequest::decode(&delivered[..]).unwrap();
        assert_eq!(request.resource_logs.len(), records, "{time}");
    }
}

#[test]
fn a_long_request_that_was_cut_short_by_a_kill_is_completed_without_repeats() {
    let dir = tempfile::tempdir().unwrap();
    let body = spans(0..900, 1_000);
    assert_eq!(take(&mut open(dir.path()), Signal::Traces, body.clone()), Outcome::Kept);
    // The write of the last block did not happen.
    let segment = dir.path().join("0000000001.seg");
    let len = std::fs::metadata(&segment).unwrap().len();
    std::fs::File::options().write(true).open(&segment).unwrap().set_len(len - 10).unwrap();

    let mut intake = open(dir.path());
    while intake.queue.count_one() {}
    let kept = intake.queue.waiting(Signal::Traces).records;
    assert!(kept > 0 && kept < 900, "{kept}");
    assert_eq!(take(&mut intake, Signal::Traces, body.clone()), Outcome::Kept);
    assert_eq!(intake.summary().received, 900 - kept);
    assert_eq!(ids(&drain(&mut intake, Signal::Traces)), (0..900).collect::<Vec<_>>());
    assert_eq!(take(&mut intake, Signal::Traces, body), Outcome::Kept);
    assert_eq!(drain(&mut intake, Signal::Traces), Vec::<Vec<u8>>::new());
}

#[test]
fn records_of_a_request_can_be_sent_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    // Two requests of an SDK in one body, as two resources.
    let body = [spans(0..2, 10), spans(2..4, 10)].concat();
    assert_eq!(take(&mut intake, Signal::Traces, body), Outcome::Kept);
    let mut got = Vec::new();
    while let Some(request) =
        intake.assemble(ReaderId::FIRST, Signal::Traces, Portion::Records { count: 1 }, Encoding::Identity)
    {
        got.extend(ids(std::slice::from_ref(&request.body)));
        // The third is refused.
        let head = request.head.0;
        let fate = match got.len() {
            3 => Fate::Settled { head, refused: 1, delivered: 0 },
            _ => Fate::Taken { head, records: 1 },
        };
        intake.land(ReaderId::FIRST, Signal::Traces, Fate::Kept);
        intake.land(ReaderId::FIRST, Signal::Traces, fate);
    }
    assert_eq!(got, [0, 1, 2, 3]);
    let summary = intake.summary();
    assert_eq!((summary.main.delivered, *summary.main.dropped.get(Signal::Traces)), (3, 1));
}

#[test]
fn what_is_asked_for_is_added_to_the_resource() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    intake.completes_resources = true;
    assert_eq!(take(&mut intake, Signal::Traces, spans(0..1, 1)), Outcome::Kept);
    let delivered = drain(&mut intake, Signal::Traces).concat();
    let request = ExportTraceServiceRequest::decode(&delivered[..]).unwrap();
    let attributes = &request.resource_spans[0].resource.as_ref().unwrap().attributes;
    let value = |name: &str| {
        let pair = attributes.iter().find(|pair| pair.key == name)?;
        pair.value.as_ref()?.value.clone()
    };
    assert_eq!(value("service.name"), Some(Value::StringValue("theirs".into())));
    assert_eq!(value("faas.name"), Some(Value::StringValue("f".into())));
}

#[test]
fn what_inflates_too_far_or_not_at_all_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    let bomb = gzip(&vec![0; 64 << 20], 0);
    assert!(bomb.len() < 100 << 10);
    for media in [Media::Protobuf, Media::Json] {
        let outcome = intake.take_export(export(Signal::Logs, media, true, bomb.clone())).0;
        assert!(matches!(outcome, Outcome::TooLong(_)), "{outcome:?}");
        let cut = gzip(&spans(0..1, 100), 0);
        for body in [&cut[..cut.len() - 1], b"no gzip", b""] {
            let outcome = intake.take_export(export(Signal::Logs, media, true, body.to_vec())).0;
            assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        }
    }
    assert_eq!(drain(&mut intake, Signal::Logs), Vec::<Vec<u8>>::new());
}

#[test]
fn several_gzip_members_are_one_body() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    let body = [gzip(&spans(0..1, 9), 0), gzip(&spans(1..2, 9), 0)].concat();
    let outcome = intake.take_export(export(Signal::Traces, Media::Protobuf, true, body)).0;
    assert_eq!(outcome, Outcome::Kept);
    assert_eq!(ids(&drain(&mut intake, Signal::Traces)), [0, 1]);
}

#[test]
fn what_no_disk_and_no_memory_takes_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let limits = Limits { memory_max_bytes: 10_000, ..Limits::new(64 << 20, Overflow::DropOldest) };
    let mut intake = open_limited(&file, limits);
    assert_eq!(take(&mut intake, Signal::Traces, spans(0..1, 100)), Outcome::Kept);
    assert_eq!(take(&mut intake, Signal::Traces, spans(1..2, 50_000)), Outcome::Full);
    assert_eq!(ids(&drain(&mut intake, Signal::Traces)), [0]);
    assert_eq!(take(&mut intake, Signal::Traces, spans(1..2, 100)), Outcome::Kept, "it comes again");
    assert_eq!(ids(&drain(&mut intake, Signal::Traces)), [1]);
}

#[tokio::test]
async fn exports_and_deliveries_are_kept_by_the_same_thread() {
    let dir = tempfile::tempdir().unwrap();
    let keeper = Keeper::start(Setup {
        dir: dir.path().to_path_buf(),
        disk: || Box::new(RealDisk),
        limits: Limits::new(64 << 20, Overflow::DropOldest),
        wire: Box::new(Otlp),
        about: About::default(),
        epoch_unix_nanos: 0,
        readers: Readers::default(),
        making: Making::default(),
        completes_resources: false,
    })
    .unwrap();
    let (reply, outcome) = oneshot::channel();
    let export = Export { reply, ..export(Signal::Traces, Media::Protobuf, false, spans(0..2, 1)) };
    keeper.exports.send(export).await.unwrap();
    assert_eq!(outcome.await, Ok(Outcome::Kept));
    let (reply, receipt) = oneshot::channel();
    let body = r#"[{"time":"2026-10-08T07:30:27.768Z","type":"function","record":"line"}]"#.into();
    let delivery = crate::listen::Delivery { body, received_unix_nanos: 1, reply };
    keeper.inbox.send(delivery).await.unwrap();
    assert_eq!(receipt.await, Ok(Receipt::Kept));
    let (reply, level) = oneshot::channel();
    keeper.ask(Job::Level(ReaderId::FIRST, Signal::Traces, reply));
    let level = level.await.unwrap();
    assert_eq!((level.backlog.blocks, level.backlog.head.map(|head| head.records)), (1, Some(2)));
}
