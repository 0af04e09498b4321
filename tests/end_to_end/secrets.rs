//! Credentials that are kept elsewhere: the extension fetches them itself, and sends nothing without them.

use crate::support::{
    OUTLAST, PATIENCE, World, balance, delivered, invoke, leave, left_on_disk, lines_with, ms, output, within,
};
use outlast_backend::keystore::{Keystore, Mood};
use outlast_backend::moto::{Moto, Shelf};
use outlast_backend::{Backend, Behaviour, Door};
use outlast_simulator::{Builder, Invocation};

const KEY: &str = "Open-Sesame-1001";

fn with_store(world: &World, store: &Keystore) -> Builder {
    world
        .lambda()
        .env("OUTLAST_HEADERS", "x-tenant=blue,authorization=Bearer%20ssm:/key")
        .env("AWS_ENDPOINT_URL_SSM", store.url())
}

/// Every request had its key, and nobody else was told of it.
fn assert_key(world: &World, key: &str, told: &[String]) {
    let requests = world.backend.requests();
    assert!(!requests.is_empty());
    for request in requests {
        assert_eq!(request.header("authorization"), Some(format!("Bearer {key}").as_str()));
        assert_eq!(request.header("x-tenant"), Some("blue"));
    }
    assert!(!told.iter().any(|line| line.contains(key)), "{told:?}");
}

#[tokio::test]
async fn telemetry_waits_for_its_key_and_no_request_goes_without_it() {
    for (away, reason) in [
        (Mood::denied(), "AccessDeniedException User x is not authorized"),
        (Mood::Answers(503, String::new()), "ssm:/key: 503"),
        (Mood::Hangs, "no answer in time"),
        (Mood::parameter("two\nlines"), "its value makes no header"),
    ] {
        let world = World::new().await;
        let store = Keystore::start().await.unwrap();
        store.behave(away);
        let lambda = with_store(&world, &store).env("OUTLAST_TIMEOUT", "500ms").start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(10)).await;
        let told = |line: &str| line.contains("not asked, its credentials cannot be had: ssm:/key");
        within("the reason", lambda.until_output(told)).await;
        invoke(&lambda, Invocation::new().logs(10)).await;
        assert_eq!(world.backend.requests().len(), 0);
        assert_eq!(lines_with(&lambda, reason), 1, "told once: {:?}", output(&lambda));
        store.behave(Mood::parameter(KEY));
        world.until_delivered(&lambda).await;
        leave(&lambda).await;
        assert_key(&world, KEY, &output(&lambda));
        assert_eq!(balance(&[&lambda], &world.backend).repeated, 0);
    }
}

#[tokio::test]
async fn without_a_key_everything_is_on_disk_at_shutdown() {
    let world = World::new().await;
    let store = Keystore::start().await.unwrap();
    let lambda = with_store(&world, &store).start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    within("deliveries", lambda.settled()).await;
    leave(&lambda).await;
    assert_eq!(world.backend.requests().len(), 0);
    assert_eq!(left_on_disk(&lambda), lambda.acknowledged_count());
}

#[tokio::test]
async fn a_key_that_was_rotated_is_fetched_again_and_nothing_waits_for_it() {
    let world = World::new().await;
    let store = Keystore::start().await.unwrap();
    store.behave(Mood::parameter("old"));
    let lambda = with_store(&world, &store)
        .env("OUTLAST_SIGNALS", "logs")
        .env("OUTLAST_RETRY_INITIAL", "10m")
        .env("OUTLAST_RETRY_MAX", "10m");
    let lambda = lambda.start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    world.until_idle().await;
    store.behave(Mood::parameter(KEY));
    world.backend.next(Behaviour::status(401));
    invoke(&lambda, Invocation::new().logs(10)).await;
    // With pauses of ten minutes, that takes the same attempt.
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    assert_eq!(lines_with(&lambda, "401"), 0, "{:?}", output(&lambda));
    let key = format!("Bearer {KEY}");
    assert_eq!(world.backend.requests().last().unwrap().header("authorization"), Some(key.as_str()));
    assert!(store.asked().len() <= 2, "it is kept");
    assert_eq!(delivered(&world.backend).1, 0);
}

/// Fetching takes time that a cold start does not have, and before registration nobody would wait for it.
#[tokio::test]
async fn nothing_is_fetched_before_the_extension_is_registered() {
    let world = World::new().await;
    let store = Keystore::start().await.unwrap();
    store.behave(Mood::parameter(KEY));
    world.backend.set_door(Door::Refused).await.unwrap();
    let lambda = with_store(&world, &store).start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    within("deliveries", lambda.settled()).await;
    leave(&lambda).await;
    assert!(left_on_disk(&lambda) > 0, "the next start has something to send");
    world.backend.recover().await.unwrap();
    let before = store.asked().len();
    // An API that takes the registration and does not answer.
    let api = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _extension = tokio::process::Command::new(OUTLAST)
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", api.local_addr().unwrap().to_string())
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ACCESS_KEY_ID", "a")
        .env("AWS_SECRET_ACCESS_KEY", "b")
        .env("AWS_ENDPOINT_URL_SSM", store.url())
        .env("OUTLAST_ENDPOINT", world.backend.url())
        .env("OUTLAST_HEADERS", "authorization=Bearer%20ssm:/key")
        .env("OUTLAST_QUEUE_DIR", world.queue())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let _registration = within("the registration", api.accept()).await.unwrap();
    tokio::time::sleep(ms(300)).await;
    assert_eq!(store.asked().len(), before);
    assert_eq!(world.backend.requests().len(), 0);
}

