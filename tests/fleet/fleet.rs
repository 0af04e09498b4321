//! How a whole fleet behaves towards one backend: `cargo run --release --example fleet -- --environments 1000`, `-- --help`
//! for the rest. What was found is in `docs/fleet.md`.
//!
//! The policy is the extension's own; everything around it is simulated, in virtual time and from a seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // it fails by panicking
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "figures, far below 2^53")]
#![allow(clippy::disallowed_methods, reason = "how long a run took is told")]

mod backend;
mod environment;
mod habits;
mod measure;
mod options;
#[path = "../common/plot.rs"]
mod plot;
mod queue;
mod report;
mod simulation;
#[path = "../common/usage.rs"]
mod usage;

use std::process::ExitCode;
use std::time::Instant;

use outlast::drain::policy::Settings;

use crate::options::Options;
use crate::simulation::SCENARIOS;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("fleet: {error}; see --help");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> std::io::Result<()> {
    println!(
        "{} environments, an outage of {:?}, seed {}",
        options.environments, options.outage, options.seed
    );
    let named = |name: &str| options.scenario.as_deref().is_none_or(|only| only == name);
    for scenario in SCENARIOS.iter().filter(|scenario| named(scenario.name)) {
        let began = Instant::now();
        let figures =
            simulation::play(scenario, options.environments, options.outage, &settings(), options.seed);
        report::tell(scenario, &figures);
        println!("  took {:.0} s", began.elapsed().as_secs_f64());
        if let Some(dir) = &options.out {
            std::fs::create_dir_all(dir)?;
            for (chart, kind) in report::charts(&figures).iter().zip(["", "-waves"]) {
                std::fs::write(dir.join(format!("fleet-{}{kind}.svg", scenario.name)), chart.svg())?;
            }
        }
    }
    Ok(())
}

/// The settings of a user who sets an endpoint and nothing else.
fn settings() -> Settings {
    environment::settings(&outlast::config::load([("OUTLAST_ENDPOINT", "http://127.0.0.1:4318")]).config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Figures;
    use std::time::Duration;

    /// Enough that no single environment matters, few enough for a build without optimisation.
    const ENVIRONMENTS: u32 = 300;
    const OUTAGE: Duration = Duration::from_secs(300);
    /// Of what the backend can take, in the busiest second after its return.
    const PEAK_MAX: f64 = 2.0;
    /// A wave of the arrivals, as a share of their rate, beyond what chance alone shows. A fleet in step has 1 or more.
    const WAVE_MAX: f64 = 0.25;

    fn play(name: &str) -> Figures {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap();
        simulation::play(scenario, ENVIRONMENTS, OUTAGE, &settings(), 7)
    }

    fn is_gentle(figures: &Figures) {
        let Figures { capacity, peak, outage_mean, steady, wave_in_outage, wave_after, .. } = figures;
        assert!(f64::from(*peak) <= PEAK_MAX * capacity, "{peak} of {capacity} requests in a second");
        assert!(
            *outage_mean < steady / 2.0,
            "{outage_mean} requests a second while it is away, {steady} before"
        );
        for wave in [wave_in_outage, wave_after] {
            assert!(wave.amplitude <= WAVE_MAX + wave.chance, "{wave:?}");
        }
        assert!(figures.drained.is_some(), "the backlog never went");
        assert_eq!(figures.dropped, 0);
    }

    #[test]
    fn a_fleet_comes_back_gently_from_an_outage_without_retry_after() {
        is_gentle(&play("unavailable"));
    }

    #[test]
    fn a_fleet_that_was_told_when_to_come_back_does_not_come_back_in_step() {
        is_gentle(&play("overloaded-retry-after"));
    }

    #[test]
    fn a_busy_fleet_that_was_told_when_to_come_back_does_not_come_back_in_step() {
        is_gentle(&play("busy-retry-after"));
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let scenario = &SCENARIOS[0];
        let run = || simulation::play(scenario, 20, Duration::from_secs(30), &settings(), 3);
        let (first, second) = (run(), run());
        assert_eq!(first.seconds, second.seconds);
        assert!(first.seconds.iter().any(|second| second.requests > 0));
    }
}
