//! `outlast-tool`: looks at queues, and sends what was rescued of them. Behind the feature `tool`, so that the extension
//! carries none of it.

mod content;
mod convert;
mod inspect;
mod lines;
mod objects;
mod options;
mod progress;
mod replay;
mod sender;

pub use options::{Options, USAGE};

use options::Command;

/// Does what the command line asks for. What it found goes to stdout.
///
/// # Errors
/// What to tell the user, on one line or several.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let options = Options::parse(arguments)?;
    match options.command {
        Command::Help => print!("{USAGE}"),
        Command::Inspect => inspect::run(&options)?,
        Command::Replay => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| error.to_string())?.block_on(replay::run(&options))?;
        }
    }
    Ok(())
}
