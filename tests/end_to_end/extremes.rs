//! What Lambda and functions do at their worst: stops at any moment, late events, floods, silence, clones.

use crate::engine::plan::Weather;
use crate::engine::play::Lines;
use crate::engine::stage::Stage;
use crate::random::assert_well;
use crate::support::{
    OUTLAST, World, balance, delivered, invoke, leave, left_on_disk, ms, output, times, within,
};
use outlast_backend::Behaviour;
use outlast_simulator::{Freeze, Invocation, Manner, ShutdownOptions, When};
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a function of 50 MB may make of the extension's memory, in KiB. A debug build takes a little more.
const FLOOD_RSS_MAX_KIB: u64 = 32 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn stops_at_random_moments_with_requests_in_flight_lose_nothing() {
    let seed = fastrand::u64(..1 << 40);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(Path::new(OUTLAST), dir.path());
    let request_timeout = ms(1_000);
    let builder = stage
        .builder()
        .env("OUTLAST_TIMEOUT", "1s")
        .env("OUTLAST_RETRY_MAX", "80ms")
        .env("OUTLAST_MAX_DELAY", "100ms")
        .timeout(Duration::from_secs(40));
    let environment = stage.start(builder, 64 << 20, request_timeout).await;
    let mut lines = Lines::new("stop", seed);
    let weathers = [
        Weather::Healthy,
        Weather::Slow(ms(30)),
        Weather::Trickle(ms(2)),
        Weather::ResetAfter { kept: true },
        Weather::Status(503),
        Weather::Hang { kept: false },
    ];
    for _ in 0..40 {
        if rng.u8(..3) == 0 {
            stage.weather(weathers[rng.usize(..weathers.len())], 0).await;
        }
        let invocation = lines.invocation(ms(40), rng.usize(1..30), 100);
        let after = Duration::from_micros(rng.u64(..60_000));
        // Most are short; those over a second are what the extension takes for a freeze.
        let length = ms(if rng.u8(..8) == 0 { 1_100 } else { rng.u64(..60) });
        tokio::join!(stage.invoke(&environment, invocation), async {
            tokio::time::sleep(after).await;
            let from = Instant::now();
            environment.lambda.pause();
            tokio::time::sleep(length).await;
            environment.lambda.resume();
            stage.disrupted(from);
        });
    }
    let balance = stage.settle(&environment, "stop", false).await;
    assert_well(&stage);
    assert_eq!((balance.missing, balance.dropped), (0, 0), "{balance:?}");
}

#[tokio::test]
async fn an_event_that_comes_late_costs_nothing() {
    let world = World::new().await;
    // The function is done, and its telemetry delivered, before the extension hears of the invocation.
    let lambda = world.lambda().freeze(Freeze::After(ms(1))).events_late_by(ms(80)).start().await.unwrap();
    for _ in 0..10 {
        invoke(&lambda, Invocation::new().runs_for(ms(5)).logs(10)).await;
    }
    leave(&lambda).await;
    let balance = balance(&[&lambda], &world.backend);
    assert_eq!(balance.repeated, 0);
    assert_eq!(lambda.acknowledged_lines().len(), 100);
}

#[tokio::test]
async fn an_end_that_is_never_told_does_not_stop_delivery() {
    let world = World::new().await;
    let lambda = world.lambda().env("OUTLAST_MAX_DELAY", "0ms").start().await.unwrap();
    lambda.telemetry(|telemetry| telemetry.runtime_done = false);
    for _ in 0..12 {
        invoke(&lambda, Invocation::new().runs_for(ms(5)).logs(10)).await;
    }
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 120);
    world.end(lambda).await;
}

fn records_between(line: &str, before: &str, behind: &str) -> Option<u64> {
    line.split_once(before)?.1.split_once(behind)?.0.parse().ok()
}

#[tokio::test]
async fn platform_events_out_of_order_twice_and_of_nobody_are_records_like_others() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    let request = "8f0d8f6a-0f3f-4b8e-9a38-000000000001";
    for _ in 0..2 {
        lambda.emit("platform.report", &json!({"requestId": request, "status": "success", "metrics": {}}));
        lambda.emit("platform.runtimeDone", &json!({"requestId": request, "status": "success"}));
        invoke(&lambda, Invocation::new().logs(3)).await;
        lambda.emit("platform.start", &json!({"requestId": request}));
        lambda.emit("platform.runtimeDone", &json!({"requestId": 17, "metrics": "none"}));
        lambda.emit(
            "platform.logsDropped",
            &json!({"droppedRecords": 3, "droppedBytes": 99, "reason": "test"}),
        );
        invoke(&lambda, Invocation::new().logs(3)).await;
    }
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    assert_eq!(balance(&[&lambda], &world.backend).repeated, 0);
    // At once, and the rest together.
    let told: u64 = output(&lambda)
        .iter()
        .filter_map(|line| records_between(line, "Lambda dropped ", " records ("))
        .sum();
    assert_eq!(told, 6, "{:?}", output(&lambda));
}

