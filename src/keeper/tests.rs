//! What becomes of deliveries, over a real queue directory, read back as a receiver would.

use super::intake::Intake;
use super::*;
use crate::PerSignal;
use crate::drain::policy::Portion;
use crate::encode::Otlp;
use crate::queue::Encoding;
use crate::queue::{Overflow, RealDisk};
use crate::record::Resource;
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;
use std::io::Read;
use std::path::Path;

const SECOND_NANOS: u64 = 1_000_000_000;

fn open_with(dir: &Path, max_bytes: u64) -> Intake {
    open_limited(dir, Limits::new(max_bytes, Overflow::DropOldest))
}

fn open_limited(dir: &Path, limits: Limits) -> Intake {
    let (queue, opened) = Queue::open(Box::new(RealDisk), dir, limits, 1);
    assert!(opened.problem.is_none());
    Intake::new(queue, Box::new(Otlp), About::default(), logs_only())
}

fn open_making(dir: &Path, making: Making) -> Intake {
    let limits = Limits::new(64 << 20, Overflow::DropOldest);
    let (queue, _) = Queue::open(Box::new(RealDisk), dir, limits, 1);
    Intake::new(queue, Box::new(Otlp), About::default(), making)
}

/// The tests of this file are about what becomes of deliveries, whatever is made of them.
pub(super) fn logs_only() -> Making {
    Making { signals: PerSignal::from_fn(|signal| signal == Signal::Logs), ..Making::default() }
}

fn open(dir: &Path) -> Intake {
    open_with(dir, 64 << 20)
}

fn take(intake: &mut Intake, body: &[u8], received: u64) -> Receipt {
    intake.take(body, received).receipt
}

/// Delivers everything and returns it.
fn drain(intake: &mut Intake) -> Vec<LogRecord> {
    let mut records = Vec::new();
    let run = Portion::Run { max_blocks: 100, max_bytes: 1 << 20 };
    while let Some(request) = intake.assemble(ReaderId::FIRST, Signal::Logs, run, Encoding::Gzip) {
        let mut plain = Vec::new();
        GzDecoder::new(&request.body[..]).read_to_end(&mut plain).unwrap();
        let decoded = ExportLogsServiceRequest::decode(&plain[..]).unwrap();
        for scope in decoded.resource_logs.into_iter().flat_map(|resource| resource.scope_logs) {
            records.extend(scope.log_records);
        }
        let fate = Fate::Delivered {
            to: request.to,
            records: u64::from(request.records),
            reports: u64::from(request.reports),
            rejected: 0,
        };
        intake.land(ReaderId::FIRST, Signal::Logs, fate);
        intake.report_drops();
    }
    records
}

fn text(record: &LogRecord) -> String {
    match record.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

fn attribute<'a>(record: &'a LogRecord, name: &str) -> Option<&'a Value> {
    record.attributes.iter().find(|pair| pair.key == name)?.value.as_ref()?.value.as_ref()
}

fn texts(records: &[LogRecord]) -> Vec<String> {
    records.iter().map(text).collect()
}

pub(super) fn line(text: &str) -> String {
    format!(r#"{{"time":"2026-10-08T07:30:27.768Z","type":"function","record":"{text}"}}"#)
}

pub(super) fn body(lines: impl IntoIterator<Item = String>) -> Vec<u8> {
    format!("[{}]", lines.into_iter().collect::<Vec<_>>().join(",")).into_bytes()
}

#[test]
fn bodies_that_are_no_telemetry_are_told_at_once_and_then_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    for (number, untold) in [(0, 0), (1, 1), (2, 2)] {
        assert_eq!(take(&mut intake, format!("rubbish {number}").as_bytes(), 1), Receipt::Unreadable);
        intake.report_drops();
        assert_eq!(intake.untold.unreadable.0, untold);
    }
    intake.tell_losses_now();
    assert_eq!(intake.untold.unreadable, (0, 0));
}

#[test]
fn what_a_full_queue_turns_away_is_told_at_once_and_then_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open_limited(dir.path(), Limits::new(16 << 10, Overflow::DropNewest));
    let mut told = Vec::new();
    for number in 0..9 {
        let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(5_000).collect();
        take(&mut intake, &body([line(&format!("{number} {noise}"))]), 1);
        if intake.queue.owes_overflow() {
            intake.report_drops();
            told.push(!intake.queue.owes_overflow());
        }
    }
    assert!(told.len() > 2 && told[0] && !told[1..].contains(&true), "{told:?}");
    intake.queue.close();
    assert!(!intake.queue.owes_overflow());
}

