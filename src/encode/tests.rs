//! What every format has to keep to, and the bytes of each.

use proptest::prelude::*;
use serde_json::{Value as Read, json};
use std::borrow::Cow;

use super::*;
use crate::record::log::{INVOCATION_ID, TELEMETRY_TYPE, UID};
use crate::record::{Field, ResourceInputs, Severity, Value};

mod metrics;

const REQUEST: &str = "79b5e81f-9cdd-4145-b1f6-7c50ef8a2a36";

fn resource() -> Resource {
    Resource::build(&ResourceInputs {
        function_name: Some("f"),
        function_version: Some("7"),
        region: Some("eu-central-1"),
        account_id: Some("123456789012"),
        user_attributes: &[("team".to_owned(), "a,b".to_owned())],
        ..Default::default()
    })
}

fn line() -> LogRecord<'static> {
    LogRecord {
        time_unix_nanos: 1_760_000_000_123_456_789,
        observed_unix_nanos: 1_760_000_001_000_000_000,
        severity: Severity { number: 17, text: "ERROR".into() },
        body: Value::Str("say \"hi\"\n\u{1}".into()),
        attributes: vec![
            (UID.into(), Value::Str("u-1".into())),
            (INVOCATION_ID.into(), Value::Str(REQUEST.into())),
            (TELEMETRY_TYPE.into(), Value::Str("function".into())),
            ("user".into(), Value::Map(vec![("id".into(), Value::Int(7))])),
            ("service".into(), Value::Str("theirs".into())),
        ],
        trace_id: Some([0xab; 16]),
        span_id: Some([0xcd; 8]),
        trace_flags: 1,
        event_name: None,
    }
}

fn event() -> LogRecord<'static> {
    LogRecord {
        time_unix_nanos: 1_760_000_002_000_000_000,
        observed_unix_nanos: 1_760_000_003_000_000_000,
        severity: Severity { number: 9, text: "INFO".into() },
        body: Value::Map(vec![("ms".into(), Value::Double(1.5)), ("ok".into(), Value::Bool(true))]),
        attributes: vec![
            (UID.into(), Value::Str("u-2".into())),
            (TELEMETRY_TYPE.into(), Value::Str("platform.report".into())),
        ],
        event_name: Some("platform.report".into()),
        ..LogRecord::default()
    }
}

fn separated(wire: &dyn WireFormat, encoded: &mut Vec<u8>) {
    if !encoded.is_empty() {
        encoded.extend_from_slice(wire.separator());
    }
}

/// A block as the keeper makes it.
fn block(wire: &dyn WireFormat, records: &[LogRecord<'_>]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for record in records {
        separated(wire, &mut encoded);
        wire.log(&resource(), record, &mut encoded);
    }
    let mut block = Vec::new();
    wire.block_head(Signal::Logs, &resource(), encoded.len(), &mut block);
    block.extend_from_slice(&encoded);
    block
}

/// A request as the queue puts it together.
fn body(wire: &dyn WireFormat, blocks: &[Vec<u8>]) -> Vec<u8> {
    let Framing { prefix, separator, suffix } = wire.framing(Signal::Logs);
    [prefix, &blocks.join(separator), suffix].concat()
}

fn golden(protocol: Protocol) -> String {
    let wire = protocol.wire();
    let blocks = [block(wire.as_ref(), &[line(), event()]), block(wire.as_ref(), &[event()])];
    String::from_utf8(body(wire.as_ref(), &blocks)).unwrap()
}

/// `text` without the line feeds of this file and what follows them.
fn joined(text: &str) -> String {
    text.lines().map(str::trim_start).collect()
}

const IDS: &str = r#""trace_id":"abababababababababababababababab","span_id":"cdcdcdcdcdcdcdcd""#;
const RESOURCE: &str = r#"{"service.name":"f","faas.name":"f","faas.version":"7","cloud.provider":"aws","cloud.platform":"aws_lambda","cloud.region":"eu-central-1","cloud.account.id":"123456789012","cloud.resource_id":"arn:aws:lambda:eu-central-1:123456789012:function:f:7","team":"a,b"}"#;

