//! What the settings of `docs/tuning.md` cost and bring, with the extension as a process: the size of requests, the longest
//! hold, the time-out of a request. See `docs/benchmarks.md`.
//!
//! `cargo bench --bench tuning -- [PART…] [--binary FILE]`; parts: batch hold timeout. Results are lines of JSON.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a bench fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod process;
mod work;

use outlast_backend::{Backend, Behaviour, Keep, Signal};
use outlast_simulator::{Freeze, Invocation};
use process::{
    LONG, OURS, backend, cpu_nanos, leave_backlog, logging, milliseconds, ours, sandbox, spread, status, told,
};
use serde_json::json;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a backend in another zone or behind a queue of its own takes for an answer.
const NEAR: Duration = Duration::from_millis(20);
/// What waits at a start: some 30 MB of logs.
const BACKLOG_BYTES: u128 = 10 << 20;
/// Invocations per measurement of a hold.
const INVOCATIONS: u32 = 20;
/// How long the function takes of them.
const RUN: Duration = Duration::from_millis(20);
/// How long a backend hangs.
const OUTAGE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let mut parts = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--binary" => OURS.set(words.next().unwrap().into()).unwrap(),
            _ => parts.push(word),
        }
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|word| word == part);
    if wanted("batch") {
        batch().await;
    }
    if wanted("hold") {
        hold().await;
    }
    if wanted("timeout") {
        timeout().await;
    }
}

/// `OUTLAST_BATCH_MAX_BYTES`: how long a backlog takes, in how many requests, with how much memory and CPU.
async fn batch() {
    for max in ["64KiB", "256KiB", "1MiB", "4MiB"] {
        let dir = TempDir::new().unwrap();
        let all = leave_backlog(dir.path(), BACKLOG_BYTES);
        let backend = backend();
        backend.behave(Behaviour::healthy().after(NEAR));
        let lambda = sandbox(ours(), &backend.url(), dir.path())
            .env("OUTLAST_BATCH_MAX_BYTES", max)
            .timeout(LONG)
            .start()
            .await
            .unwrap();
        let process = lambda.process_ids()[0];
        let (began, before) = (Instant::now(), cpu_nanos(process));
        let (running, (drained, cpu)) =
            tokio::join!(lambda.invoke(Invocation::new().runs_for(Duration::from_secs(5)).logs(1)), async {
                backend.wait_for(|received| received.count(Signal::Logs) as u64 >= all, LONG).await.unwrap();
                (began.elapsed(), cpu_nanos(process) - before)
            });
        running.unwrap();
        told(
            json!({"part": "batch", "max": max, "requests": backend.received(|received| received.requests().len()),
            "drained_s": drained.as_secs_f64(), "cpu_ms": cpu as f64 / 1e6, "most_kb": status(process, "VmHWM")}),
        );
        lambda.kill().await;
    }
}

/// A backend that has read what it answers.
fn reading() -> Backend {
    Backend::builder().keep(Keep::Texts).start().unwrap()
}

/// `OUTLAST_HOLD_MAX`: what a held invocation takes longer, and how many of its lines are there when it is over.
async fn hold() {
    for takes in [5, 50, 120, 300] {
        for hold in ["0ms", "50ms", "150ms", "500ms"] {
            let (backend, dir) = (reading(), TempDir::new().unwrap());
            backend.behave(Behaviour::healthy().after(Duration::from_millis(takes)));
            let lambda = sandbox(ours(), &backend.url(), dir.path())
                .freeze(Freeze::After(Duration::ZERO))
                .env("OUTLAST_MAX_DELAY", "0s")
                .env("OUTLAST_HOLD_MAX", hold)
                .env("OUTLAST_SIGNALS", "logs")
                .start()
                .await
                .unwrap();
            let (mut added, mut there, lines) = (Vec::new(), 0, 10);
            for _ in 0..INVOCATIONS {
                let invoked = lambda.invoke(Invocation::new().runs_for(RUN).logs(lines)).await.unwrap();
                added.push(milliseconds(invoked.added));
                let said = format!("inv={} ", invoked.number);
                there +=
                    usize::from(backend.texts().iter().filter(|text| text.contains(&said)).count() >= lines);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let (median, most) = spread(added);
            told(
                json!({"part": "hold", "backend_ms": takes, "hold_max": hold, "added_ms": median, "added_p99_ms": most,
                "whole_in_time": f64::from(u32::try_from(there).unwrap()) / f64::from(INVOCATIONS)}),
            );
            lambda.kill().await;
        }
    }
}

/// `OUTLAST_TIMEOUT`: a backend that takes requests and never answers, for 20 s: attempts until it is back, and how long
/// after that until everything is there that waited.
async fn timeout() {
    for limit in ["500ms", "1s", "5s", "15s"] {
        let (backend, dir) = (backend(), TempDir::new().unwrap());
        let lambda = sandbox(ours(), &backend.url(), dir.path())
            .env("OUTLAST_TIMEOUT", limit)
            .env("OUTLAST_SIGNALS", "logs")
            .start()
            .await
            .unwrap();
        backend.behave(Behaviour::hang());
        let began = Instant::now();
        while began.elapsed() < OUTAGE {
            lambda.invoke(logging(10)).await.unwrap();
        }
        let attempts = backend.requests().len();
        backend.recover().await.unwrap();
        let back = Instant::now();
        let waiting = lambda.acknowledged_count();
        while backend.received(|received| received.count(Signal::Logs)) < waiting {
            lambda.invoke(logging(10)).await.unwrap();
        }
        told(
            json!({"part": "timeout", "limit": limit, "attempts": attempts, "caught_up_s": back.elapsed().as_secs_f64()}),
        );
        lambda.kill().await;
    }
}
