//! Backends behind TLS, with good certificates and wrong ones, and those that speak something else.

use crate::support::{
    World, attempts_within_budget, balance, free_invocations, invoke, leave, left_on_disk, lines_with,
    output, within,
};
use outlast_backend::proxy::Proxy;
use outlast_backend::tls::{Authority, Flaw, Identity};
use outlast_backend::{Backend, Door};
use outlast_simulator::{Builder, Invocation, Sandbox};
use std::path::PathBuf;

fn world(identity: Identity) -> World {
    World::around(Backend::builder().tls(identity).start().unwrap())
}

fn pem_file(world: &World, content: &str) -> PathBuf {
    let file = world.queue().with_file_name("ca.pem");
    std::fs::write(&file, content).unwrap();
    file
}

/// The extension, trusting `authority`.
fn trusting(world: &World, authority: &Authority) -> Builder {
    world.lambda().env("OUTLAST_CA_FILE", pem_file(world, authority.pem()).display())
}

async fn delivers(world: World, lambda: Builder) {
    let lambda = lambda.start().await.unwrap();
    for _ in 0..3 {
        invoke(&lambda, Invocation::new().logs(10)).await;
    }
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    assert_eq!(output(&lambda).len(), 1, "{:?}", output(&lambda));
    assert_eq!(balance(&[&lambda], &world.backend).repeated, 0);
}

#[tokio::test]
async fn a_certificate_of_the_users_own_authority_is_trusted() {
    let authority = Authority::new().unwrap();
    let world = world(authority.server(Flaw::None).unwrap());
    let lambda = trusting(&world, &authority);
    delivers(world, lambda).await;
}

#[tokio::test]
async fn the_standard_variable_for_authorities_is_read() {
    let authority = Authority::new().unwrap();
    let world = world(authority.server(Flaw::None).unwrap());
    let file = pem_file(&world, authority.pem());
    let lambda = world.lambda().env("OTEL_EXPORTER_OTLP_CERTIFICATE", file.display());
    delivers(world, lambda).await;
}

/// The extension cannot reach `world`'s backend; another one over the same disk, at `mended`, gets everything once.
async fn waits_for(
    world: World,
    lambda: Builder,
    reason: &str,
    mended: World,
    mend: impl Fn(Builder) -> Builder,
) {
    let lambda = lambda.start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    within("the outage to be told", lambda.until_output(|line| line.contains("backend: away"))).await;
    free_invocations(&lambda).await;
    leave(&lambda).await;
    assert_eq!(lines_with(&lambda, "backend: away"), 1, "told once");
    assert_eq!(lines_with(&lambda, reason), 1, "{:?}", output(&lambda));
    assert_eq!(left_on_disk(&lambda), lambda.acknowledged_count());
    assert_eq!(world.backend.requests().len(), 0, "nothing was told to a stranger");
    let next = mend(mended.lambda().env("OUTLAST_QUEUE_DIR", world.queue().display())).start().await.unwrap();
    invoke(&next, Invocation::new().logs(10)).await;
    mended.wait_for(|received| received.records().len() >= lambda.acknowledged_count() + 10).await;
    leave(&next).await;
    assert_eq!(balance(&[&lambda, &next], &mended.backend).repeated, 0);
}

#[tokio::test]
async fn wrong_certificates_keep_the_data_until_the_backend_has_a_right_one() {
    let authority = Authority::new().unwrap();
    let stranger = Authority::new().unwrap();
    for (by, flaw, reason) in [
        (&stranger, Flaw::None, "UnknownIssuer"),
        (&authority, Flaw::OtherHost, "not valid for name"),
        (&authority, Flaw::Expired, "expired"),
        (&authority, Flaw::NotYet, "not valid yet"),
    ] {
        let wrong = world(by.server(flaw).unwrap());
        let right = world(authority.server(Flaw::None).unwrap());
        let lambda = trusting(&wrong, &authority);
        let file = pem_file(&right, authority.pem());
        waits_for(wrong, lambda, reason, right, |builder| builder.env("OUTLAST_CA_FILE", file.display()))
            .await;
    }
}

#[tokio::test]
async fn a_file_of_authorities_that_cannot_be_used_is_told_in_one_line_and_stops_nothing() {
    let authority = Authority::new().unwrap();
    for content in [Some("no certificate at all"), Some(""), None] {
        let wrong = world(authority.server(Flaw::None).unwrap());
        let file = match content {
            Some(content) => pem_file(&wrong, content),
            None => wrong.queue().with_file_name("absent.pem"),
        };
        let right = world(authority.server(Flaw::None).unwrap());
        let good = pem_file(&right, authority.pem());
        let lambda = wrong.lambda().env("OUTLAST_CA_FILE", file.display());
        waits_for(wrong, lambda, "OUTLAST_CA_FILE=", right, |builder| {
            builder.env("OUTLAST_CA_FILE", good.display())
        })
        .await;
    }
}

