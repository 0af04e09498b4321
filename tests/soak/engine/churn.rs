//! Much through a small queue: how far disk and memory go.

use std::time::Duration;

use outlast_simulator::Freeze;

use super::account::Balance;
use super::plan::Weather;
use super::play::Lines;
use super::stage::{Environment, Stage};

/// Lines of one invocation, which hardly shrink: some 250 KB as text.
const LINES: usize = 250;
const LINE_BYTES: usize = 1_000;
/// The backend is away while so many times the queue's size come in, and there while as much as it holds does.
const AWAY: u64 = 3;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends at least `bytes` of lines through a queue of `queue_max_bytes`, in cycles that are balanced each. Disk and memory
/// are in the stage's books, problems too.
pub(crate) async fn churn(stage: &Stage, seed: u64, bytes: u64, queue_max_bytes: u64) -> Balance {
    let mut lines = Lines::new("churn", seed);
    let mut sum = Balance::default();
    for _ in 0..bytes.div_ceil(queue_max_bytes * (AWAY + 1)) {
        sum.add(&cycle(stage, &mut lines, queue_max_bytes).await);
    }
    sum
}

async fn cycle(stage: &Stage, lines: &mut Lines, queue_max_bytes: u64) -> Balance {
    let environment = start(stage, queue_max_bytes).await;
    let mut sent = 0;
    while sent < queue_max_bytes * (AWAY + 1) {
        let is_away = sent < queue_max_bytes * AWAY;
        stage.weather(if is_away { Weather::Status(503) } else { Weather::Healthy }, 0).await;
        stage.invoke(&environment, lines.invocation(Duration::ZERO, LINES, LINE_BYTES)).await;
        environment.lambda.settled().await;
        stage.observe(&environment);
        sent += u64::try_from(LINES * LINE_BYTES).unwrap();
    }
    stage.settle(&environment, &lines.line(0), false).await
}

async fn start(stage: &Stage, queue_max_bytes: u64) -> Environment {
    let builder = stage
        .builder()
        .env("OUTLAST_QUEUE_MAX_BYTES", queue_max_bytes)
        .env("OUTLAST_RETRY_MAX", "200ms")
        .timeout(Duration::from_secs(60))
        .freeze(Freeze::Off);
    stage.start(builder, queue_max_bytes, REQUEST_TIMEOUT).await
}

/// Memory and time of a queue that was filled up while the backend was away.
#[derive(Clone, Debug)]
pub(crate) struct Full {
    pub(crate) filled_bytes: u64,
    pub(crate) rss_filling_kib: u64,
    pub(crate) rss_at_start_kib: u64,
    pub(crate) rss_draining_kib: u64,
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} bytes on disk; VmHWM {} KiB while they came, {} KiB at a start over them with the backend away, {} KiB \
             at another and their delivery",
            self.filled_bytes, self.rss_filling_kib, self.rss_at_start_kib, self.rss_draining_kib
        )
    }
}

/// Fills a queue of `queue_max_bytes`, starts over it, and drains it.
pub(crate) async fn full(stage: &Stage, seed: u64, queue_max_bytes: u64) -> Full {
    let environment = start(stage, queue_max_bytes).await;
    let mut lines = Lines::new("full", seed);
    stage.weather(Weather::Status(503), seed).await;
    while super::room::bytes_below(stage.queue()) < queue_max_bytes / 32 * 31 {
        stage.invoke(&environment, lines.invocation(Duration::ZERO, LINES, LINE_BYTES)).await;
        environment.lambda.settled().await;
        stage.observe(&environment);
    }
    let filled_bytes = super::room::bytes_below(stage.queue());
    let rss_filling_kib = stage.take_rss_max(&environment);
    stage.kill(&environment).await;
    for _ in 0..20 {
        stage.invoke(&environment, lines.invocation(Duration::from_millis(100), 10, 100)).await;
    }
    let rss_at_start_kib = stage.take_rss_max(&environment);
    stage.kill(&environment).await;
    stage.settle(&environment, "full", false).await;
    let rss_draining_kib = stage.books().watched.rss_max_kib;
    Full { filled_bytes, rss_filling_kib, rss_at_start_kib, rss_draining_kib }
}
