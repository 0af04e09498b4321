//! What the backend does not take goes to the fallback: a second backend, a bucket, or stdout. Every test balances its
//! account: acknowledged = delivered + handed over + left on disk + reported as dropped.

use crate::overflow::{heavy, size_of};
use crate::support::{
    PATIENCE, Told, World, acknowledged, delivered, eventually, invoke, is_report, leave, lines_with, ms,
    output, told_to_backend, within,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outlast_backend::bucket::{self, Bucket, Mood};
use outlast_backend::keystore::{self, Keystore};
use outlast_backend::moto::Moto;
use outlast_backend::{Backend, Behaviour, Dialect, Door, Record, Signal, Verdict};
use outlast_simulator::{Builder, Freeze, Invocation, Sandbox};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};

/// What the last line of the extension counts.
#[derive(Debug, PartialEq)]
struct Counts {
    received: u64,
    delivered: u64,
    handed: u64,
    left: u64,
    dropped: u64,
}

fn counts(lambda: &Sandbox) -> Counts {
    let output = output(lambda);
    let last = output.iter().rev().find(|line| line.contains("shutdown: ")).expect("a last line");
    let number = |after: &str| -> u64 {
        let before = last.split(after).next().unwrap();
        before.rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{last}"))
    };
    Counts {
        received: number(" records received"),
        delivered: number(" delivered"),
        handed: number(" handed to the fallback"),
        left: number(" left on disk"),
        dropped: number(" dropped"),
    }
}

fn with_bucket(builder: Builder, bucket: &Bucket) -> Builder {
    builder.env("OUTLAST_FALLBACK", "s3://telemetry/some/prefix").env("AWS_ENDPOINT_URL_S3", bucket.url())
}

fn with_second(builder: Builder, second: &Backend) -> Builder {
    builder.env("OUTLAST_FALLBACK", second.url())
}

/// Log records in the bucket, in the order of their keys.
fn in_bucket(bucket: &Bucket) -> Vec<Record> {
    let objects = bucket.objects();
    objects.values().flat_map(|object| object.records(Signal::Logs).unwrap()).collect()
}

/// Log records in lines on stdout, joined as `docs/fallback.md` says.
fn on_stdout(lambda: &Sandbox) -> Vec<Record> {
    let lines = lambda.extension_output().into_iter().filter(|line| !line.stderr);
    let mut bodies: BTreeMap<String, BTreeMap<u64, Value>> = BTreeMap::new();
    let mut order = Vec::new();
    for line in lines {
        let line: Value = serde_json::from_str(&line.text).unwrap();
        assert_eq!((&line["outlast.fallback"], &line["encoding"]), (&Value::from(1), &Value::from("gzip")));
        let id = line["id"].as_str().unwrap().to_owned();
        if !bodies.contains_key(&id) {
            order.push(id.clone());
        }
        bodies.entry(id).or_default().insert(line["part"].as_u64().unwrap(), line);
    }
    let mut records = Vec::new();
    for id in order {
        let parts = &bodies[&id];
        let first = &parts[&1];
        assert_eq!(parts.len() as u64, first["parts"].as_u64().unwrap());
        let body: Vec<u8> = parts
            .values()
            .flat_map(|part| STANDARD.decode(part["body"].as_str().unwrap()).unwrap())
            .collect();
        let found = bucket::records(Signal::Logs, &body).unwrap();
        assert_eq!(found.len() as u64, first["records"].as_u64().unwrap());
        records.extend(found);
    }
    records
}

/// Without our own reports and without repeats.
fn told(records: &[Record]) -> Vec<Told> {
    let mut seen = HashSet::new();
    let own = records.iter().filter(|record| !is_report(record));
    own.filter(|record| seen.insert(record.uid.clone().unwrap())).map(told_to_backend).collect()
}

