//! A disk that does not serve.

use crate::support::{World, balance, invoke, leave, left_on_disk, lines_with, output};
use outlast_backend::Behaviour;
use outlast_simulator::Invocation;

#[tokio::test]
async fn without_a_queue_directory_telemetry_flows_through_memory() {
    let world = World::new().await;
    std::fs::write(world.queue(), "a file where the directory should be").unwrap();
    let lambda = world.lambda().start().await.unwrap();
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().logs(10)).await;
    }
    world.until_delivered(&lambda).await;
    let complaints = output(&lambda).len();
    assert_eq!(complaints, 1, "{:?}", output(&lambda));
    world.end(lambda).await;
}

#[tokio::test]
async fn memory_bridges_an_outage_as_well() {
    let world = World::new().await;
    std::fs::write(world.queue(), "a file where the directory should be").unwrap();
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda().start().await.unwrap();
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().logs(10)).await;
    }
    world.until_requests(4).await;
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
}

#[tokio::test]
async fn a_disk_that_comes_back_takes_what_memory_holds() {
    let world = World::new().await;
    std::fs::write(world.queue(), "a file where the directory should be").unwrap();
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    std::fs::remove_file(world.queue()).unwrap();
    crate::support::within(
        "the disk",
        lambda.until_output(|line| line.contains("the disk takes data again")),
    )
    .await;
    assert_eq!(lines_with(&lambda, "the disk takes data again"), 1);
    crate::support::within("deliveries", lambda.settled()).await;
    lambda.kill().await;
    world.backend.recover().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
}

#[tokio::test]
async fn a_directory_that_is_removed_is_made_again() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    // The index may make a file in it meanwhile.
    while world.queue().exists() {
        let _again = std::fs::remove_dir_all(world.queue());
    }
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().logs(10)).await;
    }
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
}

#[tokio::test]
async fn what_only_memory_holds_at_the_end_is_told_as_dropped() {
    let world = World::new().await;
    std::fs::write(world.queue(), "a file where the directory should be").unwrap();
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda_of_logs().start().await.unwrap();
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().logs(10)).await;
    }
    leave(&lambda).await;
    assert_eq!(left_on_disk(&lambda), 0, "{:?}", output(&lambda));
    let lost = format!("{} records that only memory holds are dropped", lambda.acknowledged_count());
    assert_eq!(lines_with(&lambda, &lost), 1, "{:?}", output(&lambda));
}

#[tokio::test]
async fn a_disk_that_is_back_just_before_the_end_takes_what_memory_holds() {
    let world = World::new().await;
    std::fs::write(world.queue(), "a file where the directory should be").unwrap();
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    std::fs::remove_file(world.queue()).unwrap();
    leave(&lambda).await;
    world.backend.recover().await.unwrap();
    let next = world.aftermath().await;
    assert_eq!(balance(&[&lambda, &next], &world.backend).repeated, 0, "the backend had taken nothing");
}
