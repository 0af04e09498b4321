//! The smallest function: 128 MB and 7 % of a CPU, shared by the extension and a function that computes without rest.

use std::io::{Error, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outlast_backend::{Backend, Behaviour, Keep};
use outlast_simulator::{Freeze, FunctionOptions, Invocation, Sandbox, ShutdownReason};

use crate::gauge;
use crate::plot::number;
use crate::sweep::{Lines, invoke};

const MEMORY_BYTES: u64 = 128 << 20;
/// 128 MB of the 1,769 that are one CPU (AWS developer guide, "Configure Lambda function memory"), in slices of 20 ms.
const PERIOD_US: u64 = 20_000;
const QUOTA_US: u64 = 1_447;

/// How long the function computes at a time, and how often each case has its turn.
const TURN: Duration = Duration::from_secs(5);
const TURNS: usize = 3;
/// An invocation meanwhile, and its log lines.
const RUN: Duration = Duration::from_millis(500);
const LINES: usize = 10;
const LINE_BYTES: usize = 200;

/// How long anything is waited for; with so little CPU everything takes longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// What happens beside the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Alone,
    Idle,
    Healthy,
    Away,
}

const CASES: [(Case, &str); 4] = [
    (Case::Alone, "no extension"),
    (Case::Idle, "the extension, no invocation"),
    (Case::Healthy, "two invocations a second with ten lines each, backend healthy"),
    (Case::Away, "the same, backend away"),
];

pub(crate) async fn run(extension: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let group = Group::make()?;
    println!("{group}");
    let files = tempfile::tempdir()?;
    let outlast = group.wrapper(files.path(), extension)?;

    let mut turns: Vec<Vec<f64>> = vec![Vec::new(); CASES.len()];
    let (mut added, mut added_away) = (Vec::new(), Vec::new());
    let mut most_kib = 0;
    for _ in 0..TURNS {
        for (index, (case, _)) in CASES.iter().enumerate() {
            let turn = turn(*case, &group, &outlast, files.path()).await?;
            turns[index].push(turn.rounds);
            most_kib = most_kib.max(turn.peak_kib);
            if *case == Case::Away { &mut added_away } else { &mut added }.extend(turn.added);
        }
    }
    println!("\nrounds of the function in {} s, median of {TURNS} turns", TURN.as_secs());
    let alone = median(&mut turns[0].clone());
    for ((_, name), rounds) in CASES.iter().zip(&mut turns) {
        let (least, most) = rounds.iter().fold((f64::MAX, 0.0_f64), |(a, b), x| (a.min(*x), b.max(*x)));
        let middle = median(rounds);
        println!(
            "  {name}: {}, {:.1} % (all: {} to {})",
            number(middle),
            100.0 * middle / alone,
            number(least),
            number(most)
        );
    }
    for (name, added) in [("healthy", &mut added), ("away", &mut added_away)] {
        let count = added.len();
        let (middle, most) = gauge::median_and_99(added);
        println!("added to {count} invocations, backend {name}: median {middle:?}, 99 % {most:?}");
    }
    println!("resident at most {most_kib} KiB; nothing lost");
    Ok(())
}

struct Turn {
    rounds: f64,
    added: Vec<Duration>,
    peak_kib: u64,
}

async fn turn(
    case: Case,
    group: &Group,
    outlast: &Path,
    files: &Path,
) -> Result<Turn, Box<dyn std::error::Error>> {
    if case == Case::Alone {
        let function = group.function()?;
        return Ok(Turn { rounds: rounds(function).await?, added: Vec::new(), peak_kib: 0 });
    }
    let queue = tempfile::tempdir_in(files)?;
    let backend = Backend::builder().keep(Keep::Texts).start()?;
    let function = FunctionOptions { memory_mb: 128, timeout: PATIENCE, ..FunctionOptions::default() };
    let lambda = Sandbox::builder(outlast)
        .env("OUTLAST_ENDPOINT", backend.url())
        .env("OUTLAST_QUEUE_DIR", queue.path().join("queue").display())
        .env("OUTLAST_RETRY_MAX", "2s")
        .function(function)
        .init_limit(PATIENCE)
        .freeze(Freeze::Off)
        .start()
        .await?;
    let mut lines = Lines::new();
    // The first is held, until a gap is known.
    for _ in 0..4 {
        invoke(&lambda, Invocation::new().runs_for(RUN).logs(1)).await;
    }
    if case == Case::Away {
        backend.behave(Behaviour::status(503));
        // So that it is known to be away.
        for _ in 0..4 {
            invoke(&lambda, Invocation::new().runs_for(RUN).logs(1)).await;
        }
    }
    let function = group.function()?;
    let (mut added, end) = (Vec::new(), Instant::now() + TURN);
    while Instant::now() + RUN < end {
        if case == Case::Idle {
            tokio::time::sleep(RUN).await;
        } else {
            added.push(invoke(&lambda, lines.invocation(RUN, LINES, LINE_BYTES)).await);
        }
    }
    let rounds = rounds(function).await?;
    backend.behave(Behaviour::healthy());
    tokio::time::timeout(PATIENCE, lambda.settled()).await?;
    let said = lambda.acknowledged_lines();
    let arrived = backend.wait_for(|received| received.missing(&said).is_empty(), PATIENCE).await;
    if arrived.is_err() {
        return Err(format!("{} lines did not arrive", backend.missing(&said).len()).into());
    }
    let peak_kib = gauge::peak_kib(&lambda);
    lambda.shutdown(ShutdownReason::Spindown).await;
    Ok(Turn { rounds, added, peak_kib })
}

