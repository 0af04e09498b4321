//! `outlast-backend`: the scripted backend by itself, for trying a sender by hand.
//!
//! It says where it listens, prints what it receives, and takes the script from standard input; see
//! `--help`.

#![allow(clippy::disallowed_methods, reason = "a peer on the network keeps its own time")]

use std::{io::Write, net::SocketAddr, process::ExitCode};

use outlast_backend::{
    Backend, BackendError,
    command::{Command, CommandError, HELP},
};
use tokio::io::{AsyncBufReadExt, BufReader};

const USAGE: &str = "\
A scripted OTLP/HTTP backend.
usage: outlast-backend [--listen ADDRESS] [--print records|texts|nothing] [--behave BEHAVIOUR]

  --listen ADDRESS    where to listen (127.0.0.1:4318)
  --print WHAT        records as a line of JSON each, their texts, or nothing (texts)
  --behave BEHAVIOUR  what to do at first (healthy)

Commands on standard input change the script while it runs. Its end does not end the program; `quit` does.
";

/// The port OTLP/HTTP has by default, so that a sender without settings finds it.
const LISTEN_DEFAULT: ([u8; 4], u16) = ([127, 0, 0, 1], 4318);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Print {
    Records,
    Texts,
    Nothing,
}

struct Options {
    listen: SocketAddr,
    print: Print,
    behave: Option<Command>,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}; see --help")]
    Usage(String),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Nothing if only help was asked for.
fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, Failure> {
    let mut options = Options { listen: SocketAddr::from(LISTEN_DEFAULT), print: Print::Texts, behave: None };
    while let Some(argument) = arguments.next() {
        if matches!(argument.as_str(), "-h" | "--help") {
            return Ok(None);
        }
        let value = arguments.next().ok_or_else(|| Failure::Usage(format!("{argument} wants a value")))?;
        match argument.as_str() {
            "--listen" => {
                let not_an_address = |_| Failure::Usage(format!("{value:?} is not an address with a port"));
                options.listen = value.parse().map_err(not_an_address)?;
            }
            "--print" => {
                options.print = match value.as_str() {
                    "records" => Print::Records,
                    "texts" => Print::Texts,
                    "nothing" => Print::Nothing,
                    _ => return Err(Failure::Usage(format!("--print {value:?}"))),
                }
            }
            "--behave" => options.behave = Some(Command::parse(&value)?),
            _ => return Err(Failure::Usage(format!("no such option: {argument}"))),
        }
    }
    Ok(Some(options))
}

/// What there is to say goes to standard output; so do records.
fn say(text: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

async fn run(options: Options) -> Result<(), Failure> {
    let backend = Backend::builder().bind(options.listen).start()?;
    say(&format!("listening on {}", backend.url()))?;
    if let Some(command) = options.behave {
        command.apply(&backend).await?;
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut commands_end = false;
    let mut printed = 0;
    loop {
        let more = |received: &outlast_backend::Received| received.records().len() > printed;
        tokio::select! {
            line = lines.next_line(), if !commands_end => match line?.as_deref().map(str::trim) {
                None => commands_end = true,
                Some("") => {}
                Some(line) => match Command::parse(line) {
                    Ok(Command::Quit) => return Ok(()),
                    Ok(command) => say(&command.apply(&backend).await?)?,
                    Err(error) => say(&error.to_string())?,
                },
            },
            _ = backend.wait_for(more, std::time::Duration::MAX) => {
                let new: Vec<_> =
                    backend.received(|received| received.records().iter().skip(printed).cloned().collect());
                for record in &new {
                    match options.print {
                        Print::Records => say(&serde_json::to_string(record).map_err(std::io::Error::from)?)?,
                        Print::Texts => say(&format!("{} {}", record.signal, record.text))?,
                        Print::Nothing => {}
                    }
                }
                printed += new.len();
            }
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match options(std::env::args().skip(1)) {
        Ok(None) => say(&format!("{USAGE}\n{HELP}")),
        Ok(Some(options)) => run(options).await,
        Err(failure) => Err(failure),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("outlast-backend: {failure}");
            ExitCode::FAILURE
        }
    }
}