/// Everything acknowledged is delivered, then handed over, in order and once; nothing is left or dropped.
fn assert_handed(world: &World, lambda: &Sandbox, handed: &[Record]) {
    let (mut got, repeated) = delivered(&world.backend);
    assert_eq!(repeated, 0);
    let handed = told(handed);
    let expected = acknowledged(&[lambda]);
    let count = |told: &[Told]| told.len() as u64;
    let counted = Counts {
        received: count(&expected),
        delivered: count(&got),
        handed: count(&handed),
        left: 0,
        dropped: 0,
    };
    assert_eq!(counts(lambda), counted, "{:#?}", output(lambda));
    got.extend(handed);
    assert!(got == expected, "{} records instead of {}", got.len(), expected.len());
}

/// A frozen environment with a backlog: some of it delivered, then the backend went away.
async fn backlog(world: &World, builder: Builder) -> Sandbox {
    let lambda = builder
        .env("OUTLAST_SIGNALS", "logs")
        .env("OUTLAST_RETRY_INITIAL", "10m")
        .env("OUTLAST_RETRY_MAX", "10m")
        .start()
        .await
        .unwrap();
    invoke(&lambda, Invocation::new().logs(20)).await;
    world.until_delivered(&lambda).await;
    world.until_idle().await;
    world.backend.set_door(Door::Refused).await.unwrap();
    for _ in 0..10 {
        invoke(&lambda, Invocation::new().runs_for(ms(20)).logs(100)).await;
    }
    within("deliveries", lambda.settled()).await;
    lambda
}

/// The ways in which a backend is away at SHUTDOWN.
#[derive(Clone, Copy, Debug)]
enum Away {
    Refused,
    Hung,
    Unavailable,
}

const WAYS: [Away; 3] = [Away::Refused, Away::Hung, Away::Unavailable];

async fn go(world: &World, away: Away) {
    match away {
        Away::Refused => return,
        Away::Hung => world.backend.behave(Behaviour::hang()),
        Away::Unavailable => world.backend.behave(Behaviour::status(503)),
    }
    world.backend.set_door(Door::Open).await.unwrap();
}

/// SHUTDOWN, and how long it took (shown with `--nocapture`).
async fn leave_in_time(lambda: &Sandbox, away: Away, fallback: &str) {
    let end = leave(lambda).await;
    assert!(end.left().is_some(), "before the deadline");
    println!("{fallback}, backend {away:?}: gone {:.0?} after SHUTDOWN; {:?}", end.took(), counts(lambda));
}

// === SHUTDOWN

#[tokio::test]
async fn shutdown_hands_the_rest_to_a_second_backend_which_gets_no_header_of_the_first() {
    for away in WAYS {
        let (world, second) = (World::new().await, Backend::start().await.unwrap());
        let builder = with_second(world.lambda(), &second)
            .env("OUTLAST_HEADERS", "authorization=first")
            .env("OUTLAST_FALLBACK_HEADERS", "x-key=second");
        let lambda = backlog(&world, builder).await;
        go(&world, away).await;
        leave_in_time(&lambda, away, "second backend").await;
        assert_handed(&world, &lambda, &second.records());
        for request in second.requests() {
            assert_eq!((request.header("authorization"), request.header("x-key")), (None, Some("second")));
            assert_eq!(request.path, "/v1/logs");
        }
    }
}

#[tokio::test]
async fn shutdown_hands_the_rest_to_a_bucket() {
    for away in WAYS {
        let (world, bucket) = (World::new().await, Bucket::start().await.unwrap());
        let lambda = backlog(&world, with_bucket(world.lambda(), &bucket)).await;
        go(&world, away).await;
        leave_in_time(&lambda, away, "bucket").await;
        assert_handed(&world, &lambda, &in_bucket(&bucket));
        for (path, object) in bucket.objects() {
            assert!(path.starts_with("telemetry/some/prefix/"), "{path}");
            assert!(path.contains("/logs-") && path.ends_with(".otlp.pb.gz"), "{path}");
            assert_eq!(object.header("content-type"), Some("application/x-protobuf"));
            assert_eq!(object.header("content-encoding"), Some("gzip"));
            assert!(object.header("authorization").unwrap().starts_with("AWS4-HMAC-SHA256 Credential="));
        }
    }
}