#[tokio::test]
async fn plain_http_behind_https_and_the_other_way_round_keep_the_data() {
    let authority = Authority::new().unwrap();
    let plain = World::new().await;
    let right = World::new().await;
    let lambda = plain.lambda().env("OUTLAST_ENDPOINT", plain.backend.url().replace("http:", "https:"));
    waits_without_defects(plain, lambda, right).await;
    let tls = world(authority.server(Flaw::None).unwrap());
    let right = World::new().await;
    let lambda = tls.lambda().env("OUTLAST_ENDPOINT", tls.backend.url().replace("https:", "http:"));
    waits_without_defects(tls, lambda, right).await;
}

async fn waits_without_defects(world: World, lambda: Builder, right: World) {
    waits_for(world, lambda, "backend: away", right, |builder| builder).await;
}

/// A healthy time, then `door`, invocations, and the door open again.
async fn outage(lambda: &Sandbox, world: &World, door: Door) {
    invoke(lambda, Invocation::new().logs(10)).await;
    world.until_delivered(lambda).await;
    world.backend.set_door(door).await.unwrap();
    world.backend.cut_all().await;
    invoke(lambda, Invocation::new().logs(10)).await;
    within("the outage to be told", lambda.until_output(|line| line.contains("backend: away"))).await;
    free_invocations(lambda).await;
}

#[tokio::test]
async fn a_handshake_that_hangs_is_an_outage_in_which_nothing_was_sent() {
    let authority = Authority::new().unwrap();
    let world = world(authority.server(Flaw::None).unwrap());
    let lambda = trusting(&world, &authority).env("OUTLAST_TIMEOUT", "150ms").start().await.unwrap();
    outage(&lambda, &world, Door::Unaccepted).await;
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    attempts_within_budget(&lambda).await;
    world.end(lambda).await;
}

#[tokio::test]
async fn a_handshake_that_hangs_does_not_keep_a_shutdown() {
    let authority = Authority::new().unwrap();
    let world = world(authority.server(Flaw::None).unwrap());
    let lambda = trusting(&world, &authority).start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    world.backend.set_door(Door::Unaccepted).await.unwrap();
    world.backend.cut_all().await;
    invoke(&lambda, Invocation::new().logs(10)).await;
    let end = leave(&lambda).await;
    assert!(end.left().is_some(), "before the deadline");
    let left = left_on_disk(&lambda);
    assert!(left > 0);
    world.backend.recover().await.unwrap();
    let next = trusting(&world, &authority).start().await.unwrap();
    invoke(&next, Invocation::new().logs(10)).await;
    world.until_delivered(&next).await;
    world.wait_for(|received| received.records().len() >= lambda.acknowledged_count() + 10).await;
    leave(&next).await;
    assert_eq!(balance(&[&lambda, &next], &world.backend).repeated, 0);
}

#[tokio::test]
async fn a_backend_that_asks_for_a_certificate_is_shown_one() {
    let (authority, clients) = (Authority::new().unwrap(), Authority::new().unwrap());
    let (certificate, key) = clients.client().unwrap();
    for [certificate_variable, key_variable] in [
        ["OUTLAST_CLIENT_CERT_FILE", "OUTLAST_CLIENT_KEY_FILE"],
        ["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_KEY"],
    ] {
        let world = world(authority.server_asking(&clients).unwrap());
        let file = |name: &str, content: &str| {
            let file = world.queue().with_file_name(name);
            std::fs::write(&file, content).unwrap();
            file
        };
        let (certificate, key) = (file("client.pem", &certificate), file("client.key", &key));
        let lambda = trusting(&world, &authority)
            .env(certificate_variable, certificate.display())
            .env(key_variable, key.display());
        delivers(world, lambda).await;
    }
    let world = world(authority.server_asking(&clients).unwrap());
    let both = world.queue().with_file_name("both.pem");
    std::fs::write(&both, format!("{certificate}{key}")).unwrap();
    let lambda = trusting(&world, &authority).env("OUTLAST_CLIENT_CERT_FILE", both.display());
    delivers(world, lambda).await;
}