#[tokio::test]
async fn deliveries_byte_by_byte_and_a_megabyte_at_once_arrive_whole() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    lambda.telemetry(|telemetry| {
        telemetry.manner = Manner { pieces: Some((1, Duration::ZERO)), ..Manner::default() };
    });
    invoke(&lambda, Invocation::new().logs(20)).await;
    within("deliveries", lambda.settled()).await;
    lambda.telemetry(|telemetry| telemetry.manner = Manner::default());
    // One above what Lambda puts into a delivery, and one just below.
    for bytes in [(1 << 20) + 1, (1 << 20) - 200] {
        let line: String = "0123456789abcdef".chars().cycle().take(bytes).collect();
        invoke(&lambda, Invocation::new().line(line)).await;
        within("deliveries", lambda.settled()).await;
    }
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 22);
    world.end(lambda).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_logs_fifty_megabytes_is_delivered_within_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(Path::new(OUTLAST), dir.path());
    // Default settings, but for the pause between retries.
    let builder = stage.builder().freeze(Freeze::Off).timeout(Duration::from_secs(60));
    let environment = stage.start(builder, 64 << 20, Duration::from_secs(5)).await;
    let flood = Invocation::new().logs(10_000).padded(4_970).when(When::AtStart);
    stage.invoke(&environment, flood).await;
    within("deliveries", environment.lambda.settled()).await;
    let rss = stage.take_rss_max(&environment);
    println!("{rss} KiB resident");
    let balance = stage.settle(&environment, "flood", false).await;
    assert_well(&stage);
    assert!(balance.acknowledged > 10_000, "{balance:?}");
    assert_eq!((balance.missing, balance.dropped), (0, 0), "{balance:?}");
    assert!(rss > 0 && rss <= FLOOD_RSS_MAX_KIB, "{rss} KiB");
}

#[tokio::test]
async fn a_thousand_invocations_in_a_row_lose_nothing() {
    let world = World::new().await;
    let lambda = world.lambda().env("OUTLAST_MAX_DELAY", "10s").start().await.unwrap();
    let from = Instant::now();
    let mut after_the_function = 0;
    for _ in 0..1_000 {
        let invoked = invoke(&lambda, Invocation::new().logs(1)).await;
        after_the_function += u32::from(invoked.added > ms(20));
    }
    println!("{:?} in all, {after_the_function} of them let go later than 20 ms", from.elapsed());
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 1_000);
    world.end(lambda).await;
}

#[tokio::test]
async fn shutdown_with_what_lambda_leaves_at_worst_ends_in_time() {
    let world = World::new().await;
    // The runtime took its 600 ms of the two seconds.
    let options = ShutdownOptions { budget: ms(1_300), runtime_stops_in: ms(100) };
    let lambda = world.lambda().shutdown(options).start().await.unwrap();
    world.backend.behave(Behaviour::hang());
    invoke(&lambda, Invocation::new().logs(100)).await;
    leave(&lambda).await;
    assert!(left_on_disk(&lambda) > 100);
    world.backend.recover().await.unwrap();
    let next = world.aftermath().await;
    assert_eq!(balance(&[&lambda, &next], &world.backend).repeated, 0, "the backend had taken nothing");
}

#[tokio::test]
async fn two_environments_from_one_snapshot_share_their_past_and_nothing_else() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let published = world.lambda_of_logs().start().await.unwrap();
    invoke(&published, Invocation::new().logs(30)).await;
    within("deliveries", published.settled()).await;
    // The snapshot is taken of a disk in use.
    let copies = ["a", "b"].map(|name| world.queue().with_file_name(name));
    for copy in &copies {
        outlast_simulator::copy_directory(world.queue(), copy).unwrap();
    }
    let past = published.acknowledged_count();
    published.kill().await;
    world.backend.recover().await.unwrap();
    let mut expected = past;
    let body = br#"[{"time":"2026-01-02T03:04:05.678Z","type":"function","record":"the same in both"}]"#;
    for copy in &copies {
        let lambda = world.lambda_of_logs().env("OUTLAST_QUEUE_DIR", copy.display()).start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(20)).await;
        assert_eq!(lambda.inject(body).await.unwrap(), 200);
        within("deliveries", lambda.settled()).await;
        leave(&lambda).await;
        assert_eq!(left_on_disk(&lambda), 0, "{:?}", output(&lambda));
        expected += lambda.acknowledged_count() + 1;
    }
    let (told, repeated) = delivered(&world.backend);
    assert_eq!(
        (told.len(), repeated),
        (expected, past),
        "the past came twice, by its uid, and nothing else did"
    );
    assert_eq!(times(&world.backend)["the same in both"], 2);
    let mut by_uid: HashMap<String, Vec<String>> = HashMap::new();
    for record in world.backend.records() {
        by_uid.entry(record.uid.unwrap()).or_default().push(record.text);
    }
    assert!(by_uid.values().all(|texts| texts.iter().all(|text| *text == texts[0])), "one uid, one record");
}
