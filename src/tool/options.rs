//! The command line.

use std::path::PathBuf;

use crate::record::time::rfc3339;

/// How the tool is used.
pub const USAGE: &str = "\
outlast-tool inspect DIR [--blocks]
    What is in a queue's directory, which may be in use. Nothing is changed.

outlast-tool replay DIR | s3://BUCKET/PREFIX | FILE [options]
    Sends what waits in a queue's directory, what the fallback wrote into a bucket, or what it wrote to
    stdout (as CloudWatch Logs gave it back, in a file), to the destination that the variables OUTLAST_ENDPOINT, OUTLAST_PROTOCOL, OUTLAST_HEADERS and so on name.
    What was kept for otlp or otlp-json is converted, if that is another protocol.
    The source is not changed. Run again, it goes on where it was.

    --since TIME, --until TIME   what was received then, as 2026-05-01T12:00:00Z
    --function NAME              of this function only (a bucket)
    --rate BYTES                 per second, in the mean
    --progress FILE              where it notes how far it has come (outlast-replay.progress)
";

/// Where progress is noted unless the user says.
const PROGRESS_FILE: &str = "outlast-replay.progress";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Inspect,
    Replay,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) command: Command,
    pub(super) source: String,
    pub(super) blocks: bool,
    /// Unix nanoseconds.
    pub(super) since: Option<u64>,
    /// Unix nanoseconds.
    pub(super) until: Option<u64>,
    pub(super) function: Option<String>,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) progress: PathBuf,
}

impl Options {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// What is wrong, with the usage.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        read(arguments).map_err(|problem| format!("{problem}\n\n{USAGE}"))
    }

    /// Whether what was received then, Unix nanoseconds, is asked for.
    pub(super) fn is_asked_for(&self, received: u64) -> bool {
        self.since.is_none_or(|since| received >= since) && self.until.is_none_or(|until| received < until)
    }

    /// What tells one replay from another, on one line: `queue` is the one in the directory, for another may come to lie
    /// there; `destination` stands for where it all goes, for it may go to another as well.
    pub(super) fn identity(&self, queue: u128, destination: u64) -> String {
        let Self { source, since, until, function, .. } = self;
        format!(
            "{source:?} queue {queue:032x} since {since:?} until {until:?} function {function:?} to {destination:016x}"
        )
    }
}

fn read(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let command = match arguments.next().as_deref() {
        Some("inspect") => Command::Inspect,
        Some("replay") => Command::Replay,
        None | Some("help" | "--help" | "-h") => Command::Help,
        Some(other) => return Err(format!("{other:?} is no command")),
    };
    let mut options = Options {
        command,
        source: String::new(),
        blocks: false,
        since: None,
        until: None,
        function: None,
        bytes_per_second: None,
        progress: PathBuf::from(PROGRESS_FILE),
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match (command, argument.as_str()) {
            (_, "--help" | "-h") => options.command = Command::Help,
            (Command::Inspect, "--blocks") => options.blocks = true,
            (Command::Replay, "--since") => options.since = Some(time(&value()?)?),
            (Command::Replay, "--until") => options.until = Some(time(&value()?)?),
            (Command::Replay, "--function") => options.function = Some(value()?),
            (Command::Replay, "--progress") => options.progress = PathBuf::from(value()?),
            (Command::Replay, "--rate") => {
                let text = value()?;
                let rate = text.parse().ok().filter(|rate| *rate > 0);
                options.bytes_per_second = Some(rate.ok_or(format!("{text:?} is no number of bytes"))?);
            }
            (_, option) if option.starts_with('-') => return Err(format!("{option} is no option of it")),
            _ if options.source.is_empty() => options.source.clone_from(&argument),
            _ => return Err(format!("{argument:?} is one too many")),
        }
    }
    if options.source.is_empty() && options.command != Command::Help {
        return Err("which directory, or which bucket?".to_owned());
    }
    Ok(options)
}

fn time(text: &str) -> Result<u64, String> {
    rfc3339(text).ok_or_else(|| format!("{text:?} is no time such as 2026-05-01T12:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_whole_command_line_is_read() {
        let line = "replay s3://b/p --since 2026-05-01T12:00:00Z --until 2026-05-01T13:00:00+01:00 --function f --rate 1000";
        let options = parsed(line).unwrap();
        assert_eq!((options.command, options.source.as_str()), (Command::Replay, "s3://b/p"));
        assert_eq!(options.since, options.until, "the same moment");
        assert_eq!((options.function.as_deref(), options.bytes_per_second), (Some("f"), Some(1000)));
        assert!(!options.is_asked_for(options.since.unwrap()), "the end is not within");
        assert_eq!(parsed("").unwrap().command, Command::Help);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (line, told) in [
            ("explode", "no command"),
            ("inspect", "which directory"),
            ("inspect a b", "one too many"),
            ("inspect a --rate 1", "--rate is no option"),
            ("replay a --rate", "needs a value"),
            ("replay a --rate 0", "no number of bytes"),
            ("replay a --since yesterday", "no time"),
        ] {
            assert!(parsed(line).unwrap_err().contains(told), "{line}");
        }
    }
}