#[tokio::test]
async fn without_a_certificate_that_can_be_shown_the_data_waits_for_one() {
    let (authority, clients) = (Authority::new().unwrap(), Authority::new().unwrap());
    let world = world(authority.server_asking(&clients).unwrap());
    let wrong = world.queue().with_file_name("client.pem");
    std::fs::write(&wrong, authority.pem()).unwrap();
    let lambda = trusting(&world, &authority).env("OUTLAST_CLIENT_CERT_FILE", wrong.display());
    let lambda = lambda.start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    within("the outage to be told", lambda.until_output(|line| line.contains("backend: away"))).await;
    leave(&lambda).await;
    assert_eq!(lines_with(&lambda, "holds no key in PEM"), 1, "{:?}", output(&lambda));
    assert_eq!(left_on_disk(&lambda), lambda.acknowledged_count());
    let (certificate, key) = clients.client().unwrap();
    std::fs::write(&wrong, format!("{certificate}{key}")).unwrap();
    let next = trusting(&world, &authority).env("OUTLAST_CLIENT_CERT_FILE", wrong.display());
    let next = next.start().await.unwrap();
    world.wait_for(|received| received.records().len() >= lambda.acknowledged_count()).await;
    leave(&next).await;
    assert_eq!(balance(&[&lambda, &next], &world.backend).repeated, 0);
}

#[tokio::test]
async fn a_fallback_is_trusted_by_the_same_authorities() {
    let authority = Authority::new().unwrap();
    let world = World::new().await;
    let second = Backend::builder().tls(authority.server(Flaw::None).unwrap()).start().unwrap();
    world.backend.set_door(Door::Refused).await.unwrap();
    let lambda = trusting(&world, &authority).env("OUTLAST_FALLBACK", second.url()).start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    within("deliveries", lambda.settled()).await;
    leave(&lambda).await;
    assert!(second.records().len() >= lambda.acknowledged_count(), "{:?}", output(&lambda));
    assert_eq!(left_on_disk(&lambda), 0);
}

#[tokio::test]
async fn an_endpoint_on_the_machine_is_reached_directly_although_another_is_reached_by_a_proxy() {
    let world = World::new().await;
    let proxy = Proxy::start(world.backend.address()).await.unwrap();
    let lambda = world
        .lambda()
        .env("OUTLAST_ENDPOINT", "")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", world.backend.url())
        .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://other.example/v1/traces")
        .env("OUTLAST_SIGNALS", "logs,traces")
        .env("OUTLAST_SAMPLER", "always_on")
        .env("HTTP_PROXY", proxy.url())
        .env("HTTPS_PROXY", proxy.url())
        .start()
        .await
        .unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    assert!(!world.backend.requests().is_empty());
    let asked = proxy.asked();
    assert!(asked.iter().all(|line| line == "CONNECT other.example:443 HTTP/1.1"), "{asked:?}");
}

#[tokio::test]
async fn a_proxy_from_the_environment_is_used_unless_the_host_is_excepted() {
    let authority = Authority::new().unwrap();
    let world = world(authority.server(Flaw::OtherHost).unwrap());
    let proxy = Proxy::start(world.backend.address()).await.unwrap();
    // Nobody has an address for this name but the proxy.
    let by_proxy = |lambda: Builder| {
        lambda.env("OUTLAST_ENDPOINT", "https://other.example").env("HTTPS_PROXY", proxy.url())
    };
    let excepted = by_proxy(trusting(&world, &authority))
        .env("NO_PROXY", "x.example,other.example")
        .start()
        .await
        .unwrap();
    invoke(&excepted, Invocation::new().logs(5)).await;
    within("the outage to be told", excepted.until_output(|line| line.contains("backend: away"))).await;
    leave(&excepted).await;
    assert_eq!(proxy.asked(), [] as [&str; 0]);
    let lambda = by_proxy(trusting(&world, &authority)).env("NO_PROXY", "x.example").start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(5)).await;
    let expected = excepted.acknowledged_count() + 5;
    world.wait_for(|received| received.records().len() >= expected).await;
    leave(&lambda).await;
    assert!(
        proxy.asked().iter().all(|line| line == "CONNECT other.example:443 HTTP/1.1"),
        "{:?}",
        proxy.asked()
    );
    assert!(!proxy.asked().is_empty());
    assert_eq!(balance(&[&excepted, &lambda], &world.backend).repeated, 0);
}

#[tokio::test]
async fn an_address_of_ipv6_is_an_address() {
    // Where there is no IPv6 there is nothing to try.
    let Ok(backend) = Backend::builder().bind("[::1]:0".parse().unwrap()).start() else {
        return eprintln!("an_address_of_ipv6_is_an_address: SKIPPED, there is no ::1");
    };
    let world = World::around(backend);
    let lambda = world.lambda();
    delivers(world, lambda).await;
}
