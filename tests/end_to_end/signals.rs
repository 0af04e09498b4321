//! Metrics and traces of what the platform says, beside the logs.

use crate::account::{counted, points, roots, spans, total};
use crate::support::{PATIENCE, World, balance, invoke, leave, left_of, lines_with, ms, output, within};
use outlast_backend::{Backend, Behaviour, Record, Signal};
use outlast_simulator::{
    Freeze, FunctionOptions, InitializationType, Invocation, LogFormat, Sandbox, TelemetryOptions,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Invocations, errors, time-outs, cold starts.
fn outcomes(backend: &Backend) -> [u64; 4] {
    ["faas.invocations", "faas.errors", "faas.timeouts", "faas.coldstarts"].map(|name| counted(backend, name))
}

/// The metrics about the function.
fn names(backend: &Backend) -> BTreeSet<String> {
    let names = points(backend).into_iter().map(|point| point.text);
    names.filter(|name| !name.starts_with("outlast.")).collect()
}

/// The parts of a span, by name.
fn parts_of(backend: &Backend, span: &Record) -> BTreeMap<String, Record> {
    let parts = spans(backend).into_iter();
    let parts = parts.filter(|part| part.body["parent_span_id"] == span.span_id.as_str());
    parts.map(|part| (part.text.clone(), part)).collect()
}

fn is_error(span: &Record) -> bool {
    span.body["status"]["code"] == 2
}

fn traced() -> FunctionOptions {
    FunctionOptions { tracing: true, ..FunctionOptions::default() }
}

#[tokio::test]
async fn an_invocation_is_told_by_logs_metrics_and_a_trace() {
    let world = World::new().await;
    let lambda = world.lambda().function(traced()).start().await.unwrap();
    let first = invoke(&lambda, Invocation::new().runs_for(ms(20)).line("a line of the first")).await;
    let second = invoke(&lambda, Invocation::new().runs_for(ms(20)).line("a line of the second")).await;
    world.until_delivered(&lambda).await;
    let start = lambda.acknowledged().into_iter().find(|event| event.kind == "platform.start").unwrap();
    world.end(lambda).await;

    let roots = roots(&world.backend);
    let (cold, warm) = (&roots[&first.request_id], &roots[&second.request_id]);
    let header = start.value()["tracing"]["value"].as_str().unwrap().to_owned();
    let root = header.split(';').next().unwrap().replace("Root=1-", "").replace('-', "");
    assert_eq!(cold.trace_id, root);
    assert_eq!(start.value()["tracing"]["spanId"], cold.span_id.as_str());
    let parent = header.split("Parent=").nth(1).unwrap().split(';').next().unwrap();
    assert_eq!(cold.body["parent_span_id"], parent);
    assert_eq!((cold.text.as_str(), &cold.body["kind"]), ("simulated-function", &json!(2)));
    assert_eq!(
        (&cold.attributes["faas.coldstart"], &warm.attributes["faas.coldstart"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        cold.attributes["aws.lambda.invoked_arn"],
        "arn:aws:lambda:eu-central-1:123456789012:function:simulated-function"
    );
    let runtime = ["extensionOverhead", "responseDuration", "responseLatency", "runtimeOverhead"];
    let parts = parts_of(&world.backend, cold);
    assert_eq!(
        parts.keys().map(String::as_str).collect::<Vec<_>>(),
        [&runtime[..1], &["init"], &runtime[1..]].concat()
    );
    assert_eq!(parts_of(&world.backend, warm).keys().map(String::as_str).collect::<Vec<_>>(), runtime);
    assert!(parts.values().all(|part| part.trace_id == cold.trace_id && !is_error(part)));
    for span in spans(&world.backend) {
        assert!(
            span.other_time_unix_nano > 0 && span.other_time_unix_nano <= span.time_unix_nano,
            "{span:?}"
        );
    }

    // A line leads to its trace.
    for (line, root) in [("a line of the first", cold), ("a line of the second", warm)] {
        let records = world.backend.records();
        let record = records.iter().find(|record| record.text == line).unwrap();
        assert_eq!((&record.trace_id, &record.span_id), (&root.trace_id, &root.span_id));
    }

    assert_eq!(outcomes(&world.backend), [2, 0, 0, 1]);
    let expected = [
        "aws.lambda.billed_duration",
        "aws.lambda.extension_overhead",
        "aws.lambda.memory_size",
        "aws.lambda.produced_bytes",
        "aws.lambda.response_duration",
        "aws.lambda.response_latency",
        "aws.lambda.runtime_overhead",
        "aws.lambda.tmp_free",
        "aws.lambda.tmp_used",
        "faas.coldstarts",
        "faas.init_duration",
        "faas.invocations",
        "faas.invoke_duration",
        "faas.mem_usage",
    ];
    assert_eq!(names(&world.backend), expected.map(str::to_owned).into());
    let points = points(&world.backend);
    let count_of = |name: &str| {
        let of_name = points.iter().filter(|point| point.text == name);
        of_name.map(|point| point.body["value"]["count"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((count_of("faas.invoke_duration"), count_of("faas.mem_usage")), (2, 2));
    let memory = points.iter().find(|point| point.text == "aws.lambda.memory_size").unwrap();
    assert_eq!(memory.body, json!({"kind": "gauge", "value": 256 << 20, "unit": "By"}));
    // One resource for the three.
    let resources: BTreeSet<String> =
        world.backend.records().iter().map(|record| json!(*record.resource).to_string()).collect();
    assert_eq!(resources.len(), resources.iter().filter(|resource| resource.contains("faas.name")).count());
}

#[tokio::test]
async fn intervals_of_a_series_follow_one_another() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    for round in 0..3 {
        for _ in 0..5 {
            invoke(&lambda, Invocation::new().runs_for(ms(1)).logs(2)).await;
        }
        if round < 2 {
            within("deliveries", lambda.settled()).await;
            lambda.kill().await;
        }
    }
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut sums = points(&world.backend);
    sums.retain(|point| point.body["kind"] != "gauge");
    sums.sort_by_key(|point| point.time_unix_nano);
    assert!(sums.len() > 30);
    for point in sums {
        let series =
            format!("{} {:?} {:?}", point.text, point.attributes, point.resource.get("faas.instance"));
        assert!(point.other_time_unix_nano > 0 && point.other_time_unix_nano < point.time_unix_nano);
        let before = last.insert(series, point.time_unix_nano).unwrap_or_default();
        assert!(before <= point.other_time_unix_nano, "{point:?} overlaps");
    }
    assert_eq!(outcomes(&world.backend)[0], 15);
}

#[tokio::test]
async fn every_way_to_fail_is_counted_and_marked() {
    let world = World::new().await;
    let lambda = world.lambda().timeout(ms(400)).start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(1)).await;
    let mut failed = Vec::new();
    for invocation in [
        Invocation::new().runs_for(ms(30)).fails("Custom.Error"),
        Invocation::new().times_out(),
        Invocation::new().runs_for(ms(30)).exits(3),
    ] {
        failed.push(within("the failure", lambda.invoke(invocation)).await.unwrap().request_id);
    }
    invoke(&lambda, Invocation::new().logs(1)).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    assert_eq!(outcomes(&world.backend), [2, 2, 1, 3], "and each reset makes a cold start");
    let roots = roots(&world.backend);
    assert_eq!(roots.len(), 5);
    let errors = failed.iter().map(|request| {
        assert!(is_error(&roots[request]));
        roots[request].attributes["error.type"].as_str().unwrap()
    });
    assert_eq!(errors.collect::<Vec<_>>(), ["Custom.Error", "timeout", "Runtime.ExitError"]);
    assert_eq!(roots.values().filter(|span| is_error(span)).count(), 3);
}

/// Telemetry in which no invocation ever ends.
fn endless() -> TelemetryOptions {
    TelemetryOptions { runtime_done: false, report: false, ..TelemetryOptions::default() }
}

#[tokio::test]
async fn what_ends_without_a_word_counts_by_the_reason_of_shutdown() {
    for (invocation, expected) in [
        (Invocation::new().times_out(), [0, 0, 1, 1]),
        (Invocation::new().runs_for(ms(100)).exits(1), [0, 1, 0, 1]),
    ] {
        let world = World::new().await;
        let lambda = world.lambda().timeout(ms(400)).telemetry(endless()).start().await.unwrap();
        let failed = within("the failure", lambda.invoke(invocation)).await.unwrap();
        assert!(failed.reset.unwrap().exited_by_itself());
        world.wait_for(|received| received.count(Signal::Traces) > 0).await;
        assert_eq!(outcomes(&world.backend), expected);
        let root = &roots(&world.backend)[&failed.request_id];
        assert!(is_error(root) && root.attributes["outlast.incomplete"] == true, "{root:?}");
    }
}

#[tokio::test]
async fn what_a_sigkill_cut_off_counts_once_the_next_is_over() {
    let world = World::new().await;
    let lambda =
        world.lambda().telemetry(TelemetryOptions { report: false, ..endless() }).start().await.unwrap();
    let long = Invocation::new().runs_for(ms(20_000)).line("begun");
    let (cut_off, ()) = tokio::join!(within("the kill", lambda.invoke(long)), async {
        within("its start", lambda.until_acknowledges(|event| event.text().as_deref() == Some("begun\n")))
            .await;
        lambda.kill().await;
    });
    lambda.telemetry(|telemetry| telemetry.runtime_done = true);
    invoke(&lambda, Invocation::new().line("the next")).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    assert_eq!(outcomes(&world.backend), [1, 1, 0, 2]);
    let roots = roots(&world.backend);
    assert_eq!(roots[&cut_off.unwrap().request_id].attributes["outlast.incomplete"], true);
    assert_eq!(roots.len(), 2);
}

#[tokio::test]
async fn a_sigkill_between_end_and_report_counts_nothing_twice() {
    let world = World::new().await;
    let lambda = world.lambda().function(traced()).start().await.unwrap();
    for _ in 0..4 {
        invoke(&lambda, Invocation::new().runs_for(ms(5)).logs(3)).await;
        within("deliveries", lambda.settled()).await;
        lambda.kill().await;
    }
    invoke(&lambda, Invocation::new().line("the end")).await;
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    assert_eq!(outcomes(&world.backend), [5, 0, 0, 5]);
    let roots = roots(&world.backend);
    assert_eq!(roots.len(), 5);
    // The reports came to later processes, and belong where they belong.
    let reports = lambda.acknowledged().into_iter().filter(|event| event.kind == "platform.report").count();
    let overheads = spans(&world.backend).into_iter().filter(|span| span.text == "extensionOverhead");
    assert_eq!(overheads.count(), reports);
}

#[tokio::test]
async fn an_outage_keeps_metrics_and_traces_like_logs() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda().start().await.unwrap();
    for _ in 0..20 {
        invoke(&lambda, Invocation::new().logs(5)).await;
    }
    within("deliveries", lambda.settled()).await;
    leave(&lambda).await;
    assert!(left_of(&lambda, Signal::Metrics) > 0 && left_of(&lambda, Signal::Traces) > 20);
    world.backend.recover().await.unwrap();
    let next = world.aftermath().await;
    assert_eq!(balance(&[&lambda, &next], &world.backend).repeated, 0);
    assert_eq!(outcomes(&world.backend), [21, 0, 0, 2]);
    assert_eq!(roots(&world.backend).len(), 21);
}

#[tokio::test]
async fn only_the_signals_that_are_asked_for_are_made() {
    for (signals, expected) in [
        ("logs", vec![Signal::Logs]),
        ("metrics", vec![Signal::Metrics]),
        ("traces", vec![Signal::Traces]),
        ("traces,logs", vec![Signal::Logs, Signal::Traces]),
    ] {
        let world = World::new().await;
        let lambda = world.lambda().env("OUTLAST_SIGNALS", signals).start().await.unwrap();
        for _ in 0..3 {
            invoke(&lambda, Invocation::new().runs_for(ms(5)).logs(5)).await;
        }
        within("deliveries", lambda.settled()).await;
        leave(&lambda).await;
        let made: Vec<Signal> = Signal::ALL
            .into_iter()
            .filter(|signal| world.backend.received(|received| received.count(*signal)) > 0)
            .collect();
        assert_eq!(made, expected, "{signals}");
        let of_invocations = expected.contains(&Signal::Traces).then(|| roots(&world.backend).len());
        assert!(of_invocations.is_none_or(|count| count == 3));
        if expected.contains(&Signal::Metrics) {
            assert_eq!(outcomes(&world.backend), [3, 0, 0, 1]);
        }
        assert_eq!(lines_with(&lambda, "0 left on disk, 0 dropped"), 1, "{:?}", output(&lambda));
    }
}

#[tokio::test]
async fn a_signal_may_go_elsewhere() {
    let (world, other) = (World::new().await, World::new().await);
    let lambda = Sandbox::builder(crate::support::OUTLAST)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", world.backend.url())
        .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{}/v1/traces", other.backend.url()))
        .env("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=of%20traces")
        .env("OUTLAST_QUEUE_DIR", world.queue().display())
        .timeout(PATIENCE)
        .start()
        .await
        .unwrap();
    invoke(&lambda, Invocation::new().logs(5)).await;
    leave(&lambda).await;
    let counts = |world: &World| Signal::ALL.map(|signal| world.backend.received(|r| r.count(signal)) > 0);
    assert_eq!(counts(&world), [true, true, false], "{:?}", output(&lambda));
    assert_eq!(counts(&other), [false, false, true]);
    assert!(other.backend.requests().iter().all(|r| r.header("api-key") == Some("of traces")));
    assert!(world.backend.requests().iter().all(|r| r.header("api-key").is_none()));
}

#[tokio::test]
async fn what_is_left_for_an_address_that_is_gone_holds_nobody_up() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(5)).await;
    within("deliveries", lambda.settled()).await;
    leave(&lambda).await;
    world.backend.recover().await.unwrap();
    let next = Sandbox::builder(crate::support::OUTLAST)
        .env("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", format!("{}/v1/logs", world.backend.url()))
        .env("OUTLAST_QUEUE_DIR", world.queue().display())
        .freeze(Freeze::Off)
        .timeout(PATIENCE)
        .start()
        .await
        .unwrap();
    invoke(&next, Invocation::new().line("aftermath")).await;
    world.wait_for(|received| received.texts().contains(&"aftermath")).await;
    leave(&next).await;
    assert_eq!(left_of(&next, Signal::Logs), 0);
    assert!(left_of(&next, Signal::Metrics) > 0 && left_of(&next, Signal::Traces) > 0);
    assert_eq!(world.backend.received(|received| received.count(Signal::Metrics)), 0);
    assert_eq!(balance(&[&lambda, &next], &world.backend).repeated, 0);
    // With an address again, it goes.
    let last = world.aftermath().await;
    assert_eq!(left_of(&last, Signal::Traces), 0);
    assert_eq!(roots(&world.backend).len(), 2, "the one in between had none");
}

#[tokio::test]
async fn silenced_events_are_told_by_metrics_and_spans_alone() {
    let world = World::new().await;
    let silence = "platform.start,platform.runtimeDone,platform.report";
    let lambda = world.lambda().env("OUTLAST_SILENCE", silence).start().await.unwrap();
    let failed = lambda.invoke(Invocation::new().runs_for(ms(20)).fails("Custom.Error"));
    let failed = within("the failure", failed).await.unwrap();
    invoke(&lambda, Invocation::new().runs_for(ms(20)).line("spoken")).await;
    world.wait_for(|received| received.texts().contains(&"spoken")).await;
    leave(&lambda).await;
    let records = world.backend.records();
    let told: Vec<_> = records
        .iter()
        .filter(|record| silence.split(',').any(|kind| record.event_name == kind))
        .map(|record| (record.event_name.as_str(), record.attributes["faas.invocation_id"].as_str().unwrap()))
        .collect();
    let of_failed = failed.request_id.as_str();
    assert_eq!(told, [("platform.runtimeDone", of_failed), ("platform.report", of_failed)]);
    assert!(records.iter().any(|record| record.event_name == "platform.initReport"));
    assert_eq!(outcomes(&world.backend), [1, 1, 0, 1]);
    assert_eq!(roots(&world.backend).len(), 2);
}

#[tokio::test]
async fn a_price_makes_an_estimate() {
    let world = World::new().await;
    let lambda = world
        .lambda()
        .env("OUTLAST_PRICE_PER_GB_SECOND", "0.04")
        .env("OUTLAST_PRICE_PER_REQUEST", "10")
        .start()
        .await
        .unwrap();
    invoke(&lambda, Invocation::new().runs_for(ms(50))).await;
    invoke(&lambda, Invocation::new().runs_for(ms(50))).await;
    leave(&lambda).await;
    let billed = total(&world.backend, "aws.lambda.billed_duration");
    let cost = total(&world.backend, "aws.lambda.estimated_cost");
    assert!(billed > 0.1 && (cost - (20.0 + billed * 0.25 * 0.04)).abs() < 1e-9, "{billed} {cost}");
}

#[tokio::test]
async fn a_traceparent_in_a_line_leads_to_the_trace_it_names() {
    let world = World::new().await;
    let lambda = world.lambda().log_format(LogFormat::Json).start().await.unwrap();
    let (trace, span) = ("6352a70e1e2c502e358361800241fd45", "35465b3a9e2f7c6a");
    let line = json!({"message": "traced", "traceparent": format!("00-{trace}-{span}-01")});
    let invoked = invoke(&lambda, Invocation::new().runs_for(ms(20)).line(line.to_string())).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    let records = world.backend.records();
    let record = records.iter().find(|record| record.text == "traced").unwrap();
    assert_eq!((record.trace_id.as_str(), record.span_id.as_str()), (trace, span));
    assert!(record.attributes.get("traceparent").is_none(), "it has a place of its own");
    let root = &roots(&world.backend)[&invoked.request_id];
    assert_eq!(root.trace_id, trace, "without a header of X-Ray's the function's own trace is adopted");
    assert_eq!(root.body["links"], json!([{"trace_id": trace, "span_id": span}]));
}

#[tokio::test]
async fn managed_instances_are_told_by_reports() {
    let world = World::new().await;
    let managed = world.lambda().initialization(InitializationType::ManagedInstances).function(traced());
    let lambda = managed.log_format(LogFormat::Json).start().await.unwrap();
    let mut requests = BTreeSet::new();
    for _ in 0..4 {
        let run = || invoke(&lambda, Invocation::new().runs_for(ms(5)).logs(3));
        let (a, b, c) = tokio::join!(run(), run(), run());
        requests.extend([a, b, c].map(|invoked| invoked.request_id));
    }
    let fails = lambda.invoke(Invocation::new().runs_for(ms(5)).fails("Custom.Error"));
    requests.insert(within("the failure", fails).await.unwrap().request_id);
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    assert_eq!(outcomes(&world.backend), [12, 1, 0, 0]);
    let roots = roots(&world.backend);
    assert_eq!(roots.keys().cloned().collect::<BTreeSet<_>>(), requests);
    for root in roots.values() {
        let parts = parts_of(&world.backend, root);
        assert!(parts.contains_key("responseLatency") && !parts.contains_key("init"), "{parts:?}");
        assert_eq!(root.attributes["faas.coldstart"], false);
    }
    let init = spans(&world.backend).into_iter().find(|span| span.text == "init").unwrap();
    assert_eq!(init.attributes["aws.lambda.initialization_type"], "lambda-managed-instances");
    assert!(!names(&world.backend).contains("aws.lambda.billed_duration"), "they have no billed time");
}

#[tokio::test]
async fn snapshots_and_provisioned_environments_start_as_they_do() {
    for (kind, cold, part) in [
        (InitializationType::SnapStart, true, "restore"),
        (InitializationType::ProvisionedConcurrency, false, "init"),
    ] {
        let world = World::new().await;
        let lambda = world.lambda().initialization(kind).start().await.unwrap();
        let first = invoke(&lambda, Invocation::new().runs_for(ms(5))).await;
        invoke(&lambda, Invocation::new().runs_for(ms(5))).await;
        world.until_delivered(&lambda).await;
        world.end(lambda).await;
        assert_eq!(outcomes(&world.backend), [2, 0, 0, u64::from(cold)], "{kind:?}");
        let root = &roots(&world.backend)[&first.request_id];
        assert_eq!(root.attributes["faas.coldstart"], cold);
        assert_eq!(parts_of(&world.backend, root).contains_key(part), cold, "{kind:?}");
        assert!(spans(&world.backend).iter().any(|span| span.text == part));
        assert_eq!(names(&world.backend).contains("aws.lambda.restore_duration"), cold);
    }
}

#[tokio::test]
async fn tenants_are_told_apart() {
    let world = World::new().await;
    let function = FunctionOptions { tenant: Some("blue".into()), ..traced() };
    let lambda = world.lambda().function(function).start().await.unwrap();
    let invoked = invoke(&lambda, Invocation::new().runs_for(ms(5))).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    assert_eq!(roots(&world.backend)[&invoked.request_id].attributes["aws.lambda.tenant_id"], "blue");
    for name in ["faas.invocations", "faas.coldstarts", "faas.mem_usage", "aws.lambda.billed_duration"] {
        let points = points(&world.backend);
        let point = points.iter().find(|point| point.text == name).unwrap();
        assert_eq!(point.attributes.get("aws.lambda.tenant_id"), Some(&Value::from("blue")), "{name}");
    }
}

#[tokio::test]
async fn a_quiet_functions_trace_does_not_wait_for_the_report() {
    let world = World::new().await;
    let lambda = world
        .lambda()
        .freeze(Freeze::After(ms(1)))
        .env("OUTLAST_MAX_DELAY", "10ms")
        .env("OUTLAST_HOLD_MAX", "30s") // the delivery ends the hold, however busy the machine is
        .start()
        .await
        .unwrap();
    let invoked = invoke(&lambda, Invocation::new().runs_for(ms(30)).line("quiet")).await;
    within("the freeze", lambda.frozen()).await;
    assert!(roots(&world.backend).contains_key(&invoked.request_id));
    assert_eq!(outcomes(&world.backend), [1, 0, 0, 1]);
    assert!(!names(&world.backend).contains("faas.mem_usage"), "the report is made after it was let go");
    world.end(lambda).await;
    assert!(names(&world.backend).contains("faas.mem_usage"));
}
