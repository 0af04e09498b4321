//! `outlast-tool` on what the real extension left behind: `cargo test --features tool --test tool`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking
#![allow(clippy::disallowed_methods)] // the world around the tool keeps real time
#![allow(dead_code)] // what it shares with the end-to-end tests

#[path = "../end_to_end/account.rs"]
mod account;
#[path = "../end_to_end/support.rs"]
mod support;

use outlast_backend::bucket::Bucket;
use outlast_backend::moto::Moto;
use outlast_backend::{Backend, Behaviour, Condition, Decode, Dialect, Door, Record, Signal};
use outlast_simulator::{Builder, Invocation, Sandbox};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};
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
    assert!(!ok && problems.contains("not everything was sent"), "{problems}");
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

// === Every destination

/// How a backend that speaks `dialect` is named to the tool.
fn tool_speaking(dialect: Dialect, destination: &Backend, directory: &Path) -> Command {
    let mut command = tool(destination, directory);
    command.env("OUTLAST_PROTOCOL", dialect.name());
    if let Some((name, scheme)) = dialect.credentials() {
        command.env("OUTLAST_HEADERS", format!("{name}={scheme}key"));
    }
    command
}

const BUCKET: &str = "s3://telemetry/some/prefix";

fn with_bucket(builder: Builder, bucket: &Bucket) -> Builder {
    builder.env("OUTLAST_FALLBACK", BUCKET).env("AWS_ENDPOINT_URL_S3", bucket.url())
}

fn reading<'c>(command: &'c mut Command, bucket: &Bucket) -> &'c mut Command {
    command
        .env("AWS_ENDPOINT_URL_S3", bucket.url())
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ACCESS_KEY_ID", "simulated")
        .env("AWS_SECRET_ACCESS_KEY", "simulated")
}

/// An environment whose backend is away all the time, to its end.
async fn lost(builder: Builder, invocations: usize) -> Sandbox {
    let lambda = builder.start().await.unwrap();
    for _ in 0..invocations {
        invoke(&lambda, Invocation::new().logs(40)).await;
    }
    within("deliveries", lambda.settled()).await;
    leave(&lambda).await;
    lambda
}

/// What was written for one destination is replayed to it, whole and in pieces.
async fn is_replayed(dialect: Dialect, bucket: Option<&Bucket>) {
    let world = World::speaking(dialect).await;
    world.backend.set_door(Door::Refused).await.unwrap();
    let lambda = if let Some(bucket) = bucket {
        lost(with_bucket(world.lambda(), bucket), 4).await
    } else {
        let lambda = world.lambda().start().await.unwrap();
        for _ in 0..4 {
            invoke(&lambda, Invocation::new().logs(40)).await;
        }
        within("deliveries", lambda.settled()).await;
        lambda.kill().await;
        lambda
    };
    let elsewhere = tempfile::tempdir().unwrap();
    for (progress, limit) in [("whole", usize::MAX), ("pieces", 6_000)] {
        let destination = Backend::builder().dialect(dialect).start().unwrap();
        destination.behave(Behaviour::too_large_above_plain(limit));
        let mut command = tool_speaking(dialect, &destination, elsewhere.path());
        command.arg("replay").args(["--progress", progress]);
        match bucket {
            Some(bucket) => reading(&mut command, bucket).arg(BUCKET),
            None => command.arg(world.queue()),
        };
        let (ok, told, problems) = run(&mut command).await;
        assert!(ok, "{dialect:?} {progress}: {told} {problems}");
        assert_each_once(&destination.records(), &lambda);
        let objects = bucket.map(|bucket| bucket.objects().len());
        assert!(limit < usize::MAX || objects.is_none_or(|count| count == destination.requests().len()));
    }
}

#[tokio::test]
async fn a_bucket_is_replayed_to_every_destination() {
    for dialect in Dialect::ALL {
        let bucket = Bucket::start().await.unwrap();
        is_replayed(dialect, Some(&bucket)).await;
        let paths = bucket.objects();
        let named = format!(".{}.", dialect.name());
        assert!(!paths.is_empty() && paths.keys().all(|path| path.contains(&named)), "{:?}", paths.keys());
    }
}

#[tokio::test]
async fn a_directory_is_replayed_to_every_destination() {
    for dialect in Dialect::ALL {
        is_replayed(dialect, None).await;
    }
}

