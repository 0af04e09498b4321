//! A function's telemetry through an outage: a simulated busy function, the real extension, and a backend
//! that is healthy, refuses, resets, hangs, answers 503 and comes back, while the environment times out
//! once and the extension is killed once.
//!
//! `cargo run --release --example demo`, `-- --help` for its options. It ends with a table, and a page in
//! `target/demo/`; its exit status says whether anything acknowledged was lost.

#![allow(clippy::disallowed_methods, reason = "the demo is the world: it keeps real time")]

mod chart;
mod collector;
mod extension;
mod invocation;
mod ledger;
mod live;
mod options;
mod page;
mod phase;
mod printed;
mod scenario;
mod spread;
mod stage;
mod story;
mod summary;
mod telling;

use std::{io, process::ExitCode, sync::Arc, time::Duration};

use outlast_backend::Backend;
use tokio::time::{MissedTickBehavior, interval};

use crate::{live::View, options::Options, stage::Stage, story::Story};

/// Often enough that the view seems to move, seldom enough that looking costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Given to the extension beside the endpoint and the directory. With the usual 30 s between two tries of
/// a long outage, the recovery alone could take half of the demo's minute.
const RETRY_MAX: (&str, &str) = ("OUTLAST_RETRY_MAX", "3s");

/// The demo could not run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}; see --help")]
    Usage(#[from] options::UsageError),
    #[error(transparent)]
    Extension(#[from] extension::ExtensionError),
    #[error(transparent)]
    Scenario(#[from] scenario::ScenarioError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("demo: {failure}");
            ExitCode::from(2)
        }
    }
}

/// Whether all went well.
async fn run() -> Result<bool, Failure> {
    let Some(options) = options::parse(std::env::args().skip(1))? else {
        print!("{}", options::HELP);
        return Ok(true);
    };
    let extension = extension::find(options.extension.clone()).await?;
    let files = tempfile::tempdir()?;
    let backend = Backend::builder().bodies().start().map_err(scenario::ScenarioError::from)?;
    let variables = variables(&options, &backend, files.path());
    let lambda = scenario::sandbox(&extension, &options, &variables).await?;
    if options.cut_idle {
        tokio::spawn(scenario::cut_idle_connections(lambda.moments(), backend.clone()));
    }
    let stage = Arc::new(Stage::new(options, lambda, backend));
    let mut view = View::new(stage.options.plain);
    // On a task of its own: what looking costs must not show in the times of the invocations.
    let mut play = tokio::spawn({
        let stage = Arc::clone(&stage);
        async move { scenario::play(&stage).await }
    });
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        tokio::select! {
            end = &mut play => break end.map_err(io::Error::from)??,
            _ = looks.tick() => {
                stage.sample();
                view.show(&stage)?;
            }
        }
    };
    view.end(&stage)?;
    let mut story = telling::tell(&stage, &extension, variables, &end);
    let (records, requests) = (stage.backend.records(), stage.backend.requests());
    match collector::collected(story.shown.as_ref(), &records, &requests).await {
        Ok(collected) => story.collected = collected,
        Err(problem) => story.problems.push(problem),
    }
    report(&story, &stage.options)?;
    Ok(story.problems.is_empty())
}

fn variables(options: &Options, backend: &Backend, files: &std::path::Path) -> Vec<(String, String)> {
    let own = [
        ("OUTLAST_ENDPOINT", backend.url()),
        ("OUTLAST_QUEUE_DIR", files.join("queue").display().to_string()),
        (RETRY_MAX.0, RETRY_MAX.1.to_owned()),
    ];
    let given = |name: &str| options.variables.iter().any(|(given, _)| given == name);
    let own = own.into_iter().filter(|(name, _)| !given(name)).map(|(name, value)| (name.to_owned(), value));
    own.chain(options.variables.iter().cloned()).collect()
}

fn report(story: &Story, options: &Options) -> Result<(), Failure> {
    println!("{}", summary::text(story));
    let page = page::write(story, &options.out)?;
    println!("{}", story.headline());
    for problem in &story.problems {
        println!("FAILED: {problem}");
    }
    println!("timeline: {}", page.display());
    Ok(())
}