/// The two halves of a cut record.
const HEAD: &[u8] = br#"[{"time":"2026-09-03T14:29:52.929Z","type":"function","record":{"message":"AAAA}]"#;
const TAIL: &[u8] = br#"[{"time":"2026-09-03T14:29:52.929Z","type":"function","record":BBBB"}}]"#;

#[test]
fn a_repeated_delivery_is_recognised_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let delivery = body([line("one"), line("two")]);
    let mut intake = open(dir.path());
    assert_eq!(take(&mut intake, &delivery, 1), Receipt::Kept);
    assert_eq!(take(&mut intake, &delivery, 2), Receipt::Repeated);
    let mut intake = open(dir.path());
    assert_eq!(take(&mut intake, &delivery, 3), Receipt::Repeated);
    assert_eq!(texts(&drain(&mut intake)), ["one", "two"]);
    assert_eq!(take(&mut intake, &delivery, 4), Receipt::Repeated);
}

#[test]
fn a_delivery_that_was_cut_short_by_a_kill_is_completed_without_repeats() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(5);
    let padding: String = (0..1000).map(|_| rng.alphanumeric()).collect();
    let expected: Vec<String> = (0..900).map(|n| format!("{n} {padding}")).collect();
    let delivery = body(expected.iter().map(|text| line(text)));
    assert_eq!(take(&mut open(dir.path()), &delivery, 1), Receipt::Kept);
    // The write of the last block did not happen.
    let segment = dir.path().join("0000000001.seg");
    let len = std::fs::metadata(&segment).unwrap().len();
    std::fs::File::options().write(true).open(&segment).unwrap().set_len(len - 10).unwrap();

    let mut intake = open(dir.path());
    while intake.queue.count_one() {}
    let kept = intake.queue.waiting(Signal::Logs).records;
    assert!(kept > 0 && kept < 900, "{kept}");
    assert_eq!(take(&mut intake, &delivery, 2), Receipt::Kept);
    assert_eq!(texts(&drain(&mut intake)), expected);
    assert_eq!(take(&mut intake, &delivery, 3), Receipt::Repeated);
}

#[test]
fn the_halves_of_a_cut_record_are_joined_also_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    assert_eq!(take(&mut intake, &body([line("before")]), 1), Receipt::Kept);
    assert_eq!(take(&mut intake, HEAD, 2), Receipt::Kept);
    assert_eq!(take(&mut intake, HEAD, 3), Receipt::Repeated);
    let mut intake = open(dir.path());
    assert_eq!(take(&mut intake, HEAD, 4), Receipt::Repeated);
    assert_eq!(take(&mut intake, TAIL, 5), Receipt::Kept);
    assert_eq!(take(&mut intake, TAIL, 6), Receipt::Repeated);
    let mut intake = open(dir.path());
    assert_eq!(take(&mut intake, &body([line("after")]), 7), Receipt::Kept);
    assert_eq!(texts(&drain(&mut intake)), ["before", "AAAABBBB", "after"]);
}

#[test]
fn parts_of_two_cut_records_that_are_the_same_are_no_repeats() {
    let head = |text: &str| {
        let envelope = r#"[{"time":"2026-09-03T14:29:52.929Z","type":"function","record":"#;
        format!(r#"{envelope}"{text}}}]"#)
    };
    let tail = br#"[{"time":"2026-09-03T14:29:52.929Z","type":"function","record":"}]"#;
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    let expected = ["one", "two", "three"];
    for text in expected {
        assert_eq!(take(&mut intake, head(text).as_bytes(), 1), Receipt::Kept);
        assert_eq!(take(&mut intake, head(text).as_bytes(), 1), Receipt::Repeated);
        assert_eq!(take(&mut intake, tail, 2), Receipt::Kept);
        assert_eq!(take(&mut intake, tail, 3), Receipt::Repeated);
    }
    // A process that knows none of them to be the latest takes them for repeats.
    let mut intake = open(dir.path());
    for text in expected {
        assert_eq!(take(&mut intake, head(text).as_bytes(), 4), Receipt::Repeated);
        assert_eq!(take(&mut intake, tail, 5), Receipt::Repeated);
    }
    assert_eq!(texts(&drain(&mut intake)), expected);
}

#[test]
fn half_a_record_whose_rest_never_comes_is_delivered_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    assert_eq!(take(&mut intake, HEAD, SECOND_NANOS), Receipt::Kept);
    assert_eq!(take(&mut intake, &body([line("soon")]), 2 * SECOND_NANOS), Receipt::Kept);
    assert_eq!(texts(&drain(&mut intake)), ["soon"]);
    assert_eq!(take(&mut intake, &body([line("late")]), 60 * SECOND_NANOS), Receipt::Kept);
    let records = drain(&mut intake);
    assert_eq!(records.len(), 2);
    assert!(text(&records[0]).contains("AAAA"), "{}", text(&records[0]));
    assert_eq!(attribute(&records[0], "outlast.cut"), Some(&Value::BoolValue(true)));
    assert_eq!(text(&records[1]), "late");
    assert!(intake.queue.fragment().is_none());
    // Nor is it found again.
    assert!(open(dir.path()).queue.fragment().is_none());
}

