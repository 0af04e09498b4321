//! The end of an environment: everything out that can go out, and gone before the deadline.

use crate::support::{World, balance, invoke, leave, left_on_disk, lines_with, ms, output, within};
use outlast_backend::{Behaviour, Door};
use outlast_simulator::{Freeze, Invocation, Sandbox, ShutdownOptions, ShutdownReason};

/// A backlog of 2,000 lines of a frozen environment whose backend was away.
async fn backlog(world: &World) -> Sandbox {
    world.backend.set_door(Door::Refused).await.unwrap();
    let lambda = world
        .lambda()
        .freeze(Freeze::After(ms(1)))
        // After the first failure nothing is tried again until the end.
        .env("OUTLAST_RETRY_INITIAL", "10m")
        .env("OUTLAST_RETRY_MAX", "10m")
        .start()
        .await
        .unwrap();
    for _ in 0..20 {
        invoke(&lambda, Invocation::new().runs_for(ms(30)).logs(100)).await;
    }
    lambda
}

#[tokio::test]
async fn a_backlog_is_delivered_to_a_backend_that_is_back() {
    let world = World::new().await;
    let lambda = backlog(&world).await;
    assert_eq!(world.backend.requests().len(), 0);
    world.backend.recover().await.unwrap();
    let end = leave(&lambda).await;
    assert!(end.left().is_some(), "before the deadline");
    assert_eq!(left_on_disk(&lambda), 0, "{:?}", output(&lambda));
    assert_eq!(lambda.acknowledged_lines().len(), 2_000);
    assert_eq!(balance(&[&lambda], &world.backend).repeated, 0);
}

#[tokio::test]
async fn a_hung_backend_does_not_keep_it_and_the_data_stays_on_disk() {
    let world = World::new().await;
    let lambda = backlog(&world).await;
    world.backend.recover().await.unwrap();
    world.backend.behave(Behaviour::hang());
    let end = leave(&lambda).await;
    assert!(end.left().is_some(), "before the deadline");
    let balance_before = balance(&[&lambda], &world.backend);
    assert_eq!(balance_before.left, lambda.acknowledged_count());
    world.backend.recover().await.unwrap();
    let next = world.aftermath().await;
    assert_eq!(balance(&[&lambda, &next], &world.backend).repeated, 0, "the backend had taken nothing");
}

#[tokio::test]
async fn a_refusing_backend_does_not_keep_it_and_the_data_stays_on_disk() {
    let world = World::new().await;
    let lambda = backlog(&world).await;
    leave(&lambda).await;
    assert_eq!(left_on_disk(&lambda), lambda.acknowledged_count());
    world.backend.recover().await.unwrap();
    let next = world.aftermath().await;
    assert_eq!(balance(&[&lambda, &next], &world.backend).repeated, 0);
}

#[tokio::test]
async fn an_environment_that_was_never_invoked_ends_well() {
    for freeze in [Freeze::Off, Freeze::After(ms(1))] {
        let world = World::new().await;
        let lambda = world.lambda().freeze(freeze).start().await.unwrap();
        world.end(lambda).await;
    }
}

#[tokio::test]
async fn a_backlog_of_an_earlier_environment_is_delivered_without_any_invocation() {
    let world = World::new().await;
    let lambda = backlog(&world).await;
    leave(&lambda).await;
    world.backend.recover().await.unwrap();
    let next = world.lambda().start().await.unwrap();
    within("deliveries", next.settled()).await;
    leave(&next).await;
    assert_eq!(left_on_disk(&next), 0);
    assert_eq!(balance(&[&lambda, &next], &world.backend).repeated, 0);
}

#[tokio::test]
async fn a_small_budget_is_kept_to() {
    for millis in [160, 400] {
        let world = World::new().await;
        let options = ShutdownOptions { budget: ms(millis), runtime_stops_in: ms(0) };
        let builder = world.lambda().env("OUTLAST_SHUTDOWN_RESERVE", "150ms").shutdown(options);
        let lambda = builder.start().await.unwrap();
        world.backend.behave(Behaviour::hang());
        invoke(&lambda, Invocation::new().logs(100)).await;
        within("deliveries", lambda.settled()).await;
        leave(&lambda).await;
        world.backend.recover().await.unwrap();
        let next = world.aftermath().await;
        assert_eq!(balance(&[&lambda, &next], &world.backend).repeated, 0);
    }
}