#[tokio::test]
async fn shutdown_writes_the_rest_to_stdout() {
    for away in WAYS {
        let world = World::new().await;
        let lambda = backlog(&world, world.lambda().env("OUTLAST_FALLBACK", "stdout")).await;
        go(&world, away).await;
        leave_in_time(&lambda, away, "stdout").await;
        assert_handed(&world, &lambda, &on_stdout(&lambda));
    }
}

#[tokio::test]
async fn every_signal_is_handed_over_and_counted() {
    let (world, bucket) = (World::new().await, Bucket::start().await.unwrap());
    world.backend.set_door(Door::Refused).await.unwrap();
    let lambda = with_bucket(world.lambda(), &bucket)
        .env("OUTLAST_SIGNALS", "logs,metrics,traces")
        .env("OUTLAST_SAMPLER", "always_on")
        .start()
        .await
        .unwrap();
    for _ in 0..3 {
        invoke(&lambda, Invocation::new().logs(10)).await;
    }
    within("deliveries", lambda.settled()).await;
    leave(&lambda).await;
    let mut handed = 0;
    for (name, signal) in [("logs", Signal::Logs), ("metrics", Signal::Metrics), ("traces", Signal::Traces)] {
        let of_signal = |path: &&String| path.contains(&format!("/{name}-"));
        let objects = bucket.objects();
        let paths: Vec<&String> = objects.keys().filter(of_signal).collect();
        assert!(!paths.is_empty(), "no {name} in {:?}", objects.keys());
        handed += paths.iter().map(|path| objects[*path].records(signal).unwrap().len()).sum::<usize>();
    }
    let counts = counts(&lambda);
    assert_eq!((counts.delivered, counts.left, counts.dropped), (0, 0, 0), "{:#?}", output(&lambda));
    assert_eq!(counts.received, counts.handed);
    assert!(handed as u64 >= counts.handed, "{handed} {counts:?}");
}

#[tokio::test]
async fn a_fallback_that_is_away_as_well_leaves_everything_on_disk() {
    for away in WAYS {
        let (world, second) = (World::new().await, Backend::start().await.unwrap());
        match away {
            Away::Refused => second.set_door(Door::Refused).await.unwrap(),
            Away::Hung => second.behave(Behaviour::hang()),
            Away::Unavailable => second.behave(Behaviour::status(503)),
        }
        let lambda = backlog(&world, with_second(world.lambda(), &second)).await;
        go(&world, away).await;
        leave_in_time(&lambda, away, "second backend, away as well").await;
        let all = lambda.acknowledged_count() as u64;
        let before = delivered(&world.backend).0.len() as u64;
        let expected = Counts { received: all, delivered: before, handed: 0, left: all - before, dropped: 0 };
        assert_eq!(counts(&lambda), expected, "{:#?}", output(&lambda));
        world.backend.recover().await.unwrap();
        let next = world.lambda().env("OUTLAST_SIGNALS", "logs").start().await.unwrap();
        // What its own start brings could come at the very end as well, and would then be left on disk.
        within("deliveries", next.settled()).await;
        leave(&next).await;
        assert!(
            delivered(&world.backend).0[..] == acknowledged(&[&lambda, &next])[..],
            "the next process sends it"
        );
    }
}

#[tokio::test]
async fn a_bucket_that_may_not_be_written_is_told_in_one_line_and_the_data_stays() {
    for status in [403, 404] {
        let (world, bucket) = (World::new().await, Bucket::start().await.unwrap());
        bucket.behave(Mood::Answers(status));
        let lambda = backlog(&world, with_bucket(world.lambda(), &bucket)).await;
        leave(&lambda).await;
        let line = format!("fallback s3://telemetry/some/prefix: answers {status}");
        assert_eq!(lines_with(&lambda, &line), 1, "{:#?}", output(&lambda));
        let counts = counts(&lambda);
        assert_eq!((counts.handed, counts.dropped), (0, 0));
        assert_eq!(counts.left + counts.delivered, counts.received);
        assert!(output(&lambda).iter().all(|line| !line.contains("simulated-")), "no secret is printed");
    }
}

