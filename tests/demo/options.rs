//! What the command line says.

use std::{path::PathBuf, time::Duration};

use crate::phase::{self, Phase};

pub(crate) const HELP: &str = "\
A simulated busy function, its extension, and a backend that goes away and comes back.

usage: cargo run --release --example demo -- [OPTIONS]

  --extension PATH      the extension's executable (default: built with cargo, release profile)
  --env NAME=VALUE      one more variable for it; may be repeated, and wins over the demo's own
  --run-ms N            how long the function runs in one invocation (20)
  --logs N              log lines of one invocation (12)
  --padding N           bytes added to each line (80)
  --gap-ms N            pause between two invocations, most of it frozen (5)
  --phases LIST         NAME[:SECONDS][+timeout][+kill], comma-separated
                        (healthy,refused,reset,hung+timeout,503+kill,recovery)
                        names: healthy refused unreachable reset reset-kept hung slow flaky recovery,
                        or a status from 400 to 599; +timeout resets the environment in mid-phase,
                        +kill is a SIGKILL in mid-invocation
  --phase-seconds N     how long a phase without :SECONDS lasts (9)
  --quick               the same as --phase-seconds 2
  --seed N              for what is left to chance (1)
  --no-freeze           let the extension run between invocations
  --keep-connections    do not cut idle connections at every freeze
  --plain               lines instead of the live view, as when standard output is no terminal
  --out DIRECTORY       where the page and the data go (target/demo)
  --help

Exits with 1 if a log line that the extension had acknowledged was lost or came out of order, or if the
extension crashed or had to be killed at SHUTDOWN; with 2 if the demo could not run.
";

const PHASES_DEFAULT: &str = "healthy,refused,reset,hung+timeout,503+kill,recovery";
/// Six phases of nine seconds are about a minute, and long enough for the 99th percentile to mean
/// something: about 350 invocations each.
const PHASE_SECONDS_DEFAULT: f64 = 9.0;
const PHASE_SECONDS_QUICK: f64 = 2.0;

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) extension: Option<PathBuf>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) run: Duration,
    pub(crate) logs: usize,
    pub(crate) padding_bytes: usize,
    pub(crate) gap: Duration,
    pub(crate) phases: Vec<Phase>,
    pub(crate) seed: u64,
    pub(crate) freeze: bool,
    pub(crate) cut_idle: bool,
    pub(crate) plain: bool,
    pub(crate) out: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("no such option: {0}")]
    Unknown(String),
    #[error("{0} wants a value")]
    NoValue(String),
    #[error("{option} {value:?}: {wants}")]
    BadValue { option: String, value: String, wants: String },
}

/// Reads the arguments; nothing if help was asked for.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Option<Options>, UsageError> {
    let mut options = Options {
        extension: None,
        variables: Vec::new(),
        run: Duration::from_millis(20),
        logs: 12,
        padding_bytes: 80,
        gap: Duration::from_millis(5),
        phases: Vec::new(),
        seed: 1,
        freeze: true,
        cut_idle: true,
        plain: false,
        out: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/demo")),
    };
    let mut phases = PHASES_DEFAULT.to_owned();
    let mut phase_seconds = PHASE_SECONDS_DEFAULT;
    let mut arguments = arguments.into_iter();
    while let Some(option) = arguments.next() {
        match option.as_str() {
            "-h" | "--help" => return Ok(None),
            "--quick" => phase_seconds = PHASE_SECONDS_QUICK,
            "--no-freeze" => options.freeze = false,
            "--keep-connections" => options.cut_idle = false,
            "--plain" => options.plain = true,
            _ => {
                if !VALUED.contains(&option.as_str()) {
                    return Err(UsageError::Unknown(option));
                }
                let value = arguments.next().ok_or_else(|| UsageError::NoValue(option.clone()))?;
                match option.as_str() {
                    "--extension" => options.extension = Some(value.into()),
                    "--env" => {
                        let pair = value.split_once('=').ok_or_else(|| bad(&option, &value, "NAME=VALUE"))?;
                        options.variables.push((pair.0.to_owned(), pair.1.to_owned()));
                    }
                    "--run-ms" => options.run = Duration::from_millis(number(&option, &value)?),
                    "--logs" => options.logs = number(&option, &value)?,
                    "--padding" => options.padding_bytes = number(&option, &value)?,
                    "--gap-ms" => options.gap = Duration::from_millis(number(&option, &value)?),
                    "--phases" => phases = value,
                    "--phase-seconds" => phase_seconds = number(&option, &value)?,
                    "--seed" => options.seed = number(&option, &value)?,
                    _out => options.out = value.into(),
                }
            }
        }
    }
    let length = Duration::try_from_secs_f64(phase_seconds)
        .map_err(|error| bad("--phase-seconds", &phase_seconds.to_string(), &error.to_string()))?;
    options.phases = phase::parse_list(&phases, length).map_err(|wants| bad("--phases", &phases, &wants))?;
    Ok(Some(options))
}

/// Options that take a value.
const VALUED: [&str; 10] = [
    "--extension",
    "--env",
    "--run-ms",
    "--logs",
    "--padding",
    "--gap-ms",
    "--phases",
    "--phase-seconds",
    "--seed",
    "--out",
];

fn number<N: std::str::FromStr>(option: &str, value: &str) -> Result<N, UsageError> {
    value.parse().map_err(|_| bad(option, value, "a number, not negative"))
}

fn bad(option: &str, value: &str, wants: &str) -> UsageError {
    UsageError::BadValue { option: option.to_owned(), value: value.to_owned(), wants: wants.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Option<Options>, UsageError> {
        parse(arguments.iter().map(|&argument| argument.to_owned()))
    }

    #[test]
    fn the_defaults_take_about_a_minute() {
        let options = read(&[]).unwrap().unwrap();
        let seconds: f64 = options.phases.iter().map(|phase| phase.length.as_secs_f64()).sum();
        assert!((45.0..65.0).contains(&seconds), "{seconds}");
    }

    #[test]
    fn every_option_of_the_help_is_read() {
        let words = HELP.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
        let mut seen = 0;
        for option in words.filter(|word| !matches!(*word, "--release" | "--example")) {
            let value = if option == "--phases" {
                "hung:1"
            } else if option == "--env" {
                "A=b"
            } else {
                "3"
            };
            let arguments: &[&str] = if VALUED.contains(&option) { &[option, value] } else { &[option] };
            assert!(read(arguments).is_ok(), "{option}");
            seen += 1;
        }
        assert!(seen >= 15, "{seen}");
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(read(&["--dance"]).unwrap_err().to_string(), "no such option: --dance");
        assert_eq!(read(&["--logs"]).unwrap_err().to_string(), "--logs wants a value");
        assert!(read(&["--logs", "-1"]).unwrap_err().to_string().contains("--logs \"-1\""));
        assert!(read(&["--phases", "nap"]).unwrap_err().to_string().contains("nap"));
        assert!(read(&["--phase-seconds", "-3"]).is_err());
    }
}
