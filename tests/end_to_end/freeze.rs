//! Stopped between invocations, with and without a request under way.

use crate::support::{World, invoke, leave, ms, within};
use outlast_backend::{Behaviour, Signal, Verdict};
use outlast_simulator::{Freeze, Invocation};

/// Lambda freezes within about a millisecond.
const AT_ONCE: Freeze = Freeze::After(ms(1));

#[tokio::test]
async fn an_answer_that_came_during_the_freeze_counts() {
    let world = World::new().await;
    let lambda = world.lambda_of_logs().freeze(AT_ONCE).start().await.unwrap();
    world.backend.next_of(Signal::Logs, Behaviour::healthy().held());
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_in_flight().await;
    within("the freeze", lambda.frozen()).await;
    world.backend.release();
    world.wait_for(|received| received.requests_with(&Verdict::Accepted) == 1).await;
    invoke(&lambda, Invocation::new().runs_for(ms(50)).logs(10)).await;
    invoke(&lambda, Invocation::new().runs_for(ms(50)).logs(10)).await;
    world.end(lambda).await;
}

#[tokio::test]
async fn an_answer_that_came_during_a_long_freeze_counts() {
    let world = World::new().await;
    let lambda = world.lambda_of_logs().freeze(AT_ONCE).start().await.unwrap();
    world.backend.next_of(Signal::Logs, Behaviour::healthy().held());
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_in_flight().await;
    within("the freeze", lambda.frozen()).await;
    world.backend.release();
    world.wait_for(|received| received.requests_with(&Verdict::Accepted) == 1).await;
    // From a second on, a freeze is taken to have cost the connection.
    tokio::time::sleep(ms(1_300)).await;
    invoke(&lambda, Invocation::new().runs_for(ms(50)).logs(10)).await;
    world.end(lambda).await;
}

#[tokio::test]
async fn a_request_that_a_long_freeze_cost_goes_again_on_a_new_connection() {
    let world = World::new().await;
    let lambda = world.lambda_of_logs().freeze(AT_ONCE).env("OUTLAST_TIMEOUT", "10m").start().await.unwrap();
    world.backend.next_of(Signal::Logs, Behaviour::hang());
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_requests(1).await;
    within("the freeze", lambda.frozen()).await;
    tokio::time::sleep(ms(1_300)).await;
    // Without the grace for frozen requests this would take the ten minutes of the time-out.
    let world = &world;
    tokio::join!(
        async {
            invoke(&lambda, Invocation::new().runs_for(ms(2_000)).logs(10)).await;
        },
        world.until_requests(2),
    );
    let requests = world.backend.requests();
    assert_ne!(requests[0].connection, requests[1].connection);
    world.end(lambda).await;
}

#[tokio::test]
async fn connections_cut_while_frozen_cost_nothing() {
    let world = World::new().await;
    let lambda = world.lambda().freeze(AT_ONCE).start().await.unwrap();
    for _ in 0..8 {
        invoke(&lambda, Invocation::new().runs_for(ms(40)).logs(10)).await;
        within("the freeze", lambda.frozen()).await;
        world.backend.cut_idle().await;
    }
    world.end(lambda).await;
}

#[tokio::test]
async fn a_connection_that_was_idle_for_long_is_not_used_again() {
    let world = World::new().await;
    let lambda = world.lambda_of_logs().freeze(AT_ONCE).start().await.unwrap();
    invoke(&lambda, Invocation::new().runs_for(ms(50)).logs(10)).await;
    world.until_delivered(&lambda).await;
    within("the freeze", lambda.frozen()).await;
    let before = world.backend.requests().len();
    // Networks forget connections without a word. From four seconds on, none is trusted.
    tokio::time::sleep(ms(4_300)).await;
    invoke(&lambda, Invocation::new().runs_for(ms(50)).logs(10)).await;
    world.until_requests(before + 1).await;
    let requests = world.backend.requests();
    assert_ne!(requests[before].connection, requests[before - 1].connection);
    world.end(lambda).await;
}

#[tokio::test]
async fn a_request_cut_while_frozen_goes_again() {
    let world = World::new().await;
    let lambda = world.lambda().freeze(AT_ONCE).start().await.unwrap();
    for _ in 0..3 {
        world.backend.next_of(Signal::Logs, Behaviour::hang());
        let before = world.backend.requests().len();
        // It is let go with the request still under way, once that is older than a hold may be.
        invoke(&lambda, Invocation::new().runs_for(ms(60)).logs(10)).await;
        if world.backend.requests().len() > before {
            within("the freeze", lambda.frozen()).await;
            world.backend.cut_all().await;
        }
    }
    world.end(lambda).await;
}

#[tokio::test]
async fn a_busy_function_is_delivered_while_it_runs() {
    let world = World::new().await;
    let lambda = world.lambda().freeze(AT_ONCE).env("OUTLAST_MAX_DELAY", "1s").start().await.unwrap();
    while world.backend.requests().len() < 4 {
        invoke(&lambda, Invocation::new().runs_for(ms(20)).logs(5)).await;
    }
    leave(&lambda).await;
    let balance = crate::support::balance(&[&lambda], &world.backend);
    assert_eq!(balance.repeated, 0);
}
