//! What the command line says.

use std::path::PathBuf;
use std::time::Duration;

use crate::usage::{UsageError, number};

pub(crate) const HELP: &str = "\
A fleet of environments, each with the real policy of the extension, and one backend that goes away and comes back, in
virtual time. Prints figures and draws fleet-SCENARIO.svg. The same seed gives the same figures.

usage: cargo run --release --example fleet -- [OPTIONS]

  --environments N      how many (1000); 100000 take 1 GB and minutes
  --scenario NAME       one outage: refused, unavailable, retry-after, hung, overloaded, overloaded-retry-after or
                        busy-retry-after (all)
  --outage-minutes N    how long it lasts (10)
  --seed N              (7)
  --out DIR             where drawings go (none are made)
  --help
";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) environments: u32,
    pub(crate) scenario: Option<String>,
    pub(crate) outage: Duration,
    pub(crate) seed: u64,
    pub(crate) out: Option<PathBuf>,
}

/// Reads the arguments; nothing if help was asked for.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Option<Options>, UsageError> {
    let mut options =
        Options { environments: 1_000, scenario: None, outage: Duration::from_secs(600), seed: 7, out: None };
    let mut arguments = arguments.into_iter();
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| UsageError::NoValue(option.clone()));
        match option.as_str() {
            "--help" | "-h" => return Ok(None),
            "--environments" => options.environments = number(&option, value()?)?,
            "--scenario" => options.scenario = Some(value()?),
            "--outage-minutes" => {
                options.outage = Duration::from_secs(60 * number::<u64>(&option, value()?)?);
            }
            "--seed" => options.seed = number(&option, value()?)?,
            "--out" => options.out = Some(value()?.into()),
            _ => return Err(UsageError::Unknown(option)),
        }
    }
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<Options>, UsageError> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        let options = parsed("--environments 50 --outage-minutes 3 --scenario hung").unwrap().unwrap();
        assert_eq!((options.environments, options.outage), (50, Duration::from_secs(180)));
        assert_eq!(options.scenario.as_deref(), Some("hung"));
        assert_eq!(parsed("--help"), Ok(None));
        assert!(matches!(parsed("--environments many"), Err(UsageError::NoNumber { .. })));
        assert_eq!(parsed("--seeds 1"), Err(UsageError::Unknown("--seeds".into())));
    }
}
