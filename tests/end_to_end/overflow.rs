//! More than the disk may hold: what goes is counted to the record.

use crate::support::{
    Told, World, acknowledged, delivered, invoke, is_report, leave, left_on_disk, lines_with, output, within,
};
use outlast_backend::Behaviour;
use outlast_simulator::{Invocation, Sandbox};
use std::time::Duration;

/// An invocation of lines that do not compress: some 200 KB on disk.
pub(crate) fn heavy(number: u64) -> Invocation {
    let mut random = fastrand::Rng::with_seed(number);
    (0..250).fold(Invocation::new(), |invocation, line| {
        let noise: String = std::iter::repeat_with(|| random.alphanumeric()).take(1_000).collect();
        invocation.line(format!("{number} {line} {noise}"))
    })
}

async fn overflow(world: &World, policy: &str) -> Sandbox {
    overflow_of(world, policy, heavy).await
}

async fn overflow_of(world: &World, policy: &str, invocation: fn(u64) -> Invocation) -> Sandbox {
    world.backend.behave(Behaviour::status(503));
    let lambda = world
        .lambda()
        .env("OUTLAST_QUEUE_MAX_BYTES", "1MiB")
        .env("OUTLAST_OVERFLOW", policy)
        .start()
        .await
        .unwrap();
    for number in 0..12 {
        invoke(&lambda, invocation(number)).await;
        within("deliveries", lambda.settled()).await;
    }
    lambda
}

/// As [`heavy`], in words of a logger: nearly all of it is INFO, and two lines are errors.
fn heavy_with_errors(number: u64) -> Invocation {
    heavy_with(number, |line| if line % 125 == 60 { "ERROR" } else { "INFO" })
}

/// As [`heavy`], and lines of all levels take turns.
fn heavy_of_all_levels(number: u64) -> Invocation {
    heavy_with(number, |line| ["ERROR", "INFO", "DEBUG", "WARN", "INFO", "DEBUG", "INFO"][line % 7])
}

fn heavy_with(number: u64, level: impl Fn(usize) -> &'static str) -> Invocation {
    let mut random = fastrand::Rng::with_seed(number);
    (0..250).fold(Invocation::new(), |invocation, line| {
        let level = level(line);
        let noise: String = std::iter::repeat_with(|| random.alphanumeric()).take(1_000).collect();
        invocation.line(format!("[{level}] {number} {line} {noise}"))
    })
}

/// What was acknowledged is delivered, or in the drop reports: exactly.
fn assert_accounted(world: &World, lambda: &Sandbox) -> (Vec<Told>, Vec<Told>) {
    assert_eq!(left_on_disk(lambda), 0, "{:?}", output(lambda));
    let expected = acknowledged(&[lambda]);
    let (got, repeated) = delivered(&world.backend);
    assert_eq!(repeated, 0);
    let mut rest = expected.iter();
    for told in &got {
        assert!(rest.any(|other| other == told), "out of order: {told:?}");
    }
    assert_eq!(got.len() as u64 + world.reported(), expected.len() as u64, "{:?}", output(lambda));
    assert!(world.reported() > 500, "{}", world.reported());
    (expected, got)
}

#[tokio::test]
async fn the_oldest_make_room() {
    let world = World::new().await;
    let lambda = overflow(&world, "drop-oldest").await;
    world.backend.recover().await.unwrap();
    world.wait_for(|received| received.records().iter().any(is_report)).await;
    leave(&lambda).await;
    let (expected, got) = assert_accounted(&world, &lambda);
    assert_eq!(expected.last(), got.last(), "the newest are there");
    assert_ne!(expected.first(), got.first());
    assert_eq!(world.reported_for("overflow_oldest"), world.reported());
    assert!(lines_with(&lambda, "queue full") > 0);
}

#[tokio::test]
async fn the_newest_are_turned_away() {
    let world = World::new().await;
    let lambda = overflow(&world, "drop-newest").await;
    world.backend.recover().await.unwrap();
    world.wait_for(|received| received.records().iter().any(is_report)).await;
    leave(&lambda).await;
    let (expected, got) = assert_accounted(&world, &lambda);
    assert_eq!(expected.first(), got.first(), "the oldest are there");
    assert_eq!(world.reported_for("overflow_newest"), world.reported());
}