#[test]
fn at_shutdown_half_a_record_waits_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    assert_eq!(take(&mut intake, HEAD, 1), Receipt::Kept);
    intake.finish();
    assert_eq!(drain(&mut intake).len(), 1);
}

#[test]
fn what_is_no_telemetry_is_counted_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    for garbage in [&b"hello"[..], b"", b"{\"time\":1}", b"\xff\xfe"] {
        assert_eq!(take(&mut intake, garbage, 1), Receipt::Unreadable, "{garbage:?}");
    }
    intake.report_drops();
    let records = drain(&mut intake);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].event_name, report::EVENT_NAME);
    assert_eq!(attribute(&records[0], "outlast.dropped.records"), Some(&Value::IntValue(4)));
    assert_eq!(
        attribute(&records[0], "outlast.dropped.reason"),
        Some(&Value::StringValue("unreadable".into()))
    );
    // Told once, also to the next process.
    let mut intake = open(dir.path());
    intake.report_drops();
    assert_eq!(drain(&mut intake), []);
}

#[test]
fn a_report_that_is_rejected_begets_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    assert_eq!(take(&mut intake, b"garbage", 1), Receipt::Unreadable);
    assert!(intake.owes_reports());
    intake.report_drops();
    assert!(!intake.owes_reports());
    let run = Portion::Run { max_blocks: 9, max_bytes: 1 << 20 };
    let request = intake.assemble(ReaderId::FIRST, Signal::Logs, run, Encoding::Gzip).unwrap();
    let (records, reports) = (u64::from(request.records), u64::from(request.reports));
    assert_eq!((records, reports), (1, 1));
    intake.land(
        ReaderId::FIRST,
        Signal::Logs,
        Fate::Delivered { to: request.to, records, reports, rejected: 1 },
    );
    assert!(!intake.owes_reports());
    assert_eq!(intake.queue.ledger().dropped(Signal::Logs), 1);
}

#[test]
fn what_a_refused_report_said_is_said_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    take(&mut intake, &body([line("poison")]), 0);
    let refuse_the_oldest = |intake: &mut Intake| {
        let head = intake.queue.oldest(Signal::Logs).unwrap().seq.0;
        let run = Portion::Run { max_blocks: 1, max_bytes: 1 << 20 };
        intake.assemble(ReaderId::FIRST, Signal::Logs, run, Encoding::Gzip).unwrap();
        intake.land(ReaderId::FIRST, Signal::Logs, Fate::Kept);
        intake.land(ReaderId::FIRST, Signal::Logs, Fate::Settled { head, refused: 1, delivered: 0 });
    };
    refuse_the_oldest(&mut intake);
    intake.report_drops_now();
    refuse_the_oldest(&mut intake);
    assert_eq!(intake.queue.waiting(Signal::Logs).blocks, 0);
    assert!(intake.owes_reports());
    intake.report_drops_now();
    assert_eq!(attribute(&drain(&mut intake)[0], "outlast.dropped.records"), Some(&Value::IntValue(1)));
    assert_eq!(*intake.summary().main.dropped.get(Signal::Logs), 1, "a report is no record of the user's");
}

#[test]
fn an_empty_delivery_is_kept_as_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    assert_eq!(take(&mut intake, b"[]", 1), Receipt::Kept);
    assert_eq!(drain(&mut intake), []);
}

