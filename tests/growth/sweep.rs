//! One thing grows, everything else stays: CPU, memory, disk and added time, each over it.

use std::path::Path;
use std::time::{Duration, Instant};

use outlast_backend::{Backend, Behaviour, Keep, Signal};
use outlast_simulator::{Builder, Freeze, Invocation, Sandbox, ShutdownReason};

use crate::gauge;
use crate::plot::{Chart, Line, Panel, number};

/// How long anything is waited for: an hour's backlog on a busy machine takes less.
const PATIENCE: Duration = Duration::from_secs(300);
/// Room for the largest backlog and what comes on top.
const QUEUE_MAX_BYTES: u64 = 700 << 20;
/// Invocations before anything is measured: the first is held.
const WARM_UP: usize = 4;
/// A backlog is made by environments that keep so much each, for the simulator remembers what it sent.
const FILL_BYTES: u64 = 64 << 20;
/// Lines of a backlog, which hardly shrink: the disk is what counts.
const FILL_LINES: usize = 1_000;
const FILL_LINE_BYTES: usize = 1_000;

/// What is done to the extension in one measurement.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// On disk when it begins, with the backend away.
    backlog_bytes: u64,
    /// The backend is away while it lasts.
    away: bool,
    invocations: usize,
    lines: usize,
    line_bytes: usize,
    /// From the beginning of one invocation to that of the next.
    every: Duration,
}

const USUAL: Load = Load {
    backlog_bytes: 0,
    away: false,
    invocations: 40,
    lines: 100,
    line_bytes: 200,
    every: Duration::from_millis(50),
};

/// A thing that grows.
pub(crate) struct Sweep {
    pub(crate) name: &'static str,
    axis: &'static str,
    pub(crate) values: &'static [u64],
    load: fn(u64) -> Load,
    /// What a share of CPU time is told for.
    per: Per,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Per {
    Record,
    Kilobyte,
    Invocation,
}

pub(crate) const ALL: [Sweep; 5] = [
    Sweep {
        name: "records",
        axis: "records per invocation, 200 bytes each",
        values: &[1, 10, 100, 1_000, 10_000, 50_000],
        load: |lines| Load {
            lines: lines as usize,
            invocations: (50_000 / lines).clamp(4, 40) as usize,
            ..USUAL
        },
        per: Per::Record,
    },
    Sweep {
        name: "size",
        axis: "bytes per record, 500 KB per invocation",
        values: &[100, 1_000, 10_000, 50_000, 200_000],
        load: |bytes| Load { lines: (500_000 / bytes).max(1) as usize, line_bytes: bytes as usize, ..USUAL },
        per: Per::Kilobyte,
    },
    Sweep {
        name: "backlog",
        axis: "MiB waiting on disk; 100 records per invocation come on top",
        values: &[0, 1, 4, 16, 64, 256, 512],
        load: |mib| Load { backlog_bytes: mib << 20, away: true, ..USUAL },
        per: Per::Record,
    },
    Sweep {
        name: "outage",
        axis: "invocations during the outage, 100 records each",
        values: &[10, 30, 100, 300, 1_000],
        load: |invocations| Load { away: true, invocations: invocations as usize, ..USUAL },
        per: Per::Record,
    },
    Sweep {
        name: "rate",
        axis: "invocations per second, 100 records each",
        values: &[1, 2, 5, 10, 20, 50, 100],
        load: |rate| Load {
            invocations: (4 * rate).max(8) as usize,
            every: Duration::from_secs(1) / rate as u32,
            ..USUAL
        },
        per: Per::Invocation,
    },
];

/// What was measured at one value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    value: u64,
    /// Microseconds of CPU, per what the sweep says: to take in, keep and (with the backend there) deliver.
    cpu: f64,
    /// Milliseconds of CPU to deliver a MiB of what waited on disk.
    drain_cpu: f64,
    /// MiB a second.
    drain_rate: f64,
    peak_mib: f64,
    disk_mib: f64,
    added_ms: f64,
    added_99_ms: f64,
}

pub(crate) const HEADS: [&str; 8] = [
    "value",
    "cpu_us_per_unit",
    "drain_cpu_ms_per_mib",
    "drain_mib_per_s",
    "peak_mib",
    "disk_mib",
    "added_ms",
    "added_99_ms",
];

