//! What the extension tells of itself: metrics to the backend, and an alert to CloudWatch.

use crate::account::{counted, points};
use crate::support::{World, balance, invoke, leave, left_of, ms, within};
use outlast_backend::{Backend, Behaviour, Record, Signal};
use outlast_simulator::{Freeze, Invocation, Sandbox};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The interval of all tests: the shortest there is.
const EVERY: (&str, &str) = ("OUTLAST_SELF_METRICS", "1s");

fn own_points(backend: &Backend) -> Vec<Record> {
    points(backend).into_iter().filter(|point| point.text.starts_with("outlast.")).collect()
}

/// What the points of `name` with these labels add up to.
fn sum(backend: &Backend, name: &str, labels: &[(&str, &str)]) -> u64 {
    let points = own_points(backend).into_iter();
    let of_series = points.filter(|point| {
        point.text == name && labels.iter().all(|(name, value)| point.attributes[*name] == *value)
    });
    of_series.map(|point| point.body["value"].as_u64().unwrap()).sum()
}

fn of_logs(backend: &Backend, name: &str) -> u64 {
    sum(backend, name, &[("outlast.signal", "logs")])
}

/// The extension's lines on stdout that are alerts.
fn alerts(lambda: &Sandbox) -> Vec<Value> {
    let lines = lambda.extension_output().into_iter().filter(|line| !line.stderr);
    lines.map(|line| serde_json::from_str(&line.text).unwrap()).collect()
}

#[tokio::test]
async fn what_became_of_records_adds_up_over_an_outage_a_kill_and_a_reset() {
    let world = World::new().await;
    let lambda = world.lambda().env(EVERY.0, EVERY.1).timeout(ms(1_500)).start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(20)).await;
    world.until_delivered(&lambda).await;
    world.backend.behave(Behaviour::status(503));
    // Longer than an interval, so that a set is made while nobody takes it.
    invoke(&lambda, Invocation::new().logs(20).runs_for(ms(1_100))).await;
    invoke(&lambda, Invocation::new().logs(20)).await;
    within("deliveries", lambda.settled()).await;
    lambda.kill().await;
    invoke(&lambda, Invocation::new().logs(20)).await;
    world.backend.recover().await.unwrap();
    within("the time-out", lambda.invoke(Invocation::new().logs(20).times_out())).await.unwrap();
    invoke(&lambda, Invocation::new().logs(20)).await;
    world.until_delivered(&lambda).await;
    let acknowledged = lambda.acknowledged_count() as u64;
    let end = leave(&lambda).await;
    assert!(end.exited_by_itself());
    assert_eq!(balance(&[&lambda], &world.backend).left, 0);

    // The last set is made at SHUTDOWN; the report of the last invocation may come before or after that.
    let received = of_logs(&world.backend, "outlast.received");
    assert!(
        (acknowledged..=lambda.acknowledged_count() as u64).contains(&received),
        "{received} {acknowledged}"
    );
    let delivered = of_logs(&world.backend, "outlast.delivered");
    assert!((acknowledged..=received).contains(&delivered), "{delivered} of {received}");
    assert_eq!(counted(&world.backend, "outlast.dropped"), 0);
    let requests = |result| sum(&world.backend, "outlast.requests", &[("outlast.request.result", result)]);
    assert!(requests("delivered") > 0 && requests("unavailable") > 0);
    assert!(counted(&world.backend, "outlast.retries") > 0);
    let mut intervals: Vec<(u64, u64)> = own_points(&world.backend)
        .iter()
        .filter(|point| point.body["kind"] != "gauge")
        .map(|point| (point.other_time_unix_nano, point.time_unix_nano))
        .collect();
    intervals.sort_unstable();
    intervals.dedup();
    assert!(intervals.len() > 1 && intervals.windows(2).all(|pair| pair[0].1 == pair[1].0), "{intervals:?}");
}

#[tokio::test]
async fn sets_make_no_request_of_their_own_while_the_function_lives() {
    let world = World::new().await;
    // Each invocation is held, so that its telemetry leaves before the freeze.
    let always = ("OUTLAST_MAX_DELAY", "1ms");
    let lambda = world.lambda().env(EVERY.0, EVERY.1).env(always.0, always.1).freeze(Freeze::After(ms(1)));
    let lambda = lambda.start().await.unwrap();
    for _ in 0..3 {
        invoke(&lambda, Invocation::new().logs(5).runs_for(ms(700))).await;
    }
    world.until_delivered(&lambda).await;
    assert!(of_logs(&world.backend, "outlast.received") > 0);
    let requests = world.backend.received(|received| {
        let of_metrics = received.records().iter().filter(|record| record.signal == Signal::Metrics);
        let mut by_request: BTreeMap<u64, Vec<bool>> = BTreeMap::new();
        for record in of_metrics {
            by_request.entry(record.request).or_default().push(record.text.starts_with("outlast."));
        }
        by_request
    });
    assert!(requests.values().any(|own| own.contains(&true)), "{requests:?}");
    assert!(requests.values().all(|own| own.contains(&false)), "{requests:?}");
    world.end(lambda).await;
}