#[test]
fn what_overflows_is_reported_when_the_backend_is_back_and_adds_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open_with(dir.path(), 2 << 20);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut sent = Vec::new();
    intake.land(ReaderId::FIRST, Signal::Logs, Fate::Kept);
    for n in 0..60u32 {
        let padding: String = (0..90_000).map(|_| rng.alphanumeric()).collect();
        let text = format!("{n} {padding}");
        assert_eq!(take(&mut intake, &body([line(&text)]), u64::from(n)), Receipt::Kept);
        sent.push(text);
        intake.report_drops();
    }
    let dropped = intake.queue.ledger().dropped(Signal::Logs);
    assert!(dropped > 10, "{dropped}");
    let records = drain(&mut intake);
    let (reports, logs): (Vec<_>, Vec<_>) = records.iter().partition(|r| r.event_name == report::EVENT_NAME);
    let logs: Vec<String> = logs.into_iter().map(text).collect();
    assert_eq!(logs, sent[usize::try_from(dropped).unwrap()..]);
    assert_eq!(reports.len(), 1);
    assert_eq!(
        attribute(reports[0], "outlast.dropped.records"),
        Some(&Value::IntValue(i64::try_from(dropped).unwrap()))
    );
}

#[test]
fn facts_are_noted_once_per_delivery_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    let delivery = br#"[{"time":"2026-10-08T07:30:27.768Z","type":"platform.start","record":{"requestId":"r"}},
        {"time":"2026-10-08T07:30:27.768Z","type":"platform.runtimeDone","record":{"requestId":"r","status":"success","metrics":{"durationMs":12.5}}}]"#;
    let noted = intake.take(delivery, 1).noted;
    let ran = Some(Duration::from_micros(12_500));
    assert_eq!(noted, [Noted::Started(token("r")), Noted::Done(token("r"), ran)]);
    assert_eq!(intake.take(delivery, 1).noted, []);
}

#[tokio::test]
async fn a_level_comes_back_also_when_the_job_came_to_grief() {
    let (jobs, mut inbox) = mpsc::unbounded_channel();
    let keeper = async {
        // A panic drops the reply.
        assert!(matches!(inbox.recv().await, Some(Job::Land { signal: Signal::Logs, .. })));
        let Some(Job::Level(ReaderId::FIRST, Signal::Logs, reply)) = inbox.recv().await else {
            panic!("not asked again")
        };
        answer(reply, Level { revision: 7, backlog: Backlog::default() });
    };
    let (level, ()) = tokio::join!(land(&jobs, ReaderId::FIRST, Signal::Logs, Fate::Kept), keeper);
    assert_eq!(level.map(|level| level.revision), Some(7));
}

#[test]
fn half_a_record_that_finds_the_queue_full_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open_limited(dir.path(), Limits::new(256 << 10, Overflow::DropNewest));
    let mut rng = fastrand::Rng::with_seed(3);
    let mut text = || -> String { (0..20_000).map(|_| rng.alphanumeric()).collect() };
    let head = String::from_utf8_lossy(HEAD).replace("AAAA", &text());
    assert_eq!(take(&mut intake, head.as_bytes(), 0), Receipt::Kept);
    while intake.queue.ledger().dropped(Signal::Logs) == 0 {
        take(&mut intake, &body([line(&text())]), SECOND_NANOS);
    }
    for n in 0..5 {
        take(&mut intake, &body([line(&text())]), (60 + n) * SECOND_NANOS);
    }
    // The half, once, and each of the six.
    assert_eq!(intake.queue.ledger().dropped(Signal::Logs), 7);
}

#[test]
fn a_refusal_is_reported_without_waiting_for_a_delivery() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    take(&mut intake, &body([line("poison")]), 1);
    let run = Portion::Run { max_blocks: 1, max_bytes: 1 << 20 };
    let request = intake.assemble(ReaderId::FIRST, Signal::Logs, run, Encoding::Gzip).unwrap();
    intake.land(ReaderId::FIRST, Signal::Logs, Fate::Kept);
    intake.land(
        ReaderId::FIRST,
        Signal::Logs,
        Fate::Settled { head: request.head.0, refused: 1, delivered: 0 },
    );
    intake.report_drops();
    assert_eq!(drain(&mut intake).len(), 1);
}

