//! The script as text, a line at a time: what a person types at the binary, or another program writes to
//! it.

use std::time::Duration;

use crate::{
    backend::{Backend, BackendError},
    door::Door,
    received::Received,
    record::Record,
    script::{Answer, Behaviour, Condition, Fate, Reset},
};

/// The commands, for `--help`.
pub const HELP: &str = "\
Behaviours, for every request from now on (or, after the word `next`, for the next one):
  healthy                       200, records kept
  status CODE [RETRY-AFTER]     this status; the rest of the line is the value of Retry-After
  early CODE                    the same before the body is read, then the connection ends
  partial N                     200, the last N records of the request rejected
  garbage                       200 with a body that is not OTLP
  redirect CODE URL             to another address
  hang | hang kept              read, never answered; `kept`: the records are kept all the same
  reset before|middle|after     RST before the body, in its middle, after it
  reset kept                    RST after the body, the records kept all the same
  too-large BYTES [plain]       413 above this size on the wire (or inflated), else healthy
  poison TEXT                   400 for requests with a log record containing TEXT, else healthy
  no-gzip                       415 for compressed bodies, else healthy
  slow MILLISECONDS [BEHAVIOUR]          after a delay
  trickle MILLISECONDS [BEHAVIOUR]       the answer byte by byte
  flaky PROBABILITY SEED [BEHAVIOUR]     sometimes this (status 503 if none is named), else healthy
Doors: open | refused | unaccepted | unreachable
Others: recover (healthy and open) | cut | cut idle | summary | help | quit";

/// Something to do to a running backend.
#[derive(Debug, Clone)]
pub enum Command {
    /// From now on.
    Behave(Behaviour),
    /// For the next request.
    Next(Behaviour),
    /// Opens or closes the door.
    Door(Door),
    /// Healthy and open again.
    Recover,
    /// Resets all connections, or the idle ones.
    Cut {
        /// Only those between two requests.
        idle_only: bool,
    },
    /// Says what has arrived.
    Summary,
    /// Says what can be typed.
    Help,
    /// Ends the program.
    Quit,
}

/// A line that is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The first word is unknown.
    #[error("no such command: {0:?}")]
    Unknown(String),
    /// A word is missing or is not what belongs there.
    #[error("{command} wants {wants}")]
    Wants {
        /// The command.
        command: &'static str,
        /// What it takes.
        wants: &'static str,
    },
}

/// Half of a usual body, for `reset middle`: the length is not known when the command is given, and any
/// body of more than a few records is longer.
const RESET_MIDDLE_BYTES: usize = 64;

impl Command {
    /// Reads a line.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn parse(text: &str) -> Result<Self, CommandError> {
        let text = text.trim();
        let (word, rest) = split(text);
        Ok(match word {
            "next" => Self::Next(behaviour(rest)?),
            "open" => Self::Door(Door::Open),
            "refused" => Self::Door(Door::Refused),
            "unaccepted" => Self::Door(Door::Unaccepted),
            "unreachable" => Self::Door(Door::Unreachable),
            "recover" => Self::Recover,
            "cut" if rest.is_empty() => Self::Cut { idle_only: false },
            "cut" if rest == "idle" => Self::Cut { idle_only: true },
            "summary" => Self::Summary,
            "help" => Self::Help,
            "quit" => Self::Quit,
            _ => Self::Behave(behaviour(text)?),
        })
    }

    /// Does it; gives what there is to say. [`Command::Quit`] is left to the caller.
    ///
    /// # Errors
    /// [`BackendError`] if the door does not move.
    pub async fn apply(self, backend: &Backend) -> Result<String, BackendError> {
        let mut reply = "ok".to_owned();
        match self {
            Self::Behave(behaviour) => backend.behave(behaviour),
            Self::Next(behaviour) => backend.next(behaviour),
            Self::Door(door) => backend.set_door(door).await?,
            Self::Recover => backend.recover().await?,
            Self::Cut { idle_only } => {
                let cut = if idle_only { backend.cut_idle().await } else { backend.cut_all().await };
                reply = format!("{cut} connections reset");
            }
            Self::Summary => reply = backend.received(Received::summary),
            Self::Help => HELP.clone_into(&mut reply),
            Self::Quit => {}
        }
        Ok(reply)
    }
}

