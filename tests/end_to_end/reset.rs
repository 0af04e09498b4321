//! Environments that end without warning, over a disk that stays.

use crate::account;
use crate::support::{
    Told, World, acknowledged, balance, delivered, eventually, invoke, leave, lost_lines, ms, output, within,
};
use outlast_backend::{Behaviour, Door, Fate, Signal, Verdict};
use outlast_simulator::{Invocation, Sandbox, ShutdownReason};
use std::collections::{HashMap, HashSet};

/// Nothing acknowledged is missing or out of order. What was kept but not acknowledged before a SIGKILL may be there
/// too. Repeats come from at most `killed_in_flight` requests.
fn nothing_is_lost(world: &World, lambdas: &[&Sandbox], killed_in_flight: usize) {
    assert_eq!(lost_lines(lambdas, &world.backend), Vec::<String>::new());
    let (got, _) = delivered(&world.backend);
    let mut rest = got.iter();
    for told in acknowledged(lambdas) {
        assert!(rest.any(|other| *other == told), "{told:?} is missing or out of order; {:?}", tail(&got));
    }
    // By number: a body may be read to its end only after the request that repeats it was taken.
    for signal in Signal::ALL {
        let mut requests: HashMap<String, Vec<_>> = HashMap::new();
        for record in world.backend.records().iter().filter(|record| record.signal == signal) {
            requests.entry(account::identity(record)).or_default().push(record.request);
        }
        let again = || requests.values().filter(|sent| sent.len() > 1);
        let first_sent_in: HashSet<_> = again().filter_map(|sent| sent.iter().min()).collect();
        assert!(
            first_sent_in.len() <= killed_in_flight,
            "{} repeats of {signal} in {first_sent_in:?}",
            again().count()
        );
    }
    account::of_invocations(lambdas, &world.backend);
}

fn tail(told: &[Told]) -> &[Told] {
    &told[told.len().saturating_sub(3)..]
}

#[tokio::test]
async fn a_time_out_in_an_outage_loses_nothing() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda().timeout(ms(700)).start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    let invoked =
        within("the time-out", lambda.invoke(Invocation::new().logs(10).times_out())).await.unwrap();
    assert_eq!(invoked.error_type(), Some("Sandbox.Timedout"));
    let reset = invoked.reset.unwrap();
    assert_eq!(reset.reason, ShutdownReason::Timeout);
    assert!(reset.exited_by_itself() && reset.exit_code() == Some(0), "{reset:?}");
    world.backend.recover().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 30);
    world.end(lambda).await;
}

#[tokio::test]
async fn a_crash_of_the_runtime_in_an_outage_loses_nothing() {
    let world = World::new().await;
    world.backend.set_door(Door::Refused).await.unwrap();
    let lambda = world.lambda().start().await.unwrap();
    for _ in 0..3 {
        let crash = Invocation::new().runs_for(ms(60)).logs(10).exits(3);
        let invoked = within("the crash", lambda.invoke(crash)).await.unwrap();
        assert_eq!(invoked.error_type(), Some("Runtime.ExitError"));
        assert!(invoked.reset.unwrap().exited_by_itself());
    }
    world.backend.recover().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 40);
    world.end(lambda).await;
}

#[tokio::test]
async fn sigkill_while_telemetry_comes_in_loses_nothing_acknowledged() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    let moments = [1, 5, 40, 300, 1_200];
    for more in moments {
        let target = lambda.acknowledged_count() + more;
        let long = Invocation::new().runs_for(ms(20_000)).logs(3_000).when(outlast_simulator::When::AtStart);
        let (invoked, ()) = tokio::join!(within("the kill", lambda.invoke(long)), async {
            within("telemetry", lambda.until_acknowledged(target)).await;
            lambda.kill().await;
        });
        assert_eq!(invoked.unwrap().error_type(), Some("Extension.Crash"));
    }
    invoke(&lambda, Invocation::new().line("the end")).await;
    within("deliveries", lambda.settled()).await;
    world.wait_for(|received| received.texts().contains(&"the end")).await;
    leave(&lambda).await;
    nothing_is_lost(&world, &[&lambda], moments.len());
}

#[tokio::test]
async fn sigkill_in_an_outage_loses_nothing() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda().start().await.unwrap();
    for _ in 0..4 {
        for _ in 0..3 {
            invoke(&lambda, Invocation::new().logs(10)).await;
        }
        within("deliveries", lambda.settled()).await;
        lambda.kill().await;
    }
    world.backend.recover().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 130);
    // Every request was answered 503: nothing can have been taken twice.
    world.end(lambda).await;
}