#[tokio::test]
async fn a_bucket_is_written_with_keys_from_an_endpoint_which_is_asked_when_they_are_needed() {
    let (world, bucket) = (World::new().await, Bucket::start().await.unwrap());
    let store = Keystore::start().await.unwrap();
    store.behave(keystore::Mood::Answers(
        200,
        r#"{"AccessKeyId":"AKIDSNAP","SecretAccessKey":"Open-Sesame-1001","Token":"opaque","Expiration":"2100-01-01T00:00:00Z"}"#.to_owned(),
    ));
    // As with SnapStart: no keys, and where to get them.
    let builder = with_bucket(world.lambda(), &bucket)
        .env("AWS_ACCESS_KEY_ID", "")
        .env("AWS_SECRET_ACCESS_KEY", "")
        .env("AWS_SESSION_TOKEN", "")
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", store.url())
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let-me-in");
    let lambda = backlog(&world, builder).await;
    assert_eq!(store.asked().len(), 0, "not before there is something to sign");
    leave(&lambda).await;
    assert_handed(&world, &lambda, &in_bucket(&bucket));
    assert_eq!(store.asked().len(), 1, "kept");
    assert_eq!(store.asked()[0].header("authorization"), Some("let-me-in"));
    for object in bucket.objects().values() {
        assert!(object.header("authorization").unwrap().contains("Credential=AKIDSNAP/"));
        assert_eq!(object.header("x-amz-security-token"), Some("opaque"));
    }
    assert!(!output(&lambda).iter().any(|line| line.contains("Sesame") || line.contains("let-me-in")));
}

/// Every kind of fallback gets what every kind of backend did not take.
#[tokio::test]
async fn shutdown_hands_the_rest_of_every_protocol_to_every_kind_of_fallback() {
    for dialect in Dialect::ALL {
        let second = Backend::builder().dialect(dialect).start().unwrap();
        let bucket = Bucket::start().await.unwrap();
        for kind in ["second", "bucket", "stdout"] {
            let world = World::speaking(dialect).await;
            let builder = world.lambda();
            let builder = match kind {
                "second" => with_second(builder, &second),
                "bucket" => with_bucket(builder, &bucket),
                _ => builder.env("OUTLAST_FALLBACK", "stdout"),
            };
            world.backend.set_door(Door::Refused).await.unwrap();
            let builder = match dialect.credentials() {
                Some((name, scheme)) => {
                    builder.env("OUTLAST_FALLBACK_HEADERS", format!("{name}={scheme}key"))
                }
                None => builder,
            };
            let lambda = builder.start().await.unwrap();
            for _ in 0..2 {
                invoke(&lambda, Invocation::new().logs(20)).await;
            }
            within("deliveries", lambda.settled()).await;
            leave(&lambda).await;
            let all = acknowledged(&[&lambda]).len() as u64;
            let expected = Counts { received: all, delivered: 0, handed: all, left: 0, dropped: 0 };
            assert_eq!(counts(&lambda), expected, "{dialect:?} {kind}: {:#?}", output(&lambda));
            match kind {
                "second" => assert!(told(&second.records()).len() as u64 == all, "{dialect:?}"),
                "bucket" => assert!(!bucket.objects().is_empty(), "{dialect:?}"),
                _ => assert!(lambda.extension_output().iter().any(|line| !line.stderr), "{dialect:?}"),
            }
        }
    }
}

// === Overflow

fn small(world: &World) -> Builder {
    world.lambda().env("OUTLAST_SIGNALS", "logs").env("OUTLAST_QUEUE_MAX_BYTES", "1MiB")
}

/// From here on the queue of [`small`] is nearly full.
const NEARLY_FULL_BYTES: u64 = 3 << 18;

/// So many invocations of [`heavy`] make it so, and not too full.
const CROWD: u64 = 5;

