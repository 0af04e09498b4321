use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value as Any,
};
use opentelemetry_proto::tonic::logs::v1 as logs;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::record::value::MAX_DEPTH_LEVELS;
use crate::record::{Context, Event, ResourceInputs, Severity};

fn resource() -> Resource {
    Resource::build(&ResourceInputs { function_name: Some("f"), memory_mb: Some(128), ..Default::default() })
}

fn block(records: &[LogRecord<'_>]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for record in records {
        Otlp.log(&resource(), record, &mut encoded);
    }
    let mut block = Vec::new();
    Otlp.block_head(Signal::Logs, &resource(), encoded.len(), &mut block);
    block.extend_from_slice(&encoded);
    block
}

fn decode(body: &[u8]) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest::decode(body).expect("a request")
}

fn decoded_records(body: &[u8]) -> Vec<logs::LogRecord> {
    let all = decode(body).resource_logs.into_iter().flat_map(|logs| logs.scope_logs);
    all.flat_map(|logs| logs.log_records).collect()
}

fn expected_value(value: &Value<'_>) -> AnyValue {
    let value = match value {
        Value::Empty => None,
        Value::Bool(value) => Some(Any::BoolValue(*value)),
        Value::Int(value) => Some(Any::IntValue(*value)),
        Value::Double(value) => Some(Any::DoubleValue(*value)),
        Value::Str(text) => Some(Any::StringValue(text.to_string())),
        Value::Array(items) => {
            Some(Any::ArrayValue(ArrayValue { values: items.iter().map(expected_value).collect() }))
        }
        Value::Map(fields) => Some(Any::KvlistValue(KeyValueList { values: expected_fields(fields) })),
    };
    AnyValue { value }
}

fn expected_fields(fields: &[Field<'_>]) -> Vec<KeyValue> {
    let field = |(name, value): &Field<'_>| KeyValue {
        key: name.to_string(),
        value: Some(expected_value(value)),
        ..Default::default()
    };
    fields.iter().map(field).collect()
}

fn expected_record(record: &LogRecord<'_>) -> logs::LogRecord {
    logs::LogRecord {
        time_unix_nano: record.time_unix_nanos,
        observed_time_unix_nano: record.observed_unix_nanos,
        severity_number: i32::from(record.severity.number),
        severity_text: record.severity.text.to_string(),
        body: (record.body != Value::Empty).then(|| expected_value(&record.body)),
        attributes: expected_fields(&record.attributes),
        dropped_attributes_count: 0,
        flags: record.trace_flags,
        trace_id: record.trace_id.map(Vec::from).unwrap_or_default(),
        span_id: record.span_id.map(Vec::from).unwrap_or_default(),
        event_name: record.event_name.as_deref().unwrap_or_default().to_owned(),
    }
}

fn value() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        Just(Value::Empty),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Double),
        ".*".prop_map(|text| Value::Str(text.into())),
        (100..20_000_usize).prop_map(|length| Value::Str("x".repeat(length).into())),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((".*".prop_map(Into::into), inner), 0..6).prop_map(Value::Map),
        ]
    })
}

prop_compose! {
    fn record()(
        times in any::<(u64, u64)>(),
        severity in (0..=24_u8, "[A-Z]{0,5}"),
        event_name in prop::option::of("[a-z.]{1,10}"),
        body in value(),
        attributes in prop::collection::vec((".*".prop_map(Into::into), value()), 0..5),
        ids in any::<(Option<[u8; 16]>, Option<[u8; 8]>)>(),
        trace_flags in 0..256_u32,
    ) -> LogRecord<'static> {
        LogRecord {
            time_unix_nanos: times.0,
            observed_unix_nanos: times.1,
            severity: Severity { number: severity.0, text: severity.1.into() },
            event_name: event_name.map(Into::into),
            body,
            attributes,
            trace_id: ids.0,
            span_id: ids.1,
            trace_flags,
        }
    }
}

#[test]
fn a_block_is_one_resource_with_one_scope() {
    let record = LogRecord { body: Value::Str("hello".into()), ..Default::default() };
    let request = decode(&block(&[record]));
    let [logs] = request.resource_logs.as_slice() else { panic!("{request:?}") };
    let attributes = &logs.resource.as_ref().expect("a resource").attributes;
    assert_eq!(*attributes, expected_fields(&resource().attributes));
    let [scope_logs] = logs.scope_logs.as_slice() else { panic!("{logs:?}") };
    let scope = scope_logs.scope.as_ref().expect("a scope");
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("outlast", env!("CARGO_PKG_VERSION")));
    assert_eq!(scope_logs.log_records.len(), 1);
}

