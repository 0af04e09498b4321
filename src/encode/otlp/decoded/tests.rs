use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord as Theirs, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    self as metrics, Metric as Measured, ResourceMetrics, ScopeMetrics, metric::Data as Kind,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource as About;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn pair(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn all(signal: Signal, plain: &[u8]) -> Vec<(Resource, Decoded)> {
    let mut found = Vec::new();
    read(signal, plain, &mut |resource, decoded| found.push((resource.clone(), decoded))).unwrap();
    found
}

fn logs(scope: &str, records: Vec<Theirs>) -> ResourceLogs {
    let scope = InstrumentationScope { name: scope.into(), version: "1.2".into(), ..Default::default() };
    ResourceLogs {
        resource: Some(About { attributes: vec![pair("a", Any::IntValue(1))], ..Default::default() }),
        scope_logs: vec![ScopeLogs { scope: Some(scope), log_records: records, ..Default::default() }],
        ..Default::default()
    }
}

#[test]
fn what_an_sdk_logged_is_read_with_its_logger() {
    let record = Theirs {
        observed_time_unix_nano: 5,
        severity_number: 9,
        body: Some(AnyValue { value: Some(Any::BytesValue(vec![1, 2, 3])) }),
        attributes: vec![pair("k", Any::BoolValue(false)), pair("k", Any::IntValue(-1))],
        trace_id: vec![7; 16],
        span_id: vec![1, 2, 3],
        ..Default::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![logs("app.db", vec![record]), logs("outlast", vec![Theirs::default()])],
    };
    let found = all(Signal::Logs, &request.encode_to_vec());
    let [(resource, Decoded::Log(first)), (_, Decoded::Log(second))] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(resource.attributes, [("a".into(), Value::Int(1))]);
    let text = |text: &'static str| Value::Str(text.into());
    assert_eq!(
        *first,
        LogRecord {
            time_unix_nanos: 5,
            observed_unix_nanos: 5,
            severity: Severity { number: 9, text: "".into() },
            body: text("AQID"),
            attributes: vec![
                ("k".into(), Value::Bool(false)),
                ("k.2".into(), Value::Int(-1)),
                ("otel.scope.name".into(), text("app.db")),
                ("otel.scope.version".into(), text("1.2")),
            ],
            trace_id: Some([7; 16]),
            ..LogRecord::default()
        }
    );
    assert_eq!(*second, LogRecord::default(), "our own name is nothing to tell");
}

#[test]
fn data_points_without_a_place_are_told_by_what_they_are() {
    let number = |flags| metrics::NumberDataPoint {
        time_unix_nano: 2,
        flags,
        value: Some(number_data_point::Value::AsInt(4)),
        ..Default::default()
    };
    let sum = |aggregation_temporality, is_monotonic| {
        Kind::Sum(metrics::Sum { data_points: vec![number(0)], aggregation_temporality, is_monotonic })
    };
    let spread = |sum, aggregation_temporality| {
        let point = metrics::HistogramDataPoint {
            sum,
            min: Some(1.0),
            max: Some(2.0),
            count: 3,
            ..Default::default()
        };
        Kind::Histogram(metrics::Histogram { data_points: vec![point], aggregation_temporality })
    };
    let kinds = vec![
        Kind::Gauge(metrics::Gauge { data_points: vec![number(0), number(1)] }),
        sum(1, true),
        sum(1, false),
        sum(2, true),
        spread(Some(3.0), 1),
        spread(None, 1),
        spread(Some(3.0), 2),
        Kind::ExponentialHistogram(metrics::ExponentialHistogram {
            data_points: vec![metrics::ExponentialHistogramDataPoint::default()],
            ..Default::default()
        }),
        Kind::Summary(metrics::Summary { data_points: vec![metrics::SummaryDataPoint::default()] }),
    ];
    let metrics =
        kinds.into_iter().map(|data| Measured { name: "m".into(), data: Some(data), ..Default::default() });
    let scope = ScopeMetrics { metrics: metrics.collect(), ..Default::default() };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { scope_metrics: vec![scope], ..Default::default() }],
    };
    let told: Vec<String> = all(Signal::Metrics, &request.encode_to_vec())
        .into_iter()
        .map(|(_, decoded)| match decoded {
            Decoded::Metric(metric) => format!("{:?}", metric.data).split(' ').next().unwrap().to_owned(),
            Decoded::Foreign(what) => what.to_owned(),
            Decoded::Log(_) => panic!(),
        })
        .collect();
    assert_eq!(
        told,
        [
            "Gauge(Int(4))",
            "points without a value",
            "Delta(Int(4))",
            "sums that may fall",
            "cumulative sums",
            "Histogram(Histogram",
            "histograms without sum, least and greatest",
            "cumulative histograms",
            "exponential histograms",
            "summaries",
        ]
    );
}

#[test]
fn values_nested_without_end_are_cut_off() {
    let mut value = AnyValue { value: Some(Any::IntValue(1)) };
    for _ in 0..200 {
        let values = vec![value];
        value = AnyValue {
            value: Some(Any::ArrayValue(opentelemetry_proto::tonic::common::v1::ArrayValue { values })),
        };
    }
    let record = Theirs { body: Some(value), ..Default::default() };
    let request = ExportLogsServiceRequest { resource_logs: vec![logs("", vec![record])] };
    assert_eq!(all(Signal::Logs, &request.encode_to_vec()).len(), 1);
}

proptest! {
    #[test]
    fn no_bytes_are_read_with_a_panic(plain in prop::collection::vec(any::<u8>(), 0..80), cut in any::<prop::sample::Index>()) {
        let record = Theirs { attributes: vec![pair("k", Any::StringValue("text".into()))], ..Default::default() };
        let mut whole = ExportLogsServiceRequest { resource_logs: vec![logs("s", vec![record])] }.encode_to_vec();
        let at = cut.index(whole.len());
        whole.splice(at.., plain.iter().copied());
        for signal in Signal::ALL {
            for body in [&plain, &whole] {
                let _may_be_none = read(signal, body, &mut |_, _| {});
                let _may_be_none = super::super::received::to_json(signal, body);
            }
        }
    }
}