impl Row {
    fn cells(&self) -> [f64; 8] {
        let Self { value, cpu, drain_cpu, drain_rate, peak_mib, disk_mib, added_ms, added_99_ms } = *self;
        [value as f64, cpu, drain_cpu, drain_rate, peak_mib, disk_mib, added_ms, added_99_ms]
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.cells().map(number).join(" "))
    }
}

impl Sweep {
    pub(crate) async fn measure(&self, extension: &Path, value: u64) -> Row {
        let load = (self.load)(value);
        let dir = tempfile::tempdir().unwrap();
        let queue = dir.path().join("queue");
        let backend = Backend::builder().keep(Keep::Counts).start().unwrap();
        let mut lines = Lines::new();
        if load.away {
            backend.behave(Behaviour::status(503));
        }
        let builder = || {
            Sandbox::builder(extension)
                .env("OUTLAST_ENDPOINT", backend.url())
                .env("OUTLAST_QUEUE_DIR", queue.display())
                .env("OUTLAST_QUEUE_MAX_BYTES", QUEUE_MAX_BYTES)
                // Or the wait for the next attempt would be what is measured.
                .env("OUTLAST_RETRY_MAX", "500ms")
                .freeze(Freeze::Off)
                .timeout(PATIENCE)
        };
        let mut acknowledged = 0;
        while gauge::disk(&queue) < load.backlog_bytes {
            let goal = load.backlog_bytes.min(gauge::disk(&queue) + FILL_BYTES);
            acknowledged += fill(builder(), &queue, goal, &mut lines).await;
        }

        let lambda = builder().start().await.unwrap();
        for _ in 0..WARM_UP {
            invoke(&lambda, Invocation::new().runs_for(Duration::from_millis(50)).logs(1)).await;
        }
        lambda.settled().await;
        // A start over a backlog counts it, once: that is not what an invocation costs.
        gauge::rest(&lambda).await;
        let before = gauge::cpu(&lambda);
        let mut added = Vec::new();
        for _ in 0..load.invocations {
            let next = Instant::now() + load.every;
            let run = load.every.min(Duration::from_millis(50)) / 2;
            let invocation = lines.invocation(run, load.lines, load.line_bytes);
            added.push(invoke(&lambda, invocation).await);
            tokio::time::sleep_until(next.into()).await;
        }
        lambda.settled().await;
        if !load.away {
            arrive(&backend, lambda.acknowledged_count()).await;
        }
        let taken = gauge::cpu(&lambda);
        let disk = gauge::disk(&queue);

        acknowledged += lambda.acknowledged_count();
        backend.behave(Behaviour::healthy());
        let began = Instant::now();
        arrive(&backend, acknowledged).await;
        let drained = began.elapsed();
        let drain_cpu = gauge::cpu(&lambda).saturating_sub(taken);
        let peak = gauge::peak_kib(&lambda);
        lambda.shutdown(ShutdownReason::Spindown).await;

        let units = match self.per {
            Per::Record => load.invocations * load.lines,
            Per::Kilobyte => load.invocations * load.lines * load.line_bytes / 1_000,
            Per::Invocation => load.invocations,
        };
        let disk_mib = disk as f64 / f64::from(1 << 20);
        let (median, most) = gauge::median_and_99(&mut added);
        let only_away = |value: f64| if load.away { value } else { f64::NAN };
        Row {
            value,
            cpu: taken.saturating_sub(before).as_secs_f64() * 1e6 / units as f64,
            drain_cpu: only_away(drain_cpu.as_secs_f64() * 1e3 / disk_mib),
            drain_rate: only_away(disk_mib / drained.as_secs_f64()),
            peak_mib: peak as f64 / 1024.0,
            disk_mib,
            added_ms: median.as_secs_f64() * 1e3,
            added_99_ms: most.as_secs_f64() * 1e3,
        }
    }