/// The numbers that lines with `text` speak of, in order.
fn told_of(lambda: &Sandbox, text: &str) -> Vec<u64> {
    let lines = output(lambda).into_iter().filter(|line| line.contains(text));
    lines.map(|line| line.split(' ').find_map(|word| word.parse().ok()).unwrap()).collect()
}

#[tokio::test]
async fn a_full_queue_that_hears_its_own_lines_does_not_feed_itself() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let lambda = world
        .lambda()
        .env("OUTLAST_QUEUE_MAX_BYTES", "1MiB")
        .env("OUTLAST_OVERFLOW", "drop-newest")
        .env("OUTLAST_TELEMETRY", "platform,function,extension")
        .start()
        .await
        .unwrap();
    for number in 0..12 {
        invoke(&lambda, heavy(number)).await;
        within("deliveries", lambda.settled()).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    invoke(&lambda, heavy(12)).await;
    within("deliveries", lambda.settled()).await;
    let lines = told_of(&lambda, "new records dropped").len();
    assert!((1..=2).contains(&lines), "{:?}", output(&lambda));
    leave(&lambda).await;
    let told: u64 = told_of(&lambda, "new records dropped").iter().sum();
    let last = output(&lambda).into_iter().find(|line| line.contains("shutdown: ")).unwrap();
    assert!(last.contains(&format!(" {told} dropped")), "{told} were told: {last}");
}

#[tokio::test]
async fn the_least_severe_make_room() {
    least_severe_make_room(heavy_with_errors, 26).await;
}

#[tokio::test]
async fn the_least_severe_make_room_where_levels_mix() {
    least_severe_make_room(heavy_of_all_levels, 13 * 36).await;
}

async fn least_severe_make_room(heavy: fn(u64) -> Invocation, errors_sent: usize) {
    let world = World::new().await;
    let lambda = overflow_of(&world, "shed", heavy).await;
    lambda.kill().await;
    invoke(&lambda, heavy(100)).await;
    within("deliveries", lambda.settled()).await;
    world.backend.recover().await.unwrap();
    world.wait_for(|received| received.records().iter().any(is_report)).await;
    leave(&lambda).await;
    let (expected, got) = assert_accounted(&world, &lambda);
    let errors = |told: &[Told]| -> Vec<String> {
        let texts = told.iter().filter_map(|told| told.body.as_str());
        texts.filter(|text| text.starts_with("[ERROR]")).map(str::to_owned).collect()
    };
    assert_eq!(errors(&expected).len(), errors_sent);
    assert_eq!(errors(&expected), errors(&got), "no error goes while anything else is left");
    assert_eq!(world.reported_for("overflow_shed"), world.reported());
    assert!(lines_with(&lambda, "least severe") > 0);
}

#[tokio::test]
async fn counts_outlive_a_sigkill() {
    let world = World::new().await;
    let lambda = overflow(&world, "drop-oldest").await;
    lambda.kill().await;
    invoke(&lambda, heavy(100)).await;
    within("deliveries", lambda.settled()).await;
    world.backend.recover().await.unwrap();
    world.wait_for(|received| received.records().iter().any(is_report)).await;
    leave(&lambda).await;
    assert_accounted(&world, &lambda);
}

#[tokio::test]
async fn the_disk_budget_is_kept_to() {
    let world = World::new().await;
    let lambda = overflow(&world, "drop-oldest").await;
    let size = size_of(&world.queue());
    assert!(size <= 1 << 20, "{size} bytes on disk");
    leave(&lambda).await;
}

/// Bytes of the files below `directory`, which may be changing.
pub(crate) fn size_of(directory: &std::path::Path) -> u64 {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { size_of(&path) } else { std::fs::metadata(path).map_or(0, |file| file.len()) }
        })
        .sum()
}
