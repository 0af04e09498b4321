//! A backend that takes everything.

use crate::support::{OUTLAST, World, invoke, is_report, leave, lines_with, ms, output, within};
use outlast_backend::{Record, Signal};
use outlast_simulator::{FunctionOptions, Invocation, LogFormat};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::SystemTime;

/// The record with this text.
fn record_of(world: &World, text: &str) -> Record {
    let records = world.backend.records();
    records.into_iter().find(|record| record.text == text).unwrap_or_else(|| panic!("no record {text}"))
}

#[tokio::test]
async fn every_record_arrives_once_and_in_order() {
    let world = World::new().await;
    let function = FunctionOptions { init_logs: vec!["from init".into()], ..FunctionOptions::default() };
    let lambda = world.lambda().function(function).start().await.unwrap();
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().runs_for(ms(5)).logs(20)).await;
    }
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 101);
    for kind in ["platform.initStart", "platform.start", "platform.runtimeDone", "platform.report"] {
        assert!(lambda.acknowledged().iter().any(|event| event.kind == kind), "{kind}");
    }
    world.end(lambda).await;
    let records = world.backend.records();
    let logs = records.iter().filter(|record| record.signal == Signal::Logs);
    let uids: HashSet<_> = logs.clone().map(|record| record.uid.as_ref().unwrap()).collect();
    assert_eq!(uids.len(), logs.count(), "a uid of its own for each");
    assert!(world.backend.requests().iter().all(|request| request.encoding() == "gzip"));
}

#[tokio::test]
async fn types_that_nobody_knows_arrive_as_they_are() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    lambda.emit("platform.fromTheFuture", &json!({"a": {"b": [1, 2.5, null, true, "c"]}}));
    lambda.emit("somethingElse", &json!("just text"));
    lambda.emit("platform.report", &json!({"requestId": 17, "metrics": "none", "status": []}));
    lambda.emit("platform.initStart", &json!(null));
    lambda.emit("platform.runtimeDone", &json!([]));
    invoke(&lambda, Invocation::new().line("neighbour")).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    let future = world.backend.records().into_iter().find(|r| r.event_name == "platform.fromTheFuture");
    assert_eq!(future.unwrap().body, json!({"a": {"b": [1, 2.5, null, true, "c"]}}));
}

#[tokio::test]
async fn an_odd_record_takes_no_neighbour_along() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    let body = br#"[{"time":"2026-01-02T03:04:05.678Z","type":"function","record":"before\n"},
        17, "bare text", {}, null, {"record":"no type"}, {"type":"function"},
        {"time":"12:01:23:521Z","type":"function","record":"malformed time"},
        {"time":5,"type":["function"],"record":"odd type"},
        {"time":"2026-01-02T03:04:05.678Z","type":"function","record":"after\n"}]"#;
    assert_eq!(lambda.inject(body).await.unwrap(), 200);
    world.wait_for(|received| received.texts().contains(&"after")).await;
    let injected: Vec<Record> = {
        let records = world.backend.records();
        let first = records.iter().position(|record| record.text == "before").unwrap();
        let last = records.iter().position(|record| record.text == "after").unwrap();
        records[first..=last].to_vec()
    };
    assert_eq!(injected.len(), 10, "{injected:#?}");
    assert_eq!(injected[0].time_unix_nano, 1_767_323_045_678_000_000);
    let malformed = record_of(&world, "malformed time");
    assert_eq!(malformed.time_unix_nano, malformed.other_time_unix_nano, "the time of receipt stands in");
    assert_eq!(injected[2].text, "\"bare text\"");
    assert_eq!(injected[2].attributes["outlast.unparsed"], true);
    leave(&lambda).await;
}

#[tokio::test]
async fn records_of_json_functions_keep_their_fields() {
    let world = World::new().await;
    let lambda = world.lambda().log_format(LogFormat::Json).start().await.unwrap();
    let logged = (SystemTime::now() - ms(60_000)).duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let logged = u64::try_from(logged.as_millis()).unwrap();
    let line = json!({
        "timestamp": logged, "level": "ERROR", "message": "it broke",
        "user": {"id": 7, "tags": ["a", "b"]}, "requestId": "79b5e81f-0000-4000-8000-000000000001",
    });
    let bare = json!({"count": 3, "nested": {"deep": [1]}});
    invoke(&lambda, Invocation::new().line(line.to_string()).line(bare.to_string()).logs(3)).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    let record = record_of(&world, "it broke");
    assert_eq!(record.severity_text, "ERROR");
    assert_eq!(record.severity_number, 17);
    assert_eq!(record.time_unix_nano, logged * 1_000_000);
    assert_eq!(record.attributes["user"], json!({"id": 7, "tags": ["a", "b"]}));
    assert_eq!(record.attributes["faas.invocation_id"], "79b5e81f-0000-4000-8000-000000000001");
    let whole = world.backend.records().into_iter().find(|record| record.body == bare);
    assert!(whole.is_some(), "without a message the object is the body");
}

#[tokio::test]
async fn a_line_belongs_to_the_invocation_that_wrote_it() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    let first = invoke(&lambda, Invocation::new().line("of the first")).await;
    let second = invoke(&lambda, Invocation::new().line("of the second")).await;
    world.until_delivered(&lambda).await;
    for (text, invoked) in [("of the first", &first), ("of the second", &second)] {
        assert_eq!(record_of(&world, text).attributes["faas.invocation_id"], invoked.request_id.as_str());
    }
    world.end(lambda).await;
}