#[tokio::test]
async fn what_a_bucket_holds_for_another_protocol_is_named_and_nothing_is_sent() {
    let bucket = Bucket::start().await.unwrap();
    let world = World::speaking(Dialect::Ndjson).await;
    world.backend.set_door(Door::Refused).await.unwrap();
    lost(with_bucket(world.lambda(), &bucket), 1).await;
    let destination = Backend::builder().dialect(Dialect::SplunkHec).start().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = tool_speaking(Dialect::SplunkHec, &destination, elsewhere.path());
    let (ok, _, problems) = run(reading(command.args(["replay", BUCKET]), &bucket)).await;
    assert!(!ok && problems.contains("set OUTLAST_PROTOCOL=ndjson"), "{problems}");
    assert_eq!(destination.requests().len(), 0);
}

// === Another protocol than it was kept for

/// A replay of a directory, or of a bucket, to a destination that speaks `dialect`.
async fn replayed_to(
    dialect: Dialect,
    source: &Source,
    behaviour: Behaviour,
) -> (Backend, bool, String, String) {
    let destination = Backend::builder().dialect(dialect).start().unwrap();
    destination.behave(behaviour);
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = tool_speaking(dialect, &destination, elsewhere.path());
    command.arg("replay");
    match source {
        Source::Bucket(bucket) => reading(&mut command, bucket).arg(BUCKET),
        Source::Directory(world) => command.arg(world.queue()),
    };
    let (ok, told, problems) = run(&mut command).await;
    destination.received(|received| assert_eq!(received.defects(), Vec::<&str>::new(), "{dialect:?}"));
    (destination, ok, told, problems)
}

/// Where something was kept.
enum Source {
    Bucket(Bucket),
    Directory(World),
}

/// What an environment left in a directory, and what one handed to a bucket.
async fn kept_for(
    dialect: Dialect,
    signals: &str,
    invocations: usize,
    lines: usize,
) -> Vec<(Source, Sandbox)> {
    let mut kept = Vec::new();
    for is_bucket in [false, true] {
        let world =
            if dialect == Dialect::Otlp { World::new().await } else { World::speaking(dialect).await };
        let bucket = Bucket::start().await.unwrap();
        world.backend.set_door(Door::Refused).await.unwrap();
        let mut builder = world.lambda().env("OUTLAST_SIGNALS", signals).env("OUTLAST_SELF_METRICS", "off");
        if is_bucket {
            builder = with_bucket(builder, &bucket);
        }
        let lambda = builder.start().await.unwrap();
        for _ in 0..invocations {
            invoke(&lambda, Invocation::new().logs(lines)).await;
        }
        within("deliveries", lambda.settled()).await;
        if is_bucket {
            leave(&lambda).await;
            kept.push((Source::Bucket(bucket), lambda));
        } else {
            lambda.kill().await;
            kept.push((Source::Directory(world), lambda));
        }
    }
    kept
}

#[tokio::test]
async fn what_was_kept_for_otlp_is_replayed_to_every_other_destination() {
    for from in [Dialect::Otlp, Dialect::OtlpJson] {
        for (source, lambda) in kept_for(from, "logs", 4, 40).await {
            for to in Dialect::ALL.into_iter().filter(|to| *to != from) {
                for limit in [usize::MAX, 6_000] {
                    let behaviour = Behaviour::too_large_above_plain(limit);
                    let (destination, ok, told, problems) = replayed_to(to, &source, behaviour).await;
                    assert!(ok, "{from:?} {to:?}: {told} {problems}");
                    assert_each_once(&destination.records(), &lambda);
                    let lines = lambda.acknowledged_lines();
                    assert_eq!(destination.missing(&lines), Vec::<String>::new());
                    assert_eq!(destination.misordered(&lines), Vec::<String>::new());
                }
            }
        }
    }
}

/// Limits of a destination that no 413 would teach, metrics beside logs, and a record that is not wanted.
#[tokio::test]
async fn what_is_converted_keeps_to_the_limits_of_its_destination() {
    for (source, lambda) in kept_for(Dialect::Otlp, "logs,metrics", 3, 700).await {
        let (destination, ok, told, problems) =
            replayed_to(Dialect::Datadog, &source, Behaviour::healthy()).await;
        assert!(ok, "{told} {problems}");
        assert_each_once(&destination.records(), &lambda);
        let logs = destination.requests().into_iter().filter(|request| request.path == "/api/v2/logs");
        assert!(logs.map(|request| request.records).max().unwrap() <= 1_000);
        let count = |records: &[Record], name: &str| {
            let of_name =
                records.iter().filter(|record| record.signal == Signal::Metrics && record.text == name);
            of_name.map(|record| record.body["value"].as_f64().unwrap()).sum::<f64>()
        };
        assert!(count(&destination.records(), "faas.invocations") >= 1.0);
        let poisoned = |record: &Record| record.uid.as_deref().is_some_and(|uid| uid.ends_with("-5"));
        let (destination, ok, told, problems) =
            replayed_to(Dialect::NewRelic, &source, Behaviour::poisoned_by(poisoned)).await;
        let refused = problems.matches("is refused").count();
        assert!(!ok && refused > 0 && told.contains(&format!("{refused} refused")), "{told} {problems}");
        assert_eq!(uids(&destination.records()).len() + refused, lambda.acknowledged_count());
        assert!((count(&destination.records(), "faas.invocations") - 3.0).abs() < 1e-9);
    }
}

