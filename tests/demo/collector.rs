//! One more invocation, sent to a collector that nobody here wrote, if there is one: what it prints is shown as it is.

use std::{path::Path, time::Duration};

use outlast_backend::real::Rotel;
use outlast_simulator::{Freeze, FunctionOptions, Invocation, Sandbox, ShutdownReason};

/// What the function says, which the collector must print.
const SAID: &str = "said to a collector";
/// Far more than it takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// The page stays light.
const SHOWN_MAX_LINES: usize = 400;

/// What the collector printed of one invocation; `None` where there is no collector, or a line said why not.
pub(crate) async fn told(extension: &Path) -> Option<String> {
    let rotel = Rotel::start_or_skip("demo, one invocation sent to rotel")
        .await
        .map_err(|error| eprintln!("demo: {error}"))
        .ok()??;
    let files = tempfile::tempdir().ok()?;
    let function = FunctionOptions { tracing: true, ..FunctionOptions::default() };
    let lambda = Sandbox::builder(extension)
        .env("OUTLAST_ENDPOINT", rotel.url())
        .env("OUTLAST_QUEUE_DIR", files.path().join("queue").display())
        .env("OUTLAST_SELF_METRICS", "off")
        .function(function)
        .freeze(Freeze::Off)
        .start()
        .await
        .ok()?;
    let invocation = Invocation::new().runs_for(Duration::from_millis(20)).line(SAID);
    lambda.invoke(invocation).await.ok()?;
    lambda.shutdown(ShutdownReason::Spindown).await;
    let printed = rotel.wait_for_texts(&[SAID, "faas.invocations", "responseLatency"], PATIENCE).await;
    printed.map_err(|error| eprintln!("demo: {error}")).ok()?;
    Some(light(&rotel.said()))
}

/// The first lines, without colours.
fn light(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut coloured = false;
    for character in text.lines().take(SHOWN_MAX_LINES).flat_map(|line| line.chars().chain(['\n'])) {
        match (coloured, character) {
            (false, '\u{1b}') => coloured = true,
            (false, character) => plain.push(character),
            (true, character) => coloured = !character.is_ascii_alphabetic(),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_what_is_too_much_are_left_out() {
        assert_eq!(light("\u{1b}[2mone\u{1b}[0m two\nthree"), "one two\nthree\n");
        let long = "line\n".repeat(SHOWN_MAX_LINES + 5);
        assert_eq!(light(&long).lines().count(), SHOWN_MAX_LINES);
    }
}
