//! Other execution models, sandboxes without telemetry, and settings that are wrong.

use crate::support::{OUTLAST, World, invoke, leave, lines_with, ms, output, within};
use outlast_backend::Behaviour;
use outlast_simulator::{
    Freeze, InitializationType, Invocation, LogFormat, Sandbox, Schema, TelemetryOptions,
};
use serde_json::json;

#[tokio::test]
async fn managed_instances_are_drained_all_the_time() {
    let world = World::new().await;
    let managed = world.lambda().initialization(InitializationType::ManagedInstances);
    let lambda = managed.log_format(LogFormat::Json).start().await.unwrap();
    for _ in 0..5 {
        let run = || invoke(&lambda, Invocation::new().runs_for(ms(5)).logs(20));
        tokio::join!(run(), run(), run());
    }
    world.backend.behave(Behaviour::status(503));
    invoke(&lambda, Invocation::new().logs(20)).await;
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 320);
    world.end(lambda).await;
}

#[tokio::test]
async fn an_environment_initialised_ahead_and_one_restored_from_a_snapshot_work() {
    for kind in [InitializationType::ProvisionedConcurrency, InitializationType::SnapStart] {
        let world = World::new().await;
        let lambda = world.lambda().initialization(kind).freeze(Freeze::After(ms(1))).start().await.unwrap();
        for _ in 0..3 {
            invoke(&lambda, Invocation::new().runs_for(ms(30)).logs(10)).await;
        }
        world.end(lambda).await;
    }
}

#[tokio::test]
async fn copies_of_one_snapshot_give_their_records_uids_of_their_own() {
    let world = World::new().await;
    let published = world.lambda().start().await.unwrap();
    // What it left would be sent by both copies.
    world.until_delivered(&published).await;
    leave(&published).await;
    let body = br#"[{"time":"2026-01-02T03:04:05.678Z","type":"function","record":"the same in both"}]"#;
    for copy in ["a", "b"] {
        let disk = world.queue().with_file_name(copy);
        outlast_simulator::copy_directory(world.queue(), &disk).unwrap();
        let lambda = world.lambda().env("OUTLAST_QUEUE_DIR", disk.display()).start().await.unwrap();
        invoke(&lambda, Invocation::new()).await;
        assert_eq!(lambda.inject(body).await.unwrap(), 200);
        leave(&lambda).await;
    }
    assert_eq!(crate::support::times(&world.backend)["the same in both"], 2);
    assert_eq!(world.backend.repeated(), []);
}

#[tokio::test]
async fn without_a_telemetry_api_the_function_runs_on() {
    let world = World::new().await;
    let telemetry = TelemetryOptions { supported: false, ..TelemetryOptions::default() };
    let lambda = world.lambda().telemetry(telemetry).start().await.unwrap();
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().logs(10)).await;
    }
    leave(&lambda).await;
    assert_eq!(world.backend.requests().len(), 0);
    assert_eq!(lambda.acknowledged_count(), 0);
}

#[tokio::test]
async fn older_telemetry_schemas_are_fallen_back_to() {
    for (newest, body) in
        [(Schema::V20221213, json!("said")), (Schema::V20220701, json!("{\"message\":\"said\",\"n\":1}"))]
    {
        let world = World::new().await;
        let telemetry = TelemetryOptions { newest_schema: newest, ..TelemetryOptions::default() };
        let lambda = world.lambda().telemetry(telemetry).log_format(LogFormat::Json).start().await.unwrap();
        invoke(&lambda, Invocation::new().line(r#"{"message":"said","n":1}"#)).await;
        world.until_delivered(&lambda).await;
        leave(&lambda).await;
        assert!(world.backend.records().iter().any(|record| record.body == body), "{newest:?}");
    }
}

#[tokio::test]
async fn everything_that_is_wrong_with_the_settings_is_told_at_once() {
    let world = World::new().await;
    let lambda = world
        .lambda()
        .env("OUTLAST_TIMEOUT", "5")
        .env("OUTLAST_RETRY_MAX", "forever")
        .env("OUTLAST_QUEUE_MAX_BYTES", "12parsecs")
        .env("OUTLAST_OVERFLOW", "drop-everything")
        .env("OUTLAST_COMPRESSION", "brotli")
        .env("OUTLAST_TELEMETRY", "everything")
        .env("OUTLAST_HEADERS", "authorization=tops3cret\u{1},=alsos3cret")
        .env("OUTLAST_ENDPIONT", "http://typo.example")
        .start()
        .await
        .unwrap();
    let wrong = [
        "OUTLAST_TIMEOUT",
        "OUTLAST_RETRY_MAX",
        "OUTLAST_QUEUE_MAX_BYTES",
        "OUTLAST_OVERFLOW",
        "OUTLAST_COMPRESSION",
        "OUTLAST_TELEMETRY",
        "OUTLAST_HEADERS",
        "OUTLAST_ENDPIONT",
    ];
    for name in wrong {
        assert!(lines_with(&lambda, name) >= 1, "{name}: {:#?}", output(&lambda));
    }
    assert!(!output(&lambda).iter().any(|line| line.contains("s3cret")), "{:#?}", output(&lambda));
    // The defaults stand, and the function's telemetry flows.
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
}

#[tokio::test]
async fn secrets_in_an_address_are_not_shown() {
    let lambda = Sandbox::builder(OUTLAST)
        .env("OUTLAST_ENDPOINT", "http://user:pa55word@backend.invalid:99999/?token=t0ken")
        .env("OUTLAST_LOG", "trace")
        .start()
        .await
        .unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    leave(&lambda).await;
    let output = output(&lambda).join("\n");
    assert!(output.contains("OUTLAST_ENDPOINT"), "{output}");
    assert!(!output.contains("pa55word") && !output.contains("t0ken"), "{output}");
}

#[tokio::test]
async fn with_nowhere_to_send_it_idles_until_shutdown() {
    for endpoint in [None, Some("not a url"), Some("ftp://example.com")] {
        let mut builder = Sandbox::builder(OUTLAST);
        if let Some(endpoint) = endpoint {
            builder = builder.env("OUTLAST_ENDPOINT", endpoint);
        }
        let lambda = builder.start().await.unwrap();
        for _ in 0..5 {
            invoke(&lambda, Invocation::new().logs(10)).await;
        }
        within("the reason", lambda.until_output(|line| line.contains("nowhere to send"))).await;
        leave(&lambda).await;
        assert_eq!(lambda.acknowledged_count(), 0, "it has not subscribed");
    }
}

#[tokio::test]
async fn standard_variables_are_enough() {
    let world = World::new().await;
    let lambda = Sandbox::builder(OUTLAST)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", world.backend.url())
        .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=abc")
        .env("OTEL_SERVICE_NAME", "standard")
        .env("OUTLAST_QUEUE_DIR", world.queue().display())
        .start()
        .await
        .unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.end(lambda).await;
    assert!(world.backend.requests().iter().all(|request| request.header("api-key") == Some("abc")));
    let records = world.backend.records();
    assert!(records.iter().all(|record| record.resource["service.name"] == "standard"));
}

#[tokio::test]
async fn the_api_may_be_at_another_address() {
    let world = World::new().await;
    let lambda = world.lambda().api_host("127.0.0.77".parse().unwrap()).start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
}