    pub(crate) fn chart(&self, rows: &[Row]) -> Chart {
        // Nothing has no place on an axis of powers: it stands left of the first.
        let place = |row: &Row| (row.value as f64).max(0.25);
        let line = |name: &str, of: fn(&Row) -> f64| Line {
            name: name.to_owned(),
            points: rows.iter().map(|row| (place(row), of(row))).collect(),
        };
        let panel = |title: &str, lines: Vec<Line>| Panel {
            title: title.to_owned(),
            lines,
            levels: Vec::new(),
            by_powers: false,
        };
        let unit = match self.per {
            Per::Record => "record",
            Per::Kilobyte => "KB",
            Per::Invocation => "invocation",
        };
        let mut panels = vec![panel(&format!("CPU, µs per {unit}"), vec![line("", |row| row.cpu)])];
        panels[0].by_powers = self.per == Per::Record && self.name == "records";
        if rows.iter().any(|row| row.drain_cpu.is_finite()) {
            panels
                .push(panel("CPU to deliver a MiB of what waited, ms", vec![line("", |row| row.drain_cpu)]));
        }
        panels.push(panel("memory at most, MiB", vec![line("", |row| row.peak_mib)]));
        panels.push(panel("on disk, MiB", vec![line("", |row| row.disk_mib)]));
        panels.push(panel(
            "added to an invocation, ms",
            vec![line("median", |row| row.added_ms), line("99 %", |row| row.added_99_ms)],
        ));
        Chart { axis: self.axis.to_owned(), by_powers: true, panels }
    }
}

/// The rows as a table for other programs.
pub(crate) fn csv(rows: &[Row]) -> String {
    let line = |row: &Row| {
        row.cells().map(|cell| if cell.is_nan() { String::new() } else { format!("{cell:.4}") }).join(",")
    };
    let lines = rows.iter().map(line);
    std::iter::once(HEADS.join(",")).chain(lines).map(|line| line + "\n").collect()
}

/// Fills the queue up to `goal` and leaves. Returns how many events are in it.
async fn fill(builder: Builder, queue: &Path, goal: u64, lines: &mut Lines) -> usize {
    let lambda = builder.start().await.unwrap();
    while gauge::disk(queue) < goal {
        let missing = (goal - gauge::disk(queue)) as usize / FILL_LINE_BYTES;
        let count = missing.clamp(10, FILL_LINES);
        invoke(&lambda, lines.noise(count, FILL_LINE_BYTES)).await;
        lambda.settled().await;
    }
    lambda.shutdown(ShutdownReason::Spindown).await;
    lambda.acknowledged_count()
}

/// Waits until so many log records are at the backend.
async fn arrive(backend: &Backend, count: usize) {
    backend.wait_for(|received| received.count(Signal::Logs) >= count, PATIENCE).await.unwrap();
}

/// What the extension added to the invocation.
pub(crate) async fn invoke(lambda: &Sandbox, invocation: Invocation) -> Duration {
    let invoked = tokio::time::timeout(PATIENCE, lambda.invoke(invocation)).await.unwrap().unwrap();
    assert!(invoked.succeeded(), "{:?}", invoked.response);
    invoked.added
}

/// Log lines that compress as log lines do.
pub(crate) struct Lines {
    random: fastrand::Rng,
}

const WORDS: [&str; 24] = [
    "request",
    "finished",
    "order",
    "customer",
    "GET",
    "/api/v2/orders",
    "status=200",
    "duration_ms=",
    "INFO",
    "WARN",
    "retrying",
    "cache",
    "miss",
    "table=orders",
    "user",
    "session",
    "token",
    "eu-central-1",
    "took",
    "bytes=",
    "attempt=1",
    "payment",
    "accepted",
    "trace",
];

impl Lines {
    pub(crate) fn new() -> Self {
        Self { random: fastrand::Rng::with_seed(7) }
    }

    /// Words and numbers.
    fn line(&mut self, bytes: usize) -> String {
        let mut line = String::with_capacity(bytes + 16);
        while line.len() < bytes {
            line.push_str(WORDS[self.random.usize(..WORDS.len())]);
            if self.random.u8(..4) == 0 {
                let number = format!("{:x}", self.random.u32(..));
                line.push_str(&number);
            }
            line.push(' ');
        }
        line.truncate(bytes);
        // What a line ends with is not told apart from its end.
        line.trim_end().to_owned()
    }

    pub(crate) fn invocation(&mut self, run: Duration, lines: usize, bytes: usize) -> Invocation {
        let share = u32::try_from(lines.max(1)).unwrap();
        (0..share).fold(Invocation::new().runs_for(run), |invocation, at| {
            invocation.line_at(run / share * at, self.line(bytes))
        })
    }

    fn noise(&mut self, lines: usize, bytes: usize) -> Invocation {
        (0..lines).fold(Invocation::new(), |invocation, _| {
            invocation
                .line(std::iter::repeat_with(|| self.random.alphanumeric()).take(bytes).collect::<String>())
        })
    }
}
