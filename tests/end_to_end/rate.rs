//! A bound on what is sent per second: what is beyond waits, and is lost no more than anything else.

use crate::overflow::heavy;
use crate::support::{World, balance, invoke, leave, lines_with, output, within};

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
