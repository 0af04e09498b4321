//! What the command line says.

use std::path::PathBuf;

use crate::usage::{UsageError, number};

pub(crate) const HELP: &str = "\
The real extension between a simulated Lambda and a scripted backend, with more and more to do. Prints figures and writes
growth-NAME.csv and growth-NAME.svg.

usage: cargo run --release --example growth -- [OPTIONS]

  --only NAME           one sweep: records, size, backlog, outage or rate (all)
  --small               instead: 128 MB and 7 % of a CPU for the extension and a function that is never at rest, in a
                        cgroup; needs to be root
  --spin SECONDS        is that function: computes for so long, and prints how many rounds it got done
  --out DIR             where files go (docs/figures)
  --extension PATH      the extension's executable (default: built with cargo, release profile)
  --help
";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    only: Option<String>,
    pub(crate) small: bool,
    pub(crate) spin: Option<u64>,
    pub(crate) out: PathBuf,
    pub(crate) extension: Option<PathBuf>,
}

impl Options {
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == name)
    }
}

/// Reads the arguments; nothing if help was asked for.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Option<Options>, UsageError> {
    let mut options =
        Options { only: None, small: false, spin: None, out: "docs/figures".into(), extension: None };
    let mut arguments = arguments.into_iter();
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| UsageError::NoValue(option.clone()));
        match option.as_str() {
            "--help" | "-h" => return Ok(None),
            "--small" => options.small = true,
            "--spin" => options.spin = Some(number(&option, value()?)?),
            "--only" => options.only = Some(value()?),
            "--out" => options.out = value()?.into(),
            "--extension" => options.extension = Some(value()?.into()),
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
    fn one_sweep_can_be_asked_for_and_nonsense_is_refused() {
        let options = parsed("--only size --out x").unwrap().unwrap();
        assert!(options.takes("size") && !options.takes("records") && options.out.ends_with("x"));
        assert!(parsed("").unwrap().unwrap().takes("records"));
        assert_eq!(parsed("--help"), Ok(None));
        assert_eq!(parsed("--smal"), Err(UsageError::Unknown("--smal".into())));
        assert_eq!(parsed("--only"), Err(UsageError::NoValue("--only".into())));
    }
}
