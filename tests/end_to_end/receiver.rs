//! What the function's own SDK sends through the extension.

use crate::sdk::{
    JSON, PROTOBUF, Port, assert_each_once, count_theirs, gzip, is_theirs, named_spans, span_names, spans,
    status,
};
use crate::support::{World, count_of, invoke, is_report, leave, lines_with, ms, output, within};
use outlast_backend::{Behaviour, Signal, Verdict};
use outlast_simulator::{Freeze, Invocation, Sandbox};
use std::sync::Arc;
use tokio::task::JoinSet;

/// A log record of an SDK, in JSON.
fn log_json(text: &str) -> String {
    let record = format!(r#"{{"timeUnixNano":"1700000000000000000","body":{{"stringValue":"{text}"}}}}"#);
    format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{record}]}}]}}]}}"#)
}

async fn until_spans(world: &World, count: usize) {
    world.wait_for(|received| count_theirs(received, Signal::Traces) >= count).await;
}

fn no_defects(world: &World) {
    world.backend.received(|received| assert_eq!(received.defects(), Vec::<&str>::new()));
}

#[tokio::test]
async fn all_three_signals_arrive_whatever_they_are_written_in() {
    let (world, port) = (World::new().await, Port::reserve());
    let lambda = port.lambda(&world).start().await.unwrap();
    let span = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}}]},
        "scopeSpans":[{"scope":{"name":"lib"},"spans":[{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331",
        "name":"in json","kind":2,"startTimeUnixNano":"1","endTimeUnixNano":"2","attributes":[{"key":"n","value":{"intValue":"5"}}]}]}]}]}"#;
    let metric = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","unit":"1","sum":{"aggregationTemporality":2,
        "isMonotonic":true,"dataPoints":[{"timeUnixNano":"3","asInt":"7"},{"timeUnixNano":"4","asDouble":0.5}]}}]}]}]}"#;
    assert_eq!(port.post("/v1/traces", JSON, false, span.as_bytes()).await, 200);
    assert_eq!(port.post("/v1/traces", PROTOBUF, false, &spans(0..1)).await, 200);
    assert_eq!(port.post("/v1/traces", PROTOBUF, true, &gzip(&spans(1..2))).await, 200);
    assert_eq!(port.post("/v1/metrics", JSON, true, &gzip(metric.as_bytes())).await, 200);
    assert_eq!(port.post("/v1/logs", JSON, false, log_json("of the sdk").as_bytes()).await, 200);
    until_spans(&world, 3).await;
    world
        .wait_for(|received| {
            let has_log = received.records().iter().any(|record| record.text == "of the sdk");
            count_theirs(received, Signal::Metrics) == 2 && has_log
        })
        .await;
    assert_eq!(span_names(&world.backend), ["in json", "span 0", "span 1"]);
    let records = world.backend.records();
    let json = records.iter().find(|record| record.text == "in json").unwrap();
    assert_eq!(
        (json.trace_id.as_str(), json.span_id.as_str()),
        ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    );
    assert_eq!(
        (&json.resource["service.name"], &json.attributes["n"], &*json.scope),
        (&"s".into(), &5.into(), "lib")
    );
    assert_eq!((json.other_time_unix_nano, json.time_unix_nano), (1, 2));
    let points: Vec<_> =
        records.iter().filter(|record| record.text == "m").map(|r| r.body["value"].clone()).collect();
    assert_eq!(points, [7.into(), serde_json::json!(0.5)]);
    assert!(world.backend.texts().contains(&"of the sdk".to_owned()));
    leave(&lambda).await;
    no_defects(&world);
}

