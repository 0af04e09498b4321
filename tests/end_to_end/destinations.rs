//! More than one destination: each gets everything, once and in order, and none waits for another.

use crate::account;
use crate::support::{
    PATIENCE, World, acknowledged, delivered, eventually, free_invocations, invoke, leave, lines_with, ms,
    output, within,
};
use outlast_backend::{Backend, Behaviour, Dialect, Door, Verdict};
use outlast_simulator::{Builder, Freeze, Invocation, Sandbox};
use std::collections::HashSet;

/// A request that hangs is given up after this.
const TIMEOUT: &str = "300ms";

/// An extension with the backend of `world` and one called `b`.
fn lambda(world: &World, b: &Backend) -> Builder {
    world.lambda().env("OUTLAST_DESTINATIONS", "b").env("OUTLAST_B_ENDPOINT", b.url())
}

/// Waits until `backend` has as many log records as were acknowledged.
async fn until_has_all(backend: &Backend, lambdas: &[&Sandbox]) {
    for lambda in lambdas {
        within("deliveries to end", lambda.settled()).await;
    }
    let expected = acknowledged(lambdas).len();
    let all_there = |received: &outlast_backend::Received| {
        let logs = received.records().iter().filter(|record| record.signal == outlast_backend::Signal::Logs);
        logs.map(|record| &record.uid).collect::<HashSet<_>>().len() >= expected
    };
    if backend.wait_for(all_there, PATIENCE).await.is_err() {
        let texts = backend.texts().len();
        panic!(
            "{expected} were acknowledged, {texts} arrived: {:#?}",
            lambdas.last().map(|last| output(last))
        );
    }
}

/// Everything that was acknowledged, once and in order.
fn has_all(backend: &Backend, lambdas: &[&Sandbox]) {
    let (got, repeated) = delivered(backend);
    let told = || lambdas.iter().map(|lambda| output(lambda)).collect::<Vec<_>>();
    assert_eq!(repeated, 0, "{:#?}", told());
    let expected = acknowledged(lambdas);
    assert!(got == expected, "{} of {}: {:#?}", got.len(), expected.len(), told());
}

async fn invoke_several(lambda: &Sandbox) {
    for _ in 0..5 {
        invoke(lambda, Invocation::new().runs_for(ms(2)).logs(10)).await;
    }
}

async fn told_to_be_away(lambda: &Sandbox, who: &str) {
    let line = format!("{who}: away");
    within("the outage to be told", lambda.until_output(|told| told.contains(&line))).await;
}

/// Bytes of all segments below the queue's directory.
fn segment_bytes(world: &World) -> u64 {
    let mut left = vec![world.queue()];
    let mut bytes = 0;
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "seg") {
                bytes += entry.metadata().map_or(0, |metadata| metadata.len());
            }
        }
    }
    bytes
}

#[tokio::test]
async fn both_get_everything_once_and_in_order() {
    let (world, b) = (World::new().await, Backend::start().await.unwrap());
    let lambda = lambda(&world, &b).start().await.unwrap();
    invoke_several(&lambda).await;
    until_has_all(&world.backend, &[&lambda]).await;
    until_has_all(&b, &[&lambda]).await;
    assert_eq!(lambda.acknowledged_lines().len(), 50);
    leave(&lambda).await;
    for backend in [&world.backend, &b] {
        has_all(backend, &[&lambda]);
        account::of_invocations(&[&lambda], backend);
    }
}

