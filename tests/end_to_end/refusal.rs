//! A backend that is there and does not want what it gets.

use crate::support::{
    World, acknowledged, count_of, delivered, invoke, is_report, leave, lines_with, output, within,
};
use outlast_backend::{Behaviour, Condition, Signal, Verdict};
use outlast_simulator::{Invocation, Sandbox};
use std::collections::HashSet;

/// A backlog of this many deliveries, each a block of its own, while the backend is away.
pub(crate) async fn backlog(world: &World, lambda: &Sandbox, blocks: usize, lines: usize) {
    world.backend.behave(Behaviour::status(503));
    for _ in 0..blocks {
        invoke(lambda, Invocation::new().logs(lines).padded(80)).await;
        within("the delivery", lambda.settled()).await;
    }
}

/// Less than the larger blocks: those go in parts.
const LIMIT: usize = 9_000;

#[tokio::test]
async fn what_is_too_large_goes_in_smaller_pieces() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    backlog(&world, &lambda, 20, 50).await;
    world.backend.behave(Behaviour::too_large_above_plain(LIMIT));
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 1_000);
    world.end(lambda).await;
    let requests = world.backend.requests();
    let accepted = requests.iter().filter(|request| request.verdict == Verdict::Accepted);
    assert!(accepted.clone().all(|request| request.plain_bytes <= LIMIT));
    assert!(requests.iter().any(|request| request.verdict == Verdict::Status(413)));
    assert_eq!(world.reported(), 0, "nothing had to go");
}

#[tokio::test]
async fn a_record_that_is_too_large_on_its_own_is_dropped_and_reported() {
    let world = World::new().await;
    world.backend.behave(Behaviour::too_large_above_plain(20_000));
    let lambda = world.lambda().start().await.unwrap();
    let huge = "h".repeat(30_000);
    let invocation = Invocation::new().line("before").line(huge.as_str()).line("after");
    invoke(&lambda, invocation).await;
    world.wait_for(|received| received.records().iter().any(is_report)).await;
    leave(&lambda).await;
    only_missing(&world, &lambda, &[&huge]);
    assert_eq!(world.reported_for("refused"), 1);
}

/// Exactly these lines are missing, everything else came once and in order.
pub(crate) fn only_missing(world: &World, lambda: &Sandbox, lost: &[&str]) {
    let lost: HashSet<&str> = lost.iter().copied().collect();
    let mut expected = acknowledged(&[lambda]);
    let all = expected.len();
    expected.retain(|told| !told.body.as_str().is_some_and(|text| lost.contains(text)));
    assert_eq!(all - expected.len(), lost.len(), "they were acknowledged");
    let (got, repeated) = delivered(&world.backend);
    assert_eq!(got, expected, "{:?}", output(lambda));
    assert_eq!(repeated, 0);
}

pub(crate) fn poisoned(record: &outlast_backend::Record) -> bool {
    record.text.contains("poison")
}

#[tokio::test]
async fn poison_goes_alone_and_is_reported() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    backlog(&world, &lambda, 5, 20).await;
    invoke(&lambda, Invocation::new().logs(10).line("poison").logs(30)).await;
    within("the delivery", lambda.settled()).await;
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().logs(20)).await;
    }
    within("the delivery", lambda.settled()).await;
    world.backend.behave(Behaviour::poisoned_by(poisoned));
    world.wait_for(|received| received.records().iter().any(is_report)).await;
    leave(&lambda).await;
    only_missing(&world, &lambda, &["poison"]);
    let reports: Vec<_> = world.backend.records().into_iter().filter(is_report).collect();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert_eq!(count_of(&reports[0]), 1);
    assert_eq!(reports[0].attributes["outlast.dropped.reason"], "refused");
    assert_eq!(reports[0].attributes["outlast.dropped.signal"], "logs");
    assert_eq!(reports[0].severity_text, "WARN");
    assert_eq!(lines_with(&lambda, "records given up"), 1);
    assert_eq!(lines_with(&lambda, "a record is not acceptable"), 1, "{:#?}", output(&lambda));
}

