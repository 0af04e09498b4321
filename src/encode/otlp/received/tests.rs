use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value as Any,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    self as metrics, Metric, ResourceMetrics, ScopeMetrics, metric::Data,
};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::{self as trace, ResourceSpans, ScopeSpans, Span};
use proptest::prelude::*;
use prost::Message;

use super::schema::{Kind, request};
use super::*;
use crate::record::ResourceInputs;

fn holding(value: Any) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn pair(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.into(), value: Some(holding(value)), ..Default::default() }
}

/// Every kind of value.
fn every_value() -> Vec<KeyValue> {
    let array =
        ArrayValue { values: vec![holding(Any::StringValue("ü\n".into())), holding(Any::IntValue(-1))] };
    let list = KeyValueList { values: vec![pair("inner", Any::BoolValue(false))] };
    vec![
        pair("text", Any::StringValue("a \"quoted\" text".into())),
        pair("bool", Any::BoolValue(true)),
        pair("int", Any::IntValue(i64::MIN)),
        pair("double", Any::DoubleValue(-0.25)),
        pair("array", Any::ArrayValue(array)),
        pair("list", Any::KvlistValue(list)),
        pair("bytes", Any::BytesValue(vec![0, 255, 62, 63])),
        pair("reference", Any::StringValueStrindex(-5)),
        KeyValue { key_strindex: 3, ..pair("indexed", Any::BoolValue(true)) },
    ]
}

fn resource() -> OtlpResource {
    let entity = EntityRef {
        schema_url: "https://e".into(),
        r#type: "service".into(),
        id_keys: vec!["service.name".into()],
        description_keys: vec!["a".into(), "b".into()],
    };
    OtlpResource { attributes: every_value(), dropped_attributes_count: 7, entity_refs: vec![entity] }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "scope".into(),
        version: "1.2".into(),
        attributes: every_value(),
        dropped_attributes_count: 8,
    }
}

fn every_log() -> ExportLogsServiceRequest {
    let record = LogRecord {
        time_unix_nano: 1_700_000_000_123_456_789,
        observed_time_unix_nano: u64::MAX,
        severity_number: 17,
        severity_text: "ERROR".into(),
        body: Some(holding(Any::StringValue("body".into()))),
        attributes: every_value(),
        dropped_attributes_count: 3,
        flags: 1,
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        event_name: "event".into(),
    };
    let scope_logs =
        ScopeLogs { scope: Some(scope()), log_records: vec![record.clone(), record], schema_url: "s".into() };
    let logs = ResourceLogs {
        resource: Some(resource()),
        scope_logs: vec![scope_logs],
        schema_url: "https://schema".into(),
    };
    ExportLogsServiceRequest { resource_logs: vec![logs] }
}

fn every_span() -> ExportTraceServiceRequest {
    let span = Span {
        trace_id: (0..16).collect(),
        span_id: (16..24).collect(),
        trace_state: "k=v".into(),
        parent_span_id: vec![9; 8],
        flags: 0x301,
        name: "GET /".into(),
        kind: 3,
        start_time_unix_nano: 1_700_000_000_000_000_001,
        end_time_unix_nano: 1_700_000_000_000_000_002,
        attributes: every_value(),
        dropped_attributes_count: 1,
        events: vec![trace::span::Event {
            time_unix_nano: 5,
            name: "event".into(),
            attributes: every_value(),
            dropped_attributes_count: 2,
        }],
        dropped_events_count: 3,
        links: vec![trace::span::Link {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            trace_state: "l=m".into(),
            attributes: every_value(),
            dropped_attributes_count: 4,
            flags: 1,
        }],
        dropped_links_count: 5,
        status: Some(trace::Status { message: "bad".into(), code: 2 }),
    };
    let scope_spans = ScopeSpans { scope: Some(scope()), spans: vec![span], schema_url: "s".into() };
    let spans = ResourceSpans {
        resource: Some(resource()),
        scope_spans: vec![scope_spans],
        schema_url: "https://schema".into(),
    };
    ExportTraceServiceRequest { resource_spans: vec![spans] }
}