#[tokio::test]
async fn deliveries_are_kept_also_when_the_lifecycle_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let keeper = Keeper::start(Setup {
        dir: dir.path().to_path_buf(),
        disk: || Box::new(RealDisk),
        limits: Limits::new(64 << 20, Overflow::DropOldest),
        wire: Box::new(Otlp),
        about: About::default(),
        epoch_unix_nanos: 0,
        readers: Readers::default(),
        making: logs_only(),
        completes_resources: false,
    })
    .unwrap();
    let inbox = keeper.inbox.clone();
    drop(keeper);
    let (reply, receipt) = oneshot::channel();
    let body = body([line("kept")]).into();
    inbox.send(Delivery { body, received_unix_nanos: 1, reply }).await.unwrap();
    assert_eq!(receipt.await, Ok(Receipt::Kept));
}

#[test]
fn copies_of_a_snapshot_name_their_records_apart() {
    let uid = |instance: &str| {
        let dir = tempfile::tempdir().unwrap();
        fastrand::seed(1);
        let mut intake = open(dir.path());
        let restored = format!(
            r#"[{{"time":"2026-10-08T07:30:27.768Z","type":"platform.restoreStart","record":{{"instanceId":"{instance}"}}}}]"#
        );
        take(&mut intake, restored.as_bytes(), 1);
        take(&mut intake, &body([line("the same in both")]), 2);
        attribute(&drain(&mut intake)[1], "log.record.uid").cloned()
    };
    assert_ne!(uid("a"), uid("b"));
}

mod lines;
mod signals;

/// OTLP, but for a bug: it panics at records of a type, or at every record.
struct Buggy(Option<&'static str>);

impl WireFormat for Buggy {
    fn id(&self) -> u8 {
        Otlp.id()
    }
    fn content_type(&self) -> &'static str {
        Otlp.content_type()
    }
    fn path(&self, signal: Signal, given: &str) -> String {
        Otlp.path(signal, given)
    }
    fn framing(&self, signal: Signal) -> crate::encode::Framing {
        Otlp.framing(signal)
    }
    fn block_head(&self, signal: Signal, resource: &Resource, records_len: usize, out: &mut Vec<u8>) {
        Otlp.block_head(signal, resource, records_len, out);
    }
    fn log(&self, resource: &Resource, record: &crate::record::LogRecord<'_>, out: &mut Vec<u8>) {
        let kind = record.attributes.iter().find(|(name, _)| name == "aws.lambda.telemetry.type");
        let kind = kind.map(|(_, value)| format!("{value:?}"));
        let bitten = self.0.is_none_or(|bad| kind.is_some_and(|kind| kind.contains(bad)));
        assert!(!bitten, "a bug, on purpose");
        Otlp.log(resource, record, out);
    }
    fn parts(&self, plain: &[u8]) -> Result<crate::encode::Parts, crate::encode::SplitError> {
        Otlp.parts(plain)
    }
    fn subset(&self, plain: &[u8], parts: &crate::encode::Parts, records: std::ops::Range<usize>) -> Vec<u8> {
        Otlp.subset(plain, parts, records)
    }
}

fn open_buggy(dir: &Path, bad: Option<&'static str>) -> Intake {
    let (queue, _) = Queue::open(Box::new(RealDisk), dir, Limits::new(64 << 20, Overflow::DropOldest), 1);
    Intake::new(queue, Box::new(Buggy(bad)), About::default(), logs_only())
}

#[test]
fn a_panic_over_a_delivery_costs_its_meaning_and_not_its_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open_buggy(dir.path(), Some("platform.odd"));
    let odd = r#"{"time":"2026-10-08T07:30:27.768Z","type":"platform.odd","record":{"a":1}}"#;
    let delivery = body([line("one"), odd.to_owned()]);
    assert_eq!(take(&mut intake, &delivery, 1), Receipt::Kept);
    assert_eq!(take(&mut intake, &delivery, 2), Receipt::Repeated);
    assert_eq!(take(&mut intake, &body([line("two")]), 3), Receipt::Kept);
    assert_eq!(texts(&drain(&mut intake)), [&line("one"), odd, "two"]);
}

#[test]
fn a_delivery_that_cannot_even_be_kept_as_text_is_counted_and_not_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open_buggy(dir.path(), None);
    let delivery = body([line("one")]);
    assert_eq!(take(&mut intake, &delivery, 1), Receipt::Unreadable);
    assert_eq!(take(&mut intake, &delivery, 2), Receipt::Repeated);
    assert_eq!(intake.queue.ledger().dropped(Signal::Logs), 1);
}

