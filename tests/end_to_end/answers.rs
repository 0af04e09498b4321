//! Backends that answer oddly, in part, or not at all. What a whole outage looks like is in `outage.rs`.

use crate::support::{
    World, acknowledged, attempts_within_budget, balance, delivered, free_invocations, invoke, leave,
    left_on_disk, lines_with, ms, output, within,
};
use outlast_backend::{Answer, Behaviour, Door, Fate, Reset, Rest, Verdict};
use outlast_simulator::Invocation;
use std::collections::HashSet;
use std::time::{Duration, SystemTime};

/// Attempts made while an outage lasts: enough for the breaker to open and to be probed.
const ATTEMPTS: usize = 6;

/// Which records may come twice.
#[derive(Clone, Copy, PartialEq)]
enum Repeats {
    /// None: the backend's answers leave no doubt, or nothing was sent.
    None,
    /// Those of requests that were kept although the extension could not know.
    Doubtful,
}

/// A healthy invocation, an outage in which invocations are free, recovery: everything arrives, attempts are within their
/// budget, and nothing comes twice but what the backend kept without saying so.
async fn survives(behaviour: Behaviour, repeats: Repeats) -> World {
    let world = World::new().await;
    let lambda = world.lambda().env("OUTLAST_TIMEOUT", "200ms").start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    let before = world.backend.requests().len();
    world.backend.behave(behaviour);
    invoke(&lambda, Invocation::new().logs(10)).await;
    within("the outage to be told", lambda.until_output(|line| line.contains("backend: "))).await;
    free_invocations(&lambda).await;
    world.until_requests(before + ATTEMPTS).await;
    free_invocations(&lambda).await;
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    attempts_within_budget(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 120);
    leave(&lambda).await;
    let repeated = balance(&[&lambda], &world.backend).repeated;
    let kept_in_doubt: usize = world
        .backend
        .requests()
        .iter()
        .filter(|request| request.kept && request.answered_at.is_none())
        .map(|request| request.records)
        .sum();
    assert!(repeated <= kept_in_doubt, "{repeated} records came again, {kept_in_doubt} had been in doubt");
    assert!(repeats == Repeats::Doubtful || repeated == 0);
    assert_eq!(world.reported(), 0);
    world
}

#[tokio::test]
async fn statuses_that_ask_for_patience() {
    for status in [408, 425, 502, 504, 507, 599] {
        survives(Behaviour::status(status), Repeats::None).await;
    }
}

#[tokio::test]
async fn redirects_of_every_kind() {
    for status in [301, 302, 303, 308] {
        let behaviour = Behaviour::redirect(status, "http://127.0.0.1:1/elsewhere");
        survives(behaviour, Repeats::None).await;
    }
}

#[tokio::test]
async fn gzip_and_identity_both_refused() {
    let world = survives(Behaviour::status(415), Repeats::None).await;
    let requests = world.backend.requests();
    let refused = requests.iter().filter(|request| request.verdict == Verdict::Status(415));
    let gzip = refused.clone().filter(|request| request.encoding() == "gzip").count();
    assert!((1..=3).contains(&gzip), "gzip is tried once by a signal: {gzip}");
}

#[tokio::test]
async fn a_backend_that_does_not_even_read() {
    survives(Behaviour::Deaf, Repeats::None).await;
}

#[tokio::test]
async fn answers_that_break_off_in_their_head() {
    // Kept, and nobody told: these are the requests that repeat.
    survives(Behaviour::healthy().broken_off(0, Rest::Reset), Repeats::Doubtful).await;
    survives(Behaviour::healthy().broken_off(14, Rest::Reset), Repeats::Doubtful).await;
    survives(Behaviour::status(503).broken_off(30, Rest::Reset), Repeats::None).await;
}

#[tokio::test]
async fn answers_that_stop_in_their_head() {
    survives(Behaviour::healthy().broken_off(14, Rest::Hang), Repeats::Doubtful).await;
    survives(Behaviour::status(503).broken_off(30, Rest::Hang), Repeats::None).await;
}

#[tokio::test]
async fn answers_that_take_longer_than_there_is_time() {
    survives(Behaviour::healthy().trickled(ms(1_000)), Repeats::Doubtful).await;
}

#[tokio::test]
async fn requests_that_are_kept_and_never_answered() {
    survives(Behaviour::Hang(Fate::Kept), Repeats::Doubtful).await;
    survives(Behaviour::Reset(Reset::AfterBody(Fate::Kept)), Repeats::Doubtful).await;
}

