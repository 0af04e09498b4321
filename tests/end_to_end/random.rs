//! Faults at random moments. What is drawn comes from a seed, which a failing test prints; `cargo run --release --example
//! soak` does the same for longer. The world has threads of its own here: one that decodes must not keep another from
//! reading, or requests seem to come when they do not.

use crate::engine::plan::Episode;
use crate::engine::stage::Stage;
use crate::engine::{churn, kills, play};
use crate::support::{OUTLAST, ms};
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;

/// A few seconds of each; the rest of an episode is left to the soak.
const ROUNDS: u64 = 36;
const EPISODE: std::time::Duration = ms(6_000);
const CHURN_BYTES: u64 = 8 << 20;
const CHURN_QUEUE_BYTES: u64 = 1 << 20;

fn stage() -> (Stage, TempDir, u64) {
    let dir = tempfile::tempdir().unwrap();
    let seed = fastrand::u64(..1 << 40);
    println!("seed {seed}");
    (Stage::new(Path::new(OUTLAST), dir.path()), dir, seed)
}

/// Nothing lost, repeated without need or out of order; no crash, no panic.
pub(crate) fn assert_well(stage: &Stage) {
    let problems = stage.books().problems.clone();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigkill_at_random_moments_loses_nothing() {
    let (stage, _dir, seed) = stage();
    let balance = kills::rounds(&stage, seed, ROUNDS).await;
    assert_well(&stage);
    assert_eq!((balance.missing, balance.dropped), (0, 0));
    assert!(balance.acknowledged > 100, "hardly anything happened: {balance:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_faults_lose_nothing() {
    let (stage, dir, seed) = stage();
    let stage = stage.with_clock(dir.path());
    play::play(&stage, &Episode::of(seed, 0), "episode", Instant::now() + EPISODE).await;
    assert_well(&stage);
}

#[tokio::test(flavor = "multi_thread")]
async fn much_through_a_small_queue_keeps_to_the_budget_and_leaves_little() {
    let (stage, _dir, seed) = stage();
    let balance = churn::churn(&stage, seed, CHURN_BYTES, CHURN_QUEUE_BYTES).await;
    assert_well(&stage);
    assert!(balance.dropped > 500 && balance.delivered > 500, "{balance:?}");
    assert_eq!(balance.missing, balance.dropped);
}