/// What the function got done.
async fn rounds(function: Child) -> Result<f64, Box<dyn std::error::Error>> {
    let output = tokio::task::spawn_blocking(move || function.wait_with_output()).await??;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Computes for as long as told, and says how far it came.
pub(crate) fn spin(time: Duration) {
    const ROUND: u64 = 10_000;
    let began = Instant::now();
    let (mut state, mut rounds) = (1_u64, 0_u64);
    while began.elapsed() < time {
        for _ in 0..ROUND {
            // Knuth's generator: each step needs the one before.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        }
        rounds += 1;
        std::hint::black_box(state);
    }
    println!("{rounds}");
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A cgroup, removed when dropped.
struct Group {
    dirs: Vec<PathBuf>,
    version: u8,
}

impl Group {
    /// With cgroup v2 where its controllers can be used, else with v1.
    fn make() -> Result<Self, Error> {
        let name = format!("outlast-small-{}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let controllers = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let limits: Vec<(&str, &str, String)> =
            if controllers.contains("cpu") && controllers.contains("memory") {
                std::fs::write(root.join("cgroup.subtree_control"), "+cpu +memory")?;
                vec![
                    ("", "cpu.max", format!("{QUOTA_US} {PERIOD_US}")),
                    ("", "memory.max", MEMORY_BYTES.to_string()),
                ]
            } else {
                vec![
                    ("cpu", "cpu.cfs_period_us", PERIOD_US.to_string()),
                    ("cpu", "cpu.cfs_quota_us", QUOTA_US.to_string()),
                    ("memory", "memory.limit_in_bytes", MEMORY_BYTES.to_string()),
                ]
            };
        let version = if limits[0].0.is_empty() { 2 } else { 1 };
        let mut group = Self { dirs: Vec::new(), version };
        for (controller, file, value) in limits {
            let dir = root.join(controller).join(&name);
            if !group.dirs.contains(&dir) {
                std::fs::create_dir(&dir)?;
                group.dirs.push(dir.clone());
            }
            std::fs::write(dir.join(file), value)?;
        }
        Ok(group)
    }

    /// Shell commands that move the shell itself into the group.
    fn entering(&self) -> String {
        let enter = |dir: &PathBuf| format!("echo $$ > {}/cgroup.procs\n", dir.display());
        self.dirs.iter().map(enter).collect()
    }

    /// An executable that becomes `extension` within the group.
    fn wrapper(&self, dir: &Path, extension: &Path) -> Result<PathBuf, Error> {
        let path = dir.join("outlast");
        let mut file = std::fs::File::create(&path)?;
        let extension = std::path::absolute(extension)?;
        write!(file, "#!/bin/sh\n{}exec {} \"$@\"\n", self.entering(), extension.display())?;
        file.set_permissions(std::fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// A function that computes for a turn, within the group.
    fn function(&self) -> Result<Child, Error> {
        let me = std::env::current_exe()?;
        let script = format!("{}exec {} --spin {}", self.entering(), me.display(), TURN.as_secs());
        Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn()
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, .. } = self;
        write!(f, "cgroup v{version}: {} MiB, {QUOTA_US} µs of CPU in {PERIOD_US} µs", MEMORY_BYTES >> 20)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for dir in &self.dirs {
            if let Err(error) = std::fs::remove_dir(dir) {
                eprintln!("{} stays: {error}", dir.display());
            }
        }
    }
}
