//! The extension as a process, between the simulated Lambda and a backend on loopback: start, memory, CPU, acknowledgement,
//! disk, draining, and what N lines cost. See `docs/benchmarks.md`.
//!
//! `cargo bench --bench whole -- [PART…] [--binary FILE] [--peers DIR] [--out FILE]`; parts: start memory cost outage. FILE
//! is the extension, for one built otherwise than by `cargo bench`; in DIR are others to be started in turn with ours
//! (`benches/peers`). Results are lines of JSON.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a bench fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod process;
mod work;

use outlast::encode::Otlp;
use outlast_backend::Signal;
use outlast_simulator::{Invocation, ShutdownReason};
use process::{
    LONG, OURS, WORDS, backend, bytes_below, cpu_nanos, files, leave_backlog, logging, milliseconds, ours,
    sandbox, spread, status, thread_nanos, told, written,
};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use work::{Form, batch, deflate_once, delivery, noise, open};

/// Starts of each program, in turn: the machine's moods meet all of them alike.
const STARTS: usize = 40;
/// An address that refuses connections: nobody listens on this port.
const NOBODY: &str = "http://127.0.0.1:9";
/// Blocks of 64 KiB that make a backlog of 64 MiB, less what the heads of segments take.
const BACKLOG_BLOCKS: u128 = 960;

#[tokio::main]
async fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let (mut parts, mut peers, mut out) = (Vec::new(), None, None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--binary" => OURS.set(words.next().unwrap().into()).unwrap(),
            "--peers" => peers = words.next().map(PathBuf::from),
            "--out" => out = words.next().map(PathBuf::from),
            _ => parts.push(word),
        }
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|word| word == part);
    let mut found = Vec::new();
    if wanted("start") {
        found.extend(start(peers.as_deref()).await);
    }
    if wanted("memory") {
        found.extend(memory(peers.as_deref()).await);
    }
    if wanted("cost") {
        found.extend(cost().await);
    }
    if wanted("outage") {
        found.push(outage().await);
    }
    if let Some(out) = out {
        let lines: Vec<String> = found.iter().map(Value::to_string).collect();
        fs::write(out, lines.join("\n") + "\n").unwrap();
    }
}

// === Parts ===

/// From exec to the first `next`, and the CPU time of that, of ours and of others in turn.
async fn start(peers: Option<&Path>) -> Vec<Value> {
    let full = TempDir::new().unwrap();
    fill(full.path(), BACKLOG_BLOCKS);
    let mut programs = vec![("ours".to_owned(), ours().to_owned(), None)];
    programs.push(("ours, 64 MiB waiting".to_owned(), ours().to_owned(), Some(full.path())));
    for peer in peers.into_iter().flat_map(|dir| fs::read_dir(dir).unwrap().flatten()) {
        programs.push((peer.file_name().display().to_string(), peer.path(), None));
    }
    let mut taken = vec![(Vec::new(), Vec::new()); programs.len()];
    for _ in 0..STARTS {
        for ((_, program, dir), (times, cpu)) in programs.iter().zip(&mut taken) {
            let fresh = TempDir::new().unwrap();
            let lambda = sandbox(program, NOBODY, dir.unwrap_or(fresh.path())).start().await.unwrap();
            times.push(milliseconds(lambda.init_times().unwrap().extensions_ready));
            cpu.push(cpu_nanos(lambda.process_ids()[0]) as f64 / 1e6);
            lambda.kill().await;
        }
    }
    let rows = programs.into_iter().zip(taken).map(|((name, ..), (times, cpu))| {
        let ((median, high), (cpu, _)) = (spread(times), spread(cpu));
        told(json!({"part": "start", "program": name, "median_ms": median, "p99_ms": high, "cpu_ms": cpu}))
    });
    rows.collect()
}

/// Blocks of 64 KiB that wait.
fn fill(dir: &Path, blocks: u128) {
    let (mut queue, new) = (open(dir), noise(64 << 10, &Otlp));
    for number in 0..blocks {
        queue.append(&batch(number, vec![new.clone()])).unwrap();
    }
}

/// Resident memory, threads and files: idle, under a burst of 67 MB, with 64 MiB waiting.
async fn memory(peers: Option<&Path>) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut programs = vec![("ours".to_owned(), ours().to_owned())];
    for peer in peers.into_iter().flat_map(|dir| fs::read_dir(dir).unwrap().flatten()) {
        programs.push((peer.file_name().display().to_string(), peer.path()));
    }
    for (name, program) in programs {
        let (backend, dir) = (backend(), TempDir::new().unwrap());
        let lambda = sandbox(&program, &backend.url(), dir.path()).start().await.unwrap();
        let process = lambda.process_ids()[0];
        for _ in 0..20 {
            lambda.invoke(logging(12)).await.unwrap();
        }
        lambda.settled().await;
        let (idle, threads, files) = (status(process, "VmRSS"), status(process, "Threads"), files(process));
        for _ in 0..9 {
            lambda.invoke(logging(30_000)).await.unwrap();
            lambda.settled().await;
        }
        let burst = status(process, "VmHWM");
        rows.push(told(json!({"part": "memory", "program": name, "idle_kb": idle, "burst_kb": burst,
            "anonymous_kb": status(process, "RssAnon"), "threads": threads, "files": files})));
        lambda.kill().await;
    }
    let dir = TempDir::new().unwrap();
    fill(dir.path(), BACKLOG_BLOCKS);
    let lambda = sandbox(ours(), NOBODY, dir.path()).start().await.unwrap();
    let process = lambda.process_ids()[0];
    for _ in 0..20 {
        lambda.invoke(logging(12)).await.unwrap();
    }
    lambda.settled().await;
    let waiting = status(process, "VmHWM");
    rows.push(told(json!({"part": "memory", "program": "ours, 64 MiB waiting", "waiting_kb": waiting, "files": files(process)})));
    lambda.kill().await;
    rows
}

