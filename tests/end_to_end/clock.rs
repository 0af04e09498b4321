//! A wall clock that jumps, as the one of an environment may after a thaw. Skipped where there is no C compiler.

use crate::engine::clock::ShiftedClock;
use crate::support::{World, balance, invoke, leave, left_on_disk, ms};
use outlast_backend::Behaviour;
use outlast_simulator::{Freeze, Invocation};

const HOUR_MS: i64 = 3_600_000;

fn clock(dir: &tempfile::TempDir) -> Option<ShiftedClock> {
    let clock = ShiftedClock::build(dir.path()).unwrap();
    if clock.is_none() {
        eprintln!("skipped: there is no C compiler to build the shifted clock with");
    }
    clock
}

#[tokio::test]
async fn jumps_both_ways_in_an_outage_and_out_of_it_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(clock) = clock(&dir) else { return };
    let world = World::new().await;
    let lambda = clock.applied_to(world.lambda()).start().await.unwrap();
    for shift in [0, -HOUR_MS, 1_500, 40 * 24 * HOUR_MS, -40 * 24 * HOUR_MS, 250, 0] {
        clock.set(shift).unwrap();
        world.backend.behave(Behaviour::status(503));
        for _ in 0..3 {
            invoke(&lambda, Invocation::new().logs(10)).await;
        }
        // Pauses that were drawn before the jump must not have become endless.
        world.backend.recover().await.unwrap();
        invoke(&lambda, Invocation::new().logs(10)).await;
        world.until_delivered(&lambda).await;
        world.until_idle().await;
    }
    assert_eq!(lambda.acknowledged_lines().len(), 280);
    world.end(lambda).await;
}

#[tokio::test]
async fn shutdown_ends_in_time_by_a_clock_that_lags_behind() {
    let dir = tempfile::tempdir().unwrap();
    let Some(clock) = clock(&dir) else { return };
    let world = World::new().await;
    let lambda = clock.applied_to(world.lambda()).start().await.unwrap();
    world.backend.behave(Behaviour::hang());
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_requests(1).await;
    clock.set(-HOUR_MS).unwrap();
    // The deadline seems to be an hour away. It must leave before the true one, or it is killed, which `leave` tells.
    leave(&lambda).await;
    let acknowledged = lambda.acknowledged_count();
    assert_eq!(left_on_disk(&lambda), acknowledged);
    world.backend.recover().await.unwrap();
    clock.set(0).unwrap();
    let next = world.aftermath().await;
    assert_eq!(balance(&[&lambda, &next], &world.backend).repeated, 0, "the backend had taken nothing");
}

#[tokio::test]
async fn a_deadline_that_seems_to_be_over_does_not_keep_shutdown_from_delivering() {
    let dir = tempfile::tempdir().unwrap();
    let Some(clock) = clock(&dir) else { return };
    let world = World::new().await;
    // After the first failure nothing is tried again until the end.
    let builder = world
        .lambda()
        .env("OUTLAST_RETRY_INITIAL", "10m")
        .env("OUTLAST_RETRY_MAX", "10m")
        .freeze(Freeze::After(ms(1)));
    let lambda = clock.applied_to(builder).start().await.unwrap();
    world.backend.behave(Behaviour::status(503));
    for _ in 0..4 {
        invoke(&lambda, Invocation::new().runs_for(ms(30)).logs(10)).await;
    }
    world.backend.recover().await.unwrap();
    clock.set(HOUR_MS).unwrap();
    leave(&lambda).await;
    assert_eq!(left_on_disk(&lambda), 0);
    assert_eq!(balance(&[&lambda], &world.backend).repeated, 0);
}

#[tokio::test]
async fn a_clock_that_is_off_during_an_invocation_does_not_hold_it() {
    let dir = tempfile::tempdir().unwrap();
    let Some(clock) = clock(&dir) else { return };
    let world = World::new().await;
    let builder = world.lambda().env("OUTLAST_MAX_DELAY", "0ms").timeout(ms(20_000));
    let lambda = clock.applied_to(builder).start().await.unwrap();
    // Each would run into its time limit if a hold were measured by the wall clock.
    for shift in [-HOUR_MS, HOUR_MS, 0] {
        clock.set(shift).unwrap();
        invoke(&lambda, Invocation::new().runs_for(ms(20)).logs(5)).await;
        let (invoked, ()) =
            tokio::join!(invoke(&lambda, Invocation::new().runs_for(ms(40)).logs(5)), async {
                tokio::time::sleep(ms(20)).await;
                clock.set(-shift).unwrap();
            });
        assert!(invoked.reset.is_none());
    }
    clock.set(0).unwrap();
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    balance(&[&lambda], &world.backend);
}