#[test]
fn blocks_put_together_are_one_request() {
    let record = |text: &'static str| LogRecord { body: Value::Str(text.into()), ..Default::default() };
    let body = [block(&[record("a"), record("b")]), block(&[]), block(&[record("c")])].concat();
    assert_eq!(decode(&body).resource_logs.len(), 3);
    let texts: Vec<_> = decoded_records(&body).into_iter().map(|record| record.body).collect();
    assert_eq!(texts, ["a", "b", "c"].map(|text| Some(expected_value(&Value::Str(text.into())))));
}

#[test]
fn the_deepest_record_is_within_the_receivers_limit() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let depth = MAX_DEPTH_LEVELS + 200;
        let raw = format!(r#"{{"type":"function","record":{}1{}}}"#, open.repeat(depth), close.repeat(depth));
        let record = LogRecord::from_event(&Event::parse(raw.as_bytes()), &Context::default(), 1, "uid");
        assert_eq!(decoded_records(&block(std::slice::from_ref(&record))), [expected_record(&record)]);
    }
}

#[test]
fn a_block_that_is_damaged_is_not_taken_apart() {
    let record = LogRecord { body: Value::Str("hello".into()), ..Default::default() };
    let good = block(&[record.clone(), record]);
    assert!(Otlp.parts(&good).is_ok());
    for length in 1..good.len() {
        assert!(Otlp.parts(&good[..length]).is_err(), "cut at {length}");
    }
    let longer = [&good[..], b"x"].concat();
    assert_eq!(Otlp.parts(&longer), Err(SplitError::Truncated(good.len())));
    let group = [&good[..], b"\x0b\x0c"].concat();
    assert_eq!(Otlp.parts(&group), Err(SplitError::Unexpected(good.len())));
    // What an SDK sends may be of several resources.
    assert_eq!(Otlp.parts(&[good.clone(), good].concat()).map(|parts| parts.records.len()), Ok(4));
}

proptest! {
    #[test]
    fn every_record_decodes_to_what_it_was(records in prop::collection::vec(record(), 0..4)) {
        let decoded = decode(&block(&records));
        let logs = &decoded.resource_logs[0].scope_logs[0].log_records;
        prop_assert_eq!(logs, &records.iter().map(expected_record).collect::<Vec<_>>());
    }

    #[test]
    fn the_bytes_are_those_prost_would_write(records in prop::collection::vec(record(), 0..3)) {
        let block = block(&records);
        prop_assert!(decode(&block).encode_to_vec() == block);
    }

    #[test]
    fn a_block_comes_apart_into_its_records_and_its_subsets_are_blocks(
        records in prop::collection::vec(record(), 0..6),
        range in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let block_bytes = block(&records);
        let parts = Otlp.parts(&block_bytes).expect("our own");
        prop_assert_eq!(parts.records.len(), records.len());
        let mut end = parts.head.end;
        for (range, record) in parts.records.iter().zip(&records) {
            prop_assert_eq!(range.start, end);
            let mut alone = Vec::new();
            Otlp.log(&resource(), record, &mut alone);
            prop_assert!(block_bytes[range.clone()] == alone);
            end = range.end;
        }
        prop_assert_eq!(end, block_bytes.len());

        let (a, b) = (range.0.index(records.len() + 1), range.1.index(records.len() + 1));
        let chosen = a.min(b)..a.max(b);
        let expected = if chosen.is_empty() { Vec::new() } else { block(&records[chosen.clone()]) };
        prop_assert!(Otlp.subset(&block_bytes, &parts, chosen) == expected);
        let all = Otlp.subset(&block_bytes, &parts, 0..records.len() + 7);
        prop_assert!(records.is_empty() || all == block_bytes);
    }

    #[test]
    fn no_bytes_make_taking_apart_fail_badly(bytes in prop::collection::vec(prop_oneof![Just(0x0a_u8), Just(0x12), 0..20_u8, any::<u8>()], 0..60)) {
        if let Ok(parts) = Otlp.parts(&bytes) {
            let count = parts.records.len();
            prop_assert!(Otlp.parts(&Otlp.subset(&bytes, &parts, 0..count)).is_ok());
        }
    }
}

mod other_signals;
