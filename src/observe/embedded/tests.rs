#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // small numbers

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::record::Event;

/// What one object becomes: its points as (name, unit, [count, sum, min, max], attributes), and the rest of it.
#[derive(Debug, PartialEq)]
struct Became {
    points: Vec<(String, String, [f64; 4], Json)>,
    rest: Option<Json>,
}

fn json_of(value: &Value<'_>) -> Json {
    match value {
        Value::Empty => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Double(value) => (*value).into(),
        Value::Str(text) => text.as_ref().into(),
        Value::Array(items) => items.iter().map(json_of).collect(),
        Value::Map(fields) => fields_of(fields),
    }
}

fn fields_of(fields: &[Field<'_>]) -> Json {
    Json::Object(fields.iter().map(|(name, field)| (name.to_string(), json_of(field))).collect())
}

const LOGGED: u64 = 1_791_444_627_768_000_000;

fn became(object: &Json) -> Option<Became> {
    let raw = json!({"type": "function", "record": object}).to_string();
    let mut reading = Reading::of(&Event::parse(raw.as_bytes()), None);
    let embedded = Embedded::read(reading.members())?;
    let mut points = Vec::new();
    let (count, _) = embedded.write(LOGGED, 1, |metric| {
        let Data::Histogram(spread) = &metric.data else { panic!("{metric:?}") };
        assert_eq!((spread.bounds, &spread.buckets[..]), (&[][..], &[spread.count][..]));
        let statistics = [spread.count as f64, spread.sum, spread.min, spread.max];
        points.push((
            metric.name.to_string(),
            metric.unit.to_string(),
            statistics,
            fields_of(&metric.attributes),
        ));
    });
    assert_eq!(count as usize, points.len());
    let is_left = embedded.take_from(&mut reading);
    Some(Became { points, rest: is_left.then(|| fields_of(reading.members())) })
}

/// An object with these directives and members.
fn object(directives: &Json, members: &Json) -> Json {
    let mut object = members.clone();
    object["_aws"] = json!({"Timestamp": 1_791_444_627_700_i64, "CloudWatchMetrics": directives});
    object
}

/// One directive: `metrics` in `dimensions`.
fn directive(dimensions: &Json, metrics: &Json) -> Json {
    json!({"Namespace": "shop", "Dimensions": dimensions, "Metrics": metrics})
}

fn point(
    name: &str,
    unit: &str,
    statistics: [f64; 4],
    mut dimensions: Json,
) -> (String, String, [f64; 4], Json) {
    dimensions[NAMESPACE] = "shop".into();
    (name.to_owned(), unit.to_owned(), statistics, dimensions)
}

#[test]
fn the_example_of_the_specification_becomes_a_point_and_a_record() {
    let example = json!({
        "_aws": {"Timestamp": 1_574_109_732_004_i64, "CloudWatchMetrics": [{
            "Namespace": "lambda-function-metrics", "Dimensions": [["functionVersion"]],
            "Metrics": [{"Name": "time", "Unit": "Milliseconds", "StorageResolution": 60}]}]},
        "functionVersion": "$LATEST", "time": 100, "requestId": "989ffbf8-9ace-4817-a57c-e4dd734019ee"});
    let attributes = json!({"functionVersion": "$LATEST", NAMESPACE: "lambda-function-metrics"});
    assert_eq!(
        became(&example),
        Some(Became {
            points: vec![("time".into(), "ms".into(), [1.0, 100.0, 100.0, 100.0], attributes)],
            rest: Some(
                json!({"functionVersion": "$LATEST", "requestId": "989ffbf8-9ace-4817-a57c-e4dd734019ee"})
            ),
        })
    );
}

#[test]
fn names_and_units_can_be_changed_as_attributes_can() {
    let directives = json!([directive(&json!([["who"]]), &json!([{"Name": "bob's time", "Unit": "bob"}]))]);
    let record = object(&directives, &json!({"who": "bob", "bob's time": 7}));
    let raw = json!({"type": "function", "record": record}).to_string();
    let reading = Reading::of(&Event::parse(raw.as_bytes()), None);
    let mut embedded = Embedded::read(reading.members()).unwrap();
    embedded.texts(|fields| {
        for (_, value) in fields {
            if let Value::Str(text) = value {
                *value = Value::Str(text.replace("bob", "#").into());
            }
        }
    });
    embedded.write(LOGGED, 1, |metric| {
        assert_eq!((&*metric.name, &*metric.unit), ("#'s time", "#"));
        assert_eq!(fields_of(&metric.attributes)["who"], "#");
    });
}

#[test]
fn metrics_alone_leave_no_record() {
    let powertools = object(
        &json!([directive(&json!([["service"]]), &json!([{"Name": "Booked", "Unit": "Count"}]))]),
        &json!({"service": "booking", "Booked": [1.0]}),
    );
    let points = vec![point("Booked", "{count}", [1.0, 1.0, 1.0, 1.0], json!({"service": "booking"}))];
    assert_eq!(became(&powertools), Some(Became { points, rest: None }));
}

#[test]
fn every_directive_and_every_dimension_set_has_points_of_its_own() {
    let found = became(&object(
        &json!([
            directive(
                &json!([["a"], ["a", "b"], []]),
                &json!([{"Name": "x", "Unit": "Bytes/Second", "StorageResolution": 1}, {"Name": "y"}])
            ),
            directive(&json!([]), &json!([{"Name": "x", "Unit": "None"}])),
        ]),
        &json!({"a": "1", "b": "2", "x": 3, "y": -0.5, "other": null}),
    ))
    .unwrap();
    let x = |dimensions| point("x", "By/s", [1.0, 3.0, 3.0, 3.0], dimensions);
    let y = |dimensions| point("y", "", [1.0, -0.5, -0.5, -0.5], dimensions);
    let sets = [json!({"a": "1"}), json!({"a": "1", "b": "2"}), json!({})];
    let mut expected: Vec<_> = sets.iter().cloned().map(x).collect();
    expected.extend(sets.iter().cloned().map(y));
    expected.push(point("x", "", [1.0, 3.0, 3.0, 3.0], json!({})));
    assert_eq!(found.points, expected);
    assert_eq!(found.rest, Some(json!({"a": "1", "b": "2", "other": null})));
}

#[test]
fn lists_and_statistics_are_what_cloudwatch_keeps_of_them() {
    for (value, statistics) in [
        (json!([4, 1.5, 2]), [3.0, 7.5, 1.5, 4.0]),
        (json!([7]), [1.0, 7.0, 7.0, 7.0]),
        (json!({"Values": [1, 5], "Counts": [2, 3.0]}), [5.0, 17.0, 1.0, 5.0]),
        (json!({"Values": [1, 5], "Counts": [0, 1]}), [1.0, 5.0, 5.0, 5.0]),
        (json!({"Values": [2, 3]}), [2.0, 5.0, 2.0, 3.0]),
        (json!({"Max": 9, "Min": 1, "Count": 4, "Sum": 15.5}), [4.0, 15.5, 1.0, 9.0]),
        (
            json!({"Values": [1.5, 8], "Counts": [3, 1], "Max": 9, "Min": 1, "Count": 4, "Sum": 15.5}),
            [4.0, 15.5, 1.0, 9.0],
        ),
    ] {
        let metrics = json!([directive(&json!([[]]), &json!([{"Name": "m"}]))]);
        let found = became(&object(&metrics, &json!({"m": value}))).unwrap();
        assert_eq!(
            found,
            Became { points: vec![point("m", "", statistics, json!({}))], rest: None },
            "{value}"
        );
    }
}

#[test]
fn what_is_no_metric_stays_where_it_is_and_so_do_the_directives() {
    for value in [
        json!("12"),
        json!(true),
        json!(null),
        json!([]),
        json!([1, "2"]),
        json!([[1]]),
        json!({"a": 1}),
        json!(vec![1; 101]),
        json!({"Values": [1], "Counts": [1, 2]}),
        json!({"Values": [1], "Counts": [-1]}),
        json!({"Values": [1], "Counts": [1.5]}),
        json!({"Values": [1], "Counts": [0]}),
        json!({"Values": [1], "Unit": "s"}),
        json!({"Count": 0, "Sum": 0, "Min": 0, "Max": 0}),
        // No double is this number.
        json!(9_007_199_254_740_993_i64),
    ] {
        let metrics = json!([directive(
            &json!([["d"]]),
            &json!([{"Name": "good"}, {"Name": "odd"}, {"Name": "missing"}])
        )]);
        let object = object(&metrics, &json!({"d": "x", "good": 1, "odd": value}));
        let found = became(&object).unwrap();
        assert_eq!(found.points, [point("good", "", [1.0; 4], json!({"d": "x"}))], "{value}");
        let mut rest = object;
        rest.as_object_mut().unwrap().remove("good");
        assert_eq!(found.rest, Some(rest));
    }
}

#[test]
fn a_dimension_set_that_names_what_is_not_there_is_passed_over() {
    let names: Vec<String> = (0..31).map(|n| format!("d{n}")).collect();
    for set in [
        json!(["a", "missing"]),
        json!(["number"]),
        json!(["a", "a"]),
        json!([7]),
        json!("a"),
        json!(names),
        json!(["long"]),
        json!([""]),
    ] {
        let mut members = json!({"a": "1", "number": 2, "m": 1, "": "x", "long": "x".repeat(1025)});
        for name in &names {
            members[name] = "x".into();
        }
        let one = object(&json!([directive(&json!([["a"], set]), &json!([{"Name": "m"}]))]), &members);
        let found = became(&one).unwrap();
        assert_eq!(found.points, [point("m", "", [1.0; 4], json!({"a": "1"}))], "{set}");
        assert!(found.rest.unwrap().get("_aws").is_some());
        // If it was the only one there is nothing to be taken.
        assert_eq!(
            became(&object(&json!([directive(&json!([set]), &json!([{"Name": "m"}]))]), &members)),
            None
        );
    }
    let thirty = object(&json!([directive(&json!([names[..30]]), &json!([{"Name": "m"}]))]), &{
        let mut members = json!({"m": 1});
        for name in &names {
            members[name] = "x".into();
        }
        members
    });
    assert_eq!(became(&thirty).unwrap().points[0].3.as_object().unwrap().len(), 31);
}

#[test]
fn nested_members_are_no_targets_and_names_with_dots_are() {
    let metrics = json!([directive(&json!([["A.d"]]), &json!([{"Name": "A.a"}]))]);
    assert_eq!(became(&object(&metrics, &json!({"A": {"a": 1, "d": "x"}}))), None);
    let found = became(&object(&metrics, &json!({"A.a": 1, "A.d": "x", "A": {"a": 2}}))).unwrap();
    assert_eq!(found.points, [point("A.a", "", [1.0; 4], json!({"A.d": "x"}))]);
    assert_eq!(found.rest, Some(json!({"A.d": "x", "A": {"a": 2}})));
}

#[test]
fn what_breaks_the_specification_stays_as_it_came() {
    let good = directive(&json!([[]]), &json!([{"Name": "m"}]));
    let object = |aws: Json| json!({"_aws": aws, "m": 1});
    assert!(became(&object(json!({"CloudWatchMetrics": [good]}))).is_some());
    let many: Vec<Json> = (0..101).map(|_| json!({"Name": "m"})).collect();
    for aws in [
        json!(null),
        json!([]),
        json!({}),
        json!({"CloudWatchMetrics": good}),
        json!({"CloudWatchMetrics": []}),
        json!({"CloudWatchMetrics": [7]}),
        json!({"CloudWatchMetrics": [{"Dimensions": [[]], "Metrics": [{"Name": "m"}]}]}),
        json!({"CloudWatchMetrics": [{"Namespace": "", "Dimensions": [[]], "Metrics": [{"Name": "m"}]}]}),
        json!({"CloudWatchMetrics": [{"Namespace": "n", "Metrics": [{"Name": "m"}]}]}),
        json!({"CloudWatchMetrics": [{"Namespace": "n", "Dimensions": [[]], "Metrics": {"Name": "m"}}]}),
        json!({"CloudWatchMetrics": [{"Namespace": "n", "Dimensions": [[]], "Metrics": many}]}),
        json!({"CloudWatchMetrics": [{"Namespace": "n", "Dimensions": [[]], "Metrics": ["m", {"Name": 1}, {"Name": "m", "Unit": 7}]}]}),
        json!({"Timestamp": "now", "CloudWatchMetrics": [good]}),
        // Seconds, as many get it wrong.
        json!({"Timestamp": 1_791_444_627_i64, "CloudWatchMetrics": [good]}),
        json!({"Timestamp": -1, "CloudWatchMetrics": [good]}),
    ] {
        assert_eq!(became(&object(aws.clone())), None, "{aws}");
    }
    assert_eq!(became(&json!({"m": 1})), None);
    assert_eq!(became(&json!([1])), None);
}

#[test]
fn a_line_cannot_ask_for_more_points_than_it_may() {
    let metrics: Vec<Json> = (0..100).map(|n| json!({"Name": format!("m{n}")})).collect();
    let mut members = json!({});
    for metric in &metrics {
        members[metric["Name"].as_str().unwrap()] = 1.into();
    }
    let sets = |count: usize| json!([directive(&json!(vec![Vec::<String>::new(); count]), &json!(metrics))]);
    assert_eq!(became(&object(&sets(30), &members)).unwrap().points.len(), POINTS_MAX);
    assert_eq!(became(&object(&sets(31), &members)), None);
    let many = vec![directive(&json!([[]]), &json!(metrics)); 31];
    assert_eq!(became(&object(&json!(many[..30]), &members)).unwrap().points.len(), POINTS_MAX);
    assert_eq!(became(&object(&json!(many), &members)), None);
}

#[test]
fn a_line_cannot_ask_for_more_work_or_memory_than_it_may() {
    let metrics: Vec<Json> = (0..100).map(|n| json!({"Name": format!("m{n}")})).collect();
    let mut members = json!({});
    for metric in &metrics {
        members[metric["Name"].as_str().unwrap()] = 1.into();
    }
    let long = "v".repeat(1_000);
    let names: Vec<String> = (0..30).map(|n| format!("d{n}")).collect();
    for name in &names {
        members[name] = long.as_str().into();
    }
    // Each of the points of the one set has 30 kB of dimensions.
    let asks = |metrics: &[Json]| json!([directive(&json!([names]), &json!(metrics))]);
    assert_eq!(became(&object(&asks(&metrics[..30]), &members)).unwrap().points.len(), 30);
    assert_eq!(became(&object(&asks(&metrics), &members)), None);
    // Names that are looked for among many members, and lead to nothing.
    for n in 0..5_000 {
        members[format!("x{n}")] = "x".into();
    }
    let missing: Vec<Vec<String>> = (0..30).map(|_| (0..30).map(|n| format!("no{n}")).collect()).collect();
    let directives = vec![directive(&json!(missing), &json!([{"Name": "m0"}])); 2];
    assert_eq!(became(&object(&json!(directives), &members)), None);
}

#[test]
fn members_that_the_specification_does_not_know_are_not_lost() {
    let extra = |aws: Json| became(&json!({"_aws": aws, "m": 1})).unwrap().rest;
    let plain = json!({"Namespace": "n", "Dimensions": [[]], "Metrics": [{"Name": "m"}]});
    assert_eq!(
        extra(json!({"LogGroupName": "g", "Timestamp": 1_791_444_627_700_i64, "CloudWatchMetrics": [plain]})),
        Some(json!({"_aws": {"LogGroupName": "g"}}))
    );
    for (place, name) in [("", "Owner"), ("/Metrics/0", "Kind")] {
        let mut directive = plain.clone();
        directive.pointer_mut(place).unwrap()[name] = "x".into();
        let aws = json!({"CloudWatchMetrics": [directive]});
        assert_eq!(extra(aws.clone()), Some(json!({"_aws": aws})));
    }
}

#[test]
fn units_are_written_as_ucum_has_them() {
    for (unit, ucum) in [
        ("Seconds", "s"),
        ("Microseconds", "us"),
        ("Milliseconds", "ms"),
        ("Bytes", "By"),
        ("Kilobytes", "kBy"),
        ("Megabytes", "MBy"),
        ("Gigabytes", "GBy"),
        ("Terabytes", "TBy"),
        ("Bits", "bit"),
        ("Kilobits", "kbit"),
        ("Megabits", "Mbit"),
        ("Gigabits", "Gbit"),
        ("Terabits", "Tbit"),
        ("Percent", "%"),
        ("Count", "{count}"),
        ("None", ""),
        ("Kilobytes/Second", "kBy/s"),
        ("Count/Second", "{count}/s"),
        ("Widgets", "Widgets"),
        ("Widgets/Second", "Widgets/Second"),
        ("None/Second", "None/Second"),
        ("", ""),
    ] {
        assert_eq!(super::ucum(&unit.into()), ucum, "{unit}");
    }
}

#[test]
fn points_have_the_time_of_the_timestamp_and_are_told_apart_below_it() {
    let metrics = json!([directive(&json!([[]]), &json!([{"Name": "m"}]))]);
    let raw = json!({"type": "function", "record": object(&metrics, &json!({"m": 1}))}).to_string();
    let reading = Reading::of(&Event::parse(raw.as_bytes()), None);
    let mut embedded = Embedded::read(reading.members()).unwrap();
    let times = |embedded: &Embedded<'_>, place| {
        let mut times = Vec::new();
        let (_, time) = embedded.write(LOGGED, place, |metric| {
            times.push((metric.start_unix_nanos, metric.time_unix_nanos));
        });
        assert_eq!(times[0].1, time);
        times[0]
    };
    let timestamp = 1_791_444_627_700_000_000;
    assert_eq!(times(&embedded, 7), (timestamp + 7 - INTERVAL_NANOS, timestamp + 7));
    assert_eq!(times(&embedded, 1_000_007), times(&embedded, 7));
    embedded.time_unix_nanos = None;
    assert_eq!(times(&embedded, 7), (LOGGED + 7 - INTERVAL_NANOS, LOGGED + 7));
}

