//! A backend that is away in every way a backend can be, and comes back.

use crate::support::{RETRY_INITIAL, World, invoke, leave, lines_with, ms, within};
use outlast_backend::{Answer, Behaviour, Door, Fate, Request, Reset, Signal, Verdict};
use outlast_simulator::{ExtensionState, Invocation, Sandbox};
use std::time::{Duration, SystemTime};

/// Attempts made while a phase lasts: enough for the breaker to open and to be probed.
const ATTEMPTS: usize = 6;

/// A healthy invocation, an outage with invocations, recovery, one more invocation: everything arrives once.
async fn survives(behaviour: Behaviour) -> (World, Vec<Request>) {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    let before = world.backend.requests().len();
    world.backend.behave(behaviour);
    invoke_several(&lambda).await;
    world.until_requests(before + ATTEMPTS).await;
    invoke_several(&lambda).await;
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 120);
    assert_eq!(lines_with(&lambda, "backend: away"), 1, "an outage is told once");
    assert_eq!(lines_with(&lambda, "backend: takes data again"), 1);
    world.end(lambda).await;
    let requests = world.backend.requests();
    (world, requests)
}

/// Invocations succeed whatever the backend does.
async fn invoke_several(lambda: &Sandbox) {
    for _ in 0..5 {
        invoke(lambda, Invocation::new().runs_for(ms(2)).logs(10)).await;
    }
}

/// No attempt of a signal follows a failure sooner than the shortest pause, unless another signal was taken meanwhile: the
/// backend is back then, and waits are cut short. The pause counts from the answer, which is later than the request's arrival,
/// so a busy machine can only lengthen what is measured.
fn assert_paced(requests: &[Request], pause: Duration) {
    let is_taken = |request: &Request| matches!(request.verdict, Verdict::Accepted);
    for signal in Signal::ALL {
        let (own, others): (Vec<_>, Vec<_>) =
            requests.iter().partition(|request| request.path == signal.path());
        for pair in own.windows(2).filter(|pair| !is_taken(pair[0])) {
            // What was under way when this one failed counts as well: its answer may have come after.
            let is_back = others.iter().any(|other| {
                is_taken(other) && other.at + RETRY_INITIAL >= pair[0].at && other.at < pair[1].at
            });
            let passed = pair[1].at - pair[0].at;
            assert!(is_back || passed >= pause, "{passed:?} after {:?}", pair[0].verdict);
        }
    }
}

#[tokio::test]
async fn status_503() {
    let (_, requests) = survives(Behaviour::status(503)).await;
    assert_paced(&requests, RETRY_INITIAL);
}

#[tokio::test]
async fn status_429() {
    let (_, requests) = survives(Behaviour::status(429)).await;
    assert_paced(&requests, RETRY_INITIAL);
}

#[tokio::test]
async fn status_500() {
    let (_, requests) = survives(Behaviour::status(500)).await;
    assert_paced(&requests, RETRY_INITIAL);
}

#[tokio::test]
async fn status_503_on_half_of_the_requests() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503).flaky(0.5, 1));
    let lambda = world.lambda().start().await.unwrap();
    for _ in 0..20 {
        invoke(&lambda, Invocation::new().logs(20)).await;
    }
    world.until_delivered(&lambda).await;
    world.backend.recover().await.unwrap();
    world.end(lambda).await;
    assert_paced(&world.backend.requests(), RETRY_INITIAL);
}

#[tokio::test]
async fn reset_before_the_body() {
    let (_, requests) = survives(Behaviour::Reset(Reset::BeforeBody)).await;
    assert_paced(&requests, RETRY_INITIAL);
}

#[tokio::test]
async fn reset_in_the_body() {
    let (_, requests) = survives(Behaviour::Reset(Reset::AfterBytes(100))).await;
    assert_paced(&requests, RETRY_INITIAL);
}

#[tokio::test]
async fn reset_after_the_body() {
    let (_, requests) = survives(Behaviour::Reset(Reset::AfterBody(Fate::Lost))).await;
    assert_paced(&requests, RETRY_INITIAL);
}

#[tokio::test]
async fn an_answer_before_the_body() {
    survives(Behaviour::AnswerEarly(Answer::new(503))).await;
}

#[tokio::test]
async fn refused_connections() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    world.backend.set_door(Door::Refused).await.unwrap();
    invoke_several(&lambda).await;
    within("the outage to be told", lambda.until_output(|line| line.contains("backend: away"))).await;
    invoke_several(&lambda).await;
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 110);
    assert_eq!(lines_with(&lambda, "backend: away"), 1);
    world.end(lambda).await;
}

#[tokio::test]
async fn connections_that_are_never_completed() {
    for door in [Door::Unreachable, Door::Unaccepted] {
        let world = World::new().await;
        let lambda = world.lambda().env("OUTLAST_TIMEOUT", "100ms").start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(10)).await;
        world.until_delivered(&lambda).await;
        world.backend.set_door(door).await.unwrap();
        world.backend.cut_all().await;
        invoke_several(&lambda).await;
        within("the outage to be told", lambda.until_output(|line| line.contains("backend: away"))).await;
        invoke_several(&lambda).await;
        world.backend.recover().await.unwrap();
        world.until_delivered(&lambda).await;
        assert_eq!(lambda.acknowledged_lines().len(), 110);
        // Requests that waited in the kernel are read when the door opens; what they brought may come again.
        leave(&lambda).await;
        let balance = crate::support::balance(&[&lambda], &world.backend);
        assert!(door == Door::Unaccepted || balance.repeated == 0);
    }
}