#[tokio::test]
async fn what_extensions_write_arrives_and_does_not_echo() {
    let world = World::new().await;
    let lambda = world
        .lambda()
        .env("OUTLAST_TELEMETRY", "platform,function,extension")
        .env("OUTLAST_LOG", "debug")
        .start()
        .await
        .unwrap();
    for _ in 0..20 {
        invoke(&lambda, Invocation::new().logs(50)).await;
    }
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    let of_extensions =
        |record: &&Record| record.attributes.get("aws.lambda.telemetry.type") == Some(&json!("extension"));
    let echoed = world.backend.records().iter().filter(of_extensions).count();
    assert!(echoed <= 40, "{echoed} lines of our own for 1,000 records");
}

#[tokio::test]
async fn the_resource_tells_the_function_and_what_the_user_added() {
    let world = World::new().await;
    let lambda = world
        .lambda()
        .env("OTEL_SERVICE_NAME", "checkout")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,team=blue%20team")
        .start()
        .await
        .unwrap();
    invoke(&lambda, Invocation::new().line("told")).await;
    world.until_delivered(&lambda).await;
    let instance = lambda.acknowledged()[0].value()["instanceId"].clone();
    let resource = record_of(&world, "told").resource;
    for (key, value) in [
        ("service.name", json!("checkout")),
        ("faas.name", json!("simulated-function")),
        ("faas.version", json!("$LATEST")),
        ("faas.instance", instance),
        ("faas.max_memory", json!(256 << 20)),
        ("cloud.provider", json!("aws")),
        ("cloud.platform", json!("aws_lambda")),
        ("cloud.region", json!("eu-central-1")),
        ("cloud.account.id", json!("123456789012")),
        (
            "cloud.resource_id",
            json!("arn:aws:lambda:eu-central-1:123456789012:function:simulated-function:$LATEST"),
        ),
        ("deployment.environment.name", json!("prod")),
        ("team", json!("blue team")),
    ] {
        assert_eq!(resource.get(key), Some(&value), "{key}");
    }
    world.end(lambda).await;
}

#[tokio::test]
async fn headers_and_keys_go_with_every_request() {
    let world = World::new().await;
    let lambda =
        world.lambda().env("OUTLAST_HEADERS", "authorization=Bearer%20s3cret,x-tenant=blue").start().await;
    let lambda = lambda.unwrap();
    invoke(&lambda, Invocation::new().logs(3)).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    let requests = world.backend.requests();
    assert!(Signal::ALL.iter().all(|signal| requests.iter().any(|request| request.path == signal.path())));
    let keys: HashSet<_> =
        requests.iter().map(|request| request.header("idempotency-key").unwrap()).collect();
    assert_eq!(keys.len(), requests.len(), "a key for each body");
    for request in &requests {
        assert_eq!(request.header("authorization"), Some("Bearer s3cret"));
        assert_eq!(request.header("x-tenant"), Some("blue"));
        assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
        assert!(Signal::of_path(&request.path).is_some());
    }
}

#[tokio::test]
async fn without_compression_bodies_are_plain() {
    let world = World::new().await;
    let lambda = world.lambda().env("OUTLAST_COMPRESSION", "none").start().await.unwrap();
    for _ in 0..3 {
        invoke(&lambda, Invocation::new().logs(50)).await;
    }
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    for request in world.backend.requests() {
        assert_eq!(request.encoding(), "identity");
        assert_eq!(request.wire_bytes, request.plain_bytes);
    }
}

#[tokio::test]
async fn a_healthy_run_says_one_line() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    for _ in 0..10 {
        invoke(&lambda, Invocation::new().logs(10)).await;
    }
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    assert_eq!(output(&lambda).len(), 1, "{:?}", output(&lambda));
    assert_eq!(lines_with(&lambda, "shutdown: "), 1);
    assert!(!world.backend.records().iter().any(is_report));
}

#[tokio::test]
async fn the_name_is_that_of_the_file_and_the_first_next_comes_after_subscribing() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    let name = std::path::Path::new(OUTLAST).file_name().unwrap().to_str().unwrap();
    assert_eq!(lambda.extensions().len(), 1);
    assert_eq!(lambda.extensions()[0].0, name);
    within("the subscription", lambda.until_acknowledges(|e| e.kind == "platform.telemetrySubscription"))
        .await;
    let subscribed = lambda.acknowledged().into_iter().find(|e| e.kind == "platform.telemetrySubscription");
    assert_eq!(subscribed.unwrap().value()["types"], json!(["platform", "function"]));
    world.end(lambda).await;
}

#[tokio::test]
async fn text_of_every_kind_survives() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    let texts = [
        "tab\tand \u{1F980} and \u{0} and \"quotes\" and \\",
        "",
        " ",
        "two\nlines",
        "\u{FFFD}",
        "{\"a\":1}",
    ];
    let mut invocation = Invocation::new();
    for text in texts {
        invocation = invocation.line(text);
    }
    invoke(&lambda, invocation).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    let arrived: Vec<Value> = world.backend.records().into_iter().map(|record| record.body).collect();
    for text in texts {
        assert!(arrived.contains(&json!(text)), "{text:?}");
    }
}
