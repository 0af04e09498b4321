//! What the function's lines say: embedded metrics, loggers, stack traces that come line by line.

use crate::account::points;
use crate::support::{World, invoke, leave, left_of, within};
use outlast_backend::{Behaviour, Record, Signal};
use outlast_simulator::{Invocation, LogFormat, Sandbox};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// When the first of the metrics was taken, Unix milliseconds.
const BEGUN: u64 = 1_791_444_627_700;

/// A line with the metric `Booked`, each value a millisecond later, and these members.
fn emf(value: u64, members: &Value) -> String {
    let mut line = members.clone();
    line["_aws"] = json!({"Timestamp": BEGUN + value, "CloudWatchMetrics": [
        {"Namespace": "shop", "Dimensions": [["service"]], "Metrics": [{"Name": "Booked", "Unit": "Count"}]}]});
    line["service"] = "booking".into();
    line["Booked"] = value.into();
    line.to_string()
}

/// The records of the function that arrived.
fn of_function(world: &World) -> Vec<Record> {
    let mut records = world.backend.records();
    records.retain(|record| record.attributes.get("aws.lambda.telemetry.type") == Some(&json!("function")));
    records
}

/// Waits until everything acknowledged so far is at the backend, whose last line is `last`, and ends. Embedded metrics and
/// joined lines make fewer records than there were lines.
async fn until_arrived(world: &World, lambda: Sandbox, last: &str) {
    within("deliveries", lambda.settled()).await;
    world.wait_for(|received| received.records().iter().any(|record| record.text == last)).await;
    leave(&lambda).await;
    assert_eq!(Signal::ALL.map(|signal| left_of(&lambda, signal)), [0; 3]);
}

/// How often each sum of `Booked` arrived.
fn booked(world: &World) -> BTreeMap<u64, usize> {
    let mut sums = BTreeMap::new();
    for point in points(&world.backend).iter().filter(|point| point.text == "Booked") {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small numbers
        let sum = point.body["value"]["sum"].as_f64().unwrap() as u64;
        *sums.entry(sum).or_default() += 1;
    }
    sums
}

#[tokio::test]
async fn an_embedded_metric_arrives_as_a_point_and_the_rest_as_a_record() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let world = World::new().await;
        let lambda = world.lambda().log_format(format).start().await.unwrap();
        let told = emf(3, &json!({"message": "booked", "level": "WARN", "order": 7}));
        invoke(&lambda, Invocation::new().line(told).line(emf(4, &json!({}))).line("plain")).await;
        until_arrived(&world, lambda, "plain").await;
        let records = of_function(&world);
        let texts: Vec<&str> = records.iter().map(|record| record.text.as_str()).collect();
        assert_eq!(texts, ["booked", "plain"], "{format:?}: of metrics alone nothing is left");
        let attributes = &records[0].attributes;
        assert_eq!((&attributes["order"], &attributes["service"]), (&json!(7), &json!("booking")));
        assert!(!attributes.contains_key("_aws") && !attributes.contains_key("Booked"));
        let found = points(&world.backend).into_iter().filter(|point| point.text == "Booked");
        let found: Vec<Record> = found.collect();
        assert_eq!(found.len(), 2);
        for (point, value) in found.iter().zip([3, 4]) {
            assert_eq!(point.time_unix_nano / 1_000_000, BEGUN + value);
            #[allow(clippy::cast_precision_loss)] // small numbers
            let value = value as f64;
            let spread =
                json!({"count": 1, "sum": value, "min": value, "max": value, "buckets": [1], "bounds": []});
            assert_eq!(point.body, json!({"kind": "histogram", "unit": "{count}", "value": spread}));
            let dimensions = json!({"service": "booking", "aws.cloudwatch.namespace": "shop"});
            assert_eq!(Value::Object(point.attributes.clone()), dimensions);
        }
    }
}

#[tokio::test]
async fn embedded_metrics_outlive_an_outage_and_sigkills_and_count_once() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda().start().await.unwrap();
    for round in 0..4 {
        let lines = (0..5).map(|line| emf(round * 5 + line, &json!({"message": "booked"})));
        invoke(&lambda, lines.fold(Invocation::new(), Invocation::line)).await;
        within("deliveries", lambda.settled()).await;
        lambda.kill().await;
    }
    invoke(&lambda, Invocation::new().line(emf(20, &json!({}))).line("the end")).await;
    within("deliveries", lambda.settled()).await;
    assert!(booked(&world).is_empty(), "the backend is away");
    world.backend.recover().await.unwrap();
    until_arrived(&world, lambda, "the end").await;
    assert_eq!(booked(&world), (0..=20).map(|sum| (sum, 1)).collect());
    assert_eq!(of_function(&world).iter().filter(|record| record.text == "booked").count(), 20);
}

#[tokio::test]
async fn the_original_line_is_kept_if_that_is_asked_for() {
    for (setting, count) in [("keep", 1), ("off", 0)] {
        let world = World::new().await;
        let lambda = world.lambda().env("OUTLAST_EMF", setting);
        let lambda = lambda.start().await.unwrap();
        let line = emf(3, &json!({"message": "booked"}));
        invoke(&lambda, Invocation::new().line(line.clone())).await;
        until_arrived(&world, lambda, &line).await;
        let records = of_function(&world);
        assert_eq!(records.iter().map(|record| &record.text).collect::<Vec<_>>(), [&line]);
        assert_eq!(booked(&world).len(), count, "{setting}");
    }
}

#[tokio::test]
async fn a_split_stack_trace_arrives_as_one_record() {
    let trace =
        ["[ERROR] lost", "Traceback (most recent call last):", "  File \"app.py\", line 3", "ValueError: no"];
    let run = async |setting: &str| {
        let world = World::new().await;
        let lambda = world.lambda().env("OUTLAST_JOIN_LINES", setting).start().await.unwrap();
        let lines = ["before"].into_iter().chain(trace).chain(["after"]);
        invoke(&lambda, lines.fold(Invocation::new(), Invocation::line)).await;
        until_arrived(&world, lambda, "after").await;
        of_function(&world)
    };
    assert_eq!(run("off").await.len(), 6);
    let records = run("on").await;
    let texts: Vec<&str> = records.iter().map(|record| record.text.as_str()).collect();
    assert_eq!(texts, ["before", &trace.join("\n"), "after"]);
    let whole = &records[1];
    assert_eq!((&whole.attributes["outlast.lines"], whole.severity_number), (&json!(4), 17));
}