#[tokio::test]
async fn invocations_go_on_while_a_request_hangs() {
    let world = World::new().await;
    world.backend.behave(Behaviour::healthy().held());
    let lambda = world.lambda_of_logs().env("OUTLAST_TIMEOUT", "10m").start().await.unwrap();
    for _ in 0..10 {
        invoke(&lambda, Invocation::new().runs_for(ms(2)).logs(10)).await;
    }
    world.until_in_flight().await;
    // The very first request still hangs, and Lambda was asked for the next event all the same.
    assert_eq!(lambda.extensions()[0].1, ExtensionState::Ready);
    assert_eq!(world.backend.requests().len(), 1, "one in flight, the rest waits: the order depends on it");
    assert_eq!(world.backend.received(|received| received.requests_with(&Verdict::Pending)), 1);
    world.backend.behave(Behaviour::healthy());
    world.backend.release();
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 100);
    world.end(lambda).await;
}

#[tokio::test]
async fn a_request_that_hangs_is_given_up_and_made_again() {
    let world = World::new().await;
    let timeout = ms(150);
    let lambda = world.lambda_of_logs().env("OUTLAST_TIMEOUT", "150ms").start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    let before = world.backend.requests().len();
    world.backend.behave(Behaviour::hang());
    invoke_several(&lambda).await;
    world.until_requests(before + 4).await;
    // What is given up is over: each attempt has a connection of its own, and none stays behind.
    world.wait_for(|_| world.backend.open_connections() <= 1).await;
    invoke_several(&lambda).await;
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 110);
    assert_eq!(lines_with(&lambda, "no answer in time"), 1);
    world.end(lambda).await;
    // A request begins before it arrives; the pause after the time-out is more than that takes.
    assert_paced(&world.backend.requests(), timeout);
}

#[tokio::test]
async fn a_request_that_was_taken_without_an_answer_repeats_with_the_same_uids_and_key() {
    let world = World::new().await;
    let lambda = world.lambda_of_logs().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    let before = world.backend.requests().len();
    world.backend.next_of(Signal::Logs, Behaviour::Reset(Reset::AfterBody(Fate::Kept)));
    let body = br#"[{"time":"2026-01-02T03:04:05.678Z","type":"function","record":"one\n"},
        {"time":"2026-01-02T03:04:05.678Z","type":"function","record":"two\n"}]"#;
    assert_eq!(lambda.inject(body).await.unwrap(), 200);
    world.until_requests(before + 2).await;
    world.wait_for(|received| received.requests_with(&Verdict::Accepted) == before + 1).await;
    leave(&lambda).await;
    let repeated = world.backend.repeated();
    assert_eq!(repeated.len(), 2, "what was in flight, and nothing else: {repeated:?}");
    assert!(repeated.iter().all(|repeat| repeat.times == 2));
    let requests = world.backend.requests();
    assert_eq!(requests[before].verdict, Verdict::Reset);
    let key = |at: usize| requests[at].header("idempotency-key");
    assert_eq!(key(before), key(before + 1));
}

#[tokio::test]
async fn retry_after_is_obeyed_in_seconds_and_as_a_date() {
    for date in [false, true] {
        let world = World::new().await;
        let lambda = world.lambda_of_logs().start().await.unwrap();
        let began = SystemTime::now();
        let answer = Answer::new(503);
        // A date has whole seconds, so the one two seconds ahead is at least one second ahead.
        let answer =
            if date { answer.retry_after_date(began + ms(2_000)) } else { answer.retry_after_seconds(1) };
        world.backend.next_of(Signal::Logs, Behaviour::answer(answer));
        invoke(&lambda, Invocation::new().logs(10)).await;
        world.until_requests(1).await;
        invoke_several(&lambda).await;
        world.until_delivered(&lambda).await;
        world.end(lambda).await;
        let requests = world.backend.requests();
        let waited = requests[1].at_wall.duration_since(began).unwrap();
        assert!(waited >= ms(1_000), "{waited:?}");
    }
}

#[tokio::test]
async fn an_outage_from_the_first_moment_on_is_no_different() {
    let world = World::new().await;
    world.backend.set_door(Door::Refused).await.unwrap();
    let lambda = world.lambda().start().await.unwrap();
    invoke_several(&lambda).await;
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 50);
    world.end(lambda).await;
}

#[tokio::test]
async fn a_recovery_begins_with_one_block_and_grows() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda_of_logs().start().await.unwrap();
    for _ in 0..40 {
        invoke(&lambda, Invocation::new().logs(10)).await;
        within("the delivery", lambda.settled()).await; // a delivery is a block
    }
    let failed = world.backend.requests().len();
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    let sizes: Vec<usize> = world.backend.requests()[failed..]
        .iter()
        .filter(|request| request.verdict == Verdict::Accepted)
        .map(|request| request.records)
        .collect();
    assert!(sizes[0] <= 20, "one block first: {sizes:?}");
    assert!(sizes.len() < 12, "and then ever more: {sizes:?}");
    assert!(sizes.iter().max().unwrap() >= &100, "{sizes:?}");
}

#[tokio::test]
async fn an_answer_that_trickles_is_still_an_answer() {
    let world = World::new().await;
    world.backend.behave(Behaviour::healthy().trickled(ms(1)));
    let lambda = world.lambda().start().await.unwrap();
    for _ in 0..3 {
        invoke(&lambda, Invocation::new().logs(10)).await;
    }
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    assert!(world.backend.requests().iter().all(|request| request.verdict == Verdict::Accepted));
}

#[tokio::test]
async fn a_success_that_says_nonsense_is_a_success() {
    let world = World::new().await;
    world.backend.behave(Behaviour::garbage("<html>hello</html>"));
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
}