#[tokio::test]
async fn a_short_life_is_told_at_shutdown_and_off_means_never() {
    for (setting, told) in [("1m", true), ("off", false)] {
        let world = World::new().await;
        let lambda = world.lambda().env("OUTLAST_SELF_METRICS", setting).start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(5)).await;
        world.until_delivered(&lambda).await;
        assert_eq!(own_points(&world.backend).len(), 0, "the interval is not over");
        world.end(lambda).await;
        assert_eq!(own_points(&world.backend).is_empty(), !told);
    }
}

#[tokio::test]
async fn a_backend_that_takes_logs_only_gets_no_set() {
    let world = World::speaking(outlast_backend::Dialect::Ndjson).await;
    let lambda = world.lambda().env(EVERY.0, EVERY.1).start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(5).runs_for(ms(1_100))).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    assert_eq!(world.backend.received(|received| received.count(Signal::Metrics)), 0);
}

#[tokio::test]
async fn a_long_outage_is_told_to_cloudwatch_and_so_is_its_end() {
    let world = World::new().await;
    let lambda = world
        .lambda()
        .env("OUTLAST_OUTAGE_ALERT_AFTER", "1s")
        .env("OUTLAST_TELEMETRY", "platform,function,extension")
        // Lines as they were written, which the account compares.
        .env("OUTLAST_EMF", "off")
        .start()
        .await
        .unwrap();
    world.backend.behave(Behaviour::status(503));
    invoke(&lambda, Invocation::new().logs(20)).await;
    within("the alert", lambda.until_output(|line| line.contains("OutageSeconds"))).await;
    // Attempts go on and say no more.
    let requests = world.backend.requests().len();
    world.until_requests(requests + 20).await;
    assert_eq!(alerts(&lambda).len(), 1, "{:?}", alerts(&lambda));
    world.backend.recover().await.unwrap();
    within("its end", lambda.until_output(|line| line.contains("the backend is back"))).await;
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    assert_eq!(balance(&[&lambda], &world.backend).left, 0);

    let alerts = alerts(&lambda);
    let [away, back] = alerts.as_slice() else { panic!("{alerts:?}") };
    for line in [away, back] {
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(directive["Namespace"], "outlast");
        assert_eq!(directive["Dimensions"], json!([["FunctionName"]]));
        assert_eq!(line["FunctionName"], "simulated-function");
        for metric in directive["Metrics"].as_array().unwrap() {
            assert!(line[metric["Name"].as_str().unwrap()].is_u64(), "{line}");
        }
        assert!(line["_aws"]["Timestamp"].as_u64().unwrap() > 1_600_000_000_000);
    }
    assert!(away["OutageSeconds"].as_u64().unwrap() >= 1);
    assert!(away["WaitingRecords"].as_u64().unwrap() > 20 && away["WaitingBytes"].as_u64().unwrap() > 0);
    assert_eq!(back["OutageSeconds"], 0);
    // As telemetry each came back once, and begot nothing.
    let texts = world.backend.texts();
    assert_eq!(texts.iter().filter(|text| text.contains("CloudWatchMetrics")).count(), 2);
}

#[tokio::test]
async fn an_outage_that_is_shorter_than_wanted_or_not_wanted_at_all_is_not_told() {
    for setting in ["1h", "off"] {
        let world = World::new().await;
        world.backend.behave(Behaviour::status(503));
        let lambda = world.lambda().env("OUTLAST_OUTAGE_ALERT_AFTER", setting).start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(5).runs_for(ms(1_100))).await;
        world.backend.recover().await.unwrap();
        world.until_delivered(&lambda).await;
        leave(&lambda).await;
        assert_eq!(alerts(&lambda), Vec::<Value>::new());
    }
}

#[tokio::test]
async fn sets_are_no_records_of_the_functions_that_could_be_left_or_dropped() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(5)).await;
    within("deliveries", lambda.settled()).await;
    leave(&lambda).await;
    let left = left_of(&lambda, Signal::Metrics);
    world.backend.recover().await.unwrap();
    let next = world.aftermath().await;
    assert_eq!(left_of(&next, Signal::Metrics), 0);
    assert_eq!(balance(&[&lambda, &next], &world.backend).left, 0);
    let of_function = points(&world.backend).len() - own_points(&world.backend).len();
    let received = sum(&world.backend, "outlast.received", &[("outlast.signal", "metrics")]);
    assert!(
        (left as u64..=of_function as u64).contains(&received) && left > 0,
        "{left} {received} {of_function}"
    );
}
