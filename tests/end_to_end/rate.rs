//! A bound on what is sent per second: what is beyond waits, and is lost no more than anything else.

use crate::overflow::heavy;
use crate::support::{World, balance, invoke, leave, lines_with, ms, output, within};
use outlast_backend::Behaviour;
use outlast_simulator::Invocation;

#[tokio::test]
async fn a_rate_limit_keeps_what_is_beyond_it_until_shutdown() {
    let world = World::new().await;
    let lambda = world.lambda_of_logs().env("OUTLAST_RATE_LIMIT", "1KiB").start().await.unwrap();
    invoke(&lambda, heavy(1)).await;
    world.until_requests(1).await;
    invoke(&lambda, heavy(2)).await;
    within("deliveries", lambda.settled()).await;
    world.until_idle().await;
    // A request of 200 kB has used up minutes.
    let before = world.backend.records().len();
    assert!(before < lambda.acknowledged_count(), "{before}");
    leave(&lambda).await;
    let balance = balance(&[&lambda], &world.backend);
    assert_eq!(balance.repeated, 0);
    let sent: usize = world.backend.requests().iter().map(|request| request.wire_bytes).sum();
    assert_eq!(lines_with(&lambda, &format!("; {sent} bytes sent")), 1, "{:?}", output(&lambda));
}

#[tokio::test]
async fn what_a_request_had_sent_before_it_was_given_up_counts_for_the_rate() {
    let world = World::new().await;
    world.backend.behave(Behaviour::hang());
    let limited = world.lambda_of_logs().env("OUTLAST_RATE_LIMIT", "1KiB").env("OUTLAST_TIMEOUT", "150ms");
    let lambda = limited.env("OUTLAST_RETRY_MAX", "200ms").start().await.unwrap();
    invoke(&lambda, heavy(1)).await;
    world.until_requests(1).await;
    // Many times what a time-out and a delay take; 200 kB are minutes.
    for _ in 0..10 {
        invoke(&lambda, Invocation::new().runs_for(ms(200)).logs(1)).await;
    }
    assert_eq!(world.backend.requests().len(), 1);
    world.backend.recover().await.unwrap();
    leave(&lambda).await;
    assert_eq!(balance(&[&lambda], &world.backend).repeated, 0, "it was given up before it was taken");
}