#[tokio::test]
async fn logs_of_the_sdk_keep_their_place_among_those_of_the_function() {
    let (world, port) = (World::new().await, Port::reserve());
    let lambda = port.lambda(&world).start().await.unwrap();
    world.backend.behave(Behaviour::status(503));
    let mut expected = Vec::new();
    for number in 0..10 {
        invoke(&lambda, Invocation::new().line(format!("function {number}"))).await;
        within("the delivery", lambda.settled()).await;
        let text = format!("sdk {number}");
        assert_eq!(port.post("/v1/logs", JSON, false, log_json(&text).as_bytes()).await, 200);
        expected.extend([format!("function {number}"), text]);
    }
    world.backend.recover().await.unwrap();
    let last = expected.last().cloned().unwrap();
    world.wait_for(|received| received.texts().contains(&last.as_str())).await;
    let mut texts = world.backend.texts();
    texts.retain(|text| text.starts_with("function ") || text.starts_with("sdk "));
    assert_eq!(texts, expected);
    leave(&lambda).await;
}

#[tokio::test]
async fn spans_outlast_an_outage_and_sigkills_and_arrive_once() {
    let (world, port) = (World::new().await, Port::reserve());
    world.backend.behave(Behaviour::status(503));
    let lambda = port.lambda(&world).start().await.unwrap();
    for round in 0..3 {
        for number in 0..20 {
            let first = (round * 20 + number) * 5;
            port.export(first..first + 5).await;
        }
        lambda.kill().await;
        invoke(&lambda, Invocation::new()).await;
    }
    world.backend.recover().await.unwrap();
    until_spans(&world, 300).await;
    leave(&lambda).await;
    assert_eq!(span_names(&world.backend), (0..300).map(|id| format!("span {id}")).collect::<Vec<_>>());
    no_defects(&world);
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_is_kept_once() {
    let (world, port) = (World::new().await, Port::reserve());
    world.backend.behave(Behaviour::status(503));
    let lambda = port.lambda(&world).start().await.unwrap();
    for number in 0..5 {
        // Nobody waits for this answer. Killed before, within or after its being kept: the sender cannot know.
        let unanswered = port.begin("/v1/traces", PROTOBUF, false, &spans(number..number + 1)).await;
        if number % 2 == 0 {
            assert_eq!(status(unanswered).await, 200);
        }
        lambda.kill().await;
        invoke(&lambda, Invocation::new()).await;
        port.export(number..number + 1).await;
        port.export(number..number + 1).await;
    }
    world.backend.recover().await.unwrap();
    until_spans(&world, 5).await;
    leave(&lambda).await;
    assert_eq!(span_names(&world.backend), (0..5).map(|id| format!("span {id}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_span_that_the_backend_refuses_does_not_take_others_along() {
    let (world, port) = (World::new().await, Port::reserve());
    world.backend.behave(Behaviour::status(503));
    let lambda = port.lambda(&world).start().await.unwrap();
    port.export(0..50).await;
    let name = |id: u64| if id == 77 { "poison".to_owned() } else { format!("span {id}") };
    let poisoned = named_spans((50..120).map(|id| (id, name(id))));
    // In two resources, as a collector in between would send it.
    assert_eq!(port.post("/v1/traces", PROTOBUF, false, &[poisoned, spans(120..140)].concat()).await, 200);
    port.export(140..150).await;
    world.backend.behave(Behaviour::poisoned_by(|record| record.text == "poison"));
    until_spans(&world, 149).await;
    world.wait_for(|received| received.records().iter().any(is_report)).await;
    leave(&lambda).await;
    let expected = (0..150).filter(|id| *id != 77).map(|id| format!("span {id}"));
    assert_eq!(span_names(&world.backend), expected.collect::<Vec<_>>());
    let reports: Vec<_> = world.backend.records().into_iter().filter(is_report).collect();
    assert_eq!(reports.iter().map(count_of).sum::<u64>(), 1);
    assert_eq!(reports[0].attributes["outlast.dropped.signal"], "traces");
}

#[tokio::test]
async fn a_freeze_between_request_and_answer_costs_nothing() {
    let (world, port) = (World::new().await, Port::reserve());
    let lambda = port.lambda(&world).freeze(Freeze::After(ms(1))).start().await.unwrap();
    invoke(&lambda, Invocation::new()).await;
    within("the freeze", lambda.frozen()).await;
    // The kernel takes it; the extension is stopped.
    let waiting = port.begin("/v1/traces", PROTOBUF, false, &spans(0..3)).await;
    // Longer than the time a connection has for a body.
    tokio::time::sleep(ms(2_500)).await;
    let (answered, _) = tokio::join!(status(waiting), invoke(&lambda, Invocation::new().runs_for(ms(300))));
    assert_eq!(answered, 200);
    invoke(&lambda, Invocation::new().runs_for(ms(1_000))).await;
    until_spans(&world, 3).await;
    leave(&lambda).await;
    assert_eq!(span_names(&world.backend), ["span 0", "span 1", "span 2"]);
}

#[tokio::test]
async fn what_a_quiet_functions_sdk_exports_arrives_before_it_is_let_go() {
    let (world, port) = (World::new().await, Port::reserve());
    let lambda = port
        .lambda(&world)
        .freeze(Freeze::After(ms(1)))
        .env("OUTLAST_MAX_DELAY", "10ms")
        .env("OUTLAST_HOLD_MAX", "30s") // the delivery ends the hold, however busy the machine is
        .start()
        .await
        .unwrap();
    for number in 0..6 {
        let running = invoke(&lambda, Invocation::new().runs_for(ms(150)));
        let exporting = async {
            // As an SDK does that is flushed at the end of the handler.
            tokio::time::sleep(ms(50)).await;
            port.export(number..number + 1).await;
        };
        let (invoked, ()) = tokio::join!(running, exporting);
        let let_go = invoked.released + invoked.extensions.expect("it asked for the next event");
        let name = format!("span {number}");
        let records = world.backend.records();
        let record = records.iter().find(|record| record.text == name).expect("it is there");
        let request = &world.backend.requests()[usize::try_from(record.request).unwrap()];
        assert!(request.at < let_go, "{number}");
        within("the freeze", lambda.frozen()).await;
        // Longer than OUTLAST_MAX_DELAY. It passes with everything frozen, so there is nothing to wait for.
        tokio::time::sleep(ms(60)).await;
    }
    leave(&lambda).await;
}

#[tokio::test]
async fn what_came_last_is_flushed_at_shutdown() {
    let (world, port) = (World::new().await, Port::reserve());
    let lambda = port.lambda(&world).freeze(Freeze::After(ms(1))).start().await.unwrap();
    world.backend.behave(Behaviour::status(503));
    let (_, ()) = tokio::join!(invoke(&lambda, Invocation::new().runs_for(ms(200))), port.export(0..20));
    world.until_requests(1).await;
    world.backend.recover().await.unwrap();
    leave(&lambda).await;
    let names = (0..20).map(|id| format!("span {id}"));
    assert_each_once("spans", names, span_names(&world.backend));
    assert_eq!(lines_with(&lambda, " 0 left on disk, 0 dropped"), 1, "{:?}", output(&lambda));
}

#[tokio::test]
async fn resources_are_completed_if_that_is_asked_for() {
    let (world, port) = (World::new().await, Port::reserve());
    let lambda = port.lambda(&world).env("OUTLAST_OTLP_RECEIVER_RESOURCE", "complete").start().await.unwrap();
    port.export(0..1).await;
    until_spans(&world, 1).await;
    let records = world.backend.records();
    let span = records.iter().find(|record| is_theirs(record, Signal::Traces)).unwrap();
    assert_eq!(span.resource["faas.name"], "simulated-function");
    leave(&lambda).await;
}

#[tokio::test]
async fn a_port_that_is_taken_costs_the_receiver_only() {
    let (world, port) = (World::new().await, Port::reserve());
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let lambda = port.lambda(&world).env("OUTLAST_OTLP_RECEIVER", taken).start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(5)).await;
    world.until_delivered(&lambda).await;
    assert_eq!(lines_with(&lambda, "the OTLP receiver cannot listen on"), 1, "{:?}", output(&lambda));
    world.end(lambda).await;
}

/// The most resident memory the extension had so far, in KiB.
fn peak_kib(lambda: &Sandbox) -> u64 {
    let pid = lambda.process_ids()[0];
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// `content` as the value of a field with this tag.
fn nested(content: &[u8], tag: u8) -> Vec<u8> {
    let mut out = vec![tag];
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

/// What an attack may add to what the process takes anyway, so that all of it stays under 32 MiB. (The rest differs
/// with the build: a debug build maps far more of itself.)
const ATTACK_MAX_KIB: u64 = 24 << 10;

#[tokio::test]
async fn no_request_makes_it_take_much_memory() {
    let (world, port) = (World::new().await, Port::reserve());
    world.backend.behave(Behaviour::status(503));
    let lambda = port.lambda(&world).start().await.unwrap();
    port.export(0..100).await;
    let before = peak_kib(&lambda);
    let mut random = fastrand::Rng::with_seed(3);
    let noise: String = (0..4_000_000).map(|_| random.alphanumeric()).collect();
    let long_name = named_spans([(1_000, noise)].into_iter());
    let many = named_spans(
        (2_000..40_000_u64).map(|id| (id, format!("{:x}", id.wrapping_mul(0x9e37_79b9_7f4a_7c15)))),
    );
    let empty_records = [0x12_u8, 0].repeat(2_000_000);
    let records = nested(&nested(&empty_records, 0x12), 0x0a);
    let bounds = vec!["0"; 2_000_000].join(",");
    let widening = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"explicitBounds":[{bounds}]}}]}}}}]}}]}}]}}"#
    );
    let attacks = [
        ("/v1/traces", PROTOBUF, false, long_name),
        ("/v1/traces", PROTOBUF, true, gzip(&many)),
        ("/v1/traces", PROTOBUF, true, gzip(&vec![0; 64 << 20])),
        ("/v1/logs", JSON, true, gzip(&vec![b' '; 64 << 20])),
        ("/v1/traces", PROTOBUF, false, records),
        ("/v1/metrics", JSON, false, widening.into_bytes()),
        ("/v1/logs", JSON, false, vec![b'['; 4_000_000]),
    ];
    // One after another each gets as far as it can …
    let mut answers = Vec::new();
    for (path, kind, gzip, body) in &attacks {
        answers.push(port.post(path, kind, *gzip, body).await);
    }
    assert_eq!(answers, [200, 200, 413, 413, 413, 413, 400]);
    // … and all at once, most of them find no room.
    let port = Arc::new(port);
    for _ in 0..3 {
        let mut peers = JoinSet::new();
        for (path, kind, gzip, body) in &attacks {
            for _ in 0..4 {
                let (port, body) = (Arc::clone(&port), body.clone());
                let (path, kind, gzip) = (*path, *kind, *gzip);
                peers.spawn(async move { port.post(path, kind, gzip, &body).await });
            }
        }
        let answers = peers.join_all().await;
        assert!(answers.contains(&503), "{answers:?}");
    }
    let peak = peak_kib(&lambda);
    assert!(peak < before + ATTACK_MAX_KIB, "{before} KiB grew to {peak} KiB");
    world.backend.recover().await.unwrap();
    invoke(&lambda, Invocation::new().line("still here")).await;
    world.wait_for(|received| received.texts().contains(&"still here")).await;
    world.wait_for(|received| received.requests_with(&Verdict::Pending) == 0).await;
    let peak = peak_kib(&lambda);
    assert!(peak < before + ATTACK_MAX_KIB, "{before} KiB grew to {peak} KiB while it was sent");
    leave(&lambda).await;
}
