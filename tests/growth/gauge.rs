//! What a process has used so far, as the kernel says.

use std::path::Path;
use std::time::Duration;

use outlast_simulator::Sandbox;

/// CPU time of all threads that live, to the nanosecond: `utime` and `stime` come in steps of 10 ms.
pub(crate) fn cpu(lambda: &Sandbox) -> Duration {
    let Some(pid) = lambda.process_ids().first().copied() else { return Duration::ZERO };
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let of = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(threads.flatten().filter_map(of).sum())
}

/// Waits until the process does next to nothing, but not for ever.
pub(crate) async fn rest(lambda: &Sandbox) {
    const LOOK: Duration = Duration::from_millis(200);
    const NEXT_TO_NOTHING: Duration = Duration::from_millis(2);
    for _ in 0..100 {
        let before = cpu(lambda);
        tokio::time::sleep(LOOK).await;
        if cpu(lambda).saturating_sub(before) < NEXT_TO_NOTHING {
            return;
        }
    }
}

/// The most memory that was resident, in KiB.
pub(crate) fn peak_kib(lambda: &Sandbox) -> u64 {
    let pid = lambda.process_ids()[0];
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

/// Bytes of the files below `dir`.
pub(crate) fn disk(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => disk(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// The middle of `values`, and the one that 99 of 100 do not exceed.
pub(crate) fn median_and_99(values: &mut [Duration]) -> (Duration, Duration) {
    values.sort_unstable();
    let rank = |percent: usize| {
        let at = (values.len() * percent).div_ceil(100).saturating_sub(1);
        values.get(at).copied().unwrap_or_default()
    };
    (rank(50), rank(99))
}