fn lines_of_json() -> [String; 2] {
    let line = format!(
        r#"{{"timestamp":"2025-10-09T08:53:20.123456789Z","level":"ERROR","severity_number":17,"message":"say \"hi\"\n\u0001",{IDS},"trace_flags":1,"observed_timestamp":"2025-10-09T08:53:21.000000000Z","attributes":{{"log.record.uid":"u-1","faas.invocation_id":"{REQUEST}","aws.lambda.telemetry.type":"function","user":{{"id":7}},"service":"theirs"}},"resource":{RESOURCE}}}"#
    );
    let event = format!(
        r#"{{"timestamp":"2025-10-09T08:53:22.000000000Z","level":"INFO","severity_number":9,"body":{{"ms":1.5,"ok":true}},"event_name":"platform.report","observed_timestamp":"2025-10-09T08:53:23.000000000Z","attributes":{{"log.record.uid":"u-2","aws.lambda.telemetry.type":"platform.report"}},"resource":{RESOURCE}}}"#
    );
    [line, event]
}

#[test]
fn ndjson_to_the_byte() {
    let [line, event] = lines_of_json();
    assert_eq!(golden(Protocol::Ndjson), format!("{line}\n{event}\n{event}\n"));
}

#[test]
fn json_to_the_byte() {
    let [line, event] = lines_of_json();
    assert_eq!(golden(Protocol::Json), format!("[{line},\n{event},\n{event}]"));
}

#[test]
fn elasticsearch_to_the_byte() {
    let common = joined(
        r#""service.name":"f","faas.name":"f","faas.version":"7","cloud.provider":"aws","cloud.platform":"aws_lambda",
        "cloud.region":"eu-central-1","cloud.account.id":"123456789012",
        "cloud.resource_id":"arn:aws:lambda:eu-central-1:123456789012:function:f:7","labels.team":"a,b","#,
    );
    let line = format!(
        r#"{{"create":{{"_id":"u-1"}}}}
{{"@timestamp":"2025-10-09T08:53:20.123456789Z","message":"say \"hi\"\n\u0001","log.level":"ERROR","event.severity":17,"event.id":"u-1","event.created":"2025-10-09T08:53:21.000000000Z","faas.execution":"{REQUEST}","trace.id":"abababababababababababababababab","span.id":"cdcdcdcdcdcdcdcd",{common}"attributes":{{"aws.lambda.telemetry.type":"function","user":{{"id":7}},"service":"theirs"}}}}
"#
    );
    let event = format!(
        r#"{{"create":{{"_id":"u-2"}}}}
{{"@timestamp":"2025-10-09T08:53:22.000000000Z","message":"{{\"ms\":1.5,\"ok\":true}}","log.level":"INFO","event.severity":9,"event.action":"platform.report","event.id":"u-2","event.created":"2025-10-09T08:53:23.000000000Z",{common}"attributes":{{"aws.lambda.telemetry.type":"platform.report"}}}}
"#
    );
    assert_eq!(golden(Protocol::Elasticsearch), format!("{line}{event}{event}"));
}

