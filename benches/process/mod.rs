//! The extension as a process of its own, between the simulated Lambda and a backend on loopback, and what /proc says of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench fails by panicking")]
#![allow(dead_code, reason = "each bench is a crate of its own and uses some of this")]

use crate::work::{batch, block, open, plain_block, resource, said};
use outlast::encode::Otlp;
use outlast_backend::{Backend, Decode, Keep};
use outlast_simulator::{Builder, Freeze, Invocation, Sandbox};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Words of a line: some 250 bytes of a delivery.
pub(crate) const WORDS: usize = 20;
/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) static OURS: OnceLock<PathBuf> = OnceLock::new();

pub(crate) fn ours() -> &'static Path {
    OURS.get_or_init(|| env!("CARGO_BIN_EXE_outlast").into())
}

pub(crate) fn told(row: Value) -> Value {
    println!("{row}");
    row
}

/// `program` in a sandbox, sending to `endpoint`, with its queue in `dir`.
pub(crate) fn sandbox(program: &Path, endpoint: &str, dir: &Path) -> Builder {
    Sandbox::builder(program)
        .freeze(Freeze::Off)
        .env("OUTLAST_ENDPOINT", endpoint)
        .env("OUTLAST_QUEUE_DIR", dir.display())
        .env("LAMBDA_OTEL_EXPORTER_ENDPOINT", endpoint)
}

pub(crate) fn backend() -> Backend {
    Backend::builder().keep(Keep::Counts).decode(Decode::AfterAnswer).start().unwrap()
}

/// An invocation that logs so many lines.
pub(crate) fn logging(lines: usize) -> Invocation {
    let mut random = fastrand::Rng::new();
    let invocation = Invocation::new().runs_for(Duration::from_millis(20));
    (0..lines).fold(invocation, |invocation, number| invocation.line(said(number, WORDS, &mut random)))
}

/// The middle of `values`, and the one that 99 % do not exceed.
pub(crate) fn spread(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    (values[last / 2], values[last * 99 / 100])
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

// === What /proc says ===

/// A field of `/proc/PID/status`, in kB or as a number.
pub(crate) fn status(process: i32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap_or_default();
    line.split_ascii_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// CPU nanoseconds so far of all threads that are there.
pub(crate) fn cpu_nanos(process: i32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    threads.map(|thread| ran_nanos(&thread.path())).sum()
}

/// CPU nanoseconds so far of the calling thread.
pub(crate) fn thread_nanos() -> u64 {
    ran_nanos(Path::new("/proc/thread-self"))
}

pub(crate) fn ran_nanos(task: &Path) -> u64 {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    text.split_ascii_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default()
}

/// Bytes that the process has had written to a disk so far.
pub(crate) fn written(process: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or_default()
}

pub(crate) fn files(process: i32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// Bytes of the files below `dir`.
pub(crate) fn bytes_below(dir: &Path) -> u64 {
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    fs::read_dir(dir).into_iter().flatten().flatten().map(size).sum()
}

/// Blocks as a function that logs as Node.js does leaves them, some `bytes` in all: how many records.
pub(crate) fn leave_backlog(dir: &Path, bytes: u128) -> u64 {
    let (mut queue, mut deflater, resource) = (open(dir), outlast::queue::Deflater::default(), resource());
    let (plain, records) =
        plain_block(&crate::work::delivery(crate::work::Form::Node, 900, WORDS), &Otlp, &resource);
    let new = block(&plain, records, &Otlp, &mut deflater);
    let blocks = bytes / (new.payload.len() as u128 + 96);
    for number in 0..blocks {
        queue.append(&batch(number, vec![new.clone()])).unwrap();
    }
    u64::try_from(blocks).unwrap() * u64::from(records)
}
