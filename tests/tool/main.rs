//! `outlast-tool` on what the real extension left behind: `cargo test --features tool --test tool`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking
#![allow(clippy::disallowed_methods)] // the world around the tool keeps real time
#![allow(dead_code)] // what it shares with the end-to-end tests

#[path = "../end_to_end/account.rs"]
mod account;
#[path = "../end_to_end/support.rs"]
mod support;

use outlast_backend::moto::Moto;
use outlast_backend::{Backend, Behaviour, Decode, Door, Record, Signal};
use outlast_simulator::{Invocation, Sandbox};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::Output;
use support::{World, invoke, is_report, leave, left_on_disk, within};
use tokio::process::Command;

fn tool(backend: &Backend, directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast-tool"));
    command
        .env_clear()
        .env("OUTLAST_ENDPOINT", backend.url())
        .env("OUTLAST_RETRY_INITIAL", "10ms")
        .env("OUTLAST_RETRY_MAX", "50ms")
        .current_dir(directory);
    command
}

async fn run(command: &mut Command) -> (bool, String, String) {
    let Output { status, stdout, stderr } = within("the tool", command.output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

/// An environment that lived through an outage and has left everything on disk.
async fn outage(world: &World) -> Sandbox {
    world.backend.set_door(Door::Refused).await.unwrap();
    let lambda = world.lambda_of_logs().start().await.unwrap();
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().logs(40)).await;
    }
    within("deliveries", lambda.settled()).await;
    lambda
}

/// What the files in a directory hold.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|f| (f.file_name().into_string().unwrap(), std::fs::read(f.path()).unwrap())).collect()
}

fn uids(records: &[Record]) -> Vec<String> {
    let logs = records.iter().filter(|record| record.signal == Signal::Logs && !is_report(record));
    logs.map(|record| record.uid.clone().unwrap()).collect()
}

/// Everything that was acknowledged, each once.
fn assert_each_once(records: &[Record], lambda: &Sandbox) {
    let uids = uids(records);
    assert_eq!(uids.iter().collect::<HashSet<_>>().len(), uids.len(), "none twice");
    assert_eq!(uids.len(), lambda.acknowledged_count());
}

#[tokio::test]
async fn a_rescued_directory_is_told_of_and_replayed_without_being_changed() {
    let world = World::new().await;
    let lambda = outage(&world).await;
    lambda.kill().await;
    let queue = world.queue();
    let before = contents(&queue);
    let destination = Backend::start().await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let (ok, told, problems) =
        run(tool(&destination, elsewhere.path()).arg("inspect").arg(&queue).arg("--blocks")).await;
    assert!(ok, "{problems}");
    let logs = told.lines().find(|line| line.starts_with("logs")).unwrap();
    let words: Vec<&str> = logs.split_whitespace().collect();
    assert_eq!(words[2], lambda.acknowledged_count().to_string(), "{told}");
    assert_eq!(
        told.lines().filter(|line| line.contains(" logs ") && line.contains(" waits ")).count().to_string(),
        words[1]
    );

    // It is away after the first request: what was sent is known the next time.
    let replay = || {
        let mut command = tool(&destination, elsewhere.path());
        command.arg("replay").arg(&queue).env("OUTLAST_BATCH_MAX_BYTES", "8KiB");
        command
    };
    destination.behave(Behaviour::status(503));
    destination.next(Behaviour::healthy());
    let (ok, _, problems) = run(&mut replay()).await;
    assert!(!ok && problems.contains("run this again"), "{problems}");
    let first = destination.records().len();
    assert!(first > 0 && first < lambda.acknowledged_count());
    // One record is refused for good; it takes no other along.
    let poisoned = |record: &Record| record.uid.as_deref().is_some_and(|uid| uid.ends_with("-5"));
    destination.behave(Behaviour::poisoned_by(poisoned));
    let (ok, told, problems) = run(&mut replay()).await;
    assert!(ok, "{problems}");
    let refused = problems.matches("is refused").count();
    assert!(refused > 0 && told.contains(&format!("{refused} refused")), "{told} {problems}");
    let uids = uids(&destination.records());
    assert_eq!(uids.iter().collect::<HashSet<_>>().len(), uids.len(), "none twice");
    assert_eq!(uids.len() + refused, lambda.acknowledged_count());

    let requests = destination.requests().len();
    let (ok, told, _) = run(&mut replay()).await;
    assert!(ok && told.starts_with("0 records"), "{told}");
    assert_eq!(destination.requests().len(), requests, "nothing goes twice");
    assert!(contents(&queue) == before, "the directory is as it was");
    assert_eq!(world.backend.requests().len(), 0);
}

#[tokio::test]
async fn a_directory_in_use_is_told_of_and_goes_on_as_if_nobody_had_looked() {
    let world = World::new().await;
    let lambda = outage(&world).await;
    let elsewhere = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let (ok, told, problems) =
            run(tool(&world.backend, elsewhere.path()).arg("inspect").arg(world.queue())).await;
        assert!(ok && told.contains("oldest received"), "{told} {problems}");
        invoke(&lambda, Invocation::new().logs(5)).await;
    }
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    assert_eq!(left_on_disk(&lambda), 0);
    assert_each_once(&world.backend.records(), &lambda);
}