/// The backend is away for longer than the queue lasts, then back.
async fn overflow(world: &World, builder: Builder) -> Sandbox {
    world.backend.behave(Behaviour::status(503));
    let lambda = builder.start().await.unwrap();
    for number in 0..3 * CROWD {
        invoke(&lambda, heavy(number)).await;
        within("deliveries", lambda.settled()).await;
        // What comes no faster than the fallback takes it is not dropped.
        let room = || size_of(&world.queue()) < NEARLY_FULL_BYTES;
        eventually("the oldest to be handed over", room).await;
    }
    world.backend.recover().await.unwrap();
    invoke(&lambda, Invocation::new().line("the end")).await;
    world.wait_for(|received| received.texts().contains(&"the end")).await;
    leave(&lambda).await;
    lambda
}

fn assert_overflown(world: &World, lambda: &Sandbox, handed: &[Record]) {
    let (got, repeated) = delivered(&world.backend);
    assert_eq!(repeated, 0);
    let handed = told(handed);
    let expected = acknowledged(&[lambda]);
    assert!(handed.len() > 250, "{} handed over", handed.len());
    assert_eq!(handed[..], expected[..handed.len()], "the oldest");
    let dropped = world.reported();
    assert_eq!((got.len() + handed.len()) as u64 + dropped, expected.len() as u64, "{:#?}", output(lambda));
    let counts = counts(lambda);
    assert_eq!((counts.handed, counts.left, counts.dropped), (handed.len() as u64, 0, dropped));
    assert_eq!(dropped, 0, "the fallback was quick enough");
}

#[tokio::test]
async fn a_second_backend_gets_the_oldest_before_they_are_dropped() {
    let (world, second) = (World::new().await, Backend::start().await.unwrap());
    let builder = with_second(small(&world), &second);
    let lambda = overflow(&world, builder).await;
    assert_overflown(&world, &lambda, &second.records());
}

#[tokio::test]
async fn a_bucket_gets_the_oldest_before_they_are_dropped() {
    let (world, bucket) = (World::new().await, Bucket::start().await.unwrap());
    let builder = with_bucket(small(&world), &bucket);
    let lambda = overflow(&world, builder).await;
    assert_overflown(&world, &lambda, &in_bucket(&bucket));
}

/// The backend takes everything and too slowly, or is not to get more: what would be dropped goes to the fallback.
#[tokio::test]
async fn what_a_slow_or_limited_backend_has_no_room_for_is_handed_over_and_not_dropped() {
    for limited in [true, false] {
        let (world, second) = (World::new().await, Backend::start().await.unwrap());
        let mut builder = with_second(small(&world), &second);
        if limited {
            builder = builder.env("OUTLAST_RATE_LIMIT", "1KiB");
        } else {
            world.backend.behave(Behaviour::healthy().after(ms(700)));
            builder = builder.env("OUTLAST_BATCH_MAX_BYTES", "32KiB");
        }
        let lambda = builder.start().await.unwrap();
        for number in 0..3 * CROWD {
            invoke(&lambda, heavy(number)).await;
            within("deliveries", lambda.settled()).await;
            // From seven eighths on help comes whatever the backend does, until there is room.
            let room = || size_of(&world.queue()) < NEARLY_FULL_BYTES + (1 << 17);
            eventually("the oldest to be handed over", room).await;
        }
        world.backend.behave(Behaviour::healthy());
        leave(&lambda).await;
        let counts = counts(&lambda);
        assert_eq!((counts.left, counts.dropped), (0, 0), "limited {limited}: {:#?}", output(&lambda));
        assert!(counts.handed > 250 && counts.delivered > 0, "limited {limited}: {counts:?}");
        assert_eq!(counts.delivered + counts.handed, counts.received);
    }
}

// === Refused records