#[tokio::test]
async fn sigkill_with_a_request_under_way_repeats_that_request_only() {
    let world = World::new().await;
    let lambda = world.lambda_of_logs().env("OUTLAST_TIMEOUT", "10m").start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    for _ in 0..3 {
        let before = world.backend.requests().len();
        world.backend.next_of(Signal::Logs, Behaviour::Hang(Fate::Kept));
        invoke(&lambda, Invocation::new().logs(10)).await;
        world
            .wait_for(|received| {
                received.requests().get(before).is_some_and(|request| request.verdict == Verdict::Hung)
            })
            .await;
        within("deliveries", lambda.settled()).await;
        lambda.kill().await;
        let repeated = world.backend.repeated().len();
        let in_flight = world.backend.requests()[before].records;
        invoke(&lambda, Invocation::new().logs(10)).await;
        world.wait_for(|received| received.repeated().len() == repeated + in_flight).await;
        within("deliveries", lambda.settled()).await;
        world.wait_for(|received| received.missing(&lambda.acknowledged_lines()).is_empty()).await;
        world.until_idle().await;
    }
    leave(&lambda).await;
    nothing_is_lost(&world, &[&lambda], 3);
    assert!(world.backend.repeated().iter().all(|repeat| repeat.times == 2), "the uid tells each of them");
    assert_eq!(lambda.acknowledged_lines().len(), 70);
}

#[tokio::test]
async fn sigkill_in_the_middle_of_a_recovery_loses_nothing() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda().start().await.unwrap();
    for _ in 0..30 {
        invoke(&lambda, Invocation::new().logs(20)).await;
        within("the delivery", lambda.settled()).await;
    }
    world.backend.recover().await.unwrap();
    let mut kills = 0;
    for share in [1, 100, 300] {
        world.wait_for(|received| received.records().len() >= share).await;
        lambda.kill().await;
        kills += 1;
        invoke(&lambda, Invocation::new().logs(1)).await;
        within("deliveries", lambda.settled()).await;
    }
    world.wait_for(|received| received.missing(&lambda.acknowledged_lines()).is_empty()).await;
    within("deliveries", lambda.settled()).await;
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    nothing_is_lost(&world, &[&lambda], kills);
    assert_eq!(lambda.acknowledged_lines().len(), 603);
}

#[tokio::test]
async fn sigkill_at_shutdown_loses_nothing() {
    let world = World::new().await;
    let budget = outlast_simulator::ShutdownOptions { budget: ms(0), runtime_stops_in: ms(0) };
    let lambda = world.lambda().shutdown(budget).start().await.unwrap();
    world.backend.behave(Behaviour::status(503));
    invoke(&lambda, Invocation::new().logs(100)).await;
    within("deliveries", lambda.settled()).await;
    within("SHUTDOWN", lambda.shutdown(ShutdownReason::Spindown)).await;
    world.backend.recover().await.unwrap();
    let next = world.lambda().start().await.unwrap();
    invoke(&next, Invocation::new().logs(1)).await;
    world.until_delivered(&next).await;
    world.wait_for(|received| received.missing(&lambda.acknowledged_lines()).is_empty()).await;
    leave(&next).await;
    nothing_is_lost(&world, &[&lambda, &next], 0);
}

#[tokio::test]
async fn the_next_environment_delivers_what_the_last_one_left_and_its_order_holds() {
    let world = World::new().await;
    world.backend.set_door(Door::Refused).await.unwrap();
    let first = world.lambda().start().await.unwrap();
    invoke(&first, Invocation::new().logs(50)).await;
    leave(&first).await;
    let second = world.lambda().start().await.unwrap();
    invoke(&second, Invocation::new().logs(50)).await;
    leave(&second).await;
    world.backend.recover().await.unwrap();
    let third = world.aftermath().await;
    assert_eq!(balance(&[&first, &second, &third], &world.backend).repeated, 0, "{:?}", output(&third));
}

#[tokio::test]
async fn a_damaged_index_costs_nothing() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    // It is begun when there is something to note.
    let index = world.queue().join("index");
    eventually("the index", || index.join("db").exists()).await;
    world.backend.behave(Behaviour::status(503));
    invoke(&lambda, Invocation::new().logs(200)).await;
    within("deliveries", lambda.settled()).await;
    lambda.kill().await;
    for file in walk(&index) {
        let length = std::fs::metadata(&file).unwrap().len();
        std::fs::write(&file, vec![0xa5; usize::try_from(length).unwrap()]).unwrap();
    }
    world.backend.recover().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}