#[test]
fn loki_to_the_byte() {
    let described = joined(
        r#""faas_version":"7","cloud_provider":"aws","cloud_platform":"aws_lambda","cloud_region":"eu-central-1",
        "cloud_account_id":"123456789012","cloud_resource_id":"arn:aws:lambda:eu-central-1:123456789012:function:f:7","team":"a,b""#,
    );
    let line = format!(
        r#"["1760000000123456789","say \"hi\"\n\u0001",{{"severity_number":"17","severity_text":"ERROR",{IDS},"observed_timestamp":"1760000001000000000","log_record_uid":"u-1","faas_invocation_id":"{REQUEST}","aws_lambda_telemetry_type":"function",{described},"user":"{{\"id\":7}}","service":"theirs"}}]"#
    );
    let event = format!(
        r#"["1760000002000000002","{{\"ms\":1.5,\"ok\":true}}",{{"severity_number":"9","severity_text":"INFO","event_name":"platform.report","observed_timestamp":"1760000003000000000","log_record_uid":"u-2","aws_lambda_telemetry_type":"platform.report",{described}}}]"#
    );
    let stream = r#"{"stream":{"service_name":"f","faas_name":"f"},"values":["#;
    let expected = format!("{{\"streams\":[{stream}\n{line},\n{event}]}},{stream}\n{event}]}}]}}");
    assert_eq!(golden(Protocol::Loki), expected);
}

#[test]
fn splunk_hec_to_the_byte() {
    let described = &RESOURCE[1..];
    let head = r#""host":"f","source":"lambda:f","sourcetype":"aws:lambda","event":"#;
    let line = format!(
        r#"{{"time":1760000000.123,{head}"say \"hi\"\n\u0001","fields":{{"severity":"ERROR","severity_number":"17",{IDS},"log.record.uid":"u-1","faas.invocation_id":"{REQUEST}","aws.lambda.telemetry.type":"function","user":"{{\"id\":7}}","service":"theirs",{described}}}"#
    );
    let event = format!(
        r#"{{"time":1760000002.000,{head}{{"ms":1.5,"ok":true}},"fields":{{"severity":"INFO","severity_number":"9","event_name":"platform.report","log.record.uid":"u-2","aws.lambda.telemetry.type":"platform.report",{described}}}"#
    );
    assert_eq!(golden(Protocol::SplunkHec), format!("{line}\n{event}\n{event}\n"));
}

#[test]
fn datadog_to_the_byte() {
    let head = joined(
        r#""ddsource":"lambda","ddtags":"functionname:f,executedversion:7,cloud.provider:aws,cloud.platform:aws_lambda,
        region:eu-central-1,account_id:123456789012,team:a_b","service":"f",
        "hostname":"arn:aws:lambda:eu-central-1:123456789012:function:f:7","#,
    );
    let arn = r#""lambda":{"arn":"arn:aws:lambda:eu-central-1:123456789012:function:f:7""#;
    let line = format!(
        r#"{{"message":"say \"hi\"\n\u0001",{head}"status":"error","timestamp":1760000000123,{arn},"request_id":"{REQUEST}"}},{IDS},"log.record.uid":"u-1","faas.invocation_id":"{REQUEST}","aws.lambda.telemetry.type":"function","user":{{"id":7}},"outlast":{{"attributes":{{"service":"theirs"}}}}}}"#
    );
    let event = format!(
        r#"{{"message":"{{\"ms\":1.5,\"ok\":true}}",{head}"status":"info","timestamp":1760000002000,{arn}}},"event_name":"platform.report","log.record.uid":"u-2","aws.lambda.telemetry.type":"platform.report"}}"#
    );
    assert_eq!(golden(Protocol::Datadog), format!("[{line},\n{event},\n{event}]"));
}

