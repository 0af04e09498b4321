//! Recorded deliveries, from the bytes Lambda posted to the bytes a backend gets, read by another's decoder.

#![allow(clippy::expect_used, clippy::panic)] // helpers of tests are not seen as tests

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::logs::v1::LogRecord as OtlpRecord;
use outlast::Signal;
use outlast::encode::{Otlp, WireFormat};
use outlast::record::{
    Context, Event, Fact, Join, LogRecord, Piece, Resource, ResourceInputs, Split, event::Status, join,
    salvage, split,
};
use prost::Message;

/// When the deliveries are said to arrive, and what a record without a time gets.
const OBSERVED: u64 = 1_800_000_000_000_000_000;

macro_rules! sample {
    ($name:literal) => {
        include_bytes!(concat!("telemetry/", $name))
    };
}

/// Every whole sample, for what holds for all of them.
const ALL: [&[u8]; 9] = [
    sample!("01-cold-start-success-node18-2024.json"),
    sample!("03-fixtures-2022-traced-invoke.json"),
    sample!("04-shapes-restore-dropped-error.json"),
    sample!("06-init-timeout-and-warm-2024.json"),
    sample!("07-cold-warm-new-fields-node22-2026.json"),
    sample!("08-managed-instances.json"),
    sample!("10-logs-api-legacy-batch-2022.json"),
    sample!("11-legacy-string-records.json"),
    sample!("12-function-record-forms.json"),
];

fn events(body: &[u8]) -> Vec<Event<'_>> {
    match split(body) {
        Split::Events(events) => events.into_iter().map(Event::parse).collect(),
        other => panic!("{other:?}"),
    }
}

