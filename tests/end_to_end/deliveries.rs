//! Telemetry deliveries as Lambda makes them on a bad day.

use crate::support::{
    World, acknowledged, delivered, eventually, invoke, leave, lines_with, ms, times, within,
};
use flate2::{Compression, write::GzEncoder};
use outlast_backend::Behaviour;
use outlast_simulator::{Cut, Invocation, Manner, OnFailure, Repeats, Sandbox};
use std::io::Write;

const HEAD: &str = r#"[{"time":"2026-01-02T03:04:05.678Z","type":"function","record":"#;

/// The deliveries that carry one record cut into these texts, as Lambda frames them.
fn cut(parts: &[&str]) -> Vec<Vec<u8>> {
    let frame = |part: &&str| format!("{HEAD}{part}}}]").into_bytes();
    parts.iter().map(frame).collect()
}

/// Waits until the index has been opened in so many processes. (The first delivery waits for that a little, but a machine
/// can be busier than that.)
async fn until_index_is_open(lambda: &Sandbox, processes: usize) {
    let opened = |lambda: &Sandbox| (lines_with(lambda, "index: open") >= processes).then_some(());
    within("the index to open", lambda.until(opened)).await;
}

/// Waits until the index has the delivery on disk.
async fn until_noted(world: &World, body: &[u8]) {
    let hash = xxhash_rust::xxh3::xxh3_128(body).to_le_bytes();
    let index = world.queue().join("index/db");
    let noted = || std::fs::read(&index).is_ok_and(|db| db.windows(hash.len()).any(|at| at == hash));
    eventually("the index to have it", noted).await;
}

#[tokio::test]
async fn deliveries_that_lambda_repeats_are_taken_once() {
    for repeats in [Repeats::AfterAnswer(2), Repeats::AnswerLost(1), Repeats::AnswerLost(3)] {
        let world = World::new().await;
        let lambda = world.lambda().start().await.unwrap();
        lambda.telemetry(|telemetry| telemetry.repeats = repeats);
        for _ in 0..5 {
            invoke(&lambda, Invocation::new().logs(20)).await;
            within("deliveries", lambda.settled()).await;
        }
        world.until_delivered(&lambda).await;
        // At the end an answer that is lost would leave Lambda not knowing of a record that was delivered.
        lambda.telemetry(|telemetry| telemetry.repeats = Repeats::Never);
        world.end(lambda).await;
    }
}

#[tokio::test]
async fn a_delivery_that_still_waits_is_known_after_a_sigkill() {
    let world = World::new().await;
    let lambda = world.lambda().env("OUTLAST_LOG", "debug").start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(5)).await;
    world.until_delivered(&lambda).await;
    // It is begun when there is something to note.
    eventually("the index", || world.queue().join("index/db").exists()).await;
    world.backend.behave(Behaviour::status(503));
    let body = format!(r#"{HEAD}"told twice"}},{}"#, &HEAD[1..]) + r#""and its neighbour"}]"#;
    assert_eq!(lambda.inject(body.as_bytes()).await.unwrap(), 200);
    // The second process knows it from the newest segments, later ones from the index.
    for restarts in 1..=3 {
        lambda.kill().await;
        invoke(&lambda, Invocation::new().logs(5)).await;
        until_index_is_open(&lambda, restarts).await;
        assert_eq!(lambda.inject(body.as_bytes()).await.unwrap(), 200);
        until_noted(&world, body.as_bytes()).await;
    }
    world.backend.recover().await.unwrap();
    invoke(&lambda, Invocation::new().line("the end")).await;
    world.until_delivered(&lambda).await;
    world.wait_for(|received| received.texts().contains(&"the end")).await;
    leave(&lambda).await;
    let times = times(&world.backend);
    assert_eq!(times["told twice"], 1);
    assert_eq!(times["and its neighbour"], 1);
}

#[tokio::test]
async fn a_delivery_that_is_delivered_and_gone_is_known_after_a_sigkill() {
    let world = World::new().await;
    let lambda = world.lambda().env("OUTLAST_LOG", "debug").start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(5)).await;
    let body = format!(r#"{HEAD}"told twice"}}]"#);
    assert_eq!(lambda.inject(body.as_bytes()).await.unwrap(), 200);
    // The second process knows it from the segments, which go when they are delivered; the third from the index.
    eventually("the index", || world.queue().join("index/db").exists()).await;
    for restarts in 1..=2 {
        lambda.kill().await;
        for _ in 0..2 {
            invoke(&lambda, Invocation::new().logs(5)).await;
            world.until_delivered(&lambda).await;
        }
        until_index_is_open(&lambda, restarts).await;
        assert_eq!(lambda.inject(body.as_bytes()).await.unwrap(), 200);
        until_noted(&world, body.as_bytes()).await;
    }
    leave(&lambda).await;
    assert_eq!(times(&world.backend)["told twice"], 1);
}

#[tokio::test]
async fn slow_and_piecemeal_deliveries_arrive_whole() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    for manner in [
        Manner { pieces: Some((700, ms(1))), ..Manner::default() },
        Manner { read_after: ms(60), ..Manner::default() },
        Manner { close_each: true, ..Manner::default() },
    ] {
        lambda.telemetry(|telemetry| telemetry.manner = manner);
        for _ in 0..2 {
            invoke(&lambda, Invocation::new().logs(50)).await;
            within("deliveries", lambda.settled()).await;
        }
    }
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
}