#[test]
fn newrelic_to_the_byte() {
    let line = format!(
        r#"{{"timestamp":1760000000123,"message":"say \"hi\"\n\u0001","attributes":{{"level":"ERROR","severity.number":17,"trace.id":"abababababababababababababababab","span.id":"cdcdcdcdcdcdcdcd","log.record.uid":"u-1","faas.invocation_id":"{REQUEST}","aws.lambda.telemetry.type":"function","user":"{{\"id\":7}}","service":"theirs"}}}}"#
    );
    let event = r#"{"timestamp":1760000002000,"message":"{\"ms\":1.5,\"ok\":true}","attributes":{"level":"INFO","severity.number":9,"event.name":"platform.report","log.record.uid":"u-2","aws.lambda.telemetry.type":"platform.report"}}"#;
    let head = format!(r#"{{"common":{{"attributes":{RESOURCE}}},"logs":["#);
    assert_eq!(golden(Protocol::NewRelic), format!("[{head}\n{line},\n{event}]}},{head}\n{event}]}}]"));
}

#[test]
fn names_of_ours_are_free_where_we_have_nothing_to_say() {
    let raw = br#"{"time":"2026-10-08T07:30:27.768Z","type":"function","record":{"message":"m","level":"l1","severity":"l2",
        "severity.number":"l3","severity_number":"l4","event.name":"l5","event_name":"l6","trace.id":"l7","trace_id":"l8",
        "span.id":"l9","span_id":"l0"}}"#;
    let event = crate::record::Event::parse(raw);
    let record = LogRecord::from_event(&event, &crate::record::Context::default(), 1, "u");
    for protocol in [Protocol::NewRelic, Protocol::SplunkHec] {
        let mut out = Vec::new();
        protocol.wire().log(&Resource::default(), &record, &mut out);
        let said: Read = serde_json::from_slice(&out).unwrap();
        for at in 0..10 {
            assert!(said.to_string().contains(&format!("\"l{at}\"")), "l{at} in {said}");
        }
    }
}

