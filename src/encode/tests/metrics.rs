//! Data points in the formats that take them beside OTLP, to the byte.

use super::*;
use crate::observe::{Data, Histogram, Number};

const START: u64 = 1_760_000_000_123_000_000;
const SECOND: u64 = 1_000_000_000;

fn metric(name: &'static str, unit: &'static str, data: Data<'static>) -> Metric<'static> {
    Metric {
        name: name.into(),
        description: "for people".into(),
        unit: unit.into(),
        attributes: Cow::Owned(vec![("error.type".into(), Value::Str("a,b".into()))]),
        start_unix_nanos: START,
        time_unix_nanos: START + 5 * SECOND / 2,
        data,
    }
}

fn spread(values: &[f64]) -> Data<'static> {
    let mut histogram = Histogram::of(&[1.0], values[0]);
    values[1..].iter().for_each(|value| histogram.add(*value));
    Data::Histogram(Cow::Owned(histogram))
}

fn points() -> [Metric<'static>; 3] {
    [
        metric("faas.errors", "{error}", Data::Delta(Number::Int(2))),
        metric("faas.invoke_duration", "s", spread(&[0.5, 1.5])),
        metric("aws.lambda.tmp_free", "By", Data::Gauge(Number::Int(512))),
    ]
}

/// A request of two blocks, with all points and with the first.
fn golden_of_points(protocol: Protocol) -> String {
    let wire = protocol.wire();
    let block = |points: &[Metric<'_>]| {
        let mut encoded = Vec::new();
        for point in points {
            separated(wire.as_ref(), &mut encoded);
            wire.metric(&resource(), point, &mut encoded);
        }
        let mut block = Vec::new();
        wire.block_head(Signal::Metrics, &resource(), encoded.len(), &mut block);
        [block, encoded].concat()
    };
    let blocks = [block(&points()), block(&points()[..1])];
    for (block, count) in blocks.iter().zip([3, 1]) {
        let parts = wire.parts(block).unwrap();
        assert_eq!(parts.records.len(), count, "a point is a record, whatever it is made of");
        assert_eq!(wire.subset(block, &parts, 0..count), *block);
    }
    let Framing { prefix, separator, suffix } = wire.framing(Signal::Metrics);
    String::from_utf8([prefix, &blocks.join(separator), suffix].concat()).unwrap()
}