fn exemplars() -> Vec<metrics::Exemplar> {
    let exemplar = |value| metrics::Exemplar {
        filtered_attributes: every_value(),
        time_unix_nano: 4,
        span_id: vec![3; 8],
        trace_id: vec![4; 16],
        value: Some(value),
    };
    vec![exemplar(metrics::exemplar::Value::AsDouble(0.5)), exemplar(metrics::exemplar::Value::AsInt(-7))]
}

fn every_metric() -> ExportMetricsServiceRequest {
    let number = |value| metrics::NumberDataPoint {
        attributes: every_value(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        exemplars: exemplars(),
        flags: 1,
        value: Some(value),
    };
    let points = vec![
        number(metrics::number_data_point::Value::AsDouble(1.5)),
        number(metrics::number_data_point::Value::AsInt(i64::MIN)),
    ];
    let histogram = metrics::HistogramDataPoint {
        attributes: every_value(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        count: 6,
        sum: Some(10.5),
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: vec![0.5, 1.0],
        exemplars: exemplars(),
        flags: 1,
        min: Some(0.1),
        max: Some(9.0),
    };
    let buckets = |offset| metrics::exponential_histogram_data_point::Buckets {
        offset,
        bucket_counts: vec![0, 1, u64::MAX],
    };
    let exponential = metrics::ExponentialHistogramDataPoint {
        attributes: every_value(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        count: 6,
        sum: Some(10.5),
        scale: -3,
        zero_count: 1,
        positive: Some(buckets(i32::MIN)),
        negative: Some(buckets(5)),
        flags: 1,
        exemplars: exemplars(),
        min: Some(-1.0),
        max: Some(9.0),
        zero_threshold: 0.01,
    };
    let summary = metrics::SummaryDataPoint {
        attributes: every_value(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        count: 6,
        sum: 10.5,
        quantile_values: vec![metrics::summary_data_point::ValueAtQuantile { quantile: 0.5, value: 2.5 }],
        flags: 1,
    };
    let (aggregation_temporality, is_monotonic) = (2, true);
    let metrics = [
        Data::Gauge(metrics::Gauge { data_points: points.clone() }),
        Data::Sum(metrics::Sum { data_points: points, aggregation_temporality, is_monotonic }),
        Data::Histogram(metrics::Histogram { data_points: vec![histogram], aggregation_temporality }),
        Data::ExponentialHistogram(metrics::ExponentialHistogram {
            data_points: vec![exponential],
            aggregation_temporality,
        }),
        Data::Summary(metrics::Summary { data_points: vec![summary] }),
    ];
    let metrics = metrics.map(|data| Metric {
        name: "name".into(),
        description: "what".into(),
        unit: "By".into(),
        metadata: every_value(),
        data: Some(data),
    });
    let scope_metrics =
        ScopeMetrics { scope: Some(scope()), metrics: metrics.into(), schema_url: "s".into() };
    let metrics = ResourceMetrics {
        resource: Some(resource()),
        scope_metrics: vec![scope_metrics],
        schema_url: "https://schema".into(),
    };
    ExportMetricsServiceRequest { resource_metrics: vec![metrics] }
}

fn protobuf_of(signal: Signal, json: &str) -> Vec<u8> {
    match read(signal, Media::Json, json.as_bytes()) {
        Ok(received) => received.plain.into_owned(),
        Err(error) => panic!("{error}: {json}"),
    }
}

/// Names of all fields below `fields`, each with the message it belongs to.
fn names(
    fields: &'static [schema::Field],
    seen: &mut Vec<*const schema::Field>,
    out: &mut Vec<&'static str>,
) {
    if seen.contains(&fields.as_ptr()) {
        return;
    }
    seen.push(fields.as_ptr());
    for field in fields {
        out.push(field.name);
        if let Kind::Message(inner) = field.kind {
            names(inner, seen, out);
        }
    }
}

#[test]
fn every_field_of_every_message_comes_out_of_json_as_it_was() {
    let logs = serde_json::to_string(&every_log()).unwrap();
    let came = ExportLogsServiceRequest::decode(&protobuf_of(Signal::Logs, &logs)[..]).unwrap();
    assert_eq!(came, every_log());
    let traces = serde_json::to_string(&every_span()).unwrap();
    let came = ExportTraceServiceRequest::decode(&protobuf_of(Signal::Traces, &traces)[..]).unwrap();
    assert_eq!(came, every_span());
    let metrics = serde_json::to_string(&every_metric()).unwrap();
    let came = ExportMetricsServiceRequest::decode(&protobuf_of(Signal::Metrics, &metrics)[..]).unwrap();
    assert_eq!(came, every_metric());
    // And none was left out of the above.
    for (signal, json) in [(Signal::Logs, logs), (Signal::Traces, traces), (Signal::Metrics, metrics)] {
        let mut all = Vec::new();
        names(request(signal), &mut Vec::new(), &mut all);
        for name in all {
            assert!(json.contains(&format!("\"{name}\":")), "{signal} {name}");
        }
    }
}

fn logs_json(record: &str) -> String {
    format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{record}]}}]}}]}}"#)
}