#[test]
fn otlp_json_reads_as_the_specification_spells_it() {
    let read: Read = serde_json::from_str(&golden(Protocol::OtlpJson)).unwrap();
    let first = &read["resourceLogs"][0];
    assert_eq!(
        first["resource"]["attributes"][0],
        json!({"key": "service.name", "value": {"stringValue": "f"}})
    );
    assert_eq!(first["scopeLogs"][0]["scope"]["name"], "outlast");
    assert_eq!(
        first["scopeLogs"][0]["logRecords"],
        json!([
            {
                "timeUnixNano": "1760000000123456789",
                "observedTimeUnixNano": "1760000001000000000",
                "severityNumber": 17,
                "severityText": "ERROR",
                "body": {"stringValue": "say \"hi\"\n\u{1}"},
                "attributes": [
                    {"key": "log.record.uid", "value": {"stringValue": "u-1"}},
                    {"key": "faas.invocation_id", "value": {"stringValue": REQUEST}},
                    {"key": "aws.lambda.telemetry.type", "value": {"stringValue": "function"}},
                    {"key": "user", "value": {"kvlistValue": {"values": [{"key": "id", "value": {"intValue": "7"}}]}}},
                    {"key": "service", "value": {"stringValue": "theirs"}},
                ],
                "flags": 1,
                "traceId": "abababababababababababababababab",
                "spanId": "cdcdcdcdcdcdcdcd",
            },
            {
                "timeUnixNano": "1760000002000000000",
                "observedTimeUnixNano": "1760000003000000000",
                "severityNumber": 9,
                "severityText": "INFO",
                "body": {"kvlistValue": {"values": [
                    {"key": "ms", "value": {"doubleValue": 1.5}},
                    {"key": "ok", "value": {"boolValue": true}},
                ]}},
                "attributes": [
                    {"key": "log.record.uid", "value": {"stringValue": "u-2"}},
                    {"key": "aws.lambda.telemetry.type", "value": {"stringValue": "platform.report"}},
                ],
                "eventName": "platform.report",
            },
        ])
    );
    assert_eq!(read["resourceLogs"][1]["scopeLogs"][0]["logRecords"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_format_has_a_number_and_a_name_of_its_own() {
    let ids = Protocol::ALL.map(|protocol| protocol.wire().id());
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8, 9], "stored on disk: never changed, never used again");
    for protocol in Protocol::ALL {
        assert_eq!(Protocol::of_id(protocol.wire().id()), Some(protocol));
        let wire = protocol.wire();
        assert_eq!(wire.takes(Signal::Traces), protocol.is_otlp());
        let others = matches!(protocol, Protocol::Datadog | Protocol::NewRelic);
        assert_eq!(wire.takes(Signal::Metrics), protocol.is_otlp() || others);
        assert!(protocol.wire().takes(Signal::Logs));
    }
    assert_eq!(Protocol::of_id(250), None);
}

#[test]
fn an_endpoint_without_a_path_gets_the_one_that_is_usual() {
    let path = |protocol: Protocol, given| protocol.wire().path(Signal::Logs, given);
    for (protocol, usual) in [
        (Protocol::Otlp, "/v1/logs"),
        (Protocol::OtlpJson, "/v1/logs"),
        (Protocol::Ndjson, ""),
        (Protocol::Json, ""),
        (Protocol::Elasticsearch, "/logs-outlast-default/_bulk"),
        (Protocol::Loki, "/loki/api/v1/push"),
        (Protocol::SplunkHec, "/services/collector/event"),
        (Protocol::Datadog, "/api/v2/logs"),
        (Protocol::NewRelic, "/log/v1"),
    ] {
        assert_eq!(path(protocol, ""), usual);
        let given = path(protocol, "/mine");
        match protocol {
            Protocol::Otlp | Protocol::OtlpJson => assert_eq!(given, "/mine/v1/logs"),
            Protocol::Elasticsearch => assert_eq!(given, "/mine/_bulk"),
            _ => assert_eq!(given, "/mine"),
        }
    }
    assert_eq!(path(Protocol::Elasticsearch, "/mine/_bulk"), "/mine/_bulk");
}

#[test]
fn a_line_that_loki_would_refuse_is_cut_and_says_so() {
    let long = LogRecord { body: Value::Str("é".repeat(200_000).into()), ..line() };
    let mut out = Vec::new();
    Loki.log(&resource(), &long, &mut out);
    let read: Read = serde_json::from_slice(&out).unwrap();
    assert_eq!(read[1].as_str().map(str::len), Some(254_999 - 1 + 2));
    assert_eq!(read[2]["outlast_bytes_left_out"], "145000");

    let attributes = (0..300).map(|n| (Cow::from(format!("a.{n}")), Value::Str("x".into())));
    let many = LogRecord { attributes: line().attributes.into_iter().chain(attributes).collect(), ..line() };
    let mut out = Vec::new();
    Loki.log(&resource(), &many, &mut out);
    let read: Read = serde_json::from_slice(&out).unwrap();
    let metadata = read[2].as_object().unwrap();
    assert_eq!(metadata.len(), 127, "128 is what Loki takes");
    assert_eq!(metadata["log_record_uid"], "u-1");
    let left_out: usize = metadata["outlast_attributes_left_out"].as_str().unwrap().parse().unwrap();
    // Severity (2), ids (2), the observed time, and the resource without its two labels.
    assert_eq!(left_out, 5 + 305 + 7 - 126);
}

#[test]
fn attributes_that_new_relic_would_not_keep_are_left_out_and_counted() {
    let long = (Cow::from("n".repeat(256)), Value::Int(1));
    let longest = (Cow::from("é".repeat(255)), Value::Int(2));
    let many = (0..300).map(|n| (Cow::from(format!("a.{n}")), Value::Str("x".into())));
    let own = line().attributes.into_iter().chain([long, longest]).chain(many);
    let many = LogRecord { attributes: own.collect(), ..line() };
    let mut out = Vec::new();
    NewRelic.log(&resource(), &many, &mut out);
    let read: Read = serde_json::from_slice(&out).unwrap();
    let attributes = read["attributes"].as_object().unwrap();
    let common = resource().attributes.len();
    // Time and message count as well; two places are kept for what a record of this kind does not say.
    assert_eq!(attributes.len() + common + 2, 255 - 2, "255 is what New Relic takes");
    assert_eq!(attributes["log.record.uid"], "u-1");
    assert_eq!(attributes[&"é".repeat(255)], 2);
    let own = attributes.len() - 5;
    // Five are ours: level, number, two ids, and what says that some are missing.
    assert_eq!(attributes["outlast.attributes_left_out"], json!(5 + 2 + 300 - own));

    let said: Vec<_> = (0..200).map(|n| (format!("r.{n}"), "x".to_owned())).collect();
    let crowded = Resource::build(&ResourceInputs { user_attributes: &said, ..Default::default() });
    let mut head = Vec::new();
    NewRelic.block_head(Signal::Logs, &crowded, 0, &mut head);
    let head = String::from_utf8(head).unwrap();
    assert!(head.contains("\"outlast.attributes_left_out\":"), "{head}");
    let mut out = Vec::new();
    NewRelic.log(&crowded, &many, &mut out);
    let read: Read = serde_json::from_slice(&out).unwrap();
    assert!(read["attributes"].as_object().unwrap().len() + 101 + 2 <= 255);
}

#[test]
fn equal_lines_of_a_millisecond_are_two_to_loki() {
    let time = |uid: &str, time_unix_nanos| {
        let attributes = vec![(UID.into(), Value::Str(uid.to_owned().into()))];
        let mut out = Vec::new();
        Loki.log(&resource(), &LogRecord { time_unix_nanos, attributes, ..line() }, &mut out);
        serde_json::from_slice::<Read>(&out).unwrap()[0].as_str().unwrap().to_owned()
    };
    assert_eq!(time("ab-1f", 5_000_000), "5000031");
    assert_eq!(time("ab-20", 5_000_000), "5000032");
    assert_eq!(time("ab-1f", 5_000_001), "5000001", "a time that is exact stays");
    assert_eq!(time("ab", 5_000_000), "5000000");
    assert_eq!(time("ab-f4240", 5_000_000), "5000000", "never into the next millisecond");
}

#[test]
fn names_that_are_alike_after_all_are_not_repeated() {
    let twice = LogRecord {
        attributes: vec![
            ("a.b".into(), Value::Int(1)),
            ("a_b".into(), Value::Int(2)),
            ("1".into(), Value::Int(3)),
        ],
        ..line()
    };
    let mut out = Vec::new();
    Loki.log(&resource(), &twice, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches("\"a_b\"").count(), 1, "{text}");
    assert!(text.contains("\"_1\":\"3\""), "{text}");

    let said = [("a.b", "1"), ("a_b", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let resource = Resource::build(&ResourceInputs { user_attributes: &said, ..Default::default() });
    let mut out = Vec::new();
    Elasticsearch.log(&resource, &line(), &mut out);
    assert_eq!(String::from_utf8(out).unwrap().matches("\"labels.a_b\"").count(), 1);
}

fn value() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        Just(Value::Empty),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Double),
        any::<String>().prop_map(|text| Value::Str(text.into())),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        let fields = prop::collection::btree_map(".*", inner.clone(), 0..4).prop_map(|fields| {
            Value::Map(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
        });
        prop_oneof![prop::collection::vec(inner, 0..4).prop_map(Value::Array), fields]
    })
}