#[tokio::test]
async fn what_was_received_at_another_time_is_left_out() {
    let world = World::new().await;
    let lambda = outage(&world).await;
    leave(&lambda).await;
    let destination = Backend::start().await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let replay = |option: &'static str, progress: &'static str| {
        let mut command = tool(&destination, elsewhere.path());
        command.arg("replay").arg(world.queue()).args([
            option,
            "2020-01-01T00:00:00Z",
            "--progress",
            progress,
        ]);
        command
    };
    let (ok, told, problems) = run(&mut replay("--until", "a")).await;
    assert!(ok && told.starts_with("0 records"), "{told} {problems}");
    assert_eq!(destination.requests().len(), 0);
    let (ok, _, problems) = run(&mut replay("--since", "a")).await;
    assert!(!ok && problems.contains("progress of another replay"), "{problems}");
    let (ok, _, problems) = run(&mut replay("--since", "b")).await;
    assert!(ok, "{problems}");
    // What one backend has says nothing of another, whatever the file's name.
    let other = Backend::start().await.unwrap();
    let mut again = tool(&other, elsewhere.path());
    again.arg("replay").arg(world.queue()).args(["--since", "2020-01-01T00:00:00Z", "--progress", "b"]);
    let (ok, _, problems) = run(&mut again).await;
    assert!(!ok && problems.contains("progress of another replay"), "{problems}");
    assert_each_once(&destination.records(), &lambda);
}

#[tokio::test]
async fn what_the_fallback_wrote_into_a_bucket_is_replayed_each_record_once() {
    let test = "what_the_fallback_wrote_into_a_bucket_is_replayed_each_record_once";
    let region = "eu-west-1";
    let Some(moto) = Moto::start_or_skip(test, "telemetry-bucket", "logs/prod", region).await.unwrap() else {
        return;
    };
    let world = World::new().await;
    world.backend.set_door(Door::Refused).await.unwrap();
    let lambda = world
        .lambda_of_logs()
        .env("OUTLAST_FALLBACK", "s3://telemetry-bucket/logs/prod")
        .env("AWS_ENDPOINT_URL_S3", &moto.endpoint)
        .env("AWS_REGION", region)
        .env("AWS_ACCESS_KEY_ID", &moto.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &moto.secret_access_key)
        .env("AWS_SESSION_TOKEN", "")
        .start()
        .await
        .unwrap();
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().logs(40)).await;
    }
    within("deliveries", lambda.settled()).await;
    leave(&lambda).await;
    assert_eq!(left_on_disk(&lambda), 0);

    let destination = Backend::builder().decode(Decode::BeforeAnswer).start().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let replay = |more: &[&str]| {
        let mut command = tool(&destination, elsewhere.path());
        command.args(["replay", "s3://telemetry-bucket/logs/prod"]).args(more);
        command
            .env("AWS_ENDPOINT_URL", &moto.endpoint)
            .env("AWS_REGION", region)
            .env("AWS_ACCESS_KEY_ID", &moto.reader.0)
            .env("AWS_SECRET_ACCESS_KEY", &moto.reader.1);
        command
    };
    let (ok, told, problems) = run(&mut replay(&["--function", "another", "--progress", "none"])).await;
    assert!(ok && told.starts_with("0 records"), "{told} {problems}");
    destination.behave(Behaviour::too_large_above_plain(6_000));
    let (ok, told, problems) = run(&mut replay(&[])).await;
    assert!(ok, "{told} {problems}");
    assert_each_once(&destination.records(), &lambda);
    let requests = destination.requests().len();
    let (ok, told, _) = run(&mut replay(&[])).await;
    assert!(ok && told.starts_with("0 records"), "{told}");
    assert_eq!(destination.requests().len(), requests, "nothing goes twice");
}

#[tokio::test]
async fn what_cannot_be_done_is_told_in_words() {
    let backend = Backend::start().await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    for (arguments, told) in [
        (&["inspect", "/nonexistent"] as &[&str], "No such file"),
        (&["inspect"], "which directory"),
        (&["replay", "/nonexistent"], "No such file"),
        (&["replay", "s3://bucket/x"], "AWS_ACCESS_KEY_ID is not set"),
        (&["explode"], "no command"),
    ] {
        let (ok, _, problems) = run(tool(&backend, elsewhere.path()).args(arguments)).await;
        assert!(!ok && problems.contains(told), "{arguments:?}: {problems}");
    }
    let mut extension = Command::new(env!("CARGO_BIN_EXE_outlast"));
    let (ok, _, problems) = run(extension.env_clear().args(["inspect", "/tmp/outlast"])).await;
    assert!(!ok && problems.contains("outlast-tool"), "{problems}");
}