#[test]
fn without_any_directory_memory_serves_and_ends_by_turning_away() {
    let dir = tempfile::tempdir().unwrap();
    let setup = OpenSetup {
        dir: dir.path().into(),
        disk: || Box::new(RealDisk),
        limits: Limits::new(64 << 20, Overflow::DropOldest),
        epoch_unix_nanos: 0,
        readers: Readers::default(),
    };
    let mut intake = Intake::new(setup.in_memory(), Box::new(Otlp), About::default(), logs_only());
    assert_eq!(take(&mut intake, &body([line("one")]), 1), Receipt::Kept);
    assert!(!intake.queue.try_disk());
    assert_eq!(take(&mut intake, &body([line("two")]), 2), Receipt::Kept);
    assert_eq!(texts(&drain(&mut intake)), ["one", "two"]);
    let mut rng = fastrand::Rng::with_seed(7);
    let large: String = (0..1 << 20).map(|_| rng.alphanumeric()).collect();
    let full = (0..20).map(|n| take(&mut intake, &body([line(&format!("{n}{large}"))]), n));
    assert_eq!(full.last(), Some(Receipt::Full));
}

#[test]
fn what_the_fallback_has_is_counted_without_our_reports_and_the_count_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    assert_eq!(take(&mut intake, b"garbage", 1), Receipt::Unreadable);
    intake.report_drops();
    assert_eq!(take(&mut intake, &body([line("a"), line("b"), line("c")]), 2), Receipt::Kept);
    let run = Portion::Run { max_blocks: 9, max_bytes: 1 << 20 };
    let request = intake.assemble(ReaderId::FIRST, Signal::Logs, run, Encoding::Gzip).unwrap();
    let (records, reports) = (u64::from(request.records), u64::from(request.reports));
    assert_eq!((records, reports), (4, 1));
    intake.land(
        ReaderId::FIRST,
        Signal::Logs,
        Fate::HandedOver { to: request.to, records, reports, rejected: 1 },
    );
    let summary = intake.summary();
    assert_eq!(
        (summary.main.delivered, summary.main.handed, *summary.main.dropped.get(Signal::Logs)),
        (0, 2, 2),
        "one was rejected"
    );
    assert_eq!(summary.main.waiting.get(Signal::Logs).records, 0);
    drop(intake);
    let mut intake = open(dir.path());
    assert_eq!(intake.summary().main.handed, 2);
    intake.report_drops();
    assert_eq!(drain(&mut intake).len(), 1, "the report of what was rejected is all that is left");
}

#[test]
fn a_queue_that_is_nearly_full_says_so_whichever_signal_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let open = OpenSetup {
        dir: dir.path().to_path_buf(),
        disk: || Box::new(RealDisk),
        limits: Limits::new(1 << 20, Overflow::DropOldest),
        epoch_unix_nanos: 0,
        readers: Readers::default(),
    };
    let mut intake = open_limited(dir.path(), open.limits);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut crowded_at = None;
    for n in 0..12u64 {
        let noise: String = (0..90_000).map(|_| rng.alphanumeric()).collect();
        assert_eq!(take(&mut intake, &body([line(&noise)]), n), Receipt::Kept);
        let crowded = Signal::ALL.map(|signal| open.backlog(&mut intake.queue, signal).crowded);
        assert!(crowded.iter().all(|other| *other == crowded[0]), "{crowded:?}");
        assert_eq!(crowded[0], intake.queue.disk_bytes() >= 3 << 18);
        let brimming = Signal::ALL.map(|signal| open.backlog(&mut intake.queue, signal).brimming);
        assert_eq!(brimming, [intake.queue.disk_bytes() >= 7 << 17; 3]);
        if crowded[0] && crowded_at.is_none() {
            crowded_at = Some(n);
        }
    }
    assert!(crowded_at.is_some_and(|at| at > 4), "{crowded_at:?}");
}

const A: &str = "79b5e81f-9cdd-4145-b1f6-7c50ef8a2a36";
const B: &str = "f0c9f58b-8ebe-4e84-a656-95eb6eee865a";