#[tokio::test]
async fn signals_that_a_destination_does_not_take_are_told_and_the_others_go() {
    for (source, lambda) in kept_for(Dialect::Otlp, "logs,metrics,traces", 2, 10).await {
        let (destination, ok, told, problems) =
            replayed_to(Dialect::Loki, &source, Behaviour::healthy()).await;
        assert!(ok, "{told} {problems}");
        assert_each_once(&destination.records(), &lambda);
        for signal in ["metrics", "traces"] {
            let line = format!("of {signal} left out: loki has no place for them");
            assert!(problems.contains(&line), "{problems}");
        }
        assert!(!told.contains(" 0 left out"), "{told}");
        let (destination, ok, told, problems) =
            replayed_to(Dialect::OtlpJson, &source, Behaviour::healthy()).await;
        assert!(ok && told.contains(" 0 left out"), "{told} {problems}");
        for signal in Signal::ALL {
            assert!(destination.received(|received| received.count(signal)) > 0, "{signal:?}");
        }
    }
}

#[tokio::test]
async fn what_was_kept_for_a_protocol_that_leaves_things_out_is_not_converted() {
    for (source, _) in kept_for(Dialect::Loki, "logs", 1, 5).await {
        let (destination, ok, _, problems) =
            replayed_to(Dialect::Elasticsearch, &source, Behaviour::healthy()).await;
        assert!(!ok && problems.contains("set OUTLAST_PROTOCOL=loki"), "{problems}");
        assert_eq!(destination.requests().len(), 0);
    }
}

/// Lines of stdout as CloudWatch Logs gives them back, among others.
#[tokio::test]
async fn what_the_fallback_wrote_to_stdout_is_replayed() {
    for (from, to) in [
        (Dialect::Otlp, Dialect::Otlp),
        (Dialect::Loki, Dialect::Loki),
        (Dialect::Otlp, Dialect::Elasticsearch),
    ] {
        let world = if from == Dialect::Otlp { World::new().await } else { World::speaking(from).await };
        world.backend.set_door(Door::Refused).await.unwrap();
        let builder = world.lambda().env("OUTLAST_SIGNALS", "logs").env("OUTLAST_FALLBACK", "stdout");
        let lambda = lost(builder, 3).await;
        assert_eq!(left_on_disk(&lambda), 0);
        let lines = lambda.extension_output().into_iter().filter(|line| !line.stderr);
        let around: Vec<String> = lines.map(|line| format!("2026-05-01T10:15:30Z {}", line.text)).collect();
        let elsewhere = tempfile::tempdir().unwrap();
        let file = elsewhere.path().join("lines.txt");
        std::fs::write(&file, format!("START\n{}\nEND\n", around.join("\t"))).unwrap();
        let destination = Backend::builder().dialect(to).start().unwrap();
        let replay = || {
            let mut command = tool_speaking(to, &destination, elsewhere.path());
            command.arg("replay").arg(&file);
            command
        };
        let (ok, told, problems) = run(&mut replay()).await;
        assert!(ok, "{from:?} {to:?}: {told} {problems}");
        assert_each_once(&destination.records(), &lambda);
        let requests = destination.requests().len();
        let (ok, told, problems) = run(&mut replay()).await;
        assert!(ok && told.starts_with("0 records"), "{told} {problems}");
        assert_eq!(destination.requests().len(), requests, "nothing goes twice");
        if from == Dialect::Loki {
            let mut wrong = tool_speaking(Dialect::Ndjson, &destination, elsewhere.path());
            let (ok, _, problems) = run(wrong.args(["replay", "--progress", "wrong"]).arg(&file)).await;
            assert!(!ok && problems.contains("set OUTLAST_PROTOCOL"), "{problems}");
        }
        // A body that is not whole is told.
        std::fs::write(&file, r#"{"outlast.fallback":1,"id":"a""#).unwrap();
        let (ok, _, problems) = run(replay().args(["--progress", "cut"])).await;
        assert!(!ok && problems.contains("1 lines or bodies are not whole"), "{problems}");
    }
}

#[tokio::test]
async fn what_a_bucket_got_at_another_time_is_left_out() {
    let bucket = Bucket::start().await.unwrap();
    let mut lambdas = Vec::new();
    let mut between = String::new();
    for number in 0..2 {
        let world = World::new().await;
        world.backend.set_door(Door::Refused).await.unwrap();
        lambdas.push(lost(with_bucket(world.lambda_of_logs(), &bucket), 1).await);
        if number == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            between = now();
        }
    }
    let elsewhere = tempfile::tempdir().unwrap();
    for (option, lambda) in [("--until", &lambdas[0]), ("--since", &lambdas[1])] {
        let destination = Backend::start().await.unwrap();
        let mut command = tool(&destination, elsewhere.path());
        command.args(["replay", BUCKET, option, &between, "--progress", option]);
        let (ok, told, problems) = run(reading(&mut command, &bucket)).await;
        assert!(ok, "{told} {problems}");
        assert_each_once(&destination.records(), lambda);
    }
}

