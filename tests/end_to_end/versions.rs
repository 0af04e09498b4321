//! Queues that earlier versions left behind. `tests/data/queue-N` was written by the version that had format N on disk, in an outage, and is never changed
//! again: `OUTLAST_BLESS=queue-N cargo test --test end_to_end versions` writes one that is not there yet (docs/versioning.md).

use crate::account::identity;
use crate::support::{World, invoke, leave, left_of, lines_with, output};
use outlast_backend::{Behaviour, Record, Signal};
use outlast_simulator::{FunctionOptions, Invocation, Sandbox};
use std::fs;
use std::path::{Path, PathBuf};

/// What a kept queue consists of: the directory, and what it must deliver, a line each.
const QUEUE: &str = "queue";
const RECORDS: &str = "records.txt";

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// The directories of kept queues.
fn queues() -> Vec<PathBuf> {
    let all = fs::read_dir(kept()).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("queue-")).collect()
}

/// The version that the code writes: the last byte of a magic, as `source` defines it.
fn version_in(source: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(source)).unwrap();
    let magic = text.split("const MAGIC: ").nth(1).and_then(|rest| rest.split('"').nth(1)).expect("a magic");
    magic.chars().last().unwrap().to_string()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn line(record: &Record) -> String {
    format!("{} {} {}\n", record.signal, identity(record), record.text).replace('\r', " ")
}

/// What came to the backend of `signal`, in order.
fn arrived(world: &World, signal: Signal) -> Vec<String> {
    world.backend.records().iter().filter(|record| record.signal == signal).map(line).collect()
}

/// Starts today's extension over the queue in `directory`, until all of it has arrived.
async fn delivers(world: &World, directory: &Path) -> Sandbox {
    copy(directory, &world.queue());
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().line("today")).await;
    world.wait_for(|received| received.texts().contains(&"today")).await;
    leave(&lambda).await;
    assert_eq!(lines_with(&lambda, "0 left on disk, 0 dropped"), 1, "{:?}", output(&lambda));
    lambda
}

#[tokio::test]
async fn queues_of_earlier_versions_are_delivered_whole_once_and_in_order() {
    let mut found = 0;
    for directory in queues() {
        let expected = fs::read_to_string(directory.join(RECORDS)).unwrap();
        let world = World::new().await;
        let lambda = delivers(&world, &directory.join(QUEUE)).await;
        for signal in Signal::ALL {
            let expected: Vec<_> =
                expected.lines().filter(|line| line.starts_with(&signal.to_string())).collect();
            let arrived = arrived(&world, signal);
            let first: Vec<_> = arrived.iter().take(expected.len()).map(|line| line.trim_end()).collect();
            assert!(expected.len() >= 5, "{expected:?}");
            assert_eq!(first, expected, "{} {signal}: {:?}", directory.display(), output(&lambda));
            assert!(
                arrived.iter().skip(expected.len()).all(|line| !expected.contains(&line.trim_end())),
                "once each"
            );
        }
        found += 1;
    }
    assert!(found >= 1);
}

#[tokio::test]
async fn a_queue_is_kept_of_each_format_on_disk() {
    let Ok(name) = std::env::var("OUTLAST_BLESS") else {
        // Of slots and of frames.
        for source in ["src/queue/state.rs", "src/queue/frame.rs"] {
            let directory = kept().join(format!("queue-{}", version_in(source)));
            assert!(
                directory.join(QUEUE).is_dir() && directory.join(RECORDS).is_file(),
                "{source}: {directory:?}"
            );
        }
        return;
    };
    let directory = kept().join(&name);
    if !name.starts_with("queue-") || directory.exists() {
        return;
    }
    let world = World::new().await;
    let function = FunctionOptions { tracing: true, ..FunctionOptions::default() };
    let lambda = world.lambda().function(function).start().await.unwrap();
    // Something is done, so that marks stand in the middle, and most of it waits, over two starts.
    invoke(&lambda, Invocation::new().logs(5)).await;
    world.until_delivered(&lambda).await;
    world.backend.behave(Behaviour::status(503));
    for _ in 0..3 {
        invoke(&lambda, Invocation::new().logs(10)).await;
    }
    leave(&lambda).await;
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    leave(&lambda).await;
    copy(&world.queue(), &directory.join(QUEUE));

    let after = World::new().await;
    delivers(&after, &directory.join(QUEUE)).await;
    let waited = |signal| arrived(&after, signal).into_iter().take(left_of(&lambda, signal));
    let lines: String = Signal::ALL.into_iter().flat_map(waited).collect();
    fs::write(directory.join(RECORDS), lines).unwrap();
}