#[tokio::test]
async fn a_record_that_the_backend_refuses_is_handed_over_and_not_reported() {
    let (world, second) = (World::new().await, Backend::start().await.unwrap());
    world.backend.behave(Behaviour::poisoned_by(|record| record.text.contains("poison")));
    let lambda = with_second(world.lambda(), &second).env("OUTLAST_SIGNALS", "logs").start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10).line("poison").logs(10)).await;
    within("the record", second.wait_for(|received| !received.records().is_empty(), PATIENCE)).await.unwrap();
    leave(&lambda).await;
    let handed = second.texts();
    assert_eq!(handed, ["poison"]);
    let all = acknowledged(&[&lambda]).len() as u64;
    let expected = Counts { received: all, delivered: all - 1, handed: 1, left: 0, dropped: 0 };
    assert_eq!(counts(&lambda), expected, "{:#?}", output(&lambda));
    assert_eq!((world.reported(), lines_with(&lambda, "given up")), (0, 0));
}

/// Items of a bulk request that the answer refuses: they go there, in order, and nothing else does.
#[tokio::test]
async fn items_that_the_backend_refuses_are_handed_over_and_not_reported() {
    let world = World::speaking(Dialect::Elasticsearch).await;
    let second = Backend::builder().dialect(Dialect::Elasticsearch).start().unwrap();
    let builder = with_second(world.lambda(), &second)
        .env("OUTLAST_FALLBACK_HEADERS", Dialect::Elasticsearch.headers().unwrap());
    let lambda = builder.start().await.unwrap();
    world.backend.behave(Behaviour::status(503));
    for _ in 0..3 {
        invoke(&lambda, Invocation::new().logs(10).line("poison a").line("poison b").logs(10)).await;
    }
    invoke(&lambda, Invocation::new().line("poison c").logs(5).line("poison d")).await;
    within("the delivery", lambda.settled()).await;
    world.backend.behave(Behaviour::items(400, |record| record.text.starts_with("poison")));
    eventually("the last of them", || second.records().len() == 8).await;
    leave(&lambda).await;
    let poison = ["a", "b", "a", "b", "a", "b", "c", "d"].map(|which| format!("poison {which}"));
    assert_eq!(second.texts(), poison);
    let (got, repeated) = delivered(&world.backend);
    let mut expected = acknowledged(&[&lambda]);
    expected.retain(|told| !told.body.as_str().is_some_and(|text| text.starts_with("poison")));
    assert!(got == expected, "{} records instead of {}", got.len(), expected.len());
    assert_eq!((repeated, world.reported()), (0, 0));
    let Counts { delivered, handed, left, dropped, .. } = counts(&lambda);
    assert_eq!(
        (delivered, handed, left, dropped),
        (expected.len() as u64, 8, 0, 0),
        "{:#?}",
        output(&lambda)
    );
    world.backend.received(|received| assert_eq!(received.defects(), Vec::<&str>::new()));
}

/// A partial success that rejects as many as were sent says which they are: all.
#[tokio::test]
async fn what_a_partial_success_rejects_as_a_whole_is_handed_over() {
    let (world, second) = (World::new().await, Backend::start().await.unwrap());
    world.backend.behave(Behaviour::partial(1_000_000, "too old for us"));
    let lambda = with_second(world.lambda(), &second).env("OUTLAST_SIGNALS", "logs").start().await.unwrap();
    for _ in 0..3 {
        invoke(&lambda, Invocation::new().logs(20)).await;
    }
    within("the delivery", lambda.settled()).await;
    eventually("all of it", || told(&second.records()).len() >= acknowledged(&[&lambda]).len()).await;
    world.backend.recover().await.unwrap();
    invoke(&lambda, Invocation::new().line("after")).await;
    world.wait_for(|received| received.texts().contains(&"after")).await;
    leave(&lambda).await;
    let Counts { received, delivered, handed, left, dropped } = counts(&lambda);
    assert_eq!((delivered + handed, left, dropped), (received, 0, 0), "{:#?}", output(&lambda));
    assert!(handed >= 60 && delivered >= 1, "{:#?}", output(&lambda));
    assert_eq!(world.reported(), 0);
}