#[tokio::test]
async fn a_key_that_answers_403_is_fetched_again() {
    let world = World::new().await;
    let store = Keystore::start().await.unwrap();
    store.behave(Mood::parameter("old"));
    let lambda = with_store(&world, &store).env("OUTLAST_SIGNALS", "logs");
    let lambda = lambda.start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    world.until_idle().await;
    store.behave(Mood::parameter(KEY));
    world.backend.next(Behaviour::status(403));
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    let key = format!("Bearer {KEY}");
    assert_eq!(world.backend.requests().last().unwrap().header("authorization"), Some(key.as_str()));
    assert_eq!(lines_with(&lambda, "403"), 0, "{:?}", output(&lambda));
}

#[tokio::test]
async fn the_fallback_has_a_key_of_its_own() {
    let world = World::new().await;
    let (second, store) = (Backend::start().await.unwrap(), Keystore::start().await.unwrap());
    store.behave(Mood::secret(&format!(r#"{{"key":"{KEY}"}}"#)));
    let lambda = world
        .lambda_of_logs()
        .env("OUTLAST_FALLBACK", second.url())
        .env("OUTLAST_FALLBACK_HEADERS", "x-key=secretsmanager:telemetry/key#key")
        .env("AWS_ENDPOINT_URL", store.url())
        .start()
        .await
        .unwrap();
    world.backend.set_door(Door::Refused).await.unwrap();
    invoke(&lambda, Invocation::new().runs_for(ms(20)).logs(10)).await;
    within("deliveries", lambda.settled()).await;
    leave(&lambda).await;
    assert!(second.records().len() >= lambda.acknowledged_count(), "{:?}", output(&lambda));
    assert!(second.requests().iter().all(|request| request.header("x-key") == Some(KEY)));
    let target = Some("secretsmanager.GetSecretValue");
    assert!(store.asked().iter().all(|asked| asked.header("x-amz-target") == target));
    assert!(!store.asked().is_empty());
}

#[tokio::test]
async fn a_further_destination_has_a_key_of_its_own() {
    let world = World::new().await;
    let (second, store) = (Backend::start().await.unwrap(), Keystore::start().await.unwrap());
    store.behave(Mood::parameter(KEY));
    let lambda = world
        .lambda_of_logs()
        .env("OUTLAST_DESTINATIONS", "audit")
        .env("OUTLAST_AUDIT_ENDPOINT", second.url())
        .env("OUTLAST_AUDIT_HEADERS", "x-key=ssm:/audit-key")
        .env("AWS_ENDPOINT_URL", store.url())
        .start()
        .await
        .unwrap();
    invoke(&lambda, Invocation::new().runs_for(ms(20)).logs(10)).await;
    world.until_delivered(&lambda).await;
    let expected = lambda.acknowledged_count();
    let all_there = second.wait_for(|received| received.records().len() >= expected, PATIENCE);
    assert!(all_there.await.is_ok(), "{:?}", output(&lambda));
    leave(&lambda).await;
    assert!(second.requests().iter().all(|request| request.header("x-key") == Some(KEY)));
    assert!(world.backend.requests().iter().all(|request| request.header("x-key").is_none()));
    assert!(!output(&lambda).iter().any(|line| line.contains(KEY)), "{:?}", output(&lambda));
}

#[tokio::test]
async fn stores_that_verify_signatures_and_policies_give_their_values() {
    let test = "stores_that_verify_signatures_and_policies_give_their_values";
    let Some(moto) = Moto::start_or_skip(test, "unused-bucket", "x", "eu-west-1").await.unwrap() else {
        return;
    };
    let Shelf { parameter, parameter_value, secret_arn, secret_member, secret_value, .. } = &moto.shelf;
    for (reference, value) in [
        (format!("ssm:{parameter}"), parameter_value),
        (format!("secretsmanager:{secret_arn}#{secret_member}"), secret_value),
    ] {
        let world = World::new().await;
        let builder = || {
            world
                .lambda()
                .env("OUTLAST_HEADERS", format!("x-tenant=blue,authorization=Bearer%20{reference}"))
                .env("AWS_ENDPOINT_URL", &moto.endpoint)
                .env("AWS_REGION", "eu-west-1")
                .env("AWS_SESSION_TOKEN", "")
        };
        let stranger = builder()
            .env("AWS_ACCESS_KEY_ID", &moto.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &moto.secret_access_key)
            .start()
            .await
            .unwrap();
        invoke(&stranger, Invocation::new().logs(5)).await;
        within("the refusal", stranger.until_output(|line| line.contains("AccessDenied"))).await;
        leave(&stranger).await;
        assert_eq!(world.backend.requests().len(), 0);
        let lambda = builder()
            .env("AWS_ACCESS_KEY_ID", &moto.shelf.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &moto.shelf.secret_access_key)
            .start()
            .await
            .unwrap();
        invoke(&lambda, Invocation::new().logs(5)).await;
        world.until_delivered(&lambda).await;
        leave(&lambda).await;
        assert_key(&world, value, &output(&lambda));
    }
}