#[tokio::test]
async fn a_dropping_lambda_is_believed() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    lambda.telemetry(|telemetry| {
        telemetry.on_failure = OnFailure::Drop;
        telemetry.waiting_max_bytes = 20_000;
    });
    invoke(&lambda, Invocation::new().logs(2_000).when(outlast_simulator::When::AtStart)).await;
    world.until_delivered(&lambda).await;
    let dropped = lambda.dropped();
    assert!(dropped > 0, "the burst was too much");
    assert!(lines_with(&lambda, "Lambda dropped") > 0);
    world.end(lambda).await;
}

#[tokio::test]
async fn records_cut_in_two_and_more_parts_are_joined() {
    for after_others in [false, true] {
        let world = World::new().await;
        let lambda = world.lambda().start().await.unwrap();
        lambda.telemetry(|telemetry| {
            telemetry.cut = Cut::Over(1_000);
            telemetry.cut_after_others = after_others;
        });
        let awkward = "é\"\\\u{1F980}}]{\"time\":\"x\"\t".repeat(10_000);
        for length in [300, 1_300, 2_700, 9_999] {
            let text: String = awkward.chars().take(length).collect();
            let invocation = Invocation::new().line("before").line(text).line("after").logs(5);
            invoke(&lambda, invocation).await;
            within("deliveries", lambda.settled()).await;
        }
        world.until_delivered(&lambda).await;
        world.end(lambda).await;
    }
}

#[tokio::test]
async fn parts_of_a_record_are_joined_across_a_sigkill() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    let parts = cut(&[r#""first, "#, "second, ", r#"third""#]);
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            lambda.kill().await;
            invoke(&lambda, Invocation::new().line("between")).await;
            within("deliveries", lambda.settled()).await;
        }
        assert_eq!(lambda.inject(part).await.unwrap(), 200);
    }
    world.wait_for(|received| received.texts().contains(&"first, second, third")).await;
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    assert_eq!(times(&world.backend)["first, second, third"], 1);
    let (got, repeated) = delivered(&world.backend);
    assert_eq!((got.len(), repeated), (acknowledged(&[&lambda]).len() + 1, 0), "and no part of it besides");
}

#[tokio::test]
async fn half_a_record_whose_rest_never_comes_is_kept_as_it_is() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(5)).await;
    assert_eq!(lambda.inject(&cut(&[r#""the first half"#])[0]).await.unwrap(), 200);
    invoke(&lambda, Invocation::new().logs(5)).await;
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    let halves: Vec<_> = world
        .backend
        .records()
        .into_iter()
        .filter(|record| record.attributes.contains_key("outlast.cut"))
        .collect();
    assert_eq!(halves.len(), 1);
    assert!(halves[0].text.contains("the first half"), "{:?}", halves[0]);
    assert_eq!(world.reported(), 0);
}

#[tokio::test]
async fn half_a_record_outlives_its_process() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    assert_eq!(lambda.inject(&cut(&[r#""the first half"#])[0]).await.unwrap(), 200);
    lambda.kill().await;
    invoke(&lambda, Invocation::new().logs(5)).await;
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    let cut = |record: &&outlast_backend::Record| record.attributes.contains_key("outlast.cut");
    assert_eq!(world.backend.records().iter().filter(cut).count(), 1);
}

#[tokio::test]
async fn what_is_not_telemetry_is_counted_and_answered() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(5)).await;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(format!(r#"{HEAD}"compressed"}}]"#).as_bytes()).unwrap();
    let garbage: [&[u8]; 5] =
        [b"not json at all", b"{\"an\":\"object\"}", &gzip.finish().unwrap(), b"", b"17"];
    for body in garbage {
        assert_eq!(lambda.inject(body).await.unwrap(), 200, "Lambda would send it again without end");
    }
    assert_eq!(lambda.inject(garbage[0]).await.unwrap(), 200, "a repeat is not counted again");
    assert_eq!(lambda.inject(b"[]").await.unwrap(), 200);
    assert_eq!(lambda.inject(b" [ ] ").await.unwrap(), 200);
    invoke(&lambda, Invocation::new().logs(5)).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    assert_eq!(world.reported_for("unreadable"), garbage.len() as u64);
    assert_eq!(world.reported(), garbage.len() as u64);
}

#[tokio::test]
async fn half_of_a_json_body_becomes_a_record() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    let body = format!(r#"{HEAD}"whole"}},{}"half"#, &HEAD[1..]);
    assert_eq!(lambda.inject(body.as_bytes()).await.unwrap(), 200);
    world.wait_for(|received| received.texts().iter().any(|text| text.contains("half"))).await;
    leave(&lambda).await;
    assert_eq!(times(&world.backend)["whole"], 1);
    let half = world.backend.records().into_iter().find(|record| record.text.contains("half")).unwrap();
    assert_eq!(half.attributes["outlast.cut"], true);
    assert_eq!(world.reported(), 0);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_and_costs_nothing_else() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    let long = format!(r#"{HEAD}"{}"}}]"#, "x".repeat(9 << 20));
    assert_eq!(lambda.inject(long.as_bytes()).await.unwrap(), 413);
    let just_right = format!(r#"{HEAD}"{}"}}]"#, "x".repeat(7 << 20));
    assert_eq!(lambda.inject(just_right.as_bytes()).await.unwrap(), 200);
    invoke(&lambda, Invocation::new().logs(5)).await;
    world.wait_for(|received| received.texts().iter().any(|text| text.len() == 7 << 20)).await;
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    assert_eq!(world.reported(), 0);
}
