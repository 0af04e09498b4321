//! What is seen of the extension besides its records: memory, disk, freezes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use outlast_backend::Backend;
use outlast_simulator::{Moment, Sandbox};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

use super::books::Books;
use super::requests::LONG_FREEZE;
use super::room;
use super::stage::lock;

const WATCH_EVERY: Duration = Duration::from_millis(100);

/// What was seen of the extension besides its records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    pub(crate) rss_max_kib: u64,
    pub(crate) disk_max_bytes: u64,
    /// The same for the present sandbox, whose settings say what it may be.
    pub(crate) disk_of_sandbox_max_bytes: u64,
    /// The files there were then.
    pub(crate) files_of_sandbox: Vec<(String, u64)>,
    /// What the extension added to each undisturbed invocation, in microseconds.
    pub(crate) added_micros: Vec<u64>,
    pub(crate) processes: u64,
    pub(crate) shutdowns: u64,
    pub(crate) killed_at_deadline: u64,
}

/// `VmHWM` of the extension in KiB.
pub(crate) fn rss_max_kib(process: i32) -> Option<u64> {
    // Before exec it is a copy of ours.
    let executable = std::fs::read_link(format!("/proc/{process}/exe")).ok()?;
    (executable != std::env::current_exe().ok()?).then_some(())?;
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Reads memory and disk now and then, for as long as the sandbox lives.
pub(crate) async fn watch(lambda: Weak<Sandbox>, queue: PathBuf, books: Arc<Mutex<Books>>) {
    let mut last = 0;
    while let Some(lambda) = lambda.upgrade() {
        let process = lambda.process_ids().first().copied();
        drop(lambda);
        let rss = process.and_then(rss_max_kib);
        // A walk may count a file under two names, if it is renamed meanwhile.
        let disk = room::bytes_below(&queue).min(room::bytes_below(&queue));
        if let Some(process) = process.filter(|process| *process != last) {
            last = process;
            lock(&books).watched.processes += 1;
        }
        note(&mut lock(&books).watched, rss.unwrap_or_default(), disk, &queue);
        sleep(WATCH_EVERY).await;
    }
}

fn note(watched: &mut Watched, rss_kib: u64, disk_bytes: u64, queue: &Path) {
    if disk_bytes > watched.disk_of_sandbox_max_bytes {
        watched.files_of_sandbox = room::files_in(queue);
    }
    watched.rss_max_kib = watched.rss_max_kib.max(rss_kib);
    watched.disk_max_bytes = watched.disk_max_bytes.max(disk_bytes);
    watched.disk_of_sandbox_max_bytes = watched.disk_of_sandbox_max_bytes.max(disk_bytes);
}

/// Cuts the backend's idle connections at every freeze, as a network forgets those of a frozen sandbox, and notes long
/// freezes.
pub(crate) async fn note_freezes(
    mut moments: tokio::sync::broadcast::Receiver<Moment>,
    backend: Backend,
    books: Arc<Mutex<Books>>,
) {
    let mut frozen = None;
    loop {
        match moments.recv().await {
            Ok(Moment::Frozen) => {
                frozen = Some(Instant::now());
                backend.cut_idle().await;
            }
            Ok(_) => {
                let since = frozen.take().filter(|since: &Instant| since.elapsed() >= LONG_FREEZE);
                if let Some(since) = since {
                    lock(&books).disrupted(since, Instant::now());
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
