//! Random faults from a seed, for as long as wanted, with an account at the end: `cargo run --release --example soak --
//! --minutes 60 --seed 7`, `-- --help` for the rest.
//!
//! What it does is planned by [`engine::plan`], what it says is told here. Where the machine allows it, it runs again in a
//! mount namespace of its own, with a small disk that can be full.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // it fails by panicking
#![allow(clippy::disallowed_methods, reason = "the world around the extension keeps real time")]

mod engine;
#[path = "../demo/extension.rs"]
mod extension;
mod options;
#[allow(dead_code, reason = "the demo's, which shows more")]
#[path = "../demo/spread.rs"]
mod spread;
#[path = "../common/usage.rs"]
mod usage;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::engine::account::Balance;
use crate::engine::plan::Episode;
use crate::engine::stage::Stage;
use crate::engine::watch::Watched;
use crate::engine::{churn, kills, play, room};
use crate::options::{Options, Run};
use crate::spread::{Spread, ms};

/// Memory of the extension that no run may pass, in KiB: a quarter of the smallest function's 128 MB.
const RSS_MAX_KIB: u64 = 32 << 10;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("soak: {error}; see --help");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Before there is a disk of our own, which cargo has no use for.
    let extension = match runtime.block_on(extension::find(options.extension.clone())) {
        Ok(extension) => extension,
        Err(error) => {
            eprintln!("soak: {error}");
            return ExitCode::from(2);
        }
    };
    if matches!(options.run, Run::Faults(_)) && room::Room::mine().is_none() {
        if room::is_possible() {
            // Known from here on: it is not built twice.
            let error = enter(&options, &extension);
            eprintln!("soak: no disk of its own: {error}");
            return ExitCode::from(2);
        }
        println!("this machine lets us mount nothing: the disk is never full");
    }
    let files = tempfile::tempdir().unwrap();
    let problems = runtime.block_on(run(&options, &extension, files.path()));
    if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Becomes the same command on a disk of its own.
fn enter(options: &Options, extension: &Path) -> std::io::Error {
    let dir = match tempfile::tempdir() {
        Ok(dir) => dir.keep(),
        Err(error) => return error,
    };
    let mut command = match room::command(&dir, options.room_mib << 20) {
        Ok(command) => command,
        Err(error) => return error,
    };
    command.args(std::env::args_os().skip(1)).arg("--extension").arg(extension);
    // Not replaced by it: the mount point is removed afterwards.
    match command.status() {
        Ok(status) => {
            drop(std::fs::remove_dir(&dir));
            std::process::exit(status.code().unwrap_or(2))
        }
        Err(error) => error,
    }
}

/// Runs, tells, and returns how many problems there were.
async fn run(options: &Options, extension: &Path, files: &Path) -> usize {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 40));
    println!("seed {seed}, {:?}, extension {}", options.run, extension.display());
    let stage = Stage::new(extension, files);
    let began = Instant::now();
    match options.run {
        Run::Faults(length) => {
            let stage = stage.with_clock(files);
            if stage.clock.is_none() {
                println!("no C compiler: the wall clock does not jump");
            }
            faults(&stage, seed, options.first, length).await;
            return tell(&stage, began.elapsed());
        }
        Run::Kills(rounds) => {
            kills::rounds(&stage, seed, rounds).await;
        }
        Run::ChurnMib(mib) => {
            churn::churn(&stage, seed, mib << 20, options.queue_mib << 20).await;
        }
        Run::FullMib(mib) => {
            let full = churn::full(&stage, seed, mib << 20).await;
            println!("{full}");
        }
    }
    tell(&stage, began.elapsed())
}

async fn faults(stage: &Stage, seed: u64, first: u64, length: Duration) {
    let deadline = Instant::now() + length;
    let mut told = 0;
    for number in first.. {
        if Instant::now() >= deadline {
            return;
        }
        let episode = Episode::of(seed, number);
        let balance = play::play(stage, &episode, &format!("{number}"), deadline).await;
        println!("episode {number}: {}", line(&balance));
        let problems = stage.books().problems.clone();
        if problems.len() > told {
            println!("  settings {:?}", episode.settings);
            println!("  steps {:?}", episode.steps);
            problems.iter().skip(told).for_each(|problem| println!("  PROBLEM {problem}"));
            told = problems.len();
        }
    }
}

fn line(balance: &Balance) -> String {
    let Balance {
        acknowledged,
        delivered,
        missing,
        dropped,
        unacknowledged,
        undelivered,
        parts,
        first_parts,
        unconfirmed,
        swapped,
        misordered,
    } = balance;
    let in_parts = match parts {
        0 => String::new(),
        _ => format!(", {first_parts} in {parts} parts"),
    };
    format!(
        "{acknowledged} acknowledged = {delivered} delivered + {missing} missing ({dropped} counted as dropped, \
         {unconfirmed} arrived unconfirmed{in_parts}); \
         {unacknowledged} more kept of {undelivered} not acknowledged; {swapped} neighbours swapped after a 500, \
         {misordered} out of order"
    )
}

/// The account at the end.
fn tell(stage: &Stage, took: Duration) -> usize {
    let mut books = stage.books();
    let Watched { rss_max_kib, disk_max_bytes, processes, shutdowns, killed_at_deadline, .. } = books.watched;
    if rss_max_kib > RSS_MAX_KIB {
        books.problems.push(format!("{rss_max_kib} KiB resident, above {RSS_MAX_KIB}"));
    }
    let added = Spread::of(std::mem::take(&mut books.watched.added_micros));
    println!("\nafter {:.0} s:", took.as_secs_f64());
    println!("  {}", line(&books.main.sum));
    println!("  reported to the backend: {:?}", books.main.account.reported());
    if books.further.sum != Balance::default() {
        println!("  a further destination: {}", line(&books.further.sum));
    }
    println!("  of what was delivered, the fallback has {} records", books.handed_over);
    println!("  repeats of requests whose fate was unknown: {} records", books.explained_repeats);
    println!(
        "  {processes} processes seen, {shutdowns} SHUTDOWNs and resets ({killed_at_deadline} killed at the deadline), \
         {} requests",
        stage.backend.received(|received| received.requests().len())
    );
    println!(
        "  memory at most {rss_max_kib} KiB (VmHWM), disk at most {disk_max_bytes} bytes, {} bytes left",
        room::bytes_below(stage.queue())
    );
    println!(
        "  {} undisturbed invocations: {} ms added at the median, {} at 99 %, {} at most",
        added.count,
        ms(added.median_us),
        ms(added.p99_us),
        ms(added.max_us)
    );
    for problem in &books.problems {
        println!("FAILED: {problem}");
    }
    println!(
        "{}",
        if books.problems.is_empty() {
            "nothing lost, repeated without need or out of order"
        } else {
            "FAILED"
        }
    );
    books.problems.len()
}
