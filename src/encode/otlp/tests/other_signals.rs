//! Metrics and spans, read back by the project's own messages.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    self as metrics, AggregationTemporality, metric::Data as OtlpData, number_data_point,
};
use opentelemetry_proto::tonic::trace::v1 as trace;
use proptest::prelude::*;
use prost::Message;
use std::borrow::Cow;

use super::*;
use crate::observe::{Data, Histogram, Link, Number, Parent, SpanKind, SpanStatus};
use crate::record::ResourceInputs;

fn block<T>(records: &[T], encode: impl Fn(&T, &mut Vec<u8>)) -> Vec<u8> {
    let mut encoded = Vec::new();
    for record in records {
        encode(record, &mut encoded);
    }
    let resource = Resource::build(&ResourceInputs { function_name: Some("f"), ..ResourceInputs::default() });
    let mut block = Vec::new();
    Otlp.block_head(Signal::Metrics, &resource, encoded.len(), &mut block);
    block.extend_from_slice(&encoded);
    block
}

fn metric_block(records: &[Metric<'static>]) -> Vec<u8> {
    block(records, |metric, out| Otlp.metric(&Resource::default(), metric, out))
}

fn span_block(records: &[Span]) -> Vec<u8> {
    block(records, |span, out| Otlp.span(span, out))
}

fn attribute(field: &Field<'_>) -> KeyValue {
    let (name, value) = field;
    let value = match value {
        Value::Str(text) => any_value::Value::StringValue(text.to_string()),
        Value::Bool(value) => any_value::Value::BoolValue(*value),
        Value::Int(value) => any_value::Value::IntValue(*value),
        other => panic!("{other:?}"),
    };
    KeyValue { key: name.to_string(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn expected_number(metric: &Metric<'_>, value: Number) -> metrics::NumberDataPoint {
    metrics::NumberDataPoint {
        attributes: metric.attributes.iter().map(attribute).collect(),
        start_time_unix_nano: metric.start_unix_nanos,
        time_unix_nano: metric.time_unix_nanos,
        value: Some(match value {
            Number::Int(value) => number_data_point::Value::AsInt(value),
            Number::Double(value) => number_data_point::Value::AsDouble(value),
        }),
        ..Default::default()
    }
}

fn expected_metric(metric: &Metric<'_>) -> metrics::Metric {
    let delta = AggregationTemporality::Delta as i32;
    let data = match &metric.data {
        Data::Gauge(value) => {
            OtlpData::Gauge(metrics::Gauge { data_points: vec![expected_number(metric, *value)] })
        }
        Data::Delta(value) => OtlpData::Sum(metrics::Sum {
            data_points: vec![expected_number(metric, *value)],
            aggregation_temporality: delta,
            is_monotonic: true,
        }),
        Data::Histogram(spread) => OtlpData::Histogram(metrics::Histogram {
            data_points: vec![metrics::HistogramDataPoint {
                attributes: metric.attributes.iter().map(attribute).collect(),
                start_time_unix_nano: metric.start_unix_nanos,
                time_unix_nano: metric.time_unix_nanos,
                count: spread.count,
                sum: Some(spread.sum),
                min: Some(spread.min),
                max: Some(spread.max),
                bucket_counts: spread.buckets.clone(),
                explicit_bounds: spread.bounds.to_vec(),
                ..Default::default()
            }],
            aggregation_temporality: delta,
        }),
    };
    metrics::Metric {
        name: metric.name.to_string(),
        description: metric.description.to_string(),
        unit: metric.unit.to_string(),
        data: Some(data),
        ..Default::default()
    }
}

fn expected_span(span: &Span) -> trace::Span {
    let link = |link: &Link| trace::span::Link {
        trace_id: link.trace_id.to_vec(),
        span_id: link.span_id.to_vec(),
        flags: link.trace_flags,
        ..Default::default()
    };
    let remote = match span.parent {
        None => 0,
        Some(Parent { is_remote, .. }) => {
            trace::SpanFlags::ContextHasIsRemoteMask as u32
                | if is_remote { trace::SpanFlags::ContextIsRemoteMask as u32 } else { 0 }
        }
    };
    let status = match &span.status {
        SpanStatus::Unset => None,
        SpanStatus::Error(text) => {
            Some(trace::Status { message: text.to_string(), code: trace::status::StatusCode::Error as i32 })
        }
    };
    let kind = match span.kind {
        SpanKind::Internal => trace::span::SpanKind::Internal,
        SpanKind::Server => trace::span::SpanKind::Server,
    };
    trace::Span {
        trace_id: span.trace_id.to_vec(),
        span_id: span.span_id.to_vec(),
        parent_span_id: span.parent.map(|parent| parent.span_id.to_vec()).unwrap_or_default(),
        flags: span.trace_flags | remote,
        name: span.name.to_string(),
        kind: kind as i32,
        start_time_unix_nano: span.start_unix_nanos,
        end_time_unix_nano: span.end_unix_nanos,
        attributes: span.attributes.iter().map(attribute).collect(),
        links: span.link.iter().map(link).collect(),
        status,
        ..Default::default()
    }
}

fn fields() -> impl Strategy<Value = Vec<Field<'static>>> {
    let value = prop_oneof![
        ".*".prop_map(|text| Value::Str(text.into())),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
    ];
    prop::collection::vec((".*".prop_map(Cow::from), value), 0..4)
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![any::<i64>().prop_map(Number::Int), any::<f64>().prop_map(Number::Double)]
}

fn histogram() -> impl Strategy<Value = Histogram> {
    const BOUNDS: &[f64] = &[0.5, 1.0, 5.0];
    prop::collection::vec(0.0..10.0, 1..5).prop_map(|values| {
        let mut histogram = Histogram::of(BOUNDS, values[0]);
        values[1..].iter().for_each(|value| histogram.add(*value));
        histogram
    })
}

prop_compose! {
    fn metric()(
        text in ("[a-z.]{0,20}", ".{0,200}", "[a-z]{0,3}"),
        attributes in fields(),
        times in any::<(u64, u64)>(),
        data in prop_oneof![
            number().prop_map(Data::Gauge),
            number().prop_map(Data::Delta),
            histogram().prop_map(|histogram| Data::Histogram(Cow::Owned(histogram))),
        ],
    ) -> Metric<'static> {
        let (name, description, unit) = text;
        Metric {
            name: name.into(),
            description: description.into(),
            unit: unit.into(),
            attributes: attributes.into(),
            start_unix_nanos: times.0,
            time_unix_nanos: times.1,
            data,
        }
    }
}

prop_compose! {
    fn span()(
        ids in any::<([u8; 16], [u8; 8])>(),
        parent in any::<Option<([u8; 8], bool)>>(),
        link in any::<Option<([u8; 16], [u8; 8], u8)>>(),
        trace_flags in 0..256_u32,
        name in ".{0,300}",
        server in any::<bool>(),
        times in any::<(u64, u64)>(),
        attributes in fields(),
        error in prop::option::of(".{0,20}"),
    ) -> Span {
        Span {
            trace_id: ids.0,
            span_id: ids.1,
            parent: parent.map(|(span_id, is_remote)| Parent { span_id, is_remote }),
            trace_flags,
            name: name.into(),
            kind: if server { SpanKind::Server } else { SpanKind::Internal },
            start_unix_nanos: times.0,
            end_unix_nanos: times.1,
            attributes,
            link: link.map(|(trace_id, span_id, flags)| Link { trace_id, span_id, trace_flags: flags.into() }),
            status: error.map_or(SpanStatus::Unset, |text| SpanStatus::Error(text.into())),
        }
    }
}

#[test]
fn all_three_signals_are_taken() {
    assert_eq!(Signal::ALL.map(|signal| Otlp.takes(signal)), [true; 3]);
    assert_eq!(
        Signal::ALL.map(|signal| Otlp.path(signal, "/x")),
        ["/x/v1/logs", "/x/v1/metrics", "/x/v1/traces"]
    );
}

proptest! {
    #[test]
    fn every_metric_decodes_to_what_it_was(records in prop::collection::vec(metric(), 0..4)) {
        let bytes = metric_block(&records);
        let request = ExportMetricsServiceRequest::decode(&bytes[..]).expect("a request");
        prop_assert!(request.encode_to_vec() == bytes, "the bytes are those prost would write");
        let [resource] = &request.resource_metrics[..] else { panic!("{request:?}") };
        prop_assert!(resource.resource.is_some());
        let [scope] = &resource.scope_metrics[..] else { panic!("{request:?}") };
        prop_assert_eq!(&scope.scope.as_ref().expect("a scope").name, "outlast");
        // As bytes, because not every number equals itself.
        let encoded = |metrics: &[metrics::Metric]| metrics.iter().map(Message::encode_to_vec).collect::<Vec<_>>();
        prop_assert_eq!(encoded(&scope.metrics), encoded(&records.iter().map(expected_metric).collect::<Vec<_>>()));
    }

    #[test]
    fn every_span_decodes_to_what_it_was(records in prop::collection::vec(span(), 0..4)) {
        let bytes = span_block(&records);
        let request = ExportTraceServiceRequest::decode(&bytes[..]).expect("a request");
        prop_assert!(request.encode_to_vec() == bytes, "the bytes are those prost would write");
        let [resource] = &request.resource_spans[..] else { panic!("{request:?}") };
        let [scope] = &resource.scope_spans[..] else { panic!("{request:?}") };
        prop_assert_eq!(&scope.spans, &records.iter().map(expected_span).collect::<Vec<_>>());
    }

    #[test]
    fn blocks_of_each_signal_come_apart_into_records_and_go_together_again(
        metrics in prop::collection::vec(metric(), 0..5),
        spans in prop::collection::vec(span(), 0..5),
        range in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let chosen = |count: usize| {
            let (a, b) = (range.0.index(count + 1), range.1.index(count + 1));
            a.min(b)..a.max(b)
        };
        let bytes = metric_block(&metrics);
        let parts = Otlp.parts(&bytes).expect("our own");
        prop_assert_eq!(parts.records.len(), metrics.len());
        let range = chosen(metrics.len());
        // Of nothing, nothing is made.
        let expected = if range.is_empty() { Vec::new() } else { metric_block(&metrics[range.clone()]) };
        prop_assert!(Otlp.subset(&bytes, &parts, range) == expected);

        let bytes = span_block(&spans);
        let parts = Otlp.parts(&bytes).expect("our own");
        prop_assert_eq!(parts.records.len(), spans.len());
        let range = chosen(spans.len());
        let expected = if range.is_empty() { Vec::new() } else { span_block(&spans[range.clone()]) };
        prop_assert!(Otlp.subset(&bytes, &parts, range) == expected);

        let twice = [span_block(&spans), span_block(&spans)].concat();
        let request = ExportTraceServiceRequest::decode(&twice[..]).expect("a request");
        prop_assert_eq!(request.resource_spans.len(), 2);
    }
}
