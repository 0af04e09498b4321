//! The Telemetry API: subscribing, the events of an environment's life, and delivery with everything that goes wrong.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::{answers, bodies, ms, probe, refusal, steps};
use outlast_simulator::{
    Builder, Cut, Freeze, InitializationType, Invocation, LogFormat, Manner, OnFailure, Repeats, Sandbox,
    Schema, ShutdownReason, TelemetryOptions, When,
};
use serde_json::{Value, json};

const LOOP: &str = "register=INVOKE,SHUTDOWN\nlisten\nsubscribe\nloop";

fn awake(script: &str) -> Builder {
    probe(script).freeze(Freeze::Off)
}

fn kinds(lambda: &Sandbox) -> Vec<String> {
    lambda.acknowledged().iter().map(|event| event.kind.to_string()).collect()
}

fn find<'a>(
    events: &'a [std::sync::Arc<outlast_simulator::Event>],
    kind: &str,
) -> &'a outlast_simulator::Event {
    events.iter().find(|event| event.kind == kind).unwrap()
}

#[tokio::test]
async fn a_subscription_is_validated_field_by_field() {
    let script = r#"register=INVOKE,SHUTDOWN
listen
subscribe-raw={
subscribe={"schemaVersion":"2021-03-18"}
subscribe={"types":[]}
subscribe={"types":["logs"]}
subscribe={"buffering":{"maxItems":999}}
subscribe={"buffering":{"maxBytes":1048577}}
subscribe={"buffering":{"timeoutMs":24}}
subscribe={"destination":{"protocol":"HTTP","URI":"http://example.com:80"}}
subscribe={"schemaVersion":"2022-07-01"}
subscribe={"schemaVersion":"2022-12-13"}
subscribe
next
subscribe
loop"#;
    let lambda = probe(script).start().await.unwrap();
    lambda.invoke(Invocation::new()).await.unwrap();
    let malformed = answers(&lambda, "subscribe-raw", 1).await.remove(0);
    assert_eq!(refusal(&malformed), (400, "ValidationError"));
    let all = answers(&lambda, "subscribe", 11).await;
    let (refused, rest) = all.split_at(7);
    assert!(refused.iter().all(|answer| refusal(answer) == (400, "ValidationError")), "{refused:?}");
    assert!(rest[..3].iter().all(|answer| answer["status"] == 200 && answer["body"] == "OK"), "{rest:?}");
    assert_eq!(refusal(&rest[3]), (403, "Telemetry.SubscriptionClosed"));
}

#[tokio::test]
async fn a_sandbox_can_lack_telemetry_or_the_newest_schema() {
    let without = TelemetryOptions { supported: false, ..TelemetryOptions::default() };
    let lambda = probe(LOOP).telemetry(without).start().await.unwrap();
    assert_eq!(refusal(&answers(&lambda, "subscribe", 1).await[0]), (202, "Telemetry.NotSupported"));
    let older = TelemetryOptions { newest_schema: Schema::V20221213, ..TelemetryOptions::default() };
    let script =
        "register=INVOKE,SHUTDOWN\nlisten\nsubscribe\nsubscribe={\"schemaVersion\":\"2022-12-13\"}\nloop";
    let lambda = probe(script).telemetry(older).start().await.unwrap();
    let statuses: Vec<_> =
        answers(&lambda, "subscribe", 2).await.iter().map(|answer| refusal(answer).0).collect();
    assert_eq!(statuses, [400, 200]);
}

#[tokio::test]
async fn the_events_of_a_life_come_in_order() {
    let lambda = awake(LOOP).tracing().start().await.unwrap();
    let invoked = lambda.invoke(Invocation::new().line("hello").responds(json!({"ok": true}))).await.unwrap();
    lambda.settled().await;
    let init =
        ["platform.initStart", "platform.initRuntimeDone", "platform.extension", "platform.initReport"];
    let invocation = ["platform.start", "function", "platform.runtimeDone"];
    // The subscription may come before or after the runtime is done.
    let (subscribed, others): (Vec<_>, Vec<_>) =
        kinds(&lambda).into_iter().partition(|kind| kind == "platform.telemetrySubscription");
    assert_eq!(subscribed.len(), 1);
    assert_eq!(others, [&init[..], &invocation].concat(), "the report is withheld");
    lambda.invoke(Invocation::new()).await.unwrap();
    lambda.settled().await;
    assert_eq!(kinds(&lambda)[8], "platform.report");
    let events = lambda.acknowledged();
    assert_eq!(find(&events, "function").text().unwrap(), "hello\n");
    assert_eq!(find(&events, "platform.initStart").value()["phase"], "init");
    assert_eq!(find(&events, "platform.extension").value()["events"], json!(["INVOKE", "SHUTDOWN"]));
    let start = find(&events, "platform.start").value();
    assert_eq!(start["requestId"], invoked.request_id.as_str());
    assert!(start["tracing"]["value"].as_str().unwrap().starts_with("Root=1-"));
    let done = find(&events, "platform.runtimeDone").value();
    assert_eq!((&done["status"], &done["metrics"]["producedBytes"]), (&json!("success"), &json!(11)));
    let report = find(&events, "platform.report").value();
    assert_eq!(report["requestId"], invoked.request_id.as_str());
    assert!(report["metrics"]["initDurationMs"].is_number());
    assert_eq!(report["metrics"]["memorySizeMB"], 256);
}

#[tokio::test]
async fn the_last_report_comes_just_after_shutdown() {
    let script = "register=INVOKE,SHUTDOWN\nlisten\nsubscribe\nnext\nnext\nsleep=400";
    let options = TelemetryOptions { report_after: ms(20), ..TelemetryOptions::default() };
    let lambda = probe(script).telemetry(options).start().await.unwrap();
    lambda.invoke(Invocation::new()).await.unwrap();
    lambda.frozen().await;
    assert!(lambda.shutdown(ShutdownReason::Spindown).await.exited_by_itself());
    assert_eq!(kinds(&lambda).last().unwrap(), "platform.report");
}

#[tokio::test]
async fn an_answer_that_an_extension_wrote_before_it_left_is_read() {
    let script = "register=INVOKE,SHUTDOWN\nlisten\nsubscribe\nnext\nnext\nsleep=400";
    let lambda = probe(script).start().await.unwrap();
    lambda.invoke(Invocation::new()).await.unwrap();
    lambda.frozen().await;
    // Long after the extension is gone.
    lambda.telemetry(|options| options.manner.read_after = ms(800));
    assert!(lambda.shutdown(ShutdownReason::Spindown).await.exited_by_itself());
    assert_eq!(kinds(&lambda).last().unwrap(), "platform.report");
}

#[tokio::test]
async fn nothing_is_delivered_to_a_frozen_environment() {
    let lambda = probe(LOOP).start().await.unwrap();
    lambda.invoke(Invocation::new().logs(3)).await.unwrap();
    lambda.frozen().await;
    let before = lambda.deliveries().len();
    lambda.flush();
    tokio::task::yield_now().await;
    assert_eq!(lambda.deliveries().len(), before);
    lambda.invoke(Invocation::new().runs_for(ms(200))).await.unwrap();
    assert_eq!(
        lambda.acknowledged_lines(),
        ["run=r inv=1 line=0", "run=r inv=1 line=1", "run=r inv=1 line=2"]
    );
}

#[tokio::test]
async fn json_logs_are_objects_from_the_second_schema_on() {
    for (schema, is_object) in [("2022-07-01", false), ("2022-12-13", true), ("2025-01-29", true)] {
        let script =
            format!("register=INVOKE,SHUTDOWN\nlisten\nsubscribe={{\"schemaVersion\":\"{schema}\"}}\nloop");
        let lambda = awake(&script).log_format(LogFormat::Json).start().await.unwrap();
        let invocation = Invocation::new().line(r#"{"level":"WARN","message":"hi","n":1}"#).line("plain");
        lambda.invoke(invocation).await.unwrap();
        lambda.settled().await;
        let events: Vec<Value> = bodies(&lambda)
            .await
            .iter()
            .flat_map(|body| serde_json::from_str::<Vec<Value>>(body).unwrap())
            .collect();
        let records: Vec<&Value> =
            events.iter().filter(|event| event["type"] == "function").map(|event| &event["record"]).collect();
        assert_eq!(records.len(), 2);
        if is_object {
            assert_eq!(records[0], &json!({"level": "WARN", "message": "hi", "n": 1}));
            assert_eq!(records[1]["message"], "plain");
        } else {
            assert_eq!(records[0], "{\"level\":\"WARN\",\"message\":\"hi\",\"n\":1}\n");
            assert_eq!(records[1], "plain\n");
        }
    }
}

#[tokio::test]
async fn the_extension_can_hear_itself() {
    let script = "register=INVOKE,SHUTDOWN\nlisten\nsubscribe={\"types\":[\"extension\"]}\nerror=echo\nnext\nsleep=100\nexit=0";
    let lambda = probe(script).start().await.unwrap();
    let (_, ()) = tokio::join!(
        lambda.invoke(Invocation::new().runs_for(ms(150))),
        lambda.until_acknowledges(|event| event.text().as_deref() == Some("echo\n"))
    );
}

#[tokio::test]
async fn a_refused_batch_comes_again_until_it_is_answered_200() {
    let script = "register=INVOKE,SHUTDOWN\nlisten\nanswers=500,429,200\nsubscribe\nloop";
    let lambda = awake(script).start().await.unwrap();
    lambda.settled().await;
    let statuses: Vec<_> = lambda.deliveries().iter().take(3).map(|delivery| delivery.status).collect();
    assert_eq!(statuses, [Some(500), Some(429), Some(200)]);
    let bodies = bodies(&lambda).await;
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(bodies[0], bodies[2]);
    let ids: Vec<_> = lambda.acknowledged().iter().map(|event| event.id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "each once: {ids:?}");
}

#[tokio::test]
async fn in_drop_mode_a_refused_batch_is_gone_and_reported() {
    let script = "register=INVOKE,SHUTDOWN\nlisten\nanswers=500,200\nsubscribe\nloop";
    let options = TelemetryOptions { on_failure: OnFailure::Drop, ..TelemetryOptions::default() };
    let lambda = awake(script).telemetry(options).start().await.unwrap();
    lambda.until_acknowledges(|event| event.kind == "platform.logsDropped").await;
    let events = lambda.acknowledged();
    let dropped = find(&events, "platform.logsDropped").value();
    assert_eq!(dropped["reason"], "could not send events: status code 500");
    assert_eq!(dropped["droppedRecords"], lambda.dropped());
    assert!(!kinds(&lambda).contains(&"platform.initStart".to_owned()));
}

#[tokio::test]
async fn a_subscriber_that_falls_behind_loses_what_waits() {
    let script = "register=INVOKE,SHUTDOWN\nlisten\nanswer-after=300\nsubscribe\nloop";
    let options = TelemetryOptions { waiting_max_bytes: 1_000_000, ..TelemetryOptions::default() };
    let lambda = awake(script).telemetry(options).start().await.unwrap();
    lambda.invoke(Invocation::new().logs(2_000).padded(1_000)).await.unwrap();
    lambda.until_acknowledges(|event| event.kind == "platform.logsDropped").await;
    assert!(lambda.dropped() > 0);
}

#[tokio::test]
async fn an_answered_batch_can_come_again() {
    let options = TelemetryOptions { repeats: Repeats::AfterAnswer(2), ..TelemetryOptions::default() };
    let lambda = awake(LOOP).telemetry(options).start().await.unwrap();
    lambda.invoke(Invocation::new().line("once")).await.unwrap();
    lambda.settled().await;
    let received = bodies(&lambda).await.iter().filter(|body| body.contains("once")).count();
    assert_eq!(received, 3);
    assert_eq!(lambda.acknowledged_lines(), ["once"]);
}

#[tokio::test]
async fn an_answer_can_get_lost() {
    let options = TelemetryOptions { repeats: Repeats::AnswerLost(1), ..TelemetryOptions::default() };
    let lambda = awake(LOOP).telemetry(options).start().await.unwrap();
    lambda.invoke(Invocation::new().line("once")).await.unwrap();
    lambda.settled().await;
    assert_eq!(bodies(&lambda).await.iter().filter(|body| body.contains("once")).count(), 2);
    assert_eq!(lambda.acknowledged_lines(), ["once"]);
    assert_eq!(lambda.deliveries()[0].status, None);
}

#[tokio::test]
async fn a_record_over_the_limit_is_cut_and_its_halves_join_again() {
    let lambda = awake(LOOP).start().await.unwrap();
    let long = "y".repeat(600_000);
    lambda.invoke(Invocation::new().line(format!("{long} end")).line("after")).await.unwrap();
    lambda.settled().await;
    let bodies: Vec<String> = bodies(&lambda).await.into_iter().filter(|body| body.contains("yyy")).collect();
    assert_eq!(bodies.len(), 3, "262,144 bytes each and the rest");
    assert!(bodies.iter().all(|body| serde_json::from_str::<Value>(body).is_err()));
    let envelope = bodies[0].find("\"record\":").unwrap() + "\"record\":".len();
    let heads = bodies[..2].iter().map(|body| body.strip_suffix("}]").unwrap());
    let joined = heads
        .chain([bodies[2].as_str()])
        .enumerate()
        .map(|(at, part)| if at == 0 { part } else { &part[envelope..] })
        .collect::<String>();
    let events: Vec<Value> = serde_json::from_str(&joined).unwrap();
    assert_eq!(events[0]["record"], format!("{long} end\n"));
    assert_eq!(events[1]["record"], "after\n");
    assert_eq!(lambda.acknowledged_lines(), [format!("{long} end"), "after".to_owned()], "accounted once");
}

#[tokio::test]
async fn records_can_be_cut_on_demand() {
    let options =
        TelemetryOptions { cut: Cut::Over(100), cut_after_others: true, ..TelemetryOptions::default() };
    let lambda = awake(LOOP).telemetry(options).start().await.unwrap();
    lambda.invoke(Invocation::new().line("x".repeat(150))).await.unwrap();
    lambda.settled().await;
    let bodies = bodies(&lambda).await;
    let (head, tail) = (&bodies[bodies.len() - 2], &bodies[bodies.len() - 1]);
    assert!(head.contains("platform.start") && head.ends_with("xxx}]"), "{head}");
    assert!(tail.starts_with("[{\"time\":") && tail.contains("platform.runtimeDone"), "{tail}");
}

#[tokio::test]
async fn bodies_can_trickle_in_byte_by_byte() {
    let manner = Manner { pieces: Some((1, ms(0))), close_each: true, read_after: ms(1) };
    let options = TelemetryOptions { manner, delay: ms(1), ..TelemetryOptions::default() };
    let lambda = awake(LOOP).telemetry(options).start().await.unwrap();
    lambda.settled().await;
    assert_eq!(kinds(&lambda)[0], "platform.initStart");
}

#[tokio::test]
async fn run_time_events_can_be_withheld_for_good() {
    let options = TelemetryOptions { runtime_done: false, report: false, ..TelemetryOptions::default() };
    let lambda = awake(LOOP).telemetry(options).start().await.unwrap();
    for _ in 0..2 {
        lambda.invoke(Invocation::new()).await.unwrap();
    }
    lambda.settled().await;
    let kinds = kinds(&lambda);
    assert!(
        !kinds.iter().any(|kind| kind == "platform.runtimeDone" || kind == "platform.report"),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn a_time_out_is_told_as_such() {
    let lambda = awake(LOOP).timeout(ms(600)).start().await.unwrap();
    lambda.invoke(Invocation::new().times_out()).await.unwrap();
    lambda.invoke(Invocation::new()).await.unwrap();
    lambda.settled().await;
    let starts: Vec<_> = lambda
        .acknowledged()
        .iter()
        .filter(|e| e.kind == "platform.initStart")
        .map(|e| e.value()["phase"].clone())
        .collect();
    assert_eq!(starts, ["init", "invoke"]);
}

#[tokio::test]
async fn arbitrary_bodies_and_unknown_events_can_be_sent() {
    let lambda = awake(LOOP).start().await.unwrap();
    assert_eq!(lambda.inject(b"no json").await.unwrap(), 200);
    lambda.emit("platform.future", &json!({"a": 1}));
    lambda.until_acknowledges(|event| event.kind == "platform.future").await;
    assert!(bodies(&lambda).await.contains(&"no json".to_owned()));
}

#[tokio::test]
async fn snap_start_restores_before_the_first_invocation() {
    let lambda = awake(LOOP).initialization(InitializationType::SnapStart).start().await.unwrap();
    for _ in 0..2 {
        lambda.invoke(Invocation::new()).await.unwrap();
    }
    lambda.settled().await;
    let kinds = kinds(&lambda);
    let restored: Vec<_> = kinds.iter().filter(|kind| kind.starts_with("platform.restore")).collect();
    assert_eq!(restored, ["platform.restoreStart", "platform.restoreRuntimeDone", "platform.restoreReport"]);
    let events = lambda.acknowledged();
    assert!(find(&events, "platform.report").value()["metrics"]["restoreDurationMs"].is_number());
}

#[tokio::test]
async fn managed_instances_report_at_once_and_know_no_runtime_done() {
    let script = "register=SHUTDOWN\nlisten\nsubscribe={\"schemaVersion\":\"2022-12-13\"}\nsubscribe\nloop";
    let lambda = probe(script).initialization(InitializationType::ManagedInstances).start().await.unwrap();
    assert_eq!(refusal(&answers(&lambda, "subscribe", 1).await[0]).0, 400);
    lambda.invoke(Invocation::new()).await.unwrap();
    lambda.settled().await;
    let events = lambda.acknowledged();
    assert!(!events.iter().any(|event| event.kind == "platform.runtimeDone"));
    assert!(find(&events, "platform.report").value()["metrics"].get("billedDurationMs").is_none());
}

#[tokio::test]
async fn a_tcp_destination_gets_lines() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "register=INVOKE,SHUTDOWN\nsubscribe={{\"destination\":{{\"protocol\":\"TCP\",\"port\":{port}}}}}\nloop"
    );
    let lambda = awake(&script).start().await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["type"], "platform.initStart");
    drop(lambda);
}

#[tokio::test]
async fn a_burst_is_delivered_in_order_and_in_full() {
    const LINES: usize = 20_000;
    let script = "register=INVOKE,SHUTDOWN\nlisten\nsubscribe\nloop";
    let lambda = awake(script).timeout(ms(30_000)).start().await.unwrap();
    lambda.invoke(Invocation::new().logs(LINES).padded(100).when(When::AtStart)).await.unwrap();
    lambda.settled().await;
    let lines = lambda.acknowledged_lines();
    assert_eq!(lines.len(), LINES);
    assert!(lines.iter().enumerate().all(|(at, line)| line.starts_with(&format!("run=r inv=1 line={at} "))));
    assert!(!steps(&lambda).is_empty());
}