fn behaviour(text: &str) -> Result<Behaviour, CommandError> {
    let (word, rest) = split(text);
    Ok(match word {
        "healthy" => Behaviour::healthy(),
        "status" => {
            let (code, retry_after) = number(rest, "status", "CODE [RETRY-AFTER]")?;
            let answer = Answer::new(code);
            Behaviour::answer(if retry_after.is_empty() { answer } else { answer.retry_after(retry_after) })
        }
        "early" => Behaviour::AnswerEarly(Answer::new(number(rest, "early", "CODE")?.0)),
        "partial" => Behaviour::partial(number(rest, "partial", "N")?.0, "scripted partial success"),
        "garbage" => Behaviour::garbage("<html>this is not OTLP</html>"),
        "redirect" => {
            let (code, url) = number(rest, "redirect", "CODE URL")?;
            Behaviour::redirect(code, url)
        }
        "hang" if rest == "kept" => Behaviour::Hang(Fate::Kept),
        "hang" => Behaviour::hang(),
        "reset" => Behaviour::Reset(match rest {
            "before" => Reset::BeforeBody,
            "middle" => Reset::AfterBytes(RESET_MIDDLE_BYTES),
            "after" => Reset::AfterBody(Fate::Lost),
            "kept" => Reset::AfterBody(Fate::Kept),
            _ => return Err(CommandError::Wants { command: "reset", wants: "before|middle|after|kept" }),
        }),
        "too-large" => match number(rest, "too-large", "BYTES [plain]")? {
            (bytes, "plain") => Behaviour::too_large_above_plain(bytes),
            (bytes, _) => Behaviour::too_large_above_wire(bytes),
        },
        "poison" if !rest.is_empty() => {
            let text = rest.to_owned();
            Behaviour::poisoned_by(move |record: &Record| record.text.contains(&text))
        }
        "no-gzip" => Behaviour::no_gzip(),
        "slow" => {
            let (delay, then) = number(rest, "slow", "MILLISECONDS [BEHAVIOUR]")?;
            behaviour_or(then, Behaviour::healthy())?.after(Duration::from_millis(delay))
        }
        "trickle" => {
            let (pause, then) = number(rest, "trickle", "MILLISECONDS [BEHAVIOUR]")?;
            behaviour_or(then, Behaviour::healthy())?.trickled(Duration::from_millis(pause))
        }
        "flaky" => {
            let wants = "PROBABILITY SEED [BEHAVIOUR]";
            let (probability, rest) = number(rest, "flaky", wants)?;
            let (seed, then) = number(rest, "flaky", wants)?;
            behaviour_or(then, Behaviour::status(503))?.when(Condition::chance(probability, seed))
        }
        "poison" => return Err(CommandError::Wants { command: "poison", wants: "TEXT" }),
        unknown => return Err(CommandError::Unknown(unknown.to_owned())),
    })
}

fn behaviour_or(text: &str, default: Behaviour) -> Result<Behaviour, CommandError> {
    if text.is_empty() { Ok(default) } else { behaviour(text) }
}

/// The first word and the rest.
fn split(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn number<'a, N: std::str::FromStr>(
    text: &'a str,
    command: &'static str,
    wants: &'static str,
) -> Result<(N, &'a str), CommandError> {
    let (word, rest) = split(text);
    let value = word.parse().map_err(|_| CommandError::Wants { command, wants })?;
    Ok((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The debug form says what a line was understood as.
    fn read(text: &str) -> String {
        format!("{:?}", Command::parse(text).unwrap())
    }

    #[test]
    fn every_command_of_the_help_is_understood() {
        for line in [
            "healthy",
            "status 503",
            "status 503 5",
            "early 413",
            "partial 2",
            "garbage",
            "redirect 307 http://x",
            "hang",
            "hang kept",
            "reset before",
            "reset middle",
            "reset after",
            "reset kept",
            "too-large 10",
            "too-large 10 plain",
            "poison x",
            "no-gzip",
            "slow 5",
            "slow 5 status 500",
            "trickle 1",
            "flaky 0.5 1",
            "flaky 0.5 1 hang",
            "next healthy",
            "open",
            "refused",
            "unaccepted",
            "unreachable",
            "recover",
            "cut",
            "cut idle",
            "summary",
            "help",
            "quit",
        ] {
            assert!(Command::parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn words_are_read_as_meant() {
        assert!(read("next status 503 Wed, 21 Oct 2015 07:28:00 GMT").contains("07:28:00 GMT"));
        assert!(read("next status 503").starts_with("Next(Answer"));
        assert!(read("flaky 0.25 7 hang").contains("Chance(0.25), Hang(Lost), Accept"));
        assert!(read("too-large 9 plain").contains("PlainBytesAbove(9)"));
        assert!(read("slow 20 reset kept").contains("Delay(20ms, Reset(AfterBody(Kept)))"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |text| Command::parse(text).unwrap_err().to_string();
        assert_eq!(error("dance"), "no such command: \"dance\"");
        assert_eq!(error("status"), "status wants CODE [RETRY-AFTER]");
        assert_eq!(error("reset"), "reset wants before|middle|after|kept");
        assert_eq!(error("next"), "no such command: \"\"");
    }
}