#[test]
fn datadog_metrics_to_the_byte() {
    let tags = joined(
        r#""tags":["functionname:f","executedversion:7","cloud.provider:aws","cloud.platform:aws_lambda","region:eu-central-1",
        "account_id:123456789012","team:a_b","service:f","error.type:a_b"]"#,
    );
    let series = |name: &str, kind: u8, value: &str, more: &str| {
        format!(
            r#"{{"metric":"{name}","type":{kind},"points":[{{"timestamp":1760000002,"value":{value}}}],{more}{tags}}}"#
        )
    };
    let errors = |value| series("faas.errors", 1, value, r#""interval":3,"#);
    let durations = [
        series("faas.invoke_duration.count", 1, "2.0", r#""interval":3,"#),
        series("faas.invoke_duration.sum", 1, "2.0", r#""interval":3,"unit":"second","#),
        series("faas.invoke_duration.min", 3, "0.5", r#""unit":"second","#),
        series("faas.invoke_duration.max", 3, "1.5", r#""unit":"second","#),
    ];
    let free = series("aws.lambda.tmp_free", 3, "512.0", r#""unit":"byte","#);
    let (first, second) = (errors("2.0"), errors("4.0"));
    // The second block has the same series in the same second: it tells what that has come to.
    let expected = format!("{{\"series\":[{first},\n{},\n{free},\n{second}]}}", durations.join(","));
    assert_eq!(golden_of_points(Protocol::Datadog), expected);
}

#[test]
fn newrelic_metrics_to_the_byte() {
    let attributes = |unit: &str| format!(r#""attributes":{{"unit":"{unit}","error.type":"a,b"}}"#);
    let errors = format!(
        r#"{{"name":"faas.errors","type":"count","value":2,"timestamp":1760000000123,"interval.ms":2500,{}}}"#,
        attributes("{error}")
    );
    let durations = format!(
        r#"{{"name":"faas.invoke_duration","type":"summary","value":{{"count":2,"sum":2.0,"min":0.5,"max":1.5}},"timestamp":1760000000123,"interval.ms":2500,{}}}"#,
        attributes("s")
    );
    let free = format!(
        r#"{{"name":"aws.lambda.tmp_free","type":"gauge","value":512,"timestamp":1760000002623,{}}}"#,
        attributes("By")
    );
    let head = format!(r#"{{"common":{{"attributes":{RESOURCE}}},"metrics":["#);
    let expected = format!("[{head}\n{errors},\n{durations},\n{free}]}},{head}\n{errors}]}}]");
    assert_eq!(golden_of_points(Protocol::NewRelic), expected);
}

/// What Datadog shows if the last point of a series and second counts.
fn shown(points: &[Metric<'_>]) -> std::collections::BTreeMap<(String, u64), f64> {
    let datadog = Datadog::default();
    let mut shown = std::collections::BTreeMap::new();
    for point in points {
        let mut out = Vec::new();
        datadog.metric(&resource(), point, &mut out);
        let body = [b"[", &out[..], b"]"].concat();
        let series: Vec<Read> = serde_json::from_slice(&body).unwrap();
        for series in series {
            let name = format!("{} {}", series["metric"].as_str().unwrap(), series["tags"]);
            let point = &series["points"][0];
            shown.insert((name, point["timestamp"].as_u64().unwrap()), point["value"].as_f64().unwrap());
        }
    }
    shown
}

#[test]
fn points_of_one_second_add_up_where_the_last_one_counts() {
    let at = |time: u64, data: Data<'static>| Metric { time_unix_nanos: time, ..metric("m", "s", data) };
    let shown = shown(&[
        at(10 * SECOND, spread(&[2.0])),
        at(10 * SECOND + 1, spread(&[1.0, 5.0])),
        at(11 * SECOND, spread(&[7.0])),
        Metric { attributes: Cow::Owned(Vec::new()), ..at(11 * SECOND, spread(&[3.0])) },
    ]);
    let value = |suffix: &str, second: u64, tagged: bool| {
        let found = shown.iter().find(|((name, at), _)| {
            name.starts_with(&format!("m{suffix} ")) && *at == second && name.contains("error.type") == tagged
        });
        *found.unwrap().1
    };
    let all = |second| json!([".count", ".sum", ".min", ".max"].map(|of| value(of, second, true)));
    assert_eq!(all(10), json!([3.0, 8.0, 1.0, 5.0]));
    assert_eq!(all(11), json!([1.0, 7.0, 7.0, 7.0]));
    assert_eq!(json!(value(".sum", 11, false)), json!(3.0), "other tags are another series");
}

proptest! {
    #[test]
    fn sums_are_right_however_many_series_there_are(
        points in prop::collection::vec((0..40_u64, 0..3_u64, 1..100_i64), 1..200),
    ) {
        let mut points = points;
        points.sort_by_key(|(_, second, _)| *second);
        let made: Vec<Metric<'static>> = points
            .iter()
            .map(|(name, second, value)| Metric {
                name: format!("m{name}").into(),
                time_unix_nanos: second * SECOND,
                ..metric("", "", Data::Delta(Number::Int(*value)))
            })
            .collect();
        let expected: i64 = points.iter().map(|(_, _, value)| value).sum();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let expected = expected as f64;
        prop_assert!((shown(&made).values().sum::<f64>() - expected).abs() < 1e-6);
    }
}

#[test]
fn attributes_of_a_point_stay_within_what_new_relic_takes() {
    let many = (0..200).map(|n| (Cow::from(format!("a.{n}")), Value::Int(n))).collect::<Vec<_>>();
    let point = Metric { attributes: Cow::Owned(many), ..points()[0].clone() };
    let mut out = Vec::new();
    NewRelic.metric(&resource(), &point, &mut out);
    let read: Read = serde_json::from_slice(&out).unwrap();
    let attributes = read["attributes"].as_object().unwrap();
    assert_eq!(attributes.len() + resource().attributes.len(), 150);
    assert_eq!(attributes["outlast.attributes_left_out"], json!(200 - (attributes.len() - 2)));
}

#[test]
fn a_sum_beyond_all_numbers_is_still_json() {
    for protocol in [Protocol::Datadog, Protocol::NewRelic] {
        let mut out = Vec::new();
        protocol.wire().metric(&resource(), &metric("m", "", spread(&[f64::MAX, f64::MAX])), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("1.7976931348623157e308") && !text.contains("Infinity"), "{text}");
    }
}