prop_compose! {
    fn record()(
        body in value(),
        attributes in prop::collection::btree_map("[a-z.]{1,12}|.{1,12}|message|service|timestamp|level", value(), 0..5),
        times in any::<(u64, u64)>(),
        severity in (0..25_u8, "[A-Za-z]{0,6}"),
        event_name in prop::option::of(".{1,12}"),
        ids in any::<(Option<[u8; 16]>, Option<[u8; 8]>)>(),
    ) -> LogRecord<'static> {
        let uid = (UID.into(), Value::Str("u-1".into()));
        let others = attributes.into_iter().map(|(name, value)| (name.into(), value));
        LogRecord {
            time_unix_nanos: times.0,
            observed_unix_nanos: times.1,
            severity: Severity { number: severity.0, text: severity.1.into() },
            event_name: event_name.map(Into::into),
            body,
            attributes: std::iter::once(uid).chain(others).collect(),
            trace_id: ids.0,
            span_id: ids.1,
            trace_flags: 0,
        }
    }
}

fn read(value: &Value<'_>) -> Read {
    match value {
        Value::Empty => Read::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Double(value) if value.is_nan() => json!("NaN"),
        Value::Double(value) if value.is_infinite() => {
            json!(if *value > 0.0 { "Infinity" } else { "-Infinity" })
        }
        Value::Double(value) => json!(value),
        Value::Str(text) => json!(text),
        Value::Array(items) => items.iter().map(read).collect(),
        Value::Map(fields) => fields_read(fields),
    }
}