#[tokio::test]
async fn every_poison_is_counted() {
    let world = World::new().await;
    world.backend.behave(Behaviour::poisoned_by(poisoned));
    let lambda = world.lambda().start().await.unwrap();
    let mut invocation = Invocation::new();
    for line in 0..60 {
        let kind = if [0, 1, 17, 40, 59].contains(&line) { "poison" } else { "food" };
        invocation = invocation.line(format!("{kind} {line}"));
    }
    invoke(&lambda, invocation).await;
    within("the delivery", lambda.settled()).await;
    world.wait_for(|received| received.texts().contains(&"food 58")).await;
    // The first is reported at once, the others together when the extension leaves.
    leave(&lambda).await;
    only_missing(&world, &lambda, &["poison 0", "poison 1", "poison 17", "poison 40", "poison 59"]);
    assert_eq!(world.reported_for("refused"), 5);
    assert_eq!(world.reported(), 5);
}

#[tokio::test]
async fn a_500_for_one_record_that_an_earlier_process_left_costs_that_record_only() {
    let world = World::new().await;
    let lambda = world.lambda_of_logs().start().await.unwrap();
    world.backend.behave(Behaviour::status(503));
    // Each a block of its own: the neighbour by which the first is judged is in the next one.
    for line in ["broken", "second", "third"] {
        invoke(&lambda, Invocation::new().line(line)).await;
        within("the delivery", lambda.settled()).await;
    }
    lambda.kill().await;
    let broken = Condition::any_record(|record| record.text == "broken");
    world.backend.behave(Behaviour::status(500).when(broken));
    invoke(&lambda, Invocation::new().line("last")).await;
    world.wait_for(|received| received.records().iter().any(is_report)).await;
    leave(&lambda).await;
    only_missing(&world, &lambda, &["broken"]);
    assert_eq!((world.reported_for("refused"), world.reported()), (1, 1));
}

#[tokio::test]
async fn a_500_for_one_record_costs_that_record_only() {
    let world = World::new().await;
    let broken = Condition::any_record(poisoned);
    world.backend.behave(Behaviour::status(500).when(broken));
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().line("a").line("b").line("poison").line("c").line("d")).await;
    world.wait_for(|received| received.records().iter().any(is_report)).await;
    leave(&lambda).await;
    // An accused record and its alibi may change places with nothing but each other.
    only_missing(&world, &lambda, &["poison"]);
    assert_eq!(world.reported_for("refused"), 1);
}

async fn kept_until_mended(status: u16) {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    world.backend.behave(Behaviour::status(status));
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().logs(10)).await;
    }
    world.until_requests(3).await;
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 50);
    assert_eq!(lines_with(&lambda, &format!("backend: answers {status}")), 1, "told once");
    world.end(lambda).await;
    assert_eq!(world.reported(), 0);
}

#[tokio::test]
async fn wrong_credentials_keep_the_data() {
    kept_until_mended(401).await;
    kept_until_mended(403).await;
}

#[tokio::test]
async fn a_wrong_path_keeps_the_data() {
    kept_until_mended(404).await;
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_keeps_the_data() {
    let world = World::new().await;
    let other = World::new().await;
    world.backend.behave(Behaviour::redirect(307, format!("{}/v1/logs", other.backend.url())));
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_requests(3).await;
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    assert_eq!(other.backend.requests().len(), 0);
}

#[tokio::test]
async fn a_backend_without_gzip_gets_plain_bodies() {
    let world = World::new().await;
    world.backend.behave(Behaviour::no_gzip());
    let lambda = world.lambda_of_logs().start().await.unwrap();
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().logs(10)).await;
    }
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    let requests = world.backend.requests();
    assert_eq!(requests[0].verdict, Verdict::Status(415));
    assert!(requests[1..].iter().all(|request| request.encoding() == "identity"), "it is asked once");
    assert!(requests[1..].iter().all(|request| request.verdict == Verdict::Accepted));
}

#[tokio::test]
async fn what_a_partial_success_rejects_is_reported() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    world.backend.next_of(Signal::Logs, Behaviour::partial(3, "too old for us"));
    invoke(&lambda, Invocation::new().logs(10)).await;
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.wait_for(|received| received.records().iter().any(is_report)).await;
    within("the deliveries", lambda.settled()).await;
    leave(&lambda).await;
    let (got, repeated) = delivered(&world.backend);
    assert_eq!(got.len() + 3, acknowledged(&[&lambda]).len(), "what was rejected is not sent again");
    assert_eq!(repeated, 0);
    assert_eq!(world.reported_for("rejected"), 3);
    assert_eq!(world.reported(), 3);
    assert_eq!(lines_with(&lambda, "rejected 3 records: too old for us"), 1);
}