/// CPU time from the delivery to the backend, over that of deflating the same bytes once; acknowledgement; what N lines of
/// 250 bytes cost.
async fn cost() -> Vec<Value> {
    let mut rows = Vec::new();
    for (lines, invocations) in [(1, 60), (10, 60), (100, 40), (1_200, 30), (10_000, 12)] {
        let (backend, dir) = (backend(), TempDir::new().unwrap());
        let lambda = sandbox(ours(), &backend.url(), dir.path()).start().await.unwrap();
        let process = lambda.process_ids()[0];
        lambda.invoke(logging(lines)).await.unwrap();
        lambda.settled().await;
        let first = lambda.deliveries().len();
        let (mut added, before) = (Vec::new(), cpu_nanos(process));
        for _ in 0..invocations {
            added.push(milliseconds(lambda.invoke(logging(lines)).await.unwrap().added));
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        lambda.settled().await;
        let total = lambda.acknowledged_count() as u64;
        backend.wait_for(|received| received.count(Signal::Logs) as u64 >= total, LONG).await.unwrap();
        let cpu = (cpu_nanos(process) - before) as f64 / 1e6;
        let deliveries = lambda.deliveries().split_off(first);
        let bytes: usize = deliveries.iter().map(|delivery| delivery.bytes).sum();
        let (ack, ack_high) = spread(deliveries.iter().map(|delivery| milliseconds(delivery.took)).collect());
        let (added, added_high) = spread(added);
        let deflate = deflate_milliseconds(bytes);
        rows.push(told(
            json!({"part": "cost", "lines": lines, "invocations": invocations, "bytes": bytes, "cpu_ms": cpu,
            "cpu_ms_per_invocation": cpu / f64::from(invocations), "over_deflate": cpu / deflate,
            "ack_ms": ack, "ack_p99_ms": ack_high, "added_ms": added, "added_p99_ms": added_high}),
        ));
        lambda.shutdown(ShutdownReason::Spindown).await;
    }
    rows
}

/// CPU milliseconds of deflating once `bytes` bytes of deliveries, in pieces as long as blocks are.
fn deflate_milliseconds(bytes: usize) -> f64 {
    const ROUNDS: u32 = 9;
    let body = delivery(Form::Text, 4_000, WORDS);
    let mut room = Vec::new();
    let before = thread_nanos();
    for _ in 0..ROUNDS {
        body.chunks(256 << 10).for_each(|plain| deflate_once(plain, &mut room));
    }
    let taken = (thread_nanos() - before) as f64 / 1e6 / f64::from(ROUNDS);
    taken * bytes as f64 / body.len() as f64
}

/// With nobody to send to: bytes on disk, and written to it, per byte received. Then somebody is there: how long a backlog of 64 MiB takes.
async fn outage() -> Value {
    let dir = TempDir::new().unwrap();
    let lambda = sandbox(ours(), NOBODY, dir.path()).start().await.unwrap();
    for _ in 0..4 {
        lambda.invoke(logging(20_000)).await.unwrap();
    }
    lambda.settled().await;
    let received: usize = lambda.deliveries().iter().map(|delivery| delivery.bytes).sum();
    let per_byte = bytes_below(dir.path()) as f64 / received as f64;
    let written = written(lambda.process_ids()[0]) as f64 / received as f64;
    lambda.kill().await;

    let dir = TempDir::new().unwrap();
    let all = leave_backlog(dir.path(), 60 << 20);
    let backend = backend();
    let lambda = sandbox(ours(), &backend.url(), dir.path()).start().await.unwrap();
    let began = Instant::now();
    let (running, counted) =
        tokio::join!(lambda.invoke(Invocation::new().runs_for(Duration::from_secs(8)).logs(1)), async {
            backend.wait_for(|received| received.count(Signal::Logs) as u64 >= all, LONG).await.unwrap();
            began.elapsed()
        });
    running.unwrap();
    lambda.kill().await;
    // The backend answers first, then inflates and counts what it has: that is no part of draining.
    let requests = backend.requests();
    let answered =
        requests.iter().filter_map(|request| request.answered_at).filter(|at| *at < began + counted);
    let drained = answered.max().unwrap() - began;
    told(
        json!({"part": "outage", "disk_per_byte": per_byte, "written_per_byte": written, "drained_s": drained.as_secs_f64(),
            "counted_s": counted.as_secs_f64(), "requests": requests.len()}),
    )
}