/// The backend takes everything, in its own way.
async fn takes(behaviour: Behaviour) -> World {
    let world = World::new().await;
    world.backend.behave(behaviour);
    let lambda = world.lambda().start().await.unwrap();
    for _ in 0..3 {
        invoke(&lambda, Invocation::new().logs(10)).await;
        world.until_delivered(&lambda).await;
    }
    world.end(lambda).await;
    world
}

#[tokio::test]
async fn a_success_whose_body_is_rubbish_or_never_ends_is_a_success() {
    for body in [vec![0; 3], vec![0xff; 100_000], b"{\"partialSuccess\":".to_vec(), vec![0x0a, 0x7f, 0x08]] {
        takes(Behaviour::garbage(body)).await;
    }
    // The head is there, the body is not: the status decides.
    takes(Behaviour::garbage(vec![b'x'; 500]).broken_off(150, Rest::Hang)).await;
    takes(Behaviour::garbage(vec![b'x'; 500]).broken_off(150, Rest::Reset)).await;
}

#[tokio::test]
async fn a_rejection_of_more_than_was_sent_is_one_of_what_was_sent() {
    for rejected in [1_000, i64::MAX.unsigned_abs(), u64::MAX] {
        let world = World::new().await;
        let lambda = world.lambda().start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(10)).await;
        world.until_delivered(&lambda).await;
        let before = world.backend.requests().len();
        world.backend.next(Behaviour::partial(rejected, "all of it"));
        invoke(&lambda, Invocation::new().logs(10)).await;
        world.until_requests(before + 1).await;
        invoke(&lambda, Invocation::new().logs(10)).await;
        leave(&lambda).await;
        let (got, repeated) = delivered(&world.backend);
        let lost = acknowledged(&[&lambda]).len() - got.len();
        assert_eq!(world.reported_for("rejected"), lost as u64);
        assert_eq!(world.reported(), lost as u64);
        assert_eq!((world.backend.requests()[before].records, repeated), (lost, 0));
    }
}

#[tokio::test]
async fn a_backend_that_refuses_every_record_costs_every_record_and_says_so() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(400));
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    within("the refusals to be told", lambda.until_output(|line| line.contains("records given up"))).await;
    free_invocations(&lambda).await;
    // More than are refused without a pause.
    world.until_requests(150).await;
    world.backend.recover().await.unwrap();
    invoke(&lambda, Invocation::new().line("taken")).await;
    world.wait_for(|received| received.texts().contains(&"taken")).await;
    leave(&lambda).await;
    let (got, repeated) = delivered(&world.backend);
    let refused = world.reported_for("refused");
    assert!(refused > 10, "one by one: {refused}, {:#?}", output(&lambda));
    assert_eq!(got.len() as u64 + refused, acknowledged(&[&lambda]).len() as u64, "{:#?}", output(&lambda));
    assert_eq!((repeated, world.reported()), (0, refused));
    assert!(output(&lambda).len() < 10, "a few lines, not one per record: {:#?}", output(&lambda));
}

#[tokio::test]
async fn a_retry_after_that_means_now_or_nothing_does_not_delay_a_recovery() {
    let past = SystemTime::now() - Duration::from_secs(100_000);
    let values = ["0", "-5", "soon", "", "1e3", "Thu, 01 Jan 1970 00:00:00 GMT", "\u{e9}"];
    for status in [408, 429, 500, 502, 503, 504] {
        let world = World::new().await;
        let lambda = world.lambda().start().await.unwrap();
        for value in values {
            world.backend.next(Behaviour::answer(Answer::new(status).retry_after(value)));
        }
        world.backend.next(Behaviour::answer(Answer::new(status).retry_after_date(past)));
        invoke(&lambda, Invocation::new().logs(10)).await;
        world.until_delivered(&lambda).await;
        world.end(lambda).await;
        let requests = world.backend.requests();
        assert_eq!(requests[values.len()].verdict, Verdict::Status(status));
        // A 500 in a row of them makes a search; the others are asked again and taken.
        assert!(requests[values.len() + 1..].iter().all(|request| request.verdict == Verdict::Accepted));
    }
}

#[tokio::test]
async fn a_retry_after_of_years_is_waited_for_and_a_shutdown_does_not() {
    let far = SystemTime::now() + Duration::from_secs(1_000_000_000);
    let years = Answer::new(503).retry_after("99999999999999999999");
    for answer in [years, Answer::new(429).retry_after_date(far), Answer::new(500).retry_after("86400")] {
        let world = World::new().await;
        let lambda = world.lambda_of_logs().start().await.unwrap();
        world.backend.next(Behaviour::answer(answer));
        invoke(&lambda, Invocation::new().logs(10)).await;
        within("the outage to be told", lambda.until_output(|line| line.contains("backend: away"))).await;
        for _ in 0..3 {
            free_invocations(&lambda).await;
        }
        within("deliveries", lambda.settled()).await;
        assert_eq!(world.backend.requests().len(), 1, "told to wait");
        world.end(lambda).await;
        assert!(world.backend.requests().len() > 1, "the end waits for nobody");
    }
}