#[tokio::test]
async fn what_a_directory_got_at_another_time_is_left_out() {
    let world = World::new().await;
    let lambda = outage(&world).await;
    let before = lambda.acknowledged_count();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let between = now();
    invoke(&lambda, Invocation::new().logs(7)).await;
    within("deliveries", lambda.settled()).await;
    let after = lambda.acknowledged_count() - before;
    lambda.kill().await;
    let elsewhere = tempfile::tempdir().unwrap();
    for (option, count) in [("--until", before), ("--since", after)] {
        let destination = Backend::start().await.unwrap();
        let mut command = tool(&destination, elsewhere.path());
        command.arg("replay").arg(world.queue()).args([option, &between, "--progress", option]);
        let (ok, told, problems) = run(&mut command).await;
        assert!(ok, "{told} {problems}");
        assert_eq!(uids(&destination.records()).len(), count, "{option} {told}");
    }
}

fn now() -> String {
    time::OffsetDateTime::from(std::time::SystemTime::now())
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap()
}

#[tokio::test]
async fn a_rate_bounds_what_is_sent_per_second() {
    let bucket = Bucket::start().await.unwrap();
    let world = World::new().await;
    world.backend.set_door(Door::Refused).await.unwrap();
    let lambda = lost(with_bucket(world.lambda_of_logs(), &bucket), 5).await;
    let destination = Backend::start().await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let bytes: usize = bucket.objects().values().map(|object| object.body.len()).sum();
    let rate = bytes.to_string();
    let mut command = tool(&destination, elsewhere.path());
    let begun = Instant::now();
    let (ok, told, problems) = run(reading(command.args(["replay", BUCKET, "--rate", &rate]), &bucket)).await;
    assert!(ok, "{told} {problems}");
    assert!(begun.elapsed() >= Duration::from_millis(990), "{:?} for {told}", begun.elapsed());
    assert_each_once(&destination.records(), &lambda);
}

#[tokio::test]
async fn a_record_that_is_answered_500_keeps_no_other_back() {
    let bucket = Bucket::start().await.unwrap();
    let world = World::new().await;
    world.backend.set_door(Door::Refused).await.unwrap();
    let lambda = lost(with_bucket(world.lambda_of_logs(), &bucket), 2).await;
    let queued = World::new().await;
    let left = outage(&queued).await;
    left.kill().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let breaks = |record: &Record| record.uid.as_deref().is_some_and(|uid| uid.ends_with("-5"));
    for (source, sandbox) in [(BUCKET, &lambda), (queued.queue().to_str().unwrap(), &left)] {
        let destination = Backend::builder().decode(Decode::BeforeAnswer).start().unwrap();
        let replay = || {
            let mut command = tool(&destination, elsewhere.path());
            reading(&mut command, &bucket);
            let progress = if source == BUCKET { "bucket" } else { "directory" };
            command.args(["replay", source, "--progress", progress]);
            command
        };
        // Nothing is lost to a backend that answers so to everything.
        destination.behave(Behaviour::status(500));
        let (ok, _, problems) = run(&mut replay()).await;
        assert!(!ok && problems.contains("to everything"), "{problems}");
        destination.behave(Behaviour::status(500).when(Condition::any_record(breaks)));
        let (ok, told, problems) = run(&mut replay()).await;
        assert!(!ok && problems.contains("not everything was sent"), "{problems}");
        let refused = problems.matches("is refused").count();
        assert!(refused > 0, "{told} {problems}");
        let got = uids(&destination.records());
        assert_eq!(got.iter().collect::<HashSet<_>>().len(), got.len(), "none twice");
        assert_eq!(got.len() + refused, sandbox.acknowledged_count());
        let requests = destination.requests().len();
        let (ok, told, _) = run(&mut replay()).await;
        assert!(ok && told.starts_with("0 records"), "{told}");
        assert_eq!(destination.requests().len(), requests, "what was left out is noted");
    }
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