fn log_of(record: &str) -> LogRecord {
    let plain = protobuf_of(Signal::Logs, &logs_json(record));
    let mut request = ExportLogsServiceRequest::decode(&plain[..]).unwrap();
    request.resource_logs.remove(0).scope_logs.remove(0).log_records.remove(0)
}

fn refused(signal: Signal, media: Media, body: &[u8]) -> RequestError {
    read(signal, media, body).expect_err("it is refused")
}

#[test]
fn what_the_json_mapping_allows_is_understood() {
    let same = [
        r#"{"timeUnixNano":"1700000000000000001","severityNumber":9,"flags":1}"#,
        r#"{"timeUnixNano":1700000000000000001,"severityNumber":"9","flags":"1"}"#,
        r#"{"timeUnixNano":"1700000000000000001","severityNumber":9.0,"flags":1e0,"body":null,"attributes":null}"#,
        r#"{"unknown":{"a":[1,{"b":null}]},"time\u0055nixNano":"1700000000000000001","severityNumber":9,"flags":1}"#,
    ];
    for record in same {
        let log = log_of(record);
        assert_eq!((log.time_unix_nano, log.severity_number, log.flags), (1_700_000_000_000_000_001, 9, 1));
    }
    let value = |json: &str| log_of(&format!(r#"{{"body":{json}}}"#)).body.unwrap().value;
    for number in ["\"NaN\"", "\"nan\""] {
        let Some(Any::DoubleValue(double)) = value(&format!(r#"{{"doubleValue":{number}}}"#)) else {
            panic!()
        };
        assert!(double.is_nan());
    }
    assert_eq!(value(r#"{"doubleValue":"-Infinity"}"#), Some(Any::DoubleValue(f64::NEG_INFINITY)));
    assert_eq!(value(r#"{"doubleValue":3}"#), Some(Any::DoubleValue(3.0)));
    assert_eq!(value(r#"{"intValue":"-9223372036854775808"}"#), Some(Any::IntValue(i64::MIN)));
    assert_eq!(value(r#"{"bytesValue":"_-8"}"#), Some(Any::BytesValue(vec![0xff, 0xef])));
    assert_eq!(value(r#"{"bytesValue":"/+8="}"#), Some(Any::BytesValue(vec![0xff, 0xef])));
    assert_eq!(value("{}"), None);
    let nulls = value(r#"{"arrayValue":{"values":[{"intValue":1},{},{"intValue":2}]}}"#);
    let Some(Any::ArrayValue(array)) = nulls else { panic!("{nulls:?}") };
    assert_eq!(array.values.len(), 3, "places in an array count");
    assert_eq!(log_of(r#"{"traceId":"ABcd"}"#).trace_id, [0xab, 0xcd]);
    assert_eq!(log_of(r#"{"traceId":""}"#).trace_id, [0_u8; 0]);
}

#[test]
fn what_is_no_request_in_json_is_refused() {
    for record in [
        r#"{"timeUnixNano":"soon"}"#,
        r#"{"timeUnixNano":-1}"#,
        r#"{"timeUnixNano":1.5}"#,
        r#"{"flags":4294967296}"#,
        r#"{"body":{"stringValueStrindex":2147483648}}"#,
        r#"{"severityNumber":"SEVERITY_NUMBER_INFO"}"#,
        r#"{"severityText":5}"#,
        r#"{"severityText":true}"#,
        r#"{"traceId":"abc"}"#,
        r#"{"traceId":"+a"}"#,
        r#"{"traceId":"ää"}"#,
        r#"{"body":{"bytesValue":"?"}}"#,
        r#"{"body":{"boolValue":"true"}}"#,
        r#"{"body":"text"}"#,
        r#"{"attributes":{}}"#,
        r"5",
        r#"{"body":}"#,
    ] {
        let error = refused(Signal::Logs, Media::Json, logs_json(record).as_bytes());
        assert!(matches!(error, RequestError::Json(_)), "{record}: {error}");
    }
    for body in ["", "null", "[]", "{", "{} {}", "\u{feff}{}", "{\"resourceLogs\":5}"] {
        let error = refused(Signal::Logs, Media::Json, body.as_bytes());
        assert!(matches!(error, RequestError::Json(_)), "{body}: {error}");
    }
    let deep =
        format!("{}{}{}", r#"{"body":"#, r#"{"arrayValue":{"values":["#.repeat(200), r"]}}".repeat(200));
    assert!(matches!(
        refused(Signal::Logs, Media::Json, logs_json(&format!("{deep}}}")).as_bytes()),
        RequestError::Json(_)
    ));
}

#[test]
fn a_request_of_another_signal_is_told_where_it_can_be() {
    let traces = serde_json::to_string(&every_span()).unwrap();
    assert!(matches!(refused(Signal::Logs, Media::Json, traces.as_bytes()), RequestError::Foreign));
    assert!(matches!(refused(Signal::Logs, Media::Protobuf, b"\x12\x04nope"), RequestError::Foreign));
}

#[test]
fn a_request_without_records_is_a_request() {
    for (media, body) in [
        (Media::Json, &b"{}"[..]),
        (Media::Json, br#" {"resourceLogs":[]} "#),
        (Media::Json, br#"{"resourceLogs":null}"#),
        (Media::Json, br#"{"resourceLogs":[{"scopeLogs":[{}]}]}"#),
        (Media::Protobuf, b""),
        (Media::Protobuf, b"\x0a\x00"),
    ] {
        assert_eq!(
            read(Signal::Logs, media, body).map(|received| received.records).ok(),
            Some(0),
            "{body:?}"
        );
    }
}

#[test]
fn protobuf_stays_as_it_is_and_is_counted() {
    let body = every_metric().encode_to_vec();
    let received = read(Signal::Metrics, Media::Protobuf, &body).unwrap();
    assert!(matches!(received.plain, Cow::Borrowed(plain) if plain == body));
    assert_eq!((received.records, received.times, received.distinct), (5, None, true));
    let body = every_span().encode_to_vec();
    let received = read(Signal::Traces, Media::Protobuf, &body).unwrap();
    let times = Some((1_700_000_000_000_000_001, 1_700_000_000_000_000_002));
    assert_eq!((received.records, received.times, received.distinct), (1, times, true));
}

#[test]
fn log_records_are_distinct_only_if_each_has_a_time() {
    let mut request = every_log();
    let distinct = |request: &ExportLogsServiceRequest| {
        read(Signal::Logs, Media::Protobuf, &request.encode_to_vec()).unwrap().distinct
    };
    assert!(distinct(&request));
    let record = &mut request.resource_logs[0].scope_logs[0].log_records[1];
    record.time_unix_nano = 0;
    assert!(distinct(&request), "when it was observed is a time");
    request.resource_logs[0].scope_logs[0].log_records[1].observed_time_unix_nano = 0;
    assert!(!distinct(&request));
}

#[test]
fn a_request_that_is_cut_anywhere_above_the_fields_of_its_records_is_refused() {
    let body = every_span().encode_to_vec();
    for length in 1..body.len() {
        let error = refused(Signal::Traces, Media::Protobuf, &body[..length]);
        assert!(matches!(error, RequestError::Structure(_)), "cut at {length}");
    }
    // A record whose own bytes are cut, in a request that is sound around it.
    let span = every_span().resource_spans[0].scope_spans[0].spans[0].encode_to_vec();
    let mut cut = Vec::new();
    let mut scope = Vec::new();
    bytes(2, &span[..span.len() - 1], &mut scope);
    let mut resource = Vec::new();
    bytes(2, &scope, &mut resource);
    bytes(1, &resource, &mut cut);
    assert!(matches!(refused(Signal::Traces, Media::Protobuf, &cut), RequestError::Structure(_)));
}

#[test]
fn lengths_and_counts_are_bounded() {
    // Eight bytes in protobuf for each two in JSON.
    let bounds = vec!["0"; REQUEST_MAX_BYTES / 8 + 1].join(",");
    let point = format!(r#"{{"histogram":{{"dataPoints":[{{"explicitBounds":[{bounds}]}}]}}}}"#);
    let body = format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{point}]}}]}}]}}"#);
    assert!(body.len() < REQUEST_MAX_BYTES);
    assert!(matches!(refused(Signal::Metrics, Media::Json, body.as_bytes()), RequestError::TooLong));

    let empty = [0x12_u8, 0].repeat(REQUEST_MAX_RECORDS as usize + 1);
    let mut scope = Vec::new();
    bytes(2, &empty, &mut scope);
    let mut body = Vec::new();
    bytes(1, &scope, &mut body);
    assert!(matches!(refused(Signal::Traces, Media::Protobuf, &body), RequestError::TooMany));

    let resources = [0x0a_u8, 0].repeat(100_000);
    let about = ResourceInputs { function_name: Some("a-function"), ..Default::default() };
    let completed = complete(&resources, &Resource::build(&about));
    assert!(matches!(completed, Err(RequestError::TooLong)));
}

#[test]
fn a_long_request_goes_into_several_blocks_that_hold_it_all_in_order() {
    let mut request = every_span();
    let template = request.resource_spans[0].scope_spans[0].spans[0].clone();
    let spans = (0..2_000_u64).map(|id| Span { span_id: id.to_be_bytes().into(), ..template.clone() });
    request.resource_spans[0].scope_spans[0].spans = spans.collect();
    let mut second = request.resource_spans[0].clone();
    second.schema_url = "another".into();
    request.resource_spans.push(second);
    let body = request.encode_to_vec();
    let limit = 256 << 10;
    assert_eq!(runs(&body, body.len()).unwrap(), None);
    let runs = runs(&body, limit).unwrap().expect("several");
    let mut place = 0;
    let mut whole = ExportTraceServiceRequest::default();
    for run in &runs {
        assert_eq!(run.start, place);
        place = run.end;
        let block = part(&body, run).unwrap();
        assert!(block.len() < limit + 4_096, "{}", block.len());
        whole.resource_spans.extend(ExportTraceServiceRequest::decode(&block[..]).unwrap().resource_spans);
    }
    assert_eq!(place, 4_000);
    let spans = |request: &ExportTraceServiceRequest| -> Vec<(String, Span)> {
        let resources = request.resource_spans.iter();
        let spans = resources.flat_map(|of| {
            assert_eq!(of.resource, Some(resource()));
            of.scope_spans.iter().flat_map(|scoped| {
                assert_eq!(scoped.scope, Some(scope()));
                scoped.spans.iter().map(|span| (of.schema_url.clone(), span.clone()))
            })
        });
        spans.collect()
    };
    assert!(spans(&whole) == spans(&request));
}

#[test]
fn what_is_said_of_a_resource_does_not_multiply() {
    let mut request = every_span();
    let long = "x".repeat(300 << 10);
    request.resource_spans[0]
        .resource
        .as_mut()
        .unwrap()
        .attributes
        .push(pair("long", Any::StringValue(long)));
    let span = request.resource_spans[0].scope_spans[0].spans[0].clone();
    request.resource_spans[0].scope_spans[0].spans = vec![span; 3_000];
    assert_eq!(runs(&request.encode_to_vec(), 256 << 10).unwrap(), None);
}

#[test]
fn resources_are_completed_only_where_something_is_missing() {
    let about = ResourceInputs { function_name: Some("f"), region: Some("eu-west-1"), ..Default::default() };
    let ours = Resource::build(&about);
    let mut request = every_log();
    let given = request.resource_logs[0].clone();
    let own = OtlpResource {
        attributes: vec![pair("service.name", Any::StringValue("theirs".into()))],
        ..Default::default()
    };
    request.resource_logs = vec![
        ResourceLogs { resource: Some(own), ..given.clone() },
        ResourceLogs { resource: None, ..given.clone() },
    ];
    let completed = complete(&request.encode_to_vec(), &ours).unwrap();
    let decoded = ExportLogsServiceRequest::decode(&completed[..]).unwrap();
    let value = |at: usize, name: &str| {
        let attributes = &decoded.resource_logs[at].resource.as_ref().unwrap().attributes;
        let found: Vec<_> = attributes.iter().filter(|pair| pair.key == name).collect();
        assert_eq!(found.len(), 1, "{name} in {attributes:?}");
        found[0].value.clone().unwrap().value.unwrap()
    };
    assert_eq!(value(0, "service.name"), Any::StringValue("theirs".into()));
    assert_eq!(value(0, "faas.name"), Any::StringValue("f".into()));
    assert_eq!(value(1, "service.name"), Any::StringValue("f".into()));
    assert_eq!(value(1, "cloud.region"), Any::StringValue("eu-west-1".into()));
    for (logs, original) in decoded.resource_logs.iter().zip(&request.resource_logs) {
        assert_eq!(logs.scope_logs, original.scope_logs);
        assert_eq!(logs.schema_url, original.schema_url);
    }
    let again = complete(&completed, &ours).unwrap();
    assert!(again == completed, "nothing is missing any more");
}

#[test]
fn answers_are_in_the_media_type_of_the_request() {
    assert_eq!(Media::of_content_type("application/json; charset=utf-8"), Some(Media::Json));
    assert_eq!(Media::of_content_type("Application/X-Protobuf"), Some(Media::Protobuf));
    assert_eq!(Media::of_content_type("text/plain"), None);
    assert_eq!(Media::Protobuf.status(Code::InvalidArgument, "no"), b"\x08\x03\x12\x02no");
    assert_eq!(Media::Json.status(Code::Unavailable, "\"no\""), br#"{"code":14,"message":"\"no\""}"#);
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(prop_oneof![Just(0x0a_u8), Just(0x12), 0..20_u8, any::<u8>()], 0..80)) {
        for signal in Signal::ALL {
            let Ok(received) = read(signal, Media::Protobuf, &bytes) else { continue };
            let count = received.records as usize;
            prop_assert!(part(&bytes, &(0..count)).is_ok());
            prop_assert!(runs(&bytes, 3).is_ok());
            let about = ResourceInputs { function_name: Some("f"), ..Default::default() };
            let completed = complete(&bytes, &Resource::build(&about)).unwrap();
            prop_assert_eq!(read(signal, Media::Protobuf, &completed).unwrap().records, received.records);
        }
    }

    #[test]
    fn no_text_does_harm(text in r#"[\[\]{}",:0-9a-z]{0,60}"#) {
        for signal in Signal::ALL {
            drop(read(signal, Media::Json, text.as_bytes()));
            drop(read(signal, Media::Json, logs_json(&text).as_bytes()));
        }
    }
}

/// Everything that there is goes to JSON and back.
#[cfg(feature = "tool")]
#[test]
fn a_request_becomes_json_and_is_the_same_again() {
    fn check<M: Message + Default + PartialEq + serde::de::DeserializeOwned + std::fmt::Debug>(
        signal: Signal,
        all: &M,
    ) {
        let plain = all.encode_to_vec();
        let json = to_json(signal, &plain).unwrap();
        let json = std::str::from_utf8(&json).unwrap();
        assert!(M::decode(&protobuf_of(signal, json)[..]).unwrap() == *all, "{json}");
        let theirs: M = serde_json::from_str(json).unwrap();
        // That reader does not know references to texts of profiles.
        let known = format!("{all:?}").replace("Some(StringValueStrindex(-5))", "None");
        assert_eq!(format!("{theirs:?}"), known, "another reader's view of {json}");
        // As the tool takes it apart.
        let wire = crate::encode::OtlpJson;
        let framing = crate::encode::WireFormat::framing(&wire, signal);
        let inner = json.strip_prefix(std::str::from_utf8(framing.prefix).unwrap()).unwrap();
        let inner = inner.strip_suffix(std::str::from_utf8(framing.suffix).unwrap()).unwrap();
        assert!(crate::encode::WireFormat::parts(&wire, inner.as_bytes()).is_ok(), "{inner}");
    }
    check(Signal::Logs, &every_log());
    check(Signal::Metrics, &every_metric());
    check(Signal::Traces, &every_span());
}
