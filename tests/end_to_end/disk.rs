//! A disk that does not serve.

use crate::support::{
    World, balance, eventually, free_invocations, invoke, leave, left_on_disk, lines_with, output, within,
};
use outlast_backend::Behaviour;
use outlast_simulator::Invocation;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

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
async fn without_a_disk_no_invocation_is_slowed() {
    let world = World::new().await;
    std::fs::write(world.queue(), "a file where the directory should be").unwrap();
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    within("the outage to be told", lambda.until_output(|line| line.contains("backend: "))).await;
    free_invocations(&lambda).await;
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
}

#[tokio::test]
async fn an_index_that_hangs_keeps_nobody_waiting() {
    // sled opens the first of them to read, which never ends; the second is its log.
    for name in ["conf", "db"] {
        let world = World::new().await;
        let index = world.queue().join("index");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&index).unwrap();
        let made = std::process::Command::new("mkfifo").arg(index.join(name)).status().unwrap();
        assert!(made.success());
        world.backend.behave(Behaviour::status(503));
        let lambda = world.lambda().start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(10)).await;
        within("the first deliveries", lambda.settled()).await;
        within("the outage to be told", lambda.until_output(|line| line.contains("backend: "))).await;
        free_invocations(&lambda).await;
        world.backend.recover().await.unwrap();
        world.until_delivered(&lambda).await;
        world.end(lambda).await;
    }
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
    within("the disk", lambda.until_output(|line| line.contains("the disk takes data again"))).await;
    assert_eq!(lines_with(&lambda, "the disk takes data again"), 1);
    within("deliveries", lambda.settled()).await;
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

/// What is at `path` and below, with modes: only what the owner may.
fn everything_below(path: &Path, found: &mut Vec<(PathBuf, u32)>) {
    for entry in std::fs::read_dir(path).unwrap().flatten() {
        let metadata = entry.path().symlink_metadata().unwrap();
        found.push((entry.path(), metadata.permissions().mode() & 0o777));
        if metadata.is_dir() {
            everything_below(&entry.path(), found);
        }
    }
}

#[tokio::test]
async fn the_queue_is_the_owners_alone() {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    // It is begun when there is something to note.
    eventually("the index", || world.queue().join("index/db").exists()).await;
    world.backend.behave(Behaviour::status(503));
    invoke(&lambda, Invocation::new().logs(10)).await;
    assert_eq!(world.queue().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let mut found = Vec::new();
    everything_below(&world.queue(), &mut found);
    for (path, mode) in &found {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("seg") => assert_eq!(*mode, 0o600, "{path:?}"),
            // What sled makes in it has a mode of sled's choice, behind this one.
            _ if *path == world.queue().join("index") => assert_eq!(*mode, 0o700, "{path:?}"),
            _ => assert!(path.starts_with(world.queue().join("index")), "{path:?}"),
        }
    }
    assert!(found.iter().any(|(path, _)| path.extension().is_some_and(|extension| extension == "seg")));
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
}

#[tokio::test]
async fn links_at_our_paths_are_not_followed() {
    for place in ["", "0000000001.seg", "index", "index/db", "index/conf", "index.trash"] {
        let world = World::new().await;
        // A directory that looks like an index, with files that sled would open, remove or write over.
        let victim = world.queue().with_file_name("victim");
        std::fs::create_dir(&victim).unwrap();
        for name in ["db", "conf", "snap.0000", "0000000001.seg", "file"] {
            std::fs::write(victim.join(name), "precious").unwrap();
        }
        let link = world.queue().join(place);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        let is_directory = place.is_empty() || place == "index" || place == "index.trash";
        let target = if is_directory { victim.clone() } else { victim.join("file") };
        std::os::unix::fs::symlink(target, link.as_os_str().to_str().unwrap().trim_end_matches('/')).unwrap();
        if place == "index.trash" {
            // So that something is moved there.
            std::fs::write(world.queue().join("index"), "not a directory").unwrap();
        }
        let lambda = world.lambda().start().await.unwrap();
        for _ in 0..5 {
            invoke(&lambda, Invocation::new().logs(10)).await;
        }
        world.until_delivered(&lambda).await;
        if place.starts_with("index") {
            within("the index", lambda.until_output(|line| line.contains("index: not a directory"))).await;
        }
        leave(&lambda).await;
        assert_eq!(balance(&[&lambda], &world.backend).repeated, 0);
        let mut names: Vec<_> =
            std::fs::read_dir(&victim).unwrap().flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, ["0000000001.seg", "conf", "db", "file", "snap.0000"], "{place}");
        for name in names {
            assert_eq!(std::fs::read(victim.join(&name)).unwrap(), b"precious", "{place}: {name:?}");
        }
    }
}