#[tokio::test]
async fn the_last_report_is_waited_for() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    lambda.telemetry(|telemetry| telemetry.report_after = ms(100));
    let invoked = invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    let has_report = |record: &outlast_backend::Record| {
        record.event_name == "platform.report"
            && record.attributes["faas.invocation_id"] == invoked.request_id.as_str()
    };
    assert!(world.backend.records().iter().any(has_report), "{:?}", output(&lambda));
    assert_eq!(balance(&[&lambda], &world.backend).left, 0);
}

#[tokio::test]
async fn a_report_that_never_comes_is_not_waited_for_for_long() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    lambda.telemetry(|telemetry| telemetry.report = false);
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
}

#[tokio::test]
async fn a_backend_that_comes_back_during_shutdown_gets_everything() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(100)).await;
    within("deliveries", lambda.settled()).await;
    let before = world.backend.requests().len();
    let (_, ()) = tokio::join!(leave(&lambda), async {
        // One attempt within SHUTDOWN fails; the next one finds the backend well.
        world.until_requests(before + 2).await;
        world.backend.recover().await.unwrap();
    });
    assert_eq!(balance(&[&lambda], &world.backend).left, 0, "{:?}", output(&lambda));
}

#[tokio::test]
async fn what_is_acknowledged_while_it_leaves_is_delivered_or_told_as_left() {
    for round in 0..4 {
        let world = World::new().await;
        let lambda = world.lambda_of_logs().start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(5)).await;
        world.until_delivered(&lambda).await;
        let mut taken = Vec::new();
        let (_, ()) = tokio::join!(leave(&lambda), async {
            for n in 0.. {
                let line = format!("{round}: last words {n}");
                let body =
                    format!(r#"[{{"time":"2026-01-02T03:04:05.678Z","type":"function","record":"{line}"}}]"#);
                match lambda.inject(body.as_bytes()).await {
                    Ok(200) => taken.push(line),
                    Ok(status) => assert_eq!(status, 503),
                    Err(_gone) => break,
                }
            }
        });
        assert!(!taken.is_empty());
        let lost = world.backend.missing(&taken);
        assert_eq!(lost.len(), left_on_disk(&lambda), "{lost:?} of {}; {:?}", taken.len(), output(&lambda));
        world.aftermath().await;
        assert_eq!(world.backend.missing(&taken), [""; 0]);
    }
}

#[tokio::test]
async fn what_the_function_said_last_is_delivered() {
    let world = World::new().await;
    let lambda = world.lambda_of_logs().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(5)).await;
    world.until_delivered(&lambda).await;
    let said = "the last words, on SIGTERM";
    lambda.emit("function", &said.into());
    leave(&lambda).await;
    // On a busy machine the Telemetry API may be later than anybody waits.
    let taken = lambda.acknowledged_lines().iter().any(|line| line == said);
    let missing = world.backend.missing(&[said.to_owned()]).len();
    assert_eq!(missing, usize::from(!taken), "{:?}", output(&lambda));
    assert_eq!(balance(&[&lambda], &world.backend).left, 0);
}

#[tokio::test]
async fn the_last_line_tells_the_counts() {
    let world = World::new().await;
    let lambda = world.lambda_of_logs().env("OUTLAST_LOG", "off").start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    let count = lambda.acknowledged_count();
    let line = format!("shutdown: {count} records received, {count} delivered, 0 left on disk, 0 dropped; ");
    assert_eq!(lines_with(&lambda, &line), 1, "{:?}", output(&lambda));
}

#[tokio::test]
async fn every_reason_ends_it() {
    for reason in [ShutdownReason::Spindown, ShutdownReason::Timeout, ShutdownReason::Failure] {
        let world = World::new().await;
        let lambda = world.lambda().start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(10)).await;
        world.until_delivered(&lambda).await;
        let end = within("SHUTDOWN", lambda.shutdown(reason)).await;
        assert!(end.exited_by_itself() && end.exit_code() == Some(0), "{end:?}");
        assert_eq!(balance(&[&lambda], &world.backend).left, 0);
    }
}