fn platform(second: u32, kind: &str, record: &str) -> String {
    format!(r#"{{"time":"2026-10-08T07:30:{second:02}.000Z","type":"platform.{kind}","record":{record}}}"#)
}

/// The text of lines of the function's, each with its invocation.
fn lines_of(records: &[LogRecord]) -> Vec<(String, Option<String>)> {
    let lines = records.iter().filter(|record| record.event_name.is_empty());
    let id = |record: &LogRecord| match attribute(record, "faas.invocation_id") {
        Some(Value::StringValue(id)) => Some(id.clone()),
        _ => None,
    };
    lines.map(|record| (text(record), id(record))).collect()
}

#[test]
fn a_line_belongs_to_the_invocation_that_runs_whatever_comes_late() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open(dir.path());
    let start = |second, id: &str| platform(second, "start", &format!(r#"{{"requestId":"{id}"}}"#));
    let report = |second, id: &str| {
        platform(second, "report", &format!(r#"{{"requestId":"{id}","status":"success"}}"#))
    };
    let init =
        |second| platform(second, "initStart", r#"{"initializationType":"on-demand","instanceId":"i"}"#);
    let events = [
        start(10, A),
        init(9),
        line("of A"),
        start(20, B),
        report(19, A),
        line("of B"),
        report(21, B),
        line("of none"),
        start(30, A),
        init(40),
        line("of none either"),
    ];
    take(&mut intake, &body(events), SECOND_NANOS);
    let of = |text: &str, id: Option<&str>| (text.to_owned(), id.map(str::to_owned));
    assert_eq!(
        lines_of(&drain(&mut intake)),
        [of("of A", Some(A)), of("of B", Some(B)), of("of none", None), of("of none either", None)]
    );
}

#[test]
fn the_lines_of_an_invocation_without_a_header_are_in_the_trace_of_its_span() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open_making(dir.path(), Making::default());
    let other = "00-6352a70e1e2c502e358361800241fd45-35465b3a9e2f7c6a-01";
    let events = [
        platform(10, "start", &format!(r#"{{"requestId":"{A}"}}"#)),
        line("one"),
        line(&format!("traceparent={other}")),
        line("two"),
    ];
    take(&mut intake, &body(events), SECOND_NANOS);
    let records = drain(&mut intake);
    let lines: Vec<_> = records.iter().filter(|record| record.event_name.is_empty()).collect();
    assert_eq!((lines[0].trace_id.len(), lines[0].span_id.len()), (16, 8));
    assert_eq!((&lines[0].trace_id, &lines[0].span_id), (&lines[2].trace_id, &lines[2].span_id));
    assert_eq!(lines[1].trace_id, 0x6352_a70e_1e2c_502e_3583_6180_0241_fd45_u128.to_be_bytes());
    assert_eq!(lines[1].span_id, 0x3546_5b3a_9e2f_7c6a_u64.to_be_bytes());
}

#[test]
fn embedded_metrics_date_their_record_and_are_found_behind_what_node_writes() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = open_making(dir.path(), Making::default());
    let metrics = |more: &str| {
        format!(
            r#"{{\"_aws\":{{\"Timestamp\":1791444627700,\"CloudWatchMetrics\":[{{\"Namespace\":\"n\",\"Dimensions\":[[]],\"Metrics\":[{{\"Name\":\"ms\"}}]}}]}},\"ms\":7{more}}}"#
        )
    };
    let node = format!("2026-10-08T07:30:27.750Z\\t{A}\\tWARN\\t");
    let events = [
        line(&metrics(r#",\"order\":\"a\""#)),
        line(&format!("{node}{}\\n", metrics(r#",\"order\":\"b\""#))),
        line(&format!("{node}{}\\n", metrics(""))),
    ];
    take(&mut intake, &body(events), 1_791_444_628 * SECOND_NANOS);
    let run = Portion::Run { max_blocks: 100, max_bytes: 1 << 20 };
    let points = intake.assemble(ReaderId::FIRST, Signal::Metrics, run, Encoding::Gzip).unwrap();
    assert_eq!(points.records, 3);
    let records = drain(&mut intake);
    assert_eq!(records.len(), 2, "metrics alone leave no record");
    assert_eq!(records[0].time_unix_nano, 1_791_444_627_700_000_000, "as `Timestamp` says");
    let node = node.replace("\\t", "\t");
    assert_eq!(text(&records[1]), format!(r#"{node}{{"order":"b"}}"#));
    assert_eq!(records[1].time_unix_nano, 1_791_444_627_750_000_000, "as the line says");
    assert_eq!(records[1].severity_text, "WARN");
}
