//! A life in each execution model, told in full: every log record, data point and span that comes of it.

use crate::account::{points, roots, spans};
use crate::support::{World, invoke, ms};
use outlast_backend::{Record, Signal};
use outlast_simulator::{
    Builder, FunctionOptions, InitializationType, Invocation, Invoked, LogFormat, Sandbox,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What arrived of a life.
struct Told {
    /// Log records about the environment: their types, sorted.
    environment: Vec<String>,
    /// Log records of each invocation, in order: type, severity, and what the function said.
    invocations: Vec<Vec<String>>,
    /// Data points by metric: what counters add up to, how many values are in histograms; of gauges that there are any.
    points: BTreeMap<String, u64>,
    /// Spans, each with what it is part of, sorted. Invocations have their number.
    spans: Vec<String>,
    records: Vec<Record>,
}

/// Ends the life of `lambda`, whose invocations were these, and reads what arrived.
async fn told(world: &World, lambda: Sandbox, invoked: &[Invoked]) -> Told {
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    let number = |request: Option<&Value>| {
        let request = request.and_then(Value::as_str);
        invoked.iter().position(|invoked| Some(invoked.request_id.as_str()) == request)
    };
    let records = world.backend.records();
    let mut environment = Vec::new();
    let mut invocations = vec![Vec::new(); invoked.len()];
    for record in records.iter().filter(|record| record.signal == Signal::Logs) {
        let kind = record.attributes["aws.lambda.telemetry.type"].as_str().unwrap();
        let said = if kind == "function" { &record.text } else { "" };
        let mut words = vec![kind, record.severity_text.as_str(), said];
        words.retain(|word| !word.is_empty());
        let line = words.join(" ");
        match number(record.attributes.get("faas.invocation_id")) {
            Some(number) => invocations[number].push(line),
            None => environment.push(line),
        }
    }
    environment.sort();
    let mut of_metrics = BTreeMap::new();
    for point in points(&world.backend).into_iter().filter(|point| !point.text.starts_with("outlast.")) {
        let value = match point.body["kind"].as_str().unwrap() {
            "gauge" => 0,
            _ => point.body["value"].as_u64().or(point.body["value"]["count"].as_u64()).unwrap(),
        };
        *of_metrics.entry(point.text).or_default() += value;
    }
    let roots = roots(&world.backend);
    let name_of = |span: &Record| {
        let number = number(span.attributes.get("faas.invocation_id"));
        number.map_or_else(|| span.text.clone(), |number| format!("#{number}"))
    };
    let mut of_traces: Vec<String> = spans(&world.backend)
        .iter()
        .map(|span| {
            let parent = roots.values().find(|root| span.body["parent_span_id"] == root.span_id.as_str());
            let cold = if span.attributes.get("faas.coldstart") == Some(&json!(true)) { " cold" } else { "" };
            let below = parent.map_or_else(String::new, |parent| format!(" of {}", name_of(parent)));
            assert!(parent.is_none_or(|parent| parent.trace_id == span.trace_id));
            format!("{}{cold}{below}", name_of(span))
        })
        .collect();
    of_traces.sort();
    Told { environment, invocations, points: of_metrics, spans: of_traces, records }
}

async fn start(world: &World, with: impl FnOnce(Builder) -> Builder) -> Sandbox {
    let function = FunctionOptions { tracing: true, ..FunctionOptions::default() };
    with(world.lambda().function(function)).start().await.unwrap()
}

/// Two invocations, one after the other, which say one thing each.
async fn two(lambda: &Sandbox) -> Vec<Invoked> {
    let mut invoked = Vec::new();
    for said in ["one", "two"] {
        invoked.push(invoke(lambda, Invocation::new().runs_for(ms(5)).line(said)).await);
    }
    invoked
}

/// What the platform says of the start of an environment that is initialised by itself.
const INIT: [&str; 5] = [
    "platform.extension INFO",
    "platform.initReport INFO",
    "platform.initRuntimeDone INFO",
    "platform.initStart INFO",
    "platform.telemetrySubscription INFO",
];

/// What is said of an invocation that says `line`.
fn of_invocation(line: &str) -> Vec<String> {
    ["platform.start INFO", line, "platform.runtimeDone INFO", "platform.report INFO"]
        .map(str::to_owned)
        .into()
}

/// Counts of metrics, for `invocations` of which `cold` were cold starts.
fn counts(invocations: u64, cold: u64) -> BTreeMap<String, u64> {
    [
        ("aws.lambda.billed_duration", invocations),
        ("aws.lambda.extension_overhead", invocations),
        ("aws.lambda.memory_size", 0),
        ("aws.lambda.produced_bytes", invocations),
        ("aws.lambda.response_duration", invocations),
        ("aws.lambda.response_latency", invocations),
        ("aws.lambda.runtime_overhead", invocations),
        ("aws.lambda.tmp_free", 0),
        ("aws.lambda.tmp_used", 0),
        ("faas.coldstarts", cold),
        ("faas.init_duration", 1),
        ("faas.invocations", invocations),
        ("faas.invoke_duration", invocations),
        ("faas.mem_usage", invocations),
    ]
    .into_iter()
    .filter(|(name, count)| *name != "faas.coldstarts" || *count > 0)
    .map(|(name, count)| (name.to_owned(), count))
    .collect()
}

/// The spans of an invocation.
fn span_of(number: usize, cold: &str) -> Vec<String> {
    let mut spans = vec![format!("#{number}{cold}")];
    for part in ["extensionOverhead", "responseDuration", "responseLatency", "runtimeOverhead"] {
        spans.push(format!("{part} of #{number}"));
    }
    spans
}

fn sorted(spans: impl IntoIterator<Item = Vec<String>>) -> Vec<String> {
    let mut spans: Vec<String> = spans.into_iter().flatten().collect();
    spans.sort();
    spans
}

#[tokio::test]
async fn on_demand_in_both_log_formats() {
    for (format, severity) in [(LogFormat::Text, ""), (LogFormat::Json, "INFO ")] {
        let world = World::new().await;
        let lambda = start(&world, |lambda| lambda.log_format(format)).await;
        let invoked = two(&lambda).await;
        let told = told(&world, lambda, &invoked).await;
        assert_eq!(told.environment, INIT);
        let said = ["one", "two"].map(|said| of_invocation(&format!("function {severity}{said}")));
        assert_eq!(told.invocations, said);
        assert_eq!(told.points, counts(2, 1));
        let init = vec!["init of #0".to_owned()];
        assert_eq!(told.spans, sorted([span_of(0, " cold"), span_of(1, ""), init]));
    }
}

#[tokio::test]
async fn provisioned_concurrency() {
    let world = World::new().await;
    let kind = InitializationType::ProvisionedConcurrency;
    let lambda = start(&world, |lambda| lambda.initialization(kind)).await;
    let invoked = two(&lambda).await;
    let told = told(&world, lambda, &invoked).await;
    assert_eq!(told.environment, INIT);
    assert_eq!(told.invocations, ["function one", "function two"].map(of_invocation));
    assert_eq!(told.points, counts(2, 0), "nobody waited for it to start");
    let init = vec!["init".to_owned()];
    assert_eq!(told.spans, sorted([span_of(0, ""), span_of(1, ""), init]));
    let of_init = told.records.iter().find(|record| record.text == "faas.init_duration").unwrap();
    assert_eq!(of_init.attributes["aws.lambda.initialization_type"], "provisioned-concurrency");
}

#[tokio::test]
async fn snapstart() {
    let world = World::new().await;
    let kind = InitializationType::SnapStart;
    let lambda = start(&world, |lambda| lambda.initialization(kind).restore_takes(ms(20))).await;
    let invoked = two(&lambda).await;
    let told = told(&world, lambda, &invoked).await;
    let restore =
        ["platform.restoreReport INFO", "platform.restoreRuntimeDone INFO", "platform.restoreStart INFO"];
    let mut environment = [&INIT[..], &restore].concat();
    environment.sort_unstable();
    assert_eq!(told.environment, environment);
    assert_eq!(told.invocations, ["function one", "function two"].map(of_invocation));
    let mut points = counts(2, 1);
    points.insert("aws.lambda.restore_duration".to_owned(), 1);
    points.insert("aws.lambda.billed_restore_duration".to_owned(), 1);
    assert_eq!(told.points, points);
    // Here it is restored at once: what was initialised hours ago is no part of the invocation.
    let (init, restore) = (vec!["init of #0".to_owned()], vec!["restore of #0".to_owned()]);
    assert_eq!(told.spans, sorted([span_of(0, " cold"), span_of(1, ""), init, restore]));
}

#[tokio::test]
async fn managed_instances() {
    let world = World::new().await;
    let kind = InitializationType::ManagedInstances;
    let lambda = start(&world, |lambda| lambda.initialization(kind).log_format(LogFormat::Json)).await;
    let run = |said| invoke(&lambda, Invocation::new().runs_for(ms(30)).line(said));
    let invoked: [Invoked; 3] = tokio::join!(run("one"), run("two"), run("three")).into();
    // What was meant for a log file, with nothing to tell its invocation by, belongs to none of those that run.
    lambda.emit("function", &json!({"message": "of nobody", "level": "WARN"}));
    let told = told(&world, lambda, &invoked).await;
    let mut environment = INIT.map(str::to_owned).to_vec();
    environment.insert(0, "function WARN of nobody".to_owned());
    assert_eq!(told.environment, environment);
    let said = ["one", "two", "three"].map(|said| {
        let said = format!("function INFO {said}");
        ["platform.start INFO", &said, "platform.report INFO"].map(str::to_owned).to_vec()
    });
    assert_eq!(told.invocations, said, "no end comes");
    let of_report = ["response_duration", "response_latency", "runtime_overhead"];
    let mut points: BTreeMap<String, u64> =
        of_report.into_iter().map(|name| (format!("aws.lambda.{name}"), 3)).collect();
    for (name, count) in [
        ("aws.lambda.tmp_free", 0),
        ("aws.lambda.tmp_used", 0),
        ("faas.init_duration", 1),
        ("faas.invocations", 3),
        ("faas.invoke_duration", 3),
    ] {
        points.insert(name.to_owned(), count);
    }
    assert_eq!(told.points, points, "no billed time, no memory, no cold starts");
    let parts = |number| {
        let mut spans = span_of(number, "");
        spans.retain(|span| !span.starts_with("extensionOverhead"));
        spans
    };
    assert_eq!(told.spans, sorted([parts(0), parts(1), parts(2), vec!["init".to_owned()]]));
}

#[tokio::test]
async fn tenant_isolation() {
    let world = World::new().await;
    let function =
        FunctionOptions { tenant: Some("blue".into()), tracing: true, ..FunctionOptions::default() };
    let lambda = start(&world, |lambda| lambda.function(function).log_format(LogFormat::Json)).await;
    let mut invoked = two(&lambda).await;
    let own = json!({"message": "three", "level": "INFO", "tenantId": "blue"}).to_string();
    invoked.push(invoke(&lambda, Invocation::new().runs_for(ms(5)).line(own)).await);
    // That line names no invocation, nor does the platform: it belongs to the one that runs.
    let told = told(&world, lambda, &invoked).await;
    assert_eq!(told.environment, INIT);
    let said = ["one", "two", "three"].map(|said| of_invocation(&format!("function INFO {said}")));
    assert_eq!(told.invocations, said);
    assert_eq!(told.points, counts(3, 1));
    let init = vec!["init of #0".to_owned()];
    assert_eq!(told.spans, sorted([span_of(0, " cold"), span_of(1, ""), span_of(2, ""), init]));
    for record in &told.records {
        let of_invocation = match record.signal {
            Signal::Logs | Signal::Traces => record.attributes.contains_key("faas.invocation_id"),
            Signal::Metrics => {
                ![
                    "faas.init_duration",
                    "aws.lambda.memory_size",
                    "aws.lambda.tmp_free",
                    "aws.lambda.tmp_used",
                ]
                .contains(&record.text.as_str())
                    && !record.text.starts_with("outlast.")
            }
        };
        let tenant = record.attributes.get("aws.lambda.tenant_id");
        assert_eq!(tenant, of_invocation.then_some(&json!("blue")), "{record:?}");
    }
    let own = told.records.iter().find(|record| record.text == "three").unwrap();
    assert_eq!(own.attributes["tenantId"], "blue", "what was said stays as it was said");
}

#[tokio::test]
async fn a_durable_execution_that_is_replayed() {
    let world = World::new().await;
    let lambda = start(&world, |lambda| lambda.log_format(LogFormat::Json)).await;
    let execution = "arn:aws:lambda:eu-central-1:123456789012:function:f:$LATEST/durable-execution/a/b";
    let mut invoked = Vec::new();
    for (replay, said) in ["began", "waited", "ended"].into_iter().enumerate() {
        let line = json!({"level": "INFO", "message": said, "executionArn": execution, "attempt": replay});
        let suspends = json!({"Status": if replay < 2 { "PENDING" } else { "SUCCEEDED" }});
        let replay = Invocation::new().runs_for(ms(5)).line(line.to_string()).responds(suspends);
        invoked.push(invoke(&lambda, replay).await);
    }
    let told = told(&world, lambda, &invoked).await;
    assert_eq!(told.environment, INIT);
    let said = ["began", "waited", "ended"].map(|said| of_invocation(&format!("function INFO {said}")));
    assert_eq!(told.invocations, said);
    assert_eq!(told.points, counts(3, 1), "a replay is an invocation, and is billed as one");
    let init = vec!["init of #0".to_owned()];
    assert_eq!(told.spans, sorted([span_of(0, " cold"), span_of(1, ""), span_of(2, ""), init]));
    let of_execution = |record: &&Record| record.attributes.get("executionArn") == Some(&json!(execution));
    assert_eq!(told.records.iter().filter(of_execution).count(), 3, "its replays are found by what they say");
}

#[tokio::test]
async fn an_environment_that_is_initialised_again_within_an_invocation() {
    let world = World::new().await;
    let lambda = start(&world, |lambda| lambda.timeout(ms(400))).await;
    let mut invoked = vec![invoke(&lambda, Invocation::new().runs_for(ms(5)).line("one")).await];
    let timed_out = Invocation::new().line("two").times_out();
    invoked.push(lambda.invoke(timed_out).await.unwrap());
    invoked.push(invoke(&lambda, Invocation::new().runs_for(ms(5)).line("three")).await);
    let told = told(&world, lambda, &invoked).await;
    let mut environment = [INIT, INIT].concat();
    environment.sort_unstable();
    assert_eq!(told.environment, environment);
    let mut said = ["one", "two", "three"].map(|said| of_invocation(&format!("function {said}")));
    said[1][2] = "platform.runtimeDone ERROR".to_owned();
    said[1][3] = "platform.report ERROR".to_owned();
    assert_eq!(told.invocations, said);
    assert_eq!((told.points["faas.invocations"], told.points["faas.timeouts"]), (2, 1));
    assert_eq!((told.points["faas.coldstarts"], told.points["faas.init_duration"]), (2, 2));
    assert!(told.spans.contains(&"init of #2".to_owned()), "{:?}", told.spans);
    leave_nothing(&world);
}

/// Every span that tells of an invocation is in one trace with its log records.
fn leave_nothing(world: &World) {
    let roots = roots(&world.backend);
    for record in world.backend.records().iter().filter(|record| record.signal == Signal::Logs) {
        let Some(request) = record.attributes.get("faas.invocation_id").and_then(Value::as_str) else {
            continue;
        };
        assert_eq!(record.trace_id, roots[request].trace_id, "{record:?}");
    }
}