fn fields_read(fields: &[Field<'_>]) -> Read {
    Read::Object(fields.iter().map(|(name, value)| (name.to_string(), read(value))).collect())
}

/// Whether Elasticsearch takes all names as they are, whatever stands beside them.
fn is_tame(read: &Read) -> bool {
    match read {
        Read::Object(members) => members
            .iter()
            .all(|(name, value)| !name.contains('.') && !name.trim().is_empty() && is_tame(value)),
        Read::Array(items) => items.iter().all(is_tame),
        _ => true,
    }
}

/// The text of a body as formats with a message have it.
fn message(body: &Value<'_>) -> Option<String> {
    match body {
        Value::Str(text) => Some(text.to_string()),
        Value::Empty => Some(String::new()),
        // The order of members is another after reading.
        _ => None,
    }
}

/// The objects of a request, one for each record, as another reader finds them.
fn objects(protocol: Protocol, body: &[u8]) -> Vec<Read> {
    let text = std::str::from_utf8(body).unwrap();
    let whole = || serde_json::from_str::<Read>(text).unwrap();
    let each = |list: &Read| list.as_array().unwrap().clone();
    match protocol {
        Protocol::Otlp => panic!("not made of JSON"),
        Protocol::OtlpJson => each(&whole()["resourceLogs"])
            .iter()
            .flat_map(|logs| each(&logs["scopeLogs"][0]["logRecords"]))
            .collect(),
        Protocol::Ndjson | Protocol::SplunkHec => {
            serde_json::Deserializer::from_str(text).into_iter().map(Result::unwrap).collect()
        }
        Protocol::Elasticsearch => {
            let lines: Vec<Read> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            lines
                .chunks(2)
                .inspect(|pair| assert!(pair[0]["create"].is_object()))
                .map(|pair| pair[1].clone())
                .collect()
        }
        Protocol::Json | Protocol::Datadog => each(&whole()),
        Protocol::Loki => {
            each(&whole()["streams"]).iter().flat_map(|stream| each(&stream["values"])).collect()
        }
        Protocol::NewRelic => each(&whole()).iter().flat_map(|part| each(&part["logs"])).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_come_apart_into_records_and_go_together_again(
        records in prop::collection::vec(record(), 1..6),
        range in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        // One at least: of nothing, nothing is made.
        let (a, b) = (range.0.index(records.len()), range.1.index(records.len()));
        let range = a.min(b)..a.max(b) + 1;
        for protocol in Protocol::ALL {
            let wire = protocol.wire();
            let plain = block(wire.as_ref(), &records);
            let parts = wire.parts(&plain).unwrap();
            prop_assert_eq!(parts.records.len(), records.len(), "{:?}", protocol);
            prop_assert_eq!(parts.records.last().map(|last| last.end), Some(plain.len()));
            let some = wire.subset(&plain, &parts, range.clone());
            prop_assert_eq!(&some, &block(wire.as_ref(), &records[range.clone()]), "{:?}", protocol);
            let beyond = wire.subset(&plain, &parts, 0..records.len() + 3);
            prop_assert_eq!(&beyond, &plain, "{:?}", protocol);
            let picked = wire.pick(&plain, &parts, &|place| place % 2 == range.start % 2);
            let every_other: Vec<_> = records.iter().skip(range.start % 2).step_by(2).cloned().collect();
            if !every_other.is_empty() {
                prop_assert_eq!(&picked, &block(wire.as_ref(), &every_other), "{:?}", protocol);
            }
        }
    }

    #[test]
    fn another_reader_finds_every_record_in_a_request(records in prop::collection::vec(record(), 1..4)) {
        for protocol in Protocol::ALL.into_iter().filter(|protocol| *protocol != Protocol::Otlp) {
            let wire = protocol.wire();
            let blocks = vec![block(wire.as_ref(), &records); 2];
            let found = objects(protocol, &body(wire.as_ref(), &blocks));
            prop_assert_eq!(found.len(), 2 * records.len(), "{:?}", protocol);
            for (found, record) in found.iter().zip(records.iter().chain(&records)) {
                let same = |at: &Read| message(&record.body).is_none_or(|message| *at == message);
                match protocol {
                    Protocol::Ndjson | Protocol::Json => {
                        let body = if matches!(record.body, Value::Str(_)) { "message" } else { "body" };
                        prop_assert_eq!(&found[body], &read(&record.body));
                        prop_assert_eq!(&found["attributes"], &fields_read(&record.attributes));
                    }
                    Protocol::Elasticsearch => {
                        prop_assert!(same(&found["message"]));
                        let mut left = fields_read(&record.attributes);
                        left.as_object_mut().unwrap().remove(UID);
                        let none = left.as_object().unwrap().is_empty();
                        if is_tame(&left) {
                            prop_assert_eq!(&found["attributes"], &if none { Read::Null } else { left });
                        } else {
                            let count = |read: &Read| read.as_object().unwrap().len();
                            prop_assert_eq!(count(&found["attributes"]), count(&left));
                        }
                        prop_assert_eq!(&found["event.id"], "u-1");
                    }
                    Protocol::Loki => {
                        prop_assert!(same(&found[1]));
                        let nanos: u64 = found[0].as_str().unwrap().parse().unwrap();
                        prop_assert_eq!(nanos / 1_000_000, record.time_unix_nanos / 1_000_000);
                        prop_assert!(found[2].as_object().unwrap().values().all(Read::is_string));
                        prop_assert_eq!(&found[2]["log_record_uid"], "u-1");
                    }
                    Protocol::SplunkHec => {
                        let blank = message(&record.body).is_some_and(|text| text.trim().is_empty());
                        let event = if blank { &found["event"]["message"] } else { &found["event"] };
                        prop_assert_eq!(event, &read(&record.body));
                        prop_assert!(found["fields"].as_object().unwrap().values().all(Read::is_string));
                    }
                    Protocol::Datadog => {
                        prop_assert!(same(&found["message"]));
                        prop_assert_eq!(&found["timestamp"], &json!(record.time_unix_nanos / 1_000_000));
                        for (name, value) in &record.attributes {
                            let renamed = found.pointer("/outlast/attributes").and_then(|at| at.get(&**name));
                            prop_assert_eq!(renamed.unwrap_or(&found[&**name]), &read(value), "{}", name);
                        }
                    }
                    Protocol::NewRelic => {
                        prop_assert!(same(&found["message"]));
                        prop_assert!(found["attributes"].as_object().unwrap().values().all(|value| !value.is_object()));
                    }
                    Protocol::Otlp | Protocol::OtlpJson => {
                        let attributes = found["attributes"].as_array().unwrap();
                        prop_assert_eq!(attributes.len(), record.attributes.len());
                    }
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_taking_a_block_apart_fail_badly(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[\\[\\]{},\n\"a]{0,40}") {
        for protocol in Protocol::ALL {
            for plain in [&bytes[..], text.as_bytes()] {
                if let Ok(parts) = protocol.wire().parts(plain) {
                    drop(protocol.wire().subset(plain, &parts, 0..1));
                    prop_assert!(parts.records.iter().all(|record| record.end <= plain.len()));
                }
            }
        }
    }
}
