//! The extension's own log: single lines on stderr.
//!
//! Lambda takes each write to stderr as one log record, so a line is one write. With the type `extension`
//! subscribed to, our own lines come back to us as telemetry: nothing may log once per record.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

/// Lines longer than this are cut: an error text may quote a peer's answer, and a line should stay readable.
const LINE_MAX_CHARS: usize = 2_000;

/// Only our own modules are heard; what libraries log is about their insides.
const OWN_TARGET: &str = env!("CARGO_PKG_NAME");

struct Stderr;

/// Starts the log, or changes its level if it is running.
pub fn start(level: LevelFilter) {
    static LOGGER: Stderr = Stderr;
    // It fails only if a logger is set already, which is then this one.
    drop(log::set_logger(&LOGGER));
    log::set_max_level(level);
}

/// Writes a line whatever the level is. For the one line that every run ends with.
pub fn say(message: &str) {
    Stderr.log(
        &Record::builder().level(log::Level::Info).target(OWN_TARGET).args(format_args!("{message}")).build(),
    );
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_own(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // There is nowhere to report that stderr is gone; the function goes on.
            drop(std::io::stderr().write_all(line(record).as_bytes()));
        }
    }

    fn flush(&self) {}
}

fn is_own(target: &str) -> bool {
    target.strip_prefix(OWN_TARGET).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `outlast WARN message`, on one line.
fn line(record: &Record<'_>) -> String {
    let message = record.args().to_string();
    let mut line = format!("{OWN_TARGET} {} ", record.level());
    line.extend(message.chars().take(LINE_MAX_CHARS).map(|c| if c.is_control() { ' ' } else { c }));
    if message.chars().nth(LINE_MAX_CHARS).is_some() {
        line.push('…');
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    fn written(message: &str) -> String {
        line(&Record::builder().level(Level::Warn).args(format_args!("{message}")).build())
    }

    #[test]
    fn a_record_is_one_line_with_its_level() {
        assert_eq!(written("backend away"), "outlast WARN backend away\n");
        assert_eq!(written("two\r\nlines\u{1b}[31m"), "outlast WARN two  lines [31m\n");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let line = written(&"é".repeat(LINE_MAX_CHARS + 1));
        assert_eq!(line.chars().count(), "outlast WARN ".len() + LINE_MAX_CHARS + "…\n".chars().count());
    }

    #[test]
    fn libraries_are_not_heard() {
        assert!(is_own("outlast") && is_own("outlast::drain::policy"));
        assert!(!is_own("outlaster") && !is_own("hyper::proto") && !is_own("reqwest"));
    }

    #[test]
    fn starting_twice_changes_the_level() {
        start(LevelFilter::Info);
        start(LevelFilter::Error);
        assert_eq!(log::max_level(), LevelFilter::Error);
    }
}