/// The settings that `docs/destinations.md` gives for several destinations.
fn documented() -> Vec<(String, String)> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/destinations.md");
    let page = std::fs::read_to_string(path).unwrap();
    let section =
        page.split("\n## Several destinations\n").nth(1).expect("a section").split("\n## ").next().unwrap();
    let settings = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let pairs = settings.lines().map(|line| line.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A user copies the settings from the document, with other hosts.
#[tokio::test]
async fn the_documented_settings_deliver_to_all_three() {
    let (world, audit) = (World::new().await, Backend::start().await.unwrap());
    let search = Backend::builder().dialect(Dialect::Elasticsearch).start().unwrap();
    let mut builder = Sandbox::builder(crate::support::OUTLAST)
        .env("OUTLAST_QUEUE_DIR", world.queue().display())
        .env("OUTLAST_MAX_DELAY", "400ms");
    for (name, value) in documented() {
        let value = match name.as_str() {
            "OUTLAST_ENDPOINT" => world.backend.url(),
            "OUTLAST_AUDIT_ENDPOINT" => audit.url(),
            "OUTLAST_SEARCH_ENDPOINT" => search.url(),
            _ => value,
        };
        builder = builder.env(name, value);
    }
    let lambda = builder.start().await.unwrap();
    assert_eq!(output(&lambda), Vec::<String>::new(), "nothing is wrong with them");
    invoke(&lambda, Invocation::new().logs(10)).await;
    for backend in [&world.backend, &audit, &search] {
        until_has_all(backend, &[&lambda]).await;
    }
    leave(&lambda).await;
    for backend in [&world.backend, &audit, &search] {
        has_all(backend, &[&lambda]);
        backend.received(|received| assert_eq!(received.defects(), Vec::<&str>::new()));
        let of = |signal| backend.records().iter().filter(|record| record.signal == signal).count();
        let is_main = backend.address() == world.backend.address();
        assert_eq!(of(outlast_backend::Signal::Metrics) > 0, is_main, "the others get logs alone");
    }
    let last = output(&lambda).into_iter().find(|line| line.contains("shutdown: ")).unwrap();
    assert!(last.contains("; audit: ") && last.contains("; search: "), "{last}");
}

/// One of the two takes nothing, in some way, the whole time and then recovers; `named` says which.
async fn one_away(named: bool, behaviour: Behaviour) {
    let (world, b) = (World::new().await, Backend::start().await.unwrap());
    let (away, well) = if named { (&b, &world.backend) } else { (&world.backend, &b) };
    away.behave(behaviour);
    let lambda = lambda(&world, &b)
        .env(if named { "OUTLAST_B_TIMEOUT" } else { "OUTLAST_TIMEOUT" }, TIMEOUT)
        .start()
        .await
        .unwrap();
    invoke_several(&lambda).await;
    let who = if named { "backend b" } else { "backend" };
    told_to_be_away(&lambda, who).await;
    // Three failures and the breaker is open.
    away.wait_for(|received| received.requests().len() >= 9, PATIENCE).await.unwrap();
    free_invocations(&lambda).await;
    until_has_all(well, &[&lambda]).await;
    has_all(well, &[&lambda]);
    assert_eq!(away.records().len(), 0);
    let held = segment_bytes(&world);
    away.recover().await.unwrap();
    until_has_all(away, &[&lambda]).await;
    invoke_several(&lambda).await;
    until_has_all(away, &[&lambda]).await;
    until_has_all(well, &[&lambda]).await;
    assert_eq!(lines_with(&lambda, &format!("{who}: away")), 1, "{:?}", output(&lambda));
    leave(&lambda).await;
    has_all(&world.backend, &[&lambda]);
    has_all(&b, &[&lambda]);
    assert!(held > 0);
}

#[tokio::test]
async fn a_named_one_that_hangs_holds_up_nobody_and_gets_everything_later() {
    one_away(true, Behaviour::hang()).await;
}

#[tokio::test]
async fn a_named_one_that_fails_holds_up_nobody_and_gets_everything_later() {
    one_away(true, Behaviour::status(503)).await;
}

#[tokio::test]
async fn a_main_one_that_hangs_holds_up_nobody_and_gets_everything_later() {
    one_away(false, Behaviour::hang()).await;
}

#[tokio::test]
async fn a_main_one_that_fails_holds_up_nobody_and_gets_everything_later() {
    one_away(false, Behaviour::status(503)).await;
}

#[tokio::test]
async fn destinations_of_different_formats_get_everything_each_in_its_own() {
    let world = World::new().await;
    let b = Backend::builder().dialect(Dialect::Elasticsearch).start().unwrap();
    let c = Backend::builder().dialect(Dialect::Elasticsearch).start().unwrap();
    let (name, scheme) = Dialect::Elasticsearch.credentials().unwrap();
    let lambda = lambda(&world, &b)
        .env("OUTLAST_DESTINATIONS", "b,c")
        .env("OUTLAST_B_PROTOCOL", "elasticsearch")
        .env("OUTLAST_B_HEADERS", format!("{name}={scheme}key"))
        .env("OUTLAST_C_PROTOCOL", "elasticsearch")
        .env("OUTLAST_C_ENDPOINT", c.url())
        .env("OUTLAST_C_HEADERS", format!("{name}={scheme}key"))
        .start()
        .await
        .unwrap();
    c.behave(Behaviour::status(503));
    invoke_several(&lambda).await;
    told_to_be_away(&lambda, "backend c").await;
    until_has_all(&world.backend, &[&lambda]).await;
    until_has_all(&b, &[&lambda]).await;
    world.backend.behave(Behaviour::status(503));
    c.recover().await.unwrap();
    invoke_several(&lambda).await;
    until_has_all(&b, &[&lambda]).await;
    until_has_all(&c, &[&lambda]).await;
    world.backend.recover().await.unwrap();
    until_has_all(&world.backend, &[&lambda]).await;
    leave(&lambda).await;
    for backend in [&world.backend, &b, &c] {
        has_all(backend, &[&lambda]);
    }
}

#[tokio::test]
async fn sigkill_loses_nothing_for_either() {
    let (world, b) = (World::new().await, Backend::start().await.unwrap());
    b.behave(Behaviour::status(503));
    let lambda = lambda(&world, &b).start().await.unwrap();
    for round in 0..3 {
        invoke_several(&lambda).await;
        within("deliveries", lambda.settled()).await;
        if round == 1 {
            // What the main one has is noted before the next kill, which then repeats nothing to it.
            until_has_all(&world.backend, &[&lambda]).await;
            world.until_idle().await;
        }
        lambda.kill().await;
    }
    invoke_several(&lambda).await;
    b.recover().await.unwrap();
    until_has_all(&world.backend, &[&lambda]).await;
    until_has_all(&b, &[&lambda]).await;
    leave(&lambda).await;
    for backend in [&world.backend, &b] {
        let (got, _) = delivered(backend);
        let mut rest = got.iter();
        for told in acknowledged(&[&lambda]) {
            assert!(rest.any(|other| *other == told), "{told:?} is missing or out of order");
        }
    }
    let (_, repeated) = delivered(&b);
    assert_eq!(repeated, 0, "it took nothing before the last kill");
}

#[tokio::test]
async fn shutdown_with_one_hung_brings_the_other_everything_in_time() {
    let (world, b) = (World::new().await, Backend::start().await.unwrap());
    for backend in [&world.backend, &b] {
        backend.set_door(Door::Refused).await.unwrap();
    }
    let first = lambda(&world, &b)
        .freeze(Freeze::After(ms(1)))
        .env("OUTLAST_RETRY_INITIAL", "10m")
        .env("OUTLAST_RETRY_MAX", "10m")
        .start()
        .await
        .unwrap();
    for _ in 0..10 {
        invoke(&first, Invocation::new().runs_for(ms(30)).logs(100)).await;
    }
    for backend in [&world.backend, &b] {
        backend.recover().await.unwrap();
    }
    b.behave(Behaviour::hang());
    let end = leave(&first).await;
    assert!(end.left().is_some(), "before the deadline");
    has_all(&world.backend, &[&first]);
    b.recover().await.unwrap();
    let second = lambda(&world, &b).start().await.unwrap();
    until_has_all(&b, &[&first]).await;
    leave(&second).await;
    has_all(&b, &[&first, &second]);
    has_all(&world.backend, &[&first, &second]);
}

#[tokio::test]
async fn the_disk_is_free_again_once_both_have_all() {
    let (world, b) = (World::new().await, Backend::start().await.unwrap());
    b.behave(Behaviour::status(503));
    let lambda = lambda(&world, &b).start().await.unwrap();
    for number in 0..3 {
        invoke(&lambda, crate::overflow::heavy(number)).await;
    }
    until_has_all(&world.backend, &[&lambda]).await;
    world.until_idle().await;
    assert!(segment_bytes(&world) > 400_000, "b has none of it: {}", segment_bytes(&world));
    b.recover().await.unwrap();
    until_has_all(&b, &[&lambda]).await;
    eventually("an empty disk", || segment_bytes(&world) <= 256 << 10).await;
    leave(&lambda).await;
    has_all(&b, &[&lambda]);
}

#[tokio::test]
async fn what_a_full_queue_drops_is_counted_for_whom_it_is_dropped() {
    let (world, b) = (World::new().await, Backend::start().await.unwrap());
    b.behave(Behaviour::status(503));
    let lambda = lambda(&world, &b)
        .env("OUTLAST_QUEUE_MAX_BYTES", "1MiB")
        .env("OUTLAST_SIGNALS", "logs")
        .env("OUTLAST_B_SIGNALS", "logs")
        .start()
        .await
        .unwrap();
    for number in 0..12 {
        invoke(&lambda, crate::overflow::heavy(number)).await;
        until_has_all(&world.backend, &[&lambda]).await;
    }
    assert!(lines_with(&lambda, "queue full") > 0, "{:?}", output(&lambda));
    b.recover().await.unwrap();
    b.wait_for(|received| received.records().iter().any(crate::support::is_report), PATIENCE).await.unwrap();
    leave(&lambda).await;
    let expected = acknowledged(&[&lambda]);
    let (got, repeated) = delivered(&b);
    assert_eq!(repeated, 0);
    let reports = |backend: &Backend| -> u64 {
        let records = backend.records();
        records.iter().filter(|record| crate::support::is_report(record)).map(crate::support::count_of).sum()
    };
    assert_eq!(got.len() as u64 + reports(&b), expected.len() as u64, "{:?}", output(&lambda));
    assert!(reports(&b) > 500);
    let records = b.records();
    let report = records.iter().find(|record| crate::support::is_report(record)).unwrap();

    assert_eq!(report.attributes["outlast.dropped.destination"], "b");
    assert_eq!(report.attributes["outlast.dropped.reason"], "overflow_oldest");
    has_all(&world.backend, &[&lambda]);
    assert_eq!(world.backend.received(|received| received.requests_with(&Verdict::Pending)), 0);
}
