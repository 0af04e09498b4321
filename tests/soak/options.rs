//! What the command line says.

use std::{path::PathBuf, time::Duration};

use crate::usage::{self, UsageError};

pub(crate) const HELP: &str = "\
The real extension between a simulated Lambda and a scripted backend, under random faults. The plan of faults is a
function of the seed. Ends with exact counts; the exit status is 1 if anything was lost, repeated without need or out of
order.

usage: cargo run --release --example soak -- [OPTIONS]

  --minutes N           how long (1); begins no step after that, and balances
  --seconds N           the same, for a short one
  --seed N              repeats a run; random and printed by default
  --first N             the episode to begin with (0)
  --kills N             instead: SIGKILL at random moments, so many rounds over one disk
  --churn-mib N         instead: so much through a queue of --queue-mib, with a backend that is away most of the time
  --queue-mib N         OUTLAST_QUEUE_MAX_BYTES of --churn-mib (16)
  --full-mib N          instead: a queue of this size filled up, a start over it, and its recovery
  --room-mib N          size of the disk in the run of random faults (40)
  --extension PATH      the extension's executable (default: built with cargo, release profile)
  --help
";

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    Faults(Duration),
    Kills(u64),
    ChurnMib(u64),
    FullMib(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) run: Run,
    pub(crate) seed: Option<u64>,
    pub(crate) first: u64,
    pub(crate) queue_mib: u64,
    pub(crate) room_mib: u64,
    pub(crate) extension: Option<PathBuf>,
}

/// Reads the arguments; nothing if help was asked for.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Option<Options>, UsageError> {
    let mut options = Options {
        run: Run::Faults(Duration::from_secs(60)),
        seed: None,
        first: 0,
        queue_mib: 16,
        room_mib: 40,
        extension: None,
    };
    let mut arguments = arguments.into_iter();
    while let Some(option) = arguments.next() {
        if matches!(option.as_str(), "-h" | "--help") {
            return Ok(None);
        }
        let mut value = || arguments.next().ok_or_else(|| UsageError::NoValue(option.clone()));
        let mut number = || usage::number::<u64>(&option, value()?);
        match option.as_str() {
            "--minutes" => options.run = Run::Faults(Duration::from_secs(number()? * 60)),
            "--seconds" => options.run = Run::Faults(Duration::from_secs(number()?)),
            "--seed" => options.seed = Some(number()?),
            "--first" => options.first = number()?,
            "--kills" => options.run = Run::Kills(number()?),
            "--churn-mib" => options.run = Run::ChurnMib(number()?),
            "--full-mib" => options.run = Run::FullMib(number()?),
            "--queue-mib" => options.queue_mib = number()?,
            "--room-mib" => options.room_mib = number()?,
            "--extension" => options.extension = Some(value()?.into()),
            _ => return Err(UsageError::Unknown(option)),
        }
    }
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Options>, UsageError> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_run_is_named() {
        let options = read("--minutes 60 --seed 7").unwrap().unwrap();
        assert_eq!((options.run, options.seed), (Run::Faults(Duration::from_secs(3_600)), Some(7)));
        assert_eq!(read("--kills 1000").unwrap().unwrap().run, Run::Kills(1_000));
        assert_eq!(read("--churn-mib 2048").unwrap().unwrap().run, Run::ChurnMib(2_048));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(read("--what"), Err(UsageError::Unknown("--what".into())));
        assert_eq!(read("--seed"), Err(UsageError::NoValue("--seed".into())));
        assert!(matches!(read("--seed x"), Err(UsageError::NoNumber { .. })));
        assert_eq!(read("--help"), Ok(None));
    }
}