/// The same where the fallback takes none of them, and where there is none.
#[tokio::test]
async fn items_that_nobody_takes_are_dropped_and_reported() {
    for (with_fallback, reason) in [(true, "refused"), (false, "rejected")] {
        let world = World::speaking(Dialect::Elasticsearch).await;
        let second = Backend::builder().dialect(Dialect::Elasticsearch).start().unwrap();
        second.behave(Behaviour::status(400));
        let builder = if with_fallback { with_second(world.lambda(), &second) } else { world.lambda() };
        let lambda = builder.start().await.unwrap();
        world.backend.behave(Behaviour::items(400, |record| record.text == "poison"));
        invoke(&lambda, Invocation::new().logs(10).line("poison").line("poison").logs(10)).await;
        world.wait_for(|received| received.records().iter().any(is_report)).await;
        leave(&lambda).await;
        let reported = (world.reported_for(reason), world.reported());
        assert_eq!(reported, (2, 2), "{:#?}", output(&lambda));
        assert_eq!(lines_with(&lambda, "0 left on disk, 2 dropped"), 1, "{:#?}", output(&lambda));
    }
}

#[tokio::test]
async fn a_record_that_the_fallback_refuses_too_is_dropped_and_reported() {
    let (world, second) = (World::new().await, Backend::start().await.unwrap());
    world.backend.behave(Behaviour::poisoned_by(|record| record.text.contains("poison")));
    second.behave(Behaviour::status(400));
    let lambda = with_second(world.lambda(), &second).env("OUTLAST_SIGNALS", "logs").start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10).line("poison").logs(10)).await;
    world.wait_for(|received| received.records().iter().any(is_report)).await;
    leave(&lambda).await;
    assert_eq!((world.reported_for("refused"), counts(&lambda).dropped, counts(&lambda).handed), (1, 1, 0));
    assert_eq!(second.requests().len(), 1);
}

// === Crashes, echoes, settings

#[tokio::test]
async fn a_sigkill_in_the_middle_of_a_hand_over_loses_nothing() {
    let (world, bucket) = (World::new().await, Bucket::start().await.unwrap());
    world.backend.behave(Behaviour::status(503));
    bucket.behave(Mood::Hangs);
    let lambda = with_bucket(small(&world), &bucket).env("OUTLAST_TIMEOUT", "20s").start().await.unwrap();
    let mut number = 0;
    while bucket.requests() == 0 && number < CROWD {
        invoke(&lambda, heavy(number)).await;
        within("deliveries", lambda.settled()).await;
        number += 1;
    }
    assert!(bucket.until_requests(1, PATIENCE).await, "{:#?}", output(&lambda));
    lambda.kill().await;
    bucket.behave(Mood::Takes);
    // Another process of the same environment, over the same queue.
    invoke(&lambda, Invocation::new().line("after")).await;
    within("deliveries", lambda.settled()).await;
    leave(&lambda).await;
    let records = in_bucket(&bucket);
    let handed = told(&records);
    let expected = acknowledged(&[&lambda]);
    assert_eq!(handed.len(), expected.len(), "{:#?}", output(&lambda));
    assert!(expected.iter().all(|told| handed.contains(told)));
    let repeated = bucket.objects().values().filter(|object| object.puts > 1).count();
    assert!(repeated > 0 || records.len() > handed.len(), "the same key again, or the same uid");
    let counts = counts(&lambda);
    assert_eq!((counts.left, counts.dropped, counts.handed), (0, 0, expected.len() as u64));
}