#[tokio::test]
async fn a_413_with_retry_after_is_a_413() {
    let world = World::new().await;
    // Of one signal, so that the second request is what became of the first.
    let lambda = world.lambda_of_logs().start().await.unwrap();
    world.backend.next(Behaviour::answer(Answer::new(413).retry_after("99999")));
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    let requests = world.backend.requests();
    assert!(requests[1].wire_bytes < requests[0].wire_bytes, "smaller, and at once");
    assert_eq!(world.reported(), 0);
}

#[tokio::test]
async fn a_shutdown_in_any_outage_is_in_time_and_keeps_the_data() {
    for behaviour in [
        Behaviour::Deaf,
        Behaviour::healthy().trickled(ms(1_000)),
        Behaviour::status(503).broken_off(10, Rest::Hang),
        Behaviour::status(403),
        Behaviour::answer(Answer::new(503).retry_after("100000")),
    ] {
        let world = World::new().await;
        let lambda = world.lambda().start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(10)).await;
        world.until_delivered(&lambda).await;
        world.backend.behave(behaviour);
        invoke(&lambda, Invocation::new().logs(10)).await;
        let end = leave(&lambda).await;
        assert!(end.left().is_some(), "before the deadline");
        assert!(left_on_disk(&lambda) > 0);
        world.backend.recover().await.unwrap();
        let next = world.aftermath().await;
        let repeated = balance(&[&lambda, &next], &world.backend).repeated;
        let in_doubt: usize =
            world.backend.requests().iter().filter(|request| request.kept).map(|r| r.records).sum();
        assert!(repeated <= in_doubt - delivered(&world.backend).0.len());
    }
}

/// Every phase is a different fault, in an order that the seed gives; the same seed is the same story.
async fn flaps(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::new().await;
    let lambda = world.lambda().env("OUTLAST_TIMEOUT", "150ms").start().await.unwrap();
    let mut doors = 0;
    for _ in 0..12 {
        match random.u8(..10) {
            0 => world.backend.behave(Behaviour::status([408, 429, 502, 503, 504][random.usize(..5)])),
            1 => world.backend.behave(Behaviour::status(401)),
            2 => world.backend.behave(Behaviour::Reset(Reset::AfterBytes(random.usize(..300)))),
            3 => world.backend.behave(Behaviour::Reset(Reset::AfterBody(Fate::Kept)).flaky(0.5, seed)),
            4 => world.backend.behave(Behaviour::hang()),
            5 => world.backend.behave(Behaviour::healthy().broken_off(random.usize(..60), Rest::Reset)),
            6 => world.backend.behave(Behaviour::too_large_above_plain(random.usize(2_000..20_000))),
            7 => {
                doors += 1;
                world.backend.set_door([Door::Refused, Door::Unreachable][doors % 2]).await.unwrap();
            }
            8 => world.backend.behave(Behaviour::AnswerEarly(Answer::new(503))),
            _ => {}
        }
        for _ in 0..random.u8(1..4) {
            invoke(&lambda, Invocation::new().runs_for(ms(random.u64(..5))).logs(random.usize(1..30))).await;
        }
        within("deliveries", lambda.settled()).await;
        if random.bool() {
            world.backend.recover().await.unwrap();
        }
        if random.u8(..4) == 0 {
            world.backend.cut_all().await;
        }
    }
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    let repeated = balance(&[&lambda], &world.backend).repeated;
    let requests = world.backend.requests();
    let unsure =
        requests.iter().filter(|r| r.kept && (r.answered_at.is_none() || r.verdict != Verdict::Accepted));
    let in_doubt: usize = unsure.map(|request| request.records).sum();
    assert!(repeated <= in_doubt, "seed {seed}: {repeated} came again, {in_doubt} had been in doubt");
    assert_eq!(world.reported(), 0, "seed {seed}");
    let keys: HashSet<_> = requests.iter().filter_map(|r| r.header("idempotency-key")).collect();
    assert!(!keys.is_empty() && lines_with(&lambda, "panic") == 0, "seed {seed}");
}

#[tokio::test]
async fn a_backend_that_flaps_in_every_way_gets_everything() {
    for seed in 0..3 {
        flaps(seed).await;
    }
}

#[tokio::test]
async fn a_backend_that_flaps_in_other_orders_gets_everything() {
    for seed in 3..6 {
        flaps(seed).await;
    }
}
