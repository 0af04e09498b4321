//! A function that is invoked seldom: its telemetry does not wait for the next time.

use crate::support::{World, invoke, leave, ms, within};
use outlast_backend::{Behaviour, Signal, Verdict};
use outlast_simulator::{Freeze, Invocation, Invoked};
use std::time::Duration;

/// Longer than `OUTLAST_MAX_DELAY` in these tests. It passes with everything frozen, so there is nothing to wait for.
const GAP: Duration = ms(60);

/// Whether a line was at the backend before the extension let go of the invocation that logged it.
fn arrived_within(world: &World, invoked: &Invoked, line: &str) -> bool {
    let let_go = invoked.released + invoked.extensions.expect("it asked for the next event");
    let records = world.backend.records();
    let record = records.iter().find(|record| record.text == line).unwrap_or_else(|| panic!("no {line}"));
    let request = &world.backend.requests()[usize::try_from(record.request).unwrap()];
    request.answered_at.is_some_and(|answered| answered <= let_go) || request.at < let_go
}

#[tokio::test]
async fn its_lines_arrive_before_it_is_let_go() {
    let world = World::new().await;
    let lambda = world
        .lambda()
        .freeze(Freeze::After(ms(1)))
        .env("OUTLAST_MAX_DELAY", "10ms")
        .env("OUTLAST_HOLD_MAX", "30s") // the delivery ends the hold, however busy the machine is
        .start()
        .await
        .unwrap();
    for number in 0..8 {
        let line = format!("line of {number}");
        let invoked = invoke(&lambda, Invocation::new().runs_for(ms(30)).line(line.as_str())).await;
        assert!(arrived_within(&world, &invoked, &line), "{number}: {invoked:?}");
        within("the freeze", lambda.frozen()).await;
        tokio::time::sleep(GAP).await;
    }
    world.end(lambda).await;
}

#[tokio::test]
async fn a_hung_backend_ends_the_hold() {
    let world = World::new().await;
    let lambda = world
        .lambda_of_logs()
        .freeze(Freeze::After(ms(1)))
        .env("OUTLAST_MAX_DELAY", "10ms")
        .env("OUTLAST_HOLD_MAX", "100ms")
        .env("OUTLAST_TIMEOUT", "10m")
        .start()
        .await
        .unwrap();
    world.backend.behave(Behaviour::healthy().held());
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().runs_for(ms(30)).logs(5)).await;
        within("the freeze", lambda.frozen()).await;
        tokio::time::sleep(GAP).await;
    }
    // All of them ended although the first request never did.
    assert_eq!(world.backend.requests().len(), 1);
    assert_eq!(world.backend.received(|received| received.requests_with(&Verdict::Pending)), 1);
    world.backend.recover().await.unwrap();
    world.backend.release();
    world.wait_for(|received| received.requests_with(&Verdict::Accepted) == 1).await;
    world.end(lambda).await;
}

#[tokio::test]
async fn a_backend_known_to_be_away_is_not_waited_for() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let lambda = world
        .lambda()
        .env("OUTLAST_MAX_DELAY", "0ms")
        .env("OUTLAST_HOLD_MAX", "30s")
        .env("OUTLAST_RETRY_INITIAL", "10m")
        .env("OUTLAST_RETRY_MAX", "10m")
        .start()
        .await
        .unwrap();
    // Were one of them held, it would run into its own thirty seconds, and the test into its patience.
    for _ in 0..10 {
        invoke(&lambda, Invocation::new().logs(5)).await;
    }
    world.backend.recover().await.unwrap();
    leave(&lambda).await;
    assert_eq!(crate::support::balance(&[&lambda], &world.backend).left, 0);
}

#[tokio::test]
async fn nothing_is_held_where_holding_is_turned_off() {
    let world = World::new().await;
    let lambda = world
        .lambda()
        .env("OUTLAST_HOLD_MAX", "0ms")
        .env("OUTLAST_MAX_DELAY", "0ms")
        .env("OUTLAST_TIMEOUT", "10m")
        .start()
        .await
        .unwrap();
    world.backend.next_of(Signal::Logs, Behaviour::healthy().held());
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().logs(5)).await;
    }
    world.until_in_flight().await;
    world.backend.release();
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
}