fn member() -> impl Strategy<Value = Json> {
    let number = prop_oneof![any::<i32>().prop_map(Json::from), (-1e9..1e9).prop_map(Json::from)];
    prop_oneof![
        3 => number.clone(),
        2 => prop::collection::vec(number, 0..4).prop_map(Json::from),
        2 => "[a-z]{0,3}".prop_map(Json::from),
        1 => Just(Json::Null),
        1 => Just(json!({"Values": [1, 2], "Counts": [1, 1]})),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "d", "message", "_aws"]).prop_map(str::to_owned)
}

fn any_directive() -> impl Strategy<Value = Json> {
    let sets = prop::collection::vec(prop::collection::vec(name(), 0..3), 0..3);
    let metrics = prop::collection::vec((name(), prop::option::of("Count|Bytes|x")), 0..4);
    (sets, metrics).prop_map(|(sets, metrics)| {
        let metrics = metrics.into_iter().map(|(name, unit)| match unit {
            Some(unit) => json!({"Name": name, "Unit": unit}),
            None => json!({"Name": name}),
        });
        directive(&json!(sets), &metrics.collect())
    })
}

proptest! {
    /// Every member is in the record as it was, or its value is in a point of its name, or it is a dimension of one.
    #[test]
    fn every_member_is_found_again(
        members in prop::collection::btree_map(name().prop_filter("reserved", |name| name != "_aws"), member(), 0..5),
        directives in prop::collection::vec(any_directive(), 0..3),
    ) {
        let members: Json = members.into_iter().collect();
        let whole = object(&json!(directives), &members);
        let Some(Became { points, rest }) = became(&whole) else { return Ok(()) };
        for (name, value) in members.as_object().unwrap() {
            let in_rest = rest.as_ref().and_then(|rest| rest.get(name)) == Some(value);
            let in_points = points.iter().any(|(point, ..)| point == name);
            let as_dimension = points.iter().any(|(.., dimensions)| dimensions.get(name) == Some(value));
            prop_assert!(in_rest || in_points || as_dimension, "{name} of {whole} is lost");
            // Counted once.
            prop_assert!(!(in_rest && in_points), "{name} of {whole} is in both");
        }
        for (name, unit, [count, sum, ..], _) in &points {
            let value = &members[name];
            let numbers: Vec<f64> = match value {
                Json::Array(items) => items.iter().filter_map(Json::as_f64).collect(),
                Json::Object(_) => vec![1.0, 2.0],
                value => value.as_f64().into_iter().collect(),
            };
            prop_assert_eq!(*count as usize, numbers.len());
            prop_assert!((sum - numbers.iter().sum::<f64>()).abs() < 1e-3);
            let is_unit = ["", "{count}", "By", "x"].contains(&unit.as_str());
            prop_assert!(is_unit);
        }
    }
}
