//! A small disk that the function shares: a tmpfs in a mount namespace. Each test runs itself again in there, and is
//! skipped, saying so, where nothing can be mounted; with `OUTLAST_REQUIRE_ROOM=1` that is a failure.

use crate::engine::plan::Weather;
use crate::engine::play::{Lines, is_degraded};
use crate::engine::room::{self, Room};
use crate::engine::stage::{Environment, Stage};
use crate::random::assert_well;
use crate::support::{OUTLAST, left_on_disk, lines_with, ms, output};
use outlast_simulator::{Freeze, Invocation, ShutdownReason};
use std::path::Path;
use std::time::Duration;

const REQUEST_TIMEOUT: Duration = ms(2_000);
const RUN: Duration = ms(20);

/// Runs `body` on a disk of so many bytes, in a process of its own.
fn in_a_room<F: Future<Output = ()>>(test: &str, bytes: u64, body: impl FnOnce(Room) -> F) {
    if let Some(room) = Room::mine() {
        return tokio::runtime::Runtime::new().unwrap().block_on(body(room));
    }
    if !room::is_possible() {
        let required = std::env::var_os("OUTLAST_REQUIRE_ROOM").is_some_and(|value| value == "1");
        assert!(!required, "nothing can be mounted here, and OUTLAST_REQUIRE_ROOM=1");
        eprintln!("skipped: nothing can be mounted here (unshare -rm mount -t tmpfs)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = room::command(dir.path(), bytes).unwrap();
    let status = command.args(["--exact", &format!("room::{test}"), "--nocapture"]).status().unwrap();
    assert!(status.success(), "{test}: {status}");
}

async fn start(stage: &Stage, queue_max_bytes: u64) -> Environment {
    let builder = stage
        .builder()
        .env("OUTLAST_QUEUE_MAX_BYTES", queue_max_bytes)
        .env("OUTLAST_RETRY_MAX", "80ms")
        .env("OUTLAST_TIMEOUT", format!("{}ms", REQUEST_TIMEOUT.as_millis()))
        .timeout(Duration::from_secs(40))
        .freeze(Freeze::Off);
    stage.start(builder, queue_max_bytes, REQUEST_TIMEOUT).await
}

fn stage(room: &Room) -> Stage {
    Stage::new(Path::new(OUTLAST), room.dir())
}

/// Waits until what memory holds is on disk.
async fn until_on_disk(environment: &Environment) {
    let back = environment.lambda.until(|_| (!is_degraded(environment)).then_some(()));
    crate::support::within("the disk to be used", back).await;
}

#[test]
fn a_disk_that_others_fill_at_any_moment_loses_nothing() {
    in_a_room("a_disk_that_others_fill_at_any_moment_loses_nothing", 12 << 20, |room| async move {
        let seed = fastrand::u64(..1 << 40);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let stage = stage(&room);
        // Large enough to have an index, which meets the full disk as well.
        let environment = start(&stage, 8 << 20).await;
        let mut lines = Lines::new("room", seed);
        for step in 0..60 {
            match rng.u8(..10) {
                0..3 => room.fill().unwrap(),
                3 => room.free().unwrap(),
                4 | 5 if room.fill().is_ok() => room.free_bytes(rng.u64(..200_000)).unwrap(),
                6 => stage.weather(Weather::Healthy, 0).await,
                7 => stage.weather(Weather::Status(503), 0).await,
                _ => {}
            }
            if step == 30 {
                room.free().unwrap();
                until_on_disk(&environment).await;
                stage.kill(&environment).await;
            }
            let count = rng.usize(..40);
            stage.invoke(&environment, lines.invocation(RUN, count, rng.usize(10..2_000))).await;
        }
        room.free().unwrap();
        until_on_disk(&environment).await;
        let balance = stage.settle(&environment, "room", false).await;
        assert_well(&stage);
        assert_eq!((balance.missing, balance.dropped), (0, 0), "{balance:?}");
        assert!(balance.acknowledged > 500, "{balance:?}");
    });
}

#[test]
fn with_disk_and_memory_full_nothing_is_acknowledged_and_lambda_keeps_it() {
    in_a_room(
        "with_disk_and_memory_full_nothing_is_acknowledged_and_lambda_keeps_it",
        16 << 20,
        |room| async move {
            let stage = stage(&room);
            let environment = start(&stage, 64 << 20).await;
            let lambda = &environment.lambda;
            stage.weather(Weather::Status(503), 0).await;
            stage.invoke(&environment, Invocation::new().line("before")).await;
            room.fill().unwrap();
            let mut lines = Lines::new("room", 1);
            // Some 6 MB after compression, into a memory of 4 MiB.
            for _ in 0..8 {
                stage.invoke(&environment, lines.invocation(RUN, 1_000, 1_000)).await;
            }
            let refused = |lambda: &outlast_simulator::Sandbox| {
                lambda.deliveries().iter().any(|delivery| delivery.status == Some(503)).then_some(())
            };
            crate::support::within("a 503", lambda.until(refused)).await;
            assert!(lambda.acknowledged_lines().len() < 8_001, "there was room for all of it");
            // Full service again, without a new process.
            room.free().unwrap();
            stage.weather(Weather::Healthy, 0).await;
            crate::support::within("deliveries to end", lambda.settled()).await;
            assert_eq!(lambda.acknowledged_lines().len(), 8_001);
            assert_eq!(lambda.dropped(), 0);
            until_on_disk(&environment).await;
            stage.invoke(&environment, Invocation::new().line("after")).await;
            assert_eq!(lines_with(lambda, "the disk takes nothing ("), 1);
            assert_eq!(lines_with(lambda, "the disk takes data again"), 1);
            let balance = stage.settle(&environment, "room", false).await;
            assert_well(&stage);
            assert_eq!((balance.missing, balance.dropped), (0, 0), "{balance:?}");
        },
    );
}

#[test]
fn a_disk_that_is_full_from_the_first_start_on_is_used_once_there_is_room() {
    in_a_room(
        "a_disk_that_is_full_from_the_first_start_on_is_used_once_there_is_room",
        2 << 20,
        |room| async move {
            let stage = stage(&room);
            room.fill().unwrap();
            let environment = start(&stage, 1 << 20).await;
            stage.weather(Weather::Refused, 0).await;
            let mut lines = Lines::new("room", 1);
            stage.invoke(&environment, lines.invocation(RUN, 10, 100)).await;
            crate::support::within(
                "the outage to be told",
                environment.lambda.until_output(|line| line.contains("backend: ")),
            )
            .await;
            // Each ends only once the extension has asked for its next event, as it does without being asked to wait.
            for _ in 0..5 {
                stage.invoke(&environment, lines.invocation(RUN, 10, 100).outlasts_extensions()).await;
            }
            assert_eq!(stage.books().watched.added_micros.iter().skip(1).max(), Some(&0));
            room.free().unwrap();
            crate::support::within("deliveries", environment.lambda.settled()).await;
            let on_disk = environment
                .lambda
                .until(|lambda| (lines_with(lambda, "the disk takes data again") == 1).then_some(()));
            crate::support::within("the disk to be used", on_disk).await;
            stage.kill(&environment).await;
            let balance = stage.settle(&environment, "room", false).await;
            assert_well(&stage);
            assert_eq!((balance.missing, balance.dropped), (0, 0), "{balance:?}");
        },
    );
}

#[test]
fn what_a_full_disk_never_took_is_counted_in_place_and_reported_by_the_next_process() {
    in_a_room(
        "what_a_full_disk_never_took_is_counted_in_place_and_reported_by_the_next_process",
        2 << 20,
        |room| async move {
            let stage = stage(&room);
            let environment = start(&stage, 1 << 20).await;
            stage.weather(Weather::Status(503), 0).await;
            let mut lines = Lines::new("room", 1);
            stage.invoke(&environment, lines.invocation(RUN, 10, 100)).await;
            crate::support::within("deliveries", environment.lambda.settled()).await;
            room.fill().unwrap();
            for _ in 0..5 {
                stage.invoke(&environment, lines.invocation(RUN, 20, 1_000)).await;
            }
            crate::support::within("deliveries", environment.lambda.settled()).await;
            stage.shut_down(&environment, ShutdownReason::Spindown).await;
            let balance = stage.settle(&environment, "room", false).await;
            assert_well(&stage);
            assert!(balance.missing >= 100, "{balance:?}");
            assert_eq!(balance.missing, balance.dropped);
            assert_eq!(stage.books().main.account.reported().get("unsaved"), Some(&balance.dropped));
        },
    );
}

/// An environment whose process was killed with 50 lines waiting, over a disk that takes nothing since.
async fn backlog_on_what_is_read_only(stage: &Stage, room: &Room, lines: &mut Lines) -> Environment {
    let environment = start(stage, 4 << 20).await;
    stage.weather(Weather::Status(503), 0).await;
    stage.invoke(&environment, lines.invocation(RUN, 50, 100)).await;
    crate::support::within("deliveries", environment.lambda.settled()).await;
    stage.kill(&environment).await;
    room.remount("ro").unwrap();
    environment
}

#[test]
fn a_disk_that_is_read_only_for_one_process_costs_nothing() {
    in_a_room("a_disk_that_is_read_only_for_one_process_costs_nothing", 8 << 20, |room| async move {
        let stage = stage(&room);
        let mut lines = Lines::new("room", 1);
        let environment = backlog_on_what_is_read_only(&stage, &room, &mut lines).await;
        for _ in 0..5 {
            stage.invoke(&environment, lines.invocation(RUN, 50, 100)).await;
        }
        assert_eq!(lines_with(&environment.lambda, "the disk takes nothing"), 1);
        room.remount("rw").unwrap();
        let on_disk = environment
            .lambda
            .until(|lambda| (lines_with(lambda, "the disk takes data again") == 1).then_some(()));
        crate::support::within("the disk to be used", on_disk).await;
        stage.kill(&environment).await;
        let balance = stage.settle(&environment, "room", false).await;
        assert_well(&stage);
        assert_eq!((balance.missing, balance.dropped), (0, 0), "{balance:?}");
    });
}

#[test]
fn what_waits_on_a_disk_that_is_read_only_is_sent() {
    in_a_room("what_waits_on_a_disk_that_is_read_only_is_sent", 8 << 20, |room| async move {
        let stage = stage(&room);
        let environment = backlog_on_what_is_read_only(&stage, &room, &mut Lines::new("room", 1)).await;
        stage.invoke(&environment, Invocation::new().line("in between")).await;
        crate::support::within("SHUTDOWN", environment.lambda.shutdown(ShutdownReason::Failure)).await;
        assert!(left_on_disk(&environment.lambda) >= 50, "{:?}", output(&environment.lambda));
        stage.weather(Weather::Healthy, 0).await;
        let lambda = &environment.lambda;
        crate::support::within("an invocation", lambda.invoke(Invocation::new().line("after")))
            .await
            .unwrap();
        let expected: Vec<String> = lambda.acknowledged_lines();
        let here = lambda.until(|_| {
            let missing = stage.backend.missing(&expected);
            // What only memory held at the first end is gone, and said to be.
            missing.iter().all(|line| line == "in between").then_some(())
        });
        crate::support::within("the backlog", here).await;
        room.remount("rw").unwrap();
    });
}