fn delivered(events: &[Event<'_>], running: Option<&str>) -> Vec<OtlpRecord> {
    let resource = Resource::build(&ResourceInputs {
        function_name: Some("f"),
        function_version: Some("$LATEST"),
        ..Default::default()
    });
    let context = Context { request_id: running };
    let mut records = Vec::new();
    for event in events {
        Otlp.log(&resource, &LogRecord::from_event(event, &context, OBSERVED, "uid"), &mut records);
    }
    let mut block = Vec::new();
    Otlp.block_head(Signal::Logs, &resource, records.len(), &mut block);
    block.extend_from_slice(&records);
    assert_eq!(Otlp.parts(&block).expect("our own").records.len(), events.len());
    let request = ExportLogsServiceRequest::decode(block.as_slice()).expect("a request");
    let scope_logs = request.resource_logs.into_iter().flat_map(|logs| logs.scope_logs);
    scope_logs.flat_map(|logs| logs.log_records).collect()
}

fn sample(body: &[u8]) -> Vec<OtlpRecord> {
    delivered(&events(body), None)
}

/// A decoded value as JSON, to compare with what was sent.
fn json(value: Option<&AnyValue>) -> serde_json::Value {
    match value.and_then(|value| value.value.as_ref()) {
        None => serde_json::Value::Null,
        Some(Any::StringValue(text)) => text.clone().into(),
        Some(Any::BoolValue(value)) => (*value).into(),
        Some(Any::IntValue(value)) => (*value).into(),
        Some(Any::DoubleValue(value)) => (*value).into(),
        Some(Any::ArrayValue(array)) => array.values.iter().map(|value| json(Some(value))).collect(),
        Some(Any::KvlistValue(list)) => {
            list.values.iter().map(|field| (field.key.clone(), json(field.value.as_ref()))).collect()
        }
        Some(other) => panic!("{other:?}"),
    }
}

fn body(record: &OtlpRecord) -> serde_json::Value {
    json(record.body.as_ref())
}

fn attribute(record: &OtlpRecord, name: &str) -> serde_json::Value {
    json(
        record
            .attributes
            .iter()
            .find(|field: &&KeyValue| field.key == name)
            .and_then(|field| field.value.as_ref()),
    )
}

fn invocations(records: &[OtlpRecord]) -> Vec<serde_json::Value> {
    records.iter().map(|record| attribute(record, "faas.invocation_id")).collect()
}

#[test]
fn every_platform_record_arrives_whole_under_its_name_at_its_time() {
    for bytes in ALL {
        let sent: Vec<serde_json::Value> = serde_json::from_slice(bytes).expect("JSON");
        let arrived = sample(bytes);
        assert_eq!(arrived.len(), sent.len());
        for (sent, arrived) in sent.iter().zip(&arrived) {
            let kind = sent["type"].as_str().expect("a type");
            assert_eq!(attribute(arrived, "aws.lambda.telemetry.type"), kind);
            assert_eq!(attribute(arrived, "log.record.uid"), "uid");
            assert_eq!(arrived.observed_time_unix_nano, OBSERVED);
            assert!(arrived.time_unix_nano < OBSERVED, "{sent}");
            assert_eq!(arrived.dropped_attributes_count, 0);
            if kind.starts_with("platform.") {
                assert_eq!((arrived.event_name.as_str(), body(arrived)), (kind, sent["record"].clone()));
                assert_eq!(
                    attribute(arrived, "faas.invocation_id").as_str().is_some(),
                    names_a_request(&sent["record"]),
                    "{sent}"
                );
            } else {
                assert_eq!(arrived.event_name, "");
            }
        }
    }
}

fn names_a_request(record: &serde_json::Value) -> bool {
    record.get("requestId").is_some() || record.as_str().is_some_and(|line| line.contains("RequestId: "))
}

#[test]
fn sample_01_a_json_line_goes_to_its_places() {
    let arrived = sample(ALL[0]);
    let line = &arrived[4];
    assert_eq!(body(line), "ENV 2024-05-20T16:29:42.891Z");
    assert_eq!((line.severity_number, line.severity_text.as_str()), (9, "INFO"));
    assert_eq!(attribute(line, "faas.invocation_id"), "4b142fc3-17b8-4cdb-a46b-a8dbe7918715");
    assert_eq!(line.time_unix_nano, 1_716_222_585_009_000_000);
    assert_eq!(line.attributes.len(), 3);
    assert!(arrived.iter().all(|record| record.severity_number == 9));
}

#[test]
fn sample_01_tells_the_lifecycle_where_the_invocation_begins_and_ends() {
    let events = events(ALL[0]);
    let id = "4b142fc3-17b8-4cdb-a46b-a8dbe7918715";
    let facts: Vec<_> = events.iter().filter_map(Event::fact).collect();
    assert!(
        matches!(&facts[0], Fact::InitStart(instance) if instance.function_version.as_deref() == Some("$LATEST"))
    );
    assert_eq!(facts[1], Fact::Start { request_id: Some(id.into()) });
    let success = Some(Status::Success);
    assert_eq!(
        facts[2],
        Fact::RuntimeDone { request_id: Some(id.into()), status: success, duration_ms: Some(11.185) }
    );
    assert_eq!(facts[3], Fact::Report { request_id: Some(id.into()), status: success });
    assert_eq!(facts.len(), 4);
}

#[test]
fn sample_03_is_linked_to_its_x_ray_trace() {
    let arrived = sample(ALL[1]);
    let traced: Vec<_> = arrived.iter().filter(|record| !record.trace_id.is_empty()).collect();
    assert_eq!(traced.len(), 3);
    for record in traced {
        assert_eq!(
            u128::from_be_bytes(record.trace_id.clone().try_into().unwrap()),
            0x6352_a70e_1e2c_502e_3583_6180_0241_fd45
        );
        assert_eq!(u64::from_be_bytes(record.span_id.clone().try_into().unwrap()), 0x24cd_7d67_0fa4_55f0);
        assert_eq!(record.flags, 1);
    }
}

#[test]
fn sample_04_shows_what_failed() {
    let severities: Vec<_> = sample(ALL[2]).iter().map(|record| record.severity_text.clone()).collect();
    assert_eq!(
        severities,
        [
            "INFO", "INFO", "INFO", "INFO", "ERROR", "WARN", "WARN", "ERROR", "ERROR", "ERROR", "ERROR",
            "ERROR", "INFO", "INFO"
        ]
    );
    let facts: Vec<_> = events(ALL[2]).iter().filter_map(Event::fact).collect();
    let Fact::RestoreStart(instance) = &facts[0] else { panic!("{facts:?}") };
    assert_eq!(instance.max_memory_bytes, Some(256 << 20));
    assert_eq!(instance.id.as_deref(), Some("82561ce0-53dd-47d1-90e0-c8f5e063e62e"));
    assert!(facts.contains(&Fact::LogsDropped { records: Some(123), bytes: Some(12345) }));
    assert!(facts.contains(&Fact::LogsDropped { records: Some(1), bytes: Some(1024) }));
}

#[test]
fn sample_06_has_a_timeout() {
    let arrived = sample(ALL[3]);
    assert_eq!(arrived[0].severity_text, "ERROR");
    assert_eq!(body(&arrived[0])["metrics"]["durationMs"], 10000.487);
    assert_eq!(
        invocations(&arrived)[1..],
        ["40f6c622-67a3-4159-97f2-ce364a0cb7a8", "ca52c236-a38d-40fc-aa6b-7e3be2b7aa55"]
    );
}

#[test]
fn sample_07_carries_the_fields_of_2026() {
    let arrived = sample(ALL[4]);
    assert_eq!(body(&arrived[0])["instanceMaxMemory"], 268_435_456);
    assert_eq!(arrived[0].time_unix_nano, 1_791_444_627_768_000_000);
    assert_eq!(body(&arrived[2]), "{\"level\":\"ERROR\"}");
    assert_eq!(arrived[2].severity_number, 17);
    let events = events(ALL[4]);
    let Some(Fact::InitStart(instance)) = events[0].fact() else { panic!("initStart") };
    assert_eq!(instance.max_memory_bytes, Some(268_435_456));
    assert_eq!(
        instance.id.as_deref(),
        Some("2026/10/08/tenner-notifier[$LATEST]22be53a8cfde4e68b844f8ec293b2543")
    );
}

#[test]
fn sample_08_reports_without_a_running_invocation() {
    let arrived = sample(ALL[5]);
    assert_eq!(
        invocations(&arrived),
        [serde_json::Value::Null, "13d1305b-a2f5-440c-bfbe-686ccff3d3e0".into()]
    );
    assert_eq!(body(&arrived[1])["spans"][0]["durationMs"], 0.847);
}

#[test]
fn sample_10_lines_of_node_say_whose_they_are() {
    let arrived = sample(ALL[6]);
    assert!(invocations(&arrived).iter().all(|id| id == "b5051b53-a6df-4bb7-aba7-874520d1ec77"));
    let line = &arrived[1];
    assert_eq!(
        body(line),
        "2022-06-23T18:14:44.993Z\tb5051b53-a6df-4bb7-aba7-874520d1ec77\tINFO\tInside Lambda function handler"
    );
    assert_eq!(line.severity_text, "INFO");
    assert_eq!(arrived[4].event_name, "platform.end");
}

#[test]
fn sample_11_platform_lines_are_read_as_far_as_they_can_be() {
    let arrived = sample(ALL[7]);
    let ids = [
        "d783b35e-a91d-4251-af17-035953428a2c",
        "7b317588-2cdc-4bef-ac04-92e83cc8f418",
        "7b317588-2cdc-4bef-ac04-92e83cc8f418",
    ];
    assert_eq!(invocations(&arrived), ids);
    assert_eq!(
        arrived.iter().map(|record| record.severity_text.as_str()).collect::<Vec<_>>(),
        ["ERROR", "INFO", "INFO"]
    );
    let facts: Vec<_> = events(ALL[7]).iter().filter_map(Event::fact).collect();
    assert_eq!(
        facts,
        [
            Fact::Start { request_id: Some(ids[1].into()) },
            Fact::Report { request_id: Some(ids[1].into()), status: None }
        ]
    );
}

#[test]
fn sample_12_every_form_of_function_record_survives() {
    let arrived = delivered(&events(ALL[8]), Some("4b142fc3-17b8-4cdb-a46b-a8dbe7918715"));
    let sent: Vec<serde_json::Value> = serde_json::from_slice(ALL[8]).expect("JSON");
    assert_eq!(body(&arrived[0]), sent[0]["record"]);
    assert_eq!(body(&arrived[0])["data"]["trace.trace_id"], "97cac7afa949e6e0ccf399e11509c275");
    assert_eq!((body(&arrived[1]), arrived[1].severity_number), ("A basic message to STDOUT".into(), 9));
    assert_eq!((body(&arrived[2]), arrived[2].severity_number), ("A basic message to STDOUT".into(), 0));
    assert_eq!(
        body(&arrived[3]),
        "{\"level\":\"info\",\"msg\":\"JSON text under TEXT format stays a string\"}"
    );
    assert_eq!(body(&arrived[4]), "plain extension line");
    assert_eq!(attribute(&arrived[4], "aws.lambda.telemetry.type"), "extension");
    assert!(invocations(&arrived).iter().all(|id| id == "4b142fc3-17b8-4cdb-a46b-a8dbe7918715"));
}

#[test]
fn sample_15_the_halves_deliver_what_the_whole_would_have() {
    let (head, tail) = (
        sample!("15-split-payload-part1.invalid-json.txt").as_slice(),
        sample!("15-split-payload-part2.invalid-json.txt").as_slice(),
    );
    let Join::Whole(joined) = join(head, tail) else { panic!("they belong together") };
    let expected = sample(sample!("15-split-payload-joined.json"));
    assert_eq!(sample(&joined), expected);
    assert_eq!(body(&expected[0]), "AAAABBBB");

    let parts = [salvage(head), salvage(tail)].concat();
    let alone: Vec<_> = parts
        .into_iter()
        .map(|piece| match piece {
            Piece::Whole(raw) => Event::parse(raw),
            Piece::Fragment(raw) => Event::cut(raw),
            Piece::Opaque(raw) => Event::opaque(raw),
        })
        .collect();
    let arrived = delivered(&alone, None);
    assert_eq!(arrived.len(), 3);
    assert_eq!(attribute(&arrived[0], "outlast.cut"), true);
    assert_eq!(arrived[0].time_unix_nano, expected[0].time_unix_nano);
    assert!(body(&arrived[0]).as_str().is_some_and(|text| text.ends_with("AAAA")));
    assert!(body(&arrived[1]).as_str().is_some_and(|text| text.ends_with("BBBB\"}}")));
    assert_eq!(arrived[2], expected[1]);
}

#[test]
fn the_destination_of_logs_is_the_specified_path() {
    assert_eq!((&*Otlp.path(Signal::Logs, ""), Otlp.content_type()), ("/v1/logs", "application/x-protobuf"));
}