#[tokio::test]
async fn lines_on_stdout_that_come_back_as_telemetry_are_not_queued_again() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let lambda = small(&world)
        .env("OUTLAST_TELEMETRY", "platform,function,extension")
        .env("OUTLAST_FALLBACK", "stdout")
        .start()
        .await
        .unwrap();
    for number in 0..CROWD {
        invoke(&lambda, heavy(number)).await;
        within("deliveries", lambda.settled()).await;
    }
    let is_line = |text: &str| text.starts_with(r#"{"outlast.fallback":"#);
    within("a line", lambda.until_output(is_line)).await;
    // The simulator gives back what extensions write, as Lambda does.
    let is_echo = |event: &outlast_simulator::Event| event.value().as_str().is_some_and(is_line);
    within("the echo", lambda.until_acknowledges(is_echo)).await;
    lambda.emit("extension", &Value::from("another line"));
    world.backend.recover().await.unwrap();
    world.wait_for(|received| received.texts().contains(&"another line")).await;
    leave(&lambda).await;
    assert!(!world.backend.texts().iter().any(|text| is_line(text)));
    assert!(!told(&on_stdout(&lambda)).iter().any(|told| told.body.as_str().is_some_and(is_line)));
}

#[tokio::test]
async fn a_fallback_that_cannot_be_used_is_told_in_one_line_and_the_extension_works_without_it() {
    for (name, value, line) in [
        ("OUTLAST_FALLBACK", "nonsense", "there is no fallback"),
        ("AWS_ACCESS_KEY_ID", "", "AWS_ACCESS_KEY_ID is not set; there is no fallback"),
    ] {
        let world = World::new().await;
        let lambda = world
            .lambda()
            .env("OUTLAST_SIGNALS", "logs")
            .env("OUTLAST_FALLBACK", "s3://telemetry")
            .env(name, value)
            .start()
            .await
            .unwrap();
        invoke(&lambda, Invocation::new().logs(10)).await;
        world.until_delivered(&lambda).await;
        leave(&lambda).await;
        assert_eq!(lines_with(&lambda, line), 1, "{:#?}", output(&lambda));
        assert_eq!(lines_with(&lambda, "handed"), 0, "the last line is as ever");
    }
}

#[tokio::test]
async fn a_backend_that_works_leaves_the_fallback_alone() {
    let (world, second) = (World::new().await, Backend::start().await.unwrap());
    let lambda = with_second(world.lambda(), &second)
        .env("OUTLAST_SIGNALS", "logs")
        .freeze(Freeze::After(ms(1)))
        .start()
        .await
        .unwrap();
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().logs(50)).await;
    }
    leave(&lambda).await;
    assert_handed(&world, &lambda, &[]);
    assert_eq!(second.received(outlast_backend::Received::connections), 0, "not even a connection");
    assert_eq!(world.backend.received(|received| received.requests_with(&Verdict::Pending)), 0);
}

// === An S3 that nobody here wrote

#[tokio::test]
async fn a_user_who_may_only_put_objects_below_the_prefix_is_enough_for_an_s3_that_verifies_signatures() {
    let test = "a_user_who_may_only_put_objects_below_the_prefix";
    for (prefix, allowed) in [("logs/prod", true), ("elsewhere", false)] {
        let Some(mut moto) =
            Moto::start_or_skip(test, "telemetry-bucket", "logs/prod", "eu-west-1").await.unwrap()
        else {
            return;
        };
        let world = World::new().await;
        let builder = world
            .lambda()
            .env("OUTLAST_FALLBACK", format!("s3://telemetry-bucket/{prefix}"))
            .env("AWS_ENDPOINT_URL_S3", &moto.endpoint)
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_ACCESS_KEY_ID", &moto.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &moto.secret_access_key)
            .env("AWS_SESSION_TOKEN", "");
        let lambda = backlog(&world, builder).await;
        leave(&lambda).await;
        let objects = moto.objects().await.unwrap();
        if allowed {
            assert!(objects.iter().all(|object| object.key.starts_with("logs/prod/")));
            assert!(objects.iter().all(|o| o.encoding == "gzip" && o.kind == "application/x-protobuf"));
            let handed =
                objects.iter().flat_map(|object| bucket::records(Signal::Logs, &object.body).unwrap());
            assert_handed(&world, &lambda, &handed.collect::<Vec<_>>());
        } else {
            assert!(objects.is_empty(), "the policy is enforced");
            assert_eq!(lines_with(&lambda, "answers 403"), 1, "{:#?}", output(&lambda));
            assert_eq!(counts(&lambda).handed, 0);
        }
    }
}
